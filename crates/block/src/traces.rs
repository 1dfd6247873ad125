//! The trace table: where the rows of each trace are and when it ran.
//!
//! A section of `index.bin`, one zstd frame; unpacked: varints. The number of traces, then five lists of that
//! length: fingerprints ascending, as differences; the trace number of each fingerprint; then by trace number
//! (block order): span count; start, as difference; length of the range.

use std::sync::Arc;

use spoor_model::wire;
use spoor_model::{TimeRange, TraceId, UnixNano};

use crate::order::OrderedTrace;

/// The traces of a block: where their rows are and when they ran. 28 bytes per trace.
#[derive(Debug, Default)]
pub(crate) struct TraceTable {
    /// Ascending; with equal fingerprints the reader compares trace ids.
    fingerprints: Arc<[u32]>,
    trace_of_fingerprint: Vec<u32>,
    /// By trace number, with one more entry at the end.
    first_row: Vec<u32>,
    start: Vec<u64>,
    length: Vec<u64>,
}

impl TraceTable {
    pub(crate) fn len(&self) -> usize {
        self.start.len()
    }

    /// Traces whose id may be this one: nearly always none or one.
    pub(crate) fn lookup(&self, id: TraceId) -> impl Iterator<Item = usize> + '_ {
        let wanted = id.fingerprint();
        let from = self.fingerprints.partition_point(|known| *known < wanted);
        let count = self.fingerprints[from..].iter().take_while(|known| **known == wanted).count();
        self.trace_of_fingerprint[from..from + count].iter().map(|trace| *trace as usize)
    }

    /// The rows of a trace.
    pub(crate) fn rows(&self, trace: usize) -> std::ops::Range<usize> {
        self.first_row[trace] as usize..self.first_row[trace + 1] as usize
    }

    /// Earliest start and latest end of a trace's spans.
    pub(crate) fn range(&self, trace: usize) -> TimeRange {
        let start = self.start[trace];
        TimeRange { start: UnixNano(start), end: UnixNano(start.saturating_add(self.length[trace])) }
    }

    /// Fingerprints of all traces, ascending.
    pub(crate) fn fingerprints(&self) -> &Arc<[u32]> {
        &self.fingerprints
    }

    /// The trace that a row belongs to.
    pub(crate) fn trace_of_row(&self, row: usize) -> usize {
        self.first_row.partition_point(|first| *first as usize <= row) - 1
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.len() * 28
    }

    pub(crate) fn encode(traces: &[OrderedTrace]) -> Vec<u8> {
        let mut by_fingerprint: Vec<(u32, u32)> =
            traces.iter().enumerate().map(|(number, trace)| (trace.id.fingerprint(), number as u32)).collect();
        by_fingerprint.sort_unstable();
        let mut out = Vec::with_capacity(traces.len() * 14 + 8);
        wire::put_varint(&mut out, traces.len() as u64);
        let mut previous = 0;
        for (fingerprint, _) in &by_fingerprint {
            wire::put_varint(&mut out, u64::from(fingerprint - previous));
            previous = *fingerprint;
        }
        by_fingerprint.iter().for_each(|(_, number)| wire::put_varint(&mut out, u64::from(*number)));
        traces.iter().for_each(|trace| wire::put_varint(&mut out, u64::from(trace.span_count)));
        let mut previous = 0;
        for trace in traces {
            let start = trace.range.start.0;
            assert!(start >= previous, "traces are ordered by start");
            wire::put_varint(&mut out, start - previous);
            previous = start;
        }
        traces.iter().for_each(|trace| wire::put_varint(&mut out, trace.range.end.0 - trace.range.start.0));
        out
    }

    /// Reads the unpacked section; `None` when it is malformed. Straight into the lists: this is most of what
    /// opening a block costs.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut bytes = bytes;
        let count = usize::try_from(take_varint(&mut bytes)?).ok().filter(|count| *count <= bytes.len())?;
        let fingerprints: Vec<u32> = list(&mut bytes, count, 0, running)?;
        let trace_of_fingerprint: Vec<u32> = list(&mut bytes, count, 0, |_, value| Some(value))?;
        let mut first_row: Vec<u32> = Vec::with_capacity(count + 1);
        first_row.push(0);
        first_row.extend(list::<u32>(&mut bytes, count, 0, running)?);
        let start: Vec<u64> = list(&mut bytes, count, 0, running)?;
        let length: Vec<u64> = list(&mut bytes, count, 0, |_, value| Some(value))?;
        let is_sound = bytes.is_empty() && trace_of_fingerprint.iter().all(|trace| (*trace as usize) < count);
        let fingerprints = fingerprints.into();
        is_sound.then_some(Self { fingerprints, trace_of_fingerprint, first_row, start, length })
    }
}

/// A value that is stored as the difference to the one before.
fn running(previous: u64, difference: u64) -> Option<u64> {
    previous.checked_add(difference)
}

fn list<T: TryFrom<u64>>(
    bytes: &mut &[u8],
    count: usize,
    first: u64,
    next: impl Fn(u64, u64) -> Option<u64>,
) -> Option<Vec<T>> {
    let mut out = Vec::with_capacity(count);
    let mut previous = first;
    for _ in 0..count {
        previous = next(previous, take_varint(bytes)?)?;
        out.push(T::try_from(previous).ok()?);
    }
    Some(out)
}

#[inline]
pub(crate) fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for place in 0..10 {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << (7 * place);
        if *byte < 0x80 {
            return Some(value);
        }
    }
    None
}
