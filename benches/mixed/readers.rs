//! Fifty readers beside ingest.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use spoor_testkit::client::http::Connection;
use spoor_testkit::process::Server;
use spoor_testkit::rng::Rng;
use spoor_testkit::wait;
use tempfile::TempDir;

use super::questions::{Known, ROUND, Surface};
use super::writer::{self, Frames, Ingest};
use super::{launch, percentiles};

const READERS: usize = 50;
/// What the process may use: the default.
const MEMORY_LIMIT: u64 = 512 << 20;
/// How long a person looks at an answer, for readers who pause.
const LOOK: Duration = Duration::from_secs(1);

/// Times until answers, by kind.
type Times = BTreeMap<&'static str, Vec<Duration>>;

/// What happened beside one ingest.
struct Run {
    ingest: Ingest,
    times: Times,
    /// Seconds until the last answer, which may come after the last export.
    wall: f64,
    /// CPU time of the server by time.
    cores: f64,
    resident_bytes_max: u64,
}

/// Readers who pause between questions, and readers who do not, each beside the whole of `live`; as Markdown.
///
/// # Panics
/// When an answer is not right, or memory is over its limit.
pub(crate) fn measure(known: &Known, live: &Frames, interval: Duration) -> String {
    let directory = TempDir::new().unwrap();
    let mut server = launch(directory.path()).start();
    writer::without_pause(server.otlp_grpc(), &known.frames);
    server.stop();
    let mut out = format!("## {READERS} readers beside ingest\n\nEvery answer was right.\n\n");
    out.push_str("| request | pausing 1 s: answers | p50 ms | p99 ms | without pause: answers | p50 ms | p99 ms |\n");
    out.push_str("|---|---:|---:|---:|---:|---:|---:|\n");
    let runs = [LOOK, Duration::ZERO].map(|pause| {
        // Each on a copy: what the first has sent is not there for the second.
        let copy = TempDir::new().unwrap();
        super::merges::copy(directory.path(), copy.path());
        let mut server = launch(copy.path()).start();
        let (before, clock) = (server.usage().cpu, wait::stopwatch());
        let (ingest, times) = beside_ingest(&server, known, live, interval, pause);
        let (cpu, wall) = (server.usage().cpu - before, clock.elapsed().as_secs_f64());
        Run {
            ingest,
            times,
            wall,
            cores: cpu.as_secs_f64() / wall,
            resident_bytes_max: server.stop().resident_bytes_max,
        }
    });
    for name in runs[0].times.keys() {
        let cell = |run: &Run| {
            let (p50, p99) = percentiles(&run.times[name]);
            format!("{} | {p50:.1} | {p99:.1}", run.times[name].len())
        };
        let _ = writeln!(out, "| {name} | {} | {} |", cell(&runs[0]), cell(&runs[1]));
    }
    out.push_str(
        "\n| beside | answers/s | spans/s taken | ack p50 / p99 ms | exports told to wait | the server's CPU, cores | peak MB, of 537 |\n",
    );
    out.push_str("|---|---:|---:|---:|---:|---:|---:|\n");
    for (name, run) in ["pausing 1 s", "without pause"].into_iter().zip(&runs) {
        let peak = run.resident_bytes_max;
        assert!(peak <= MEMORY_LIMIT, "{name}: {} MiB of memory", peak >> 20);
        let answers: usize = run.times.values().map(Vec::len).sum();
        let ingest_wall = run.ingest.wall.as_secs_f64();
        let (p50, p99) = percentiles(&run.ingest.acks);
        let (answers_per_second, rate) = (answers as f64 / run.wall, live.span_count as f64 / ingest_wall);
        let _ = writeln!(
            out,
            "| {name} | {answers_per_second:.0} | {rate:.0} | {p50:.1} / {p99:.1} | {} | {:.2} | {:.0} |",
            run.ingest.refusals,
            run.cores,
            peak as f64 / 1e6
        );
    }
    out.push('\n');
    out
}

/// Asks until all is sent, and each reader at least one round.
fn beside_ingest(
    server: &Server,
    known: &Known,
    live: &Frames,
    interval: Duration,
    pause: Duration,
) -> (Ingest, Times) {
    let is_sent = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let is_sent = &is_sent;
        let readers: Vec<_> =
            (0..READERS).map(|number| scope.spawn(move || read(server, known, number, pause, is_sent))).collect();
        let ingest = writer::at_intervals(server.otlp_grpc(), live, interval);
        is_sent.store(true, Ordering::Relaxed);
        let mut times = Times::new();
        for reader in readers {
            reader
                .join()
                .unwrap()
                .into_iter()
                .for_each(|(name, mut some)| times.entry(name).or_default().append(&mut some));
        }
        times.values_mut().for_each(|times| times.sort_unstable());
        (ingest, times)
    })
}

fn read(server: &Server, known: &Known, number: usize, pause: Duration, is_sent: &AtomicBool) -> Times {
    let mut rng = Rng::seeded(number as u64);
    let mut tempo = Connection::new(server.tempo());
    let mut jaeger = Connection::new(server.jaeger());
    let mut times = Times::new();
    // Readers begin at different questions.
    for (asked, question) in ROUND.iter().cycle().skip(number % ROUND.len()).enumerate() {
        let is_round = asked >= ROUND.len();
        if is_round && is_sent.load(Ordering::Relaxed) {
            break;
        }
        let (path, expected) = question.ask(known, &mut rng);
        let clock = wait::stopwatch();
        let answer = match question.surface {
            Surface::Tempo => tempo.send("GET", &path, &[("accept", accept(&path))], &[]),
            Surface::Jaeger => jaeger.get(&path),
        };
        times.entry(question.name).or_default().push(clock.elapsed());
        question.check(known, &expected, &answer.unwrap());
        if !is_sent.load(Ordering::Relaxed) && !pause.is_zero() {
            wait::pause(pause.mul_f64(2.0 * rng.unit()));
        }
    }
    times
}

/// What Grafana asks for.
fn accept(path: &str) -> &'static str {
    if path.starts_with("/api/traces/") { "application/protobuf" } else { "application/json" }
}
