//! Few spans, written by hand in a test: a service, a name, a parent, some attributes.

use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, TracesData};
use prost::Message;
use spoor_model::nested::put_attributes;
use spoor_model::wire::put_text;
use spoor_model::{self as model, SpanId, TraceId, UnixNano};

/// Where spans come from, encoded and taken apart.
pub fn origin(
    resource: &[model::KeyValue],
    scope_name: &str,
    scope_version: &str,
    scope: &[model::KeyValue],
) -> model::Origin {
    let (mut resource_encoded, mut scope_encoded) = (Vec::new(), Vec::new());
    put_attributes(&mut resource_encoded, 1, resource);
    put_text(&mut scope_encoded, 1, scope_name.as_bytes());
    put_text(&mut scope_encoded, 2, scope_version.as_bytes());
    put_attributes(&mut scope_encoded, 3, scope);
    model::Origin::decode(resource_encoded.into(), scope_encoded.into(), "", "").expect("encoded above")
}

/// The span kinds by their OTLP numbers.
pub const SERVER: i32 = 2;
/// See [`SERVER`].
pub const CLIENT: i32 = 3;

/// A trace id that is easy to tell from others.
pub fn trace(number: u8) -> TraceId {
    TraceId([number; 16])
}

/// A span id that is easy to tell from others.
pub fn span_id(number: u8) -> SpanId {
    SpanId([number; 8])
}

/// A span: starts as a plain one and is changed field by field.
#[derive(Debug, Clone)]
pub struct SpanSpec {
    service: String,
    span: Span,
}

/// A span of one millisecond, without parent and attributes.
pub fn span(service: &str, name: &str, trace: TraceId, id: SpanId, start: UnixNano) -> SpanSpec {
    let span = Span {
        trace_id: trace.0.to_vec(),
        span_id: id.0.to_vec(),
        name: name.to_owned(),
        kind: 1,
        start_time_unix_nano: start.0,
        end_time_unix_nano: start.0 + 1_000_000,
        ..Span::default()
    };
    SpanSpec { service: service.to_owned(), span }
}

impl SpanSpec {
    /// Below that span.
    pub fn parent(mut self, id: SpanId) -> Self {
        self.span.parent_span_id = id.0.to_vec();
        self
    }

    /// Of that kind.
    pub fn kind(mut self, kind: i32) -> Self {
        self.span.kind = kind;
        self
    }

    /// That long.
    pub fn lasting_ms(mut self, milliseconds: u64) -> Self {
        self.span.end_time_unix_nano = self.span.start_time_unix_nano + milliseconds * 1_000_000;
        self
    }

    /// With that status.
    pub fn status(mut self, code: i32, message: &str) -> Self {
        self.span.status = Some(Status { code, message: message.to_owned() });
        self
    }

    /// With a text attribute.
    pub fn text(self, key: &str, value: &str) -> Self {
        self.attribute(key, Any::StringValue(value.to_owned()))
    }

    /// With an integer attribute.
    pub fn int(self, key: &str, value: i64) -> Self {
        self.attribute(key, Any::IntValue(value))
    }

    /// With any attribute.
    pub fn attribute(mut self, key: &str, value: Any) -> Self {
        self.span.attributes.push(attribute(key, value));
        self
    }

    /// Changed in any other way.
    pub fn with(mut self, change: impl FnOnce(&mut Span)) -> Self {
        change(&mut self.span);
        self
    }
}

fn attribute(key: &str, value: Any) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

/// The spans as one request, one `ResourceSpans` per run of equal services.
pub fn request(spans: impl IntoIterator<Item = SpanSpec>) -> TracesData {
    let mut resource_spans: Vec<ResourceSpans> = Vec::new();
    let mut last = None;
    for spec in spans {
        if last.as_ref() != Some(&spec.service) {
            let name = attribute("service.name", Any::StringValue(spec.service.clone()));
            let scope = InstrumentationScope { name: "by-hand".into(), version: "1".into(), ..Default::default() };
            resource_spans.push(ResourceSpans {
                resource: Some(Resource { attributes: vec![name], ..Resource::default() }),
                scope_spans: vec![ScopeSpans { scope: Some(scope), ..ScopeSpans::default() }],
                ..ResourceSpans::default()
            });
        }
        let current = resource_spans.last_mut().and_then(|one| one.scope_spans.last_mut()).expect("pushed above");
        current.spans.push(spec.span);
        last = Some(spec.service);
    }
    TracesData { resource_spans }
}

/// The same, encoded.
pub fn body(spans: impl IntoIterator<Item = SpanSpec>) -> Vec<u8> {
    request(spans).encode_to_vec()
}
