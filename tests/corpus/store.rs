//! The ingester and the querier of the product, in this process: spans lie in the head, in a block, or in both.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use prometheus_client::registry::Registry;
use spoor_ingester::{Config, Ingester, WalSync};
use spoor_model::compute::ComputePool;
use spoor_model::ingest::{Append, AppendRequest, BodyEncoding, Decode};
use spoor_model::memory::MemoryBudget;
use spoor_model::scan::{QueryContext, Snapshots};
use spoor_model::{Clock, SpanEntry, TenantId, TimeRange, Trace, UnixNano, Value};
use spoor_otlp::OtlpDecoder;
use spoor_querier::{Filter, Limits, Querier, SearchRequest};
use spoor_testkit::answer::{FoundSpan, FoundSpanset, FoundTrace, Series, Window};
use spoor_testkit::rng::Rng;
use spoor_testkit::traceql_corpus::{Engine, Failure, T0};
use spoor_traceql::{MatchedSpanset, SearchPlan, Static};
use tempfile::TempDir;

/// An hour after the traces, for ever: nothing is cut because of its age.
struct Still;

impl Clock for Still {
    fn now(&self) -> UnixNano {
        UnixNano(T0 + 3_600_000_000_000)
    }
}

/// Data of a directory, shared by all files; every load is a tenant of its own.
pub(crate) struct Store {
    ingester: Arc<Ingester>,
    querier: Querier,
    next_tenant: AtomicU64,
    _directory: TempDir,
}

impl Store {
    pub(crate) fn open() -> Self {
        let directory = TempDir::new().unwrap();
        let config = Config { wal_sync: WalSync::Never, ..Config::new(directory.path()) };
        let mut registry = Registry::default();
        let metrics = spoor_ingester::Metrics::register(&mut registry);
        let ingester = Ingester::open(config, Arc::new(Still), Arc::new(OtlpDecoder), metrics).unwrap();
        let snapshots = Arc::clone(&ingester) as Arc<dyn Snapshots>;
        let pool = Arc::new(ComputePool::new("corpus", 2).unwrap());
        let metrics = spoor_querier::Metrics::register(&mut registry);
        let querier = Querier::new(snapshots, pool, Limits::default(), Arc::new(Still), metrics);
        Self { ingester, querier, next_tenant: AtomicU64::new(0), _directory: directory }
    }

    fn append(&self, tenant: &TenantId, entries: Vec<SpanEntry>) -> Result<(), String> {
        let Some(first) = entries.first() else { return Ok(()) };
        let sent = entries.len();
        let payload = Bytes::from(spoor_otlp::encode::traces_data(&Trace { id: first.span.trace_id, entries }));
        let checked = OtlpDecoder.check(&payload).map_err(|error| error.to_string())?;
        if checked.accepted_count as usize != sent {
            return Err(format!("{} of {sent} spans are refused", checked.rejected.len()));
        }
        let stored_encoding = BodyEncoding::Identity;
        let request =
            AppendRequest { tenant: tenant.clone(), stored: payload.clone(), payload, stored_encoding, checked };
        let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(|error| error.to_string())?;
        let outcome =
            runtime.block_on(self.ingester.append(request)).map_err(|_| "the ingester has gone".to_owned())?;
        outcome.map_err(|error| error.to_string())
    }

    /// Makes a block of what the head holds.
    fn cut(&self, tenant: &TenantId) -> Result<(), String> {
        self.ingester.flush(Some(tenant)).map_err(|error| error.to_string())
    }
}

/// Where the spans of a load are put.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Layout {
    /// All in the head.
    Head,
    /// All in one block.
    Block,
    /// Each in one of two blocks or the head, whatever trace it belongs to, and some in a second of them too.
    Torn,
}

/// How many pieces [`Layout::Torn`] makes.
const PIECES: usize = 3;
/// How often a span is exported again into another piece.
const COPIED: f64 = 0.2;

/// A querier on a store; the spans of one load at a time.
pub(crate) struct StoreEngine<'a> {
    store: &'a Store,
    layout: Layout,
    tenant: TenantId,
    rng: Rng,
}

impl<'a> StoreEngine<'a> {
    pub(crate) fn new(store: &'a Store, layout: Layout) -> Self {
        Self { store, layout, tenant: TenantId::single(), rng: Rng::seeded(1) }
    }

    fn torn(&mut self, entries: &[SpanEntry]) -> Vec<Vec<SpanEntry>> {
        let mut pieces = vec![Vec::new(); PIECES];
        for entry in entries {
            let piece = self.rng.index(PIECES);
            pieces[piece].push(entry.clone());
            if self.rng.chance(COPIED) {
                pieces[(piece + 1) % PIECES].push(entry.clone());
            }
        }
        pieces
    }

    fn context(&self) -> QueryContext {
        QueryContext::new(&MemoryBudget::new(1 << 30), Arc::new(AtomicBool::new(false)))
    }
}

fn refused(error: impl std::fmt::Display) -> Failure {
    Failure::Refused(error.to_string())
}

fn broken(error: impl std::fmt::Debug) -> Failure {
    Failure::Broken(format!("{error:?}"))
}

impl Engine for StoreEngine<'_> {
    fn load(&mut self, entries: &[SpanEntry]) -> Result<(), String> {
        let number = self.store.next_tenant.fetch_add(1, Ordering::Relaxed);
        self.tenant = TenantId::parse(&format!("load-{number}")).map_err(|error| error.to_string())?;
        match self.layout {
            Layout::Head => self.store.append(&self.tenant, entries.to_vec()),
            Layout::Block => {
                self.store.append(&self.tenant, entries.to_vec())?;
                self.store.cut(&self.tenant)
            }
            Layout::Torn => {
                let mut pieces = self.torn(entries);
                let head = pieces.pop().unwrap_or_default();
                for piece in pieces {
                    self.store.append(&self.tenant, piece)?;
                    self.store.cut(&self.tenant)?;
                }
                self.store.append(&self.tenant, head)
            }
        }
    }

    fn search(&mut self, query: &str) -> Result<Vec<FoundTrace>, Failure> {
        let query = spoor_traceql::parse(query).map_err(refused)?;
        let plan = spoor_traceql::plan_search(&query).map_err(refused)?;
        let request = SearchRequest {
            filter: Filter::Query(plan.clone()),
            min_duration_nano: None,
            max_duration_nano: None,
            range: TimeRange::ALL,
            limit: 10_000,
        };
        let answer =
            self.store.querier.search(std::slice::from_ref(&self.tenant), &request, &self.context()).map_err(broken)?;
        match answer.skipped.is_empty() {
            true => Ok(answer.value.iter().map(|found| shown(&plan, &found.trace, &found.spansets)).collect()),
            false => Err(broken(answer.skipped)),
        }
    }

    fn metrics(&mut self, query: &str, window: Window) -> Result<Vec<Series>, Failure> {
        let window = spoor_traceql::Window::exact(window.from, window.to, window.step);
        let query = spoor_traceql::parse(query).map_err(refused)?;
        let plan = spoor_traceql::plan_metrics(&query).map_err(refused)?;
        let tenants = std::slice::from_ref(&self.tenant);
        let answer = self.store.querier.metrics(tenants, &plan, &window, 0, &self.context()).map_err(broken)?;
        match answer.skipped.is_empty() {
            true => Ok(answer.value.into_iter().map(series).collect()),
            false => Err(broken(answer.skipped)),
        }
    }

    fn instant(&mut self, query: &str, window: Window) -> Result<Vec<Series>, Failure> {
        self.metrics(query, window)
    }
}

fn series(series: spoor_traceql::Series) -> Series {
    let labels = series.labels.iter().map(|(key, value)| (key.to_string(), value.to_value())).collect();
    Series { labels, points: series.values }
}

fn shown(plan: &SearchPlan, trace: &Trace, spansets: &[MatchedSpanset]) -> FoundTrace {
    let pair = |key: &str, value: Value| (key.to_owned(), value);
    let spanset = |set: &MatchedSpanset| {
        let values = plan.shown_values(trace, &set.spans);
        let span = |(index, values): (&usize, &Vec<_>)| {
            let span = &trace.entries[*index].span;
            FoundSpan {
                id: span.span_id,
                name: plan.shows_name().then(|| span.name.clone()),
                attributes: values
                    .iter()
                    .map(|(key, value): &(Arc<str>, _)| pair(key, Static::to_value(value)))
                    .collect(),
            }
        };
        FoundSpanset {
            spans: set.spans.iter().zip(&values).map(span).collect(),
            attributes: set.attributes.iter().map(|(key, value)| pair(key, value.to_value())).collect(),
        }
    };
    FoundTrace { id: trace.id, spansets: spansets.iter().map(spanset).collect() }
}
