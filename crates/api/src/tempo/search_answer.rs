//! The answer of a search, in both of its forms.
//!
//! Grafana decodes the JSON strictly: one key that it does not know fails the whole query, and so do
//! attributes whose values are no scalars or have different types under one key. So what is written
//! here is what its pinned schema has, and nothing else.

use std::collections::{BTreeMap, HashMap};

use serde::{Serialize, Serializer};
use spoor_model::nested::{put_attributes, put_message};
use spoor_model::scan::{AttrScope, Field, ScanStats};
use spoor_model::span::{STATUS_ERROR, SpanEntry, Trace};
use spoor_model::wire::{put_bytes, put_text, put_uint};
use spoor_model::{KeyValue, Value, value};
use spoor_querier::FoundTrace;
use spoor_traceql::MatchedSpanset;

use super::otlp_json::AttributeJson;
use crate::value_text;

/// Tempo's text for a trace whose root has not come, or never will.
const ROOT_UNKNOWN: &str = "<root span not yet received>";

/// `SearchResponse`.
#[derive(Debug, Serialize)]
pub(crate) struct SearchAnswer {
    traces: Vec<TraceJson>,
    metrics: SearchMetrics,
}

/// `TraceSearchMetadata`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct TraceJson {
    #[serde(rename = "traceID")]
    trace_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    root_service_name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    root_trace_name: String,
    #[serde(skip_serializing_if = "is_zero", serialize_with = "as_text")]
    start_time_unix_nano: u64,
    #[serde(skip_serializing_if = "is_zero")]
    duration_ms: u32,
    /// The first of `span_sets`, for older clients and for Kiali.
    #[serde(skip_serializing_if = "Option::is_none")]
    span_set: Option<SpanSet>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    span_sets: Vec<SpanSet>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    service_stats: BTreeMap<String, ServiceStats>,
}

#[derive(Debug, Clone, Serialize)]
struct SpanSet {
    spans: Vec<SpanJson>,
    #[serde(skip_serializing_if = "is_zero")]
    matched: u32,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct SpanJson {
    #[serde(rename = "spanID")]
    span_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "is_zero", serialize_with = "as_text")]
    start_time_unix_nano: u64,
    #[serde(skip_serializing_if = "is_zero", serialize_with = "as_text")]
    duration_nanos: u64,
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "as_attributes")]
    attributes: Vec<KeyValue>,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct ServiceStats {
    #[serde(skip_serializing_if = "is_zero")]
    span_count: u32,
    #[serde(skip_serializing_if = "is_zero")]
    error_count: u32,
}

/// `SearchMetrics`, without the keys that Grafana refuses.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct SearchMetrics {
    #[serde(skip_serializing_if = "is_zero")]
    inspected_traces: u32,
    #[serde(skip_serializing_if = "is_zero", serialize_with = "as_text")]
    inspected_bytes: u64,
    completed_jobs: u32,
    total_jobs: u32,
    #[serde(skip_serializing_if = "is_zero", serialize_with = "as_text")]
    inspected_spans: u64,
}

fn is_zero<T: Default + PartialEq>(number: &T) -> bool {
    *number == T::default()
}

fn as_text<S: Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(number)
}

fn as_attributes<S: Serializer>(attributes: &[KeyValue], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(attributes.iter().map(AttributeJson))
}

fn saturated<T: TryInto<u32>>(number: T) -> u32 {
    number.try_into().unwrap_or(u32::MAX)
}

/// What of each matched span is shown.
#[derive(Debug, Clone)]
pub(crate) struct Shown {
    /// What the query looks at and selects.
    pub(crate) fields: Vec<Field>,
    /// Spans per span set.
    pub(crate) spans_max: usize,
}

impl SearchAnswer {
    /// The answer for traces in the order given. Without `shown` (a legacy search) there are no span
    /// sets. Sources that were skipped count as jobs that were not completed.
    pub(crate) fn new(found: &[FoundTrace], shown: Option<&Shown>, stats: ScanStats, skipped_count: usize) -> Self {
        let mut traces: Vec<TraceJson> = found.iter().map(|found| trace_json(found, shown)).collect();
        agree_on_types(&mut traces);
        for trace in &mut traces {
            trace.span_set = trace.span_sets.first().cloned();
        }
        let metrics = SearchMetrics {
            inspected_traces: saturated(stats.traces_inspected),
            inspected_bytes: stats.bytes_inspected,
            completed_jobs: 1,
            total_jobs: saturated(1 + skipped_count),
            inspected_spans: stats.spans_inspected,
        };
        Self { traces, metrics }
    }

    /// `SearchResponse` as JSON.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("answers have text keys and no failing parts")
    }

    /// `SearchResponse` as protobuf.
    pub(crate) fn to_protobuf(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for trace in &self.traces {
            put_message(&mut out, 1, |out| trace.put(out));
        }
        put_message(&mut out, 2, |out| {
            put_uint(out, 1, u64::from(self.metrics.inspected_traces));
            put_uint(out, 2, self.metrics.inspected_bytes);
            put_uint(out, 4, u64::from(self.metrics.completed_jobs));
            put_uint(out, 5, u64::from(self.metrics.total_jobs));
            put_uint(out, 7, self.metrics.inspected_spans);
        });
        out
    }
}

impl TraceJson {
    fn put(&self, out: &mut Vec<u8>) {
        put_text(out, 1, self.trace_id.as_bytes());
        put_text(out, 2, self.root_service_name.as_bytes());
        put_text(out, 3, self.root_trace_name.as_bytes());
        put_uint(out, 4, self.start_time_unix_nano);
        put_uint(out, 5, u64::from(self.duration_ms));
        if let Some(span_set) = &self.span_set {
            put_message(out, 6, |out| span_set.put(out));
        }
        for span_set in &self.span_sets {
            put_message(out, 7, |out| span_set.put(out));
        }
        for (service, stats) in &self.service_stats {
            put_message(out, 8, |out| {
                put_bytes(out, 1, service.as_bytes());
                put_message(out, 2, |out| {
                    put_uint(out, 1, u64::from(stats.span_count));
                    put_uint(out, 2, u64::from(stats.error_count));
                });
            });
        }
    }
}

impl SpanSet {
    fn put(&self, out: &mut Vec<u8>) {
        for span in &self.spans {
            put_message(out, 1, |out| {
                put_text(out, 1, span.span_id.as_bytes());
                put_text(out, 2, span.name.as_bytes());
                put_uint(out, 3, span.start_time_unix_nano);
                put_uint(out, 4, span.duration_nanos);
                put_attributes(out, 5, &span.attributes);
            });
        }
        put_uint(out, 2, u64::from(self.matched));
    }
}

fn trace_json(found: &FoundTrace, shown: Option<&Shown>) -> TraceJson {
    let trace = &found.trace;
    let range = trace.range();
    let root = spoor_querier::root(trace);
    let service_of = |entry: &SpanEntry| entry.origin.service_name().unwrap_or_default().to_owned();
    let span_set = |spanset: &MatchedSpanset, shown: &Shown| SpanSet {
        spans: spanset
            .spans
            .iter()
            .take(shown.spans_max)
            .map(|index| span_json(&trace.entries[*index], &shown.fields))
            .collect(),
        matched: saturated(spanset.spans.len()),
    };
    TraceJson {
        trace_id: trace.id.to_string().trim_start_matches('0').to_owned(),
        root_service_name: root.map_or_else(|| ROOT_UNKNOWN.to_owned(), service_of),
        root_trace_name: root.map(|entry| entry.span.name.clone()).unwrap_or_default(),
        start_time_unix_nano: range.start.0,
        duration_ms: saturated((range.end.0 - range.start.0) / 1_000_000),
        span_set: None,
        span_sets: shown.iter().flat_map(|shown| found.spansets.iter().map(|one| span_set(one, shown))).collect(),
        service_stats: service_stats(trace),
    }
}

fn service_stats(trace: &Trace) -> BTreeMap<String, ServiceStats> {
    let mut stats: BTreeMap<&str, ServiceStats> = BTreeMap::new();
    for entry in &trace.entries {
        let of_service = stats.entry(entry.origin.service_name().unwrap_or_default()).or_default();
        of_service.span_count += 1;
        of_service.error_count += u32::from(entry.span.status.code == STATUS_ERROR);
    }
    stats.into_iter().map(|(service, stats)| (service.to_owned(), stats)).collect()
}

fn span_json(entry: &SpanEntry, fields: &[Field]) -> SpanJson {
    let span = &entry.span;
    let mut attributes: Vec<KeyValue> = Vec::new();
    for field in fields {
        let Some((key, value)) = shown_value(field, entry) else { continue };
        // The same name in two scopes: the first that the query names wins, as a key stands once.
        if value::find(&attributes, key).is_none() {
            attributes.push(KeyValue::new(key, value));
        }
    }
    SpanJson {
        span_id: span.span_id.to_string(),
        name: if fields.contains(&Field::Name) { span.name.clone() } else { String::new() },
        start_time_unix_nano: span.start.0,
        duration_nanos: span.duration_nano(),
        attributes,
    }
}

/// How a field of a span is shown: its key, without scope, and a scalar. `None` when the span does
/// not have it, or when answers have another place for it.
fn shown_value<'a>(field: &'a Field, entry: &SpanEntry) -> Option<(&'a str, Value)> {
    let SpanEntry { origin, span } = entry;
    let text = |text: &str| Value::Str(text.to_owned());
    match field {
        Field::Attribute(scope, key) => {
            let value = scalar(attribute(*scope, key, entry)?)?;
            Some((key, value))
        }
        Field::Status => Some(("status", text(status_text(span.status.code)))),
        Field::Kind => Some(("kind", text(kind_text(span.kind)))),
        Field::StatusMessage => Some(("statusMessage", text(&span.status.message))),
        Field::ParentSpanId => Some(("span:parentID", text(&span.parent_span_id.to_string()))),
        Field::InstrumentationName => Some(("instrumentation:name", text(&origin.scope.name))),
        Field::InstrumentationVersion => Some(("instrumentation:version", text(&origin.scope.version))),
        Field::EventName => span.events.first().map(|event| ("event:name", text(&event.name))),
        Field::EventTimeSinceStart => {
            let after = |event: &spoor_model::Event| event.time.0.saturating_sub(span.start.0);
            let value = span.events.first().map(|event| crate::go_duration::format(after(event)))?;
            Some(("event:timeSinceStart", Value::Str(value)))
        }
        Field::LinkTraceId => span.links.first().map(|link| ("link:traceID", text(&link.trace_id.to_string()))),
        Field::LinkSpanId => span.links.first().map(|link| ("link:spanID", text(&link.span_id.to_string()))),
        Field::Name | Field::Duration | Field::StartTime | Field::TraceId | Field::SpanId => None,
    }
}

fn attribute<'a>(scope: AttrScope, key: &str, entry: &'a SpanEntry) -> Option<&'a Value> {
    let SpanEntry { origin, span } = entry;
    let in_events = || span.events.iter().find_map(|event| value::find(&event.attributes, key));
    let in_links = || span.links.iter().find_map(|link| value::find(&link.attributes, key));
    let in_span = || value::find(&span.attributes, key);
    let in_resource = || value::find(&origin.resource.attributes, key);
    let in_instrumentation = || value::find(&origin.scope.attributes, key);
    match scope {
        AttrScope::Span => in_span(),
        AttrScope::Resource => in_resource(),
        AttrScope::Event => in_events(),
        AttrScope::Link => in_links(),
        AttrScope::Instrumentation => in_instrumentation(),
        AttrScope::Any => {
            in_span().or_else(in_resource).or_else(in_events).or_else(in_links).or_else(in_instrumentation)
        }
    }
}

/// A value that fits a column of Grafana's: arrays of one are their element, what is left of
/// compound values becomes text.
fn scalar(value: &Value) -> Option<Value> {
    match value {
        Value::Empty => None,
        Value::Str(_) | Value::Bool(_) | Value::Int(_) | Value::Double(_) => Some(value.clone()),
        Value::Array(values) if values.len() == 1 => scalar(&values[0]),
        Value::Bytes(_) | Value::Array(_) | Value::Map(_) => Some(Value::Str(value_text::plain(value))),
    }
}

/// TraceQL's word for OTLP's status code.
fn status_text(code: i32) -> &'static str {
    match code {
        1 => "ok",
        STATUS_ERROR => "error",
        _ => "unset",
    }
}

/// TraceQL's word for OTLP's span kind.
fn kind_text(kind: i32) -> &'static str {
    match kind {
        1 => "internal",
        2 => "server",
        3 => "client",
        4 => "producer",
        5 => "consumer",
        _ => "unspecified",
    }
}

/// What type the values of one key have, across the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Agreed {
    Same(std::mem::Discriminant<Value>),
    Numbers,
    Mixed,
}

/// Gives all values of one key one type: integers beside floats become floats, other mixtures text.
fn agree_on_types(traces: &mut [TraceJson]) {
    let int = std::mem::discriminant(&Value::Int(0));
    let double = std::mem::discriminant(&Value::Double(0.0));
    let mut agreed: HashMap<String, Agreed> = HashMap::new();
    for attribute in attributes(traces) {
        let found = std::mem::discriminant(&attribute.value);
        let is_number = found == int || found == double;
        let next = match agreed.get(&attribute.key) {
            None => Agreed::Same(found),
            Some(Agreed::Same(known)) if *known == found => continue,
            Some(Agreed::Same(known)) if is_number && (*known == int || *known == double) => Agreed::Numbers,
            Some(Agreed::Numbers) if is_number => continue,
            Some(_) => Agreed::Mixed,
        };
        agreed.insert(attribute.key.clone(), next);
    }
    for attribute in attributes(traces) {
        match (agreed[&attribute.key], &attribute.value) {
            (Agreed::Numbers, Value::Int(int)) => attribute.value = Value::Double(*int as f64),
            (Agreed::Mixed, value) => attribute.value = Value::Str(value_text::plain(value)),
            _ => {}
        }
    }
}

fn attributes(traces: &mut [TraceJson]) -> impl Iterator<Item = &mut KeyValue> {
    traces
        .iter_mut()
        .flat_map(|trace| &mut trace.span_sets)
        .flat_map(|span_set| &mut span_set.spans)
        .flat_map(|span| &mut span.attributes)
}

#[cfg(test)]
mod tests;
