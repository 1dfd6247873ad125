//! The compactor's metrics, under our names and under those of Tempo's dashboards.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// Counters and histograms; cloning shares them.
#[derive(Debug, Clone)]
pub struct Metrics {
    pub(crate) retention_seconds: Histogram,
    pub(crate) retention_errors: Counter,
    pub(crate) blocks_deleted: Counter,
}

impl Metrics {
    /// Registers everything.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            retention_seconds: Histogram::new(exponential_buckets(0.001, 4.0, 8)),
            retention_errors: Counter::default(),
            blocks_deleted: Counter::default(),
        };
        let names = ["spoor_compactor_retention_duration_seconds", "tempodb_retention_duration_seconds"];
        for name in names {
            registry.register(name, "Time of one pass of retention", metrics.retention_seconds.clone());
        }
        for name in ["spoor_compactor_retention_errors", "tempodb_retention_errors"] {
            registry.register(
                name,
                "Tenants whose expired blocks could not be removed",
                metrics.retention_errors.clone(),
            );
        }
        // Nothing is marked first here: what is marked is deleted, in one pass.
        let deleted = [
            "spoor_compactor_retention_deleted_blocks",
            "tempodb_retention_deleted",
            "tempodb_retention_marked_for_deletion",
        ];
        for name in deleted {
            registry.register(name, "Blocks removed because they were past retention", metrics.blocks_deleted.clone());
        }
        metrics
    }
}
