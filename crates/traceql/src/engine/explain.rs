//! Plans as text, for `--explain`.

use std::fmt::Write;
use std::sync::Arc;

use spoor_model::columns::{ColumnRequest, ValuesOf};
use spoor_model::scan::{Condition, Field, Literal, Predicate, Test};

use super::Layout;
use super::aggregate::Scalar;
use super::formula::Formula;
use super::operand::{Operand, TraceValue, TreeValue};
use super::pipeline::{Selection, SpansetPlan, Step};
use crate::ast::{Attribute, Intrinsic, Quantifier, SpansetOp};

/// What sources are asked, a line for each thing.
pub(crate) fn request(request: &ColumnRequest) -> String {
    let mut text = String::new();
    for (place, mask) in request.masks.iter().enumerate() {
        let is_needed = if request.needed.contains(&place) { ", needed" } else { "" };
        let _ = writeln!(text, "mask {place}{is_needed}: {}", predicate(mask));
    }
    if !request.columns.is_empty() {
        let columns: Vec<String> = request.columns.iter().map(field).collect();
        let whose = match request.values_of {
            ValuesOf::AllRows => "",
            ValuesOf::NeededRows => ", of needed rows",
            ValuesOf::OneEach => ", one each of needed rows and roots",
        };
        let _ = writeln!(text, "columns{whose}: {}", columns.join(", "));
    }
    match (request.tree, request.copies) {
        (true, _) => text.push_str("the tree; whole traces\n"),
        (false, true) => text.push_str("whole traces\n"),
        (false, false) => {}
    }
    text
}

/// What is done with the answers, a line for each step.
pub(crate) fn steps(plan: &SpansetPlan, layout: &Layout) -> String {
    plan.steps.iter().map(|one| format!("{}\n", step(one, layout))).collect()
}

fn step(step: &Step, layout: &Layout) -> String {
    match step {
        Step::Select(one) => selection(one, layout),
        Step::ScalarFilter { op, left, right } => {
            format!("{} {} {}", scalar(left), op.symbol(), scalar(right))
        }
        Step::By(_, key) => key.clone(),
        Step::Coalesce => "coalesce()".to_owned(),
    }
}

fn selection(one: &Selection, layout: &Layout) -> String {
    let joined = |left: &Selection, op: SpansetOp, right: &Selection| {
        format!("({} {op} {})", selection(left, layout), selection(right, layout))
    };
    match one {
        Selection::Filter(one) => format!("{{ {} }}", formula(one, layout)),
        Selection::Piped(steps) => {
            let steps: Vec<String> = steps.iter().map(|one| step(one, layout)).collect();
            format!("({})", steps.join(" | "))
        }
        Selection::And(left, right) => joined(left, SpansetOp::And, right),
        Selection::Or(left, right) => joined(left, SpansetOp::Or, right),
        Selection::Related { relation, quantifier, left, right } => {
            joined(left, SpansetOp::Structural(*relation, *quantifier), right)
        }
    }
}

fn scalar(one: &Scalar) -> String {
    match one {
        Scalar::Constant(value) => value.to_string(),
        Scalar::Count => "count()".to_owned(),
        Scalar::Aggregate { key, .. } => key.clone(),
        Scalar::Arithmetic { op, left, right } => format!("({} {} {})", scalar(left), op.symbol(), scalar(right)),
    }
}

fn formula(one: &Formula, layout: &Layout) -> String {
    let joined = |formulas: &[Formula], word: &str| {
        let texts: Vec<String> = formulas.iter().map(|one| formula(one, layout)).collect();
        format!("({})", texts.join(word))
    };
    match one {
        Formula::Constant(holds) => holds.to_string(),
        Formula::Mask(mask) => format!("mask {mask}"),
        Formula::Roots(mask) => format!("roots in mask {mask}"),
        Formula::OfParent { mask, or_without: false } => format!("parent in mask {mask}"),
        Formula::OfParent { mask, or_without: true } => format!("no parent, or in mask {mask}"),
        Formula::PerTrace(one) => format!("per trace: {}", operand(one, layout)),
        Formula::Holds(one) => format!("per span: {}", operand(one, layout)),
        Formula::Chosen { operand: one, .. } => format!("for some event and link: {}", operand(one, layout)),
        Formula::Not(one) => format!("not {}", formula(one, layout)),
        Formula::All(formulas) => joined(formulas, " and "),
        Formula::Any(formulas) => joined(formulas, " or "),
    }
}

fn operand(one: &Operand, layout: &Layout) -> String {
    let joined = |operands: &[Operand], symbol: &str| {
        let texts: Vec<String> = operands.iter().map(|one| operand(one, layout)).collect();
        format!("({})", texts.join(symbol))
    };
    let intrinsic = |intrinsic: Intrinsic| intrinsic.text().to_owned();
    match one {
        Operand::Constant(value) => value.to_string(),
        Operand::Field { column, .. } => field(layout.field(*column)),
        Operand::OfParent(of) => format!("parent's {}", operand(of, layout)),
        Operand::OfTrace(TraceValue::Id) => intrinsic(Intrinsic::TraceId),
        Operand::OfTrace(TraceValue::Duration) => intrinsic(Intrinsic::TraceDuration),
        Operand::OfTrace(TraceValue::RootName(_)) => intrinsic(Intrinsic::RootName),
        Operand::OfTrace(TraceValue::RootServiceName(_)) => intrinsic(Intrinsic::RootServiceName),
        Operand::OfTree(TreeValue::ChildCount) => intrinsic(Intrinsic::ChildCount),
        Operand::OfTree(TreeValue::Left) => intrinsic(Intrinsic::NestedSetLeft),
        Operand::OfTree(TreeValue::Right) => intrinsic(Intrinsic::NestedSetRight),
        Operand::OfTree(TreeValue::Parent) => intrinsic(Intrinsic::NestedSetParent),
        Operand::Not(of) => format!("!{}", operand(of, layout)),
        Operand::Minus(of) => format!("-{}", operand(of, layout)),
        Operand::All(operands) => joined(operands, " && "),
        Operand::Any(operands) => joined(operands, " || "),
        Operand::Arithmetic { op, left, right } | Operand::Compare { op, left, right } => {
            format!("({} {} {})", operand(left, layout), op.symbol(), operand(right, layout))
        }
        Operand::Matches { text, regex, is_negated } => {
            format!("({} {} {regex})", operand(text, layout), if *is_negated { "!~" } else { "=~" })
        }
        Operand::IsNil { of, is_negated } => {
            format!("({} {} nil)", operand(of, layout), if *is_negated { "!=" } else { "=" })
        }
    }
}

/// A predicate as a query would say it.
pub(crate) fn predicate(one: &Predicate) -> String {
    let joined = |all: &[Predicate], word: &str| {
        let texts: Vec<String> = all.iter().map(predicate).collect();
        format!("({})", texts.join(word))
    };
    let conditions = |all: &[Condition]| all.iter().map(condition).collect::<Vec<_>>().join(" and ");
    match one {
        Predicate::True => "true".to_owned(),
        Predicate::False => "false".to_owned(),
        Predicate::Is(one) => condition(one),
        Predicate::And(all) => joined(all, " and "),
        Predicate::Or(any) => joined(any, " or "),
        Predicate::OneEvent(all) => format!("(one event: {})", conditions(all)),
        Predicate::OneLink(all) => format!("(one link: {})", conditions(all)),
    }
}

fn condition(one: &Condition) -> String {
    let of = field(&one.field);
    let than = |symbol: &str, literal: &Literal| {
        let value = match literal {
            Literal::Str(text) => format!("{text:?}"),
            Literal::Int(int) => int.to_string(),
            Literal::Float(float) => format!("{float:?}"),
            Literal::Bool(flag) => flag.to_string(),
        };
        format!("{of} {symbol} {value}")
    };
    match &one.test {
        Test::Eq(literal) => than("=", literal),
        Test::Ne(literal) => than("!=", literal),
        Test::Lt(literal) => than("<", literal),
        Test::Le(literal) => than("<=", literal),
        Test::Gt(literal) => than(">", literal),
        Test::Ge(literal) => than(">=", literal),
        Test::Regex(regex) => format!("{of} =~ {regex}"),
        Test::NotRegex(regex) => format!("{of} !~ {regex}"),
        Test::Exists => format!("{of} exists"),
        Test::Absent => format!("{of} is absent"),
        Test::TextEq(text) => format!("{of} reads {text:?}"),
        Test::Contains(text) => format!("{of} contains {text:?}"),
    }
}

fn field(one: &Field) -> String {
    let intrinsic = match one {
        Field::Attribute(scope, name) => return Attribute::Named(*scope, Arc::clone(name)).to_string(),
        Field::StartTime => return "start".to_owned(),
        Field::TraceState => return "trace state".to_owned(),
        Field::Name => Intrinsic::Name,
        Field::Kind => Intrinsic::Kind,
        Field::Status => Intrinsic::Status,
        Field::StatusMessage => Intrinsic::StatusMessage,
        Field::Duration => Intrinsic::Duration,
        Field::TraceId => Intrinsic::TraceId,
        Field::SpanId => Intrinsic::SpanId,
        Field::ParentSpanId => Intrinsic::ParentId,
        Field::InstrumentationName => Intrinsic::InstrumentationName,
        Field::InstrumentationVersion => Intrinsic::InstrumentationVersion,
        Field::EventName => Intrinsic::EventName,
        Field::EventTimeSinceStart => Intrinsic::EventTimeSinceStart,
        Field::LinkTraceId => Intrinsic::LinkTraceId,
        Field::LinkSpanId => Intrinsic::LinkSpanId,
    };
    intrinsic.text().to_owned()
}
