//! Spans as columns for queries: what a source hands over instead of spans.
//!
//! ```text
//!   ColumnRequest --SpanSource::scan--> ColumnScan --read(group)--> ColumnBatch
//!     masks, columns, tree               groups, newest first         whole trace fragments
//! ```
//!
//! A [`ColumnBatch`] holds every span that a source has of some traces, trace by trace. Conditions come
//! back as masks, evaluated where the data lies (on dictionary entries, shapes, origins); values come
//! back as [`FieldColumn`]s, coded wherever the source has codes. What a query computes from them is its
//! own business.
//!
//! **A fragment is not a trace.** The rest of a trace may lie in other sources, and two rows may be
//! copies of one span. Whoever needs whole traces asks [`ColumnBatch::irregular`] and the fingerprints of
//! the other sources, and assembles those traces instead ([`ColumnBatch::of_traces`] makes the same
//! columns of them).

use std::sync::Arc;

use arrow_array::{Array, BooleanArray, Float64Array, Int32Array, Int64Array, StringArray};

use crate::bits::Bits;
use crate::scan::{Field, Predicate, QueryContext, ScanError, ScanStats};
use crate::value::Value;
use crate::{TimeRange, TraceId, UnixNano};

mod traces;
mod without;

pub use traces::TracesScan;

/// What a query wants to know of each span.
#[derive(Debug, Clone)]
pub struct ColumnRequest {
    /// Evaluated exactly, as [`Predicate::matches`] would; one mask each.
    pub masks: Vec<Predicate>,
    /// Groups in which no span is in one of these masks (by their index) are left out. Empty: no
    /// group is.
    pub needed: Vec<usize>,
    /// Values wanted, one column each.
    pub columns: Vec<Field>,
    /// Whose values are wanted.
    pub values_of: ValuesOf,
    /// Whether parents and roots are wanted, and the rows in the order of the tree.
    pub tree: bool,
    /// Whether [`ColumnBatch::irregular`] is wanted; with `tree` it always is.
    pub copies: bool,
    /// Groups without a trace that overlaps this are left out.
    pub range: TimeRange,
    /// When start times only tell in which of these a span starts: of spans whose whole trace lies in one, and of spans that
    /// start in none, [`Field::StartTime`] may seem to have no value.
    pub intervals: Option<Intervals>,
}

/// Neighbouring intervals of one length, open on the left: the first is `(start, start + step]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intervals {
    /// Where the first begins, in nanoseconds since the epoch.
    pub start_nano: u64,
    /// The length of each in nanoseconds, at least 1.
    pub step_nano: u64,
    /// How many.
    pub count: u64,
}

impl Intervals {
    /// The traces, by their ranges, of which it makes a difference when their spans start: they reach over an edge.
    /// Cheap when neighbours lie in the same interval.
    pub fn crossed_by(&self, ranges: &[TimeRange]) -> Bits {
        let mut common = 0..=self.start_nano;
        Bits::from_fn(ranges.len(), |trace| {
            let (start, end) = (ranges[trace].start.0, ranges[trace].end.0);
            if !common.contains(&start) {
                common = self.around(start);
            }
            !common.contains(&end)
        })
    }

    /// The instants that lie in the same interval as one, or before all of them, or behind.
    fn around(&self, instant: u64) -> std::ops::RangeInclusive<u64> {
        let Some(after) = instant.checked_sub(self.start_nano).and_then(|after| after.checked_sub(1)) else {
            return 0..=self.start_nano;
        };
        let edge = |number: u64| self.start_nano.saturating_add(self.step_nano.saturating_mul(number));
        match after / self.step_nano {
            number if number < self.count => edge(number) + 1..=edge(number + 1),
            _ => edge(self.count) + 1..=u64::MAX,
        }
    }
}

/// For which rows columns must have values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValuesOf {
    /// For all.
    AllRows,
    /// For rows that are in one of the needed masks; others may seem to have none. Sources skip pages.
    NeededRows,
    /// One value each for rows that are in one of the needed masks and for roots: what counting values needs. Others
    /// may seem to have none, and of a field of events or links the first value will do.
    OneEach,
}

/// Some traces' spans in one source. Rows of a trace are adjacent.
#[derive(Debug, Clone, Default)]
pub struct ColumnBatch {
    /// One per trace.
    pub trace_ids: Vec<TraceId>,
    /// First row of each trace and, at the end, the number of rows.
    pub trace_rows: Vec<u32>,
    /// Earliest start and latest end of each trace's rows.
    pub trace_ranges: Vec<TimeRange>,
    /// Traces with two rows of one span id: copies, or spans that share it. Empty set when not asked.
    pub irregular: Bits,
    /// Rows for which each predicate holds.
    pub masks: Vec<Bits>,
    /// Values of each field asked for.
    pub columns: Vec<FieldColumn>,
    /// With a tree: each row's parent row, [`crate::structure::ROOT`] or [`crate::structure::MISSING`]. Rows of a trace stand
    /// depth-first, parents before children. What stands here for irregular traces means nothing, unless
    /// the batch was made of whole traces.
    pub parents: Vec<u32>,
    /// With a tree: per trace the row of [`crate::structure::root`], [`NO_ROW`] when there is none.
    pub roots: Vec<u32>,
}

/// Stands for no row.
pub const NO_ROW: u32 = u32::MAX;

/// The values of one field, by row. The first part that has a value for a row counts.
#[derive(Debug, Clone, Default)]
pub struct FieldColumn {
    /// Usually one; none when no row has a value.
    pub parts: Vec<ColumnPart>,
}

/// Values of some rows. Every array is as long as the batch.
#[derive(Debug, Clone)]
pub enum ColumnPart {
    /// A code per row; a null, or a code whose entry is `None`, is no value. Few entries: whatever is to be
    /// known of the values is worked out once per entry.
    Coded {
        /// Indexes of `values`, never past its end.
        codes: Int32Array,
        /// May hold equal values twice.
        values: Arc<[Option<Value>]>,
    },
    /// Integers.
    Int(Int64Array),
    /// Floats.
    Double(Float64Array),
    /// Booleans.
    Bool(BooleanArray),
    /// Texts, mostly different.
    Text(StringArray),
    /// Values of few rows, or of odd types.
    Sparse {
        /// Ascending.
        rows: Vec<u32>,
        /// One per row listed.
        values: Vec<Value>,
    },
    /// A field of events or links: one value per event or link of the span, `None` for those that lack it.
    /// Rows without events (links) are not listed.
    PerItem {
        /// Ascending.
        rows: Vec<u32>,
        /// One list per row listed, not empty.
        values: Vec<Vec<Option<Value>>>,
    },
}

impl ColumnPart {
    /// The value at a row; of several events or links, the first that has one. Copies it: for rare and
    /// general paths.
    pub fn value(&self, row: usize) -> Option<Value> {
        let is_valid = |array: &dyn Array| array.is_valid(row);
        let place = |rows: &[u32]| rows.binary_search(&(row as u32)).ok();
        match self {
            Self::Coded { codes, values } if is_valid(codes) => values[codes.value(row) as usize].clone(),
            Self::Int(array) if is_valid(array) => Some(Value::Int(array.value(row))),
            Self::Double(array) if is_valid(array) => Some(Value::Double(array.value(row))),
            Self::Bool(array) if is_valid(array) => Some(Value::Bool(array.value(row))),
            Self::Text(array) if is_valid(array) => Some(Value::Str(array.value(row).to_owned())),
            Self::Sparse { rows, values } => place(rows).map(|place| values[place].clone()),
            Self::PerItem { rows, values } => {
                place(rows).and_then(|place| values[place].iter().flatten().next().cloned())
            }
            _ => None,
        }
    }
}

impl FieldColumn {
    /// The value at a row; of several events or links, the first that has one. Copies it.
    pub fn value(&self, row: usize) -> Option<Value> {
        self.parts.iter().find_map(|part| part.value(row))
    }

    /// All values at a row, where a field of events or links has one per event or link (`None` for those that
    /// lack it; empty without events or links); one or none otherwise.
    pub fn items(&self, row: usize) -> Vec<Option<Value>> {
        for part in &self.parts {
            if let ColumnPart::PerItem { rows, values } = part {
                if let Ok(place) = rows.binary_search(&(row as u32)) {
                    return values[place].clone();
                }
            } else if let Some(value) = part.value(row) {
                return vec![Some(value)];
            }
        }
        Vec::new()
    }
}

impl ColumnBatch {
    /// How many spans.
    #[inline]
    pub fn row_count(&self) -> usize {
        self.trace_rows.last().map_or(0, |last| *last as usize)
    }

    /// How many traces.
    #[inline]
    pub fn trace_count(&self) -> usize {
        self.trace_ids.len()
    }

    /// Whether a trace is known to have two rows of one span id.
    #[inline]
    pub fn is_irregular(&self, trace: usize) -> bool {
        trace < self.irregular.len() && self.irregular.contains(trace)
    }

    /// The rows of a trace.
    #[inline]
    pub fn rows_of(&self, trace: usize) -> std::ops::Range<usize> {
        self.trace_rows[trace] as usize..self.trace_rows[trace + 1] as usize
    }
}

/// A part of a source that is read at once. A trace of the source lies in one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupInfo {
    /// No trace of the group starts later.
    pub latest_trace_start: UnixNano,
    /// Earliest start and latest end of its spans.
    pub range: TimeRange,
    /// How many spans it has.
    pub span_count: u64,
}

/// Why parts of a source need not be read, for `--explain`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Groups of the source.
    pub group_count: u64,
    /// Left out as nothing in them overlaps the range.
    pub by_range: u64,
    /// Left out as tables, catalogue or statistics show that nothing in them satisfies the request.
    pub by_content: u64,
}

/// A request compiled for one source.
pub trait ColumnScan: Send + Sync {
    /// The groups that may matter, latest trace start first.
    fn groups(&self) -> &[GroupInfo];

    /// What was left out, and why.
    fn pruned(&self) -> Pruned;

    /// Reads a group, by its place in [`Self::groups`]. `None` when none of its spans is in a needed mask:
    /// then columns were not read. Blocks; reserves what the batch holds.
    fn read(&self, group: usize, ctx: &QueryContext) -> Result<(Option<ColumnBatch>, ScanStats), ScanError>;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// A trace crosses an edge exactly when two instants of it lie in different intervals, or one in none.
        #[test]
        fn traces_that_cross_no_edge_lie_in_one_interval_or_in_none(
            (start_nano, step_nano, count) in (0..40u64, 1..20u64, 1..6u64),
            ranges in prop::collection::vec((0..200u64, 0..30u64), 0..20),
        ) {
            let intervals = Intervals { start_nano, step_nano, count };
            let ranges: Vec<TimeRange> = ranges
                .into_iter()
                .map(|(start, length)| TimeRange { start: UnixNano(start), end: UnixNano(start + length) })
                .collect();
            // Before the first, its number, or behind the last.
            let place = |instant: u64| match instant.checked_sub(start_nano + 1) {
                None => -1,
                Some(after) => (after / step_nano).min(count) as i64,
            };
            let crossed = intervals.crossed_by(&ranges);
            for (trace, range) in ranges.iter().enumerate() {
                let is_crossed = place(range.start.0) != place(range.end.0);
                prop_assert_eq!(crossed.contains(trace), is_crossed, "{:?}", range);
            }
        }
    }
}
