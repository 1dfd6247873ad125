//! The compute pool: where work runs that holds its thread for more than half a millisecond.
//!
//! Async tasks must not decode, compress, scan or touch disks; they hand that to a pool which
//! `server` makes and passes in. Ingest and queries have a pool each, so that a long query never
//! stands before an export.

use futures_channel::oneshot;

/// A fixed number of threads.
#[derive(Debug)]
pub struct ComputePool {
    threads: rayon::ThreadPool,
}

/// The work panicked. The request fails; the process goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the work panicked; this is a defect, the log has the place")]
pub struct WorkPanicked;

impl ComputePool {
    /// Starts `thread_count` threads named `name-0`, `name-1`, ...
    pub fn new(name: &'static str, thread_count: usize) -> std::io::Result<Self> {
        let threads = rayon::ThreadPoolBuilder::new()
            .num_threads(thread_count.max(1))
            .thread_name(move |index| format!("{name}-{index}"))
            // The panic hook has printed it; whoever waits sees `WorkPanicked`.
            .panic_handler(|_| {})
            .build()
            .map_err(std::io::Error::other)?;
        Ok(Self { threads })
    }

    /// How many threads there are.
    pub fn thread_count(&self) -> usize {
        self.threads.current_num_threads()
    }

    /// Runs `work` on the pool, in the order of calls. Dropping the future does not stop the work.
    pub async fn run<T, F>(&self, work: F) -> Result<T, WorkPanicked>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let (done, wait) = oneshot::channel();
        self.threads.spawn_fifo(move || {
            // Fails when nobody waits any more, which is their choice.
            let _ = done.send(work());
        });
        wait.await.map_err(|_| WorkPanicked)
    }

    /// Runs `work` for each item, in parallel, from within or outside the pool; results in order.
    pub fn map<I, T, F>(&self, items: &[I], work: F) -> Vec<T>
    where
        I: Sync,
        T: Send,
        F: Fn(&I) -> T + Sync + Send,
    {
        use rayon::prelude::*;
        self.threads.install(|| items.par_iter().map(work).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_keep_the_order_of_items() {
        let pool = ComputePool::new("test", 2).expect("threads start");
        assert_eq!(pool.map(&[3, 1, 2], |n| n * 2), vec![6, 2, 4]);
    }
}
