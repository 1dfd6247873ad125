//! Values of spans: attributes, intrinsics of spans, traces and trees, and expressions over them.

use std::sync::Arc;

use regex::Regex;
use spoor_model::columns::{ColumnBatch, NO_ROW};
use spoor_model::scan::{AttrScope, Field};

use super::Layout;
use super::frame::{Found, Frame};
use crate::ast::{Attribute, BinaryOp, Expr, Intrinsic, Node, Static};
use crate::{PlanError, compute, re2};

/// A value that every span has or lacks, ready to be read from batches.
#[derive(Debug, Clone)]
pub(crate) enum Operand {
    Constant(Static),
    /// A column.
    Field {
        column: usize,
        meaning: Meaning,
    },
    /// The same of the parent span.
    OfParent(Box<Operand>),
    /// The same for all spans of a trace.
    OfTrace(TraceValue),
    OfTree(TreeValue),
    Not(Box<Operand>),
    Minus(Box<Operand>),
    /// Whether all are true.
    All(Vec<Operand>),
    /// Whether one is true.
    Any(Vec<Operand>),
    Arithmetic {
        op: BinaryOp,
        left: Box<Operand>,
        right: Box<Operand>,
    },
    Compare {
        op: BinaryOp,
        left: Box<Operand>,
        right: Box<Operand>,
    },
    Matches {
        text: Box<Operand>,
        regex: Regex,
        is_negated: bool,
    },
    IsNil {
        of: Box<Operand>,
        is_negated: bool,
    },
}

/// What the values of a column are to a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meaning {
    Plain,
    Duration,
    Status,
    Kind,
    /// Trace ids, told without their leading zeros.
    TraceIdOfLink,
    /// A field of events.
    Event,
    /// A field of links.
    Link,
    /// Times of events.
    EventTime,
    /// A name that was looked up in all scopes: perhaps several values at once.
    AnyScope,
}

/// What is known of a trace.
#[derive(Debug, Clone, Copy)]
pub(crate) enum TraceValue {
    /// Without leading zeros.
    Id,
    Duration,
    /// Of the root span, by its name's column.
    RootName(usize),
    /// Of the root span, by its service's column.
    RootServiceName(usize),
}

/// What is known of a span's place in its trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TreeValue {
    ChildCount,
    Left,
    Right,
    Parent,
}

/// Which event and which link of a span a filter looks at.
#[derive(Debug, Clone, Copy)]
pub(super) enum Choice {
    /// The first that has a value, as everywhere outside filters.
    First,
    /// These; `None` when the span has none.
    Of { event: Option<usize>, link: Option<usize> },
}

impl Meaning {
    /// What a field is to a query.
    pub(crate) fn of(field: &Field) -> Self {
        match field {
            Field::Duration => Self::Duration,
            Field::EventTimeSinceStart => Self::EventTime,
            Field::Status => Self::Status,
            Field::Kind => Self::Kind,
            Field::LinkTraceId => Self::TraceIdOfLink,
            Field::Attribute(AttrScope::Any, _) => Self::AnyScope,
            field if field.is_of_events() => Self::Event,
            field if field.is_of_links() => Self::Link,
            _ => Self::Plain,
        }
    }

    pub(super) fn is_of_events(self) -> bool {
        matches!(self, Self::Event | Self::EventTime)
    }

    pub(super) fn is_of_links(self) -> bool {
        matches!(self, Self::Link | Self::TraceIdOfLink)
    }

    /// The value as a query has it.
    pub(crate) fn value(self, raw: Static) -> Static {
        match (self, raw) {
            (Self::Duration | Self::EventTime, Static::Int(nanos)) => Static::Duration(nanos),
            (Self::Status, Static::Int(code)) => Static::Status(code as i32),
            (Self::Kind, Static::Int(code)) => Static::Kind(code as i32),
            (Self::TraceIdOfLink, Static::Str(id)) => Static::Str(id.trim_start_matches('0').into()),
            (_, raw) => raw,
        }
    }
}

impl Operand {
    /// Plans a folded expression, and notes in `layout` what it needs.
    pub(crate) fn new(expr: &Expr, layout: &mut Layout) -> Result<Self, PlanError> {
        let all = |operands: &[Expr], layout: &mut Layout| {
            operands.iter().map(|operand| Self::new(operand, layout)).collect::<Result<Vec<_>, _>>()
        };
        Ok(match &expr.node {
            Node::Static(value) => Self::Constant(value.clone()),
            Node::Attribute(attribute) => Self::of(attribute, layout),
            Node::Not(operand) => Self::Not(Box::new(Self::new(operand, layout)?)),
            Node::Minus(operand) => Self::Minus(Box::new(Self::new(operand, layout)?)),
            Node::And(operands) => Self::All(all(operands, layout)?),
            Node::Or(operands) => Self::Any(all(operands, layout)?),
            Node::Binary { op, left, right } => Self::binary(*op, left, right, layout)?,
        })
    }

    fn binary(op: BinaryOp, left: &Expr, right: &Expr, layout: &mut Layout) -> Result<Self, PlanError> {
        let is_nil = |side: &Expr| side.node == Node::Static(Static::Nil);
        if let (true, Node::Static(Static::Str(pattern))) = (op.is_regex(), &right.node) {
            let text = Box::new(Self::new(left, layout)?);
            let regex = re2::anchored(pattern).map_err(|reason| PlanError::regex(pattern, right.pos, &reason))?;
            return Ok(Self::Matches { text, regex, is_negated: op == BinaryOp::NotRegex });
        }
        if !op.is_arithmetic() && is_nil(left) != is_nil(right) {
            let of = Box::new(Self::new(if is_nil(left) { right } else { left }, layout)?);
            return Ok(Self::IsNil { of, is_negated: op != BinaryOp::Eq });
        }
        let is_trace_id = |side: &Expr| {
            let ids = [Intrinsic::TraceId, Intrinsic::LinkTraceId].map(Attribute::Intrinsic);
            matches!(&side.node, Node::Attribute(attribute) if ids.contains(attribute))
        };
        let strip = is_trace_id(left) || is_trace_id(right);
        let mut side = |side: &Expr| {
            Self::new(side, layout).map(|operand| match operand {
                Self::Constant(Static::Str(text)) if strip => {
                    Self::Constant(Static::Str(text.trim_start_matches('0').into()))
                }
                operand => operand,
            })
        };
        let (left, right) = (Box::new(side(left)?), Box::new(side(right)?));
        Ok(match op.is_arithmetic() {
            true => Self::Arithmetic { op, left, right },
            false => Self::Compare { op, left, right },
        })
    }

    /// Plans an attribute.
    pub(crate) fn of(attribute: &Attribute, layout: &mut Layout) -> Self {
        match attribute {
            Attribute::Intrinsic(intrinsic) => Self::of_intrinsic(*intrinsic, attribute, layout),
            Attribute::Named(..) => Self::of_field(attribute.field(), layout),
            Attribute::OfParent(scope, name) => {
                layout.need_tree();
                layout.read_parents();
                let field = Field::Attribute(*scope, Arc::clone(name));
                Self::OfParent(Box::new(Self::of_field(Some(field), layout)))
            }
        }
    }

    /// Plans an attribute of which one value per row is counted.
    pub(crate) fn counted(attribute: &Attribute, layout: &mut Layout) -> Self {
        match attribute.field() {
            Some(field) => Self::Field { meaning: Meaning::of(&field), column: layout.counted_column(field) },
            None => Self::of(attribute, layout),
        }
    }

    fn of_field(field: Option<Field>, layout: &mut Layout) -> Self {
        match field {
            Some(field) => Self::Field { meaning: Meaning::of(&field), column: layout.column(field) },
            None => Self::Constant(Static::Nil),
        }
    }

    fn of_intrinsic(intrinsic: Intrinsic, attribute: &Attribute, layout: &mut Layout) -> Self {
        let mut of_tree = |value| {
            layout.need_tree();
            Self::OfTree(value)
        };
        match intrinsic {
            Intrinsic::ChildCount => of_tree(TreeValue::ChildCount),
            Intrinsic::NestedSetLeft => of_tree(TreeValue::Left),
            Intrinsic::NestedSetRight => of_tree(TreeValue::Right),
            Intrinsic::NestedSetParent => of_tree(TreeValue::Parent),
            Intrinsic::TraceId => Self::OfTrace(TraceValue::Id),
            Intrinsic::TraceDuration => {
                layout.need_copies();
                Self::OfTrace(TraceValue::Duration)
            }
            Intrinsic::RootName => {
                layout.need_tree();
                layout.read_roots();
                Self::OfTrace(TraceValue::RootName(layout.column(Field::Name)))
            }
            Intrinsic::RootServiceName => {
                layout.need_tree();
                layout.read_roots();
                let field = Field::Attribute(AttrScope::Resource, "service.name".into());
                Self::OfTrace(TraceValue::RootServiceName(layout.column(field)))
            }
            _ => Self::of_field(attribute.field(), layout),
        }
    }

    /// Whether the value is the same for all spans of a trace.
    pub(super) fn is_per_trace(&self) -> bool {
        match self {
            Self::Constant(_) | Self::OfTrace(_) => true,
            Self::Field { .. } | Self::OfParent(_) | Self::OfTree(_) => false,
            Self::Not(of) | Self::Minus(of) | Self::IsNil { of, .. } | Self::Matches { text: of, .. } => {
                of.is_per_trace()
            }
            Self::All(operands) | Self::Any(operands) => operands.iter().all(Self::is_per_trace),
            Self::Arithmetic { left, right, .. } | Self::Compare { left, right, .. } => {
                left.is_per_trace() && right.is_per_trace()
            }
        }
    }

    /// The value of a row.
    pub(crate) fn value(&self, frame: &Frame<'_>, row: usize) -> Static {
        self.chosen(frame, row, Choice::First)
    }

    /// The value of a row with a choice of its events and links.
    pub(super) fn chosen(&self, frame: &Frame<'_>, row: usize, choice: Choice) -> Static {
        let chosen = |operand: &Self| operand.chosen(frame, row, choice);
        match self {
            Self::Constant(value) => value.clone(),
            Self::Field { column, meaning } => match item(*meaning, choice) {
                Some(place) => {
                    let items = frame.column(*column).items(row);
                    let value = place.and_then(|place| items.get(place)?.as_ref());
                    value.map_or(Static::Nil, |value| meaning.value(Static::of(value)))
                }
                None => meaning.value(frame.value(*column, *meaning, row)),
            },
            Self::OfParent(of) => {
                frame.parent(row).map_or(Static::Nil, |parent| of.chosen(frame, parent, Choice::First))
            }
            Self::OfTrace(value) => value.of(frame, row),
            Self::OfTree(value) => value.of(frame, row),
            Self::Not(operand) => match chosen(operand) {
                Static::Bool(value) => Static::Bool(!value),
                _ => Static::Nil,
            },
            Self::Minus(operand) => compute::negated(&chosen(operand)),
            Self::All(operands) => Static::Bool(operands.iter().all(|operand| is_true(&chosen(operand)))),
            Self::Any(operands) => Static::Bool(operands.iter().any(|operand| is_true(&chosen(operand)))),
            Self::Arithmetic { op, left, right } => compute::arithmetic(*op, &chosen(left), &chosen(right)),
            Self::Compare { op, left, right } => Static::Bool(left.any_of(frame, row, choice, &mut |left| {
                right.any_of(frame, row, choice, &mut |right| compute::compare(*op, left, right))
            })),
            Self::Matches { text, regex, is_negated } => {
                Static::Bool(text.any_of(frame, row, choice, &mut |value| matches(regex, *is_negated, value)))
            }
            Self::IsNil { of, is_negated } => {
                let is_nil = of.chosen(frame, row, choice).is_nil();
                Static::Bool(is_nil != *is_negated && (!is_nil || of.has_owner(frame, row)))
            }
        }
    }

    /// Whether something holds for the value, or for one of several that a name without scope stands for.
    fn any_of(&self, frame: &Frame<'_>, row: usize, choice: Choice, holds: &mut dyn FnMut(&Static) -> bool) -> bool {
        let (row, field) = match self {
            Self::OfParent(of) => match frame.parent(row) {
                Some(parent) => (parent, &**of),
                None => return false,
            },
            field => (row, field),
        };
        if let (Self::Field { column, meaning: Meaning::AnyScope }, Choice::Of { .. }) = (field, choice)
            && let Found::Items(items) = frame.column(*column).find(row)
        {
            return items.iter().flatten().any(|item| holds(&Static::of(item)));
        }
        holds(&field.chosen(frame, row, choice))
    }

    /// Of an event or link, nothing can be said where there is none, not even that it is absent.
    fn has_owner(&self, frame: &Frame<'_>, row: usize) -> bool {
        match self {
            Self::Field { column, meaning } if meaning.is_of_events() || meaning.is_of_links() => {
                !frame.column(*column).items(row).is_empty()
            }
            _ => true,
        }
    }
}

/// The place among events or links that a choice gives for a field of theirs: `None` when it gives none.
fn item(meaning: Meaning, choice: Choice) -> Option<Option<usize>> {
    match choice {
        Choice::Of { event, .. } if meaning.is_of_events() => Some(event),
        Choice::Of { link, .. } if meaning.is_of_links() => Some(link),
        _ => None,
    }
}

pub(super) fn is_true(value: &Static) -> bool {
    *value == Static::Bool(true)
}

fn matches(regex: &Regex, is_negated: bool, value: &Static) -> bool {
    match value {
        Static::Str(text) => regex.is_match(text) != is_negated,
        Static::Array(items) if is_negated => items.iter().all(|item| matches(regex, is_negated, item)),
        Static::Array(items) => items.iter().any(|item| matches(regex, is_negated, item)),
        _ => false,
    }
}

impl TraceValue {
    fn of(self, frame: &Frame<'_>, row: usize) -> Static {
        let batch = frame.batch;
        // The last trace that starts at the row or before it; traces have rows, so only one starts there.
        let trace = batch.trace_rows.partition_point(|first| *first as usize <= row) - 1;
        let of_root = |column: usize| {
            let root = batch.roots[trace];
            match (root != NO_ROW).then(|| frame.column(column).value(root as usize)) {
                Some(Static::Str(text)) => Static::Str(text),
                _ => Static::Str("".into()),
            }
        };
        match self {
            Self::Id => Static::Str(batch.trace_ids[trace].to_string().trim_start_matches('0').into()),
            Self::Duration => {
                let range = batch.trace_ranges[trace];
                Static::Duration(i64::try_from(range.end.0.saturating_sub(range.start.0)).unwrap_or(i64::MAX))
            }
            Self::RootName(column) | Self::RootServiceName(column) => of_root(column),
        }
    }
}

impl TreeValue {
    fn of(self, frame: &Frame<'_>, row: usize) -> Static {
        Static::Int(match self {
            Self::ChildCount => i64::from(frame.child_count(row)),
            Self::Left => i64::from(frame.nested_set(row).left),
            Self::Right => i64::from(frame.nested_set(row).right),
            Self::Parent => match frame.parent(row) {
                Some(parent) => i64::from(frame.nested_set(parent).left),
                None if frame.is_connected(row) => -1,
                None => 0,
            },
        })
    }
}
