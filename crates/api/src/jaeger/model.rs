//! Traces in Jaeger's form, and that form as JSON.
//!
//! In JSON ids are hex (a trace id whose upper half is zero is 16 digits), times microseconds cut from
//! nanoseconds. What Jaeger has no place for (schema URLs, scope and link attributes, dropped
//! counts) is left out here and stays searchable.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use spoor_model::span::{STATUS_ERROR, STATUS_OK};
use spoor_model::{Event, KeyValue, Link, Origin, Span, SpanId, TraceId, UnixNano, Value, value};

use super::adjust::View;
use crate::value_text;

/// The service name of spans whose resource names none.
pub(crate) const MISSING_SERVICE: &str = "missing-service-name";
/// The service name of spans whose resource names it with an empty text.
pub(crate) const EMPTY_SERVICE: &str = "empty-service-name";

/// A trace in Jaeger's form; as JSON one element of `data`.
#[derive(Serialize)]
pub(crate) struct JaegerTrace {
    #[serde(rename = "traceID", serialize_with = "as_trace_id")]
    pub(crate) id: TraceId,
    pub(crate) spans: Vec<JaegerSpan>,
    pub(crate) processes: Processes,
    warnings: Option<Vec<String>>,
}

/// A span in Jaeger's form.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct JaegerSpan {
    #[serde(rename = "traceID", serialize_with = "as_trace_id")]
    trace_id: TraceId,
    #[serde(rename = "spanID", serialize_with = "as_text")]
    pub(crate) span_id: SpanId,
    pub(crate) operation_name: String,
    pub(crate) references: Vec<Reference>,
    #[serde(rename = "startTime", serialize_with = "as_micros")]
    pub(crate) start: UnixNano,
    #[serde(rename = "duration", serialize_with = "nanos_as_micros")]
    pub(crate) duration_nano: u64,
    pub(crate) tags: Vec<Tag>,
    pub(crate) logs: Vec<Log>,
    #[serde(rename = "processID", serialize_with = "as_process_key")]
    pub(crate) process: usize,
    #[serde(serialize_with = "null_when_empty")]
    pub(crate) warnings: Vec<String>,
}

/// Another span, and what it is to this one.
#[derive(Serialize)]
pub(crate) struct Reference {
    #[serde(rename = "refType", serialize_with = "as_reference_type")]
    pub(crate) is_child_of: bool,
    #[serde(rename = "traceID", serialize_with = "as_trace_id")]
    pub(crate) trace_id: TraceId,
    #[serde(rename = "spanID", serialize_with = "as_text")]
    pub(crate) span_id: SpanId,
}

/// An event.
#[derive(Serialize)]
pub(crate) struct Log {
    #[serde(rename = "timestamp", serialize_with = "as_micros")]
    pub(crate) time: UnixNano,
    pub(crate) fields: Vec<Tag>,
}

/// A name and a value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tag {
    pub(crate) key: String,
    pub(crate) value: TagValue,
}

/// What Jaeger has types for; everything else is text.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum TagValue {
    Text(String),
    Bool(bool),
    Int(i64),
    Double(f64),
    Bytes(Vec<u8>),
}

/// What produced spans.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Process {
    pub(crate) service_name: String,
    pub(crate) tags: Vec<Tag>,
}

/// Processes as `p1`, `p2`, ... in the order of their first use, each once.
#[derive(Default)]
pub(crate) struct Processes(pub(crate) Vec<Process>);

impl Processes {
    fn index_of(&mut self, process: Process) -> usize {
        let known = self.0.iter().position(|other| *other == process);
        known.unwrap_or_else(|| {
            self.0.push(process);
            self.0.len() - 1
        })
    }
}

/// A process as spans name it.
pub(crate) fn process_key(index: usize) -> String {
    format!("p{}", index + 1)
}

impl Serialize for Processes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (index, process) in self.0.iter().enumerate() {
            map.serialize_entry(&process_key(index), process)?;
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

/// Translates a trace, spans in their order.
pub(crate) fn translated(id: TraceId, views: Vec<View>, order: Attributes) -> JaegerTrace {
    let mut processes = Processes::default();
    // Spans of one process share their origin, so a process is built once per origin.
    let mut known: HashMap<*const Origin, usize> = HashMap::new();
    let mut spans = Vec::with_capacity(views.len());
    for view in views {
        let origin = &view.entry.origin;
        let process = *known.entry(Arc::as_ptr(origin)).or_insert_with(|| processes.index_of(process(origin, order)));
        spans.push(translated_span(process, view));
    }
    JaegerTrace { id, spans, processes, warnings: None }
}

/// How attributes stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attributes {
    AsSent,
    ByKey,
}

fn process(origin: &Origin, order: Attributes) -> Process {
    let others = origin.resource.attributes.iter().filter(|attribute| attribute.key != "service.name");
    let mut tags: Vec<Tag> = others.map(tag).collect();
    if order == Attributes::ByKey {
        tags.sort_by(|a, b| a.key.cmp(&b.key));
    }
    Process { service_name: service_name(origin.service_name()).to_owned(), tags }
}

fn translated_span(process: usize, view: View) -> JaegerSpan {
    let View { entry, warnings } = view;
    let span = &entry.span;
    JaegerSpan {
        trace_id: span.trace_id,
        span_id: span.span_id,
        references: references(span),
        start: span.start,
        duration_nano: span.duration_nano(),
        tags: tags(&entry.origin, span),
        logs: span.events.iter().map(log).collect(),
        process,
        warnings: [carried_warnings(span), warnings].concat(),
        operation_name: entry.span.name,
    }
}

/// The attribute in which Jaeger's collectors carry warnings through OTLP.
pub(crate) const WARNINGS_KEY: &str = "@jaeger@warnings";

pub(crate) fn carried_warnings(span: &Span) -> Vec<String> {
    match value::find(&span.attributes, WARNINGS_KEY) {
        Some(Value::Array(values)) => values.iter().map(value_text::plain).collect(),
        _ => Vec::new(),
    }
}

/// The parent first, then the links. A link to the parent only says what kind of parent it is.
fn references(span: &Span) -> Vec<Reference> {
    let is_parent = |link: &Link| link.trace_id == span.trace_id && link.span_id == span.parent_span_id;
    let mut references = Vec::new();
    if !span.parent_span_id.is_zero() {
        let is_child_of = span.links.iter().find(|link| is_parent(link)).is_none_or(is_child_of);
        references.push(Reference { is_child_of, trace_id: span.trace_id, span_id: span.parent_span_id });
    }
    let others = span.links.iter().filter(|link| !is_parent(link));
    references.extend(others.map(|link| Reference {
        is_child_of: is_child_of(link),
        trace_id: link.trace_id,
        span_id: link.span_id,
    }));
    references
}

fn is_child_of(link: &Link) -> bool {
    value::find(&link.attributes, "opentracing.ref_type").and_then(Value::as_str) == Some("child_of")
}

/// The span's attributes between those that stand for fields which Jaeger does not have.
fn tags(origin: &Origin, span: &Span) -> Vec<Tag> {
    let mut tags = Vec::with_capacity(span.attributes.len() + 6);
    push_text(&mut tags, "otel.scope.name", &origin.scope.name);
    push_text(&mut tags, "otel.scope.version", &origin.scope.version);
    tags.extend(span.attributes.iter().filter(|attribute| attribute.key != WARNINGS_KEY).map(tag));
    push_text(&mut tags, "span.kind", kind_text(span.kind));
    match span.status.code {
        STATUS_OK => push_text(&mut tags, "otel.status_code", "OK"),
        STATUS_ERROR => {
            push_text(&mut tags, "otel.status_code", "ERROR");
            tags.push(Tag { key: "error".to_owned(), value: TagValue::Bool(true) });
        }
        _ => {}
    }
    push_text(&mut tags, "otel.status_description", &span.status.message);
    push_text(&mut tags, "w3c.tracestate", &span.trace_state);
    tags
}

fn push_text(tags: &mut Vec<Tag>, key: &str, text: &str) {
    if !text.is_empty() {
        tags.push(Tag { key: key.to_owned(), value: TagValue::Text(text.to_owned()) });
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

fn log(event: &Event) -> Log {
    let mut fields = Vec::with_capacity(event.attributes.len() + 1);
    if value::find(&event.attributes, "event").is_none() {
        push_text(&mut fields, "event", &event.name);
    }
    fields.extend(event.attributes.iter().map(tag));
    Log { time: event.time, fields }
}

fn tag(attribute: &KeyValue) -> Tag {
    let value = match &attribute.value {
        Value::Bool(flag) => TagValue::Bool(*flag),
        Value::Int(int) => TagValue::Int(*int),
        Value::Double(double) => TagValue::Double(*double),
        Value::Bytes(bytes) => TagValue::Bytes(bytes.clone()),
        other => TagValue::Text(value_text::plain(other)),
    };
    Tag { key: attribute.key.clone(), value }
}

/// Integers beyond this lose digits in JavaScript, so they travel as text.
const SAFE_INTEGER_MAX: u64 = (1 << 53) - 1;

impl Serialize for Tag {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry("key", &self.key)?;
        let r#type = match &self.value {
            TagValue::Text(_) => "string",
            TagValue::Bool(_) => "bool",
            TagValue::Int(_) => "int64",
            TagValue::Double(_) => "float64",
            TagValue::Bytes(_) => "binary",
        };
        map.serialize_entry("type", r#type)?;
        match &self.value {
            TagValue::Text(text) => map.serialize_entry("value", text)?,
            TagValue::Bool(flag) => map.serialize_entry("value", flag)?,
            TagValue::Int(int) if int.unsigned_abs() <= SAFE_INTEGER_MAX => map.serialize_entry("value", int)?,
            TagValue::Int(int) => map.serialize_entry("value", &int.to_string())?,
            TagValue::Double(double) if double.is_finite() => map.serialize_entry("value", double)?,
            TagValue::Double(double) => map.serialize_entry("value", &value_text::shortest(*double))?,
            TagValue::Bytes(bytes) => map.serialize_entry("value", &STANDARD.encode(bytes))?,
        }
        map.end()
    }
}

fn as_trace_id<S: Serializer>(id: &TraceId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&id_text(*id))
}

fn as_text<S: Serializer>(value: &impl ToString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&value.to_string())
}

fn as_micros<S: Serializer>(time: &UnixNano, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(time.0 / 1000)
}

fn nanos_as_micros<S: Serializer>(nanos: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(nanos / 1000)
}

fn as_process_key<S: Serializer>(index: &usize, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&process_key(*index))
}

fn as_reference_type<S: Serializer>(is_child_of: &bool, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(if *is_child_of { "CHILD_OF" } else { "FOLLOWS_FROM" })
}

fn null_when_empty<S: Serializer>(texts: &Vec<String>, serializer: S) -> Result<S::Ok, S::Error> {
    if texts.is_empty() { serializer.serialize_none() } else { serializer.collect_seq(texts) }
}

#[cfg(test)]
mod tests;
