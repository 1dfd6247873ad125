//! What queries cost and how they end, for Prometheus.

use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use spoor_model::TenantId;
use spoor_model::scan::ScanStats;

use crate::QueryError;

/// Kinds of queries, by the names that Tempo's dashboards know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "the label's values")]
pub(crate) enum Op {
    /// Trace by id.
    traces,
    /// Search.
    search,
    /// Attribute names and values, services, operations.
    metadata,
    /// Series.
    metrics,
}

/// How queries end, by the names that Tempo's dashboards know, and one more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "the label's values")]
enum Outcome {
    completed,
    canceled,
    failed,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OpLabels {
    op: Op,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QueryLabels {
    op: Op,
    result: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TenantQueryLabels {
    tenant: String,
    op: Op,
    result: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TenantLabels {
    tenant: String,
    op: Op,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitLabels {
    limit: &'static str,
}

/// The querier's metrics. Tenants are labels only in Tempo's series, and only those that have data,
/// so that clients cannot make series by inventing tenants.
#[derive(Debug, Clone)]
pub struct Metrics {
    queries: Family<QueryLabels, Counter>,
    duration: Family<OpLabels, Histogram, fn() -> Histogram>,
    inspected_bytes: Family<OpLabels, Counter>,
    inspected_spans: Family<OpLabels, Counter>,
    skipped_sources: Counter,
    filter_hits: Counter,
    filter_false_hits: Counter,
    limit_hits: Family<LimitLabels, Counter>,
    tempo_queries: Family<TenantQueryLabels, Counter>,
    tempo_inspected_bytes: Family<TenantLabels, Counter>,
}

/// 1 ms to 33 s, in powers of two.
fn duration_histogram() -> Histogram {
    Histogram::new((0..16).map(|power| 0.001 * f64::from(1 << power)))
}

impl Metrics {
    /// Makes the metrics known to `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            queries: Family::default(),
            duration: Family::new_with_constructor(duration_histogram),
            inspected_bytes: Family::default(),
            inspected_spans: Family::default(),
            skipped_sources: Counter::default(),
            filter_hits: Counter::default(),
            filter_false_hits: Counter::default(),
            limit_hits: Family::default(),
            tempo_queries: Family::default(),
            tempo_inspected_bytes: Family::default(),
        };
        let ours = registry.sub_registry_with_prefix("spoor_querier");
        ours.register("queries", "Queries, by kind and how they ended", metrics.queries.clone());
        ours.register("query_duration_seconds", "How long queries take", metrics.duration.clone());
        ours.register("inspected_bytes", "Encoded bytes that queries read", metrics.inspected_bytes.clone());
        ours.register("inspected_spans", "Spans that queries looked at", metrics.inspected_spans.clone());
        ours.register("skipped_sources", "Sources that queries had to do without", metrics.skipped_sources.clone());
        let help = "Blocks asked for a trace by id because their filter has it";
        ours.register("filter_hits", help, metrics.filter_hits.clone());
        let help = "Blocks asked for a trace by id because their filter has it, which do not hold it";
        ours.register("filter_false_hits", help, metrics.filter_false_hits.clone());
        ours.register("limit_hits", "Queries refused by a limit, by its key", metrics.limit_hits.clone());
        registry.register(
            "tempo_query_frontend_queries",
            "Queries, by tenant, kind and how they ended, as Tempo names them",
            metrics.tempo_queries.clone(),
        );
        registry.register(
            "tempo_query_frontend_bytes_inspected",
            "Encoded bytes that queries read, as Tempo names them",
            metrics.tempo_inspected_bytes.clone(),
        );
        metrics
    }

    /// Counts a block whose filter said that it may hold a trace, and whether it does.
    pub(crate) fn observe_filter_hit(&self, is_held: bool) {
        self.filter_hits.inc();
        if !is_held {
            self.filter_false_hits.inc();
        }
    }

    /// Counts a query: its cost and how many sources it skipped, or why it has no answer. `tenant`
    /// is `None` when it has no data.
    pub(crate) fn observe(
        &self,
        op: Op,
        tenant: Option<&TenantId>,
        took: Duration,
        outcome: Result<(ScanStats, usize), &QueryError>,
    ) {
        let result = match outcome {
            Ok(_) => Outcome::completed,
            Err(QueryError::Cancelled) => Outcome::canceled,
            Err(_) => Outcome::failed,
        };
        let tenant = tenant.map_or("unknown", TenantId::as_str).to_owned();
        self.queries.get_or_create(&QueryLabels { op, result }).inc();
        self.duration.get_or_create(&OpLabels { op }).observe(took.as_secs_f64());
        self.tempo_queries.get_or_create(&TenantQueryLabels { tenant: tenant.clone(), op, result }).inc();
        match outcome {
            Ok((stats, skipped_count)) => {
                self.inspected_bytes.get_or_create(&OpLabels { op }).inc_by(stats.bytes_inspected);
                self.inspected_spans.get_or_create(&OpLabels { op }).inc_by(stats.spans_inspected);
                self.tempo_inspected_bytes.get_or_create(&TenantLabels { tenant, op }).inc_by(stats.bytes_inspected);
                self.skipped_sources.inc_by(skipped_count as u64);
            }
            Err(QueryError::Limit { key, .. } | QueryError::MemoryLimit { key, .. }) => {
                self.limit_hits.get_or_create(&LimitLabels { limit: key }).inc();
            }
            Err(QueryError::Invalid(_) | QueryError::Cancelled) => {}
        }
    }
}
