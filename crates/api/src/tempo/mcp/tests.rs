use axum::Router;
use axum::body::Body;
use http::Request;
use serde_json::{Value as Json, json};
use spoor_model::TenantId;
use tower::ServiceExt;

use crate::fixtures::{Reply, Store, send, tempo};
use crate::tenant::Tenancy;

const DATA: &[u8] = include_bytes!("../../../../../api/fixtures/tempo/shop/request.json");

fn router() -> Router {
    tempo(Store::with(DATA), Tenancy::Single)
}

async fn post(router: &Router, headers: &[(&str, &str)], body: &Json) -> Reply {
    let mut request = Request::post("/api/mcp").header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = router.clone().oneshot(request.body(Body::from(body.to_string())).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap().to_vec();
    Reply { status: parts.status, headers: parts.headers, body }
}

async fn request(method: &str, params: Json) -> Json {
    post(&router(), &[], &json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params})).await.json()
}

async fn call(tool: &str, arguments: Json) -> Json {
    let answer = request("tools/call", json!({"name": tool, "arguments": arguments})).await;
    assert_eq!((&answer["id"], &answer["jsonrpc"]), (&json!(7), &json!("2.0")), "{answer}");
    answer["result"].clone()
}

/// The text of a call that works, read as JSON.
async fn found(tool: &str, arguments: Json) -> Json {
    let result = call(tool, arguments).await;
    assert_eq!(result["isError"], false, "{result}");
    serde_json::from_str(result["content"][0]["text"].as_str().unwrap()).unwrap()
}

#[tokio::test]
async fn a_client_agrees_on_a_version_and_is_told_what_there_is() {
    let known = request("initialize", json!({"protocolVersion": "2025-03-26", "capabilities": {}})).await;
    assert_eq!(known["result"]["protocolVersion"], "2025-03-26");
    assert_eq!(known["result"]["serverInfo"]["name"], "tempo");
    let future = request("initialize", json!({"protocolVersion": "2099-01-01"})).await;
    assert_eq!(future["result"]["protocolVersion"], "2025-06-18");
    assert_eq!(request("ping", json!({})).await["result"], json!({}));
    let tools = request("tools/list", json!({})).await["result"]["tools"].clone();
    let names: Vec<&str> = tools.as_array().unwrap().iter().map(|tool| tool["name"].as_str().unwrap()).collect();
    let expected = [
        "traceql-search",
        "traceql-metrics-instant",
        "traceql-metrics-range",
        "get-trace",
        "trace-diff",
        "get-attribute-names",
        "get-attribute-values",
        "docs-traceql",
        "docs-config",
    ];
    assert_eq!(names, expected);
    assert_eq!(tools[0]["inputSchema"]["required"], json!(["query"]));
    let resources = request("resources/list", json!({})).await["result"]["resources"].clone();
    let first = request("resources/read", json!({"uri": resources[0]["uri"]})).await;
    assert!(first["result"]["contents"][0]["text"].as_str().unwrap().starts_with("# TraceQL"));
}

#[tokio::test]
async fn tools_answer_what_http_answers() {
    let search = found("traceql-search", json!({"query": "{ status = error }"})).await;
    assert_eq!(search["traces"][0]["traceID"], "a1");
    let past = json!({"query": "{ }", "start": "2020-01-01T00:00:00Z", "end": "2020-01-01T01:00:00Z"});
    assert_eq!(found("traceql-search", past).await["traces"], json!([]));
    let instant = found("traceql-metrics-instant", json!({"query": "{ } | count_over_time()"})).await;
    assert_eq!(instant["series"][0]["value"], 9.0);
    let range = found("traceql-metrics-range", json!({"query": "{ } | count_over_time()"})).await;
    assert!(range["series"][0]["samples"].as_array().unwrap().len() > 10);
    let trace = found("get-trace", json!({"trace_id": "a1"})).await;
    assert_eq!((&trace["trace"]["traceId"], &trace["status"]), (&json!(format!("{:0>32}", "a1")), &json!("COMPLETE")));
    let diff = found("trace-diff", json!({"base_trace_id": "a2", "compare_trace_id": "a1"})).await;
    assert_eq!(diff["summary"]["signals"]["spanCount"], json!({"base": 3, "compare": 4, "delta": 1}));
    let names = found("get-attribute-names", json!({"scope": "resource"})).await;
    assert_eq!(names["scopes"][0]["tags"], json!(["service.name", "service.namespace"]));
    let values = json!({"name": "resource.service.name", "filter-query": "{ status = error }"});
    assert_eq!(found("get-attribute-values", values).await["tagValues"], json!({"string": ["pay", "web"]}));
    let docs = call("docs-traceql", json!({"name": "metrics"})).await;
    assert!(docs["content"][0]["text"].as_str().unwrap().starts_with("## Time series"));
    assert_eq!(docs["_meta"], json!({"type": "documentation", "encoding": "markdown", "version": "1"}));
}

#[tokio::test]
async fn mistakes_are_told_to_the_assistant() {
    for (tool, arguments, part) in [
        ("traceql-search", json!({"query": "{ span.a = }"}), "invalid TraceQL query: parse error at line 1"),
        ("traceql-search", json!({"query": "{ } | rate()"}), "traceql-metrics-"),
        ("traceql-metrics-instant", json!({"query": "{ }"}), "traceql-search"),
        ("traceql-search", json!({}), "argument query must be a text"),
        ("traceql-search", json!({"query": "{ }", "limit": "1"}), "no argument limit"),
        ("traceql-search", json!({"query": "{ }", "start": "yesterday"}), "invalid start"),
        ("get-trace", json!({"trace_id": "xyz"}), "invalid trace id"),
        ("trace-diff", json!({"base_trace_id": "a1", "compare_trace_id": "beef"}), "Not Found"),
        ("docs-traceql", json!({"name": "all"}), "expected one of basic"),
    ] {
        let result = call(tool, arguments.clone()).await;
        assert_eq!(result["isError"], true, "{tool} {arguments}");
        let text = result["content"][0]["text"].as_str().unwrap();
        assert!(text.contains(part), "{tool} {arguments}: {text}");
    }
}

#[tokio::test]
async fn what_is_no_request_is_refused_as_json_rpc_has_it() {
    let code = |answer: &Json| answer["error"]["code"].as_i64().unwrap();
    assert_eq!(code(&request("tools/fly", json!({})).await), -32_601);
    assert_eq!(code(&request("tools/call", json!({"name": "fly"})).await), -32_602);
    assert_eq!(code(&request("resources/read", json!({"uri": "docs://nothing/there"})).await), -32_002);
    assert_eq!(code(&post(&router(), &[], &json!({"method": "ping"})).await.json()), -32_600);
    assert_eq!(code(&post(&router(), &[], &json!([])).await.json()), -32_600);
    let batch = json!([{"jsonrpc": "2.0", "method": "notifications/initialized"}, {"jsonrpc": "2.0", "id": "a", "method": "ping"}]);
    assert_eq!(post(&router(), &[], &batch).await.json(), json!([{"jsonrpc": "2.0", "id": "a", "result": {}}]));
    let notified = post(&router(), &[], &json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await;
    assert_eq!((notified.status.as_u16(), notified.body.len()), (202, 0));
    let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
    assert_eq!(post(&router(), &[("mcp-protocol-version", "1999-01-01")], &ping).await.status.as_u16(), 400);
    assert_eq!(post(&router(), &[("mcp-protocol-version", "2025-06-18")], &ping).await.status.as_u16(), 200);
}

#[tokio::test]
async fn grafanas_probe_works_and_other_pages_may_not_ask() {
    assert_eq!(send(&router(), "DELETE", "/api/mcp", &[]).await.status.as_u16(), 200);
    let stream = send(&router(), "GET", "/api/mcp", &[]).await;
    assert_eq!((stream.status.as_u16(), stream.header("allow")), (405, Some("POST, DELETE")));
    assert_eq!(send(&router(), "DELETE", "/api/mcp", &[("origin", "https://evil.example")]).await.status.as_u16(), 403);
    assert_eq!(send(&router(), "DELETE", "/api/mcp", &[("origin", "https://page.example")]).await.status.as_u16(), 200);
}

#[tokio::test]
async fn assistants_see_their_tenants_only() {
    let tenant = |name| TenantId::parse(name).unwrap();
    let store = Store::default().and(tenant("one"), DATA).and(tenant("two"), DATA);
    let router = tempo(store, Tenancy::by_header());
    let ask = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": "get-trace", "arguments": {"trace_id": "a1"}}});
    assert_eq!(post(&router, &[], &ask).await.status.as_u16(), 401);
    let one = post(&router, &[("x-scope-orgid", "one")], &ask).await.json();
    assert!(one["result"]["content"][0]["text"].as_str().unwrap().contains("POST /pay"));
    let none = post(&router, &[("x-scope-orgid", "three")], &ask).await.json();
    assert_eq!(none["result"]["content"][0]["text"], "{}");
}
