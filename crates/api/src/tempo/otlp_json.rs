//! Traces as Tempo's JSON: OTLP in the shape that Go's protobuf JSON has, not in OTLP/JSON's.
//!
//! Ids and bytes are base64 with padding, 64-bit integers are texts, enums are names, and scalars
//! that are zero are left out. The messages `resource`, `scope` and `status` are always there, even
//! empty: Grafana and Kiali read them without looking.
//!
//! Everything is written straight from the model's spans; nothing is built in between.

use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD;
use serde::ser::{Serialize, SerializeMap, Serializer};
use spoor_model::{Event, KeyValue, Link, Resource, Scope, Span, Status, Value};
use spoor_otlp::encode::{ResourceGroup, ScopeGroup};

/// One `ResourceSpans`.
pub(crate) struct ResourceSpansJson<'a>(pub(crate) &'a ResourceGroup<'a>);

impl Serialize for ResourceSpansJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = Fields::start(serializer)?;
        fields.put("resource", &ResourceJson(&self.0.origin.resource))?;
        fields.list("scopeSpans", &self.0.scopes, ScopeSpansJson)?;
        fields.text("schemaUrl", &self.0.origin.resource_schema_url)?;
        fields.end()
    }
}

struct ScopeSpansJson<'a>(&'a ScopeGroup<'a>);

impl Serialize for ScopeSpansJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = Fields::start(serializer)?;
        fields.put("scope", &ScopeJson(&self.0.origin.scope))?;
        fields.list("spans", &self.0.spans, |span| SpanJson(span))?;
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
        fields.put("traceId", &Base64(&span.trace_id.0))?;
        fields.put("spanId", &Base64(&span.span_id.0))?;
        fields.text("traceState", &span.trace_state)?;
        if !span.parent_span_id.is_zero() {
            fields.put("parentSpanId", &Base64(&span.parent_span_id.0))?;
        }
        fields.count("flags", span.flags)?;
        fields.text("name", &span.name)?;
        fields.choice("kind", span.kind, KIND_NAMES)?;
        fields.wide("startTimeUnixNano", span.start.0)?;
        fields.wide("endTimeUnixNano", span.end.0)?;
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

const KIND_NAMES: &[&str] = &[
    "SPAN_KIND_UNSPECIFIED",
    "SPAN_KIND_INTERNAL",
    "SPAN_KIND_SERVER",
    "SPAN_KIND_CLIENT",
    "SPAN_KIND_PRODUCER",
    "SPAN_KIND_CONSUMER",
];

const STATUS_NAMES: &[&str] = &["STATUS_CODE_UNSET", "STATUS_CODE_OK", "STATUS_CODE_ERROR"];

struct StatusJson<'a>(&'a Status);

impl Serialize for StatusJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = Fields::start(serializer)?;
        fields.text("message", &self.0.message)?;
        fields.choice("code", self.0.code, STATUS_NAMES)?;
        fields.end()
    }
}

struct EventJson<'a>(&'a Event);

impl Serialize for EventJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = Fields::start(serializer)?;
        fields.wide("timeUnixNano", self.0.time.0)?;
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
        fields.put("traceId", &Base64(&self.0.trace_id.0))?;
        fields.put("spanId", &Base64(&self.0.span_id.0))?;
        fields.text("traceState", &self.0.trace_state)?;
        fields.list("attributes", &self.0.attributes, AttributeJson)?;
        fields.count("droppedAttributesCount", self.0.dropped_attributes_count)?;
        fields.count("flags", self.0.flags)?;
        fields.end()
    }
}

/// One `KeyValue`.
pub(crate) struct AttributeJson<'a>(pub(crate) &'a KeyValue);

impl Serialize for AttributeJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = Fields::start(serializer)?;
        fields.text("key", &self.0.key)?;
        fields.put("value", &ValueJson(&self.0.value))?;
        fields.end()
    }
}

/// One `AnyValue`. The arm that is set is written even when it is zero.
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
            Value::Bytes(bytes) => fields.put("bytesValue", &Base64(bytes))?,
            Value::Array(values) => fields.put("arrayValue", &ArrayJson(values))?,
            Value::Map(entries) => fields.put("kvlistValue", &MapJson(entries))?,
        }
        fields.end()
    }
}

struct ArrayJson<'a>(&'a [Value]);

impl Serialize for ArrayJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = Fields::start(serializer)?;
        fields.list("values", self.0, ValueJson)?;
        fields.end()
    }
}

struct MapJson<'a>(&'a [KeyValue]);

impl Serialize for MapJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = Fields::start(serializer)?;
        fields.list("values", self.0, AttributeJson)?;
        fields.end()
    }
}

/// A float; what JSON has no number for is a text.
pub(crate) struct DoubleJson(pub(crate) f64);

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

struct Base64<'a>(&'a [u8]);

impl Serialize for Base64<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&Base64Display::new(self.0, &STANDARD))
    }
}

struct List<'a, T, W>(&'a [T], fn(&'a T) -> W);

impl<T, W: Serialize> Serialize for List<'_, T, W> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(self.1))
    }
}

/// Writes the fields of one message, leaving out what proto3's JSON leaves out.
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

    fn wide(&mut self, name: &'static str, number: u64) -> Result<(), M::Error> {
        if number == 0 { Ok(()) } else { self.put(name, &number.to_string()) }
    }

    /// An enum: its name, or its number when this version has no name for it.
    fn choice(&mut self, name: &'static str, number: i32, names: &[&str]) -> Result<(), M::Error> {
        if number == 0 {
            return Ok(());
        }
        match usize::try_from(number).ok().and_then(|index| names.get(index)) {
            Some(known) => self.put(name, known),
            None => self.put(name, &number),
        }
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
