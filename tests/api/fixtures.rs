//! Cases in files, `api/fixtures/<surface>/<data>/*.http`, against the real process: each a request and its answer.
//!
//! ```text
//! # what the case shows
//! GET /api/traces
//!   service = cart
//!   limit = 1
//!   accept: application/json
//!   > a body
//! 200
//!   content-encoding: gzip
//! {"data": ...}
//! ```
//!
//! `name = value` is a parameter, `name: value` a header. JSON is compared as JSON, protobuf by its fields, other
//! bodies as text, and of the headers those that say something. With `UPDATE_FIXTURES=1` the answers are written
//! anew; then read what has changed.

use std::fmt::Write;
use std::net::SocketAddr;

use serde_json::Value as Json;
use spoor_model::wire::{Field, Reader};
use spoor_testkit::client::http;

use super::{Spoor, escape};

/// What the files of one surface have in common.
pub(crate) struct Surface {
    /// Where they are.
    pub(crate) directory: &'static str,
    /// Where they are sent.
    pub(crate) address: fn(&Spoor) -> SocketAddr,
    /// The content type that goes without saying.
    pub(crate) usual_type: fn(&http::Answer) -> Option<&'static str>,
    /// Checks what holds for every answer of that content type, and takes out what differs from run to run.
    pub(crate) settle: fn(&Case, &str, Json) -> Json,
}

/// One request, and what is expected.
#[derive(Default)]
pub(crate) struct Case {
    /// The lines before the answer, as they stand in the file.
    head: String,
    pub(crate) method: String,
    /// Without parameters.
    pub(crate) path: String,
    /// Names and values, as written.
    pub(crate) params: Vec<(String, String)>,
    headers: Vec<(String, String)>,
    body: String,
    status: u16,
    answer: String,
}

/// Headers of answers that say something about the case.
const NOTED: [&str; 6] = ["content-type", "content-encoding", "x-spoor-partial", "x-spoor-next", "allow", "etag"];

fn parse(block: &str) -> Case {
    let mut case = Case::default();
    let mut lines = block.lines();
    for line in lines.by_ref() {
        if let Ok(status) = line.parse() {
            case.status = status;
            break;
        }
        writeln!(case.head, "{line}").unwrap();
        let Some(detail) = line.strip_prefix("  ") else {
            if !line.starts_with('#') {
                let (method, path) = line.split_once(' ').unwrap_or_else(|| panic!("not a request: {line}"));
                (case.method, case.path) = (method.to_owned(), path.to_owned());
            }
            continue;
        };
        let header = detail.split_once(": ").filter(|(name, _)| !name.contains([' ', '>']));
        if let Some(body) = detail.strip_prefix("> ") {
            case.body.push_str(body);
        } else if let Some((name, value)) = header {
            case.headers.push((name.to_owned(), value.to_owned()));
        } else if let Some((name, value)) = detail.split_once(" =") {
            case.params.push((name.to_owned(), value.strip_prefix(' ').unwrap_or(value).to_owned()));
        } else {
            panic!("neither parameter nor header nor body: {line}");
        }
    }
    assert!(case.status != 0, "a case without an answer: {block}");
    case.answer = lines.collect::<Vec<_>>().join("\n");
    case
}

impl Case {
    fn uri(&self) -> String {
        let mut uri = self.path.clone();
        let mut separator = if uri.contains('?') { '&' } else { '?' };
        for (name, value) in &self.params {
            write!(uri, "{separator}{name}={}", escape(value)).unwrap();
            separator = '&';
        }
        uri
    }

    fn ask(&self, address: SocketAddr) -> http::Answer {
        let headers: Vec<_> = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let connection = &mut http::Connection::new(address);
        connection.send(&self.method, &self.uri(), &headers, self.body.as_bytes()).unwrap()
    }

    /// How an answer is indented is what such a case is about.
    fn is_about_layout(&self) -> bool {
        self.params.iter().any(|(name, _)| name == "prettyPrint")
    }
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

/// A message by its numbers: `1{..}` is a message, `2"..."` a text, `3=7` a number, `4#0aff` bytes. What could be
/// either is a text if it can be printed.
fn fields_of(message: &[u8]) -> Option<String> {
    let mut reader = Reader::new(message);
    let mut fields: Vec<String> = Vec::new();
    while let Some((number, field)) = reader.next_field().ok()? {
        fields.push(field_text(number, &field));
    }
    sort_attributes(&mut fields);
    Some(fields.join(" "))
}

fn field_text(number: u32, field: &Field<'_>) -> String {
    match field {
        Field::Varint(value) | Field::Fixed64(value) => format!("{number}={value}"),
        Field::Fixed32(value) => format!("{number}={value}"),
        Field::Bytes([]) => format!("{number}{{}}"),
        Field::Bytes(bytes) => match (std::str::from_utf8(bytes), fields_of(bytes)) {
            (Ok(text), _) if !text.contains(char::is_control) => format!("{number}{text:?}"),
            (_, Some(inner)) => format!("{number}{{{inner}}}"),
            _ => format!("{number}#{}", bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
        },
    }
}

/// Sorts attributes, and what looks like them: a block does not keep their order.
fn sort_attributes(fields: &mut [String]) {
    let number = |field: &String| field.split_once("{1\"").map(|(number, _)| number.to_owned());
    let is_run = |a: &String, b: &String| number(a).is_some() && number(a) == number(b);
    fields.chunk_by_mut(is_run).for_each(|run| run.sort());
}

/// A line per field of the message; what a query cost (field 2 of every answer of Tempo's) left out.
fn protobuf_text(message: &[u8]) -> String {
    let mut reader = Reader::new(message);
    let mut lines = Vec::new();
    while let Some((number, field)) = reader.next_field().unwrap() {
        lines.push(if number == 2 { "2{..}".to_owned() } else { field_text(number, &field) });
    }
    lines.join("\n")
}

/// The answer as it stands in a file: status, noted headers, body.
fn shown(surface: &Surface, case: &Case, answer: &http::Answer) -> (String, String) {
    let usual = (surface.usual_type)(answer);
    let mut head = format!("{}\n", answer.status);
    for name in NOTED {
        match answer.headers.get(name).map(String::as_str) {
            Some(value) if name == "content-type" && usual == Some(value) => {}
            // Routers also tell methods of routes that say that there is nothing.
            Some(_) if name == "allow" && answer.status != 405 => {}
            Some(value) => writeln!(head, "  {name}: {value}").unwrap(),
            None if name == "content-type" && usual.is_some() => writeln!(head, "  content-type: none").unwrap(),
            None => {}
        }
    }
    let body = answer.decompressed();
    let label = answer.headers.get("content-type").map_or("", String::as_str);
    if label == "application/protobuf" {
        return (head, protobuf_text(&body));
    }
    let text = String::from_utf8(body).unwrap().trim_end().to_owned();
    match serde_json::from_str(&text) {
        Ok(json) if !case.is_about_layout() => (head, laid_out(&(surface.settle)(case, label, json))),
        _ => (head, text),
    }
}

/// What the file expects, laid out as what is found.
fn expected(case: &Case) -> (String, String) {
    let mut head = format!("{}\n", case.status);
    let headers = case.answer.lines().take_while(|line| line.starts_with("  ") && line.contains(": "));
    let count = headers.clone().count();
    headers.for_each(|line| writeln!(head, "{line}").unwrap());
    let body = case.answer.lines().skip(count).collect::<Vec<_>>().join("\n");
    let body = body.trim_end();
    match serde_json::from_str(body) {
        Ok(json) if !case.is_about_layout() => (head, laid_out(&json)),
        _ => (head, body.to_owned()),
    }
}

/// Sends the cases of a file. Returns how many they are.
pub(crate) fn check(surface: &Surface, spoor: &Spoor, file: &str) -> usize {
    let path = format!("{}/{file}", surface.directory);
    let text = std::fs::read_to_string(&path).unwrap();
    let (intro, cases) = text.split_once("\n\n").unwrap();
    let (mut renewed, mut failed) = (format!("{intro}\n"), String::new());
    let cases: Vec<Case> = cases.split("\n\n").map(parse).collect();
    for case in &cases {
        let answer = case.ask((surface.address)(spoor));
        let (found, expected) = (shown(surface, case, &answer), expected(case));
        let of_file = |(head, body): &(String, String)| format!("{head}{body}").trim_end().to_owned();
        write!(renewed, "\n{}{}\n", case.head, of_file(&found)).unwrap();
        if found != expected {
            writeln!(failed, "{}{}\nexpected {}\n", case.head, of_file(&found), of_file(&expected)).unwrap();
        }
    }
    if std::env::var_os("UPDATE_FIXTURES").is_some() {
        std::fs::write(&path, renewed).unwrap();
    } else {
        assert!(failed.is_empty(), "{file}:\n{failed}");
    }
    cases.len()
}
