//! What came late goes into blocks of its own time.
//!
//! ```text
//!   traces of the inputs, by start   . .  .      .  ....................................   .
//!   windows                        |  a  |  b  |  c  |  d  | window before |   window    |   |
//!   new blocks                     |--1--|      |-2--|     |----------- 3 -------------|   |-4
//! ```
//!
//! Blocks are cut from what comes in together, whenever it happened. Without this, a span that comes a week late would keep
//! its block from ending before today, and today's block would seem to hold last week.

use std::collections::BTreeSet;
use std::time::Duration;

use spoor_model::UnixNano;

/// More windows of late traces than this do not get blocks of their own: those before go with the oldest.
pub const LATE_BLOCKS_MAX: usize = 8;

/// The window of time that blocks belong to that are merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeWindow {
    /// Where it begins: a multiple of its length.
    pub start: UnixNano,
    /// How long it is; more than zero.
    pub length: Duration,
}

/// The starts of traces at which new blocks begin, ascending. Traces that begin in the window or in the one before it
/// stay together: what is long or a little late is no reason for another block.
pub(super) fn boundaries(window: TimeWindow, starts: impl Iterator<Item = UnixNano>) -> Vec<UnixNano> {
    let length = u64::try_from(window.length.as_nanos()).unwrap_or(u64::MAX).max(1);
    let late_until = window.start.minus(window.length).0;
    let ahead_from = window.start.0.saturating_add(length.saturating_mul(2));
    let mut late: BTreeSet<u64> = BTreeSet::new();
    for start in starts.filter(|start| start.0 < late_until) {
        late.insert(start.0 / length);
        if late.len() > LATE_BLOCKS_MAX {
            late.pop_first();
        }
    }
    // The oldest of them begins where everything does.
    let late = late.into_iter().skip(1).map(|number| UnixNano(number * length));
    late.chain([UnixNano(late_until), UnixNano(ahead_from)]).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(starts: &[u64]) -> Vec<u64> {
        let window = TimeWindow { start: UnixNano(1000), length: Duration::from_nanos(10) };
        boundaries(window, starts.iter().map(|start| UnixNano(*start))).into_iter().map(|start| start.0).collect()
    }

    #[test]
    fn what_is_late_is_kept_apart_by_its_window_and_what_is_not_stays_together() {
        assert_eq!(at(&[]), [990, 1020]);
        assert_eq!(at(&[990, 1000, 1009, 1015]), [990, 1020]);
        assert_eq!(at(&[505, 501, 989, 1002]), [980, 990, 1020]);
        assert_eq!(at(&[3, 505, 509, 989]), [500, 980, 990, 1020]);
    }

    proptest! {
        #[test]
        fn there_are_never_many_and_they_ascend(starts in prop::collection::vec(any::<u64>(), 0..60)) {
            let window = TimeWindow { start: UnixNano(u64::MAX / 10 * 9), length: Duration::from_nanos(u64::MAX / 90) };
            let found = boundaries(window, starts.into_iter().map(UnixNano));
            prop_assert!(found.len() <= LATE_BLOCKS_MAX + 1);
            prop_assert!(found.windows(2).all(|pair| pair[0] < pair[1]));
        }
    }
}
