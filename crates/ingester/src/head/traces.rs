//! Which traces the segments of a head hold together.
//!
//! ```text
//!   segment 0   local 0 1 2 ...          traces   0 1 2 3 ...     id, range, how many spans
//!   segment 1   local 0 1 ...     --->            ^
//!                                                 trace_of[segment][local]
//! ```
//!
//! A trace's spans arrive over seconds and lie in neighbouring segments; here they are one trace
//! again. Made anew for each scan: 2 ns per span on the load corpus (`benches/head.rs`), which is less
//! than anything that a scan does with the spans, and leaves nothing to keep up to date.

use hashbrown::HashTable;
use spoor_model::batch::SpanBatch;
use spoor_model::{TimeRange, TraceId};

/// What a head holds of one trace.
#[derive(Debug, Clone, Copy)]
pub(super) struct HeadTrace {
    pub(super) id: TraceId,
    /// Earliest start and latest end.
    pub(super) range: TimeRange,
    pub(super) span_count: u32,
}

/// A segment as it was when it was added: rows from `len` on do not count.
#[derive(Debug)]
pub(super) struct SegmentView {
    pub(super) len: u32,
    /// What the rows take, about.
    pub(super) bytes: usize,
    /// By the segment's own number of a trace: its place in [`HeadTraces::traces`].
    pub(super) trace_of: Vec<u32>,
}

/// The traces of a head at one instant.
#[derive(Debug, Default)]
pub(super) struct HeadTraces {
    pub(super) traces: Vec<HeadTrace>,
    pub(super) views: Vec<SegmentView>,
    lookup: HashTable<u32>,
}

impl HeadTraces {
    /// Adds what a segment holds now.
    pub(super) fn add(&mut self, batch: &SpanBatch) {
        let mut trace_of = Vec::with_capacity(batch.traces().len());
        self.lookup.reserve(batch.traces().len(), |index| self.traces[*index as usize].id.hash64());
        for rows in batch.traces() {
            let hash = rows.id.hash64();
            let Self { traces, lookup, .. } = self;
            let known = lookup.find(hash, |index| traces[*index as usize].id == rows.id).copied();
            let index = match known {
                Some(index) => {
                    let trace = &mut traces[index as usize];
                    trace.range = trace.range.union(&rows.range);
                    trace.span_count += rows.span_count;
                    index
                }
                None => {
                    let index = traces.len() as u32;
                    traces.push(HeadTrace { id: rows.id, range: rows.range, span_count: rows.span_count });
                    lookup.insert_unique(hash, index, |other| traces[*other as usize].id.hash64());
                    index
                }
            };
            trace_of.push(index);
        }
        let len = u32::try_from(batch.len()).expect("rows of a batch are numbered by 32 bits");
        self.views.push(SegmentView { len, bytes: batch.memory_bytes(), trace_of });
    }

    /// Memory held.
    pub(super) fn memory_bytes(&self) -> usize {
        let places: usize = self.views.iter().map(|view| view.trace_of.capacity() * size_of::<u32>()).sum();
        places + self.traces.capacity() * size_of::<HeadTrace>() + self.lookup.allocation_size()
    }
}
