//! Stopping a process in the middle of what it does: before its so-manieth request to what it stands on.
//!
//! ```text
//!   process's thread    request 1, request 2, ... request n | waits, or is dead from here on
//!   test's thread                          arm(n) ... has_stopped --> looks, lets others go on --> resume
//! ```

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// It waits until [`Switch::resume`]; then it happens.
    Pause,
    /// It does not happen, and neither does any that comes after it.
    DieBefore,
    /// It happens, and nobody hears of it; none that comes after it happens.
    DieAfter,
}

/// What a request is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passage {
    /// Happen.
    Free,
    /// Wait by [`Switch::wait`], then happen.
    Pause,
    /// Fail without happening.
    Dead,
    /// Happen, and fail.
    Unheard,
}

#[derive(Debug, Default)]
struct State {
    /// Requests until the stop, and the stop.
    armed: Option<(u64, Stop)>,
    is_paused: bool,
    is_dead: bool,
    /// What was watched is over.
    is_over: bool,
}

/// Counts the requests of a process and stops it at one of them.
#[derive(Debug, Default)]
pub struct Switch {
    state: Mutex<State>,
    changed: Condvar,
}

impl Switch {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets `requests` pass and stops at the one after them.
    pub fn arm(&self, requests: u64, stop: Stop) {
        let mut state = self.state();
        (state.armed, state.is_over) = (Some((requests, stop)), false);
    }

    /// What the next request is to do. Never waits.
    pub fn pass(&self) -> Passage {
        let mut state = self.state();
        if state.is_dead {
            return Passage::Dead;
        }
        let stop = match &mut state.armed {
            None => return Passage::Free,
            Some((0, stop)) => *stop,
            Some((left, _)) => {
                *left -= 1;
                return Passage::Free;
            }
        };
        state.armed = None;
        state.is_paused = stop == Stop::Pause;
        state.is_dead = stop != Stop::Pause;
        self.changed.notify_all();
        match stop {
            Stop::Pause => Passage::Pause,
            Stop::DieBefore => Passage::Dead,
            Stop::DieAfter => Passage::Unheard,
        }
    }

    /// Waits for [`Self::resume`]. Blocks.
    pub fn wait(&self) {
        let paused = self.changed.wait_while(self.state(), |state| state.is_paused);
        drop(paused.unwrap_or_else(PoisonError::into_inner));
    }

    /// Whether the process is dead.
    pub fn is_dead(&self) -> bool {
        self.state().is_dead
    }

    /// Waits until the process has stopped, or until what it does is over. Whether it pauses.
    pub fn has_paused(&self) -> bool {
        let is_going = |state: &mut State| !state.is_paused && !state.is_over && !state.is_dead;
        self.changed.wait_while(self.state(), is_going).unwrap_or_else(PoisonError::into_inner).is_paused
    }

    /// Lets the process go on.
    pub fn resume(&self) {
        self.state().is_paused = false;
        self.changed.notify_all();
    }

    /// What the process did is over: nothing stops any more. It stays dead if it is.
    pub fn end(&self) {
        let mut state = self.state();
        (state.armed, state.is_over, state.is_paused) = (None, true, false);
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_stops_at_the_request_that_was_named() {
        let switch = Switch::default();
        assert_eq!(switch.pass(), Passage::Free);
        switch.arm(1, Stop::Pause);
        assert_eq!([switch.pass(), switch.pass(), switch.pass()], [Passage::Free, Passage::Pause, Passage::Free]);
        assert!(switch.has_paused());
        switch.resume();
        switch.wait();
        switch.end();
        assert!(!switch.has_paused());
        switch.arm(0, Stop::DieAfter);
        assert_eq!([switch.pass(), switch.pass()], [Passage::Unheard, Passage::Dead]);
        switch.end();
        assert_eq!((switch.pass(), switch.is_dead()), (Passage::Dead, true));
    }
}
