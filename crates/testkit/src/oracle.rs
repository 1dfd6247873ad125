//! TraceQL, evaluated the naive way: whole traces in a `Vec`, row by row, one loop per rule.
//!
//! ```text
//!   spans --Trace::assemble--> views (trace + tree) --pipeline--> spansets --> found traces
//!                                                        |
//!                                                        +--> observations --> series
//! ```
//!
//! What an engine answers is right when this answers it too; where the two differ, a person reads
//! the documentation and the finding becomes a line of the corpus. So this may be slow, and it may
//! not be clever. It knows the language's syntax tree and the model's traces, and nothing of plans,
//! columns or blocks.
//!
//! **Invariant:** queries are parsed and checked before they come here; what the check refuses may
//! have any answer.

mod datum;
mod expression;
mod metrics;
mod pipeline;
mod series;
mod shown;
mod tree;
mod view;
mod weight;

use std::collections::BTreeMap;

use spoor_model::{SpanEntry, TimeRange, Trace, TraceId};
use spoor_traceql::Query;
use spoor_traceql::ast::{Body, Static};

use crate::answer::{FoundSpan, FoundSpanset, FoundTrace, Series, Window};
use metrics::Asked;
use view::View;

/// All there is to ask.
#[derive(Debug)]
pub struct Oracle {
    /// Newest start first, then larger id first.
    views: Vec<View>,
}

impl Oracle {
    /// Holds those spans, in any order; exact copies count once.
    pub fn new(entries: Vec<SpanEntry>) -> Self {
        let mut by_trace: BTreeMap<TraceId, Vec<SpanEntry>> = BTreeMap::new();
        for entry in entries {
            by_trace.entry(entry.span.trace_id).or_default().push(entry);
        }
        let traces = by_trace.into_iter().filter_map(|(id, entries)| Trace::assemble(id, entries));
        let mut views: Vec<View> = traces.map(View::of).collect();
        views.sort_by_key(|view| (view.trace.range().start, view.trace.id));
        views.reverse();
        Self { views }
    }

    /// All traces that match, newest start first, then larger id first. Errors where a query fails
    /// that passes the check.
    pub fn search(&self, query: &Query) -> Result<Vec<FoundTrace>, String> {
        self.search_in(query, TimeRange::ALL)
    }

    /// Those of them that overlap a range; what lies outside of it still counts and is shown.
    pub fn search_in(&self, query: &Query, range: TimeRange) -> Result<Vec<FoundTrace>, String> {
        let Body::Search(pipeline) = &query.body else {
            return Err("not a search".to_owned());
        };
        let mut found = Vec::new();
        let filters = pipeline::filters_of_lists(pipeline);
        for view in self.views.iter().filter(|view| view.trace.range().overlaps(&range)) {
            let view = &view.exposed(&filters);
            let sets = pipeline::run(pipeline, view)?;
            let spansets: Vec<FoundSpanset> = sets.iter().map(|set| found_spanset(query, view, set)).collect();
            if !spansets.is_empty() {
                found.push(FoundTrace { id: view.trace.id, spansets });
            }
        }
        Ok(found)
    }

    /// The series of a metrics query, in no order. A series without any point is left out.
    pub fn metrics(&self, query: &Query, window: Window) -> Result<Vec<Series>, String> {
        let Body::Metrics(metrics) = &query.body else {
            return Err("not a metrics query".to_owned());
        };
        let hint = query.hints.iter().rev().find(|hint| hint.name == "extrapolate");
        let is_extrapolated = hint.is_some_and(|hint| matches!(hint.value, Static::Bool(true)));
        let asked = Asked { views: &self.views, window, is_extrapolated };
        let mut all = series::evaluate(metrics, asked)?;
        all.retain(|series| series.points.iter().any(Option::is_some));
        Ok(all)
    }
}

fn found_spanset(query: &Query, view: &View, set: &pipeline::Spanset) -> FoundSpanset {
    let span = |row: &usize| FoundSpan {
        id: view.trace.entries[*row].span.span_id,
        name: shown::shows_name(query).then(|| view.trace.entries[*row].span.name.clone()),
        attributes: shown::attributes(query, view, *row),
    };
    FoundSpanset {
        spans: set.rows.iter().map(span).collect(),
        attributes: set.attributes.iter().map(|(key, value)| (key.clone(), value.to_value())).collect(),
    }
}
