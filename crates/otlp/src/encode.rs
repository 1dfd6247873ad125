//! Whole traces, written as OTLP protobuf.

use std::collections::HashMap;

use spoor_model::nested::{put_attributes, put_event, put_link, put_message};
use spoor_model::wire::{put_bytes, put_fixed32, put_fixed64, put_text, put_uint};
use spoor_model::{Origin, Span, Trace};

/// The spans of one resource.
#[derive(Debug)]
pub struct ResourceGroup<'a> {
    /// An origin with this resource and schema URL; its scope is that of the first group.
    pub origin: &'a Origin,
    /// In order of first appearance; never empty.
    pub scopes: Vec<ScopeGroup<'a>>,
}

/// The spans of one scope of one resource.
#[derive(Debug)]
pub struct ScopeGroup<'a> {
    /// Where the spans come from.
    pub origin: &'a Origin,
    /// In the trace's order; never empty.
    pub spans: Vec<&'a Span>,
}

/// Groups a trace's spans as OTLP does: by resource, then by scope, each with its schema URL. Groups
/// stand in the order in which the trace first shows them.
pub fn groups(trace: &Trace) -> Vec<ResourceGroup<'_>> {
    let mut groups: Vec<ResourceGroup<'_>> = Vec::new();
    let mut resources = HashMap::new();
    let mut scopes = HashMap::new();
    for entry in &trace.entries {
        let origin = &*entry.origin;
        let resource = *resources.entry((&origin.resource_encoded, &origin.resource_schema_url)).or_insert_with(|| {
            groups.push(ResourceGroup { origin, scopes: Vec::new() });
            groups.len() - 1
        });
        let siblings = &mut groups[resource].scopes;
        let scope = *scopes.entry((resource, &origin.scope_encoded, &origin.scope_schema_url)).or_insert_with(|| {
            siblings.push(ScopeGroup { origin, spans: Vec::new() });
            siblings.len() - 1
        });
        siblings[scope].spans.push(&entry.span);
    }
    groups
}

/// The trace as `TracesData` (`repeated ResourceSpans resource_spans = 1`). The messages `resource`,
/// `scope` and `status` are always there, even when empty: clients read through them unasked.
pub fn traces_data(trace: &Trace) -> Vec<u8> {
    // A span is about 380 bytes on the wire.
    let mut out = Vec::with_capacity(trace.entries.len() * 512);
    for group in groups(trace) {
        put_message(&mut out, 1, |out| put_resource_spans(out, &group));
    }
    out
}

/// Appends the fields of a `ResourceSpans`.
pub fn put_resource_spans(out: &mut Vec<u8>, group: &ResourceGroup<'_>) {
    put_bytes(out, 1, &group.origin.resource_encoded);
    for scope in &group.scopes {
        put_message(out, 2, |out| put_scope_spans(out, scope));
    }
    put_text(out, 3, group.origin.resource_schema_url.as_bytes());
}

fn put_scope_spans(out: &mut Vec<u8>, group: &ScopeGroup<'_>) {
    put_bytes(out, 1, &group.origin.scope_encoded);
    for span in &group.spans {
        put_message(out, 2, |out| put_span(out, span));
    }
    put_text(out, 3, group.origin.scope_schema_url.as_bytes());
}

/// Appends the fields of a `Span`.
pub fn put_span(out: &mut Vec<u8>, span: &Span) {
    put_bytes(out, 1, &span.trace_id.0);
    put_bytes(out, 2, &span.span_id.0);
    put_text(out, 3, span.trace_state.as_bytes());
    if !span.parent_span_id.is_zero() {
        put_bytes(out, 4, &span.parent_span_id.0);
    }
    put_text(out, 5, span.name.as_bytes());
    put_uint(out, 6, i64::from(span.kind) as u64);
    put_fixed64(out, 7, span.start.0);
    put_fixed64(out, 8, span.end.0);
    put_attributes(out, 9, &span.attributes);
    put_uint(out, 10, u64::from(span.dropped_attributes_count));
    for event in &span.events {
        put_message(out, 11, |out| put_event(out, event));
    }
    put_uint(out, 12, u64::from(span.dropped_events_count));
    for link in &span.links {
        put_message(out, 13, |out| put_link(out, link));
    }
    put_uint(out, 14, u64::from(span.dropped_links_count));
    put_message(out, 15, |out| {
        put_text(out, 2, span.status.message.as_bytes());
        put_uint(out, 3, i64::from(span.status.code) as u64);
    });
    put_fixed32(out, 16, span.flags);
}

#[cfg(test)]
mod tests;
