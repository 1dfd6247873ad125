//! The query API of Jaeger over HTTP (port 16686): the routes that Grafana's data source, Kiali and
//! the Jaeger UI up to 2.14 use.
//!
//! Answers come in an envelope, failures too. Where Spoor answers otherwise than Jaeger on purpose
//! stands in `DEVIATIONS.md`.

mod adjust;
mod envelope;
mod search;
mod trace_json;

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, RawQuery, State as Shared};
use axum::middleware;
use axum::response::{Html, Response};
use axum::routing::{MethodRouter, get};
use http::HeaderMap;
use serde::Serialize;
use spoor_model::scan::{Operation, Skipped};
use spoor_model::{Clock, TenantId, TimeRange, Trace, TraceId};
use spoor_querier::{Filter, SearchRequest};
use tower_http::compression::CompressionLayer;

use self::envelope::{Envelope, ErrorJson, no_such_page};
use self::search::Search;
use self::trace_json::{TraceJson, id_text, kind_text, service_name, trace_json};
use crate::error::{ApiError, Kind};
use crate::gate::QueryGate;
use crate::params::{Params, Plus, percent_decode};
use crate::request_metrics::{self, Observed, RequestMetrics};
use crate::tenant::Tenancy;
use crate::{cors, fan_out, partial};

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
    /// Whose pages may query from a browser; `*` for all.
    pub cors_allowed_origins: Vec<String>,
}

/// All routes of port 16686.
pub fn router(state: State) -> Router {
    let origins = state.cors_allowed_origins.clone();
    let observed = Observed { metrics: state.requests.clone(), route_prefix: "jaeger_" };
    let routes = Router::new()
        .route("/", get(|| async { Html(LANDING_PAGE) }))
        .route("/api/services", only_get(get(services)))
        .route("/api/services/{service}/operations", only_get(get(operation_names)))
        .route("/api/operations", only_get(get(operations)))
        .route("/api/traces", only_get(get(find_traces)))
        .route("/api/traces/{traceID}", only_get(get(trace_by_id)))
        .route("/api/dependencies", only_get(get(dependencies)))
        .route("/api/metrics/{kind}", only_get(get(service_metrics)))
        .fallback(|| async { no_such_page() })
        .layer(CompressionLayer::new())
        .layer(middleware::from_fn_with_state(observed, request_metrics::observe))
        .with_state(Arc::new(state));
    cors::for_queries(routes, &origins)
}

/// Other methods find nothing, as in Jaeger, whose catch-all takes them.
fn only_get(route: MethodRouter<Arc<State>>) -> MethodRouter<Arc<State>> {
    route.fallback(|| async { no_such_page() })
}

const LANDING_PAGE: &str = "<!doctype html>\n<meta charset=\"utf-8\">\n<title>Spoor</title>\n\
<h1>Spoor</h1>\n<p>This port speaks the query API of Jaeger. It has no pages of its own yet.</p>\n\
<p>In Grafana, add a data source of type Jaeger with this address, or, for TraceQL, one of type Tempo \
with port 3200.</p>\n<p>Send spans by OTLP to port 4317 (gRPC) or 4318 (HTTP).</p>\n";

/// A request's answer: the JSON, or an error in Jaeger's envelope.
type Answered = Result<Vec<u8>, ApiError>;

fn respond(answered: Answered) -> Response {
    match answered {
        Ok(json) => envelope::ok(json),
        Err(err) if err.kind == Kind::Unauthenticated => {
            envelope::text(err.kind.http(), format!("{}\n", err.message).into_bytes())
        }
        Err(err) => envelope::failure(&err),
    }
}

/// What every route reads from a request.
struct Request {
    tenants: Vec<TenantId>,
    params: Params,
    is_pretty: bool,
}

impl Request {
    fn parse(state: &State, headers: &HeaderMap, query: Option<&str>) -> Result<Self, ApiError> {
        let tenants = state.tenancy.for_jaeger_read(headers)?;
        let params = Params::parse(query);
        let is_pretty = params.get("prettyPrint").is_some_and(|text| text != "false");
        Ok(Self { tenants, params, is_pretty })
    }

    fn is_raw(&self) -> Result<bool, ApiError> {
        self.params.flag("raw").map_err(|err| ApiError::invalid(format!("unable to parse param 'raw': {err}")))
    }
}

/// What `errors` says of sources that an answer had to do without.
fn notes(skipped: &[Skipped]) -> Vec<ErrorJson> {
    partial::note(skipped).map(ErrorJson::note).into_iter().collect()
}

/// Reads all operations and makes a list of them.
async fn list<T, F>(state: &State, request: Request, shape: F) -> Answered
where
    T: Serialize,
    F: FnOnce(BTreeSet<Operation>) -> Vec<T> + Send + 'static,
{
    state
        .gate
        .run(move |querier, ctx| {
            let answer = fan_out::operations(querier, &request.tenants, TimeRange::ALL, ctx)?;
            let errors = notes(&answer.skipped);
            let items = shape(answer.value);
            let total = items.len();
            Ok(Envelope::of(items, total, errors).to_json(request.is_pretty))
        })
        .await
}

/// Names of all services, sorted.
async fn services(Shared(state): Shared<Arc<State>>, headers: HeaderMap, RawQuery(query): RawQuery) -> Response {
    let answer = async {
        let request = Request::parse(&state, &headers, query.as_deref())?;
        list(&state, request, |operations| {
            let names: BTreeSet<String> =
                operations.iter().map(|operation| service_name(operation.service.as_deref()).to_owned()).collect();
            names.into_iter().collect()
        })
        .await
    };
    respond(answer.await)
}

/// Names of what a service does, of any kind, sorted.
async fn operation_names(
    Shared(state): Shared<Arc<State>>,
    Path(service): Path<String>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Response {
    let answer = async {
        let request = Request::parse(&state, &headers, query.as_deref())?;
        list(&state, request, move |operations| {
            let named = |service: &str| -> BTreeSet<String> {
                let of_service = operations.iter().filter(|o| service_name(o.service.as_deref()) == service);
                of_service.map(|operation| operation.name.clone()).collect()
            };
            let names = named(&service);
            // Jaeger decodes the segment once more, as a query; names that have a plus come first.
            let names = if names.is_empty() { named(&percent_decode(&service, Plus::IsSpace)) } else { names };
            names.into_iter().collect()
        })
        .await
    };
    respond(answer.await)
}

#[derive(Serialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase")]
struct OperationJson {
    name: String,
    span_kind: &'static str,
}

/// What a service does, with kinds.
async fn operations(Shared(state): Shared<Arc<State>>, headers: HeaderMap, RawQuery(query): RawQuery) -> Response {
    let answer = async {
        let request = Request::parse(&state, &headers, query.as_deref())?;
        let Some(service) = request.params.get("service").map(str::to_owned) else {
            return Err(ApiError::invalid("parameter 'service' is required"));
        };
        let kind = request.params.get("spanKind").map(str::to_owned);
        list(&state, request, move |operations| {
            let of_service = operations.into_iter().filter(|o| service_name(o.service.as_deref()) == service);
            let all = of_service.map(|o| OperationJson { name: o.name, span_kind: kind_text(o.kind) });
            let wanted: BTreeSet<OperationJson> =
                all.filter(|operation| kind.as_deref().is_none_or(|kind| kind == operation.span_kind)).collect();
            wanted.into_iter().collect()
        })
        .await
    };
    respond(answer.await)
}

/// Whole traces: those named, or the newest of those in which a span matches.
async fn find_traces(Shared(state): Shared<Arc<State>>, headers: HeaderMap, RawQuery(query): RawQuery) -> Response {
    let answer = async {
        let request = Request::parse(&state, &headers, query.as_deref())?;
        let is_raw = request.is_raw()?;
        let ids = search::trace_ids(&request.params)?;
        match ids.is_empty() {
            true => search_traces(&state, request, is_raw).await,
            false => named_traces(&state, request, ids, is_raw).await,
        }
    };
    respond(answer.await)
}

async fn search_traces(state: &State, request: Request, is_raw: bool) -> Answered {
    let Search { predicate, range, limit } = Search::from_params(&request.params, state.clock.now())?;
    let Some(range) = range else {
        return Ok(Envelope::of(Vec::<TraceJson>::new(), 0, Vec::new()).to_json(request.is_pretty));
    };
    let search = SearchRequest {
        filter: Filter::Span(predicate),
        min_duration_nano: None,
        max_duration_nano: None,
        range,
        limit,
    };
    state
        .gate
        .run(move |querier, ctx| {
            let answer = querier.search(&request.tenants, &search, ctx)?;
            let errors = notes(&answer.skipped);
            let traces: Vec<TraceJson> =
                answer.value.into_iter().map(|found| trace_json(found.trace, is_raw)).collect();
            Ok(Envelope::of(traces, 0, errors).to_json(request.is_pretty))
        })
        .await
}

async fn named_traces(state: &State, request: Request, ids: Vec<TraceId>, is_raw: bool) -> Answered {
    state
        .gate
        .run(move |querier, ctx| {
            let mut traces = Vec::new();
            let mut errors = Vec::new();
            for id in ids {
                let answer = fan_out::find_trace(querier, &request.tenants, id, ctx)?;
                errors.extend(notes(&answer.skipped));
                match answer.value {
                    Some(trace) => traces.push(trace_json(trace, is_raw)),
                    None => errors.push(ErrorJson::missing_trace(id_text(id))),
                }
            }
            Ok(Envelope::of(traces, 0, errors).to_json(request.is_pretty))
        })
        .await
}

/// One trace. `start` and `end` only narrow Jaeger's search; some clients send them in milliseconds,
/// and finding a trace needs neither.
async fn trace_by_id(
    Shared(state): Shared<Arc<State>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Response {
    let answer = async {
        let request = Request::parse(&state, &headers, query.as_deref())?;
        let is_raw = request.is_raw()?;
        search::check_times(&request.params)?;
        let id =
            search::trace_id_from_path(&id).map_err(|err| ApiError::invalid(format!("cannot parse traceID: {err}")))?;
        state
            .gate
            .run(move |querier, ctx| {
                let answer = fan_out::find_trace(querier, &request.tenants, id, ctx)?;
                let trace: Trace = answer.value.ok_or_else(|| not_found(&answer.skipped))?;
                let envelope = Envelope::of([trace_json(trace, is_raw)], 0, notes(&answer.skipped));
                Ok(envelope.to_json(request.is_pretty))
            })
            .await
    };
    respond(answer.await)
}

fn not_found(skipped: &[Skipped]) -> ApiError {
    let text = match partial::note(skipped) {
        None => "trace not found".to_owned(),
        Some(note) => format!("trace not found ({note})"),
    };
    ApiError::new(Kind::NotFound, text)
}

/// Not computed yet; an empty list would say that nobody calls anybody.
async fn dependencies() -> Response {
    let text = "dependencies are not computed by Spoor yet";
    envelope::failure(&ApiError::new(Kind::NotImplemented, text))
}

/// Jaeger's own words for a server without metrics; its UI then explains what is missing.
async fn service_metrics(Path(kind): Path<String>) -> Response {
    match kind.as_str() {
        "latencies" | "calls" | "errors" => {
            let text = "trace metrics are currently disabled - no metrics backend configured";
            envelope::failure(&ApiError::new(Kind::NotImplemented, text))
        }
        _ => no_such_page(),
    }
}

#[cfg(test)]
mod tests;
