//! How much memory heads hold, and who waits for it to become less.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use spoor_model::memory::{MemoryBudget, Reservation};

/// What a span takes in a head besides its bytes: fixed columns, a trace of its own at worst, and
/// vectors that have just doubled.
const SPAN_BYTES: usize = 160;

/// Memory and spans of all heads, those being cut included, and what is on its way to them.
pub(crate) struct HeadMemory {
    held: Mutex<Held>,
    freed: Condvar,
    coming: Arc<MemoryBudget>,
}

/// What a request is expected to take in a head. The load corpus takes 190 bytes per span, half of
/// its bytes; requests of tiny spans take many times theirs.
pub(crate) fn expected_bytes(payload_bytes: usize, accepted_count: u32) -> usize {
    payload_bytes / 2 + SPAN_BYTES * accepted_count as usize
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) bytes: usize,
    pub(crate) spans: u64,
}

impl HeadMemory {
    pub(crate) fn new() -> Self {
        // Not a bound: the bound is on both together, and checked where requests are admitted.
        Self { held: Mutex::default(), freed: Condvar::new(), coming: MemoryBudget::new(usize::MAX) }
    }

    /// Counts a request until the reservation is dropped, when its spans are in a head.
    pub(crate) fn expect(&self, bytes: usize) -> Reservation {
        self.coming.try_reserve(bytes).expect("2^64 bytes are never on their way")
    }

    /// What is in heads and on its way to them.
    pub(crate) fn total_bytes(&self) -> usize {
        self.held().bytes + self.coming.used_bytes()
    }

    pub(crate) fn held(&self) -> Held {
        *self.held.lock()
    }

    /// A head took spans: it held `before` bytes and holds `after` (less, when a dictionary was let go).
    pub(crate) fn change(&self, before: usize, after: usize, spans: u64) -> Held {
        let mut held = self.held.lock();
        held.bytes = held.bytes.checked_sub(before).expect("what a head held was added before") + after;
        held.spans += spans;
        *held
    }

    /// A head became a block.
    pub(crate) fn release(&self, bytes: usize, spans: u64) -> Held {
        let mut held = self.held.lock();
        held.bytes = held.bytes.checked_sub(bytes).expect("only what was added is released");
        held.spans = held.spans.checked_sub(spans).expect("only what was added is released");
        self.freed.notify_all();
        *held
    }

    /// Waits until less than `bytes` are held and coming, or a little while; `true` when it is so.
    pub(crate) fn wait_below(&self, bytes: usize) -> bool {
        let mut held = self.held.lock();
        let is_below = |held: &Held| held.bytes + self.coming.used_bytes() < bytes;
        if !is_below(&held) {
            self.freed.wait_for(&mut held, Duration::from_millis(10));
        }
        is_below(&held)
    }
}
