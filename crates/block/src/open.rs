//! An opened block: footers, tables and the verified files, ready to read rows.

use std::path::Path;
use std::sync::Arc;

use arrow_array::Array;
use arrow_array::cast::AsArray;
use arrow_schema::{DataType, Field, Schema};
use bytes::Bytes;
use hashbrown::HashMap;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder, RowSelection,
    RowSelector,
};
use parquet::file::metadata::PageIndexPolicy;
use parquet::file::reader::{ChunkReader, Length};
use spoor_model::{Origin, TraceId, Value};

use crate::error::Error;
use crate::index::{self, Catalogue, TraceTable};
use crate::meta::{BlockMeta, ColumnMeta, ColumnType, FileMeta};
use crate::pieces::VerifiedFile;
use crate::tables::{self, Shape};

/// One `spans.parquet`, shared by readers.
#[derive(Clone)]
struct SpansFile(Arc<VerifiedFile>);

impl Length for SpansFile {
    fn len(&self) -> u64 {
        Length::len(&*self.0)
    }
}

impl ChunkReader for SpansFile {
    type T = <VerifiedFile as ChunkReader>::T;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        self.0.get_read(start)
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        self.0.get_bytes(start, length)
    }
}

/// Everything of a block but its span columns.
pub(crate) struct Opened {
    /// `block 01J... spans.parquet`, for errors.
    pub(crate) object: String,
    pub(crate) shapes: Vec<Shape>,
    pub(crate) origins: Vec<Arc<Origin>>,
    pub(crate) traces: TraceTable,
    pub(crate) catalogue: Catalogue,
    pub(crate) columns: Vec<ColumnMeta>,
    column_of_name: HashMap<String, usize>,
    file: SpansFile,
    /// Texts as texts: for reading few rows.
    plain: ArrowReaderMetadata,
    /// Texts of few values as dictionaries: for scans.
    coded: ArrowReaderMetadata,
    /// First row of each row group, and the row count at the end.
    group_rows: Vec<usize>,
}

pub(crate) fn file_meta<'a>(meta: &'a BlockMeta, name: &str) -> Result<&'a FileMeta, Error> {
    let found = meta.files.iter().find(|file| file.name == name);
    found.ok_or_else(|| Error::corrupt(meta.describe(), format!("its meta does not list {name}")))
}

impl Opened {
    pub(crate) fn open(block_dir: &Path, meta: &BlockMeta) -> Result<Self, Error> {
        let block = meta.describe();
        let object = |name: &str| format!("{block} {name}");
        let read = |name: &str| VerifiedFile::open(block_dir, file_meta(meta, name)?, &block)?.read_all();
        let (traces, catalogue) = index::read_tables(&read("index.bin")?, &object("index.bin"))?;
        let shapes = tables::read_shapes(read("shapes.parquet")?, &object("shapes.parquet"))?;
        let origins = tables::read_origins(read("origins.parquet")?, &object("origins.parquet"))?;

        let file = SpansFile(Arc::new(VerifiedFile::open(block_dir, file_meta(meta, "spans.parquet")?, &block)?));
        let object = object("spans.parquet");
        let corrupt = |err: parquet::errors::ParquetError| Error::corrupt(&object, err.to_string());
        let options = || {
            ArrowReaderOptions::new()
                .with_column_index_policy(PageIndexPolicy::Skip)
                .with_offset_index_policy(PageIndexPolicy::Required)
        };
        let plain = ArrowReaderMetadata::load(&file, options()).map_err(corrupt)?;
        let schema = Arc::new(coded_schema(plain.schema(), &meta.columns));
        let coded = ArrowReaderMetadata::try_new(Arc::clone(plain.metadata()), options().with_schema(schema))
            .map_err(corrupt)?;

        let mut group_rows = vec![0];
        for group in plain.metadata().row_groups() {
            group_rows.push(group_rows[group_rows.len() - 1] + group.num_rows().max(0) as usize);
        }
        let names = plain.schema().fields().iter().map(|field| field.name().clone());
        let column_of_name = names.enumerate().map(|(index, name)| (name, index)).collect();
        let opened = Self {
            shapes,
            origins,
            traces,
            catalogue,
            columns: meta.columns.clone(),
            column_of_name,
            file,
            plain,
            coded,
            group_rows,
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
        if !listed.eq(self.plain.schema().fields().iter().map(|field| field.name().as_str())) {
            return Err(Error::corrupt(&self.object, "the columns are not those of the meta"));
        }
        Ok(())
    }

    pub(crate) fn row_count(&self) -> usize {
        *self.group_rows.last().expect("begins with 0")
    }

    pub(crate) fn group_count(&self) -> usize {
        self.group_rows.len() - 1
    }

    /// The rows of a row group.
    pub(crate) fn rows_of_group(&self, group: usize) -> std::ops::Range<usize> {
        self.group_rows[group]..self.group_rows[group + 1]
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

    /// Whether a column has no value at all in a row group, by the footer.
    pub(crate) fn is_all_null(&self, group: usize, column: usize) -> bool {
        let group = self.plain.metadata().row_group(group);
        let nulls = group.column(column).statistics().and_then(|statistics| statistics.null_count_opt());
        nulls == Some(group.num_rows().max(0) as u64)
    }

    /// Compressed bytes of some columns of a row group.
    pub(crate) fn stored_bytes(&self, group: usize, columns: &[usize]) -> u64 {
        let group = self.plain.metadata().row_group(group);
        columns.iter().map(|column| group.column(*column).compressed_size().max(0) as u64).sum()
    }

    /// Batches of some columns of one row group, in row order.
    pub(crate) fn scan_group(&self, group: usize, columns: &[usize]) -> Result<ParquetRecordBatchReader, Error> {
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(self.file.clone(), self.coded.clone());
        let mask = ProjectionMask::roots(builder.parquet_schema(), columns.iter().copied());
        let builder = builder.with_row_groups(vec![group]).with_projection(mask).with_batch_size(32_768);
        builder.build().map_err(|err| Error::corrupt(&self.object, err.to_string()))
    }

    /// Batches of all columns that have a value, for a range of rows within one row group.
    pub(crate) fn read_rows(&self, rows: std::ops::Range<usize>) -> Result<ParquetRecordBatchReader, Error> {
        let group = self.group_of_row(rows.start);
        let columns = (0..self.columns.len()).filter(|column| !self.is_all_null(group, *column));
        self.select(group, rows, columns)
    }

    /// Whose a row is. One page of one column.
    pub(crate) fn trace_id_of_row(&self, row: usize) -> Result<TraceId, Error> {
        let malformed = || Error::corrupt(&self.object, format!("row {row} has no trace id"));
        let column = self.column("trace_id").ok_or_else(malformed)?;
        let mut batches = self.select(self.group_of_row(row), row..row + 1, [column])?;
        let batch =
            batches.next().ok_or_else(malformed)?.map_err(|err| Error::corrupt(&self.object, err.to_string()))?;
        let ids = batch.column(0).as_fixed_size_binary_opt().filter(|ids| ids.len() == 1).ok_or_else(malformed)?;
        ids.value(0).try_into().map(TraceId).map_err(|_| malformed())
    }

    /// The row group of a row.
    pub(crate) fn group_of_row(&self, row: usize) -> usize {
        self.group_rows.partition_point(|first| *first <= row) - 1
    }

    fn select(
        &self,
        group: usize,
        rows: std::ops::Range<usize>,
        columns: impl IntoIterator<Item = usize>,
    ) -> Result<ParquetRecordBatchReader, Error> {
        let of_group = self.rows_of_group(group);
        if rows.end > of_group.end {
            return Err(Error::corrupt(&self.object, format!("rows {rows:?} cross the end of a row group")));
        }
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(self.file.clone(), self.plain.clone());
        let mask = ProjectionMask::roots(builder.parquet_schema(), columns);
        let skip = RowSelector::skip(rows.start - of_group.start);
        let selection = RowSelection::from(vec![skip, RowSelector::select(rows.len())]);
        let builder = builder.with_row_groups(vec![group]).with_projection(mask).with_row_selection(selection);
        let reader = builder.with_batch_size(rows.len().min(8192)).build();
        reader.map_err(|err| Error::corrupt(&self.object, err.to_string()))
    }

    /// A rough count of the memory held.
    pub(crate) fn memory_bytes(&self) -> usize {
        let shape_bytes: usize =
            self.shapes.iter().map(|shape| 128 + shape.attributes.iter().map(attribute_bytes).sum::<usize>()).sum();
        let origin_bytes: usize = self.origins.iter().map(|origin| 512 + 3 * origin.resource_encoded.len()).sum();
        let operation_bytes = self.catalogue.operations.len() * 96;
        let keys = [&self.catalogue.residual_keys, &self.catalogue.event_keys, &self.catalogue.link_keys];
        let key_bytes: usize = keys.into_iter().flatten().map(|key| 32 + key.len()).sum();
        self.plain.metadata().memory_size()
            + shape_bytes
            + origin_bytes
            + operation_bytes
            + key_bytes
            + self.traces.memory_bytes()
    }
}

fn attribute_bytes(attribute: &spoor_model::KeyValue) -> usize {
    let value = match &attribute.value {
        Value::Str(text) => text.len(),
        _ => 16,
    };
    attribute.key.len() + value + size_of::<spoor_model::KeyValue>()
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
