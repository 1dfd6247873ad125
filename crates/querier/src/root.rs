//! Which span stands for the trace.

use spoor_model::value::{self, Value};
use spoor_model::{SpanEntry, Trace};

/// The trace's root: the last span, in the order of [`Trace::entries`], that has no parent, neither
/// by id nor by an OpenTracing `child_of` link within the trace. `None` when it has not come (yet).
pub fn root(trace: &Trace) -> Option<&SpanEntry> {
    trace.entries.iter().rev().find(|entry| {
        let span = &entry.span;
        let is_child_by_link = span.links.iter().any(|link| {
            let reference = value::find(&link.attributes, "opentracing.ref_type").and_then(Value::as_str);
            link.trace_id == trace.id && reference == Some("child_of")
        });
        span.parent_span_id.is_zero() && !is_child_by_link
    })
}
