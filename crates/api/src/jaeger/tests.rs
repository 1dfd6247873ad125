use std::sync::Arc;

use http::StatusCode;
use serde_json::{Value as Json, json};

use super::{Options, Ui, router};
use crate::fixtures::{Reply, Store, described, get, jaeger, jaeger_state, send};
use crate::tenant::Tenancy;
use spoor_model::TenantId;

const REQUEST: &[u8] = include_bytes!("../../../../api/fixtures/jaeger/worked_example/request.json");
const RESPONSE: &str = include_str!("../../../../api/fixtures/jaeger/worked_example/response.json");

/// Three traces of two services, one second apart, and a span without a service.
const SHOP: &str = r#"{"resourceSpans":[
 {"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"shop/eu+1"}}]},"scopeSpans":[{"spans":[
   {"traceId":"000000000000000000000000000000a1","spanId":"0000000000000001","name":"GET","kind":2,"status":{"code":2},
    "startTimeUnixNano":"1700000001000000000","endTimeUnixNano":"1700000001500000000",
    "attributes":[{"key":"code","value":{"intValue":"500"}}]},
   {"traceId":"000000000000000000000000000000a2","spanId":"0000000000000002","name":"PUT","kind":2,
    "startTimeUnixNano":"1700000002000000000","endTimeUnixNano":"1700000002000001000",
    "attributes":[{"key":"code","value":{"intValue":"200"}}]},
   {"traceId":"000000000000000000000000000000a3","spanId":"0000000000000003","name":"GET","kind":3,
    "startTimeUnixNano":"1700000003000000000","endTimeUnixNano":"1700000003000000000"}]}]},
 {"scopeSpans":[{"spans":[
   {"traceId":"000000000000000000000000000000a1","spanId":"0000000000000004","parentSpanId":"0000000000000001","name":"db",
    "startTimeUnixNano":"1700000001100000000","endTimeUnixNano":"1700000001200000000"}]}]}]}"#;

fn shop() -> axum::Router {
    jaeger(Store::with(SHOP.as_bytes()), Tenancy::Single)
}

fn error(reply: &Reply) -> (u16, Json) {
    assert_eq!(reply.header("content-type"), Some("text/plain; charset=utf-8"));
    let envelope: Json = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!((&envelope["data"], &envelope["total"]), (&Json::Null, &json!(0)));
    (reply.status.as_u16(), envelope["errors"].clone())
}

fn ids(reply: &Reply) -> Vec<String> {
    let traces = reply.json();
    traces["data"].as_array().unwrap().iter().map(|trace| trace["traceID"].as_str().unwrap().to_owned()).collect()
}

async fn found(query: &str) -> Vec<String> {
    let ids = ids(&get(&shop(), &format!("/api/traces?service=shop%2Feu%2B1&{query}"), &[]).await);
    ids.iter().map(|id| id.trim_start_matches('0').to_owned()).collect()
}

#[tokio::test]
async fn the_worked_example_is_answered_as_jaeger_answers_it() {
    let router = jaeger(Store::with(REQUEST), Tenancy::Single);
    let reply = get(&router, "/api/traces/a0b1", &[]).await;
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert_eq!(reply.json(), serde_json::from_str::<Json>(RESPONSE).unwrap());
    // Members stand in the order of Jaeger's, byte for byte but for blanks.
    let without_blanks: String = RESPONSE.lines().map(str::trim_start).collect();
    assert_eq!(reply.text(), without_blanks);
}

#[tokio::test]
async fn raw_traces_have_tags_by_key_and_no_warnings() {
    let router = jaeger(Store::with(REQUEST), Tenancy::Single);
    let trace = get(&router, "/api/traces/A0B1?raw=true", &[]).await.json();
    let span = &trace["data"][0]["spans"][0];
    assert_eq!(span["warnings"], Json::Null);
    let keys: Vec<&str> = span["tags"].as_array().unwrap().iter().map(|tag| tag["key"].as_str().unwrap()).collect();
    assert_eq!(keys[2..5], ["a", "b", "z"]);
}

#[tokio::test]
async fn pretty_answers_are_indented_by_four_spaces() {
    let reply = get(&shop(), "/api/services?prettyPrint=1", &[]).await;
    assert!(reply.text().starts_with("{\n    \"data\": [\n        \"missing-service-name\","), "{}", reply.text());
    assert!(!get(&shop(), "/api/services?prettyPrint=false", &[]).await.text().contains('\n'));
}

#[tokio::test]
async fn services_and_operations_are_listed_sorted() {
    let router = shop();
    let services = get(&router, "/api/services", &[]).await;
    let expected = r#"{"data":["missing-service-name","shop/eu+1"],"total":2,"limit":0,"offset":0,"errors":null}"#;
    assert_eq!(services.text(), expected);
    let names = get(&router, "/api/services/shop%2Feu%2B1/operations", &[]).await.json();
    assert_eq!((&names["data"], &names["total"]), (&json!(["GET", "PUT"]), &json!(2)));
    assert_eq!(get(&router, "/api/services/nobody/operations", &[]).await.json()["data"], json!([]));
    let operations = get(&router, "/api/operations?service=shop%2Feu%2B1", &[]).await.json();
    let expected = json!([
        {"name": "GET", "spanKind": "client"}, {"name": "GET", "spanKind": "server"},
        {"name": "PUT", "spanKind": "server"}]);
    assert_eq!(operations["data"], expected);
    let servers = get(&router, "/api/operations?service=shop%2Feu%2B1&spanKind=client", &[]).await.json();
    assert_eq!(servers["data"], json!([{"name": "GET", "spanKind": "client"}]));
    let missing = get(&router, "/api/operations", &[]).await;
    assert_eq!(error(&missing), (400, json!([{"code": 400, "msg": "parameter 'service' is required"}])));
}

#[tokio::test]
async fn searches_give_whole_traces_newest_first_and_limit_after_the_order() {
    assert_eq!(found("").await, ["a3", "a2", "a1"]);
    assert_eq!(found("limit=2").await, ["a3", "a2"]);
    assert_eq!(found("operation=GET").await, ["a3", "a1"]);
    assert_eq!(found("start=1700000002000000&end=1700000002500000").await, ["a2"]);
    let whole = get(&shop(), "/api/traces?service=shop%2Feu%2B1&operation=GET&tag=code:500", &[]).await.json();
    assert_eq!(whole["data"][0]["spans"].as_array().unwrap().len(), 2);
    assert_eq!(whole["data"][0]["processes"]["p2"]["serviceName"], "missing-service-name");
}

#[tokio::test]
async fn tags_match_by_their_text_and_durations_by_span() {
    assert_eq!(found("tag=code:500").await, ["a1"]);
    assert_eq!(found("tags=%7B%22code%22:%22200%22%7D").await, ["a2"]);
    assert_eq!(found("tag=error:true").await, ["a1"]);
    assert_eq!(found("tag=span.kind:client").await, ["a3"]);
    assert_eq!(found("minDuration=500ms").await, ["a1"]);
    assert_eq!(found("maxDuration=1us").await, ["a3", "a2"]);
    assert_eq!(found("tag=code:404").await, Vec::<String>::new());
    let nameless = get(&shop(), "/api/traces?service=missing-service-name", &[]).await;
    assert_eq!(ids(&nameless), ["00000000000000a1"]);
}

#[tokio::test]
async fn traces_named_in_a_search_are_loaded_and_missing_ones_reported() {
    let reply = get(&shop(), "/api/traces?traceID=a2&traceID=beef&traceID=0a1", &[]).await;
    assert_eq!(ids(&reply), ["00000000000000a2", "00000000000000a1"]);
    let missing = json!([{"msg": "trace not found", "traceID": "000000000000beef"}]);
    assert_eq!(reply.json()["errors"], missing);
    let bad = get(&shop(), "/api/traces?traceID=xyz", &[]).await;
    let (status, errors) = error(&bad);
    assert!(status == 400 && errors[0]["msg"].as_str().unwrap().starts_with("cannot parse traceID param: "));
}

#[tokio::test]
async fn a_missing_trace_is_404_in_the_envelope() {
    let reply = get(&shop(), "/api/traces/beef?start=1&end=2", &[]).await;
    assert_eq!(error(&reply), (404, json!([{"code": 404, "msg": "trace not found"}])));
    assert!(reply.text().ends_with('\n'));
    assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(error(&get(&shop(), "/api/traces/xyz", &[]).await).0, 400);
    assert_eq!(error(&get(&shop(), "/api/traces/a1?start=soon", &[]).await).0, 400);
}

#[tokio::test]
async fn hints_in_the_wrong_unit_do_not_hide_a_trace() {
    assert_eq!(ids(&get(&shop(), "/api/traces/a1?start=1&end=1700000001", &[]).await), ["00000000000000a1"]);
}

#[tokio::test]
async fn answers_without_some_block_say_so() {
    let router = jaeger(Store::with(SHOP.as_bytes()).without("block 01J", "checksum mismatch"), Tenancy::Single);
    let note = "partial answer, 1 source could not be read: block 01J: checksum mismatch";
    for uri in ["/api/traces/a1", "/api/traces?service=shop%2Feu%2B1", "/api/services"] {
        assert_eq!(get(&router, uri, &[]).await.json()["errors"], json!([{"msg": note}]), "{uri}");
    }
    let (status, errors) = error(&get(&router, "/api/traces/beef", &[]).await);
    assert_eq!((status, &errors[0]["msg"]), (404, &json!(format!("trace not found ({note})"))));
}

#[tokio::test]
async fn what_is_not_there_is_404_text_whatever_the_method() {
    for (method, uri) in [("GET", "/api/nothing"), ("POST", "/api/services"), ("GET", "/api/v3/traces/x/y")] {
        let reply = send(&shop(), method, uri, &[]).await;
        assert_eq!((reply.status, reply.text()), (StatusCode::NOT_FOUND, "404 page not found\n"), "{method} {uri}");
    }
}

#[tokio::test]
async fn tenants_are_named_by_either_header_and_required() {
    let tenant = |name| TenantId::parse(name).unwrap();
    let store = Store::default().and(tenant("one"), SHOP.as_bytes()).and(tenant("two"), REQUEST);
    let router = jaeger(store, Tenancy::by_header());
    let missing = get(&router, "/api/services", &[]).await;
    assert_eq!((missing.status.as_u16(), missing.text()), (401, "missing tenant header\n"));
    let services = |header: &'static str, value: &'static str| {
        let router = router.clone();
        async move { get(&router, "/api/services", &[(header, value)]).await.json()["data"].clone() }
    };
    assert_eq!(services("x-tenant", "two").await, json!(["cart"]));
    assert_eq!(services("x-scope-orgid", "two").await, json!(["cart"]));
    assert_eq!(services("x-scope-orgid", "one|two").await, json!(["cart", "missing-service-name", "shop/eu+1"]));
}

#[test]
fn the_router_has_what_openapi_describes_and_nothing_else() {
    let mut routed: Vec<(String, String)> =
        super::routes().into_iter().map(|(method, path, _)| (method.to_owned(), path.to_owned())).collect();
    routed.sort();
    assert_eq!(routed, described(include_str!("../../../../api/openapi/jaeger.yaml")));
}

#[tokio::test]
async fn every_route_takes_its_method_and_no_other() {
    for (method, path, _) in super::routes() {
        let path = path.replace("{service}", "s").replace("{traceID}", "a1").replace("{kind}", "calls");
        let is_there = |reply: &Reply| reply.text() != "404 page not found\n";
        assert!(is_there(&send(&shop(), &method.to_uppercase(), &path, &[]).await), "{method} {path}");
        let other = if method == "get" { "POST" } else { "GET" };
        assert!(!is_there(&send(&shop(), other, &path, &[]).await), "{other} {path}");
    }
}

#[tokio::test]
async fn everything_moves_below_the_base_path() {
    let options = Options { base_path: "/jaeger".to_owned(), ..Options::default() };
    let router = router(jaeger_state(Store::with(SHOP.as_bytes()), Tenancy::Single, options));
    let services = get(&router, "/jaeger/api/services", &[]).await.json();
    assert_eq!(services["total"], 2);
    assert_eq!(get(&router, "/jaeger/api/v3/services", &[]).await.status, StatusCode::OK);
    assert!(get(&router, "/jaeger/", &[]).await.text().contains("--jaeger-ui-dir"));
    for path in ["/api/services", "/", "/jaeger/api/nothing"] {
        assert_eq!(get(&router, path, &[]).await.text(), "404 page not found\n", "{path}");
    }
}

#[tokio::test]
async fn an_unmodified_build_of_the_ui_is_served() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("static")).unwrap();
    std::fs::write(folder.path().join("static/app.js"), "1+1").unwrap();
    let index = "<base href=\"/\"/><script>JAEGER_BACKEND_CAPABILITIES = DEFAULT_BACKEND_CAPABILITIES;</script>";
    std::fs::write(folder.path().join("index.html"), index).unwrap();
    let state = |base_path: &str| {
        let options = Options { base_path: base_path.to_owned(), ..Options::default() };
        let state = jaeger_state(Store::with(SHOP.as_bytes()), Tenancy::Single, options);
        let mut state = Arc::into_inner(state).unwrap();
        state.ui = Some(Ui::open(folder.path(), base_path, "1").unwrap());
        router(Arc::new(state))
    };
    for prefix in ["", "/jaeger"] {
        let router = state(prefix);
        for page in ["/", "/search?service=x", "/trace/a1", "/monitor"] {
            let page = get(&router, &format!("{prefix}{page}"), &[]).await;
            assert_eq!((page.status, page.header("content-type")), (StatusCode::OK, Some("text/html; charset=utf-8")));
            assert!(page.text().contains(&format!("<base href=\"{prefix}/\"")), "{}", page.text());
            assert!(page.text().contains("\"searchWithoutServiceName\":true"), "{}", page.text());
        }
        let script = get(&router, &format!("{prefix}/static/app.js"), &[]).await;
        assert_eq!((script.status, script.text()), (StatusCode::OK, "1+1"));
        assert!(script.header("content-type").unwrap().contains("javascript"));
        for missing in ["/static/other.js", "/static/../index.html", "/api/other"] {
            let missing = get(&router, &format!("{prefix}{missing}"), &[]).await;
            assert_eq!(missing.status, StatusCode::NOT_FOUND);
        }
    }
    assert!(Ui::open(&folder.path().join("static"), "", "1").is_err());
}

#[tokio::test]
async fn clocks_are_corrected_as_far_as_allowed() {
    let span = |id: u8, parent: &str, start: u64, host: &str| {
        format!(
            r#"{{"resource":{{"attributes":[{{"key":"host.name","value":{{"stringValue":"{host}"}}}}]}},"scopeSpans":[{{
            "spans":[{{"traceId":"000000000000000000000000000000a1","spanId":"000000000000000{id}",{parent}"name":"x",
            "startTimeUnixNano":"{start}","endTimeUnixNano":"{}"}}]}}]}}"#,
            start + 10_000_000
        )
    };
    let at = 1_700_000_001_000_000_000;
    let early = span(2, r#""parentSpanId":"0000000000000001","#, at - 5_000_000, "b");
    let spans = format!(r#"{{"resourceSpans":[{},{early}]}}"#, span(1, "", at, "a"));
    let shown = |skew_max: u64| {
        let options = Options { skew_max: std::time::Duration::from_millis(skew_max), ..Options::default() };
        let router = router(jaeger_state(Store::with(spans.as_bytes()), Tenancy::Single, options));
        async move {
            let trace = get(&router, "/api/traces/a1", &[]).await.json();
            let spans = trace["data"][0]["spans"].as_array().unwrap().clone();
            let child = spans.iter().find(|span| span["spanID"] == "0000000000000002").unwrap();
            (child["startTime"].as_u64().unwrap() * 1000, child["warnings"][0].as_str().unwrap().to_owned())
        }
    };
    let disabled = "clock skew adjustment disabled; not applying calculated delta of 5ms";
    assert_eq!(shown(0).await, (at - 5_000_000, disabled.to_owned()));
    assert_eq!(shown(5).await, (at, "This span's timestamps were adjusted by 5ms".to_owned()));
}
