//! What follows metrics functions: `topk`, `bottomk`, comparisons and arithmetic on series.

use std::cmp::Ordering;

use hashbrown::HashMap;

use super::series::{Exemplar, Label, NAME, Series, text_of};
use crate::ast::{BinaryOp, Static};

/// Per interval the `k` greatest (least) points; of equal ones those of the series whose labels come first (last)
/// in the alphabet. The rest become absent.
pub(super) fn keep_best(all: &mut [Series], k: usize, is_top: bool) {
    if all.len() <= k {
        return;
    }
    let texts: Vec<Vec<String>> = all.iter().map(|series| sorted_labels(&series.labels)).collect();
    for interval in 0..all[0].values.len() {
        let mut ranked: Vec<(f64, usize)> = all
            .iter()
            .enumerate()
            .filter_map(|(place, one)| one.values[interval].map(|point| (point, place)))
            .collect();
        if ranked.len() <= k {
            continue;
        }
        let best_first = |a: &(f64, usize), b: &(f64, usize)| {
            let order = b.0.partial_cmp(&a.0).unwrap_or(Ordering::Equal).then_with(|| texts[a.1].cmp(&texts[b.1]));
            if is_top { order } else { order.reverse() }
        };
        ranked.sort_by(best_first);
        ranked[k..].iter().for_each(|(_, place)| all[*place].values[interval] = None);
    }
}

fn sorted_labels(labels: &[Label]) -> Vec<String> {
    let mut texts: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={}", text_of(value))).collect();
    texts.sort();
    texts
}

/// Drops the points, and the exemplars' values, that do not compare so.
pub(super) fn keep_where(all: &mut [Series], op: BinaryOp, limit: f64) {
    let holds = |value: f64| match op {
        BinaryOp::Eq => value == limit,
        BinaryOp::Ne => value != limit,
        BinaryOp::Lt => value < limit,
        BinaryOp::Le => value <= limit,
        BinaryOp::Gt => value > limit,
        BinaryOp::Ge => value >= limit,
        _ => false,
    };
    for series in all {
        series.values.iter_mut().for_each(|point| *point = point.filter(|value| holds(*value)));
        series.exemplars.retain(|exemplar| exemplar.value.is_nan() || holds(exemplar.value));
    }
}

/// Changes every point, and the values of exemplars; what has no result becomes absent.
pub(super) fn map(all: &mut [Series], of: impl Fn(f64) -> Option<f64>) {
    for series in all {
        series.values.iter_mut().for_each(|point| *point = point.and_then(&of));
        // What has no value yet gets that of its interval, which is changed already.
        series.exemplars.iter_mut().for_each(|exemplar| exemplar.value = of(exemplar.value).unwrap_or(f64::NAN));
    }
}

/// `left op right`; nothing divided by 0 has a value.
pub(super) fn apply(op: BinaryOp, left: f64, right: f64) -> Option<f64> {
    match op {
        BinaryOp::Add => Some(left + right),
        BinaryOp::Sub => Some(left - right),
        BinaryOp::Mul => Some(left * right),
        BinaryOp::Div => Some(left / right).filter(|_| right != 0.0),
        _ => None,
    }
}

/// Combines series of equal labels, the name aside; a side of one series without labels goes with every
/// series of the other. The rest is dropped. Exemplars are those of both; they take the value of their interval.
pub(super) fn join(op: BinaryOp, left: Vec<Series>, right: Vec<Series>) -> Vec<Series> {
    let is_for_all = |side: &[Series]| matches!(side, [one] if one.unnamed().next().is_none());
    let mut joined = Vec::new();
    if is_for_all(&left) {
        right.iter().for_each(|one| joined.push(pair(op, &left[0], one)));
    } else if is_for_all(&right) {
        left.iter().for_each(|one| joined.push(pair(op, one, &right[0])));
    } else {
        let by_labels: HashMap<String, &Series> = right.iter().map(|one| (identity(one), one)).collect();
        let pairs = left.iter().filter_map(|one| Some((one, *by_labels.get(&identity(one))?)));
        joined.extend(pairs.map(|(left, right)| pair(op, left, right)));
    }
    joined
}

/// Text that is equal exactly when the labels are, whatever their order.
fn identity(series: &Series) -> String {
    let mut labels: Vec<&Label> = series.unnamed().collect();
    labels.sort_by(|a, b| a.0.cmp(&b.0));
    format!("{labels:?}")
}

fn pair(op: BinaryOp, left: &Series, right: &Series) -> Series {
    let names = left.name().zip(right.name());
    let joined = names.map(|(a, b)| format!("({} {} {})", text_of(a), op.symbol(), text_of(b)));
    let name = joined.map(|text| (NAME.into(), Static::Str(text.into())));
    let labelled = if left.unnamed().next().is_none() { right } else { left };
    let labels = name.into_iter().chain(labelled.unnamed().cloned()).collect();
    let values = left.values.iter().zip(&right.values).map(|(a, b)| apply(op, (*a)?, (*b)?)).collect();
    let mut series = Series::new(labels, values);
    for exemplar in left.exemplars.iter().chain(&right.exemplars) {
        let is_same =
            |other: &Exemplar| other.labels == exemplar.labels && other.timestamp_nano == exemplar.timestamp_nano;
        if !series.exemplars.iter().any(is_same) {
            series.exemplars.push(Exemplar { value: f64::NAN, ..exemplar.clone() });
        }
    }
    series.exemplars.sort_by_key(|exemplar| exemplar.timestamp_nano);
    series
}

#[cfg(test)]
mod tests;
