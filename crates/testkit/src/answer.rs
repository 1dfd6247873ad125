//! Answers to TraceQL queries, as every engine under test gives them: the oracle, a querier, HTTP.

use std::collections::BTreeMap;

use spoor_model::{SpanId, TraceId, Value};

/// One trace of a search's answer.
#[derive(Debug, Clone, PartialEq)]
pub struct FoundTrace {
    /// Which.
    pub id: TraceId,
    /// At least one.
    pub spansets: Vec<FoundSpanset>,
}

/// Spans of one trace that belong together.
#[derive(Debug, Clone, PartialEq)]
pub struct FoundSpanset {
    /// By (start, span id), never empty.
    pub spans: Vec<FoundSpan>,
    /// Group keys and aggregates, in the order of the pipeline.
    pub attributes: Vec<(String, Value)>,
}

/// One matching span.
#[derive(Debug, Clone, PartialEq)]
pub struct FoundSpan {
    /// Which. Spans may share an id.
    pub id: SpanId,
    /// Filled when the query looks at `name`.
    pub name: Option<String>,
    /// What the query looks at besides, under names without scope; unordered.
    pub attributes: Vec<(String, Value)>,
}

/// One series of a metrics query.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Keys as the query spells them, typed values; unordered.
    pub labels: Vec<(String, Value)>,
    /// One per interval, `None` where there is no value.
    pub points: Vec<Option<f64>>,
}

/// The time that a metrics query is about: `(from, to]`, in nanoseconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// The first interval begins after it.
    pub from: u64,
    /// The last interval ends with it.
    pub to: u64,
    /// Length of an interval; divides `to - from`.
    pub step: u64,
}

impl Window {
    /// The one interval of an instant query.
    pub fn instant(from: u64, to: u64) -> Self {
        Self { from, to, step: to - from }
    }

    /// How many intervals there are.
    pub fn interval_count(&self) -> usize {
        ((self.to - self.from).div_ceil(self.step)) as usize
    }

    /// The interval of that instant, when it has one. An interval's end belongs to it.
    pub fn interval_of(&self, time: u64) -> Option<usize> {
        let is_inside = self.from < time && time <= self.to;
        is_inside.then(|| ((time - self.from - 1) / self.step) as usize)
    }
}

/// What two searches must agree on. The order of spans that share start and id is open; what is shown of
/// spans is the language's, and tested there; sums of floats depend on the order of addition.
pub fn outline(found: &[FoundTrace]) -> Vec<String> {
    let of_attribute = |(key, value): &(String, Value)| match value {
        // Of an integer and a float that are equal, either may be the least.
        Value::Int(value) => format!("{key}={:.8e}", *value as f64),
        Value::Double(value) => format!("{key}={value:.8e}"),
        value => format!("{key}={value:?}"),
    };
    let of_spanset = |spanset: &FoundSpanset| {
        let mut spans: Vec<String> = spanset.spans.iter().map(|span| format!("{} {:?}", span.id, span.name)).collect();
        spans.sort_unstable();
        let attributes: Vec<String> = spanset.attributes.iter().map(of_attribute).collect();
        format!("  [{}] {}\n", attributes.join(" "), spans.join(", "))
    };
    let of_trace = |found: &FoundTrace| {
        let mut spansets: Vec<String> = found.spansets.iter().map(of_spanset).collect();
        spansets.sort_unstable();
        format!("{}\n{}", found.id, spansets.concat())
    };
    found.iter().map(of_trace).collect()
}

/// Points by labels, of series that have any.
fn by_labels(series: &[Series]) -> BTreeMap<String, &[Option<f64>]> {
    let labels = |series: &Series| {
        let mut labels: Vec<String> = series.labels.iter().map(|label| format!("{label:?}")).collect();
        labels.sort_unstable();
        labels.join(" ")
    };
    let with_points = series.iter().filter(|series| series.points.iter().any(Option::is_some));
    with_points.map(|series| (labels(series), series.points.as_slice())).collect()
}

/// Whether these are the same series, in any order; sums depend on the order of addition.
pub fn are_close(one: &[Series], other: &[Series]) -> bool {
    let is_close = |(a, b): (&Option<f64>, &Option<f64>)| match (a, b) {
        (Some(a), Some(b)) => a == b || (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1.0),
        (a, b) => a.is_none() && b.is_none(),
    };
    let (one, other) = (by_labels(one), by_labels(other));
    one.len() == other.len()
        && one
            .iter()
            .zip(&other)
            .all(|(a, b)| a.0 == b.0 && a.1.len() == b.1.len() && a.1.iter().zip(*b.1).all(is_close))
}
