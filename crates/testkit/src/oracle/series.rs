//! What follows metrics functions: second stages and arithmetic on series.

use spoor_model::Value;
use spoor_traceql::ast::{BinaryOp, MetricsExpr, SecondStage, Static};

use super::datum::Datum;
use super::metrics::{self, Asked, Labels};
use crate::answer::Series;

const NAME: &str = "__name__";

/// One side of an operator.
enum Operand {
    Number(f64),
    Series(Vec<Series>),
}

/// The series of a metrics query; some may have no point.
pub(super) fn evaluate(expr: &MetricsExpr, asked: Asked<'_>) -> Result<Vec<Series>, String> {
    match operand(expr, asked)? {
        Operand::Series(series) => Ok(series),
        Operand::Number(_) => Err("a number alone has no series".to_owned()),
    }
}

fn operand(expr: &MetricsExpr, asked: Asked<'_>) -> Result<Operand, String> {
    Ok(match expr {
        MetricsExpr::Constant(value) => Operand::Number(in_seconds(value)),
        MetricsExpr::Aggregate { pipeline, function, by, .. } => {
            Operand::Series(metrics::aggregate(pipeline, function, by, asked)?)
        }
        MetricsExpr::SecondStage { input, stage, .. } => {
            let input = evaluate(input, asked)?;
            Operand::Series(match stage {
                SecondStage::TopK(k) => top(input, *k as usize, true),
                SecondStage::BottomK(k) => top(input, *k as usize, false),
                SecondStage::Compare(op, value) => filtered(input, *op, in_seconds(value)),
            })
        }
        MetricsExpr::Binary { op, left, right } => {
            Operand::Series(match (operand(left, asked)?, operand(right, asked)?) {
                (Operand::Series(left), Operand::Series(right)) => joined(*op, &left, &right),
                (Operand::Series(left), Operand::Number(right)) => mapped(left, |value| apply(*op, value, right)),
                (Operand::Number(left), Operand::Series(right)) => mapped(right, |value| apply(*op, left, value)),
                (Operand::Number(_), Operand::Number(_)) => return Err("two numbers have no series".to_owned()),
            })
        }
    })
}

fn in_seconds(value: &Static) -> f64 {
    match value {
        Static::Duration(nanos) => *nanos as f64 / 1e9,
        other => Datum::of_static(other).as_float().unwrap_or(f64::NAN),
    }
}

fn mapped(mut all: Vec<Series>, of: impl Fn(f64) -> Option<f64>) -> Vec<Series> {
    for series in &mut all {
        series.points.iter_mut().for_each(|point| *point = point.and_then(&of));
    }
    all
}

fn filtered(all: Vec<Series>, op: BinaryOp, limit: f64) -> Vec<Series> {
    let holds = |value: f64| match op {
        BinaryOp::Eq => value == limit,
        BinaryOp::Ne => value != limit,
        BinaryOp::Lt => value < limit,
        BinaryOp::Le => value <= limit,
        BinaryOp::Gt => value > limit,
        BinaryOp::Ge => value >= limit,
        _ => false,
    };
    mapped(all, |value| Some(value).filter(|value| holds(*value)))
}

/// Per interval the `k` largest (smallest) points; of equal ones the series whose labels come first
/// (last) in the alphabet.
fn top(all: Vec<Series>, k: usize, is_top: bool) -> Vec<Series> {
    let mut kept = all.clone();
    for interval in 0..all.first().map_or(0, |series| series.points.len()) {
        for (series, kept) in all.iter().zip(&mut kept) {
            let Some(ours) = series.points[interval] else { continue };
            let is_better = |other: &&Series| {
                let Some(theirs) = other.points[interval] else { return false };
                let is_first = labels_text(&other.labels) < labels_text(&series.labels);
                let is_last = labels_text(&other.labels) > labels_text(&series.labels);
                match is_top {
                    true => theirs > ours || theirs == ours && is_first,
                    false => theirs < ours || theirs == ours && is_last,
                }
            };
            if all.iter().filter(is_better).count() >= k {
                kept.points[interval] = None;
            }
        }
    }
    kept
}

fn labels_text(labels: &Labels) -> Vec<String> {
    let mut texts: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={}", label_text(value))).collect();
    texts.sort();
    texts
}

/// A label's value as text.
pub(super) fn label_text(value: &Value) -> String {
    match value {
        Value::Str(text) => text.clone(),
        Value::Int(int) => int.to_string(),
        Value::Double(float) => float.to_string(),
        Value::Bool(value) => value.to_string(),
        _ => String::new(),
    }
}

/// Series of equal labels, the name aside. One series without labels goes with every other.
fn joined(op: BinaryOp, left: &[Series], right: &[Series]) -> Vec<Series> {
    let is_for_all = |side: &[Series]| side.len() == 1 && unnamed(&side[0]).is_empty();
    let mut all = Vec::new();
    for a in left {
        for b in right {
            let fits = is_for_all(left) || is_for_all(right) || is_equal(&unnamed(a), &unnamed(b));
            if fits {
                let labels = if unnamed(a).is_empty() { unnamed(b) } else { unnamed(a) };
                let points = a.points.iter().zip(&b.points).map(|(a, b)| apply(op, (*a)?, (*b)?)).collect();
                all.push(Series { labels: [name(op, a, b), labels].concat(), points });
            }
        }
    }
    all
}

fn unnamed(series: &Series) -> Labels {
    series.labels.iter().filter(|(key, _)| key != NAME).cloned().collect()
}

fn is_equal(a: &Labels, b: &Labels) -> bool {
    a.len() == b.len() && a.iter().all(|label| b.contains(label))
}

/// `(left op right)`, when both sides have names.
fn name(op: BinaryOp, left: &Series, right: &Series) -> Labels {
    let of = |series: &Series| series.labels.iter().find(|(key, _)| key == NAME).map(|(_, value)| label_text(value));
    match (of(left), of(right)) {
        (Some(left), Some(right)) => {
            vec![(NAME.to_owned(), Value::Str(format!("({left} {} {right})", op.symbol())))]
        }
        _ => Vec::new(),
    }
}

/// Nothing divided by 0 has a value.
fn apply(op: BinaryOp, left: f64, right: f64) -> Option<f64> {
    match op {
        BinaryOp::Add => Some(left + right),
        BinaryOp::Sub => Some(left - right),
        BinaryOp::Mul => Some(left * right),
        BinaryOp::Div => Some(left / right).filter(|_| right != 0.0),
        _ => None,
    }
}
