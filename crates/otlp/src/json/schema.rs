//! The messages of an OTLP trace request, as tables: field number, names, kind.
//!
//! From `opentelemetry/proto/{trace,resource,common}/v1/*.proto`, v1.9. What those files mark as
//! "profiles only" (`*_strindex`) is absent: it has no meaning in a trace request.

/// How a field is written, in JSON and in protobuf.
pub(super) enum Kind {
    /// Text.
    Text,
    /// Hex in JSON, bytes in protobuf.
    Id,
    /// Base64 in JSON, bytes in protobuf.
    Base64,
    /// `true` or `false`.
    Bool,
    /// A varint of 32 bits without sign.
    Uint32,
    /// A varint of 64 bits with sign.
    Int64,
    /// Four bytes.
    Fixed32,
    /// Eight bytes.
    Fixed64,
    /// Eight bytes, IEEE 754.
    Double,
    /// A number or one of these names; the name's place is its number.
    Enum(&'static [&'static str]),
    /// A message.
    Message(&'static Message),
    /// A list of text.
    Texts,
    /// A list of messages.
    Messages(&'static Message),
}

/// One field of a message.
pub(super) struct Field {
    pub(super) number: u32,
    /// As in the `.proto` file.
    pub(super) proto_name: &'static str,
    /// lowerCamelCase, as the OTLP specification wants it.
    pub(super) json_name: &'static str,
    pub(super) kind: Kind,
}

/// One message.
pub(super) struct Message {
    pub(super) name: &'static str,
    /// Whether the fields are arms of a `oneof`: then the arm sent is written even when it is zero.
    pub(super) is_oneof: bool,
    pub(super) fields: &'static [Field],
}

impl Message {
    /// The field that JSON calls `name`.
    pub(super) fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.json_name == name || field.proto_name == name)
    }
}

const fn field(number: u32, proto_name: &'static str, json_name: &'static str, kind: Kind) -> Field {
    Field { number, proto_name, json_name, kind }
}

/// Names of kinds, by number.
pub const SPAN_KINDS: &[&str] = &[
    "SPAN_KIND_UNSPECIFIED",
    "SPAN_KIND_INTERNAL",
    "SPAN_KIND_SERVER",
    "SPAN_KIND_CLIENT",
    "SPAN_KIND_PRODUCER",
    "SPAN_KIND_CONSUMER",
];

/// Names of status codes, by number.
pub const STATUS_CODES: &[&str] = &["STATUS_CODE_UNSET", "STATUS_CODE_OK", "STATUS_CODE_ERROR"];

/// `ExportTraceServiceRequest`, which has the same bytes as `TracesData`.
pub(super) static REQUEST: Message = Message {
    name: "ExportTraceServiceRequest",
    is_oneof: false,
    fields: &[field(1, "resource_spans", "resourceSpans", Kind::Messages(&RESOURCE_SPANS))],
};

static RESOURCE_SPANS: Message = Message {
    name: "ResourceSpans",
    is_oneof: false,
    fields: &[
        field(1, "resource", "resource", Kind::Message(&RESOURCE)),
        field(2, "scope_spans", "scopeSpans", Kind::Messages(&SCOPE_SPANS)),
        field(3, "schema_url", "schemaUrl", Kind::Text),
    ],
};

static RESOURCE: Message = Message {
    name: "Resource",
    is_oneof: false,
    fields: &[
        field(1, "attributes", "attributes", Kind::Messages(&KEY_VALUE)),
        field(2, "dropped_attributes_count", "droppedAttributesCount", Kind::Uint32),
        field(3, "entity_refs", "entityRefs", Kind::Messages(&ENTITY_REF)),
    ],
};

static ENTITY_REF: Message = Message {
    name: "EntityRef",
    is_oneof: false,
    fields: &[
        field(1, "schema_url", "schemaUrl", Kind::Text),
        field(2, "type", "type", Kind::Text),
        field(3, "id_keys", "idKeys", Kind::Texts),
        field(4, "description_keys", "descriptionKeys", Kind::Texts),
    ],
};

static SCOPE_SPANS: Message = Message {
    name: "ScopeSpans",
    is_oneof: false,
    fields: &[
        field(1, "scope", "scope", Kind::Message(&SCOPE)),
        field(2, "spans", "spans", Kind::Messages(&SPAN)),
        field(3, "schema_url", "schemaUrl", Kind::Text),
    ],
};

static SCOPE: Message = Message {
    name: "InstrumentationScope",
    is_oneof: false,
    fields: &[
        field(1, "name", "name", Kind::Text),
        field(2, "version", "version", Kind::Text),
        field(3, "attributes", "attributes", Kind::Messages(&KEY_VALUE)),
        field(4, "dropped_attributes_count", "droppedAttributesCount", Kind::Uint32),
    ],
};

static SPAN: Message = Message {
    name: "Span",
    is_oneof: false,
    fields: &[
        field(1, "trace_id", "traceId", Kind::Id),
        field(2, "span_id", "spanId", Kind::Id),
        field(3, "trace_state", "traceState", Kind::Text),
        field(4, "parent_span_id", "parentSpanId", Kind::Id),
        field(5, "name", "name", Kind::Text),
        field(6, "kind", "kind", Kind::Enum(SPAN_KINDS)),
        field(7, "start_time_unix_nano", "startTimeUnixNano", Kind::Fixed64),
        field(8, "end_time_unix_nano", "endTimeUnixNano", Kind::Fixed64),
        field(9, "attributes", "attributes", Kind::Messages(&KEY_VALUE)),
        field(10, "dropped_attributes_count", "droppedAttributesCount", Kind::Uint32),
        field(11, "events", "events", Kind::Messages(&EVENT)),
        field(12, "dropped_events_count", "droppedEventsCount", Kind::Uint32),
        field(13, "links", "links", Kind::Messages(&LINK)),
        field(14, "dropped_links_count", "droppedLinksCount", Kind::Uint32),
        field(15, "status", "status", Kind::Message(&STATUS)),
        field(16, "flags", "flags", Kind::Fixed32),
    ],
};

static EVENT: Message = Message {
    name: "Event",
    is_oneof: false,
    fields: &[
        field(1, "time_unix_nano", "timeUnixNano", Kind::Fixed64),
        field(2, "name", "name", Kind::Text),
        field(3, "attributes", "attributes", Kind::Messages(&KEY_VALUE)),
        field(4, "dropped_attributes_count", "droppedAttributesCount", Kind::Uint32),
    ],
};

static LINK: Message = Message {
    name: "Link",
    is_oneof: false,
    fields: &[
        field(1, "trace_id", "traceId", Kind::Id),
        field(2, "span_id", "spanId", Kind::Id),
        field(3, "trace_state", "traceState", Kind::Text),
        field(4, "attributes", "attributes", Kind::Messages(&KEY_VALUE)),
        field(5, "dropped_attributes_count", "droppedAttributesCount", Kind::Uint32),
        field(6, "flags", "flags", Kind::Fixed32),
    ],
};

static STATUS: Message = Message {
    name: "Status",
    is_oneof: false,
    fields: &[field(2, "message", "message", Kind::Text), field(3, "code", "code", Kind::Enum(STATUS_CODES))],
};

static KEY_VALUE: Message = Message {
    name: "KeyValue",
    is_oneof: false,
    fields: &[field(1, "key", "key", Kind::Text), field(2, "value", "value", Kind::Message(&ANY_VALUE))],
};

static ANY_VALUE: Message = Message {
    name: "AnyValue",
    is_oneof: true,
    fields: &[
        field(1, "string_value", "stringValue", Kind::Text),
        field(2, "bool_value", "boolValue", Kind::Bool),
        field(3, "int_value", "intValue", Kind::Int64),
        field(4, "double_value", "doubleValue", Kind::Double),
        field(5, "array_value", "arrayValue", Kind::Message(&ARRAY_VALUE)),
        field(6, "kvlist_value", "kvlistValue", Kind::Message(&KEY_VALUE_LIST)),
        field(7, "bytes_value", "bytesValue", Kind::Base64),
    ],
};

static ARRAY_VALUE: Message = Message {
    name: "ArrayValue",
    is_oneof: false,
    fields: &[field(1, "values", "values", Kind::Messages(&ANY_VALUE))],
};

static KEY_VALUE_LIST: Message = Message {
    name: "KeyValueList",
    is_oneof: false,
    fields: &[field(1, "values", "values", Kind::Messages(&KEY_VALUE))],
};
