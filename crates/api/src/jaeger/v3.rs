//! `/api/v3/*`: OTLP/JSON for traces, RFC 3339 for times, and an error body of its own.

use std::collections::BTreeMap;

use axum::extract::{Path, RawQuery, State as Extract};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, header};
use serde::{Serialize, Serializer};
use spoor_model::scan::{QueryContext, Skipped};
use spoor_model::{Trace, UnixNano, rfc3339};
use spoor_otlp::encode;
use spoor_otlp::json::write::{ResourceSpansJson, Spelling};
use spoor_querier::Querier;

use super::envelope;
use super::filter::StructuredFilter;
use super::reads::{self, Shown};
use super::search::{self, LIMIT_DEFAULT, Terms};
use super::summary::{Summary, summary};
use super::{Request, Shared, State};
use crate::error::{ApiError, Kind};
use crate::params::Params;
use crate::{go_duration, partial};

/// The JSON, and what it lacks.
type Answered = Result<(Vec<u8>, Option<String>), ApiError>;

#[derive(Serialize)]
struct Failure<'a> {
    error: FailureDetail<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FailureDetail<'a> {
    http_code: u16,
    message: &'a str,
}

fn respond(answered: Answered) -> Response {
    match answered {
        Ok((json, note)) => {
            let mut response = ([(header::CONTENT_TYPE, "application/json")], json).into_response();
            partial::mark(response.headers_mut(), note.as_deref());
            response
        }
        Err(err) if err.kind == Kind::Unauthenticated => {
            envelope::text(err.kind.http(), format!("{}\n", err.message).into_bytes())
        }
        Err(err) => {
            let status = err.kind.http();
            let failure = Failure { error: FailureDetail { http_code: status.as_u16(), message: &err.message } };
            let mut json = to_json(&failure);
            json.push(b'\n');
            envelope::text(status, json)
        }
    }
}

fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("answers have text keys and no failing parts")
}

fn answered(value: &impl Serialize, skipped: &[Skipped]) -> Answered {
    Ok((to_json(value), partial::note(skipped)))
}

#[derive(Serialize)]
struct ServicesJson {
    services: Vec<String>,
}

/// Names of all services.
pub(super) async fn services(Extract(state): Shared, headers: HeaderMap, RawQuery(query): RawQuery) -> Response {
    let answer = async {
        let request = Request::parse(&state, &headers, query.as_deref())?;
        let run = move |querier: &Querier, ctx: &QueryContext| {
            let (services, skipped) = reads::services(querier, &request.tenants, ctx)?;
            answered(&ServicesJson { services }, &skipped)
        };
        state.gate.run(run).await
    };
    respond(answer.await)
}

#[derive(Serialize)]
struct OperationsJson {
    operations: Vec<OperationJson>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OperationJson {
    name: String,
    span_kind: &'static str,
}

/// What a service does. A kind that is not specified reads `internal` here, and only here.
pub(super) async fn operations(Extract(state): Shared, headers: HeaderMap, RawQuery(query): RawQuery) -> Response {
    let answer = async {
        let request = Request::parse(&state, &headers, query.as_deref())?;
        let Some(service) = request.params.get("service").map(str::to_owned) else {
            return Err(ApiError::invalid("malformed parameter service: it is required"));
        };
        let run = move |querier: &Querier, ctx: &QueryContext| {
            let kind = either(&request.params, "spanKind", "span_kind").map_or("", |(_, kind)| kind);
            let (operations, skipped) = reads::operations(querier, &request.tenants, &service, kind, ctx)?;
            let json = |(name, kind): (String, &'static str)| OperationJson {
                name,
                span_kind: if kind.is_empty() { "internal" } else { kind },
            };
            answered(&OperationsJson { operations: operations.into_iter().map(json).collect() }, &skipped)
        };
        state.gate.run(run).await
    };
    respond(answer.await)
}

/// `{"result":{"resourceSpans":[..]}}` of some traces.
struct TracesJson<'a>(&'a [Trace]);

impl Serialize for TracesJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Wrapped<'a> {
            result: Inner<'a>,
        }
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Inner<'a> {
            resource_spans: ResourceSpansJson<'a>,
        }
        let groups: Vec<_> = self.0.iter().flat_map(encode::groups).collect();
        let resource_spans = ResourceSpansJson(&groups, Spelling::Otlp);
        Wrapped { result: Inner { resource_spans } }.serialize(serializer)
    }
}

fn traces_answer(traces: Vec<Trace>, shown: Shown, skipped: &[Skipped]) -> Answered {
    if traces.is_empty() {
        let text = match partial::note(skipped) {
            None => "No traces found".to_owned(),
            Some(note) => format!("No traces found ({note})"),
        };
        return Err(ApiError::new(Kind::NotFound, text));
    }
    let traces: Vec<Trace> = traces.into_iter().map(|trace| shown.otlp(trace)).collect();
    answered(&TracesJson(&traces), skipped)
}

/// One trace. Times are hints that finding it does not need.
pub(super) async fn trace_by_id(
    Extract(state): Shared,
    Path(id): Path<String>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Response {
    let answer = async {
        let request = Request::parse(&state, &headers, query.as_deref())?;
        let params = &request.params;
        let shown = shown(&state, params, "rawTraces", "raw_traces")?;
        time(params, "startTime", "start_time")?;
        time(params, "endTime", "end_time")?;
        let id = search::trace_id_from_path(&id).map_err(|err| malformed("trace_id", &err))?;
        let run = move |querier: &Querier, ctx: &QueryContext| {
            let (trace, skipped) = reads::trace(querier, &request.tenants, id, ctx)?;
            traces_answer(trace.into_iter().collect(), shown, &skipped)
        };
        state.gate.run(run).await
    };
    respond(answer.await)
}

/// The newest traces of which a span matches.
pub(super) async fn find_traces(Extract(state): Shared, headers: HeaderMap, RawQuery(query): RawQuery) -> Response {
    let answer = async {
        let request = Request::parse(&state, &headers, query.as_deref())?;
        let shown = shown(&state, &request.params, "query.rawTraces", "query.raw_traces")?;
        let terms = terms(&state, &request.params)?;
        let run = move |querier: &Querier, ctx: &QueryContext| {
            let (traces, skipped) = reads::find(querier, &request.tenants, &terms, ctx)?;
            traces_answer(traces, shown, &skipped)
        };
        state.gate.run(run).await
    };
    respond(answer.await)
}

#[derive(Serialize)]
struct SummariesJson {
    summaries: Vec<Summary>,
}

/// The same traces in a line each. Finding none is an answer.
pub(super) async fn summaries(Extract(state): Shared, headers: HeaderMap, RawQuery(query): RawQuery) -> Response {
    let answer = async {
        let request = Request::parse(&state, &headers, query.as_deref())?;
        let adjusted = Shown::Adjusted(state.options.skew_max);
        let terms = terms(&state, &request.params)?;
        let run = move |querier: &Querier, ctx: &QueryContext| {
            let (traces, skipped) = reads::find(querier, &request.tenants, &terms, ctx)?;
            let summaries = traces.into_iter().map(|trace| summary(&adjusted.otlp(trace))).collect();
            answered(&SummariesJson { summaries }, &skipped)
        };
        state.gate.run(run).await
    };
    respond(answer.await)
}

#[derive(Serialize)]
struct DependenciesJson {
    dependencies: Vec<DependencyJson>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DependencyJson {
    parent: String,
    child: String,
    /// Text, as every 64-bit integer in protobuf's JSON.
    call_count: String,
}

/// Who calls whom: what Jaeger has over gRPC only.
pub(super) async fn dependencies(Extract(state): Shared, headers: HeaderMap, RawQuery(query): RawQuery) -> Response {
    let answer = async {
        let request = Request::parse(&state, &headers, query.as_deref())?;
        let start = time(&request.params, "startTime", "start_time")?;
        let end = time(&request.params, "endTime", "end_time")?;
        let (Some(start), Some(end)) = (start, end) else {
            return Err(ApiError::invalid("startTime and endTime are required"));
        };
        if start >= end {
            return Err(ApiError::invalid("startTime must be before endTime"));
        }
        let run = move |querier: &Querier, ctx: &QueryContext| {
            let (calls, skipped) = reads::calls(querier, &request.tenants, (start, end), ctx)?;
            let json = |call: reads::Call| DependencyJson {
                parent: call.parent,
                child: call.child,
                call_count: call.count.to_string(),
            };
            answered(&DependenciesJson { dependencies: calls.into_iter().map(json).collect() }, &skipped)
        };
        state.gate.run(run).await
    };
    respond(answer.await)
}

/// The parameter and the name under which it was given: the first of both.
fn either<'a>(params: &'a Params, name: &'static str, old: &'static str) -> Option<(&'static str, &'a str)> {
    [name, old].into_iter().find_map(|name| params.get(name).map(|text| (name, text)))
}

fn malformed(name: &str, why: &dyn std::fmt::Display) -> ApiError {
    ApiError::invalid(format!("malformed parameter {name}: {why}"))
}

fn shown(state: &State, params: &Params, name: &'static str, old: &'static str) -> Result<Shown, ApiError> {
    let name = either(params, name, old).map_or(name, |(name, _)| name);
    let is_raw = params.flag(name).map_err(|err| malformed(name, &err))?;
    Ok(Shown::new(is_raw, state.options.skew_max))
}

/// A time. Some clients do not escape the plus sign of a zone, and it arrives as a blank.
fn time(params: &Params, name: &'static str, old: &'static str) -> Result<Option<UnixNano>, ApiError> {
    let Some((name, text)) = either(params, name, old) else { return Ok(None) };
    let time = rfc3339::parse(&text.replace(' ', "+"));
    time.map(Some).ok_or_else(|| malformed(name, &format!("{text:?} is no time as RFC 3339 has it")))
}

fn duration(params: &Params, name: &'static str, old: &'static str) -> Result<u64, ApiError> {
    let Some((name, text)) = either(params, name, old) else { return Ok(0) };
    go_duration::parse(text).ok_or_else(|| malformed(name, &format!("time: invalid duration {text:?}")))
}

/// What a search asks for: the parameters `query.*`, under their names and their older ones.
fn terms(state: &State, params: &Params) -> Result<Terms, ApiError> {
    let start = time(params, "query.startTimeMin", "query.start_time_min")?;
    let end = time(params, "query.startTimeMax", "query.start_time_max")?;
    let (Some(start), Some(end)) = (start, end) else {
        return Err(ApiError::invalid("query.startTimeMin and query.startTimeMax are required"));
    };
    if start >= end {
        return Err(ApiError::invalid("query.startTimeMin must be before query.startTimeMax"));
    }
    let min_duration_nano = duration(params, "query.durationMin", "query.duration_min")?;
    let max_duration_nano = duration(params, "query.durationMax", "query.duration_max")?;
    if min_duration_nano != 0 && max_duration_nano != 0 && max_duration_nano < min_duration_nano {
        return Err(ApiError::invalid("query.durationMax must not be less than query.durationMin"));
    }
    let text = |name, old| either(params, name, old).map(|(_, text)| text.to_owned());
    let filter = params.get("query.filter").map(|text| {
        let filter = state.checked_filter(|bytes_max| StructuredFilter::from_json(text, bytes_max));
        filter.map_err(|err| malformed("query.filter", &err))
    });
    let terms = Terms {
        service: text("query.serviceName", "query.service_name"),
        operation: text("query.operationName", "query.operation_name"),
        tags: attributes(params)?,
        start,
        end,
        min_duration_nano,
        max_duration_nano,
        filter: filter.transpose()?,
        limit: depth(params)?,
    };
    match terms.filter.is_some() && terms.has_classic() {
        true => Err(ApiError::invalid(
            "query.filter cannot be combined with query.serviceName, query.operationName, query.attributes, \
             query.durationMin or query.durationMax",
        )),
        false => Ok(terms),
    }
}

fn depth(params: &Params) -> Result<usize, ApiError> {
    let given = either(params, "query.searchDepth", "query.search_depth");
    let given = given.or_else(|| params.get("query.num_traces").map(|text| ("query.num_traces", text)));
    let Some((name, text)) = given else { return Ok(LIMIT_DEFAULT) };
    let depth: i32 = search::integer(text).map_err(|text| malformed(name, &text))?;
    // None is no number of traces to look for, over gRPC too.
    Ok(usize::try_from(depth).ok().filter(|depth| *depth > 0).unwrap_or(LIMIT_DEFAULT))
}

fn attributes(params: &Params) -> Result<BTreeMap<String, String>, ApiError> {
    let Some(text) = params.get("query.attributes") else { return Ok(BTreeMap::new()) };
    let mut attributes = BTreeMap::new();
    search::read_tags(text, &mut attributes).map_err(|why| malformed("query.attributes", &why))?;
    Ok(attributes)
}

#[cfg(test)]
mod tests;
