//! A span, its origin, and a trace, taken apart for an answer.
//!
//! These are the forms in which few spans are handed to a person or a client. Many spans travel as
//! [`crate::batch::SpanBatch`] or Arrow batches instead.

use std::sync::Arc;

use bytes::Bytes;

use crate::nested;
use crate::value::{self, KeyValue, Value};
use crate::wire::{self, WireError};
use crate::{SpanId, TimeRange, TraceId, UnixNano};

/// What produced the spans: a process, a pod, a browser.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resource {
    /// In the order sent.
    pub attributes: Vec<KeyValue>,
    /// How many the sender left out.
    pub dropped_attributes_count: u32,
    /// The entities that it describes, by the names of its attributes.
    pub entity_refs: Vec<EntityRef>,
}

/// What a resource describes: a service, a host, a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EntityRef {
    /// Of the entity's own conventions, may be empty.
    pub schema_url: String,
    /// What it is, as in `service`.
    pub kind: String,
    /// Attributes of the resource that tell it from others of its kind.
    pub id_keys: Vec<String>,
    /// Attributes of the resource that describe it.
    pub description_keys: Vec<String>,
}

/// The instrumentation scope: the library that recorded the spans.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Library name, may be empty.
    pub name: String,
    /// Library version, may be empty.
    pub version: String,
    /// In the order sent.
    pub attributes: Vec<KeyValue>,
    /// How many the sender left out.
    pub dropped_attributes_count: u32,
}

/// A (resource, scope) pair with its schema URLs: where spans come from. A head or block holds each
/// distinct origin once; spans refer to it by number.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// The OTLP `Resource` message in its one encoding ([`crate::canonical`]; fields unknown here survive in it). Blocks of
    /// older versions have it as it was sent.
    pub resource_encoded: Bytes,
    /// The OTLP `InstrumentationScope` message, likewise.
    pub scope_encoded: Bytes,
    /// Schema URL of the `ResourceSpans`.
    pub resource_schema_url: String,
    /// Schema URL of the `ScopeSpans`.
    pub scope_schema_url: String,
    /// `resource_encoded`, taken apart.
    pub resource: Resource,
    /// `scope_encoded`, taken apart.
    pub scope: Scope,
}

impl Origin {
    /// Takes the encoded messages apart; errors when they are not what they should be.
    pub fn decode(
        resource_encoded: Bytes,
        scope_encoded: Bytes,
        resource_schema_url: &str,
        scope_schema_url: &str,
    ) -> Result<Self, WireError> {
        Ok(Self {
            resource: nested::decode_resource(&resource_encoded)?,
            scope: nested::decode_scope(&scope_encoded)?,
            resource_encoded,
            scope_encoded,
            resource_schema_url: resource_schema_url.to_owned(),
            scope_schema_url: scope_schema_url.to_owned(),
        })
    }

    /// The resource's `service.name`, when it has one that is text.
    pub fn service_name(&self) -> Option<&str> {
        value::find(&self.resource.attributes, "service.name").and_then(Value::as_str)
    }
}

impl PartialEq for Origin {
    fn eq(&self, other: &Self) -> bool {
        self.resource_encoded == other.resource_encoded
            && self.scope_encoded == other.scope_encoded
            && self.resource_schema_url == other.resource_schema_url
            && self.scope_schema_url == other.scope_schema_url
    }
}

impl Eq for Origin {}

/// Something that happened during a span.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// When.
    pub time: UnixNano,
    /// What.
    pub name: String,
    /// In the order sent.
    pub attributes: Vec<KeyValue>,
    /// How many the sender left out.
    pub dropped_attributes_count: u32,
}

/// A pointer from a span to another, in this trace or elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// The other span's trace.
    pub trace_id: TraceId,
    /// The other span.
    pub span_id: SpanId,
    /// W3C trace state of the other span.
    pub trace_state: String,
    /// In the order sent.
    pub attributes: Vec<KeyValue>,
    /// How many the sender left out.
    pub dropped_attributes_count: u32,
    /// W3C trace flags and OTLP's remote bits.
    pub flags: u32,
}

/// How a span ended. Code 0 is unset, 1 ok, 2 error; others survive as sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// OTLP's `StatusCode`.
    pub code: i32,
    /// Developer-facing text, usually empty.
    pub message: String,
}

/// OTLP's `StatusCode` for a failed span.
pub const STATUS_ERROR: i32 = 2;
/// OTLP's `StatusCode` for a span declared good.
pub const STATUS_OK: i32 = 1;

/// One span, whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Never all zero.
    pub trace_id: TraceId,
    /// Never all zero; need not be unique in its trace.
    pub span_id: SpanId,
    /// All zero when the span is a root.
    pub parent_span_id: SpanId,
    /// W3C trace state, usually empty.
    pub trace_state: String,
    /// W3C trace flags and OTLP's remote bits.
    pub flags: u32,
    /// The operation.
    pub name: String,
    /// OTLP's `SpanKind`: 0 unspecified, 1 internal, 2 server, 3 client, 4 producer, 5 consumer.
    pub kind: i32,
    /// Start.
    pub start: UnixNano,
    /// End, not before `start`.
    pub end: UnixNano,
    /// Order may differ from the one sent; keys may repeat.
    pub attributes: Vec<KeyValue>,
    /// How many the sender left out.
    pub dropped_attributes_count: u32,
    /// In the order sent.
    pub events: Vec<Event>,
    /// How many the sender left out.
    pub dropped_events_count: u32,
    /// In the order sent.
    pub links: Vec<Link>,
    /// How many the sender left out.
    pub dropped_links_count: u32,
    /// How it ended.
    pub status: Status,
}

impl Span {
    /// End minus start, in nanoseconds.
    pub fn duration_nano(&self) -> u64 {
        self.end.0.saturating_sub(self.start.0)
    }

    /// Bytes that are equal exactly when two spans have equal content, whatever the order of their
    /// attributes. Not a storage format.
    fn fingerprint(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        for id in [
            &self.trace_id.0[..],
            &self.span_id.0,
            &self.parent_span_id.0,
            self.trace_state.as_bytes(),
            self.name.as_bytes(),
            self.status.message.as_bytes(),
        ] {
            nested::put_list_item(&mut out, id);
        }
        for number in [
            u64::from(self.flags),
            self.kind as u64,
            self.start.0,
            self.end.0,
            u64::from(self.dropped_attributes_count),
            u64::from(self.dropped_events_count),
            u64::from(self.dropped_links_count),
            self.status.code as u64,
        ] {
            wire::put_varint(&mut out, number);
        }
        let encode = |attribute: &KeyValue| {
            let mut bytes = Vec::new();
            nested::put_key_value(&mut bytes, attribute);
            bytes
        };
        let mut attributes: Vec<_> = self.attributes.iter().map(encode).collect();
        attributes.sort_unstable();
        wire::put_varint(&mut out, attributes.len() as u64);
        attributes.iter().for_each(|bytes| nested::put_list_item(&mut out, bytes));
        wire::put_varint(&mut out, self.events.len() as u64);
        self.events.iter().for_each(|event| nested::put_message(&mut out, 1, |out| nested::put_event(out, event)));
        self.links.iter().for_each(|link| nested::put_message(&mut out, 2, |out| nested::put_link(out, link)));
        out
    }
}

/// A span and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpanEntry {
    /// Shared by the spans of one (resource, scope).
    pub origin: Arc<Origin>,
    /// The span.
    pub span: Span,
}

/// All spans of one trace, each exact copy once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// The id that all spans share.
    pub id: TraceId,
    /// Sorted by start, then span id, then kind, then content; never empty.
    pub entries: Vec<SpanEntry>,
}

impl Trace {
    /// Assembles what heads and blocks hold of a trace: exact copies (retried exports) fall away,
    /// spans that share an id but differ are all kept. `None` when there are no spans.
    ///
    /// Attributes of spans come out by their keys: heads and blocks have orders of their own, and an answer must not change
    /// when a head becomes a block. Those of one key stay as they were: queries look at the first.
    pub fn assemble(id: TraceId, mut entries: Vec<SpanEntry>) -> Option<Self> {
        assert!(entries.iter().all(|entry| entry.span.trace_id == id), "a span of another trace");
        if entries.is_empty() {
            return None;
        }
        let place = |entry: &SpanEntry| (entry.span.start, entry.span.span_id);
        entries.sort_by_key(place);
        let mut kept: Vec<SpanEntry> = Vec::with_capacity(entries.len());
        for mut entry in entries {
            entry.span.attributes.sort_by(|a, b| a.key.cmp(&b.key));
            // Only spans at the same place can be copies, and these lie at the end.
            let twins_from = kept.iter().rposition(|other| place(other) != place(&entry)).map_or(0, |last| last + 1);
            let is_copy = kept[twins_from..]
                .iter()
                .any(|other| other.origin == entry.origin && other.span.fingerprint() == entry.span.fingerprint());
            if !is_copy {
                kept.push(entry);
            }
        }
        // What differs in neither start nor id stands in one order, wherever its spans were read from.
        for twins in kept.chunk_by_mut(|a, b| place(a) == place(b)).filter(|twins| twins.len() > 1) {
            let origin = |origin: &Origin| {
                let schema_urls = [origin.resource_schema_url.clone(), origin.scope_schema_url.clone()];
                (origin.resource_encoded.clone(), origin.scope_encoded.clone(), schema_urls)
            };
            twins.sort_by_cached_key(|entry| (entry.span.kind, entry.span.fingerprint(), origin(&entry.origin)));
        }
        Some(Self { id, entries: kept })
    }

    /// Puts attributes that repeat a key in the order of their types, for answers: which comes first differs between heads
    /// and blocks. What queries look at is the first as it was.
    pub fn order_repeated_keys(&mut self) {
        for entry in &mut self.entries {
            entry.span.attributes.sort_by(|a, b| (&a.key, type_place(&a.value)).cmp(&(&b.key, type_place(&b.value))));
        }
    }

    /// Earliest start and latest end.
    pub fn range(&self) -> TimeRange {
        let start = self.entries.iter().map(|entry| entry.span.start).min().expect("a trace has spans");
        let end = self.entries.iter().map(|entry| entry.span.end).max().expect("a trace has spans");
        TimeRange { start, end }
    }
}

/// Text, numbers, truth values, then the others, which are stored as one type.
fn type_place(value: &Value) -> u8 {
    match value {
        Value::Str(_) => 0,
        Value::Int(_) => 1,
        Value::Double(_) => 2,
        Value::Bool(_) => 3,
        _ => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(span_id: u8, attributes: Vec<KeyValue>) -> SpanEntry {
        let span = Span { trace_id: TraceId([1; 16]), span_id: SpanId([span_id; 8]), attributes, ..Span::default() };
        SpanEntry { origin: Arc::new(Origin::default()), span }
    }

    #[test]
    fn exact_copies_fall_away_and_differing_twins_stay() {
        let a = || KeyValue::new("a", Value::Int(1));
        let b = || KeyValue::new("b", Value::Double(f64::NAN));
        let entries = vec![entry(1, vec![a(), b()]), entry(1, vec![b(), a()]), entry(1, vec![a()]), entry(2, vec![])];
        let trace = Trace::assemble(TraceId([1; 16]), entries).expect("has spans");
        assert_eq!(trace.entries.len(), 3);
    }

    #[test]
    fn attributes_come_by_key_and_then_as_they_were() {
        let attribute = |key: &str, number| KeyValue::new(key, Value::Int(number));
        let text = || KeyValue::new("b", Value::Str("x".into()));
        let sent = vec![attribute("b", 2), attribute("c", 1), text(), attribute("b", 1), attribute("a", 3)];
        let mut trace = Trace::assemble(TraceId([1; 16]), vec![entry(1, sent)]).expect("has spans");
        let want = vec![attribute("a", 3), attribute("b", 2), text(), attribute("b", 1), attribute("c", 1)];
        assert_eq!(trace.entries[0].span.attributes, want);
        trace.order_repeated_keys();
        let want = vec![attribute("a", 3), text(), attribute("b", 2), attribute("b", 1), attribute("c", 1)];
        assert_eq!(trace.entries[0].span.attributes, want);
    }

    #[test]
    fn a_copy_under_another_resource_is_another_span() {
        let mut twin = entry(1, vec![]);
        twin.origin = Arc::new(Origin { resource_schema_url: "x".into(), ..Origin::default() });
        let trace = Trace::assemble(TraceId([1; 16]), vec![entry(1, vec![]), twin]).expect("has spans");
        assert_eq!(trace.entries.len(), 2);
    }
}
