//! How fast and how small is Spoor, from the socket to the block, and how quickly are traces found again?
//!
//! Drives the real binary on this machine with the corpus of `testkit` (a web shop: ~17 spans per
//! trace, ~385 bytes per span on the wire, exports of 1000 spans) and prints one table: measured,
//! floor, verdict. The driver shares the cores with the server; CPU time is the server's alone, taken
//! after SIGTERM, when every span lies in a block.
//!
//! `make bench` measures about a million spans and writes `benches/results/<date>.md`;
//! `SPOOR_BENCH_TRACES` changes the size. Without `--bench` (in `cargo test`) the size is small: then
//! only the answers are checked, no time is.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on has failed")]
#![allow(clippy::print_stdout, reason = "a bench prints its result")]

mod drive;
mod lookup;
mod report;

use std::path::Path;
use std::time::Duration;

use spoor_model::UnixNano;
use spoor_testkit::client::Compression;
use spoor_testkit::corpus::{Corpus, Request, Settings};
use spoor_testkit::process::{Launch, disk_bytes};
use spoor_testkit::wait;
use tempfile::TempDir;

use self::drive::{Bodies, Transport};
use self::report::{Report, Run};

const SEED: u64 = 2026;
/// About a million spans.
const TRACES: u64 = 60_000;
const TRACES_SMALL: u64 = 600;
/// Exporters that send their next request when the last is acknowledged.
const CLIENTS: usize = 2;
/// Bytes that the log must have before it is recovered.
const LOG_BYTES: u64 = 200 << 20;
const LOG_BYTES_SMALL: u64 = 1 << 20;

fn main() {
    let arguments: Vec<_> = std::env::args().collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    if has("--list") {
        // What test runners ask before they run anything.
        if !has("--ignored") {
            println!("small_load_is_answered_right: test");
        }
        return;
    }
    let is_full = has("--bench");
    let asked = std::env::var("SPOOR_BENCH_TRACES").ok().and_then(|text| text.parse().ok());
    let trace_count = asked.unwrap_or(if is_full { TRACES } else { TRACES_SMALL });
    let log_bytes = if trace_count >= TRACES { LOG_BYTES } else { LOG_BYTES_SMALL };

    let settings = settings(trace_count, SEED);
    let requests: Vec<Request> = Corpus::new(settings).collect();
    let mut report = Report::new(trace_count, &requests);
    println!("{}", report.data_set());
    report.ready = measure_start(&mut report.idle_bytes, is_full);
    let kept = TempDir::new().unwrap();
    for (transport, compression, clients) in [
        (Transport::Grpc, Compression::Identity, CLIENTS),
        (Transport::Grpc, Compression::Gzip, CLIENTS),
        (Transport::Grpc, Compression::Zstd, CLIENTS),
        (Transport::Http, Compression::Identity, CLIENTS),
        (Transport::Http, Compression::Gzip, CLIENTS),
        (Transport::Grpc, Compression::Identity, 8),
    ] {
        let is_first = report.runs.is_empty();
        let other = TempDir::new().unwrap();
        let directory = if is_first { kept.path() } else { other.path() };
        let bodies = Bodies::new(&requests, transport, compression);
        let run = measure_ingest(directory, transport, compression, clients, &bodies);
        println!("{}", run.line());
        report.runs.push(run);
    }
    let server = launch(kept.path()).start();
    report.lookups = lookup::measure(&server, SEED, trace_count, if is_full { 3000 } else { 100 });
    drop(server);
    drop(requests);
    report.recovery = Some(measure_recovery(trace_count, log_bytes));
    println!("\n{}", report.table());
    if is_full {
        println!("written to {}", report.write().display());
    }
}

/// A corpus that ends about now: nothing in it is past the retention.
fn settings(trace_count: u64, seed: u64) -> Settings {
    let span = trace_count * 10_000_000;
    Settings { seed, trace_count, request_spans: 1000, start: UnixNano(wait::now().0 - span) }
}

fn launch(directory: &Path) -> Launch {
    Launch::new(env!("CARGO_BIN_EXE_spoor"), directory)
}

/// Time from the start of the process to `/ready` on an empty directory: the median of five.
fn measure_start(idle_bytes: &mut u64, is_full: bool) -> Duration {
    let mut times: Vec<_> = (0..5)
        .map(|_| {
            let directory = TempDir::new().unwrap();
            let clock = wait::stopwatch();
            let server = launch(directory.path()).start();
            let ready = clock.elapsed();
            if is_full {
                wait::pause(Duration::from_secs(1));
            }
            *idle_bytes = server.usage().resident_bytes.max(*idle_bytes);
            ready
        })
        .collect();
    times.sort_unstable();
    times[times.len() / 2]
}

fn measure_ingest(
    directory: &Path,
    transport: Transport,
    compression: Compression,
    clients: usize,
    bodies: &Bodies,
) -> Run {
    let mut server = launch(directory).start();
    let before = server.usage().cpu;
    let clock = wait::stopwatch();
    let mut acks = drive::closed_loop(&server, transport, compression, clients, bodies);
    let wall = clock.elapsed();
    acks.sort_unstable();
    let at_answer = server.usage().cpu - before;
    let usage = server.stop();
    Run {
        name: format!("{}, {}, {clients} clients", transport.name(), compression.name()),
        span_count: bodies.span_count,
        wall,
        cpu_at_answer: at_answer,
        cpu: usage.cpu - before,
        ack_p50: acks[acks.len() / 2],
        ack_p99: acks[acks.len() * 99 / 100],
        resident_bytes_max: usage.resident_bytes_max,
        disk_bytes: disk_bytes(directory),
        block_bytes: disk_bytes(&directory.join("blocks")),
    }
}

/// Fills a log without cutting a block, kills the process and starts it with its default memory.
fn measure_recovery(trace_count: u64, log_bytes: u64) -> report::Recovery {
    let directory = TempDir::new().unwrap();
    let roomy = ["--memory-limit", "16GiB", "--head-memory-limit", "6GiB", "--head-cut-bytes", "3GiB"];
    let mut server = launch(directory.path()).arguments(roomy).start();
    let log = directory.path().join("db");
    let mut span_count = 0;
    for seed in 0.. {
        if disk_bytes(&log) >= log_bytes {
            break;
        }
        let requests: Vec<_> = Corpus::new(settings(trace_count.min(20_000), SEED + 1 + seed)).collect();
        let bodies = Bodies::new(&requests, Transport::Grpc, Compression::Identity);
        drive::closed_loop(&server, Transport::Grpc, Compression::Identity, CLIENTS, &bodies);
        span_count += bodies.span_count;
    }
    server.kill();
    let log_bytes = disk_bytes(&log);
    let clock = wait::stopwatch();
    let mut server = launch(directory.path()).start();
    let wall = clock.elapsed();
    let usage = server.usage();
    server.stop();
    report::Recovery { log_bytes, span_count, wall, cpu: usage.cpu, resident_bytes_max: usage.resident_bytes_max }
}
