//! From a query to what a scan can be asked.
//!
//! Spanset filters become predicates of [`spoor_model::scan`]; spansets that are joined, or piped
//! into one another, become a [`Spanset`] over the spans of one trace. What predicates cannot say is
//! refused with its place: nothing is evaluated approximately.

use std::sync::Arc;

use regex::Regex;
use spoor_model::scan::{AttrScope, Condition, Field, Literal, Predicate, Test};
use spoor_model::{SpanId, Trace};

use crate::ast::{
    Attribute, BinaryOp, Body, Expr, Intrinsic, Node, Pipeline, Pos, Query, SpansetExpr, SpansetKind, SpansetOp,
    StageKind, Static,
};
use crate::check::check;
use crate::error::PlanError;
use crate::{fold, re2};

/// A query that finds spans, planned.
#[derive(Debug, Clone)]
pub struct SpanFilter {
    /// Which spans of a trace match.
    pub spanset: Spanset,
    /// What the query looks at, then what it selects: the fields that results show. Each once.
    pub shown: Vec<Field>,
}

/// Which spans of one trace match.
#[derive(Debug, Clone)]
pub enum Spanset {
    /// Those that satisfy a predicate.
    Filter(Predicate),
    /// Those of both, when neither is empty.
    And(Box<Self>, Box<Self>),
    /// Those of both.
    Or(Box<Self>, Box<Self>),
    /// Those that the second finds among those of the first.
    Piped(Box<Self>, Box<Self>),
}

fn unsupported<T>(pos: Pos, what: impl Into<String>) -> Result<T, PlanError> {
    Err(PlanError::Unsupported { pos, what: what.into() })
}

/// Checks a query and plans it.
pub fn plan(query: &Query) -> Result<SpanFilter, PlanError> {
    check(query)?;
    match &query.body {
        Body::Search(pipeline) => {
            let mut shown = Vec::new();
            let spanset = plan_pipeline(pipeline, &mut shown)?;
            Ok(SpanFilter { spanset, shown })
        }
        Body::Metrics(_) => unsupported(Pos { line: 1, column: 1 }, "metrics queries are"),
    }
}

impl Spanset {
    /// What at least one span of every trace with a match satisfies.
    pub fn scan_predicate(&self) -> Predicate {
        match self {
            Self::Filter(predicate) => predicate.clone(),
            Self::Or(left, right) => Predicate::Or(vec![left.scan_predicate(), right.scan_predicate()]),
            // Both sides must have a match, so either will do; one that says something is better.
            Self::And(left, right) => match left.scan_predicate() {
                Predicate::True => right.scan_predicate(),
                predicate => predicate,
            },
            Self::Piped(first, second) => match first.scan_predicate() {
                Predicate::True => second.scan_predicate(),
                predicate => predicate,
            },
        }
    }

    /// Indexes of the trace's entries that match, ascending.
    pub fn matched(&self, trace: &Trace) -> Vec<usize> {
        let all: Vec<usize> = (0..trace.entries.len()).collect();
        self.matched_among(trace, &all)
    }

    fn matched_among(&self, trace: &Trace, among: &[usize]) -> Vec<usize> {
        match self {
            Self::Filter(predicate) => {
                among.iter().copied().filter(|index| predicate.matches(&trace.entries[*index])).collect()
            }
            Self::And(left, right) => {
                let (left, right) = (left.matched_among(trace, among), right.matched_among(trace, among));
                if left.is_empty() || right.is_empty() { Vec::new() } else { union(left, right) }
            }
            Self::Or(left, right) => union(left.matched_among(trace, among), right.matched_among(trace, among)),
            Self::Piped(first, second) => second.matched_among(trace, &first.matched_among(trace, among)),
        }
    }
}

fn union(mut left: Vec<usize>, right: Vec<usize>) -> Vec<usize> {
    left.extend(right);
    left.sort_unstable();
    left.dedup();
    left
}

fn plan_pipeline(pipeline: &Pipeline, shown: &mut Vec<Field>) -> Result<Spanset, PlanError> {
    let mut planned: Option<Spanset> = None;
    for stage in &pipeline.stages {
        match &stage.kind {
            StageKind::Spanset(spanset) => {
                let next = plan_spanset(spanset, shown)?;
                planned = Some(match planned {
                    Some(first) => Spanset::Piped(Box::new(first), Box::new(next)),
                    None => next,
                });
            }
            StageKind::Select(attributes) => {
                attributes.iter().try_for_each(|attribute| show_selected(stage.pos, attribute, shown))?;
            }
            StageKind::ScalarFilter { .. } => return unsupported(stage.pos, "aggregates are"),
            StageKind::By(_) => return unsupported(stage.pos, "by() is"),
            StageKind::Coalesce => return unsupported(stage.pos, "coalesce() is"),
        }
    }
    Ok(planned.unwrap_or(Spanset::Filter(Predicate::True)))
}

fn show(field: Field, shown: &mut Vec<Field>) {
    if !shown.contains(&field) {
        shown.push(field);
    }
}

fn show_selected(pos: Pos, attribute: &Attribute, shown: &mut Vec<Field>) -> Result<(), PlanError> {
    match (attribute, attribute.field()) {
        (_, Some(field)) => {
            show(field, shown);
            Ok(())
        }
        // Every result names these anyway, and never among the span's attributes.
        (Attribute::Intrinsic(Intrinsic::TraceDuration | Intrinsic::RootName | Intrinsic::RootServiceName), _) => {
            Ok(())
        }
        (attribute, None) => unsupported(pos, format!("selecting {attribute} is")),
    }
}

fn plan_spanset(spanset: &SpansetExpr, shown: &mut Vec<Field>) -> Result<Spanset, PlanError> {
    match &spanset.kind {
        SpansetKind::Filter(expr) => {
            let folded = fold::folded(expr);
            Ok(Spanset::Filter(predicate(&folded, shown)?))
        }
        SpansetKind::Pipeline(pipeline) => plan_pipeline(pipeline, shown),
        SpansetKind::Binary { op, left, right } => {
            let make = match op {
                SpansetOp::And => Spanset::And,
                SpansetOp::Or => Spanset::Or,
                SpansetOp::Structural(..) => {
                    return unsupported(right.pos, format!("structural operators ({op}) are"));
                }
            };
            Ok(make(Box::new(plan_spanset(left, shown)?), Box::new(plan_spanset(right, shown)?)))
        }
    }
}

fn predicate(expr: &Expr, shown: &mut Vec<Field>) -> Result<Predicate, PlanError> {
    let all = |operands: &[Expr], shown: &mut Vec<Field>| {
        operands.iter().map(|operand| predicate(operand, shown)).collect::<Result<Vec<_>, _>>()
    };
    match &expr.node {
        Node::Static(Static::Bool(true)) => Ok(Predicate::True),
        // The type check lets no other constant through.
        Node::Static(_) => Ok(Predicate::False),
        Node::Attribute(_) => compare_attribute(expr, BinaryOp::Eq, &Static::Bool(true), expr.pos, shown),
        Node::And(operands) => Ok(Predicate::And(all(operands, shown)?)),
        Node::Or(operands) => Ok(Predicate::Or(all(operands, shown)?)),
        Node::Not(_) => unsupported(expr.pos, "! before what spans decide is"),
        Node::Minus(_) => unsupported(expr.pos, "arithmetic on attributes is"),
        Node::Binary { op, left, right } => match (&left.node, &right.node) {
            (Node::Attribute(_), Node::Static(value)) => compare_attribute(left, *op, value, right.pos, shown),
            (Node::Static(Static::Str(text)), Node::Static(Static::Str(pattern))) => {
                let is_match = regex(pattern, right.pos)?.is_match(text);
                let holds = is_match == (*op == BinaryOp::Regex);
                Ok(if holds { Predicate::True } else { Predicate::False })
            }
            (Node::Static(value), Node::Attribute(_)) => compare_attribute(right, op.flipped(), value, left.pos, shown),
            (Node::Attribute(_), Node::Attribute(_)) => unsupported(right.pos, "comparing two attributes is"),
            _ => {
                let is_arithmetic = |side: &Expr| match &side.node {
                    Node::Minus(_) => true,
                    Node::Binary { op, .. } => op.is_arithmetic(),
                    _ => false,
                };
                match is_arithmetic(left) || is_arithmetic(right) || op.is_arithmetic() {
                    true => unsupported(expr.pos, "arithmetic on attributes is"),
                    false => unsupported(expr.pos, "comparing the result of a comparison is"),
                }
            }
        },
    }
}

/// One comparison of a value of the span (`expr`, an attribute) with a constant.
fn compare_attribute(
    expr: &Expr,
    op: BinaryOp,
    value: &Static,
    value_pos: Pos,
    shown: &mut Vec<Field>,
) -> Result<Predicate, PlanError> {
    let Node::Attribute(attribute) = &expr.node else { unreachable!("the caller has looked") };
    if *attribute == Attribute::Intrinsic(Intrinsic::NestedSetParent) {
        return root_or_not(expr.pos, op, value);
    }
    let Some(field) = attribute.field() else {
        return unsupported(expr.pos, format!("{attribute} is"));
    };
    show(field.clone(), shown);
    if let Static::Nil = value {
        return match (op, &field) {
            (BinaryOp::Eq, Field::Attribute(AttrScope::Event | AttrScope::Link, _)) => {
                unsupported(expr.pos, format!("{attribute} = nil is"))
            }
            (BinaryOp::Eq, _) => Ok(Predicate::Is(Condition { field, test: Test::Absent })),
            _ => Ok(Predicate::Is(Condition { field, test: Test::Exists })),
        };
    }
    let is_keyword = matches!(value, Static::Status(_) | Static::Kind(_));
    if is_keyword && matches!(field, Field::Attribute(..) | Field::InstrumentationName | Field::InstrumentationVersion)
    {
        // No attribute has the type of a status or a kind.
        return Ok(Predicate::False);
    }
    if field == Field::TraceId && !matches!(op, BinaryOp::Eq | BinaryOp::Ne) {
        return unsupported(expr.pos, format!("{attribute} {} is", op.symbol()));
    }
    let test = test(op, &field, value, value_pos)?;
    Ok(Predicate::Is(Condition { field, test }))
}

fn test(op: BinaryOp, field: &Field, value: &Static, pos: Pos) -> Result<Test, PlanError> {
    let literal = match value {
        Static::Int(int) | Static::Duration(int) => Literal::Int(*int),
        Static::Status(code) | Static::Kind(code) => Literal::Int(i64::from(*code)),
        Static::Float(float) => Literal::Float(*float),
        Static::Bool(flag) => Literal::Bool(*flag),
        Static::Str(text) if *field == Field::TraceId => Literal::Str(padded_trace_id(text)),
        Static::Str(text) if op.is_regex() => {
            let regex = regex(text, pos)?;
            return Ok(if op == BinaryOp::Regex { Test::Regex(regex) } else { Test::NotRegex(regex) });
        }
        Static::Str(text) => Literal::Str(Arc::clone(text)),
        Static::Nil | Static::Array(_) | Static::Opaque(_) => unreachable!("decided by the caller"),
    };
    Ok(match op {
        BinaryOp::Eq => Test::Eq(literal),
        BinaryOp::Ne => Test::Ne(literal),
        BinaryOp::Lt => Test::Lt(literal),
        BinaryOp::Le => Test::Le(literal),
        BinaryOp::Gt => Test::Gt(literal),
        BinaryOp::Ge => Test::Ge(literal),
        _ => unreachable!("the caller passes comparisons, and the type check keeps regexes to strings"),
    })
}

/// Trace ids compare without their leading zeros; the field has them all.
fn padded_trace_id(text: &str) -> Arc<str> {
    format!("{:0>32}", text.trim_start_matches('0')).into()
}

/// `nestedSetParent < 0` is how clients ask for root spans: roots have -1 there, all others 0 or
/// more. A comparison that tells just these two apart needs no numbering.
fn root_or_not(pos: Pos, op: BinaryOp, value: &Static) -> Result<Predicate, PlanError> {
    let holds_for = |parent: i64| crate::compute::compare(op, &Static::Int(parent), value);
    let is_monotone = !matches!(op, BinaryOp::Eq | BinaryOp::Ne);
    let tells_minus_one = matches!(value, Static::Int(-1));
    let is_decided = (is_monotone && holds_for(0) == holds_for(i64::MAX)) || tells_minus_one;
    if !is_decided || holds_for(-1) == holds_for(0) {
        return unsupported(pos, format!("nestedSetParent {} {value} is", op.symbol()));
    }
    let no_parent = Literal::Str(SpanId::default().to_string().into());
    let test = if holds_for(-1) { Test::Eq(no_parent) } else { Test::Ne(no_parent) };
    Ok(Predicate::Is(Condition { field: Field::ParentSpanId, test }))
}

fn regex(pattern: &str, pos: Pos) -> Result<Regex, PlanError> {
    re2::anchored(pattern).map_err(|reason| PlanError::Invalid {
        pos,
        message: format!("{pattern:?} is not a regular expression: {reason}"),
    })
}

#[cfg(test)]
mod tests;
