//! Histograms by powers of two, and quantiles of them.
//!
//! A value lies in the bucket of the smallest power of two that is not below it, which is told by its
//! exponent. Durations are bucketed in nanoseconds and told in seconds.

use std::collections::BTreeMap;

/// What floats below are counted as: 2 to the -30.
const EXPONENT_MIN: i32 = -30;
/// Stands for a bucket without cells yet.
const NONE: u32 = u32::MAX;

/// The place of a bucket among all buckets: its exponent, counted from the least.
pub(super) type Place = u32;

/// Counters per group, bucket and interval, of those buckets that occur.
#[derive(Debug, Clone)]
pub(super) struct Buckets {
    interval_count: usize,
    /// Group by group, `places` for each: which run of cells a bucket has.
    runs: Vec<u32>,
    /// Buckets that there is room for.
    places: usize,
    /// Run after run, one cell per interval.
    counts: Vec<u64>,
    run_count: u32,
}

/// Room for all buckets of integers; those of large floats make more.
const PLACES: usize = 96;

/// The buckets of a group: exponent and counts per interval, by exponent.
pub(super) type Rows<'a> = Vec<(i32, &'a [u64])>;

/// The place of integers that have no bucket: that of the smallest floats, which no integer is in.
pub(super) const NO_PLACE: Place = 0;

/// The bucket of an integer, when it has one.
#[inline]
pub(super) fn place_of_int(value: i64) -> Option<Place> {
    (value > 0).then(|| place_or_none(value))
}

/// The bucket of an integer, or [`NO_PLACE`]. Without branches: counting durations is mostly this.
#[inline]
pub(super) fn place_or_none(value: i64) -> Place {
    let place = 64 - (value as u64).wrapping_sub(1).leading_zeros() + EXPONENT_MIN.unsigned_abs();
    place * u32::from(value > 0)
}

/// The bucket of a float, when it has one.
#[inline]
pub(super) fn place_of_float(value: f64) -> Option<Place> {
    if !(value > 0.0 && value.is_finite()) {
        return None;
    }
    let bits = value.to_bits();
    let below = (bits >> 52) as i32 - 1023;
    let exponent = below + i32::from(bits << 12 != 0);
    Some((exponent.max(EXPONENT_MIN) - EXPONENT_MIN) as u32)
}

/// The upper bound of a bucket; of durations, in seconds.
pub(super) fn bound(exponent: i32, is_duration: bool) -> f64 {
    let bound = 2f64.powi(exponent);
    if is_duration { bound / 1e9 } else { bound }
}

pub(super) fn exponent_of(place: Place) -> i32 {
    place as i32 + EXPONENT_MIN
}

impl Buckets {
    pub(super) fn new(interval_count: usize) -> Self {
        Self { interval_count, runs: Vec::new(), places: PLACES, counts: Vec::new(), run_count: 0 }
    }

    fn group_count(&self) -> usize {
        self.runs.len() / self.places
    }

    /// Makes room for groups.
    pub(super) fn grow(&mut self, group_count: usize) {
        self.runs.resize(group_count.max(self.group_count()) * self.places, NONE);
    }

    /// Makes room for a bucket of each group.
    #[cold]
    fn widen(&mut self, place: Place) {
        let (places, group_count) = (place as usize + 1, self.group_count());
        let mut runs = vec![NONE; places * group_count];
        let old = self.runs.chunks(self.places);
        runs.chunks_mut(places).zip(old).for_each(|(runs, old)| runs[..old.len()].copy_from_slice(old));
        (self.runs, self.places) = (runs, places);
    }

    /// `place` has room.
    #[inline]
    fn run(&mut self, group: usize, place: Place) -> usize {
        match self.runs[group * self.places + place as usize] {
            NONE => self.begin_run(group, place),
            run => run as usize,
        }
    }

    #[cold]
    fn begin_run(&mut self, group: usize, place: Place) -> usize {
        self.runs[group * self.places + place as usize] = self.run_count;
        self.run_count += 1;
        self.counts.resize(self.run_count as usize * self.interval_count, 0);
        self.run_count as usize - 1
    }

    fn runs_of(&self, group: usize) -> &[u32] {
        &self.runs[group * self.places..][..self.places]
    }

    /// The buckets of a group that occur, with their runs, by place.
    fn occurring(&self, group: usize) -> impl Iterator<Item = (Place, &[u64])> {
        let runs = self.runs_of(group).iter().zip(0..).filter(|(run, _)| **run != NONE);
        runs.map(|(run, place)| (place, &self.counts[*run as usize * self.interval_count..][..self.interval_count]))
    }

    /// Counts a row per entry, as often as `weights` say.
    pub(super) fn observe(&mut self, groups: &[u32], intervals: &[u32], places: &[Place], weights: Option<&[u64]>) {
        let greatest = places.iter().fold(0, |greatest, place| greatest.max(*place));
        if greatest as usize >= self.places {
            self.widen(greatest);
        }
        for (at, ((group, interval), place)) in groups.iter().zip(intervals).zip(places).enumerate() {
            let run = self.run(*group as usize, *place);
            let count = &mut self.counts[run * self.interval_count + *interval as usize];
            *count = count.saturating_add(weights.map_or(1, |weights| weights[at]));
        }
    }

    /// Adds another's group to one of these.
    pub(super) fn merge(&mut self, group: usize, other: &Self, theirs: usize) {
        if other.places > self.places {
            self.widen(other.places as Place - 1);
        }
        for (place, cells) in other.occurring(theirs) {
            let run = self.run(group, place);
            let ours = &mut self.counts[run * self.interval_count..][..self.interval_count];
            ours.iter_mut().zip(cells).for_each(|(ours, theirs)| *ours += theirs);
        }
    }

    pub(super) fn rows(&self, group: usize) -> Rows<'_> {
        self.occurring(group).map(|(place, counts)| (exponent_of(place), counts)).collect()
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.counts.capacity() * size_of::<u64>() + self.runs.capacity() * size_of::<u32>()
    }
}

/// A quantile of values of which only buckets are known, as an exponent: 2 to its power is the value. `None`
/// without values.
///
/// Within a bucket, values are taken to be spread evenly over the exponents between the bucket before,
/// of those that occur, and its own.
fn quantile_exponent(buckets: &BTreeMap<i32, u64>, share: f64) -> Option<f64> {
    let total: u64 = buckets.values().sum();
    let needed = (share * total as f64).ceil().max(1.0);
    let (mut seen, mut before) = (0.0, None);
    for (exponent, count) in buckets.iter().filter(|(_, count)| **count > 0) {
        let count = *count as f64;
        let high = f64::from(*exponent);
        if seen + count == needed {
            return Some(high);
        }
        if seen + count > needed {
            let low = before.unwrap_or(high - 1.0);
            return Some(low + (high - low) * (needed - seen) / count);
        }
        seen += count;
        before = Some(high);
    }
    None
}

/// The quantile of the values of some buckets, by exponent; 0 without values.
pub(super) fn quantile(buckets: &BTreeMap<i32, u64>, share: f64, is_duration: bool) -> f64 {
    let value = quantile_exponent(buckets, share).map_or(0.0, f64::exp2);
    if is_duration { value / 1e9 } else { value }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check_int(value: i64, expect: Option<f64>) {
        assert_eq!(place_of_int(value).map(|place| bound(exponent_of(place), false)), expect, "{value}");
    }

    fn check_float(value: f64, expect: Option<f64>) {
        assert_eq!(place_of_float(value).map(|place| bound(exponent_of(place), false)), expect, "{value}");
    }

    #[test]
    fn a_bucket_ends_with_a_power_of_two() {
        for value in [0, -1, i64::MIN] {
            check_int(value, None);
        }
        for (value, bucket) in [(1, 1.0), (2, 2.0), (3, 4.0), (4, 4.0), (5, 8.0), (1 << 40, 2f64.powi(40))] {
            check_int(value, Some(bucket));
        }
        check_int(i64::MAX, Some(2f64.powi(63)));
        for value in [0.0, -0.5, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            check_float(value, None);
        }
        for (value, bucket) in [(1.0, 1.0), (0.5, 0.5), (0.51, 1.0), (3.0, 4.0), (1e300, 2f64.powi(997))] {
            check_float(value, Some(bucket));
        }
        for value in [1e-30, f64::MIN_POSITIVE, 5e-324] {
            check_float(value, Some(2f64.powi(-30)));
        }
    }

    #[test]
    fn durations_are_told_in_seconds() {
        let place = place_of_int(1_000_000_000).expect("above 0");
        assert_eq!(bound(exponent_of(place), true), 1.073741824);
    }

    fn check_quantile(buckets: &[(i32, u64)], share: f64, expect: f64) {
        let got = quantile(&buckets.iter().copied().collect(), share, false);
        assert!((got - expect).abs() <= 1e-9 * expect, "{share} of {buckets:?}: {got}, not {expect}");
    }

    #[test]
    fn quantiles_interpolate_between_exponents() {
        check_quantile(&[], 0.5, 0.0);
        check_quantile(&[(3, 0)], 0.5, 0.0);
        check_quantile(&[(3, 1)], 0.0, 8.0);
        check_quantile(&[(3, 2)], 0.5, 2f64.powf(2.5));
        check_quantile(&[(3, 2)], 1.0, 8.0);
        check_quantile(&[(3, 2), (4, 0), (5, 2)], 0.5, 8.0);
        check_quantile(&[(3, 2), (4, 0), (5, 2)], 0.75, 16.0);
        check_quantile(&[(34, 2), (35, 13)], 0.5, 2f64.powf(34.0 + 6.0 / 13.0));
    }

    /// Rows as (group, interval, place), counted naively.
    type Counted = BTreeMap<(usize, Place, u32), u64>;

    fn told(buckets: &Buckets) -> Counted {
        let mut told = Counted::new();
        for group in 0..buckets.group_count() {
            for (exponent, counts) in buckets.rows(group) {
                let cells = (0..).zip(counts).filter(|(_, count)| **count > 0);
                let place = (exponent - EXPONENT_MIN) as Place;
                told.extend(cells.map(|(interval, count)| ((group, place, interval), *count)));
            }
        }
        told
    }

    proptest! {
        #[test]
        fn every_row_is_counted_once_however_buckets_grow_and_merge(
            batches in prop::collection::vec(
                (any::<bool>(), prop::collection::vec((0..4u32, 0..3u32, prop_oneof![0..95u32, 0..1060u32]), 1..20)),
                1..6,
            ),
        ) {
            let (mut one, mut other) = (Buckets::new(3), Buckets::new(3));
            let mut expect = Counted::new();
            for (is_other, rows) in batches {
                let buckets = if is_other { &mut other } else { &mut one };
                buckets.grow(4);
                let groups: Vec<u32> = rows.iter().map(|row| row.0).collect();
                let intervals: Vec<u32> = rows.iter().map(|row| row.1).collect();
                buckets.observe(&groups, &intervals, &rows.iter().map(|row| row.2).collect::<Vec<_>>(), None);
                rows.iter().for_each(|row| *expect.entry((row.0 as usize, row.2, row.1)).or_default() += 1);
            }
            one.grow(4);
            (0..other.group_count()).for_each(|group| one.merge(group, &other, group));
            prop_assert_eq!(told(&one), expect);
        }
    }
}
