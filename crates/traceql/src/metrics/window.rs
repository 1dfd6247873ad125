//! The time that a metrics query looks at, in intervals.

use spoor_model::TimeRange;
use spoor_model::UnixNano;
use spoor_model::columns::Intervals;

/// Consecutive intervals of one length. Interval `i` holds spans with a start in
/// `(start + i * step, start + (i + 1) * step]`, and its point stands at its right end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    start_nano: u64,
    step_nano: u64,
    interval_count: u64,
}

const SECOND: u64 = 1_000_000_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;

impl Window {
    /// The intervals of a range query, aligned to the epoch: those that begin before `start` and end at or
    /// after `end`, so that there is a point at or before the start as there is one at or after the end.
    /// Nanoseconds; `step` is not zero.
    pub fn aligned(start_nano: u64, end_nano: u64, step_nano: u64) -> Self {
        let first = (start_nano / step_nano * step_nano).saturating_sub(step_nano);
        let last = end_nano.div_ceil(step_nano).saturating_mul(step_nano);
        Self::exact(first, last, step_nano)
    }

    /// The intervals from `start` on that are needed to reach `end`: one at least.
    pub fn exact(start_nano: u64, end_nano: u64, step_nano: u64) -> Self {
        let interval_count = end_nano.saturating_sub(start_nano).div_ceil(step_nano.max(1)).max(1);
        Self { start_nano, step_nano: step_nano.max(1), interval_count }
    }

    /// One interval, for an instant query.
    pub fn instant(start_nano: u64, end_nano: u64) -> Self {
        let step_nano = end_nano.saturating_sub(start_nano).max(1);
        Self { start_nano, step_nano, interval_count: 1 }
    }

    /// The step of a range query that names none: about 240 points, of a length that people count in.
    pub fn default_step_nano(start_nano: u64, end_nano: u64) -> u64 {
        let range = end_nano.saturating_sub(start_nano);
        let wanted = range / 240;
        if range < MINUTE {
            let unit = 50_000_000;
            return (wanted / unit * unit).max(unit);
        }
        let units = [HOUR, 5 * MINUTE, MINUTE, 15 * SECOND, 5 * SECOND, SECOND];
        let unit = units.into_iter().find(|unit| *unit < wanted).unwrap_or(SECOND);
        (wanted / unit * unit).max(SECOND)
    }

    /// How many intervals.
    pub fn interval_count(&self) -> u64 {
        self.interval_count
    }

    /// Length of an interval in nanoseconds.
    pub fn step_nano(&self) -> u64 {
        self.step_nano
    }

    /// No span that starts at this or earlier counts.
    pub fn start_nano(&self) -> u64 {
        self.start_nano
    }

    /// The last start that counts.
    pub fn end_nano(&self) -> u64 {
        self.start_nano.saturating_add(self.step_nano.saturating_mul(self.interval_count))
    }

    /// The right end of an interval in nanoseconds.
    pub fn point_nano(&self, interval: usize) -> u64 {
        self.start_nano.saturating_add(self.step_nano.saturating_mul(interval as u64 + 1))
    }

    /// The interval of a span that starts then; `None` outside.
    pub fn interval_of(&self, start_nano: u64) -> Option<usize> {
        let after = start_nano.checked_sub(self.start_nano)?.checked_sub(1)?;
        let interval = after / self.step_nano;
        (interval < self.interval_count).then_some(interval as usize)
    }

    /// The intervals as sources know them.
    pub(super) fn intervals(&self) -> Intervals {
        Intervals { start_nano: self.start_nano, step_nano: self.step_nano, count: self.interval_count }
    }

    /// Whatever has a span that counts overlaps this.
    pub fn range(&self) -> TimeRange {
        TimeRange { start: UnixNano(self.start_nano), end: UnixNano(self.end_nano()) }
    }
}

/// Finds intervals, fast.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clockwork {
    start: u64,
    len: u64,
    step: u64,
    per_nano: f64,
}

impl Clockwork {
    pub(super) fn new(window: &Window) -> Self {
        let len = window.end_nano() - window.start_nano;
        Self { start: window.start_nano, len, step: window.step_nano, per_nano: 1.0 / window.step_nano as f64 }
    }

    /// The interval of an instant, `None` outside the window. Multiplies instead of dividing: a division
    /// takes longer than all the rest of counting a span.
    #[inline]
    pub(super) fn interval_of(&self, time: u64) -> Option<u32> {
        let offset = time.wrapping_sub(self.start).wrapping_sub(1);
        if offset >= self.len {
            return None;
        }
        // Rounding may miss by one.
        let guess = (offset as i64 as f64 * self.per_nano) as i64 as u64;
        let begin = guess.wrapping_mul(self.step);
        let interval = match offset.wrapping_sub(begin) {
            within if within < self.step => guess,
            before if before > u64::MAX / 2 => guess - 1,
            _ => guess + 1,
        };
        Some(interval as u32)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn intervals_are_open_on_the_left() {
        let window = Window::aligned(1, 50 * SECOND, 15 * SECOND);
        assert_eq!((window.start_nano(), window.end_nano(), window.interval_count()), (0, 60 * SECOND, 4));
        let of = |nanos| window.interval_of(nanos);
        assert_eq!((of(0), of(1), of(15 * SECOND), of(15 * SECOND + 1)), (None, Some(0), Some(0), Some(1)));
        assert_eq!((of(60 * SECOND), of(60 * SECOND + 1)), (Some(3), None));
    }

    #[test]
    fn a_range_gets_a_point_at_its_start() {
        let window = Window::aligned(100 * SECOND, 130 * SECOND, 15 * SECOND);
        assert_eq!((window.start_nano(), window.end_nano()), (75 * SECOND, 135 * SECOND));
        assert_eq!(window.point_nano(0), 90 * SECOND);
    }

    #[test]
    fn default_steps_are_what_people_count_in() {
        let step = |range: u64| Window::default_step_nano(1_000 * HOUR, 1_000 * HOUR + range);
        assert_eq!(step(HOUR), 15 * SECOND);
        assert_eq!(step(3 * HOUR), 45 * SECOND);
        assert_eq!(step(6 * HOUR), MINUTE);
        assert_eq!(step(24 * HOUR), 5 * MINUTE);
        assert_eq!(step(30 * SECOND), 100_000_000);
        assert_eq!(step(SECOND), 50_000_000);
        assert_eq!(step(5 * MINUTE), SECOND);
    }

    proptest! {
        #[test]
        fn clockwork_divides(
            start in 0..u64::MAX / 4,
            step in 1..u64::MAX / 1_000_000,
            count in 1..10_000u64,
            time in any::<u64>(),
            near in any::<bool>(),
        ) {
            let end = start + step * count;
            let window = Window::exact(start, end, step);
            // Edges are where rounding goes wrong.
            let edge = start + step * (time % count);
            let times = if near { vec![edge, edge + 1, edge.saturating_sub(1)] } else { vec![start + time % (end - start), end] };
            for time in times {
                let expect = (start < time && time <= end).then(|| ((time - start - 1) / step) as u32);
                prop_assert_eq!(Clockwork::new(&window).interval_of(time), expect);
            }
        }
    }
}
