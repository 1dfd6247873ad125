//! How a long piece of work leaves room for others: it rests in proportion to what it worked, and stops when told.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use spoor_model::UnixNano;

/// Shorter rests cost more in waking up than they give.
const REST_MIN: Duration = Duration::from_millis(5);
/// A clock that was set must not put the work to sleep for a day.
const WORK_MAX: Duration = Duration::from_secs(1);

/// Keeps to a share of one core, by the clock: time in which others had the core counts as work, so that a busy machine
/// slows the work down further.
#[derive(Debug)]
pub(crate) struct Pace {
    /// 1 to 100.
    share_percent: u32,
    since: UnixNano,
    owed: Duration,
}

impl Pace {
    pub(crate) fn new(share_percent: u32, now: UnixNano) -> Self {
        assert!((1..=100).contains(&share_percent), "a share is checked before it comes here");
        Self { share_percent, since: now, owed: Duration::ZERO }
    }

    /// How long to rest now, having worked since the last rest.
    pub(crate) fn rest(&mut self, now: UnixNano) -> Duration {
        let worked = now.since(self.since).min(WORK_MAX);
        self.since = now;
        self.owed += worked * (100 - self.share_percent) / self.share_percent;
        match self.owed >= REST_MIN {
            true => std::mem::take(&mut self.owed),
            false => Duration::ZERO,
        }
    }

    /// What passed until now was no work.
    pub(crate) fn resume(&mut self, now: UnixNano) {
        self.since = now;
    }
}

/// Stops work, also while it rests.
#[derive(Debug, Default)]
pub struct Brake {
    is_pulled: Mutex<bool>,
    pulled: Condvar,
}

impl Brake {
    /// Stops the work, for good.
    pub fn pull(&self) {
        *self.is_pulled.lock() = true;
        self.pulled.notify_all();
    }

    /// Waits, at most as long as said. Returns whether the work must stop.
    pub fn wait(&self, at_most: Duration) -> bool {
        let mut is_pulled = self.is_pulled.lock();
        if !at_most.is_zero() {
            self.pulled.wait_while_for(&mut is_pulled, |is_pulled| !*is_pulled, at_most);
        }
        *is_pulled
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn work_keeps_to_its_share(share in 1u32..=100, steps in prop::collection::vec(1u64..200_000_000, 20..100)) {
            let mut now = UnixNano(5);
            let mut pace = Pace::new(share, now);
            let (mut worked, mut rested) = (Duration::ZERO, Duration::ZERO);
            for step in steps {
                now = UnixNano(now.0 + step);
                worked += Duration::from_nanos(step);
                let rest = pace.rest(now);
                rested += rest;
                now = UnixNano(now.0 + rest.as_nanos() as u64);
                pace.resume(now);
            }
            let wanted = worked * (100 - share) / share;
            prop_assert!(rested <= wanted, "{rested:?} of {wanted:?}");
            prop_assert!(rested + REST_MIN + Duration::from_micros(1) >= wanted, "{rested:?} of {wanted:?}");
        }
    }

    #[test]
    fn a_clock_that_jumps_does_not_stop_the_work() {
        let mut pace = Pace::new(50, UnixNano(0));
        assert_eq!(pace.rest(UnixNano(u64::MAX)), WORK_MAX);
        assert_eq!(pace.rest(UnixNano(3)), Duration::ZERO);
    }

    #[test]
    fn a_brake_ends_a_wait() {
        let brake = Brake::default();
        assert!(!brake.wait(Duration::ZERO) && !brake.wait(Duration::from_millis(1)));
        std::thread::scope(|scope| {
            scope.spawn(|| brake.pull());
            assert!(brake.wait(Duration::from_secs(60)));
        });
        assert!(brake.wait(Duration::from_secs(60)), "and stays");
    }
}
