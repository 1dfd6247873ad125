//! The query API of Tempo (port 3200), as Grafana, Kiali, Perses and tempo-cli use it: HTTP, and gRPC for streams.
//!
//! Query routes take `GET` and `POST` and read their parameters from the URL only. Errors are plain text.
//! Where Spoor answers otherwise than Tempo on purpose stands in `DEVIATIONS.md`.

mod asked;
mod blocks;
mod explain;
mod export;
mod exposition;
mod grpc;
mod limits;
mod llm_json;
mod logfmt;
mod mcp;
mod metrics;
mod metrics_answer;
mod negotiate;
mod overrides;
mod search;
mod search_answer;
mod span_filter;
mod status;
mod tags;
mod time_range;
mod trace_by_id;
mod trace_diff;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::handler::Handler;
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, any, get};
use http::{StatusCode, header};
use spoor_model::Clock;
use tokio::sync::watch;
use tower_http::compression::CompressionLayer;

use crate::cors;
use crate::error::Kind;
use crate::gate::QueryGate;
use crate::request_body::BodyBound;
use crate::request_metrics::{self, Observed, RequestMetrics};
use crate::tenant::Tenancy;

pub use asked::{Asked, Mistake, asked};
pub use blocks::{BlockAdmin, BlockRow, BlocksReport};
pub use export::NEXT;
pub use limits::Limits;
pub use overrides::{Overrides, TenantLimits};
pub use time_range::parse_time;

/// A text that is made when somebody asks.
pub type TextFn = Arc<dyn Fn() -> String + Send + Sync>;

/// How the process is, whenever somebody asks.
pub type HealthFn = Arc<dyn Fn() -> Health + Send + Sync>;

/// How the process is, while it serves.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Health {
    /// Why spans are refused, while they are. Queries go on.
    pub refusing: Option<String>,
    /// What else somebody should look at, a line each.
    pub troubles: Vec<String>,
}

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
    /// True until the process stops.
    pub serving: watch::Receiver<bool>,
    /// For `/ready` and `/status/health`.
    pub health: HealthFn,
    /// For `/metrics`: OpenMetrics text.
    pub metrics: TextFn,
    /// For `/status/config`: YAML.
    pub config: TextFn,
    /// Whether `/api/mcp` is served.
    pub mcp: bool,
    /// For `/status/overrides`.
    pub overrides: Overrides,
    /// For `/status/blocks` and deleting; `None` when nobody owns the blocks.
    pub admin: Option<Arc<dyn BlockAdmin>>,
    /// Whether traces may be deleted.
    pub trace_deletion: bool,
}

impl State {
    fn body_bound(&self) -> BodyBound {
        BodyBound { bytes_max: self.limits.body_bytes_max, key: "query_max_body_bytes" }
    }

    fn bounds(&self) -> limits::Bounds<'_> {
        limits::Bounds { limits: &self.limits, metrics: self.gate.metrics() }
    }
}

/// All routes of port 3200.
pub fn router(state: State) -> Router {
    let state = Arc::new(state);
    let origins = state.cors_allowed_origins.clone();
    let observed = Observed { metrics: state.requests.clone(), route_prefix: "" };
    let routes = routes().into_iter().fold(Router::new(), |router, (_, path, route)| router.route(path, route));
    let routes = routes
        .fallback(no_such_route)
        .layer(CompressionLayer::new())
        .layer(middleware::from_fn_with_state(observed, request_metrics::observe))
        .with_state(Arc::clone(&state));
    cors::for_queries(routes, &origins).merge(grpc::router(state))
}

type Route = (&'static str, &'static str, MethodRouter<Arc<State>>);

/// Methods, path and handler of every route; `api/openapi/tempo.yaml` describes these and no others. Queries
/// are described as `get`.
fn routes() -> Vec<Route> {
    vec![
        ("query delete", "/api/v2/traces/{traceID}", query(trace_by_id::v2).delete(blocks::delete_trace)),
        ("query", "/api/traces/{traceID}", query(trace_by_id::v1)),
        ("post", "/api/v2/traces/diff", any(trace_diff::diff)),
        ("query", "/api/search", query(search::search)),
        ("query", "/api/search/tags", query(tags::names_v1)),
        ("query", "/api/v2/search/tags", query(tags::names_v2)),
        ("query", "/api/search/tag/{*tagName}", query(tags::values_v1)),
        ("query", "/api/v2/search/tag/{*tagName}", query(tags::values_v2)),
        ("query", "/api/metrics/query", query(metrics::query_instant)),
        ("query", "/api/metrics/query_range", query(metrics::query_range)),
        ("query", "/api/echo", query(status::echo)),
        ("post get delete", "/api/mcp", any(mcp::serve)),
        ("get", "/api/overrides", get(overrides::user_configured)),
        ("get", "/api/status/buildinfo", get(status::build_info)),
        ("query", "/ready", query(status::ready)),
        ("query", "/metrics", query(status::metrics)),
        ("get", "/status", get(status::overview)),
        ("get", "/status/version", get(status::version)),
        ("get", "/status/health", get(status::health)),
        ("get", "/status/config", get(status::config)),
        ("get", "/status/runtime_config", get(overrides::runtime_config)),
        ("get", "/status/overrides", get(overrides::all)),
        ("get", "/status/overrides/{tenant}", get(overrides::of_tenant)),
        ("get", "/status/endpoints", get(status::endpoints)),
        ("get", "/status/services", get(status::services)),
        ("query", "/status/usage-stats", query(status::usage_stats)),
        ("get", "/status/blocks", get(blocks::status)),
        ("query", "/spoor/explain", query(explain::explain)),
        ("query", "/spoor/export", query(export::export)),
    ]
}

/// `GET`, which is `HEAD` too, and `POST`; the parameters of both are in the URL. Whoever wants to put or delete something is told
/// that this is not to be had (405), and is not shown it instead.
fn query<H, T>(handler: H) -> MethodRouter<Arc<State>>
where
    H: Handler<T, Arc<State>>,
    T: 'static,
{
    get(handler.clone()).post(handler)
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
mod tests;
