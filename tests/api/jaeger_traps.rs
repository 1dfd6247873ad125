//! Where others who stood in for Jaeger went wrong: one test each.

use serde_json::{Value, json};
use spoor_model::wire::{Reader, put_bytes, put_text};
use spoor_testkit::client::{Compression, grpc, http};

use super::{Spoor, escape, start};

const REQUEST: &[u8] = include_bytes!("../../api/fixtures/jaeger/shop/request.json");

/// The spans of the fixtures: `start` and `end` around them are [`RANGE`].
fn shop() -> Spoor {
    let spoor = start(&["--retention", "0"]);
    assert_eq!(spoor.post(&[("content-type", "application/json")], REQUEST).status, 200);
    spoor
}

const RANGE: &str = "start=1699999999000000&end=1700000060000000";
const V3_RANGE: &str = "query.startTimeMin=2023-11-14T22:00:00Z&query.startTimeMax=2023-11-14T23:00:00Z";

fn data(spoor: &Spoor, path: &str) -> Value {
    let answer = spoor.jaeger(path);
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.json()["data"].clone()
}

fn trace(spoor: &Spoor, id: &str) -> Value {
    data(spoor, &format!("/api/traces/{id}"))[0].clone()
}

fn tag(span: &Value, key: &str) -> Value {
    let tags = span["tags"].as_array().unwrap();
    tags.iter().find(|tag| tag["key"] == key).unwrap_or_else(|| panic!("{key} in {tags:?}")).clone()
}

fn span(trace: &Value, id: u64) -> Value {
    let id = format!("{id:016x}");
    trace["spans"].as_array().unwrap().iter().find(|span| span["spanID"] == id.as_str()).unwrap().clone()
}

/// Status and messages of a call.
fn call(spoor: &Spoor, path: &str, message: &[u8]) -> (u32, Vec<Vec<u8>>) {
    let client = grpc::Client::connect(spoor.server.jaeger_grpc()).unwrap();
    let answer = client.call(path, message).unwrap();
    (answer.status, answer.messages)
}

fn label(answer: &http::Answer) -> &str {
    &answer.headers["content-type"]
}

#[test]
fn t01_errors_are_json_under_the_label_of_text() {
    let spoor = shop();
    let bad = spoor.jaeger("/api/traces/xyz");
    assert_eq!((bad.status, label(&bad)), (400, "text/plain; charset=utf-8"));
    assert_eq!(bad.json()["errors"][0]["code"], 400);
    assert_eq!(label(&spoor.jaeger("/api/services")), "application/json");
    assert_eq!(label(&spoor.jaeger("/api/v3/traces/beef")), "text/plain; charset=utf-8");
}

#[test]
fn t02_each_surface_says_not_found_in_its_own_way() {
    let spoor = shop();
    assert_eq!(spoor.jaeger("/api/traces/beef").status, 404);
    assert_eq!(data(&spoor, &format!("/api/traces?service=nobody&{RANGE}")), json!([]));
    let several = spoor.jaeger("/api/traces?traceID=beef").json();
    assert_eq!((&several["data"], &several["errors"][0]["traceID"]), (&json!([]), &json!("000000000000beef")));
    assert_eq!(spoor.jaeger(&format!("/api/v3/traces?{V3_RANGE}&query.serviceName=nobody")).status, 404);
    assert_eq!(spoor.jaeger(&format!("/api/v3/trace-summaries?{V3_RANGE}&query.serviceName=nobody")).status, 200);
    let (mut bytes, mut hex, mut stored) = (Vec::new(), Vec::new(), Vec::new());
    put_bytes(&mut bytes, 1, &[9; 16]);
    put_text(&mut hex, 1, "09".repeat(16).as_bytes());
    put_bytes(&mut stored, 1, &bytes);
    assert_eq!(call(&spoor, "/jaeger.api_v2.QueryService/GetTrace", &bytes).0, 5);
    assert_eq!(call(&spoor, "/jaeger.api_v3.QueryService/GetTrace", &hex).0, 5);
    assert_eq!(call(&spoor, "/jaeger.storage.v2.TraceReader/GetTraces", &stored), (0, vec![]));
}

#[test]
fn t03_every_route_has_its_unit_of_time() {
    let spoor = shop();
    let root = span(&trace(&spoor, "a1"), 1);
    assert_eq!((&root["startTime"], &root["duration"]), (&json!(1_700_000_000_000_000_u64), &json!(100_000)));
    let calls = "endTs=1700000060000&lookback=3600000";
    assert_ne!(data(&spoor, &format!("/api/dependencies?{calls}")), json!([]));
    assert_eq!(data(&spoor, "/api/dependencies?endTs=1700000060&lookback=3600000"), json!([]));
    let found = |duration: &str| {
        let query = format!("query.serviceName=frontend&query.durationMin={duration}&{V3_RANGE}");
        spoor.jaeger(&format!("/api/v3/trace-summaries?{query}")).json()["summaries"].as_array().unwrap().len()
    };
    assert_eq!((found("100ms"), found("0.7s"), found("701ms")), (2, 1, 0));
}

#[test]
fn t04_times_beside_an_id_are_hints() {
    let spoor = shop();
    for times in ["start=1700000000000&end=1700000060000", "start=1&end=2", "start=1700000000000000"] {
        assert_eq!(data(&spoor, &format!("/api/traces/a1?{times}"))[0]["traceID"], "00000000000000a1", "{times}");
    }
}

#[test]
fn t05_a_search_finds_a_hundred_unless_told_otherwise() {
    let spoor = shop();
    let span = |id: u64| {
        format!(
            r#"{{"traceId":"{id:032x}","spanId":"0000000000000001","name":"many",
            "startTimeUnixNano":"1700000010000000000","endTimeUnixNano":"1700000010000000001"}}"#
        )
    };
    let spans: Vec<String> = (1000..1101).map(span).collect();
    let resource = r#"{"attributes":[{"key":"service.name","value":{"stringValue":"many"}}]}"#;
    let spans = spans.join(",");
    let body = format!(r#"{{"resourceSpans":[{{"resource":{resource},"scopeSpans":[{{"spans":[{spans}]}}]}}]}}"#);
    assert_eq!(spoor.post(&[("content-type", "application/json")], body.as_bytes()).status, 200);
    let found =
        |limit: &str| data(&spoor, &format!("/api/traces?service=many&{RANGE}{limit}")).as_array().unwrap().len();
    assert_eq!((found(""), found("&limit=20"), found("&limit=1500")), (100, 20, 101));
}

#[test]
fn t06_values_are_texts_in_the_question_and_typed_in_the_store() {
    let spoor = shop();
    for tags in [r#"{"http.status_code":"200"}"#, r#"{"ratio":"1.5"}"#, r#"{"cached":"true"}"#] {
        let found = data(&spoor, &format!("/api/traces?service=frontend&tags={}&{RANGE}", escape(tags)));
        assert_ne!(found, json!([]), "{tags}");
    }
}

#[test]
fn t07_lists_are_never_null() {
    let spoor = start(&[]);
    for path in ["/api/services", "/api/services/x/operations", "/api/operations?service=x", "/api/traces?service=x"] {
        assert_eq!(data(&spoor, path), json!([]), "{path}");
    }
    assert_eq!(data(&spoor, "/api/dependencies"), json!([]));
    assert_eq!(spoor.jaeger("/api/metrics/calls?service=x").json()["metrics"], json!([]));
    let spoor = shop();
    let bare = span(&trace(&spoor, "e5"), 1);
    assert_eq!((&bare["references"], &bare["tags"], &bare["logs"]), (&json!([]), &json!([]), &json!([])));
    assert_eq!(bare["warnings"], Value::Null);
}

#[test]
fn t08_summaries_have_numbers_for_counts_and_long_ids() {
    let spoor = shop();
    let summaries = spoor.jaeger(&format!("/api/v3/trace-summaries?{V3_RANGE}")).json()["summaries"].clone();
    for summary in summaries.as_array().unwrap() {
        assert!(summary["spanCount"].is_u64(), "{summary}");
        assert!(summary["minStartTimeUnixNano"].is_string(), "{summary}");
        assert_eq!(summary["traceId"].as_str().unwrap().len(), 32, "{summary}");
    }
    assert_eq!(summaries.as_array().unwrap().len(), 6);
}

#[test]
fn t09_the_key_of_an_empty_list_of_services_stays() {
    assert_eq!(start(&[]).jaeger("/api/v3/services").text(), r#"{"services":[]}"#);
}

#[test]
fn t10_large_integers_are_texts_and_nan_is_no_number() {
    let spoor = shop();
    let big = tag(&span(&trace(&spoor, "a1"), 1), "big");
    assert_eq!(big, json!({"key": "big", "type": "int64", "value": "9007199254740993"}));
    let nan = tag(&span(&trace(&spoor, "d4"), 2), "nan");
    assert_eq!(nan, json!({"key": "nan", "type": "float64", "value": "NaN"}));
}

#[test]
fn t11_processes_are_numbered_and_each_is_there_once() {
    let spoor = shop();
    let trace = trace(&spoor, "a1");
    let processes = trace["processes"].as_object().unwrap();
    assert_eq!(processes.keys().collect::<Vec<_>>(), ["p1", "p2"]);
    let names: Vec<&Value> = processes.values().map(|process| &process["serviceName"]).collect();
    assert_eq!(names, ["frontend", "cart"]);
    assert_eq!((&span(&trace, 1)["processID"], &span(&trace, 4)["processID"]), (&json!("p1"), &json!("p2")));
}

#[test]
fn t12_both_marks_and_the_base_path_are_written_into_the_page() {
    let folder = tempfile::tempdir().unwrap();
    let index = "<base href=\"/\"/>JAEGER_STORAGE_CAPABILITIES = DEFAULT_STORAGE_CAPABILITIES;\n\
        JAEGER_BACKEND_CAPABILITIES = DEFAULT_BACKEND_CAPABILITIES;<div id=\"jaeger-ui-root\"></div>";
    std::fs::write(folder.path().join("index.html"), index).unwrap();
    let spoor = start(&["--jaeger-ui-dir", folder.path().to_str().unwrap(), "--jaeger-base-path", "/trace"]);
    for path in ["/trace", "/trace/", "/trace/search?service=x", "/trace/dependencies"] {
        let page = spoor.jaeger(path);
        assert_eq!((page.status, label(&page)), (200, "text/html; charset=utf-8"), "{path}");
        assert!(page.text().contains("JAEGER_STORAGE_CAPABILITIES = {"), "{}", page.text());
        assert!(page.text().contains("JAEGER_BACKEND_CAPABILITIES = {"), "{}", page.text());
        assert!(page.text().contains("<base href=\"/trace/\"/>"), "{}", page.text());
    }
    assert_eq!(data(&spoor, "/trace/api/services"), json!([]));
}

#[test]
fn t13_spans_that_share_an_id_are_both_there() {
    let spoor = shop();
    let raw = data(&spoor, "/api/traces/f6?raw=true");
    let ids: Vec<&Value> = raw[0]["spans"].as_array().unwrap().iter().map(|span| &span["spanID"]).collect();
    assert_eq!(ids, ["0000000000000007", "0000000000000007", "0000000000000008"]);
}

#[test]
fn t14_lists_and_maps_are_json_texts() {
    let spoor = shop();
    let root = span(&trace(&spoor, "a1"), 1);
    assert_eq!(tag(&root, "list"), json!({"key": "list", "type": "string", "value": "[\"a\",1]"}));
    assert_eq!(tag(&root, "map"), json!({"key": "map", "type": "string", "value": "{\"k\":1}"}));
    assert_eq!(tag(&root, "raw"), json!({"key": "raw", "type": "binary", "value": "AQI="}));
}

#[test]
fn t15_an_error_is_a_boolean_made_of_the_status() {
    let spoor = shop();
    let failed = span(&trace(&spoor, "4bf92f3577b34da6a3ce929d0e0e4736"), 1);
    assert_eq!(tag(&failed, "error"), json!({"key": "error", "type": "bool", "value": true}));
    let found = data(&spoor, &format!("/api/traces?service=frontend&tag=error:true&{RANGE}"));
    assert_eq!(found.as_array().unwrap().len(), 1);
}

#[test]
fn t16_a_kind_that_is_not_given_reads_three_ways() {
    let spoor = shop();
    let service = "missing-service-name";
    let legacy = data(&spoor, &format!("/api/operations?service={service}"));
    assert_eq!(legacy, json!([{"name": "nameless", "spanKind": ""}]));
    let v3 = spoor.jaeger(&format!("/api/v3/operations?service={service}")).json();
    assert_eq!(v3["operations"], json!([{"name": "nameless", "spanKind": "internal"}]));
    let (mut request, mut operation) = (Vec::new(), Vec::new());
    put_text(&mut request, 1, service.as_bytes());
    put_text(&mut operation, 1, b"nameless");
    let mut expected = Vec::new();
    put_bytes(&mut expected, 1, &operation);
    assert_eq!(call(&spoor, "/jaeger.api_v3.QueryService/GetOperations", &request), (0, vec![expected]));
}

#[test]
fn t17_what_is_unknown_below_api_is_no_page() {
    let spoor = start(&[]);
    for path in ["/api/features", "/api/v3/nothing", "/api", "/api/"] {
        let answer = spoor.jaeger(path);
        assert_eq!((answer.status, answer.text().as_str()), (404, "404 page not found\n"), "{path}");
    }
    assert!(spoor.jaeger("/").text().contains("--jaeger-ui-dir"));
}

#[test]
fn t18_series_have_no_envelope() {
    let spoor = shop();
    let query = "service=frontend&endTs=1700000060000&lookback=60000&step=60000&ratePer=600000";
    let family = spoor.jaeger(&format!("/api/metrics/calls?{query}")).json();
    let keys: Vec<&String> = family.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["help", "metrics", "name", "type"]);
    assert_eq!(family["metrics"][0]["labels"], json!([{"name": "service_name", "value": "frontend"}]));
    // Three spans of servers in ten minutes.
    assert_eq!(family["metrics"][0]["metricPoints"][1]["gaugeValue"]["doubleValue"], json!(0.005));
}

#[test]
fn t19_names_of_services_are_escaped_in_paths() {
    let spoor = shop();
    for name in ["a%2Fb%20c%2Bd", "a%2fb%20c+d"] {
        let found = data(&spoor, &format!("/api/services/{name}/operations"));
        assert_eq!(found, json!(["plain", "receive", "send"]), "{name}");
    }
}

#[test]
fn t20_messages_have_ten_spans_at_most_and_stay_small() {
    let spoor = start(&["--retention", "0"]);
    let span = |id: u64| {
        let text = "x".repeat(100_000);
        format!(
            r#"{{"traceId":"000000000000000000000000000000a1","spanId":"{id:016x}","name":"n","attributes":[{{"key":"k",
            "value":{{"stringValue":"{text}"}}}}],"startTimeUnixNano":"1700000000000000000","endTimeUnixNano":"1700000000000000001"}}"#
        )
    };
    let spans = (1..=60).map(span).collect::<Vec<_>>().join(",");
    let body = format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{spans}]}}]}}]}}"#);
    assert_eq!(spoor.post(&[("content-type", "application/json")], body.as_bytes()).status, 200);
    let mut id = [0; 16];
    id[15] = 0xa1;
    let (mut bytes, mut stored) = (Vec::new(), Vec::new());
    put_bytes(&mut bytes, 1, &id);
    put_bytes(&mut stored, 1, &bytes);
    let (status, chunks) = call(&spoor, "/jaeger.api_v2.QueryService/GetTrace", &bytes);
    let count = |chunk: &Vec<u8>| {
        let mut reader = Reader::new(chunk);
        std::iter::from_fn(|| reader.next_field().unwrap()).filter(|(number, _)| *number == 1).count()
    };
    assert_eq!((status, chunks.iter().map(count).collect::<Vec<_>>()), (0, vec![10; 6]));
    let (status, messages) = call(&spoor, "/jaeger.storage.v2.TraceReader/GetTraces", &stored);
    assert!(status == 0 && messages.len() > 1 && messages.iter().all(|message| message.len() < 4 << 20));
}

#[test]
fn a_jaeger_writes_to_the_port_that_it_reads_from() {
    let spoor = start(&["--retention", "0"]);
    let request = spoor_otlp::json::to_protobuf(REQUEST).unwrap();
    let client = grpc::Client::connect(spoor.server.jaeger_grpc()).unwrap();
    let answer = client.export(&request, Compression::Identity).unwrap();
    assert_eq!((answer.status, answer.partial_success()), (0, None));
    assert_eq!(trace(&spoor, "a1")["spans"].as_array().unwrap().len(), 4);
}
