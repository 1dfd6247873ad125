//! The command line tools on real data: what goes out comes in again, whole and once; what is rotten is found.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod adopt;
mod blocks;
mod export;
mod import;
mod pipes;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value as Json;
use spoor_model::UnixNano;
use spoor_testkit::client::{Compression, grpc, http};
use spoor_testkit::ledger::Ledger;
use spoor_testkit::nasty::Nasty;
use spoor_testkit::process::{Launch, Reader, Server};
use spoor_testkit::wait;
use tempfile::TempDir;

fn start(directory: &Path) -> Server {
    Launch::new(env!("CARGO_BIN_EXE_spoor"), directory).start()
}

fn spoor(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_spoor")).args(arguments).output().unwrap()
}

/// Runs a command that must succeed; what it printed.
fn good(arguments: &[&str]) -> String {
    let output = spoor(arguments);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The names in a directory, sorted.
fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A directory with so many blocks, cut one after the other, and what is in them. No server runs.
fn with_blocks(directory: &Path, count: u64) -> Ledger {
    let mut ledger = Ledger::default();
    for seed in 0..count {
        let mut server = start(directory);
        ingest(&server, 10 + seed, 3, &mut ledger);
        server.stop();
    }
    ledger
}

fn ingest(server: &Server, seed: u64, requests: usize, ledger: &mut Ledger) {
    let mut nasty = Nasty::new(seed, UnixNano(wait::now().0 - 60_000_000_000));
    let client = grpc::Client::connect(server.otlp_grpc()).unwrap();
    for _ in 0..requests {
        let body = nasty.request(100);
        let answer = client.export(&body, Compression::Zstd).unwrap();
        assert_eq!((answer.status, answer.partial_success()), (0, None), "{answer:?}");
        ledger.promise(&body);
    }
}

fn check(server: &Server, ledger: &Ledger) {
    let mut reader = Reader::new(server);
    for id in ledger.traces() {
        let answer = reader.trace(id).unwrap();
        assert_eq!(ledger.compare(id, answer.as_deref(), &Ledger::default()), Ok(()), "trace {id}");
    }
}

// Scenario: everything is exported from a running server, and imported into an empty one. Guarantee: nothing is lost,
// nothing is there twice, however often it is imported.
#[test]
fn an_export_imported_elsewhere_is_the_same_data() {
    let (from, to, out) = (TempDir::new().unwrap(), TempDir::new().unwrap(), TempDir::new().unwrap());
    let (server, mut ledger) = (start(from.path()), Ledger::default());
    ingest(&server, 1, 12, &mut ledger);
    let file = out.path().join("all.pb").display().to_string();
    let url = format!("http://{}", server.tempo());
    good(&["export", "--url", &url, "--format", "otlp-proto", "--output", &file]);
    let again = spoor(&["export", "--url", &url, "--format", "otlp-proto", "--output", &file]);
    assert!(!again.status.success(), "a file that is there is not written over");

    let other = start(to.path());
    let otlp = format!("http://{}", other.otlp_http());
    for _ in 0..2 {
        good(&["import", &file, "--url", &otlp]);
    }
    check(&other, &ledger);
}

// Scenario: a directory at rest is exported as JSON lines, packed, and imported. Guarantee: every span arrives.
#[test]
fn a_directory_at_rest_is_exported_as_json_and_comes_back_from_a_packed_file() {
    let (from, to, out) = (TempDir::new().unwrap(), TempDir::new().unwrap(), TempDir::new().unwrap());
    let (mut server, mut ledger) = (start(from.path()), Ledger::default());
    ingest(&server, 2, 6, &mut ledger);
    server.stop();
    let json = good(&["export", "--data-dir", &from.path().display().to_string()]);
    let count = |text: &str| text.matches("\"traceId\"").count() - text.matches("\"links\"").count();
    assert!(count(&json) > 0 && json.lines().count() == ledger.traces().count());
    let packed = out.path().join("all.jsonl.zst");
    fs::write(&packed, zstd::bulk::compress(json.as_bytes(), 3).unwrap()).unwrap();
    let other = start(to.path());
    let imported = good(&["import", &packed.display().to_string(), "--url", &format!("http://{}", other.otlp_http())]);
    assert!(imported.contains(" spans imported"), "{imported}");
    let mut reader = Reader::new(&other);
    let missing: Vec<_> = ledger.traces().filter(|id| reader.trace(*id).unwrap().is_none()).collect();
    assert_eq!(missing, []);
    let export = |server: &Server| good(&["export", "--url", &format!("http://{}", server.tempo())]);
    let sorted = |text: String| {
        let mut lines: Vec<Json> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        lines.iter_mut().for_each(canonical);
        lines.sort_by_key(Json::to_string);
        lines
    };
    assert_eq!(sorted(export(&other)), sorted(json));
}

/// Attributes may change their order within a span.
fn canonical(json: &mut Json) {
    match json {
        Json::Array(items) => {
            items.iter_mut().for_each(canonical);
            if items.iter().any(|item| item.get("key").is_some()) {
                items.sort_by_key(Json::to_string);
            }
        }
        Json::Object(fields) => fields.iter_mut().for_each(|(_, value)| canonical(value)),
        _ => {}
    }
}

// Scenario: a trace downloaded from Jaeger's API is imported. Guarantee: it is found there as it was.
#[test]
fn a_trace_of_jaegers_api_is_imported() {
    let (from, to, out) = (TempDir::new().unwrap(), TempDir::new().unwrap(), TempDir::new().unwrap());
    let (server, other) = (start(from.path()), start(to.path()));
    let shop = concat!(env!("CARGO_MANIFEST_DIR"), "/api/fixtures/tempo/shop/request.json");
    good(&["import", shop, "--url", &format!("http://{}", server.otlp_http())]);
    let trace = "/api/traces/a1?raw=true";
    let downloaded = http::Connection::new(server.jaeger()).get(trace).unwrap();
    let file = out.path().join("trace.json");
    fs::write(&file, &downloaded.body).unwrap();
    good(&["import", &file.display().to_string(), "--url", &format!("http://{}", other.otlp_http())]);
    let again = http::Connection::new(other.jaeger()).get(trace).unwrap();
    let spans = |body: &[u8]| {
        let answer: Json = serde_json::from_slice(body).unwrap();
        let names = answer["data"][0]["spans"].as_array().unwrap().iter().map(|span| {
            ["spanID", "operationName", "startTime", "duration", "references"]
                .map(|key| span[key].to_string())
                .join(" ")
        });
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    };
    assert!(!spans(&downloaded.body).is_empty());
    assert_eq!(spans(&again.body), spans(&downloaded.body));
}
