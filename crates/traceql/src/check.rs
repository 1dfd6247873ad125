//! Whether the types of a query agree, as far as they are known before a span is seen.
//!
//! Attributes are dynamic: anything may stand beside them, and a span on which the types do not fit
//! does not match. The rest is decided here, so that a query that can never work says so.

use crate::ast::{
    Attribute, BinaryOp, Body, Expr, Intrinsic, MetricsExpr, MetricsFunction, Node, Pipeline, Pos, Query, ScalarExpr,
    SecondStage, SpansetExpr, SpansetKind, SpansetOp, StageKind, Static,
};
use crate::re2;

/// Why a query that parses cannot mean anything.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{pos}: {message}")]
pub struct TypeError {
    /// Where.
    pub pos: Pos,
    /// What does not fit.
    pub message: String,
}

fn error<T>(pos: Pos, message: impl Into<String>) -> Result<T, TypeError> {
    Err(TypeError { pos, message: message.into() })
}

/// What is known of a value before a span is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Dynamic,
    Nil,
    Bool,
    Int,
    Float,
    Duration,
    Str,
    Status,
    Kind,
}

impl Type {
    fn noun(self) -> &'static str {
        match self {
            Self::Dynamic => "attribute",
            Self::Nil => "nil",
            Self::Bool => "boolean",
            Self::Int => "integer",
            Self::Float => "float",
            Self::Duration => "duration",
            Self::Str => "string",
            Self::Status => "status",
            Self::Kind => "kind",
        }
    }

    fn is_numeric(self) -> bool {
        matches!(self, Self::Int | Self::Float | Self::Duration)
    }

    fn is_number_or_unknown(self) -> bool {
        self.is_numeric() || self == Self::Dynamic
    }

    fn fits(self, other: Self) -> bool {
        let is_open = |side: Self| matches!(side, Self::Dynamic | Self::Nil);
        self == other || self.is_numeric() && other.is_numeric() || is_open(self) || is_open(other)
    }

    fn allows(self, op: BinaryOp) -> bool {
        let is_equality = matches!(op, BinaryOp::Eq | BinaryOp::Ne);
        match self {
            Self::Dynamic => true,
            Self::Nil | Self::Status | Self::Kind | Self::Bool => is_equality,
            Self::Int | Self::Float | Self::Duration => !op.is_regex(),
            Self::Str => !op.is_arithmetic(),
        }
    }
}

/// Checks every expression of a query: the first place at which it cannot mean anything.
pub fn check(query: &Query) -> Result<(), TypeError> {
    match &query.body {
        Body::Search(pipeline) => check_pipeline(pipeline),
        Body::Metrics(metrics) => check_metrics(metrics),
    }
}

fn check_pipeline(pipeline: &Pipeline) -> Result<(), TypeError> {
    pipeline.stages.iter().enumerate().try_for_each(|(index, stage)| match &stage.kind {
        StageKind::Spanset(spanset) if index > 0 && holds_pipeline(spanset) => {
            error(stage.pos, "a pipeline in parentheses can only stand first")
        }
        StageKind::Spanset(spanset) => check_spanset(spanset),
        StageKind::By(expr) => {
            type_of(expr)?;
            check_looks_at_span(expr, "by()")
        }
        StageKind::ScalarFilter { left, right, .. } => {
            check_scalar(left)?;
            check_scalar(right)
        }
        StageKind::Select(attributes) => attributes.iter().try_for_each(|one| check_attribute(one, stage.pos)),
        StageKind::Coalesce => Ok(()),
    })
}

fn holds_pipeline(spanset: &SpansetExpr) -> bool {
    match &spanset.kind {
        SpansetKind::Filter(_) => false,
        SpansetKind::Pipeline(_) => true,
        SpansetKind::Binary { left, right, .. } => holds_pipeline(left) || holds_pipeline(right),
    }
}

/// The parent has values; it is none.
fn check_attribute(attribute: &Attribute, pos: Pos) -> Result<(), TypeError> {
    match attribute {
        Attribute::Intrinsic(Intrinsic::Parent) => {
            error(pos, "parent is not a value; name what you want of it, as in parent.span.x")
        }
        _ => Ok(()),
    }
}

fn check_spanset(spanset: &SpansetExpr) -> Result<(), TypeError> {
    match &spanset.kind {
        SpansetKind::Filter(expr) => check_filter(expr),
        SpansetKind::Pipeline(pipeline) => check_pipeline(pipeline),
        SpansetKind::Binary { op, left, right } => {
            check_spanset(left)?;
            check_spanset(right)?;
            let sides = [left, right].into_iter().filter(|_| matches!(op, SpansetOp::Structural(..)));
            match sides.filter_map(|side| place_of_split(side)).next() {
                Some(pos) => {
                    error(pos, format!("{op} needs one spanset on each side, and by() makes several: use coalesce()"))
                }
                None => Ok(()),
            }
        }
    }
}

/// Where `by()` makes several spansets of one, and nothing after it joins them.
fn place_of_split(spanset: &SpansetExpr) -> Option<Pos> {
    let SpansetKind::Pipeline(pipeline) = &spanset.kind else { return None };
    pipeline.stages.iter().fold(None, |split, stage| match &stage.kind {
        StageKind::By(_) => Some(stage.pos),
        StageKind::Coalesce => None,
        StageKind::Spanset(inner) => split.or_else(|| place_of_split(inner)),
        StageKind::ScalarFilter { .. } | StageKind::Select(_) => split,
    })
}

fn check_filter(expr: &Expr) -> Result<(), TypeError> {
    match type_of(expr)? {
        Type::Bool | Type::Dynamic => Ok(()),
        other => error(expr.pos, format!("a spanset filter must be true or false, not {}", other.noun())),
    }
}

fn check_scalar(scalar: &ScalarExpr) -> Result<(), TypeError> {
    match scalar {
        ScalarExpr::Static(_) | ScalarExpr::Aggregate(_, None) => Ok(()),
        ScalarExpr::Aggregate(aggregate, Some(expr)) => {
            let of = type_of(expr)?;
            if !of.is_number_or_unknown() {
                return error(expr.pos, format!("{aggregate}() needs a number, not {}", of.noun()));
            }
            check_looks_at_span(expr, &format!("{aggregate}()"))
        }
        ScalarExpr::Binary { left, right, .. } => {
            check_scalar(left)?;
            check_scalar(right)
        }
    }
}

/// Attributes in `by()` of a metrics query; one less where the function adds a label of its own.
const GROUP_KEYS_MAX: usize = 5;
/// Values per attribute that `compare()` may be asked for.
const COMPARE_TOP_MAX: i64 = 1000;

fn check_metrics(metrics: &MetricsExpr) -> Result<(), TypeError> {
    match metrics {
        MetricsExpr::Constant(_) => Ok(()),
        MetricsExpr::SecondStage { pos, input, stage } => {
            check_metrics(input)?;
            match stage {
                SecondStage::TopK(k) | SecondStage::BottomK(k) if *k <= 0 => {
                    error(*pos, format!("topk and bottomk need a number above 0, not {k}"))
                }
                _ => check_no_compare(input),
            }
        }
        MetricsExpr::Binary { left, right, .. } => {
            check_metrics(left)?;
            check_metrics(right)?;
            for side in [&**left, &**right] {
                check_no_compare(side)?;
                if let MetricsExpr::Constant(Static::Duration(_)) = side {
                    return error(place(metrics), format!("{side} is a duration; series combine with numbers"));
                }
            }
            Ok(())
        }
        MetricsExpr::Aggregate { pos, pipeline, function, by } => {
            let pos = *pos;
            check_pipeline(pipeline)?;
            let keys_max = match function {
                MetricsFunction::Quantile(..) | MetricsFunction::Histogram(_) | MetricsFunction::Avg(_) => {
                    GROUP_KEYS_MAX - 1
                }
                _ => GROUP_KEYS_MAX,
            };
            by.iter().try_for_each(|key| check_attribute(&key.attribute, pos))?;
            if matches!(function, MetricsFunction::Compare(..)) && !by.is_empty() {
                return error(pos, "compare() has groups of its own and takes no by()");
            }
            if by.len() > keys_max {
                return error(pos, format!("by() of this function takes at most {keys_max} attributes"));
            }
            check_function(function, pos)
        }
    }
}

/// Where a metrics expression has its first function.
fn place(metrics: &MetricsExpr) -> Pos {
    fn first(metrics: &MetricsExpr) -> Option<Pos> {
        match metrics {
            MetricsExpr::Aggregate { pos, .. } => Some(*pos),
            MetricsExpr::SecondStage { input, .. } => first(input),
            MetricsExpr::Binary { left, right, .. } => first(left).or_else(|| first(right)),
            MetricsExpr::Constant(_) => None,
        }
    }
    first(metrics).unwrap_or(Pos { line: 1, column: 1 })
}

fn check_function(function: &MetricsFunction, pos: Pos) -> Result<(), TypeError> {
    match function {
        MetricsFunction::Quantile(_, quantiles) => {
            let is_share = |value: &Static| match value {
                Static::Int(int) => (0..=1).contains(int),
                Static::Float(float) => (0.0..=1.0).contains(float),
                _ => false,
            };
            match quantiles.iter().find(|quantile| !is_share(quantile)) {
                Some(bad) => error(pos, format!("quantile {bad} is not between 0 and 1")),
                None => Ok(()),
            }
        }
        MetricsFunction::Compare(selection, numbers) => {
            check_filter(selection)?;
            match numbers[..] {
                [top, ..] if !(1..=COMPARE_TOP_MAX).contains(&top) => {
                    error(pos, format!("compare() gives 1 to {COMPARE_TOP_MAX} values per attribute, not {top}"))
                }
                [_, from, to] if from <= 0 || to <= from => {
                    error(pos, format!("compare() needs a start above 0 and an end after it, not {from} and {to}"))
                }
                _ => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

/// The series of `compare()` are for people to look at, not to compute with.
fn check_no_compare(metrics: &MetricsExpr) -> Result<(), TypeError> {
    match metrics {
        MetricsExpr::Aggregate { pos, function: MetricsFunction::Compare(..), .. } => {
            error(*pos, "nothing can follow compare()")
        }
        _ => Ok(()),
    }
}

fn check_looks_at_span(expr: &Expr, who: &str) -> Result<(), TypeError> {
    match looks_at_span(expr) {
        true => Ok(()),
        false => error(expr.pos, format!("{who} must look at the span")),
    }
}

fn looks_at_span(expr: &Expr) -> bool {
    match &expr.node {
        Node::Static(_) => false,
        Node::Attribute(_) => true,
        Node::Not(operand) | Node::Minus(operand) => looks_at_span(operand),
        Node::And(operands) | Node::Or(operands) => operands.iter().any(looks_at_span),
        Node::Binary { left, right, .. } => looks_at_span(left) || looks_at_span(right),
    }
}

fn type_of(expr: &Expr) -> Result<Type, TypeError> {
    match &expr.node {
        Node::Static(value) => Ok(type_of_static(value)),
        Node::Attribute(attribute) => {
            check_attribute(attribute, expr.pos)?;
            Ok(match attribute {
                Attribute::Intrinsic(intrinsic) => type_of_intrinsic(*intrinsic),
                _ => Type::Dynamic,
            })
        }
        Node::Not(operand) => match type_of(operand)? {
            Type::Bool | Type::Dynamic => Ok(Type::Bool),
            other => error(expr.pos, format!("! needs a boolean, not {}", other.noun())),
        },
        Node::Minus(operand) => match type_of(operand)? {
            Type::Dynamic => Ok(Type::Float),
            number if number.is_numeric() => Ok(number),
            other => error(expr.pos, format!("- needs a number, not {}", other.noun())),
        },
        Node::And(operands) | Node::Or(operands) => {
            for operand in operands {
                let got = type_of(operand)?;
                if !matches!(got, Type::Bool | Type::Dynamic) {
                    return error(operand.pos, format!("&& and || need booleans, not {}", got.noun()));
                }
            }
            Ok(Type::Bool)
        }
        Node::Binary { op, left, right } => type_of_binary(*op, left, right),
    }
}

fn type_of_binary(op: BinaryOp, left: &Expr, right: &Expr) -> Result<Type, TypeError> {
    let (left_type, right_type) = (type_of(left)?, type_of(right)?);
    if op.is_regex() {
        check_regex(op, right)?;
    }
    if !left_type.fits(right_type) {
        let what = if op.is_arithmetic() { "combine" } else { "compare" };
        return error(right.pos, format!("cannot {what} {} with {}", left_type.noun(), right_type.noun()));
    }
    for (side, side_type) in [(left, left_type), (right, right_type)] {
        if !side_type.allows(op) {
            return error(side.pos, format!("{} cannot be used on {}", op.symbol(), side_type.noun()));
        }
    }
    if op == BinaryOp::Eq {
        check_may_be_absent(left, right)?;
        check_may_be_absent(right, left)?;
    }
    match (op.is_arithmetic(), left_type, right_type) {
        (false, ..) => Ok(Type::Bool),
        (true, Type::Int, Type::Int) => Ok(Type::Int),
        (true, Type::Duration, _) | (true, _, Type::Duration) => Ok(Type::Duration),
        (true, ..) => Ok(Type::Float),
    }
}

fn check_regex(op: BinaryOp, pattern: &Expr) -> Result<(), TypeError> {
    let Node::Static(Static::Str(text)) = &pattern.node else {
        return error(pattern.pos, format!("{} needs a literal string on its right", op.symbol()));
    };
    match re2::anchored(text) {
        Ok(_) => Ok(()),
        Err(reason) => error(pattern.pos, format!("{text:?} is not a regular expression: {reason}")),
    }
}

/// What every span has is never nil, so asking for it is a mistake.
fn check_may_be_absent(value: &Expr, nil: &Expr) -> Result<(), TypeError> {
    if nil.node != Node::Static(Static::Nil) {
        return Ok(());
    }
    match &value.node {
        Node::Attribute(Attribute::Intrinsic(intrinsic)) => {
            error(value.pos, format!("{} is never nil", intrinsic.text()))
        }
        Node::Attribute(attribute @ Attribute::Named(scope, name))
            if *scope == spoor_model::scan::AttrScope::Resource && **name == *"service.name" =>
        {
            error(value.pos, format!("{attribute} is never nil"))
        }
        _ => Ok(()),
    }
}

fn type_of_static(value: &Static) -> Type {
    match value {
        Static::Nil => Type::Nil,
        // Of spans only; no query can write them.
        Static::Array(_) | Static::Opaque(_) => Type::Dynamic,
        Static::Bool(_) => Type::Bool,
        Static::Int(_) => Type::Int,
        Static::Float(_) => Type::Float,
        Static::Str(_) => Type::Str,
        Static::Duration(_) => Type::Duration,
        Static::Status(_) => Type::Status,
        Static::Kind(_) => Type::Kind,
    }
}

fn type_of_intrinsic(intrinsic: Intrinsic) -> Type {
    match intrinsic {
        Intrinsic::Name
        | Intrinsic::StatusMessage
        | Intrinsic::SpanId
        | Intrinsic::ParentId
        | Intrinsic::RootName
        | Intrinsic::RootServiceName
        | Intrinsic::TraceId
        | Intrinsic::EventName
        | Intrinsic::LinkTraceId
        | Intrinsic::LinkSpanId => Type::Str,
        Intrinsic::Duration | Intrinsic::TraceDuration | Intrinsic::EventTimeSinceStart => Type::Duration,
        Intrinsic::ChildCount | Intrinsic::NestedSetLeft | Intrinsic::NestedSetRight | Intrinsic::NestedSetParent => {
            Type::Int
        }
        Intrinsic::Status => Type::Status,
        Intrinsic::Kind => Type::Kind,
        // Dynamic in Tempo too, so a comparison with a number parses and never holds.
        Intrinsic::InstrumentationName | Intrinsic::InstrumentationVersion | Intrinsic::Parent => Type::Dynamic,
    }
}

#[cfg(test)]
mod tests;
