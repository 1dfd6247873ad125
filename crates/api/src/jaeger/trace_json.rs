//! Traces as Jaeger's JSON.
//!
//! Ids are hex (a trace id whose upper half is zero is 16 digits), times microseconds cut from
//! nanoseconds. What Jaeger has no place for (schema URLs, scope and link attributes, dropped
//! counts) is left out here and stays searchable.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use spoor_model::span::{STATUS_ERROR, STATUS_OK, Trace};
use spoor_model::{Event, KeyValue, Link, Origin, Span, TraceId, Value, value};

use super::adjust::{self, View};
use crate::value_text;

/// The service name of spans whose resource names none.
pub(crate) const MISSING_SERVICE: &str = "missing-service-name";
/// The service name of spans whose resource names it with an empty text.
pub(crate) const EMPTY_SERVICE: &str = "empty-service-name";

/// One element of `data`.
#[derive(Serialize)]
pub(crate) struct TraceJson {
    #[serde(rename = "traceID")]
    trace_id: String,
    spans: Vec<SpanJson>,
    processes: Processes,
    warnings: Option<Vec<String>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SpanJson {
    #[serde(rename = "traceID")]
    trace_id: String,
    #[serde(rename = "spanID")]
    span_id: String,
    operation_name: String,
    references: Vec<ReferenceJson>,
    start_time: u64,
    duration: u64,
    tags: Vec<TagJson>,
    logs: Vec<LogJson>,
    #[serde(rename = "processID")]
    process_id: String,
    warnings: Option<Vec<String>>,
}

#[derive(Serialize)]
struct ReferenceJson {
    #[serde(rename = "refType")]
    ref_type: &'static str,
    #[serde(rename = "traceID")]
    trace_id: String,
    #[serde(rename = "spanID")]
    span_id: String,
}

#[derive(Serialize)]
struct LogJson {
    timestamp: u64,
    fields: Vec<TagJson>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct TagJson {
    key: String,
    r#type: &'static str,
    value: TagValue,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
enum TagValue {
    Text(String),
    Bool(bool),
    Int(i64),
    Float(f64),
}

#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct ProcessJson {
    service_name: String,
    tags: Vec<TagJson>,
}

/// Processes as `p1`, `p2`, ... in the order of their first use, each once.
#[derive(Default)]
struct Processes(Vec<ProcessJson>);

impl Processes {
    fn key_of(&mut self, process: ProcessJson) -> String {
        let known = self.0.iter().position(|other| *other == process);
        let index = known.unwrap_or_else(|| {
            self.0.push(process);
            self.0.len() - 1
        });
        format!("p{}", index + 1)
    }
}

impl Serialize for Processes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (index, process) in self.0.iter().enumerate() {
            map.serialize_entry(&format!("p{}", index + 1), process)?;
        }
        map.end()
    }
}

/// A trace id as Jaeger writes it: 16 digits when the upper half is zero, else 32.
pub(crate) fn id_text(id: TraceId) -> String {
    let text = id.to_string();
    match text.strip_prefix("0000000000000000") {
        Some(lower_half) => lower_half.to_owned(),
        None => text,
    }
}

/// The service name that Jaeger shows for spans of this origin.
pub(crate) fn service_name(name: Option<&str>) -> &str {
    match name {
        None => MISSING_SERVICE,
        Some("") => EMPTY_SERVICE,
        Some(name) => name,
    }
}

/// A trace, adjusted unless `is_raw`.
pub(crate) fn trace_json(trace: Trace, is_raw: bool) -> TraceJson {
    let trace_id = id_text(trace.id);
    let views = if is_raw { adjust::raw(trace.entries) } else { adjust::adjusted(trace.entries) };
    let mut processes = Processes::default();
    // Spans of one process share their origin, so a process is built once per origin.
    let mut known: HashMap<*const Origin, String> = HashMap::new();
    let mut spans = Vec::with_capacity(views.len());
    for view in views {
        let origin = &view.entry.origin;
        let key = known.entry(Arc::as_ptr(origin)).or_insert_with(|| processes.key_of(process_json(origin, is_raw)));
        spans.push(span_json(&trace_id, key.clone(), &view));
    }
    TraceJson { trace_id, spans, processes, warnings: None }
}

fn process_json(origin: &Origin, is_raw: bool) -> ProcessJson {
    let others = origin.resource.attributes.iter().filter(|attribute| attribute.key != "service.name");
    let mut tags: Vec<TagJson> = others.map(tag).collect();
    if !is_raw {
        tags.sort_by(|a, b| a.key.cmp(&b.key));
    }
    ProcessJson { service_name: service_name(origin.service_name()).to_owned(), tags }
}

fn span_json(trace_id: &str, process_id: String, view: &View) -> SpanJson {
    let View { entry, warnings } = view;
    let span = &entry.span;
    let warnings = [carried_warnings(span), warnings.clone()].concat();
    SpanJson {
        trace_id: trace_id.to_owned(),
        span_id: span.span_id.to_string(),
        operation_name: span.name.clone(),
        references: references(trace_id, span),
        start_time: span.start.0 / 1000,
        duration: span.duration_nano() / 1000,
        tags: tags(&entry.origin, span),
        logs: span.events.iter().map(log).collect(),
        process_id,
        warnings: (!warnings.is_empty()).then_some(warnings),
    }
}

/// The attribute in which Jaeger's collectors carry warnings through OTLP.
const WARNINGS_KEY: &str = "@jaeger@warnings";

fn carried_warnings(span: &Span) -> Vec<String> {
    match value::find(&span.attributes, WARNINGS_KEY) {
        Some(Value::Array(values)) => values.iter().map(value_text::plain).collect(),
        _ => Vec::new(),
    }
}

/// The parent first, then the links. A link to the parent only says what kind of parent it is.
fn references(trace_id: &str, span: &Span) -> Vec<ReferenceJson> {
    let is_parent = |link: &Link| link.trace_id == span.trace_id && link.span_id == span.parent_span_id;
    let mut references = Vec::new();
    if !span.parent_span_id.is_zero() {
        let ref_type = span.links.iter().find(|link| is_parent(link)).map_or("CHILD_OF", reference_type);
        let span_id = span.parent_span_id.to_string();
        references.push(ReferenceJson { ref_type, trace_id: trace_id.to_owned(), span_id });
    }
    let others = span.links.iter().filter(|link| !is_parent(link));
    references.extend(others.map(|link| ReferenceJson {
        ref_type: reference_type(link),
        trace_id: id_text(link.trace_id),
        span_id: link.span_id.to_string(),
    }));
    references
}

fn reference_type(link: &Link) -> &'static str {
    match value::find(&link.attributes, "opentracing.ref_type").and_then(Value::as_str) {
        Some("child_of") => "CHILD_OF",
        _ => "FOLLOWS_FROM",
    }
}

/// The span's attributes between those that stand for fields which Jaeger does not have.
fn tags(origin: &Origin, span: &Span) -> Vec<TagJson> {
    let mut tags = Vec::with_capacity(span.attributes.len() + 6);
    push_text(&mut tags, "otel.scope.name", &origin.scope.name);
    push_text(&mut tags, "otel.scope.version", &origin.scope.version);
    tags.extend(span.attributes.iter().filter(|attribute| attribute.key != WARNINGS_KEY).map(tag));
    push_text(&mut tags, "span.kind", kind_text(span.kind));
    match span.status.code {
        STATUS_OK => push_text(&mut tags, "otel.status_code", "OK"),
        STATUS_ERROR => {
            push_text(&mut tags, "otel.status_code", "ERROR");
            tags.push(TagJson { key: "error".to_owned(), r#type: "bool", value: TagValue::Bool(true) });
        }
        _ => {}
    }
    push_text(&mut tags, "otel.status_description", &span.status.message);
    push_text(&mut tags, "w3c.tracestate", &span.trace_state);
    tags
}

fn push_text(tags: &mut Vec<TagJson>, key: &str, text: &str) {
    if !text.is_empty() {
        tags.push(TagJson { key: key.to_owned(), r#type: "string", value: TagValue::Text(text.to_owned()) });
    }
}

/// Jaeger's word for OTLP's `SpanKind`; empty when unspecified.
pub(crate) fn kind_text(kind: i32) -> &'static str {
    match kind {
        1 => "internal",
        2 => "server",
        3 => "client",
        4 => "producer",
        5 => "consumer",
        _ => "",
    }
}

fn log(event: &Event) -> LogJson {
    let mut fields = Vec::with_capacity(event.attributes.len() + 1);
    if value::find(&event.attributes, "event").is_none() {
        push_text(&mut fields, "event", &event.name);
    }
    fields.extend(event.attributes.iter().map(tag));
    LogJson { timestamp: event.time.0 / 1000, fields }
}

/// Integers beyond this lose digits in JavaScript, so they travel as text.
const SAFE_INTEGER_MAX: u64 = (1 << 53) - 1;

fn tag(attribute: &KeyValue) -> TagJson {
    let (r#type, value) = match &attribute.value {
        Value::Bool(flag) => ("bool", TagValue::Bool(*flag)),
        Value::Int(int) if int.unsigned_abs() <= SAFE_INTEGER_MAX => ("int64", TagValue::Int(*int)),
        Value::Int(int) => ("int64", TagValue::Text(int.to_string())),
        Value::Double(double) if double.is_finite() => ("float64", TagValue::Float(*double)),
        Value::Double(double) => ("float64", TagValue::Text(value_text::shortest(*double))),
        Value::Bytes(bytes) => ("binary", TagValue::Text(STANDARD.encode(bytes))),
        other => ("string", TagValue::Text(value_text::plain(other))),
    };
    TagJson { key: attribute.key.clone(), r#type, value }
}

#[cfg(test)]
mod tests;
