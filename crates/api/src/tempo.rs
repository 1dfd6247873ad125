//! The query API of Tempo (port 3200), as Grafana, Kiali, Perses and tempo-cli use it: HTTP, and gRPC for streams.
//!
//! Query routes take any method (but `DELETE` of a trace deletes it) and read their parameters from the URL only. Errors are plain text.
//! Where Spoor answers otherwise than Tempo on purpose stands in `DEVIATIONS.md`.

mod asked;
mod blocks;
mod explain;
mod export;
mod grpc;
mod limits;
mod logfmt;
mod metrics;
mod metrics_answer;
mod negotiate;
mod otlp_json;
mod search;
mod search_answer;
mod span_filter;
mod status;
mod tags;
mod time_range;
mod trace_by_id;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use http::{StatusCode, header};
use spoor_model::Clock;
use tower_http::compression::CompressionLayer;

use crate::cors;
use crate::error::{ApiError, Kind};
use crate::gate::QueryGate;
use crate::request_metrics::{self, Observed, RequestMetrics};
use crate::tenant::Tenancy;

pub use asked::{Asked, Mistake, asked};
pub use blocks::{BlockAdmin, BlockRow, BlocksReport};
pub use export::NEXT;
pub use limits::Limits;
pub use time_range::parse_time;

/// A text that is made when somebody asks.
pub type TextFn = Arc<dyn Fn() -> String + Send + Sync>;

/// Whether the process takes requests; if not, why.
pub type ReadyFn = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// What this build is.
#[derive(Debug, Clone, Default)]
pub struct BuildInfo {
    /// Spoor's version, semver.
    pub version: String,
    /// Commit, may be empty.
    pub revision: String,
    /// Branch, may be empty.
    pub branch: String,
    /// Who built it, may be empty.
    pub build_user: String,
    /// When, may be empty.
    pub build_date: String,
}

/// What the routes need.
pub struct State {
    /// To the querier.
    pub gate: Arc<QueryGate>,
    /// What may be asked.
    pub limits: Limits,
    /// Whether requests name their tenant.
    pub tenancy: Tenancy,
    /// For `since`.
    pub clock: Arc<dyn Clock>,
    /// How often a stream says what a query has found, or how far it is (`query_stream_interval`).
    pub stream_interval: Duration,
    /// Where durations are counted.
    pub requests: RequestMetrics,
    /// Whose pages may query from a browser; `*` for all.
    pub cors_allowed_origins: Vec<String>,
    /// For `/api/status/buildinfo` and `/status/version`.
    pub build: BuildInfo,
    /// For `/ready`.
    pub ready: ReadyFn,
    /// For `/metrics`: OpenMetrics text.
    pub metrics: TextFn,
    /// For `/status/config`: YAML.
    pub config: TextFn,
    /// For `/status/blocks` and deleting; `None` when nobody owns the blocks.
    pub admin: Option<Arc<dyn BlockAdmin>>,
    /// Whether traces may be deleted.
    pub trace_deletion: bool,
}

impl State {
    fn bounds(&self) -> limits::Bounds<'_> {
        limits::Bounds { limits: &self.limits, metrics: self.gate.metrics() }
    }
}

/// All routes of port 3200.
pub fn router(state: State) -> Router {
    let state = Arc::new(state);
    let origins = state.cors_allowed_origins.clone();
    let observed = Observed { metrics: state.requests.clone(), route_prefix: "" };
    let routes = Router::new()
        .route("/api/traces/{traceID}", any(trace_by_id::v1))
        .route("/api/v2/traces/{traceID}", any(trace_by_id::v2).delete(blocks::delete_trace))
        .route("/api/v2/traces/diff", any(|| not_yet("comparing traces")))
        .route("/api/search", any(search::search))
        .route("/api/search/tags", any(tags::names_v1))
        .route("/api/v2/search/tags", any(tags::names_v2))
        .route("/api/search/tag/{*tagName}", any(tags::values_v1))
        .route("/api/v2/search/tag/{*tagName}", any(tags::values_v2))
        .route("/api/metrics/query", any(metrics::query_instant))
        .route("/api/metrics/query_range", any(metrics::query_range))
        .route("/spoor/explain", any(explain::explain))
        .route("/spoor/export", any(export::export))
        .route("/api/echo", any(status::echo))
        .route("/api/status/buildinfo", get(status::build_info))
        .route("/ready", any(status::ready))
        .route("/metrics", any(status::metrics))
        .route("/status", get(status::overview))
        .route("/status/version", get(status::version))
        .route("/status/blocks", get(blocks::status))
        .route("/status/config", get(status::config))
        .route("/status/endpoints", get(status::endpoints))
        .route("/status/services", get(status::services))
        .fallback(no_such_route)
        .layer(CompressionLayer::new())
        .layer(middleware::from_fn_with_state(observed, request_metrics::observe))
        .with_state(Arc::clone(&state));
    cors::for_queries(routes, &origins).merge(grpc::router(state))
}

/// What Tempo does and Spoor does not do yet says so; an empty answer would be a lie.
async fn not_yet(what: &'static str) -> ApiError {
    ApiError::new(Kind::NotImplemented, format!("{what}: not supported by Spoor yet"))
}

async fn no_such_route(request: Request) -> Response {
    let content_type = request.headers().get(header::CONTENT_TYPE).map(|value| value.as_bytes());
    if content_type.is_some_and(|value| value.starts_with(b"application/grpc")) {
        // A gRPC client reads its status from here; a plain 404 would show as a broken connection.
        let code = Kind::NotImplemented.grpc().to_string();
        let message = format!("unknown method {}", request.uri().path());
        let headers =
            [("content-type", "application/grpc".to_owned()), ("grpc-status", code), ("grpc-message", message)];
        return (StatusCode::OK, headers).into_response();
    }
    (StatusCode::NOT_FOUND, "404 page not found\n").into_response()
}

#[cfg(test)]
mod fixture_cases;
#[cfg(test)]
mod tests;
