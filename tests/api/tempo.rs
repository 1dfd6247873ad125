//! Trace by id as Tempo answers it, and the endpoints that Grafana and operators poke.

use opentelemetry_proto::tonic::common::v1::KeyValue;
use prost::Message;
use spoor_testkit::build::{self, SERVER, span, span_id, trace};
use spoor_testkit::client::http;
use spoor_testkit::ledger::Ledger;
use spoor_testkit::nasty::Nasty;
use spoor_testkit::{digest, json};

use super::{a_minute_ago, start};

#[test]
fn both_versions_in_both_forms_give_the_same_whole_trace() {
    let spoor = start(&[]);
    let mut nasty = Nasty::new(41, a_minute_ago());
    let body = nasty.request(400);
    spoor.ingest(&body);
    let (mut ledger, nothing) = (Ledger::default(), Ledger::default());
    ledger.promise(&body);
    let mut connection = http::Connection::new(spoor.server.tempo());
    for id in ledger.traces() {
        let mut get = |path: &str, accept: &str| {
            let answer = connection.send("GET", &format!("{path}/{id}"), &[("accept", accept)], &[]).unwrap();
            assert_eq!((answer.status, answer.headers["content-type"].as_str()), (200, accept), "{}", answer.text());
            answer
        };
        let v1 = get("/api/traces", "application/protobuf").body;
        let v2 = get("/api/v2/traces", "application/protobuf").body;
        let v1_json = json::read_tempo(&get("/api/traces", "application/json").json()).encode_to_vec();
        let v2_json = json::read_tempo(&get("/api/v2/traces", "application/json").json()).encode_to_vec();
        for (form, answer) in [("v1", v1), ("v2", as_sent(&trace_of(&v2))), ("v1 JSON", v1_json), ("v2 JSON", v2_json)]
        {
            assert_eq!(ledger.compare(id, Some(&answer), &nothing), Ok(()), "{form}, trace {id}");
        }
    }
}

/// Grafana drops the spans of a resource without attributes; in the one form that it alone reads, such a
/// resource is given a name (`api/DEVIATIONS.md`). Takes that name away.
fn as_sent(trace: &[u8]) -> Vec<u8> {
    let mut data = digest::decode(trace);
    for resource in data.resource_spans.iter_mut().filter_map(|one| one.resource.as_mut()) {
        let is_given = |one: &KeyValue| format!("{:?}", one.value).contains("\"OTLPResourceNoServiceName\"");
        resource.attributes.retain(|one| !is_given(one));
    }
    data.encode_to_vec()
}

/// Field 1 of `TraceByIDResponse`.
fn trace_of(response: &[u8]) -> Vec<u8> {
    let mut reader = spoor_model::wire::Reader::new(response);
    while let Some((number, field)) = reader.next_field().unwrap() {
        if number == 1 {
            return field.bytes(1).unwrap().to_vec();
        }
    }
    panic!("no trace in the response");
}

#[test]
fn the_json_of_one_span_is_byte_for_byte_what_tempo_sends() {
    let spoor = start(&[]);
    let at = a_minute_ago();
    let one = span("shop", "GET /", trace(1), span_id(2), at).kind(SERVER).int("zero", 0).text("empty", "");
    spoor.ingest(&build::body([one]));
    let expected = serde_json::json!({"batches": [{
        "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]},
        "scopeSpans": [{"scope": {"name": "by-hand", "version": "1"}, "spans": [{
            "traceId": "AQEBAQEBAQEBAQEBAQEBAQ==", "spanId": "AgICAgICAgI=", "name": "GET /", "kind": "SPAN_KIND_SERVER",
            "startTimeUnixNano": at.0.to_string(), "endTimeUnixNano": (at.0 + 1_000_000).to_string(),
            "attributes": [
                {"key": "zero", "value": {"intValue": "0"}},
                {"key": "empty", "value": {"stringValue": ""}},
            ],
            "status": {},
        }]}],
    }]});
    let answer = spoor.tempo(&format!("/api/traces/{}", trace(1))).json();
    let sorted = |mut value: serde_json::Value| {
        let attributes =
            value.pointer_mut("/batches/0/scopeSpans/0/spans/0/attributes").unwrap().as_array_mut().unwrap();
        attributes.sort_by_key(ToString::to_string);
        value
    };
    assert_eq!(sorted(answer), sorted(expected));
}

#[test]
fn an_unknown_trace_is_404_without_a_body_in_v1_and_an_empty_answer_in_v2() {
    let spoor = start(&[]);
    let v1 = spoor.tempo("/api/traces/abcdef");
    assert_eq!((v1.status, v1.body.as_slice()), (404, &b""[..]));
    let v2 = spoor.tempo("/api/v2/traces/abcdef");
    assert_eq!(v2.status, 200);
    assert_eq!(v2.json()["trace"], serde_json::json!({}));
}

#[test]
fn ids_may_be_short_and_of_any_case_and_nothing_else() {
    let spoor = start(&[]);
    let mut id = [0; 16];
    id[14..].copy_from_slice(&[0xab, 0xcd]);
    spoor.ingest(&build::body([span("s", "n", spoor_model::TraceId(id), span_id(1), a_minute_ago())]));
    for text in ["abcd", "ABCD", "0abcd", "0000000000000000000000000000abcd"] {
        assert_eq!(spoor.tempo(&format!("/api/traces/{text}")).status, 200, "{text}");
        assert_eq!(spoor.jaeger(&format!("/api/traces/{text}")).status, 200, "{text}");
    }
    for text in ["xyz", "abcg", "00000000000000000000000000000abcd"] {
        assert_eq!(spoor.tempo(&format!("/api/traces/{text}")).status, 400, "{text}");
        assert_eq!(spoor.tempo(&format!("/api/v2/traces/{text}")).status, 400, "{text}");
    }
    assert_eq!(spoor.tempo("/api/traces/abcd?start=20&end=10").status, 400);
    assert_eq!(spoor.tempo("/api/traces/abcd?mode=nonsense").status, 400);
}

#[test]
fn grafana_finds_out_that_it_talks_to_a_tempo() {
    let spoor = start(&[]);
    let echo = spoor.tempo("/api/echo");
    assert_eq!((echo.status, echo.text().trim_end()), (200, "echo"));
    let build = spoor.tempo("/api/status/buildinfo").json();
    assert!(build["version"].is_string(), "{build}");
    assert_eq!(spoor.tempo("/ready").status, 200);
    let config = spoor.tempo("/status/config");
    assert_eq!(config.status, 200);
    assert!(config.text().contains("retention"), "{}", config.text());
    assert_eq!(spoor.tempo("/api/nothing").status, 404);
}

#[test]
fn metrics_count_what_was_received() {
    let spoor = start(&[]);
    let body = build::body((1..=3).map(|number| span("shop", "n", trace(1), span_id(number), a_minute_ago())));
    spoor.ingest(&body);
    let metrics = spoor.tempo("/metrics").text();
    let of_spans = |line: &&str| line.starts_with("tempo_distributor_spans_received_total");
    let received: f64 =
        metrics.lines().filter(of_spans).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum();
    assert!((received - 3.0).abs() < f64::EPSILON, "{metrics}");
    assert!(metrics.contains("spoor_"), "{metrics}");
}
