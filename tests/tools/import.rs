//! `spoor import`: what is not taken, or not for long, is told.

use super::*;

const HOUR: u64 = 3_600_000_000_000;

/// OTLP JSON of one span.
fn span(trace: u64, name: &str, start: u64, end: u64) -> String {
    format!(
        r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{"traceId":"{trace:032x}","spanId":"{trace:016x}","name":"{name}","startTimeUnixNano":"{start}","endTimeUnixNano":"{end}"}}]}}]}}]}}"#
    )
}

fn import(server: &Server, content: &str, more: &[&str]) -> Output {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("in.json");
    fs::write(&file, content).unwrap();
    let (otlp, tempo) = (format!("http://{}", server.otlp_http()), format!("http://{}", server.tempo()));
    let path = file.display().to_string();
    spoor(&[&["import", &path, "--url", &otlp, "--query-url", &tempo], more].concat())
}

// Scenario: of many documents one has a span that ends before it starts, and one a span of long ago. Guarantee: both are named with
// the reason, the others are taken, and requests are few.
#[test]
fn what_is_refused_or_too_old_is_told() {
    let directory = TempDir::new().unwrap();
    let server = Launch::new(env!("CARGO_BIN_EXE_spoor"), directory.path()).arguments(["--retention", "48h"]).start();
    let now = wait::now().0;
    let mut lines: Vec<String> = (1..=300).map(|trace| span(trace, "fine", now, now + 1)).collect();
    lines.push(span(301, "backwards", now, now - 1));
    lines.push(span(302, "old", now - 50 * HOUR, now - 49 * HOUR));
    let content = lines.join("\n");
    let imported = import(&server, &content, &["--json"]);
    assert_eq!(imported.status.code(), Some(1), "{imported:?}");
    let told: Json = serde_json::from_slice(&imported.stdout).unwrap();
    let counts = ["spanCount", "refusedCount", "expiredCount", "requestCount"].map(|key| told[key].as_u64().unwrap());
    assert_eq!(counts, [301, 1, 1, 1], "{told}");
    let imported = import(&server, &content, &[]);
    let said = text(&imported.stderr);
    assert!(
        said.contains("document 301: span \"backwards\"")
            && said.contains("end_time_unix_nano is before start_time_unix_nano"),
        "{said}"
    );
    assert!(said.contains("1 spans ended longer ago than the receiver keeps spans (48h)"), "{said}");
    let fine = import(&server, &lines[..300].join("\n"), &[]);
    assert_eq!((fine.status.code(), text(&fine.stderr)), (Some(0), String::new()));
}

// Scenario: a file of one digit, of three files the first; and nobody says how long spans are kept. Guarantee: it is said what is wrong with
// it, and which files were not begun; what is not known is not 0.
#[test]
fn a_file_that_is_none_is_explained_and_those_behind_it_are_named() {
    let directory = TempDir::new().unwrap();
    let server = start(directory.path());
    let now = wait::now().0;
    let url = format!("http://{}", server.otlp_http());
    let path = |name: &str| directory.path().join(name).display().to_string();
    fs::write(path("digit"), "7").unwrap();
    fs::write(path("fine"), span(7, "fine", now, now + 1)).unwrap();
    let refused = spoor(&["import", "--url", &url, &path("digit"), &path("fine"), &path("other")]);
    let said = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("message 1: the file ends within its length"), "{said}");
    assert!(said.contains(&format!("not begun: {}, {}", path("fine"), path("other"))), "{said}");
    let nowhere = format!("http://127.0.0.1:{}", spoor_testkit::process::Ports::free().tempo);
    let told = good(&["import", "--url", &url, "--query-url", &nowhere, "--json", &path("fine")]);
    let told: Json = serde_json::from_str(&told).unwrap();
    assert!(told["expiredCount"].is_null() && told["spanCount"] == 1, "{told}");
    let away = spoor(&["import", "--url", &nowhere, &path("fine")]);
    assert!(!text(&away.stderr).contains("--data-dir"), "{away:?}");
}

// Scenario: JSON that holds no traces, after a document that holds one. Guarantee: it is said what was looked for, and what was found;
// what stands before it is taken.
#[test]
fn json_of_something_else_is_refused_by_its_keys() {
    let directory = TempDir::new().unwrap();
    let server = start(directory.path());
    let now = wait::now().0;
    let refused = import(&server, &format!("{}{}", span(7, "fine", now, now + 1), r#"{"traces":[]}"#), &[]);
    assert_eq!(refused.status.code(), Some(2));
    let said = text(&refused.stderr);
    assert!(said.contains("document 2: no traces here") && said.contains("found `traces`"), "{said}");
    let exported = good(&["export", "--url", &format!("http://{}", server.tempo())]);
    assert_eq!(exported.lines().count(), 1, "{exported}");
}

// Scenario: a trace whose clocks disagree is downloaded from Jaeger's API as the UI does it, and imported again. Guarantee: its spans
// are those that are there already.
#[test]
fn warnings_of_an_answer_make_no_other_spans() {
    let directory = TempDir::new().unwrap();
    let server = start(directory.path());
    let now = wait::now().0 / 1_000_000 * 1_000_000;
    let parent = r#"{"traceId":"000000000000000000000000000000a7","spanId":"0000000000000001","name":"a","kind":3,"startTimeUnixNano":"START","endTimeUnixNano":"END"}"#;
    let child =
        parent.replace("0001\"", "0002\",\"parentSpanId\":\"0000000000000001\"").replace("\"kind\":3", "\"kind\":2");
    let at =
        |span: &str, start: u64, end: u64| span.replace("START", &start.to_string()).replace("END", &end.to_string());
    let of = |service: &str, span: &str| {
        format!(
            r#"{{"resource":{{"attributes":[{{"key":"service.name","value":{{"stringValue":"{service}"}}}},{{"key":"host.name","value":{{"stringValue":"{service}"}}}},{{"key":"ip","value":{{"stringValue":"{service}"}}}}]}},"scopeSpans":[{{"spans":[{span}]}}]}}"#
        )
    };
    let spans = [of("a", &at(parent, now, now + 10_000_000)), of("b", &at(&child, now - 5_000_000, now - 1_000_000))];
    let otlp = format!(r#"{{"resourceSpans":[{}]}}"#, spans.join(","));
    assert!(import(&server, &otlp, &[]).status.success());
    let jaeger = |path: &str| text(&http::Connection::new(server.jaeger()).get(path).unwrap().body);
    let raw = jaeger("/api/traces/a7?raw=true");
    assert!(import(&server, &raw, &[]).status.success());
    let spans_of =
        |body: &str| serde_json::from_str::<Json>(body).unwrap()["data"][0]["spans"].as_array().unwrap().len();
    let before = spans_of(&jaeger("/api/traces/a7?raw=true"));
    let shown = jaeger("/api/traces/a7");
    assert!(shown.contains("clock skew adjustment disabled"), "{shown}");
    assert!(import(&server, &shown, &[]).status.success());
    assert_eq!(spans_of(&jaeger("/api/traces/a7?raw=true")), before);
}
