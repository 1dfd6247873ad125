use serde_json::{Value as Json, json};

use crate::fixtures::{Reply, Store, get, jaeger};
use crate::tenant::Tenancy;

const REQUEST: &[u8] = include_bytes!("../../../../../api/fixtures/jaeger/worked_example/request.json");

const RANGE: &str = "query.startTimeMin=2023-11-14T00:00:00Z&query.startTimeMax=2023-11-15T00:00:00.5%2B00:00";

const EXISTS: &str =
    "query.filter=%7B%22op%22:%22exists%22,%22args%22:%5B%7B%22attr%22:%7B%22key%22:%22z%22%7D%7D%5D%7D";

async fn ask(path: &str) -> Reply {
    get(&jaeger(Store::with(REQUEST), Tenancy::Single), path, &[]).await
}

fn error(reply: &Reply) -> (u16, String) {
    assert_eq!(reply.header("content-type"), Some("text/plain; charset=utf-8"));
    assert!(reply.text().ends_with('\n'));
    let body: Json = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(body["error"]["httpCode"], reply.status.as_u16());
    (reply.status.as_u16(), body["error"]["message"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_trace_is_otlp_json_with_hex_ids_and_numbers_for_enums() {
    let reply = ask("/api/v3/traces/a0b1?rawTraces=true").await;
    assert_eq!(reply.header("content-type"), Some("application/json"));
    let mut sent: Json = serde_json::from_slice(REQUEST).unwrap();
    for span in sent["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array_mut().unwrap() {
        let attributes = span.get_mut("attributes").and_then(Json::as_array_mut);
        attributes.into_iter().for_each(|list| list.sort_by_key(|attribute| attribute["key"].to_string()));
    }
    // What was sent is what is told, by key, but for names that are not written when they are zero.
    assert_eq!(reply.json(), json!({"result": {"resourceSpans": sent["resourceSpans"]}}));
}

#[tokio::test]
async fn warnings_are_an_attribute_unless_the_trace_is_raw() {
    let answer = ask("/api/v3/traces/a0b1").await.json();
    let span = &answer["result"]["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
    let text = "parent span ID=00000000000000c1 is not in the trace; skipping clock skew adjustment";
    let expected = json!({"key": "@jaeger@warnings", "value": {"arrayValue": {"values": [{"stringValue": text}]}}});
    assert_eq!(span["attributes"].as_array().unwrap().last(), Some(&expected));
}

#[tokio::test]
async fn nothing_found_is_404_for_traces_and_an_empty_list_for_summaries() {
    for path in ["/api/v3/traces/beef", &format!("/api/v3/traces?{RANGE}&query.serviceName=nobody")] {
        assert_eq!(error(&ask(path).await), (404, "No traces found".to_owned()), "{path}");
    }
    let none = ask(&format!("/api/v3/trace-summaries?{RANGE}&query.serviceName=nobody")).await;
    assert_eq!(none.text(), r#"{"summaries":[]}"#);
    let empty = get(&jaeger(Store::default(), Tenancy::Single), "/api/v3/services", &[]).await;
    assert_eq!(empty.text(), r#"{"services":[]}"#);
}

#[tokio::test]
async fn summaries_have_numbers_for_counts_and_texts_for_times() {
    let summaries = ask(&format!("/api/v3/trace-summaries?{RANGE}")).await.json();
    let expected = json!({"summaries": [{"traceId": "0000000000000000000000000000a0b1",
        "minStartTimeUnixNano": "1700000000000001999", "maxEndTimeUnixNano": "1700000000000005000",
        "spanCount": 1, "errorSpanCount": 1, "orphanSpanCount": 1,
        "services": [{"name": "cart", "spanCount": 1, "errorSpanCount": 1}]}]});
    assert_eq!(summaries, expected);
}

#[tokio::test]
async fn searches_take_both_spellings_and_a_blank_for_a_plus() {
    let old = "query.start_time_min=2023-11-14T00:00:00+00:00&query.start_time_max=2023-11-15T00:00:00Z";
    for query in [
        format!("{old}&query.service_name=cart&query.operation_name=GET+/cart"),
        format!("{RANGE}&query.attributes=%7B%22sc%22:%22x%22%7D"),
        format!("{RANGE}&query.durationMin=3us&query.durationMax=4us&query.searchDepth=1"),
        format!("{RANGE}&query.serviceName=cart&query.service_name=nobody"),
    ] {
        let found = ask(&format!("/api/v3/traces?{query}")).await;
        assert_eq!(found.status.as_u16(), 200, "{query}: {}", found.text());
    }
}

#[tokio::test]
async fn mistakes_are_named() {
    for (query, text) in [
        ("query.serviceName=a", "query.startTimeMin and query.startTimeMax are required"),
        (
            "query.startTimeMin=2023-11-14T00:00:00Z&query.startTimeMax=2023-11-14T00:00:00Z",
            "query.startTimeMin must be before query.startTimeMax",
        ),
        ("query.startTimeMin=soon", "malformed parameter query.startTimeMin: "),
        (&format!("{RANGE}&query.durationMin=5"), "malformed parameter query.durationMin: "),
        (&format!("{RANGE}&query.attributes=x"), "malformed parameter query.attributes: "),
        (&format!("{RANGE}&query.searchDepth=x"), "malformed parameter query.searchDepth: "),
        (&format!("{RANGE}&query.rawTraces=x"), "malformed parameter query.rawTraces: "),
        (&format!("{RANGE}&query.filter=x"), "malformed parameter query.filter: expected value"),
        (
            &format!("{RANGE}&query.filter=%7B%22op%22:%22and%22%7D"),
            "malformed parameter query.filter: and needs arguments",
        ),
        (&format!("{RANGE}&{EXISTS}&query.serviceName=s"), "query.filter cannot be combined with query.serviceName, "),
    ] {
        let (status, message) = error(&ask(&format!("/api/v3/traces?{query}")).await);
        assert!(status == 400 && message.starts_with(text), "{query}: {status} {message}");
    }
}

#[tokio::test]
async fn a_kind_that_is_not_given_reads_internal_here() {
    let json = br#"{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"s"}}]},
        "scopeSpans":[{"spans":[{"traceId":"000000000000000000000000000000a1","spanId":"0000000000000001","name":"o",
        "startTimeUnixNano":"1700000001000000000","endTimeUnixNano":"1700000001500000000"}]}]}]}"#;
    let router = jaeger(Store::with(json), Tenancy::Single);
    let v3 = get(&router, "/api/v3/operations?service=s", &[]).await;
    assert_eq!(v3.text(), r#"{"operations":[{"name":"o","spanKind":"internal"}]}"#);
    let legacy = get(&router, "/api/operations?service=s", &[]).await.json();
    assert_eq!(legacy["data"], json!([{"name": "o", "spanKind": ""}]));
}
