//! The gate between the query surfaces and the querier: how many queries run, how many wait, how
//! long each may take, and what stops them.
//!
//! ```text
//!   request -> place in the queue -> turn to run -> compute pool -> answer
//!              (none: 429)           |<----- query_timeout (504) ----->|
//! ```
//!
//! A client that goes away drops the future, and with it the guard that tells the scan to stop. The
//! turn is given back when the work has really ended, so that abandoned queries count as long as
//! they cost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use spoor_model::compute::ComputePool;
use spoor_model::memory::MemoryBudget;
use spoor_model::scan::{Progress, QueryContext};
use spoor_querier::Querier;
use tokio::sync::Semaphore;

use crate::error::{ApiError, Kind};
use crate::go_duration;
use crate::query_metrics::{QueryMetrics, Reason};

/// How much may be asked at once.
#[derive(Debug, Clone, Copy)]
pub struct QueryLimits {
    /// Queries that run at one time (`query_concurrency`).
    pub concurrency: usize,
    /// Queries that wait for their turn (`query_queue`).
    pub queue: usize,
    /// Waiting and running together (`query_timeout`).
    pub timeout: Duration,
}

/// Lets queries through to the querier. One for all surfaces, so that the bounds hold for the
/// process.
pub struct QueryGate {
    querier: Arc<Querier>,
    pool: Arc<ComputePool>,
    memory: Arc<MemoryBudget>,
    limits: QueryLimits,
    places: Arc<Semaphore>,
    turns: Arc<Semaphore>,
    metrics: QueryMetrics,
}

impl QueryGate {
    /// A gate that nobody has gone through. `memory` is shared by all queries.
    pub fn new(
        querier: Arc<Querier>,
        pool: Arc<ComputePool>,
        memory: Arc<MemoryBudget>,
        limits: QueryLimits,
        metrics: QueryMetrics,
    ) -> Self {
        let concurrency = limits.concurrency.max(1);
        let places = Arc::new(Semaphore::new(concurrency.saturating_add(limits.queue).min(Semaphore::MAX_PERMITS)));
        let turns = Arc::new(Semaphore::new(concurrency.min(Semaphore::MAX_PERMITS)));
        Self { querier, pool, memory, limits, places, turns, metrics }
    }

    /// What counts the fate of queries.
    pub(crate) fn metrics(&self) -> &QueryMetrics {
        &self.metrics
    }

    /// Runs `work` on the compute pool once it is its turn. `work` should build the answer's bytes
    /// too: encoding a large trace is no job for an async thread.
    pub(crate) async fn run<T, F>(&self, work: F) -> Result<T, ApiError>
    where
        T: Send + 'static,
        F: FnOnce(&Querier, &QueryContext) -> Result<T, ApiError> + Send + 'static,
    {
        self.run_watched(Arc::default(), work).await
    }

    /// [`Self::run`], with the query's progress where the caller sees it.
    pub(crate) async fn run_watched<T, F>(&self, progress: Arc<Progress>, work: F) -> Result<T, ApiError>
    where
        T: Send + 'static,
        F: FnOnce(&Querier, &QueryContext) -> Result<T, ApiError> + Send + 'static,
    {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            self.metrics.refuse(Reason::queue_full);
            let text = format!("job queue full: {} queries wait; raise query_queue", self.limits.queue);
            return Err(ApiError::new(Kind::Overloaded, text));
        };
        let stop = StopOnDrop(Arc::new(AtomicBool::new(false)));
        let ctx = QueryContext::new(&self.memory, Arc::clone(&stop.0)).watched(progress);
        let querier = Arc::clone(&self.querier);
        let answer = async {
            let waiting = self.metrics.wait();
            let turn = Arc::clone(&self.turns).acquire_owned().await.expect("the semaphore is never closed");
            drop(waiting);
            // It shares the pool from here on, though it may still have to wait for a thread.
            let held = (place, turn, querier.turn(), self.metrics.run());
            let run = move || {
                let result = work(&querier, &ctx);
                drop(held);
                result
            };
            self.pool.run(run).await
        };
        match tokio::time::timeout(self.limits.timeout, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(panicked)) => Err(ApiError::new(Kind::Internal, panicked.to_string())),
            Err(_) => {
                self.metrics.refuse(Reason::timeout);
                let timeout = go_duration::format(u64::try_from(self.limits.timeout.as_nanos()).unwrap_or(u64::MAX));
                let text = format!("query took longer than {timeout}; narrow it, or raise query_timeout");
                Err(ApiError::new(Kind::Timeout, text))
            }
        }
    }
}

/// Tells the scan to stop when the request ends, however it ends.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::fixtures::{Store, gate};

    const LONG: Duration = Duration::from_secs(600);

    fn limits(concurrency: usize, queue: usize, timeout: Duration) -> QueryLimits {
        QueryLimits { concurrency, queue, timeout }
    }

    /// Work that ends when it is told to stop.
    fn until_stopped(_: &Querier, ctx: &QueryContext) -> Result<(), ApiError> {
        while ctx.check().is_ok() {
            std::thread::yield_now();
        }
        Ok(())
    }

    #[tokio::test]
    async fn a_query_that_takes_too_long_is_stopped_and_says_which_limit() {
        let gate = gate(Store::default(), limits(1, 0, Duration::from_millis(1)));
        let mut registry = prometheus_client::registry::Registry::default();
        let mut gate = Arc::into_inner(gate).unwrap();
        gate.metrics = QueryMetrics::register(&mut registry);
        let err = gate.run(until_stopped).await.unwrap_err();
        let text = "query took longer than 1ms; narrow it, or raise query_timeout";
        assert_eq!(err, ApiError::new(Kind::Timeout, text));
        let mut metrics = String::new();
        prometheus_client::encoding::text::encode(&mut metrics, &registry).unwrap();
        assert!(metrics.contains("spoor_api_queries_refused_total{reason=\"timeout\"} 1"), "{metrics}");
    }

    #[tokio::test]
    async fn a_client_that_leaves_stops_its_query_and_gives_its_turn_back() {
        let gate = gate(Store::default(), limits(1, 0, LONG));
        let (started, has_started) = mpsc::sync_channel(1);
        let (ended, has_ended) = mpsc::sync_channel(1);
        let running = {
            let gate = Arc::clone(&gate);
            tokio::spawn(async move {
                gate.run(move |querier, ctx| {
                    started.send(()).unwrap();
                    until_stopped(querier, ctx).unwrap();
                    ended.send(()).unwrap();
                    Ok(())
                })
                .await
            })
        };
        tokio::task::yield_now().await;
        has_started.recv_timeout(LONG).unwrap();
        let err = gate.run(|_, _| Ok(())).await.unwrap_err();
        assert_eq!(err.message, "job queue full: 0 queries wait; raise query_queue");
        assert_eq!(err.kind.http().as_u16(), 429);
        running.abort();
        assert!(running.await.unwrap_err().is_cancelled());
        has_ended.recv_timeout(LONG).unwrap();
        // The turn comes back just after the work has ended.
        while gate.run(|_, _| Ok(())).await.is_err() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn work_that_panics_fails_its_request_only() {
        let gate = gate(Store::default(), limits(1, 0, LONG));
        let failed: Result<(), ApiError> = gate.run(|_, _| panic!("a defect")).await;
        assert_eq!(failed.unwrap_err().kind, Kind::Internal);
        while gate.run(|_, _| Ok(())).await.is_err() {
            tokio::task::yield_now().await;
        }
    }
}
