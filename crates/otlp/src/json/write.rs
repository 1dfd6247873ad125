//! Whole traces as JSON, in the two spellings that clients know.
//!
//! | | OTLP/JSON | Tempo's JSON (protobuf's, as Go writes it) |
//! |---|---|---|
//! | ids | hex | base64 |
//! | enums | numbers | names |
//! | times of zero, empty lists within values | written | left out |
//!
//! In both, 64-bit integers are texts, bytes base64 with padding, and other scalars that are zero are left out. The
//! messages `resource`, `scope` and `status` are always there, even empty: clients read them without looking.
//!
//! Everything is written straight from the model's spans; nothing is built in between.

use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD;
use serde::ser::{Serialize, SerializeMap, Serializer};
use spoor_model::{EntityRef, Event, KeyValue, Link, Resource, Scope, Span, Status, Trace, Value};

pub use super::schema::{SPAN_KINDS, STATUS_CODES};
use crate::encode::{ResourceGroup, ScopeGroup, groups};

/// How ids, enums and zeros are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spelling {
    /// As the Collector's file exporter and OTLP's own HTTP requests.
    Otlp,
    /// As Tempo's answers.
    Tempo,
}

/// A `TracesData`: `{"resourceSpans":[...]}`, as OTLP spells it.
pub struct TracesDataJson<'a>(pub &'a Trace);

impl Serialize for TracesDataJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let groups = groups(self.0);
        serializer.collect_map([("resourceSpans", ResourceSpansJson(&groups, Spelling::Otlp))])
    }
}

/// A list of `ResourceSpans`.
pub struct ResourceSpansJson<'a>(pub &'a [ResourceGroup<'a>], pub Spelling);

impl Serialize for ResourceSpansJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        List(self.0, self.1).serialize(serializer)
    }
}

/// One `KeyValue` as Tempo spells it.
pub struct AttributeJson<'a>(pub &'a KeyValue);

impl Serialize for AttributeJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Spelt(self.0, Spelling::Tempo).serialize(serializer)
    }
}

/// A float; what JSON has no number for is a text.
pub struct DoubleJson(pub f64);

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

/// A message in one of the spellings.
struct Spelt<'a, T>(&'a T, Spelling);

impl<T: Message> Serialize for Spelt<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = Fields { map: serializer.serialize_map(None)?, spelling: self.1 };
        self.0.put(&mut fields)?;
        fields.map.end()
    }
}

/// What has fields.
trait Message {
    fn put<M: SerializeMap>(&self, fields: &mut Fields<M>) -> Result<(), M::Error>;
}

impl<T: Message> Message for &T {
    fn put<M: SerializeMap>(&self, fields: &mut Fields<M>) -> Result<(), M::Error> {
        (**self).put(fields)
    }
}

impl Message for ResourceGroup<'_> {
    fn put<M: SerializeMap>(&self, fields: &mut Fields<M>) -> Result<(), M::Error> {
        fields.message("resource", &self.origin.resource)?;
        fields.list("scopeSpans", &self.scopes)?;
        fields.text("schemaUrl", &self.origin.resource_schema_url)
    }
}

impl Message for ScopeGroup<'_> {
    fn put<M: SerializeMap>(&self, fields: &mut Fields<M>) -> Result<(), M::Error> {
        fields.message("scope", &self.origin.scope)?;
        fields.list("spans", &self.spans)?;
        fields.text("schemaUrl", &self.origin.scope_schema_url)
    }
}

impl Message for Resource {
    fn put<M: SerializeMap>(&self, fields: &mut Fields<M>) -> Result<(), M::Error> {
        fields.list("attributes", &self.attributes)?;
        fields.count("droppedAttributesCount", self.dropped_attributes_count)?;
        fields.list("entityRefs", &self.entity_refs)
    }
}

/// OpenTelemetry's own types miss what is left out here.
impl Message for EntityRef {
    fn put<M: SerializeMap>(&self, fields: &mut Fields<M>) -> Result<(), M::Error> {
        fields.put("schemaUrl", &self.schema_url)?;
        fields.put("type", &self.kind)?;
        fields.put("idKeys", &self.id_keys)?;
        fields.put("descriptionKeys", &self.description_keys)
    }
}

impl Message for Scope {
    fn put<M: SerializeMap>(&self, fields: &mut Fields<M>) -> Result<(), M::Error> {
        fields.text("name", &self.name)?;
        fields.text("version", &self.version)?;
        fields.list("attributes", &self.attributes)?;
        fields.count("droppedAttributesCount", self.dropped_attributes_count)
    }
}

impl Message for Span {
    fn put<M: SerializeMap>(&self, fields: &mut Fields<M>) -> Result<(), M::Error> {
        let span = self;
        fields.id("traceId", &span.trace_id.0)?;
        fields.id("spanId", &span.span_id.0)?;
        fields.text("traceState", &span.trace_state)?;
        if !span.parent_span_id.is_zero() {
            fields.id("parentSpanId", &span.parent_span_id.0)?;
        }
        fields.count("flags", span.flags)?;
        fields.text("name", &span.name)?;
        fields.choice("kind", span.kind, SPAN_KINDS)?;
        fields.time("startTimeUnixNano", span.start.0)?;
        fields.time("endTimeUnixNano", span.end.0)?;
        fields.list("attributes", &span.attributes)?;
        fields.count("droppedAttributesCount", span.dropped_attributes_count)?;
        fields.list("events", &span.events)?;
        fields.count("droppedEventsCount", span.dropped_events_count)?;
        fields.list("links", &span.links)?;
        fields.count("droppedLinksCount", span.dropped_links_count)?;
        fields.message("status", &span.status)
    }
}

impl Message for Status {
    fn put<M: SerializeMap>(&self, fields: &mut Fields<M>) -> Result<(), M::Error> {
        fields.text("message", &self.message)?;
        fields.choice("code", self.code, STATUS_CODES)
    }
}

impl Message for Event {
    fn put<M: SerializeMap>(&self, fields: &mut Fields<M>) -> Result<(), M::Error> {
        fields.time("timeUnixNano", self.time.0)?;
        fields.text("name", &self.name)?;
        fields.list("attributes", &self.attributes)?;
        fields.count("droppedAttributesCount", self.dropped_attributes_count)
    }
}

impl Message for Link {
    fn put<M: SerializeMap>(&self, fields: &mut Fields<M>) -> Result<(), M::Error> {
        fields.id("traceId", &self.trace_id.0)?;
        fields.id("spanId", &self.span_id.0)?;
        fields.text("traceState", &self.trace_state)?;
        fields.list("attributes", &self.attributes)?;
        fields.count("droppedAttributesCount", self.dropped_attributes_count)?;
        fields.count("flags", self.flags)
    }
}

impl Message for KeyValue {
    fn put<M: SerializeMap>(&self, fields: &mut Fields<M>) -> Result<(), M::Error> {
        match fields.spelling {
            // A key is there even when it is empty, but to Go an empty text is none.
            Spelling::Otlp => fields.put("key", &self.key)?,
            Spelling::Tempo => fields.text("key", &self.key)?,
        }
        fields.message("value", &self.value)
    }
}

/// The arm that is set is written even when it is zero.
impl Message for Value {
    fn put<M: SerializeMap>(&self, fields: &mut Fields<M>) -> Result<(), M::Error> {
        match self {
            Value::Empty => {}
            Value::Str(text) => fields.put("stringValue", text)?,
            Value::Bool(flag) => fields.put("boolValue", flag)?,
            Value::Int(int) => fields.put("intValue", &int.to_string())?,
            Value::Double(double) => fields.put("doubleValue", &DoubleJson(*double))?,
            Value::Bytes(bytes) => fields.put("bytesValue", &Base64(bytes))?,
            Value::Array(values) => fields.message("arrayValue", &Values(values))?,
            Value::Map(entries) => fields.message("kvlistValue", &Values(entries))?,
        }
        Ok(())
    }
}

/// `ArrayValue` and `KeyValueList`: an object with one list.
struct Values<'a, T>(&'a [T]);

impl<T: Message> Message for Values<'_, T> {
    fn put<M: SerializeMap>(&self, fields: &mut Fields<M>) -> Result<(), M::Error> {
        match fields.spelling {
            Spelling::Otlp => fields.put("values", &List(self.0, Spelling::Otlp)),
            Spelling::Tempo => fields.list("values", self.0),
        }
    }
}

struct Base64<'a>(&'a [u8]);

impl Serialize for Base64<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&Base64Display::new(self.0, &STANDARD))
    }
}

struct Hex<'a>(&'a [u8]);

impl std::fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Serialize for Hex<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

struct List<'a, T>(&'a [T], Spelling);

impl<T: Message> Serialize for List<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|item| Spelt(item, self.1)))
    }
}

/// Writes the fields of one message, leaving out what its spelling leaves out.
struct Fields<M> {
    map: M,
    spelling: Spelling,
}

impl<M: SerializeMap> Fields<M> {
    fn put<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), M::Error> {
        self.map.serialize_entry(name, value)
    }

    fn message<T: Message>(&mut self, name: &'static str, message: &T) -> Result<(), M::Error> {
        self.map.serialize_entry(name, &Spelt(message, self.spelling))
    }

    fn id(&mut self, name: &'static str, id: &[u8]) -> Result<(), M::Error> {
        match self.spelling {
            Spelling::Otlp => self.put(name, &Hex(id)),
            Spelling::Tempo => self.put(name, &Base64(id)),
        }
    }

    fn text(&mut self, name: &'static str, text: &str) -> Result<(), M::Error> {
        if text.is_empty() { Ok(()) } else { self.put(name, text) }
    }

    fn count(&mut self, name: &'static str, count: u32) -> Result<(), M::Error> {
        if count == 0 { Ok(()) } else { self.put(name, &count) }
    }

    fn time(&mut self, name: &'static str, nanos: u64) -> Result<(), M::Error> {
        match (self.spelling, nanos) {
            (Spelling::Tempo, 0) => Ok(()),
            (_, nanos) => self.put(name, &nanos.to_string()),
        }
    }

    /// An enum. A number that has no name yet is written as it is.
    fn choice(&mut self, name: &'static str, number: i32, names: &[&str]) -> Result<(), M::Error> {
        let known = usize::try_from(number).ok().and_then(|index| names.get(index));
        match (self.spelling, known) {
            _ if number == 0 => Ok(()),
            (Spelling::Tempo, Some(known)) => self.put(name, known),
            (_, _) => self.put(name, &number),
        }
    }

    fn list<T: Message>(&mut self, name: &'static str, items: &[T]) -> Result<(), M::Error> {
        if items.is_empty() { Ok(()) } else { self.put(name, &List(items, self.spelling)) }
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

    /// What resources and scopes are told apart by. Of what is no number JSON knows one only.
    fn identities(trace: &Trace) -> Vec<(Vec<u8>, Vec<u8>)> {
        let identity =
            |entry: &SpanEntry| (entry.origin.resource_encoded.to_vec(), entry.origin.scope_encoded.to_vec());
        let mut all: Vec<_> = trace.entries.iter().map(identity).collect();
        all.sort();
        all
    }

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
                if !String::from_utf8_lossy(&json).contains("NaN") {
                    prop_assert_eq!(identities(&again[&trace.id]), identities(&trace));
                }
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
