//! Questions that need no search: one trace, and what attributes, values and operations there are.

use std::collections::BTreeSet;
use std::sync::Arc;

use spoor_model::compute::ComputePool;
use spoor_model::scan::{
    Field, KeySet, Operation, QueryContext, ScanError, ScanStats, Skipped, Snapshot, SpanSource, ValueSet,
};
use spoor_model::{SpanEntry, TenantId, TimeRange, Trace, TraceId, Value};

use crate::held_bytes::held_bytes;
use crate::metrics::Op;
use crate::{Answer, Querier, QueryError};

/// The sources of a query, asked in parallel, and those that failed.
pub(crate) struct Sources<'a> {
    pub(crate) all: Vec<Arc<dyn SpanSource>>,
    pub(crate) pool: &'a ComputePool,
    pub(crate) ctx: &'a QueryContext,
    pub(crate) skipped: Vec<Skipped>,
}

impl<'a> Sources<'a> {
    pub(crate) fn new(snapshot: Snapshot, pool: &'a ComputePool, ctx: &'a QueryContext) -> Self {
        Self { all: snapshot.sources, pool, ctx, skipped: snapshot.skipped }
    }

    /// Drops sources that have nothing in the range.
    fn overlapping(mut self, range: TimeRange) -> Self {
        self.all.retain(|source| source.range().is_some_and(|held| held.overlaps(&range)));
        self
    }

    /// Asks every source; failed ones are noted and left out. In the order of the sources.
    fn ask<T: Send>(
        &mut self,
        question: impl Fn(&dyn SpanSource) -> Result<T, ScanError> + Sync + Send,
    ) -> Result<Vec<T>, QueryError> {
        let ctx = self.ctx;
        let answers = self.pool.map(&self.all, |source| {
            ctx.check()?;
            question(&**source)
        });
        let mut good = Vec::with_capacity(answers.len());
        for answer in answers {
            good.extend(self.good(answer)?);
        }
        Ok(good)
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

    pub(crate) fn into_answer<T>(self, value: T, stats: ScanStats) -> Answer<T> {
        Answer { value, skipped: self.skipped, stats }
    }
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
            let mut sources = Sources::new(snapshot, &self.pool, &part);
            let parts = sources.ask(|source| source.find_trace(id, &part))?;
            let entries: Vec<SpanEntry> = parts.into_iter().flatten().collect();
            let stats = ScanStats {
                spans_inspected: entries.len() as u64,
                traces_inspected: u64::from(!entries.is_empty()),
                bytes_inspected: 0,
            };
            let trace = Trace::assemble(id, entries);
            ctx.reserve(trace.as_ref().map_or(0, held_bytes))?;
            Ok(sources.into_answer(trace, stats))
        })
    }

    /// The attribute names that sources overlapping the range have.
    pub fn keys(&self, tenant: &TenantId, range: TimeRange, ctx: &QueryContext) -> Result<Answer<KeySet>, QueryError> {
        self.observed(Op::metadata, tenant, ctx, |snapshot| {
            let mut sources = Sources::new(snapshot, &self.pool, ctx).overlapping(range);
            let answers = sources.ask(|source| {
                let mut keys = KeySet::new();
                source.keys(ctx, &mut keys).map(|stats| (keys, stats))
            })?;
            let (mut all, mut stats) = (KeySet::new(), ScanStats::default());
            for (keys, cost) in answers {
                stats += cost;
                keys.into_iter().for_each(|(scope, names)| all.entry(scope).or_default().extend(names));
            }
            Ok(sources.into_answer(all, stats))
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
            let mut sources = Sources::new(snapshot, &self.pool, ctx).overlapping(range);
            let (mut values, mut stats) = (ValueSet::new(limit_bytes), ScanStats::default());
            // One after the other: a set per source could hold the limit as many times over.
            for source in sources.all.clone() {
                ctx.check()?;
                let cost = source.values(field, ctx, &mut values);
                stats += sources.good(cost)?.unwrap_or_default();
                if !values.is_complete() {
                    break;
                }
            }
            let is_complete = values.is_complete();
            Ok(sources.into_answer((values.into_values(), is_complete), stats))
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
            let mut sources = Sources::new(snapshot, &self.pool, ctx).overlapping(range);
            let answers = sources.ask(|source| {
                let mut operations = BTreeSet::new();
                source.operations(ctx, &mut operations).map(|stats| (operations, stats))
            })?;
            let (mut all, mut stats) = (BTreeSet::new(), ScanStats::default());
            for (operations, cost) in answers {
                stats += cost;
                all.extend(operations);
            }
            Ok(sources.into_answer(all, stats))
        })
    }
}

#[cfg(test)]
mod tests;
