//! `compare()`: how often each value of each attribute occurs, among the selected spans and among the others.

use std::cmp::Reverse;
use std::sync::Arc;

use arrow_array::{Array, Int32Array};
use hashbrown::HashMap;
use spoor_model::Value;
use spoor_model::bits::Bits;
use spoor_model::columns::{ColumnPart, FieldColumn};
use spoor_model::scan::{AttrScope, KeySet};

use super::series::{Label, Series, label_value, text_of};
use crate::PlanError;
use crate::ast::{Attribute, Expr, Intrinsic, Pipeline, SpansetExpr, SpansetKind, Stage, StageKind, Static};
use crate::engine::{Coded, Frame, Layout, Meaning, Operand, SpansetPlan};

/// How many values of each attribute and side are told when the query does not say.
const TOP_DEFAULT: usize = 10;
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
const SIDES: [&str; 2] = ["baseline", "selection"];

/// The intrinsics that are counted; of those marked, values that are not empty.
const INTRINSICS: [(Intrinsic, bool); 9] = [
    (Intrinsic::Name, false),
    (Intrinsic::Kind, false),
    (Intrinsic::Status, false),
    (Intrinsic::StatusMessage, true),
    (Intrinsic::RootName, false),
    (Intrinsic::RootServiceName, false),
    (Intrinsic::EventName, false),
    (Intrinsic::InstrumentationName, true),
    (Intrinsic::InstrumentationVersion, true),
];

/// A planned `compare()`.
#[derive(Debug, Clone)]
pub(super) struct Comparison {
    selection: SpansetPlan,
    /// `(from, to]`, when only spans that start then can be selected.
    between: Option<(u64, u64)>,
    top: usize,
    counted: Vec<Counted>,
}

/// An attribute whose values are counted.
#[derive(Debug, Clone)]
struct Counted {
    label: Arc<str>,
    operand: Operand,
    skips_empty: bool,
}

/// Counters of every attribute, in the order of the plan.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    attributes: Vec<AttributeTally>,
    /// Intervals of both sides.
    width: usize,
}

/// Counters of the values of one attribute.
#[derive(Debug, Clone, Default)]
struct AttributeTally {
    values: Vec<Static>,
    known: HashMap<Static, u32>,
    /// By value, side and interval.
    cells: Vec<u64>,
    /// By side and interval, once there are more values than may be told apart.
    untold: Option<Vec<u64>>,
    text_bytes: usize,
}

impl Comparison {
    /// Plans the function and notes in `layout` what it needs.
    pub(super) fn new(selection: &Expr, numbers: &[i64], layout: &mut Layout) -> Result<Self, PlanError> {
        let pos = selection.pos;
        let kind = StageKind::Spanset(SpansetExpr { pos, kind: SpansetKind::Filter(selection.clone()) });
        let pipeline = Pipeline { stages: vec![Stage { pos, kind }] };
        let selection = SpansetPlan::new(&pipeline, layout)?;
        let counted = INTRINSICS.map(|(intrinsic, skips_empty)| Counted {
            label: intrinsic.text().into(),
            operand: Operand::of(&Attribute::Intrinsic(intrinsic), layout),
            skips_empty,
        });
        let top = numbers.first().and_then(|top| usize::try_from(*top).ok()).unwrap_or(TOP_DEFAULT);
        let between = match numbers {
            [_, from, to] => Some((*from as u64, *to as u64)),
            _ => None,
        };
        Ok(Self { selection, between, top, counted: counted.into() })
    }

    /// Counts these attributes, too.
    pub(super) fn count_attributes(&mut self, keys: &KeySet, layout: &mut Layout) {
        for (scope, names) in keys.iter().filter(|(scope, _)| **scope != AttrScope::Any) {
            for name in names {
                let attribute = Attribute::Named(*scope, name.as_str().into());
                let operand = Operand::of(&attribute, layout);
                self.counted.push(Counted { label: attribute.to_string().into(), operand, skips_empty: false });
            }
        }
    }

    /// How many attributes are counted.
    pub(super) fn attribute_count(&self) -> usize {
        self.counted.len()
    }

    /// Empty counters.
    pub(super) fn start(&self, interval_count: usize) -> Tally {
        let attributes = vec![AttributeTally::default(); self.counted.len()];
        Tally { attributes, width: SIDES.len() * interval_count }
    }

    /// Counts the values of rows, each in its interval; `starts` by row of the batch.
    pub(super) fn add(&self, tally: &mut Tally, frame: &Frame<'_>, rows: &[u32], intervals: &[u32], starts: &[i64]) {
        let selected = self.selection.selected(frame);
        let interval_count = (tally.width / SIDES.len()) as u32;
        let is_in_time =
            |row: u32| self.between.is_none_or(|(from, to)| (from + 1..=to).contains(&(starts[row as usize] as u64)));
        let side = |row: u32| u32::from(selected.contains(row as usize) && is_in_time(row));
        let places: Vec<u32> =
            rows.iter().zip(intervals).map(|(row, interval)| side(*row) * interval_count + interval).collect();
        let rows = Rows { rows, places: &places, width: tally.width };
        let (mut among, mut shared) = (None, Shared::default());
        for (counted, attribute) in self.counted.iter().zip(&mut tally.attributes) {
            match &counted.operand {
                Operand::Field { column, meaning } => {
                    let kind = Kind { meaning: *meaning, skips_empty: counted.skips_empty };
                    attribute.add_column(&frame.batch.columns[*column], kind, &rows, &mut shared);
                }
                operand => {
                    let among: &Bits = among.get_or_insert_with(|| rows.as_bits(frame.batch.row_count()));
                    attribute.add_coded(&operand.coded(frame, among), &rows);
                }
            }
        }
    }

    /// The totals, and per side and attribute the values that occur most often; ties by the value's text.
    pub(super) fn series(&self, tally: &Tally) -> Vec<Series> {
        let mut all = Vec::new();
        for (counted, attribute) in self.counted.iter().zip(&tally.attributes) {
            for (side, name) in SIDES.iter().enumerate() {
                attribute.add_series(&mut all, (side, name), &counted.label, self.top, tally.width);
            }
        }
        all
    }
}

/// The rows to be counted, and in which cell of a value's cells.
struct Rows<'a> {
    rows: &'a [u32],
    places: &'a [u32],
    width: usize,
}

impl Rows<'_> {
    fn iter(&self) -> impl Iterator<Item = (u32, u32)> {
        self.rows.iter().copied().zip(self.places.iter().copied())
    }

    fn as_bits(&self, len: usize) -> Bits {
        let mut bits = Bits::none(len);
        self.rows.iter().for_each(|row| bits.insert(*row as usize));
        bits
    }

    /// The place of a row in the lists, if it is to be counted.
    fn find(&self, row: u32) -> Option<u32> {
        self.rows.binary_search(&row).ok().map(|at| self.places[at])
    }
}

/// How values of a column are read.
#[derive(Debug, Clone, Copy)]
struct Kind {
    meaning: Meaning,
    skips_empty: bool,
}

fn values_max(width: usize) -> usize {
    VALUES_MAX.min(CELLS_MAX / width.max(1)).max(1)
}

/// What was counted by codes that several attributes share, as those do that are kept as one shape per span: counted
/// once for all of them.
#[derive(Default)]
struct Shared<'a> {
    counted: Vec<(&'a Int32Array, Vec<u32>)>,
}

/// Below this many cells of codes and places there is a table of them, however few the rows.
const TABLE_MIN: usize = 1 << 14;

impl<'a> Shared<'a> {
    /// By code and place how many rows there are; `None` when the table would be too large.
    fn counted(&mut self, codes: &'a Int32Array, code_count: usize, rows: &Rows<'_>) -> Option<&[u32]> {
        let size = code_count.saturating_mul(rows.width);
        if size > TABLE_MIN.max(rows.rows.len()) {
            return None;
        }
        let is_same = |(known, counted): &(&Int32Array, Vec<u32>)| {
            counted.len() == size
                && std::ptr::eq(known.values().as_ptr(), codes.values().as_ptr())
                && known.nulls() == codes.nulls()
        };
        let place = self.counted.iter().position(is_same).unwrap_or_else(|| {
            let mut counted = vec![0; size];
            let nulls = codes.nulls().filter(|nulls| nulls.null_count() > 0);
            let values = codes.values();
            for (row, place) in rows.iter() {
                if nulls.is_none_or(|nulls| nulls.is_valid(row as usize)) {
                    counted[values[row as usize] as usize * rows.width + place as usize] += 1;
                }
            }
            self.counted.push((codes, counted));
            self.counted.len() - 1
        });
        Some(&self.counted[place].1)
    }
}

/// The rows for which a part had a value, where there are several parts: the first that has one counts.
struct Taken(Option<Bits>);

impl Taken {
    /// Whether no part had a value before.
    #[inline]
    fn take(&mut self, row: u32) -> bool {
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

impl Tally {
    pub(super) fn merge(&mut self, other: &Self) {
        for (ours, theirs) in self.attributes.iter_mut().zip(&other.attributes) {
            ours.merge(theirs, self.width);
        }
    }

    pub(super) fn held_bytes(&self) -> usize {
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

    /// Numbers given out before values were no longer told apart mean nothing then.
    #[inline]
    fn count(&mut self, number: u32, place: u32, width: usize) {
        match &mut self.untold {
            Some(totals) => totals[place as usize] += 1,
            None => self.cells[number as usize * width + place as usize] += 1,
        }
    }

    /// Counts by codes: the value of each code is looked up once.
    fn add_coded(&mut self, coded: &Coded, rows: &Rows<'_>) {
        let mut numbers = vec![NONE; coded.values.len()];
        for (row, place) in rows.iter() {
            let code = coded.codes[row as usize] as usize;
            if numbers[code] == NONE {
                numbers[code] = self.number(&coded.values[code], rows.width);
            }
            if numbers[code] != SKIPPED {
                self.count(numbers[code], place, rows.width);
            }
        }
    }

    fn add_column<'a>(&mut self, column: &'a FieldColumn, kind: Kind, rows: &Rows<'_>, shared: &mut Shared<'a>) {
        if let [ColumnPart::Coded { codes, values }] = &column.parts[..]
            && let Some(counted) = shared.counted(codes, values.len(), rows)
        {
            return self.add_counted(values, counted, kind, rows.width);
        }
        let row_count = rows.rows.last().map_or(0, |row| *row as usize + 1);
        let mut taken = Taken((column.parts.len() > 1).then(|| Bits::none(row_count)));
        for part in &column.parts {
            match part {
                ColumnPart::Coded { codes, values } => self.add_codes(codes, values, kind, &mut taken, rows),
                ColumnPart::Text(texts) => {
                    let mut numbers: HashMap<&str, u32> = HashMap::new();
                    for (row, place) in rows.iter().filter(|(row, _)| texts.is_valid(*row as usize)) {
                        let text = texts.value(row as usize);
                        if taken.take(row) && !(kind.skips_empty && text.is_empty()) {
                            let number = match self.untold {
                                Some(_) => UNTOLD,
                                None => *numbers
                                    .entry(text)
                                    .or_insert_with(|| self.number_of(&Value::Str(text.to_owned()), kind, rows.width)),
                            };
                            self.count(number, place, rows.width);
                        }
                    }
                }
                ColumnPart::Int(ints) => {
                    let mut numbers: HashMap<i64, u32> = HashMap::new();
                    for (row, place) in rows.iter().filter(|(row, _)| ints.is_valid(*row as usize)) {
                        if taken.take(row) {
                            let int = ints.value(row as usize);
                            let number = match self.untold {
                                Some(_) => UNTOLD,
                                None => *numbers
                                    .entry(int)
                                    .or_insert_with(|| self.number_of(&Value::Int(int), kind, rows.width)),
                            };
                            self.count(number, place, rows.width);
                        }
                    }
                }
                ColumnPart::Sparse { rows: listed, values } => {
                    for (row, value) in listed.iter().zip(values) {
                        if let Some(place) = rows.find(*row).filter(|_| taken.take(*row)) {
                            let number = self.number_of(value, kind, rows.width);
                            self.count_unless_skipped(number, place, rows.width);
                        }
                    }
                }
                ColumnPart::PerItem { rows: listed, values } => {
                    for (row, values) in listed.iter().zip(values) {
                        let place = rows.find(*row).filter(|_| taken.take(*row));
                        // What nothing can be asked of is as if it were not there.
                        let first = values.iter().flatten().find(|value| !Static::of(value).is_nil());
                        if let (Some(place), Some(value)) = (place, first) {
                            let number = self.number_of(value, kind, rows.width);
                            self.count_unless_skipped(number, place, rows.width);
                        }
                    }
                }
                numbers_or_flags => {
                    for (row, place) in rows.iter() {
                        if let Some(value) = numbers_or_flags.value(row as usize).filter(|_| taken.take(row)) {
                            let number = self.number_of(&value, kind, rows.width);
                            self.count_unless_skipped(number, place, rows.width);
                        }
                    }
                }
            }
        }
    }

    /// Adds what was counted by code and place.
    fn add_counted(&mut self, values: &[Option<Value>], counted: &[u32], kind: Kind, width: usize) {
        for (value, counts) in values.iter().zip(counted.chunks_exact(width)) {
            let Some(value) = value.as_ref().filter(|_| counts.iter().any(|count| *count > 0)) else { continue };
            let number = self.number_of(value, kind, width);
            if number != SKIPPED {
                let cells = match &mut self.untold {
                    Some(totals) => totals,
                    None => &mut self.cells[number as usize * width..][..width],
                };
                cells.iter_mut().zip(counts).for_each(|(cell, count)| *cell += u64::from(*count));
            }
        }
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
        let nulls = codes.nulls().filter(|nulls| nulls.null_count() > 0);
        let codes = codes.values();
        for (row, place) in rows.iter() {
            if nulls.is_some_and(|nulls| nulls.is_null(row as usize)) {
                continue;
            }
            let code = codes[row as usize] as usize;
            let Some(value) = values[code].as_ref().filter(|_| taken.take(row)) else { continue };
            if numbers[code] == NONE {
                numbers[code] = self.number_of(value, kind, rows.width);
            }
            self.count_unless_skipped(numbers[code], place, rows.width);
        }
    }

    /// The number of a column's value.
    fn number_of(&mut self, value: &Value, kind: Kind, width: usize) -> u32 {
        match value {
            Value::Str(text) if kind.skips_empty && text.is_empty() => SKIPPED,
            value => self.number(&kind.meaning.value(Static::of(value)), width),
        }
    }

    fn count_unless_skipped(&mut self, number: u32, place: u32, width: usize) {
        if number != SKIPPED {
            self.count(number, place, width);
        }
    }

    fn merge(&mut self, other: &Self, width: usize) {
        for (theirs, value) in other.values.iter().enumerate() {
            let number = self.number(value, width) as usize;
            let ours = match &mut self.untold {
                Some(totals) => totals,
                None => &mut self.cells[number * width..][..width],
            };
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

    fn add_series(&self, all: &mut Vec<Series>, (side, name): (usize, &str), key: &Arc<str>, top: usize, width: usize) {
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
            + self.text_bytes
    }
}

fn counted(labels: Vec<Label>, counts: &[u64]) -> Series {
    Series::new(labels, counts.iter().map(|count| Some(*count as f64)).collect())
}
