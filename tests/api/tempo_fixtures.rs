//! The fixtures of Tempo's surface: `api/fixtures/tempo/shop/*.http`, and, with tenants and narrow limits,
//! `api/fixtures/tempo/tenants/*.http`. Every answer in JSON is held against `api/openapi/tempo.yaml`, which has only
//! the keys that Grafana's plugin knows where it decodes strictly; so is every parameter that a case sends.

use std::sync::LazyLock;

use serde_json::Value as Json;
use spoor_testkit::client::http;

use super::fixtures::{Case, Surface, check};
use super::openapi::OpenApi;
use super::{Spoor, start};

const SHOP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/api/fixtures/tempo/shop");
const TENANTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/api/fixtures/tempo/tenants");

static OPENAPI: LazyLock<OpenApi> = LazyLock::new(|| OpenApi::read(include_str!("../../api/openapi/tempo.yaml")));

fn surface(directory: &'static str) -> Surface {
    Surface { directory, address: |spoor| spoor.server.tempo(), usual_type, settle }
}

fn usual_type(answer: &http::Answer) -> Option<&'static str> {
    match answer.status {
        _ if answer.body.is_empty() => None,
        200 => Some("application/json"),
        _ => Some("text/plain; charset=utf-8"),
    }
}

/// Holds an answer against the description. Leaves out what a query cost, what this build is, and `spanSet`, which
/// must be the first of `spanSets`.
fn settle(case: &Case, label: &str, mut json: Json) -> Json {
    let Case { method, path, params, .. } = case;
    let mistakes = OPENAPI.mistakes(method, path, label, &json);
    assert!(mistakes.is_empty(), "{method} {path} {params:?}: {mistakes:#?}");
    let known = OPENAPI.parameters(method, path);
    let is_search_by_tags = path == "/api/search" && !params.iter().any(|(name, _)| known.contains(name.as_str()));
    for (name, _) in params.iter().filter(|(name, _)| name != "unknown" && !is_search_by_tags) {
        assert!(known.contains(name.as_str()), "{method} {path}: {name} is not described");
    }
    if let Some(metrics) = json.get_mut("metrics").and_then(Json::as_object_mut) {
        metrics.retain(|key, _| !key.starts_with("inspected"));
    }
    for key in ["revision", "buildDate"] {
        if json.get(key).is_some() {
            json[key] = Json::String("..".to_owned());
        }
    }
    for whole in ["batches", "trace"] {
        json.get_mut(whole).into_iter().for_each(sort_attributes);
    }
    let traces = json.get_mut("traces").and_then(Json::as_array_mut);
    for trace in traces.into_iter().flatten().filter_map(Json::as_object_mut) {
        let (first, span_set) = (trace.get("spanSets").map(|sets| sets[0].clone()), trace.remove("spanSet"));
        assert_eq!(span_set, first, "spanSet is the first of spanSets");
    }
    json
}

/// Sorts the attributes of a whole trace: a block does not keep their order.
fn sort_attributes(json: &mut Json) {
    match json {
        Json::Array(items) => {
            items.iter_mut().for_each(sort_attributes);
            if items.iter().all(|item| item.get("key").is_some()) {
                items.sort_by_cached_key(|item| item["key"].to_string());
            }
        }
        Json::Object(fields) => fields.values_mut().for_each(sort_attributes),
        _ => {}
    }
}

fn send(spoor: &Spoor, tenant: &str, file: &str) {
    let request = std::fs::read(file).unwrap();
    let sent = spoor.post(&[("content-type", "application/json"), ("x-scope-orgid", tenant)], &request);
    assert_eq!((sent.status, sent.text().as_str()), (200, "{}"));
}

/// Asks everything while the spans are in the head, and once more when they are in a block.
fn check_before_and_after_a_cut(mut spoor: Spoor, directory: &'static str, files: &[&str], least: usize) {
    let check_all = |spoor: &Spoor| files.iter().map(|file| check(&surface(directory), spoor, file)).sum::<usize>();
    let count = check_all(&spoor);
    assert!(count >= least, "{count} cases");
    spoor.server.stop();
    spoor.server = spoor.server.launch().start();
    check_all(&spoor);
}

#[test]
fn every_fixture_is_answered_as_it_stands_before_and_after_a_block_is_cut() {
    let spoor = start(&["--retention", "0"]);
    send(&spoor, "", &format!("{SHOP}/request.json"));
    let files = [
        "search.http",
        "tags.http",
        "metrics.http",
        "trace_by_id.http",
        "drilldown.http",
        "forms.http",
        "requests.http",
        "diff.http",
        "status.http",
    ];
    check_before_and_after_a_cut(spoor, SHOP, &files, 150);
}

#[test]
fn every_fixture_of_tenants_and_limits_is_answered_as_it_stands_before_and_after_a_block_is_cut() {
    let spoor = start(&[
        "--retention=0",
        "--retention-by-tenant=two=100000h",
        "--multitenancy",
        "--mcp",
        "--query-max-tenants=3",
        "--query-max-bytes=200",
        "--query-search-max-range=1h",
        "--query-metrics-max-range=1h",
        "--query-metrics-max-intervals=10",
        "--query-metrics-max-series=2",
        "--query-metrics-max-exemplars=2",
        "--query-tags-max-bytes=40",
    ]);
    send(&spoor, "one", &format!("{SHOP}/request.json"));
    send(&spoor, "two", &format!("{SHOP}/../trace_by_id/request.json"));
    check_before_and_after_a_cut(spoor, TENANTS, &["tenants.http", "limits.http"], 40);
}
