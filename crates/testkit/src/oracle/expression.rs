//! Expressions over one span.

use spoor_model::scan::AttrScope;
use spoor_traceql::ast::{Attribute, BinaryOp, Expr, Intrinsic, Node, Static};

use super::datum::{self, Datum};
use super::view::{At, View};

/// Whether `{ expr }` holds: with one choice of an event and a link it is the boolean true.
pub(super) fn matches(expr: &Expr, view: &View, row: usize) -> bool {
    view.choices(row).into_iter().any(|at| evaluate(expr, at).is_true())
}

/// The value of an expression.
pub(super) fn evaluate(expr: &Expr, at: At<'_>) -> Datum {
    match &expr.node {
        Node::Static(value) => Datum::of_static(value),
        Node::Attribute(attribute) => at.value(attribute),
        Node::Not(operand) => match evaluate(operand, at) {
            Datum::Bool(value) => Datum::Bool(!value),
            _ => Datum::Nil,
        },
        Node::Minus(operand) => match evaluate(operand, at) {
            Datum::Float(value) => Datum::Float(-value),
            // `0 - x` keeps ints and durations what they are, and knows when the result does not fit.
            other => datum::arithmetic(BinaryOp::Sub, &Datum::Int(0), &other),
        },
        Node::And(operands) => Datum::Bool(operands.iter().all(|operand| evaluate(operand, at).is_true())),
        Node::Or(operands) => Datum::Bool(operands.iter().any(|operand| evaluate(operand, at).is_true())),
        Node::Binary { op, left, right } if op.is_arithmetic() => {
            datum::arithmetic(*op, &evaluate(left, at), &evaluate(right, at))
        }
        Node::Binary { op, left, right } => Datum::Bool(match (is_nil(left), is_nil(right)) {
            (true, true) => false,
            (true, false) => compare_with_nil(*op, right, at),
            (false, true) => compare_with_nil(*op, left, at),
            (false, false) => compare(*op, left, right, at),
        }),
    }
}

fn is_nil(expr: &Expr) -> bool {
    matches!(expr.node, Node::Static(Static::Nil))
}

/// `x = nil`: absent. Of an event (a link) this can be said only when there is one.
fn compare_with_nil(op: BinaryOp, operand: &Expr, at: At<'_>) -> bool {
    let span = &at.entry().span;
    let has_owner = match &operand.node {
        Node::Attribute(Attribute::Named(AttrScope::Event, _)) => !span.events.is_empty(),
        Node::Attribute(Attribute::Named(AttrScope::Link, _)) => !span.links.is_empty(),
        _ => true,
    };
    let is_absent = evaluate(operand, at).is_nil();
    op == BinaryOp::Eq && is_absent && has_owner || op == BinaryOp::Ne && !is_absent
}

fn compare(op: BinaryOp, left: &Expr, right: &Expr, at: At<'_>) -> bool {
    let (mut lefts, mut rights) = (operand(left, at), operand(right, at));
    if is_trace_id(left) || is_trace_id(right) {
        lefts.iter_mut().for_each(strip_zeros);
        if !op.is_regex() {
            rights.iter_mut().for_each(strip_zeros);
        }
    }
    lefts.iter().any(|left| rights.iter().any(|right| datum::compare(op, left, right)))
}

/// The values of an operand, of which one must fit; outside of filters only the first.
fn operand(expr: &Expr, at: At<'_>) -> Vec<Datum> {
    match &expr.node {
        Node::Attribute(attribute) if at.choice.is_some() => at.values(attribute),
        _ => vec![evaluate(expr, at)],
    }
}

/// Trace ids are told without their leading zeros.
fn is_trace_id(expr: &Expr) -> bool {
    let ids = [Intrinsic::TraceId, Intrinsic::LinkTraceId].map(Attribute::Intrinsic);
    matches!(&expr.node, Node::Attribute(attribute) if ids.contains(attribute))
}

fn strip_zeros(value: &mut Datum) {
    if let Datum::Str(text) = value {
        *text = text.trim_start_matches('0').to_owned();
    }
}
