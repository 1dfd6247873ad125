//! What the door counts. Where Tempo's dashboards know a series with the same meaning, it is
//! exposed under that name too.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use spoor_model::TenantId;
use spoor_model::ingest::Rejected;

use crate::PushError;

/// Tenants with series of their own; the spans of further ones are counted under `(others)`.
const TENANTS_MAX: usize = 1_000;

/// Which receiver took a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// OTLP/gRPC.
    Grpc,
    /// OTLP/HTTP.
    Http,
}

impl EncodeLabelValue for Transport {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        match self {
            Self::Grpc => "grpc",
            Self::Http => "http",
        }
        .encode(encoder)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TenantLabels {
    tenant: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DiscardLabels {
    reason: &'static str,
    tenant: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusalLabels {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReceiverLabels {
    receiver: &'static str,
    transport: Transport,
}

/// The counters of a [`crate::Distributor`].
#[derive(Debug, Clone)]
pub struct Metrics {
    pub(crate) wire_bytes: Counter,
    pub(crate) in_flight_bytes: Gauge,
    pub(crate) push_duration_seconds: Histogram,
    ingress_bytes: Family<TenantLabels, Counter>,
    accepted_bytes: Family<TenantLabels, Counter>,
    accepted_spans: Family<TenantLabels, Counter>,
    discarded_spans: Family<DiscardLabels, Counter>,
    refused_requests: Family<RefusalLabels, Counter>,
    receiver_accepted_spans: Family<ReceiverLabels, Gauge>,
    receiver_refused_spans: Family<ReceiverLabels, Gauge>,
    tenants: Arc<Mutex<HashSet<TenantId>>>,
}

impl Metrics {
    /// Makes the counters and shows them in `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            wire_bytes: Counter::default(),
            in_flight_bytes: Gauge::default(),
            // 0.5 ms to 16 s: the target is an answer in 5 ms, the usual deadline is 10 s.
            push_duration_seconds: Histogram::new(exponential_buckets(0.0005, 2.0, 16)),
            ingress_bytes: Family::default(),
            accepted_bytes: Family::default(),
            accepted_spans: Family::default(),
            discarded_spans: Family::default(),
            refused_requests: Family::default(),
            receiver_accepted_spans: Family::default(),
            receiver_refused_spans: Family::default(),
            tenants: Arc::default(),
        };
        for reason in PushError::REASONS {
            // An alert that looks for a rise sees the first only when it saw 0 before.
            let _ = metrics.refused_requests.get_or_create(&RefusalLabels { reason });
        }
        metrics.register_own_names(registry);
        metrics.register_tempo_names(registry);
        metrics
    }

    fn register_own_names(&self, registry: &mut Registry) {
        let named = |name: &str| format!("spoor_distributor_{name}");
        registry.register(named("wire_bytes"), "Bytes of requests as they travelled", self.wire_bytes.clone());
        registry.register(
            named("in_flight_bytes"),
            "Bytes held for requests that are not answered yet",
            self.in_flight_bytes.clone(),
        );
        registry.register(
            named("push_duration_seconds"),
            "From the whole request to its answer",
            self.push_duration_seconds.clone(),
        );
        registry.register(
            named("ingress_bytes"),
            "Uncompressed bytes of requests, before the rate limit",
            self.ingress_bytes.clone(),
        );
        registry.register(
            named("accepted_bytes"),
            "Uncompressed bytes of requests that were stored, as protobuf",
            self.accepted_bytes.clone(),
        );
        registry.register(named("accepted_spans"), "Spans stored", self.accepted_spans.clone());
        registry.register(
            named("discarded_spans"),
            "Spans refused one by one (partial success)",
            self.discarded_spans.clone(),
        );
        registry.register(named("refused_requests"), "Requests refused whole", self.refused_requests.clone());
    }

    fn register_tempo_names(&self, registry: &mut Registry) {
        registry.register("tempo_distributor_spans_received", "Spans stored", self.accepted_spans.clone());
        registry.register(
            "tempo_distributor_bytes_received",
            "Uncompressed bytes of requests that were stored, as protobuf",
            self.accepted_bytes.clone(),
        );
        registry.register(
            "tempo_distributor_ingress_bytes",
            "Uncompressed bytes of requests, before the rate limit",
            self.ingress_bytes.clone(),
        );
        registry.register(
            "tempo_distributor_push_duration_seconds",
            "From the whole request to its answer",
            self.push_duration_seconds.clone(),
        );
        registry.register(
            "tempo_discarded_spans",
            "Spans refused one by one (partial success)",
            self.discarded_spans.clone(),
        );
        // Counters in meaning; gauges here because these two names have no `_total`.
        registry.register("tempo_receiver_accepted_spans", "Spans stored", self.receiver_accepted_spans.clone());
        registry.register(
            "tempo_receiver_refused_spans",
            "Spans not stored, of requests that could be read",
            self.receiver_refused_spans.clone(),
        );
    }

    pub(crate) fn count_ingress(&self, tenant: &TenantId, bytes: usize) {
        self.ingress_bytes.get_or_create(&self.labels_of(tenant)).inc_by(bytes as u64);
    }

    pub(crate) fn count_accepted(&self, tenant: &TenantId, transport: Transport, spans: u32, bytes: usize) {
        let labels = self.labels_of(tenant);
        self.accepted_bytes.get_or_create(&labels).inc_by(bytes as u64);
        self.accepted_spans.get_or_create(&labels).inc_by(u64::from(spans));
        self.receiver_accepted_spans.get_or_create(&receiver(transport)).inc_by(i64::from(spans));
    }

    pub(crate) fn count_not_appended(&self, transport: Transport, spans: u32) {
        self.receiver_refused_spans.get_or_create(&receiver(transport)).inc_by(i64::from(spans));
    }

    pub(crate) fn count_rejected(&self, tenant: &TenantId, transport: Transport, rejected: &[Rejected]) {
        if rejected.is_empty() {
            return;
        }
        let tenant = self.labels_of(tenant).tenant;
        for span in rejected {
            let labels = DiscardLabels { reason: span.reason.label(), tenant: tenant.clone() };
            self.discarded_spans.get_or_create(&labels).inc();
        }
        self.receiver_refused_spans.get_or_create(&receiver(transport)).inc_by(rejected.len() as i64);
    }

    pub(crate) fn count_refusal(&self, err: &PushError) {
        self.refused_requests.get_or_create(&RefusalLabels { reason: err.reason() }).inc();
    }

    fn labels_of(&self, tenant: &TenantId) -> TenantLabels {
        let mut tenants = self.tenants.lock();
        let is_named = tenants.contains(tenant) || tenants.len() < TENANTS_MAX && tenants.insert(tenant.clone());
        TenantLabels { tenant: if is_named { tenant.to_string() } else { "(others)".to_owned() } }
    }
}

fn receiver(transport: Transport) -> ReceiverLabels {
    ReceiverLabels { receiver: "otlp", transport }
}
