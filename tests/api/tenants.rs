//! Tenants: whose spans these are.

use spoor_model::TraceId;
use spoor_testkit::build::{self, span, span_id, trace};
use spoor_testkit::client::{Compression, grpc, http};

use super::{Spoor, a_minute_ago, start};

const PROTOBUF: (&str, &str) = ("content-type", "application/x-protobuf");

fn get(spoor: &Spoor, path: &str, tenant: Option<&str>) -> http::Answer {
    let headers: Vec<_> = tenant.map(|tenant| ("x-scope-orgid", tenant)).into_iter().collect();
    http::Connection::new(spoor.server.tempo()).send("GET", path, &headers, &[]).unwrap()
}

fn body(id: TraceId) -> Vec<u8> {
    build::body([span("shop", "n", id, span_id(1), a_minute_ago())])
}

#[test]
fn a_missing_tenant_is_refused_on_every_surface_when_multitenancy_is_on() {
    let spoor = start(&["--multitenancy"]);
    let client = grpc::Client::connect(spoor.server.otlp_grpc()).unwrap();
    assert_eq!(client.export(&body(trace(1)), Compression::Identity).unwrap().status, 16);
    assert_eq!(spoor.post(&[PROTOBUF], &body(trace(1))).status, 401);
    let refused = spoor.tempo("/api/traces/abc");
    assert_eq!((refused.status, refused.text().trim_end()), (401, "no org id"));
    assert_eq!(spoor.tempo("/api/search").status, 401);
    assert_eq!(spoor.jaeger("/api/services").status, 401);
    assert_eq!(spoor.tempo("/ready").status, 200);
    assert_eq!(spoor.tempo("/api/echo").status, 200);
}

#[test]
fn tenants_do_not_see_each_other_and_may_be_asked_together() {
    let mut spoor = start(&["--multitenancy"]);
    let client = grpc::Client::connect(spoor.server.otlp_grpc()).unwrap();
    let red = client.export_with(&body(trace(1)), Compression::Gzip, &[("x-scope-orgid", "red")]).unwrap();
    assert_eq!(red.status, 0, "{red:?}");
    let blue = spoor.post(&[PROTOBUF, ("x-scope-orgid", "blue")], &body(trace(2)));
    assert_eq!(blue.status, 200, "{}", blue.text());
    for round in ["head", "block"] {
        for (id, tenant, status) in [
            (1, "red", 200),
            (1, "blue", 404),
            (2, "red", 404),
            (2, "blue", 200),
            (2, "green", 404),
            (1, "red|blue", 200),
            (2, "red|blue", 200),
        ] {
            let path = format!("/api/traces/{}", trace(id));
            assert_eq!(get(&spoor, &path, Some(tenant)).status, status, "trace {id} as {tenant} in the {round}");
        }
        spoor.server.stop();
        spoor.server = spoor.server.launch().start();
    }
}

#[test]
fn names_that_are_no_tenants_are_refused_with_the_reason() {
    let spoor = start(&["--multitenancy"]);
    let long = "x".repeat(151);
    for (tenant, reason) in
        [("a/b", "unsupported character"), ("..", "'.' or '..'"), (long.as_str(), "too long"), ("a||b", "no org id")]
    {
        let answer = get(&spoor, "/api/traces/abc", Some(tenant));
        assert_eq!(answer.status, 400, "{tenant}");
        assert!(answer.text().contains(reason), "{tenant}: {}", answer.text());
    }
    assert_eq!(spoor.post(&[PROTOBUF, ("x-scope-orgid", "a|b")], &body(trace(1))).status, 400);
}

#[test]
fn the_header_is_ignored_when_multitenancy_is_off() {
    let spoor = start(&[]);
    assert_eq!(spoor.post(&[PROTOBUF, ("x-scope-orgid", "red")], &body(trace(1))).status, 200);
    assert_eq!(get(&spoor, &format!("/api/traces/{}", trace(1)), Some("blue")).status, 200);
}
