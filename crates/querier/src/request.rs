//! What can be asked of a search, and what it answers.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use spoor_model::scan::{Condition, Predicate};
use spoor_model::{SpanEntry, TimeRange, Trace};
use spoor_traceql::{MatchedSpanset, SearchPlan};

/// Bounds on single queries.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Most results of one search (`query_max_results`).
    pub result_traces_max: usize,
    /// Most traces that one search may look at to find them (`query_max_examined_traces`).
    pub examined_traces_max: usize,
    /// No trace is taken to last longer than this (`query_max_trace_duration`). A query by time
    /// range scans sources as far outside its range as this, since a trace with a span in the range
    /// may have its matching span out there; and parts of one trace are looked for in sources that
    /// are no further apart. Longer traces are seen as whole too, unless they lie in several sources that
    /// are further apart than this.
    pub trace_duration_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // As in Tempo.
            result_traces_max: 262_144,
            // About a minute of work at 50 us per assembled trace.
            examined_traces_max: 1_000_000,
            trace_duration_max: Duration::from_secs(3600),
        }
    }
}

/// Which traces to find.
#[derive(Debug, Clone)]
pub struct SearchRequest {
    /// What their spans must be like.
    pub filter: Filter,
    /// The trace lasts at least this, from its earliest start to its latest end.
    pub min_duration_nano: Option<u64>,
    /// The trace lasts at most this.
    pub max_duration_nano: Option<u64>,
    /// The trace, from its earliest start to its latest end, overlaps this.
    pub range: TimeRange,
    /// How many to find: those that start last.
    pub limit: usize,
}

/// What the spans of a trace must be like.
#[derive(Debug, Clone)]
pub enum Filter {
    /// One span satisfies this.
    Span(Predicate),
    /// One span passes this, which no predicate says in full.
    Test(Arc<dyn SpanTest>),
    /// A TraceQL query finds spans.
    Query(SearchPlan),
    /// Tempo's legacy tags: all conditions hold within the spans of one resource.
    Group(Vec<GroupCondition>),
}

/// A test of single spans that goes beyond predicates. Sources are asked for what it needs; whole traces that have
/// such a span are assembled, and their spans tested.
pub trait SpanTest: Debug + Send + Sync {
    /// What every span that passes satisfies. The less it leaves to [`Self::holds`], the fewer traces are assembled.
    fn necessary(&self) -> Predicate;

    /// Whether a span passes.
    fn holds(&self, entry: &SpanEntry) -> bool;
}

/// One condition of Tempo's legacy search.
#[derive(Debug, Clone)]
pub enum GroupCondition {
    /// One span of the group satisfies this, by its own fields or those of its resource.
    Span(Predicate),
    /// The trace's root span ([`crate::root()`]), in whatever group it is, satisfies this.
    Root(Condition),
}

/// A trace that a search found.
#[derive(Debug, Clone)]
pub struct FoundTrace {
    /// The whole trace.
    pub trace: Trace,
    /// What matches in it, not empty. For other filters than [`Filter::Query`] one set, without attributes: the
    /// spans that satisfy the predicate, or those of the first resource that satisfies the conditions.
    pub spansets: Vec<MatchedSpanset>,
}
