//! How many threads a query may keep busy: its share, counted anew whenever a piece of work ends.
//!
//! ```text
//!   pool of 4 threads     one query:    lanes 0 1 2 3
//!                         two queries:  lanes 0 1       each
//!                         four or more: lane  0         each
//! ```
//!
//! Work comes in pieces of milliseconds (a group of a block), taken in order by lanes. Before each piece a lane asks
//! whether it is still within its query's share and ends when it is not, which frees its thread for whoever waits
//! for one. Lane 0 runs where the query runs and goes on to the end, so every admitted query gets on.
//! Queries that wait for a thread count too: whoever lets them in holds a [`Turn`] for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use spoor_model::compute::ComputePool;

/// The queries that run, or wait for a thread.
#[derive(Debug, Clone, Default)]
pub(crate) struct Turns {
    count: Arc<AtomicUsize>,
}

/// A query's place among those that share the pool; dropping it gives the place up.
#[derive(Debug)]
pub struct Turn {
    count: Arc<AtomicUsize>,
}

impl Turns {
    /// One query more.
    pub(crate) fn take(&self) -> Turn {
        self.count.fetch_add(1, Ordering::Relaxed);
        Turn { count: Arc::clone(&self.count) }
    }

    /// How many of `thread_count` threads a query may use now; at least one.
    fn share_of(&self, thread_count: usize) -> usize {
        (thread_count / self.count.load(Ordering::Relaxed).max(1)).max(1)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The compute pool, as one query may use it.
#[derive(Clone, Copy)]
pub(crate) struct Lanes<'a> {
    pool: &'a ComputePool,
    turns: &'a Turns,
}

impl<'a> Lanes<'a> {
    pub(crate) fn new(pool: &'a ComputePool, turns: &'a Turns) -> Self {
        Self { pool, turns }
    }

    /// How many pieces of work may run at once.
    pub(crate) fn count(&self) -> usize {
        self.turns.share_of(self.pool.thread_count())
    }

    /// Runs `work` for each item, on as many threads as the query's share; results in the order of items.
    pub(crate) fn map<I: Sync, T: Send>(&self, items: &[I], work: impl Fn(&I) -> T + Sync + Send) -> Vec<T> {
        let lane_count = self.count().min(items.len());
        if lane_count <= 1 {
            return items.iter().map(work).collect();
        }
        let next = AtomicUsize::new(0);
        let lanes: Vec<usize> = (0..lane_count).collect();
        let done = self.pool.map(&lanes, |lane| {
            let mut done = Vec::new();
            while *lane == 0 || *lane < self.count() {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(item) = items.get(index) else { break };
                done.push((index, work(item)));
            }
            done
        });
        let mut done: Vec<(usize, T)> = done.into_iter().flatten().collect();
        done.sort_unstable_by_key(|(index, _)| *index);
        assert_eq!(done.len(), items.len(), "lane 0 goes on to the end");
        done.into_iter().map(|(_, result)| result).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn a_share_is_what_is_left_beside_the_others() {
        let turns = Turns::default();
        let held: Vec<Turn> = (0..3).map(|_| turns.take()).collect();
        assert_eq!([turns.share_of(8), turns.share_of(2)], [2, 1]);
        drop(held);
        assert_eq!(turns.share_of(8), 8);
    }

    #[test]
    fn results_keep_the_order_of_items_and_lanes_end_when_others_come() {
        let pool = ComputePool::new("test", 4).expect("threads start");
        let turns = Turns::default();
        let lanes = Lanes::new(&pool, &turns);
        let items: Vec<usize> = (0..1000).collect();
        assert_eq!(lanes.map(&items, |n| n * 2), items.iter().map(|n| n * 2).collect::<Vec<_>>());
        let (late, others) = (Mutex::new(HashSet::new()), Mutex::new(Vec::new()));
        lanes.map(&items, |n| {
            if *n == 500 {
                others.lock().expect("sound").extend((0..4).map(|_| turns.take()));
            }
            // Four lanes may each hold a piece that they took before.
            if *n > 510 {
                late.lock().expect("sound").insert(std::thread::current().id());
            }
        });
        assert_eq!(late.lock().expect("sound").len(), 1);
    }
}
