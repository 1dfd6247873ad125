//! What becomes of answers when everything happens at once: ingest, fifty readers, merges?
//!
//! Drives the real binary on this machine with the corpus of `testkit`, in exports of 1000 spans compressed with zstd,
//! as a Collector sends them. First it finds the rate at which two clients are acknowledged that never pause: the
//! sustainable one. Then, always at half of it:
//!
//! 1. Fifty readers ask both surfaces for traces, searches, series and lists over a million spans in blocks. Every
//!    answer is compared with what is known of the corpus. How long does each kind take, and does memory hold?
//! 2. The same directory of small blocks is served with merging and without. How much longer do acknowledgements take
//!    while blocks are merged? Before that, with nothing beside: what do merges cost, and what do they read and write?
//!
//! Exports go out when they are due, however late the answers to others are, and the time until an answer counts from
//! then: what waits is not hidden. Writer, readers and server share the cores.
//!
//! `cargo bench --profile release --bench mixed` takes some minutes and writes `benches/results/mixed-<date>.md`;
//! `SPOOR_BENCH_TRACES` changes the size of what is sent, `SPOOR_BENCH_REPEATS` how often, `SPOOR_BENCH_SECTION` (`readers` or `merges`) runs one part only
//! and prints it, and `SPOOR_BENCH_BINARY` is another build to compare with. Without `--bench` (in `cargo test`) the size is
//! small: then only the answers are checked, no time is.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on has failed")]
#![allow(clippy::print_stdout, reason = "a bench prints its result")]

mod merges;
mod questions;
mod readers;
mod writer;

use std::path::Path;
use std::time::Duration;

use spoor_model::UnixNano;
use spoor_testkit::corpus::Settings;
use spoor_testkit::process::Launch;
use spoor_testkit::{machine, wait};
use tempfile::TempDir;

use self::questions::Known;
use self::writer::{Frames, Ingest};

const SEED: u64 = 2026;
const HOUR_NANO: u64 = 3_600_000_000_000;

/// How much of everything.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    /// Traces in blocks before anybody asks.
    before: u64,
    /// Traces in blocks that wait to be merged.
    to_merge: u64,
    /// Traces that are sent while something else happens.
    live: u64,
    repeats: usize,
}

/// About a million spans in blocks, three million to merge, and three million sent each time.
const FULL: Sizes = Sizes { before: 60_000, to_merge: 180_000, live: 180_000, repeats: 3 };
const SMALL: Sizes = Sizes { before: 600, to_merge: 600, live: 1200, repeats: 1 };

fn main() {
    let arguments: Vec<_> = std::env::args().collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    if has("--list") {
        // What test runners ask before they run anything.
        if !has("--ignored") {
            println!("small_mix_is_answered_right: test");
        }
        return;
    }
    let is_full = has("--bench");
    let mut sizes = if is_full { FULL } else { SMALL };
    let asked = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    sizes.live = asked("SPOOR_BENCH_TRACES").unwrap_or(sizes.live);
    sizes.repeats = asked("SPOOR_BENCH_REPEATS").map_or(sizes.repeats, |repeats| repeats as usize);

    let now = wait::now().0;
    let known = Known::new(settings(SEED, sizes.before, UnixNano(now - 3 * HOUR_NANO)));
    let live = Frames::new(settings(SEED + 1, sizes.live, UnixNano(now - HOUR_NANO)));
    let mut report = format!(
        "{}.\n\nSent beside: {} spans in exports of 1000, {:.0} bytes per span with zstd. In blocks before: {} spans of {} traces.\n\n",
        machine::description(),
        live.span_count,
        live.bytes() as f64 / live.span_count as f64,
        known.frames.span_count,
        sizes.before
    );
    print!("{report}");
    let rate = sustainable_rate(&live, sizes.repeats);
    // Half the rate: twice the time per export.
    let interval = Duration::from_secs_f64(2.0 * live.span_count as f64 / rate / live.len() as f64);
    let line = format!(
        "Sustainable, two clients that never pause: {rate:.0} spans/s (median of {}). Below, half of that: an export every {:.2} ms.\n\n",
        sizes.repeats,
        interval.as_secs_f64() * 1e3
    );
    print!("{line}");
    report.push_str(&line);
    let only = std::env::var("SPOOR_BENCH_SECTION").ok();
    let is_wanted = |section: &str| only.as_deref().is_none_or(|only| only == section);
    let to_merge = settings(SEED + 2, sizes.to_merge, UnixNano(now - 72 * HOUR_NANO));
    let sections = [
        is_wanted("readers").then(|| readers::measure(&known, &live, interval)),
        is_wanted("merges").then(|| merges::measure(to_merge, &live, interval, sizes.repeats)),
    ];
    for section in sections.into_iter().flatten() {
        println!("{section}");
        report.push_str(&section);
    }
    let line = format!("\nLoad average at the end: {} (the bench alone makes about 3).\n", machine::load_average());
    println!("{line}");
    report.push_str(&line);
    if is_full && only.is_none() {
        let date = machine::date();
        let path = format!("{}/benches/results/mixed-{date}.md", env!("CARGO_MANIFEST_DIR"));
        let title = format!("# Ingest, readers and merges at once, {date}, revision {}\n\n", machine::revision());
        std::fs::write(&path, title + &report).unwrap();
        println!("written to {path}");
    }
}

fn settings(seed: u64, trace_count: u64, start: UnixNano) -> Settings {
    Settings { seed, trace_count, request_spans: 1000, start }
}

fn launch(directory: &Path) -> Launch {
    let other = std::env::var_os("SPOOR_BENCH_BINARY");
    Launch::new(other.unwrap_or_else(|| env!("CARGO_BIN_EXE_spoor").into()), directory)
}

/// Spans per second that are acknowledged to clients that never pause, on an empty directory; the median.
fn sustainable_rate(live: &Frames, repeats: usize) -> f64 {
    let once = || {
        let directory = TempDir::new().unwrap();
        let mut server = launch(directory.path()).start();
        let Ingest { wall, .. } = writer::without_pause(server.otlp_grpc(), live);
        server.stop();
        live.span_count as f64 / wall.as_secs_f64()
    };
    let mut rates: Vec<f64> = (0..repeats).map(|_| once()).collect();
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

/// The middle and the time that one of a hundred exceeds, in milliseconds. `times` are sorted and not empty.
fn percentiles(times: &[Duration]) -> (f64, f64) {
    let millis = |index: usize| times[index].as_secs_f64() * 1e3;
    (millis(times.len() / 2), millis(times.len() * 99 / 100))
}
