//! What assembled traces hold in memory, for the account of a query.

use spoor_model::{KeyValue, Span, Trace, Value};

/// About what a trace holds in memory, without what its origins share.
pub(crate) fn held_bytes(trace: &Trace) -> usize {
    let of_attributes = |attributes: &[KeyValue]| -> usize {
        let of_value = |value: &Value| value.as_str().map_or(0, str::len);
        attributes.iter().map(|a| size_of::<KeyValue>() + a.key.len() + of_value(&a.value)).sum()
    };
    let of_span = |span: &Span| -> usize {
        let of_events: usize = span
            .events
            .iter()
            .map(|event| size_of_val(event) + event.name.len() + of_attributes(&event.attributes))
            .sum();
        let of_links: usize = span.links.iter().map(|link| size_of_val(link) + of_attributes(&link.attributes)).sum();
        span.name.len() + of_attributes(&span.attributes) + of_events + of_links
    };
    trace.entries.iter().map(|entry| size_of_val(entry) + of_span(&entry.span)).sum()
}
