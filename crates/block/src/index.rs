//! `index.bin`: everything that answers "is it here, and where" without opening `spans.parquet`.
//!
//! ```text
//!   "SPOORIDX" | version u32 | section count u32
//!   per section: kind u32 | reserved u32 | offset u64 | length u64        all little-endian
//!   sections
//!     1 bloom      split-block Bloom filter (Parquet's, XXH64 seed 0) over the 16-byte trace ids
//!     2 traces     zstd; varints: count, then five lists of that length (below)
//!     3 catalogue  zstd; JSON
//!     4 values     per row group: length u32, split-block Bloom filter over the hashes of values
//! ```
//!
//! The trace lists: fingerprints ascending, as differences; the trace number of each fingerprint;
//! then by trace number (block order): span count; start, as difference; range length.

use std::collections::BTreeSet;
use std::sync::Arc;

use parquet::bloom_filter::Sbbf;
use serde::{Deserialize, Serialize};
use spoor_model::scan::Operation;
use spoor_model::wire;
use spoor_model::{TimeRange, TraceId, UnixNano};

use crate::error::Error;
use crate::filter::{self, ValueFilters};
use crate::order::OrderedTrace;

const MAGIC: &[u8; 8] = b"SPOORIDX";
const VERSION: u32 = 1;
const BLOOM: u32 = 1;
const TRACES: u32 = 2;
const CATALOGUE: u32 = 3;
const VALUES: u32 = 4;
/// False positives of the trace id filter: one lookup in a thousand opens a block for nothing.
const BLOOM_FALSE_POSITIVE_RATE: f64 = 0.001;
/// No section of a block of 2^32 spans is larger when unpacked.
const SECTION_BYTES_MAX: usize = 1 << 33;

/// Attribute names that neither a column nor a shape nor an origin shows, and what services do.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Catalogue {
    /// Keys of attributes in the residual column.
    pub(crate) residual_keys: BTreeSet<String>,
    /// Keys of event attributes.
    pub(crate) event_keys: BTreeSet<String>,
    /// Keys of link attributes.
    pub(crate) link_keys: BTreeSet<String>,
    /// Every (service, name, kind), unless there are too many.
    pub(crate) operations: Vec<(Option<String>, String, i32)>,
    /// Whether `operations` holds all of them.
    pub(crate) has_all_operations: bool,
}

impl Catalogue {
    pub(crate) fn operations(&self) -> impl Iterator<Item = Operation> + '_ {
        self.operations.iter().map(|(service, name, kind)| Operation {
            service: service.clone(),
            name: name.clone(),
            kind: *kind,
        })
    }
}

/// The traces of a block: where their rows are and when they ran.
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
        self.len() * 28
    }

    fn encode(traces: &[OrderedTrace]) -> Vec<u8> {
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

    fn decode(mut bytes: &[u8]) -> Option<Self> {
        let count = usize::try_from(take_varint(&mut bytes)?).ok().filter(|count| *count <= bytes.len())?;
        let mut list = |count: usize| (0..count).map(|_| take_varint(&mut bytes)).collect::<Option<Vec<u64>>>();
        let sum = |values: Vec<u64>| {
            let running = values.into_iter().scan(0u64, |sum, value| {
                *sum = sum.wrapping_add(value);
                Some(*sum)
            });
            running.collect::<Vec<u64>>()
        };
        let narrow =
            |values: Vec<u64>| values.into_iter().map(|value| u32::try_from(value).ok()).collect::<Option<Vec<u32>>>();
        let fingerprints = narrow(sum(list(count)?))?.into();
        let trace_of_fingerprint = narrow(list(count)?)?;
        let mut first_row = vec![0];
        first_row.extend(narrow(sum(list(count)?))?);
        let start = sum(list(count)?);
        let length = list(count)?;
        let is_sound = bytes.is_empty()
            && trace_of_fingerprint.iter().all(|trace| (*trace as usize) < count)
            && first_row.is_sorted()
            && start.is_sorted();
        is_sound.then_some(Self { fingerprints, trace_of_fingerprint, first_row, start, length })
    }
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
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

/// The content of `index.bin`.
pub(crate) fn encode(
    traces: &[OrderedTrace],
    catalogue: &Catalogue,
    value_filters: &[Vec<u8>],
    zstd_level: i32,
) -> Result<Vec<u8>, Error> {
    let internal =
        |err: &dyn std::error::Error| Error::Internal { object: "index.bin".into(), reason: err.to_string() };
    let mut bloom =
        Sbbf::new_with_ndv_fpp(traces.len().max(1) as u64, BLOOM_FALSE_POSITIVE_RATE).map_err(|err| internal(&err))?;
    traces.iter().for_each(|trace| bloom.insert(&trace.id.0[..]));
    let mut bitset = Vec::new();
    bloom.write_bitset(&mut bitset).map_err(|err| internal(&err))?;
    let table = zstd::bulk::compress(&TraceTable::encode(traces), zstd_level).map_err(|err| internal(&err))?;
    let json = serde_json::to_vec(catalogue).expect("plain data always serialises");
    let json = zstd::bulk::compress(&json, zstd_level).map_err(|err| internal(&err))?;

    let sections = [(BLOOM, bitset), (TRACES, table), (CATALOGUE, json), (VALUES, filter::encode(value_filters))];
    let mut out = Vec::new();
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&(sections.len() as u32).to_le_bytes());
    let mut offset = out.len() + sections.len() * 24;
    for (kind, bytes) in &sections {
        out.extend_from_slice(&kind.to_le_bytes());
        out.extend_from_slice(&0u32.to_le_bytes());
        out.extend_from_slice(&(offset as u64).to_le_bytes());
        out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        offset += bytes.len();
    }
    sections.iter().for_each(|(_, bytes)| out.extend_from_slice(bytes));
    Ok(out)
}

/// Finds a section; `None` when the file is not an index of a known version.
fn section(index: &[u8], wanted: u32) -> Option<&[u8]> {
    let header = index.strip_prefix(MAGIC)?;
    let (version, header) = header.split_first_chunk::<4>()?;
    let (count, header) = header.split_first_chunk::<4>()?;
    if u32::from_le_bytes(*version) != VERSION {
        return None;
    }
    let entries = header.chunks_exact(24).take(u32::from_le_bytes(*count) as usize);
    let entry = entries.into_iter().find(|entry| entry[..4] == wanted.to_le_bytes())?;
    let number = |at: usize| entry[at..at + 8].try_into().map(u64::from_le_bytes).ok();
    let (offset, length) = (usize::try_from(number(8)?).ok()?, usize::try_from(number(16)?).ok()?);
    index.get(offset..offset.checked_add(length)?)
}

/// The trace id filter; stays in memory as long as the block is known.
pub(crate) fn read_bloom(index: &[u8], object: &str) -> Result<Sbbf, Error> {
    let bitset = section(index, BLOOM).filter(|bitset| !bitset.is_empty() && bitset.len().is_multiple_of(32));
    bitset.map(Sbbf::new).ok_or_else(|| Error::corrupt(object, "no bloom section"))
}

/// Everything but the trace id filter; loaded when a query needs it.
pub(crate) fn read_tables(index: &[u8], object: &str) -> Result<(TraceTable, Catalogue, ValueFilters), Error> {
    let unpack = |kind, name: &str| {
        let packed = section(index, kind).ok_or_else(|| Error::corrupt(object, format!("no {name} section")))?;
        let length = zstd::bulk::Decompressor::upper_bound(packed).filter(|length| *length <= SECTION_BYTES_MAX);
        let length = length.ok_or_else(|| Error::corrupt(object, format!("{name} section has no sane length")))?;
        zstd::bulk::decompress(packed, length).map_err(|err| Error::corrupt(object, format!("{name} section: {err}")))
    };
    let table = TraceTable::decode(&unpack(TRACES, "traces")?)
        .ok_or_else(|| Error::corrupt(object, "traces section is malformed"))?;
    let catalogue = serde_json::from_slice(&unpack(CATALOGUE, "catalogue")?)
        .map_err(|err| Error::corrupt(object, format!("catalogue section: {err}")))?;
    let filters = match section(index, VALUES) {
        Some(section) => ValueFilters::decode(section),
        None => Some(ValueFilters::default()),
    };
    let filters = filters.ok_or_else(|| Error::corrupt(object, "values section is malformed"))?;
    Ok((table, catalogue, filters))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn traces(seeds: &[(u64, u32, u64)]) -> Vec<OrderedTrace> {
        let (mut first_row, mut start) = (0, 0);
        let make = |(number, (gap, count, length)): (usize, &(u64, u32, u64))| {
            start += gap;
            let range = TimeRange { start: UnixNano(start), end: UnixNano(start + length) };
            let trace =
                OrderedTrace { id: TraceId((number as u128 + 1).to_be_bytes()), range, first_row, span_count: *count };
            first_row += count;
            trace
        };
        seeds.iter().enumerate().map(make).collect()
    }

    proptest! {
        #[test]
        fn every_trace_is_found_with_its_rows_and_times(
            seeds in proptest::collection::vec((0..1u64 << 40, 1..100u32, 0..1u64 << 40), 1..200),
        ) {
            let traces = traces(&seeds);
            let index = encode(&traces, &Catalogue::default(), &[], 3).unwrap();
            let bloom = read_bloom(&index, "b").unwrap();
            let (table, _, _) = read_tables(&index, "b").unwrap();
            for (number, trace) in traces.iter().enumerate() {
                prop_assert!(bloom.check(&trace.id.0[..]));
                prop_assert!(table.lookup(trace.id).any(|found| found == number));
                prop_assert_eq!(table.rows(number).start, trace.first_row as usize);
                prop_assert_eq!(table.rows(number).len(), trace.span_count as usize);
                prop_assert_eq!(table.range(number), trace.range);
                prop_assert_eq!(table.trace_of_row(trace.first_row as usize), number);
            }
        }

        #[test]
        fn damaged_indexes_are_errors(at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()) {
            let mut index = encode(&traces(&[(1, 2, 3), (4, 5, 6)]), &Catalogue::default(), &[filter::build(vec![1])], 3).unwrap();
            let at = at.index(index.len());
            index[at] = byte;
            index.truncate(cut.index(index.len() + 1));
            let _ = read_bloom(&index, "b");
            let _ = read_tables(&index, "b");
        }
    }
}
