//! Pipelines: from the spans of a trace to spansets.

use spoor_traceql::ast::{
    Aggregate, BinaryOp, Expr, Node, Pipeline, Quantifier, Relation, ScalarExpr, SpansetExpr, SpansetKind, SpansetOp,
    StageKind,
};

use super::datum::{self, Datum};
use super::expression::{evaluate, matches};
use super::view::View;

/// Rows of a trace that belong together.
#[derive(Debug, Clone)]
pub(super) struct Spanset {
    /// Ascending, never empty.
    pub(super) rows: Vec<usize>,
    /// Group keys and aggregates.
    pub(super) attributes: Vec<(String, Datum)>,
}

/// Filters of a pipeline that look at events or links.
pub(super) fn filters_of_lists(pipeline: &Pipeline) -> Vec<&Expr> {
    fn of_spanset<'a>(spanset: &'a SpansetExpr, all: &mut Vec<&'a Expr>) {
        match &spanset.kind {
            SpansetKind::Filter(expr) => all.extend(looks_at_lists(expr).then_some(expr)),
            SpansetKind::Pipeline(pipeline) => all.extend(filters_of_lists(pipeline)),
            SpansetKind::Binary { left, right, .. } => {
                of_spanset(left, all);
                of_spanset(right, all);
            }
        }
    }
    let mut all = Vec::new();
    for stage in &pipeline.stages {
        if let StageKind::Spanset(spanset) = &stage.kind {
            of_spanset(spanset, &mut all);
        }
    }
    all
}

fn looks_at_lists(expr: &Expr) -> bool {
    match &expr.node {
        Node::Static(_) => false,
        Node::Attribute(attribute) => {
            attribute.field().is_some_and(|field| field.is_of_events() || field.is_of_links())
        }
        Node::Not(operand) | Node::Minus(operand) => looks_at_lists(operand),
        Node::And(operands) | Node::Or(operands) => operands.iter().any(looks_at_lists),
        Node::Binary { left, right, .. } => looks_at_lists(left) || looks_at_lists(right),
    }
}

/// What a pipeline makes of a whole trace. Errors when a structural operator meets several spansets.
pub(super) fn run(pipeline: &Pipeline, view: &View) -> Result<Vec<Spanset>, String> {
    let rows = (0..view.trace.entries.len()).collect();
    stages(pipeline, view, vec![Spanset { rows, attributes: Vec::new() }])
}

fn stages(pipeline: &Pipeline, view: &View, mut sets: Vec<Spanset>) -> Result<Vec<Spanset>, String> {
    for stage in &pipeline.stages {
        sets = match &stage.kind {
            StageKind::Spanset(expr) => {
                let mut selected = Vec::new();
                for set in &sets {
                    selected.extend(select(expr, view, set)?);
                }
                selected
            }
            StageKind::ScalarFilter { op, left, right } => {
                sets.into_iter().filter_map(|set| scalar_filter(*op, left, right, view, set)).collect()
            }
            StageKind::By(expr) => sets.iter().flat_map(|set| group(expr, view, set)).collect(),
            StageKind::Coalesce => coalesced(&sets),
            StageKind::Select(_) => sets,
        };
    }
    Ok(sets)
}

/// One spanset of those rows, or none when there are no rows.
fn spanset(mut rows: Vec<usize>, attributes: &[(String, Datum)]) -> Vec<Spanset> {
    rows.sort_unstable();
    rows.dedup();
    match rows.is_empty() {
        true => Vec::new(),
        false => vec![Spanset { rows, attributes: attributes.to_vec() }],
    }
}

fn rows_of(sets: &[Spanset]) -> Vec<usize> {
    sets.iter().flat_map(|set| set.rows.clone()).collect()
}

fn coalesced(sets: &[Spanset]) -> Vec<Spanset> {
    spanset(rows_of(sets), &[])
}

fn select(expr: &SpansetExpr, view: &View, input: &Spanset) -> Result<Vec<Spanset>, String> {
    match &expr.kind {
        SpansetKind::Filter(expr) => {
            let rows = input.rows.iter().copied().filter(|row| matches(expr, view, *row)).collect();
            Ok(spanset(rows, &input.attributes))
        }
        SpansetKind::Pipeline(pipeline) => stages(pipeline, view, vec![input.clone()]),
        SpansetKind::Binary { op, left, right } => {
            let (left, right) = (select(left, view, input)?, select(right, view, input)?);
            let is_structural = matches!(op, SpansetOp::Structural(..));
            if is_structural && (left.len() > 1 || right.len() > 1) {
                return Err(format!("{op} needs one spanset per side: use coalesce()"));
            }
            let rows = combine(*op, view, rows_of(&left), rows_of(&right));
            Ok(spanset(rows, &input.attributes))
        }
    }
}

fn combine(op: SpansetOp, view: &View, left: Vec<usize>, right: Vec<usize>) -> Vec<usize> {
    let (relation, quantifier) = match op {
        SpansetOp::And if left.is_empty() || right.is_empty() => return Vec::new(),
        SpansetOp::And | SpansetOp::Or => return [left, right].concat(),
        SpansetOp::Structural(relation, quantifier) => (relation, quantifier),
    };
    let is_left = |row: &usize| right.iter().any(|b| is_related(relation, view, *row, *b));
    let is_right = |row: &usize| left.iter().any(|a| is_related(relation, view, *a, *row));
    match quantifier {
        Quantifier::Plain => right.iter().copied().filter(is_right).collect(),
        Quantifier::Negated => right.iter().copied().filter(|row| !is_right(row)).collect(),
        Quantifier::Union => {
            let pairs = [
                left.iter().copied().filter(is_left).collect::<Vec<_>>(),
                right.iter().copied().filter(is_right).collect(),
            ];
            pairs.concat()
        }
    }
}

/// Whether `a OP b` holds. Never for a span that no root is above.
fn is_related(relation: Relation, view: &View, a: usize, b: usize) -> bool {
    let tree = &view.tree;
    if !tree.is_connected(a) || !tree.is_connected(b) {
        return false;
    }
    match relation {
        Relation::Child => tree.parent(b) == Some(a),
        Relation::Parent => tree.parent(a) == Some(b),
        Relation::Descendant => tree.is_ancestor(a, b),
        Relation::Ancestor => tree.is_ancestor(b, a),
        Relation::Sibling => a != b && tree.parent(a) == tree.parent(b),
    }
}

/// Groups in the order of their first spans.
fn group(expr: &Expr, view: &View, set: &Spanset) -> Vec<Spanset> {
    let mut groups: Vec<(Datum, Vec<usize>)> = Vec::new();
    for row in &set.rows {
        let key = match evaluate(expr, view.at(*row)) {
            Datum::Opaque => Datum::Nil,
            key => key,
        };
        match groups.iter_mut().find(|(other, _)| other.is_same(&key)) {
            Some((_, rows)) => rows.push(*row),
            None => groups.push((key, vec![*row])),
        }
    }
    let with_key = |(key, rows): (Datum, Vec<usize>)| {
        let mut attributes = set.attributes.clone();
        attributes.push((format!("by({expr})"), key));
        Spanset { rows, attributes }
    };
    groups.into_iter().map(with_key).collect()
}

/// The spanset with its aggregates, when the comparison holds.
fn scalar_filter(
    op: BinaryOp,
    left: &ScalarExpr,
    right: &ScalarExpr,
    view: &View,
    mut set: Spanset,
) -> Option<Spanset> {
    let left = scalar(left, view, &mut set);
    let right = scalar(right, view, &mut set);
    datum::compare(op, &left, &right).then_some(set)
}

/// The number of an expression; its aggregates become attributes of the spanset.
fn scalar(expr: &ScalarExpr, view: &View, set: &mut Spanset) -> Datum {
    match expr {
        ScalarExpr::Static(value) => Datum::of_static(value),
        ScalarExpr::Aggregate(function, of) => {
            let value = aggregate(*function, of.as_deref(), view, &set.rows);
            set.attributes.push((expr.to_string(), value.clone()));
            value
        }
        ScalarExpr::Binary { op, left, right } => {
            let left = scalar(left, view, set);
            let right = scalar(right, view, set);
            datum::arithmetic(*op, &left, &right)
        }
    }
}

/// Nil when no span has a number; `count()` always has one.
fn aggregate(function: Aggregate, of: Option<&Expr>, view: &View, rows: &[usize]) -> Datum {
    let Some(of) = of else {
        return Datum::Int(rows.len() as i64);
    };
    let values = rows.iter().map(|row| evaluate(of, view.at(*row)));
    let numbers: Vec<Datum> = values.filter(|value| value.as_float().is_some()).collect();
    // The order of the spans must not show: of equal numbers the widest type is kept, and NaN only alone.
    let fold = |better: BinaryOp| {
        let mut candidates: Vec<Datum> = numbers.clone();
        candidates.sort_by_key(|number| match number {
            Datum::Float(float) if float.is_nan() => 3,
            Datum::Float(_) => 0,
            Datum::Duration(_) => 1,
            _ => 2,
        });
        candidates.into_iter().reduce(|best, next| if datum::compare(better, &next, &best) { next } else { best })
    };
    let sum = || numbers.iter().cloned().reduce(|sum, next| datum::arithmetic(BinaryOp::Add, &sum, &next));
    let value = match function {
        Aggregate::Count => Some(Datum::Int(rows.len() as i64)),
        Aggregate::Min => fold(BinaryOp::Lt),
        Aggregate::Max => fold(BinaryOp::Gt),
        Aggregate::Sum => sum(),
        Aggregate::Avg => sum().map(|sum| average(&sum, numbers.len())),
    };
    value.unwrap_or(Datum::Nil)
}

/// Of durations a duration, truncated; of anything else a float.
fn average(sum: &Datum, count: usize) -> Datum {
    match sum {
        Datum::Duration(nanos) => Datum::Duration(nanos / count as i64),
        sum => Datum::Float(sum.as_float().unwrap_or(f64::NAN) / count as f64),
    }
}
