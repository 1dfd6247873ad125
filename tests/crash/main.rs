//! Scenario: `kill -9` at random instants under load, several times on one directory: while spans are
//! decoded, logged, cut into blocks, published, trimmed from the log, and while a start recovers.
//! Guarantee: after a restart every acknowledged span is there exactly once, through the API; a span that
//! was sent but never acknowledged is there once or not at all; nothing else is there.
//!
//! A seed decides the spans and the instants. `SPOOR_CRASH_SEED=7 cargo test --release --test crash`
//! replays one; `SPOOR_CRASH_SEEDS=200` runs more than the default 20.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use spoor_model::UnixNano;
use spoor_testkit::client::{Compression, grpc, http};
use spoor_testkit::corpus::{Corpus, Settings};
use spoor_testkit::ledger::Ledger;
use spoor_testkit::nasty::Nasty;
use spoor_testkit::process::{Launch, Reader, Server};
use spoor_testkit::rng::Rng;
use spoor_testkit::wait;
use tempfile::TempDir;

const SEED_COUNT: u64 = 20;
/// Lives that each directory sees before it is checked.
const LIVES: u64 = 3;

/// What the clients know after the kill.
#[derive(Default)]
struct Known {
    acknowledged: Ledger,
    /// Sent; the answer never came or was no.
    unanswered: Ledger,
}

impl Known {
    fn merge(&mut self, other: Self) {
        self.acknowledged.merge(other.acknowledged);
        self.unanswered.merge(other.unanswered);
    }

    fn note(&mut self, body: &[u8], is_acknowledged: bool) {
        let ledger = if is_acknowledged { &mut self.acknowledged } else { &mut self.unanswered };
        ledger.promise(body);
    }
}

fn seeds() -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    match number("SPOOR_CRASH_SEED") {
        Some(seed) => vec![seed],
        None => (1..=number("SPOOR_CRASH_SEEDS").unwrap_or(SEED_COUNT)).collect(),
    }
}

#[test]
fn every_acknowledged_span_survives_a_kill_at_any_instant_exactly_once() {
    let failed: Vec<_> =
        seeds().into_iter().filter(|seed| std::panic::catch_unwind(|| survive(*seed)).is_err()).collect();
    let replay: Vec<_> =
        failed.iter().map(|seed| format!("SPOOR_CRASH_SEED={seed} cargo test --release --test crash")).collect();
    assert!(failed.is_empty(), "lost or invented spans; replay with:\n  {}", replay.join("\n  "));
}

fn launch(directory: &TempDir) -> Launch {
    // A small head: cuts, publications and trims happen several times a second.
    Launch::new(env!("CARGO_BIN_EXE_spoor"), directory.path()).arguments([
        "--memory-limit",
        "256MiB",
        "--head-cut-bytes",
        "512KiB",
    ])
}

fn survive(seed: u64) {
    let directory = TempDir::new().unwrap();
    let mut rng = Rng::seeded(seed);
    let mut known = Known::default();
    for life in 0..LIVES {
        if rng.chance(0.3) {
            // Killed while it recovers, or while it does not yet do anything.
            let mut server = launch(&directory).spawn();
            wait::pause(Duration::from_micros(rng.below(150_000)));
            server.kill();
        }
        let mut server = launch(&directory).start();
        let writers = start_writers(&server, seed * 100 + life * 10);
        wait::pause(Duration::from_micros(30_000 + rng.below(300_000)));
        server.kill();
        writers.into_iter().for_each(|writer| known.merge(writer.finish()));
    }
    let mut server = launch(&directory).start();
    check(&server, &known, seed);
    server.stop();
    check(&launch(&directory).start(), &known, seed);
}

fn check(server: &Server, known: &Known, seed: u64) {
    let mut reader = Reader::new(server);
    let mut traces: Vec<_> = known.acknowledged.traces().chain(known.unanswered.traces()).collect();
    traces.sort_unstable();
    traces.dedup();
    assert!(known.acknowledged.traces().count() > 0, "seed {seed}: nothing was acknowledged before the kill");
    for id in traces {
        let answer = reader.trace(id).unwrap();
        let compared = known.acknowledged.compare(id, answer.as_deref(), &known.unanswered);
        assert_eq!(compared, Ok(()), "seed {seed}, trace {id}");
    }
}

/// A client that sends until the server is gone.
struct Writer {
    thread: JoinHandle<Known>,
    should_stop: Arc<AtomicBool>,
}

impl Writer {
    fn finish(self) -> Known {
        self.should_stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

fn start_writers(server: &Server, seed: u64) -> Vec<Writer> {
    let (grpc_address, http_address) = (server.otlp_grpc(), server.otlp_http());
    vec![
        writer(move |stop| nasty_over_grpc(grpc_address, seed, stop)),
        writer(move |stop| corpus_over_grpc(grpc_address, seed + 1, stop)),
        writer(move |stop| nasty_over_http(http_address, seed + 2, stop)),
    ]
}

fn writer(run: impl FnOnce(&AtomicBool) -> Known + Send + 'static) -> Writer {
    let should_stop = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&should_stop);
    Writer { thread: std::thread::spawn(move || run(&stop)), should_stop }
}

fn start_of_spans() -> UnixNano {
    UnixNano(wait::now().0 - 600_000_000_000)
}

/// Sends over gRPC; sometimes the same request again, as an exporter does after a lost answer.
fn send_over_grpc(address: SocketAddr, seed: u64, bodies: impl Iterator<Item = Vec<u8>>, stop: &AtomicBool) -> Known {
    let (mut known, mut rng) = (Known::default(), Rng::seeded(seed));
    let Ok(client) = grpc::Client::connect(address) else { return known };
    for body in bodies {
        let compression = *rng.pick(&Compression::ALL);
        let times = if rng.chance(0.1) { 2 } else { 1 };
        for _ in 0..times {
            let answer = client.export(&body, compression);
            known.note(&body, matches!(&answer, Ok(answer) if answer.status == 0));
            if answer.is_err() || stop.load(Ordering::Relaxed) {
                return known;
            }
        }
    }
    known
}

fn nasty_over_grpc(address: SocketAddr, seed: u64, stop: &AtomicBool) -> Known {
    send_over_grpc(address, seed, nasty_bodies(seed), stop)
}

fn corpus_over_grpc(address: SocketAddr, seed: u64, stop: &AtomicBool) -> Known {
    let settings = Settings { seed, trace_count: 100_000, request_spans: 200, start: start_of_spans() };
    send_over_grpc(address, seed, Corpus::new(settings).map(|request| request.body), stop)
}

/// Traces of some hundred spans: a new set of them every ten requests.
fn nasty_bodies(seed: u64) -> impl Iterator<Item = Vec<u8>> {
    (0..).flat_map(move |batch: u64| {
        let mut nasty = Nasty::new(seed << 20 | batch, start_of_spans());
        (0..10).map(move |_| nasty.request(60))
    })
}

fn nasty_over_http(address: SocketAddr, seed: u64, stop: &AtomicBool) -> Known {
    let mut known = Known::default();
    let mut connection = http::Connection::new(address);
    for body in nasty_bodies(seed) {
        let answer = connection.send_once("POST", "/v1/traces", &[("content-type", "application/x-protobuf")], &body);
        known.note(&body, matches!(&answer, Ok(answer) if answer.status == 200));
        if answer.is_err() || stop.load(Ordering::Relaxed) {
            return known;
        }
    }
    known
}
