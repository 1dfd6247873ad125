//! Starts and stops of the real binary: what they keep, what they refuse, and how they say so.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod broken;
mod elsewhere;
mod refused;

use spoor_model::UnixNano;
use spoor_testkit::client::{Compression, grpc, http};
use spoor_testkit::ledger::Ledger;
use spoor_testkit::nasty::Nasty;
use spoor_testkit::process::{Launch, Reader, Server};
use spoor_testkit::wait;
use tempfile::TempDir;

pub(crate) fn launch(directory: &TempDir) -> Launch {
    Launch::new(env!("CARGO_BIN_EXE_spoor"), directory.path())
}

pub(crate) fn a_minute_ago() -> UnixNano {
    UnixNano(wait::now().0 - 60_000_000_000)
}

/// Sends requests that must be accepted and notes them.
pub(crate) fn ingest(server: &Server, seed: u64, requests: usize, ledger: &mut Ledger) {
    let mut nasty = Nasty::new(seed, a_minute_ago());
    let client = grpc::Client::connect(server.otlp_grpc()).unwrap();
    for _ in 0..requests {
        let body = nasty.request(100);
        let answer = client.export(&body, Compression::Zstd).unwrap();
        assert_eq!((answer.status, answer.partial_success()), (0, None), "{answer:?}");
        ledger.promise(&body);
    }
}

/// Everything noted is there once, and nothing else.
pub(crate) fn check(server: &Server, ledger: &Ledger) {
    let mut reader = Reader::new(server);
    for id in ledger.traces() {
        let answer = reader.trace(id).unwrap();
        assert_eq!(ledger.compare(id, answer.as_deref(), &Ledger::default()), Ok(()), "trace {id}");
    }
}

/// Directories of the blocks of the only tenant.
pub(crate) fn blocks(directory: &TempDir) -> Vec<std::path::PathBuf> {
    let tenant = directory.path().join("blocks/single-tenant");
    std::fs::read_dir(tenant).map(|entries| entries.flatten().map(|entry| entry.path()).collect()).unwrap_or_default()
}

// Scenario: SIGTERM while the head holds spans. Guarantee: they are in a block when the process ends.
#[test]
fn a_stop_writes_the_head_into_a_block_and_a_start_finds_it() {
    let directory = TempDir::new().unwrap();
    let mut ledger = Ledger::default();
    let mut server = launch(&directory).start();
    for life in 0..3 {
        ingest(&server, life, 5, &mut ledger);
        check(&server, &ledger);
        server.stop();
        assert_eq!(blocks(&directory).len() as u64, life + 1, "one block per life");
        server = launch(&directory).start();
        check(&server, &ledger);
    }
    server.stop();
    assert_eq!(blocks(&directory).len(), 3, "an empty head makes no block");
}

// Scenario: traces are asked for while they are in the head, and again when they are in a block. Guarantee: every answer is
// the same to the byte.
#[test]
fn a_cut_changes_no_answer() {
    let directory = TempDir::new().unwrap();
    let mut ledger = Ledger::default();
    let mut server = launch(&directory).start();
    ingest(&server, 40, 5, &mut ledger);
    let answers = |server: &Server| -> Vec<String> {
        let mut tempo = http::Connection::new(server.tempo());
        let mut jaeger = http::Connection::new(server.jaeger());
        let of_trace = |id| {
            let tempo = tempo.get(&format!("/api/v2/traces/{id}")).unwrap().text();
            [tempo, jaeger.get(&format!("/api/traces/{id}?raw=true")).unwrap().text()]
        };
        ledger.traces().flat_map(of_trace).collect()
    };
    let of_head = answers(&server);
    assert!(of_head.iter().all(|answer| answer.contains("attributes") || answer.contains("tags")));
    server.stop();
    server = launch(&directory).start();
    for (head, block) in of_head.iter().zip(answers(&server)) {
        let differs = head.bytes().zip(block.bytes()).position(|(a, b)| a != b).unwrap_or(head.len().min(block.len()));
        let around = |text: &str| text.bytes().skip(differs.saturating_sub(300)).take(600).collect::<Vec<u8>>();
        let shown = [head, &block].map(|text| String::from_utf8_lossy(&around(text)).into_owned());
        assert!(*head == block, "from the head:\n{}\nfrom a block:\n{}", shown[0], shown[1]);
    }
}

// Scenario: the process is killed with spans only in the WAL. Guarantee: the next start has them all.
#[test]
fn a_start_after_a_kill_reads_the_log() {
    let directory = TempDir::new().unwrap();
    let mut ledger = Ledger::default();
    for life in 10..13 {
        let mut server = launch(&directory).start();
        check(&server, &ledger);
        ingest(&server, life, 5, &mut ledger);
        server.kill();
    }
    let mut server = launch(&directory).start();
    check(&server, &ledger);
    server.stop();
    check(&launch(&directory).start(), &ledger);
}

// Scenario: SIGTERM in the middle of exports. Guarantee: what is acknowledged is kept, the rest is refused aloud.
#[test]
fn exports_under_way_at_a_stop_are_acknowledged_and_kept_or_refused() {
    let directory = TempDir::new().unwrap();
    let mut server = launch(&directory).start();
    let address = server.otlp_grpc();
    let (started, wait_for_load) = std::sync::mpsc::sync_channel(1);
    let load = std::thread::spawn(move || {
        let client = grpc::Client::connect(address).unwrap();
        let mut nasty = Nasty::new(20, a_minute_ago());
        let (mut promised, mut maybe) = (Ledger::default(), Ledger::default());
        for round in 0.. {
            let body = nasty.request(50);
            match client.export(&body, Compression::Identity) {
                Ok(answer) if answer.status == 0 => promised.promise(&body),
                _ => {
                    maybe.promise(&body);
                    break;
                }
            }
            if round == 10 {
                started.send(()).unwrap();
            }
        }
        (promised, maybe)
    });
    wait_for_load.recv().unwrap();
    server.stop();
    let (promised, maybe) = load.join().unwrap();
    let server = launch(&directory).start();
    let mut reader = Reader::new(&server);
    for id in promised.traces() {
        let answer = reader.trace(id).unwrap();
        assert_eq!(promised.compare(id, answer.as_deref(), &maybe), Ok(()), "trace {id}");
    }
}

// Scenario: spans older than the retention. Guarantee: their block goes, younger ones stay, also over a restart.
#[test]
fn blocks_past_their_retention_go_and_younger_ones_stay() {
    let directory = TempDir::new().unwrap();
    let quick = |flags: &[&'static str]| launch(&directory).arguments(flags.iter().copied());
    let mut server = quick(&[]).start();
    let old = UnixNano(wait::now().0 - 3 * 86_400_000_000_000);
    let body = Nasty::new(30, old).request(100);
    let client = grpc::Client::connect(server.otlp_grpc()).unwrap();
    assert_eq!(client.export(&body, Compression::Gzip).unwrap().status, 0);
    server.stop();
    let mut server = quick(&[]).start();
    let mut young = Ledger::default();
    ingest(&server, 31, 2, &mut young);
    server.stop();
    assert_eq!(blocks(&directory).len(), 2);
    let flags = ["--retention", "24h", "--retention-interval", "50ms"];
    let mut server = quick(&flags).start();
    let limit = std::time::Duration::from_secs(30);
    wait::until("the old block to go", limit, || (blocks(&directory).len() == 1).then_some(()));
    check(&server, &young);
    server.stop();
    check(&quick(&flags).start(), &young);
}
