//! Series: what a metrics query answers.

use std::sync::Arc;

use crate::ast::Static;

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
    pub(super) fn new(labels: Vec<Label>, values: Vec<Option<f64>>) -> Self {
        Self { labels, values, exemplars: Vec::new() }
    }

    pub(super) fn has_points(&self) -> bool {
        self.values.iter().any(Option::is_some)
    }

    pub(super) fn name(&self) -> Option<&Static> {
        self.labels.iter().find(|(key, _)| **key == *NAME).map(|(_, value)| value)
    }

    /// All labels but the name.
    pub(super) fn unnamed(&self) -> impl Iterator<Item = &Label> {
        self.labels.iter().filter(|(key, _)| **key != *NAME)
    }
}

/// A label's value as bare text.
pub(super) fn text_of(value: &Static) -> String {
    match value {
        Static::Str(text) => text.to_string(),
        other => other.to_string(),
    }
}

/// A value as labels have it: keywords, durations and arrays as text; nil for what cannot be told from others.
pub(super) fn label_value(value: &Static) -> Static {
    match value {
        Static::Duration(_) | Static::Status(_) | Static::Kind(_) | Static::Array(_) => {
            Static::Str(value.to_string().into())
        }
        Static::Opaque(_) => Static::Nil,
        other => other.clone(),
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
            // What is as large is told apart by its type.
            Static::Int(int) => Self(*int as f64, format!("{value:?}")),
            Static::Float(float) => Self(*float, format!("{value:?}")),
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
