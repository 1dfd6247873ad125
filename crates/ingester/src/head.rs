//! The head: spans that are in the log and not yet in a block, as columns in memory.
//!
//! ```text
//!   tenant's head   [ segment ][ segment ][ open segment ]      <- the head thread appends here
//!                     at most SEGMENT_ROWS spans each
//! ```
//!
//! A segment is a batch behind a lock. Only the last one of a head is ever written to, by one
//! thread; the others are only read, so their locks are never waited for. To queries all segments of a
//! tenant, those of heads being cut included, are one source: a trace's spans lie in several of them.
//!
//! **Invariant:** a read takes the lengths of the segments first and looks at no row beyond, so it sees
//! each span that was acknowledged before it began, once; of what comes meanwhile it may see some.
//! **Invariant:** nobody holds the open segment's lock for longer than it takes to go once through its
//! rows, and nobody takes a segment's lock twice at once (the head thread may be waiting in between).

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::RwLock;
use spoor_model::batch::SpanBatch;
use spoor_model::columns::{ColumnRequest, ColumnScan};
use spoor_model::scan::{Field, KeySet, Operation, QueryContext, ScanError, ScanStats, SpanSource, ValueSet};
use spoor_model::span::SpanEntry;
use spoor_model::{TimeRange, TraceId};

mod coder;
mod columns;
mod fields;
mod items;
mod layout;
mod listing;
mod masks;
mod traces;

use columns::{GroupRows, HeadScan};
use items::ItemNames;
use traces::HeadTraces;

/// Spans per segment. Small dictionaries stay in cache (0.48 us per span instead of 0.52), the lock of
/// the open segment is held for a millisecond by a scan, and the vectors end exactly full.
pub(crate) const SEGMENT_ROWS: usize = 1 << 16;

/// Bytes per segment: offsets within a batch have 32 bits, so it is sealed long before.
pub(crate) const SEGMENT_BYTES: usize = 64 << 20;

/// A part of a head.
#[derive(Debug, Default)]
pub(crate) struct Segment {
    batch: RwLock<SpanBatch>,
    is_sealed: AtomicBool,
    /// Only of a sealed segment.
    names: OnceLock<ItemNames>,
}

impl Segment {
    /// The spans, for reading.
    pub(crate) fn read(&self) -> parking_lot::RwLockReadGuard<'_, SpanBatch> {
        self.batch.read()
    }

    /// The spans, for the head thread to append to.
    pub(crate) fn write(&self) -> parking_lot::RwLockWriteGuard<'_, SpanBatch> {
        assert!(!self.is_sealed.load(Ordering::Relaxed), "a sealed segment takes no more spans");
        self.batch.write()
    }

    /// Says that no span will come any more.
    pub(crate) fn seal(&self) {
        self.is_sealed.store(true, Ordering::Release);
    }

    /// The attribute names in the lists of its spans, once they are final. `batch` is its own.
    fn names(&self, batch: &SpanBatch) -> Option<&ItemNames> {
        self.is_sealed.load(Ordering::Acquire).then(|| self.names.get_or_init(|| ItemNames::of(batch)))
    }
}

fn stats_of(batch: &SpanBatch) -> ScanStats {
    ScanStats {
        spans_inspected: batch.len() as u64,
        traces_inspected: batch.traces().len() as u64,
        bytes_inspected: batch.memory_bytes() as u64,
    }
}

/// All segments of a tenant at one instant, oldest first.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    segments: Vec<Arc<Segment>>,
}

impl Head {
    /// `None` when there is no segment.
    pub(crate) fn new(segments: Vec<Arc<Segment>>) -> Option<Self> {
        (!segments.is_empty()).then_some(Self { segments })
    }

    /// The traces of all segments as they are now.
    fn traces(&self, ctx: &QueryContext) -> Result<HeadTraces, ScanError> {
        let mut traces = HeadTraces::default();
        self.segments.iter().for_each(|segment| traces.add(&segment.read()));
        ctx.reserve(traces.memory_bytes())?;
        Ok(traces)
    }

    /// Has each segment looked at, one after the other.
    fn visit(
        &self,
        ctx: &QueryContext,
        mut visit: impl FnMut(&SpanBatch, Option<&ItemNames>),
    ) -> Result<ScanStats, ScanError> {
        let mut stats = ScanStats::default();
        for segment in &self.segments {
            ctx.check()?;
            let batch = segment.read();
            visit(&batch, segment.names(&batch));
            stats += stats_of(&batch);
        }
        Ok(stats)
    }
}

/// A trace's spans in a segment, of which only the first `len` rows count.
fn spans_of(batch: &SpanBatch, id: TraceId, len: usize, ctx: &QueryContext) -> Result<Vec<SpanEntry>, ScanError> {
    let Some(index) = batch.trace_index_of(id) else { return Ok(Vec::new()) };
    let rows: Vec<u32> = batch.rows_of_trace(index).take_while(|row| (*row as usize) < len).collect();
    // A span taken apart costs about as much again as its share of the batch.
    ctx.reserve(rows.len() * (batch.memory_bytes() / batch.len().max(1) + size_of::<SpanEntry>()))?;
    Ok(rows.into_iter().map(|row| batch.span(row)).collect())
}

impl SpanSource for Head {
    fn describe(&self) -> String {
        "head".to_owned()
    }

    fn range(&self) -> Option<TimeRange> {
        self.segments.iter().filter_map(|segment| segment.read().range()).reduce(|a, b| a.union(&b))
    }

    fn span_count(&self) -> u64 {
        self.segments.iter().map(|segment| segment.read().len() as u64).sum()
    }

    fn scan<'a>(
        &'a self,
        request: &'a ColumnRequest,
        ctx: &QueryContext,
    ) -> Result<Box<dyn ColumnScan + 'a>, ScanError> {
        ctx.check()?;
        let traces = self.traces(ctx)?;
        Ok(Box::new(HeadScan::new(&self.segments, traces, request, GroupRows::USUAL, ctx)?))
    }

    fn may_hold(&self, id: TraceId) -> bool {
        self.segments.iter().any(|segment| segment.read().trace_index_of(id).is_some())
    }

    fn trace_fingerprints(&self, ctx: &QueryContext) -> Result<Arc<[u32]>, ScanError> {
        ctx.check()?;
        let traces = self.traces(ctx)?;
        ctx.reserve(traces.traces.len() * size_of::<u32>())?;
        let mut fingerprints: Vec<u32> = traces.traces.iter().map(|trace| trace.id.fingerprint()).collect();
        fingerprints.sort_unstable();
        Ok(fingerprints.into())
    }

    fn find_trace(&self, id: TraceId, ctx: &QueryContext) -> Result<Vec<SpanEntry>, ScanError> {
        Ok(self.find_traces(&[id], ctx)?.pop().unwrap_or_default())
    }

    fn find_traces(&self, ids: &[TraceId], ctx: &QueryContext) -> Result<Vec<Vec<SpanEntry>>, ScanError> {
        let mut found = vec![Vec::new(); ids.len()];
        // Before the first look, so that what is added meanwhile is seen in no segment.
        let lens: Vec<usize> = self.segments.iter().map(|segment| segment.read().len()).collect();
        for (segment, len) in self.segments.iter().zip(lens) {
            for (id, found) in ids.iter().zip(&mut found) {
                ctx.check()?;
                found.extend(spans_of(&segment.read(), *id, len, ctx)?);
            }
        }
        Ok(found)
    }

    fn trace_range(&self, id: TraceId, ctx: &QueryContext) -> Result<Option<TimeRange>, ScanError> {
        ctx.check()?;
        let ranges = self.segments.iter().filter_map(|segment| {
            let batch = segment.read();
            batch.trace_index_of(id).map(|index| batch.traces()[index as usize].range)
        });
        Ok(ranges.reduce(|a, b| a.union(&b)))
    }

    fn keys(&self, ctx: &QueryContext, into: &mut KeySet) -> Result<ScanStats, ScanError> {
        self.visit(ctx, |batch, names| listing::keys(batch, names, into))
    }

    fn values(&self, field: &Field, ctx: &QueryContext, into: &mut ValueSet) -> Result<ScanStats, ScanError> {
        self.visit(ctx, |batch, _| {
            if into.is_complete() {
                // A set that is full says so itself.
                let _ = listing::values(batch, field, into);
            }
        })
    }

    fn operations(&self, ctx: &QueryContext, into: &mut BTreeSet<Operation>) -> Result<ScanStats, ScanError> {
        self.visit(ctx, |batch, _| listing::operations(batch, into))
    }
}

#[cfg(test)]
mod tests;
