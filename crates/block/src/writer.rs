//! The files of a block, written row group by row group: spans may come all at once or step by step.

use std::collections::BTreeSet;
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hashbrown::{HashSet, HashTable};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::errors::ParquetError;
use spoor_model::batch::{SpanBatch, SparseBytes};
use spoor_model::{BlockId, Origin, TenantId, TimeRange, UnixNano, nested};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::columns::MergedColumn;
use crate::error::Error;
use crate::filter;
use crate::gather::Gatherer;
use crate::index::{self, Catalogue, Content};
use crate::meta::{BlockMeta, FileMeta};
use crate::order::{Order, OrderedTrace};
use crate::pieces::PieceWriter;
use crate::plan::{Plan, PlannedColumn};
use crate::summary::ColumnSummaries;
use crate::tables::{self, Shape};
use crate::write::WriteOptions;

/// Rows gathered at once: bounds the memory of a cut beside the batches themselves.
const GATHER_ROWS: usize = 16_384;
/// A row group ends at the end of a step when it takes more than this, however few rows it has: spans may be large.
const GROUP_BYTES_MAX: usize = 32 << 20;
/// Past this many (service, name, kind) a block does not list its operations.
const OPERATIONS_MAX: usize = 10_000;

/// Spans of whole traces, which stand behind those of the step before by (start, trace id).
pub(crate) struct Step<'a> {
    pub(crate) batches: &'a [&'a SpanBatch],
    /// Begin with the columns that the plan was made from.
    pub(crate) merged: &'a [MergedColumn<'a>],
    pub(crate) order: &'a Order,
    /// Merged columns that neither folded nor have a column in the plan.
    pub(crate) residual_columns: &'a [usize],
    /// Per batch and row.
    pub(crate) shape_of_row: &'a [Vec<u32>],
}

/// A block that is being written. Holds one row group encoded, and about 50 bytes per trace.
pub(crate) struct BlockWriter<'a> {
    dir: PathBuf,
    plan: &'a Plan,
    options: &'a WriteOptions,
    spans: ArrowWriter<PieceWriter>,
    /// Of the open row group: its rows and the hashes of their values.
    group_rows: usize,
    value_hashes: Vec<u64>,
    value_filters: Vec<Vec<u8>>,
    rows_of_groups: Vec<u32>,
    traces: Vec<OrderedTrace>,
    row_count: usize,
    copy_count: usize,
    origins: Origins,
    operations: Operations,
    catalogue: Catalogue,
}

impl<'a> BlockWriter<'a> {
    /// Begins the files in an empty directory.
    pub(crate) fn create(dir: &Path, plan: &'a Plan, options: &'a WriteOptions) -> Result<Self, Error> {
        let path = dir.join("spans.parquet");
        let encode = |err: ParquetError| Error::encode(&path, &err);
        let file = PieceWriter::create(path.clone())?;
        let properties = plan.properties(options).map_err(encode)?;
        let arrow = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
        let spans = ArrowWriter::try_new_with_options(file, plan.schema(), arrow).map_err(encode)?;
        Ok(Self {
            dir: dir.to_owned(),
            plan,
            options,
            spans,
            group_rows: 0,
            value_hashes: Vec::new(),
            value_filters: Vec::new(),
            rows_of_groups: Vec::new(),
            traces: Vec::new(),
            row_count: 0,
            copy_count: 0,
            origins: Origins::default(),
            operations: Operations::default(),
            catalogue: Catalogue::default(),
        })
    }

    /// Makes room for as many traces at most: growing step by step takes twice the room for a moment.
    pub(crate) fn expect_traces(&mut self, count: usize) {
        self.traces.reserve_exact(count);
    }

    /// Spans written so far.
    pub(crate) fn row_count(&self) -> usize {
        self.row_count
    }

    /// Bytes of row groups written so far. Tables and index come at the end.
    pub(crate) fn written_bytes(&self) -> u64 {
        self.spans.inner().size_bytes()
    }

    fn encode_error(&self, err: &(dyn std::error::Error + 'static)) -> Error {
        Error::encode(&self.dir.join("spans.parquet"), err)
    }

    /// Writes the spans of a step. Row groups end at the first trace end past their target.
    pub(crate) fn append(&mut self, step: &Step<'_>) -> Result<(), Error> {
        let origin_of_batch: Vec<Vec<u32>> = step.batches.iter().map(|batch| self.origins.number(batch)).collect();
        let Step { batches, merged, order, residual_columns, shape_of_row } = *step;
        let gatherer =
            Gatherer::new(batches, merged, order, self.plan, residual_columns, shape_of_row, &origin_of_batch);
        let mut start = 0;
        for trace in &order.traces {
            let end = (trace.first_row + trace.span_count) as usize;
            if self.group_rows + end - start >= self.options.row_group_rows {
                self.write_rows(&gatherer, start..end)?;
                self.end_group()?;
                start = end;
            }
        }
        self.write_rows(&gatherer, start..order.rows.len())?;
        if self.spans.in_progress_size() > GROUP_BYTES_MAX {
            self.end_group()?;
        }

        let first_row = self.row_count as u32;
        let placed = order.traces.iter().map(|trace| OrderedTrace { first_row: first_row + trace.first_row, ..*trace });
        self.traces.extend(placed);
        self.row_count += order.rows.len();
        self.copy_count += order.copy_count;
        for (batch, origins) in batches.iter().zip(&origin_of_batch) {
            self.operations.add(batch, origins, &self.origins.list);
        }
        self.catalogue.residual_keys.extend(gatherer.residual_keys());
        add_nested_keys(&mut self.catalogue.event_keys, batches, SpanBatch::events, |bytes| {
            nested::decode_event(bytes).map(|event| event.attributes).unwrap_or_default()
        });
        add_nested_keys(&mut self.catalogue.link_keys, batches, SpanBatch::links, |bytes| {
            nested::decode_link(bytes).map(|link| link.attributes).unwrap_or_default()
        });
        Ok(())
    }

    fn write_rows(&mut self, gatherer: &Gatherer<'_>, rows: Range<usize>) -> Result<(), Error> {
        let mut from = rows.start;
        while from < rows.end {
            let to = (from + GATHER_ROWS).min(rows.end);
            let batch = gatherer.gather(from..to).map_err(|err| self.encode_error(&err))?;
            self.spans.write(&batch).map_err(|err| self.encode_error(&err))?;
            from = to;
        }
        if !rows.is_empty() {
            self.group_rows += rows.len();
            self.value_hashes.extend(gatherer.value_hashes(rows));
        }
        Ok(())
    }

    fn end_group(&mut self) -> Result<(), Error> {
        self.spans.flush().map_err(|err| self.encode_error(&err))?;
        self.value_filters.push(filter::build(std::mem::take(&mut self.value_hashes)));
        self.rows_of_groups.push(self.group_rows as u32);
        self.group_rows = 0;
        Ok(())
    }

    /// Writes the tables and the index, and makes all files durable. The meta is the caller's to write.
    ///
    /// # Panics
    /// When no span was written.
    pub(crate) fn finish(
        mut self,
        shapes: &[Shape],
        id: BlockId,
        tenant: &TenantId,
        created_at: UnixNano,
    ) -> Result<BlockMeta, Error> {
        if self.group_rows > 0 {
            self.end_group()?;
        }
        let Self { dir, options, traces, mut catalogue, .. } = self;
        (catalogue.operations, catalogue.has_all_operations) = self.operations.finish();
        let encode = |err: ParquetError| Error::encode(&dir.join("spans.parquet"), &err);
        let are_in_filter =
            |column: usize| self.plan.columns.get(column).is_some_and(PlannedColumn::has_ints_in_filter);
        let columns = ColumnSummaries::of_groups(self.spans.flushed_row_groups(), are_in_filter);
        let content = Content {
            traces: &traces,
            group_rows: &self.rows_of_groups,
            catalogue: &catalogue,
            columns: &columns,
            value_filters: &self.value_filters,
        };
        let index = index::encode(&content, options.zstd_level)?;
        let files = vec![
            self.spans.into_inner().map_err(encode)?.finish()?,
            tables::write_shapes(&dir, shapes, options.zstd_level)?,
            tables::write_origins(&dir, &self.origins.list, options.zstd_level)?,
            write_file(&dir, "index.bin", &index)?,
        ];
        let range = traces.iter().map(|trace| trace.range).reduce(|a: TimeRange, b| a.union(&b));
        Ok(BlockMeta {
            id,
            tenant: tenant.clone(),
            created_at,
            range: range.expect("a block has spans"),
            span_count: self.row_count as u64,
            copy_count: self.copy_count as u64,
            trace_count: traces.len() as u64,
            size_bytes: files.iter().map(|file| file.size_bytes).sum(),
            merge_level: 0,
            replaces: Vec::new(),
            merged_with: Vec::new(),
            files: files.into(),
            columns: self.plan.columns.iter().map(|column| column.meta.clone()).collect(),
        })
    }
}

/// Writes a small file, durably.
pub(crate) fn write_file(dir: &Path, name: &str, bytes: &[u8]) -> Result<FileMeta, Error> {
    let mut file = PieceWriter::create(dir.join(name))?;
    file.write_all(bytes).map_err(|err| Error::io("write", file.path(), &err))?;
    file.finish()
}

/// The distinct origins so far.
#[derive(Default)]
struct Origins {
    list: Vec<Arc<Origin>>,
    lookup: HashTable<(u64, u32)>,
}

impl Origins {
    /// A batch's numbers in terms of the block's.
    fn number(&mut self, batch: &SpanBatch) -> Vec<u32> {
        let Self { list, lookup } = self;
        let mut number = |origin: &Arc<Origin>| {
            let hash = xxh3_64_with_seed(&origin.scope_encoded, xxh3_64_with_seed(&origin.resource_encoded, 0));
            let is_same = |known: &Arc<Origin>| Arc::ptr_eq(known, origin) || known == origin;
            if let Some((_, number)) = lookup.find(hash, |(h, number)| *h == hash && is_same(&list[*number as usize])) {
                return *number;
            }
            let number = list.len() as u32;
            list.push(Arc::clone(origin));
            lookup.insert_unique(hash, (hash, number), |(h, _)| *h);
            number
        };
        batch.origins().iter().map(&mut number).collect()
    }
}

/// Which operations the services have.
#[derive(Default)]
struct Operations {
    list: BTreeSet<(Option<String>, String, i32)>,
    are_too_many: bool,
}

impl Operations {
    /// One hash per change of (origin, name, kind) between rows. `numbers` are those of the batch's origins in `origins`.
    fn add(&mut self, batch: &SpanBatch, numbers: &[u32], origins: &[Arc<Origin>]) {
        let mut seen: HashSet<(u32, u32, i32)> = HashSet::new();
        let mut last = None;
        for row in 0..batch.len() {
            let operation = (batch.origin()[row], batch.name()[row], batch.kind()[row]);
            if self.are_too_many || last == Some(operation) || !seen.insert(operation) {
                continue;
            }
            last = Some(operation);
            let (origin, name, kind) = operation;
            let origin = &origins[numbers[origin as usize] as usize];
            let name = String::from_utf8_lossy(batch.names().get(name)).into_owned();
            self.list.insert((origin.service_name().map(str::to_owned), name, kind));
            self.are_too_many = self.list.len() > OPERATIONS_MAX;
        }
    }

    /// The list, and whether it has all of them; it is empty when there are too many.
    fn finish(self) -> (Vec<(Option<String>, String, i32)>, bool) {
        match self.are_too_many {
            true => (Vec::new(), false),
            false => (self.list.into_iter().collect(), true),
        }
    }
}

/// All keys, without a bound of their own: a key that is missing here is not searched for, and together
/// they are no larger than what holds the events.
fn add_nested_keys<'a>(
    keys: &mut BTreeSet<String>,
    batches: &[&'a SpanBatch],
    column: impl Fn(&'a SpanBatch) -> &'a SparseBytes,
    attributes: impl Fn(&[u8]) -> Vec<spoor_model::KeyValue>,
) {
    for batch in batches {
        let lists = column(batch);
        for place in 0..lists.rows().len() {
            for message in nested::split_list(lists.get_at(place)).unwrap_or_default() {
                for attribute in attributes(message) {
                    // Most were met before, and making room for one costs more than finding it.
                    if !keys.contains(&attribute.key) {
                        keys.insert(attribute.key);
                    }
                }
            }
        }
    }
}
