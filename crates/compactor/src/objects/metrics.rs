//! What is asked of the store, and what the cache on local disk spares it.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// What a request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Operation {
    Get,
    Put,
    List,
    Delete,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OperationLabel {
    operation: Operation,
}

/// Counters; cloning shares them.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    requests: Family<OperationLabel, Counter>,
    failures: Family<OperationLabel, Counter>,
    pub(crate) read_bytes: Counter,
    pub(crate) written_bytes: Counter,
    pub(crate) cache_read_bytes: Counter,
    pub(crate) cache_held_bytes: Gauge,
    pub(crate) cache_rotten: Counter,
    pub(crate) cache_errors: Counter,
    pub(crate) awaited_blocks: Gauge,
    pub(crate) lease_held: Gauge,
    /// For how long listings have failed, in seconds; 0 while they do not.
    pub unlisted_seconds: Gauge,
    pub(crate) swept: Counter,
}

impl Metrics {
    /// Registers everything.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let Self { requests, failures, .. } = metrics.clone();
        for operation in [Operation::Get, Operation::Put, Operation::List, Operation::Delete] {
            // An alert that looks for a rise sees the first only when it saw 0 before.
            let _ = failures.get_or_create(&OperationLabel { operation });
        }
        registry.register(
            "spoor_compactor_storage_requests",
            "Requests to object storage, repeated ones too",
            requests,
        );
        registry.register(
            "spoor_compactor_storage_request_failures",
            "Requests to object storage that were refused, late or answered with damaged bytes",
            failures,
        );
        let counters = [
            ("spoor_compactor_storage_read_bytes", "Bytes read from object storage", &metrics.read_bytes),
            ("spoor_compactor_storage_written_bytes", "Bytes put into object storage", &metrics.written_bytes),
            (
                "spoor_compactor_storage_cache_read_bytes",
                "Bytes of blocks on object storage that were read from local disk instead",
                &metrics.cache_read_bytes,
            ),
            (
                "spoor_compactor_storage_cache_rotten",
                "Pieces on local disk that did not verify and were fetched anew",
                &metrics.cache_rotten,
            ),
            (
                "spoor_compactor_storage_cache_errors",
                "Times that the cache on local disk could not be written or read",
                &metrics.cache_errors,
            ),
            (
                "spoor_compactor_storage_swept",
                "Remains of unfinished uploads and of removed blocks that were deleted",
                &metrics.swept,
            ),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        let held = metrics.cache_held_bytes.clone();
        registry.register("spoor_compactor_storage_cache_held_bytes", "Bytes of blocks held on local disk", held);
        registry.register(
            "spoor_compactor_storage_awaited_blocks",
            "Known blocks on object storage of which what tells that they lack a value is not on local disk yet",
            metrics.awaited_blocks.clone(),
        );
        let lease = metrics.lease_held.clone();
        registry.register("spoor_compactor_storage_lease_held", "1 while this process owns compaction", lease);
        registry.register(
            "spoor_compactor_storage_unlisted_seconds",
            "For how long object storage could not be listed, as of the last try; 0 when it could",
            metrics.unlisted_seconds.clone(),
        );
        metrics
    }

    pub(crate) fn count(&self, operation: Operation) {
        self.requests.get_or_create(&OperationLabel { operation }).inc();
    }

    pub(crate) fn count_failure(&self, operation: Operation) {
        self.failures.get_or_create(&OperationLabel { operation }).inc();
    }
}
