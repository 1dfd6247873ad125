//! Times: nanoseconds since the Unix epoch, ranges of them, and where "now" comes from.

use std::time::Duration;

/// Nanoseconds since 1970-01-01T00:00:00Z, as OTLP has them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct UnixNano(pub u64);

impl UnixNano {
    /// From whole seconds; saturates in the year 2554.
    pub fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1_000_000_000))
    }

    /// The instant `earlier_by` before this one; saturates at the epoch.
    pub fn minus(self, earlier_by: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(earlier_by.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// How long after `earlier` this is; zero when it is not.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// A closed range of time: both ends belong to it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TimeRange {
    /// First instant.
    pub start: UnixNano,
    /// Last instant, not before `start`.
    pub end: UnixNano,
}

impl TimeRange {
    /// All of time.
    pub const ALL: Self = Self { start: UnixNano(0), end: UnixNano(u64::MAX) };

    /// Whether the two share an instant.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.start <= other.end && other.start <= self.end
    }

    /// The smallest range that holds both.
    pub fn union(&self, other: &Self) -> Self {
        Self { start: self.start.min(other.start), end: self.end.max(other.end) }
    }
}

/// Where "now" comes from: the system in production, the test's hand in tests.
pub trait Clock: Send + Sync {
    /// The present instant.
    fn now(&self) -> UnixNano;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_touch_overlap() {
        let range = |start, end| TimeRange { start: UnixNano(start), end: UnixNano(end) };
        assert!(range(1, 5).overlaps(&range(5, 9)));
        assert!(!range(1, 4).overlaps(&range(5, 9)));
        assert_eq!(range(1, 4).union(&range(3, 9)), range(1, 9));
    }
}
