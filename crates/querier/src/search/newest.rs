//! The order of results, and the newest candidates of one scan in bounded memory.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use arrow_array::cast::AsArray;
use arrow_array::types::UInt64Type;
use arrow_array::{Array, RecordBatch};
use spoor_model::{TimeRange, TraceId, UnixNano};

/// Where a trace stands among results: later starts are greater, and of equal starts smaller ids, so
/// that the order is total and the same for every way in which spans are spread over sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    start: UnixNano,
    id: Reverse<TraceId>,
}

impl Place {
    pub(super) fn new(start: UnixNano, id: TraceId) -> Self {
        Self { start, id: Reverse(id) }
    }

    /// At or above every trace that starts then or earlier.
    pub(super) fn first_at(start: UnixNano) -> Self {
        Self::new(start, TraceId([0; 16]))
    }

    pub(super) fn id(self) -> TraceId {
        self.id.0
    }
}

/// A trace, where it stands at most, and what its source holds of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Named {
    pub(super) place: Place,
    held_start: UnixNano,
    held_end: UnixNano,
}

impl Named {
    /// Earliest start and latest end of the trace's spans in the source that named it.
    pub(super) fn held(&self) -> TimeRange {
        TimeRange { start: self.held_start, end: self.held_end }
    }
}

/// The greatest candidates at or below a bound.
#[derive(Debug)]
pub(super) struct Newest {
    capacity: usize,
    bound: Place,
    /// At most `capacity`.
    pub(super) kept: BinaryHeap<Reverse<Named>>,
    /// The greatest that found no room: all kept ones lie above it.
    pub(super) left_out: Option<Place>,
}

impl Newest {
    /// Nothing yet. The capacity is at least one.
    pub(super) fn new(capacity: usize, bound: Place) -> Self {
        assert!(capacity > 0, "a scan must get on");
        Self { capacity, bound, kept: BinaryHeap::new(), left_out: None }
    }

    /// Adds those of a batch of [`spoor_model::scan::candidate_schema`] that `is_wanted` and that
    /// find room. Starts after `ends_at` count as `ends_at`: no trace that is asked for starts later.
    pub(super) fn extend(
        &mut self,
        batch: &RecordBatch,
        ends_at: UnixNano,
        mut is_wanted: impl FnMut(TraceId, TimeRange) -> bool,
    ) {
        let ids = batch.column(0).as_fixed_size_binary();
        let starts = batch.column(1).as_primitive::<UInt64Type>();
        let ends = batch.column(2).as_primitive::<UInt64Type>();
        let null_count = ids.null_count() + starts.null_count() + ends.null_count();
        assert!(ids.value_length() == 16 && null_count == 0, "the candidate schema");
        for (row, (start, end)) in starts.values().iter().zip(ends.values()).enumerate() {
            let id = TraceId(ids.value(row).try_into().expect("16 bytes, checked above"));
            let held = TimeRange { start: UnixNano(*start), end: UnixNano(*end) };
            let place = Place::new(held.start.min(ends_at), id);
            if self.has_room(place) && is_wanted(id, held) {
                self.push(Named { place, held_start: held.start, held_end: held.end });
            }
        }
    }

    fn has_room(&self, place: Place) -> bool {
        place <= self.bound && self.left_out.is_none_or(|left_out| place > left_out)
    }

    fn push(&mut self, named: Named) {
        self.kept.push(Reverse(named));
        if self.kept.len() > self.capacity {
            // The heap yields its least: what is left out only rises, and stays below what is kept.
            let Reverse(least) = self.kept.pop().expect("it is over its capacity");
            self.left_out = self.left_out.max(Some(least.place));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn passes_over_the_same_places_yield_each_once_in_order(
            starts in prop::collection::btree_set(0_u64..500, 0..60),
            capacity in 1_usize..10,
        ) {
            let places: Vec<Place> =
                starts.iter().map(|start| Place::new(UnixNano(*start), TraceId([(*start % 7) as u8; 16]))).collect();
            let (mut got, mut bound) = (Vec::new(), Some(Place::first_at(UnixNano(u64::MAX))));
            while let Some(at_most) = bound {
                let mut newest = Newest::new(capacity, at_most);
                // Any order will do; this one is neither ascending nor descending.
                for place in places.iter().step_by(2).chain(places.iter().skip(1).step_by(2)) {
                    if newest.has_room(*place) {
                        newest.push(Named { place: *place, held_start: UnixNano(0), held_end: UnixNano(0) });
                    }
                }
                bound = newest.left_out;
                prop_assert!(newest.kept.iter().all(|Reverse(kept)| Some(kept.place) > bound));
                let mut kept: Vec<Place> = newest.kept.into_iter().map(|Reverse(kept)| kept.place).collect();
                kept.sort_unstable_by(|a, b| b.cmp(a));
                got.extend(kept);
            }
            prop_assert_eq!(got, places.into_iter().rev().collect::<Vec<_>>());
        }
    }
}
