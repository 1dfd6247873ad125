//! The wiring: which parts there are, and what each gets.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use prometheus_client::registry::Registry;
use spoor_api::gate::{QueryGate, QueryLimits};
use spoor_api::query_metrics::QueryMetrics;
use spoor_api::request_metrics::RequestMetrics;
use spoor_api::tenant::Tenancy;
use spoor_api::{jaeger, otlp, tempo};
use spoor_distributor::Distributor;
use spoor_ingester::{Health, Ingester};
use spoor_model::compute::ComputePool;
use spoor_model::ingest::Append;
use spoor_model::memory::MemoryBudget;
use spoor_model::scan::Snapshots;
use spoor_model::{Clock, TenantId};
use spoor_otlp::OtlpDecoder;
use spoor_querier::Querier;
use tokio::sync::watch;
use tower_http::catch_panic::CatchPanicLayer;

use crate::block_life::{BlockLife, RunningLife};
use crate::build_info;
use crate::clock::SystemClock;
use crate::config::{Config, MemoryPlan, WalSync};
use crate::metrics;
use crate::storage::{self, Shared};

/// When a sender that found no room should come back: what Tempo says too.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Everything that runs.
pub(crate) struct Parts {
    /// Hot spans, and the list of blocks.
    pub(crate) ingester: Arc<Ingester>,
    /// What merges blocks and removes old ones.
    pub(crate) life: RunningLife,
    /// Where the blocks are, when others may use them too.
    pub(crate) shared: Option<Arc<Shared>>,
    /// What each port serves.
    pub(crate) routers: Routers,
    /// True until the process stops; `/ready` and gRPC health say so.
    pub(crate) serving: watch::Sender<bool>,
}

/// What each port serves.
#[derive(Clone)]
pub(crate) struct Routers {
    pub(crate) tempo: Router,
    pub(crate) otlp_grpc: Router,
    pub(crate) otlp_http: Router,
    pub(crate) jaeger: Router,
    pub(crate) jaeger_grpc: Router,
}

impl Parts {
    /// Opens the data directory, recovers and connects everything. Blocks.
    pub(crate) fn open(config: &Config) -> Result<Self, String> {
        let memory = config.memory().map_err(|err| err.to_string())?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let mut registry = metrics::registry();
        let storage = storage::open(config, &mut registry)?;
        let at = ingester_config(config, &memory, storage.identity());
        // Before anything is kept or changed by a mistake.
        spoor_ingester::check_storage(&at).map_err(|err| err.to_string())?;
        storage.try_out()?;
        let ingester = Ingester::open_with(
            at,
            storage.files,
            Arc::clone(&clock),
            Arc::new(OtlpDecoder),
            spoor_ingester::Metrics::register(&mut registry),
        )
        .map_err(|err| err.to_string())?;
        if let Some(shared) = &storage.shared {
            shared.guard_merges(&ingester, &clock);
            // So that the first query sees what other processes wrote, or an earlier one before its disk was lost.
            shared.keep_lease(&*clock);
            shared.poll(&ingester, &*clock, false);
        }
        let serving = watch::Sender::new(true);
        let metrics = spoor_compactor::Metrics::register(&mut registry);
        let life = BlockLife::new(config, &memory, &ingester, storage.shared.as_ref(), &clock, metrics);
        let requests = RequestMetrics::register(&mut registry, Arc::clone(&clock));
        let receivers = receivers(config, &memory, &ingester, &clock, &requests, &mut registry)?;
        let queries = Queries {
            gate: query_gate(config, &memory, Arc::clone(&ingester) as Arc<dyn Snapshots>, &clock, &mut registry)?,
            tenancy: tenancy(config, config.multitenancy),
            clock: Arc::clone(&clock),
            requests,
            serving: serving.subscribe(),
            cors_allowed_origins: config.cors_allowed_origins.clone(),
        };
        let jaeger = queries.jaeger(config)?;
        let routers = Routers {
            jaeger_grpc: survive_panics(jaeger::grpc_router(Arc::clone(&jaeger), receivers.clone())),
            otlp_grpc: survive_panics(otlp::grpc_router(receivers.clone())),
            otlp_http: survive_panics(otlp::http_router(receivers)),
            jaeger: survive_panics(jaeger::router(jaeger)),
            tempo: survive_panics(tempo::router(queries.tempo(
                config,
                registry,
                health_of(&ingester),
                Some(life.admin()),
            ))),
        };
        let life = life.start()?;
        Ok(Self { ingester, life, shared: storage.shared, routers, serving })
    }

    /// Writes the head and stops all threads. Blocks.
    pub(crate) fn close(self) -> Result<(), String> {
        self.life.stop();
        if let Some(shared) = &self.shared {
            shared.release();
        }
        self.ingester.close().map_err(|err| err.to_string())
    }
}

/// A panic in a request is that request's 500 and nothing more.
fn survive_panics(router: Router) -> Router {
    router.layer(CatchPanicLayer::new())
}

pub(crate) fn tenancy(config: &Config, is_by_header: bool) -> Tenancy {
    match is_by_header {
        true => Tenancy::ByHeader { read_max: config.query_max_tenants },
        false => Tenancy::Single,
    }
}

fn pool(name: &'static str) -> Result<Arc<ComputePool>, String> {
    let pool = ComputePool::new(name, cores());
    pool.map(Arc::new).map_err(|err| format!("cannot start threads: {err}"))
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The ingester's piece of the configuration, with blocks on the storage of that identity.
pub(crate) fn ingester_config(config: &Config, memory: &MemoryPlan, storage: &str) -> spoor_ingester::Config {
    spoor_ingester::Config {
        storage: storage.to_owned(),
        storage_moved_from: config.storage_moved_from.0.clone(),
        wal_sync: match config.wal_sync {
            WalSync::Always => spoor_ingester::WalSync::Always,
            WalSync::Interval(interval) => spoor_ingester::WalSync::Interval(interval),
            WalSync::Never => spoor_ingester::WalSync::Never,
        },
        head_bytes_max: memory.head_cut.bytes(),
        head_memory_limit: memory.head.bytes(),
        head_age_max: config.head_max_age,
        // What waits here was admitted by the distributor, and is counted there.
        append_queue_bytes: memory.ingest_inflight.bytes(),
        block_cache_bytes: memory.block_cache.bytes(),
        ..spoor_ingester::Config::new(&config.data_dir)
    }
}

fn receivers(
    config: &Config,
    memory: &MemoryPlan,
    ingester: &Arc<Ingester>,
    clock: &Arc<dyn Clock>,
    requests: &RequestMetrics,
    registry: &mut Registry,
) -> Result<otlp::State, String> {
    let limits = spoor_distributor::Limits {
        max_message_bytes: config.max_message_bytes.bytes(),
        ingest_inflight_bytes: memory.ingest_inflight.bytes(),
        ingest_rate_limit_bytes: config.ingest_rate_limit_bytes.0,
        ingest_rate_burst_bytes: config.ingest_rate_burst().0,
        retry_after: RETRY_AFTER,
    };
    let sink = Arc::clone(ingester) as Arc<dyn Append>;
    let metrics = spoor_distributor::Metrics::register(registry);
    Ok(otlp::State {
        distributor: Distributor::new(limits, pool("spoor-ingest")?, sink, Arc::clone(clock), metrics),
        tenancy: tenancy(config, config.multitenancy),
        receive_timeout: config.receive_timeout,
        answer_timeout: config.ingest_timeout,
        requests: requests.clone(),
        cors_allowed_origins: config.cors_allowed_origins.clone(),
    })
}

pub(crate) fn query_gate(
    config: &Config,
    memory: &MemoryPlan,
    snapshots: Arc<dyn Snapshots>,
    clock: &Arc<dyn Clock>,
    registry: &mut Registry,
) -> Result<Arc<QueryGate>, String> {
    let pool = pool("spoor-query")?;
    let limits = spoor_querier::Limits {
        result_traces_max: config.query_max_results,
        examined_traces_max: config.query_max_examined_traces,
        trace_duration_max: config.query_max_trace_duration,
    };
    let metrics = spoor_querier::Metrics::register(registry);
    let querier = Querier::new(snapshots, Arc::clone(&pool), limits, Arc::clone(clock), metrics);
    let limits = QueryLimits {
        concurrency: config.query_concurrency.unwrap_or_else(cores),
        queue: config.query_queue,
        timeout: config.query_timeout,
    };
    let budget = MemoryBudget::new(memory.queries.bytes());
    let metrics = QueryMetrics::register(registry);
    Ok(Arc::new(QueryGate::new(Arc::new(querier), pool, budget, limits, metrics)))
}

fn tempo_limits(config: &Config) -> tempo::Limits {
    tempo::Limits {
        query_bytes_max: config.query_max_bytes.bytes(),
        body_bytes_max: config.query_max_body_bytes.bytes(),
        results_max: config.query_max_results,
        spans_per_spanset_max: config.query_max_spans_per_spanset,
        search_range_max: config.query_search_max_range,
        metrics_range_max: config.query_metrics_max_range,
        metrics_intervals_max: config.query_metrics_max_intervals,
        metrics_series_max: config.query_metrics_max_series,
        metrics_exemplars_max: config.query_metrics_max_exemplars,
        tags_bytes_max: config.query_tags_max_bytes.bytes(),
    }
}

fn overrides(config: &Config) -> tempo::Overrides {
    let defaults = tempo::TenantLimits {
        ingest_rate_bytes: config.ingest_rate_limit_bytes.0,
        ingest_burst_bytes: config.ingest_rate_burst().0,
        retention: config.retention,
    };
    let own = |(tenant, retention): (&TenantId, &Duration)| {
        (tenant.clone(), tempo::TenantLimits { retention: *retention, ..defaults })
    };
    tempo::Overrides { defaults, by_tenant: config.retention_by_tenant.iter().map(own).collect() }
}

/// What somebody should know of the ingester.
fn health(health: Health) -> tempo::Health {
    let Health { refusing, cut_failing, blocks_skipped, log_damage, blocks_unknown, records_in_quarantine } = health;
    let cut = cut_failing.map(|why| format!("a head cannot become a block: {why}"));
    let skipped = (blocks_skipped > 0).then(|| format!("blocks that queries do without: {blocks_skipped}"));
    let aside = (records_in_quarantine > 0)
        .then(|| format!("log records that could not be read and were set aside: {records_in_quarantine}"));
    tempo::Health {
        refusing,
        troubles: [cut, log_damage, blocks_unknown, skipped, aside].into_iter().flatten().collect(),
    }
}

fn health_of(ingester: &Arc<Ingester>) -> tempo::HealthFn {
    let ingester = Arc::clone(ingester);
    Arc::new(move || health(ingester.health()))
}

/// What both query surfaces get.
pub(crate) struct Queries {
    pub(crate) gate: Arc<QueryGate>,
    pub(crate) tenancy: Tenancy,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) requests: RequestMetrics,
    /// True until the process stops.
    pub(crate) serving: watch::Receiver<bool>,
    pub(crate) cors_allowed_origins: Vec<String>,
}

impl Queries {
    fn jaeger(&self, config: &Config) -> Result<Arc<jaeger::State>, String> {
        let base_path = config.jaeger_base_path.0.clone();
        let ui = config.jaeger_ui_dir.0.as_deref();
        let ui = ui.map(|folder| jaeger::Ui::open(folder, &base_path, build_info::VERSION)).transpose();
        Ok(Arc::new(jaeger::State {
            gate: Arc::clone(&self.gate),
            tenancy: self.tenancy,
            clock: Arc::clone(&self.clock),
            requests: self.requests.clone(),
            serving: self.serving.clone(),
            cors_allowed_origins: self.cors_allowed_origins.clone(),
            options: jaeger::Options {
                base_path,
                skew_max: config.jaeger_max_clock_skew_adjust,
                points_max: config.query_metrics_max_intervals,
                body_bytes_max: config.max_message_bytes.bytes(),
                filter_bytes_max: config.query_max_bytes.bytes(),
            },
            ui: ui.map_err(|err| err.to_string())?,
        }))
    }

    pub(crate) fn tempo(
        &self,
        config: &Config,
        registry: Registry,
        health: tempo::HealthFn,
        admin: Option<Arc<dyn tempo::BlockAdmin>>,
    ) -> tempo::State {
        let (limits, trace_deletion) = (tempo_limits(config), config.trace_deletion);
        let stream_interval = config.query_stream_interval;
        let (mcp, overrides) = (config.mcp, overrides(config));
        let config = config.to_yaml();
        let look = Arc::clone(&health);
        tempo::State {
            gate: Arc::clone(&self.gate),
            limits,
            tenancy: self.tenancy,
            clock: Arc::clone(&self.clock),
            stream_interval,
            requests: self.requests.clone(),
            cors_allowed_origins: self.cors_allowed_origins.clone(),
            build: tempo::BuildInfo {
                version: build_info::VERSION.to_owned(),
                revision: build_info::REVISION.to_owned(),
                ..tempo::BuildInfo::default()
            },
            serving: self.serving.clone(),
            health,
            metrics: Arc::new(move || {
                // Some metrics are set when somebody asks.
                let _ = look();
                metrics::text(&registry)
            }),
            config: Arc::new(move || config.clone()),
            mcp,
            overrides,
            admin,
            trace_deletion,
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::routing::get;
    use http::{Request, StatusCode};
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn a_panic_ends_one_request_and_no_other() {
        let works = |number: u32| async move { (100 / number).to_string() };
        let router = Router::new().route("/0", get(move || works(0))).route("/1", get(move || works(1)));
        let router = survive_panics(router);
        let status = |path: &str| {
            let answered = router.clone().oneshot(Request::get(path).body(Body::empty()).unwrap());
            async { answered.await.unwrap().status() }
        };
        assert_eq!(status("/0").await, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(status("/1").await, StatusCode::OK);
    }
}
