//! What `spoor import` reads: Jaeger's JSON, and requests that are split.

use spoor_model::UnixNano;
use spoor_model::ingest::Decode;
use spoor_otlp::{OtlpDecoder, jaeger_json, split};
use spoor_testkit::nasty::Nasty;

use super::Target;

const TRACE: &str = r#"{"data":[{"traceID":"a0b1","spans":[{"traceID":"a0b1","spanID":"c2","flags":1,"operationName":"GET /cart",
"processID":"p1","references":[{"refType":"CHILD_OF","traceID":"a0b1","spanID":"c1"},{"refType":"FOLLOWS_FROM","traceID":"ffff","spanID":"c9"}],
"startTime":1700000000000001,"duration":3,"tags":[{"key":"b","type":"binary","value":"AQI="},{"key":"z","type":"int64","value":"9007199254740993"},
{"key":"n","type":"float64","value":2.5},{"key":"error","type":"bool","value":true},{"key":"span.kind","type":"string","value":"server"},
{"key":"http.status_code","type":"int64","value":503}],"logs":[{"timestamp":1700000000000002,"fields":[{"key":"event","type":"string","value":"ev"}]}],
"warnings":["clocks differ"]}],"processes":{"p1":{"serviceName":"cart","tags":[{"key":"host.name","type":"string","value":"h1"}]}},"warnings":null}]}"#;

/// Whatever is read of Jaeger's JSON is OTLP that decodes.
pub fn jaeger() -> Target {
    let check = |bytes: &[u8]| {
        for request in jaeger_json::to_protobuf(bytes).into_iter().flatten() {
            OtlpDecoder.check(&request).expect("is protobuf");
        }
    };
    Target { name: "jaeger-json", runs: 60_000, seeds: vec![TRACE.as_bytes().to_vec()], check: Box::new(check) }
}

/// The parts of a request hold what it held, refused spans included.
pub fn parts() -> Target {
    let count = |bytes: &[u8]| {
        OtlpDecoder.check(bytes).map(|checked| checked.accepted_count as usize + checked.rejected.len())
    };
    let check = move |bytes: &[u8]| {
        let (Ok(parts), Ok(whole)) = (split::split(bytes, 300), count(bytes)) else { return };
        let of_parts: usize = parts.iter().map(|part| count(part).expect("is protobuf")).sum();
        assert_eq!(of_parts, whole);
    };
    let start = UnixNano(1_800_000_000_000_000_000);
    let seeds = (0..10).map(|seed| Nasty::new(seed, start).request(1 + seed as usize % 6)).collect();
    Target { name: "split", runs: 60_000, seeds, check: Box::new(check) }
}
