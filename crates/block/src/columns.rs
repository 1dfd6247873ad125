//! The attribute columns of several batches, seen as one; and finding a row's value in them.

use std::sync::Arc;

use hashbrown::HashMap;
use spoor_model::batch::{AttrColumn, AttrValue, SpanBatch, ValueType};

use crate::order::RowRef;

/// Which of a batch's rows a sparse column has, with their places: a bit per row and a running
/// count per 64 rows, so that a lookup is one bit test and one population count.
#[derive(Debug)]
pub(crate) struct RankIndex {
    words: Vec<u64>,
    before: Vec<u32>,
}

impl RankIndex {
    pub(crate) fn new(row_count: usize, rows: &[u32]) -> Self {
        let mut words = vec![0u64; row_count.div_ceil(64)];
        for row in rows {
            words[*row as usize / 64] |= 1 << (row % 64);
        }
        let mut count = 0;
        let running = words.iter().map(|word| {
            let before = count;
            count += word.count_ones();
            before
        });
        let before = running.collect();
        Self { words, before }
    }

    /// The place of `row` among the column's rows.
    #[inline]
    pub(crate) fn rank(&self, row: u32) -> Option<usize> {
        let word = self.words[row as usize / 64];
        let bit = 1u64 << (row % 64);
        if word & bit == 0 {
            return None;
        }
        Some((self.before[row as usize / 64] + (word & (bit - 1)).count_ones()) as usize)
    }
}

/// One attribute of one type, over all batches.
pub(crate) struct MergedColumn<'a> {
    pub(crate) key: Arc<str>,
    pub(crate) value_type: ValueType,
    /// Per batch: the column, when the batch has it.
    pub(crate) parts: Vec<Option<(&'a AttrColumn, RankIndex)>>,
    /// Rows that have it.
    pub(crate) row_count: usize,
}

impl<'a> MergedColumn<'a> {
    /// The row's value.
    #[inline]
    pub(crate) fn get(&self, at: RowRef) -> Option<AttrValue<'a>> {
        let (column, ranks) = self.parts[at.batch as usize].as_ref()?;
        ranks.rank(at.row).map(|place| column.get_at(place))
    }
}

/// What an attribute column is of.
pub(crate) type ColumnName = (Arc<str>, ValueType);

/// All attribute columns, in the order of first appearance behind those of `known`, which may be empty here.
pub(crate) fn merge<'a>(known: &[ColumnName], batches: &[&'a SpanBatch]) -> Vec<MergedColumn<'a>> {
    let no_parts = || batches.iter().map(|_| None).collect();
    let of_known = known.iter().map(|(key, value_type)| MergedColumn {
        key: Arc::clone(key),
        value_type: *value_type,
        parts: no_parts(),
        row_count: 0,
    });
    let mut merged: Vec<MergedColumn<'a>> = of_known.collect();
    let mut index_of: HashMap<ColumnName, usize> = known.iter().cloned().zip(0..).collect();
    for (batch_index, batch) in batches.iter().enumerate() {
        for column in batch.columns() {
            let name = (Arc::clone(column.key()), column.value_type());
            let index = *index_of.entry(name).or_insert_with(|| {
                let (key, value_type) = (Arc::clone(column.key()), column.value_type());
                merged.push(MergedColumn { key, value_type, parts: no_parts(), row_count: 0 });
                merged.len() - 1
            });
            let ranks = RankIndex::new(batch.len(), column.rows());
            merged[index].parts[batch_index] = Some((column, ranks));
            merged[index].row_count += column.rows().len();
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ranks_are_places(rows in proptest::collection::btree_set(0..500u32, 0..200)) {
            let rows: Vec<u32> = rows.into_iter().collect();
            let ranks = RankIndex::new(500, &rows);
            for row in 0..500 {
                prop_assert_eq!(ranks.rank(row), rows.binary_search(&row).ok());
            }
        }
    }
}
