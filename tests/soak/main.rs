//! Scenario: the real binary for a long time, with a life that is sped up: spans are kept for a quarter of the run, so that cuts,
//! merges and retention go round many times, under ingest and queries all the while.
//! Guarantee: every answer is exact; memory and disk are flat once the first spans have gone; everything does go round.
//!
//! `make soak` runs ten minutes; `SPOOR_SOAK_SECONDS` says how long. Without it the run is short, so that this test cannot rot.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::time::Duration;

use spoor_model::{SpanId, TraceId, UnixNano};
use spoor_testkit::build;
use spoor_testkit::client::{Compression, grpc, http};
use spoor_testkit::corpus::{Corpus, Settings};
use spoor_testkit::ledger::Ledger;
use spoor_testkit::process::{Launch, Reader, Server};
use spoor_testkit::rng::Rng;
use spoor_testkit::wait;
use tempfile::TempDir;

const SHORT_SECONDS: u64 = 24;
/// Spans of a numbered trace.
const SPANS_PER_TRACE: u64 = 10;
/// What the process may hold; small, so that a leak shows.
const MEMORY_LIMIT: &str = "256MiB";

struct Soak {
    server: Server,
    grpc: grpc::Client,
    tempo: http::Connection,
    /// Spans are kept for so long.
    retention: Duration,
    rng: Rng,
    /// When each numbered trace began, by its number.
    numbered: Vec<UnixNano>,
    /// Requests of traces as services send them, and when they were sent.
    noted: Vec<(UnixNano, Ledger)>,
}

fn length() -> Duration {
    let seconds = std::env::var("SPOOR_SOAK_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(SHORT_SECONDS))
}

#[test]
fn answers_stay_exact_and_memory_and_disk_flat() {
    let directory = TempDir::new().unwrap();
    let length = length();
    let mut soak = Soak::start(&directory, length / 4);
    let began = wait::stopwatch();
    let (mut memory, mut disk) = (Vec::new(), Vec::new());
    let mut turn = 0u64;
    while began.elapsed() < length {
        soak.ingest();
        soak.ask_for_numbers();
        if turn.is_multiple_of(4) {
            soak.ask_for_traces();
            memory.push(soak.server.usage().resident_bytes);
            disk.push(soak.server.disk_bytes());
        }
        turn += 1;
    }
    soak.check_that_all_went_round();
    check_flat("memory", &memory, 32 << 20);
    check_flat("disk", &disk, 16 << 20);
    let (spans, mib) = (soak.numbered.len() as u64 * SPANS_PER_TRACE, |bytes: Option<&u64>| bytes.unwrap() >> 20);
    eprintln!(
        "{} s: {spans} numbered spans in {turn} turns; memory at most {} MiB, disk at most {} MiB",
        length.as_secs(),
        mib(memory.iter().max()),
        mib(disk.iter().max()),
    );
    soak.server.stop();
}

/// The last third is no larger than the middle one, but for `slack`: by then everything has gone round.
fn check_flat(what: &str, samples: &[u64], slack: u64) {
    let third = samples.len() / 3;
    let most = |samples: &[u64]| samples.iter().copied().max().unwrap_or(0);
    let (middle, last) = (most(&samples[third..2 * third]), most(&samples[2 * third..]));
    assert!(
        last <= middle + middle / 5 + slack,
        "{what} grows: at most {middle} in the middle third, {last} in the last"
    );
}

impl Soak {
    fn start(directory: &TempDir, retention: Duration) -> Self {
        let seconds = |duration: Duration| format!("{}ms", duration.as_millis().max(1));
        let (retention_text, window) = (seconds(retention), seconds(retention));
        let server = Launch::new(env!("CARGO_BIN_EXE_spoor"), directory.path())
            .arguments([
                "--memory-limit",
                MEMORY_LIMIT,
                "--head-cut-bytes",
                "2MiB",
                "--retention",
                &retention_text,
                "--retention-interval",
                "1s",
                "--compaction-window",
                &window,
                "--compaction-interval",
                "1s",
                "--head-max-age",
                "1s",
            ])
            .start();
        let grpc = grpc::Client::connect(server.otlp_grpc()).unwrap();
        let tempo = http::Connection::new(server.tempo());
        let (rng, numbered, noted) = (Rng::seeded(7), Vec::new(), Vec::new());
        Self { server, grpc, tempo, retention, rng, numbered, noted }
    }

    /// Some numbered traces, and some as services send them, in several requests.
    fn ingest(&mut self) {
        let now = wait::now();
        let mut specs = Vec::new();
        for _ in 0..50 {
            let number = self.numbered.len() as u64;
            self.numbered.push(now);
            for span in 0..SPANS_PER_TRACE {
                let (id, parent) = (SpanId((span + 1).to_be_bytes()), SpanId(1u64.to_be_bytes()));
                let service = format!("soak-{}", number % 5);
                let spec = build::span(&service, "work", trace_id(number), id, now).int("soak.number", number as i64);
                specs.push(if span == 0 { spec } else { spec.parent(parent) });
            }
        }
        self.send(&build::body(specs));
        let settings = Settings { seed: self.rng.bits(), trace_count: 20, request_spans: 100, start: now };
        let mut ledger = Ledger::default();
        for request in Corpus::new(settings) {
            self.send(&request.body);
            ledger.promise(&request.body);
        }
        self.noted.push((now, ledger));
    }

    fn send(&self, body: &[u8]) {
        let answer = self.grpc.export(body, Compression::Zstd).unwrap();
        assert_eq!((answer.status, answer.partial_success()), (0, None), "{answer:?}");
    }

    /// Whether what began then must still be there when an answer comes that is asked for now.
    fn is_kept(&self, began: UnixNano) -> bool {
        wait::now().since(began) < self.retention.mul_f64(0.7)
    }

    /// The count of a numbered trace's spans, by search and by metrics.
    fn ask_for_numbers(&mut self) {
        for _ in 0..3 {
            let first = self.numbered.partition_point(|began| !self.is_kept(*began));
            let number = first + self.rng.index(self.numbered.len() - first);
            let query = format!("%7B.soak.number%3D{number}%7D");
            let found = self.get(&format!("/api/search?q={query}&limit=5"));
            let traces = found["traces"].as_array().unwrap();
            assert_eq!(traces.len(), 1, "number {number}: {found}");
            assert_eq!(traces[0]["spanSets"][0]["matched"], SPANS_PER_TRACE, "{found}");
            let series = self.get(&format!("/api/metrics/query?q={query}%7Ccount_over_time()&since=1h"));
            assert_eq!(series["series"][0]["value"], SPANS_PER_TRACE as f64, "{series}");
        }
    }

    fn get(&mut self, path: &str) -> serde_json::Value {
        let answer = self.tempo.get(path).unwrap();
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    }

    /// Traces by id: whole while they are kept, gone or not afterwards, and never anything that was not sent.
    fn ask_for_traces(&mut self) {
        let retention = self.retention;
        self.noted.retain(|(began, _)| wait::now().since(*began) < retention * 2);
        let mut reader = Reader::new(&self.server);
        for _ in 0..10.min(self.noted.len()) {
            let (began, ledger) = &self.noted[self.rng.index(self.noted.len())];
            let ids: Vec<TraceId> = ledger.traces().collect();
            let id = ids[self.rng.index(ids.len())];
            let answer = reader.trace(id).unwrap();
            let must = if self.is_kept(*began) { ledger.clone() } else { Ledger::default() };
            assert_eq!(must.compare(id, answer.as_deref(), ledger), Ok(()), "trace {id}");
        }
    }

    fn check_that_all_went_round(&mut self) {
        let text = self.tempo.get("/metrics").unwrap().text();
        let value = |name: &str| -> f64 {
            let lines = text.lines().filter(|line| line.starts_with(name) && !line.starts_with('#'));
            lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
        };
        assert!(value("spoor_compactor_blocks_written_total") > 0.0, "nothing was merged:\n{text}");
        assert!(value("spoor_compactor_retention_deleted_blocks_total") > 0.0, "nothing was removed:\n{text}");
        assert_eq!(value("spoor_compactor_errors_total"), 0.0, "a merge failed:\n{}", self.server.log());
    }
}

fn trace_id(number: u64) -> TraceId {
    TraceId((u128::from(number) << 64 | 0x50a4).to_be_bytes())
}
