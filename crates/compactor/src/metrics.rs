//! The compactor's metrics, under our names and under those of Tempo's dashboards.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use spoor_block::Merged;
use spoor_model::TenantId;

use crate::plan::Job;

/// What a merge made, by how often its spans were merged.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct LevelLabel {
    level: u32,
}

/// Which tenant.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct TenantLabel {
    tenant: String,
}

/// What a merge rested for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "the label's values")]
pub(crate) enum Reason {
    /// `compaction_cpu_share`.
    cpu_share,
    /// `compaction_io_bytes_per_second`.
    io_rate,
    /// Ingest needs the machine.
    ingest,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ReasonLabel {
    reason: Reason,
}

type ByLevel = Family<LevelLabel, Counter>;

/// Counters and histograms; cloning shares them.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    pub(crate) retention_seconds: Seconds,
    pub(crate) retention_errors: Counter,
    pub(crate) blocks_deleted: Counter,
    pub(crate) errors: Counter,
    pub(crate) io_bytes: Counter,
    rest_seconds: Family<ReasonLabel, Counter<f64, AtomicU64>>,
    merge_seconds: Seconds,
    blocks_merged: ByLevel,
    blocks_written: ByLevel,
    spans_written: ByLevel,
    traces_written: ByLevel,
    bytes_written: ByLevel,
    copies_dropped: Counter,
    spans_left_out: Counter,
    outstanding: Family<TenantLabel, Gauge>,
}

/// A histogram of durations from a millisecond to a quarter of an hour.
#[derive(Debug, Clone)]
pub(crate) struct Seconds(pub(crate) Histogram);

impl Default for Seconds {
    fn default() -> Self {
        Self(Histogram::new(exponential_buckets(0.001, 4.0, 11)))
    }
}

impl Metrics {
    /// Registers everything.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        metrics.register_retention(registry);
        metrics.register_merges(registry);
        metrics
    }

    fn register_retention(&self, registry: &mut Registry) {
        let names = ["spoor_compactor_retention_duration_seconds", "tempodb_retention_duration_seconds"];
        for name in names {
            registry.register(name, "Time of one pass of retention", self.retention_seconds.0.clone());
        }
        for name in ["spoor_compactor_retention_errors", "tempodb_retention_errors"] {
            let help = "Tenants whose expired blocks could not be removed";
            registry.register(name, help, self.retention_errors.clone());
        }
        // Nothing is marked first here: what is marked is deleted, in one pass.
        let deleted = [
            "spoor_compactor_retention_deleted_blocks",
            "tempodb_retention_deleted",
            "tempodb_retention_marked_for_deletion",
        ];
        for name in deleted {
            registry.register(name, "Blocks removed because they were past retention", self.blocks_deleted.clone());
        }
    }

    fn register_merges(&self, registry: &mut Registry) {
        let by_level = [
            ("blocks_merged", "tempodb_compaction_blocks", "Blocks that were merged into others", &self.blocks_merged),
            (
                "traces_written",
                "tempodb_compaction_objects_written",
                "Traces of blocks that merges wrote",
                &self.traces_written,
            ),
            (
                "bytes_written",
                "tempodb_compaction_bytes_written",
                "Bytes of blocks that merges wrote",
                &self.bytes_written,
            ),
        ];
        for (name, alias, help, counter) in by_level {
            registry.register(format!("spoor_compactor_{name}"), help, counter.clone());
            registry.register(alias, help, counter.clone());
        }
        for name in ["spoor_compactor_errors", "tempodb_compaction_errors"] {
            registry.register(name, "Merges that failed", self.errors.clone());
        }
        for name in ["spoor_compactor_outstanding_blocks", "tempodb_compaction_outstanding_blocks"] {
            registry.register(name, "Blocks that are to be merged now", self.outstanding.clone());
        }
        let registry = registry.sub_registry_with_prefix("spoor_compactor");
        registry.register("blocks_written", "Blocks that merges wrote", self.blocks_written.clone());
        registry.register("spans_written", "Spans of blocks that merges wrote", self.spans_written.clone());
        registry.register(
            "copies_dropped",
            "Exact copies of spans that fell away in merges",
            self.copies_dropped.clone(),
        );
        registry.register(
            "spans_left_out",
            "Spans left out of merges because they were deleted or past retention",
            self.spans_left_out.clone(),
        );
        registry.register("merge_duration_seconds", "Time of a merge, rests included", self.merge_seconds.0.clone());
        registry.register("io_bytes", "Bytes that merges read and wrote", self.io_bytes.clone());
        registry.register("rest_seconds", "Time that merges rested, by what for", self.rest_seconds.clone());
    }

    pub(crate) fn merged(&self, job: &Job, merged: &Merged, took: Duration) {
        let level = LevelLabel { level: job.level };
        let add = |family: &ByLevel, count: u64| family.get_or_create(&level).inc_by(count);
        add(&self.blocks_merged, job.inputs.len() as u64);
        add(&self.blocks_written, merged.blocks.len() as u64);
        add(&self.spans_written, merged.spans_written);
        add(&self.traces_written, merged.blocks.iter().map(|meta| meta.trace_count).sum());
        add(&self.bytes_written, merged.blocks.iter().map(|meta| meta.size_bytes).sum());
        self.copies_dropped.inc_by(merged.copies_dropped);
        self.spans_left_out.inc_by(merged.spans_left_out);
        self.merge_seconds.0.observe(took.as_secs_f64());
    }

    pub(crate) fn rested(&self, reason: Reason, rest: Duration) {
        self.rest_seconds.get_or_create(&ReasonLabel { reason }).inc_by(rest.as_secs_f64());
    }

    pub(crate) fn set_outstanding(&self, tenants: &[TenantId], jobs: &[Job]) {
        for tenant in tenants {
            let of_tenant = jobs.iter().filter(|job| job.tenant == *tenant);
            let count: usize = of_tenant.map(|job| job.inputs.len()).sum();
            let label = TenantLabel { tenant: tenant.to_string() };
            self.outstanding.get_or_create(&label).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
}
