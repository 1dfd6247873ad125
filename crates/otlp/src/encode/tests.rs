//! Encoding against decoding: what was received comes out equal, attribute order aside.

use std::sync::Arc;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::TracesData;
use proptest::prelude::*;
use prost::Message;
use spoor_model::batch::SpanBatch;
use spoor_model::ingest::Decode;
use spoor_model::{SpanEntry, SpanId, TraceId};

use super::*;
use crate::OtlpDecoder;
use crate::decode::tests::a_request;

fn entries(protobuf: &[u8]) -> Vec<SpanEntry> {
    let checked = OtlpDecoder.check(protobuf).expect("is protobuf");
    assert_eq!(checked.rejected, []);
    let mut batch = SpanBatch::new();
    OtlpDecoder.append(protobuf, &checked, &mut batch);
    let entry = |row| {
        let mut entry = batch.span(row);
        entry.span.attributes.sort_by_cached_key(|attribute| format!("{attribute:?}"));
        entry
    };
    (0..batch.len() as u32).map(entry).collect()
}

proptest! {
    #[test]
    fn a_trace_comes_out_as_it_came_in(request in a_request()) {
        let mut traces: HashMap<TraceId, Vec<SpanEntry>> = HashMap::new();
        for entry in entries(&request.encode_to_vec()) {
            traces.entry(entry.span.trace_id).or_default().push(entry);
        }
        for (id, entries_of_trace) in traces {
            let trace = Trace::assemble(id, entries_of_trace).expect("has spans");
            let encoded = traces_data(&trace);
            let again = Trace::assemble(id, entries(&encoded)).expect("has spans");
            prop_assert_eq!(&again, &trace);
            let data = TracesData::decode(&encoded[..]).expect("is protobuf");
            for group in &data.resource_spans {
                prop_assert!(group.resource.is_some());
                for scope in &group.scope_spans {
                    prop_assert!(scope.scope.is_some() && !scope.spans.is_empty());
                    prop_assert!(scope.spans.iter().all(|span| span.status.is_some()));
                }
            }
        }
    }
}

#[test]
fn groups_stand_in_the_order_of_first_appearance() {
    let origin = |resource: &'static [u8], scope_schema_url: &str| {
        Arc::new(Origin {
            resource_encoded: resource.into(),
            scope_schema_url: scope_schema_url.to_owned(),
            ..Origin::default()
        })
    };
    // The third and fourth have equal content in another allocation.
    let origins =
        [origin(b"", "x"), origin(b"\x10\x01", "x"), origin(b"", "x"), origin(b"\x10\x01", "x"), origin(b"", "y")];
    let id = TraceId([1; 16]);
    let entries = origins.into_iter().enumerate().map(|(place, origin)| SpanEntry {
        origin,
        span: Span { trace_id: id, span_id: SpanId([place as u8 + 1; 8]), ..Span::default() },
    });
    let trace = Trace { id, entries: entries.collect() };
    let shape: Vec<Vec<Vec<u8>>> = groups(&trace)
        .iter()
        .map(|group| {
            group.scopes.iter().map(|scope| scope.spans.iter().map(|span| span.span_id.0[0]).collect()).collect()
        })
        .collect();
    assert_eq!(shape, [vec![vec![1, 3], vec![5]], vec![vec![2, 4]]]);
    let encoded = traces_data(&trace);
    assert!(ExportTraceServiceRequest::decode(&encoded[..]).is_ok());
}
