//! Making a block: order, shapes, plan, encode, publish.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use spoor_model::batch::{SpanBatch, SparseBytes};
use spoor_model::{BlockId, Origin, TenantId, TimeRange, UnixNano, nested};

use crate::columns;
use crate::error::Error;
use crate::files::BlockFiles;
use crate::filter;
use crate::gather::Gatherer;
use crate::index::{self, Catalogue};
use crate::meta::{BlockMeta, FileMeta};
use crate::order::{self, Order, OrderedTrace};
use crate::pieces::PieceWriter;
use crate::plan::{self, Plan};
use crate::shape;
use crate::tables;

/// How blocks are written. The defaults are measured (`benches/results/`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteOptions {
    /// Row groups end at the first trace end past this many rows.
    pub row_group_rows: usize,
    /// Rows per page: what a trace by id decodes at least, per column.
    pub page_rows: usize,
    /// 1 to 22.
    pub zstd_level: i32,
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self { row_group_rows: 131_072, page_rows: 4096, zstd_level: 3 }
    }
}

/// Rows gathered at once: bounds the memory of a cut beside the batches themselves.
const GATHER_ROWS: usize = 16_384;
/// Past this many (service, name, kind) a block does not list its operations.
const OPERATIONS_MAX: usize = 10_000;

/// Writes the spans of `batches` as a block and publishes it: the block is whole or not there (a crash may
/// leave a staged `<id>.tmp`, which start-up removes).
///
/// Costs about 0.7 us of CPU per span and, beside the batches, about 60 bytes of memory per span.
///
/// # Panics
/// When there are no spans.
pub fn write(
    files: &dyn BlockFiles,
    id: BlockId,
    tenant: &TenantId,
    batches: &[&SpanBatch],
    created_at: UnixNano,
    options: &WriteOptions,
) -> Result<BlockMeta, Error> {
    assert!(batches.iter().any(|batch| !batch.is_empty()), "a block has spans");
    let staged = Staged::create(files, tenant, id)?;
    let meta = write_files(&staged.dir, id, tenant, batches, created_at, options)?;
    staged.publish(files, &meta)?;
    Ok(meta)
}

/// The directory in which a block is built. Removed when dropped, unless it was published.
pub(crate) struct Staged {
    pub(crate) dir: PathBuf,
}

impl Staged {
    /// An empty directory.
    pub(crate) fn create(files: &dyn BlockFiles, tenant: &TenantId, id: BlockId) -> Result<Self, Error> {
        let dir = files.staging(tenant)?.join(format!("{id}.tmp"));
        if dir.exists() {
            fs::remove_dir_all(&dir).map_err(|err| Error::io("remove", &dir, &err))?;
        }
        fs::create_dir_all(&dir).map_err(|err| Error::io("create", &dir, &err))?;
        Ok(Self { dir })
    }

    /// Adds the meta to the files and publishes them.
    pub(crate) fn publish(self, files: &dyn BlockFiles, meta: &BlockMeta) -> Result<(), Error> {
        write_file(&self.dir, "meta.json", &meta.to_json())?;
        files.publish(&meta.tenant, meta.id)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // Best effort: publishing takes the directory away, and start-up removes what is left.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

pub(crate) fn write_files(
    dir: &Path,
    id: BlockId,
    tenant: &TenantId,
    batches: &[&SpanBatch],
    created_at: UnixNano,
    options: &WriteOptions,
) -> Result<BlockMeta, Error> {
    let order = order::order(batches);
    let merged = columns::merge(batches);
    let shapes = shape::detect(batches, &merged, &order.rows);
    let (origins, origin_of_batch) = merge_origins(batches);
    let plan = plan::plan(batches, &merged, &shapes, has_explicit_parents(batches, &order));
    let gatherer = Gatherer::new(batches, &merged, &order, &plan, &shapes.of_row, &origin_of_batch);

    let mut catalogue = list_operations(batches, &origins, &origin_of_batch);
    catalogue.residual_keys = gatherer.residual_keys().collect();
    catalogue.event_keys = nested_keys(batches, SpanBatch::events, |bytes| {
        nested::decode_event(bytes).map(|event| event.attributes).unwrap_or_default()
    });
    catalogue.link_keys = nested_keys(batches, SpanBatch::links, |bytes| {
        nested::decode_link(bytes).map(|link| link.attributes).unwrap_or_default()
    });

    let spelled = tables::spell_shapes(&shapes, |index| &merged[index].key);
    let groups = row_groups(&order.traces, options.row_group_rows);
    let value_filters: Vec<Vec<u8>> =
        groups.iter().map(|rows| filter::build(gatherer.value_hashes(rows.clone()))).collect();
    let files = vec![
        write_spans(dir, &gatherer, groups, &plan, options)?,
        tables::write_shapes(dir, &spelled, options.zstd_level)?,
        tables::write_origins(dir, &origins, options.zstd_level)?,
        write_file(dir, "index.bin", &index::encode(&order.traces, &catalogue, &value_filters, options.zstd_level)?)?,
    ];
    let range = order.traces.iter().map(|trace| trace.range).reduce(|a: TimeRange, b| a.union(&b));
    Ok(BlockMeta {
        id,
        tenant: tenant.clone(),
        created_at,
        range: range.expect("a block has spans"),
        span_count: order.rows.len() as u64,
        copy_count: order.copy_count as u64,
        trace_count: order.traces.len() as u64,
        size_bytes: files.iter().map(|file| file.size_bytes).sum(),
        merge_level: 0,
        replaces: Vec::new(),
        merged_with: Vec::new(),
        files,
        columns: plan.columns.into_iter().map(|column| column.meta).collect(),
    })
}

fn write_file(dir: &Path, name: &str, bytes: &[u8]) -> Result<FileMeta, Error> {
    let mut file = PieceWriter::create(dir.join(name))?;
    file.write_all(bytes).map_err(|err| Error::io("write", file.path(), &err))?;
    file.finish()
}

fn write_spans(
    dir: &Path,
    gatherer: &Gatherer<'_>,
    groups: Vec<Range<usize>>,
    plan: &Plan,
    options: &WriteOptions,
) -> Result<FileMeta, Error> {
    let path = dir.join("spans.parquet");
    let encode = |err: &(dyn std::error::Error + 'static)| Error::encode(&path, err);
    let file = PieceWriter::create(path.clone())?;
    let properties = plan.properties(options).map_err(|err| encode(&err))?;
    let arrow = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
    let mut writer = ArrowWriter::try_new_with_options(file, gatherer.schema(), arrow).map_err(|err| encode(&err))?;
    for group in groups {
        let mut from = group.start;
        while from < group.end {
            let to = (from + GATHER_ROWS).min(group.end);
            let batch = gatherer.gather(from..to).map_err(|err| encode(&err))?;
            writer.write(&batch).map_err(|err| encode(&err))?;
            from = to;
        }
        writer.flush().map_err(|err| encode(&err))?;
    }
    writer.into_inner().map_err(|err| encode(&err))?.finish()
}

/// Row ranges that end at trace ends, each of `target` rows and the rest of a trace.
fn row_groups(traces: &[OrderedTrace], target: usize) -> Vec<Range<usize>> {
    let mut groups = Vec::new();
    let mut start = 0;
    for (index, trace) in traces.iter().enumerate() {
        let end = (trace.first_row + trace.span_count) as usize;
        if end - start >= target || index + 1 == traces.len() {
            groups.push(start..end);
            start = end;
        }
    }
    groups
}

fn has_explicit_parents(batches: &[&SpanBatch], order: &Order) -> bool {
    let mut rows = order.rows.iter().zip(&order.parent_offset);
    rows.any(|(at, offset)| *offset == 0 && !batches[at.batch as usize].parent()[at.row as usize].is_zero())
}

/// The distinct origins of all batches, and each batch's numbers in terms of them.
fn merge_origins(batches: &[&SpanBatch]) -> (Vec<Arc<Origin>>, Vec<Vec<u32>>) {
    /// Resource and scope as sent, and their schema URLs.
    type Parts<'a> = (&'a [u8], &'a [u8], &'a str, &'a str);
    let mut origins: Vec<Arc<Origin>> = Vec::new();
    let mut number_of: HashMap<Parts<'_>, u32> = HashMap::new();
    let mut of_batch = Vec::new();
    for batch in batches {
        let mut numbers = Vec::with_capacity(batch.origins().len());
        for origin in batch.origins() {
            let parts = (
                &origin.resource_encoded[..],
                &origin.scope_encoded[..],
                origin.resource_schema_url.as_str(),
                origin.scope_schema_url.as_str(),
            );
            let number = *number_of.entry(parts).or_insert(origins.len() as u32);
            if number as usize == origins.len() {
                origins.push(Arc::clone(origin));
            }
            numbers.push(number);
        }
        of_batch.push(numbers);
    }
    (origins, of_batch)
}

/// Which operations the services have: one hash per change of (origin, name, kind) between rows.
fn list_operations(batches: &[&SpanBatch], origins: &[Arc<Origin>], origin_of_batch: &[Vec<u32>]) -> Catalogue {
    let mut operations: BTreeSet<(Option<String>, String, i32)> = BTreeSet::new();
    for (batch, origin_numbers) in batches.iter().zip(origin_of_batch) {
        let mut seen: HashSet<(u32, u32, i32)> = HashSet::new();
        let mut last = None;
        for row in 0..batch.len() {
            let operation = (batch.origin()[row], batch.name()[row], batch.kind()[row]);
            if last == Some(operation) || !seen.insert(operation) {
                continue;
            }
            last = Some(operation);
            let (origin, name, kind) = operation;
            let origin = &origins[origin_numbers[origin as usize] as usize];
            let name = String::from_utf8_lossy(batch.names().get(name)).into_owned();
            operations.insert((origin.service_name().map(str::to_owned), name, kind));
            if operations.len() > OPERATIONS_MAX {
                return Catalogue::default();
            }
        }
    }
    Catalogue { operations: operations.into_iter().collect(), has_all_operations: true, ..Catalogue::default() }
}

/// All keys, without a bound of their own: a key that is missing here is not searched for, and together
/// they are no larger than the head that holds the events.
fn nested_keys<'a>(
    batches: &[&'a SpanBatch],
    column: impl Fn(&'a SpanBatch) -> &'a SparseBytes,
    attributes: impl Fn(&[u8]) -> Vec<spoor_model::KeyValue>,
) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    for batch in batches {
        let lists = column(batch);
        for place in 0..lists.rows().len() {
            for message in nested::split_list(lists.get_at(place)).unwrap_or_default() {
                keys.extend(attributes(message).into_iter().map(|attribute| attribute.key));
            }
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use spoor_model::TraceId;

    use super::*;

    #[test]
    fn row_groups_end_at_trace_ends() {
        let trace =
            |first_row, span_count| OrderedTrace { id: TraceId([1; 16]), range: TimeRange::ALL, first_row, span_count };
        let traces = [trace(0, 3), trace(3, 4), trace(7, 10), trace(17, 1)];
        assert_eq!(row_groups(&traces, 5), vec![0..7, 7..17, 17..18]);
        assert_eq!(row_groups(&traces, 100), vec![0..18]);
    }
}
