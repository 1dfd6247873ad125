//! Whole traces as OTLP/JSON: the form of the Collector's file exporter and of OTLP's own HTTP requests.
//!
//! Ids are hex, enums numbers, 64-bit integers texts, bytes base64. Scalars that are zero are left out.
//! Everything is written straight from the model's spans.

use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD;
use serde::ser::{Serialize, SerializeMap, Serializer};
use spoor_model::{Event, KeyValue, Link, Resource, Scope, Span, Status, Trace, Value};

use crate::encode::{ResourceGroup, ScopeGroup, groups};

/// A `TracesData`: `{"resourceSpans":[...]}`.
pub struct TracesDataJson<'a>(pub &'a Trace);

impl Serialize for TracesDataJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let groups = groups(self.0);
        let mut fields = Fields::start(serializer)?;
        fields.put("resourceSpans", &List(&groups, ResourceSpansJson))?;
        fields.end()
    }
}

/// One `ResourceSpans`.
pub struct ResourceSpansJson<'a>(pub &'a ResourceGroup<'a>);

impl Serialize for ResourceSpansJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = Fields::start(serializer)?;
        fields.put("resource", &ResourceJson(&self.0.origin.resource))?;
        fields.put("scopeSpans", &List(&self.0.scopes, ScopeSpansJson))?;
        fields.text("schemaUrl", &self.0.origin.resource_schema_url)?;
        fields.end()
    }
}

struct ScopeSpansJson<'a>(&'a ScopeGroup<'a>);

impl Serialize for ScopeSpansJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = Fields::start(serializer)?;
        fields.put("scope", &ScopeJson(&self.0.origin.scope))?;
        fields.put("spans", &List(&self.0.spans, |span| SpanJson(span)))?;
        fields.text("schemaUrl", &self.0.origin.scope_schema_url)?;
        fields.end()
    }
}

struct ResourceJson<'a>(&'a Resource);

impl Serialize for ResourceJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = Fields::start(serializer)?;
        fields.list("attributes", &self.0.attributes, AttributeJson)?;
        fields.count("droppedAttributesCount", self.0.dropped_attributes_count)?;
        fields.end()
    }
}

struct ScopeJson<'a>(&'a Scope);

impl Serialize for ScopeJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = Fields::start(serializer)?;
        fields.text("name", &self.0.name)?;
        fields.text("version", &self.0.version)?;
        fields.list("attributes", &self.0.attributes, AttributeJson)?;
        fields.count("droppedAttributesCount", self.0.dropped_attributes_count)?;
        fields.end()
    }
}

struct SpanJson<'a>(&'a Span);

impl Serialize for SpanJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let span = self.0;
        let mut fields = Fields::start(serializer)?;
        fields.put("traceId", &span.trace_id.to_string())?;
        fields.put("spanId", &span.span_id.to_string())?;
        if !span.parent_span_id.is_zero() {
            fields.put("parentSpanId", &span.parent_span_id.to_string())?;
        }
        fields.text("traceState", &span.trace_state)?;
        fields.count("flags", span.flags)?;
        fields.text("name", &span.name)?;
        fields.choice("kind", span.kind)?;
        fields.put("startTimeUnixNano", &span.start.0.to_string())?;
        fields.put("endTimeUnixNano", &span.end.0.to_string())?;
        fields.list("attributes", &span.attributes, AttributeJson)?;
        fields.count("droppedAttributesCount", span.dropped_attributes_count)?;
        fields.list("events", &span.events, EventJson)?;
        fields.count("droppedEventsCount", span.dropped_events_count)?;
        fields.list("links", &span.links, LinkJson)?;
        fields.count("droppedLinksCount", span.dropped_links_count)?;
        fields.put("status", &StatusJson(&span.status))?;
        fields.end()
    }
}

struct StatusJson<'a>(&'a Status);

impl Serialize for StatusJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = Fields::start(serializer)?;
        fields.text("message", &self.0.message)?;
        fields.choice("code", self.0.code)?;
        fields.end()
    }
}

struct EventJson<'a>(&'a Event);

impl Serialize for EventJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = Fields::start(serializer)?;
        fields.put("timeUnixNano", &self.0.time.0.to_string())?;
        fields.text("name", &self.0.name)?;
        fields.list("attributes", &self.0.attributes, AttributeJson)?;
        fields.count("droppedAttributesCount", self.0.dropped_attributes_count)?;
        fields.end()
    }
}

struct LinkJson<'a>(&'a Link);

impl Serialize for LinkJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = Fields::start(serializer)?;
        fields.put("traceId", &self.0.trace_id.to_string())?;
        fields.put("spanId", &self.0.span_id.to_string())?;
        fields.text("traceState", &self.0.trace_state)?;
        fields.list("attributes", &self.0.attributes, AttributeJson)?;
        fields.count("droppedAttributesCount", self.0.dropped_attributes_count)?;
        fields.count("flags", self.0.flags)?;
        fields.end()
    }
}

struct AttributeJson<'a>(&'a KeyValue);

impl Serialize for AttributeJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = Fields::start(serializer)?;
        fields.put("key", &self.0.key)?;
        fields.put("value", &ValueJson(&self.0.value))?;
        fields.end()
    }
}

/// The arm that is set is written even when it is zero.
struct ValueJson<'a>(&'a Value);

impl Serialize for ValueJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = Fields::start(serializer)?;
        match self.0 {
            Value::Empty => {}
            Value::Str(text) => fields.put("stringValue", text)?,
            Value::Bool(flag) => fields.put("boolValue", flag)?,
            Value::Int(int) => fields.put("intValue", &int.to_string())?,
            Value::Double(double) => fields.put("doubleValue", &DoubleJson(*double))?,
            Value::Bytes(bytes) => fields.put("bytesValue", &Base64Display::new(bytes, &STANDARD).to_string())?,
            Value::Array(values) => fields.put("arrayValue", &ListJson(values, ValueJson))?,
            Value::Map(entries) => fields.put("kvlistValue", &ListJson(entries, AttributeJson))?,
        }
        fields.end()
    }
}

/// `ArrayValue` and `KeyValueList`: an object with one list.
struct ListJson<'a, T, W>(&'a [T], fn(&'a T) -> W);

impl<T, W: Serialize> Serialize for ListJson<'_, T, W> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = Fields::start(serializer)?;
        fields.put("values", &List(self.0, self.1))?;
        fields.end()
    }
}

/// A float; what JSON has no number for is a text.
struct DoubleJson(f64);

impl Serialize for DoubleJson {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            double if double.is_nan() => serializer.serialize_str("NaN"),
            f64::INFINITY => serializer.serialize_str("Infinity"),
            f64::NEG_INFINITY => serializer.serialize_str("-Infinity"),
            double => serializer.serialize_f64(double),
        }
    }
}

struct List<'a, T, W>(&'a [T], fn(&'a T) -> W);

impl<T, W: Serialize> Serialize for List<'_, T, W> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(self.1))
    }
}

/// Writes the fields of one message, leaving out scalars that are zero.
struct Fields<M>(M);

impl<M: SerializeMap> Fields<M> {
    fn start<S: Serializer<SerializeMap = M>>(serializer: S) -> Result<Self, S::Error> {
        serializer.serialize_map(None).map(Self)
    }

    fn put<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), M::Error> {
        self.0.serialize_entry(name, value)
    }

    fn text(&mut self, name: &'static str, text: &str) -> Result<(), M::Error> {
        if text.is_empty() { Ok(()) } else { self.put(name, text) }
    }

    fn count(&mut self, name: &'static str, count: u32) -> Result<(), M::Error> {
        if count == 0 { Ok(()) } else { self.put(name, &count) }
    }

    fn choice(&mut self, name: &'static str, number: i32) -> Result<(), M::Error> {
        if number == 0 { Ok(()) } else { self.put(name, &number) }
    }

    fn list<'a, T, W: Serialize>(
        &mut self,
        name: &'static str,
        items: &'a [T],
        wrap: fn(&'a T) -> W,
    ) -> Result<(), M::Error> {
        if items.is_empty() { Ok(()) } else { self.put(name, &List(items, wrap)) }
    }

    fn end(self) -> Result<M::Ok, M::Error> {
        self.0.end()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;
    use prost::Message;
    use spoor_model::batch::SpanBatch;
    use spoor_model::ingest::Decode;
    use spoor_model::{SpanEntry, TraceId};

    use super::*;
    use crate::OtlpDecoder;
    use crate::decode::tests::a_request;
    use crate::json::to_protobuf;

    fn traces(protobuf: &[u8]) -> HashMap<TraceId, Trace> {
        let checked = OtlpDecoder.check(protobuf).unwrap();
        let mut batch = SpanBatch::new();
        OtlpDecoder.append(protobuf, &checked, &mut batch);
        let mut entries: HashMap<TraceId, Vec<SpanEntry>> = HashMap::new();
        for row in 0..batch.len() as u32 {
            let mut entry = batch.span(row);
            entry.span.attributes.sort_by_cached_key(|attribute| format!("{attribute:?}"));
            entries.entry(entry.span.trace_id).or_default().push(entry);
        }
        entries.into_iter().filter_map(|(id, entries)| Some((id, Trace::assemble(id, entries)?))).collect()
    }

    /// Without the bytes as sent: JSON writes what they mean, and what they mean is read back.
    fn meaning(trace: &Trace) -> Vec<String> {
        let show = |entry: &SpanEntry| {
            let origin = &entry.origin;
            let urls = (&origin.resource_schema_url, &origin.scope_schema_url);
            format!("{:?} {:?} {urls:?} {:?}", origin.resource, origin.scope, entry.span)
        };
        let mut all: Vec<String> = trace.entries.iter().map(show).collect();
        all.sort();
        all
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(request in a_request()) {
            for trace in traces(&request.encode_to_vec()).into_values() {
                let json = serde_json::to_vec(&TracesDataJson(&trace)).unwrap();
                let again = traces(&to_protobuf(&json).unwrap());
                prop_assert_eq!(meaning(&again[&trace.id]), meaning(&trace));
            }
        }

        /// OpenTelemetry's own types read it too, as far as they know numbers that are no numbers.
        #[test]
        fn opentelemetry_reads_it(request in a_request()) {
            for trace in traces(&request.encode_to_vec()).into_values() {
                let json = serde_json::to_string(&TracesDataJson(&trace)).unwrap();
                if ["NaN", "Infinity"].iter().any(|word| json.contains(word)) {
                    continue;
                }
                let data: opentelemetry_proto::tonic::trace::v1::TracesData = serde_json::from_str(&json).unwrap();
                let again = traces(&data.encode_to_vec());
                prop_assert_eq!(again[&trace.id].entries.len(), trace.entries.len());
            }
        }
    }
}
