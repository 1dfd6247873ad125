//! Queries that find traces: what sources are asked, and what is found in what they answer.

use std::sync::Arc;

use spoor_model::bits::Bits;
use spoor_model::columns::{ColumnBatch, ColumnRequest};
use spoor_model::scan::Predicate;
use spoor_model::structure::Tree;
use spoor_model::{TimeRange, Trace};

use crate::ast::{Attribute, Body, Pos, Query, Static};
use crate::engine::{Described, Layout, SpansetPlan, explain};
use crate::{PlanError, check};

mod shown;

/// A search, planned.
#[derive(Debug, Clone)]
pub struct SearchPlan {
    layout: Layout,
    spansets: SpansetPlan,
    shown: Vec<Shown>,
    lists: Option<Box<shown::Lists>>,
    shows_name: bool,
}

/// What is known of the traces of a batch.
#[derive(Debug, Clone)]
pub struct TraceMatches {
    /// Traces that match, as far as the batch holds them.
    pub matched: Bits,
    /// Traces that could match, were the batch's rows only a part of them: whoever holds other parts, or
    /// finds them irregular, must assemble these.
    pub may_match: Bits,
}

/// Spans of a trace that a search found together.
#[derive(Debug, Clone, PartialEq)]
pub struct MatchedSpanset {
    /// Indexes of the trace's entries, ascending; not empty.
    pub spans: Vec<usize>,
    /// What `by()` and aggregates say of it, in the order of the pipeline: `by(span.x)`, `count()`.
    pub attributes: Vec<(String, Static)>,
}

/// What results show of each span, beside its id, times and name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// An attribute's name without its scope, an intrinsic's own name.
    pub key: Arc<str>,
    /// What is shown.
    pub attribute: Attribute,
}

/// Checks a search and plans it.
pub fn plan_search(query: &Query) -> Result<SearchPlan, PlanError> {
    check(query)?;
    let Body::Search(pipeline) = &query.body else {
        let pos = Pos { line: 1, column: 1 };
        return Err(PlanError::Invalid { pos, message: "a metrics query finds no traces".to_owned() });
    };
    let mut layout = Layout::default();
    let spansets = SpansetPlan::new(pipeline, false, &mut layout)?;
    let (shown, shows_name) = shown::looked_at(pipeline);
    let lists = shown::Lists::new(pipeline, &shown)?.map(Box::new);
    Ok(SearchPlan { layout, spansets, shown, lists, shows_name })
}

impl SearchPlan {
    /// What to ask of sources, for traces that overlap `range`.
    pub fn request(&self, range: TimeRange) -> ColumnRequest {
        self.layout.request(self.spansets.needed(), self.spansets.values_of(&self.layout), range, None)
    }

    /// Whether a trace matches exactly when one of its parts, taken alone, does: then there is no need
    /// to assemble it before deciding.
    pub fn is_single_span(&self) -> bool {
        self.spansets.is_single_span()
    }

    /// Which traces of a batch, made for [`Self::request`], match and may match. Linear in its rows.
    pub fn matches(&self, batch: &ColumnBatch) -> TraceMatches {
        let matched = traces_with(&self.selected(batch), batch);
        TraceMatches { matched, may_match: self.may_match(batch) }
    }

    /// Which traces of a batch could match, were its rows only a part of them.
    pub fn may_match(&self, batch: &ColumnBatch) -> Bits {
        let needed = self.spansets.needed();
        if needed.is_empty() {
            return Bits::all(batch.trace_count());
        }
        let mut rows = Bits::none(batch.row_count());
        needed.iter().for_each(|mask| rows.union(&batch.masks[*mask]));
        traces_with(&rows, batch)
    }

    /// The rows of a batch, made for [`Self::request`], that are selected as far as the batch holds their traces. Of a
    /// plan that [is about single spans](Self::is_single_span), exactly the spans that are. Linear in the batch's rows.
    pub fn selected(&self, batch: &ColumnBatch) -> Bits {
        self.spansets.selected(&self.spansets.frame(batch))
    }

    /// What a whole trace holds that matches; empty when it does not match. For the few that are shown
    /// and for those that had to be assembled; the first spanset is the one with the earliest span.
    pub fn evaluate(&self, trace: &Trace) -> Vec<MatchedSpanset> {
        let request = self.request(TimeRange::ALL);
        let batch = ColumnBatch::of_traces(std::slice::from_ref(trace), &request);
        let places = places(trace, &batch);
        let found = self.spansets.described(&batch, places.clone());
        found.into_iter().map(|found| MatchedSpanset::new(found, &places)).collect()
    }

    /// What results show of each span: what conditions look at, then what is selected; each once. Never the
    /// name, durations, ids of trace and span, or what is said of the trace's root.
    pub fn shown(&self) -> &[Shown] {
        &self.shown
    }

    /// Whether results show names of spans: the query looks at or selects `name`.
    pub fn shows_name(&self) -> bool {
        self.shows_name
    }

    /// The values of [`Self::shown`] of some of a trace's entries, one list per entry asked for; what a span
    /// lacks is not listed.
    pub fn shown_values(&self, trace: &Trace, spans: &[usize]) -> Vec<Vec<(Arc<str>, Static)>> {
        shown::values(&self.shown, self.lists.as_deref(), trace, spans)
    }

    /// What at least one span of every matching trace satisfies, for each of these, beside [`Self::necessary`].
    pub fn required(&self) -> Vec<Predicate> {
        self.spansets.required(&self.layout)
    }

    /// What at least one span of every matching trace satisfies.
    pub fn necessary(&self) -> Predicate {
        let needed = self.spansets.needed();
        match needed.is_empty() {
            true => Predicate::True,
            false => Predicate::Or(needed.iter().map(|mask| self.layout.predicate(*mask).clone()).collect()),
        }
    }

    /// The plan for people to read: what sources are asked, then what is done with what they answer.
    pub fn explain(&self) -> String {
        let request = self.request(TimeRange::ALL);
        let mut text = explain::request(&request);
        text.push_str(&explain::steps(&self.spansets, &self.layout));
        if !self.shown.is_empty() {
            let keys: Vec<String> = self.shown.iter().map(|shown| shown.attribute.to_string()).collect();
            text.push_str(&format!("show {}\n", keys.join(", ")));
        }
        text
    }
}

/// The traces that have a row in the set.
fn traces_with(rows: &Bits, batch: &ColumnBatch) -> Bits {
    Bits::from_fn(batch.trace_count(), |trace| rows.any_in(batch.rows_of(trace)))
}

/// Which entry of a trace each row of its batch is: with a tree rows stand in its order.
fn places(trace: &Trace, batch: &ColumnBatch) -> Vec<u32> {
    match batch.parents.is_empty() {
        true => (0..trace.entries.len() as u32).collect(),
        false => Tree::of(trace).order.iter().map(|place| *place as u32).collect(),
    }
}

impl MatchedSpanset {
    /// A spanset whose rows are the entries at these places.
    fn new((rows, attributes): Described, places: &[u32]) -> Self {
        let mut spans: Vec<usize> = rows.iter().map(|row| places[*row] as usize).collect();
        spans.sort_unstable();
        Self { spans, attributes }
    }
}

#[cfg(test)]
mod tests;
