//! How much memory heads hold, and who waits for it to become less.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// Memory and spans of all heads, those being cut included.
#[derive(Default)]
pub(crate) struct HeadMemory {
    held: Mutex<Held>,
    freed: Condvar,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) bytes: usize,
    pub(crate) spans: u64,
}

impl HeadMemory {
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

    /// Waits until less than `bytes` are held, or a little while; `true` when it is so.
    pub(crate) fn wait_below(&self, bytes: usize) -> bool {
        let mut held = self.held.lock();
        if held.bytes >= bytes {
            self.freed.wait_for(&mut held, Duration::from_millis(100));
        }
        held.bytes < bytes
    }
}
