//! One block that is merged: its traces, and its rows decoded chunk by chunk.
//!
//! Rows are asked for in the order of the new block, which is nearly the input's own: a reader goes through each row group
//! once. Fragments of traces that began in another input are asked for early; their chunks are decoded out of turn, and
//! kept for the rows that are due later, as far as there is room.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch};
use parquet::arrow::arrow_reader::ParquetRecordBatchReader;
use spoor_model::batch::SpanBatch;
use spoor_model::{SpanId, TraceId, UnixNano};

use super::chunk::{Chunk, Place, ShapeFields};
use crate::columns::ColumnName;
use crate::error::Error;
use crate::open::Opened;
use crate::shape::Dimension;
use crate::traces::TraceTable;

/// What a chunk takes at most, unless its rows are of very different sizes.
const CHUNK_BYTES: u64 = 4 << 20;
/// The reader goes on over this many chunks that are not asked for yet; one that lies farther is read alone.
const CHUNKS_PASSED_MAX: usize = 4;
const UNKNOWN: u32 = u32::MAX;

pub(super) struct Input {
    pub(super) opened: Opened,
    pub(super) traces: Arc<TraceTable>,
    /// By trace number.
    pub(super) ids: Vec<TraceId>,
    shapes: Vec<ShapeFields>,
    chunk_rows: usize,
    /// Per row group the number of its first chunk, and one past the last at the end.
    first_chunk: Vec<usize>,
    /// Rows of each chunk that are still to be taken.
    rows_left: Vec<u32>,
    /// Decoded ones with rows left.
    chunks: BTreeMap<usize, Chunk>,
    held_bytes: usize,
    /// Goes through one row group...
    reader: Option<ParquetRecordBatchReader>,
    /// ... and stands before this chunk.
    next_chunk: usize,
    batch_number: u64,
    /// The current batch's numbers of the origins.
    origins: Vec<u32>,
    span_ids: Vec<SpanId>,
}

impl Input {
    /// Reads the ids of the traces. Chunks have at most `chunk_rows` rows, fewer when rows are large.
    pub(super) fn new(opened: Opened, chunk_rows: usize) -> Result<Self, Error> {
        let row_bytes = |group: usize| opened.unpacked_bytes(group) / opened.groups[group].rows.len().max(1) as u64;
        let row_bytes = (0..opened.groups.len()).map(row_bytes).max().unwrap_or(0);
        let chunk_rows = (CHUNK_BYTES / row_bytes.max(1)).clamp(1, chunk_rows as u64) as usize;
        let (mut first_chunk, mut chunk_count) = (vec![0], 0);
        for group in &opened.groups {
            chunk_count += group.rows.len().div_ceil(chunk_rows);
            first_chunk.push(chunk_count);
        }
        let traces = opened.traces()?;
        let mut input = Self {
            ids: trace_ids(&opened, &traces)?,
            shapes: opened.shapes.iter().map(ShapeFields::new).collect(),
            chunk_rows,
            first_chunk,
            rows_left: vec![0; chunk_count],
            chunks: BTreeMap::new(),
            held_bytes: 0,
            reader: None,
            next_chunk: 0,
            batch_number: 0,
            origins: vec![UNKNOWN; opened.origins.len()],
            span_ids: Vec::new(),
            opened,
            traces,
        };
        input.rewind();
        Ok(input)
    }

    /// Begins anew: all rows are there to be taken.
    pub(super) fn rewind(&mut self) {
        for chunk in 0..self.rows_left.len() {
            self.rows_left[chunk] = self.rows_of_chunk(chunk).len() as u32;
        }
        self.chunks.clear();
        self.held_bytes = 0;
        (self.reader, self.next_chunk) = (None, 0);
        self.begin_batch();
    }

    /// What comes goes into another batch, with its own numbers and codes.
    pub(super) fn begin_batch(&mut self) {
        self.batch_number += 1;
        self.origins.fill(UNKNOWN);
        self.shapes.iter_mut().for_each(ShapeFields::begin_batch);
    }

    /// Rows of a chunk but the last of a row group.
    pub(super) fn chunk_rows(&self) -> usize {
        self.chunk_rows
    }

    /// Rows of each chunk.
    pub(super) fn chunk_sizes(&self) -> Vec<usize> {
        (0..self.rows_left.len()).map(|chunk| self.rows_of_chunk(chunk).len()).collect()
    }

    fn group_of_chunk(&self, chunk: usize) -> usize {
        self.first_chunk.partition_point(|first| *first <= chunk) - 1
    }

    fn rows_of_chunk(&self, chunk: usize) -> Range<usize> {
        let group = self.group_of_chunk(chunk);
        let of_group = &self.opened.groups[group].rows;
        let start = of_group.start + (chunk - self.first_chunk[group]) * self.chunk_rows;
        start..(start + self.chunk_rows).min(of_group.end)
    }

    fn chunk_of_row(&self, row: usize) -> usize {
        let group = self.opened.group_of_row(row);
        self.first_chunk[group] + (row - self.opened.groups[group].rows.start) / self.chunk_rows
    }

    /// The rows of a trace by chunk.
    fn pieces(&self, trace: usize) -> impl Iterator<Item = (usize, Range<usize>)> + use<> {
        let rows = self.traces.rows(trace);
        let (first, last) = (self.chunk_of_row(rows.start), self.chunk_of_row(rows.end - 1));
        let (first_row, chunk_rows) = (self.rows_of_chunk(first).start, self.chunk_rows);
        // A trace lies in one row group, so that all of its chunks but the last are full.
        (first..=last).enumerate().map(move |(place, chunk)| {
            let start = first_row + place * chunk_rows;
            (chunk, rows.start.max(start)..rows.end.min(start + chunk_rows))
        })
    }

    /// Appends the spans of a trace to a batch, in the order in which the input has them, and their shapes to `shapes`.
    pub(super) fn take(&mut self, trace: usize, batch: &mut SpanBatch, shapes: &mut Vec<u32>) -> Result<(), Error> {
        let trace_id = self.ids[trace];
        self.span_ids.clear();
        for (number, rows) in self.pieces(trace) {
            self.load(number)?;
            let first_row = self.rows_of_chunk(number).start;
            let chunk = self.chunks.get_mut(&number).expect("it was loaded");
            chunk.prepare(self.batch_number, batch);
            for row in rows.start - first_row..rows.end - first_row {
                let offset = chunk.parent_offset(row);
                let parent = match offset {
                    0 => chunk.explicit_parent(row).unwrap_or_default(),
                    offset => *self
                        .span_ids
                        .len()
                        .checked_sub(offset)
                        .and_then(|at| self.span_ids.get(at))
                        .ok_or_else(|| {
                            Error::corrupt(&self.opened.object, format!("a parent lies {offset} rows before its trace"))
                        })?,
                };
                self.span_ids.push(chunk.span_id(row));
                shapes.push(chunk.shape_id(row));
                let origin = &mut self.origins[chunk.origin_id(row)];
                if *origin == UNKNOWN {
                    *origin = batch.intern_known_origin(&self.opened.origins[chunk.origin_id(row)]);
                }
                let place = Place { trace_id, parent, origin: *origin };
                let pushed = chunk.push(row, &mut self.shapes, place, batch);
                pushed.map_err(|err| Error::corrupt(&self.opened.object, err.to_string()))?;
            }
            self.settle(number, rows.len());
        }
        Ok(())
    }

    /// Whether all of the values that fold are in the shapes here, for every row.
    pub(super) fn has_in_shapes(&self, folded: &[Dimension], known: &[ColumnName]) -> bool {
        let is_in_shapes = |dimension: &Dimension| match dimension {
            Dimension::Name => self.opened.column("name").is_none(),
            Dimension::Kind => self.opened.column("kind").is_none(),
            Dimension::StatusCode => self.opened.column("status_code").is_none(),
            Dimension::Flags => self.opened.column("flags").is_none(),
            Dimension::Attribute(index) => {
                let key = &*known[*index].0;
                let is_residual = self.opened.catalogue.residual_keys.contains(key);
                !is_residual && self.opened.attribute_columns(key).next().is_none()
            }
        };
        folded.iter().all(is_in_shapes)
    }

    /// Passes a trace over.
    pub(super) fn leave_out(&mut self, trace: usize) {
        for (number, rows) in self.pieces(trace) {
            self.settle(number, rows.len());
        }
    }

    fn settle(&mut self, number: usize, row_count: usize) {
        let left = &mut self.rows_left[number];
        *left = left.checked_sub(row_count as u32).expect("each row is taken once");
        if *left == 0 {
            self.forget(number);
        }
    }

    fn keep(&mut self, number: usize, chunk: Chunk) {
        self.held_bytes += chunk.memory_bytes;
        if let Some(before) = self.chunks.insert(number, chunk) {
            self.held_bytes -= before.memory_bytes;
        }
    }

    fn forget(&mut self, number: usize) {
        if let Some(chunk) = self.chunks.remove(&number) {
            self.held_bytes -= chunk.memory_bytes;
        }
    }

    /// Appends all rows of a chunk without their traces and parents: a sample.
    pub(super) fn sample(&mut self, number: usize, batch: &mut SpanBatch) -> Result<(), Error> {
        let mut chunk = self.read_alone(number)?;
        chunk.prepare(self.batch_number, batch);
        for row in 0..self.rows_of_chunk(number).len() {
            let trace = self.traces.trace_of_row(self.rows_of_chunk(number).start + row);
            let origin = batch.intern_known_origin(&self.opened.origins[chunk.origin_id(row)]);
            let place = Place { trace_id: self.ids[trace], parent: SpanId::default(), origin };
            let pushed = chunk.push(row, &mut self.shapes, place, batch);
            pushed.map_err(|err| Error::corrupt(&self.opened.object, err.to_string()))?;
        }
        Ok(())
    }

    /// Decodes a chunk with rows left, unless it is held.
    fn load(&mut self, number: usize) -> Result<(), Error> {
        if self.chunks.contains_key(&number) {
            return Ok(());
        }
        let group = self.group_of_chunk(number);
        let is_due = |chunk: &usize| self.rows_left[*chunk] > 0;
        let passed = (self.next_chunk..number).filter(is_due).take(CHUNKS_PASSED_MAX + 1).count();
        if number < self.next_chunk || passed > CHUNKS_PASSED_MAX {
            let chunk = self.read_alone(number)?;
            self.keep(number, chunk);
            return Ok(());
        }
        let of_group = self.first_chunk[group];
        let first_due = (self.next_chunk.max(of_group)..number).find(is_due).unwrap_or(number);
        let goes_on = self.next_chunk > of_group && first_due - self.next_chunk <= CHUNKS_PASSED_MAX;
        if !goes_on || self.reader.is_none() {
            let rows = self.opened.groups[group].rows.clone();
            let from = self.rows_of_chunk(first_due).start - rows.start;
            let selected = (from > 0).then_some(from..rows.len());
            let columns = self.columns(group);
            self.reader = Some(self.opened.batches_of_group(group, &columns, selected, self.chunk_rows)?);
            self.next_chunk = first_due;
        }
        let mut reader = self.reader.take().expect("it was there or was just made");
        while self.next_chunk <= number {
            let chunk = self.decode(&mut reader, self.next_chunk)?;
            if self.rows_left[self.next_chunk] > 0 {
                self.keep(self.next_chunk, chunk);
            }
            self.next_chunk += 1;
        }
        // At the end of a row group it would hold decoded pages for nobody.
        let is_over = self.next_chunk == self.first_chunk[group + 1];
        self.reader = (!is_over).then_some(reader);
        Ok(())
    }

    fn read_alone(&self, number: usize) -> Result<Chunk, Error> {
        let group = self.group_of_chunk(number);
        let (rows, of_group) = (self.rows_of_chunk(number), self.opened.groups[group].rows.start);
        let rows = rows.start - of_group..rows.end - of_group;
        let mut reader = self.opened.batches_of_group(group, &self.columns(group), Some(rows), self.chunk_rows)?;
        self.decode(&mut reader, number)
    }

    fn decode(&self, reader: &mut ParquetRecordBatchReader, number: usize) -> Result<Chunk, Error> {
        let corrupt = |reason: String| Error::corrupt(&self.opened.object, reason);
        let want = self.rows_of_chunk(number).len();
        let batch: Option<RecordBatch> = reader.next().transpose().map_err(|err| corrupt(err.to_string()))?;
        match batch {
            Some(batch) if batch.num_rows() == want => Chunk::new(&batch, &self.opened),
            batch => {
                let got = batch.map_or(0, |batch| batch.num_rows());
                Err(corrupt(format!("chunk {number}: row count mismatch (want {want}, got {got})")))
            }
        }
    }

    /// The columns of a row group that spans are made of.
    fn columns(&self, group: usize) -> Vec<usize> {
        let is_made_anew = |name: &str| name == "trace_id" || name == "subtree_size";
        let names = self.opened.columns.iter().map(|column| &*column.name).enumerate();
        let wanted = names.filter(|(column, name)| !is_made_anew(name) && !self.opened.is_all_null(group, *column));
        wanted.map(|(column, _)| column).collect()
    }

    /// What the decoded chunks hold, in bytes.
    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// When the last of the decoded chunks is due; `None` when no more than one is held.
    pub(super) fn last_due(&self) -> Option<UnixNano> {
        let (number, _) = self.chunks.last_key_value().filter(|_| self.chunks.len() > 1)?;
        let traces = &self.traces;
        Some(traces.range(traces.trace_of_row(self.rows_of_chunk(*number).start)).start)
    }

    /// Forgets the last of the decoded chunks: it will be read again.
    pub(super) fn drop_last(&mut self) {
        if let Some((number, _)) = self.chunks.last_key_value() {
            self.forget(*number);
        }
    }
}

/// The ids of a block's traces, by number. Decodes one column.
fn trace_ids(opened: &Opened, traces: &TraceTable) -> Result<Vec<TraceId>, Error> {
    let corrupt = || Error::corrupt(&opened.object, "column trace_id is missing or has the wrong type");
    let column = opened.column("trace_id").ok_or_else(corrupt)?;
    let mut ids = Vec::with_capacity(traces.len());
    for (number, group) in opened.groups.iter().enumerate() {
        let array = opened.column_of_group(number, column, None)?;
        let rows = array.as_fixed_size_binary_opt().filter(|ids| ids.value_length() == 16 && ids.null_count() == 0);
        let rows = rows.ok_or_else(corrupt)?;
        for trace in group.traces.clone() {
            let first = traces.rows(trace).start - group.rows.start;
            ids.push(TraceId(rows.value(first).try_into().expect("16 bytes wide")));
        }
    }
    Ok(ids)
}
