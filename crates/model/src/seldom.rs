//! What is said of something that lasts: once in a while, not each time that it is met.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How long the same is not said again.
const PAUSE: Duration = Duration::from_secs(600);
/// How many things are remembered. With more, everything is said again.
const THINGS_MAX: usize = 1024;

/// What was said, and when.
#[derive(Debug, Default)]
pub struct Seldom {
    said: Mutex<BTreeMap<u64, Duration>>,
}

impl Seldom {
    /// Nothing was said yet.
    pub const fn new() -> Self {
        Self { said: Mutex::new(BTreeMap::new()) }
    }

    /// Whether this is to be said: it was not for ten minutes. Costs a hash and a lock.
    #[allow(clippy::disallowed_methods, reason = "log lines go by the real time; nothing else depends on it")]
    pub fn is_due(&self, what: impl Hash) -> bool {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        self.is_due_at(what, START.elapsed())
    }

    /// `now` is the time since anything.
    fn is_due_at(&self, what: impl Hash, now: Duration) -> bool {
        let mut hasher = DefaultHasher::new();
        what.hash(&mut hasher);
        let mut said = self.said.lock();
        if said.len() >= THINGS_MAX {
            said.clear();
        }
        let last = said.insert(hasher.finish(), now);
        let is_due = last.is_none_or(|last| now.saturating_sub(last) >= PAUSE);
        if let (false, Some(last)) = (is_due, last) {
            said.insert(hasher.finish(), last);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_said_again_after_a_pause_and_something_else_at_once() {
        let seldom = Seldom::new();
        let due = |what: &str, seconds: u64| seldom.is_due_at(what, Duration::from_secs(seconds));
        assert!(due("a", 0) && due("b", 0));
        assert!(!due("a", 1) && !due("a", 599));
        assert!(due("a", 600) && !due("a", 601));
        for number in 0..2 * THINGS_MAX {
            seldom.is_due_at(number, Duration::ZERO);
        }
        assert!(seldom.said.lock().len() <= THINGS_MAX);
    }
}
