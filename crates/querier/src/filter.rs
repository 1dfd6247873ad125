//! What a search asks of columns, and what it finds in them.

use spoor_model::bits::Bits;
use spoor_model::columns::{ColumnBatch, ColumnRequest, ValuesOf};
use spoor_model::scan::Predicate;
use spoor_model::{SpanEntry, TimeRange, Trace};
use spoor_traceql::{MatchedSpanset, TraceMatches};

use crate::group;
use crate::request::Filter;

/// A request for nothing but rows that satisfy predicates; traces without a row in one of the `needed` cannot
/// match.
pub(crate) fn masks_request(masks: Vec<Predicate>, needed: Vec<usize>, range: TimeRange) -> ColumnRequest {
    let (columns, values_of) = (Vec::new(), ValuesOf::NeededRows);
    ColumnRequest { masks, needed, columns, values_of, tree: false, copies: false, range, intervals: None }
}

/// The traces that have a row in the set.
fn traces_with(rows: &Bits, batch: &ColumnBatch) -> Bits {
    Bits::from_fn(batch.trace_count(), |trace| rows.any_in(batch.rows_of(trace)))
}

impl Filter {
    /// What to ask of sources, for traces that overlap the range.
    pub(crate) fn request(&self, range: TimeRange) -> ColumnRequest {
        match self {
            Self::Span(predicate) => masks_request(vec![predicate.clone()], vec![0], range),
            Self::Test(test) => masks_request(vec![test.necessary()], vec![0], range),
            Self::Query(plan) => plan.request(range),
            Self::Group(conditions) => {
                let masks = group::necessary(conditions);
                // All are needed; the one that holds for fewest spans leaves most groups out.
                let needed = (0..masks.len()).min_by_key(|mask| group::breadth(&masks[*mask]));
                masks_request(masks, needed.into_iter().collect(), range)
            }
        }
    }

    /// What some span of every matching trace satisfies, for each of these, beside what [`Self::request`] says is needed.
    pub(crate) fn required(&self) -> Vec<Predicate> {
        match self {
            Self::Span(_) | Self::Test(_) => Vec::new(),
            Self::Query(plan) => plan.required(),
            Self::Group(conditions) if conditions.len() > 1 => group::necessary(conditions),
            Self::Group(_) => Vec::new(),
        }
    }

    /// Whether a trace matches exactly when one of its parts does.
    pub(crate) fn is_single_span(&self) -> bool {
        match self {
            Self::Span(_) | Self::Test(_) => true,
            Self::Query(plan) => plan.is_single_span(),
            Self::Group(_) => false,
        }
    }

    /// Which traces of a batch, the answer to `request`, match as far as it holds them, and which could if they
    /// went on elsewhere. Of [`Filter::Group`] and [`Filter::Test`] the former too may be too many, never too
    /// few.
    pub(crate) fn matches(&self, batch: &ColumnBatch, request: &ColumnRequest) -> TraceMatches {
        match self {
            Self::Span(_) | Self::Test(_) => {
                let matched = traces_with(&batch.masks[0], batch);
                TraceMatches { may_match: matched.clone(), matched }
            }
            Self::Query(plan) => plan.matches(batch),
            Self::Group(_) => {
                let traces: Vec<Bits> = batch.masks.iter().map(|mask| traces_with(mask, batch)).collect();
                let mut matched = Bits::all(batch.trace_count());
                traces.iter().for_each(|traces| matched.intersect(traces));
                let may_match = request.needed.first().map_or_else(|| matched.clone(), |mask| traces[*mask].clone());
                TraceMatches { matched, may_match }
            }
        }
    }

    /// What matches in a whole trace; empty when it does not match.
    pub fn evaluate(&self, trace: &Trace) -> Vec<MatchedSpanset> {
        let passing = |passes: &dyn Fn(&SpanEntry) -> bool| {
            let indexed = trace.entries.iter().enumerate();
            indexed.filter(|(_, entry)| passes(entry)).map(|(index, _)| index).collect()
        };
        let spans: Vec<usize> = match self {
            Self::Query(plan) => return plan.evaluate(trace),
            Self::Span(predicate) => passing(&|entry| predicate.matches(entry)),
            Self::Test(test) => passing(&|entry| test.holds(entry)),
            Self::Group(conditions) => group::matched(trace, conditions),
        };
        let found = (!spans.is_empty()).then(|| MatchedSpanset { spans, attributes: Vec::new() });
        found.into_iter().collect()
    }
}
