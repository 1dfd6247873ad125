//! Which of the blocks that are there count.
//!
//! A merge puts its new blocks beside the old ones before it takes the old ones away, one object at a time; whoever
//! looks in between must see the old ones or the new ones.
//!
//! ```text
//!   old A, B           A, B count
//!   A, B, new X        X was made with Y, which is not there: A, B count
//!   A, B, X, Y         X, Y count
//!   X, Y               X, Y count
//!   Y, Z of X and C    Y, Z count: X is in Z, and A, B are gone, so they were complete
//! ```

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use spoor_model::BlockId;

use crate::meta::BlockMeta;

/// What becomes of blocks of one tenant that are found somewhere.
#[derive(Debug, Default)]
pub struct Lineage<'a> {
    /// They count: all that was made with them is there or has gone on into another merge.
    pub counting: Vec<&'a BlockMeta>,
    /// What those that count were merged from, whether it is there or not.
    pub replaced: BTreeSet<BlockId>,
    /// They are replaced by nothing that is there, and do not count all the same.
    pub doubtful: Vec<&'a BlockMeta>,
}

impl<'a> Lineage<'a> {
    /// Which blocks of `found` count beside `known`, which do: not what another one replaces, not a part of a merge whose other
    /// parts are not there, and not what was merged from a block that `is_outdated` names.
    pub fn of(
        known: &[&'a BlockMeta],
        found: impl IntoIterator<Item = &'a BlockMeta>,
        is_outdated: &dyn Fn(&BlockMeta) -> bool,
    ) -> Self {
        let mut found: Vec<&BlockMeta> = found.into_iter().collect();
        // What was merged from others is younger than they are, but clocks may differ: levels do not.
        found.sort_by_key(|meta| (Reverse(meta.merge_level), meta.id));
        let there: BTreeMap<BlockId, &BlockMeta> = known.iter().chain(&found).map(|meta| (meta.id, *meta)).collect();
        let mut lineage = Self::default();
        lineage.replaced.extend(known.iter().flat_map(|meta| &meta.replaces));
        for meta in found {
            if lineage.replaced.contains(&meta.id) {
                // Its own merge was complete, or it could not have been merged.
                lineage.replaced.extend(&meta.replaces);
                continue;
            }
            let has = |id: &BlockId| there.contains_key(id) || lineage.replaced.contains(id);
            let is_complete = meta.merged_with.iter().all(has) || !meta.replaces.iter().any(has);
            let mut inputs = meta.replaces.iter().filter_map(|id| there.get(id));
            if is_complete && !inputs.any(|input| is_outdated(input)) {
                lineage.counting.push(meta);
                lineage.replaced.extend(&meta.replaces);
            } else {
                lineage.doubtful.push(meta);
            }
        }
        lineage
    }
}

/// The blocks of one tenant that count, of all that are there.
pub fn visible<'a>(there: impl IntoIterator<Item = &'a BlockMeta>) -> BTreeSet<BlockId> {
    Lineage::of(&[], there, &|_| false).counting.iter().map(|meta| meta.id).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use spoor_model::{TenantId, TimeRange, UnixNano};

    use super::*;

    fn block(id: u128, level: u32, replaces: &[u128], merged_with: &[u128]) -> BlockMeta {
        let ids = |ids: &[u128]| ids.iter().copied().map(BlockId).collect();
        let mut meta = BlockMeta::without_files(BlockId(id), TenantId::single(), UnixNano(0), TimeRange::ALL);
        meta.merge_level = level;
        meta.replaces = ids(replaces);
        meta.merged_with = ids(merged_with);
        meta
    }

    #[test]
    fn the_old_or_the_new_count() {
        let [a, b, c] = [1, 2, 3].map(|id| block(id, 0, &[], &[]));
        let x = block(10, 1, &[1, 2], &[11]);
        let y = block(11, 1, &[1, 2], &[10]);
        let z = block(20, 2, &[3, 10], &[]);
        let check = |there: &[&BlockMeta], want: &[u128]| {
            let found: Vec<_> = visible(there.iter().copied()).into_iter().map(|id| id.0).collect();
            assert_eq!(found, want);
        };
        check(&[&a, &b], &[1, 2]);
        check(&[&a, &b, &x], &[1, 2]);
        check(&[&a, &b, &x, &y], &[10, 11]);
        check(&[&b, &x, &y], &[10, 11]);
        check(&[&x, &y], &[10, 11]);
        check(&[&x, &y, &c, &z], &[11, 20]);
        check(&[&y, &z], &[11, 20]);
        // Slow deleting: everything that there ever was.
        check(&[&a, &b, &c, &x, &y, &z], &[11, 20]);
    }

    /// A simulated life: blocks as sets of spans, merged again and again; each step of a merge is a moment that
    /// somebody may look at.
    fn moments(steps: &[(usize, usize, usize)]) -> Vec<(Vec<BlockMeta>, usize)> {
        let mut next = 100u128;
        let mut there: Vec<BlockMeta> = Vec::new();
        let mut live: Vec<(BlockMeta, Vec<usize>)> = Vec::new();
        let mut moments = Vec::new();
        let mut spans = 0;
        for (cuts, inputs, outputs) in steps {
            for _ in 0..*cuts {
                let cut = block(next, 0, &[], &[]);
                next += 1;
                there.push(cut.clone());
                live.push((cut, vec![spans]));
                spans += 1;
                moments.push((there.clone(), spans));
            }
            let inputs: Vec<_> = live.drain(..(*inputs).min(live.len())).collect();
            if inputs.is_empty() {
                continue;
            }
            let held: Vec<usize> = inputs.iter().flat_map(|(_, spans)| spans.clone()).collect();
            let ids: Vec<u128> = (0..*outputs as u128).map(|index| next + index).collect();
            next += *outputs as u128;
            let level = 1 + inputs.iter().map(|(meta, _)| meta.merge_level).max().unwrap_or(0);
            let replaces: Vec<u128> = inputs.iter().map(|(meta, _)| meta.id.0).collect();
            for (index, id) in ids.iter().enumerate() {
                let others: Vec<u128> = ids.iter().copied().filter(|other| other != id).collect();
                let new = block(*id, level, &replaces, &others);
                there.push(new.clone());
                let share = held.iter().copied().filter(|span| span % ids.len() == index).collect();
                live.push((new, share));
                moments.push((there.clone(), spans));
            }
            for (old, _) in inputs {
                there.retain(|meta| meta.id != old.id);
                moments.push((there.clone(), spans));
            }
        }
        moments
    }

    /// The spans that blocks hold, by what they were merged from.
    fn spans_of(id: BlockId, lives: &BTreeMap<BlockId, BlockMeta>, cut_order: &BTreeMap<BlockId, usize>) -> Vec<usize> {
        match cut_order.get(&id) {
            Some(span) => vec![*span],
            None => {
                let meta = &lives[&id];
                let mut group = meta.merged_with.clone();
                group.push(id);
                group.sort_unstable();
                let place = group.iter().position(|other| *other == id).unwrap();
                let all = meta.replaces.iter().flat_map(|input| spans_of(*input, lives, cut_order));
                all.filter(|span| span % group.len() == place).collect()
            }
        }
    }

    proptest! {
        #[test]
        fn at_every_moment_each_span_counts_once(
            steps in prop::collection::vec((0..4usize, 1..4usize, 1..4usize), 1..12),
        ) {
            let (mut lives, mut cut_order) = (BTreeMap::new(), BTreeMap::new());
            for (there, span_count) in moments(&steps) {
                for meta in &there {
                    if meta.merge_level == 0 && !cut_order.contains_key(&meta.id) {
                        cut_order.insert(meta.id, cut_order.len());
                    }
                    lives.insert(meta.id, meta.clone());
                }
                let counted = visible(&there);
                let mut seen: Vec<_> = counted.iter().flat_map(|id| spans_of(*id, &lives, &cut_order)).collect();
                seen.sort_unstable();
                prop_assert_eq!(seen, (0..span_count).collect::<Vec<_>>());
            }
        }
    }
}
