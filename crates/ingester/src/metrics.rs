//! The ingester's metrics. Where Tempo's dashboards look for a series of the same meaning, it is the
//! same counter under that name too.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// Which tenant.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct TenantLabel {
    /// Its name.
    pub(crate) tenant: String,
}

/// Which bound.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitLabel {
    /// The configuration key that raises it.
    key: &'static str,
}

/// Why exports are refused, as long as they all are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "the label's values")]
pub(crate) enum Refusing {
    /// The log cannot be written: most often a full disk.
    log,
    /// No block can be written, to disk or to object storage, and heads have no room any more.
    heads,
    /// Ingest has stopped; only a restart helps.
    stopped,
}

impl Refusing {
    const ALL: [Self; 3] = [Self::log, Self::heads, Self::stopped];
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusingLabel {
    reason: Refusing,
}

/// The bounds whose refusals are counted.
const LIMIT_KEYS: [&str; 2] = ["head_memory_limit", "ingest_inflight_bytes"];

/// Counters, gauges and histograms; cloning shares them.
#[derive(Debug, Clone)]
pub struct Metrics {
    pub(crate) wal_records: Counter,
    pub(crate) wal_bytes: Counter,
    pub(crate) wal_commit_seconds: Histogram,
    pub(crate) wal_group_records: Histogram,
    pub(crate) wal_failures: Counter,
    refusing: Family<RefusingLabel, Gauge>,
    overload_refusals: Family<LimitLabel, Counter>,
    pub(crate) head_spans: Gauge,
    pub(crate) head_bytes: Gauge,
    pub(crate) heads_waiting: Gauge,
    pub(crate) blocks_cut: Counter,
    pub(crate) cut_failures: Counter,
    pub(crate) cut_seconds: Histogram,
    pub(crate) block_bytes: Counter,
    pub(crate) block_spans: Counter,
    pub(crate) blocks: Family<TenantLabel, Gauge>,
    pub(crate) blocks_unreadable: Gauge,
    pub(crate) records_set_aside: Counter,
    pub(crate) recovery_records: Counter,
    pub(crate) recovery_seconds: Gauge<f64, AtomicU64>,
}

impl Metrics {
    /// Registers everything.
    pub fn register(registry: &mut Registry) -> Self {
        let seconds = || Histogram::new(exponential_buckets(0.0005, 2.0, 15));
        let metrics = Self {
            wal_records: Counter::default(),
            wal_bytes: Counter::default(),
            wal_commit_seconds: seconds(),
            wal_group_records: Histogram::new(exponential_buckets(1.0, 2.0, 11)),
            wal_failures: Counter::default(),
            refusing: Family::default(),
            overload_refusals: Family::default(),
            head_spans: Gauge::default(),
            head_bytes: Gauge::default(),
            heads_waiting: Gauge::default(),
            blocks_cut: Counter::default(),
            cut_failures: Counter::default(),
            cut_seconds: Histogram::new(exponential_buckets(0.01, 2.0, 13)),
            block_bytes: Counter::default(),
            block_spans: Counter::default(),
            blocks: Family::default(),
            blocks_unreadable: Gauge::default(),
            records_set_aside: Counter::default(),
            recovery_records: Counter::default(),
            recovery_seconds: Gauge::default(),
        };
        metrics.set_refusing(None);
        for key in LIMIT_KEYS {
            // An alert that looks for a rise sees the first only when it saw 0 before.
            let _ = metrics.overload_refusals.get_or_create(&LimitLabel { key });
        }
        metrics.register_log(registry);
        metrics.register_heads_and_blocks(registry);
        metrics.register_aliases(registry);
        metrics
    }

    fn register_log(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("spoor_ingester");
        registry.register("wal_records", "Requests written to the log", self.wal_records.clone());
        registry.register("wal_bytes", "Bytes of requests written to the log", self.wal_bytes.clone());
        registry.register(
            "wal_commit_duration_seconds",
            "Time of one group commit: write, and fsync where configured",
            self.wal_commit_seconds.clone(),
        );
        registry.register("wal_group_records", "Requests per group commit", self.wal_group_records.clone());
        registry.register("wal_failures", "Group commits that failed", self.wal_failures.clone());
        registry.register("refusing", "1 while every export is refused, by reason", self.refusing.clone());
        registry.register(
            "overload_refusals",
            "Requests refused because a bound was reached, by its configuration key",
            self.overload_refusals.clone(),
        );
        registry.register(
            "wal_records_set_aside",
            "Log records that could not be read and were moved to quarantine",
            self.records_set_aside.clone(),
        );
        registry.register(
            "recovery_records",
            "Requests recovered from the log at start",
            self.recovery_records.clone(),
        );
        registry.register(
            "recovery_duration_seconds",
            "How long the recovery at start took",
            self.recovery_seconds.clone(),
        );
    }

    fn register_heads_and_blocks(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("spoor_ingester");
        registry.register("head_spans", "Spans in heads, those being cut included", self.head_spans.clone());
        registry.register("head_bytes", "Memory of heads, those being cut included", self.head_bytes.clone());
        registry.register("heads_waiting", "Heads that are being cut or wait for it", self.heads_waiting.clone());
        registry.register("blocks_cut", "Blocks made from heads", self.blocks_cut.clone());
        registry.register("cut_failures", "Attempts to make a block that failed", self.cut_failures.clone());
        registry.register("cut_duration_seconds", "Time from head to published block", self.cut_seconds.clone());
        registry.register("block_bytes", "Bytes of blocks made from heads", self.block_bytes.clone());
        registry.register("block_spans", "Spans of blocks made from heads", self.block_spans.clone());
        registry.register("blocks", "Blocks in the catalog", self.blocks.clone());
        registry.register("blocks_unreadable", "Blocks that queries must do without", self.blocks_unreadable.clone());
    }

    fn register_aliases(&self, registry: &mut Registry) {
        registry.register("tempo_ingester_blocks_flushed", "Blocks made from heads", self.blocks_cut.clone());
        registry.register("tempo_live_store_blocks_completed", "Blocks made from heads", self.blocks_cut.clone());
        registry.register(
            "tempo_live_store_completion_duration_seconds",
            "Time from head to published block",
            self.cut_seconds.clone(),
        );
        registry.register(
            "tempo_live_store_failed_completions",
            "Attempts to make a block that failed",
            self.cut_failures.clone(),
        );
        registry.register(
            "tempo_live_store_complete_queue_length",
            "Heads that are being cut or wait for it",
            self.heads_waiting.clone(),
        );
        registry.register("tempodb_blocklist_length", "Blocks in the catalog", self.blocks.clone());
    }

    /// Says why every export is refused now, or that none is.
    pub(crate) fn set_refusing(&self, why: Option<Refusing>) {
        for reason in Refusing::ALL {
            self.refusing.get_or_create(&RefusingLabel { reason }).set(i64::from(why == Some(reason)));
        }
    }

    /// Which reasons are 1.
    #[cfg(test)]
    pub(crate) fn refusing(&self) -> Vec<Refusing> {
        let is_set = |reason: &Refusing| self.refusing.get_or_create(&RefusingLabel { reason: *reason }).get() == 1;
        Refusing::ALL.into_iter().filter(is_set).collect()
    }

    /// Counts a request that a bound refused.
    pub(crate) fn count_overload(&self, key: &'static str) {
        debug_assert!(LIMIT_KEYS.contains(&key), "{key} is counted from 0 on, too");
        self.overload_refusals.get_or_create(&LimitLabel { key }).inc();
    }

    pub(crate) fn set_blocks(&self, tenant: &spoor_model::TenantId, count: usize) {
        let label = TenantLabel { tenant: tenant.to_string() };
        self.blocks.get_or_create(&label).set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}

/// Seconds as metrics have them.
pub(crate) fn seconds(duration: std::time::Duration) -> f64 {
    duration.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_ours_and_tempos() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        metrics.blocks_cut.inc();
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            "spoor_ingester_blocks_cut_total 1",
            "tempo_ingester_blocks_flushed_total 1",
            "spoor_ingester_overload_refusals_total{key=\"head_memory_limit\"} 0",
            "spoor_ingester_refusing{reason=\"heads\"} 0",
        ] {
            assert!(text.contains(line), "{line} is missing in:\n{text}");
        }
    }
}
