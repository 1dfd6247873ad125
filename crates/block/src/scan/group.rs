//! One row group while it is read: each column is decoded when it is first needed, and only as far as
//! it is.

use std::cell::{Cell, OnceCell, RefCell};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int32Type;
use arrow_array::{Array, ArrayRef, Int32Array};
use hashbrown::HashMap;
use parquet::arrow::arrow_reader::{RowSelection, RowSelector};
use spoor_model::TraceId;
use spoor_model::bits::Bits;

use super::stored::{self, Stored};
use crate::error::Error;
use crate::open::{Opened, StoredLayout};
use crate::outline::Group;
use crate::traces::TraceTable;

/// Reading single pages pays while at most one row in this many is wanted.
const FEW_ROWS_SHARE: usize = 32;

/// Values of a column at some rows.
pub(super) struct Picked {
    /// One per row picked.
    pub(super) values: Stored,
    /// Ascending; `None`: all rows.
    pub(super) rows: Option<Vec<u32>>,
}

impl Picked {
    /// The row of a place in the values.
    #[inline]
    pub(super) fn row(&self, place: usize) -> usize {
        self.rows.as_ref().map_or(place, |rows| rows[place] as usize)
    }
}

/// A row group of an opened block.
pub(super) struct GroupReader<'a> {
    pub(super) opened: &'a Opened,
    pub(super) group: usize,
    pub(super) traces: Arc<TraceTable>,
    trace_ids: OnceCell<Arc<[TraceId]>>,
    whole: RefCell<HashMap<usize, Stored>>,
    numbers: RefCell<HashMap<&'static str, Int32Array>>,
    read_bytes: Cell<u64>,
}

impl<'a> GroupReader<'a> {
    pub(super) fn new(opened: &'a Opened, group: usize, traces: Arc<TraceTable>) -> Self {
        let (trace_ids, whole, numbers, read_bytes) = Default::default();
        Self { opened, group, traces, trace_ids, whole, numbers, read_bytes }
    }

    pub(super) fn group(&self) -> &'a Group {
        &self.opened.groups[self.group]
    }

    pub(super) fn row_count(&self) -> usize {
        self.group().rows.len()
    }

    /// Encoded bytes of the columns that were read.
    pub(super) fn read_bytes(&self) -> u64 {
        self.read_bytes.get()
    }

    fn count_bytes(&self, column: usize, row_count: usize) {
        let stored_bytes = self.opened.stored_bytes(self.group, column);
        let share_bytes = stored_bytes * row_count as u64 / self.row_count().max(1) as u64;
        self.read_bytes.set(self.read_bytes.get() + share_bytes);
    }

    pub(super) fn corrupt(&self, reason: impl Into<String>) -> Error {
        Error::corrupt(&self.opened.object, reason)
    }

    /// A column at least at these rows, by its place in the file. Kept when it is whole.
    fn stored(&self, column: usize, wanted: &Bits) -> Result<Stored, Error> {
        if let Some(known) = self.whole.borrow().get(&column) {
            return Ok(known.clone());
        }
        let corrupt = |err: parquet::errors::ParquetError| self.corrupt(err.to_string());
        let stored_as = self.opened.stored_as(self.group, column);
        let read = match stored_as {
            Some(stored_as) => {
                let mut pages = self.opened.pages_of_group(self.group, column)?;
                stored::read(&mut *pages, stored_as, wanted).map_err(corrupt)?
            }
            None => None,
        };
        // Only of plain texts are there fewer than all.
        let is_partial = read.is_some() && stored_as.is_some_and(|stored| stored.layout == StoredLayout::Plain);
        let values = match read {
            Some(values) => values,
            None => Stored::of(self.opened.column_of_group(self.group, column, None)?),
        };
        self.count_bytes(column, self.row_count());
        if !is_partial || wanted.count() == wanted.len() {
            self.whole.borrow_mut().insert(column, values.clone());
        }
        Ok(values)
    }

    /// A column that is no text, by its place in the file.
    fn column(&self, column: usize) -> Result<ArrayRef, Error> {
        match self.stored(column, &Bits::all(self.row_count()))? {
            Stored::Array(array) => Ok(array),
            Stored::Codes { .. } => {
                let name = &self.opened.columns[column].name;
                Err(self.corrupt(format!("column {name} has the wrong type")))
            }
        }
    }

    /// A column that every block has.
    pub(super) fn named(&self, name: &str) -> Result<ArrayRef, Error> {
        let column = self.opened.column(name).ok_or_else(|| self.corrupt(format!("column {name} is missing")))?;
        self.column(column)
    }

    /// Numbers of shapes or origins, all below `count`.
    pub(super) fn numbers(&self, name: &'static str, count: usize) -> Result<Int32Array, Error> {
        if let Some(known) = self.numbers.borrow().get(name) {
            return Ok(known.clone());
        }
        let array = self.named(name)?;
        let numbers = array.as_primitive_opt::<Int32Type>().filter(|numbers| numbers.null_count() == 0);
        let numbers = numbers.ok_or_else(|| self.corrupt(format!("column {name} has the wrong type")))?;
        // As unsigned numbers, so that negative ones are too large.
        let greatest = numbers.values().iter().fold(0, |greatest, number| greatest.max(*number as u32));
        if greatest as usize >= count {
            return Err(self.corrupt(format!("column {name}: {greatest} does not exist")));
        }
        self.numbers.borrow_mut().insert(name, numbers.clone());
        Ok(numbers.clone())
    }

    /// A column at least at these rows: page by page when they are few.
    pub(super) fn picked(&self, column: usize, rows: &Bits) -> Result<Picked, Error> {
        let count = rows.count();
        if count * FEW_ROWS_SHARE > rows.len() || self.whole.borrow().contains_key(&column) {
            return Ok(Picked { values: self.stored(column, rows)?, rows: None });
        }
        let rows: Vec<u32> = rows.iter().map(|row| row as u32).collect();
        let values = Stored::of(self.opened.column_of_group(self.group, column, Some(selection(&rows)))?);
        self.count_bytes(column, count);
        Ok(Picked { values, rows: Some(rows) })
    }

    /// Ids of the traces: those of their first spans.
    pub(super) fn trace_ids(&self) -> Result<Arc<[TraceId]>, Error> {
        if let Some(known) = self.trace_ids.get() {
            return Ok(Arc::clone(known));
        }
        let column = self.opened.column("trace_id").ok_or_else(|| self.corrupt("column trace_id is missing"))?;
        let group = self.group();
        let first_rows = || group.traces.clone().map(|trace| self.traces.rows(trace).start - group.rows.start);
        let read = match self.opened.is_nullable(self.group, column) {
            true => None,
            false => {
                self.count_bytes(column, self.row_count());
                let mut pages = self.opened.pages_of_group(self.group, column)?;
                stored::fixed_at(&mut *pages, first_rows()).map_err(|err| self.corrupt(err.to_string()))?
            }
        };
        let ids = match read {
            Some(ids) => ids.into_iter().map(TraceId).collect(),
            None => self.ids_at(column, first_rows())?,
        };
        Ok(Arc::clone(self.trace_ids.get_or_init(|| ids)))
    }

    /// Ids as the Parquet crate reads them.
    fn ids_at(&self, column: usize, rows: impl Iterator<Item = usize>) -> Result<Arc<[TraceId]>, Error> {
        let array = self.column(column)?;
        let ids = array.as_fixed_size_binary_opt().filter(|ids| ids.value_length() == 16 && ids.null_count() == 0);
        let ids = ids.ok_or_else(|| self.corrupt("column trace_id has the wrong type"))?;
        Ok(rows.map(|row| TraceId(ids.value(row).try_into().expect("16 bytes wide"))).collect())
    }
}

/// Rows as Parquet wants them: runs to skip and runs to read.
fn selection(rows: &[u32]) -> RowSelection {
    let mut selectors: Vec<RowSelector> = Vec::new();
    let mut next = 0;
    for row in rows {
        match selectors.last_mut() {
            Some(last) if *row == next && !last.skip => last.row_count += 1,
            _ => {
                if *row > next {
                    selectors.push(RowSelector::skip((*row - next) as usize));
                }
                selectors.push(RowSelector::select(1));
            }
        }
        next = *row + 1;
    }
    selectors.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selection_reads_the_rows_and_skips_between() {
        let expect = vec![RowSelector::skip(1), RowSelector::select(2), RowSelector::skip(3), RowSelector::select(1)];
        assert_eq!(Vec::<RowSelector>::from(selection(&[1, 2, 6])), expect);
        assert_eq!(Vec::<RowSelector>::from(selection(&[0])), vec![RowSelector::select(1)]);
        assert!(Vec::<RowSelector>::from(selection(&[])).is_empty());
    }
}
