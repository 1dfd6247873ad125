//! The fixtures of Tempo's surface: `api/fixtures/tempo/shop/*.http`, each case a request and its answer.
//!
//! ```text
//! # name of the case
//! GET /api/search
//!   q = { status = error }
//!   limit = 1
//! 200
//! {"traces": ...}
//! ```
//!
//! JSON is compared as JSON, without what a query cost and without `spanSet`, which must be the first of
//! `spanSets`; other bodies are compared as text. With `UPDATE_FIXTURES=1` the answers are written anew; then
//! read what has changed.

use std::fmt::Write;

use axum::Router;
use serde_json::Value as Json;

use crate::fixtures::{Store, get, tempo};
use crate::tenant::Tenancy;

const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../api/fixtures/tempo/shop");

struct Case {
    /// The lines before the answer, as they stand in the file.
    head: String,
    uri: String,
    status: u16,
    body: String,
}

fn escape(text: &str) -> String {
    let keep = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(byte);
    text.bytes().fold(String::new(), |mut escaped, byte| {
        match keep(&byte) {
            true => escaped.push(char::from(byte)),
            false => write!(escaped, "%{byte:02X}").unwrap(),
        }
        escaped
    })
}

fn parse(text: &str) -> Vec<Case> {
    text.split("\n\n").map(str::trim).filter(|block| block.contains("GET ")).map(parse_case).collect()
}

fn parse_case(block: &str) -> Case {
    let mut case = Case { head: String::new(), uri: String::new(), status: 0, body: String::new() };
    let mut separator = '?';
    for line in block.lines() {
        if case.status != 0 {
            case.body.push_str(line);
            case.body.push('\n');
            continue;
        }
        if let Some(path) = line.strip_prefix("GET ") {
            case.uri = path.to_owned();
        } else if let Some((name, value)) = line.strip_prefix("  ").and_then(|line| line.split_once(" =")) {
            let value = value.strip_prefix(' ').unwrap_or(value);
            write!(case.uri, "{separator}{name}={}", escape(value)).unwrap();
            separator = '&';
        } else if !line.starts_with('#') {
            case.status = line.parse().unwrap_or_else(|_| panic!("not a status: {line}"));
            continue;
        }
        case.head.push_str(line);
        case.head.push('\n');
    }
    assert!(case.status != 0, "a case without an answer: {block}");
    case
}

/// Checks what is the same in every answer, and leaves it out.
fn without_what_is_always_so(mut json: Json) -> Json {
    if let Some(metrics) = json.get_mut("metrics").and_then(Json::as_object_mut) {
        metrics.retain(|key, _| !key.starts_with("inspected"));
    }
    let traces = json.get_mut("traces").and_then(Json::as_array_mut);
    for trace in traces.into_iter().flatten().filter_map(Json::as_object_mut) {
        let (first, span_set) = (trace.get("spanSets").map(|sets| sets[0].clone()), trace.remove("spanSet"));
        assert_eq!(span_set, first, "spanSet is the first of spanSets");
    }
    json
}

/// JSON with a line per element of its lists, so that changes can be read.
fn laid_out(json: &Json) -> String {
    let Json::Object(fields) = json else { return json.to_string() };
    let field = |(key, value): (&String, &Json)| match value {
        Json::Array(items) if !items.is_empty() => {
            let items: Vec<String> = items.iter().map(|item| format!("  {item}")).collect();
            format!("{key:?}:[\n{}]", items.join(",\n"))
        }
        value => format!("{key:?}:{value}"),
    };
    format!("{{{}}}", fields.iter().map(field).collect::<Vec<_>>().join(",\n"))
}

async fn check(router: &Router, file: &str) {
    let path = format!("{DIRECTORY}/{file}");
    let text = std::fs::read_to_string(&path).unwrap();
    let intro = text.split("\n\n").next().filter(|block| !block.contains("GET ")).unwrap_or_default();
    let mut renewed = format!("{intro}\n");
    let mut failed = String::new();
    let cases = parse(&text);
    assert!(!cases.is_empty(), "{file}");
    for case in cases {
        let reply = get(router, &case.uri, &[]).await;
        let body = reply.text().trim_end().to_owned();
        let (found, expected) = match serde_json::from_str::<Json>(&body) {
            Ok(json) => {
                let expected = serde_json::from_str(&case.body).map(|json: Json| laid_out(&json));
                (laid_out(&without_what_is_always_so(json)), expected.unwrap_or_else(|_| case.body.clone()))
            }
            Err(_) => (body, case.body.trim_end().to_owned()),
        };
        write!(renewed, "\n{}{}\n{found}\n", case.head, reply.status.as_u16()).unwrap();
        if (reply.status.as_u16(), &found) != (case.status, &expected) {
            writeln!(failed, "{}{}\n{found}\nexpected {}\n{expected}\n", case.head, reply.status, case.status).unwrap();
        }
    }
    if std::env::var_os("UPDATE_FIXTURES").is_some() {
        std::fs::write(&path, renewed).unwrap();
        return;
    }
    assert!(failed.is_empty(), "{file}:\n{failed}");
}

macro_rules! files {
    ($($name:ident: $file:literal,)+) => {$(
        #[tokio::test]
        async fn $name() {
            let data = std::fs::read(format!("{DIRECTORY}/request.json")).unwrap();
            check(&tempo(Store::with(&data), Tenancy::Single), $file).await;
        }
    )+};
}

files! {
    searches_answer_as_in_the_fixtures: "search.http",
    tag_names_and_values_answer_as_in_the_fixtures: "tags.http",
    series_answer_as_in_the_fixtures: "metrics.http",
    filtered_traces_answer_as_in_the_fixtures: "trace_by_id.http",
    traces_drilldown_is_answered_as_in_the_fixtures: "drilldown.http",
}
