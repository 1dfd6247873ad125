//! What is said of something that lasts: once in a while, not each time that it is met.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How long the same is not said again.
const PAUSE: Duration = Duration::from_secs(600);
/// How many things are remembered. With more, everything is said again.
const THINGS_MAX: usize = 1024;

/// What was said, and when.
#[derive(Debug, Default)]
pub struct Seldom {
    said: Mutex<BTreeMap<u64, Instant>>,
}

impl Seldom {
    /// Nothing was said yet.
    pub const fn new() -> Self {
        Self { said: Mutex::new(BTreeMap::new()) }
    }

    /// Whether this is to be said: it was not for ten minutes. Costs a hash and a lock.
    pub fn is_due(&self, what: impl Hash) -> bool {
        self.is_due_at(what, Instant::now())
    }

    fn is_due_at(&self, what: impl Hash, now: Instant) -> bool {
        let mut hasher = DefaultHasher::new();
        what.hash(&mut hasher);
        let mut said = self.said.lock();
        if said.len() >= THINGS_MAX {
            said.clear();
        }
        let last = said.insert(hasher.finish(), now);
        let is_due = last.is_none_or(|last| now.duration_since(last) >= PAUSE);
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
        let (seldom, start) = (Seldom::new(), Instant::now());
        let due = |what: &str, seconds: u64| seldom.is_due_at(what, start + Duration::from_secs(seconds));
        assert!(due("a", 0) && due("b", 0));
        assert!(!due("a", 1) && !due("a", 599));
        assert!(due("a", 600) && !due("a", 601));
        for number in 0..2 * THINGS_MAX {
            seldom.is_due_at(number, start);
        }
        assert!(seldom.said.lock().len() <= THINGS_MAX);
    }
}
