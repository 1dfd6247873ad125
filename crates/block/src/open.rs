//! An opened block: footers, tables and the verified files, ready to read rows.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Schema};
use hashbrown::HashMap;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, RowSelection, RowSelector,
};
use parquet::arrow::{ProjectionMask, parquet_to_arrow_field_levels};
use parquet::basic::{Encoding, PageType};
use parquet::file::metadata::{ColumnChunkMetaData, PageIndexPolicy, ParquetMetaData};
use parquet::file::statistics::Statistics;
use spoor_model::bits::Bits;
use spoor_model::columns::GroupInfo;
use spoor_model::{Origin, TimeRange, TraceId, Value};

use crate::error::Error;
use crate::files::BlockFiles;
use crate::filter::ValueFilters;
use crate::index::{self, Catalogue, TraceTable};
use crate::meta::{BlockMeta, ColumnMeta, ColumnType};
use crate::pages::{Extent, GroupChunks, SpansFile};
use crate::pieces::VerifiedFile;
use crate::tables::{self, Shape};

/// Everything of a block but its span columns.
pub(crate) struct Opened {
    /// `block 01J... spans.parquet`, for errors.
    pub(crate) object: String,
    pub(crate) shapes: Vec<Shape>,
    pub(crate) origins: Vec<Arc<Origin>>,
    pub(crate) traces: TraceTable,
    pub(crate) catalogue: Catalogue,
    pub(crate) filters: ValueFilters,
    pub(crate) columns: Vec<ColumnMeta>,
    /// In row order.
    pub(crate) groups: Vec<Group>,
    column_of_name: HashMap<String, usize>,
    file: SpansFile,
    metadata: Arc<ParquetMetaData>,
    /// Texts as texts: for reading few rows.
    plain: Arc<Schema>,
    /// Texts of few values as dictionaries: for scans.
    coded: Arc<Schema>,
}

/// One row group.
#[derive(Debug)]
pub(crate) struct Group {
    /// Its rows in the block.
    pub(crate) rows: Range<usize>,
    /// Its traces, by their numbers.
    pub(crate) traces: Range<usize>,
    pub(crate) info: GroupInfo,
    /// Read when first asked for: ids of the traces...
    pub(crate) trace_ids: OnceLock<Arc<[TraceId]>>,
    /// ... and which of them have two rows of one span id.
    pub(crate) irregular: OnceLock<Bits>,
}

/// A file of a block.
pub(crate) fn open_file(files: &dyn BlockFiles, meta: &BlockMeta, name: &str) -> Result<VerifiedFile, Error> {
    let found = meta.files.iter().find(|file| file.name == name);
    let described = found.ok_or_else(|| Error::corrupt(meta.describe(), format!("its meta does not list {name}")))?;
    let file = files.open(&meta.tenant, meta.id, name, described.size_bytes)?;
    VerifiedFile::new(file, described, format!("{} {name}", meta.describe()))
}

impl Opened {
    pub(crate) fn open(files: &dyn BlockFiles, meta: &BlockMeta) -> Result<Self, Error> {
        let object = |name: &str| format!("{} {name}", meta.describe());
        let read = |name: &str| open_file(files, meta, name)?.read_all();
        let (traces, catalogue, filters) = index::read_tables(&read("index.bin")?, &object("index.bin"))?;
        let shapes = tables::read_shapes(read("shapes.parquet")?, &object("shapes.parquet"))?;
        let origins = tables::read_origins(read("origins.parquet")?, &object("origins.parquet"))?;

        let file = SpansFile(Arc::new(open_file(files, meta, "spans.parquet")?));
        let object = object("spans.parquet");
        let corrupt = |err: parquet::errors::ParquetError| Error::corrupt(&object, err.to_string());
        let options = ArrowReaderOptions::new()
            .with_column_index_policy(PageIndexPolicy::Skip)
            .with_offset_index_policy(PageIndexPolicy::Required);
        let loaded = ArrowReaderMetadata::load(&file, options).map_err(corrupt)?;
        let plain = Arc::clone(loaded.schema());
        let coded = Arc::new(coded_schema(&plain, &meta.columns));
        let metadata = Arc::clone(loaded.metadata());

        let names = plain.fields().iter().map(|field| field.name().clone());
        let column_of_name = names.enumerate().map(|(index, name)| (name, index)).collect();
        let groups = groups(&metadata, &traces)
            .ok_or_else(|| Error::corrupt(&object, "the trace table does not fit the row groups"))?;
        let columns = meta.columns.clone();
        let opened = Self {
            shapes,
            origins,
            traces,
            catalogue,
            filters,
            columns,
            groups,
            column_of_name,
            file,
            metadata,
            plain,
            coded,
            object,
        };
        opened.check(meta)?;
        Ok(opened)
    }

    /// The parts must agree with each other before anything is answered from them.
    fn check(&self, meta: &BlockMeta) -> Result<(), Error> {
        let want = meta.span_count;
        let rows = self.row_count() as u64;
        if rows != want {
            return Err(Error::corrupt(&self.object, format!("row count mismatch (want {want}, got {rows})")));
        }
        let traces = self.traces.len();
        if traces as u64 != meta.trace_count || traces == 0 || self.traces.rows(traces - 1).end as u64 != want {
            return Err(Error::corrupt(&self.object, "the trace table does not fit the spans"));
        }
        let listed = self.columns.iter().map(|column| column.name.as_str());
        if !listed.eq(self.plain.fields().iter().map(|field| field.name().as_str())) {
            return Err(Error::corrupt(&self.object, "the columns are not those of the meta"));
        }
        Ok(())
    }

    pub(crate) fn row_count(&self) -> usize {
        self.groups.last().map_or(0, |group| group.rows.end)
    }

    /// The row group of a row.
    pub(crate) fn group_of_row(&self, row: usize) -> usize {
        self.groups.partition_point(|group| group.rows.end <= row)
    }

    /// The place of a column in the file.
    pub(crate) fn column(&self, name: &str) -> Option<usize> {
        self.column_of_name.get(name).copied()
    }

    /// The columns of an attribute: one per type that it has.
    pub(crate) fn attribute_columns<'a>(&'a self, key: &'a str) -> impl Iterator<Item = usize> + 'a {
        let is_wanted = move |column: &ColumnMeta| column.attribute.as_deref() == Some(key);
        self.columns.iter().enumerate().filter(move |(_, column)| is_wanted(column)).map(|(index, _)| index)
    }

    fn chunk(&self, group: usize, column: usize) -> &ColumnChunkMetaData {
        self.metadata.row_group(group).column(column)
    }

    /// Whether a column has no value at all in a row group, by the footer.
    pub(crate) fn is_all_null(&self, group: usize, column: usize) -> bool {
        let nulls = self.chunk(group, column).statistics().and_then(|statistics| statistics.null_count_opt());
        nulls == Some(self.groups[group].rows.len() as u64)
    }

    /// Least and greatest value of an integer column in a row group, by the footer.
    pub(crate) fn int_bounds(&self, group: usize, column: usize) -> Option<(i64, i64)> {
        match self.chunk(group, column).statistics()? {
            Statistics::Int64(bounds) => Some((*bounds.min_opt()?, *bounds.max_opt()?)),
            _ => None,
        }
    }

    /// Compressed bytes of a column of a row group.
    pub(crate) fn stored_bytes(&self, group: usize, column: usize) -> u64 {
        self.chunk(group, column).compressed_size().max(0) as u64
    }

    /// Whether every value of the column in the row group is a code of its dictionary.
    fn is_all_coded(&self, group: usize, column: usize) -> bool {
        let chunk = self.chunk(group, column);
        let is_code = |encoding| matches!(encoding, Encoding::RLE_DICTIONARY | Encoding::PLAIN_DICTIONARY);
        let of_pages = chunk.page_encoding_stats().map(|pages| {
            let mut data = pages.iter().filter(|page| page.page_type == PageType::DATA_PAGE);
            data.all(|page| is_code(page.encoding))
        });
        let of_mask = || chunk.page_encoding_stats_mask().is_some_and(|mask| mask.encodings().all(is_code));
        of_pages.unwrap_or_else(of_mask)
    }

    fn reader(
        &self,
        group: usize,
        columns: &[usize],
        hint: &Schema,
        selection: Option<RowSelection>,
        batch_rows: usize,
    ) -> Result<ParquetRecordBatchReader, Error> {
        let corrupt = |err: parquet::errors::ParquetError| Error::corrupt(&self.object, err.to_string());
        let schema = self.metadata.file_metadata().schema_descr();
        let mask = ProjectionMask::roots(schema, columns.iter().copied());
        let levels = parquet_to_arrow_field_levels(schema, mask, Some(hint.fields())).map_err(corrupt)?;
        let extent = if selection.is_some() { Extent::Pages } else { Extent::Whole };
        let chunks = GroupChunks { file: &self.file, metadata: &self.metadata, group, extent };
        ParquetRecordBatchReader::try_new_with_row_groups(&levels, &chunks, batch_rows.max(1), selection)
            .map_err(corrupt)
    }

    /// A column of one row group in one piece: all rows, or those selected. Texts are codes when all pages of
    /// the column are.
    pub(crate) fn column_of_group(
        &self,
        group: usize,
        column: usize,
        selection: Option<RowSelection>,
    ) -> Result<ArrayRef, Error> {
        let all_rows = self.groups[group].rows.len();
        let row_count = selection.as_ref().map_or(all_rows, RowSelection::row_count);
        let is_whole = selection.is_none();
        let hint = if is_whole && self.is_all_coded(group, column) { &self.coded } else { &self.plain };
        if row_count == 0 {
            return Ok(arrow_array::new_empty_array(hint.field(column).data_type()));
        }
        let mut batches = self.reader(group, &[column], hint, selection, row_count)?;
        let malformed = |reason: String| Error::corrupt(&self.object, reason);
        let batch = batches.next().unwrap_or_else(|| Ok(RecordBatch::new_empty(Arc::clone(hint))));
        let batch = batch.map_err(|err| malformed(err.to_string()))?;
        if batch.num_rows() != row_count || batch.num_columns() != 1 {
            let name = &self.columns[column].name;
            let got = batch.num_rows();
            return Err(malformed(format!("column {name}: row count mismatch (want {row_count}, got {got})")));
        }
        Ok(Arc::clone(batch.column(0)))
    }

    /// Batches of one column of one row group, in row order.
    pub(crate) fn scan_column(&self, group: usize, column: usize) -> Result<ParquetRecordBatchReader, Error> {
        self.reader(group, &[column], &self.coded, None, 32_768)
    }

    /// Batches of all columns that have a value, for a range of rows within one row group.
    pub(crate) fn read_rows(&self, rows: Range<usize>) -> Result<ParquetRecordBatchReader, Error> {
        let group = self.group_of_row(rows.start);
        let columns: Vec<usize> = (0..self.columns.len()).filter(|column| !self.is_all_null(group, *column)).collect();
        self.select(group, rows, &columns)
    }

    /// What all columns of a row group take when they are decompressed, in bytes.
    pub(crate) fn unpacked_bytes(&self, group: usize) -> u64 {
        self.metadata.row_group(group).total_byte_size().max(0) as u64
    }

    /// Batches of some columns of one row group, each of `batch_rows` rows but the last: of all rows, or of those `rows`
    /// of the group. Texts are codes where all pages of their column are.
    pub(crate) fn batches_of_group(
        &self,
        group: usize,
        columns: &[usize],
        rows: Option<Range<usize>>,
        batch_rows: usize,
    ) -> Result<ParquetRecordBatchReader, Error> {
        let hint = |column: usize| match self.is_all_coded(group, column) {
            true => self.coded.field(column).clone(),
            false => self.plain.field(column).clone(),
        };
        let hint = Schema::new((0..self.columns.len()).map(hint).collect::<Vec<_>>());
        let selection =
            rows.map(|rows| RowSelection::from(vec![RowSelector::skip(rows.start), RowSelector::select(rows.len())]));
        self.reader(group, columns, &hint, selection, batch_rows)
    }

    /// Whose a row is. One page of one column.
    pub(crate) fn trace_id_of_row(&self, row: usize) -> Result<TraceId, Error> {
        let malformed = || Error::corrupt(&self.object, format!("row {row} has no trace id"));
        let column = self.column("trace_id").ok_or_else(malformed)?;
        let mut batches = self.select(self.group_of_row(row), row..row + 1, &[column])?;
        let batch =
            batches.next().ok_or_else(malformed)?.map_err(|err| Error::corrupt(&self.object, err.to_string()))?;
        let ids = batch.column(0).as_fixed_size_binary_opt().filter(|ids| ids.len() == 1).ok_or_else(malformed)?;
        ids.value(0).try_into().map(TraceId).map_err(|_| malformed())
    }

    fn select(&self, group: usize, rows: Range<usize>, columns: &[usize]) -> Result<ParquetRecordBatchReader, Error> {
        let of_group = &self.groups[group].rows;
        if rows.end > of_group.end {
            return Err(Error::corrupt(&self.object, format!("rows {rows:?} cross the end of a row group")));
        }
        let skip = RowSelector::skip(rows.start - of_group.start);
        let selection = RowSelection::from(vec![skip, RowSelector::select(rows.len())]);
        self.reader(group, columns, &self.plain, Some(selection), rows.len().min(8192))
    }

    /// A rough count of the memory held.
    pub(crate) fn memory_bytes(&self) -> usize {
        let shape_bytes: usize =
            self.shapes.iter().map(|shape| 128 + shape.attributes.iter().map(attribute_bytes).sum::<usize>()).sum();
        let origin_bytes: usize = self.origins.iter().map(|origin| 512 + 3 * origin.resource_encoded.len()).sum();
        let operation_bytes = self.catalogue.operations.len() * 96;
        let keys = [&self.catalogue.residual_keys, &self.catalogue.event_keys, &self.catalogue.link_keys];
        let key_bytes: usize = keys.into_iter().flatten().map(|key| 32 + key.len()).sum();
        self.metadata.memory_size()
            + shape_bytes
            + origin_bytes
            + operation_bytes
            + key_bytes
            + self.filters.memory_bytes()
            + self.traces.memory_bytes()
            // Ids of the traces, when they are read.
            + self.traces.len() * 16
    }
}

fn attribute_bytes(attribute: &spoor_model::KeyValue) -> usize {
    let value = match &attribute.value {
        Value::Str(text) => text.len(),
        _ => 16,
    };
    attribute.key.len() + value + size_of::<spoor_model::KeyValue>()
}

/// The row groups with their traces; `None` when a trace crosses the end of a group.
fn groups(metadata: &ParquetMetaData, traces: &TraceTable) -> Option<Vec<Group>> {
    let mut groups: Vec<Group> = Vec::new();
    for stored in metadata.row_groups() {
        let first = groups.last().map_or((0, 0), |last| (last.rows.end, last.traces.end));
        let rows = first.0..first.0.checked_add(usize::try_from(stored.num_rows()).ok()?)?;
        let mut end = first.1;
        while end < traces.len() && traces.rows(end).end <= rows.end {
            end += 1;
        }
        let of_group = first.1..end;
        let range = of_group.clone().map(|trace| traces.range(trace)).reduce(|a: TimeRange, b| a.union(&b))?;
        if traces.rows(first.1).start != rows.start || traces.rows(end - 1).end != rows.end {
            return None;
        }
        // Traces are ordered by start.
        let latest_trace_start = traces.range(end - 1).start;
        let info = GroupInfo { latest_trace_start, range, span_count: rows.len() as u64 };
        let (trace_ids, irregular) = (OnceLock::new(), OnceLock::new());
        groups.push(Group { rows, traces: of_group, info, trace_ids, irregular });
    }
    Some(groups)
}

/// The schema with dictionaries where the meta promises that they pay.
fn coded_schema(plain: &Schema, columns: &[ColumnMeta]) -> Schema {
    let coded = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let field = |field: &Arc<Field>| {
        let is_coded = columns.iter().any(|column| {
            column.name == *field.name() && column.is_dictionary && column.value_type == Some(ColumnType::String)
        });
        match is_coded {
            true => Field::new(field.name(), coded.clone(), field.is_nullable()),
            false => (**field).clone(),
        }
    };
    Schema::new(plain.fields().iter().map(field).collect::<Vec<_>>())
}
