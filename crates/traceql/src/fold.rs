//! Arithmetic on constants, with the meaning it has on a span's values.

use crate::ast::{BinaryOp, Expr, Node, Pos, Static};

/// `-value` of a number.
pub(crate) fn negated(value: &Static) -> Option<Static> {
    match value {
        Static::Int(int) => int.checked_neg().map(Static::Int),
        Static::Float(float) => Some(Static::Float(-float)),
        Static::Duration(nanos) => nanos.checked_neg().map(Static::Duration),
        _ => None,
    }
}

/// Two integers stay an integer, division rounding towards zero; anything else is a float, durations
/// counting in nanoseconds. Errors when an integer operation has no result.
pub(crate) fn arithmetic(op: BinaryOp, left: &Static, right: &Static) -> Result<Static, String> {
    if let (Static::Int(a), Static::Int(b)) = (left, right) {
        let value = int_arithmetic(op, *a, *b).map(Static::Int);
        return value.ok_or_else(|| format!("{left} {} {right} has no value", op.symbol()));
    }
    match (as_float(left), as_float(right)) {
        (Some(a), Some(b)) => Ok(Static::Float(float_arithmetic(op, a, b))),
        _ => Err(format!("{} needs numbers, not {left} and {right}", op.symbol())),
    }
}

fn int_arithmetic(op: BinaryOp, a: i64, b: i64) -> Option<i64> {
    match op {
        BinaryOp::Add => a.checked_add(b),
        BinaryOp::Sub => a.checked_sub(b),
        BinaryOp::Mul => a.checked_mul(b),
        BinaryOp::Div => a.checked_div(b),
        BinaryOp::Mod => a.checked_rem(b),
        BinaryOp::Pow => Some((a as f64).powf(b as f64) as i64),
        _ => None,
    }
}

fn float_arithmetic(op: BinaryOp, a: f64, b: f64) -> f64 {
    match op {
        BinaryOp::Add => a + b,
        BinaryOp::Sub => a - b,
        BinaryOp::Mul => a * b,
        BinaryOp::Div => a / b,
        BinaryOp::Mod => a % b,
        BinaryOp::Pow => a.powf(b),
        _ => f64::NAN,
    }
}

fn as_float(value: &Static) -> Option<f64> {
    match value {
        Static::Int(int) | Static::Duration(int) => Some(*int as f64),
        Static::Float(float) => Some(*float),
        _ => None,
    }
}

/// Whether a comparison of two constants holds; `false` when they cannot be compared.
pub(crate) fn compare(op: BinaryOp, left: &Static, right: &Static) -> bool {
    let ordering = match (left, right) {
        (Static::Str(a), Static::Str(b)) => Some(a.as_bytes().cmp(b.as_bytes())),
        (Static::Bool(a), Static::Bool(b)) => Some(a.cmp(b)),
        (Static::Status(a), Static::Status(b)) | (Static::Kind(a), Static::Kind(b)) => Some(a.cmp(b)),
        (Static::Int(a) | Static::Duration(a), Static::Int(b) | Static::Duration(b)) => Some(a.cmp(b)),
        _ => match (as_float(left), as_float(right)) {
            (Some(a), Some(b)) => a.partial_cmp(&b),
            _ => return false,
        },
    };
    match op {
        BinaryOp::Eq => ordering.is_some_and(|o| o.is_eq()),
        BinaryOp::Ne => !ordering.is_some_and(|o| o.is_eq()),
        BinaryOp::Lt => ordering.is_some_and(|o| o.is_lt()),
        BinaryOp::Le => ordering.is_some_and(|o| o.is_le()),
        BinaryOp::Gt => ordering.is_some_and(|o| o.is_gt()),
        BinaryOp::Ge => ordering.is_some_and(|o| o.is_ge()),
        _ => false,
    }
}

/// The expression with all constant parts computed. Errors name the operation that has no value.
pub(crate) fn folded(expr: &Expr) -> Result<Expr, (Pos, String)> {
    let all = |operands: &[Expr]| operands.iter().map(folded).collect::<Result<Vec<_>, _>>();
    let node = match &expr.node {
        Node::Static(_) | Node::Attribute(_) => expr.node.clone(),
        Node::Not(operand) => match folded(operand)? {
            Expr { node: Node::Static(Static::Bool(value)), .. } => Node::Static(Static::Bool(!value)),
            operand => Node::Not(Box::new(operand)),
        },
        Node::Minus(operand) => {
            let operand = folded(operand)?;
            let value = match &operand.node {
                Node::Static(value) => negated(value),
                _ => None,
            };
            value.map_or_else(|| Node::Minus(Box::new(operand)), Node::Static)
        }
        Node::And(operands) => logical(all(operands)?, false, Node::And),
        Node::Or(operands) => logical(all(operands)?, true, Node::Or),
        Node::Binary { op, left, right } => {
            let (left, right) = (folded(left)?, folded(right)?);
            match (&left.node, &right.node) {
                (Node::Static(a), Node::Static(b)) if op.is_arithmetic() => {
                    Node::Static(arithmetic(*op, a, b).map_err(|message| (expr.pos, message))?)
                }
                (Node::Static(a), Node::Static(b)) if !op.is_regex() => Node::Static(Static::Bool(compare(*op, a, b))),
                _ => Node::Binary { op: *op, left: Box::new(left), right: Box::new(right) },
            }
        }
    };
    Ok(Expr::new(expr.pos, node))
}

/// `&&` and `||` without the constants that do not change them; `decisive` alone decides.
fn logical(operands: Vec<Expr>, decisive: bool, make: fn(Vec<Expr>) -> Node) -> Node {
    let constant = |expr: &Expr| match expr.node {
        Node::Static(Static::Bool(value)) => Some(value),
        _ => None,
    };
    if operands.iter().any(|expr| constant(expr) == Some(decisive)) {
        return Node::Static(Static::Bool(decisive));
    }
    let mut rest: Vec<Expr> = operands.into_iter().filter(|expr| constant(expr).is_none()).collect();
    match rest.len() {
        0 => Node::Static(Static::Bool(!decisive)),
        // A lone attribute stays an operand: it must be the boolean true, whatever it stands in.
        1 => rest.remove(0).node,
        _ => make(rest),
    }
}
