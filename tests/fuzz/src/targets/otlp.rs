//! OTLP in protobuf and JSON.

use std::collections::BTreeMap;

use prost::Message;
use spoor_model::batch::SpanBatch;
use spoor_model::ingest::Decode;
use spoor_model::nested::put_message;
use spoor_model::wire::put_bytes;
use spoor_model::{Trace, TraceId, UnixNano};
use spoor_otlp::{OtlpDecoder, encode, json};
use spoor_testkit::corpus::{Corpus, Settings};
use spoor_testkit::nasty::Nasty;
use spoor_testkit::{digest, json as otlp_json};

use super::Target;

const START: UnixNano = UnixNano(1_800_000_000_000_000_000);

fn requests() -> Vec<Vec<u8>> {
    let mut seeds: Vec<_> = (0..20).map(|seed| Nasty::new(seed, START).request(1 + seed as usize % 6)).collect();
    let corpus = Settings { seed: 1, trace_count: 2, request_spans: 5, start: START };
    seeds.extend(Corpus::new(corpus).map(|request| request.body));
    let repeated: Vec<_> = seeds.iter().take(8).map(|body| with_repeated_fields(body)).collect();
    seeds.extend(repeated);
    seeds
}

/// The request with every span's fields a second time in the same message: legal, the last one counts.
fn with_repeated_fields(body: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    for resource_spans in digest::decode(body).resource_spans {
        put_message(&mut data, 1, |out| {
            for scope_spans in resource_spans.scope_spans {
                put_message(out, 2, |out| {
                    for pair in scope_spans.spans.windows(2) {
                        put_bytes(out, 2, &[pair[0].encode_to_vec(), pair[1].encode_to_vec()].concat());
                    }
                });
            }
        });
    }
    data
}

/// What passes the check can be appended, read back and written again; and reads the same then.
pub fn protobuf() -> Target {
    Target { name: "otlp-protobuf", runs: 60_000, seeds: requests(), check: Box::new(check_protobuf) }
}

fn check_protobuf(bytes: &[u8]) {
    let Ok(checked) = OtlpDecoder.check(bytes) else { return };
    assert_eq!(OtlpDecoder.check(bytes), Ok(checked.clone()), "the check depends on nothing but the bytes");
    let mut batch = SpanBatch::new();
    OtlpDecoder.append(bytes, &checked, &mut batch);
    assert_eq!(batch.len(), checked.accepted_count as usize);
    let mut traces: BTreeMap<TraceId, Vec<_>> = BTreeMap::new();
    for row in 0..batch.len() as u32 {
        let entry = batch.span(row);
        assert!(!entry.span.trace_id.is_zero() && !entry.span.span_id.is_zero());
        assert!(entry.span.start <= entry.span.end);
        traces.entry(entry.span.trace_id).or_default().push(entry);
    }
    for (id, entries) in traces {
        let trace = Trace::assemble(id, entries).expect("it has spans");
        let written = encode::traces_data(&trace);
        let again = OtlpDecoder.check(&written).expect("we write OTLP");
        assert_eq!((again.accepted_count as usize, again.rejected.len()), (trace.entries.len(), 0));
        let mut second = SpanBatch::new();
        OtlpDecoder.append(&written, &again, &mut second);
        let entries = (0..second.len() as u32).map(|row| second.span(row)).collect();
        let read = Trace::assemble(id, entries).expect("it has spans");
        assert_eq!(encode::traces_data(&read).len(), written.len(), "writing what was written changes it");
    }
}

/// What is read as JSON is OTLP: the protobuf check may refuse spans, never the request.
pub fn json() -> Target {
    let text = |body: &Vec<u8>| otlp_json::request(&digest::decode(body)).to_string().into_bytes();
    let seeds = requests().iter().map(text).collect();
    Target { name: "otlp-json", runs: 60_000, seeds, check: Box::new(check_json) }
}

fn check_json(text: &[u8]) {
    let Ok(protobuf) = json::to_protobuf(text) else { return };
    let checked = OtlpDecoder.check(&protobuf).expect("JSON becomes readable protobuf");
    let mut batch = SpanBatch::new();
    OtlpDecoder.append(&protobuf, &checked, &mut batch);
    assert_eq!(batch.len(), checked.accepted_count as usize);
}
