//! Jaeger's JSON (what its UI downloads and its API answers) as OTLP.
//!
//! Read are: the API's answer (`{"data":[...]}`), one trace (`{"traceID":...,"spans":[...],"processes":{...}}`), and lists
//! of traces. What Jaeger's own collectors make of their spans is done here too: tags that stand for fields
//! become fields, references become the parent and links, times become nanoseconds.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value as Json;
use spoor_model::span::{STATUS_ERROR, STATUS_OK};
use spoor_model::wire::put_text;
use spoor_model::{Event, KeyValue, Link, Origin, Span, SpanEntry, SpanId, Trace, TraceId, UnixNano, Value, nested};

/// Why a document is not Jaeger's JSON.
#[derive(Debug, thiserror::Error)]
pub enum JaegerJsonError {
    /// Not the JSON of traces.
    #[error("not Jaeger JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// A span that cannot be kept.
    #[error("span {span}: {reason}")]
    Span {
        /// Its id, as written.
        span: String,
        /// What is wrong.
        reason: String,
    },
}

#[derive(Deserialize)]
struct Answer {
    data: Vec<TraceDocument>,
}

#[derive(Deserialize)]
struct TraceDocument {
    spans: Vec<SpanDocument>,
    #[serde(default)]
    processes: BTreeMap<String, ProcessDocument>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SpanDocument {
    #[serde(rename = "traceID")]
    trace_id: String,
    #[serde(rename = "spanID")]
    span_id: String,
    /// Of old versions.
    #[serde(default, rename = "parentSpanID")]
    parent_span_id: Option<String>,
    #[serde(default)]
    flags: Option<u32>,
    #[serde(default)]
    operation_name: String,
    #[serde(default)]
    references: Option<Vec<Reference>>,
    start_time: u64,
    #[serde(default)]
    duration: u64,
    #[serde(default)]
    tags: Option<Vec<Tag>>,
    #[serde(default)]
    logs: Option<Vec<Log>>,
    #[serde(default, rename = "processID")]
    process_id: Option<String>,
    #[serde(default)]
    process: Option<ProcessDocument>,
    #[serde(default)]
    warnings: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ProcessDocument {
    #[serde(default)]
    service_name: String,
    #[serde(default)]
    tags: Option<Vec<Tag>>,
}

#[derive(Deserialize)]
struct Reference {
    #[serde(rename = "refType")]
    ref_type: String,
    #[serde(rename = "traceID")]
    trace_id: String,
    #[serde(rename = "spanID")]
    span_id: String,
}

#[derive(Deserialize)]
struct Tag {
    key: String,
    #[serde(default)]
    r#type: Option<String>,
    #[serde(default)]
    value: Json,
}

#[derive(Deserialize)]
struct Log {
    timestamp: u64,
    #[serde(default)]
    fields: Vec<Tag>,
}

/// The attribute in which Jaeger carries warnings through OTLP.
const WARNINGS_KEY: &str = "@jaeger@warnings";

/// Reads a document; one `TracesData` (which has the shape of an export request) per trace id. Costs a few
/// times the document's size in memory.
pub fn to_protobuf(json: &[u8]) -> Result<Vec<Vec<u8>>, JaegerJsonError> {
    let documents = documents(json)?;
    let mut encoded = Vec::with_capacity(documents.len());
    for document in documents {
        let mut of_trace: BTreeMap<TraceId, Vec<SpanEntry>> = BTreeMap::new();
        for span in &document.spans {
            let entry = entry(span, &document.processes)
                .map_err(|reason| JaegerJsonError::Span { span: span.span_id.clone(), reason })?;
            of_trace.entry(entry.span.trace_id).or_default().push(entry);
        }
        let traces = of_trace.into_iter().filter_map(|(id, entries)| Trace::assemble(id, entries));
        encoded.extend(traces.map(|trace| crate::encode::traces_data(&trace)));
    }
    Ok(encoded)
}

/// The traces of a document, by its shape. Serde could try one shape after the other, but would not say what is wrong then.
fn documents(json: &[u8]) -> Result<Vec<TraceDocument>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Keys {
        data: Option<IgnoredAny>,
    }
    if json.trim_ascii_start().first() == Some(&b'[') {
        return serde_json::from_slice(json);
    }
    match serde_json::from_slice(json)? {
        Keys { data: Some(_) } => serde_json::from_slice(json).map(|Answer { data }| data),
        Keys { data: None } => serde_json::from_slice(json).map(|trace| vec![trace]),
    }
}

fn entry(document: &SpanDocument, processes: &BTreeMap<String, ProcessDocument>) -> Result<SpanEntry, String> {
    let listed = || document.process_id.as_ref().and_then(|id| processes.get(id));
    let process = document.process.as_ref().or_else(listed).ok_or("its process is not in the document")?;
    let (mut span, scope) = span(document)?;
    let resource = resource(process);
    references(document, &mut span)?;
    let origin = Origin::decode(resource.into(), scope.into(), "", "").map_err(|err| err.to_string())?;
    Ok(SpanEntry { origin: Arc::new(origin), span })
}

/// An OTLP `Resource`.
fn resource(process: &ProcessDocument) -> Vec<u8> {
    let mut attributes = vec![KeyValue::new("service.name", Value::Str(process.service_name.clone()))];
    attributes.extend(process.tags.iter().flatten().map(attribute));
    let mut resource = Vec::new();
    nested::put_attributes(&mut resource, 1, &attributes);
    resource
}

/// The span without its references, and the OTLP `InstrumentationScope` that its tags name.
fn span(document: &SpanDocument) -> Result<(Span, Vec<u8>), String> {
    let nanos = |micros: u64| micros.checked_mul(1000).ok_or("a time beyond the year 2554");
    let start = nanos(document.start_time)?;
    let end = start.checked_add(nanos(document.duration)?).ok_or("it ends beyond the year 2554")?;
    let mut span = Span {
        trace_id: TraceId::from_hex(&document.trace_id).map_err(|err| format!("traceID: {err}"))?,
        span_id: SpanId::from_hex(&document.span_id).map_err(|err| format!("spanID: {err}"))?,
        flags: document.flags.unwrap_or(0),
        name: document.operation_name.clone(),
        start: UnixNano(start),
        end: UnixNano(end),
        ..Span::default()
    };
    let mut fields = Fields::default();
    for tag in document.tags.iter().flatten() {
        if !fields.take(tag, &mut span) {
            span.attributes.push(attribute(tag));
        }
    }
    fields.settle_status(&mut span);
    let of_the_span = document.warnings.iter().flatten().filter(|warning| !is_of_the_answer(warning));
    let warnings: Vec<Value> = of_the_span.map(|warning| Value::Str(warning.clone())).collect();
    if !warnings.is_empty() {
        span.attributes.push(KeyValue::new(WARNINGS_KEY, Value::Array(warnings)));
    }
    for log in document.logs.iter().flatten() {
        span.events.push(event(log)?);
    }
    let mut scope = Vec::new();
    put_text(&mut scope, 1, fields.scope_name.as_bytes());
    put_text(&mut scope, 2, fields.scope_version.as_bytes());
    Ok((span, scope))
}

/// Whether Jaeger added a warning when it answered, and says by it that it left the span as it was: then the span is the
/// one that it has stored, and must not differ from it. Where it moved the times, the warning is all that tells.
fn is_of_the_answer(warning: &str) -> bool {
    warning.ends_with("skipping clock skew adjustment") || warning.contains("not applying calculated delta of ")
}

/// What tags say of the span's fields.
#[derive(Default)]
struct Fields {
    scope_name: String,
    scope_version: String,
    is_error: bool,
    status_code: i32,
    http_status: Option<i64>,
}

impl Fields {
    /// Whether the tag is a field and no attribute.
    fn take(&mut self, tag: &Tag, span: &mut Span) -> bool {
        let text = tag.value.as_str();
        match (tag.key.as_str(), text) {
            ("otel.scope.name" | "otel.library.name", Some(text)) => self.scope_name = text.to_owned(),
            ("otel.scope.version" | "otel.library.version", Some(text)) => self.scope_version = text.to_owned(),
            ("span.kind", Some(text)) => match kind(text) {
                Some(kind) => span.kind = kind,
                None => return false,
            },
            ("error", None) if tag.value == Json::Bool(true) => self.is_error = true,
            ("otel.status_code", Some(text)) => {
                self.status_code = match text.to_ascii_uppercase().as_str() {
                    "ERROR" => STATUS_ERROR,
                    "OK" => STATUS_OK,
                    _ => 0,
                };
            }
            ("otel.status_description", Some(text)) => span.status.message = text.to_owned(),
            ("w3c.tracestate", Some(text)) => span.trace_state = text.to_owned(),
            ("http.status_code", _) => {
                self.http_status = tag.value.as_i64().or_else(|| text?.parse().ok());
                return false;
            }
            _ => return false,
        }
        true
    }

    /// An error tag, a status code, an HTTP status: the first that is there decides.
    fn settle_status(&self, span: &mut Span) {
        const SERVER: i32 = 2;
        let by_http = || match self.http_status {
            Some(400..=499) if span.kind == SERVER => 0,
            Some(100..=399) | None => 0,
            Some(_) => STATUS_ERROR,
        };
        span.status.code = match (self.is_error, self.status_code) {
            (true, _) => STATUS_ERROR,
            (false, 0) => by_http(),
            (false, code) => code,
        };
        if self.is_error && span.status.message.is_empty() {
            let message = span.attributes.iter().find(|attribute| attribute.key == "http.status_message");
            span.status.message = message.and_then(|found| found.value.as_str()).unwrap_or_default().to_owned();
        }
    }
}

fn kind(text: &str) -> Option<i32> {
    let names = ["internal", "server", "client", "producer", "consumer"];
    names.iter().position(|name| *name == text).map(|place| place as i32 + 1)
}

fn event(log: &Log) -> Result<Event, String> {
    let time = log.timestamp.checked_mul(1000).ok_or("a log beyond the year 2554")?;
    let mut event = Event { time: UnixNano(time), ..Event::default() };
    for field in &log.fields {
        match field.value.as_str() {
            Some(name) if field.key == "event" && event.name.is_empty() => event.name = name.to_owned(),
            _ => event.attributes.push(attribute(field)),
        }
    }
    Ok(event)
}

/// The parent is the first reference within the trace that says "child of", else the first within the trace. Every other
/// one is a link, and so is a parent that only "follows from".
fn references(document: &SpanDocument, span: &mut Span) -> Result<(), String> {
    let mut read = Vec::new();
    for reference in document.references.iter().flatten() {
        let trace_id = TraceId::from_hex(&reference.trace_id).map_err(|err| format!("a reference's traceID: {err}"))?;
        let span_id = SpanId::from_hex(&reference.span_id).map_err(|err| format!("a reference's spanID: {err}"))?;
        read.push((reference.ref_type == "CHILD_OF", trace_id, span_id));
    }
    let is_here = |(_, trace_id, _): &&(bool, TraceId, SpanId)| *trace_id == span.trace_id;
    let child_of = read.iter().position(|reference| reference.0 && is_here(&reference));
    let parent = child_of.or_else(|| read.iter().position(|reference| is_here(&reference)));
    if let Some(parent) = parent {
        span.parent_span_id = read[parent].2;
    } else if let Some(id) = document.parent_span_id.as_ref().filter(|id| !id.is_empty()) {
        span.parent_span_id = SpanId::from_hex(id).map_err(|err| format!("parentSpanID: {err}"))?;
    }
    for (place, (is_child, trace_id, span_id)) in read.into_iter().enumerate() {
        if Some(place) == child_of {
            continue;
        }
        let ref_type = if is_child { "child_of" } else { "follows_from" };
        let attributes = vec![KeyValue::new("opentracing.ref_type", Value::Str(ref_type.to_owned()))];
        span.links.push(Link { trace_id, span_id, attributes, ..Link::default() });
    }
    Ok(())
}

fn attribute(tag: &Tag) -> KeyValue {
    KeyValue::new(tag.key.clone(), value(tag))
}

/// A value by the tag's type, or by its own when the type does not fit it.
fn value(tag: &Tag) -> Value {
    let text = tag.value.as_str();
    let typed = match tag.r#type.as_deref().unwrap_or_default() {
        "int64" => text.and_then(|text| text.parse().ok()).map(Value::Int),
        "float64" => text.and_then(|text| text.parse().ok()).or_else(|| tag.value.as_f64()).map(Value::Double),
        "bool" => text.and_then(|text| text.parse().ok()).map(Value::Bool),
        "binary" => text.and_then(|text| STANDARD.decode(text).ok()).map(Value::Bytes),
        _ => None,
    };
    typed.unwrap_or_else(|| match &tag.value {
        Json::Null => Value::Empty,
        Json::Bool(flag) => Value::Bool(*flag),
        Json::Number(number) => match number.as_i64() {
            Some(int) => Value::Int(int),
            None => Value::Double(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::Str(text.clone()),
        other => Value::Str(other.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use spoor_model::batch::SpanBatch;
    use spoor_model::ingest::Decode;

    use super::*;
    use crate::OtlpDecoder;

    #[test]
    fn warnings_of_an_answer_are_no_part_of_the_span() {
        let warnings = |texts: &str| {
            let entries = read(&TRACE.replace(r#""clocks differ""#, texts));
            let found = entries[0].span.attributes.iter().find(|attribute| attribute.key == WARNINGS_KEY);
            found.map(|attribute| attribute.value.clone())
        };
        let left_alone = r#""parent span ID=7 is not in the trace; skipping clock skew adjustment""#;
        let disabled = r#""clock skew adjustment disabled; not applying calculated delta of -3ms""#;
        assert_eq!(warnings(&format!("{left_alone},{disabled}")), None);
        let moved = "This span's timestamps were adjusted by 3ms";
        let kept = Value::Array(vec![Value::Str(moved.to_owned())]);
        assert_eq!(warnings(&format!("{left_alone},\"{moved}\"")), Some(kept));
    }

    #[test]
    fn what_is_wrong_with_a_document_is_said() {
        for (json, expected) in [
            (r#"{"data":null}"#, "missing field `spans`"),
            (r#"{"data":{}}"#, "invalid type: map, expected a sequence"),
            (r#"{"data":[{"spans":[{"traceID":"a"}]}]}"#, "missing field `spanID`"),
            (r#"[{}]"#, "missing field `spans`"),
        ] {
            let err = to_protobuf(json.as_bytes()).unwrap_err().to_string();
            assert!(err.contains(expected), "{json}: {err}");
        }
    }

    const TRACE: &str = r#"{"traceID":"a0b1","spans":[
        {"traceID":"a0b1","spanID":"c2","flags":1,"operationName":"GET /cart","processID":"p1",
         "references":[{"refType":"FOLLOWS_FROM","traceID":"a0b1","spanID":"c9"},
                       {"refType":"CHILD_OF","traceID":"a0b1","spanID":"c1"},
                       {"refType":"CHILD_OF","traceID":"ffff","spanID":"c1"}],
         "startTime":1700000000000001,"duration":3,
         "tags":[{"key":"otel.scope.name","type":"string","value":"lib"},
                 {"key":"otel.scope.version","type":"string","value":"1.2"},
                 {"key":"b","type":"binary","value":"AQI="},
                 {"key":"z","type":"int64","value":"9007199254740993"},
                 {"key":"n","type":"float64","value":2},
                 {"key":"nan","type":"float64","value":"NaN"},
                 {"key":"flag","type":"bool","value":"true"},
                 {"key":"error","type":"string","value":"true"},
                 {"key":"span.kind","type":"string","value":"server"},
                 {"key":"otel.status_code","type":"string","value":"Error"},
                 {"key":"error","type":"bool","value":true},
                 {"key":"otel.status_description","type":"string","value":"boom"},
                 {"key":"w3c.tracestate","type":"string","value":"k=v"}],
         "logs":[{"timestamp":1700000000000002,"fields":[{"key":"event","type":"string","value":"ev"},{"key":"k","type":"float64","value":1.5}]}],
         "warnings":["clocks differ"]}],
      "processes":{"p1":{"serviceName":"cart","tags":[{"key":"host.name","type":"string","value":"h1"}]}},"warnings":null}"#;

    fn read(json: &str) -> Vec<SpanEntry> {
        let mut batch = SpanBatch::new();
        for protobuf in to_protobuf(json.as_bytes()).unwrap() {
            let checked = OtlpDecoder.check(&protobuf).unwrap();
            assert_eq!(checked.rejected, []);
            OtlpDecoder.append(&protobuf, &checked, &mut batch);
        }
        (0..batch.len() as u32).map(|row| batch.span(row)).collect()
    }

    #[test]
    fn tags_that_stand_for_fields_become_fields() {
        let entries = read(TRACE);
        let SpanEntry { origin, span } = &entries[0];
        assert_eq!(origin.service_name(), Some("cart"));
        assert_eq!((origin.scope.name.as_str(), origin.scope.version.as_str()), ("lib", "1.2"));
        assert_eq!(origin.resource.attributes[1], KeyValue::new("host.name", Value::Str("h1".into())));
        assert_eq!(span.trace_id, TraceId::from_hex("a0b1").unwrap());
        assert_eq!((span.start.0, span.end.0), (1_700_000_000_000_001_000, 1_700_000_000_000_004_000));
        assert_eq!((span.kind, span.status.code, span.status.message.as_str()), (2, STATUS_ERROR, "boom"));
        assert_eq!((span.trace_state.as_str(), span.flags), ("k=v", 1));
        let find = |key: &str| spoor_model::value::find(&span.attributes, key).cloned();
        assert_eq!(find("b"), Some(Value::Bytes(vec![1, 2])));
        assert_eq!(find("z"), Some(Value::Int(9_007_199_254_740_993)));
        assert_eq!(find("n"), Some(Value::Double(2.0)));
        assert!(matches!(find("nan"), Some(Value::Double(double)) if double.is_nan()));
        assert_eq!(find("flag"), Some(Value::Bool(true)));
        assert_eq!(find("error"), Some(Value::Str("true".into())), "a text is no status");
        assert_eq!(find("span.kind"), None);
        assert_eq!(find(WARNINGS_KEY), Some(Value::Array(vec![Value::Str("clocks differ".into())])));
        assert_eq!(span.events[0].name, "ev");
        assert_eq!(span.events[0].attributes, [KeyValue::new("k", Value::Double(1.5))]);
    }

    #[test]
    fn the_first_child_of_reference_is_the_parent_and_the_others_are_links() {
        let entries = read(TRACE);
        let span = &entries[0].span;
        assert_eq!(span.parent_span_id, SpanId::from_hex("c1").unwrap());
        let links: Vec<String> = span.links.iter().map(|link| format!("{} {}", link.trace_id, link.span_id)).collect();
        let zeros = "0".repeat(28);
        assert_eq!(links, [format!("{zeros}a0b1 00000000000000c9"), format!("{zeros}ffff 00000000000000c1")]);
    }

    #[test]
    fn answers_lists_and_single_traces_are_read_and_anything_else_is_not() {
        assert_eq!(read(&format!(r#"{{"data":[{TRACE},{TRACE}],"total":0}}"#)).len(), 2);
        assert_eq!(read(&format!("[{TRACE}]")).len(), 1);
        assert!(matches!(to_protobuf(b"{}"), Err(JaegerJsonError::Json(_))));
        let orphan = r#"{"spans":[{"traceID":"1","spanID":"2","startTime":1,"processID":"p9"}]}"#;
        let err = to_protobuf(orphan.as_bytes()).unwrap_err();
        assert_eq!(err.to_string(), "span 2: its process is not in the document");
    }

    #[test]
    fn an_http_status_decides_only_when_nothing_else_does() {
        let of = |tags: &str| {
            let span = format!(
                r#"{{"traceID":"1","spanID":"2","startTime":1,"process":{{"serviceName":"a"}},"tags":[{tags}]}}"#
            );
            read(&format!(r#"{{"spans":[{span}]}}"#))[0].span.status.code
        };
        let http = |status: u32| format!(r#"{{"key":"http.status_code","type":"int64","value":{status}}}"#);
        let server = r#"{"key":"span.kind","value":"server"},"#;
        assert_eq!((of(&http(404)), of(&format!("{server}{}", http(404)))), (STATUS_ERROR, 0));
        assert_eq!((of(&http(503)), of(&http(200))), (STATUS_ERROR, 0));
        let ok = r#"{"key":"otel.status_code","value":"OK"},"#;
        assert_eq!(of(&format!("{ok}{}", http(503))), STATUS_OK);
    }
}
