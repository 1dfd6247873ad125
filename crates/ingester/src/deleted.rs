//! A block less the traces that were deleted from it, until it is rewritten without them.
//!
//! What lists names only (attributes, values, operations, fingerprints) still has theirs: each of these is allowed to
//! be too much, and is exact again after the rewrite.

use std::collections::BTreeSet;
use std::sync::Arc;

use spoor_model::columns::{ColumnBatch, ColumnRequest, ColumnScan, GroupInfo, Pruned};
use spoor_model::scan::{Field, KeySet, Operation, QueryContext, ScanError, ScanStats, SpanSource, ValueSet};
use spoor_model::span::SpanEntry;
use spoor_model::{BlockId, TimeRange, TraceId};

/// A source in which some traces are not to be seen.
pub(crate) struct Without {
    source: Arc<dyn SpanSource>,
    deleted: Arc<BTreeSet<TraceId>>,
}

impl Without {
    pub(crate) fn new(source: Arc<dyn SpanSource>, deleted: Arc<BTreeSet<TraceId>>) -> Self {
        Self { source, deleted }
    }
}

struct ScanWithout<'a> {
    scan: Box<dyn ColumnScan + 'a>,
    needed: &'a [usize],
    deleted: &'a BTreeSet<TraceId>,
}

impl ColumnScan for ScanWithout<'_> {
    fn groups(&self) -> &[GroupInfo] {
        self.scan.groups()
    }

    fn pruned(&self) -> Pruned {
        self.scan.pruned()
    }

    fn read(&self, group: usize, ctx: &QueryContext) -> Result<(Option<ColumnBatch>, ScanStats), ScanError> {
        let (batch, stats) = self.scan.read(group, ctx)?;
        let batch = batch.map(|batch| batch.without(|id| self.deleted.contains(&id)));
        let is_needed = |batch: &ColumnBatch| {
            self.needed.is_empty() || self.needed.iter().any(|mask| !batch.masks[*mask].is_empty())
        };
        Ok((batch.filter(is_needed), stats))
    }
}

impl SpanSource for Without {
    fn describe(&self) -> String {
        self.source.describe()
    }

    fn range(&self) -> Option<TimeRange> {
        self.source.range()
    }

    fn span_count(&self) -> u64 {
        self.source.span_count()
    }

    fn scan<'a>(
        &'a self,
        request: &'a ColumnRequest,
        ctx: &QueryContext,
    ) -> Result<Box<dyn ColumnScan + 'a>, ScanError> {
        let scan = self.source.scan(request, ctx)?;
        Ok(Box::new(ScanWithout { scan, needed: &request.needed, deleted: &self.deleted }))
    }

    /// The block's own: caches keep what traces it has in common with others, and too many do no harm.
    fn identity(&self) -> Option<BlockId> {
        self.source.identity()
    }

    fn may_hold(&self, id: TraceId) -> bool {
        !self.deleted.contains(&id) && self.source.may_hold(id)
    }

    fn trace_fingerprints(&self, ctx: &QueryContext) -> Result<Arc<[u32]>, ScanError> {
        self.source.trace_fingerprints(ctx)
    }

    fn find_trace(&self, id: TraceId, ctx: &QueryContext) -> Result<Vec<SpanEntry>, ScanError> {
        match self.deleted.contains(&id) {
            true => Ok(Vec::new()),
            false => self.source.find_trace(id, ctx),
        }
    }

    fn find_traces(&self, ids: &[TraceId], ctx: &QueryContext) -> Result<Vec<Vec<SpanEntry>>, ScanError> {
        let mut found = self.source.find_traces(ids, ctx)?;
        let gone = ids.iter().zip(&mut found).filter(|(id, _)| self.deleted.contains(id));
        gone.for_each(|(_, spans)| spans.clear());
        Ok(found)
    }

    fn trace_range(&self, id: TraceId, ctx: &QueryContext) -> Result<Option<TimeRange>, ScanError> {
        match self.deleted.contains(&id) {
            true => Ok(None),
            false => self.source.trace_range(id, ctx),
        }
    }

    fn keys(&self, ctx: &QueryContext, into: &mut KeySet) -> Result<ScanStats, ScanError> {
        self.source.keys(ctx, into)
    }

    fn values(&self, field: &Field, ctx: &QueryContext, into: &mut ValueSet) -> Result<ScanStats, ScanError> {
        self.source.values(field, ctx, into)
    }

    fn operations(&self, ctx: &QueryContext, into: &mut BTreeSet<Operation>) -> Result<ScanStats, ScanError> {
        self.source.operations(ctx, into)
    }
}
