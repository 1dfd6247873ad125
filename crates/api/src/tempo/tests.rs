use http::StatusCode;
use serde_json::{Value as Json, json};
use spoor_model::TenantId;
use spoor_model::wire::{Field, Reader};

use crate::fixtures::{Reply, Store, described, get, send, tempo, tempo_state};
use crate::tenant::Tenancy;

const REQUEST: &[u8] = include_bytes!("../../../../api/fixtures/tempo/trace_by_id/request.json");
const RESPONSE_V1: &str = include_str!("../../../../api/fixtures/tempo/trace_by_id/response.v1.json");
const PROTOBUF: (&str, &str) = ("accept", "application/protobuf");

/// Two traces, one second apart.
const SHOP: &[u8] = br#"{"resourceSpans":[
 {"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"shop"}}]},"scopeSpans":[{"spans":[
   {"traceId":"000000000000000000000000000000a1","spanId":"0000000000000001","name":"GET /","kind":2,"status":{"code":2},
    "startTimeUnixNano":"1700000001000000000","endTimeUnixNano":"1700000001500000000",
    "attributes":[{"key":"http.status_code","value":{"intValue":"500"}},{"key":"a/b","value":{"doubleValue":2.0}}]},
   {"traceId":"000000000000000000000000000000a2","spanId":"0000000000000002","name":"PUT /","kind":2,
    "startTimeUnixNano":"1700000002000000000","endTimeUnixNano":"1700000002000001000"}]}]},
 {"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"db"}}]},"scopeSpans":[{"spans":[
   {"traceId":"000000000000000000000000000000a1","spanId":"0000000000000003","parentSpanId":"0000000000000001","name":"SELECT",
    "kind":3,"startTimeUnixNano":"1700000001100000000","endTimeUnixNano":"1700000001200000000"}]}]}]}"#;

fn shop() -> axum::Router {
    tempo(Store::with(SHOP), Tenancy::Single)
}

fn example() -> axum::Router {
    tempo(Store::with(REQUEST), Tenancy::Single)
}

/// The fields of a message, in order.
fn fields(message: &[u8]) -> Vec<(u32, Vec<u8>)> {
    let mut reader = Reader::new(message);
    let mut fields = Vec::new();
    while let Some((number, field)) = reader.next_field().unwrap() {
        let content = match field {
            Field::Bytes(bytes) => bytes.to_vec(),
            Field::Varint(number) => number.to_string().into_bytes(),
            other => panic!("{other:?}"),
        };
        fields.push((number, content));
    }
    fields
}

async fn found(query: &str) -> Vec<String> {
    let reply = get(&shop(), &format!("/api/search?{query}"), &[]).await.json();
    reply["traces"].as_array().unwrap().iter().map(|trace| trace["traceID"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_trace_is_answered_in_tempos_json() {
    let expected: Json = serde_json::from_str(RESPONSE_V1).unwrap();
    let v1 = get(&example(), "/api/traces/1", &[]).await;
    assert_eq!(v1.header("content-type"), Some("application/json"));
    assert_eq!(v1.json(), expected);
    let v2 = get(&example(), "/api/v2/traces/00000000000000000000000000000001", &[]).await.json();
    assert_eq!(v2, json!({"trace": {"resourceSpans": expected["batches"]}, "metrics": {}}));
}

#[tokio::test]
async fn a_trace_in_protobuf_is_what_was_sent() {
    let v1 = get(&example(), "/api/traces/1", &[PROTOBUF]).await;
    assert_eq!(v1.header("content-type"), Some("application/protobuf"));
    let groups = fields(&v1.body);
    assert_eq!(groups.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [1, 1]);
    let resource = &fields(&groups[1].1)[0];
    assert_eq!(*resource, (1, vec![]), "an empty resource stays empty, and is there");
}

#[tokio::test]
async fn grafanas_form_names_resources_without_attributes() {
    let v2 = get(&example(), "/api/v2/traces/1", &[PROTOBUF]).await;
    let response = fields(&v2.body);
    assert_eq!(response.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [1, 2]);
    let groups = fields(&response[0].1);
    let attribute = fields(&fields(&fields(&groups[1].1)[0].1)[0].1);
    assert_eq!(attribute[0].1, b"service.name");
    assert_eq!(fields(&attribute[1].1)[0].1, b"OTLPResourceNoServiceName");
}

#[tokio::test]
async fn a_missing_trace_is_404_in_version_1_and_empty_in_version_2() {
    let v1 = get(&shop(), "/api/traces/beef", &[]).await;
    assert_eq!((v1.status, v1.text()), (StatusCode::NOT_FOUND, ""));
    let v2 = get(&shop(), "/api/v2/traces/beef", &[]).await;
    assert_eq!((v2.status, v2.text()), (StatusCode::OK, r#"{"trace":{},"metrics":{}}"#));
    let protobuf = get(&shop(), "/api/v2/traces/beef", &[PROTOBUF]).await;
    assert_eq!(protobuf.body, [0x0a, 0, 0x12, 0], "the trace is there, and empty");
}

#[tokio::test]
async fn odd_ids_and_parameters_are_refused() {
    let text = |reply: Reply| (reply.status.as_u16(), reply.text().to_owned());
    let bad = text(get(&shop(), "/api/traces/12x4", &[]).await);
    assert_eq!(
        bad,
        (400, "invalid trace id \"12x4\": id has the character 'x' at position 3, expected a hex digit".into())
    );
    assert_eq!(text(get(&shop(), &format!("/api/traces/{}", "1".repeat(33)), &[]).await).0, 400);
    assert_eq!(text(get(&shop(), "/api/v2/traces/a1?start=2&end=2", &[]).await).0, 400);
    assert_eq!(text(get(&shop(), "/api/v2/traces/a1?mode=some", &[]).await).0, 400);
    assert_eq!(get(&shop(), "/api/traces/a1/more", &[]).await.status, StatusCode::NOT_FOUND);
    assert_eq!(get(&shop(), "/api/traces/A1?start=&mode=blocks", &[]).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_filtered_trace_has_what_matches_and_says_that_it_is_partial() {
    let names = |json: &Json| -> Vec<String> {
        let groups = json["trace"]["resourceSpans"].as_array().cloned().unwrap_or_default();
        groups.iter().map(|group| group["scopeSpans"][0]["spans"][0]["name"].as_str().unwrap().to_owned()).collect()
    };
    let q = "q=%7B+kind+%3D+client+%7D";
    let json = get(&shop(), &format!("/api/v2/traces/a1?{q}"), &[]).await.json();
    assert_eq!((names(&json), &json["status"]), (vec!["SELECT".to_owned()], &json!("PARTIAL")));
    assert_eq!(json["message"], "partial trace: 1 of 2 spans do not match q");
    let json = get(&shop(), &format!("/api/v2/traces/a1?{q}&keep_hierarchy=true"), &[]).await.json();
    assert_eq!((names(&json).len(), json.get("status")), (2, None));
    let json = get(&shop(), "/api/v2/traces/a1?q=%7Bkind%3Dserver%7D&match_depth=1", &[]).await.json();
    assert_eq!(names(&json).len(), 2);
    let json = get(&shop(), "/api/v2/traces/a1?q=%7Bname%3D%22x%22%7D", &[]).await.json();
    assert_eq!((names(&json).len(), &json["status"]), (0, &json!("PARTIAL")));
    for q in
        ["%7B%7D+%26%26+%7B%7D", "%7B%7D%7Cselect(.a)", "%7Btrace:id%3D%22a1%22%7D", "%7B", "%7B%7D&match_depth=-2"]
    {
        assert_eq!(get(&shop(), &format!("/api/v2/traces/a1?q={q}"), &[]).await.status.as_u16(), 400, "{q}");
    }
}

#[tokio::test]
async fn traces_are_found_by_traceql_newest_first() {
    assert_eq!(found("q=%7B%7D").await, ["a2", "a1"]);
    assert_eq!(found("q=%7B%7D&limit=1").await, ["a2"]);
    assert_eq!(found("q=%7B+span.http.status_code+%3E%3D+500+%7D").await, ["a1"]);
    assert_eq!(found("q=%7B%7D&start=1700000002&end=1700000003").await, ["a2"]);
    assert_eq!(found("q=%7B%7D&start=1700000000&end=1700000001").await, ["a1"], "the last second counts whole");
    assert_eq!(found("q=%7B%7D&minDuration=1ms").await, ["a1"]);
    assert_eq!(found("q=%7B%7D&since=8500ms").await, ["a2", "a1"]);
}

#[tokio::test]
async fn kialis_query_gets_a_span_set_with_what_it_selects() {
    let q =
        "q=%7B+.service.name+%3D+%22shop%22++%7D+%26%26+%7B++%7D%7C+select(status,+.node_id,+resource.hostname,+name)";
    let json = get(&shop(), &format!("/api/search?{q}&spss=10&limit=5&minDuration=1ms"), &[]).await.json();
    let traces = json["traces"].as_array().unwrap();
    assert_eq!((traces.len(), &traces[0]["spanSet"]["matched"]), (1, &json!(2)), "durations count beside q");
    let span = &traces[0]["spanSet"]["spans"][0];
    let attributes = json!([
        {"key": "service.name", "value": {"stringValue": "shop"}}, {"key": "status", "value": {"stringValue": "error"}}]);
    assert_eq!((&span["name"], &span["attributes"]), (&json!("GET /"), &attributes));
}

#[tokio::test]
async fn a_match_shows_what_was_asked_about() {
    let json = get(&shop(), "/api/search?q=%7Bspan.http.status_code%3D500+%26%26+status%3Derror%7D", &[]).await.json();
    let trace = &json["traces"][0];
    assert_eq!(trace["spanSet"], trace["spanSets"][0]);
    let attributes = json!([
        {"key": "http.status_code", "value": {"intValue": "500"}}, {"key": "status", "value": {"stringValue": "error"}}]);
    assert_eq!(trace["spanSet"]["spans"][0]["attributes"], attributes);
    assert_eq!((&trace["durationMs"], &trace["rootServiceName"]), (&json!(500), &json!("shop")));
}

#[tokio::test]
async fn older_clients_search_by_tags() {
    assert_eq!(found("tags=service.name%3Dsho").await, ["a2", "a1"], "by part of the name");
    assert_eq!(found("tags=service.name%3Dshop+name%3DPUT").await, ["a2"]);
    assert_eq!(found("tags=service.name%3Ddb+http.status_code%3D500").await, Vec::<String>::new(), "one resource");
    assert_eq!(found("tags=http.status_code%3D500").await, ["a1"]);
    assert_eq!(found("tags=root.service.name%3Dshop+status.code%3Derror").await, ["a1"]);
    assert_eq!(found("http.status_code=500").await, ["a1"]);
    assert_eq!(found("minDuration=400ms").await, ["a1"]);
    assert_eq!(found("").await, ["a2", "a1"]);
}

#[tokio::test]
async fn no_match_is_an_empty_list() {
    let reply = get(&shop(), "/api/search?q=%7Bname%3D%22none%22%7D", &[]).await.json();
    assert_eq!(reply["traces"], json!([]));
    assert!(reply["metrics"].is_object());
}

#[tokio::test]
async fn names_are_listed_by_scope_and_without() {
    let v2 = get(&shop(), "/api/v2/search/tags?limit=5000", &[]).await.json();
    let scopes: Vec<&str> =
        v2["scopes"].as_array().unwrap().iter().map(|scope| scope["name"].as_str().unwrap()).collect();
    assert_eq!(scopes, ["resource", "span", "intrinsic"]);
    assert_eq!(v2["scopes"][1]["tags"], json!(["a/b", "http.status_code"]));
    assert_eq!(v2["scopes"][2]["tags"].as_array().unwrap().len(), 25);
    let one = get(&shop(), "/api/v2/search/tags?scope=span&limit=1", &[]).await.json();
    assert_eq!(one["scopes"], json!([{"name": "span", "tags": ["a/b"]}]));
    let v1 = get(&shop(), "/api/search/tags", &[]).await.json();
    assert_eq!(v1["tagNames"], json!(["a/b", "http.status_code", "service.name"]));
    let bad = get(&shop(), "/api/v2/search/tags?scope=x", &[]).await;
    assert_eq!((bad.status.as_u16(), bad.text()), (400, "invalid scope: x"));
}

#[tokio::test]
async fn values_are_typed_and_names_may_hold_slashes() {
    let values = |path: &'static str| async move {
        get(&shop(), &format!("/api/v2/search/tag/{path}/values?q=%7B+unfinished"), &[]).await.json()["tagValues"]
            .clone()
    };
    let services = json!([{"type": "string", "value": "db"}, {"type": "string", "value": "shop"}]);
    assert_eq!(values("resource.service.name").await, services);
    assert_eq!(values("rootServiceName").await, json!([{"type": "string", "value": "shop"}]));
    assert_eq!(values(".http.status_code").await, json!([{"type": "int", "value": "500"}]));
    assert_eq!(values("span.a/b").await, json!([{"type": "float", "value": "2.0"}]));
    assert_eq!(values("span.a%2Fb").await, json!([{"type": "float", "value": "2.0"}]));
    assert_eq!(values("status").await[0], json!({"type": "keyword", "value": "ok"}));
    assert_eq!(values("duration").await, json!([]));
    let bad = get(&shop(), "/api/v2/search/tag/app.user.id/values", &[]).await;
    let text = "please provide a valid tagName: failed to parse identifier app.user.id: \
                parse error at line 1, col 2: unknown identifier: app";
    assert_eq!((bad.status.as_u16(), bad.text()), (400, text));
}

#[tokio::test]
async fn older_clients_get_values_as_texts() {
    let values = |name: &'static str| async move {
        get(&shop(), &format!("/api/search/tag/{name}/values"), &[]).await.json()["tagValues"].clone()
    };
    assert_eq!(values("service.name").await, json!(["db", "shop"]));
    assert_eq!(values("http.status_code").await, json!(["500"]));
    assert_eq!(values("status.code").await, json!(["error", "ok", "unset"]));
    assert_eq!(get(&shop(), "/api/search/tag//values", &[]).await.status.as_u16(), 400);
    assert_eq!(get(&shop(), "/api/search/tag/a/other", &[]).await.status.as_u16(), 404);
}

#[tokio::test]
async fn names_and_values_come_as_protobuf_too() {
    let names = fields(&get(&shop(), "/api/search/tags", &[PROTOBUF]).await.body);
    assert_eq!(names[0], (1, b"a/b".to_vec()));
    let scopes = fields(&get(&shop(), "/api/v2/search/tags?scope=span", &[PROTOBUF]).await.body);
    assert_eq!(fields(&scopes[0].1)[0], (1, b"span".to_vec()));
    let values = fields(&get(&shop(), "/api/v2/search/tag/resource.service.name/values", &[PROTOBUF]).await.body);
    assert_eq!(fields(&values[0].1), [(1, b"string".to_vec()), (2, b"db".to_vec())]);
    let search = get(&shop(), "/api/search?q=%7B%7D", &[PROTOBUF]).await;
    assert_eq!(search.header("content-type"), Some("application/protobuf"));
    assert_eq!(fields(&search.body).iter().map(|(number, _)| *number).collect::<Vec<_>>(), [1, 1, 2]);
}

#[tokio::test]
async fn answers_without_some_block_say_so() {
    let router = tempo(Store::with(SHOP).without("block 01J", "checksum mismatch"), Tenancy::Single);
    let note = "partial answer, 1 source could not be read: block 01J: checksum mismatch";
    for uri in ["/api/traces/a1", "/api/traces/beef", "/api/search?q=%7B%7D", "/api/search/tags", "/status/services"] {
        assert_eq!(get(&router, uri, &[]).await.header("x-spoor-partial"), Some(note), "{uri}");
    }
    let v2 = get(&router, "/api/v2/traces/beef", &[]).await.json();
    assert_eq!(v2, json!({"trace": {}, "metrics": {}, "status": "PARTIAL", "message": note}));
    let protobuf = fields(&get(&router, "/api/v2/traces/beef", &[PROTOBUF]).await.body);
    assert_eq!(protobuf[2..], [(3, b"1".to_vec()), (4, note.as_bytes().to_vec())]);
    let series = get(&router, "/api/metrics/query?q=%7B%7D%7Crate()", &[]).await.json();
    assert_eq!((&series["status"], &series["message"]), (&json!("PARTIAL"), &json!(note)));
    let search = get(&router, "/api/search?q=%7B%7D", &[]).await.json();
    assert_eq!((&search["metrics"]["completedJobs"], &search["metrics"]["totalJobs"]), (&json!(1), &json!(2)));
}

#[tokio::test]
async fn tenants_are_kept_apart_and_may_be_read_together() {
    let tenant = |name| TenantId::parse(name).unwrap();
    let store = Store::default().and(tenant("one"), SHOP).and(tenant("two"), REQUEST);
    let router = tempo(store, Tenancy::by_header());
    let missing = get(&router, "/api/search", &[]).await;
    assert_eq!((missing.status.as_u16(), missing.text()), (401, "no org id"));
    assert_eq!(get(&router, "/api/echo", &[]).await.text(), "echo\n");
    assert_eq!(get(&router, "/api/traces/a1", &[("x-scope-orgid", "two")]).await.status.as_u16(), 404);
    assert_eq!(get(&router, "/api/traces/a1", &[("x-scope-orgid", "one|two")]).await.status.as_u16(), 200);
    let all = get(&router, "/api/search?limit=2", &[("x-scope-orgid", "two|one")]).await.json();
    let many = "one|two|".repeat(50) + "one";
    assert_eq!(get(&router, "/api/search", &[("x-scope-orgid", &many)]).await.status.as_u16(), 200, "two, often");
    let many: Vec<String> = (0..=100).map(|tenant| tenant.to_string()).collect();
    let refused = get(&router, "/api/search/tags", &[("x-scope-orgid", &many.join("|"))]).await;
    let text = "101 tenants are asked at once, at most 100; raise query_max_tenants";
    assert_eq!((refused.status.as_u16(), refused.text()), (400, text));
    let ids: Vec<&Json> = all["traces"].as_array().unwrap().iter().map(|trace| &trace["traceID"]).collect();
    assert_eq!(ids, ["a2", "a1"]);
}

/// Method and path of every route as OpenAPI writes them, beside the path as it may be asked.
fn routed() -> Vec<(String, String)> {
    let of_route = |(methods, path, _): (&'static str, &'static str, _)| {
        let path = path.replace("{*tagName}", "{tagName}/values");
        methods.split(' ').map(move |method| (method.replace("query", "get"), path.clone()))
    };
    let mut routed: Vec<(String, String)> = super::routes().into_iter().flat_map(of_route).collect();
    routed.sort();
    routed
}

#[test]
fn the_router_has_what_openapi_describes_and_nothing_else() {
    assert_eq!(routed(), described(include_str!("../../../../api/openapi/tempo.yaml")));
}

#[tokio::test]
async fn every_route_takes_its_methods_and_no_others() {
    for (methods, path, _) in super::routes() {
        let path = path.replace("{*tagName}", "name/values").replace("{traceID}", "a1").replace("{tenant}", "t");
        let is_query = |method: &str| method == "query";
        for method in
            methods.split(' ').flat_map(|method| if is_query(method) { vec!["get", "post"] } else { vec![method] })
        {
            let reply = send(&shop(), &method.to_uppercase(), &path, &[]).await;
            assert_ne!(
                (reply.status.as_u16(), &reply.body[..]),
                (404, &b"404 page not found\n"[..]),
                "{method} {path}"
            );
            assert_eq!(reply.status.as_u16() == 405, (method, path.as_str()) == ("get", "/api/mcp"), "{method} {path}");
        }
        if path == "/api/mcp" {
            continue;
        }
        for method in ["PUT", "PATCH", "DELETE"].iter().filter(|method| !methods.contains(&method.to_lowercase())) {
            let reply = send(&shop(), method, &path, &[]).await;
            assert_eq!(reply.status.as_u16(), 405, "{method} {path}");
            assert!(!is_query(methods) || reply.headers["allow"] == "GET,HEAD,POST", "{method} {path}");
        }
    }
}

#[tokio::test]
async fn a_posted_query_reads_the_url() {
    let reply = send(&shop(), "POST", "/api/search?q=%7B%7D&limit=1", &[]).await;
    assert_eq!(reply.json()["traces"].as_array().unwrap().len(), 1);
    assert_eq!(send(&shop(), "POST", "/api/status/buildinfo", &[]).await.status.as_u16(), 405);
}

#[tokio::test]
async fn the_process_tells_what_it_is() {
    let router = shop();
    let build = get(&router, "/api/status/buildinfo", &[]).await.json();
    assert_eq!(build["version"], "3.1.0+spoor.0.1.0");
    assert_eq!(get(&router, "/ready", &[]).await.text(), "ready");
    assert_eq!(get(&router, "/status/config", &[]).await.text(), "retention: 168h\n");
    assert_eq!(get(&router, "/status/services", &[]).await.json(), json!(["db", "shop"]));
    assert!(get(&router, "/status", &[]).await.text().contains("GET /status/version\nspoor, version 0.1.0"));
    assert_eq!(get(&router, "/status/nothing", &[]).await.status.as_u16(), 404);
}

#[tokio::test]
async fn who_asks_for_ingest_is_sent_elsewhere_while_spans_are_refused() {
    let health =
        crate::tempo::Health { refusing: Some("the disk is full".into()), troubles: vec!["a block is gone".into()] };
    let (serving, watched) = tokio::sync::watch::channel(true);
    let state = tempo_state(Store::default(), Tenancy::Single);
    let state = crate::tempo::State { serving: watched, health: std::sync::Arc::new(move || health.clone()), ..state };
    let router = crate::tempo::router(state);
    let ready = |path: &'static str| {
        let router = router.clone();
        async move {
            let reply = get(&router, path, &[]).await;
            (reply.status.as_u16(), reply.text().to_owned())
        }
    };
    assert_eq!(ready("/ready").await, (200, "ready, but spans are refused: the disk is full".into()));
    assert_eq!(ready("/ready?ingest=true").await, (503, "spans are refused: the disk is full".into()));
    let lines = "spans are refused: the disk is full\na block is gone\n";
    assert_eq!(ready("/status/health").await, (200, lines.into()));
    assert!(ready("/status").await.1.contains(&format!("GET /status/health\n{lines}\n")));
    serving.send_replace(false);
    assert_eq!(ready("/ready").await, (503, "stopping".into()));
}

#[tokio::test]
async fn bodies_are_bounded_by_their_key() {
    let mut state = tempo_state(Store::default(), Tenancy::Single);
    state.limits.body_bytes_max = 10;
    let router = crate::tempo::router(state);
    for path in ["/api/v2/traces/diff", "/api/mcp"] {
        let request = http::Request::post(path).body(axum::body::Body::from("[1234567890]")).unwrap();
        let answer = tower::ServiceExt::oneshot(router.clone(), request).await.unwrap();
        assert_eq!(answer.status().as_u16(), 413, "{path}");
        let text = axum::body::to_bytes(answer.into_body(), 1_000).await.unwrap();
        assert_eq!(text, "request body is larger than 10 bytes; raise query_max_body_bytes");
    }
}

#[tokio::test]
async fn requests_are_counted_by_route() {
    let router = shop();
    get(&router, "/api/search?q=%7B%7D", &[]).await;
    let metrics = get(&router, "/metrics", &[]).await;
    let line =
        "tempo_request_duration_seconds_count{method=\"GET\",route=\"api_search\",status_code=\"200\",ws=\"false\"} 1";
    assert!(metrics.text().contains(line), "{}", metrics.text());
}

#[tokio::test]
async fn what_is_not_done_yet_says_so() {
    let grpc = send(&shop(), "POST", "/tempopb.Querier/SearchRecent", &[("content-type", "application/grpc")]).await;
    assert_eq!((grpc.status.as_u16(), grpc.header("grpc-status")), (200, Some("12")));
}

#[tokio::test]
async fn large_answers_are_compressed_for_those_who_can_read_them() {
    let reply = get(&shop(), "/api/v2/search/tags", &[("accept-encoding", "gzip")]).await;
    assert_eq!(reply.header("content-encoding"), Some("gzip"));
    assert_eq!(reply.body[..2], [0x1f, 0x8b]);
}

#[tokio::test]
async fn pages_of_allowed_origins_may_query() {
    let router = shop();
    let allowed = |reply: &Reply| reply.header("access-control-allow-origin").map(str::to_owned);
    let page = "https://page.example";
    let reply = get(&router, "/api/echo", &[("origin", page)]).await;
    assert_eq!(allowed(&reply), Some(page.to_owned()));
    let preflight = [("origin", page), ("access-control-request-method", "GET")];
    assert_eq!(allowed(&send(&router, "OPTIONS", "/api/search", &preflight).await), Some(page.to_owned()));
    assert_eq!(allowed(&get(&router, "/api/echo", &[("origin", "https://other.example")]).await), None);
}
