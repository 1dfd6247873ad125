//! OTLP in, over every transport and encoding, equals OTLP out.

use serde_json::json;
use spoor_testkit::build::{self, CLIENT, SERVER, span, span_id, trace};
use spoor_testkit::client::{Compression, grpc, http};
use spoor_testkit::ledger::Ledger;
use spoor_testkit::nasty::Nasty;
use spoor_testkit::process::Reader;
use spoor_testkit::{digest, json};

use super::{Spoor, a_minute_ago, start};

const PROTOBUF: (&str, &str) = ("content-type", "application/x-protobuf");
const JSON: (&str, &str) = ("content-type", "application/json");

/// Sends nasty requests one by one and reads every trace of each, straight after the answer.
fn check_round_trip(seed: u64, spoor: &Spoor, mut send: impl FnMut(&[u8])) {
    let mut nasty = Nasty::new(seed, a_minute_ago());
    let (mut ledger, nothing) = (Ledger::default(), Ledger::default());
    let mut reader = Reader::new(&spoor.server);
    for _ in 0..4 {
        let body = nasty.request(120);
        send(&body);
        ledger.promise(&body);
        for id in ledger.traces() {
            let answer = reader.trace(id).unwrap();
            assert_eq!(ledger.compare(id, answer.as_deref(), &nothing), Ok(()), "seed {seed}, trace {id}");
        }
    }
}

#[test]
fn grpc_exports_come_back_equal_at_once_whatever_their_compression() {
    let spoor = start(&[]);
    let client = grpc::Client::connect(spoor.server.otlp_grpc()).unwrap();
    for (seed, compression) in (1..).zip(Compression::ALL) {
        check_round_trip(seed, &spoor, |body| {
            let answer = client.export(body, compression).unwrap();
            assert_eq!((answer.status, answer.partial_success()), (0, None), "{answer:?}");
        });
    }
}

#[test]
fn exports_are_counted_by_route_and_outcome() {
    let spoor = start(&[]);
    let body = build::body([span("shop", "n", trace(1), span_id(1), a_minute_ago())]);
    spoor.ingest(&body);
    assert_eq!(spoor.post(&[PROTOBUF], &body).status, 200);
    assert_eq!(spoor.post(&[("content-type", "text/plain")], &body).status, 415);
    let metrics = spoor.tempo("/metrics").text();
    let call = "opentelemetry_proto_collector_trace_v1_traceservice_export";
    for (method, route, code) in
        [("gRPC", call, "success"), ("POST", "otlp_v1_traces", "200"), ("POST", "otlp_v1_traces", "415")]
    {
        let labels = format!("method=\"{method}\",route=\"{route}\",status_code=\"{code}\",ws=\"false\"");
        let line = format!("tempo_request_duration_seconds_count{{{labels}}} 1\n");
        assert!(metrics.contains(&line), "{line}{metrics}");
    }
}

#[test]
fn http_protobuf_exports_come_back_equal_at_once_whatever_their_compression() {
    let spoor = start(&[]);
    let mut connection = http::Connection::new(spoor.server.otlp_http());
    for (seed, compression) in (11..).zip(Compression::ALL) {
        check_round_trip(seed, &spoor, |body| {
            let headers = match compression {
                Compression::Identity => vec![PROTOBUF],
                other => vec![PROTOBUF, ("content-encoding", other.name())],
            };
            let answer = connection.send("POST", "/v1/traces", &headers, &compression.compress(body)).unwrap();
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert_eq!(answer.headers["content-type"], "application/x-protobuf");
            assert!(answer.body.is_empty(), "a full success is an empty message");
        });
    }
}

#[test]
fn http_json_exports_come_back_equal_at_once() {
    let spoor = start(&[]);
    check_round_trip(21, &spoor, |body| {
        let text = json::request(&digest::decode(body)).to_string();
        let answer = spoor.post(&[JSON], text.as_bytes());
        assert_eq!((answer.status, answer.json()), (200, json!({})));
        assert_eq!(answer.headers["content-type"], "application/json");
    });
}

#[test]
fn json_takes_enum_names_numbers_as_text_and_keys_it_does_not_know() {
    let spoor = start(&[]);
    let now = a_minute_ago().0;
    let request = json!({"resourceSpans": [{"scopeSpans": [{"spans": [{
        "traceId": "0102030405060708090A0B0C0D0E0F10", "spanId": "00000000000000c2",
        "name": "n", "kind": "SPAN_KIND_SERVER",
        "startTimeUnixNano": now, "endTimeUnixNano": (now + 5).to_string(),
        "attributes": [{"key": "i", "value": {"intValue": 7}}],
        "status": {"code": "STATUS_CODE_ERROR"},
        "aKeyOfTheFuture": {"deep": [1, 2]},
    }]}]}]});
    let answer = spoor.post(&[JSON], request.to_string().as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.text());
    let trace = json::read_tempo(&spoor.tempo("/api/traces/0102030405060708090a0b0c0d0e0f10").json());
    let span = &trace.resource_spans[0].scope_spans[0].spans[0];
    assert_eq!((span.kind, span.status.as_ref().unwrap().code), (SERVER, 2));
    assert_eq!((span.start_time_unix_nano, span.end_time_unix_nano), (now, now + 5));
}

#[test]
fn bad_spans_are_refused_one_by_one_and_the_good_ones_kept() {
    let spoor = start(&[]);
    let at = a_minute_ago();
    let good = |number| span("shop", "good", trace(1), span_id(number), at);
    let spans = [
        good(1),
        good(2).with(|span| span.trace_id = vec![1; 8]),
        good(3).with(|span| span.trace_id = vec![0; 16]),
        good(4).with(|span| span.span_id = vec![0; 8]),
        good(5).with(|span| span.span_id.clear()),
        good(6).with(|span| span.parent_span_id = vec![1; 3]),
        good(7).with(|span| span.end_time_unix_nano = span.start_time_unix_nano - 1),
        good(8),
    ];
    let body = build::body(spans);
    let client = grpc::Client::connect(spoor.server.otlp_grpc()).unwrap();
    let answer = client.export(&body, Compression::Identity).unwrap();
    let (rejected, why) = answer.partial_success().expect("some were refused");
    assert_eq!((answer.status, rejected), (0, 6), "{why}");
    assert!(why.contains("trace_id") && why.contains("span_id"), "{why}");
    let text = spoor.post(&[PROTOBUF, ("content-encoding", "gzip")], &Compression::Gzip.compress(&body));
    assert_eq!(text.status, 200);
    let stored = spoor.server.trace(trace(1)).unwrap().unwrap();
    let mut ids: Vec<_> = digest::ids(&stored).into_iter().map(|(_, span)| span).collect();
    ids.sort();
    assert_eq!(ids, [span_id(1), span_id(8)], "each good span once, though it was sent twice");
}

#[test]
fn json_tells_of_refused_spans_as_json() {
    let spoor = start(&[]);
    let bad = span("shop", "bad", trace(1), span_id(1), a_minute_ago()).with(|span| span.end_time_unix_nano = 1);
    let mut text = json::request(&build::request([bad]));
    text["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["endTimeUnixNano"] = "1".into();
    let answer = spoor.post(&[JSON], text.to_string().as_bytes()).json();
    assert_eq!(answer["partialSuccess"]["rejectedSpans"], "1");
    assert!(answer["partialSuccess"]["errorMessage"].as_str().unwrap().contains("end_time"), "{answer}");
}

#[test]
fn a_request_without_spans_is_accepted() {
    let spoor = start(&[]);
    spoor.ingest(&[]);
    assert_eq!(spoor.post(&[JSON], b"{}").status, 200);
    assert_eq!(spoor.post(&[PROTOBUF], b"").status, 200);
}

#[test]
fn an_export_repeated_after_a_lost_answer_is_stored_once_and_twins_are_both_kept() {
    let spoor = start(&[]);
    let at = a_minute_ago();
    let caller = span("frontend", "call", trace(7), span_id(1), at).kind(CLIENT);
    let callee = span("backend", "call", trace(7), span_id(1), at).kind(SERVER);
    let body = build::body([caller, callee]);
    (0..3).for_each(|_| spoor.ingest(&body));
    let stored = spoor.server.trace(trace(7)).unwrap().unwrap();
    let mut kinds: Vec<_> = digest::decode(&stored)
        .resource_spans
        .iter()
        .flat_map(|one| &one.scope_spans)
        .flat_map(|one| one.spans.iter().map(|span| span.kind))
        .collect();
    kinds.sort_unstable();
    assert_eq!(kinds, [SERVER, CLIENT]);
}

#[test]
fn bytes_that_are_not_otlp_are_refused_with_the_reason() {
    let spoor = start(&[]);
    let client = grpc::Client::connect(spoor.server.otlp_grpc()).unwrap();
    let answer = client.export(&[0x0a, 0x7f, 1, 2], Compression::Identity).unwrap();
    assert_eq!(answer.status, 3, "invalid argument: {answer:?}");
    for (headers, body) in [
        (vec![PROTOBUF], &[0x0a, 0x7f, 1, 2][..]),
        (vec![JSON], b"{\"resourceSpans\": 5}"),
        (vec![JSON], b"{"),
        (vec![PROTOBUF, ("content-encoding", "gzip")], b"not gzip"),
        (vec![PROTOBUF, ("content-encoding", "zstd")], b"not zstd"),
    ] {
        let answer = spoor.post(&headers, body);
        assert_eq!(answer.status, 400, "{headers:?}: {}", answer.text());
        assert!(!answer.body.is_empty(), "{headers:?} gives no reason");
    }
    assert_eq!(spoor.post(&[("content-type", "text/plain")], b"x").status, 415);
}

#[test]
fn unknown_methods_and_paths_are_named_as_such() {
    let spoor = start(&[]);
    let client = grpc::Client::connect(spoor.server.otlp_grpc()).unwrap();
    assert_eq!(client.call("/opentelemetry.proto.collector.metrics.v1.MetricsService/Export", &[]).unwrap().status, 12);
    let mut connection = http::Connection::new(spoor.server.otlp_http());
    assert_eq!(connection.send("POST", "/v1/nothing", &[PROTOBUF], &[]).unwrap().status, 404);
    assert_eq!(connection.send("GET", "/v1/traces", &[], &[]).unwrap().status, 405);
}

#[test]
fn browsers_of_a_configured_origin_may_send_and_others_may_not() {
    let spoor = start(&["--cors-allowed-origins", "https://shop.example"]);
    let mut connection = http::Connection::new(spoor.server.otlp_http());
    let mut preflight = |origin: &str| {
        let headers = [
            ("origin", origin),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "content-type"),
        ];
        connection.send("OPTIONS", "/v1/traces", &headers, &[]).unwrap()
    };
    let allowed = preflight("https://shop.example");
    assert!(allowed.status < 300, "{allowed:?}");
    assert_eq!(allowed.headers["access-control-allow-origin"], "https://shop.example");
    assert!(!preflight("https://other.example").headers.contains_key("access-control-allow-origin"));
}

#[test]
fn many_exports_at_once_over_one_connection_are_all_kept() {
    let spoor = start(&[]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut nasty = Nasty::new(31, a_minute_ago());
    let bodies: Vec<_> = (0..64).map(|_| nasty.request(50)).collect();
    let statuses = runtime.block_on(async {
        let channel = grpc::Channel::connect(spoor.server.otlp_grpc()).await.unwrap();
        let mut calls = Vec::new();
        for body in &bodies {
            let (channel, frame) = (channel.clone(), grpc::frame(body, Compression::Identity));
            calls.push(tokio::spawn(
                async move { channel.export(frame, Compression::Identity, &[]).await.unwrap().status },
            ));
        }
        let mut statuses = Vec::new();
        for call in calls {
            statuses.push(call.await.unwrap());
        }
        statuses
    });
    assert_eq!(statuses, vec![0; 64]);
    let mut ledger = Ledger::default();
    bodies.iter().for_each(|body| ledger.promise(body));
    let mut reader = Reader::new(&spoor.server);
    for id in ledger.traces() {
        assert_eq!(ledger.compare(id, reader.trace(id).unwrap().as_deref(), &Ledger::default()), Ok(()), "trace {id}");
    }
}
