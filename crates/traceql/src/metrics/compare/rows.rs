//! The rows of a batch that `compare()` counts, and what its attributes share of counting them.
//!
//! ```text
//!   rows   3 4 7 9       cell of a row: its side and interval, 120 of a query with 60 intervals
//!   places 0 0 1 0       traces of a batch start at about the same time: of the cells few occur, here [17, 77]
//! ```
//!
//! Attributes that are kept as one shape per span share their codes. So rows are counted by code and place once for
//! all of them, in a small table, and each attribute then adds up the counts of the codes that mean the same to it.

use arrow_array::{Array, Int32Array};
use spoor_model::bits::Bits;

/// Stands for a cell without a place yet.
const NONE: u32 = u32::MAX;
/// Below this many counters of codes and places there is a table of them, however few the rows.
const TABLE_MIN: usize = 1 << 16;

/// The rows to be counted, and in which cell of a value's cells.
pub(super) struct Rows<'a> {
    /// Ascending.
    pub(super) rows: &'a [u32],
    listed: Bits,
    /// By row, of those that are listed: an index of `cells`.
    places: Vec<u32>,
    /// Those that occur, each once.
    pub(super) cells: Vec<u32>,
    /// How many cells a value has.
    pub(super) width: usize,
    /// By row, of those that are listed: how often it counts, where that is not once.
    weights: Option<Vec<u64>>,
}

impl<'a> Rows<'a> {
    /// Rows with their cells, all below `width`.
    pub(super) fn new(rows: &'a [u32], cell_of: impl Iterator<Item = u32>, width: usize) -> Self {
        let (mut cells, mut place_of) = (Vec::new(), vec![NONE; width]);
        let row_count = rows.last().map_or(0, |row| *row as usize + 1);
        let (mut listed, mut places) = (Bits::none(row_count), vec![0; row_count]);
        for (row, cell) in rows.iter().zip(cell_of) {
            if place_of[cell as usize] == NONE {
                place_of[cell as usize] = cells.len() as u32;
                cells.push(cell);
            }
            places[*row as usize] = place_of[cell as usize];
            listed.insert(*row as usize);
        }
        Self { rows, listed, places, cells, width, weights: None }
    }

    /// The same, of which each counts as often as the weight at its place in the list says.
    pub(super) fn weighted(mut self, weights: Option<Vec<u64>>) -> Self {
        self.weights = weights.map(|weights| {
            let mut by_row = vec![0; self.places.len()];
            self.rows.iter().zip(weights).for_each(|(row, weight)| by_row[*row as usize] = weight);
            by_row
        });
        self
    }

    /// How often a row counts.
    #[inline]
    pub(super) fn weight(&self, row: u32) -> u64 {
        self.weights.as_ref().map_or(1, |weights| weights[row as usize])
    }

    /// Rows with their cells.
    #[inline]
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, u32)> {
        self.rows.iter().map(|row| (*row, self.cells[self.places[*row as usize] as usize]))
    }

    /// Visits the rows that have a value, with their places. Most attributes are those of few spans, and passing
    /// over the others takes a 64th of looking at each.
    #[inline]
    fn for_each_valid(&self, column: &impl Array, mut visit: impl FnMut(u32, u32)) {
        let Some(nulls) = column.nulls().filter(|nulls| nulls.null_count() > 0) else {
            return self.rows.iter().for_each(|row| visit(*row, self.places[*row as usize]));
        };
        let valid = nulls.inner().bit_chunks().iter_padded();
        for (word, (valid, listed)) in valid.zip(self.listed.words()).enumerate() {
            let mut left = valid & listed;
            while left != 0 {
                let row = word * 64 + left.trailing_zeros() as usize;
                visit(row as u32, self.places[row]);
                left &= left - 1;
            }
        }
    }

    /// The rows that have a value, with their cells.
    pub(super) fn valid(&self, column: &impl Array) -> Vec<(u32, u32)> {
        let mut valid = Vec::new();
        self.for_each_valid(column, |row, place| valid.push((row, self.cells[place as usize])));
        valid
    }

    pub(super) fn as_bits(&self, len: usize) -> Bits {
        let mut bits = Bits::none(len);
        self.rows.iter().for_each(|row| bits.insert(*row as usize));
        bits
    }

    /// The cell of a row, if it is to be counted.
    pub(super) fn find(&self, row: u32) -> Option<u32> {
        let is_listed = (row as usize) < self.listed.len() && self.listed.contains(row as usize);
        is_listed.then(|| self.cells[self.places[row as usize] as usize])
    }
}

/// Rows counted by code and place.
pub(super) struct ByCode<'a> {
    codes: &'a Int32Array,
    code_count: usize,
    /// The codes that occur, ascending, and their counts by place.
    pub(super) counts: Vec<(u32, Vec<u32>)>,
}

/// What was counted so far of one batch.
#[derive(Default)]
pub(super) struct Shared<'a>(Vec<ByCode<'a>>);

impl<'a> Shared<'a> {
    /// Counts rows by code, unless that was done before; `None` when the table would be too large, or rows count
    /// differently.
    pub(super) fn by_code(&mut self, codes: &'a Int32Array, code_count: usize, rows: &Rows<'_>) -> Option<&ByCode<'a>> {
        if rows.weights.is_some() || code_count.saturating_mul(rows.cells.len()) > TABLE_MIN.max(rows.rows.len()) {
            return None;
        }
        let is_same = |known: &ByCode<'_>| {
            known.code_count == code_count
                && std::ptr::eq(known.codes.values().as_ptr(), codes.values().as_ptr())
                && known.codes.nulls() == codes.nulls()
        };
        let place = self.0.iter().position(is_same).unwrap_or_else(|| {
            self.0.push(ByCode::new(codes, code_count, rows));
            self.0.len() - 1
        });
        Some(&self.0[place])
    }
}

impl<'a> ByCode<'a> {
    fn new(codes: &'a Int32Array, code_count: usize, rows: &Rows<'_>) -> Self {
        let place_count = rows.cells.len();
        let mut table = vec![0u32; code_count * place_count];
        let values = codes.values();
        rows.for_each_valid(codes, |row, place| {
            table[values[row as usize] as usize * place_count + place as usize] += 1;
        });
        let occurring = (0..).zip(table.chunks(place_count.max(1)));
        let counts = occurring.filter(|(_, counts)| counts.iter().any(|count| *count > 0));
        Self { codes, code_count, counts: counts.map(|(code, counts)| (code, counts.to_vec())).collect() }
    }
}

/// The rows for which a part had a value, where there are several parts: the first that has one counts.
pub(super) struct Taken(Option<Bits>);

impl Taken {
    /// Nothing yet, of parts whose rows are below `row_count`.
    pub(super) fn new(part_count: usize, row_count: usize) -> Self {
        Self((part_count > 1).then(|| Bits::none(row_count)))
    }

    /// Whether no part had a value before.
    #[inline]
    pub(super) fn take(&mut self, row: u32) -> bool {
        match &mut self.0 {
            None => true,
            Some(taken) => {
                let is_free = !taken.contains(row as usize);
                taken.insert(row as usize);
                is_free
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn rows_are_counted_by_code_and_cell(
            all in prop::collection::vec((prop::option::of(0..5i32), any::<bool>(), 0..40u32), 0..200),
        ) {
            let listed: Vec<u32> = (0..all.len() as u32).filter(|row| all[*row as usize].1).collect();
            let cell_of = |row: &u32| all[*row as usize].2;
            let rows = Rows::new(&listed, listed.iter().map(cell_of), 40);
            prop_assert!(rows.iter().eq(listed.iter().map(|row| (*row, cell_of(row)))));
            prop_assert!((0..all.len() as u32).all(|row| rows.find(row) == Some(row).filter(|row| all[*row as usize].1).map(|row| cell_of(&row))));
            let codes: Int32Array = all.iter().map(|(code, ..)| *code).collect();
            let is_valid = |(row, _): &(u32, u32)| codes.is_valid(*row as usize);
            prop_assert!(rows.valid(&codes).into_iter().eq(rows.iter().filter(is_valid)));
            let mut shared = Shared::default();
            let counted = shared.by_code(&codes, 5, &rows).expect("a small table");
            let mut counts = [[0; 40]; 5];
            for (code, by_place) in &counted.counts {
                by_place.iter().zip(&rows.cells).for_each(|(count, cell)| counts[*code as usize][*cell as usize] += count);
            }
            let mut expect = [[0; 40]; 5];
            for row in &listed {
                if let Some(code) = all[*row as usize].0 {
                    expect[code as usize][cell_of(row) as usize] += 1;
                }
            }
            prop_assert_eq!(counts, expect);
        }
    }
}
