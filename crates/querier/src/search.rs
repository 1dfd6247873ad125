//! Search: the traces that match and start last, exactly, without looking at all of them.
//!
//! A group of a source names candidates with the earliest start that *its source* knows, and that is an upper
//! bound: the whole trace starts then or earlier. So traces are ordered by a [`Place`] of which an upper bound
//! is known first, and the exact value after asking every source:
//!
//! ```text
//!   pending sources, groups      candidates               traces             found
//!   by upper bound --scan--> by upper bound --resolve--> by start --verify--> newest first
//!                 (waves)          |        (in parallel)   ^     (in parallel)
//!                                  +------- whole ones -----+
//! ```
//!
//! The greatest of all is always treated next. A *resolved* trace that lies above every candidate
//! and everything pending comes before everything not yet found:
//!
//! - what is a candidate lies below it, and can only sink when it is resolved;
//! - a trace that is only in what is pending has some fragment there that may match, and lies at or below its
//!   bound: its start is at or before the fragment's start, that is at or before the latest start of
//!   the group's traces, or the end of a source that is not open yet; and at or before the end of the requested range,
//!   since the trace overlaps that.
//!
//! So it is verified and, if it matches, is the next result, and the search ends at the limit. Waves of groups
//! begin with one and double: a common value is found in the first group, a rare one at full width.
//!
//! **What a group tells of a trace.** A trace that lies in its source alone, with no span id twice, is decided
//! there: it is a candidate if it matches, and then certainly a result. One that is torn ([`crate::torn`]) or irregular
//! is a candidate if it *may* match, and decided when it has been assembled. Filters that a trace satisfies exactly
//! when one of its parts does need no such care, and their torn traces show when they are resolved.
//!
//! **Which groups are scanned.** A trace is found by the source that holds its matching span, which
//! may lie outside the requested range while another fragment lies inside. If the trace lasts at
//! most `trace_duration_max`, then all its spans lie within the requested range widened by that at
//! both ends, so do the sources that hold them overlap the widened range, and scanning just these,
//! with the widened range, misses nothing. Of what lies around the range only torn traces matter: groups there are
//! read if they may match and their source has any, and such a candidate is dropped unless another source holds what makes it overlap the
//! range. Longer traces: see [`crate::Limits`], and `docs/adr/0007-search-range.md`.
//!
//! **What is nowhere.** Of what must hold for several spans of a trace (`{ a } >> { b }`) sources are asked for one thing
//! only. So it is looked first whether each of the others may hold anywhere: where one is told to be nowhere, nothing is read.
//!
//! **Memory.** Candidates are 64 bytes. The heaps and the set of examined ids are accounted for by what they
//! hold at most; a group's columns by the source, until the group is done.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::RangeInclusive;
use std::time::Duration;

use hashbrown::HashSet;
use spoor_model::columns::{ColumnRequest, ColumnScan};
use spoor_model::scan::{Predicate, QueryContext, ScanError, ScanStats};
use spoor_model::{TenantId, TimeRange, Trace, TraceId, UnixNano};
use spoor_traceql::TraceMatches;

use crate::explain::{Explain, SourceScan, Stage};
use crate::held_bytes::held_bytes;
use crate::lookup::Sources;
use crate::metrics::Op;
use crate::request::{FoundTrace, Limits, SearchRequest};
use crate::torn::{Errors, PairCache, Torn};
use crate::{Answer, Querier, QueryError};

mod place;

use place::{Candidate, Place};

/// Candidates whose true start is looked up at once, in parallel: enough to keep threads busy, and
/// few enough that those not needed in the end cost little.
const RESOLVED_AT_ONCE: RangeInclusive<usize> = 8..=64;

/// Traces that are assembled at once, in parallel; bounds what a batch may hold in memory.
const ASSEMBLED_AT_ONCE: usize = 32;

/// Groups per thread in the widest wave: a wave ends when its slowest group does, so more of them keep
/// threads busier, and fewer are less to have read for nothing.
const GROUPS_PER_LANE: usize = 8;

impl Querier {
    /// The traces that match, newest start first, then by id, greater ones first; at most `request.limit`. Exact:
    /// the limit is applied after the order.
    ///
    /// Several tenants are one body of data: a trace whose spans lie with two of them is one trace.
    pub fn search(
        &self,
        tenants: &[TenantId],
        request: &SearchRequest,
        ctx: &QueryContext,
    ) -> Result<Answer<Vec<FoundTrace>>, QueryError> {
        self.search_step_by_step(tenants, request, ctx, |_| ())
    }

    /// [`Self::search`], which shows what it has found after every step: the first traces of the answer, and more of
    /// them each time. (Only where the head grows an earlier span of a trace meanwhile may the answer have them in another order.)
    pub fn search_step_by_step(
        &self,
        tenants: &[TenantId],
        request: &SearchRequest,
        ctx: &QueryContext,
        show: impl FnMut(&[FoundTrace]),
    ) -> Result<Answer<Vec<FoundTrace>>, QueryError> {
        self.observed_of_all(Op::search, tenants, ctx, |snapshot| {
            check(request, &self.limits)?;
            let sources = Sources::new(&snapshot, self.lanes(), ctx);
            search(request, &self.limits, &self.remembered.pairs, sources, show)
        })
    }
}

fn search(
    request: &SearchRequest,
    limits: &Limits,
    pairs: &PairCache,
    sources: Sources<'_>,
    show: impl FnMut(&[FoundTrace]),
) -> Result<Answer<Vec<FoundTrace>>, QueryError> {
    let asked = request.filter.request(widened(request.range, limits.trace_duration_max));
    let ranges = sources.ranges();
    let torn = Torn::new(sources.all, &ranges, limits.trace_duration_max, pairs);
    Search::new(request, limits, &asked, sources, &ranges, torn).run(show)
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

/// A source that is not open yet, or a group of one that is, with candidates that have not been taken: none lies
/// above the bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Pending {
    bound: Place,
    source_index: usize,
    group: Option<usize>,
}

struct Search<'a> {
    request: &'a SearchRequest,
    limits: &'a Limits,
    asked: &'a ColumnRequest,
    is_single_span: bool,
    sources: Sources<'a>,
    /// What each source holds, as of the beginning.
    ranges: &'a [Option<TimeRange>],
    torn: Torn<'a>,
    scans: Vec<Option<Box<dyn ColumnScan + 'a>>>,
    pending: BinaryHeap<Pending>,
    /// How many pending ones the next wave takes.
    wave_len: usize,
    /// Candidates at an upper bound; a trace may be here several times, from several sources.
    unresolved: BinaryHeap<Candidate>,
    /// Traces at their true place that qualify by range and duration.
    resolved: BinaryHeap<Place>,
    /// Traces that have been resolved.
    examined: HashSet<TraceId>,
    found: Vec<FoundTrace>,
    stats: ScanStats,
    stage: Stage,
    /// Of the sources that are open.
    reports: Vec<Option<SourceScan>>,
    accounted_bytes: usize,
}

/// What to do next.
enum Step {
    Verify(Vec<TraceId>),
    Resolve(Vec<Candidate>),
    Scan(Vec<Pending>),
    End,
}

/// What a group says.
struct Named {
    /// `None` when no span satisfies what a match needs.
    candidates: Option<Vec<Candidate>>,
    stats: ScanStats,
    errors: Errors,
}

impl<'a> Search<'a> {
    fn new(
        request: &'a SearchRequest,
        limits: &'a Limits,
        asked: &'a ColumnRequest,
        sources: Sources<'a>,
        ranges: &'a [Option<TimeRange>],
        torn: Torn<'a>,
    ) -> Self {
        let pending = ranges.iter().enumerate().filter_map(|(source_index, held)| {
            let held = held.filter(|held| held.overlaps(&asked.range))?;
            let bound = Place::last_at(held.end.min(request.range.end));
            Some(Pending { bound, source_index, group: None })
        });
        let pending: BinaryHeap<Pending> = pending.collect();
        let out_of_range = (sources.all.len() - pending.len()) as u64;
        sources.ctx.progress().add(pending.len());
        Self {
            request,
            limits,
            asked,
            is_single_span: request.filter.is_single_span(),
            ranges,
            torn,
            scans: sources.all.iter().map(|_| None).collect(),
            reports: vec![None; sources.all.len()],
            sources,
            pending,
            wave_len: 1,
            unresolved: BinaryHeap::new(),
            resolved: BinaryHeap::new(),
            examined: HashSet::new(),
            found: Vec::new(),
            stats: ScanStats::default(),
            stage: Stage { name: "search".to_owned(), sources_out_of_range: out_of_range, ..Stage::default() },
            accounted_bytes: 0,
        }
    }

    fn run(mut self, mut show: impl FnMut(&[FoundTrace])) -> Result<Answer<Vec<FoundTrace>>, QueryError> {
        let is_never = |mask: &usize| matches!(self.asked.masks[*mask], Predicate::False);
        let is_nowhere = !self.asked.needed.is_empty() && self.asked.needed.iter().all(is_never);
        if is_nowhere || !self.sources.may_all_hold(&self.request.filter.required(), self.asked.range)? {
            self.pending.clear();
        }
        while self.found.len() < self.request.limit {
            self.sources.ctx.check()?;
            match self.next_step() {
                Step::Verify(ids) => self.verify(&ids)?,
                Step::Resolve(candidates) => self.resolve(candidates)?,
                Step::Scan(wave) => self.scan(wave)?,
                Step::End => break,
            }
            show(&self.found);
        }
        // Sorted already, unless the head has grown an earlier span of a trace meanwhile.
        self.found.sort_by_cached_key(|found| Reverse(place_of(&found.trace)));
        self.stage.sources_not_reached = self.pending.iter().filter(|pending| pending.group.is_none()).count() as u64;
        self.stage.sources.extend(self.reports.into_iter().flatten());
        let explain = Explain { stages: vec![self.stage] };
        Ok(self.sources.into_answer(self.found, self.stats, explain))
    }

    /// Takes the greatest of all, and what of its kind comes right behind it. `None` is less than
    /// any place, so an empty heap stands in nobody's way.
    fn next_step(&mut self) -> Step {
        let resolved = self.resolved.peek().copied();
        let unresolved = self.unresolved.peek().map(|candidate| candidate.place);
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
            let is_next = |candidate: &Candidate| Some(candidate.place) > horizon;
            return Step::Resolve(pop_while(&mut self.unresolved, max, is_next));
        }
        let is_next = |pending: &Pending| Some(pending.bound) >= resolved.max(unresolved);
        let wave = pop_while(&mut self.pending, self.wave_len, is_next);
        if wave.is_empty() { Step::End } else { Step::Scan(wave) }
    }

    /// Opens sources and reads groups, in parallel.
    fn scan(&mut self, wave: Vec<Pending>) -> Result<(), QueryError> {
        let (groups, sources): (Vec<Pending>, Vec<Pending>) = wave.into_iter().partition(|next| next.group.is_some());
        if !sources.is_empty() {
            self.open(&sources)?;
        }
        if !groups.is_empty() {
            let widest = self.sources.lanes.count() * GROUPS_PER_LANE;
            self.wave_len = (self.wave_len * 2).min(widest);
            self.read(&groups)?;
        }
        self.account()
    }

    fn open(&mut self, wave: &[Pending]) -> Result<(), QueryError> {
        let (all, asked, ctx) = (self.sources.all, self.asked, self.sources.ctx);
        let opened = self.sources.lanes.map(wave, |pending| {
            ctx.check()?;
            all[pending.source_index].scan(asked, ctx)
        });
        for (pending, scan) in wave.iter().zip(opened) {
            ctx.progress().finish(ScanStats::default());
            let Some(scan) = self.sources.good(scan)? else { continue };
            match self.is_concerned(pending.source_index, &*scan)? {
                true => self.enqueue(pending.source_index, scan)?,
                false => self.stage.sources_out_of_range += 1,
            }
        }
        Ok(())
    }

    /// Whether a source overlaps the range, or has a part of a torn trace: others need not be read. Which traces are torn
    /// costs more to know than that nothing can match.
    fn is_concerned(&mut self, source_index: usize, scan: &dyn ColumnScan) -> Result<bool, QueryError> {
        let is_in_range = self.ranges[source_index].is_some_and(|held| held.overlaps(&self.request.range));
        Ok(is_in_range || (!scan.groups().is_empty() && self.has_torn(source_index)?))
    }

    /// Whether a source has a part of a torn trace.
    fn has_torn(&mut self, source_index: usize) -> Result<bool, QueryError> {
        self.torn.learn(source_index, self.sources.ctx)?;
        let errors = self.torn.take_errors();
        self.sources.note(errors)?;
        Ok(self.torn.has_any(source_index))
    }

    /// Makes the groups of a source pending, except those of which no trace can matter.
    fn enqueue(&mut self, source_index: usize, scan: Box<dyn ColumnScan + 'a>) -> Result<(), QueryError> {
        let source = self.sources.all[source_index].describe();
        let mut report = SourceScan { source, pruned: scan.pruned(), ..SourceScan::default() };
        let range = self.request.range;
        let groups = scan.groups();
        if !groups.is_empty() && (!self.is_single_span || groups.iter().any(|group| !group.range.overlaps(&range))) {
            self.has_torn(source_index)?;
        }
        for (index, group) in scan.groups().iter().enumerate() {
            if group.range.overlaps(&range) || self.torn.has_any(source_index) {
                let bound = Place::last_at(group.latest_trace_start.min(range.end));
                self.pending.push(Pending { bound, source_index, group: Some(index) });
                self.sources.ctx.progress().add(1);
            } else {
                report.groups_without_torn_traces += 1;
            }
        }
        self.scans[source_index] = Some(scan);
        self.reports[source_index] = Some(report);
        Ok(())
    }

    fn read(&mut self, wave: &[Pending]) -> Result<(), QueryError> {
        let this = &*self;
        let answers = this.sources.lanes.map(wave, |pending| this.read_group(pending));
        for (pending, answer) in wave.iter().zip(answers) {
            let Some(Named { candidates, stats, errors }) = self.sources.good(answer)? else { continue };
            self.sources.note(errors)?;
            let report = self.reports[pending.source_index].as_mut().expect("it is open");
            report.groups_read += 1;
            report.groups_without_match += u64::from(candidates.is_none());
            report.stats += stats;
            self.stats += stats;
            self.sources.ctx.progress().finish(stats);
            for candidate in candidates.into_iter().flatten() {
                match candidate.is_whole {
                    // A trace that is longer than traces are taken to be may come from several sources.
                    true if self.examined.insert(candidate.place.id()) => self.resolved.push(candidate.place),
                    true => {}
                    false => self.unresolved.push(candidate),
                }
            }
        }
        Ok(())
    }

    fn read_group(&self, pending: &Pending) -> Result<Named, ScanError> {
        let ctx = &self.sources.ctx.part();
        ctx.check()?;
        let scan = self.scans[pending.source_index].as_ref().expect("it is open");
        let (batch, stats) = scan.read(pending.group.expect("it is a group"), ctx)?;
        let mut errors = Errors::new();
        let Some(batch) = batch else { return Ok(Named { candidates: None, stats, errors }) };
        let TraceMatches { matched, may_match } = self.request.filter.matches(&batch, self.asked);
        let mut either = matched.clone();
        either.union(&may_match);
        let knows_torn = self.torn.is_known(pending.source_index);
        let mut candidates = Vec::new();
        for trace in either.iter() {
            let (id, held) = (batch.trace_ids[trace], batch.trace_ranges[trace]);
            let is_whole = knows_torn && !self.torn.contains(id);
            let is_decided = self.is_single_span || (is_whole && !batch.is_irregular(trace));
            if is_decided && !matched.contains(trace) || !is_decided && !may_match.contains(trace) {
                continue;
            }
            let is_wanted = match is_whole {
                true => self.qualifies(&held),
                false => self.reaches_range(id, held, pending.source_index, ctx, &mut errors),
            };
            if is_wanted {
                let ends_at = self.request.range.end;
                candidates.push(Candidate::new(id, held, ends_at, pending.source_index, is_whole));
            }
        }
        Ok(Named { candidates: Some(candidates), stats, errors })
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
        let source = &self.sources.all[source_index];
        if errors.contains_key(&source_index) || !source.may_hold(id) {
            return None;
        }
        match source.trace_range(id, ctx) {
            Ok(part) => part,
            Err(error) => {
                errors.insert(source_index, error);
                None
            }
        }
    }

    /// Looks up where traces truly start and end, and keeps those that qualify by that.
    fn resolve(&mut self, mut candidates: Vec<Candidate>) -> Result<(), QueryError> {
        candidates.retain(|candidate| self.examined.insert(candidate.place.id()));
        self.stage.traces_located += candidates.len() as u64;
        self.check_examined()?;
        let (this, ctx) = (&*self, self.sources.ctx);
        let ranges = this.sources.lanes.map(&candidates, |candidate| {
            let (ctx, mut errors) = (&ctx.part(), Errors::new());
            // The source that named it has said what it holds; asking a block may cost a read.
            let others = (0..this.ranges.len()).filter(|index| *index != candidate.source_index as usize);
            let parts = others.filter_map(|index| this.part_of(candidate.place.id(), index, ctx, &mut errors));
            let whole = parts.fold(candidate.held(), |whole, part| whole.union(&part));
            (whole, errors)
        });
        for (candidate, (whole, errors)) in candidates.into_iter().zip(ranges) {
            self.sources.note(errors)?;
            if self.qualifies(&whole) {
                self.resolved.push(Place::new(whole.start, candidate.place.id()));
            }
        }
        self.account()
    }

    fn check_examined(&self) -> Result<(), QueryError> {
        let examined_count = self.stage.traces_located.max(self.stage.traces_assembled);
        let value = self.limits.examined_traces_max as u64;
        match examined_count <= value {
            true => Ok(()),
            false => {
                let (what, key) = ("too many traces examined", "query_max_examined_traces");
                Err(QueryError::Limit { what, value, key })
            }
        }
    }

    /// Assembles traces, which are the next ones in the order, and finds those that match.
    fn verify(&mut self, ids: &[TraceId]) -> Result<(), QueryError> {
        self.stage.traces_assembled += ids.len() as u64;
        self.check_examined()?;
        let (sources, filter) = (&self.sources, &self.request.filter);
        // Neighbours in the order are neighbours in a block, so each thread takes a piece.
        let pieces: Vec<&[TraceId]> = ids.chunks(ids.len().div_ceil(sources.lanes.count())).collect();
        let verified = sources.lanes.map(&pieces, |ids| {
            // Most of a long search's traces may be dropped again, and so is what they reserve.
            let (traces, errors) = sources.assembled(ids, &sources.ctx.part());
            let spans_count: usize = traces.iter().map(|trace| trace.entries.len()).sum();
            let found = traces.into_iter().filter_map(|trace| {
                let spansets = filter.evaluate(&trace);
                (!spansets.is_empty()).then_some(FoundTrace { trace, spansets })
            });
            (found.collect::<Vec<_>>(), spans_count, errors)
        });
        for (found, spans_count, errors) in verified {
            self.sources.note(errors)?;
            self.stage.spans_assembled += spans_count as u64;
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

    /// Reserves what the heaps and the set have grown beyond what was reserved before.
    fn account(&mut self) -> Result<(), QueryError> {
        // One control byte per bucket, and a load of at most 7/8.
        let set_bytes = self.examined.capacity() * (size_of::<TraceId>() + 1) * 8 / 7;
        let heap_bytes = self.pending.capacity() * size_of::<Pending>()
            + self.unresolved.capacity() * size_of::<Candidate>()
            + self.resolved.capacity() * size_of::<Place>();
        let held_bytes = heap_bytes + set_bytes + self.torn.held_bytes();
        let grown_bytes = held_bytes.saturating_sub(self.accounted_bytes);
        self.accounted_bytes += grown_bytes;
        Ok(self.sources.ctx.reserve(grown_bytes)?)
    }
}

/// The range, longer by `by` at both ends.
pub(crate) fn widened(range: TimeRange, by: Duration) -> TimeRange {
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
pub(crate) mod tests;
