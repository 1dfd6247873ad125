//! The rows of a batch that count: when they start, and what is measured of them.
//!
//! Each step is a pass over slices: rows and intervals, then values or buckets, then groups, then cells.

use std::borrow::Cow;

use spoor_model::bits::Bits;
use spoor_model::columns::ColumnBatch;

use super::histogram::{NO_PLACE, Place, place_of_float, place_of_int, place_or_none};
use super::window::Clockwork;
use crate::ast::Static;
use crate::engine::{Frame, Numbers, Operand};

/// Rows, ascending, and the interval of each.
pub(super) struct Observed {
    pub(super) rows: Vec<u32>,
    pub(super) intervals: Vec<u32>,
}

/// The start of every selected row, by row.
pub(super) fn starts<'a>(start_time: &Operand, frame: &Frame<'a>, selected: &Bits) -> Cow<'a, [i64]> {
    match start_time.numbers(frame, selected) {
        Numbers::Ints { values, .. } => values,
        Numbers::Floats { values, .. } => values.iter().map(|value| *value as i64).collect(),
        Numbers::Mixed(values) => {
            let nanos = |value: &Static| if let Static::Int(nanos) = value { *nanos } else { 0 };
            values.iter().map(nanos).collect()
        }
    }
}

/// A number, of durations in seconds; `None` for what is none.
pub(super) fn in_seconds(value: &Static) -> Option<f64> {
    match value {
        Static::Int(int) => Some(*int as f64),
        Static::Duration(nanos) => Some(*nanos as f64 / 1e9),
        Static::Float(float) => Some(*float).filter(|value| !value.is_nan()),
        _ => None,
    }
}

fn place_of(value: &Static) -> Option<Place> {
    match value {
        Static::Int(int) | Static::Duration(int) => place_of_int(*int),
        Static::Float(float) => place_of_float(*float),
        _ => None,
    }
}

impl Observed {
    /// The selected rows that start within the window. Most traces lie within one interval, and then no start of
    /// theirs is looked at.
    pub(super) fn new(clockwork: &Clockwork, batch: &ColumnBatch, starts: &[i64], selected: &Bits) -> Self {
        let count = selected.count();
        let is_all = count == batch.row_count();
        let mut seen = Self { rows: Vec::with_capacity(count), intervals: Vec::with_capacity(count) };
        for (trace, range) in batch.trace_ranges.iter().enumerate() {
            let rows = batch.rows_of(trace);
            let first = clockwork.interval_of(range.start.0);
            match first.filter(|_| first == clockwork.interval_of(range.end.0)) {
                Some(interval) => {
                    match is_all {
                        true => seen.rows.extend(rows.start as u32..rows.end as u32),
                        false => selected.for_each_in(rows, |row| seen.rows.push(row as u32)),
                    }
                    seen.intervals.resize(seen.rows.len(), interval);
                }
                None => selected.for_each_in(rows, |row| {
                    if let Some(interval) = clockwork.interval_of(starts[row] as u64) {
                        seen.rows.push(row as u32);
                        seen.intervals.push(interval);
                    }
                }),
            }
        }
        seen
    }

    /// Keeps the rows of which there is something to take.
    fn keep<T>(&mut self, mut take: impl FnMut(usize) -> Option<T>) -> Vec<T> {
        let mut taken = Vec::with_capacity(self.rows.len());
        for at in 0..self.rows.len() {
            if let Some(one) = take(self.rows[at] as usize) {
                (self.rows[taken.len()], self.intervals[taken.len()]) = (self.rows[at], self.intervals[at]);
                taken.push(one);
            }
        }
        self.rows.truncate(taken.len());
        self.intervals.truncate(taken.len());
        taken
    }

    /// The numbers of rows; rows without one are dropped.
    pub(super) fn keep_values(&mut self, numbers: &Numbers<'_>) -> Vec<f64> {
        let is_there = |present: &Option<Bits>, row: usize| present.as_ref().is_none_or(|rows| rows.contains(row));
        match numbers {
            Numbers::Ints { values, present: None, is_duration } => {
                let unit = if *is_duration { 1e9 } else { 1.0 };
                self.rows.iter().map(|row| values[*row as usize] as f64 / unit).collect()
            }
            Numbers::Ints { values, present, is_duration } => {
                let unit = if *is_duration { 1e9 } else { 1.0 };
                self.keep(|row| is_there(present, row).then(|| values[row] as f64 / unit))
            }
            Numbers::Floats { values, present } => {
                self.keep(|row| Some(values[row]).filter(|value| !value.is_nan() && is_there(present, row)))
            }
            Numbers::Mixed(values) => self.keep(|row| in_seconds(&values[row])),
        }
    }

    /// The buckets of rows; rows that lie in none are dropped.
    pub(super) fn keep_places(&mut self, numbers: &Numbers<'_>) -> Vec<Place> {
        let is_there = |present: &Option<Bits>, row: usize| present.as_ref().is_none_or(|rows| rows.contains(row));
        match numbers {
            Numbers::Ints { values, present: None, .. } => {
                let places: Vec<Place> = self.rows.iter().map(|row| place_or_none(values[*row as usize])).collect();
                match places.contains(&NO_PLACE) {
                    true => self.keep(|row| place_of_int(values[row])),
                    false => places,
                }
            }
            Numbers::Ints { values, present, .. } => {
                self.keep(|row| place_of_int(values[row]).filter(|_| is_there(present, row)))
            }
            Numbers::Floats { values, present } => {
                self.keep(|row| place_of_float(values[row]).filter(|_| is_there(present, row)))
            }
            Numbers::Mixed(values) => self.keep(|row| place_of(&values[row])),
        }
    }
}
