//! Scenario: the real binary cuts many small blocks and merges them at once and all the time, while clients send and
//! ask; then with `kill -9` at random instants, several times on one directory.
//! Guarantee: every answer is exact at every instant, by trace and by count; after a kill every acknowledged span is there
//! exactly once; deleted traces are gone, at once and from disk, and nothing else is.
//!
//! A seed decides the spans and the instants. `SPOOR_COMPACTION_SEED=7 cargo test --release --test compaction` replays one.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
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

const PHASES: u64 = 6;
const PHASE_TRACES: u64 = 500;
/// Between the spans of one phase and those of the next.
const PHASE_SECONDS: u64 = 60;
const SEED_COUNT: u64 = 4;
/// Lives that each directory sees before it is checked.
const LIVES: u64 = 4;
const PATIENCE: Duration = Duration::from_secs(90);

/// Cuts several times a second, and merges whatever it finds.
fn launch(directory: &TempDir) -> Launch {
    Launch::new(env!("CARGO_BIN_EXE_spoor"), directory.path()).arguments([
        "--memory-limit",
        "256MiB",
        "--head-cut-bytes",
        "256KiB",
        "--head-max-age",
        "1s",
        "--compaction-interval",
        "20ms",
        "--compaction-window",
        "10m",
        "--compaction-cpu-share",
        "100",
        "--trace-deletion",
    ])
}

/// Three hours ago: windows that are over.
fn base() -> UnixNano {
    UnixNano(wait::now().0 / 1_000_000_000 * 1_000_000_000 - 10_800_000_000_000)
}

/// Spans that were all acknowledged.
struct Phase {
    ledger: Ledger,
    span_count: u64,
    start_s: u64,
}

/// Sends a phase; every so many requests twice, as after a lost answer.
fn send_phase(server: &Server, base: UnixNano, number: u64, copied: usize) -> Phase {
    let start = UnixNano(base.0 + number * PHASE_SECONDS * 1_000_000_000);
    let settings = Settings { seed: 77 + number, trace_count: PHASE_TRACES, request_spans: 150, start };
    let client = grpc::Client::connect(server.otlp_grpc()).unwrap();
    let mut phase = Phase { ledger: Ledger::default(), span_count: 0, start_s: start.0 / 1_000_000_000 };
    for (index, request) in Corpus::new(settings).enumerate() {
        for _ in 0..1 + usize::from(index % copied == copied - 1) {
            let answer = client.export(&request.body, Compression::Identity).unwrap();
            assert_eq!((answer.status, answer.partial_success()), (0, None), "{answer:?}");
        }
        phase.ledger.promise(&request.body);
        phase.span_count += u64::from(request.span_count);
    }
    phase
}

/// Asks for traces and counts of phases that are complete, until told to stop. Returns how often it asked.
fn read(server: &Server, phases: &Mutex<Vec<Arc<Phase>>>, seed: u64, is_over: &AtomicBool) -> u64 {
    let (mut rng, mut reader) = (Rng::seeded(seed), Reader::new(server));
    let mut asked = 0;
    while !is_over.load(Ordering::Relaxed) {
        let known = phases.lock().unwrap().clone();
        if known.is_empty() {
            wait::pause(Duration::from_millis(1));
            continue;
        }
        let phase = rng.pick(&known);
        check_count(server, phase);
        let ids: Vec<_> = phase.ledger.traces().collect();
        for _ in 0..5 {
            let id = *rng.pick(&ids);
            let answer = reader.trace(id).unwrap();
            assert_eq!(phase.ledger.compare(id, answer.as_deref(), &Ledger::default()), Ok(()), "trace {id}");
        }
        asked += 1;
    }
    asked
}

fn count(server: &Server, phase: &Phase) -> u64 {
    let (from, until) = (phase.start_s - 10, phase.start_s + PHASE_SECONDS - 10);
    let path = format!("/api/metrics/query?q=%7B%7D%7Ccount_over_time()&start={from}&end={until}");
    let answer = http::Connection::new(server.tempo()).get(&path).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["series"][0]["value"].as_f64().unwrap_or(0.0) as u64
}

fn check_count(server: &Server, phase: &Phase) {
    assert_eq!(count(server, phase), phase.span_count, "spans from {}", phase.start_s);
}

fn check_phase(server: &Server, phase: &Phase) {
    let mut reader = Reader::new(server);
    for id in phase.ledger.traces() {
        let answer = reader.trace(id).unwrap();
        assert_eq!(phase.ledger.compare(id, answer.as_deref(), &Ledger::default()), Ok(()), "trace {id}");
    }
    check_count(server, phase);
}

/// The value of a metric, all its labels together.
fn metric(server: &Server, name: &str) -> f64 {
    let text = http::Connection::new(server.tempo()).get("/metrics").unwrap().text();
    let lines = text.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{'])));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

fn blocks(server: &Server) -> Vec<serde_json::Value> {
    let headers = [("accept", "application/json")];
    let answer = http::Connection::new(server.tempo()).send("GET", "/status/blocks", &headers, &[]).unwrap();
    answer.json()["blocks"].as_array().unwrap().clone()
}

#[test]
fn every_answer_is_exact_while_blocks_are_cut_and_merged() {
    let directory = TempDir::new().unwrap();
    let mut server = launch(&directory).start();
    let (phases, is_over, base) = (Mutex::new(Vec::new()), AtomicBool::new(false), base());
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|seed| {
                scope.spawn({
                    let (server, phases, is_over) = (&server, &phases, &is_over);
                    move || read(server, phases, seed, is_over)
                })
            })
            .collect();
        let written = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for number in 0..PHASES {
                let phase = send_phase(&server, base, number, 9);
                phases.lock().unwrap().push(Arc::new(phase));
            }
            wait::until("all that can be merged is merged", PATIENCE, || {
                let levels: Vec<u64> = blocks(&server).iter().map(|block| block["level"].as_u64().unwrap()).collect();
                let is_done = metric(&server, "spoor_compactor_outstanding_blocks") == 0.0;
                // Two windows at most, and of each level in each fewer than are worth a merge.
                (is_done && levels.iter().any(|level| *level > 0) && levels.len() < 24).then_some(())
            });
        }));
        is_over.store(true, Ordering::Relaxed);
        let asked: u64 = readers.into_iter().map(|reader| reader.join().unwrap()).sum();
        written.unwrap();
        assert!(asked > 20, "the readers asked {asked} times");
    });
    let phases = phases.into_inner().unwrap();
    phases.iter().for_each(|phase| check_phase(&server, phase));
    let merged = metric(&server, "spoor_compactor_blocks_merged_total");
    assert!(merged > 20.0 && metric(&server, "spoor_compactor_errors_total") == 0.0, "{merged}\n{}", server.log());
    server.stop();
    let server = launch(&directory).start();
    phases.iter().for_each(|phase| check_phase(&server, phase));
    let names = std::fs::read_dir(directory.path().join("blocks/single-tenant")).unwrap().count();
    assert_eq!(names, blocks(&server).len(), "no files are left behind");
}

fn seeds() -> Vec<u64> {
    match std::env::var("SPOOR_COMPACTION_SEED").ok().and_then(|text| text.parse().ok()) {
        Some(seed) => vec![seed],
        None => (1..=SEED_COUNT).collect(),
    }
}

#[test]
fn a_kill_at_any_instant_of_a_merge_loses_and_doubles_nothing() {
    for seed in seeds() {
        survive(seed);
    }
}

fn survive(seed: u64) {
    let directory = TempDir::new().unwrap();
    let mut rng = Rng::seeded(seed);
    let (mut acknowledged, mut unanswered) = (Ledger::default(), Ledger::default());
    for life in 0..LIVES {
        let mut server = launch(&directory).start();
        let client = grpc::Client::connect(server.otlp_grpc()).unwrap();
        let mut nasty = Nasty::new(seed << 20 | life, base());
        for _ in 0..60 {
            let body = nasty.request(60);
            let answer = client.export(&body, Compression::Identity);
            let is_acknowledged = matches!(&answer, Ok(answer) if answer.status == 0);
            if is_acknowledged { acknowledged.promise(&body) } else { unanswered.promise(&body) }
        }
        // Cuts and merges go on behind the last answer.
        wait::pause(Duration::from_micros(rng.below(1_500_000)));
        server.kill();
    }
    let mut server = launch(&directory).start();
    for round in 0..2 {
        let mut reader = Reader::new(&server);
        for id in acknowledged.traces() {
            let answer = reader.trace(id).unwrap();
            let compared = acknowledged.compare(id, answer.as_deref(), &unanswered);
            assert_eq!(compared, Ok(()), "seed {seed}, round {round}, trace {id}");
        }
        if round == 0 {
            server.stop();
            server = launch(&directory).start();
        }
    }
}

#[test]
fn a_deleted_trace_is_gone_at_once_and_from_disk_and_the_others_stay() {
    let directory = TempDir::new().unwrap();
    let mut server = launch(&directory).start();
    let mut phase = send_phase(&server, base(), 0, usize::MAX);
    let ids: Vec<_> = phase.ledger.traces().step_by(100).collect();
    let mut connection = http::Connection::new(server.tempo());
    for id in &ids {
        let answer = connection.send("DELETE", &format!("/api/v2/traces/{id}"), &[], &[]).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(Reader::new(&server).trace(*id).unwrap(), None);
        phase.span_count -= phase.ledger.span_count(*id) as u64;
        check_count(&server, &phase);
    }
    let again = connection.send("DELETE", &format!("/api/v2/traces/{}", ids[0]), &[], &[]).unwrap();
    assert_eq!(again.status, 404, "{}", again.text());
    server.kill();
    let server = launch(&directory).start();
    check_count(&server, &phase);
    wait::until("the blocks are rewritten", PATIENCE, || {
        blocks(&server).iter().all(|block| block["deletedTraces"] == 0).then_some(())
    });
    check_count(&server, &phase);
    let mut reader = Reader::new(&server);
    for id in phase.ledger.traces() {
        let answer = reader.trace(id).unwrap();
        match ids.contains(&id) {
            true => assert_eq!(answer, None),
            false => assert_eq!(phase.ledger.compare(id, answer.as_deref(), &Ledger::default()), Ok(())),
        }
    }
    let left: u64 = blocks(&server).iter().map(|block| block["spans"].as_u64().unwrap()).sum();
    assert_eq!(left, phase.span_count, "no block holds them any more");
}

#[test]
fn nothing_is_deleted_where_deleting_is_off() {
    let directory = TempDir::new().unwrap();
    let server = Launch::new(env!("CARGO_BIN_EXE_spoor"), directory.path()).start();
    let phase = send_phase(&server, base(), 0, usize::MAX);
    let id = phase.ledger.traces().next().unwrap();
    let answer =
        http::Connection::new(server.tempo()).send("DELETE", &format!("/api/v2/traces/{id}"), &[], &[]).unwrap();
    assert_eq!(answer.status, 501);
    assert!(answer.text().contains("trace_deletion"), "{}", answer.text());
    check_phase(&server, &phase);
}
