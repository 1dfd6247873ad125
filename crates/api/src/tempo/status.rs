//! What is known of the process: `/api/echo`, build, readiness, metrics, `/status`.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, header};
use serde::Serialize;
use spoor_model::TimeRange;

use super::exposition;
use crate::error::{ApiError, Kind};
use crate::params::Params;
use crate::{fan_out, partial};

/// The version of Tempo whose API this is. Clients switch features on by it: Grafana 10 and 11 want
/// 2.7.0 or later for streaming of metrics.
const API_VERSION: &str = "3.1.0";

type Shared = State<Arc<super::State>>;

/// Grafana's health check.
pub(super) async fn echo() -> &'static str {
    "echo\n"
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BuildInfoJson {
    version: String,
    revision: String,
    branch: String,
    build_user: String,
    build_date: String,
    go_version: String,
}

/// What clients gate features on.
pub(super) async fn build_info(State(state): Shared) -> Response {
    let build = &state.build;
    let json = BuildInfoJson {
        version: api_version(&build.version),
        revision: build.revision.clone(),
        branch: build.branch.clone(),
        build_user: build.build_user.clone(),
        build_date: build.build_date.clone(),
        go_version: String::new(),
    };
    Json(json).into_response()
}

/// The API's version with Spoor's own as build metadata, which comparisons of semver pass over.
fn api_version(version: &str) -> String {
    format!("{API_VERSION}+spoor.{}", version.replace('+', "."))
}

/// Whether requests are taken. While spans are refused queries are answered still, so that only those who ask for ingest
/// (`?ingest=true`) are sent elsewhere; others are told.
pub(super) async fn ready(State(state): Shared, RawQuery(query): RawQuery) -> Result<String, ApiError> {
    let is_for_ingest = Params::parse(query.as_deref()).flag("ingest")?;
    if !*state.serving.borrow() {
        return Err(ApiError::new(Kind::Unavailable, "stopping"));
    }
    match (state.health)().refusing {
        None => Ok("ready".to_owned()),
        Some(why) if is_for_ingest => Err(ApiError::new(Kind::Unavailable, refusal(&why))),
        Some(why) => Ok(format!("ready, but {}", refusal(&why))),
    }
}

fn refusal(why: &str) -> String {
    format!("spans are refused: {why}")
}

/// How the process is, a line for each thing that somebody should look at.
pub(super) async fn health(State(state): Shared) -> String {
    health_text(&state)
}

fn health_text(state: &super::State) -> String {
    let super::Health { refusing, troubles } = (state.health)();
    let spans = refusing.map_or_else(|| "spans are taken".to_owned(), |why| refusal(&why));
    [vec![spans], troubles].concat().join("\n") + "\n"
}

/// The exposition: OpenMetrics for those who ask for it, Prometheus's older format for others.
pub(super) async fn metrics(State(state): Shared, headers: HeaderMap) -> Response {
    let accepts = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let text = (state.metrics)();
    let (content_type, text) = match accepts.contains("application/openmetrics-text") {
        true => ("application/openmetrics-text; version=1.0.0; charset=utf-8", text),
        false => ("text/plain; version=0.0.4; charset=utf-8", exposition::classic(&text)),
    };
    ([(header::CONTENT_TYPE, content_type)], text).into_response()
}

/// The sections of `/status`, one after the other.
pub(super) async fn overview(State(state): Shared) -> String {
    format!(
        "GET /status/version\n{}\n\nGET /status/health\n{}\nGET /status/endpoints\n{}\nGET /status/overrides\n{}\nGET /status/config\n{}\n",
        version_text(&state),
        health_text(&state),
        endpoints().await,
        state.overrides.to_yaml(&state.limits),
        (state.config)(),
    )
}

/// One line.
pub(super) async fn version(State(state): Shared) -> String {
    version_text(&state)
}

fn version_text(state: &super::State) -> String {
    let build = &state.build;
    let revision = if build.revision.is_empty() { "unknown" } else { &build.revision };
    format!("spoor, version {} (revision: {revision}), API of Tempo {API_VERSION}", build.version)
}

/// The configuration in force.
pub(super) async fn config(State(state): Shared) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], (state.config)()).into_response()
}

/// The routes, a line each.
pub(super) async fn endpoints() -> String {
    let routes = super::routes();
    let mut paths: Vec<String> =
        routes.iter().map(|(_, path, _)| path.replace("{*tagName}", "{tagName}/values")).collect();
    paths.sort_unstable();
    paths.join("\n") + "\n"
}

/// What Tempo says when it reports nothing to its makers; Spoor never does.
pub(super) async fn usage_stats() -> &'static str {
    "usage-stats is not enabled"
}

/// Names of the services that sent spans, as a JSON array: what Kiali expects here.
pub(super) async fn services(State(state): Shared, headers: HeaderMap) -> Result<Response, ApiError> {
    let tenants = state.tenancy.for_read(&headers)?;
    let (names, partial) = state
        .gate
        .run(move |querier, ctx| {
            let answer = fan_out::operations(querier, &tenants, TimeRange::ALL, ctx)?;
            let names: BTreeSet<String> = answer.value.into_iter().filter_map(|operation| operation.service).collect();
            Ok((names, partial::note(&answer.skipped)))
        })
        .await?;
    let mut response = Json(names).into_response();
    partial::mark(response.headers_mut(), partial.as_deref());
    Ok(response)
}
