//! How many queries run and wait, and which never got an answer.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Why a query was refused or given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "the label's values")]
pub(crate) enum Reason {
    /// `query_queue` queries waited already.
    queue_full,
    /// It took longer than `query_timeout`.
    timeout,
    /// Its text is longer than `query_max_bytes`.
    query_bytes,
    /// Its time range is longer than `query_search_max_range` or `query_metrics_max_range`.
    range,
    /// It asks for more than `query_metrics_max_intervals`.
    intervals,
    /// It asks for more than `query_max_results` or `query_max_spans_per_spanset`.
    results,
    /// Its body is larger than `query_max_body_bytes`, or a file than `max_message_bytes`.
    body_bytes,
}

impl Reason {
    const ALL: [Self; 7] = [
        Self::queue_full,
        Self::timeout,
        Self::query_bytes,
        Self::range,
        Self::intervals,
        Self::results,
        Self::body_bytes,
    ];
}

/// What an answer ends at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "the label's values")]
pub(crate) enum Cut {
    /// `query_metrics_max_series`, or the client's own bound.
    series,
    /// `query_tags_max_bytes`.
    tags_bytes,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CutLabels {
    limit: Cut,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    reason: Reason,
}

/// The gate's metrics.
#[derive(Debug, Clone, Default)]
pub struct QueryMetrics {
    running: Gauge,
    waiting: Gauge,
    refused: Family<Labels, Counter>,
    cut: Family<CutLabels, Counter>,
}

impl QueryMetrics {
    /// Makes the metrics known.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        for reason in Reason::ALL {
            // An alert that looks for a rise sees the first only when it saw 0 before.
            let _ = metrics.refused.get_or_create(&Labels { reason });
        }
        registry.register("spoor_api_queries_running", "Queries that run now", metrics.running.clone());
        registry.register("spoor_api_queries_waiting", "Queries that wait for their turn", metrics.waiting.clone());
        let help = "Queries without an answer, for want of room or of time, or for what they ask";
        registry.register("spoor_api_queries_refused", help, metrics.refused.clone());
        let help = "Answers that end at a limit, and say so";
        registry.register("spoor_api_answers_cut", help, metrics.cut.clone());
        metrics
    }

    pub(crate) fn refuse(&self, reason: Reason) {
        self.refused.get_or_create(&Labels { reason }).inc();
    }

    pub(crate) fn cut(&self, limit: Cut) {
        self.cut.get_or_create(&CutLabels { limit }).inc();
    }

    /// Counts a waiting query until dropped.
    pub(crate) fn wait(&self) -> Counted {
        Counted::new(&self.waiting)
    }

    /// Counts a running query until dropped.
    pub(crate) fn run(&self) -> Counted {
        Counted::new(&self.running)
    }
}

/// One, in a gauge.
pub(crate) struct Counted(Gauge);

impl Counted {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}
