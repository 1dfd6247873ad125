//! Jaeger's HTTP API, as its UI, Grafana and Kiali use it.

use serde_json::{Value, json};
use spoor_model::{SpanId, TraceId, UnixNano};
use spoor_testkit::build::{self, CLIENT, SERVER, SpanSpec, span, span_id, trace};
use spoor_testkit::json as otlp_json;

use super::{Spoor, a_minute_ago, escape, start};

fn shop(at: UnixNano) -> Vec<SpanSpec> {
    let after = |seconds: u64| UnixNano(at.0 + seconds * 1_000_000_000);
    vec![
        span("frontend", "GET /", trace(1), span_id(1), after(1)).kind(SERVER).lasting_ms(100).text("http.route", "/"),
        span("cart", "HGET", trace(1), span_id(2), after(1))
            .parent(span_id(1))
            .kind(CLIENT)
            .lasting_ms(3)
            .int("rows", 5),
        span("frontend", "GET /cart", trace(2), span_id(1), after(2)).kind(SERVER).lasting_ms(30).status(2, "boom"),
        span("frontend", "GET /", trace(3), span_id(1), after(3)).kind(SERVER).lasting_ms(700).text("http.route", "/"),
    ]
}

fn data(spoor: &Spoor, path: &str) -> Value {
    let answer = spoor.jaeger(path);
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    let envelope = answer.json();
    let keys: Vec<_> = envelope.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys.len(), 5, "the envelope has five keys: {keys:?}");
    envelope["data"].clone()
}

fn found(spoor: &Spoor, parameters: &str) -> Vec<u8> {
    let traces = data(spoor, &format!("/api/traces?{parameters}"));
    let id = |one: &Value| u8::from_str_radix(&one["traceID"].as_str().unwrap()[..2], 16).unwrap();
    traces.as_array().unwrap().iter().map(id).collect()
}

fn check_lists_and_searches(spoor: &Spoor, at: UnixNano) {
    assert_eq!(data(spoor, "/api/services"), json!(["cart", "frontend"]));
    assert_eq!(data(spoor, "/api/services/frontend/operations"), json!(["GET /", "GET /cart"]));
    assert_eq!(data(spoor, "/api/operations?service=cart"), json!([{"name": "HGET", "spanKind": "client"}]));
    assert_eq!(data(spoor, "/api/operations?service=frontend&spanKind=client"), json!([]));
    let tags = |text: &str| format!("service=frontend&tags={}", escape(text));
    for (parameters, expected) in [
        ("service=frontend".to_owned(), &[3, 2, 1][..]),
        ("service=cart".to_owned(), &[1]),
        ("service=nobody".to_owned(), &[]),
        (format!("service=frontend&operation={}", escape("GET /")), &[3, 1]),
        (tags("{\"http.route\":\"/\"}"), &[3, 1]),
        (tags("{\"error\":\"true\"}"), &[2]),
        ("service=cart&tag=rows:5".to_owned(), &[1]),
        ("service=frontend&minDuration=50ms".to_owned(), &[3, 1]),
        ("service=frontend&minDuration=50ms&maxDuration=500ms".to_owned(), &[1]),
        ("service=frontend&limit=2".to_owned(), &[3, 2]),
        (format!("service=frontend&start={}&end={}", at.0 / 1000, at.0 / 1000 + 1_500_000), &[1]),
    ] {
        assert_eq!(found(spoor, &parameters), expected, "{parameters}");
    }
    // A trace comes whole though only one of its spans matched.
    let whole = data(spoor, "/api/traces?service=cart");
    assert_eq!(whole[0]["spans"].as_array().unwrap().len(), 2);
}

#[test]
fn lists_and_searches_answer_newest_first_before_and_after_a_block_is_cut() {
    let at = a_minute_ago();
    let mut spoor = start(&[]);
    spoor.ingest(&build::body(shop(at)));
    check_lists_and_searches(&spoor, at);
    spoor.server.stop();
    spoor.server = spoor.server.launch().start();
    check_lists_and_searches(&spoor, at);
}

#[test]
fn the_worked_example_of_the_translation_comes_out_as_written() {
    let spoor = start(&[]);
    let mut id = [0; 16];
    id[14..].copy_from_slice(&[0xa0, 0xb1]);
    let request = json!({"resourceSpans": [{"resource": {"attributes": [
            {"key": "service.name", "value": {"stringValue": "cart"}}, {"key": "host.name", "value": {"stringValue": "h1"}}]},
        "scopeSpans": [{"scope": {"name": "lib", "version": "1.2", "attributes": [{"key": "sc", "value": {"stringValue": "x"}}]},
        "spans": [{"traceId": "0000000000000000000000000000a0b1", "spanId": "00000000000000c2", "parentSpanId": "00000000000000c1",
            "name": "GET /cart", "kind": 2, "startTimeUnixNano": "1700000000000001999", "endTimeUnixNano": "1700000000000005000",
            "traceState": "k=v", "status": {"code": 2, "message": "boom"},
            "attributes": [{"key": "z", "value": {"intValue": "9007199254740993"}}, {"key": "b", "value": {"bytesValue": "AQI="}},
                {"key": "a", "value": {"arrayValue": {"values": [{"stringValue": "p"}, {"intValue": "1"}]}}}],
            "events": [{"timeUnixNano": "1700000000000002500", "name": "ev", "attributes": [{"key": "k", "value": {"doubleValue": 1.5}}]}],
            "links": [{"traceId": "0000000000000000000000000000a0b1", "spanId": "00000000000000c9"}]}]}]}]});
    let answer = spoor.post(&[("content-type", "application/json")], request.to_string().as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.text());
    let expected = json!([{"traceID": "000000000000a0b1", "spans": [{
        "traceID": "000000000000a0b1", "spanID": "00000000000000c2", "operationName": "GET /cart",
        "references": [{"refType": "CHILD_OF", "traceID": "000000000000a0b1", "spanID": "00000000000000c1"},
                       {"refType": "FOLLOWS_FROM", "traceID": "000000000000a0b1", "spanID": "00000000000000c9"}],
        "startTime": 1_700_000_000_000_001u64, "duration": 3,
        "tags": [{"key": "otel.scope.name", "type": "string", "value": "lib"}, {"key": "otel.scope.version", "type": "string", "value": "1.2"},
            {"key": "a", "type": "string", "value": "[\"p\",1]"}, {"key": "b", "type": "binary", "value": "AQI="},
            {"key": "z", "type": "int64", "value": "9007199254740993"},
            {"key": "span.kind", "type": "string", "value": "server"}, {"key": "otel.status_code", "type": "string", "value": "ERROR"},
            {"key": "error", "type": "bool", "value": true}, {"key": "otel.status_description", "type": "string", "value": "boom"},
            {"key": "w3c.tracestate", "type": "string", "value": "k=v"}],
        "logs": [{"timestamp": 1_700_000_000_000_002u64, "fields": [
            {"key": "event", "type": "string", "value": "ev"}, {"key": "k", "type": "float64", "value": 1.5}]}],
        "processID": "p1",
        "warnings": ["parent span ID=00000000000000c1 is not in the trace; skipping clock skew adjustment"]}],
        "processes": {"p1": {"serviceName": "cart", "tags": [{"key": "host.name", "type": "string", "value": "h1"}]}},
        "warnings": null}]);
    let mut got = data(&spoor, "/api/traces/a0b1");
    // Adjusters sort what they touch; the contract leaves the place of synthetic tags to them.
    sort_tags(&mut got);
    let mut expected = expected;
    sort_tags(&mut expected);
    assert_eq!(got, expected);
    let raw = data(&spoor, "/api/traces/a0b1?raw=true");
    assert_eq!(raw[0]["spans"][0]["warnings"], Value::Null);
    assert_eq!(otlp_json::read_tempo(&spoor.tempo("/api/traces/a0b1").json()).resource_spans.len(), 1);
}

fn sort_tags(traces: &mut Value) {
    let tags = traces.pointer_mut("/0/spans/0/tags").unwrap().as_array_mut().unwrap();
    tags.sort_by_key(ToString::to_string);
}

#[test]
fn an_unknown_trace_is_404_in_the_envelope_and_bad_parameters_are_400() {
    let spoor = start(&[]);
    let missing = spoor.jaeger("/api/traces/abc");
    assert_eq!(missing.status, 404);
    assert_eq!(missing.json()["errors"][0], json!({"code": 404, "msg": "trace not found"}));
    for path in [
        "/api/traces",
        "/api/traces?service=a&start=x",
        "/api/traces?service=a&minDuration=5",
        "/api/traces?service=a&minDuration=2s&maxDuration=1s",
        "/api/traces?service=a&tag=nocolon",
        "/api/traces?service=a&tags=%7B",
        "/api/traces?service=a&limit=x",
        "/api/traces/xyz",
        "/api/operations",
    ] {
        let answer = spoor.jaeger(path);
        assert_eq!(answer.status, 400, "{path}: {}", answer.text());
        assert_eq!(
            (answer.json()["data"].clone(), answer.json()["errors"][0]["code"].clone()),
            (Value::Null, json!(400)),
            "{path}"
        );
    }
}

#[test]
fn several_traces_are_fetched_by_id_and_missing_ones_named() {
    let spoor = start(&[]);
    spoor.ingest(&build::body(shop(a_minute_ago())));
    let path = format!("/api/traces?traceID={}&traceID={}&traceID=00000000000000ff", trace(1), trace(2));
    let answer = spoor.jaeger(&path).json();
    assert_eq!(answer["data"].as_array().unwrap().len(), 2, "{answer}");
    assert_eq!(answer["errors"][0]["msg"], "trace not found");
    assert_eq!(answer["errors"][0]["traceID"], "00000000000000ff");
}

#[test]
fn names_with_slashes_and_spaces_survive_in_paths() {
    let spoor = start(&[]);
    let odd = span("a/b c", "x", TraceId([9; 16]), SpanId([9; 8]), a_minute_ago());
    spoor.ingest(&build::body([odd]));
    assert_eq!(data(&spoor, "/api/services/a%2Fb%20c/operations"), json!(["x"]));
}
