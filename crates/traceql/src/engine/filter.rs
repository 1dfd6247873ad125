//! Planning `{ expr }`: as much of it as can be said in predicates becomes masks, which sources evaluate
//! where the data lies; the rest is evaluated on the rows that the masks leave.
//!
//! An expression holds for a span when it does for *one choice* of one of its events and one of its links.
//! That distributes over `||`, and over the operands of `&&` that look at different lists; what looks at one
//! list stays together, as one [`Predicate::OneEvent`] or [`Predicate::OneLink`] where it is a conjunction
//! of comparisons, and is tried choice by choice where it is not.

use std::sync::Arc;

use spoor_model::SpanId;
use spoor_model::scan::{AttrScope, Condition, Field, Literal, Predicate, Test};

use super::Layout;
use super::formula::Formula;
use super::operand::Operand;
use crate::ast::{Attribute, BinaryOp, Expr, Intrinsic, Node, Static};
use crate::{PlanError, compute, fold, re2};

/// A filter on its way from an expression to a formula.
#[derive(Debug, Clone)]
enum Draft {
    Exact(Predicate),
    /// Roots of traces; the predicate holds for them, and beside them only in irregular traces.
    Roots(Predicate),
    /// What the predicate says of the parent; `or_without`: holds where there is no parent, too.
    OfParent {
        predicate: Predicate,
        or_without: bool,
    },
    Value(Operand),
    Chosen(Operand),
    Not(Box<Draft>),
    All(Vec<Draft>),
    Any(Vec<Draft>),
}

/// What a planned filter says of the rows that satisfy it.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    /// Masks of which every trace with a match has a row in one. `None`: there are none such.
    pub(super) needed: Option<Vec<usize>>,
    /// All such lists of masks that are known, the needed ones among them.
    pub(super) required: Vec<Vec<usize>>,
    /// Masks that every row which is looked at closely is in one of. `None`: all rows are looked at.
    pub(super) cover: Option<Vec<usize>>,
}

/// Plans a filter, and notes in `layout` what it needs.
pub(super) fn plan(expr: &Expr, layout: &mut Layout) -> Result<(Formula, Facts), PlanError> {
    let draft = hold(&fold::folded(expr), layout)?;
    let facts = Facts::of(&draft, layout);
    Ok((draft.placed(layout), facts))
}

/// What an expression looks at beside the span itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Lists {
    events: bool,
    links: bool,
}

impl Lists {
    pub(super) fn of(expr: &Expr) -> Self {
        match &expr.node {
            Node::Static(_) => Self::default(),
            Node::Attribute(attribute) => attribute
                .field()
                .map_or_else(Self::default, |field| Self { events: field.is_of_events(), links: field.is_of_links() }),
            Node::Not(operand) | Node::Minus(operand) => Self::of(operand),
            Node::And(operands) | Node::Or(operands) => operands.iter().map(Self::of).fold(Self::default(), Self::with),
            Node::Binary { left, right, .. } => Self::of(left).with(Self::of(right)),
        }
    }

    fn with(self, other: Self) -> Self {
        Self { events: self.events || other.events, links: self.links || other.links }
    }

    pub(super) fn is_none(self) -> bool {
        self == Self::default()
    }
}

/// For which rows an expression is true, with some choice of event and link.
fn hold(expr: &Expr, layout: &mut Layout) -> Result<Draft, PlanError> {
    match &expr.node {
        Node::Static(value) => Ok(constant(*value == Static::Bool(true))),
        Node::Attribute(_) => truth(expr, true, layout),
        Node::Or(operands) => {
            let drafts = operands.iter().map(|operand| hold(operand, layout)).collect::<Result<Vec<_>, _>>()?;
            Ok(any(drafts))
        }
        Node::And(operands) => conjunction(operands, layout),
        Node::Not(operand) if Lists::of(operand).is_none() => fail(operand, layout),
        Node::Binary { op, left, right } => Ok(match simple(*op, left, right, layout)? {
            Some(draft) => draft,
            None => general(expr, layout)?,
        }),
        _ => general(expr, layout),
    }
}

/// For which rows an attribute is that boolean. A comparison leaves few rows, arrays that hold the boolean
/// among them; the value itself decides.
fn truth(expr: &Expr, wanted: bool, layout: &mut Layout) -> Result<Draft, PlanError> {
    let necessary = comparison(expr, BinaryOp::Eq, &Static::Bool(wanted), layout)?;
    let decisive = match wanted {
        true => evaluated(expr, layout)?,
        false => Draft::Value(Operand::Not(Box::new(Operand::new(expr, layout)?))),
    };
    Ok(all(necessary.into_iter().chain([decisive]).collect()))
}

/// For which rows an expression, that looks at no list, is false: not nil.
fn fail(expr: &Expr, layout: &mut Layout) -> Result<Draft, PlanError> {
    let negated = |draft| match draft {
        Draft::Exact(Predicate::True) => constant(false),
        Draft::Exact(Predicate::False) => constant(true),
        draft => Draft::Not(Box::new(draft)),
    };
    match &expr.node {
        Node::Static(value) => Ok(constant(*value == Static::Bool(false))),
        Node::Attribute(_) => truth(expr, false, layout),
        // False where the operand is true; nil where it is nil.
        Node::Not(operand) => hold(operand, layout),
        Node::Binary { op, .. } if op.is_arithmetic() => Ok(constant(false)),
        Node::Minus(_) => Ok(constant(false)),
        Node::And(_) | Node::Or(_) | Node::Binary { .. } => hold(expr, layout).map(negated),
    }
}

fn constant(holds: bool) -> Draft {
    Draft::Exact(if holds { Predicate::True } else { Predicate::False })
}

/// What no predicate can say, and what must be there for it to hold.
fn general(expr: &Expr, layout: &mut Layout) -> Result<Draft, PlanError> {
    let mut required = Vec::new();
    require(expr, &mut required);
    let required = required.into_iter().map(|field| Draft::Exact(is(field, Test::Exists)));
    let last = evaluated(expr, layout)?;
    Ok(all(required.chain([last]).collect()))
}

/// An expression that is evaluated row by row.
fn evaluated(expr: &Expr, layout: &mut Layout) -> Result<Draft, PlanError> {
    let lists = Lists::of(expr);
    // Every span with events (links) is listed under these, so they tell how many there are.
    if lists.events {
        layout.column(Field::EventName);
    }
    if lists.links {
        layout.column(Field::LinkSpanId);
    }
    let operand = Operand::new(expr, layout)?;
    Ok(if lists.is_none() { Draft::Value(operand) } else { Draft::Chosen(operand) })
}

/// The attributes without which an expression cannot be true.
fn require(expr: &Expr, required: &mut Vec<Field>) {
    match &expr.node {
        Node::Attribute(attribute @ Attribute::Named(..)) => required.extend(attribute.field()),
        Node::And(operands) => operands.iter().for_each(|operand| require(operand, required)),
        Node::Not(operand) if matches!(operand.node, Node::Attribute(_)) => require(operand, required),
        Node::Minus(operand) => require(operand, required),
        Node::Binary { op, left, right } => {
            let is_nil = |side: &Expr| side.node == Node::Static(Static::Nil);
            let asks_for_absence = *op == BinaryOp::Eq && (is_nil(left) || is_nil(right));
            if !asks_for_absence {
                [left, right].into_iter().filter(|side| is_value(side)).for_each(|side| require(side, required));
            }
        }
        _ => {}
    }
}

/// Whether an expression is a value of the span or arithmetic on such, and so nil without its attributes.
fn is_value(expr: &Expr) -> bool {
    match &expr.node {
        Node::Static(_) | Node::Attribute(_) | Node::Minus(_) => true,
        Node::Binary { op, .. } => op.is_arithmetic(),
        Node::Not(_) | Node::And(_) | Node::Or(_) => false,
    }
}

/// `a && b && ...`: what looks at no list, at events, at links, and at both, each for itself.
fn conjunction(operands: &[Expr], layout: &mut Layout) -> Result<Draft, PlanError> {
    let (mut drafts, mut of_lists): (Vec<Draft>, Vec<(Lists, &Expr)>) = (Vec::new(), Vec::new());
    for operand in flat(operands) {
        match Lists::of(operand) {
            lists if lists.is_none() => drafts.push(hold(operand, layout)?),
            lists => of_lists.push((lists, operand)),
        }
    }
    let has_mixed = of_lists.iter().any(|(lists, _)| lists.events && lists.links);
    let groups: Vec<Vec<&Expr>> = match has_mixed {
        true => vec![of_lists.iter().map(|(_, operand)| *operand).collect()],
        false => {
            let of = |events| of_lists.iter().filter(move |(lists, _)| lists.events == events);
            [true, false].map(|events| of(events).map(|(_, operand)| *operand).collect()).into()
        }
    };
    for group in groups.iter().filter(|group| !group.is_empty()) {
        drafts.push(one_choice(group, layout)?);
    }
    Ok(all(drafts))
}

/// Operands of `&&`, and those of `&&` among them.
fn flat(operands: &[Expr]) -> Vec<&Expr> {
    let mut all = Vec::with_capacity(operands.len());
    for operand in operands {
        match &operand.node {
            Node::And(inner) => all.extend(flat(inner)),
            _ => all.push(operand),
        }
    }
    all
}

/// Conditions that must hold with one choice.
fn one_choice(operands: &[&Expr], layout: &mut Layout) -> Result<Draft, PlanError> {
    if let [one] = operands {
        return hold(one, layout);
    }
    let mut conditions = Vec::new();
    for operand in operands {
        match condition(operand, layout)? {
            Some(Draft::Exact(Predicate::Is(condition))) => conditions.push(condition),
            Some(Draft::Exact(Predicate::False)) => return Ok(constant(false)),
            _ => {
                let joined = Node::And(operands.iter().map(|operand| (*operand).clone()).collect());
                return general(&Expr::new(operands[0].pos, joined), layout);
            }
        }
    }
    let of_events = conditions.iter().all(|condition| condition.field.is_of_events());
    Ok(Draft::Exact(if of_events { Predicate::OneEvent(conditions) } else { Predicate::OneLink(conditions) }))
}

/// An operand as one comparison of an attribute with a constant.
fn condition(operand: &Expr, layout: &mut Layout) -> Result<Option<Draft>, PlanError> {
    match &operand.node {
        Node::Binary { op, left, right } => simple(*op, left, right, layout),
        _ => Ok(None),
    }
}

/// A comparison that predicates can say.
fn simple(op: BinaryOp, left: &Expr, right: &Expr, layout: &mut Layout) -> Result<Option<Draft>, PlanError> {
    match (&left.node, &right.node) {
        _ if op.is_arithmetic() => Ok(Some(constant(false))),
        (Node::Static(Static::Str(text)), Node::Static(Static::Str(pattern))) if op.is_regex() => {
            let is_match = regex(pattern, right)?.is_match(text);
            Ok(Some(constant(is_match == (op == BinaryOp::Regex))))
        }
        (Node::Attribute(_), Node::Static(_)) if op.is_regex() => regex_comparison(left, op, right),
        (Node::Attribute(_), Node::Static(value)) => comparison(left, op, value, layout),
        (Node::Static(value), Node::Attribute(_)) if !op.is_regex() => comparison(right, op.flipped(), value, layout),
        _ => Ok(None),
    }
}

/// What of an attribute predicates can look at: its field, and whether that of the parent.
fn looked_at(expr: &Expr) -> Option<(Field, bool)> {
    match &expr.node {
        Node::Attribute(Attribute::OfParent(scope, name)) => Some((Field::Attribute(*scope, Arc::clone(name)), true)),
        Node::Attribute(attribute) => attribute.field().map(|field| (field, false)),
        _ => None,
    }
}

fn is(field: Field, test: Test) -> Predicate {
    Predicate::Is(Condition { field, test })
}

fn regex(pattern: &str, at: &Expr) -> Result<regex::Regex, PlanError> {
    re2::anchored(pattern).map_err(|reason| PlanError::regex(pattern, at.pos, &reason))
}

fn regex_comparison(left: &Expr, op: BinaryOp, right: &Expr) -> Result<Option<Draft>, PlanError> {
    let Node::Static(Static::Str(pattern)) = &right.node else { return Ok(None) };
    let regex = regex(pattern, right)?;
    let test = if op == BinaryOp::Regex { Test::Regex(regex) } else { Test::NotRegex(regex) };
    Ok(match looked_at(left) {
        // Their fields have the leading zeros that queries do not see.
        None | Some((Field::TraceId | Field::LinkTraceId, _)) => None,
        Some((field, false)) => Some(Draft::Exact(is(field, test))),
        Some((field, true)) => Some(Draft::OfParent { predicate: is(field, test), or_without: false }),
    })
}

/// A comparison of an attribute with a constant.
fn comparison(expr: &Expr, op: BinaryOp, value: &Static, layout: &mut Layout) -> Result<Option<Draft>, PlanError> {
    if expr.node == Node::Attribute(Attribute::Intrinsic(Intrinsic::NestedSetParent)) {
        return Ok(roots(op, value));
    }
    let Some((field, is_of_parent)) = looked_at(expr) else {
        return Ok(None);
    };
    let is_id = matches!(field, Field::TraceId | Field::LinkTraceId);
    let is_equality = matches!(op, BinaryOp::Eq | BinaryOp::Ne);
    if is_id && !is_equality {
        return Ok(None);
    }
    if is_of_parent {
        layout.need_tree();
    }
    let of = |predicate, or_without| match is_of_parent {
        true => Draft::OfParent { predicate, or_without },
        false => Draft::Exact(predicate),
    };
    let is_keyword = matches!(value, Static::Status(_) | Static::Kind(_));
    let literal = match value {
        // Sources say it of one event, and of one that has a list of lists; the name without scope means all of them.
        Static::Nil if op == BinaryOp::Eq && matches!(field, Field::Attribute(AttrScope::Any, _)) => return Ok(None),
        Static::Nil if op == BinaryOp::Eq => return Ok(Some(of(is(field, Test::Absent), true))),
        Static::Nil if op == BinaryOp::Ne => return Ok(Some(of(is(field, Test::Exists), false))),
        Static::Nil | Static::Array(_) | Static::Opaque(_) => return Ok(Some(constant(false))),
        // No attribute has the type of a status or a kind.
        _ if is_keyword != matches!(field, Field::Status | Field::Kind) => return Ok(Some(constant(false))),
        Static::Int(int) | Static::Duration(int) => Literal::Int(*int),
        Static::Status(code) | Static::Kind(code) => Literal::Int(i64::from(*code)),
        Static::Float(float) => Literal::Float(*float),
        Static::Bool(flag) => Literal::Bool(*flag),
        Static::Str(text) if is_id => Literal::Str(format!("{:0>32}", text.trim_start_matches('0')).into()),
        Static::Str(text) => Literal::Str(Arc::clone(text)),
    };
    let test = match op {
        BinaryOp::Eq => Test::Eq(literal),
        BinaryOp::Ne => Test::Ne(literal),
        BinaryOp::Lt => Test::Lt(literal),
        BinaryOp::Le => Test::Le(literal),
        BinaryOp::Gt => Test::Gt(literal),
        BinaryOp::Ge => Test::Ge(literal),
        _ => return Ok(None),
    };
    Ok(Some(of(is(field, test), false)))
}

/// `nestedSetParent < 0` is how clients ask for root spans: roots have -1 there, all others 0 or more. A
/// comparison that holds for -1 alone needs no numbers.
fn roots(op: BinaryOp, value: &Static) -> Option<Draft> {
    let holds_for = |parent: i64| compute::compare(op, &Static::Int(parent), value);
    let is_for_none_else = match op {
        BinaryOp::Eq => compute::compare(BinaryOp::Lt, value, &Static::Int(0)),
        BinaryOp::Ne => false,
        // What does not hold for the ends does not hold for what is between.
        _ => !holds_for(0) && !holds_for(i64::MAX),
    };
    let no_parent = Literal::Str(SpanId::default().to_string().into());
    (holds_for(-1) && is_for_none_else).then(|| Draft::Roots(is(Field::ParentSpanId, Test::Eq(no_parent))))
}

/// All of them: predicates joined into one that comes first, constants settled.
fn all(drafts: Vec<Draft>) -> Draft {
    let (mut exact, mut rest) = (Vec::new(), Vec::new());
    let flat = drafts.into_iter().flat_map(|draft| match draft {
        Draft::All(inner) => inner,
        draft => vec![draft],
    });
    for draft in flat {
        match draft {
            Draft::Exact(Predicate::True) => {}
            Draft::Exact(Predicate::False) => return constant(false),
            Draft::Exact(Predicate::And(all)) => exact.extend(all),
            Draft::Exact(predicate) => exact.push(predicate),
            draft => rest.push(draft),
        }
    }
    let exact = match exact.len() {
        0 => None,
        1 => exact.pop(),
        _ => Some(Predicate::And(exact)),
    };
    match (exact, rest.len()) {
        (None, 0) => constant(true),
        (Some(predicate), 0) => Draft::Exact(predicate),
        (None, 1) => rest.remove(0),
        (exact, _) => Draft::All(exact.map(Draft::Exact).into_iter().chain(rest).collect()),
    }
}

/// One of them: predicates joined into one that comes first, constants settled.
fn any(drafts: Vec<Draft>) -> Draft {
    let (mut exact, mut rest) = (Vec::new(), Vec::new());
    for draft in drafts {
        match draft {
            Draft::Exact(Predicate::True) => return constant(true),
            Draft::Exact(Predicate::False) => {}
            Draft::Exact(Predicate::Or(any)) => exact.extend(any),
            Draft::Exact(predicate) => exact.push(predicate),
            draft => rest.push(draft),
        }
    }
    let exact = match exact.len() {
        0 => None,
        1 => exact.pop(),
        _ => Some(Predicate::Or(exact)),
    };
    match (exact, rest.len()) {
        (None, 0) => constant(false),
        (Some(predicate), 0) => Draft::Exact(predicate),
        (None, 1) => rest.remove(0),
        (exact, _) => Draft::Any(exact.map(Draft::Exact).into_iter().chain(rest).collect()),
    }
}

impl Draft {
    fn placed(self, layout: &mut Layout) -> Formula {
        let placed = |drafts: Vec<Self>, layout: &mut Layout| {
            drafts.into_iter().map(|draft| draft.placed(layout)).collect::<Vec<_>>()
        };
        match self {
            Self::Exact(Predicate::True) => Formula::Constant(true),
            Self::Exact(predicate) => Formula::Mask(layout.mask(predicate)),
            Self::Roots(predicate) => {
                layout.need_copies();
                Formula::Roots(layout.mask(predicate))
            }
            Self::OfParent { predicate, or_without } => {
                layout.need_tree();
                Formula::OfParent { mask: layout.mask(predicate), or_without }
            }
            Self::Value(operand) if operand.is_per_trace() => Formula::PerTrace(operand),
            Self::Value(operand) => Formula::Holds(operand),
            Self::Chosen(operand) => {
                let events = layout.find_column(&Field::EventName);
                let links = layout.find_column(&Field::LinkSpanId);
                Formula::Chosen { operand, events, links }
            }
            Self::Not(draft) => Formula::Not(Box::new(draft.placed(layout))),
            Self::All(drafts) => Formula::All(placed(drafts, layout)),
            Self::Any(drafts) => Formula::Any(placed(drafts, layout)),
        }
    }
}

impl Facts {
    fn of(draft: &Draft, layout: &mut Layout) -> Self {
        match draft {
            Draft::Exact(Predicate::True) => Self::default(),
            Draft::Exact(predicate) | Draft::Roots(predicate) => {
                let masks = vec![layout.mask(predicate.clone())];
                Self { required: vec![masks.clone()], needed: Some(masks.clone()), cover: Some(masks) }
            }
            Draft::OfParent { predicate, or_without: false } => {
                let masks = vec![layout.mask(predicate.clone())];
                Self { required: vec![masks.clone()], needed: Some(masks), cover: None }
            }
            Draft::OfParent { .. } | Draft::Value(_) | Draft::Chosen(_) | Draft::Not(_) => Self::default(),
            Draft::All(drafts) => {
                let each: Vec<Self> = drafts.iter().map(|draft| Self::of(draft, layout)).collect();
                each.into_iter().reduce(|facts, next| facts.and(next, layout)).unwrap_or_default()
            }
            Draft::Any(drafts) => {
                let mut facts = Self { needed: Some(Vec::new()), required: Vec::new(), cover: Some(Vec::new()) };
                for draft in drafts {
                    facts = facts.or(Self::of(draft, layout));
                }
                facts
            }
        }
    }

    /// Of what holds when both do, the second being looked at only where the first holds.
    pub(super) fn and(self, other: Self, layout: &Layout) -> Self {
        let needed = match (self.needed, other.needed) {
            (Some(ours), Some(theirs)) if rank(&theirs, layout) > rank(&ours, layout) => Some(theirs),
            (ours, theirs) => ours.or(theirs),
        };
        let mut required = self.required;
        required.extend(other.required);
        Self { needed, required, cover: self.cover }
    }

    /// Of what holds when either does.
    pub(super) fn or(self, other: Self) -> Self {
        let joined = |ours: Option<Vec<usize>>, theirs: Option<Vec<usize>>| {
            ours.zip(theirs).map(|(mut ours, theirs)| {
                ours.extend(theirs.into_iter().filter(|mask| !ours.contains(mask)).collect::<Vec<_>>());
                ours
            })
        };
        let needed = joined(self.needed, other.needed);
        Self { required: needed.iter().cloned().collect(), needed, cover: joined(self.cover, other.cover) }
    }
}

/// How few rows masks are likely to have: the worst of them tells.
fn rank(masks: &[usize], layout: &Layout) -> u32 {
    masks.iter().map(|mask| selectivity(layout.predicate(*mask))).min().unwrap_or(u32::MAX)
}

fn selectivity(predicate: &Predicate) -> u32 {
    match predicate {
        Predicate::True => 0,
        Predicate::False => 100,
        Predicate::Is(Condition { field, test }) => match (field, test) {
            (Field::TraceId | Field::SpanId | Field::LinkTraceId | Field::LinkSpanId, Test::Eq(_)) => 90,
            (Field::ParentSpanId, Test::Eq(_)) => 30,
            (Field::Attribute(..) | Field::Name | Field::EventName | Field::StatusMessage, Test::Eq(_)) => 60,
            (_, Test::Eq(_)) => 40,
            (_, Test::TextEq(_) | Test::Contains(_) | Test::Regex(_)) => 35,
            (_, Test::Lt(_) | Test::Le(_) | Test::Gt(_) | Test::Ge(_)) => 30,
            (_, Test::Exists) => 20,
            (_, Test::Ne(_) | Test::NotRegex(_) | Test::Absent) => 10,
        },
        Predicate::And(all) => all.iter().map(selectivity).max().unwrap_or(0).saturating_add(1),
        Predicate::Or(any) => any.iter().map(selectivity).min().unwrap_or(100),
        Predicate::OneEvent(conditions) | Predicate::OneLink(conditions) => {
            let each = conditions.iter().map(|condition| selectivity(&Predicate::Is(condition.clone())));
            each.max().unwrap_or(0) + 1
        }
    }
}
