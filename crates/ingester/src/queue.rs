//! The queue before the log: bounded by bytes, taken by groups.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// What waited.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken<T> {
    /// At least one item, in order of arrival.
    Group(Vec<T>),
    /// Nothing came in time, or a nudge.
    Nothing,
    /// Nothing is left and nothing will come.
    Closed,
}

struct State<T> {
    items: VecDeque<(T, usize)>,
    is_closed: bool,
}

/// First in, first out; many put, one takes. The bound on bytes is a reservation that items carry.
pub(crate) struct Queue<T> {
    state: Mutex<State<T>>,
    arrived: Condvar,
}

impl<T> Queue<T> {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::new(State { items: VecDeque::new(), is_closed: false }), arrived: Condvar::new() }
    }

    /// Adds an item that weighs `bytes`; gives it back when the queue is closed.
    pub(crate) fn put(&self, item: T, bytes: usize) -> Result<(), T> {
        let mut state = self.state.lock();
        if state.is_closed {
            return Err(item);
        }
        state.items.push_back((item, bytes));
        self.arrived.notify_one();
        Ok(())
    }

    /// Has [`Self::take`] come back although nothing waits.
    pub(crate) fn nudge(&self) {
        self.arrived.notify_one();
    }

    /// Takes all that waits, up to `bytes_max` (the first item always); waits for one up to `wait`.
    pub(crate) fn take(&self, bytes_max: usize, wait: Duration) -> Taken<T> {
        let mut state = self.state.lock();
        if state.items.is_empty() && !state.is_closed {
            self.arrived.wait_for(&mut state, wait);
        }
        let mut group = Vec::new();
        let mut bytes = 0usize;
        while let Some((_, item_bytes)) = state.items.front() {
            bytes = bytes.saturating_add(*item_bytes);
            if bytes > bytes_max && !group.is_empty() {
                break;
            }
            group.extend(state.items.pop_front().map(|(item, _)| item));
        }
        match (group.is_empty(), state.is_closed) {
            (false, _) => Taken::Group(group),
            (true, false) => Taken::Nothing,
            (true, true) => Taken::Closed,
        }
    }

    /// Refuses items from now on; what waits can still be taken.
    pub(crate) fn close(&self) {
        self.state.lock().is_closed = true;
        self.arrived.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_WAIT: Duration = Duration::ZERO;

    #[test]
    fn groups_keep_the_order_and_the_bound_but_never_starve_a_large_item() {
        let queue = Queue::new();
        for (item, bytes) in [(1, 4), (2, 4), (3, 100), (4, 1)] {
            queue.put(item, bytes).unwrap();
        }
        assert_eq!(queue.take(10, NO_WAIT), Taken::Group(vec![1, 2]));
        assert_eq!(queue.take(10, NO_WAIT), Taken::Group(vec![3]));
        assert_eq!(queue.take(10, NO_WAIT), Taken::Group(vec![4]));
        assert_eq!(queue.take(10, NO_WAIT), Taken::Nothing);
    }

    #[test]
    fn a_closed_queue_gives_out_what_it_has_and_takes_nothing() {
        let queue = Queue::new();
        queue.put(1, 1).unwrap();
        queue.close();
        assert_eq!(queue.put(2, 1), Err(2));
        assert_eq!(queue.take(10, NO_WAIT), Taken::Group(vec![1]));
        assert_eq!(queue.take(10, NO_WAIT), Taken::Closed);
    }
}
