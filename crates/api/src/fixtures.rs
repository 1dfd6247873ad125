//! What the tests of the surfaces stand on: a store in memory that scans by the reference
//! definitions, and routers over it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::{HeaderMap, Request, StatusCode};
use prometheus_client::registry::Registry;
use spoor_model::batch::SpanBatch;
use spoor_model::columns::{ColumnRequest, ColumnScan, TracesScan};
use spoor_model::compute::ComputePool;
use spoor_model::ingest::Decode;
use spoor_model::memory::MemoryBudget;
use spoor_model::scan::{
    AttrScope, Field, KeySet, Operation, QueryContext, ScanError, ScanStats, Skipped, Snapshot, Snapshots, SpanSource,
    ValueSet,
};
use spoor_model::{Clock, SpanEntry, TenantId, TimeRange, Trace, TraceId, UnixNano, Value, value};
use spoor_otlp::OtlpDecoder;
use spoor_querier::{Limits, Metrics, Querier};
use tokio::sync::watch;
use tower::ServiceExt;

use crate::gate::{QueryGate, QueryLimits};
use crate::query_metrics::QueryMetrics;
use crate::request_metrics::RequestMetrics;
use crate::tenant::Tenancy;
use crate::{jaeger, tempo};

/// The spans of an OTLP/JSON request, by the way that every request goes.
pub(crate) fn entries_of(otlp_json: &[u8]) -> Vec<SpanEntry> {
    let request = spoor_otlp::json::to_protobuf(otlp_json).unwrap();
    let checked = OtlpDecoder.check(&request).unwrap();
    assert!(checked.rejected.is_empty(), "{:?}", checked.rejected);
    let mut batch = SpanBatch::new();
    OtlpDecoder.append(&request, &checked, &mut batch);
    (0..batch.len() as u32).map(|row| batch.span(row)).collect()
}

/// Spans of some tenants, and what is missing of them.
#[derive(Default)]
pub(crate) struct Store {
    spans: BTreeMap<TenantId, Arc<Spans>>,
    skipped: Vec<Skipped>,
}

impl Store {
    pub(crate) fn with(otlp_json: &[u8]) -> Self {
        Self::default().and(TenantId::single(), otlp_json)
    }

    pub(crate) fn and(mut self, tenant: TenantId, otlp_json: &[u8]) -> Self {
        self.spans.insert(tenant, Arc::new(Spans(entries_of(otlp_json))));
        self
    }

    pub(crate) fn without(mut self, object: &str, reason: &str) -> Self {
        self.skipped.push(Skipped { object: object.to_owned(), reason: reason.to_owned() });
        self
    }
}

impl Snapshots for Store {
    fn snapshot(&self, tenant: &TenantId) -> Snapshot {
        let sources = self.spans.get(tenant).map(|spans| Arc::clone(spans) as Arc<dyn SpanSource>);
        Snapshot { sources: sources.into_iter().collect(), skipped: self.skipped.clone() }
    }
}

struct Spans(Vec<SpanEntry>);

impl Spans {
    fn by_trace(&self) -> BTreeMap<TraceId, Vec<&SpanEntry>> {
        let mut traces: BTreeMap<TraceId, Vec<&SpanEntry>> = BTreeMap::new();
        self.0.iter().for_each(|entry| traces.entry(entry.span.trace_id).or_default().push(entry));
        traces
    }
}

fn range_of<'a>(entries: impl IntoIterator<Item = &'a SpanEntry>) -> Option<TimeRange> {
    let ranges = entries.into_iter().map(|entry| TimeRange { start: entry.span.start, end: entry.span.end });
    ranges.reduce(|a, b| a.union(&b))
}

impl SpanSource for Spans {
    fn describe(&self) -> String {
        "test spans".to_owned()
    }

    fn range(&self) -> Option<TimeRange> {
        range_of(&self.0)
    }

    fn span_count(&self) -> u64 {
        self.0.len() as u64
    }

    fn scan<'a>(
        &'a self,
        request: &'a ColumnRequest,
        ctx: &QueryContext,
    ) -> Result<Box<dyn ColumnScan + 'a>, ScanError> {
        ctx.check()?;
        let traces = self.by_trace().into_iter().filter_map(|(id, entries)| {
            let entries = entries.into_iter().cloned().collect();
            Trace::assemble(id, entries)
        });
        Ok(Box::new(TracesScan::new(traces.collect(), request)))
    }

    fn trace_fingerprints(&self, _: &QueryContext) -> Result<Arc<[u32]>, ScanError> {
        let mut fingerprints: Vec<u32> = self.by_trace().into_keys().map(|id| id.fingerprint()).collect();
        fingerprints.sort_unstable();
        Ok(fingerprints.into())
    }

    fn find_trace(&self, id: TraceId, _: &QueryContext) -> Result<Vec<SpanEntry>, ScanError> {
        Ok(self.0.iter().filter(|entry| entry.span.trace_id == id).cloned().collect())
    }

    fn trace_range(&self, id: TraceId, _: &QueryContext) -> Result<Option<TimeRange>, ScanError> {
        Ok(range_of(self.0.iter().filter(|entry| entry.span.trace_id == id)))
    }

    fn keys(&self, _: &QueryContext, into: &mut KeySet) -> Result<ScanStats, ScanError> {
        for SpanEntry { origin, span } in &self.0 {
            let mut add = |scope, attributes: &[spoor_model::KeyValue]| {
                let keys = into.entry(scope).or_default();
                keys.extend(attributes.iter().map(|attribute| attribute.key.clone()));
            };
            add(AttrScope::Span, &span.attributes);
            add(AttrScope::Resource, &origin.resource.attributes);
            add(AttrScope::Instrumentation, &origin.scope.attributes);
            span.events.iter().for_each(|event| add(AttrScope::Event, &event.attributes));
            span.links.iter().for_each(|link| add(AttrScope::Link, &link.attributes));
        }
        Ok(ScanStats::default())
    }

    fn values(&self, field: &Field, _: &QueryContext, into: &mut ValueSet) -> Result<ScanStats, ScanError> {
        for SpanEntry { origin, span } in &self.0 {
            let value = match field {
                Field::Attribute(AttrScope::Resource, key) => value::find(&origin.resource.attributes, key).cloned(),
                Field::Attribute(_, key) => value::find(&span.attributes, key)
                    .or_else(|| value::find(&origin.resource.attributes, key))
                    .cloned(),
                Field::Name => Some(Value::Str(span.name.clone())),
                _ => None,
            };
            if value.is_some_and(|value| into.insert(&value).is_break()) {
                break;
            }
        }
        Ok(ScanStats::default())
    }

    fn operations(&self, _: &QueryContext, into: &mut BTreeSet<Operation>) -> Result<ScanStats, ScanError> {
        into.extend(self.0.iter().map(|entry| Operation {
            service: entry.origin.service_name().map(str::to_owned),
            name: entry.span.name.clone(),
            kind: entry.span.kind,
        }));
        Ok(ScanStats::default())
    }
}

/// The time of every test: shortly after the spans of the fixtures.
pub(crate) struct FixedClock;

/// 2023-11-14T22:13:30Z.
pub(crate) const NOW: UnixNano = UnixNano(1_700_000_010_000_000_000);

impl Clock for FixedClock {
    fn now(&self) -> UnixNano {
        NOW
    }
}

/// A gate to a querier over the store.
pub(crate) fn gate(store: impl Snapshots + 'static, limits: QueryLimits) -> Arc<QueryGate> {
    let pool = Arc::new(ComputePool::new("test-query", 2).unwrap());
    let querier = Querier::new(
        Arc::new(store),
        Arc::clone(&pool),
        Limits::default(),
        Arc::new(FixedClock),
        Metrics::register(&mut Registry::default()),
    );
    Arc::new(QueryGate::new(Arc::new(querier), pool, MemoryBudget::new(1 << 28), limits, QueryMetrics::default()))
}

const LIMITS: QueryLimits = QueryLimits { concurrency: 2, queue: 4, timeout: Duration::from_secs(30) };

/// Tempo's surface over the store.
pub(crate) fn tempo(store: impl Snapshots + 'static, tenancy: Tenancy) -> Router {
    tempo::router(tempo_state(store, tenancy))
}

/// What Tempo's surface needs, over the store. Its streams say nothing before the answer.
pub(crate) fn tempo_state(store: impl Snapshots + 'static, tenancy: Tenancy) -> tempo::State {
    let mut registry = Registry::default();
    tempo::State {
        gate: gate(store, LIMITS),
        limits: tempo::Limits::default(),
        tenancy,
        clock: Arc::new(FixedClock),
        stream_interval: Duration::from_secs(3600),
        requests: RequestMetrics::register(&mut registry, Arc::new(FixedClock)),
        cors_allowed_origins: vec!["https://page.example".to_owned()],
        build: tempo::BuildInfo { version: "0.1.0".to_owned(), ..tempo::BuildInfo::default() },
        serving: watch::channel(true).1,
        health: Arc::new(tempo::Health::default),
        metrics: Arc::new(move || {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
            text
        }),
        config: Arc::new(|| "retention: 168h\n".to_owned()),
        mcp: true,
        overrides: tempo::Overrides {
            defaults: tempo::TenantLimits {
                ingest_rate_bytes: 0,
                ingest_burst_bytes: 16 << 20,
                retention: Duration::from_secs(168 * 3600),
            },
            by_tenant: BTreeMap::new(),
        },
        admin: None,
        trace_deletion: false,
    }
}

/// What Jaeger's surface needs, over the store.
pub(crate) fn jaeger_state(store: Store, tenancy: Tenancy, options: jaeger::Options) -> Arc<jaeger::State> {
    let requests = RequestMetrics::register(&mut Registry::default(), Arc::new(FixedClock));
    Arc::new(jaeger::State {
        gate: gate(store, LIMITS),
        tenancy,
        clock: Arc::new(FixedClock),
        requests,
        serving: watch::channel(true).1,
        cors_allowed_origins: Vec::new(),
        options,
        ui: None,
    })
}

/// Jaeger's surface over the store.
pub(crate) fn jaeger(store: Store, tenancy: Tenancy) -> Router {
    jaeger::router(jaeger_state(store, tenancy, jaeger::Options::default()))
}

/// Method and path of everything that an OpenAPI document describes, sorted.
pub(crate) fn described(openapi: &str) -> Vec<(String, String)> {
    let document: serde_json::Value = serde_norway::from_str(openapi).unwrap();
    let of_path = |(path, methods): (&String, &serde_json::Value)| {
        methods.as_object().unwrap().keys().map(|method| (method.clone(), path.clone())).collect::<Vec<_>>()
    };
    let mut described: Vec<_> = document["paths"].as_object().unwrap().iter().flat_map(of_path).collect();
    described.sort();
    described
}

/// What came back.
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The body as JSON; panics with the body when it is none, or when the status is no success.
    pub(crate) fn json(&self) -> serde_json::Value {
        assert_eq!(self.status, StatusCode::OK, "{}", String::from_utf8_lossy(&self.body));
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// Sends one request.
pub(crate) async fn get(router: &Router, uri: &str, headers: &[(&str, &str)]) -> Reply {
    send(router, "GET", uri, headers).await
}

pub(crate) async fn send(router: &Router, method: &str, uri: &str, headers: &[(&str, &str)]) -> Reply {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap().to_vec();
    Reply { status: parts.status, headers: parts.headers, body }
}
