//! The table: what was measured, what the floor is, whether it holds.

use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

use spoor_testkit::corpus::Request;
use spoor_testkit::machine;

use super::lookup::Lookup;

const MB: f64 = 1e6;

/// One ingest of the whole corpus.
pub(crate) struct Run {
    pub(crate) name: String,
    pub(crate) span_count: u64,
    pub(crate) wall: Duration,
    /// Until the last answer.
    pub(crate) cpu_at_answer: Duration,
    /// Until everything lay in blocks and the process had ended.
    pub(crate) cpu: Duration,
    pub(crate) ack_p50: Duration,
    pub(crate) ack_p99: Duration,
    pub(crate) resident_bytes_max: u64,
    pub(crate) disk_bytes: u64,
    pub(crate) block_bytes: u64,
}

impl Run {
    fn us_per_span(&self, cpu: Duration) -> f64 {
        cpu.as_secs_f64() * 1e6 / self.span_count as f64
    }

    fn spans_per_second(&self) -> f64 {
        self.span_count as f64 / self.wall.as_secs_f64()
    }

    fn bytes_per_span(&self, bytes: u64) -> f64 {
        bytes as f64 / self.span_count as f64
    }

    /// A row of the table of runs.
    pub(crate) fn line(&self) -> String {
        format!(
            "| {} | {:.0} | {:.2} | {:.2} | {:.1} / {:.1} | {:.0} | {:.1} | {:.1} |",
            self.name,
            self.spans_per_second(),
            self.us_per_span(self.cpu),
            self.us_per_span(self.cpu_at_answer),
            self.ack_p50.as_secs_f64() * 1e3,
            self.ack_p99.as_secs_f64() * 1e3,
            self.resident_bytes_max as f64 / MB,
            self.bytes_per_span(self.disk_bytes),
            self.bytes_per_span(self.block_bytes),
        )
    }
}

/// A start that reads a long log.
pub(crate) struct Recovery {
    pub(crate) log_bytes: u64,
    pub(crate) span_count: u64,
    pub(crate) wall: Duration,
    pub(crate) cpu: Duration,
    pub(crate) resident_bytes_max: u64,
}

/// Everything measured.
pub(crate) struct Report {
    trace_count: u64,
    span_count: u64,
    wire_bytes: u64,
    corpus_hash: u64,
    pub(crate) ready: Duration,
    pub(crate) idle_bytes: u64,
    pub(crate) runs: Vec<Run>,
    pub(crate) lookups: Vec<Lookup>,
    pub(crate) recovery: Option<Recovery>,
}

impl Report {
    pub(crate) fn new(trace_count: u64, requests: &[Request]) -> Self {
        Self {
            trace_count,
            span_count: requests.iter().map(|request| u64::from(request.span_count)).sum(),
            wire_bytes: requests.iter().map(|request| request.body.len() as u64).sum(),
            corpus_hash: requests.iter().fold(0, |hash, request| hash_of(&request.body, hash)),
            ready: Duration::ZERO,
            idle_bytes: 0,
            runs: Vec::new(),
            lookups: Vec::new(),
            recovery: None,
        }
    }

    /// What was sent, in a line.
    pub(crate) fn data_set(&self) -> String {
        format!(
            "{} spans of {} traces, {:.0} bytes per span on the wire, shape {:016x}",
            self.span_count,
            self.trace_count,
            self.wire_bytes as f64 / self.span_count as f64,
            self.corpus_hash
        )
    }

    /// The whole report as Markdown.
    pub(crate) fn table(&self) -> String {
        let machine = machine::description();
        let mut out =
            format!("{}.\n\nMachine: {machine} at the end (the bench alone makes about 2).\n\n", self.data_set());
        out.push_str("| quantity | measured | floor | |\n|---|---:|---:|---|\n");
        for (name, measured, floor, unit, is_met) in self.verdicts() {
            let verdict = if is_met { "holds" } else { "**missed**" };
            let _ = writeln!(out, "| {name} | {measured:.2} {unit} | {floor} {unit} | {verdict} |");
        }
        out.push_str("\n| run | spans/s | CPU us/span until in blocks | until the answer | ack p50 / p99 ms | peak MB | bytes/span | in blocks |\n");
        out.push_str("|---|---:|---:|---:|---:|---:|---:|---:|\n");
        self.runs.iter().for_each(|run| out.extend([run.line(), "\n".to_owned()]));
        out.push_str("\n| lookup | p50 ms | p99 ms |\n|---|---:|---:|\n");
        for lookup in &self.lookups {
            let _ = writeln!(out, "| {} | {:.2} | {:.2} |", lookup.name, millis(lookup.p50), millis(lookup.p99));
        }
        if let Some(recovery) = &self.recovery {
            let _ = writeln!(
                out,
                "\nRecovery: {:.0} MB of log directory (RocksDB's log and what it flushed), {} spans, ready after {:.2} s, {:.2} s CPU, peak {:.0} MB.",
                recovery.log_bytes as f64 / MB,
                recovery.span_count,
                recovery.wall.as_secs_f64(),
                recovery.cpu.as_secs_f64(),
                recovery.resident_bytes_max as f64 / MB
            );
        }
        out
    }

    /// Name, measured, floor, unit, whether it holds. The first run is the one that floors speak of.
    fn verdicts(&self) -> Vec<(&'static str, f64, f64, &'static str, bool)> {
        let run = &self.runs[0];
        let at_most = |name, measured: f64, floor: f64, unit| (name, measured, floor, unit, measured <= floor);
        let rate = run.spans_per_second();
        let mut out = vec![
            at_most("CPU per span, socket to block, uncompressed", run.us_per_span(run.cpu), 8.0, "us"),
            ("closed-loop ingest, driver on the same cores", rate, 150_000.0, "spans/s", rate >= 150_000.0),
            at_most("ack p50, fsync each", millis(run.ack_p50), 10.0, "ms"),
            at_most("peak memory at that rate", run.resident_bytes_max as f64 / MB, 512.0, "MB"),
            at_most("idle memory", self.idle_bytes as f64 / MB, 80.0, "MB"),
            at_most("ready on an empty directory", self.ready.as_secs_f64(), 1.0, "s"),
            at_most("on disk after a clean stop", run.bytes_per_span(run.disk_bytes), 32.0, "bytes/span"),
        ];
        if let Some(recovery) = &self.recovery {
            let to_200_mib = (200u64 << 20) as f64 / recovery.log_bytes as f64;
            out.push(at_most(
                "recovery of a log directory of 200 MiB",
                recovery.wall.as_secs_f64() * to_200_mib,
                5.0,
                "s",
            ));
            out.push(at_most("peak memory of recovery", recovery.resident_bytes_max as f64 / MB, 512.0, "MB"));
        }
        if let [by_id, _, unknown] = self.lookups.as_slice() {
            out.push(at_most("trace by id, p50", millis(by_id.p50), 4.0, "ms"));
            out.push(at_most("trace by id, p99", millis(by_id.p99), 15.0, "ms"));
            out.push(at_most("unknown id, p50", millis(unknown.p50), 1.0, "ms"));
        }
        out
    }

    /// Writes the report to `benches/results/<date>.md`.
    pub(crate) fn write(&self) -> PathBuf {
        let date = machine::date();
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("benches/results").join(format!("{date}.md"));
        let text = format!("# Load bench of {date}, revision {}\n\n{}", machine::revision(), self.table());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// A hash of lengths: the spans' times are of today, their shape is of the seed.
fn hash_of(body: &[u8], hash: u64) -> u64 {
    (hash.rotate_left(5) ^ body.len() as u64).wrapping_mul(0x517c_c1b7_2722_0a95)
}
