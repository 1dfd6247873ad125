//! An opened block: its outline and the footer of its spans, ready to read rows.

use std::ops::{Deref, Range};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Schema};
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, RowSelection, RowSelector,
};
use parquet::arrow::{ProjectionMask, parquet_to_arrow_field_levels};
use parquet::basic::{Encoding, PageType};
use parquet::column::page::PageReader;
use parquet::file::metadata::{ColumnChunkMetaData, PageIndexPolicy, ParquetMetaData};
use spoor_model::TraceId;

use crate::error::Error;
use crate::meta::{ColumnMeta, ColumnType};
use crate::outline::Outline;
use crate::pages::{GroupChunks, SpansFile};
use crate::summary::ColumnSummary;

/// A block of which rows can be read.
#[derive(Clone)]
pub(crate) struct Opened {
    outline: Arc<Outline>,
    footer: Arc<Footer>,
}

/// What `spans.parquet` says of itself.
pub(crate) struct Footer {
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

impl Footer {
    /// Reads the footer. The file must have these columns.
    pub(crate) fn load(file: &SpansFile, columns: &[ColumnMeta], object: &str) -> Result<Self, Error> {
        let options = ArrowReaderOptions::new()
            .with_column_index_policy(PageIndexPolicy::Skip)
            .with_offset_index_policy(PageIndexPolicy::Required);
        let loaded = ArrowReaderMetadata::load(file, options).map_err(|err| Error::decode(object, err))?;
        let plain = Arc::clone(loaded.schema());
        let listed = columns.iter().map(|column| column.name.as_str());
        if !listed.eq(plain.fields().iter().map(|field| field.name().as_str())) {
            return Err(Error::corrupt(object, "the columns are not those of the meta"));
        }
        let coded = Arc::new(coded_schema(&plain, columns));
        Ok(Self { metadata: Arc::clone(loaded.metadata()), plain, coded })
    }

    /// Rows of each row group.
    pub(crate) fn group_rows(&self) -> impl ExactSizeIterator<Item = usize> + '_ {
        self.metadata.row_groups().iter().map(|group| usize::try_from(group.num_rows()).unwrap_or(usize::MAX))
    }

    /// What a column holds in a row group.
    pub(crate) fn summary(&self, group: usize, column: usize) -> ColumnSummary {
        let group = self.metadata.row_group(group);
        ColumnSummary::of_chunk(group.column(column), group.num_rows())
    }

    /// A rough count of the memory held.
    pub(crate) fn memory_bytes(&self) -> usize {
        /// A field in both schemas.
        const COLUMN_BYTES: usize = 320;
        self.metadata.memory_size() + self.plain.fields().len() * COLUMN_BYTES
    }
}

impl Deref for Opened {
    type Target = Outline;

    fn deref(&self) -> &Outline {
        &self.outline
    }
}

impl Opened {
    /// Reads the footer, unless that was done before: the flag says that it was not.
    pub(crate) fn of(outline: &Arc<Outline>) -> Result<(Self, bool), Error> {
        let (footer, is_new) = outline.footer()?;
        Ok((Self { outline: Arc::clone(outline), footer }, is_new))
    }

    fn chunk(&self, group: usize, column: usize) -> &ColumnChunkMetaData {
        self.footer.metadata.row_group(group).column(column)
    }

    /// Whether a column has no value at all in a row group, by the footer.
    pub(crate) fn is_all_null(&self, group: usize, column: usize) -> bool {
        self.footer.summary(group, column) == ColumnSummary::Empty
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
        let schema = self.footer.metadata.file_metadata().schema_descr();
        let mask = ProjectionMask::roots(schema, columns.iter().copied());
        let levels = parquet_to_arrow_field_levels(schema, mask, Some(hint.fields())).map_err(corrupt)?;
        let chunks = GroupChunks::load(&self.file, &self.footer.metadata, group, columns, selection.as_ref())?;
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
        let hint = if is_whole && self.is_all_coded(group, column) { &self.footer.coded } else { &self.footer.plain };
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
        let data_type = self.footer.plain.field(column).data_type();
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
        let chunks = GroupChunks::load(&self.file, &self.footer.metadata, group, &[column], None)?;
        chunks.pages(column).map_err(|err| Error::corrupt(&self.object, err.to_string()))
    }

    /// Batches of one column of one row group, in row order.
    pub(crate) fn scan_column(&self, group: usize, column: usize) -> Result<ParquetRecordBatchReader, Error> {
        self.reader(group, &[column], &self.footer.coded, None, 32_768)
    }

    /// Batches of all columns that have a value, for a range of rows within one row group.
    pub(crate) fn read_rows(&self, rows: Range<usize>) -> Result<ParquetRecordBatchReader, Error> {
        let group = self.group_of_row(rows.start);
        let columns: Vec<usize> = (0..self.columns.len()).filter(|column| !self.is_all_null(group, *column)).collect();
        self.select(group, rows, &columns)
    }

    /// What all columns of a row group take when they are decompressed, in bytes.
    pub(crate) fn unpacked_bytes(&self, group: usize) -> u64 {
        self.footer.metadata.row_group(group).total_byte_size().max(0) as u64
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
            true => self.footer.coded.field(column).clone(),
            false => self.footer.plain.field(column).clone(),
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
        self.reader(group, columns, &self.footer.plain, Some(selection), rows.len().min(8192))
    }
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
