//! What a field of a span is: the reference by which all sources are tested.

use super::{AttrScope, Field};
use crate::span::{Event, Link, Span, SpanEntry};
use crate::value::{self, Value};

/// The value of a field for one span.
#[derive(Debug, Clone, PartialEq)]
pub enum FieldValue {
    /// One value, or none.
    One(Option<Value>),
    /// One per event or per link of the span, in their order; `None` for those that lack it.
    PerItem(Vec<Option<Value>>),
}

impl FieldValue {
    /// The value, or that of the first event or link that has it.
    pub fn first(self) -> Option<Value> {
        match self {
            Self::One(value) => value,
            Self::PerItem(values) => values.into_iter().flatten().next(),
        }
    }
}

fn text(text: &str) -> Option<Value> {
    Some(Value::Str(text.to_owned()))
}

fn int(int: u64) -> Option<Value> {
    Some(Value::Int(i64::try_from(int).unwrap_or(i64::MAX)))
}

impl Field {
    /// Whether it is a field of events.
    pub fn is_of_events(&self) -> bool {
        matches!(self, Self::EventName | Self::EventTimeSinceStart | Self::Attribute(AttrScope::Event, _))
    }

    /// Whether it is a field of links.
    pub fn is_of_links(&self) -> bool {
        matches!(self, Self::LinkTraceId | Self::LinkSpanId | Self::Attribute(AttrScope::Link, _))
    }
}

/// The value of any field.
pub fn of_span(field: &Field, entry: &SpanEntry) -> FieldValue {
    let SpanEntry { origin, span } = entry;
    let one = match field {
        Field::Name => text(&span.name),
        Field::Kind => Some(Value::Int(i64::from(span.kind))),
        Field::Status => Some(Value::Int(i64::from(span.status.code))),
        Field::StatusMessage => text(&span.status.message),
        Field::TraceState => text(&span.trace_state),
        Field::Duration => int(span.duration_nano()),
        Field::StartTime => int(span.start.0),
        Field::TraceId => text(&span.trace_id.to_string()),
        Field::SpanId => text(&span.span_id.to_string()),
        Field::ParentSpanId => text(&span.parent_span_id.to_string()),
        Field::InstrumentationName => text(&origin.scope.name),
        Field::InstrumentationVersion => text(&origin.scope.version),
        Field::EventName | Field::EventTimeSinceStart => {
            return FieldValue::PerItem(span.events.iter().map(|event| of_event(field, event, span)).collect());
        }
        Field::LinkTraceId | Field::LinkSpanId => {
            return FieldValue::PerItem(span.links.iter().map(|link| of_link(field, link)).collect());
        }
        Field::Attribute(scope, key) => return attribute(*scope, key, field, entry),
    };
    FieldValue::One(one)
}

/// The value of a field of events for one of them; `None` for other fields.
pub fn of_event(field: &Field, event: &Event, span: &Span) -> Option<Value> {
    match field {
        Field::EventName => text(&event.name),
        Field::EventTimeSinceStart => int(event.time.0.saturating_sub(span.start.0)),
        Field::Attribute(AttrScope::Event, key) => value::find(&event.attributes, key).cloned(),
        _ => None,
    }
}

/// The value of a field of links for one of them; `None` for other fields.
pub fn of_link(field: &Field, link: &Link) -> Option<Value> {
    match field {
        Field::LinkTraceId => text(&link.trace_id.to_string()),
        Field::LinkSpanId => text(&link.span_id.to_string()),
        Field::Attribute(AttrScope::Link, key) => value::find(&link.attributes, key).cloned(),
        _ => None,
    }
}

fn attribute(scope: AttrScope, key: &str, field: &Field, entry: &SpanEntry) -> FieldValue {
    let SpanEntry { origin, span } = entry;
    let in_span = || value::find(&span.attributes, key);
    let in_resource = || value::find(&origin.resource.attributes, key);
    let in_instrumentation = || value::find(&origin.scope.attributes, key);
    let one = match scope {
        AttrScope::Span => in_span(),
        AttrScope::Resource => in_resource(),
        AttrScope::Instrumentation => in_instrumentation(),
        AttrScope::Event => {
            return FieldValue::PerItem(span.events.iter().map(|event| of_event(field, event, span)).collect());
        }
        AttrScope::Link => {
            return FieldValue::PerItem(span.links.iter().map(|link| of_link(field, link)).collect());
        }
        AttrScope::Any => {
            let in_events = || span.events.iter().map(|event| value::find(&event.attributes, key));
            let in_links = || span.links.iter().map(|link| value::find(&link.attributes, key));
            let owned = |values: Vec<Option<&Value>>| {
                FieldValue::PerItem(values.into_iter().filter(Option::is_some).map(Option::<&Value>::cloned).collect())
            };
            match in_span().or_else(in_resource) {
                Some(value) => Some(value),
                None if in_events().any(|value| value.is_some()) => return owned(in_events().collect()),
                None if in_links().any(|value| value.is_some()) => return owned(in_links().collect()),
                None => in_instrumentation(),
            }
        }
    };
    FieldValue::One(one.cloned())
}
