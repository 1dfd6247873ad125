//! Constants within expressions, computed before any span is seen.

use crate::ast::{BinaryOp, Expr, Node, Static};
use crate::compute::{self, compare};

/// `-value` of a number that has one.
pub(crate) fn negated(value: &Static) -> Option<Static> {
    Some(compute::negated(value)).filter(|value| !value.is_nil())
}

/// Arithmetic on numbers that stand outside of spansets; errors when there is no result.
pub(crate) fn arithmetic(op: BinaryOp, left: &Static, right: &Static) -> Result<Static, String> {
    match compute::arithmetic(op, left, right) {
        Static::Nil => Err(format!("{left} {} {right} has no value", op.symbol())),
        value => Ok(value),
    }
}

/// The expression with all constant parts computed; what has no value stays as it is, so that `nil` is only
/// ever the keyword.
pub(crate) fn folded(expr: &Expr) -> Expr {
    let all = |operands: &[Expr]| operands.iter().map(folded).collect::<Vec<_>>();
    let node = match &expr.node {
        Node::Static(_) | Node::Attribute(_) => expr.node.clone(),
        Node::Not(operand) => match folded(operand) {
            Expr { node: Node::Static(Static::Bool(value)), .. } => Node::Static(Static::Bool(!value)),
            operand => Node::Not(Box::new(operand)),
        },
        Node::Minus(operand) => match folded(operand) {
            Expr { node: Node::Static(value), .. } if negated(&value).is_some() => {
                Node::Static(compute::negated(&value))
            }
            operand => Node::Minus(Box::new(operand)),
        },
        Node::And(operands) => logical(all(operands), false, Node::And),
        Node::Or(operands) => logical(all(operands), true, Node::Or),
        Node::Binary { op, left, right } => {
            let (left, right) = (folded(left), folded(right));
            constant(*op, &left, &right).map(Node::Static).unwrap_or_else(|| Node::Binary {
                op: *op,
                left: Box::new(left),
                right: Box::new(right),
            })
        }
    };
    Expr::new(expr.pos, node)
}

/// The result of an operation on constants, if it has one.
fn constant(op: BinaryOp, left: &Expr, right: &Expr) -> Option<Static> {
    match (&left.node, &right.node) {
        (Node::Static(_), Node::Static(_)) if op.is_regex() => None,
        (Node::Static(a), Node::Static(b)) if op.is_arithmetic() => arithmetic(op, a, b).ok(),
        (Node::Static(a), Node::Static(b)) => Some(Static::Bool(match a.is_nil() != b.is_nil() {
            true => op == BinaryOp::Ne,
            false => compare(op, a, b),
        })),
        _ => None,
    }
}

/// `&&` and `||` without the constants that do not change them; `decisive` alone decides. A constant that is
/// no boolean counts as false.
fn logical(operands: Vec<Expr>, decisive: bool, make: fn(Vec<Expr>) -> Node) -> Node {
    let constant = |expr: &Expr| match &expr.node {
        Node::Static(value) => Some(*value == Static::Bool(true)),
        _ => None,
    };
    if operands.iter().any(|expr| constant(expr) == Some(decisive)) {
        return Node::Static(Static::Bool(decisive));
    }
    let mut rest: Vec<Expr> = operands.into_iter().filter(|expr| constant(expr).is_none()).collect();
    match rest.len() {
        0 => Node::Static(Static::Bool(!decisive)),
        1 if is_comparison(&rest[0]) => rest.remove(0).node,
        // An attribute alone stays an operand: it may be nil, which `&&` never is.
        _ => make(rest),
    }
}

/// Whether an expression is always true or false.
fn is_comparison(expr: &Expr) -> bool {
    match &expr.node {
        Node::And(_) | Node::Or(_) => true,
        Node::Binary { op, .. } => !op.is_arithmetic(),
        Node::Static(_) | Node::Attribute(_) | Node::Not(_) | Node::Minus(_) => false,
    }
}
