//! Series: what a metrics query answers, and what is done to series once they are whole.

use std::sync::Arc;

use crate::ast::{BinaryOp, SecondStage, Static};
use crate::compute;

/// A name and a value: text, integer, float or boolean.
pub type Label = (Arc<str>, Static);

/// Points over time.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// In the order of the query; `__name__` first where there is one.
    pub labels: Vec<Label>,
    /// One per interval of the window; `None` where there is no point.
    pub values: Vec<Option<f64>>,
    /// By time, then trace.
    pub exemplars: Vec<Exemplar>,
}

/// A span that stands for a point.
#[derive(Debug, Clone, PartialEq)]
pub struct Exemplar {
    /// `trace:id`, then the labels of its series.
    pub labels: Vec<Label>,
    /// What was measured, or the value of the point it belongs to.
    pub value: f64,
    /// Start of the span.
    pub timestamp_nano: u64,
}

/// The label that names ungrouped series.
pub(super) const NAME: &str = "__name__";

impl Series {
    fn has_points(&self) -> bool {
        self.values.iter().any(Option::is_some)
    }

    fn name(&self) -> Option<&Static> {
        self.labels.iter().find(|(key, _)| **key == *NAME).map(|(_, value)| value)
    }

    /// All labels but the name, sorted: what series of two operands are matched by.
    fn identity(&self) -> Vec<&Label> {
        let mut labels: Vec<&Label> = self.labels.iter().filter(|(key, _)| **key != *NAME).collect();
        labels.sort_by(|(a, _), (b, _)| a.cmp(b));
        labels
    }

    /// What ties and orders are decided by.
    fn label_text(&self) -> String {
        let labels = self.labels.iter().map(|(key, value)| format!("{key}={}", text_of(value)));
        labels.collect::<Vec<_>>().join(",")
    }
}

/// A label's value as bare text.
pub(super) fn text_of(value: &Static) -> String {
    match value {
        Static::Str(text) => text.to_string(),
        other => other.to_string(),
    }
}

/// A value as labels have it: keywords, durations and arrays as text.
pub(super) fn label_value(value: &Static) -> Static {
    match value {
        Static::Str(_) | Static::Int(_) | Static::Float(_) | Static::Bool(_) => value.clone(),
        other => Static::Str(other.to_string().into()),
    }
}

/// Fewer labels first, then by label keys, then by label values.
pub(super) fn sort(series: &mut [Series]) {
    series.sort_by_cached_key(|series| {
        let keys: Vec<Arc<str>> = series.labels.iter().map(|(key, _)| Arc::clone(key)).collect();
        let values: Vec<SortValue> = series.labels.iter().map(|(_, value)| SortValue::of(value)).collect();
        (series.labels.len(), keys, values)
    });
}

/// Numbers by size, then texts.
#[derive(PartialEq)]
struct SortValue(f64, String);

impl SortValue {
    fn of(value: &Static) -> Self {
        match value {
            Static::Int(int) => Self(*int as f64, String::new()),
            Static::Float(float) => Self(*float, String::new()),
            other => Self(f64::INFINITY, text_of(other)),
        }
    }
}

impl Eq for SortValue {}

impl PartialOrd for SortValue {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for SortValue {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0).then_with(|| self.1.cmp(&other.1))
    }
}

/// What a stage after the function leaves of series.
pub(super) fn apply(stage: &SecondStage, mut series: Vec<Series>) -> Vec<Series> {
    match stage {
        SecondStage::TopK(count) => select(&mut series, *count as usize, true),
        SecondStage::BottomK(count) => select(&mut series, *count as usize, false),
        SecondStage::Compare(op, value) => {
            let constant = match value {
                Static::Duration(nanos) => *nanos as f64 / 1e9,
                other => compute::as_float(other).unwrap_or(f64::NAN),
            };
            let holds = |point: f64| compute::compare(*op, &Static::Float(point), &Static::Float(constant));
            for series in &mut series {
                series.values.iter_mut().for_each(|value| *value = value.filter(|point| holds(*point)));
            }
        }
    }
    series.retain(Series::has_points);
    series
}

/// Keeps, in each interval, the greatest or least points; ties go to the labels that come first (greatest) or
/// last (least) in the alphabet.
fn select(series: &mut [Series], count: usize, greatest: bool) {
    if series.len() <= count {
        return;
    }
    let texts: Vec<String> = series.iter().map(Series::label_text).collect();
    let interval_count = series.iter().map(|series| series.values.len()).max().unwrap_or(0);
    for interval in 0..interval_count {
        let mut present: Vec<(f64, usize)> =
            (0..series.len()).filter_map(|index| series[index].values[interval].map(|value| (value, index))).collect();
        present.sort_by(|(a, a_index), (b, b_index)| {
            let by_text = texts[*a_index].cmp(&texts[*b_index]);
            match greatest {
                true => b.total_cmp(a).then(by_text),
                false => a.total_cmp(b).then(by_text.reverse()),
            }
        });
        for (_, index) in present.into_iter().skip(count) {
            series[index].values[interval] = None;
        }
    }
}

/// One side of arithmetic.
#[derive(Debug, Clone)]
pub(super) enum Side {
    Number(f64),
    Series(Vec<Series>),
}

/// Arithmetic point by point. Series match by all labels but the name; a single series without other labels
/// goes with every series of the other side. What has no partner, points included, falls away, and so do
/// points that are divided by zero.
pub(super) fn arithmetic(op: BinaryOp, left: Side, right: Side) -> Vec<Series> {
    let compute = |left: f64, right: f64| match op {
        BinaryOp::Add => Some(left + right),
        BinaryOp::Sub => Some(left - right),
        BinaryOp::Mul => Some(left * right),
        BinaryOp::Div if right == 0.0 => None,
        BinaryOp::Div => Some(left / right),
        _ => None,
    };
    let mapped = |mut series: Vec<Series>, with: &dyn Fn(f64) -> Option<f64>| {
        for series in &mut series {
            series.values.iter_mut().for_each(|value| *value = value.and_then(with));
        }
        series.retain(Series::has_points);
        series
    };
    match (left, right) {
        (Side::Number(_), Side::Number(_)) => Vec::new(),
        (Side::Series(series), Side::Number(number)) => mapped(series, &|value| compute(value, number)),
        (Side::Number(number), Side::Series(series)) => mapped(series, &|value| compute(number, value)),
        (Side::Series(left), Side::Series(right)) => {
            let joined = pairs(&left, &right).into_iter().map(|(left, right)| join(op, left, right, &compute));
            joined.filter(Series::has_points).collect()
        }
    }
}

fn pairs<'a>(left: &'a [Series], right: &'a [Series]) -> Vec<(&'a Series, &'a Series)> {
    let single = |side: &'a [Series]| match side {
        [one] if one.identity().is_empty() => Some(one),
        _ => None,
    };
    match (single(left), single(right)) {
        (_, Some(right)) => left.iter().map(|left| (left, right)).collect(),
        (Some(left), None) => right.iter().map(|right| (left, right)).collect(),
        (None, None) => {
            let partner = |of: &Series| right.iter().find(|other| other.identity() == of.identity());
            left.iter().filter_map(|left| Some((left, partner(left)?))).collect()
        }
    }
}

fn join(op: BinaryOp, left: &Series, right: &Series, compute: &dyn Fn(f64, f64) -> Option<f64>) -> Series {
    let richer = if left.identity().len() >= right.identity().len() { left } else { right };
    let mut labels: Vec<Label> = Vec::new();
    if let (Some(left), Some(right)) = (left.name(), right.name()) {
        let name = format!("({} {} {})", text_of(left), op.symbol(), text_of(right));
        labels.push((NAME.into(), Static::Str(name.into())));
    }
    labels.extend(richer.labels.iter().filter(|(key, _)| **key != *NAME).cloned());
    let points = left.values.iter().zip(&right.values);
    let values = points.map(|(left, right)| compute((*left)?, (*right)?)).collect();
    let mut exemplars = left.exemplars.clone();
    exemplars.extend(right.exemplars.iter().cloned());
    Series { labels, values, exemplars }
}
