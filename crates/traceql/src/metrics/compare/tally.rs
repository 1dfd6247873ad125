//! Counters of values: how often each value of each attribute occurs, by side and interval.

use std::cmp::Reverse;
use std::sync::Arc;

use arrow_array::Int32Array;
use hashbrown::HashMap;
use spoor_model::Value;
use spoor_model::columns::{ColumnPart, FieldColumn};

use super::rows::{Rows, Shared, Taken};
use crate::ast::Static;
use crate::engine::{Coded, Meaning};
use crate::metrics::series::{Label, Series, label_value, text_of};

/// Values of one attribute that are told apart; beyond, only how many spans have the attribute is told.
const VALUES_MAX: usize = 1 << 16;
/// The same by counters, of which each value has one per side and interval: 2 MB for each attribute.
const CELLS_MAX: usize = 1 << 18;
/// Stands for a value that is not numbered yet.
const NONE: u32 = u32::MAX;
/// Stands for a value that is not counted.
const SKIPPED: u32 = u32::MAX - 1;
/// Stands for any value, once values are not told apart.
const UNTOLD: u32 = u32::MAX - 2;
/// Baseline and selection.
pub(super) const SIDES: [&str; 2] = ["baseline", "selection"];

/// Counters of every attribute, in the order of the plan.
#[derive(Debug, Clone, Default)]
pub(in crate::metrics) struct Tally {
    pub(super) attributes: Vec<AttributeTally>,
    /// Intervals of both sides: the cells of a value.
    pub(super) width: usize,
}

/// Counters of the values of one attribute.
#[derive(Debug, Clone, Default)]
pub(super) struct AttributeTally {
    values: Vec<Static>,
    known: HashMap<Static, u32>,
    /// By value, side and interval.
    cells: Vec<u64>,
    /// By side and interval, once there are more values than may be told apart.
    untold: Option<Vec<u64>>,
    text_bytes: usize,
    last: Option<Numbered>,
}

/// The values that codes stood for the last time, and the numbers of those that occurred: the batches of a block share
/// its values.
#[derive(Debug, Clone)]
struct Numbered {
    values: Arc<[Option<Value>]>,
    numbers: Vec<u32>,
}

/// How values of a column are read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kind {
    pub(super) meaning: Meaning,
    pub(super) skips_empty: bool,
}

fn values_max(width: usize) -> usize {
    VALUES_MAX.min(CELLS_MAX / width.max(1)).max(1)
}

impl Tally {
    pub(super) fn new(attribute_count: usize, interval_count: usize) -> Self {
        Self { attributes: vec![AttributeTally::default(); attribute_count], width: SIDES.len() * interval_count }
    }

    pub(in crate::metrics) fn merge(&mut self, other: &Self) {
        for (ours, theirs) in self.attributes.iter_mut().zip(&other.attributes) {
            ours.merge(theirs, self.width);
        }
    }

    pub(in crate::metrics) fn held_bytes(&self) -> usize {
        self.attributes.iter().map(AttributeTally::held_bytes).sum()
    }
}

impl AttributeTally {
    /// The number of a value, [`SKIPPED`] for what is not counted.
    fn number(&mut self, value: &Static, width: usize) -> u32 {
        let value = label_value(value);
        if value.is_nil() {
            return SKIPPED;
        }
        if self.untold.is_some() {
            return UNTOLD;
        }
        if let Some(number) = self.known.get(&value) {
            return *number;
        }
        if self.values.len() >= values_max(width) {
            self.stop_telling(width);
            return UNTOLD;
        }
        let number = self.values.len() as u32;
        self.text_bytes += if let Static::Str(text) = &value { text.len() + 16 } else { 0 };
        self.values.push(value.clone());
        self.known.insert(value, number);
        self.cells.resize(self.values.len() * width, 0);
        number
    }

    /// The number of a column's value.
    fn number_of(&mut self, value: &Value, kind: Kind, width: usize) -> u32 {
        match value {
            Value::Str(text) if kind.skips_empty && text.is_empty() => SKIPPED,
            Value::Str(_) | Value::Int(_) if self.untold.is_some() => UNTOLD,
            value => self.number(&kind.meaning.value(Static::of(value)), width),
        }
    }

    /// The cells of a number. Numbers given out before values were no longer told apart mean nothing then.
    #[inline]
    fn cells_of(&mut self, number: u32, width: usize) -> &mut [u64] {
        match &mut self.untold {
            Some(totals) => totals,
            None => &mut self.cells[number as usize * width..][..width],
        }
    }

    #[inline]
    fn count(&mut self, number: u32, (row, cell): (u32, u32), rows: &Rows<'_>) {
        if number != SKIPPED {
            let count = &mut self.cells_of(number, rows.width)[cell as usize];
            *count = count.saturating_add(rows.weight(row));
        }
    }

    /// Counts by codes: the value of each code is looked up once.
    pub(super) fn add_coded(&mut self, coded: &Coded, rows: &Rows<'_>) {
        let mut numbers = vec![NONE; coded.values.len()];
        for (row, cell) in rows.iter() {
            let code = coded.codes[row as usize] as usize;
            if numbers[code] == NONE {
                numbers[code] = self.number(&coded.values[code], rows.width);
            }
            self.count(numbers[code], (row, cell), rows);
        }
    }

    /// Counts the values of a column.
    pub(super) fn add_column<'a>(
        &mut self,
        column: &'a FieldColumn,
        kind: Kind,
        rows: &Rows<'_>,
        shared: &mut Shared<'a>,
    ) {
        if let [ColumnPart::Coded { codes, values }] = &column.parts[..]
            && let Some(counted) = shared.by_code(codes, values.len(), rows)
        {
            return self.add_counted(values, &counted.counts, kind, rows);
        }
        let row_count = rows.rows.last().map_or(0, |row| *row as usize + 1);
        let mut taken = Taken::new(column.parts.len(), row_count);
        for part in &column.parts {
            match part {
                ColumnPart::Coded { codes, values } => self.add_codes(codes, values, kind, &mut taken, rows),
                ColumnPart::Text(texts) => {
                    let mut numbers: HashMap<&str, u32> = HashMap::new();
                    for (row, cell) in rows.valid(texts) {
                        let text = texts.value(row as usize);
                        if taken.take(row) && !(kind.skips_empty && text.is_empty()) {
                            let number = match self.untold {
                                Some(_) => UNTOLD,
                                None => *numbers
                                    .entry(text)
                                    .or_insert_with(|| self.number_of(&Value::Str(text.to_owned()), kind, rows.width)),
                            };
                            self.count(number, (row, cell), rows);
                        }
                    }
                }
                ColumnPart::Int(ints) => {
                    let mut numbers: HashMap<i64, u32> = HashMap::new();
                    for (row, cell) in rows.valid(ints) {
                        if taken.take(row) {
                            let int = ints.value(row as usize);
                            let number = match self.untold {
                                Some(_) => UNTOLD,
                                None => *numbers
                                    .entry(int)
                                    .or_insert_with(|| self.number_of(&Value::Int(int), kind, rows.width)),
                            };
                            self.count(number, (row, cell), rows);
                        }
                    }
                }
                ColumnPart::Sparse { rows: listed, values } => {
                    for (row, value) in listed.iter().copied().zip(values) {
                        if let Some(cell) = rows.find(row).filter(|_| taken.take(row)) {
                            let number = self.number_of(value, kind, rows.width);
                            self.count(number, (row, cell), rows);
                        }
                    }
                }
                ColumnPart::PerItem { rows: listed, values } => {
                    for (row, values) in listed.iter().copied().zip(values) {
                        let cell = rows.find(row).filter(|_| taken.take(row));
                        // What nothing can be asked of is as if it were not there.
                        let first = values.iter().flatten().find(|value| !Static::of(value).is_nil());
                        if let (Some(cell), Some(value)) = (cell, first) {
                            let number = self.number_of(value, kind, rows.width);
                            self.count(number, (row, cell), rows);
                        }
                    }
                }
                numbers_or_flags => {
                    for (row, cell) in rows.iter() {
                        if let Some(value) = numbers_or_flags.value(row as usize).filter(|_| taken.take(row)) {
                            let number = self.number_of(&value, kind, rows.width);
                            self.count(number, (row, cell), rows);
                        }
                    }
                }
            }
        }
    }

    /// Adds what was counted by code and place.
    fn add_counted(&mut self, values: &Arc<[Option<Value>]>, counted: &[(u32, Vec<u32>)], kind: Kind, rows: &Rows<'_>) {
        let mut last = match self.last.take() {
            Some(last) if Arc::ptr_eq(&last.values, values) => last,
            _ => Numbered { values: Arc::clone(values), numbers: vec![NONE; values.len()] },
        };
        for (code, counts) in counted {
            let number = &mut last.numbers[*code as usize];
            if *number == NONE {
                let value = values[*code as usize].as_ref();
                *number = value.map_or(SKIPPED, |value| self.number_of(value, kind, rows.width));
            }
            if *number != SKIPPED {
                let cells = self.cells_of(*number, rows.width);
                let pairs = rows.cells.iter().zip(counts);
                pairs.for_each(|(cell, count)| cells[*cell as usize] += u64::from(*count));
            }
        }
        self.last = Some(last);
    }

    fn add_codes(
        &mut self,
        codes: &Int32Array,
        values: &[Option<Value>],
        kind: Kind,
        taken: &mut Taken,
        rows: &Rows<'_>,
    ) {
        let mut numbers = vec![NONE; values.len()];
        for (row, cell) in rows.valid(codes) {
            let code = codes.values()[row as usize] as usize;
            let Some(value) = values[code].as_ref().filter(|_| taken.take(row)) else { continue };
            if numbers[code] == NONE {
                numbers[code] = self.number_of(value, kind, rows.width);
            }
            self.count(numbers[code], (row, cell), rows);
        }
    }

    fn merge(&mut self, other: &Self, width: usize) {
        for (theirs, value) in other.values.iter().enumerate() {
            let number = self.number(value, width);
            let ours = self.cells_of(number, width);
            ours.iter_mut().zip(&other.cells[theirs * width..][..width]).for_each(|(a, b)| *a += b);
        }
        if let Some(theirs) = &other.untold {
            self.stop_telling(width);
            let ours = self.untold.get_or_insert_with(|| vec![0; width]);
            ours.iter_mut().zip(theirs).for_each(|(a, b)| *a += b);
        }
    }

    /// Gives up telling values apart, as there are too many. Whichever way batches are merged, an attribute ends
    /// so exactly when all of them together have too many.
    fn stop_telling(&mut self, width: usize) {
        let totals = self.totals(width);
        *self = Self { untold: Some(totals), ..Self::default() };
    }

    fn totals(&self, width: usize) -> Vec<u64> {
        let mut totals = self.untold.clone().unwrap_or_else(|| vec![0; width]);
        for cells in self.cells.chunks_exact(width) {
            totals.iter_mut().zip(cells).for_each(|(total, count)| *total += count);
        }
        totals
    }

    /// The total, and the values that occur most often; ties by the value's text.
    pub(super) fn add_series(
        &self,
        all: &mut Vec<Series>,
        (side, name): (usize, &str),
        key: &Arc<str>,
        top: usize,
        width: usize,
    ) {
        let len = width / SIDES.len();
        let of_side = |cells: &[u64]| -> Vec<u64> { cells[side * len..][..len].to_vec() };
        let total = of_side(&self.totals(width));
        if total.iter().all(|count| *count == 0) {
            return;
        }
        let meta = |text: &str| -> Label { ("__meta_type".into(), Static::Str(text.into())) };
        let nil = (Arc::clone(key), Static::Str("nil".into()));
        all.push(counted(vec![meta(&format!("{name}_total")), nil], &total));
        let counts = self.cells.chunks_exact(width).map(of_side).zip(&self.values);
        let mut ranked: Vec<_> = counts
            .map(|(counts, value)| (Reverse(counts.iter().sum::<u64>()), value, counts))
            .filter(|(Reverse(sum), ..)| *sum > 0)
            .collect();
        ranked.sort_by_cached_key(|(sum, value, _)| (*sum, text_of(value)));
        ranked.truncate(top);
        let labels = |value: &Static| vec![meta(name), (Arc::clone(key), value.clone())];
        all.extend(ranked.into_iter().map(|(_, value, counts)| counted(labels(value), &counts)));
    }

    fn held_bytes(&self) -> usize {
        self.values.capacity() * size_of::<Static>()
            + self.known.capacity() * (size_of::<(Static, u32)>() + 1)
            + self.cells.capacity() * size_of::<u64>()
            + self.last.as_ref().map_or(0, |last| last.numbers.len() * size_of::<u32>())
            + self.text_bytes
    }
}

fn counted(labels: Vec<Label>, counts: &[u64]) -> Series {
    Series::new(labels, counts.iter().map(|count| Some(*count as f64)).collect())
}
