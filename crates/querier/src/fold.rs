//! One pass over all spans in a range: columns where they suffice, whole traces where they do not.
//!
//! ```text
//!   groups in the range --read--> columns --+-- whole, regular traces ----------> partial  \
//!                                           |                                               merge
//!                                           +-- torn, irregular that may match              /
//!                                                 ids --assemble--> columns ----> partial
//! ```
//!
//! Every trace is added exactly once: by the group that holds it when it lies in one source with each span
//! once, else after it has been put together from all sources. So copies count once, and what is said of a
//! whole trace is said of the whole trace.
//!
//! A torn trace may match by a part that lies outside the range, so sources are asked for the range widened as
//! a search widens it; groups that lie outside the range itself are read for their torn traces alone, and
//! only if their source has any.

use std::sync::Mutex;

use hashbrown::HashSet;
use spoor_model::TraceId;
use spoor_model::bits::Bits;
use spoor_model::columns::{ColumnBatch, ColumnRequest, ColumnScan};
use spoor_model::scan::{Predicate, ScanError, ScanStats};

use crate::explain::{SourceScan, Stage};
use crate::lookup::Sources;
use crate::request::Limits;
use crate::search::widened;
use crate::torn::Torn;
use crate::wholes::Wholes;
use crate::{QueryError, Remembered};

/// Groups per thread between two looks at the clock and the account.
const GROUPS_PER_LANE: usize = 4;

/// Traces that are assembled into one batch, and how many batches per thread there are between two looks.
const ASSEMBLED_AT_ONCE: usize = 64;

/// What becomes of columns.
pub(crate) trait Accumulate: Sync {
    /// What has been added up; partials of several threads are merged.
    type Partial: Send;

    /// Nothing yet.
    fn start(&self) -> Self::Partial;

    /// Adds the traces of a batch, the answer to the request, that are not in `skip`.
    fn add(&self, partial: &mut Self::Partial, batch: &ColumnBatch, skip: &Bits);

    /// The traces of a batch that may matter, were its rows only a part of them.
    fn may_match(&self, batch: &ColumnBatch) -> Bits;

    /// Adds what another partial holds.
    fn merge(&self, into: &mut Self::Partial, other: Self::Partial);

    /// About what a partial holds in memory.
    fn held_bytes(&self, partial: &Self::Partial) -> usize;

    /// Whether more traces would change nothing: then reading ends early.
    fn has_enough(&self) -> bool {
        false
    }
}

/// Where spans may lie that make a trace matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// In the range.
    Range,
    /// Anywhere in a trace that overlaps it.
    Around,
}

/// Asks sources for `asked` and adds up what they answer.
pub(crate) fn fold<A: Accumulate>(
    accumulate: &A,
    asked: &ColumnRequest,
    reach: Reach,
    limits: &Limits,
    remembered: &Remembered,
    sources: &mut Sources<'_>,
    stage: &mut Stage,
) -> Result<A::Partial, QueryError> {
    let is_never = |mask: &usize| matches!(asked.masks[*mask], Predicate::False);
    if !asked.needed.is_empty() && asked.needed.iter().all(is_never) {
        return Ok(accumulate.start());
    }
    let range = match reach {
        Reach::Range => asked.range,
        Reach::Around => widened(asked.range, limits.trace_duration_max),
    };
    let widened = ColumnRequest { range, ..asked.clone() };
    let ranges = sources.ranges();
    let all = sources.all;
    let mut fold = Fold {
        accumulate,
        asked,
        sources,
        wholes: &remembered.wholes,
        torn: Torn::new(all, &ranges, limits.trace_duration_max, &remembered.pairs),
        partials: Mutex::default(),
        to_assemble: Vec::new(),
        seen: HashSet::new(),
        stage,
        accounted_bytes: 0,
    };
    let scans = fold.open(&widened, &ranges)?;
    let groups = fold.groups(&scans)?;
    fold.read(&scans, &groups)?;
    fold.assemble(limits.examined_traces_max)?;
    Ok(fold.merged())
}

struct Fold<'f, 'a, A: Accumulate> {
    accumulate: &'f A,
    asked: &'f ColumnRequest,
    sources: &'f mut Sources<'a>,
    torn: Torn<'f>,
    wholes: &'f Wholes,
    /// Those that no thread is adding to: at most one per thread.
    partials: Mutex<Vec<A::Partial>>,
    /// Each once, neighbours in a group side by side.
    to_assemble: Vec<TraceId>,
    seen: HashSet<TraceId>,
    stage: &'f mut Stage,
    accounted_bytes: usize,
}

/// A source that is open, its place among the sources, and its place among the stage's reports.
struct Opened<'s> {
    index: usize,
    report: usize,
    scan: Box<dyn ColumnScan + 's>,
}

#[derive(Debug, Clone, Copy)]
struct Group {
    /// Place among the opened sources.
    opened: usize,
    group: usize,
    /// Whether whole traces of it can count.
    is_in_range: bool,
}

struct Added {
    ids: Vec<TraceId>,
    has_match: bool,
    stats: ScanStats,
}

impl<'a, A: Accumulate> Fold<'_, 'a, A> {
    fn open<'s>(
        &mut self,
        widened: &'s ColumnRequest,
        ranges: &[Option<spoor_model::TimeRange>],
    ) -> Result<Vec<Opened<'s>>, QueryError>
    where
        'a: 's,
    {
        let (all, ctx) = (self.sources.all, self.sources.ctx);
        let is_near = |index: &usize| ranges[*index].is_some_and(|held| held.overlaps(&widened.range));
        let near: Vec<usize> = (0..all.len()).filter(is_near).collect();
        self.stage.sources_out_of_range = (all.len() - near.len()) as u64;
        ctx.progress().add(near.len());
        let scans = self.sources.lanes.map(&near, |index| {
            ctx.check()?;
            let scan = all[*index].scan(widened, ctx);
            ctx.progress().finish(ScanStats::default());
            scan
        });
        let mut opened = Vec::new();
        for (index, scan) in near.into_iter().zip(scans) {
            if let Some(scan) = self.sources.good(scan)? {
                let is_in_range = ranges[index].is_some_and(|held| held.overlaps(&self.asked.range));
                // What lies around the range need not be read when nothing there can match, or all of its traces lie there
                // whole: the former is known sooner.
                if !is_in_range && (scan.groups().is_empty() || !self.has_torn(index)?) {
                    self.stage.sources_out_of_range += 1;
                    continue;
                }
                let (source, pruned) = (all[index].describe(), scan.pruned());
                opened.push(Opened { index, report: self.stage.sources.len(), scan });
                self.stage.sources.push(SourceScan { source, pruned, ..SourceScan::default() });
            }
        }
        Ok(opened)
    }

    /// What is to be read, newest sources first.
    fn groups(&mut self, scans: &[Opened<'_>]) -> Result<Vec<Group>, QueryError> {
        let mut groups = Vec::new();
        for (place, opened) in scans.iter().enumerate() {
            if opened.scan.groups().is_empty() {
                continue;
            }
            self.has_torn(opened.index)?;
            for (group, info) in opened.scan.groups().iter().enumerate() {
                let is_in_range = info.range.overlaps(&self.asked.range);
                match is_in_range || self.torn.has_any(opened.index) {
                    true => groups.push(Group { opened: place, group, is_in_range }),
                    false => self.stage.sources[opened.report].groups_without_torn_traces += 1,
                }
            }
        }
        Ok(groups)
    }

    /// Whether a source has a part of a torn trace.
    fn has_torn(&mut self, index: usize) -> Result<bool, QueryError> {
        self.torn.learn(index, self.sources.ctx)?;
        let errors = self.torn.take_errors();
        self.sources.note(errors)?;
        Ok(self.torn.has_any(index))
    }

    fn read(&mut self, scans: &[Opened<'_>], groups: &[Group]) -> Result<(), QueryError> {
        let mut left = groups;
        self.sources.ctx.progress().add(groups.len());
        while !left.is_empty() && !self.accumulate.has_enough() {
            let wave;
            (wave, left) = left.split_at(left.len().min(self.sources.lanes.count() * GROUPS_PER_LANE));
            let this = &*self;
            let added = this.sources.lanes.map(wave, |group| this.read_group(&scans[group.opened], *group));
            for (group, added) in wave.iter().zip(added) {
                let Some(added) = self.sources.good(added)? else { continue };
                self.sources.ctx.progress().finish(added.stats);
                let report = &mut self.stage.sources[scans[group.opened].report];
                report.groups_read += 1;
                report.groups_without_match += u64::from(!added.has_match);
                report.stats += added.stats;
                self.to_assemble.extend(added.ids.into_iter().filter(|id| self.seen.insert(*id)));
            }
            self.account()?;
        }
        Ok(())
    }

    fn read_group(&self, opened: &Opened<'_>, group: Group) -> Result<Added, ScanError> {
        let ctx = &self.sources.ctx.part();
        ctx.check()?;
        let (batch, stats) = opened.scan.read(group.group, ctx)?;
        let Some(batch) = batch else { return Ok(Added { ids: Vec::new(), has_match: false, stats }) };
        // An irregular trace that lies outside the range, and nowhere else, counts as little as any other there.
        let is_apart = |trace: usize| {
            (group.is_in_range && batch.is_irregular(trace)) || self.torn.contains(batch.trace_ids[trace])
        };
        let apart = Bits::from_fn(batch.trace_count(), is_apart);
        let mut to_assemble = self.accumulate.may_match(&batch);
        to_assemble.intersect(&apart);
        let ids = to_assemble.iter().map(|trace| batch.trace_ids[trace]).collect();
        if group.is_in_range {
            self.add(&batch, &apart);
        }
        Ok(Added { ids, has_match: true, stats })
    }

    fn add(&self, batch: &ColumnBatch, skip: &Bits) {
        let free = self.partials.lock().expect("nothing panics while it holds the lock").pop();
        let mut partial = free.unwrap_or_else(|| self.accumulate.start());
        self.accumulate.add(&mut partial, batch, skip);
        self.partials.lock().expect("nothing panics while it holds the lock").push(partial);
    }

    /// Puts the torn and the irregular traces together and adds them.
    fn assemble(&mut self, traces_max: usize) -> Result<(), QueryError> {
        if self.accumulate.has_enough() {
            return Ok(());
        }
        if self.to_assemble.len() > traces_max {
            let (what, key) = ("too many traces lie in several sources", "query_max_examined_traces");
            return Err(QueryError::Limit { what, value: traces_max as u64, key });
        }
        self.stage.traces_assembled = self.to_assemble.len() as u64;
        let ids = std::mem::take(&mut self.to_assemble);
        let chunks: Vec<&[TraceId]> = ids.chunks(ASSEMBLED_AT_ONCE).collect();
        for wave in chunks.chunks(self.sources.lanes.count() * GROUPS_PER_LANE) {
            if self.accumulate.has_enough() {
                break;
            }
            let this = &*self;
            let added = this.sources.lanes.map(wave, |ids| {
                let ctx = &this.sources.ctx.part();
                ctx.check()?;
                let (traces, errors) = this.sources.assembled_before(ids, this.wholes, ctx);
                let batch = ColumnBatch::of_traces(&traces, this.asked);
                this.add(&batch, &Bits::none(batch.trace_count()));
                Ok::<_, ScanError>((batch.row_count(), errors))
            });
            for added in added {
                let Some((span_count, errors)) = self.sources.good(added)? else { continue };
                self.stage.spans_assembled += span_count as u64;
                self.sources.note(errors)?;
            }
            self.account()?;
        }
        Ok(())
    }

    fn merged(self) -> A::Partial {
        let mut partials = self.partials.into_inner().expect("nothing panics while it holds the lock").into_iter();
        let mut sum = partials.next().unwrap_or_else(|| self.accumulate.start());
        partials.for_each(|partial| self.accumulate.merge(&mut sum, partial));
        sum
    }

    /// Reserves what has grown beyond what was reserved before.
    fn account(&mut self) -> Result<(), QueryError> {
        let partials = self.partials.lock().expect("nothing panics while it holds the lock");
        let partials_bytes: usize = partials.iter().map(|partial| self.accumulate.held_bytes(partial)).sum();
        drop(partials);
        let ids_bytes = self.seen.allocation_size() + self.to_assemble.capacity() * size_of::<TraceId>();
        let held_bytes = partials_bytes + ids_bytes + self.torn.held_bytes();
        let grown_bytes = held_bytes.saturating_sub(self.accounted_bytes);
        self.accounted_bytes += grown_bytes;
        Ok(self.sources.ctx.reserve(grown_bytes)?)
    }
}

#[cfg(test)]
mod tests;
