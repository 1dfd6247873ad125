//! What must come back: spans in a form that is equal exactly when nothing was lost.
//!
//! Decoding is prost's, not ours. Attribute order within a span may change on the way through Spoor,
//! nothing else may.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::trace::v1::{Span, TracesData};
use prost::Message;
use spoor_model::{SpanId, TraceId};

/// One span with its resource, scope and schema URLs, as bytes that compare.
pub type Digest = Vec<u8>;

/// Reads an export request; `TracesData` has the same encoding.
///
/// # Panics
/// When the bytes are not one.
pub fn decode(body: &[u8]) -> TracesData {
    TracesData::decode(body).expect("an encoded TracesData")
}

/// The ids of a request's spans, in the order in which they stand.
pub fn ids(body: &[u8]) -> Vec<(TraceId, SpanId)> {
    let request = ExportTraceServiceRequest::decode(body).expect("an encoded request");
    let spans = request.resource_spans.iter().flat_map(|one| &one.scope_spans).flat_map(|one| &one.spans);
    spans.map(ids_of).collect()
}

fn ids_of(span: &Span) -> (TraceId, SpanId) {
    let trace = span.trace_id.as_slice().try_into().expect("16 bytes");
    (TraceId(trace), SpanId(span.span_id.as_slice().try_into().expect("8 bytes")))
}

/// Every span of the trace `id`, sorted; exact copies stand as often as they occur.
pub fn digests_of(data: &TracesData, id: TraceId) -> Vec<Digest> {
    let mut out: Vec<_> = some(data, |trace| trace == id).map(|(_, digest)| digest).collect();
    out.sort_unstable();
    out
}

/// Every span, with the trace that it belongs to.
pub fn all(data: &TracesData) -> impl Iterator<Item = (TraceId, Digest)> {
    some(data, |_| true)
}

/// The spans of some traces, with the trace that they belong to.
pub fn some(data: &TracesData, is_wanted: impl Fn(TraceId) -> bool) -> impl Iterator<Item = (TraceId, Digest)> {
    let mut out = Vec::new();
    for resource_spans in &data.resource_spans {
        let mut resource = resource_spans.resource.clone().unwrap_or_default();
        resource.attributes.iter_mut().for_each(settle);
        for scope_spans in &resource_spans.scope_spans {
            let mut scope = scope_spans.scope.clone().unwrap_or_default();
            scope.attributes.iter_mut().for_each(settle);
            let mut origin = Vec::new();
            put_part(&mut origin, &resource.encode_to_vec());
            put_part(&mut origin, resource_spans.schema_url.as_bytes());
            put_part(&mut origin, &scope.encode_to_vec());
            put_part(&mut origin, scope_spans.schema_url.as_bytes());
            for span in &scope_spans.spans {
                let (trace, _) = ids_of(span);
                if is_wanted(trace) {
                    out.push((trace, digest(span, &origin)));
                }
            }
        }
    }
    out.into_iter()
}

fn digest(span: &Span, origin: &[u8]) -> Digest {
    let mut span = span.clone();
    // A missing status and an empty one mean the same (OTLP: "default values").
    span.status.get_or_insert_default();
    // A value with no arm set may be absent or an empty message.
    span.attributes.iter_mut().for_each(settle);
    span.events.iter_mut().flat_map(|event| &mut event.attributes).for_each(settle);
    span.links.iter_mut().flat_map(|link| &mut link.attributes).for_each(settle);
    span.attributes.sort_by_cached_key(Message::encode_to_vec);
    let mut out = Vec::new();
    put_part(&mut out, &span.encode_to_vec());
    out.extend_from_slice(origin);
    out
}

fn put_part(out: &mut Vec<u8>, part: &[u8]) {
    out.extend_from_slice(&(part.len() as u64).to_be_bytes());
    out.extend_from_slice(part);
}

fn settle(attribute: &mut KeyValue) {
    attribute.value.get_or_insert_default();
}
