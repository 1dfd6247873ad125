//! A trace in the form that language models are given (`application/vnd.grafana.llm`): one object per service, ids in hex,
//! attributes as plain maps. It has what a person would read, in a third of the bytes of OTLP's JSON.
//!
//! Integers of 64 bits are texts, as everywhere in Tempo's JSON; bytes are base64.

use serde::ser::{Serialize, SerializeMap, Serializer};
use spoor_model::{Event, KeyValue, Link, Span, Trace};
use spoor_otlp::encode::{self, ResourceGroup, ScopeGroup};
use spoor_otlp::json::write::{SPAN_KINDS, STATUS_CODES};

use crate::value_text::Plain;

/// The trace.
pub(super) struct LlmTrace<'a>(pub(super) &'a Trace);

impl Serialize for LlmTrace<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let groups = encode::groups(self.0);
        let services: Vec<Service<'_>> = groups.iter().map(Service).collect();
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("traceId", &self.0.id.to_string())?;
        map.serialize_entry("services", &services)?;
        map.end()
    }
}

struct Service<'a>(&'a ResourceGroup<'a>);

impl Serialize for Service<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let scopes: Vec<ScopeOf<'_>> = self.0.scopes.iter().map(ScopeOf).collect();
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("serviceName", self.0.origin.service_name().unwrap_or_default())?;
        map.serialize_entry("resource", &Flat(&self.0.origin.resource.attributes))?;
        map.serialize_entry("scopes", &scopes)?;
        map.end()
    }
}

struct ScopeOf<'a>(&'a ScopeGroup<'a>);

impl Serialize for ScopeOf<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let spans: Vec<SpanOf<'_>> = self.0.spans.iter().map(|span| SpanOf(span)).collect();
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("name", &self.0.origin.scope.name)?;
        map.serialize_entry("version", &self.0.origin.scope.version)?;
        map.serialize_entry("spans", &spans)?;
        map.end()
    }
}

fn named(number: i32, names: &[&'static str]) -> &'static str {
    usize::try_from(number).ok().and_then(|index| names.get(index)).copied().unwrap_or(names[0])
}

struct SpanOf<'a>(&'a Span);

impl Serialize for SpanOf<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let span = self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("spanId", &span.span_id.to_string())?;
        map.serialize_entry("name", &span.name)?;
        if !span.parent_span_id.is_zero() {
            map.serialize_entry("parentSpanId", &span.parent_span_id.to_string())?;
        }
        map.serialize_entry("kind", named(span.kind, SPAN_KINDS))?;
        map.serialize_entry("startTimeUnixNano", &span.start.0.to_string())?;
        map.serialize_entry("endTimeUnixNano", &span.end.0.to_string())?;
        map.serialize_entry("durationMs", &(span.duration_nano() as f64 / 1e6))?;
        map.serialize_entry("attributes", &Flat(&span.attributes))?;
        if !span.events.is_empty() {
            map.serialize_entry("events", &span.events.iter().map(EventOf).collect::<Vec<_>>())?;
        }
        if !span.links.is_empty() {
            map.serialize_entry("links", &span.links.iter().map(LinkOf).collect::<Vec<_>>())?;
        }
        let status = serde_json::json!({"code": named(span.status.code, STATUS_CODES), "message": span.status.message});
        map.serialize_entry("status", &status)?;
        map.end()
    }
}

struct EventOf<'a>(&'a Event);

impl Serialize for EventOf<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("name", &self.0.name)?;
        map.serialize_entry("timeUnixNano", &self.0.time.0.to_string())?;
        map.serialize_entry("attributes", &Flat(&self.0.attributes))?;
        map.end()
    }
}

struct LinkOf<'a>(&'a Link);

impl Serialize for LinkOf<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("traceId", &self.0.trace_id.to_string())?;
        map.serialize_entry("spanId", &self.0.span_id.to_string())?;
        map.serialize_entry("attributes", &Flat(&self.0.attributes))?;
        map.end()
    }
}

/// Attributes as one map.
struct Flat<'a>(&'a [KeyValue]);

impl Serialize for Flat<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|attribute| (&attribute.key, Plain(&attribute.value))))
    }
}
