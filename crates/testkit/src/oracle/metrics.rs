//! Metrics functions: from the spans of a pipeline to series.

use spoor_model::scan::AttrScope;
use spoor_model::{KeyValue, Value};
use spoor_traceql::ast::{Attribute, GroupKey, Intrinsic, MetricsFunction, Pipeline, Static};

use super::datum::Datum;
use super::view::{At, View};
use super::{expression, pipeline, weight};
use crate::answer::{Series, Window};

pub(super) type Labels = Vec<(String, Value)>;

/// What was observed under some labels: the values of each interval.
struct Group {
    labels: Labels,
    values: Vec<Vec<f64>>,
}

/// Groups, in order of appearance.
struct Groups {
    all: Vec<Group>,
    window: Window,
}

impl Groups {
    fn group(&mut self, labels: Labels) -> &mut Group {
        let place = self.all.iter().position(|group| group.labels == labels).unwrap_or_else(|| {
            self.all.push(Group { labels, values: vec![Vec::new(); self.window.interval_count()] });
            self.all.len() - 1
        });
        &mut self.all[place]
    }

    fn observe(&mut self, labels: Labels, interval: usize, value: f64) {
        self.group(labels).values[interval].push(value);
    }

    fn into_series(self, point: impl Fn(&[f64]) -> Option<f64>) -> Vec<Series> {
        let series = |group: Group| Series {
            labels: group.labels,
            points: group.values.iter().map(|values| point(values)).collect(),
        };
        self.all.into_iter().map(series).collect()
    }
}

/// Of what a query is answered.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) views: &'a [View],
    pub(super) window: Window,
    /// Whether a span stands for those that its sampler dropped.
    pub(super) is_extrapolated: bool,
}

/// The series of `pipeline | function by(...)`.
pub(super) fn aggregate(
    pipeline: &Pipeline,
    function: &MetricsFunction,
    by: &[GroupKey],
    asked: Asked<'_>,
) -> Result<Vec<Series>, String> {
    let window = asked.window;
    let filters = match function {
        // Of events and links it counts the first.
        MetricsFunction::Compare(..) => Vec::new(),
        _ => pipeline::filters_of_lists(pipeline),
    };
    let views: Vec<View> = asked.views.iter().map(|view| view.exposed(&filters)).collect();
    let spans = spans(pipeline, Asked { views: &views, ..asked })?;
    let mut groups = Groups { all: Vec::new(), window };
    // The series without grouping is there even when no span is.
    if by.is_empty() && !matches!(function, MetricsFunction::Histogram(_) | MetricsFunction::Compare(..)) {
        groups.group(ungrouped_labels(function));
    }
    for (interval, at) in spans {
        match function {
            MetricsFunction::Compare(selection, numbers) => {
                let is_selected = expression::matches(selection, at.view, at.row) && is_in_range(numbers, at);
                let side = if is_selected { "selection" } else { "baseline" };
                for (key, value) in compared(at) {
                    observe_compared(&mut groups, interval, side, &key, value);
                }
            }
            MetricsFunction::Histogram(of) => {
                if let Some(bound) = bucket(&at.value(of)) {
                    let mut labels = group_labels(by, at);
                    labels.push(("__bucket".to_owned(), Value::Double(bound)));
                    groups.observe(labels, interval, 1.0);
                }
            }
            _ => {
                if let Some(value) = observed(function, at) {
                    let labels = if by.is_empty() { ungrouped_labels(function) } else { group_labels(by, at) };
                    groups.observe(labels, interval, value);
                }
            }
        }
    }
    Ok(match function {
        MetricsFunction::Rate => groups.into_series(|values| Some(values.len() as f64 / (window.step as f64 / 1e9))),
        MetricsFunction::Count | MetricsFunction::Histogram(_) => {
            groups.into_series(|values| Some(values.len() as f64))
        }
        MetricsFunction::Min(_) => groups.into_series(|values| values.iter().copied().reduce(f64::min)),
        MetricsFunction::Max(_) => groups.into_series(|values| values.iter().copied().reduce(f64::max)),
        MetricsFunction::Sum(_) => groups.into_series(|values| values.iter().copied().reduce(|a, b| a + b)),
        MetricsFunction::Avg(_) => groups.into_series(|values| {
            let sum = values.iter().copied().reduce(|a, b| a + b);
            sum.map(|sum| sum / values.len() as f64)
        }),
        MetricsFunction::Quantile(_, quantiles) => quantile_series(groups.all, quantiles),
        MetricsFunction::Compare(_, numbers) => {
            let top = numbers.first().map_or(10, |top| *top as usize);
            top_values(groups.into_series(|values| Some(values.len() as f64)), top)
        }
    })
}

/// The spans that start within the window with their interval, each as often as it counts.
fn spans<'a>(pipeline: &Pipeline, asked: Asked<'a>) -> Result<Vec<(usize, At<'a>)>, String> {
    let Asked { views, window, is_extrapolated } = asked;
    let mut spans = Vec::new();
    for view in views {
        let mut rows: Vec<usize> = pipeline::run(pipeline, view)?.into_iter().flat_map(|set| set.rows).collect();
        rows.sort_unstable();
        rows.dedup();
        for row in rows {
            if let Some(interval) = window.interval_of(view.trace.entries[row].span.start.0) {
                let times = if is_extrapolated { weight::of(&view.trace.entries[row].span) } else { 1 };
                spans.extend(std::iter::repeat_n((interval, view.at(row)), times));
            }
        }
    }
    Ok(spans)
}

/// What a span adds to its interval; durations in seconds, for quantiles the bound of its bucket.
fn observed(function: &MetricsFunction, at: At<'_>) -> Option<f64> {
    match function {
        MetricsFunction::Rate | MetricsFunction::Count => Some(1.0),
        MetricsFunction::Min(of) | MetricsFunction::Max(of) | MetricsFunction::Sum(of) | MetricsFunction::Avg(of) => {
            match at.value(of) {
                Datum::Duration(nanos) => Some(nanos as f64 / 1e9),
                other => other.as_float().filter(|value| !value.is_nan()),
            }
        }
        MetricsFunction::Quantile(of, _) | MetricsFunction::Histogram(of) => bucket(&at.value(of)),
        MetricsFunction::Compare(..) => None,
    }
}

/// The smallest power of two that is not below the value; of durations in seconds.
fn bucket(value: &Datum) -> Option<f64> {
    match value {
        Datum::Int(int) if *int > 0 => Some((*int as u64).next_power_of_two() as f64),
        Datum::Duration(nanos) if *nanos > 0 => Some((*nanos as u64).next_power_of_two() as f64 / 1e9),
        Datum::Float(float) if *float > 0.0 && float.is_finite() => {
            let mut bound = 2f64.powi(-30);
            while bound < *float {
                bound *= 2.0;
            }
            Some(bound)
        }
        _ => None,
    }
}

fn ungrouped_labels(function: &MetricsFunction) -> Labels {
    if matches!(function, MetricsFunction::Quantile(..)) {
        return Vec::new();
    }
    let text = function.to_string();
    let name = text.split('(').next().unwrap_or_default();
    vec![("__name__".to_owned(), Value::Str(name.to_owned()))]
}

/// A label per key that the span has; when it has none of them, the first says so.
fn group_labels(by: &[GroupKey], at: At<'_>) -> Labels {
    let label = |key: &GroupKey| Some((key.label.to_string(), at.value(&key.attribute).to_label()?));
    let mut labels: Labels = by.iter().filter_map(label).collect();
    if let (true, Some(first)) = (labels.is_empty(), by.first()) {
        labels.push((first.label.to_string(), Value::Str("nil".to_owned())));
    }
    labels
}

fn quantile_series(groups: Vec<Group>, quantiles: &[Static]) -> Vec<Series> {
    let mut all = Vec::new();
    for group in groups {
        for quantile in quantiles {
            let share = Datum::of_static(quantile).as_float().unwrap_or(f64::NAN);
            let mut labels = group.labels.clone();
            labels.push(("p".to_owned(), Value::Double(share)));
            let points = group.values.iter().map(|bounds| Some(quantile_of(bounds, share))).collect();
            all.push(Series { labels, points });
        }
    }
    all
}

/// The quantile of values of which only the bounds of their buckets are known; 0 without values.
fn quantile_of(bounds: &[f64], share: f64) -> f64 {
    let mut sorted = bounds.to_vec();
    sorted.sort_by(f64::total_cmp);
    let needed = (share * sorted.len() as f64).ceil().max(1.0);
    let (mut seen, mut before) = (0.0, None);
    for bucket in sorted.chunk_by(|a, b| a == b) {
        let (bound, count) = (bucket[0], bucket.len() as f64);
        if seen + count == needed {
            return bound;
        }
        if seen + count > needed {
            let high = bound.log2();
            let low = before.map_or(high - 1.0, f64::log2);
            return 2f64.powf(low + (high - low) * (needed - seen) / count);
        }
        seen += count;
        before = Some(bound);
    }
    0.0
}

/// `compare({...}, top, start, end)`: without the last two every time is selected.
fn is_in_range(numbers: &[i64], at: At<'_>) -> bool {
    let start = at.entry().span.start.0 as i64;
    match numbers {
        [_, from, to] => *from < start && start <= *to,
        _ => true,
    }
}

fn observe_compared(groups: &mut Groups, interval: usize, side: &str, key: &str, value: Value) {
    let meta = |text: String| ("__meta_type".to_owned(), Value::Str(text));
    let total = vec![meta(format!("{side}_total")), (key.to_owned(), Value::Str("nil".to_owned()))];
    groups.observe(total, interval, 1.0);
    groups.observe(vec![meta(side.to_owned()), (key.to_owned(), value)], interval, 1.0);
}

/// The intrinsics that `compare()` counts; the last of them only when they are not empty.
const COMPARED: [Intrinsic; 9] = [
    Intrinsic::Name,
    Intrinsic::Kind,
    Intrinsic::Status,
    Intrinsic::RootName,
    Intrinsic::RootServiceName,
    Intrinsic::EventName,
    Intrinsic::StatusMessage,
    Intrinsic::InstrumentationName,
    Intrinsic::InstrumentationVersion,
];
const EMPTY_COUNT: usize = 6;

/// What `compare()` counts of a span: label and value.
fn compared(at: At<'_>) -> Labels {
    let entry = at.entry();
    let mut keys: Vec<Attribute> = COMPARED.map(Attribute::Intrinsic).to_vec();
    let mut add = |scope: AttrScope, attributes: &[KeyValue]| {
        for attribute in attributes {
            let key = Attribute::Named(scope, attribute.key.as_str().into());
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
    };
    add(AttrScope::Span, &entry.span.attributes);
    add(AttrScope::Resource, &entry.origin.resource.attributes);
    add(AttrScope::Instrumentation, &entry.origin.scope.attributes);
    entry.span.events.iter().for_each(|event| add(AttrScope::Event, &event.attributes));
    entry.span.links.iter().for_each(|link| add(AttrScope::Link, &link.attributes));
    let mut counted = Vec::new();
    for key in keys {
        let is_empty = at.value(&key) == Datum::Str(String::new());
        let is_dropped_when_empty = COMPARED[EMPTY_COUNT..].iter().any(|other| Attribute::Intrinsic(*other) == key);
        let label = at.value(&key).to_label().filter(|_| !(is_empty && is_dropped_when_empty));
        counted.extend(label.map(|label| (key.to_string(), label)));
    }
    counted
}

/// Totals, and per side and attribute the values that occur most often.
fn top_values(all: Vec<Series>, top: usize) -> Vec<Series> {
    let total = |series: &Series| series.points.iter().flatten().sum::<f64>();
    let text = |series: &Series| super::series::label_text(&series.labels[1].1);
    let rank = |series: &Series| {
        let is_before = |other: &&Series| {
            let is_rival = other.labels[0] == series.labels[0] && other.labels[1].0 == series.labels[1].0;
            let (others, ours) = (total(other), total(series));
            is_rival && (others > ours || others == ours && text(other) < text(series))
        };
        all.iter().filter(is_before).count()
    };
    all.iter().filter(|series| rank(series) < top).cloned().collect()
}
