//! The read path: from a question of a client to whole traces.
//!
//! ```text
//!   Snapshots --snapshot--> [head, blocks], newest first
//!                                |
//!        scan, read (columns)    |   trace_range, find_traces (rows)
//!        group by group          |   all sources, per trace that needs it
//!                                v
//!   search: newest candidate first --> whole trace --> range, duration, query --> limit
//!   series: every trace once, by its group or put together --> counters --> series
//! ```
//!
//! Every answer is about whole traces, however their spans are spread over sources: a trace that lies in one source with
//! each span once is decided by that source's columns; any other that may matter is assembled from all sources,
//! freed of exact copies, and only then tested (`docs/adr/0009-columnar-execution.md`). A source that cannot be
//! read is left out, and the [`Answer`] says so.
//!
//! Calls are synchronous and may take long: they run on the compute pool, and look at their
//! [`QueryContext`] between batches.
//!
//! **Invariant:** the limit of a search is applied after the order; no answer depends on the order
//! in which sources are scanned.
//! **Invariant:** no HTTP, no JSON, no Parquet, no RocksDB here.

#[cfg(test)]
mod agreement;
mod dependencies;
mod error;
mod explain;
mod export;
mod filter;
mod filtered;
mod fold;
mod group;
mod held_bytes;
mod lookup;
mod metrics;
#[cfg(test)]
mod oracle;
mod request;
mod root;
mod search;
mod series;
mod service_metrics;
mod torn;
mod turns;
mod wholes;

use std::sync::Arc;

use spoor_model::compute::ComputePool;
use spoor_model::scan::{QueryContext, ScanStats, Skipped, Snapshot, Snapshots};
use spoor_model::{Clock, TenantId};

use torn::PairCache;
use turns::{Lanes, Turns};
use wholes::Wholes;

pub use dependencies::{Calls, Service};
pub use error::QueryError;
pub use explain::{Explain, SourceScan, Stage};
pub use export::{ExportPage, ExportRequest};
pub use filtered::SpanFilter;
pub use metrics::Metrics;
pub use request::{Filter, FoundTrace, GroupCondition, Limits, SearchRequest, SpanTest};
pub use root::root;
pub use service_metrics::{ServiceMetricsRequest, ServicePoint, ServiceSeries};
pub use turns::Turn;

/// A result, and what it was made of.
#[derive(Debug, Clone)]
pub struct Answer<T> {
    /// The result, from all that could be read.
    pub value: T,
    /// What could not be read; when not empty, the result may lack something. Each object once.
    pub skipped: Vec<Skipped>,
    /// What it cost.
    pub stats: ScanStats,
    /// How it came about.
    pub explain: Explain,
}

/// What never changes about blocks, from one query to the next.
#[derive(Debug, Default)]
struct Remembered {
    pairs: PairCache,
    wholes: Wholes,
}

/// Answers the questions of clients, from what the snapshots hold.
pub struct Querier {
    snapshots: Arc<dyn Snapshots>,
    pool: Arc<ComputePool>,
    limits: Limits,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    remembered: Remembered,
    turns: Turns,
}

impl Querier {
    /// A querier that scans on `pool`; the clock is for the duration metric alone.
    pub fn new(
        snapshots: Arc<dyn Snapshots>,
        pool: Arc<ComputePool>,
        limits: Limits,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
    ) -> Self {
        Self { snapshots, pool, limits, clock, metrics, remembered: Remembered::default(), turns: Turns::default() }
    }

    /// A place among the queries that share the pool, to be held while a query waits for a thread and runs:
    /// the more there are, the fewer threads each may use. Without it a query counts as the only one.
    pub fn turn(&self) -> Turn {
        self.turns.take()
    }

    fn lanes(&self) -> Lanes<'_> {
        Lanes::new(&self.pool, &self.turns)
    }

    /// Takes a snapshot, runs `work` on it and counts what came of it.
    fn observed<T>(
        &self,
        op: metrics::Op,
        tenant: &TenantId,
        ctx: &QueryContext,
        work: impl FnOnce(Snapshot) -> Result<Answer<T>, QueryError>,
    ) -> Result<Answer<T>, QueryError> {
        self.observed_of_all(op, std::slice::from_ref(tenant), ctx, work)
    }

    /// [`Self::observed`], of what several tenants have together. Counts under the first that has data.
    fn observed_of_all<T>(
        &self,
        op: metrics::Op,
        tenants: &[TenantId],
        ctx: &QueryContext,
        work: impl FnOnce(Snapshot) -> Result<Answer<T>, QueryError>,
    ) -> Result<Answer<T>, QueryError> {
        let started_at = self.clock.now();
        let (mut all, mut known) = (Snapshot::default(), None);
        for tenant in tenants {
            let Snapshot { sources, skipped } = self.snapshots.snapshot(tenant);
            let is_known = !sources.is_empty() || !skipped.is_empty();
            known = known.or(is_known.then_some(tenant));
            all.sources.extend(sources);
            all.skipped.extend(skipped);
        }
        let result = ctx.check().map_err(QueryError::from).and_then(|()| work(all));
        let took = self.clock.now().since(started_at);
        let outcome = result.as_ref().map(|answer| (answer.stats, answer.skipped.len()));
        self.metrics.observe(op, known, took, outcome);
        result
    }
}
