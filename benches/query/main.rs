//! How long do queries take over spans that lie in blocks, and how many spans does one core go through
//! for them?
//!
//! Drives the real binary over HTTP, as Grafana would: the corpus of `testkit` is ingested, the server
//! stopped (so that every span lies in a block) and started again; each query is asked once to warm the
//! page cache and then several times. CPU is the server's, so a rate per core does not depend on how many
//! threads a query got. A query that must look at every span is asked as a count; searches for the newest
//! twenty are what a person waits for.
//!
//! `SPOOR_BENCH_TRACES=1200000 cargo bench --profile release --bench query` measures twenty million
//! spans. With `SPOOR_BENCH_DIR=<directory>` the spans stay there and the next run starts from them. Without `--bench` (in `cargo test`) the size is small: then only the answers are checked.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on has failed")]
#![allow(clippy::print_stdout, reason = "a bench prints its result")]

mod queries;

use std::path::{Path, PathBuf};
use std::time::Duration;

use spoor_model::UnixNano;
use spoor_testkit::client::Compression;
use spoor_testkit::client::http::Connection;
use spoor_testkit::corpus::{Corpus, Settings};
use spoor_testkit::process::{Launch, Server};
use spoor_testkit::{machine, wait};
use tempfile::TempDir;

use self::queries::{Floor, QUERIES, Query};

const SEED: u64 = 2026;
/// About a million spans.
const TRACES: u64 = 60_000;
const TRACES_SMALL: u64 = 300;
/// Mean time between two traces of the corpus, rounded up.
const BETWEEN_TRACES_NANO: u64 = 10_000_000;

fn main() {
    let arguments: Vec<_> = std::env::args().collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    if has("--list") {
        // What test runners ask before they run anything.
        if !has("--ignored") {
            println!("small_queries_are_answered_right: test");
        }
        return;
    }
    let is_full = has("--bench");
    let asked = std::env::var("SPOOR_BENCH_TRACES").ok().and_then(|text| text.parse().ok());
    let trace_count = asked.unwrap_or(if is_full { TRACES } else { TRACES_SMALL });
    let scratch = TempDir::new().unwrap();
    let kept = std::env::var_os("SPOOR_BENCH_DIR").map(PathBuf::from);
    let directory = kept.as_deref().unwrap_or(scratch.path());
    let launch = Launch::new(env!("CARGO_BIN_EXE_spoor"), directory.join("data")).arguments(["--compaction=false"]);
    let Filled { start, span_count } = fill(&launch, &directory.join("filled.json"), trace_count);
    let server = launch.start();
    let repeats = if is_full { 15 } else { 1 };
    let mut report = format!(
        "{span_count} spans of {trace_count} traces, all in blocks; {repeats} times each, medians; {}.\n\n\
         | query | wall ms | CPU ms | M spans/s/core | floor | |\n|---|---:|---:|---:|---|---|\n",
        machine::description()
    );
    print!("{report}");
    let range = Range { start: start.0 / 1_000_000_000 - 60, end: wait::now().0 / 1_000_000_000 + 60 };
    for query in QUERIES {
        let line = measure(&server, query, &range, span_count, repeats);
        println!("{line}");
        report.push_str(&line);
        report.push('\n');
    }
    let usage = server.usage();
    let memory = format!("\nPeak memory of the server that answered: {} MB.\n", usage.resident_bytes_max / 1_000_000);
    println!("{memory}");
    if is_full {
        let path = format!("{}/benches/results/queries-{trace_count}-traces.md", env!("CARGO_MANIFEST_DIR"));
        std::fs::write(&path, format!("# Query bench\n\n{report}{memory}")).unwrap();
        println!("written to {path}");
    }
}

/// In seconds.
struct Range {
    start: u64,
    end: u64,
}

/// What lies in the data directory.
struct Filled {
    start: UnixNano,
    span_count: u64,
}

/// Ingests the corpus and stops the server, unless the note says that this was done before.
fn fill(launch: &Launch, note: &Path, trace_count: u64) -> Filled {
    if let Ok(text) = std::fs::read_to_string(note) {
        let numbers: [u64; 3] = serde_json::from_str(&text).unwrap();
        assert_eq!(numbers[0], trace_count, "{} was filled with another number of traces", note.display());
        return Filled { start: UnixNano(numbers[1]), span_count: numbers[2] };
    }
    let start = UnixNano(wait::now().0 - trace_count * BETWEEN_TRACES_NANO);
    let mut server = launch.start();
    let span_count = ingest(&server, Settings { seed: SEED, trace_count, request_spans: 1000, start });
    server.stop();
    std::fs::write(note, serde_json::to_string(&[trace_count, start.0, span_count]).unwrap()).unwrap();
    Filled { start, span_count }
}

fn ingest(server: &Server, settings: Settings) -> u64 {
    let mut connection = Connection::new(server.otlp_http());
    let headers = [("content-type", "application/x-protobuf"), ("content-encoding", Compression::Zstd.name())];
    let mut span_count = 0;
    for request in Corpus::new(settings) {
        let body = Compression::Zstd.compress(&request.body);
        let mut answer = connection.send("POST", "/v1/traces", &headers, &body).unwrap();
        while answer.status == 429 {
            wait::pause(Duration::from_millis(20));
            answer = connection.send("POST", "/v1/traces", &headers, &body).unwrap();
        }
        assert_eq!((answer.status, answer.body.len()), (200, 0), "{}", answer.text());
        span_count += u64::from(request.span_count);
    }
    span_count
}

/// A row of the table.
fn measure(server: &Server, query: &Query, range: &Range, span_count: u64, repeats: usize) -> String {
    let mut connection = Connection::new(server.tempo());
    let path = query.path(range.start, range.end);
    let mut ask = || {
        let answer = connection.get(&path).unwrap();
        assert_eq!(answer.status, 200, "{}: {}", query.name, answer.text());
        query.check(&answer.json(), span_count);
    };
    ask();
    let cpu_before = server.usage().cpu;
    let mut times: Vec<Duration> = (0..repeats)
        .map(|_| {
            let clock = wait::stopwatch();
            ask();
            clock.elapsed()
        })
        .collect();
    // The kernel counts CPU time in steps of 10 ms: only the sum means something.
    let cpu = (server.usage().cpu - cpu_before).as_secs_f64() / repeats as f64;
    times.sort_unstable();
    let wall_ms = times[times.len() / 2].as_secs_f64() * 1e3;
    let rate = span_count as f64 / cpu.max(1e-6) / 1e6;
    let (floor, is_met) = match query.floor {
        Floor::SpansPerSecond(floor) => (format!("{floor} M spans/s/core"), rate >= floor),
        Floor::Millis(floor) => (format!("{floor} ms"), wall_ms <= floor),
        Floor::MillisPerMillion(floor) => {
            (format!("{floor} ms per 1M spans"), wall_ms <= floor * (span_count as f64 / 1e6).max(1.0))
        }
    };
    let verdict = if is_met { "holds" } else { "**missed**" };
    format!("| {} | {wall_ms:.2} | {:.2} | {rate:.1} | {floor} | {verdict} |", query.name, cpu * 1e3)
}
