//! Histograms of powers of two, and quantiles read off them.

use crate::ast::Static;

/// Which power of two; durations are kept apart from plain numbers, as their bounds are told in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Bucket {
    pub(super) is_duration: bool,
    exponent: i16,
}

/// The least power of two that has a bucket.
const EXPONENT_MIN: i16 = -30;

impl Bucket {
    /// The bucket of an integer, or of a duration in nanoseconds: the smallest power of two that is not below it.
    /// `None` for what is not above zero.
    #[inline]
    pub(super) fn of_int(value: i64, is_duration: bool) -> Option<Self> {
        (value > 0).then(|| Self { is_duration, exponent: (64 - (value - 1).leading_zeros()) as i16 })
    }

    /// The bucket of a float.
    pub(super) fn of_float(value: f64) -> Option<Self> {
        if !(value > 0.0 && value.is_finite()) {
            return None;
        }
        let mut exponent = value.log2().ceil() as i16;
        // log2 rounds; the bound decides.
        if bound_of(exponent) < value {
            exponent += 1;
        } else if bound_of(exponent - 1) >= value {
            exponent -= 1;
        }
        Some(Self { is_duration: false, exponent: exponent.max(EXPONENT_MIN) })
    }

    /// The bucket of a value, `None` when it is no number above zero.
    pub(super) fn of(value: &Static) -> Option<Self> {
        match value {
            Static::Int(int) => Self::of_int(*int, false),
            Static::Duration(nanos) => Self::of_int(*nanos, true),
            Static::Float(float) => Self::of_float(*float),
            _ => None,
        }
    }

    /// The upper bound: seconds for durations.
    pub(super) fn bound(self) -> f64 {
        let bound = bound_of(self.exponent);
        if self.is_duration { bound / 1e9 } else { bound }
    }
}

fn bound_of(exponent: i16) -> f64 {
    f64::from(exponent).exp2()
}

/// The value below which a share of the observations lies, from (upper bound, count) ascending by bound:
/// exact at bounds, interpolated exponentially within a bucket. 0 when there are no observations.
pub(super) fn quantile(share: f64, buckets: &[(f64, u64)]) -> f64 {
    let total: u64 = buckets.iter().map(|(_, count)| count).sum();
    if total == 0 {
        return 0.0;
    }
    let needed = ((share * total as f64).ceil() as u64).max(1);
    let mut below = 0;
    let mut last_bound = None;
    for (bound, count) in buckets.iter().filter(|(_, count)| *count > 0) {
        if below + count < needed {
            below += count;
            last_bound = Some(*bound);
            continue;
        }
        if below + count == needed {
            return *bound;
        }
        let share_of_bucket = (needed - below) as f64 / *count as f64;
        let to = bound.log2();
        let from = last_bound.map_or(to - 1.0, f64::log2);
        return (from + (to - from) * share_of_bucket).exp2();
    }
    last_bound.unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_ends_at_the_next_power_of_two() {
        let bound = |value| Bucket::of(&value).map(Bucket::bound);
        assert_eq!(bound(Static::Duration(1_000_000_000)), Some(1.073_741_824));
        assert_eq!(bound(Static::Int(1)), Some(1.0));
        assert_eq!(bound(Static::Int(2)), Some(2.0));
        assert_eq!(bound(Static::Int(3)), Some(4.0));
        assert_eq!(bound(Static::Int(i64::MAX)), Some(9_223_372_036_854_775_808.0));
        assert_eq!(bound(Static::Float(0.25)), Some(0.25));
        assert_eq!(bound(Static::Float(0.26)), Some(0.5));
        assert_eq!(bound(Static::Float(1e-300)), Some(1.0 / f64::from(1 << 30)));
        assert_eq!(bound(Static::Int(0)), None);
        assert_eq!(bound(Static::Float(f64::NAN)), None);
        assert_eq!(bound(Static::Str("1".into())), None);
    }

    #[test]
    fn quantiles_are_interpolated_within_their_bucket() {
        assert_eq!(quantile(0.5, &[(1.0, 1), (2.0, 1), (4.0, 2), (8.0, 4), (16.0, 7)]), 8.0);
        let within = quantile(0.5, &[(16.0, 2), (32.0, 13)]);
        assert!((within - 16.0 * (6.0f64 / 13.0).exp2()).abs() < 1e-9, "{within}");
        assert_eq!(quantile(0.5, &[]), 0.0);
        assert_eq!(quantile(1.0, &[(2.0, 3)]), 2.0);
    }
}
