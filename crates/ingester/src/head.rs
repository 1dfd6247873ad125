//! The head: spans that are in the log and not yet in a block, as columns in memory.
//!
//! ```text
//!   tenant's head   [ segment ][ segment ][ open segment ]      <- the head thread appends here
//!                     at most SEGMENT_ROWS spans each
//! ```
//!
//! A segment is a batch behind a lock. Only the last one of a head is ever written to, by one
//! thread; the others are only read, so their locks are never waited for. A query that holds a
//! segment sees, besides what was acknowledged before it began, what is acknowledged while it runs.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow_array::builder::{FixedSizeBinaryBuilder, UInt64Builder};
use arrow_array::{ArrayRef, RecordBatch};
use parking_lot::RwLock;
use spoor_model::batch::SpanBatch;
use spoor_model::scan::{
    Field, KeySet, Operation, QueryContext, ScanError, ScanRequest, ScanStats, SpanSource, ValueSet, candidate_schema,
};
use spoor_model::span::SpanEntry;
use spoor_model::{TimeRange, TraceId};

mod listing;
mod scan;

/// Spans per segment. Small dictionaries stay in cache (0.48 us per span instead of 0.52), the lock of
/// the open segment is held for a millisecond by a scan, and the vectors end exactly full.
pub(crate) const SEGMENT_ROWS: usize = 1 << 16;

/// Bytes per segment: offsets within a batch have 32 bits, so it is sealed long before.
pub(crate) const SEGMENT_BYTES: usize = 64 << 20;

/// Candidates per Arrow batch.
const CANDIDATES_PER_BATCH: usize = 8192;

/// A part of a head.
#[derive(Debug, Default)]
pub(crate) struct Segment {
    batch: RwLock<SpanBatch>,
}

impl Segment {
    /// The spans, for reading.
    pub(crate) fn read(&self) -> parking_lot::RwLockReadGuard<'_, SpanBatch> {
        self.batch.read()
    }

    /// The spans, for the head thread to append to.
    pub(crate) fn write(&self) -> parking_lot::RwLockWriteGuard<'_, SpanBatch> {
        self.batch.write()
    }
}

fn stats_of(batch: &SpanBatch) -> ScanStats {
    ScanStats {
        spans_inspected: batch.len() as u64,
        traces_inspected: batch.traces().len() as u64,
        bytes_inspected: batch.memory_bytes() as u64,
    }
}

fn candidate_batch(candidates: &[(TraceId, TimeRange)]) -> RecordBatch {
    let mut ids = FixedSizeBinaryBuilder::with_capacity(candidates.len(), 16);
    let mut starts = UInt64Builder::with_capacity(candidates.len());
    let mut ends = UInt64Builder::with_capacity(candidates.len());
    for (id, range) in candidates {
        ids.append_value(id.0).expect("ids have 16 bytes");
        starts.append_value(range.start.0);
        ends.append_value(range.end.0);
    }
    let columns: Vec<ArrayRef> = vec![Arc::new(ids.finish()), Arc::new(starts.finish()), Arc::new(ends.finish())];
    RecordBatch::try_new(candidate_schema(), columns).expect("the columns are those of the schema")
}

impl SpanSource for Segment {
    fn describe(&self) -> String {
        "head".to_owned()
    }

    fn range(&self) -> Option<TimeRange> {
        self.read().range()
    }

    fn span_count(&self) -> u64 {
        self.read().len() as u64
    }

    fn candidates(
        &self,
        request: &ScanRequest,
        ctx: &QueryContext,
        sink: &mut dyn FnMut(&RecordBatch) -> ControlFlow<()>,
    ) -> Result<ScanStats, ScanError> {
        ctx.check()?;
        // The sink runs without the lock: it may take its time, the head thread may not.
        let (candidates, stats) = {
            let batch = self.read();
            (scan::candidates(&batch, request), stats_of(&batch))
        };
        ctx.reserve(candidates.len() * size_of::<(TraceId, TimeRange)>())?;
        for chunk in candidates.chunks(CANDIDATES_PER_BATCH) {
            ctx.check()?;
            if sink(&candidate_batch(chunk)).is_break() {
                break;
            }
        }
        Ok(stats)
    }

    fn find_trace(&self, id: TraceId, ctx: &QueryContext) -> Result<Vec<SpanEntry>, ScanError> {
        ctx.check()?;
        let batch = self.read();
        let Some(index) = batch.trace_index_of(id) else { return Ok(Vec::new()) };
        // A span taken apart costs about as much again as its share of the batch.
        let spans = batch.traces()[index as usize].span_count as usize;
        ctx.reserve(spans * (batch.memory_bytes() / batch.len().max(1) + size_of::<SpanEntry>()))?;
        Ok(batch.rows_of_trace(index).map(|row| batch.span(row)).collect())
    }

    fn trace_range(&self, id: TraceId, ctx: &QueryContext) -> Result<Option<TimeRange>, ScanError> {
        ctx.check()?;
        let batch = self.read();
        Ok(batch.trace_index_of(id).map(|index| batch.traces()[index as usize].range))
    }

    fn keys(&self, ctx: &QueryContext, into: &mut KeySet) -> Result<ScanStats, ScanError> {
        ctx.check()?;
        let batch = self.read();
        listing::keys(&batch, into);
        Ok(stats_of(&batch))
    }

    fn values(&self, field: &Field, ctx: &QueryContext, into: &mut ValueSet) -> Result<ScanStats, ScanError> {
        ctx.check()?;
        let batch = self.read();
        // A set that is full says so itself.
        let _ = listing::values(&batch, field, into);
        Ok(stats_of(&batch))
    }

    fn operations(&self, ctx: &QueryContext, into: &mut BTreeSet<Operation>) -> Result<ScanStats, ScanError> {
        ctx.check()?;
        let batch = self.read();
        listing::operations(&batch, into);
        Ok(stats_of(&batch))
    }
}

#[cfg(test)]
mod tests;
