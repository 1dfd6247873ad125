//! Tempo's search: legacy tags, spanset filters, tag names and values; in the head and in blocks.

use serde_json::Value;
use spoor_model::{TraceId, UnixNano};
use spoor_testkit::build::{self, CLIENT, SERVER, SpanSpec, span, span_id, trace};

use super::{Spoor, a_minute_ago, escape, start};

/// Four traces: 1 a good checkout, 2 a failed and slow one, 3 a search, 4 far in the past.
fn shop(at: UnixNano) -> Vec<SpanSpec> {
    let after = |seconds: u64| UnixNano(at.0 + seconds * 1_000_000_000);
    let past = UnixNano(at.0 - 3 * 3_600_000_000_000);
    let checkout = |number, start| {
        span("frontend", "POST /checkout", trace(number), span_id(1), start)
            .kind(SERVER)
            .lasting_ms(100)
            .text("http.route", "/checkout")
    };
    let pay = |number, start| {
        span("payment", "charge", trace(number), span_id(2), start).parent(span_id(1)).kind(CLIENT).lasting_ms(20)
    };
    vec![
        checkout(1, after(1)).int("http.status_code", 200),
        pay(1, after(1)).text("card", "visa"),
        checkout(2, after(2)).lasting_ms(900).int("http.status_code", 500).status(2, "boom"),
        pay(2, after(2)).lasting_ms(800).text("card", "amex").status(2, "declined"),
        span("frontend", "GET /search", trace(3), span_id(1), after(3))
            .kind(SERVER)
            .lasting_ms(50)
            .text("http.route", "/search"),
        checkout(4, past).int("http.status_code", 200),
    ]
}

/// Ids of the traces found, in the order of the answer.
fn found(answer: &Value) -> Vec<u8> {
    let traces = answer["traces"].as_array().unwrap_or_else(|| panic!("no traces: {answer}"));
    // Search drops leading zeros of ids, as Tempo does.
    let id = |one: &Value| TraceId::from_hex(one["traceID"].as_str().unwrap()).unwrap().0[0];
    traces.iter().map(id).collect()
}

fn search(spoor: &Spoor, parameters: &str) -> Value {
    let answer = spoor.tempo(&format!("/api/search?{parameters}"));
    assert_eq!(answer.status, 200, "{parameters}: {}", answer.text());
    answer.json()
}

fn check_searches(spoor: &Spoor) {
    for (parameters, expected) in [
        ("tags=", &[3, 2, 1, 4][..]),
        ("tags=service.name%3Dpayment", &[2, 1]),
        ("tags=card%3Dvisa", &[1]),
        ("tags=http.route%3D%2Fcheckout", &[2, 1, 4]),
        ("tags=service.name%3Dpayment%20card%3Damex", &[2]),
        ("tags=name%3Dcheckout", &[2, 1, 4]),
        ("tags=status.code%3Derror", &[2]),
        ("tags=card%3Dnone", &[]),
        ("tags=&minDuration=500ms", &[2]),
        ("tags=&maxDuration=60ms", &[3]),
        ("tags=&minDuration=60ms&maxDuration=500ms", &[1, 4]),
        ("tags=&limit=1", &[3]),
        ("tags=&limit=2", &[3, 2]),
    ] {
        assert_eq!(found(&search(spoor, parameters)), expected, "{parameters}");
    }
    for (query, expected) in [
        ("{}", &[3, 2, 1, 4][..]),
        ("{ resource.service.name = \"payment\" }", &[2, 1]),
        ("{ .service.name = \"payment\" }", &[2, 1]),
        ("{ span.card = \"visa\" }", &[1]),
        ("{ .card = \"amex\" && status = error }", &[2]),
        ("{ span.http.status_code = 500 }", &[2]),
        ("{ span.http.status_code >= 200 && span.http.status_code < 300 }", &[1, 4]),
        ("{ kind = server && duration > 80ms }", &[2, 1, 4]),
        ("{ kind = client }", &[2, 1]),
        ("{ name = \"GET /search\" }", &[3]),
        ("{ name =~ \".*checkout\" }", &[2, 1, 4]),
        ("{ name != \"charge\" && resource.service.name = \"payment\" }", &[]),
        ("{ span.nothing = 1 }", &[]),
    ] {
        let parameters = format!("q={}", escape(query));
        assert_eq!(found(&search(spoor, &parameters)), expected, "{query}");
    }
}

#[test]
fn searches_find_whole_traces_newest_first_before_and_after_they_are_in_a_block() {
    let mut spoor = start(&[]);
    spoor.ingest(&build::body(shop(a_minute_ago())));
    check_searches(&spoor);
    spoor.server.stop();
    spoor.server = spoor.server.launch().start();
    check_searches(&spoor);
}

#[test]
fn an_answer_says_what_grafana_lists() {
    let spoor = start(&[]);
    let at = a_minute_ago();
    spoor.ingest(&build::body(shop(at)));
    let answer = search(&spoor, &format!("q={}", escape("{ span.card = \"amex\" }")));
    let one = &answer["traces"][0];
    assert_eq!(one["rootServiceName"], "frontend");
    assert_eq!(one["rootTraceName"], "POST /checkout");
    assert_eq!(one["startTimeUnixNano"], (at.0 + 2_000_000_000).to_string());
    assert_eq!(one["durationMs"], 900);
    assert_eq!(one["spanSets"][0]["matched"], 1);
    let matched = &one["spanSets"][0]["spans"][0];
    assert_eq!(matched["spanID"], "0202020202020202");
    assert_eq!(matched["durationNanos"], "800000000");
    let attributes = matched["attributes"].as_array().unwrap();
    assert!(attributes.iter().any(|one| one["key"] == "card" && one["value"]["stringValue"] == "amex"), "{matched}");
}

#[test]
fn a_time_range_finds_the_past_and_leaves_out_the_rest() {
    let spoor = start(&[]);
    let at = a_minute_ago();
    spoor.ingest(&build::body(shop(at)));
    let past = at.0 / 1_000_000_000 - 3 * 3600;
    assert_eq!(found(&search(&spoor, &format!("tags=&start={}&end={}", past - 60, past + 60))), [4]);
    assert_eq!(found(&search(&spoor, &format!("q=%7B%7D&start={}&end={}", past - 60, past + 60))), [4]);
    assert_eq!(found(&search(&spoor, &format!("tags=&start={}&end={}", past + 600, past + 700))), [0; 0]);
}

#[test]
fn parameters_that_make_no_sense_are_refused_with_the_place() {
    let spoor = start(&[]);
    for parameters in [
        "q=%7B%20span.a%20%3D%20",
        "q=nonsense",
        "tags=a%3D1&q=%7B%7D",
        "tags=a%3D1%20a%3D2",
        "tags=&limit=0",
        "tags=&limit=x",
        "tags=&minDuration=5",
        "tags=&minDuration=2s&maxDuration=1s",
        "tags=&start=10",
        "tags=&start=20&end=10",
    ] {
        let answer = spoor.tempo(&format!("/api/search?{parameters}"));
        assert_eq!(answer.status, 400, "{parameters}: {}", answer.text());
        assert!(!answer.body.is_empty(), "{parameters} gives no reason");
    }
    let answer = spoor.tempo(&format!("/api/search?q={}", escape("{ span.a = }")));
    assert!(answer.text().contains("line 1, col"), "{}", answer.text());
}

fn check_tags(spoor: &Spoor) {
    let names = spoor.tempo("/api/search/tags").json();
    let names: Vec<_> = names["tagNames"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(names, ["card", "http.route", "http.status_code", "service.name"]);
    let names = spoor.tempo("/api/search/tags?scope=resource").json();
    assert_eq!(names["tagNames"], serde_json::json!(["service.name"]));
    for (tag, expected) in [
        ("service.name", serde_json::json!(["frontend", "payment"])),
        ("card", serde_json::json!(["amex", "visa"])),
        ("http.status_code", serde_json::json!(["200", "500"])),
        ("name", serde_json::json!(["GET /search", "POST /checkout", "charge"])),
        ("status.code", serde_json::json!(["error", "ok", "unset"])),
        ("nothing", serde_json::json!([])),
    ] {
        let answer = spoor.tempo(&format!("/api/search/tag/{tag}/values")).json();
        let mut values = answer["tagValues"].as_array().unwrap().clone();
        values.sort_by_key(ToString::to_string);
        assert_eq!(Value::from(values), expected, "{tag}");
    }
}

#[test]
fn tag_names_and_values_are_listed_before_and_after_they_are_in_a_block() {
    let mut spoor = start(&[]);
    spoor.ingest(&build::body(shop(a_minute_ago())));
    check_tags(&spoor);
    spoor.server.stop();
    spoor.server = spoor.server.launch().start();
    check_tags(&spoor);
}
