//! The wiring: which parts there are and what each gets.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use axum::Router;
use axum::routing::get;
use prometheus_client::registry::Registry;
use tower_http::catch_panic::CatchPanicLayer;

use crate::config::Config;
use crate::metrics::{self, Metrics};

pub(crate) struct Ingester;

/// Everything that runs.
pub(crate) struct Parts {
    /// Hot spans.
    pub(crate) ingester: Arc<Ingester>,
    /// What each port serves.
    pub(crate) tempo: Router,
    pub(crate) otlp_grpc: Router,
    pub(crate) otlp_http: Router,
    pub(crate) jaeger: Router,
    /// What `/ready` says.
    pub(crate) ready: Arc<AtomicBool>,
}

impl Parts {
    /// Opens the data directory, recovers and connects everything. Blocks.
    pub(crate) fn open(config: &Config) -> Result<Self, String> {
        std::fs::create_dir_all(&config.data_dir)
            .map_err(|err| format!("data_dir {}: {err}", config.data_dir.display()))?;
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let ready = Arc::new(AtomicBool::new(true));
        let registry = Arc::new(registry);
        let tempo = Router::new()
            .route("/ready", get(|| async { "ready" }))
            .route("/metrics", get(move || async move { metrics::text(&registry) }));
        let finish = |router: Router, prefix| metrics.observe(router.layer(CatchPanicLayer::new()), prefix);
        Ok(Self {
            ingester: Arc::new(Ingester),
            tempo: finish(tempo, ""),
            otlp_grpc: finish(Router::new(), ""),
            otlp_http: finish(Router::new(), "otlp_"),
            jaeger: finish(Router::new(), "jaeger_"),
            ready,
        })
    }

    /// Writes the head and stops all threads. Blocks.
    pub(crate) fn close(self) -> Result<(), String> {
        Ok(())
    }
}
