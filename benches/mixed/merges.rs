//! Acknowledgements while blocks are merged, and while they are not.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use spoor_testkit::client::http::Connection;
use spoor_testkit::corpus::Settings;
use spoor_testkit::process::Server;
use spoor_testkit::wait;
use tempfile::TempDir;

use super::writer::{self, Frames};
use super::{launch, percentiles};

/// Blocks that wait to be merged: as many as three merges take.
const BLOCKS: u64 = 96;
/// What merging may take of one core: the default of `compaction_cpu_share`.
const CPU_SHARE_PERCENT: u32 = 50;
/// A span of the corpus in a head: what decides when the head is cut. Measured.
const HEAD_BYTES_PER_SPAN: u64 = 260;
/// Merges are planned at the start; a machine that is busy may need a while.
const PATIENCE: Duration = Duration::from_secs(60);
/// For all of them, at their share.
const PATIENCE_ALONE: Duration = Duration::from_secs(300);

/// Ingest beside merges of what `settings` says, as Markdown. Its spans are of a window that is over: all can be merged.
///
/// # Panics
/// When an export is not accepted, or nothing is merged where merging is on, or something where it is off.
pub(crate) fn measure(settings: Settings, live: &Frames, interval: Duration, repeats: usize) -> String {
    let directory = TempDir::new().unwrap();
    let before = Frames::new(settings);
    let head_cut_bytes = (before.span_count * HEAD_BYTES_PER_SPAN / BLOCKS).to_string();
    let small_heads = ["--compaction=false", "--head-cut-bytes", &head_cut_bytes];
    let mut server = launch(directory.path()).arguments(small_heads).start();
    writer::without_pause(server.otlp_grpc(), &before);
    server.stop();
    let block_count = std::fs::read_dir(directory.path().join("blocks/single-tenant")).unwrap().count();
    let alone = alone(directory.path(), before.span_count);
    let mut out = format!(
        "## Merges beside ingest\n\n{} spans in {block_count} blocks that wait to be merged.\n\n{alone}\n\n\
         | run | merging | ack p50 / p99 ms | exports told to wait | spans merged meanwhile | the server's CPU, cores | peak MB |\n|---:|---|---:|---:|---:|---:|---:|\n",
        before.span_count
    );
    let mut ratios = Vec::new();
    for repeat in 0..repeats {
        // The order changes, so that what the machine does beside does not always hit the same one.
        let order = if repeat % 2 == 0 { [false, true] } else { [true, false] };
        let mut p99s = [0.0; 2];
        for is_merging in order {
            let run = run(directory.path(), live, interval, is_merging);
            let (p50, p99) = percentiles(&run.acks);
            p99s[usize::from(is_merging)] = p99;
            let merging = if is_merging { "on" } else { "off" };
            let _ = writeln!(
                out,
                "| {} | {merging} | {p50:.1} / {p99:.1} | {} | {:.0} | {:.2} | {:.0} |",
                repeat + 1,
                run.refusals,
                run.spans_merged,
                run.cores,
                run.resident_bytes_max as f64 / 1e6
            );
        }
        ratios.push(p99s[1] / p99s[0]);
    }
    ratios.sort_by(f64::total_cmp);
    let ratio = ratios[ratios.len() / 2];
    let verdict = if ratio <= 2.0 { "holds" } else { "**missed**" };
    let _ =
        writeln!(out, "\nWith merging the p99 is {ratio:.2} times what it is without (median; floor 2): {verdict}.");
    out
}

/// All merges, with nothing beside them.
fn alone(blocks: &Path, span_count: u64) -> String {
    let directory = TempDir::new().unwrap();
    copy(blocks, directory.path());
    let mut server = launch(directory.path()).start();
    let before = server.usage().cpu;
    // Some of what there is may be left when few blocks are.
    let is_idle = || sum_of(&server, "spoor_compactor_outstanding_blocks") == 0.0 && spans_merged(&server) > 0.0;
    wait::until("all merges", PATIENCE_ALONE, || is_idle().then_some(()));
    let cpu = server.usage().cpu - before;
    let (merged, io) = (spans_merged(&server), sum_of(&server, "spoor_compactor_io_bytes_total"));
    let seconds = sum_of(&server, "spoor_compactor_merge_duration_seconds_sum");
    let peak = server.stop().resident_bytes_max;
    assert!(merged <= span_count as f64, "{merged} of {span_count} spans merged");
    format!(
        "Alone, at {CPU_SHARE_PERCENT} % of one core: {merged} spans in {seconds:.1} s, {:.2} us CPU per span, {:.1} MB/s read and written, \
         peak {:.0} MB.",
        cpu.as_secs_f64() / merged * 1e6,
        io / seconds / 1e6,
        peak as f64 / 1e6
    )
}

struct Run {
    acks: Vec<Duration>,
    refusals: u64,
    spans_merged: f64,
    /// CPU time of the server by time.
    cores: f64,
    resident_bytes_max: u64,
}

fn run(blocks: &Path, live: &Frames, interval: Duration, is_merging: bool) -> Run {
    let directory = TempDir::new().unwrap();
    copy(blocks, directory.path());
    let mut server = launch(directory.path()).arguments([&*format!("--compaction={is_merging}")]).start();
    let before = server.usage().cpu;
    let ingest = writer::at_intervals(server.otlp_grpc(), live, interval);
    let cores = (server.usage().cpu - before).as_secs_f64() / ingest.wall.as_secs_f64();
    let mut spans_merged = spans_merged(&server);
    if is_merging && spans_merged == 0.0 {
        spans_merged =
            wait::until("a merge", PATIENCE, || Some(self::spans_merged(&server)).filter(|merged| *merged > 0.0));
    }
    assert!(is_merging || spans_merged == 0.0, "{spans_merged} spans merged although merging is off");
    let resident_bytes_max = server.stop().resident_bytes_max;
    Run { acks: ingest.acks, refusals: ingest.refusals, spans_merged, cores, resident_bytes_max }
}

/// Spans that merges have written.
fn spans_merged(server: &Server) -> f64 {
    sum_of(server, "spoor_compactor_spans_written_total")
}

/// A metric, whatever its labels.
fn sum_of(server: &Server, name: &str) -> f64 {
    let text = Connection::new(server.tempo()).get("/metrics").unwrap().text();
    let values = text.lines().filter(|line| line.starts_with(name));
    values.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).fold(0.0, |sum, value| sum + value)
}

/// Copies what is in a directory into another one that is there.
pub(crate) fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status().unwrap();
    assert!(status.success(), "cannot copy {}: {status}", from.display());
}
