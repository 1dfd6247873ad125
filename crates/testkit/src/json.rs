//! OTLP as JSON, written as exporters write it and read as Tempo's clients read it.
//!
//! The two differ: exporters send ids as hex (OTLP specification, "JSON Protobuf Encoding"), Tempo
//! answers with base64, enum names and without defaults (gogo jsonpb).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, TracesData};
use serde_json::{Map, Value, json};

/// A request as an exporter sends it.
pub fn request(data: &TracesData) -> Value {
    let resource_spans: Vec<_> = data.resource_spans.iter().map(resource_spans).collect();
    json!({ "resourceSpans": resource_spans })
}

fn resource_spans(one: &ResourceSpans) -> Value {
    let scope_spans: Vec<_> = one.scope_spans.iter().map(scope_spans).collect();
    let mut out = json!({ "scopeSpans": scope_spans, "schemaUrl": one.schema_url });
    if let Some(resource) = &one.resource {
        out["resource"] = json!({
            "attributes": attributes(&resource.attributes),
            "droppedAttributesCount": resource.dropped_attributes_count,
        });
    }
    out
}

fn scope_spans(one: &ScopeSpans) -> Value {
    let spans: Vec<_> = one.spans.iter().map(span).collect();
    let mut out = json!({ "spans": spans, "schemaUrl": one.schema_url });
    if let Some(scope) = &one.scope {
        out["scope"] = json!({
            "name": scope.name,
            "version": scope.version,
            "attributes": attributes(&scope.attributes),
            "droppedAttributesCount": scope.dropped_attributes_count,
        });
    }
    out
}

fn span(span: &Span) -> Value {
    let events: Vec<_> = span.events.iter().map(event).collect();
    let links: Vec<_> = span.links.iter().map(link).collect();
    let mut out = json!({
        "traceId": hex(&span.trace_id),
        "spanId": hex(&span.span_id),
        "traceState": span.trace_state,
        "parentSpanId": hex(&span.parent_span_id),
        "flags": span.flags,
        "name": span.name,
        "kind": span.kind,
        "startTimeUnixNano": span.start_time_unix_nano.to_string(),
        "endTimeUnixNano": span.end_time_unix_nano.to_string(),
        "attributes": attributes(&span.attributes),
        "droppedAttributesCount": span.dropped_attributes_count,
        "events": events,
        "droppedEventsCount": span.dropped_events_count,
        "links": links,
        "droppedLinksCount": span.dropped_links_count,
    });
    if let Some(status) = &span.status {
        out["status"] = json!({ "message": status.message, "code": status.code });
    }
    out
}

fn event(event: &Event) -> Value {
    json!({
        "timeUnixNano": event.time_unix_nano.to_string(),
        "name": event.name,
        "attributes": attributes(&event.attributes),
        "droppedAttributesCount": event.dropped_attributes_count,
    })
}

fn link(link: &Link) -> Value {
    json!({
        "traceId": hex(&link.trace_id),
        "spanId": hex(&link.span_id),
        "traceState": link.trace_state,
        "attributes": attributes(&link.attributes),
        "droppedAttributesCount": link.dropped_attributes_count,
        "flags": link.flags,
    })
}

fn attributes(list: &[KeyValue]) -> Vec<Value> {
    let one = |attribute: &KeyValue| match &attribute.value {
        Some(value) => json!({ "key": attribute.key, "value": any(value) }),
        None => json!({ "key": attribute.key }),
    };
    list.iter().map(one).collect()
}

fn any(value: &AnyValue) -> Value {
    match &value.value {
        None => json!({}),
        Some(Any::StringValue(text)) => json!({ "stringValue": text }),
        Some(Any::BoolValue(flag)) => json!({ "boolValue": flag }),
        Some(Any::IntValue(int)) => json!({ "intValue": int.to_string() }),
        Some(Any::DoubleValue(double)) => json!({ "doubleValue": number(*double) }),
        Some(Any::BytesValue(bytes)) => json!({ "bytesValue": STANDARD.encode(bytes) }),
        Some(Any::ArrayValue(array)) => {
            let values: Vec<_> = array.values.iter().map(any).collect();
            json!({ "arrayValue": { "values": values } })
        }
        Some(Any::KvlistValue(list)) => json!({ "kvlistValue": { "values": attributes(&list.values) } }),
        #[allow(unreachable_patterns, reason = "later versions of the messages have more kinds")]
        Some(other) => panic!("no test makes {other:?}"),
    }
}

fn number(double: f64) -> Value {
    match double {
        _ if double.is_nan() => "NaN".into(),
        f64::INFINITY => "Infinity".into(),
        f64::NEG_INFINITY => "-Infinity".into(),
        _ => double.into(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads Tempo's answer to trace by id: `batches` (v1) or `trace.resourceSpans` (v2).
///
/// # Panics
/// When something in it has another form than Tempo's, naming it.
pub fn read_tempo(answer: &Value) -> TracesData {
    let list = answer.get("batches").or_else(|| answer.get("trace")?.get("resourceSpans"));
    let resource_spans = items(list).iter().map(read_resource_spans).collect();
    TracesData { resource_spans }
}

fn read_resource_spans(value: &Value) -> ResourceSpans {
    let resource = value.get("resource").expect("resource is always there");
    ResourceSpans {
        resource: Some(Resource {
            attributes: read_attributes(resource),
            dropped_attributes_count: small(resource, "droppedAttributesCount"),
            ..Resource::default()
        }),
        scope_spans: items(value.get("scopeSpans")).iter().map(read_scope_spans).collect(),
        schema_url: text(value, "schemaUrl"),
    }
}

fn read_scope_spans(value: &Value) -> ScopeSpans {
    let scope = value.get("scope").expect("scope is always there");
    ScopeSpans {
        scope: Some(InstrumentationScope {
            name: text(scope, "name"),
            version: text(scope, "version"),
            attributes: read_attributes(scope),
            dropped_attributes_count: small(scope, "droppedAttributesCount"),
        }),
        spans: items(value.get("spans")).iter().map(read_span).collect(),
        schema_url: text(value, "schemaUrl"),
    }
}

fn read_span(value: &Value) -> Span {
    let status = value.get("status").expect("status is always there");
    Span {
        trace_id: bytes(value, "traceId"),
        span_id: bytes(value, "spanId"),
        trace_state: text(value, "traceState"),
        parent_span_id: bytes(value, "parentSpanId"),
        flags: small(value, "flags"),
        name: text(value, "name"),
        kind: name(
            value,
            "kind",
            "SPAN_KIND_",
            &["UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"],
        ),
        start_time_unix_nano: large(value, "startTimeUnixNano"),
        end_time_unix_nano: large(value, "endTimeUnixNano"),
        attributes: read_attributes(value),
        dropped_attributes_count: small(value, "droppedAttributesCount"),
        events: items(value.get("events")).iter().map(read_event).collect(),
        dropped_events_count: small(value, "droppedEventsCount"),
        links: items(value.get("links")).iter().map(read_link).collect(),
        dropped_links_count: small(value, "droppedLinksCount"),
        status: Some(Status {
            message: text(status, "message"),
            code: name(status, "code", "STATUS_CODE_", &["UNSET", "OK", "ERROR"]),
        }),
    }
}

fn read_event(value: &Value) -> Event {
    Event {
        time_unix_nano: large(value, "timeUnixNano"),
        name: text(value, "name"),
        attributes: read_attributes(value),
        dropped_attributes_count: small(value, "droppedAttributesCount"),
    }
}

fn read_link(value: &Value) -> Link {
    Link {
        trace_id: bytes(value, "traceId"),
        span_id: bytes(value, "spanId"),
        trace_state: text(value, "traceState"),
        attributes: read_attributes(value),
        dropped_attributes_count: small(value, "droppedAttributesCount"),
        flags: small(value, "flags"),
    }
}

fn read_attributes(value: &Value) -> Vec<KeyValue> {
    items(value.get("attributes")).iter().map(read_attribute).collect()
}

fn read_attribute(value: &Value) -> KeyValue {
    KeyValue { key: text(value, "key"), value: value.get("value").map(read_any), ..KeyValue::default() }
}

fn read_any(value: &Value) -> AnyValue {
    let arms: &Map<String, Value> = value.as_object().expect("a value is an object");
    assert!(arms.len() <= 1, "a value has one arm: {value}");
    let read = |(arm, content): (&String, &Value)| match arm.as_str() {
        "stringValue" => Any::StringValue(content.as_str().expect("text").to_owned()),
        "boolValue" => Any::BoolValue(content.as_bool().expect("a boolean")),
        "intValue" => Any::IntValue(content.as_str().expect("64-bit numbers are text").parse().expect("an integer")),
        "doubleValue" => Any::DoubleValue(read_number(content)),
        "bytesValue" => Any::BytesValue(STANDARD.decode(content.as_str().expect("base64")).expect("base64")),
        "arrayValue" => {
            Any::ArrayValue(ArrayValue { values: items(content.get("values")).iter().map(read_any).collect() })
        }
        "kvlistValue" => {
            Any::KvlistValue(KeyValueList { values: items(content.get("values")).iter().map(read_attribute).collect() })
        }
        other => panic!("no value has the arm {other}"),
    };
    AnyValue { value: arms.iter().next().map(read) }
}

fn read_number(value: &Value) -> f64 {
    match value.as_str() {
        Some("NaN") => f64::NAN,
        Some("Infinity") => f64::INFINITY,
        Some("-Infinity") => f64::NEG_INFINITY,
        Some(other) => panic!("not a double: {other}"),
        None => value.as_f64().expect("a double is a number"),
    }
}

fn items(value: Option<&Value>) -> &[Value] {
    value.map_or(&[], |value| value.as_array().expect("a list"))
}

fn text(value: &Value, key: &str) -> String {
    value.get(key).map_or_else(String::new, |text| text.as_str().expect("text").to_owned())
}

fn bytes(value: &Value, key: &str) -> Vec<u8> {
    STANDARD.decode(text(value, key)).unwrap_or_else(|err| panic!("{key} is not base64 ({err}): {value}"))
}

fn small(value: &Value, key: &str) -> u32 {
    value.get(key).map_or(0, |number| number.as_u64().expect("32-bit numbers are numbers") as u32)
}

fn large(value: &Value, key: &str) -> u64 {
    value.get(key).map_or(0, |number| number.as_str().expect("64-bit numbers are text").parse().expect("a number"))
}

fn name(value: &Value, key: &str, prefix: &str, names: &[&str]) -> i32 {
    let Some(found) = value.get(key) else { return 0 };
    let found = found.as_str().unwrap_or_else(|| panic!("{key} is not a name: {found}"));
    let place = names.iter().position(|name| found.strip_prefix(prefix) == Some(name));
    place.unwrap_or_else(|| panic!("{key} has an unknown name: {found}")) as i32
}
