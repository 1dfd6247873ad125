//! `index.bin`: everything that answers "is it here, and where" without opening `spans.parquet`.
//!
//! ```text
//!   "SPOORIDX" | version u32 | section count u32
//!   per section: kind u32 | reserved u32 | offset u64 | length u64        all little-endian
//!   sections
//!     1 bloom      split-block Bloom filter (Parquet's, XXH64 seed 0) over the 16-byte trace ids
//!     5 groups     varints (crate::groups); missing in blocks of before
//!     6 columns    varints (crate::summary); missing in blocks of before
//!     3 catalogue  zstd; JSON
//!     4 values     per row group: length u32, split-block Bloom filter over the hashes of values
//!     2 traces     zstd; varints (crate::traces)
//! ```
//!
//! Each section is read when it is asked for, and by itself: a block at rest needs its bloom filter, a query that
//! finds nothing never needs the traces. They come last, so that what tells that nothing matches lies in one piece.

use std::collections::BTreeSet;
use std::ops::Range;

use bytes::Bytes;
use parquet::bloom_filter::Sbbf;
use serde::{Deserialize, Serialize};
use spoor_model::scan::Operation;

use crate::error::Error;
use crate::files::Awaited;
use crate::filter;
use crate::groups::{self, GroupSummary};
use crate::order::OrderedTrace;
use crate::pieces::VerifiedFile;
use crate::summary::ColumnSummaries;
use crate::traces::TraceTable;
use crate::unpack::unpack;

const MAGIC: &[u8; 8] = b"SPOORIDX";
const VERSION: u32 = 1;
/// Magic, version and number of sections.
const HEADER_BYTES: usize = 16;
/// What the header says of one section.
const ENTRY_BYTES: usize = 24;
/// Read at once: more sections than there are kinds.
const HEADER_READ_BYTES: u64 = (HEADER_BYTES + 8 * ENTRY_BYTES) as u64;
const BLOOM: u32 = 1;
const TRACES: u32 = 2;
const CATALOGUE: u32 = 3;
const VALUES: u32 = 4;
const GROUPS: u32 = 5;
const COLUMNS: u32 = 6;
/// Bits of the trace id filter per trace, which a block holds in memory for as long as it is known. Of lookups of other ids one in
/// 2,400 reads the index for nothing: the mean over k of `(1 - (31/32)^k)^8`, as k of the traces share one of the 256-bit units,
/// which is twice what one large Bloom filter of as many bits would do.
const BLOOM_BITS_PER_TRACE: f64 = 20.0;
/// The unit of a split-block filter.
const BLOOM_BLOCK_BYTES: usize = 32;
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

/// What goes into an index.
pub(crate) struct Content<'a> {
    /// In block order.
    pub(crate) traces: &'a [OrderedTrace],
    /// How many rows each row group has; they end at trace ends.
    pub(crate) group_rows: &'a [u32],
    pub(crate) catalogue: &'a Catalogue,
    /// What each row group has in each column.
    pub(crate) columns: &'a ColumnSummaries,
    /// Bits of the filter of each row group.
    pub(crate) value_filters: &'a [Vec<u8>],
}

/// The content of `index.bin`.
pub(crate) fn encode(content: &Content<'_>, zstd_level: i32) -> Result<Vec<u8>, Error> {
    let internal =
        |err: &dyn std::error::Error| Error::Internal { object: "index.bin".into(), reason: err.to_string() };
    let traces = content.traces;
    // As many units as it takes: the crate's own constructor would go up to a power of two.
    let units = (traces.len() as f64 * BLOOM_BITS_PER_TRACE / 8.0 / BLOOM_BLOCK_BYTES as f64).ceil() as usize;
    let mut bloom = Sbbf::new(&vec![0; units.max(1) * BLOOM_BLOCK_BYTES]);
    traces.iter().for_each(|trace| bloom.insert(&trace.id.0[..]));
    let mut bitset = Vec::new();
    bloom.write_bitset(&mut bitset).map_err(|err| internal(&err))?;
    let table = zstd::bulk::compress(&TraceTable::encode(traces), zstd_level).map_err(|err| internal(&err))?;
    let json = serde_json::to_vec(content.catalogue).expect("plain data always serialises");
    let json = zstd::bulk::compress(&json, zstd_level).map_err(|err| internal(&err))?;
    let groups = groups::encode(&groups::summarise(traces, content.group_rows));

    // What tells that nothing matches stands together, behind the filter that start-up reads.
    let sections = [
        (BLOOM, bitset),
        (GROUPS, groups),
        (COLUMNS, content.columns.encode()),
        (CATALOGUE, json),
        (VALUES, filter::encode(content.value_filters)),
        (TRACES, table),
    ];
    let mut out = Vec::new();
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&(sections.len() as u32).to_le_bytes());
    let mut offset = out.len() + sections.len() * ENTRY_BYTES;
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

/// An index whose header was read.
pub(crate) struct Index {
    file: VerifiedFile,
    /// `block 01J... index.bin`, for errors.
    object: String,
    sections: Vec<(u32, Range<u64>)>,
}

impl Index {
    /// Reads the header.
    pub(crate) fn open(file: VerifiedFile, object: String) -> Result<Self, Error> {
        let malformed = || Error::corrupt(&object, "not an index of a known version");
        let header = file.read_range(0..HEADER_READ_BYTES.min(file.size_bytes()))?;
        let sections = sections(&header).ok_or_else(malformed)?;
        Ok(Self { sections, file, object })
    }

    fn find(&self, kind: u32) -> Option<Range<u64>> {
        self.sections.iter().find(|(found, _)| *found == kind).map(|(_, range)| range.clone())
    }

    fn section(&self, kind: u32, name: &str) -> Result<Bytes, Error> {
        let range = self.find(kind).ok_or_else(|| Error::corrupt(&self.object, format!("no {name} section")))?;
        self.file.read_range(range)
    }

    fn unpacked(&self, kind: u32, name: &str) -> Result<Bytes, Error> {
        let section = self.section(kind, name)?;
        unpack(&section, SECTION_BYTES_MAX)
            .map_err(|err| Error::corrupt(&self.object, format!("{name} section: {err}")))
    }

    fn malformed(&self, name: &str) -> Error {
        Error::corrupt(&self.object, format!("{name} section is malformed"))
    }

    /// What was read of the file so far.
    pub(crate) fn read_bytes(&self) -> u64 {
        self.file.read_bytes()
    }

    /// Bytes of the file, verified.
    pub(crate) fn read(&self, range: Range<u64>) -> Result<Bytes, Error> {
        self.file.read_range(range)
    }

    /// The bytes that tell whether a query concerns the block: all but the traces, unless these stand between, as in
    /// blocks of before.
    fn outline(&self) -> Range<u64> {
        let but_traces = self.sections.iter().filter(|(kind, _)| *kind != TRACES);
        0..but_traces.map(|(_, range)| range.end).max().unwrap_or(0).min(self.file.size_bytes())
    }

    /// Brings what tells whether a query concerns the block nearer, if it is far away, when there is time for it.
    pub(crate) fn read_behind(&self) -> Option<Awaited> {
        self.file.read_behind(self.outline())
    }

    /// The trace id filter; stays in memory as long as the block is known.
    pub(crate) fn bloom(&self) -> Result<Sbbf, Error> {
        let bitset = self.section(BLOOM, "bloom")?;
        match !bitset.is_empty() && bitset.len().is_multiple_of(32) {
            true => Ok(Sbbf::new(&bitset)),
            false => Err(self.malformed("bloom")),
        }
    }

    /// The trace table. About 15 ns per trace.
    pub(crate) fn traces(&self) -> Result<TraceTable, Error> {
        TraceTable::decode(&self.unpacked(TRACES, "traces")?).ok_or_else(|| self.malformed("traces"))
    }

    pub(crate) fn catalogue(&self) -> Result<Catalogue, Error> {
        serde_json::from_slice(&self.unpacked(CATALOGUE, "catalogue")?)
            .map_err(|err| Error::corrupt(&self.object, format!("catalogue section: {err}")))
    }

    /// What each row group holds; `None` in blocks that were written without.
    pub(crate) fn groups(&self) -> Result<Option<Vec<GroupSummary>>, Error> {
        let Some(range) = self.find(GROUPS) else { return Ok(None) };
        groups::decode(&self.file.read_range(range)?).map(Some).ok_or_else(|| self.malformed("groups"))
    }

    /// What each row group has in each column; `None` in blocks that were written without.
    pub(crate) fn columns(&self) -> Result<Option<ColumnSummaries>, Error> {
        let Some(range) = self.find(COLUMNS) else { return Ok(None) };
        ColumnSummaries::decode(&self.file.read_range(range)?).map(Some).ok_or_else(|| self.malformed("columns"))
    }

    /// Where the filter of each row group lies, in blocks that have filters. They are looked into 32 bytes at a time: all come
    /// nearer together, if they are far away.
    pub(crate) fn value_filters(&self) -> Result<Vec<Range<u64>>, Error> {
        let Some(range) = self.find(VALUES) else { return Ok(Vec::new()) };
        self.file.read_ahead(range.clone());
        let mut filters = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let length = self.file.read_range(at..(at + 4).min(range.end))?;
            let length = length[..].try_into().map(u32::from_le_bytes).map_err(|_| self.malformed("values"))?;
            let filter = at + 4..at + 4 + u64::from(length);
            at = filter.end;
            if at > range.end || !filter::is_size(length) {
                return Err(self.malformed("values"));
            }
            filters.push(filter);
        }
        Ok(filters)
    }
}

/// `None` when this is not the beginning of an index of a known version.
fn sections(header: &[u8]) -> Option<Vec<(u32, Range<u64>)>> {
    let numbers = header.strip_prefix(MAGIC)?;
    let (version, numbers) = numbers.split_first_chunk::<4>()?;
    let (count, entries) = numbers.split_first_chunk::<4>()?;
    (u32::from_le_bytes(*version) == VERSION).then_some(())?;
    let entries_bytes = (u32::from_le_bytes(*count) as usize).checked_mul(ENTRY_BYTES)?;
    entries.get(..entries_bytes)?.chunks_exact(ENTRY_BYTES).map(section_of).collect()
}

fn section_of(entry: &[u8]) -> Option<(u32, Range<u64>)> {
    let number = |at: usize| entry[at..at + 8].try_into().map(u64::from_le_bytes).ok();
    let kind = entry[..4].try_into().map(u32::from_le_bytes).ok()?;
    let start = number(8)?;
    Some((kind, start..start.checked_add(number(16)?)?))
}

#[cfg(test)]
impl Index {
    /// An index of nothing but this section.
    pub(crate) fn of_filters(section: &[u8]) -> Self {
        let sections = vec![(VALUES, 0..section.len() as u64)];
        let file = VerifiedFile::in_memory(Bytes::copy_from_slice(section));
        Self { file, object: "an index".to_owned(), sections }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use spoor_model::{TimeRange, TraceId, UnixNano};

    use super::*;

    fn traces(seeds: &[(u64, u32, u64, bool)]) -> Vec<OrderedTrace> {
        let (mut first_row, mut start) = (0, 0);
        let make = |(number, (gap, count, length, shares_ids)): (usize, &(u64, u32, u64, bool))| {
            start += gap;
            let range = TimeRange { start: UnixNano(start), end: UnixNano(start + length) };
            let id = TraceId((number as u128 + 1).to_be_bytes());
            let trace = OrderedTrace { id, range, first_row, span_count: *count, shares_ids: *shares_ids };
            first_row += count;
            trace
        };
        seeds.iter().enumerate().map(make).collect()
    }

    fn index(content: &Content<'_>) -> Vec<u8> {
        encode(content, 3).unwrap()
    }

    fn open(bytes: &[u8]) -> Result<Index, Error> {
        Index::open(VerifiedFile::in_memory(Bytes::copy_from_slice(bytes)), "b".to_owned())
    }

    proptest! {
        #[test]
        fn every_trace_is_found_with_its_rows_and_times(
            seeds in proptest::collection::vec((0..1u64 << 40, 1..100u32, 0..1u64 << 40, any::<bool>()), 1..200),
            groups_of in 1..50usize,
        ) {
            let traces = traces(&seeds);
            let groups: Vec<&[OrderedTrace]> = traces.chunks(groups_of).collect();
            let group_rows: Vec<u32> = groups.iter().map(|of| of.iter().map(|trace| trace.span_count).sum()).collect();
            let (catalogue, columns) = (Catalogue::default(), ColumnSummaries::of_groups(&[], |_| false));
            let content = Content {
                traces: &traces,
                group_rows: &group_rows,
                catalogue: &catalogue,
                columns: &columns,
                value_filters: &[],
            };
            let index = Arc::new(open(&index(&content)).unwrap());
            let (bloom, table) = (index.bloom().unwrap(), index.traces().unwrap());
            for (number, trace) in traces.iter().enumerate() {
                prop_assert!(bloom.check(&trace.id.0[..]));
                prop_assert!(table.lookup(trace.id).any(|found| found == number));
                prop_assert_eq!(table.rows(number).start, trace.first_row as usize);
                prop_assert_eq!(table.rows(number).len(), trace.span_count as usize);
                prop_assert_eq!(table.range(number), trace.range);
                prop_assert_eq!(table.trace_of_row(trace.first_row as usize), number);
            }
            let summaries = index.groups().unwrap().unwrap();
            prop_assert_eq!(summaries.len(), groups.len());
            for (summary, group) in summaries.iter().zip(groups) {
                prop_assert_eq!(summary.trace_count, group.len());
                prop_assert_eq!(summary.span_count, group.iter().map(|trace| trace.span_count as usize).sum::<usize>());
                prop_assert_eq!(Some(summary.range.start), group.iter().map(|trace| trace.range.start).min());
                prop_assert_eq!(Some(summary.range.end), group.iter().map(|trace| trace.range.end).max());
                prop_assert_eq!(Some(summary.latest_trace_start), group.iter().map(|trace| trace.range.start).max());
                let sharing = (0..group.len()).filter(|place| group[*place].shares_ids).map(|place| place as u32);
                prop_assert_eq!(&summary.shared_ids, &sharing.collect::<Vec<_>>());
            }
        }

        #[test]
        fn damaged_indexes_are_errors(at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()) {
            let (traces, catalogue) = (traces(&[(1, 2, 3, true), (4, 5, 6, false)]), Catalogue::default());
            let mut index = index(&Content {
                traces: &traces,
                group_rows: &[7],
                catalogue: &catalogue,
                columns: &ColumnSummaries::of_groups(&[], |_| false),
                value_filters: &[filter::build(vec![1])],
            });
            let at = at.index(index.len());
            index[at] = byte;
            index.truncate(cut.index(index.len() + 1));
            if let Ok(index) = open(&index) {
                let _ = (index.bloom(), index.traces(), index.catalogue(), index.groups(), index.columns());
                let _ = (index.value_filters(), index.outline());
            }
        }
    }
}
