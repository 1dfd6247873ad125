//! What a filter can name: attributes and built-in fields of a span, its resource, its scope, its events and links.

use std::sync::Arc;

use spoor_model::scan::field::{self, FieldValue};
use spoor_model::scan::{AttrScope, Field, Literal, Test};
use spoor_model::{Event, Link, SpanEntry, SpanId, Value};

use crate::proto::jaeger::expression::v1 as proto;

/// A span's lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum List {
    Events,
    Links,
}

/// The event and the link that `some` is about, where there is such a one.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Bound<'a> {
    pub(super) event: Option<&'a Event>,
    pub(super) link: Option<&'a Link>,
}

/// What values of a reference are, and so what they compare with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Domain {
    /// Whatever was stored.
    Any,
    Text,
    /// 32 hex digits.
    TraceId,
    /// Words for OTLP's numbers.
    Kind,
    /// Words for OTLP's numbers.
    Status,
    /// Nanoseconds.
    Duration,
    /// Nanoseconds since 1970.
    Instant,
}

/// One value, or one per event or link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reference {
    /// What sources know.
    Field(Field),
    /// What only whole spans tell.
    Told(Told),
}

/// Parts of spans that sources are not asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    TraceState,
    EndTime,
    ResourceSchemaUrl,
    ScopeSchemaUrl,
    EventTime,
    LinkTraceState,
}

impl Reference {
    /// Which list's items it is about.
    pub(super) fn list(&self) -> Option<List> {
        match self {
            Self::Field(field) if field.is_of_events() => Some(List::Events),
            Self::Field(field) if field.is_of_links() => Some(List::Links),
            Self::Told(Told::EventTime) => Some(List::Events),
            Self::Told(Told::LinkTraceState) => Some(List::Links),
            _ => None,
        }
    }

    /// Its values for a span; for a list of which one item is bound, that item's.
    pub(super) fn values(&self, entry: &SpanEntry, bound: Bound<'_>) -> FieldValue {
        let SpanEntry { origin, span } = entry;
        let text = |text: &str| FieldValue::One(Some(Value::Str(text.to_owned())));
        let instant = |nanos: u64| Some(Value::Int(i64::try_from(nanos).unwrap_or(i64::MAX)));
        match (self, self.list(), bound) {
            (Self::Field(of), Some(List::Events), Bound { event: Some(event), .. }) => {
                FieldValue::One(field::of_event(of, event, span))
            }
            (Self::Field(of), Some(List::Links), Bound { link: Some(link), .. }) => {
                FieldValue::One(field::of_link(of, link))
            }
            (Self::Field(of), ..) => field::of_span(of, entry),
            (Self::Told(Told::TraceState), ..) => text(&span.trace_state),
            (Self::Told(Told::EndTime), ..) => FieldValue::One(instant(span.end.0)),
            (Self::Told(Told::ResourceSchemaUrl), ..) => text(&origin.resource_schema_url),
            (Self::Told(Told::ScopeSchemaUrl), ..) => text(&origin.scope_schema_url),
            (Self::Told(Told::EventTime), _, Bound { event: Some(event), .. }) => {
                FieldValue::One(instant(event.time.0))
            }
            (Self::Told(Told::EventTime), ..) => {
                FieldValue::PerItem(span.events.iter().map(|event| instant(event.time.0)).collect())
            }
            (Self::Told(Told::LinkTraceState), _, Bound { link: Some(link), .. }) => text(&link.trace_state),
            (Self::Told(Told::LinkTraceState), ..) => {
                FieldValue::PerItem(span.links.iter().map(|link| Some(Value::Str(link.trace_state.clone()))).collect())
            }
        }
    }
}

/// What a reference of a filter stands for: an attribute without a level may be in two places.
#[derive(Debug, Clone)]
pub(super) struct Named {
    pub(super) references: Vec<Reference>,
    pub(super) domain: Domain,
    /// What holds for a value that is there; `None` when there always is one.
    pub(super) presence: Option<Test>,
    /// The service, of which spans without one have a name, too.
    pub(super) is_service: bool,
}

impl Named {
    pub(super) fn attribute(proto::Attribute { key, level }: &proto::Attribute) -> Result<Self, String> {
        if key.is_empty() {
            return Err("an attribute needs a key".to_owned());
        }
        let scopes: &[AttrScope] = match level.as_str() {
            "" => &[AttrScope::Span, AttrScope::Resource],
            "span" => &[AttrScope::Span],
            "resource" => &[AttrScope::Resource],
            "scope" => &[AttrScope::Instrumentation],
            "event" => &[AttrScope::Event],
            "link" => &[AttrScope::Link],
            other => return Err(unknown_level(other)),
        };
        let key: Arc<str> = key.as_str().into();
        let references = scopes.iter().map(|scope| Reference::Field(Field::Attribute(*scope, Arc::clone(&key))));
        let (references, domain) = (references.collect(), Domain::Any);
        Ok(Self { references, domain, presence: Some(Test::Exists), is_service: false })
    }

    pub(super) fn field(proto::Field { name, level }: &proto::Field) -> Result<Self, String> {
        let (reference, domain) = built_in(level, name)?;
        let other_than = |text: &str| Some(Test::Ne(Literal::Str(text.into())));
        let presence = match (&reference, domain) {
            (Reference::Field(Field::ParentSpanId), _) => other_than(&SpanId::default().to_string()),
            // Protobuf does not tell a text that is empty from one that was not sent.
            (_, Domain::Text) if !is_id(&reference) => other_than(""),
            (reference, _) if reference.list().is_some() => Some(Test::Exists),
            _ => None,
        };
        Ok(Self { references: vec![reference], domain, presence, is_service: false })
    }

    /// `resource.service`: what Jaeger shows as the span's service.
    pub(super) fn service() -> Self {
        let references = vec![service_attribute()];
        Self { references, domain: Domain::Text, presence: None, is_service: true }
    }
}

pub(super) fn service_attribute() -> Reference {
    Reference::Field(Field::Attribute(AttrScope::Resource, "service.name".into()))
}

fn is_id(reference: &Reference) -> bool {
    matches!(reference, Reference::Field(Field::SpanId | Field::LinkSpanId))
}

fn unknown_level(level: &str) -> String {
    format!("unknown level {level:?}: expected span, resource, scope, event or link")
}

fn built_in(level: &str, name: &str) -> Result<(Reference, Domain), String> {
    let field = |field, domain| Ok((Reference::Field(field), domain));
    let told = |told, domain| Ok((Reference::Told(told), domain));
    match (level, name) {
        ("span", "traceID") => field(Field::TraceId, Domain::TraceId),
        ("span", "spanID") => field(Field::SpanId, Domain::Text),
        ("span", "parentSpanID") => field(Field::ParentSpanId, Domain::Text),
        ("span", "traceState") => told(Told::TraceState, Domain::Text),
        ("span", "name") => field(Field::Name, Domain::Text),
        ("span", "kind") => field(Field::Kind, Domain::Kind),
        ("span", "startTime") => field(Field::StartTime, Domain::Instant),
        ("span", "endTime") => told(Told::EndTime, Domain::Instant),
        ("span", "duration") => field(Field::Duration, Domain::Duration),
        ("span", "status") => field(Field::Status, Domain::Status),
        ("span", "statusMessage") => field(Field::StatusMessage, Domain::Text),
        ("resource", "schemaURL") => told(Told::ResourceSchemaUrl, Domain::Text),
        ("scope", "name") => field(Field::InstrumentationName, Domain::Text),
        ("scope", "version") => field(Field::InstrumentationVersion, Domain::Text),
        ("scope", "schemaURL") => told(Told::ScopeSchemaUrl, Domain::Text),
        ("event", "name") => field(Field::EventName, Domain::Text),
        ("event", "time") => told(Told::EventTime, Domain::Instant),
        ("event", "timeSinceStart") => field(Field::EventTimeSinceStart, Domain::Duration),
        ("link", "traceID") => field(Field::LinkTraceId, Domain::TraceId),
        ("link", "spanID") => field(Field::LinkSpanId, Domain::Text),
        ("link", "traceState") => told(Told::LinkTraceState, Domain::Text),
        ("", _) => Err(format!("the field {name:?} needs a level")),
        ("span" | "resource" | "scope" | "event" | "link", _) => {
            Err(format!("there is no field {name:?} of level {level}"))
        }
        _ => Err(unknown_level(level)),
    }
}
