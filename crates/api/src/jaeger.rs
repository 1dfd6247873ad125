//! Jaeger's query surfaces: HTTP (port 16686) with the legacy API, `/api/v3` and the UI's files, and gRPC (port 16685).
//!
//! ```text
//!   legacy   Grafana's data source, Kiali, the UI up to 2.18     microseconds, an envelope around everything
//!   v3       the UI from 2.15 on                                 RFC 3339, OTLP/JSON
//!   grpc     Kiali (api_v2), api_v3, Jaeger with Spoor as its storage (jaeger.storage.v2)
//! ```
//!
//! All of them ask `reads`, so that a question has one answer however it is put. Where Spoor answers
//! otherwise than Jaeger on purpose stands in `DEVIATIONS.md`.

mod adjust;
mod envelope;
mod filter;
mod grpc;
mod legacy;
mod model;
mod reads;
mod search;
mod service_metrics;
mod summary;
mod ui;
mod v3;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::Uri;
use axum::middleware;
use axum::response::Response;
use axum::routing::{MethodRouter, get, post};
use http::HeaderMap;
use spoor_model::{Clock, TenantId};
use tokio::sync::watch;
use tower_http::compression::CompressionLayer;

use self::envelope::no_such_page;
use self::filter::{FilterError, StructuredFilter};
use self::reads::Shown;
use crate::cors;
use crate::error::ApiError;
use crate::gate::QueryGate;
use crate::params::Params;
use crate::query_metrics::Reason;
use crate::request_metrics::{self, Observed, RequestMetrics};
use crate::tenant::Tenancy;

pub use self::grpc::grpc_router;
pub use self::ui::{Ui, UiError};

/// What the routes need.
pub struct State {
    /// To the querier.
    pub gate: Arc<QueryGate>,
    /// Whether requests name their tenant.
    pub tenancy: Tenancy,
    /// A search looks back from now.
    pub clock: Arc<dyn Clock>,
    /// Where durations are counted.
    pub requests: RequestMetrics,
    /// True until the process stops.
    pub serving: watch::Receiver<bool>,
    /// Whose pages may query from a browser; `*` for all.
    pub cors_allowed_origins: Vec<String>,
    /// What bounds and shapes answers.
    pub options: Options,
    /// The pages of the UI, if there are any.
    pub ui: Option<Ui>,
}

/// What bounds and shapes answers.
#[derive(Debug, Clone)]
pub struct Options {
    /// What stands before every path: empty, or `/jaeger` and the like (`jaeger_base_path`).
    pub base_path: String,
    /// By how much clocks may be taken to be off (`jaeger_max_clock_skew_adjust`).
    pub skew_max: Duration,
    /// Points of one series of the Monitor tab (`query_metrics_max_intervals`).
    pub points_max: usize,
    /// Largest trace that `/api/transform` takes (`max_message_bytes`).
    pub body_bytes_max: usize,
    /// Longest structured filter (`query_max_bytes`).
    pub filter_bytes_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        let (base_path, skew_max) = (String::new(), Duration::ZERO);
        Self { base_path, skew_max, points_max: 10_000, body_bytes_max: 16 << 20, filter_bytes_max: 131_072 }
    }
}

impl State {
    /// A filter that was read, or why it could not be: counted, when it is for its length.
    fn checked_filter(
        &self,
        read: impl FnOnce(usize) -> Result<StructuredFilter, FilterError>,
    ) -> Result<StructuredFilter, FilterError> {
        let filter = read(self.options.filter_bytes_max);
        if matches!(filter, Err(FilterError::TooLong { .. })) {
            self.gate.metrics().refuse(Reason::query_bytes);
        }
        filter
    }
}

/// What handlers are given.
type Shared = axum::extract::State<Arc<State>>;

/// All routes of port 16686.
pub fn router(state: Arc<State>) -> Router {
    let origins = state.cors_allowed_origins.clone();
    let observed = Observed { metrics: state.requests.clone(), route_prefix: "jaeger_" };
    let base_path = state.options.base_path.clone();
    let routes = routes().into_iter().fold(Router::new(), |router, (_, path, route)| router.route(path, only(route)));
    let routes = routes.fallback(page);
    let routes = match base_path.as_str() {
        "" => routes,
        // A nested router has no path that is the prefix and a slash.
        prefix => Router::new()
            .nest(prefix, routes)
            .route(&format!("{prefix}/"), get(front_page))
            .fallback(|| async { no_such_page() }),
    };
    let routes = routes.with_state(state);
    let routes =
        routes.layer(CompressionLayer::new()).layer(middleware::from_fn_with_state(observed, request_metrics::observe));
    cors::for_queries(routes, &origins)
}

type Route = (&'static str, &'static str, MethodRouter<Arc<State>>);

/// Method, path and handler of every route; `api/openapi/jaeger.yaml` describes these and no others.
fn routes() -> Vec<Route> {
    vec![
        ("get", "/api/services", get(legacy::services)),
        ("get", "/api/services/{service}/operations", get(legacy::operation_names)),
        ("get", "/api/operations", get(legacy::operations)),
        ("get", "/api/traces", get(legacy::find_traces)),
        ("get", "/api/traces/{traceID}", get(legacy::trace_by_id)),
        ("post", "/api/archive/{traceID}", post(legacy::archive)),
        ("post", "/api/transform", post(legacy::transform)),
        ("get", "/api/dependencies", get(legacy::dependencies)),
        ("get", "/api/metrics/minstep", get(service_metrics::least_step)),
        ("get", "/api/metrics/{kind}", get(service_metrics::series)),
        ("get", "/api/v3/services", get(v3::services)),
        ("get", "/api/v3/operations", get(v3::operations)),
        ("get", "/api/v3/traces", get(v3::find_traces)),
        ("get", "/api/v3/traces/{traceID}", get(v3::trace_by_id)),
        ("get", "/api/v3/trace-summaries", get(v3::summaries)),
        ("get", "/api/v3/dependencies", get(v3::dependencies)),
    ]
}

/// Other methods find nothing, as in Jaeger, whose catch-all takes them.
fn only(route: MethodRouter<Arc<State>>) -> MethodRouter<Arc<State>> {
    route.fallback(|| async { no_such_page() })
}

async fn front_page(axum::extract::State(state): Shared) -> Response {
    ui::page(state.ui.as_ref(), "/").await
}

/// Everything else: nothing below `/api/`, and the UI's pages elsewhere.
async fn page(axum::extract::State(state): Shared, uri: Uri) -> Response {
    match uri.path() {
        path if path == "/api" || path.starts_with("/api/") => no_such_page(),
        path => ui::page(state.ui.as_ref(), path).await,
    }
}

/// What every route reads from a request.
struct Request {
    tenants: Vec<TenantId>,
    params: Params,
}

impl Request {
    fn parse(state: &State, headers: &HeaderMap, query: Option<&str>) -> Result<Self, ApiError> {
        let tenants = state.tenancy.for_jaeger_read(headers)?;
        Ok(Self { tenants, params: Params::parse(query) })
    }

    /// Reads a flag that asks for traces as they are stored.
    fn shown(&self, state: &State, name: &str) -> Result<Shown, ApiError> {
        let is_raw = self.params.flag(name);
        let is_raw = is_raw.map_err(|err| ApiError::invalid(format!("unable to parse param '{name}': {err}")))?;
        Ok(Shown::new(is_raw, state.options.skew_max))
    }
}

#[cfg(test)]
mod tests;
