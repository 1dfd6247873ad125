//! Scenario: clients send twice what the server can take, for ten seconds (`SPOOR_OVERLOAD_SECONDS=60`
//! for longer), and do not slow down when they are refused.
//! Guarantee: the process stays under `--memory-limit`, also while everything is read back; every answer is a yes or an explicit "later";
//! every span that was acknowledged is there afterwards, and again after a restart.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod full_disk;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use spoor_model::{TraceId, UnixNano};
use spoor_testkit::client::{Compression, grpc};
use spoor_testkit::corpus::{Corpus, Settings};
use spoor_testkit::ledger::Ledger;
use spoor_testkit::process::{Launch, Reader, Server};
use spoor_testkit::wait;
use tempfile::TempDir;
use tokio::task::JoinSet;

const MEMORY_LIMIT_DEFAULT: u64 = 512 << 20;
/// What the whole process may use: the default, and half of it.
const MEMORY_LIMITS: [u64; 2] = [MEMORY_LIMIT_DEFAULT, MEMORY_LIMIT_DEFAULT / 2];
/// Exports that wait for an answer at once; at 1000 spans each, more than the server has room for.
const IN_FLIGHT_MAX: usize = 256;
const CONNECTIONS: usize = 8;
/// One trace of this many is compared span by span.
const SAMPLE: u64 = 40;
const SEED: u64 = 5;

/// How an export ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Acknowledged,
    /// `RESOURCE_EXHAUSTED` with the hint when to retry.
    Refused,
    /// Anything else: not allowed.
    Other(u32),
}

fn settings(start: UnixNano) -> Settings {
    Settings { seed: SEED, trace_count: u64::MAX, request_spans: 1000, start }
}

#[test]
fn under_twice_the_sustainable_load_memory_is_bounded_and_nothing_acknowledged_is_lost() {
    let seconds = std::env::var("SPOOR_OVERLOAD_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(10);
    MEMORY_LIMITS.iter().for_each(|limit| survive_overload(*limit, Duration::from_secs(seconds)));
}

fn survive_overload(memory_limit: u64, duration: Duration) {
    let directory = TempDir::new().unwrap();
    let limit = format!("{}MiB", memory_limit >> 20);
    let launch = Launch::new(env!("CARGO_BIN_EXE_spoor"), directory.path()).arguments(["--memory-limit", &limit]);
    let mut server = launch.start();
    let start = UnixNano(wait::now().0 - 1_800_000_000_000);

    let outcomes = overload(server.otlp_grpc(), start, duration);
    let count = |wanted: Outcome| outcomes.iter().filter(|outcome| **outcome == wanted).count();
    let others: Vec<_> = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Other(_))).collect();
    assert!(others.is_empty(), "answers that are neither yes nor later: {others:?}");
    assert!(count(Outcome::Acknowledged) > 0 && count(Outcome::Refused) > 0, "no overload: {:?}", histogram(&outcomes));

    let mut peaks = vec![("load", server.usage().resident_bytes_max)];
    let ledger = promised(start, &outcomes);
    check(&server, &ledger);
    peaks.push(("queries", server.usage().resident_bytes_max));
    peaks.push(("stop", server.stop().resident_bytes_max));
    let over: Vec<_> = peaks.iter().map(|(phase, bytes)| format!("{} MiB after {phase}", bytes >> 20)).collect();
    eprintln!("{limit}: {}", over.join(", "));
    assert!(
        peaks.iter().all(|(_, bytes)| *bytes <= memory_limit),
        "{limit}: peak memory: {}; outcomes: {:?}",
        over.join(", "),
        histogram(&outcomes)
    );
    check(&launch.start(), &ledger);
}

fn histogram(outcomes: &[Outcome]) -> BTreeMap<Outcome, usize> {
    let mut histogram = BTreeMap::new();
    outcomes.iter().for_each(|outcome| *histogram.entry(*outcome).or_default() += 1);
    histogram
}

/// Sends the corpus's requests; the outcome of the n-th stands at n.
fn overload(address: SocketAddr, start: UnixNano, duration: Duration) -> Vec<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut channels = Vec::new();
        for _ in 0..CONNECTIONS {
            channels.push(grpc::Channel::connect(address).await.unwrap());
        }
        // The generator has a thread of its own, so that sending never waits for it long.
        let (ready, mut frames) = tokio::sync::mpsc::channel::<Bytes>(64);
        std::thread::spawn(move || {
            for request in Corpus::new(settings(start)) {
                if ready.blocking_send(grpc::frame(&request.body, Compression::Identity)).is_err() {
                    return;
                }
            }
        });
        let sustainable = sustainable_interval(&channels[0], &mut frames).await;
        let (mut outcomes, clock) = (sustainable.1, wait::Deadline::within(duration));
        let mut calls = JoinSet::new();
        let mut ticks = tokio::time::interval(sustainable.0 / 2);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
        while !clock.is_over() {
            ticks.tick().await;
            while calls.len() >= IN_FLIGHT_MAX {
                note(&mut outcomes, calls.join_next().await.unwrap().unwrap());
            }
            let index = outcomes.len();
            outcomes.push(Outcome::Other(u32::MAX));
            let (channel, frame) = (channels[index % CONNECTIONS].clone(), frames.recv().await.unwrap());
            calls.spawn(async move { (index, export(&channel, frame).await) });
        }
        while let Some(done) = calls.join_next().await {
            note(&mut outcomes, done.unwrap());
        }
        outcomes
    })
}

fn note(outcomes: &mut [Outcome], (index, outcome): (usize, Outcome)) {
    outcomes[index] = outcome;
}

/// Time per export when the next is sent only after the answer, four at once; and their outcomes.
async fn sustainable_interval(
    channel: &grpc::Channel,
    frames: &mut tokio::sync::mpsc::Receiver<Bytes>,
) -> (Duration, Vec<Outcome>) {
    let mut outcomes = vec![Outcome::Other(u32::MAX); 200];
    let clock = wait::stopwatch();
    let mut calls = JoinSet::new();
    for index in 0..outcomes.len() {
        if calls.len() == 4 {
            note(&mut outcomes, calls.join_next().await.unwrap().unwrap());
        }
        let (channel, frame) = (channel.clone(), frames.recv().await.unwrap());
        calls.spawn(async move { (index, export(&channel, frame).await) });
    }
    while let Some(done) = calls.join_next().await {
        note(&mut outcomes, done.unwrap());
    }
    (clock.elapsed() / outcomes.len() as u32, outcomes)
}

async fn export(channel: &grpc::Channel, frame: Bytes) -> Outcome {
    let answer = channel.export(frame, Compression::Identity, &[]).await;
    let answer = answer.unwrap_or_else(|err| panic!("an export without an answer: {err}"));
    let has_hint = String::from_utf8_lossy(&answer.details).contains("google.rpc.RetryInfo");
    match answer.status {
        0 => Outcome::Acknowledged,
        8 if has_hint => Outcome::Refused,
        status => Outcome::Other(status),
    }
}

fn is_sampled(id: TraceId) -> bool {
    id.hash64().is_multiple_of(SAMPLE)
}

/// The sampled spans of what was acknowledged: the corpus is made once more.
fn promised(start: UnixNano, outcomes: &[Outcome]) -> Ledger {
    let mut ledger = Ledger::default();
    for (request, outcome) in Corpus::new(settings(start)).zip(outcomes) {
        if *outcome == Outcome::Acknowledged {
            ledger.promise_some(&request.body, is_sampled);
        }
    }
    ledger
}

fn check(server: &Server, ledger: &Ledger) {
    let mut reader = Reader::new(server);
    for id in ledger.traces() {
        let answer = reader.trace(id).unwrap();
        assert_eq!(ledger.compare(id, answer.as_deref(), &Ledger::default()), Ok(()), "trace {id}");
    }
}
