//! For operators: what a block is made of, and whether it is sound.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parquet::file::metadata::ParquetMetaDataReader;
use spoor_model::columns::{ColumnBatch, ColumnRequest, ValuesOf};
use spoor_model::memory::MemoryBudget;
use spoor_model::scan::{QueryContext, ScanError, SpanSource};
use spoor_model::{TimeRange, Trace, TraceId};

use crate::cache::BlockCache;
use crate::error::Error;
use crate::files::BlockFiles;
use crate::meta::BlockMeta;
use crate::outline::open_file;
use crate::pages::SpansFile;
use crate::pieces::PIECE_BYTES;
use crate::source::Block;

/// What a block is made of, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Composition {
    /// Each file and its size, in the order of the meta.
    pub files: Vec<(String, u64)>,
    /// The columns of `spans.parquet`, in file order.
    pub columns: Vec<ColumnSize>,
    /// Row groups of `spans.parquet`.
    pub row_group_count: usize,
}

/// One column of `spans.parquet`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnSize {
    /// Its name.
    pub name: String,
    /// Pages as they lie in the file.
    pub stored_bytes: u64,
    /// The same before compression.
    pub unpacked_bytes: u64,
    /// Rows that have a value.
    pub value_count: u64,
    /// Parquet's names, joined by `+`.
    pub encodings: String,
}

/// Reads the footer of `spans.parquet`.
pub fn composition(files: &dyn BlockFiles, meta: &BlockMeta) -> Result<Composition, Error> {
    let file = SpansFile(Arc::new(open_file(files, meta, "spans.parquet", &Arc::default())?));
    let corrupt = |err: parquet::errors::ParquetError| {
        Error::corrupt(format!("{} spans.parquet", meta.describe()), err.to_string())
    };
    let footer = ParquetMetaDataReader::new().parse_and_finish(&file).map_err(corrupt)?;
    let mut columns: Vec<ColumnSize> = Vec::new();
    for group in footer.row_groups() {
        for (number, chunk) in group.columns().iter().enumerate() {
            if columns.len() == number {
                let (name, encodings) = (chunk.column_path().string(), String::new());
                columns.push(ColumnSize { name, stored_bytes: 0, unpacked_bytes: 0, value_count: 0, encodings });
            }
            let column = &mut columns[number];
            let nulls = chunk.statistics().and_then(|statistics| statistics.null_count_opt()).unwrap_or(0);
            column.stored_bytes += chunk.compressed_size().max(0) as u64;
            column.unpacked_bytes += chunk.uncompressed_size().max(0) as u64;
            column.value_count += (chunk.num_values().max(0) as u64).saturating_sub(nulls);
            for encoding in chunk.encodings().map(|encoding| encoding.to_string()) {
                if !column.encodings.split('+').any(|known| known == encoding) {
                    let joint = if column.encodings.is_empty() { "" } else { "+" };
                    column.encodings = format!("{}{joint}{encoding}", column.encodings);
                }
            }
        }
    }
    let sizes = meta.files.iter().map(|file| (file.name.clone(), file.size_bytes)).collect();
    Ok(Composition { files: sizes, columns, row_group_count: footer.num_row_groups() })
}

/// Whether the files of a block are there and as long as they should be, as far as that shows without reading them: in a
/// directory it does, of objects nothing is asked.
///
/// # Errors
/// What is wrong, with the file's name in it.
pub fn check_presence(files: &dyn BlockFiles, meta: &BlockMeta) -> Result<(), Error> {
    let mut all = meta.files.iter();
    all.try_for_each(|file| open_file(files, meta, &file.name, &Arc::default()).map(|_| ()))
}

/// Bytes of a file read at once: whole pieces.
const READ_BYTES: u64 = 128 * PIECE_BYTES as u64;

/// Traces read at once.
const TRACES_AT_ONCE: usize = 256;

/// Reads all of a block: every byte against its checksum, then every span through the index as a query does. What
/// `read` is told are the bytes read since it was told last. Costs 2 to 3 us per span, and the memory of a row group.
///
/// # Errors
/// What is wrong, with the file's name in it; the first thing found.
pub fn verify(files: &Arc<dyn BlockFiles>, meta: &BlockMeta, read: &mut dyn FnMut(u64)) -> Result<(), Error> {
    let stored = files.meta(&meta.tenant, meta.id)?;
    if stored.as_ref() != Some(meta) {
        let reason = if stored.is_some() { "meta.json is not what the catalog has" } else { "meta.json is missing" };
        return Err(Error::corrupt(meta.describe(), reason));
    }
    for described in &*meta.files {
        let file = open_file(&**files, meta, &described.name, &Arc::default())?;
        let mut start = 0;
        while start < described.size_bytes {
            let length = READ_BYTES.min(described.size_bytes - start);
            file.read_at(start, length as usize)?;
            start += length;
            read(length);
        }
    }
    let block = Block::open(files, meta.clone(), &BlockCache::new(usize::MAX))?;
    // Nobody waits for this and nobody shares its memory: a row group is what it takes.
    let ctx = QueryContext::new(&MemoryBudget::new(usize::MAX), Arc::new(AtomicBool::new(false)));
    let failed = |err: ScanError| match err {
        ScanError::Corrupt { object, reason } => Error::corrupt(object, reason),
        other => Error::corrupt(meta.describe(), other.to_string()),
    };
    let asked = ColumnRequest {
        masks: Vec::new(),
        needed: Vec::new(),
        columns: Vec::new(),
        values_of: ValuesOf::AllRows,
        tree: true,
        copies: true,
        range: TimeRange::ALL,
        intervals: None,
    };
    let scan = block.scan(&asked, &ctx).map_err(failed)?;
    let (mut spans, mut traces, mut range) = (0, 0, None::<TimeRange>);
    for group in 0..scan.groups().len() {
        let (batch, _) = scan.read(group, &ctx.part()).map_err(failed)?;
        let Some(batch) = batch else { continue };
        check_traces(&block, &batch).map_err(failed)?;
        spans += batch.row_count() as u64;
        traces += batch.trace_count() as u64;
        range = batch.trace_ranges.iter().copied().chain(range).reduce(|a, b| a.union(&b));
    }
    for (what, want, got) in [("span", meta.span_count, spans), ("trace", meta.trace_count, traces)] {
        if want != got {
            return Err(Error::corrupt(meta.describe(), format!("{what} count mismatch (want {want}, got {got})")));
        }
    }
    if range != Some(meta.range) {
        return Err(Error::corrupt(meta.describe(), "the spans' times are not those of the meta"));
    }
    Ok(())
}

/// Looks every trace of a row group up by its id.
fn check_traces(block: &Block, batch: &ColumnBatch) -> Result<(), ScanError> {
    let ctx = QueryContext::new(&MemoryBudget::new(usize::MAX), Arc::new(AtomicBool::new(false)));
    let wrong = |id: TraceId, reason: String| {
        Err(ScanError::Corrupt { object: block.meta().describe(), reason: format!("trace {id}: {reason}") })
    };
    let numbers: Vec<usize> = (0..batch.trace_count()).collect();
    for chunk in numbers.chunks(TRACES_AT_ONCE) {
        let ids: Vec<TraceId> = chunk.iter().map(|number| batch.trace_ids[*number]).collect();
        let mut seen = BTreeMap::new();
        for (number, entries) in chunk.iter().zip(block.find_traces(&ids, &ctx.part())?) {
            let id = batch.trace_ids[*number];
            if seen.insert(id, *number).is_some() {
                return wrong(id, "it stands twice".to_owned());
            }
            let (want, got) = (batch.rows_of(*number).len(), entries.len());
            if want != got {
                return wrong(id, format!("span count mismatch (want {want}, got {got})"));
            }
            let trace = Trace::assemble(id, entries);
            if trace.map(|trace| trace.range()) != Some(batch.trace_ranges[*number]) {
                return wrong(id, "its spans' times are not those of the trace table".to_owned());
            }
        }
    }
    Ok(())
}
