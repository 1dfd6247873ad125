//! A batch less some of its traces: for those that were deleted and are still in a block.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::Array;

use super::{ColumnBatch, ColumnPart, FieldColumn, NO_ROW};
use crate::TraceId;
use crate::bits::Bits;
use crate::structure;

impl ColumnBatch {
    /// The batch without the traces for which `is_gone`. Costs a copy of the batch when there is one, and a look at
    /// each trace id when there is none.
    pub fn without(self, is_gone: impl Fn(TraceId) -> bool) -> Self {
        let kept: Vec<usize> = (0..self.trace_count()).filter(|trace| !is_gone(self.trace_ids[*trace])).collect();
        if kept.len() == self.trace_count() {
            return self;
        }
        let runs: Vec<Range<usize>> = kept.iter().map(|trace| self.rows_of(*trace)).collect();
        let rows = Rows(&runs);
        let irregular = Bits::none(kept.len());
        let mut less = Self { trace_rows: vec![0], irregular, ..Self::default() };
        for (place, trace) in kept.iter().enumerate() {
            let (old, new) = (self.rows_of(*trace), *less.trace_rows.last().unwrap_or(&0));
            // No parent and no root stands behind what was left out before it.
            let moved = |row: u32| row - old.start as u32 + new;
            if let Some(parents) = self.parents.get(old.clone()) {
                let parent = |row: &u32| if *row >= structure::MISSING { *row } else { moved(*row) };
                less.parents.extend(parents.iter().map(parent));
            }
            let root = self.roots.get(*trace).map(|row| if *row == NO_ROW { NO_ROW } else { moved(*row) });
            less.roots.extend(root);
            if self.is_irregular(*trace) {
                less.irregular.insert(place);
            }
            less.trace_ids.push(self.trace_ids[*trace]);
            less.trace_ranges.extend(self.trace_ranges.get(*trace));
            less.trace_rows.push(new + old.len() as u32);
        }
        less.masks = self.masks.iter().map(|mask| rows.bits(mask)).collect();
        let parts = |column: &FieldColumn| column.parts.iter().map(|part| rows.part(part)).collect();
        less.columns = self.columns.iter().map(|column| FieldColumn { parts: parts(column) }).collect();
        less
    }
}

/// The rows that stay, in order.
struct Rows<'a>(&'a [Range<usize>]);

impl Rows<'_> {
    fn all(&self) -> impl Iterator<Item = usize> {
        self.0.iter().flat_map(Range::clone)
    }

    fn bits(&self, bits: &Bits) -> Bits {
        let rows: Vec<usize> = self.all().collect();
        Bits::from_fn(rows.len(), |row| bits.contains(rows[row]))
    }

    /// Which of some listed rows stay, by their places in the list, and the numbers that they get.
    fn listed(&self, rows: &[u32]) -> (Vec<u32>, Vec<usize>) {
        let (mut numbers, mut places, mut before) = (Vec::new(), Vec::new(), 0);
        for run in self.0 {
            let from = rows.partition_point(|row| (*row as usize) < run.start);
            let until = rows.partition_point(|row| (*row as usize) < run.end);
            numbers.extend(rows[from..until].iter().map(|row| (*row as usize - run.start + before) as u32));
            places.extend(from..until);
            before += run.len();
        }
        (numbers, places)
    }

    fn part(&self, part: &ColumnPart) -> ColumnPart {
        macro_rules! picked {
            ($array:expr) => {
                self.all().map(|row| $array.is_valid(row).then(|| $array.value(row))).collect()
            };
        }
        match part {
            ColumnPart::Coded { codes, values } => {
                ColumnPart::Coded { codes: picked!(codes), values: Arc::clone(values) }
            }
            ColumnPart::Int(array) => ColumnPart::Int(picked!(array)),
            ColumnPart::Double(array) => ColumnPart::Double(picked!(array)),
            ColumnPart::Bool(array) => ColumnPart::Bool(picked!(array)),
            ColumnPart::Text(array) => ColumnPart::Text(picked!(array)),
            ColumnPart::Sparse { rows, values } => {
                let (rows, places) = self.listed(rows);
                ColumnPart::Sparse { rows, values: places.into_iter().map(|place| values[place].clone()).collect() }
            }
            ColumnPart::PerItem { rows, values } => {
                let (rows, places) = self.listed(rows);
                ColumnPart::PerItem { rows, values: places.into_iter().map(|place| values[place].clone()).collect() }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow_array::{BooleanArray, Float64Array, Int32Array, Int64Array, StringArray};
    use proptest::prelude::*;

    use super::*;
    use crate::value::Value;
    use crate::{TimeRange, UnixNano};

    fn id(trace: usize) -> TraceId {
        TraceId((trace as u128 + 1).to_be_bytes())
    }

    /// Traces of these sizes; row r says of itself in every kind of column that it is r, unless r is a multiple of 5.
    fn batch(sizes: &[usize]) -> ColumnBatch {
        let count: usize = sizes.iter().sum();
        let number = |row: usize| (!row.is_multiple_of(5)).then_some(row);
        let listed: Vec<u32> = (0..count as u32).filter(|row| row % 5 != 0).collect();
        let value = |row: &u32| Value::Int(i64::from(*row));
        let codes: Int32Array = (0..count).map(|row| number(row).map(|row| row as i32)).collect();
        let parts = vec![
            ColumnPart::Coded { codes, values: (0..count as i64).map(|row| Some(Value::Int(row))).collect() },
            ColumnPart::Int((0..count).map(|row| number(row).map(|row| row as i64)).collect::<Int64Array>()),
            ColumnPart::Double((0..count).map(|row| number(row).map(|row| row as f64)).collect::<Float64Array>()),
            ColumnPart::Bool((0..count).map(|row| number(row).map(|row| row % 2 == 0)).collect::<BooleanArray>()),
            ColumnPart::Text((0..count).map(|row| number(row).map(|row| row.to_string())).collect::<StringArray>()),
            ColumnPart::Sparse { rows: listed.clone(), values: listed.iter().map(value).collect() },
            ColumnPart::PerItem { values: listed.iter().map(|row| vec![Some(value(row))]).collect(), rows: listed },
        ];
        let columns = parts.into_iter().map(|part| FieldColumn { parts: vec![part] }).collect();
        let mut made = ColumnBatch {
            trace_rows: vec![0],
            irregular: Bits::from_fn(sizes.len(), |trace| trace % 3 == 0),
            masks: vec![Bits::from_fn(count, |row| row % 7 == 0)],
            columns,
            ..ColumnBatch::default()
        };
        for (trace, size) in sizes.iter().enumerate() {
            let first = made.trace_rows[trace];
            made.trace_ids.push(id(trace));
            made.trace_ranges.push(TimeRange { start: UnixNano(trace as u64), end: UnixNano(trace as u64 + 1) });
            made.trace_rows.push(first + *size as u32);
            made.roots.push(if trace % 4 == 0 { NO_ROW } else { first });
            let parents = (0..*size as u32).map(|row| if row == 0 { structure::ROOT } else { first + row - 1 });
            made.parents.extend(parents);
        }
        made
    }

    proptest! {
        #[test]
        fn what_stays_says_what_it_said(sizes in prop::collection::vec(1usize..6, 0..12), gone: u16) {
            let is_gone = |trace: usize| gone >> trace & 1 == 1;
            let whole = batch(&sizes);
            let less = whole.clone().without(|of| (0..sizes.len()).any(|trace| id(trace) == of && is_gone(trace)));
            let kept: Vec<usize> = (0..sizes.len()).filter(|trace| !is_gone(*trace)).collect();
            prop_assert_eq!(&less.trace_ids, &kept.iter().map(|trace| id(*trace)).collect::<Vec<_>>());
            prop_assert_eq!(less.row_count(), kept.iter().map(|trace| sizes[*trace]).sum::<usize>());
            prop_assert_eq!(less.parents.len(), less.row_count());
            for (place, trace) in kept.iter().enumerate() {
                prop_assert_eq!(less.is_irregular(place), whole.is_irregular(*trace));
                prop_assert_eq!(less.trace_ranges[place], whole.trace_ranges[*trace]);
                let shift = |row: u32| row - less.trace_rows[place] + whole.trace_rows[*trace];
                let root = less.roots[place];
                prop_assert_eq!(if root == NO_ROW { NO_ROW } else { shift(root) }, whole.roots[*trace]);
                for (new, old) in less.rows_of(place).zip(whole.rows_of(*trace)) {
                    prop_assert_eq!(less.masks[0].contains(new), whole.masks[0].contains(old));
                    let parent = less.parents[new];
                    let parent = if parent >= structure::MISSING { parent } else { shift(parent) };
                    prop_assert_eq!(parent, whole.parents[old]);
                    for (a, b) in less.columns.iter().zip(&whole.columns) {
                        prop_assert_eq!(format!("{:?}", a.items(new)), format!("{:?}", b.items(old)));
                    }
                }
            }
        }
    }

    #[test]
    fn nothing_gone_costs_nothing() {
        let whole = batch(&[2, 3]);
        let ids = whole.trace_ids.as_ptr();
        assert_eq!(whole.without(|_| false).trace_ids.as_ptr(), ids);
    }
}
