//! One pipeline with its function: what sources are asked, and how the answers are counted.

use std::cmp::Ordering;
use std::sync::Arc;

use spoor_model::TimeRange;
use spoor_model::bits::Bits;
use spoor_model::columns::{ColumnBatch, ColumnRequest, Intervals, ValuesOf};
use spoor_model::scan::{Field, KeySet, Predicate};

use super::cells::Cells;
use super::compare::{Comparison, Tally};
use super::exemplars::{self, Candidate, Chosen, Measured};
use super::groups::Groups;
use super::histogram::{self, Buckets, Place};
use super::observed::{self, Observed};
use super::weights::weights;
use super::window::{Clockwork, Window};
use crate::PlanError;
use crate::ast::{Attribute, GroupKey, Intrinsic, MetricsFunction, Pipeline, Static};
use crate::compute;
use crate::engine::{Coded, Frame, Layout, Meaning, Operand, SpansetPlan, explain};

/// One pipeline and the function behind it. Every span that the pipeline selects and that starts within
/// the window counts once.
#[derive(Debug, Clone)]
pub struct MetricsOperand {
    layout: Layout,
    spansets: SpansetPlan,
    /// Labels and values of what is grouped by.
    pub(super) by: Vec<(Arc<str>, Operand)>,
    pub(super) function: Function,
    start_time: Operand,
    /// Where spans count for others that a sampler dropped.
    trace_state: Option<Operand>,
    text: String,
}

/// What is computed.
#[derive(Debug, Clone)]
pub(super) enum Function {
    Rate,
    Count,
    Min(Measure),
    Max(Measure),
    Sum(Measure),
    Avg(Measure),
    /// Of these shares.
    Quantile(Measure, Vec<f64>),
    Histogram(Measure),
    Compare(Comparison),
}

/// A value that is measured.
#[derive(Debug, Clone)]
pub(super) struct Measure {
    operand: Operand,
    pub(super) is_duration: bool,
}

/// What a function has seen so far. Partials of one operand and window merge, in any order.
#[derive(Debug, Clone)]
pub struct Partial {
    pub(super) window: Window,
    pub(super) groups: Groups,
    pub(super) cells: Cells,
    pub(super) tally: Tally,
    pub(super) chosen: Chosen,
}

impl MetricsOperand {
    /// Plans `pipeline | function by(...)`.
    pub(super) fn new(
        pipeline: &Pipeline,
        function: &MetricsFunction,
        by: &[GroupKey],
        is_extrapolated: bool,
        text: String,
    ) -> Result<Self, PlanError> {
        let is_of_list = |of: &Attribute| of.field().is_some_and(|field| field.is_of_events() || field.is_of_links());
        let reads_lists = by.iter().map(|key| &key.attribute).chain(function.measured()).any(is_of_list);
        let mut layout = Layout::default();
        let mut plain = |field| Operand::Field { column: layout.column(field), meaning: Meaning::Plain };
        let start_time = plain(Field::StartTime);
        let trace_state = is_extrapolated.then(|| plain(Field::TraceState));
        let by = by.iter().map(|key| (Arc::clone(&key.label), Operand::of(&key.attribute, &mut layout))).collect();
        let function = Function::new(function, &mut layout)?;
        // Last, because it decides of which rows the columns are needed.
        let spansets = SpansetPlan::new(pipeline, reads_lists, &mut layout)?;
        // Copies count once.
        layout.need_copies();
        Ok(Self { layout, spansets, by, function, start_time, trace_state, text })
    }

    /// `pipeline | function by(...)`, with all groupings made visible.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether every attribute that sources have must be named by [`Self::count_attributes`].
    pub(super) fn is_compare(&self) -> bool {
        matches!(self.function, Function::Compare(_))
    }

    pub(super) fn count_attributes(&mut self, keys: &KeySet) {
        if let Function::Compare(comparison) = &mut self.function {
            comparison.count_attributes(keys, &mut self.layout);
        }
    }

    /// What to ask of sources, to keep at most that many exemplars.
    pub fn request(&self, window: &Window, exemplars_max: usize) -> ColumnRequest {
        let intervals = self.intervals(window, exemplars_max);
        self.layout.request(self.spansets.needed(), self.values_of(), window.range(), intervals)
    }

    /// What some span of every trace with spans that count satisfies, for each of these, beside what
    /// [`Self::request`] says is needed.
    pub fn required(&self) -> Vec<Predicate> {
        self.spansets.required(&self.layout)
    }

    /// The intervals, if all that counts is in which a span starts.
    fn intervals(&self, window: &Window, exemplars_max: usize) -> Option<Intervals> {
        let is_told = match &self.function {
            Function::Compare(comparison) => comparison.is_limited_in_time(),
            // Exemplars say when they start.
            _ => exemplars_max > 0,
        };
        (!is_told).then(|| window.intervals())
    }

    fn values_of(&self) -> ValuesOf {
        match self.is_compare() {
            true => self.spansets.counted_values_of(&self.layout),
            false => self.spansets.values_of(&self.layout),
        }
    }

    /// Whether each span is selected for itself, whatever else its trace holds. Copies still count once.
    pub fn is_single_span(&self) -> bool {
        self.spansets.is_single_span()
    }

    /// Which traces of a batch may have spans that count, were the batch's rows only a part of them.
    pub fn may_match(&self, batch: &ColumnBatch) -> Bits {
        let needed = self.spansets.needed();
        if needed.is_empty() {
            return Bits::all(batch.trace_count());
        }
        let mut rows = Bits::none(batch.row_count());
        needed.iter().for_each(|mask| rows.union(&batch.masks[*mask]));
        Bits::from_fn(batch.trace_count(), |trace| rows.any_in(batch.rows_of(trace)))
    }

    /// An empty result, that keeps at most that many exemplars.
    pub fn start(&self, window: &Window, exemplars_max: usize) -> Partial {
        let interval_count = window.interval_count() as usize;
        let cells = match &self.function {
            Function::Rate | Function::Count | Function::Compare(_) => Cells::Counts(Vec::new()),
            Function::Min(_) => Cells::Least(Vec::new()),
            Function::Max(_) => Cells::Greatest(Vec::new()),
            Function::Sum(_) | Function::Avg(_) => Cells::Sums(Vec::new()),
            Function::Quantile(..) | Function::Histogram(_) => Cells::Buckets(Buckets::new(interval_count)),
        };
        let tally = match &self.function {
            Function::Compare(comparison) => comparison.start(interval_count),
            _ => Tally::default(),
        };
        // Nobody draws those of a comparison.
        let exemplars_max = if self.is_compare() { 0 } else { exemplars_max };
        let groups = Groups::new((CELLS_MAX / interval_count.max(1)).max(1));
        Partial { window: *window, groups, cells, tally, chosen: Chosen::new(window, exemplars_max) }
    }

    /// Counts the spans of a batch, made for [`Self::request`], but for the traces to be skipped: those
    /// that are torn or irregular, which come again in a batch of whole traces. Linear in its rows.
    pub fn add(&self, partial: &mut Partial, batch: &ColumnBatch, skip: &Bits) {
        let frame = self.spansets.frame(batch);
        let mut selected = self.spansets.selected(&frame);
        if !skip.is_empty() {
            let mut left_out = Bits::none(batch.row_count());
            skip.iter().for_each(|trace| left_out.insert_range(batch.rows_of(trace)));
            selected.subtract(&left_out);
        }
        if selected.is_empty() {
            return;
        }
        let starts = observed::starts(&self.start_time, &frame, &selected);
        let mut seen = Observed::new(&Clockwork::new(&partial.window), batch, &starts, &selected);
        let (mut values, mut places) = (Vec::new(), Vec::new());
        match &self.function {
            Function::Compare(comparison) => {
                let weights = self.weights(&frame, &selected, &seen);
                comparison.add(&mut partial.tally, &frame, &seen, &starts, weights);
                return;
            }
            Function::Rate | Function::Count => {}
            Function::Quantile(measure, _) | Function::Histogram(measure) => {
                places = seen.keep_places(&measure.operand.numbers(&frame, &selected));
            }
            Function::Min(measure) | Function::Max(measure) | Function::Sum(measure) | Function::Avg(measure) => {
                values = seen.keep_values(&measure.operand.numbers(&frame, &selected));
            }
        }
        let by: Vec<Coded> = self.by.iter().map(|(_, operand)| operand.coded(&frame, &selected)).collect();
        let groups = match seen.rows.is_empty() {
            true => Vec::new(),
            false => partial.groups.numbers(&by, &seen.rows),
        };
        let weights = self.weights(&frame, &selected, &seen);
        partial.count(&seen, &groups, &values, &places, weights.as_deref());
        self.choose(
            partial,
            &Counted { frame: &frame, seen: &seen, starts: &starts, groups: &groups, places: &places },
        );
    }

    /// How many spans each row stands for, unless that is one.
    fn weights(&self, frame: &Frame<'_>, selected: &Bits, seen: &Observed) -> Option<Vec<u64>> {
        self.trace_state.as_ref().map(|trace_state| weights(trace_state, frame, selected, seen))
    }

    /// Adds one result to another. In whatever order this is done, the sums are the same but for rounding.
    pub fn merge(&self, into: &mut Partial, other: &Partial) {
        let interval_count = into.window.interval_count() as usize;
        let numbers: Vec<usize> = other.groups.keys().iter().map(|key| into.groups.number(key) as usize).collect();
        into.make_room();
        for (theirs, ours) in numbers.into_iter().enumerate() {
            match (&mut into.cells, &other.cells) {
                (Cells::Buckets(buckets), Cells::Buckets(other)) => buckets.merge(ours, other, theirs),
                (cells, other) => cells.merge(ours * interval_count, other, theirs * interval_count, interval_count),
            }
        }
        into.groups.overflow_like(&other.groups);
        into.tally.merge(&other.tally);
        into.chosen.merge(&other.chosen);
    }

    /// Lets traces of a batch offer one of their spans as an exemplar.
    fn choose(&self, partial: &mut Partial, counted: &Counted<'_>) {
        let batch = counted.frame.batch;
        let rows = &counted.seen.rows;
        for trace in 0..batch.trace_count() {
            let id = batch.trace_ids[trace];
            if !partial.chosen.is_open(id, &batch.trace_ranges[trace]) {
                continue;
            }
            let of_trace = batch.rows_of(trace);
            let from = rows.partition_point(|row| (*row as usize) < of_trace.start);
            let to = rows.partition_point(|row| (*row as usize) < of_trace.end);
            let start = |at: usize| counted.starts[rows[at] as usize] as u64;
            let key = |at: usize| format!("{:?}", partial.groups.keys()[counted.groups[at] as usize]);
            let order = |a: &usize, b: &usize| {
                let ties = || key(*a).cmp(&key(*b)).then_with(|| self.order_values(counted, *a, *b));
                exemplars::order_within_trace(id, start(*a), start(*b), ties)
            };
            if let Some(at) = (from..to).min_by(order) {
                let group = Arc::clone(&partial.groups.keys()[counted.groups[at] as usize]);
                let measured = self.measured(counted, at);
                partial.chosen.offer(Candidate { trace: id, start: start(at), group, measured });
            }
        }
    }

    fn order_values(&self, counted: &Counted<'_>, a: usize, b: usize) -> Ordering {
        let value = |at: usize| match self.measured(counted, at) {
            Measured::Nothing => 0.0,
            Measured::Value(value) | Measured::Bucket(_, value) => value,
        };
        value(a).total_cmp(&value(b))
    }

    fn measured(&self, counted: &Counted<'_>, at: usize) -> Measured {
        let value = |measure: &Measure| {
            let value = measure.operand.value(counted.frame, counted.seen.rows[at] as usize);
            observed::in_seconds(&value).unwrap_or(0.0)
        };
        match &self.function {
            Function::Rate | Function::Count | Function::Compare(_) => Measured::Nothing,
            Function::Min(measure) | Function::Max(measure) | Function::Sum(measure) | Function::Avg(measure) => {
                Measured::Value(value(measure))
            }
            Function::Quantile(measure, _) | Function::Histogram(measure) => {
                Measured::Bucket(counted.places[at], value(measure))
            }
        }
    }

    /// The plan for people to read.
    pub(super) fn explain(&self) -> String {
        let request = self.layout.request(self.spansets.needed(), self.values_of(), TimeRange::ALL, None);
        let mut text = explain::request(&request);
        text.push_str(&explain::steps(&self.spansets, &self.layout));
        match &self.function {
            Function::Compare(comparison) => {
                text.push_str(&format!("count the values of {} attributes\n", comparison.attribute_count()));
            }
            _ if self.by.is_empty() => {}
            _ => {
                let labels: Vec<&str> = self.by.iter().map(|(label, _)| &**label).collect();
                text.push_str(&format!("group by {}\n", labels.join(", ")));
            }
        }
        text
    }
}

/// The rows of a batch that were counted, and how.
struct Counted<'a> {
    frame: &'a Frame<'a>,
    seen: &'a Observed,
    starts: &'a [i64],
    groups: &'a [u32],
    places: &'a [Place],
}

/// Cells of an operand, of groups and intervals: half a gigabyte of counters. More cannot be shown to
/// anybody, and would not be noticed before a batch is counted.
const CELLS_MAX: usize = 1 << 26;
/// What a result with too many cells says it takes: more than any budget has.
const BYTES_TOO_MANY: usize = 1 << 50;

impl Partial {
    /// About how much memory the counters hold; more than there is when they would have to hold more groups than
    /// they can. Such a result is not to be finished.
    pub fn memory_bytes(&self) -> usize {
        if self.groups.has_overflowed() {
            return BYTES_TOO_MANY;
        }
        self.groups.held_bytes() + self.cells.held_bytes() + self.tally.held_bytes() + self.chosen.held_bytes()
    }

    fn make_room(&mut self) {
        match &mut self.cells {
            Cells::Buckets(buckets) => buckets.grow(self.groups.len()),
            cells => cells.grow(self.groups.len() * self.window.interval_count() as usize),
        }
    }

    fn count(&mut self, seen: &Observed, groups: &[u32], values: &[f64], places: &[Place], weights: Option<&[u64]>) {
        self.make_room();
        match &mut self.cells {
            Cells::Buckets(buckets) => buckets.observe(groups, &seen.intervals, places, weights),
            // Ungrouped, neighbours mostly count in one cell.
            Cells::Counts(counts) if self.groups.len() == 1 && weights.is_none() => {
                let runs = seen.intervals.chunk_by(|a, b| a == b);
                runs.for_each(|run| counts[run[0] as usize] += run.len() as u64);
            }
            cells => {
                let interval_count = self.window.interval_count() as u32;
                let pairs = groups.iter().zip(&seen.intervals);
                let by_cell: Vec<u32> = pairs.map(|(group, interval)| group * interval_count + interval).collect();
                cells.observe(&by_cell, values, weights);
            }
        }
    }
}

impl Function {
    fn new(function: &MetricsFunction, layout: &mut Layout) -> Result<Self, PlanError> {
        let mut measure = |attribute: &Attribute| Measure {
            operand: Operand::of(attribute, layout),
            is_duration: matches!(
                attribute,
                Attribute::Intrinsic(Intrinsic::Duration | Intrinsic::TraceDuration | Intrinsic::EventTimeSinceStart)
            ),
        };
        Ok(match function {
            MetricsFunction::Rate => Self::Rate,
            MetricsFunction::Count => Self::Count,
            MetricsFunction::Min(of) => Self::Min(measure(of)),
            MetricsFunction::Max(of) => Self::Max(measure(of)),
            MetricsFunction::Sum(of) => Self::Sum(measure(of)),
            MetricsFunction::Avg(of) => Self::Avg(measure(of)),
            MetricsFunction::Histogram(of) => Self::Histogram(measure(of)),
            MetricsFunction::Quantile(of, shares) => {
                let share = |value: &Static| compute::as_float(value).unwrap_or(f64::NAN);
                Self::Quantile(measure(of), shares.iter().map(share).collect())
            }
            MetricsFunction::Compare(selection, numbers) => Self::Compare(Comparison::new(selection, numbers, layout)?),
        })
    }

    /// As a label tells it.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Count => "count_over_time",
            Self::Min(_) => "min_over_time",
            Self::Max(_) => "max_over_time",
            Self::Sum(_) => "sum_over_time",
            Self::Avg(_) => "avg_over_time",
            Self::Quantile(..) => "quantile_over_time",
            Self::Histogram(_) => "histogram_over_time",
            Self::Compare(_) => "compare",
        }
    }
}

/// The upper bound of a bucket of a measure.
pub(super) fn bound_of(measure: &Measure, exponent: i32) -> f64 {
    histogram::bound(exponent, measure.is_duration)
}
