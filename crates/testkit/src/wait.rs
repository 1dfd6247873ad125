//! Waiting for a condition, with a deadline: the only way in which tests wait.

use std::time::{Duration, Instant};

/// A stopwatch that may expire.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    started: Instant,
    limit: Duration,
}

impl Deadline {
    /// Starts now.
    #[allow(clippy::disallowed_methods, reason = "tests measure the real process in real time")]
    pub fn within(limit: Duration) -> Self {
        Self { started: Instant::now(), limit }
    }

    /// Time since the start.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Whether the time is up.
    pub fn is_over(&self) -> bool {
        self.elapsed() >= self.limit
    }
}

/// A stopwatch without a limit.
pub fn stopwatch() -> Deadline {
    Deadline::within(Duration::MAX)
}

/// Asks again and again until there is an answer.
///
/// # Panics
/// When there is none within `limit`; the message says what was waited for.
pub fn until<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Deadline::within(limit);
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(!deadline.is_over(), "waited {limit:?} in vain for {what}");
        pause(Duration::from_millis(2));
    }
}

/// Gives the processor away between two looks at a condition.
pub fn pause(duration: Duration) {
    std::thread::park_timeout(duration);
}

/// Nanoseconds since the epoch, for spans that must look recent.
#[allow(clippy::disallowed_methods, reason = "the server's retention goes by the real time")]
pub fn now() -> spoor_model::UnixNano {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("the clock is past 1970");
    spoor_model::UnixNano(since.as_nanos() as u64)
}
