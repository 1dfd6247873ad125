//! Counters: one cell per group and interval, group after group.

use super::histogram::Buckets;

/// Stands for no value in cells of least and greatest values, and among points.
const ABSENT: f64 = f64::NAN;

/// What is kept of the spans of each group and interval.
#[derive(Debug, Clone)]
pub(super) enum Cells {
    Counts(Vec<u64>),
    Least(Vec<f64>),
    Greatest(Vec<f64>),
    Sums(Vec<Sum>),
    Buckets(Buckets),
}

/// A sum that does not lose small values beside large ones (Neumaier's variant of Kahan's), and how many values went
/// into it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Sum {
    sum: f64,
    lost: f64,
    count: u64,
}

impl Sum {
    /// Adds a value that occurred so many times.
    #[inline]
    pub(super) fn add(&mut self, value: f64, times: u64) {
        self.add_lossy(value * times as f64);
        self.count = self.count.saturating_add(times);
    }

    #[inline]
    fn add_lossy(&mut self, value: f64) {
        let sum = self.sum + value;
        self.lost += match self.sum.abs() >= value.abs() {
            true => (self.sum - sum) + value,
            false => (value - sum) + self.sum,
        };
        self.sum = sum;
    }

    fn merge(&mut self, other: &Self) {
        self.add_lossy(other.sum);
        self.lost += other.lost;
        self.count += other.count;
    }

    /// `None` without values.
    pub(super) fn total(&self) -> Option<f64> {
        // Infinities lose infinitely much.
        let total = if self.lost.is_finite() { self.sum + self.lost } else { self.sum };
        (self.count > 0).then_some(total)
    }

    /// `None` without values.
    pub(super) fn mean(&self) -> Option<f64> {
        self.total().map(|total| total / self.count as f64)
    }
}

impl Cells {
    /// Makes room for this many cells. New ones hold nothing.
    pub(super) fn grow(&mut self, len: usize) {
        match self {
            Self::Counts(counts) => counts.resize(len.max(counts.len()), 0),
            Self::Least(values) | Self::Greatest(values) => values.resize(len.max(values.len()), ABSENT),
            Self::Sums(sums) => sums.resize(len.max(sums.len()), Sum::default()),
            Self::Buckets(_) => {}
        }
    }

    /// Counts a row per entry, or takes its value in; `values` are as many as `cells`, or none when rows are only
    /// counted. Rows count as often as `weights` say.
    pub(super) fn observe(&mut self, cells: &[u32], values: &[f64], weights: Option<&[u64]>) {
        let times = |at: usize| weights.map_or(1, |weights| weights[at]);
        match self {
            Self::Counts(counts) => cells.iter().enumerate().for_each(|(at, cell)| {
                let count = &mut counts[*cell as usize];
                *count = count.saturating_add(times(at));
            }),
            Self::Least(least) => {
                let pairs = cells.iter().zip(values);
                pairs.for_each(|(cell, value)| least[*cell as usize] = least[*cell as usize].min(*value));
            }
            Self::Greatest(greatest) => {
                let pairs = cells.iter().zip(values);
                pairs.for_each(|(cell, value)| greatest[*cell as usize] = greatest[*cell as usize].max(*value));
            }
            Self::Sums(sums) => {
                let pairs = cells.iter().zip(values).enumerate();
                pairs.for_each(|(at, (cell, value))| sums[*cell as usize].add(*value, times(at)));
            }
            Self::Buckets(_) => {}
        }
    }

    /// Adds another's cells from `theirs` on to those from `ours` on, `len` of them.
    pub(super) fn merge(&mut self, ours: usize, other: &Self, theirs: usize, len: usize) {
        let (ours, theirs) = (ours..ours + len, theirs..theirs + len);
        match (self, other) {
            (Self::Counts(a), Self::Counts(b)) => a[ours].iter_mut().zip(&b[theirs]).for_each(|(a, b)| *a += b),
            (Self::Least(a), Self::Least(b)) => a[ours].iter_mut().zip(&b[theirs]).for_each(|(a, b)| *a = a.min(*b)),
            (Self::Greatest(a), Self::Greatest(b)) => {
                a[ours].iter_mut().zip(&b[theirs]).for_each(|(a, b)| *a = a.max(*b));
            }
            (Self::Sums(a), Self::Sums(b)) => a[ours].iter_mut().zip(&b[theirs]).for_each(|(a, b)| a.merge(b)),
            _ => {}
        }
    }

    pub(super) fn held_bytes(&self) -> usize {
        match self {
            Self::Counts(counts) => counts.capacity() * size_of::<u64>(),
            Self::Least(values) | Self::Greatest(values) => values.capacity() * size_of::<f64>(),
            Self::Sums(sums) => sums.capacity() * size_of::<Sum>(),
            Self::Buckets(buckets) => buckets.held_bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(values: &[f64], expect: Option<f64>) {
        let mut one = Sum::default();
        values.iter().for_each(|value| one.add(*value, 1));
        let (left, right) = values.split_at(values.len() / 2);
        let mut parts = [left, right].map(|part| {
            let mut sum = Sum::default();
            part.iter().for_each(|value| sum.add(*value, 1));
            sum
        });
        let right = parts[1];
        parts[0].merge(&right);
        for sum in [one, parts[0]] {
            assert_eq!(sum.total(), expect, "{values:?}");
            assert_eq!(sum.mean(), expect.map(|total| total / values.len() as f64), "{values:?}");
        }
    }

    #[test]
    fn sums_keep_what_is_small() {
        check(&[], None);
        check(&[1.0], Some(1.0));
        check(&[1e100, 1.0, -1e100, 1.0], Some(2.0));
        check(&[0.1; 10], Some(1.0));
        check(&[f64::INFINITY, 1.0, 2.0], Some(f64::INFINITY));
    }
}
