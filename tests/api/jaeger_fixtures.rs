//! The fixtures of Jaeger's surface, `api/fixtures/jaeger/shop/*.http`, against the real process: each case a request and its
//! answer.
//!
//! ```text
//! # what the case shows
//! GET /api/traces
//!   service = cart
//!   limit = 1
//! 200
//! {"data": ...}
//! ```
//!
//! A line `  > text` is the request's body. JSON is compared as JSON, other bodies as text; that success is labelled
//! `application/json` and failure `text/plain` holds for all. With `UPDATE_FIXTURES=1` the answers are written anew;
//! then read what has changed.

use std::fmt::Write;

use serde_json::Value as Json;
use spoor_testkit::client::http;

use super::{Spoor, escape, start};

const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/api/fixtures/jaeger/shop");

#[derive(Default)]
struct Case {
    /// The lines before the answer, as they stand in the file.
    head: String,
    method: String,
    uri: String,
    body: String,
    status: u16,
    answer: String,
}

fn parse(block: &str) -> Case {
    let mut case = Case::default();
    let mut separator = '?';
    let mut lines = block.lines();
    for line in lines.by_ref() {
        if let Ok(status) = line.parse() {
            case.status = status;
            break;
        }
        writeln!(case.head, "{line}").unwrap();
        if let Some(body) = line.strip_prefix("  > ") {
            case.body = body.to_owned();
        } else if let Some((name, value)) = line.strip_prefix("  ").and_then(|line| line.split_once(" =")) {
            let value = value.strip_prefix(' ').unwrap_or(value);
            write!(case.uri, "{separator}{name}={}", escape(value)).unwrap();
            separator = '&';
        } else if !line.starts_with('#') {
            let (method, path) = line.split_once(' ').unwrap_or_else(|| panic!("not a request: {line}"));
            (case.method, case.uri) = (method.to_owned(), path.to_owned());
        }
    }
    case.answer = lines.collect::<Vec<_>>().join("\n");
    case
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

fn readable(body: &str, uri: &str) -> String {
    match serde_json::from_str(body) {
        // How an answer is indented is what such a case is about.
        Ok(_) if uri.contains("prettyPrint") => body.trim_end().to_owned(),
        Ok(json) => laid_out(&json),
        Err(_) => body.trim_end().to_owned(),
    }
}

fn check(spoor: &Spoor, file: &str) -> usize {
    let path = format!("{DIRECTORY}/{file}");
    let text = std::fs::read_to_string(&path).unwrap();
    let (intro, cases) = text.split_once("\n\n").unwrap();
    let (mut renewed, mut failed) = (format!("{intro}\n"), String::new());
    let cases: Vec<Case> = cases.split("\n\n").map(parse).collect();
    for case in &cases {
        let connection = &mut http::Connection::new(spoor.server.jaeger());
        let answer = connection.send(&case.method, &case.uri, &[], case.body.as_bytes()).unwrap();
        let label = answer.headers.get("content-type").map(String::as_str);
        let expected = if answer.status == 200 { "application/json" } else { "text/plain; charset=utf-8" };
        assert_eq!(label, Some(expected), "{} {}", case.method, case.uri);
        let (found, expected) = (readable(&answer.text(), &case.uri), readable(&case.answer, &case.uri));
        write!(renewed, "\n{}{}\n{found}\n", case.head, answer.status).unwrap();
        if (answer.status, &found) != (case.status, &expected) {
            let (head, want) = (&case.head, case.status);
            writeln!(failed, "{head}{}\n{found}\nexpected {want}\n{expected}\n", answer.status).unwrap();
        }
    }
    if std::env::var_os("UPDATE_FIXTURES").is_some() {
        std::fs::write(&path, renewed).unwrap();
    } else {
        assert!(failed.is_empty(), "{file}:\n{failed}");
    }
    cases.len()
}

#[test]
fn every_fixture_is_answered_as_it_stands_before_and_after_a_block_is_cut() {
    let mut spoor = start(&["--retention", "0"]);
    let request = std::fs::read(format!("{DIRECTORY}/request.json")).unwrap();
    let sent = spoor.post(&[("content-type", "application/json")], &request);
    assert_eq!((sent.status, sent.text().as_str()), (200, "{}"));
    let files = ["lists.http", "search.http", "traces.http", "dependencies.http", "v3.http", "other.http"];
    let check_all = |spoor: &Spoor| files.iter().map(|file| check(spoor, file)).sum::<usize>();
    assert!(check_all(&spoor) >= 100);
    spoor.server.stop();
    spoor.server = spoor.server.launch().start();
    check_all(&spoor);
}
