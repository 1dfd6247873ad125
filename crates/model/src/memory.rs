//! One bound on memory that several parts share: each reserves before it allocates.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that may be held together by whoever reserves from it.
#[derive(Debug)]
pub struct MemoryBudget {
    limit_bytes: usize,
    used_bytes: AtomicUsize,
}

impl MemoryBudget {
    /// A budget with nothing used.
    pub fn new(limit_bytes: usize) -> Arc<Self> {
        Arc::new(Self { limit_bytes, used_bytes: AtomicUsize::new(0) })
    }

    /// The bound.
    pub fn limit_bytes(&self) -> usize {
        self.limit_bytes
    }

    /// What is reserved now.
    pub fn used_bytes(&self) -> usize {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// Reserves, or returns `None` when that would pass the bound. Dropping the reservation gives
    /// the bytes back.
    pub fn try_reserve(self: &Arc<Self>, bytes: usize) -> Option<Reservation> {
        let add = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= self.limit_bytes);
        self.used_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).ok()?;
        Some(Reservation { budget: Arc::clone(self), bytes })
    }
}

/// Bytes held from a [`MemoryBudget`] until dropped.
#[derive(Debug)]
pub struct Reservation {
    budget: Arc<MemoryBudget>,
    bytes: usize,
}

impl Reservation {
    /// How many bytes are held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Nothing yet, from the same budget.
    pub fn sibling(&self) -> Self {
        Self { budget: Arc::clone(&self.budget), bytes: 0 }
    }

    /// Reserves more; `false`, and nothing changed, when that would pass the bound.
    pub fn try_grow(&mut self, more_bytes: usize) -> bool {
        match self.budget.try_reserve(more_bytes) {
            Some(mut more) => {
                self.bytes += std::mem::take(&mut more.bytes);
                true
            }
            None => false,
        }
    }

    /// Gives back what is held above `bytes`.
    pub fn shrink_to(&mut self, bytes: usize) {
        let excess = self.bytes.saturating_sub(bytes);
        self.budget.used_bytes.fetch_sub(excess, Ordering::Relaxed);
        self.bytes -= excess;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.used_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_never_passed_and_is_given_back() {
        let budget = MemoryBudget::new(100);
        let mut held = budget.try_reserve(60).expect("fits");
        assert!(budget.try_reserve(41).is_none());
        assert!(held.try_grow(40) && !held.try_grow(1));
        assert_eq!(budget.used_bytes(), 100);
        held.shrink_to(30);
        held.shrink_to(40);
        assert_eq!((held.bytes(), budget.used_bytes()), (30, 30));
        drop(held);
        assert_eq!(budget.used_bytes(), 0);
    }
}
