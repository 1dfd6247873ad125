//! Questions that need no search: one trace, and what attributes, values and operations there are.

use std::collections::BTreeSet;
use std::sync::Arc;

use spoor_model::columns::ColumnRequest;
use spoor_model::scan::{
    Field, KeySet, Operation, Predicate, QueryContext, ScanError, ScanStats, Skipped, Snapshot, SpanSource, ValueSet,
};
use spoor_model::{BlockId, SpanEntry, TenantId, TimeRange, Trace, TraceId, Value};

use crate::explain::Explain;
use crate::filter::masks_request;
use crate::held_bytes::held_bytes;
use crate::metrics::Op;
use crate::torn::Errors;
use crate::turns::Lanes;
use crate::wholes::{Wholes, holders};
use crate::{Answer, Querier, QueryError};

/// Blocks that are asked at once whether something may be in them, after the newest, which usually is enough.
const PROBED_AT_ONCE: usize = 8;

/// The sources of a query, asked in parallel, and those that failed.
pub(crate) struct Sources<'a> {
    pub(crate) all: &'a [Arc<dyn SpanSource>],
    pub(crate) lanes: Lanes<'a>,
    pub(crate) ctx: &'a QueryContext,
    pub(crate) skipped: Vec<Skipped>,
}

impl<'a> Sources<'a> {
    pub(crate) fn new(snapshot: &'a Snapshot, lanes: Lanes<'a>, ctx: &'a QueryContext) -> Self {
        Self { all: &snapshot.sources, lanes, ctx, skipped: snapshot.skipped.clone() }
    }

    /// What each source holds.
    pub(crate) fn ranges(&self) -> Vec<Option<TimeRange>> {
        self.all.iter().map(|source| source.range()).collect()
    }

    /// Asks every source; failed ones are noted and left out. In the order of the sources.
    fn ask<T: Send>(
        &mut self,
        question: impl Fn(&dyn SpanSource) -> Result<T, ScanError> + Sync + Send,
    ) -> Result<Vec<T>, QueryError> {
        let ctx = self.ctx;
        let answers = self.lanes.map(self.all, |source| {
            ctx.check()?;
            question(&**source)
        });
        let mut good = Vec::with_capacity(answers.len());
        for answer in answers {
            good.extend(self.good(answer)?);
        }
        Ok(good)
    }

    /// Whether each of these may hold for some span of some source that overlaps the range: `false` is certain. Of blocks
    /// nothing is read but what tells; what can change is looked through.
    pub(crate) fn may_all_hold(&self, required: &[Predicate], range: TimeRange) -> Result<bool, QueryError> {
        let is_near = |source: &&Arc<dyn SpanSource>| source.range().is_some_and(|held| held.overlaps(&range));
        // Blocks first: they tell sooner.
        let (blocks, hot): (Vec<_>, Vec<_>) =
            self.all.iter().filter(is_near).partition(|source| source.identity().is_some());
        for predicate in required {
            let request = masks_request(vec![predicate.clone()], vec![0], range);
            let (newest, others) = blocks.split_at(blocks.len().min(1));
            let mut waves = newest.chunks(1).chain(others.chunks(PROBED_AT_ONCE)).chain(hot.chunks(1));
            let may_hold = |wave: &[&Arc<dyn SpanSource>]| {
                let answers = self.lanes.map(wave, |source| self.may_hold(&***source, &request));
                answers.into_iter().try_fold(false, |found, answer| answer.map(|may| found || may))
            };
            if !waves.try_fold(false, |found, wave| Ok::<_, ScanError>(found || may_hold(wave)?))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn may_hold(&self, source: &dyn SpanSource, request: &ColumnRequest) -> Result<bool, ScanError> {
        let ctx = &self.ctx.part();
        ctx.check()?;
        let holds = source.scan(request, ctx).and_then(|scan| {
            let mut groups = 0..scan.groups().len();
            match source.identity() {
                Some(_) => Ok(!groups.is_empty()),
                None => groups.try_fold(false, |found, group| Ok(found || scan.read(group, ctx)?.0.is_some())),
            }
        });
        match holds {
            // Whoever reads it finds the error again, and says so.
            Err(error) if error.is_partial() => Ok(true),
            holds => holds,
        }
    }

    /// The attribute names of all sources.
    pub(crate) fn keys(&mut self) -> Result<(KeySet, ScanStats), QueryError> {
        let ctx = self.ctx;
        let answers = self.ask(|source| {
            let mut keys = KeySet::new();
            source.keys(ctx, &mut keys).map(|stats| (keys, stats))
        })?;
        let (mut all, mut stats) = (KeySet::new(), ScanStats::default());
        for (keys, cost) in answers {
            stats += cost;
            keys.into_iter().for_each(|(scope, names)| all.entry(scope).or_default().extend(names));
        }
        Ok((all, stats))
    }

    /// The answer, or `None` after noting that it is missing, or the end of the query.
    pub(crate) fn good<T>(&mut self, answer: Result<T, ScanError>) -> Result<Option<T>, QueryError> {
        match answer {
            Ok(value) => Ok(Some(value)),
            Err(ScanError::Corrupt { object, reason } | ScanError::Unavailable { object, reason }) => {
                if self.skipped.iter().all(|skipped| skipped.object != object) {
                    self.skipped.push(Skipped { object, reason });
                }
                Ok(None)
            }
            Err(error @ (ScanError::Cancelled | ScanError::MemoryLimit { .. })) => Err(error.into()),
        }
    }

    /// Notes which sources failed, or ends the query.
    pub(crate) fn note(&mut self, errors: Errors) -> Result<(), QueryError> {
        errors.into_values().try_for_each(|error| self.good::<()>(Err(error)).map(|_| ()))
    }

    /// The whole traces of these ids, in their order, without those of which nothing is left; and which
    /// sources failed. Best for a few dozen neighbours at a time.
    pub(crate) fn assembled(&self, ids: &[TraceId], ctx: &QueryContext) -> (Vec<Trace>, Errors) {
        let (mut parts, mut errors) = (vec![Vec::new(); ids.len()], Errors::new());
        for (index, source) in self.all.iter().enumerate() {
            let here: Vec<usize> = (0..ids.len()).filter(|place| source.may_hold(ids[*place])).collect();
            if here.is_empty() {
                continue;
            }
            let wanted: Vec<TraceId> = here.iter().map(|place| ids[*place]).collect();
            let found = source.find_traces(&wanted, ctx).unwrap_or_else(|error| {
                errors.insert(index, error);
                // One bad page must not hide the traces beside it.
                wanted.iter().map(|id| source.find_trace(*id, ctx).unwrap_or_default()).collect()
            });
            here.into_iter().zip(found).for_each(|(place, found)| parts[place].extend(found));
        }
        let traces = ids.iter().zip(parts).filter_map(|(id, entries)| Trace::assemble(*id, entries));
        (traces.collect(), errors)
    }

    /// [`Self::assembled`], where a trace that lies in blocks alone need not be read when it was before.
    pub(crate) fn assembled_before(
        &self,
        ids: &[TraceId],
        wholes: &Wholes,
        ctx: &QueryContext,
    ) -> (Vec<Arc<Trace>>, Errors) {
        let holders: Vec<Option<Vec<BlockId>>> = ids.iter().map(|id| holders(self.all, *id)).collect();
        let known = |(id, holders): (&TraceId, &Option<Vec<BlockId>>)| wholes.get(*id, holders.as_ref()?);
        let mut traces: Vec<Option<Arc<Trace>>> = ids.iter().zip(&holders).map(known).collect();
        let unknown: Vec<usize> = (0..ids.len()).filter(|place| traces[*place].is_none()).collect();
        let (read, errors) = self.assembled(&unknown.iter().map(|place| ids[*place]).collect::<Vec<_>>(), ctx);
        let mut read = read.into_iter().map(Arc::new).peekable();
        for (place, holders) in unknown.into_iter().map(|place| (place, holders[place].clone())) {
            let Some(trace) = read.next_if(|trace| trace.id == ids[place]) else { continue };
            // What a source that failed would have had may be readable the next time.
            if let Some(holders) = holders.filter(|_| errors.is_empty()) {
                wholes.insert(holders, &trace);
            }
            traces[place] = Some(trace);
        }
        (traces.into_iter().flatten().collect(), errors)
    }

    pub(crate) fn into_answer<T>(self, value: T, stats: ScanStats, explain: Explain) -> Answer<T> {
        Answer { value, skipped: self.skipped, stats, explain }
    }
}

/// Drops sources that have nothing in the range.
pub(crate) fn overlapping(mut snapshot: Snapshot, range: TimeRange) -> Snapshot {
    snapshot.sources.retain(|source| source.range().is_some_and(|held| held.overlaps(&range)));
    snapshot
}

impl Querier {
    /// The whole trace, wherever its spans are; `None` when no source has one.
    pub fn find_trace(
        &self,
        tenant: &TenantId,
        id: TraceId,
        ctx: &QueryContext,
    ) -> Result<Answer<Option<Trace>>, QueryError> {
        self.observed(Op::traces, tenant, ctx, |snapshot| {
            let part = ctx.part();
            let mut sources = Sources::new(&snapshot, self.lanes(), &part);
            let parts = sources.ask(|source| self.spans_in(source, id, &part))?;
            let entries: Vec<SpanEntry> = parts.into_iter().flatten().collect();
            let stats = ScanStats {
                spans_inspected: entries.len() as u64,
                traces_inspected: u64::from(!entries.is_empty()),
                bytes_inspected: 0,
            };
            let mut trace = Trace::assemble(id, entries);
            ctx.reserve(trace.as_ref().map_or(0, held_bytes))?;
            trace.iter_mut().for_each(Trace::order_repeated_keys);
            Ok(sources.into_answer(trace, stats, Explain::default()))
        })
    }

    /// The spans of a trace in a source, and whether a block's filter was right about it.
    fn spans_in(&self, source: &dyn SpanSource, id: TraceId, ctx: &QueryContext) -> Result<Vec<SpanEntry>, ScanError> {
        if !source.may_hold(id) {
            return Ok(Vec::new());
        }
        let found = source.find_trace(id, ctx)?;
        if source.identity().is_some() {
            self.metrics.observe_filter_hit(!found.is_empty());
        }
        Ok(found)
    }

    /// The attribute names that sources overlapping the range have.
    pub fn keys(&self, tenant: &TenantId, range: TimeRange, ctx: &QueryContext) -> Result<Answer<KeySet>, QueryError> {
        self.observed(Op::metadata, tenant, ctx, |snapshot| {
            let snapshot = overlapping(snapshot, range);
            let mut sources = Sources::new(&snapshot, self.lanes(), ctx);
            let (all, stats) = sources.keys()?;
            Ok(sources.into_answer(all, stats, Explain::default()))
        })
    }

    /// The distinct values of a field in sources overlapping the range, as many as fit into
    /// `limit_bytes`, and whether that is all: texts, integers, floats, booleans, each ascending.
    pub fn values(
        &self,
        tenant: &TenantId,
        field: &Field,
        range: TimeRange,
        limit_bytes: usize,
        ctx: &QueryContext,
    ) -> Result<Answer<(Vec<Value>, bool)>, QueryError> {
        self.observed(Op::metadata, tenant, ctx, |snapshot| {
            let snapshot = overlapping(snapshot, range);
            let mut sources = Sources::new(&snapshot, self.lanes(), ctx);
            let (mut values, mut stats) = (ValueSet::new(limit_bytes), ScanStats::default());
            // One after the other: a set per source could hold the limit as many times over.
            for source in sources.all {
                ctx.check()?;
                let cost = source.values(field, ctx, &mut values);
                stats += sources.good(cost)?.unwrap_or_default();
                if !values.is_complete() {
                    break;
                }
            }
            let is_complete = values.is_complete();
            Ok(sources.into_answer((values.into_values(), is_complete), stats, Explain::default()))
        })
    }

    /// What services do, in sources overlapping the range.
    pub fn operations(
        &self,
        tenant: &TenantId,
        range: TimeRange,
        ctx: &QueryContext,
    ) -> Result<Answer<BTreeSet<Operation>>, QueryError> {
        self.observed(Op::metadata, tenant, ctx, |snapshot| {
            let snapshot = overlapping(snapshot, range);
            let mut sources = Sources::new(&snapshot, self.lanes(), ctx);
            let answers = sources.ask(|source| {
                let mut operations = BTreeSet::new();
                source.operations(ctx, &mut operations).map(|stats| (operations, stats))
            })?;
            let (mut all, mut stats) = (BTreeSet::new(), ScanStats::default());
            for (operations, cost) in answers {
                stats += cost;
                all.extend(operations);
            }
            Ok(sources.into_answer(all, stats, Explain::default()))
        })
    }
}

#[cfg(test)]
pub(crate) mod tests;
