//! What each column of a row group holds, so that a query knows without the footer of `spans.parquet` what it need not read.
//!
//! A section of `index.bin`: varints. The number of columns; then per row group, per column in file order, what is known:
//!
//! ```text
//!   0                          no row has a value
//!   1                          some row has one
//!   2 least range              integers: zigzag of the least, and how far the greatest is above it
//!   3 least range              the same, and all of them are in the row group's filter of values
//! ```

use parquet::file::metadata::{ColumnChunkMetaData, RowGroupMetaData};
use parquet::file::statistics::Statistics;
use spoor_model::wire;

use crate::traces::take_varint;

/// What is known of a column of a row group. What it says is certain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ColumnSummary {
    /// No row has a value.
    Empty,
    /// Some row has one.
    Some,
    /// 64-bit integers between two that occur.
    Ints { least: i64, greatest: i64, are_in_filter: bool },
}

/// What is known of all columns of all row groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ColumnSummaries {
    column_count: usize,
    /// By row group, then by column.
    all: Vec<ColumnSummary>,
}

impl ColumnSummary {
    /// By the footer of `spans.parquet`.
    pub(crate) fn of_chunk(chunk: &ColumnChunkMetaData, row_count: i64) -> Self {
        let statistics = chunk.statistics();
        if statistics.and_then(Statistics::null_count_opt) == Some(row_count.max(0) as u64) {
            return Self::Empty;
        }
        match statistics {
            Some(Statistics::Int64(bounds)) => match (bounds.min_opt(), bounds.max_opt()) {
                (Some(least), Some(greatest)) if least <= greatest => {
                    Self::Ints { least: *least, greatest: *greatest, are_in_filter: false }
                }
                _ => Self::Some,
            },
            _ => Self::Some,
        }
    }
}

impl ColumnSummaries {
    /// Of row groups that were written. `is_in_filter`: whether the integers of a column are in the filters of values.
    pub(crate) fn of_groups(groups: &[RowGroupMetaData], is_in_filter: impl Fn(usize) -> bool) -> Self {
        let column_count = groups.first().map_or(0, RowGroupMetaData::num_columns);
        let of_column = |group: &RowGroupMetaData, column: usize| match ColumnSummary::of_chunk(
            group.column(column),
            group.num_rows(),
        ) {
            ColumnSummary::Ints { least, greatest, .. } => {
                ColumnSummary::Ints { least, greatest, are_in_filter: is_in_filter(column) }
            }
            other => other,
        };
        let all = groups.iter().flat_map(|group| (0..column_count).map(move |column| (group, column)));
        Self { column_count, all: all.map(|(group, column)| of_column(group, column)).collect() }
    }

    /// Whether these are of so many row groups and columns.
    pub(crate) fn fit(&self, group_count: usize, column_count: usize) -> bool {
        self.column_count == column_count && self.all.len() == group_count * column_count
    }

    /// # Panics
    /// When there is no such row group or column.
    pub(crate) fn get(&self, group: usize, column: usize) -> ColumnSummary {
        assert!(column < self.column_count, "a column of the block");
        self.all[group * self.column_count + column]
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        wire::put_varint(&mut out, self.column_count as u64);
        for summary in &self.all {
            match summary {
                ColumnSummary::Empty => wire::put_varint(&mut out, 0),
                ColumnSummary::Some => wire::put_varint(&mut out, 1),
                ColumnSummary::Ints { least, greatest, are_in_filter } => {
                    wire::put_varint(&mut out, 2 + u64::from(*are_in_filter));
                    wire::put_varint(&mut out, ((least << 1) ^ (least >> 63)) as u64);
                    wire::put_varint(&mut out, greatest.wrapping_sub(*least) as u64);
                }
            }
        }
        out
    }

    /// Reads the section; `None` when it is malformed.
    pub(crate) fn decode(section: &[u8]) -> Option<Self> {
        let mut bytes = section;
        let column_count = usize::try_from(take_varint(&mut bytes)?).ok()?;
        let mut all = Vec::new();
        while !bytes.is_empty() {
            all.push(match take_varint(&mut bytes)? {
                0 => ColumnSummary::Empty,
                1 => ColumnSummary::Some,
                known @ (2 | 3) => {
                    let (zigzag, range) = (take_varint(&mut bytes)?, take_varint(&mut bytes)?);
                    let least = (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64);
                    let greatest = least.checked_add_unsigned(range)?;
                    ColumnSummary::Ints { least, greatest, are_in_filter: known == 3 }
                }
                _ => return None,
            });
        }
        Some(Self { column_count, all })
    }

    /// A rough count of the memory held.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.all.len() * size_of::<ColumnSummary>()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn summary() -> impl Strategy<Value = ColumnSummary> {
        let ints = (any::<i64>(), any::<i64>(), any::<bool>()).prop_map(|(a, b, are_in_filter)| ColumnSummary::Ints {
            least: a.min(b),
            greatest: a.max(b),
            are_in_filter,
        });
        prop_oneof![Just(ColumnSummary::Empty), Just(ColumnSummary::Some), ints]
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(
            column_count in 1..8usize,
            all in proptest::collection::vec(summary(), 64),
            group_count in 0..8usize,
            cut in any::<prop::sample::Index>(),
        ) {
            let all = all[..column_count * group_count].to_vec();
            let summaries = ColumnSummaries { column_count, all };
            let section = summaries.encode();
            prop_assert_eq!(ColumnSummaries::decode(&section), Some(summaries.clone()));
            prop_assert!(summaries.fit(group_count, column_count));
            let cut = &section[..cut.index(section.len())];
            prop_assert!(ColumnSummaries::decode(cut).is_none_or(|cut| !cut.fit(group_count, column_count)));
        }
    }
}
