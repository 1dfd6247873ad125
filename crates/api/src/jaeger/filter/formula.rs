//! A filter as tests of values, joined by and, or, not and some; what it means for a span, and what of it sources can decide.

use spoor_model::scan::field::FieldValue;
use spoor_model::scan::{Condition, Field, Literal, Predicate, Test};
use spoor_model::{SpanEntry, Value};

use super::reference::{Bound, List, Reference};

/// How two values of a span compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Eq,
    Lt,
    Lte,
    Gt,
    Gte,
}

impl Comparison {
    /// The test that a value passes when it compares so with the literal.
    pub(super) fn with(self, literal: Literal) -> Test {
        match self {
            Self::Eq => Test::Eq(literal),
            Self::Lt => Test::Lt(literal),
            Self::Lte => Test::Le(literal),
            Self::Gt => Test::Gt(literal),
            Self::Gte => Test::Ge(literal),
        }
    }

    /// What says the same with the sides exchanged.
    pub(super) fn flipped(self) -> Self {
        match self {
            Self::Eq => Self::Eq,
            Self::Lt => Self::Gt,
            Self::Lte => Self::Gte,
            Self::Gt => Self::Lt,
            Self::Gte => Self::Lte,
        }
    }
}

/// What must hold for a span.
#[derive(Debug, Clone)]
pub(super) enum Formula {
    /// Of a list that is not bound: for one of its items.
    Is(Reference, Test),
    /// One value of the left references compares so with one of the right ones.
    Compare(Comparison, Vec<Reference>, Vec<Reference>),
    All(Vec<Formula>),
    Any(Vec<Formula>),
    Not(Box<Formula>),
    /// Holds with one item of the list bound.
    Some(List, Box<Formula>),
}

/// What sources can say of a formula: a predicate that holds wherever the formula does, and whether it holds nowhere else.
type Planned = (Predicate, bool);

/// Sources can say nothing.
const UNPLANNED: Planned = (Predicate::True, false);

impl Formula {
    /// All of them.
    pub(super) fn all(mut formulas: Vec<Self>) -> Self {
        if formulas.len() == 1 { formulas.remove(0) } else { Self::All(formulas) }
    }

    /// One of them.
    pub(super) fn any(mut formulas: Vec<Self>) -> Self {
        if formulas.len() == 1 { formulas.remove(0) } else { Self::Any(formulas) }
    }

    /// What every span satisfies for which the formula holds, and whether those are all.
    pub(super) fn plan(&self) -> Planned {
        self.planned(true)
    }

    /// Whether it holds for a span.
    pub(super) fn holds(&self, entry: &SpanEntry) -> bool {
        self.holds_with(entry, Bound::default())
    }

    fn holds_with(&self, entry: &SpanEntry, bound: Bound<'_>) -> bool {
        match self {
            Self::Is(reference, test) => {
                let test = tested(test.clone());
                let passes = |value: Option<&Value>| test.holds_for(value);
                match reference.values(entry, bound) {
                    FieldValue::One(value) => passes(value.as_ref()),
                    FieldValue::PerItem(values) => values.iter().any(|value| passes(value.as_ref())),
                }
            }
            Self::Compare(comparison, left, right) => {
                let left = present(left, entry, bound);
                present(right, entry, bound).iter().flat_map(elements).filter_map(literal).any(|literal| {
                    let test = tested(comparison.with(literal));
                    left.iter().any(|value| test.holds_for(Some(value)))
                })
            }
            Self::All(all) => all.iter().all(|formula| formula.holds_with(entry, bound)),
            Self::Any(any) => any.iter().any(|formula| formula.holds_with(entry, bound)),
            Self::Not(formula) => !formula.holds_with(entry, bound),
            Self::Some(List::Events, formula) => {
                let events = entry.span.events.iter();
                events.map(Some).any(|event| formula.holds_with(entry, Bound { event, ..bound }))
            }
            Self::Some(List::Links, formula) => {
                entry.span.links.iter().map(Some).any(|link| formula.holds_with(entry, Bound { link, ..bound }))
            }
        }
    }

    /// What sources can say of where the formula holds, or (`wanted` being false) of where it does not.
    fn planned(&self, wanted: bool) -> Planned {
        match (self, wanted) {
            (Self::Is(Reference::Field(field), test), true) => (is(field.clone(), test.clone()), true),
            (Self::Is(Reference::Field(field), test), false) if field_is_single(field) => {
                opposite(field, test).map_or(UNPLANNED, |test| (is(field.clone(), test), true))
            }
            (Self::Compare(_, left, right), true) => {
                let (predicate, _) = all([left, right].map(|side| present_planned(side)));
                (predicate, false)
            }
            (Self::All(formulas), true) | (Self::Any(formulas), false) => {
                all(formulas.iter().map(|formula| formula.planned(wanted)))
            }
            (Self::Any(formulas), true) | (Self::All(formulas), false) => {
                any(formulas.iter().map(|formula| formula.planned(wanted)))
            }
            (Self::Not(formula), wanted) => formula.planned(!wanted),
            (Self::Some(list, formula), true) => some_planned(*list, formula, true),
            (Self::Is(..) | Self::Compare(..) | Self::Some(..), _) => UNPLANNED,
        }
    }

    /// Adds the parts of what is a conjunction.
    fn conjuncts<'a>(&'a self, wanted: bool, parts: &mut Vec<(&'a Self, bool)>) {
        match (self, wanted) {
            (Self::All(formulas), true) | (Self::Any(formulas), false) => {
                formulas.iter().for_each(|formula| formula.conjuncts(wanted, parts));
            }
            (Self::Not(formula), wanted) => formula.conjuncts(!wanted, parts),
            _ => parts.push((self, wanted)),
        }
    }

    /// Whether it says anything of the list's items.
    fn mentions(&self, list: List) -> bool {
        let is_of = |reference: &Reference| reference.list() == Some(list);
        match self {
            Self::Is(reference, _) => is_of(reference),
            Self::Compare(_, left, right) => left.iter().chain(right).any(is_of),
            Self::All(formulas) | Self::Any(formulas) => formulas.iter().any(|formula| formula.mentions(list)),
            Self::Not(formula) | Self::Some(_, formula) => formula.mentions(list),
        }
    }
}

/// A condition of which only the test counts: what it says of a value is the same for all fields.
fn tested(test: Test) -> Condition {
    Condition { field: Field::Name, test }
}

/// The values that are there.
fn present(references: &[Reference], entry: &SpanEntry, bound: Bound<'_>) -> Vec<Value> {
    let values = references.iter().flat_map(|reference| match reference.values(entry, bound) {
        FieldValue::One(value) => vec![value],
        FieldValue::PerItem(values) => values,
    });
    let there = tested(Test::Exists);
    values.flatten().filter(|value| there.holds_for(Some(value))).collect()
}

fn elements(value: &Value) -> &[Value] {
    match value {
        Value::Array(values) => values,
        value => std::slice::from_ref(value),
    }
}

fn literal(value: &Value) -> Option<Literal> {
    match value {
        Value::Str(text) => Some(Literal::Str(text.as_str().into())),
        Value::Int(int) => Some(Literal::Int(*int)),
        Value::Double(double) => Some(Literal::Float(*double)),
        Value::Bool(flag) => Some(Literal::Bool(*flag)),
        Value::Empty | Value::Bytes(_) | Value::Array(_) | Value::Map(_) => None,
    }
}

fn is(field: Field, test: Test) -> Predicate {
    Predicate::Is(Condition { field, test })
}

/// One of the references is there.
fn present_planned(references: &[Reference]) -> Planned {
    any(references.iter().map(|reference| match reference {
        Reference::Field(field @ Field::Attribute(..)) => (is(field.clone(), Test::Exists), true),
        _ => UNPLANNED,
    }))
}

fn field_is_single(field: &Field) -> bool {
    !field.is_of_events() && !field.is_of_links()
}

/// The test that one value of the field passes exactly when it does not pass this one; `None` when none says that.
fn opposite(field: &Field, test: &Test) -> Option<Test> {
    match test {
        Test::Exists => return Some(Test::Absent),
        Test::Absent => return Some(Test::Exists),
        _ => {}
    }
    // An attribute may be absent or of another type, and then it passes neither.
    if matches!(field, Field::Attribute(..)) {
        return None;
    }
    match test {
        Test::Eq(literal) => Some(Test::Ne(literal.clone())),
        Test::Ne(literal) => Some(Test::Eq(literal.clone())),
        Test::Lt(literal) => Some(Test::Ge(literal.clone())),
        Test::Le(literal) => Some(Test::Gt(literal.clone())),
        Test::Gt(literal) => Some(Test::Le(literal.clone())),
        Test::Ge(literal) => Some(Test::Lt(literal.clone())),
        Test::Regex(regex) => Some(Test::NotRegex(regex.clone())),
        Test::NotRegex(regex) => Some(Test::Regex(regex.clone())),
        Test::Exists | Test::Absent | Test::TextEq(_) | Test::Contains(_) => None,
    }
}

fn all(parts: impl IntoIterator<Item = Planned>) -> Planned {
    let (mut predicates, mut is_exact) = (Vec::new(), true);
    for (predicate, is_part_exact) in parts {
        is_exact &= is_part_exact;
        match predicate {
            Predicate::True => {}
            Predicate::And(inner) => predicates.extend(inner),
            predicate => predicates.push(predicate),
        }
    }
    match predicates.len() {
        0 => (Predicate::True, is_exact),
        1 => (predicates.remove(0), is_exact),
        _ => (Predicate::And(predicates), is_exact),
    }
}

fn any(parts: impl IntoIterator<Item = Planned>) -> Planned {
    let (mut predicates, mut is_exact) = (Vec::new(), true);
    for (predicate, is_part_exact) in parts {
        is_exact &= is_part_exact;
        match predicate {
            Predicate::True => return (Predicate::True, is_part_exact),
            Predicate::Or(inner) => predicates.extend(inner),
            predicate => predicates.push(predicate),
        }
    }
    match predicates.len() {
        0 => (Predicate::False, is_exact),
        1 => (predicates.remove(0), is_exact),
        _ => (Predicate::Or(predicates), is_exact),
    }
}

/// One item of the list for which the formula holds, or (`wanted` being false) does not hold. Distributes over "or";
/// of a conjunction, what says nothing of the list stands beside it.
fn some_planned(list: List, formula: &Formula, wanted: bool) -> Planned {
    match (formula, wanted) {
        (Formula::Not(formula), wanted) => return some_planned(list, formula, !wanted),
        (Formula::Any(formulas), true) | (Formula::All(formulas), false) => {
            return any(formulas.iter().map(|formula| some_planned(list, formula, wanted)));
        }
        _ => {}
    }
    let mut parts = Vec::new();
    formula.conjuncts(wanted, &mut parts);
    let (mut conditions, mut beside, mut is_exact) = (Vec::new(), Vec::new(), true);
    for (formula, wanted) in parts {
        match formula {
            Formula::Is(Reference::Field(field), test) if formula.mentions(list) => {
                let test = if wanted { Some(test.clone()) } else { opposite(field, test) };
                is_exact &= test.is_some();
                conditions.extend(test.map(|test| Condition { field: field.clone(), test }));
            }
            formula if formula.mentions(list) => is_exact = false,
            formula => beside.push(formula.planned(wanted)),
        }
    }
    let of_one_item = match list {
        List::Events => Predicate::OneEvent(conditions),
        List::Links => Predicate::OneLink(conditions),
    };
    all(beside.into_iter().chain([(of_one_item, is_exact)]))
}
