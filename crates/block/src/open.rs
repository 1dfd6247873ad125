//! An opened block: footer, tables and the verified files, ready to read rows.
//!
//! Opening reads what says whether a query concerns the block at all. The trace table, which is as large as the rest
//! together, comes when rows are read ([`Opened::traces`]); ids of traces and the filters over values stay in the files.

use std::collections::BTreeSet;
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
use parquet::column::page::PageReader;
use parquet::file::metadata::{ColumnChunkMetaData, PageIndexPolicy, ParquetMetaData};
use parquet::file::statistics::Statistics;
use spoor_model::bits::Bits;
use spoor_model::columns::GroupInfo;
use spoor_model::scan::{AttrScope, KeySet};
use spoor_model::{BlockId, KeyValue, Origin, TimeRange, TraceId};

use crate::cache::Shared;
use crate::damage::{Damages, Place};
use crate::error::Error;
use crate::files::BlockFiles;
use crate::filter::ValueFilters;
use crate::groups::GroupSummary;
use crate::index::{Catalogue, Index};
use crate::meta::{BlockMeta, ColumnMeta, ColumnType};
use crate::pages::{GroupChunks, SpansFile};
use crate::pieces::{Pieces, VerifiedFile};
use crate::tables::{self, Shape};
use crate::traces::TraceTable;

/// Everything of a block but its span columns and its trace table.
pub(crate) struct Opened {
    id: BlockId,
    /// `block 01J... spans.parquet`, for errors.
    pub(crate) object: String,
    pub(crate) shapes: Vec<Arc<Shape>>,
    pub(crate) origins: Vec<Arc<Origin>>,
    pub(crate) catalogue: Catalogue,
    pub(crate) filters: ValueFilters,
    pub(crate) columns: Arc<[ColumnMeta]>,
    /// In row order.
    pub(crate) groups: Vec<Group>,
    column_of_name: HashMap<String, usize>,
    /// Gathered when first asked for.
    keys: OnceLock<KeySet>,
    index: Arc<Index>,
    shared: Arc<Shared>,
    file: SpansFile,
    metadata: Arc<ParquetMetaData>,
    /// Texts as texts: for reading few rows.
    plain: Arc<Schema>,
    /// Texts of few values as dictionaries: for scans.
    coded: Arc<Schema>,
}

/// How values of a column chunk are stored.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StoredAs<'a> {
    pub(crate) layout: StoredLayout,
    /// What they become.
    pub(crate) data_type: &'a DataType,
    /// Whether pages begin with levels that say which rows have a value.
    pub(crate) is_nullable: bool,
}

/// What follows the levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StoredLayout {
    /// Numbers as byte streams.
    Streams,
    /// Texts as codes of a dictionary.
    Codes,
    /// Texts or bytes, each behind its length.
    Plain,
}

/// One row group.
#[derive(Debug)]
pub(crate) struct Group {
    /// Its rows in the block.
    pub(crate) rows: Range<usize>,
    /// Its traces, by their numbers.
    pub(crate) traces: Range<usize>,
    pub(crate) info: GroupInfo,
    /// Which of its traces have two rows of one span id. Looked for when first asked for in blocks that do not say.
    pub(crate) irregular: OnceLock<Bits>,
}

/// A file of a block.
pub(crate) fn open_file(
    files: &dyn BlockFiles,
    meta: &BlockMeta,
    name: &str,
    damages: &Arc<Damages>,
) -> Result<VerifiedFile, Error> {
    let found = meta.files.iter().find(|file| file.name == name);
    let described = found.ok_or_else(|| Error::corrupt(meta.describe(), format!("its meta does not list {name}")))?;
    let object = format!("{} {name}", meta.describe());
    let open = |pieces: &Arc<Pieces>| files.open(&meta.tenant, meta.id, name, pieces);
    let opened = VerifiedFile::open(described, object, open);
    damages.learn(meta.id, || Place::Bytes(name.to_owned(), Vec::new()), &opened);
    Ok(opened?.watched(meta.id, damages))
}

/// The index of a block.
pub(crate) fn open_index(files: &dyn BlockFiles, meta: &BlockMeta, damages: &Arc<Damages>) -> Result<Index, Error> {
    Index::open(open_file(files, meta, "index.bin", damages)?, format!("{} index.bin", meta.describe()))
}

/// The trace table of a block that need not be opened for it.
pub(crate) fn traces(files: &dyn BlockFiles, meta: &BlockMeta, shared: &Shared) -> Result<Arc<TraceTable>, Error> {
    shared.traces(meta.id, || open_index(files, meta, &shared.damages)?.traces())
}

impl Opened {
    /// Opens a block. What other blocks have too is taken from `shared`.
    pub(crate) fn open(files: &dyn BlockFiles, meta: &BlockMeta, shared: &Arc<Shared>) -> Result<Self, Error> {
        let object = |name: &str| format!("{} {name}", meta.describe());
        let read = |name: &str| open_file(files, meta, name, &shared.damages)?.read_all();
        let index = Arc::new(open_index(files, meta, &shared.damages)?);
        let shapes = tables::read_shapes(&read("shapes.parquet")?, &shared.shapes, &object("shapes.parquet"))?;
        let origins = tables::read_origins(&read("origins.parquet")?, &shared.origins, &object("origins.parquet"))?;

        let file = SpansFile(Arc::new(open_file(files, meta, "spans.parquet", &shared.damages)?));
        let object = object("spans.parquet");
        let corrupt = |err: parquet::errors::ParquetError| Error::decode(&object, err);
        let options = ArrowReaderOptions::new()
            .with_column_index_policy(PageIndexPolicy::Skip)
            .with_offset_index_policy(PageIndexPolicy::Required);
        let loaded = ArrowReaderMetadata::load(&file, options).map_err(corrupt)?;
        let plain = Arc::clone(loaded.schema());
        let coded = Arc::new(coded_schema(&plain, &meta.columns));
        let metadata = Arc::clone(loaded.metadata());

        let names = plain.fields().iter().map(|field| field.name().clone());
        let column_of_name = names.enumerate().map(|(index, name)| (name, index)).collect();
        let mut opened = Self {
            id: meta.id,
            shapes,
            origins,
            catalogue: index.catalogue()?,
            filters: ValueFilters::new(Arc::clone(&index)),
            columns: Arc::clone(&meta.columns),
            groups: Vec::new(),
            column_of_name,
            keys: OnceLock::new(),
            index,
            shared: Arc::clone(shared),
            file,
            metadata,
            plain,
            coded,
            object,
        };
        opened.groups = match opened.index.groups()? {
            Some(summaries) => opened.groups_of_summaries(summaries)?,
            None => opened.groups_of_table(&opened.index.traces()?)?,
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
        let traces = self.groups.last().map_or(0, |group| group.traces.end) as u64;
        if traces != meta.trace_count || traces == 0 {
            let reason = format!("trace count mismatch (want {}, got {traces})", meta.trace_count);
            return Err(Error::corrupt(&self.object, reason));
        }
        let listed = self.columns.iter().map(|column| column.name.as_str());
        if !listed.eq(self.plain.fields().iter().map(|field| field.name().as_str())) {
            return Err(Error::corrupt(&self.object, "the columns are not those of the meta"));
        }
        Ok(())
    }

    /// Rows of each row group, by the footer.
    fn group_rows(&self) -> impl ExactSizeIterator<Item = usize> + '_ {
        self.metadata.row_groups().iter().map(|group| usize::try_from(group.num_rows()).unwrap_or(usize::MAX))
    }

    fn groups_of_summaries(&self, summaries: Vec<GroupSummary>) -> Result<Vec<Group>, Error> {
        if !summaries.iter().map(|summary| summary.span_count).eq(self.group_rows()) {
            return Err(Error::corrupt(&self.object, "the index does not fit the row groups"));
        }
        let mut groups: Vec<Group> = Vec::with_capacity(summaries.len());
        for GroupSummary { span_count, trace_count, range, latest_trace_start, shared_ids } in summaries {
            if trace_count > span_count {
                return Err(Error::corrupt(&self.object, "the index has traces without spans"));
            }
            let mut irregular = Bits::none(trace_count);
            shared_ids.into_iter().for_each(|trace| irregular.insert(trace as usize));
            let first = groups.last().map_or((0, 0), |last| (last.rows.end, last.traces.end));
            groups.push(Group {
                rows: first.0..first.0 + span_count,
                traces: first.1..first.1 + trace_count,
                info: GroupInfo { latest_trace_start, range, span_count: span_count as u64 },
                irregular: OnceLock::from(irregular),
            });
        }
        Ok(groups)
    }

    /// The row groups of a block that does not describe them.
    fn groups_of_table(&self, traces: &TraceTable) -> Result<Vec<Group>, Error> {
        let groups = groups(self.group_rows(), traces);
        groups.ok_or_else(|| Error::corrupt(&self.object, "the trace table does not fit the row groups"))
    }

    /// Where the rows of each trace are. About 20 ns per trace, unless it is kept from before.
    pub(crate) fn traces(&self) -> Result<Arc<TraceTable>, Error> {
        let traces = self.shared.traces(self.id, || self.index.traces())?;
        // Each time: who looked for a trace may have read the table before anybody opened the block.
        let does_fit = |group: &Group| {
            let Range { start, end } = group.traces;
            start < end
                && end <= traces.len()
                && traces.rows(start).start == group.rows.start
                && traces.rows(end - 1).end == group.rows.end
        };
        let trace_count = self.groups.last().map_or(0, |group| group.traces.end);
        match traces.len() == trace_count && self.groups.iter().all(does_fit) {
            true => Ok(traces),
            false => Err(Error::corrupt(&self.object, "the trace table does not fit the row groups")),
        }
    }

    /// The names of all attributes.
    pub(crate) fn keys(&self) -> &KeySet {
        self.keys.get_or_init(|| {
            let mut keys = KeySet::new();
            let mut add = |scope, names: &mut dyn Iterator<Item = &String>| {
                let known: &mut BTreeSet<String> = keys.entry(scope).or_default();
                for name in names {
                    if !known.contains(name) {
                        known.insert(name.clone());
                    }
                }
            };
            fn of(attributes: &[KeyValue]) -> impl Iterator<Item = &String> {
                attributes.iter().map(|attribute| &attribute.key)
            }
            add(AttrScope::Span, &mut self.columns.iter().filter_map(|column| column.attribute.as_ref()));
            add(AttrScope::Span, &mut self.shapes.iter().flat_map(|shape| of(&shape.attributes)));
            add(AttrScope::Span, &mut self.catalogue.residual_keys.iter());
            add(AttrScope::Resource, &mut self.origins.iter().flat_map(|origin| of(&origin.resource.attributes)));
            add(AttrScope::Instrumentation, &mut self.origins.iter().flat_map(|origin| of(&origin.scope.attributes)));
            add(AttrScope::Event, &mut self.catalogue.event_keys.iter());
            add(AttrScope::Link, &mut self.catalogue.link_keys.iter());
            keys
        })
    }

    pub(crate) fn row_count(&self) -> usize {
        self.groups.last().map_or(0, |group| group.rows.end)
    }

    /// What was read of spans and index since the block was opened; not counted: the tables, which are small.
    pub(crate) fn read_bytes(&self) -> u64 {
        self.file.0.read_bytes() + self.index.read_bytes()
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
        let chunks = GroupChunks::load(&self.file, &self.metadata, group, columns, selection.as_ref())?;
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

    /// Whether rows may lack a value, or have several.
    pub(crate) fn is_nullable(&self, group: usize, column: usize) -> bool {
        let described = self.chunk(group, column).column_descr();
        described.max_def_level() > 0 || described.max_rep_level() > 0
    }

    /// How the values of a column are stored in a row group, if it is one of the ways that scans read by themselves.
    pub(crate) fn stored_as(&self, group: usize, column: usize) -> Option<StoredAs<'_>> {
        let chunk = self.chunk(group, column);
        let (is_nullable, repeats) = (chunk.column_descr().max_def_level(), chunk.column_descr().max_rep_level());
        if is_nullable > 1 || repeats > 0 {
            return None;
        }
        let data_type = self.plain.field(column).data_type();
        let is_streamed = || chunk.encodings().any(|encoding| encoding == Encoding::BYTE_STREAM_SPLIT);
        let has_dictionary = chunk.dictionary_page_offset().is_some();
        let layout = match data_type {
            DataType::Utf8 if has_dictionary => self.is_all_coded(group, column).then_some(StoredLayout::Codes)?,
            DataType::Utf8 | DataType::Binary if !has_dictionary => StoredLayout::Plain,
            DataType::Int32 | DataType::Int64 | DataType::Float64 | DataType::Timestamp(..) => {
                is_streamed().then_some(StoredLayout::Streams)?
            }
            _ => return None,
        };
        Some(StoredAs { layout, data_type, is_nullable: is_nullable == 1 })
    }

    /// The pages of a column of one row group, unpacked.
    pub(crate) fn pages_of_group(&self, group: usize, column: usize) -> Result<Box<dyn PageReader>, Error> {
        let chunks = GroupChunks::load(&self.file, &self.metadata, group, &[column], None)?;
        chunks.pages(column).map_err(|err| Error::corrupt(&self.object, err.to_string()))
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

    /// A rough count of the memory held, without what is shared between blocks.
    pub(crate) fn memory_bytes(&self) -> usize {
        /// A field in both schemas, the lookup by name, and its share of the attribute names.
        const COLUMN_BYTES: usize = 640;
        const OPERATION_BYTES: usize = 96;
        const KEY_BYTES: usize = 64;
        let keys = [&self.catalogue.residual_keys, &self.catalogue.event_keys, &self.catalogue.link_keys];
        let key_bytes: usize = keys.into_iter().flatten().map(|key| 2 * (KEY_BYTES + key.len())).sum();
        let trace_count = self.groups.last().map_or(0, |group| group.traces.end);
        self.metadata.memory_size()
            + (self.shapes.len() + self.origins.len()) * size_of::<Arc<Shape>>()
            + self.catalogue.operations.len() * OPERATION_BYTES
            + key_bytes
            + self.columns.len() * COLUMN_BYTES
            // Which traces are irregular.
            + trace_count / 8
            + self.groups.len() * size_of::<Group>()
    }
}

/// The row groups with their traces; `None` when a trace crosses the end of a group.
fn groups(group_rows: impl Iterator<Item = usize>, traces: &TraceTable) -> Option<Vec<Group>> {
    let mut groups: Vec<Group> = Vec::new();
    for row_count in group_rows {
        let first = groups.last().map_or((0, 0), |last| (last.rows.end, last.traces.end));
        let rows = first.0..first.0.checked_add(row_count)?;
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
        groups.push(Group { rows, traces: of_group, info, irregular: OnceLock::new() });
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
