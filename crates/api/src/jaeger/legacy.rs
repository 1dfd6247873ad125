//! The legacy API: `/api/*` but for `/api/v3` and `/api/metrics`.
//!
//! Answers come in an envelope, failures too. Times are microseconds, but milliseconds for dependencies.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, RawQuery, State as Extract};
use axum::response::Response;
use http::HeaderMap;
use serde::Serialize;
use spoor_model::batch::SpanBatch;
use spoor_model::ingest::{Decode, Rejected};
use spoor_model::scan::{QueryContext, Skipped};
use spoor_model::{SpanEntry, Trace, TraceId, UnixNano};
use spoor_otlp::OtlpDecoder;
use spoor_querier::{Querier, QueryError};

use super::envelope::{self, Envelope, ErrorJson};
use super::model::{JaegerTrace, id_text};
use super::reads::{self, Read, Shown};
use super::search::{self, Terms};
use super::{Request, Shared, State};
use crate::error::{ApiError, Kind};
use crate::params::{Params, Plus, percent_decode};
use crate::partial;
use crate::request_body::BodyBound;

/// A request's answer: the JSON, or an error in Jaeger's envelope.
type Answered = Result<Vec<u8>, ApiError>;

pub(super) fn respond(answered: Answered) -> Response {
    match answered {
        Ok(json) => envelope::ok(json),
        Err(err) if err.kind == Kind::Unauthenticated => {
            envelope::text(err.kind.http(), format!("{}\n", err.message).into_bytes())
        }
        Err(err) => envelope::failure(&err),
    }
}

/// What `errors` says of sources that an answer had to do without.
fn notes(skipped: &[Skipped]) -> Vec<ErrorJson> {
    partial::note(skipped).map(ErrorJson::note).into_iter().collect()
}

fn is_pretty(params: &Params) -> bool {
    params.get("prettyPrint").is_some_and(|text| text != "false")
}

/// Reads something and wraps it; lists say how long they are, traces do not.
async fn answer<T, F>(state: &State, request: Request, has_total: bool, read: F) -> Answered
where
    T: Serialize,
    F: FnOnce(&Querier, &Request, &QueryContext) -> Read<Vec<T>> + Send + 'static,
{
    let run = move |querier: &Querier, ctx: &QueryContext| {
        let (items, skipped) = read(querier, &request, ctx)?;
        let total = if has_total { items.len() } else { 0 };
        Ok(Envelope::of(items, total, notes(&skipped)).to_json(is_pretty(&request.params)))
    };
    state.gate.run(run).await
}

/// Names of all services, sorted.
pub(super) async fn services(Extract(state): Shared, headers: HeaderMap, RawQuery(query): RawQuery) -> Response {
    let answer = async {
        let request = Request::parse(&state, &headers, query.as_deref())?;
        answer(&state, request, true, |querier, request, ctx| reads::services(querier, &request.tenants, ctx)).await
    };
    respond(answer.await)
}

/// Names of what a service does, of any kind, sorted.
pub(super) async fn operation_names(
    Extract(state): Shared,
    Path(service): Path<String>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Response {
    let answer = async {
        let request = Request::parse(&state, &headers, query.as_deref())?;
        answer(&state, request, true, move |querier, request, ctx| {
            let named = |service: &str| -> Read<BTreeSet<String>> {
                let (operations, skipped) = reads::operations(querier, &request.tenants, service, "", ctx)?;
                Ok((operations.into_iter().map(|(name, _)| name).collect(), skipped))
            };
            let (mut names, mut skipped) = named(&service)?;
            if names.is_empty() {
                // Jaeger decodes the segment once more, as a query; names that have a plus come first.
                (names, skipped) = named(&percent_decode(&service, Plus::IsSpace))?;
            }
            Ok((names.into_iter().collect(), skipped))
        })
        .await
    };
    respond(answer.await)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OperationJson {
    name: String,
    span_kind: &'static str,
}

/// What a service does, with kinds.
pub(super) async fn operations(Extract(state): Shared, headers: HeaderMap, RawQuery(query): RawQuery) -> Response {
    let answer = async {
        let request = Request::parse(&state, &headers, query.as_deref())?;
        let Some(service) = request.params.get("service").map(str::to_owned) else {
            return Err(ApiError::invalid("parameter 'service' is required"));
        };
        answer(&state, request, true, move |querier, request, ctx| {
            let kind = request.params.get("spanKind").unwrap_or_default();
            let (operations, skipped) = reads::operations(querier, &request.tenants, &service, kind, ctx)?;
            let json = |(name, span_kind)| OperationJson { name, span_kind };
            Ok((operations.into_iter().map(json).collect(), skipped))
        })
        .await
    };
    respond(answer.await)
}

/// Whole traces: those named, or the newest of those in which a span matches.
pub(super) async fn find_traces(Extract(state): Shared, headers: HeaderMap, RawQuery(query): RawQuery) -> Response {
    let answer = async {
        let request = Request::parse(&state, &headers, query.as_deref())?;
        let shown = request.shown(&state, "raw")?;
        let ids = search::trace_ids(&request.params)?;
        if !ids.is_empty() {
            return named_traces(&state, request, ids, shown).await;
        }
        let terms = Terms::from_params(&request.params, state.clock.now())?;
        answer(&state, request, false, move |querier, request, ctx| {
            let (traces, skipped) = reads::find(querier, &request.tenants, &terms, ctx)?;
            Ok((traces.into_iter().map(|trace| shown.jaeger(trace)).collect(), skipped))
        })
        .await
    };
    respond(answer.await)
}

async fn named_traces(state: &State, request: Request, ids: Vec<TraceId>, shown: Shown) -> Answered {
    let run = move |querier: &Querier, ctx: &QueryContext| {
        let mut traces: Vec<JaegerTrace> = Vec::new();
        let mut errors = Vec::new();
        for id in ids {
            let (trace, skipped) = reads::trace(querier, &request.tenants, id, ctx)?;
            errors.extend(notes(&skipped));
            match trace {
                Some(trace) => traces.push(shown.jaeger(trace)),
                None => errors.push(ErrorJson::missing_trace(id_text(id))),
            }
        }
        Ok(Envelope::of(traces, 0, errors).to_json(is_pretty(&request.params)))
    };
    state.gate.run(run).await
}

/// One trace. `start` and `end` only narrow Jaeger's search; some clients send them in milliseconds,
/// and finding a trace needs neither.
pub(super) async fn trace_by_id(
    Extract(state): Shared,
    Path(id): Path<String>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Response {
    let answer = async {
        let request = Request::parse(&state, &headers, query.as_deref())?;
        let shown = request.shown(&state, "raw")?;
        search::check_times(&request.params)?;
        let id = path_id(&id)?;
        let run = move |querier: &Querier, ctx: &QueryContext| {
            let (trace, skipped) = reads::trace(querier, &request.tenants, id, ctx)?;
            let trace = trace.ok_or_else(|| not_found(&skipped))?;
            let envelope = Envelope::of([shown.jaeger(trace)], 0, notes(&skipped));
            Ok(envelope.to_json(is_pretty(&request.params)))
        };
        state.gate.run(run).await
    };
    respond(answer.await)
}

fn path_id(text: &str) -> Result<TraceId, ApiError> {
    search::trace_id_from_path(text).map_err(|err| ApiError::invalid(format!("cannot parse traceID: {err}")))
}

fn not_found(skipped: &[Skipped]) -> ApiError {
    let text = match partial::note(skipped) {
        None => "trace not found".to_owned(),
        Some(note) => format!("trace not found ({note})"),
    };
    ApiError::new(Kind::NotFound, text)
}

/// There is no archive: retention decides what is kept. Whether the trace is there is still said.
pub(super) async fn archive(
    Extract(state): Shared,
    Path(id): Path<String>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Response {
    let answer = async {
        let request = Request::parse(&state, &headers, query.as_deref())?;
        search::check_times(&request.params)?;
        let id = path_id(&id)?;
        let run = move |querier: &Querier, ctx: &QueryContext| {
            let (trace, skipped) = reads::trace(querier, &request.tenants, id, ctx)?;
            trace.map(|_| ()).ok_or_else(|| not_found(&skipped))
        };
        state.gate.run(run).await?;
        Err(ApiError::new(Kind::Internal, "archive span storage was not configured"))
    };
    respond(answer.await)
}

/// Translates OTLP/JSON, which the UI was given as a file. Nothing is stored or adjusted.
pub(super) async fn transform(
    Extract(state): Shared,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
    body: Body,
) -> Response {
    let answer = async {
        let request = Request::parse(&state, &headers, query.as_deref())?;
        let bound = BodyBound { bytes_max: state.options.body_bytes_max, key: "max_message_bytes" };
        let body = bound.read(body, state.gate.metrics()).await?;
        let run = move |_: &Querier, ctx: &QueryContext| {
            // The JSON, its protobuf and the spans are in memory together.
            ctx.reserve(body.len().saturating_mul(3)).map_err(QueryError::from)?;
            let (traces, errors) = traces_of(&body)?;
            let traces: Vec<JaegerTrace> = traces.into_iter().map(|trace| Shown::Raw.jaeger(trace)).collect();
            Ok(Envelope::of(traces, 0, errors).to_json(is_pretty(&request.params)))
        };
        state.gate.run(run).await
    };
    respond(answer.await)
}

/// The traces of an OTLP/JSON request, by id, and what of it is no good.
fn traces_of(json: &[u8]) -> Result<(Vec<Trace>, Vec<ErrorJson>), ApiError> {
    let malformed = |why: String| ApiError::invalid(format!("cannot unmarshal OTLP : {why}"));
    let request = spoor_otlp::json::to_protobuf(json).map_err(|err| malformed(err.to_string()))?;
    let checked = OtlpDecoder.check(&request).map_err(|err| malformed(err.to_string()))?;
    let mut batch = SpanBatch::new();
    OtlpDecoder.append(&request, &checked, &mut batch);
    let mut by_id: BTreeMap<TraceId, Vec<SpanEntry>> = BTreeMap::new();
    let rows = u32::try_from(batch.len()).expect("a body of bounded size has fewer spans");
    for entry in (0..rows).map(|row| batch.span(row)) {
        by_id.entry(entry.span.trace_id).or_default().push(entry);
    }
    let traces = by_id.into_iter().map(|(id, entries)| Trace { id, entries }).collect();
    let note =
        |rejected: &Rejected| ErrorJson::note(format!("span {}: {}", rejected.span_index, rejected.reason.message()));
    Ok((traces, checked.rejected.iter().map(note).collect()))
}

/// How far the graph of services looks back unless the client says: a day.
const DEPENDENCIES_LOOKBACK_MS: u64 = 86_400_000;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DependencyJson {
    parent: String,
    child: String,
    call_count: u64,
}

/// Who calls whom.
pub(super) async fn dependencies(Extract(state): Shared, headers: HeaderMap, RawQuery(query): RawQuery) -> Response {
    let answer = async {
        let request = Request::parse(&state, &headers, query.as_deref())?;
        let end_ms = millis(&request.params, "endTs")?.unwrap_or_else(|| now_ms(&state));
        let lookback_ms = millis(&request.params, "lookback")?.unwrap_or(DEPENDENCIES_LOOKBACK_MS);
        let range = (of_millis(end_ms.saturating_sub(lookback_ms)), of_millis(end_ms));
        answer(&state, request, false, move |querier, request, ctx| {
            let (calls, skipped) = reads::calls(querier, &request.tenants, range, ctx)?;
            let service = request.params.get("service");
            let is_wanted =
                |call: &reads::Call| service.is_none_or(|service| call.parent == service || call.child == service);
            let json =
                |call: reads::Call| DependencyJson { parent: call.parent, child: call.child, call_count: call.count };
            Ok((calls.into_iter().filter(is_wanted).map(json).collect(), skipped))
        })
        .await
    };
    respond(answer.await)
}

/// Now, in milliseconds.
pub(super) fn now_ms(state: &State) -> u64 {
    state.clock.now().0 / 1_000_000
}

/// The first instant of a millisecond.
pub(super) fn of_millis(millis: u64) -> UnixNano {
    let nanos = u64::try_from(Duration::from_millis(millis).as_nanos()).unwrap_or(u64::MAX);
    UnixNano(nanos)
}

/// A count of milliseconds; negative ones are none.
pub(super) fn millis(params: &Params, name: &str) -> Result<Option<u64>, ApiError> {
    let Some(text) = params.get(name) else { return Ok(None) };
    let millis: i64 =
        search::integer(text).map_err(|text| ApiError::invalid(format!("unable to parse param '{name}': {text}")))?;
    Ok(Some(u64::try_from(millis).unwrap_or(0)))
}
