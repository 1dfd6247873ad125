//! Search: the traces that match and start last, exactly, without looking at all of them.
//!
//! A source names candidates with the earliest start that *it* knows, and that is an upper bound: the
//! whole trace starts then or earlier. So traces are ordered by a [`Place`] of which an upper bound
//! is known first, and the exact value after asking every source:
//!
//! ```text
//!   pending sources          candidates               traces             found
//!   by upper bound --scan--> by upper bound --resolve--> by start --verify--> newest first
//!                 (waves)                  (in parallel)          (in parallel)
//! ```
//!
//! The greatest of all is always treated next. A *resolved* trace that lies above every candidate
//! and every pending source comes before everything not yet found:
//!
//! - what is a candidate lies below it, and can only sink when it is resolved;
//! - a trace that is only in pending sources has some fragment there that matches, and lies at or
//!   below the bound of that source: its start is at or before the fragment's start, that is at or
//!   before the fragment's end, that is at or before the end of the source's range; and at or before
//!   the end of the requested range, since the trace overlaps that.
//!
//! So it is verified and, if it matches, is the next result, and the search ends at the limit.
//!
//! **Which sources are scanned.** A trace is found by the source that holds its matching span, which
//! may lie outside the requested range while another fragment lies inside. If the trace lasts at
//! most `trace_duration_max`, then all its spans lie within the requested range widened by that at
//! both ends, so do the sources that hold them overlap the widened range, and scanning just these,
//! with the widened range, misses nothing. A candidate of which its source holds nothing within the
//! requested range is dropped at once unless another source holds what makes it overlap the range:
//! for the many whole traces around the range that costs a look at a few filters. Longer traces: see [`crate::Limits`], and
//! `docs/adr/0007-search-range.md`.
//!
//! **Memory.** One scan keeps the newest [`CANDIDATES_PER_SCAN`] candidates. If there were more, the
//! source is pending again, with the greatest of those left out as its bound; when the search gets
//! down to there, a second scan takes what lies at or below it. The heaps and the set of examined ids
//! are accounted for by what they hold at most.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::ops::{ControlFlow, RangeInclusive};
use std::time::Duration;

use hashbrown::HashSet;
use spoor_model::scan::{Predicate, QueryContext, ScanError, ScanRequest, ScanStats};
use spoor_model::{TenantId, TimeRange, Trace, TraceId, UnixNano};

use crate::held_bytes::held_bytes;
use crate::lookup::Sources;
use crate::metrics::Op;
use crate::request::{Filter, FoundTrace, Limits, SearchRequest};
use crate::{Answer, Querier, QueryError, group};

mod newest;

use newest::{Named, Newest, Place};

/// Candidates that one scan of one source hands on: 3 MB, and one scan for a block of a million
/// spans at 17 spans per trace even if every trace is a candidate.
const CANDIDATES_PER_SCAN: usize = 65_536;

/// Candidates whose true start is looked up at once, in parallel: enough to keep threads busy, and
/// few enough that those not needed in the end cost little.
const RESOLVED_AT_ONCE: RangeInclusive<usize> = 8..=64;

/// Traces that are assembled at once, in parallel; bounds what a batch may hold in memory.
const ASSEMBLED_AT_ONCE: usize = 32;

impl Querier {
    /// The traces that match, newest start first, then by id; at most `request.limit`. Exact: the
    /// limit is applied after the order.
    pub fn search(
        &self,
        tenant: &TenantId,
        request: &SearchRequest,
        ctx: &QueryContext,
    ) -> Result<Answer<Vec<FoundTrace>>, QueryError> {
        self.observed(Op::search, tenant, ctx, |snapshot| {
            check(request, &self.limits)?;
            let sources = Sources::new(snapshot, &self.pool, ctx);
            Search::new(request, &self.limits, sources, CANDIDATES_PER_SCAN).run()
        })
    }
}

fn check(request: &SearchRequest, limits: &Limits) -> Result<(), QueryError> {
    if request.limit > limits.result_traces_max {
        let (what, value) = ("limit asks for too many traces", limits.result_traces_max as u64);
        return Err(QueryError::Limit { what, value, key: "query_max_results" });
    }
    if let (Some(min), Some(max)) = (request.min_duration_nano, request.max_duration_nano)
        && min > max
    {
        return Err(QueryError::Invalid(format!("minimum duration {min} ns is over the maximum duration {max} ns")));
    }
    if request.range.start > request.range.end {
        return Err(QueryError::Invalid("the time range ends before it starts".to_owned()));
    }
    Ok(())
}

impl Filter {
    /// What at least one span of every matching trace satisfies.
    fn scan_predicate(&self) -> Predicate {
        match self {
            Self::Span(predicate) => predicate.clone(),
            Self::Spanset(spanset) => spanset.scan_predicate(),
            Self::Group(conditions) => group::scan_predicate(conditions),
        }
    }

    /// Indexes of the trace's entries that match, ascending; empty when it does not.
    pub fn matched(&self, trace: &Trace) -> Vec<usize> {
        match self {
            Self::Span(predicate) => {
                let indexed = trace.entries.iter().enumerate();
                indexed.filter(|(_, entry)| predicate.matches(entry)).map(|(index, _)| index).collect()
            }
            Self::Spanset(spanset) => spanset.matched(trace),
            Self::Group(conditions) => group::matched(trace, conditions),
        }
    }
}

/// A source with candidates that have not been taken: none lies above the bound.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Pending {
    bound: Place,
    source_index: usize,
}

/// A trace that a source named. Ordered by its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    named: Named,
    source_index: usize,
}

/// The first error of each source that failed.
type Errors = BTreeMap<usize, ScanError>;

struct Search<'a> {
    request: &'a SearchRequest,
    limits: &'a Limits,
    sources: Sources<'a>,
    /// What each source holds, as of the beginning.
    ranges: Vec<Option<TimeRange>>,
    scan: ScanRequest,
    candidates_per_scan: usize,
    pending: BinaryHeap<Pending>,
    /// Candidates at an upper bound; a trace may be here several times, from several sources.
    unresolved: BinaryHeap<Candidate>,
    /// Traces at their true place that qualify by range and duration.
    resolved: BinaryHeap<Place>,
    /// Traces that have been resolved.
    examined: HashSet<TraceId>,
    found: Vec<FoundTrace>,
    stats: ScanStats,
    accounted_bytes: usize,
}

/// What to do next.
enum Step {
    Verify(Vec<TraceId>),
    Resolve(Vec<Candidate>),
    Scan(Vec<Pending>),
    End,
}

impl<'a> Search<'a> {
    fn new(request: &'a SearchRequest, limits: &'a Limits, sources: Sources<'a>, candidates_per_scan: usize) -> Self {
        let widened = widened(request.range, limits.trace_duration_max);
        let ranges: Vec<Option<TimeRange>> = sources.all.iter().map(|source| source.range()).collect();
        let pending = ranges.iter().enumerate().filter_map(|(source_index, held)| {
            let held = held.filter(|held| held.overlaps(&widened))?;
            let bound = Place::first_at(held.end.min(request.range.end));
            Some(Pending { bound, source_index })
        });
        Self {
            pending: pending.collect(),
            ranges,
            scan: ScanRequest { predicate: request.filter.scan_predicate(), range: widened },
            request,
            limits,
            sources,
            candidates_per_scan,
            unresolved: BinaryHeap::new(),
            resolved: BinaryHeap::new(),
            examined: HashSet::new(),
            found: Vec::new(),
            stats: ScanStats::default(),
            accounted_bytes: 0,
        }
    }

    fn run(mut self) -> Result<Answer<Vec<FoundTrace>>, QueryError> {
        if matches!(self.scan.predicate, Predicate::False) {
            self.pending.clear();
        }
        while self.found.len() < self.request.limit {
            self.sources.ctx.check()?;
            match self.next_step() {
                Step::Verify(ids) => self.verify(&ids)?,
                Step::Resolve(candidates) => self.resolve(candidates)?,
                Step::Scan(wave) => self.scan(&wave)?,
                Step::End => break,
            }
        }
        // Sorted already, unless the head has grown an earlier span of a trace meanwhile.
        self.found.sort_by_cached_key(|found| Reverse(place_of(&found.trace)));
        Ok(self.sources.into_answer(self.found, self.stats))
    }

    /// Takes the greatest of all, and what of its kind comes right behind it. `None` is less than
    /// any place, so an empty heap stands in nobody's way.
    fn next_step(&mut self) -> Step {
        let resolved = self.resolved.peek().copied();
        let unresolved = self.unresolved.peek().map(|candidate| candidate.named.place);
        let horizon = self.pending.peek().map(|pending| pending.bound);
        let missing = self.request.limit - self.found.len();
        if resolved > unresolved.max(horizon) {
            let max = ASSEMBLED_AT_ONCE.min(missing);
            let is_next = |place: &Place| Some(*place) > unresolved.max(horizon);
            return Step::Verify(pop_while(&mut self.resolved, max, is_next).into_iter().map(Place::id).collect());
        }
        if unresolved > horizon {
            // A place that is resolved already is passed too: it is the same trace.
            let max = (2 * missing).clamp(*RESOLVED_AT_ONCE.start(), *RESOLVED_AT_ONCE.end());
            let is_next = |candidate: &Candidate| Some(candidate.named.place) > horizon;
            return Step::Resolve(pop_while(&mut self.unresolved, max, is_next));
        }
        let mut wave = Vec::new();
        while let Some(next) = self.pending.peek()
            && wave.len() < self.sources.pool.thread_count()
            && Some(next.bound) >= resolved.max(unresolved)
        {
            wave.extend(self.pending.pop());
        }
        if wave.is_empty() { Step::End } else { Step::Scan(wave) }
    }

    /// Scans sources in parallel and takes their newest candidates.
    fn scan(&mut self, wave: &[Pending]) -> Result<(), QueryError> {
        let (this, ctx, ends_at) = (&*self, self.sources.ctx, self.request.range.end);
        let scans = this.sources.pool.map(wave, |pending| {
            let ctx = &ctx.part();
            let mut newest = Newest::new(this.candidates_per_scan, pending.bound);
            let (mut cancelled, mut errors) = (Ok(()), Errors::new());
            let source = &this.sources.all[pending.source_index];
            let result = source.candidates(&this.scan, ctx, &mut |batch| {
                newest.extend(batch, ends_at, |id, held| {
                    this.reaches_range(id, held, pending.source_index, ctx, &mut errors)
                });
                cancelled = ctx.check();
                if cancelled.is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            (newest, cancelled.and(result), errors)
        });
        for (pending, (newest, result, errors)) in wave.iter().zip(scans) {
            self.note(errors)?;
            let (Newest { kept, left_out, .. }, source_index) = (newest, pending.source_index);
            // What a source named before it failed is as good as any.
            self.stats += self.sources.good(result)?.unwrap_or_default();
            self.unresolved.extend(kept.into_iter().map(|Reverse(named)| Candidate { named, source_index }));
            self.pending.extend(left_out.map(|bound| Pending { bound, source_index }));
        }
        self.account()
    }

    /// Whether a trace overlaps the requested range, by what the source holds that names it, or else
    /// with what another source holds.
    fn reaches_range(
        &self,
        id: TraceId,
        held: TimeRange,
        source_index: usize,
        ctx: &QueryContext,
        errors: &mut Errors,
    ) -> bool {
        let range = &self.request.range;
        if held.overlaps(range) {
            return true;
        }
        let is_later = held.start > range.end;
        let may_reach = |other: &TimeRange| if is_later { other.start <= range.end } else { other.end >= range.start };
        self.ranges.iter().enumerate().any(|(other_index, other)| {
            other_index != source_index && other.as_ref().is_some_and(may_reach) && {
                let part = self.part_of(id, other_index, ctx, errors);
                part.is_some_and(|part| held.union(&part).overlaps(range))
            }
        })
    }

    /// What a source holds of a trace; nothing, and a note, when it fails.
    fn part_of(&self, id: TraceId, source_index: usize, ctx: &QueryContext, errors: &mut Errors) -> Option<TimeRange> {
        if errors.contains_key(&source_index) {
            return None;
        }
        match self.sources.all[source_index].trace_range(id, ctx) {
            Ok(part) => part,
            Err(error) => {
                errors.insert(source_index, error);
                None
            }
        }
    }

    /// Looks up where traces truly start and end, and keeps those that qualify by that.
    fn resolve(&mut self, mut candidates: Vec<Candidate>) -> Result<(), QueryError> {
        candidates.retain(|candidate| self.examined.insert(candidate.named.place.id()));
        if self.examined.len() > self.limits.examined_traces_max {
            let (what, value) = ("too many traces examined", self.limits.examined_traces_max as u64);
            return Err(QueryError::Limit { what, value, key: "query_max_examined_traces" });
        }
        let (this, ctx) = (&*self, self.sources.ctx);
        let ranges = this.sources.pool.map(&candidates, |candidate| {
            let (ctx, mut errors) = (&ctx.part(), Errors::new());
            // The source that named it has said what it holds; asking a block may cost a read.
            let others = (0..this.ranges.len()).filter(|index| *index != candidate.source_index);
            let parts = others.filter_map(|index| this.part_of(candidate.named.place.id(), index, ctx, &mut errors));
            let whole = parts.fold(candidate.named.held(), |whole, part| whole.union(&part));
            (whole, errors)
        });
        for (candidate, (whole, errors)) in candidates.into_iter().zip(ranges) {
            self.note(errors)?;
            if self.qualifies(&whole) {
                self.resolved.push(Place::new(whole.start, candidate.named.place.id()));
            }
        }
        self.account()
    }

    /// Assembles traces, which are the next ones in the order, and finds those that match.
    fn verify(&mut self, ids: &[TraceId]) -> Result<(), QueryError> {
        let (sources, ctx, filter) = (&self.sources.all, self.sources.ctx, &self.request.filter);
        // Neighbours in the order are neighbours in a block, so each thread takes a piece.
        let pieces: Vec<&[TraceId]> = ids.chunks(ids.len().div_ceil(self.sources.pool.thread_count())).collect();
        let verified = self.sources.pool.map(&pieces, |ids| {
            // Most of a long search's traces may be dropped again, and so is what they reserve.
            let ctx = &ctx.part();
            let (mut parts, mut errors) = (vec![Vec::new(); ids.len()], Errors::new());
            for (source_index, source) in sources.iter().enumerate() {
                match source.find_traces(ids, ctx) {
                    Ok(found) => parts.iter_mut().zip(found).for_each(|(part, found)| part.extend(found)),
                    Err(error) => {
                        // One bad page must not hide the traces beside it.
                        let one_by_one = ids.iter().map(|id| source.find_trace(*id, ctx).unwrap_or_default());
                        parts.iter_mut().zip(one_by_one).for_each(|(part, found)| part.extend(found));
                        errors.insert(source_index, error);
                    }
                }
            }
            let traces = ids.iter().zip(parts).filter_map(|(id, entries)| Trace::assemble(*id, entries));
            let found = traces.filter_map(|trace| {
                let matched = filter.matched(&trace);
                (!matched.is_empty()).then_some(FoundTrace { trace, matched })
            });
            (found.collect::<Vec<_>>(), errors)
        });
        for (found, errors) in verified {
            self.note(errors)?;
            for found in found {
                // Again: a source may have failed since the trace was resolved.
                if self.qualifies(&found.trace.range()) {
                    self.sources.ctx.reserve(held_bytes(&found.trace))?;
                    self.found.push(found);
                }
            }
        }
        Ok(())
    }

    fn qualifies(&self, range: &TimeRange) -> bool {
        let duration_nano = range.end.0.saturating_sub(range.start.0);
        range.overlaps(&self.request.range)
            && self.request.min_duration_nano.is_none_or(|min| duration_nano >= min)
            && self.request.max_duration_nano.is_none_or(|max| duration_nano <= max)
    }

    fn note(&mut self, errors: Errors) -> Result<(), QueryError> {
        errors.into_values().try_for_each(|error| self.sources.good::<()>(Err(error)).map(|_| ()))
    }

    /// Reserves what the heaps and the set have grown beyond what was reserved before.
    fn account(&mut self) -> Result<(), QueryError> {
        // One control byte per bucket, and a load of at most 7/8.
        let set_bytes = self.examined.capacity() * (size_of::<TraceId>() + 1) * 8 / 7;
        let heap_bytes =
            self.unresolved.capacity() * size_of::<Candidate>() + self.resolved.capacity() * size_of::<Place>();
        let held_bytes = heap_bytes + set_bytes;
        let grown_bytes = held_bytes.saturating_sub(self.accounted_bytes);
        self.accounted_bytes += grown_bytes;
        Ok(self.sources.ctx.reserve(grown_bytes)?)
    }
}

/// The range, longer by `by` at both ends.
fn widened(range: TimeRange, by: Duration) -> TimeRange {
    let by_nano = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
    TimeRange { start: range.start.minus(by), end: UnixNano(range.end.0.saturating_add(by_nano)) }
}

fn place_of(trace: &Trace) -> Place {
    Place::new(trace.range().start, trace.id)
}

/// Pops the greatest items as long as `is_next` holds for them, at most `max`.
fn pop_while<T: Ord>(heap: &mut BinaryHeap<T>, max: usize, is_next: impl Fn(&T) -> bool) -> Vec<T> {
    let mut popped = Vec::new();
    while popped.len() < max && heap.peek().is_some_and(&is_next) {
        popped.extend(heap.pop());
    }
    popped
}

#[cfg(test)]
mod tests;
