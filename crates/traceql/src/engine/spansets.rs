//! Spansets under way: which rows are in, and which of them belong together.

use hashbrown::HashMap;
use spoor_model::bits::Bits;
use spoor_model::columns::ColumnBatch;

use super::values::Coded;
use crate::ast::Static;

/// A spanset's rows, and what is said of it.
pub(crate) type Described = (Vec<usize>, Vec<(String, Static)>);

/// The spansets of all traces of a batch at one point of a pipeline. No row is in two of them.
#[derive(Debug, Clone)]
pub(super) struct Spansets {
    /// The rows that are in one.
    pub(super) rows: Bits,
    /// `None`: the rows of a trace are one spanset, numbered like the trace.
    split: Option<Split>,
    /// When spansets are to be shown.
    description: Option<Description>,
}

/// Which rows belong together, after `by()`.
#[derive(Debug, Clone)]
struct Split {
    /// The spanset of each row that is in one.
    numbers: Vec<u32>,
    spanset_count: usize,
}

#[derive(Debug, Clone)]
struct Description {
    /// By row: its place in the order of spans.
    places: Vec<u32>,
    /// By spanset.
    attributes: Vec<Vec<(String, Static)>>,
}

impl Spansets {
    /// All rows, one spanset per trace. With places they are described.
    pub(super) fn all(batch: &ColumnBatch, places: Option<Vec<u32>>) -> Self {
        let attributes = vec![Vec::new(); batch.trace_count()];
        let description = places.map(|places| Description { places, attributes });
        Self { rows: Bits::all(batch.row_count()), split: None, description }
    }

    /// The same spansets, of which only the rows matter.
    pub(super) fn undescribed(&self) -> Self {
        Self { rows: self.rows.clone(), split: self.split.clone(), description: None }
    }

    pub(super) fn is_described(&self) -> bool {
        self.description.is_some()
    }

    /// Whether a trace may have several.
    pub(super) fn is_split(&self) -> bool {
        self.split.is_some()
    }

    /// How many there are at most: numbers are below this.
    pub(super) fn count(&self, batch: &ColumnBatch) -> usize {
        self.split.as_ref().map_or(batch.trace_count(), |split| split.spanset_count)
    }

    /// By spanset: how many of these rows, which are among the spansets' own, it has.
    pub(super) fn counts(&self, batch: &ColumnBatch, rows: &Bits) -> Vec<u32> {
        match &self.split {
            None => (0..batch.trace_count()).map(|trace| rows.count_in(batch.rows_of(trace)) as u32).collect(),
            Some(split) => {
                let mut counts = vec![0; split.spanset_count];
                rows.iter().for_each(|row| counts[split.numbers[row] as usize] += 1);
                counts
            }
        }
    }

    /// Calls `with` for each row that is in a spanset, with that spanset's number; trace by trace.
    pub(super) fn for_each(&self, batch: &ColumnBatch, mut with: impl FnMut(usize, usize)) {
        match &self.split {
            Some(split) => self.rows.iter().for_each(|row| with(split.numbers[row] as usize, row)),
            None => {
                for trace in 0..batch.trace_count() {
                    let rows = batch.rows_of(trace);
                    match self.rows.count_in(rows.clone()) {
                        0 => {}
                        all if all == rows.len() => rows.for_each(|row| with(trace, row)),
                        _ => rows.filter(|row| self.rows.contains(*row)).for_each(|row| with(trace, row)),
                    }
                }
            }
        }
    }

    /// Those of some rows whose spanset is kept.
    pub(super) fn kept(&self, batch: &ColumnBatch, rows: &Bits, is_kept: &[bool]) -> Bits {
        let mut kept = Bits::none(rows.len());
        match &self.split {
            None => {
                let traces = (0..batch.trace_count()).filter(|trace| is_kept[*trace]);
                traces.for_each(|trace| kept.insert_range(batch.rows_of(trace)));
                kept.intersect(rows);
            }
            Some(split) => {
                let rows = rows.iter().filter(|row| is_kept[split.numbers[*row] as usize]);
                rows.for_each(|row| kept.insert(row));
            }
        }
        kept
    }

    /// Drops the spansets that are not kept.
    pub(super) fn keep(&mut self, batch: &ColumnBatch, is_kept: &[bool]) {
        self.rows = self.kept(batch, &self.rows, is_kept);
    }

    /// Adds an attribute to each spanset.
    pub(super) fn describe(&mut self, key: &str, values: &[Static]) {
        if let Some(description) = &mut self.description {
            let pairs = description.attributes.iter_mut().zip(values);
            pairs.for_each(|(attributes, value)| attributes.push((key.to_owned(), value.clone())));
        }
    }

    /// Splits each spanset by a value. Described ones come out in the order of their first spans, within
    /// the order of those that they come from.
    pub(super) fn split(&mut self, batch: &ColumnBatch, by: &Coded, key: &str) {
        let mut numbers = vec![0; self.rows.len()];
        // By new number: the old one, and the code.
        let mut pairs: Vec<(usize, u32)> = Vec::new();
        // By code: the spanset in which it was last met, and its number there. Most rows need no more, as
        // those of a spanset mostly come together.
        let mut last: Vec<(usize, u32)> = vec![(usize::MAX, 0); by.values.len()];
        let mut known: HashMap<(usize, u32), u32> = HashMap::new();
        let is_split = self.split.is_some();
        let mut place = |spanset: usize, row: usize| {
            let code = by.codes[row];
            let (last_spanset, last_number) = &mut last[code as usize];
            if *last_spanset != spanset {
                let mut number = || {
                    pairs.push((spanset, code));
                    pairs.len() as u32 - 1
                };
                *last_number = match is_split {
                    true => *known.entry((spanset, code)).or_insert_with(number),
                    // Traces come one after the other, and none comes back.
                    false => number(),
                };
                *last_spanset = spanset;
            }
            numbers[row] = *last_number;
        };
        match &self.description {
            None => self.for_each(batch, place),
            Some(description) => {
                let mut members = Vec::new();
                self.for_each(batch, |spanset, row| members.push((spanset, description.places[row], row)));
                members.sort_unstable();
                members.iter().for_each(|(spanset, _, row)| place(*spanset, *row));
            }
        }
        if let Some(description) = &mut self.description {
            let attributes = |(spanset, code): &(usize, u32)| {
                let mut attributes = description.attributes[*spanset].clone();
                attributes.push((key.to_owned(), by.values[*code as usize].clone()));
                attributes
            };
            description.attributes = pairs.iter().map(attributes).collect();
        }
        self.split = Some(Split { numbers, spanset_count: pairs.len() });
    }

    /// Joins what `by()` split.
    pub(super) fn coalesce(&mut self) {
        self.split = None;
        if let Some(description) = &mut self.description {
            // Whole traces are described one at a time.
            description.attributes = vec![Vec::new()];
        }
    }

    /// Each spanset's trace and rows, ascending.
    pub(super) fn members(&self, batch: &ColumnBatch) -> Vec<(usize, Vec<usize>)> {
        let mut members: Vec<(usize, Vec<usize>)> = vec![(0, Vec::new()); self.count(batch)];
        for trace in 0..batch.trace_count() {
            for row in batch.rows_of(trace).filter(|row| self.rows.contains(*row)) {
                let number = self.split.as_ref().map_or(trace, |split| split.numbers[row] as usize);
                members[number].0 = trace;
                members[number].1.push(row);
            }
        }
        members.retain(|(_, rows)| !rows.is_empty());
        members
    }

    /// Each spanset's rows, and its attributes when it is described; in order.
    pub(super) fn into_described(self, batch: &ColumnBatch) -> Vec<Described> {
        let mut found: Vec<Described> = vec![Default::default(); self.count(batch)];
        self.for_each(batch, |spanset, row| found[spanset].0.push(row));
        if let Some(description) = self.description {
            found.iter_mut().zip(description.attributes).for_each(|(found, attributes)| found.1 = attributes);
        }
        found.retain(|(rows, _)| !rows.is_empty());
        found
    }
}
