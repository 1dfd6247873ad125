//! Export: every trace of a range, oldest first, page by page.
//!
//! A trace belongs to the instant at which its earliest span starts, so consecutive ranges neither share a trace nor
//! miss one, and a page may follow another after blocks have been merged or a head has been cut:
//!
//! ```text
//!   groups, earliest start first --> (start, id) of every fragment after the cursor --> the least of them
//!                                         --> assembled from all sources --> kept if it starts where the fragment does
//! ```
//!
//! Any fragment but the first starts later than its trace, and the first one names it.

use std::collections::BTreeSet;

use hashbrown::HashSet;
use spoor_model::columns::{ColumnRequest, ColumnScan, ValuesOf};
use spoor_model::scan::{QueryContext, ScanStats};
use spoor_model::{TenantId, TimeRange, Trace, TraceId, UnixNano};

use crate::explain::Explain;
use crate::held_bytes::held_bytes;
use crate::lookup::{Sources, overlapping};
use crate::metrics::Op;
use crate::{Answer, Querier, QueryError};

/// Traces assembled between two looks at the bounds.
const ASSEMBLED_AT_ONCE: usize = 64;

/// Which traces a page of an export may have.
#[derive(Debug, Clone, Copy)]
pub struct ExportRequest {
    /// The traces whose earliest span starts here.
    pub range: TimeRange,
    /// Where the page before ended.
    pub after: Option<(UnixNano, TraceId)>,
    /// How many at most; at least one is tried.
    pub traces_max: usize,
    /// The page ends with the trace that reaches this, in memory.
    pub bytes_max: usize,
}

/// Some traces of an export.
#[derive(Debug, Clone, Default)]
pub struct ExportPage {
    /// By (earliest start, id), ascending.
    pub traces: Vec<Trace>,
    /// What the next page comes after; `None` when this is the last one.
    pub next: Option<(UnixNano, TraceId)>,
}

impl Querier {
    /// A page of an export. Costs a read of the trace ids of each group in which the page's traces start, and what
    /// assembling them costs.
    pub fn export(
        &self,
        tenant: &TenantId,
        request: &ExportRequest,
        ctx: &QueryContext,
    ) -> Result<Answer<ExportPage>, QueryError> {
        self.observed(Op::search, tenant, ctx, |snapshot| {
            let whole = snapshot.clone();
            let from = request.after.map_or(request.range.start, |(start, _)| start.max(request.range.start));
            let rest = TimeRange { start: from, end: request.range.end };
            let near = overlapping(snapshot, rest);
            let mut sources = Sources::new(&near, self.lanes(), ctx);
            let mut stats = ScanStats::default();
            let (candidates, has_more) = candidates(request, rest, &mut sources, &mut stats)?;
            let mut everywhere = Sources::new(&whole, self.lanes(), ctx);
            everywhere.skipped = sources.skipped;
            let page = page(request, &candidates, has_more, &mut everywhere)?;
            Ok(everywhere.into_answer(page, stats, Explain::default()))
        })
    }
}

/// The least (start, id) of fragments after the cursor, and whether there are more of them.
fn candidates(
    request: &ExportRequest,
    rest: TimeRange,
    sources: &mut Sources<'_>,
    stats: &mut ScanStats,
) -> Result<(Vec<(UnixNano, TraceId)>, bool), QueryError> {
    let asked = ColumnRequest {
        masks: Vec::new(),
        needed: Vec::new(),
        columns: Vec::new(),
        values_of: ValuesOf::AllRows,
        tree: false,
        copies: false,
        range: rest,
        intervals: None,
    };
    let limit = request.traces_max.max(1);
    let (ctx, all) = (sources.ctx, sources.all);
    // A little more than a pair, for the nodes of the tree.
    ctx.reserve(limit * 2 * size_of::<(UnixNano, TraceId)>())?;
    let mut scans = Vec::new();
    for source in all {
        let opened = source.scan(&asked, ctx);
        scans.extend(sources.good(opened)?);
    }
    let mut groups: Vec<(UnixNano, &dyn ColumnScan, usize)> = Vec::new();
    for scan in &scans {
        let listed = scan.groups().iter().enumerate().filter(|(_, info)| info.latest_trace_start >= rest.start);
        groups.extend(listed.map(|(number, info)| (info.range.start, &**scan, number)));
    }
    groups.sort_by_key(|(start, _, number)| (*start, *number));

    let mut least: BTreeSet<(UnixNano, TraceId)> = BTreeSet::new();
    let mut has_more = false;
    for (start, scan, number) in groups {
        ctx.check()?;
        if least.len() >= limit && least.last().is_some_and(|(last, _)| *last < start) {
            return Ok((least.into_iter().collect(), true));
        }
        let part = ctx.part();
        let read = scan.read(number, &part);
        let Some((batch, cost)) = sources.good(read)? else { continue };
        *stats += cost;
        let Some(batch) = batch else { continue };
        for (id, range) in batch.trace_ids.iter().zip(&batch.trace_ranges) {
            let place = (range.start, *id);
            let is_wanted = range.start >= rest.start && range.start < rest.end;
            if is_wanted && request.after.is_none_or(|after| place > after) {
                least.insert(place);
                if least.len() > limit {
                    least.pop_last();
                    has_more = true;
                }
            }
        }
    }
    Ok((least.into_iter().collect(), has_more))
}

/// Assembles the candidates in their order until the page is full.
fn page(
    request: &ExportRequest,
    candidates: &[(UnixNano, TraceId)],
    has_more: bool,
    sources: &mut Sources<'_>,
) -> Result<ExportPage, QueryError> {
    let ctx = sources.ctx;
    let (mut page, mut page_bytes) = (ExportPage::default(), 0);
    // Of fragments that start apart the first decides: a later one is none of the trace's start.
    let mut seen = HashSet::new();
    let firsts: Vec<(UnixNano, TraceId)> = candidates.iter().copied().filter(|(_, id)| seen.insert(*id)).collect();
    for (number, chunk) in firsts.chunks(ASSEMBLED_AT_ONCE).enumerate() {
        ctx.check()?;
        let part = ctx.part();
        let ids: Vec<TraceId> = chunk.iter().map(|(_, id)| *id).collect();
        let (traces, errors) = sources.assembled(&ids, &part);
        sources.note(errors)?;
        let mut traces = traces.into_iter().peekable();
        for (place, candidate) in chunk.iter().enumerate() {
            // One may be missing, when its block cannot be read any more.
            let Some(trace) = traces.next_if(|trace| trace.id == candidate.1) else { continue };
            if trace.range().start != candidate.0 {
                continue;
            }
            let bytes = held_bytes(&trace);
            ctx.reserve(bytes)?;
            page_bytes += bytes;
            page.traces.push(trace);
            let is_last = number * ASSEMBLED_AT_ONCE + place + 1 == firsts.len();
            if page_bytes >= request.bytes_max && (has_more || !is_last) {
                page.next = Some(*candidate);
                return Ok(page);
            }
        }
    }
    page.next = candidates.last().copied().filter(|_| has_more);
    Ok(page)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use spoor_model::SpanEntry;

    use super::*;
    use crate::lookup::tests::querier;
    use crate::oracle::{Oracle, at_hand, span};

    fn pages(sources: Vec<Arc<Oracle>>, range: TimeRange, traces_max: usize, bytes_max: usize) -> Vec<Trace> {
        let (querier, _) = querier(sources);
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let request = ExportRequest { range, after, traces_max, bytes_max };
            let page = querier.export(&TenantId::single(), &request, &at_hand()).expect("nothing fails").value;
            assert!(page.traces.len() <= traces_max);
            all.extend(page.traces);
            match page.next {
                Some(next) => assert!(after.replace(next).is_none_or(|before| before < next), "the cursor moves"),
                None => return all,
            }
        }
    }

    proptest! {
        #[test]
        fn every_trace_that_starts_in_the_range_comes_once_and_whole(
            spans in prop::collection::vec((1u8..20, 1u8..6, 0u64..100, 0u64..30, 0usize..4), 0..80),
            (from, until) in (0u64..60, 40u64..120),
            traces_max in 1usize..6,
            bytes_max in prop_oneof![Just(1usize), Just(usize::MAX)],
            traces_per_group in 1usize..4,
        ) {
            let mut of_source: Vec<Vec<SpanEntry>> = vec![Vec::new(); 4];
            for (trace, id, start, length, source) in &spans {
                of_source[*source].push(span(*trace, *id, "x", *start, start + length));
            }
            let all: Vec<SpanEntry> = of_source.iter().flatten().cloned().collect();
            let sources = of_source.into_iter().map(|entries| {
                Arc::new(Oracle { traces_per_group, ..Oracle::clone_of(entries) })
            });
            let range = TimeRange { start: UnixNano(from), end: UnixNano(until) };
            let got = pages(sources.collect(), range, traces_max, bytes_max);

            let ids: BTreeSet<TraceId> = all.iter().map(|entry| entry.span.trace_id).collect();
            let whole = ids.into_iter().filter_map(|id| {
                Trace::assemble(id, all.iter().filter(|entry| entry.span.trace_id == id).cloned().collect())
            });
            let mut want: Vec<Trace> =
                whole.filter(|trace| (from..until).contains(&trace.range().start.0)).collect();
            want.sort_by_key(|trace| (trace.range().start, trace.id));
            prop_assert_eq!(got, want);
        }
    }
}
