//! What has been counted so far: dense counters, one per interval of each series.

use std::borrow::Cow;

use arrow_array::Array;
use hashbrown::HashMap;
use spoor_model::bits::Bits;
use spoor_model::columns::{ColumnBatch, ColumnPart, FieldColumn};

use super::bucket::Bucket;
use super::compare::Comparison;
use super::exemplars::{Candidate, Exemplars};
use super::groups::{Groups, RowGroups};
use super::{Measure, MetricsOperand, Window};
use crate::ast::Static;
use crate::engine::{Frame, Numbers};

/// The result of an operand over some batches. Results of different batches merge into the same, in
/// whatever order.
#[derive(Debug, Clone)]
pub struct Partial {
    pub(super) window: Window,
    pub(super) groups: Groups,
    pub(super) counters: Counters,
    pub(super) exemplars: Exemplars,
}

/// By group, or what else tells series apart, and interval.
#[derive(Debug, Clone)]
pub(super) enum Counters {
    Spans(Vec<Vec<u64>>),
    Totals(Vec<Vec<Total>>),
    Buckets(Buckets),
    Comparison(Comparison),
}

/// What is known of the numbers of an interval.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Total {
    pub(super) count: u64,
    sum: f64,
    /// What the sum has lost to rounding (Kahan, Neumaier).
    lost: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

/// Counts by group and bucket.
#[derive(Debug, Clone, Default)]
pub(super) struct Buckets {
    number_of: HashMap<(u32, Bucket), u32>,
    pub(super) keys: Vec<(u32, Bucket)>,
    pub(super) counts: Vec<Vec<u64>>,
}

impl Total {
    #[inline]
    fn add(&mut self, value: f64) {
        if self.count == 0 {
            (self.min, self.max) = (value, value);
        } else {
            (self.min, self.max) = (self.min.min(value), self.max.max(value));
        }
        self.count += 1;
        self.add_to_sum(value);
    }

    #[inline]
    fn add_to_sum(&mut self, value: f64) {
        let sum = self.sum + value;
        self.lost += if self.sum.abs() >= value.abs() { (self.sum - sum) + value } else { (value - sum) + self.sum };
        self.sum = sum;
    }

    fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        if self.count == 0 {
            *self = *other;
            return;
        }
        self.count += other.count;
        (self.min, self.max) = (self.min.min(other.min), self.max.max(other.max));
        self.add_to_sum(other.sum);
        self.lost += other.lost;
    }

    pub(super) fn sum(&self) -> f64 {
        self.sum + self.lost
    }
}

impl Buckets {
    #[inline]
    fn series(&mut self, group: u32, bucket: Bucket, interval_count: usize) -> &mut Vec<u64> {
        let number = *self.number_of.entry((group, bucket)).or_insert_with(|| {
            self.keys.push((group, bucket));
            self.counts.push(vec![0; interval_count]);
            self.keys.len() as u32 - 1
        });
        &mut self.counts[number as usize]
    }
}

/// The counters of a series, which are made when it is first met.
fn row_of<T: Clone + Default>(rows: &mut Vec<Vec<T>>, number: u32, interval_count: usize) -> &mut Vec<T> {
    let number = number as usize;
    if rows.len() <= number {
        rows.resize_with(number + 1, || vec![T::default(); interval_count]);
    }
    &mut rows[number]
}

fn add_counts(into: &mut [u64], other: &[u64]) {
    into.iter_mut().zip(other).for_each(|(count, other)| *count += other);
}

impl Partial {
    pub(super) fn new(operand: &MetricsOperand, window: Window, exemplars_max: usize) -> Self {
        let counters = match &operand.measure {
            Measure::Count => Counters::Spans(Vec::new()),
            Measure::Numbers(_) => Counters::Totals(Vec::new()),
            Measure::Buckets(_) => Counters::Buckets(Buckets::default()),
            Measure::Compare { .. } => Counters::Comparison(Comparison::new(operand.attribute_count())),
        };
        let exemplars = match operand.measure {
            // Nobody draws those of a comparison.
            Measure::Compare { .. } => Exemplars::new(0),
            _ => Exemplars::new(exemplars_max),
        };
        Self { window, groups: Groups::default(), counters, exemplars }
    }

    /// About how much memory the counters hold.
    pub fn memory_bytes(&self) -> usize {
        let interval_count = self.window.interval_count() as usize;
        let counters_bytes = match &self.counters {
            Counters::Spans(rows) => rows.len() * (24 + 8 * interval_count),
            Counters::Totals(rows) => rows.len() * (24 + size_of::<Total>() * interval_count),
            Counters::Buckets(buckets) => buckets.counts.len() * (24 + 40 + 8 * interval_count),
            Counters::Comparison(comparison) => comparison.memory_bytes(),
        };
        counters_bytes + self.groups.memory_bytes()
    }

    /// Adds what another has counted of other spans.
    pub(super) fn merge(&mut self, other: &Self) {
        let groups = self.groups.join(&other.groups);
        let interval_count = self.window.interval_count() as usize;
        match (&mut self.counters, &other.counters) {
            (Counters::Spans(into), Counters::Spans(rows)) => {
                for (group, row) in groups.iter().zip(rows) {
                    add_counts(row_of(into, *group, interval_count), row);
                }
            }
            (Counters::Totals(into), Counters::Totals(rows)) => {
                for (group, row) in groups.iter().zip(rows) {
                    let into = row_of(into, *group, interval_count);
                    into.iter_mut().zip(row).for_each(|(total, other)| total.merge(other));
                }
            }
            (Counters::Buckets(into), Counters::Buckets(buckets)) => {
                for ((group, bucket), counts) in buckets.keys.iter().zip(&buckets.counts) {
                    add_counts(into.series(groups[*group as usize], *bucket, interval_count), counts);
                }
            }
            (Counters::Comparison(into), Counters::Comparison(other)) => into.merge(other),
            _ => unreachable!("results of one operand are of one kind"),
        }
        let window = self.window;
        if self.exemplars.is_wanted() {
            self.exemplars.merge(&other.exemplars, &groups, &window);
        }
    }

    /// Counts the rows of a batch that the operand selects, but for the traces in `skip`.
    pub(super) fn add(&mut self, operand: &MetricsOperand, batch: &ColumnBatch, skip: &Bits) {
        let frame = Frame::new(batch);
        let mut rows = operand.spansets.selected(&frame);
        if !skip.is_empty() {
            let mut skipped = Bits::none(batch.row_count());
            skip.iter().for_each(|trace| skipped.insert_range(batch.rows_of(trace)));
            rows.subtract(&skipped);
        }
        if rows.is_empty() {
            return;
        }
        let starts = starts(&batch.columns[operand.starts], batch.row_count());
        let window = self.window;
        let places = Places { batch, rows: &rows, starts: &starts, window: &window };
        let Self { groups, counters, exemplars, .. } = self;
        let interval_count = window.interval_count() as usize;
        let mut row_groups = RowGroups::new(&operand.by, &frame, &rows);
        let mut sampler = Sampler { exemplars, places: &places, last_trace: usize::MAX };
        match (&operand.measure, counters) {
            (Measure::Count, Counters::Spans(counts)) => places.for_each(|trace, row, interval| {
                let group = row_groups.of_row(row, groups);
                row_of(counts, group, interval_count)[interval] += 1;
                sampler.sample(trace, row, || (group, None));
            }),
            (Measure::Numbers(of), Counters::Totals(totals)) => {
                let numbers = Values::new(of.numbers(&frame, &rows));
                places.for_each(|trace, row, interval| {
                    if let Some(value) = numbers.scaled(row) {
                        let group = row_groups.of_row(row, groups);
                        row_of(totals, group, interval_count)[interval].add(value);
                        sampler.sample(trace, row, || (group, Some(value)));
                    }
                });
            }
            (Measure::Buckets(of), Counters::Buckets(buckets)) => {
                let numbers = Values::new(of.numbers(&frame, &rows));
                let mut last: Option<(u32, Bucket, u32)> = None;
                places.for_each(|trace, row, interval| {
                    let Some(bucket) = numbers.bucket(row) else { return };
                    let group = row_groups.of_row(row, groups);
                    buckets.count(group, bucket, interval, interval_count, &mut last);
                    sampler.sample(trace, row, || (group, numbers.scaled(row)));
                });
            }
            (Measure::Compare { selection, between }, Counters::Comparison(comparison)) => {
                let mut selected = selection.selected(&frame);
                selected.intersect(&rows);
                if let Some((from, to)) = between {
                    let is_between = |row: usize| from < &starts[row] && starts[row] <= *to;
                    selected.intersect(&Bits::from_fn(batch.row_count(), is_between));
                }
                comparison.add(&operand.attributes, &frame, &places, &selected);
            }
            _ => unreachable!("the counters are made for the operand"),
        }
    }
}

impl Buckets {
    /// Neighbours mostly fall into one bucket of one group: then nothing is looked up.
    #[inline]
    fn count(
        &mut self,
        group: u32,
        bucket: Bucket,
        interval: usize,
        interval_count: usize,
        last: &mut Option<(u32, Bucket, u32)>,
    ) {
        if let Some((last_group, last_bucket, number)) = last
            && (*last_group, *last_bucket) == (group, bucket)
        {
            self.counts[*number as usize][interval] += 1;
            return;
        }
        self.series(group, bucket, interval_count)[interval] += 1;
        let number = self.number_of[&(group, bucket)];
        *last = Some((group, bucket, number));
    }
}

/// The selected rows of a batch and their intervals.
pub(super) struct Places<'a> {
    pub(super) batch: &'a ColumnBatch,
    pub(super) rows: &'a Bits,
    starts: &'a [i64],
    pub(super) window: &'a Window,
}

impl Places<'_> {
    /// Hands over (trace, row, interval) of each selected row within the window, ascending. Most traces lie
    /// within one interval, and then no start is looked at.
    pub(super) fn for_each(&self, mut with: impl FnMut(usize, usize, usize)) {
        let (mut trace, mut trace_end, mut common) = (0, 0, None);
        for row in self.rows.iter() {
            if row >= trace_end {
                while self.batch.rows_of(trace).end <= row {
                    trace += 1;
                }
                trace_end = self.batch.rows_of(trace).end;
                let range = self.batch.trace_ranges[trace];
                let first = self.window.interval_of(range.start.0);
                common = first.filter(|_| first == self.window.interval_of(range.end.0));
            }
            let interval = match common {
                Some(interval) => Some(interval),
                None => self.window.interval_of(self.starts[row] as u64),
            };
            if let Some(interval) = interval {
                with(trace, row, interval);
            }
        }
    }
}

/// Offers the first span of each trace as an exemplar.
struct Sampler<'a> {
    exemplars: &'a mut Exemplars,
    places: &'a Places<'a>,
    last_trace: usize,
}

impl Sampler<'_> {
    #[inline]
    fn sample(&mut self, trace: usize, row: usize, what: impl FnOnce() -> (u32, Option<f64>)) {
        if trace == self.last_trace || !self.exemplars.is_wanted() {
            return;
        }
        self.last_trace = trace;
        let (id, start) = (self.places.batch.trace_ids[trace], self.places.starts[row] as u64);
        if self.exemplars.would_keep(id, start, self.places.window) {
            let (group, value) = what();
            self.exemplars.offer(Candidate::new(id, start, group, value), self.places.window);
        }
    }
}

/// Numbers by row.
struct Values<'a>(Numbers<'a>);

impl<'a> Values<'a> {
    fn new(numbers: Numbers<'a>) -> Self {
        Self(numbers)
    }

    /// As series have them: seconds for durations.
    #[inline]
    fn scaled(&self, row: usize) -> Option<f64> {
        let is_present = |present: &Option<Bits>| present.as_ref().is_none_or(|present| present.contains(row));
        match &self.0 {
            Numbers::Ints { values, present, is_duration } if is_present(present) => Some(match is_duration {
                true => values[row] as f64 / 1e9,
                false => values[row] as f64,
            }),
            Numbers::Floats { values, present } if is_present(present) => Some(values[row]),
            Numbers::Mixed(values) => match &values[row] {
                Static::Int(int) => Some(*int as f64),
                Static::Duration(nanos) => Some(*nanos as f64 / 1e9),
                Static::Float(float) => Some(*float),
                _ => None,
            },
            _ => None,
        }
        .filter(|value| !value.is_nan())
    }

    #[inline]
    fn bucket(&self, row: usize) -> Option<Bucket> {
        let is_present = |present: &Option<Bits>| present.as_ref().is_none_or(|present| present.contains(row));
        match &self.0 {
            Numbers::Ints { values, present, is_duration } if is_present(present) => {
                Bucket::of_int(values[row], *is_duration)
            }
            Numbers::Floats { values, present } if is_present(present) => Bucket::of_float(values[row]),
            Numbers::Mixed(values) => Bucket::of(&values[row]),
            _ => None,
        }
    }
}

/// The starts of all rows, in nanoseconds.
fn starts(column: &FieldColumn, row_count: usize) -> Cow<'_, [i64]> {
    if let [ColumnPart::Int(array)] = &column.parts[..]
        && array.null_count() == 0
    {
        return Cow::Borrowed(array.values());
    }
    let start = |row| match column.value(row) {
        Some(spoor_model::Value::Int(nanos)) => nanos,
        // Rows whose values were not asked for.
        _ => 0,
    };
    Cow::Owned((0..row_count).map(start).collect())
}
