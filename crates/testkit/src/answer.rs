//! Answers to TraceQL queries, as every engine under test gives them: the oracle, a querier, HTTP.

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
