//! `/api/traces/{id}` and `/api/v2/traces/{id}`: one trace, whole.
//!
//! Version 1 answers 404 for a trace that is not there, version 2 always 200 (clients look for
//! `trace.resourceSpans`). `start` and `end` are checked and not needed: finding a trace in all that
//! is kept costs microseconds.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use spoor_model::nested::{put_key_value, put_message};
use spoor_model::wire::{put_bytes, put_text, put_uint};
use spoor_model::{KeyValue, Origin, TenantId, Trace, TraceId, Value};
use spoor_otlp::encode;
use spoor_otlp::json::write::{ResourceSpansJson, Spelling};

use super::llm_json::LlmTrace;
use super::negotiate::{Encoded, Form};
use super::span_filter::SpanQuery;
use crate::error::ApiError;
use crate::params::Params;
use crate::{fan_out, partial};

type Shared = State<Arc<super::State>>;

/// What both versions ask for.
struct Request {
    tenants: Vec<TenantId>,
    id: TraceId,
    form: Form,
    params: Params,
}

impl Request {
    fn parse(state: &super::State, id: &str, headers: &HeaderMap, query: Option<&str>) -> Result<Self, ApiError> {
        let tenants = state.tenancy.for_read(headers)?;
        let id = TraceId::from_hex(id).map_err(|err| ApiError::invalid(format!("invalid trace id {id:?}: {err}")))?;
        let params = Params::parse(query);
        let (start, end) = (params.parsed::<i64>("start")?, params.parsed::<i64>("end")?);
        if let (Some(start), Some(end)) = (start, end)
            && end <= start
            && (start, end) != (0, 0)
        {
            return Err(ApiError::invalid("invalid end: it must be after start"));
        }
        if let Some(mode) = params.get("mode")
            && !["all", "ingesters", "blocks", "external"].contains(&mode)
        {
            return Err(ApiError::invalid(format!(
                "invalid mode {mode:?}: expected all, ingesters, blocks or external"
            )));
        }
        Ok(Self { tenants, id, form: Form::wanted(headers), params })
    }
}

/// The trace as it is stored; 404 without a body when it is not there.
pub(super) async fn v1(
    State(state): Shared,
    Path(id): Path<String>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let Request { tenants, id, form, .. } = Request::parse(&state, &id, &headers, query.as_deref())?;
    let (bytes, partial) = state
        .gate
        .run(move |querier, ctx| {
            let answer = fan_out::find_trace(querier, &tenants, id, ctx)?;
            let bytes = answer.value.map(|trace| match form {
                Form::Json | Form::Llm => to_json(&TraceJson { key: "batches", trace: Some(&trace) }),
                Form::Protobuf => encode::traces_data(&trace),
            });
            Ok((bytes, partial::note(&answer.skipped)))
        })
        .await?;
    match bytes {
        Some(bytes) => Ok(Encoded { form, bytes, partial }.into_response()),
        None => {
            let mut response = StatusCode::NOT_FOUND.into_response();
            partial::mark(response.headers_mut(), partial.as_deref());
            Ok(response)
        }
    }
}

/// The trace, or what of it a filter leaves, and whether that is all of it.
pub(super) async fn v2(
    State(state): Shared,
    Path(id): Path<String>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Encoded, ApiError> {
    let Request { tenants, id, params, .. } = Request::parse(&state, &id, &headers, query.as_deref())?;
    let form = Form::wanted_of_three(&headers);
    let span_query = SpanQuery::from_params(&params, state.bounds())?;
    state
        .gate
        .run(move |querier, ctx| {
            let answer = fan_out::find_trace(querier, &tenants, id, ctx)?;
            let mut reasons: Vec<String> = partial::note(&answer.skipped).into_iter().collect();
            let partial = reasons.first().cloned();
            let mut trace = answer.value;
            if let (Some(whole), Some(span_query)) = (trace.take_if(|_| span_query.is_some()), &span_query) {
                let span_count = whole.entries.len();
                trace = span_query.apply(whole);
                let kept = trace.as_ref().map_or(0, |trace| trace.entries.len());
                if kept < span_count {
                    reasons.push(format!("partial trace: {} of {span_count} spans do not match q", span_count - kept));
                }
            }
            let found = Found { trace, inspected_bytes: answer.stats.bytes_inspected, message: reasons.join("; ") };
            let bytes = match form {
                Form::Json => to_json(&found),
                Form::Protobuf => found.into_protobuf(),
                Form::Llm => found.to_llm_json(),
            };
            Ok(Encoded { form, bytes, partial })
        })
        .await
}

fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("answers have text keys and no failing parts")
}

/// `Trace` under the key that the version has for it; without spans when there is no trace.
struct TraceJson<'a> {
    key: &'static str,
    trace: Option<&'a Trace>,
}

impl Serialize for TraceJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(trace) = self.trace {
            let groups = encode::groups(trace);
            map.serialize_entry(self.key, &ResourceSpansJson(&groups, Spelling::Tempo))?;
        }
        map.end()
    }
}

/// `TraceByIDMetrics`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MetricsJson {
    #[serde(skip_serializing_if = "Option::is_none")]
    inspected_bytes: Option<String>,
}

impl MetricsJson {
    fn new(inspected_bytes: u64) -> Self {
        Self { inspected_bytes: (inspected_bytes != 0).then(|| inspected_bytes.to_string()) }
    }
}

/// `TraceByIDResponse`.
struct Found {
    trace: Option<Trace>,
    inspected_bytes: u64,
    /// Why the trace is partial; empty when it is not.
    message: String,
}

impl Serialize for Found {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("trace", &TraceJson { key: "resourceSpans", trace: self.trace.as_ref() })?;
        map.serialize_entry("metrics", &MetricsJson::new(self.inspected_bytes))?;
        if !self.message.is_empty() {
            map.serialize_entry("status", "PARTIAL")?;
            map.serialize_entry("message", &self.message)?;
        }
        map.end()
    }
}

impl Found {
    /// The form for language models. It says also that nothing is missing, and of no trace it says nothing.
    fn to_llm_json(&self) -> Vec<u8> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Whole<'a> {
            trace: LlmTrace<'a>,
            metrics: MetricsJson,
            status: &'static str,
            #[serde(skip_serializing_if = "str::is_empty")]
            message: &'a str,
        }
        let Some(trace) = &self.trace else {
            return match self.message.as_str() {
                "" => b"{}".to_vec(),
                message => to_json(&serde_json::json!({"status": "PARTIAL", "message": message})),
            };
        };
        let status = if self.message.is_empty() { "COMPLETE" } else { "PARTIAL" };
        let (metrics, message) = (MetricsJson::new(self.inspected_bytes), self.message.as_str());
        to_json(&Whole { trace: LlmTrace(trace), metrics, status, message })
    }

    /// The form that Grafana reads. `trace` is there even when it is empty: Grafana's plugin looks
    /// into it unasked.
    fn into_protobuf(self) -> Vec<u8> {
        let trace = self.trace.map(with_named_resources);
        let mut out = Vec::new();
        put_bytes(&mut out, 1, &trace.as_ref().map(encode::traces_data).unwrap_or_default());
        put_message(&mut out, 2, |out| put_uint(out, 1, self.inspected_bytes));
        put_uint(&mut out, 3, u64::from(!self.message.is_empty()));
        put_text(&mut out, 4, self.message.as_bytes());
        out
    }
}

/// The service name that Grafana itself shows for spans without one.
const NO_SERVICE_NAME: &str = "OTLPResourceNoServiceName";

/// Grafana drops the spans of a resource without attributes. In the form that it alone reads they
/// get a name; the other forms have what was sent.
fn with_named_resources(mut trace: Trace) -> Trace {
    let mut named: HashMap<*const Origin, Arc<Origin>> = HashMap::new();
    for entry in &mut trace.entries {
        if entry.origin.resource.attributes.is_empty() {
            let named = named.entry(Arc::as_ptr(&entry.origin)).or_insert_with(|| Arc::new(with_name(&entry.origin)));
            entry.origin = Arc::clone(named);
        }
    }
    trace
}

fn with_name(origin: &Origin) -> Origin {
    let name = KeyValue::new("service.name", Value::Str(NO_SERVICE_NAME.to_owned()));
    let mut encoded = origin.resource_encoded.to_vec();
    put_message(&mut encoded, 1, |out| put_key_value(out, &name));
    let mut origin = origin.clone();
    origin.resource_encoded = Bytes::from(encoded);
    origin.resource.attributes.push(name);
    origin
}
