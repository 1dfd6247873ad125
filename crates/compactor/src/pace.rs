//! How a long piece of work leaves room for others: it rests in proportion to what it worked, read and wrote, and stops
//! when told.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use spoor_model::UnixNano;

/// Shorter rests cost more in waking up than they give.
const REST_MIN: Duration = Duration::from_millis(5);
/// A clock that was set must not put the work to sleep for a day.
const WORK_MAX: Duration = Duration::from_secs(1);

/// What work keeps to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shares {
    /// Of one core, 1 to 100.
    pub cpu_percent: u32,
    /// Read and written together, per second; 0 is no bound.
    pub io_bytes_per_second: u64,
}

/// How long to rest, and for which share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    None,
    Cpu(Duration),
    Io(Duration),
}

/// Keeps to a share of one core, by the clock: time in which others had the core counts as work, so that a busy machine
/// slows the work down further. And to a rate of bytes, for which work and rests count alike. Nothing is saved up: after
/// slow steps a fast one still rests.
#[derive(Debug)]
pub(crate) struct Pace {
    shares: Shares,
    since: UnixNano,
    io_bytes: u64,
    owed_to_cpu: Duration,
    owed_to_io: Duration,
}

impl Pace {
    pub(crate) fn new(shares: Shares, now: UnixNano) -> Self {
        assert!((1..=100).contains(&shares.cpu_percent), "a share is checked before it comes here");
        Self { shares, since: now, io_bytes: 0, owed_to_cpu: Duration::ZERO, owed_to_io: Duration::ZERO }
    }

    /// How long to rest now, having worked since the last rest. `io_bytes` were read and written since the beginning.
    pub(crate) fn rest(&mut self, now: UnixNano, io_bytes: u64) -> Rest {
        let worked = now.since(self.since).min(WORK_MAX);
        self.since = now;
        let moved_bytes = io_bytes.saturating_sub(self.io_bytes);
        self.io_bytes = io_bytes;
        let Shares { cpu_percent, io_bytes_per_second } = self.shares;
        self.owed_to_cpu += worked * (100 - cpu_percent) / cpu_percent;
        if io_bytes_per_second > 0 {
            let due = Duration::from_secs_f64(moved_bytes as f64 / io_bytes_per_second as f64);
            self.owed_to_io = (self.owed_to_io + due).saturating_sub(worked);
        }
        let rest = self.owed_to_cpu.max(self.owed_to_io);
        if rest < REST_MIN {
            return Rest::None;
        }
        let is_for_io = self.owed_to_io > self.owed_to_cpu;
        (self.owed_to_cpu, self.owed_to_io) = (Duration::ZERO, Duration::ZERO);
        if is_for_io { Rest::Io(rest) } else { Rest::Cpu(rest) }
    }

    /// What passed until now was no work.
    pub(crate) fn resume(&mut self, now: UnixNano) {
        self.since = now;
    }
}

impl Rest {
    pub(crate) fn duration(self) -> Duration {
        match self {
            Self::None => Duration::ZERO,
            Self::Cpu(duration) | Self::Io(duration) => duration,
        }
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

    /// Time and bytes of steps.
    fn steps() -> impl Strategy<Value = Vec<(u64, u64)>> {
        prop::collection::vec((1u64..200_000_000, 0u64..10_000_000), 20..100)
    }

    /// Does the steps at a pace: what was worked, rested for the processor and rested for the disk.
    fn work(shares: Shares, steps: &[(u64, u64)]) -> [Duration; 3] {
        let (mut now, mut io_bytes) = (UnixNano(5), 0);
        let mut pace = Pace::new(shares, now);
        let mut sums = [Duration::ZERO; 3];
        for (nanos, bytes) in steps {
            now = UnixNano(now.0 + nanos);
            io_bytes += bytes;
            sums[0] += Duration::from_nanos(*nanos);
            let rest = pace.rest(now, io_bytes);
            assert!(rest == Rest::None || rest.duration() >= REST_MIN, "{rest:?}");
            sums[if matches!(rest, Rest::Io(_)) { 2 } else { 1 }] += rest.duration();
            now = UnixNano(now.0 + rest.duration().as_nanos() as u64);
            pace.resume(now);
        }
        sums
    }

    proptest! {
        #[test]
        fn work_keeps_to_its_share(cpu_percent in 1u32..=100, steps in steps()) {
            let [worked, rested, for_io] = work(Shares { cpu_percent, io_bytes_per_second: 0 }, &steps);
            let wanted = worked * (100 - cpu_percent) / cpu_percent;
            prop_assert!(rested <= wanted, "{rested:?} of {wanted:?}");
            prop_assert!(rested + REST_MIN + Duration::from_micros(1) >= wanted, "{rested:?} of {wanted:?}");
            prop_assert_eq!(for_io, Duration::ZERO);
        }

        #[test]
        fn work_keeps_to_its_rate_of_bytes_and_to_its_share_at_once(
            cpu_percent in 1u32..=100,
            io_bytes_per_second in 1_000_000u64..500_000_000,
            steps in steps(),
        ) {
            let [worked, for_cpu, for_io] = work(Shares { cpu_percent, io_bytes_per_second }, &steps);
            let (rested, slack) = (for_cpu + for_io, REST_MIN + Duration::from_micros(100));
            let for_share = worked * (100 - cpu_percent) / cpu_percent;
            let bytes: u64 = steps.iter().map(|(_, bytes)| bytes).sum();
            let for_rate = Duration::from_secs_f64(bytes as f64 / io_bytes_per_second as f64);
            prop_assert!(rested + slack >= for_share, "{rested:?} of {for_share:?}");
            prop_assert!(worked + rested + slack >= for_rate, "{worked:?} and {rested:?} of {for_rate:?}");
            prop_assert!(rested <= for_share + for_rate + slack, "no more than both one after the other");
        }

        #[test]
        fn a_rate_that_is_not_reached_changes_nothing(cpu_percent in 1u32..=100, steps in steps()) {
            // More than the most bytes of a step in the shortest time.
            let bounded = work(Shares { cpu_percent, io_bytes_per_second: u64::MAX }, &steps);
            prop_assert_eq!(bounded, work(Shares { cpu_percent, io_bytes_per_second: 0 }, &steps));
        }
    }

    #[test]
    fn the_larger_rest_is_taken_once() {
        let shares = Shares { cpu_percent: 50, io_bytes_per_second: 1_000_000 };
        let mut pace = Pace::new(shares, UnixNano(0));
        let ms = |ms: u64| UnixNano(ms * 1_000_000);
        assert_eq!(
            pace.rest(ms(100), 150_000),
            Rest::Cpu(Duration::from_millis(100)),
            "150 ms are due, 100 were worked"
        );
        pace.resume(ms(200));
        assert_eq!(pace.rest(ms(300), 1_150_000), Rest::Io(Duration::from_millis(900)));
        pace.resume(ms(1200));
        assert_eq!(
            pace.rest(ms(1300), 1_150_000),
            Rest::Cpu(Duration::from_millis(100)),
            "nothing is owed from before"
        );
    }

    #[test]
    fn a_clock_that_jumps_does_not_stop_the_work() {
        let mut pace = Pace::new(Shares { cpu_percent: 50, io_bytes_per_second: 1000 }, UnixNano(0));
        assert_eq!(pace.rest(UnixNano(u64::MAX), 0), Rest::Cpu(WORK_MAX));
        assert_eq!(pace.rest(UnixNano(3), 0), Rest::None);
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
