//! What does merging blocks cost per span, how much memory does it take, and how small do spans get?
//!
//! One thread. The corpus is cut into eight blocks in three ways: one after another, as one process cuts them; requests of
//! a thousand spans dealt out in turn, so that all blocks cover the same time; and requests of forty spans, so that most
//! traces lie in several blocks. CPU time of the thread; the peak is what the process held at most (`VmHWM`).
//! `SPOOR_BENCH_TRACES` sets the size (default 60,000 traces, ~1,020,000 spans; `--test` runs 300), `SPOOR_BENCH_LEVELS` the
//! zstd levels.

#![allow(clippy::print_stdout, reason = "a bench prints its findings")]

use std::ops::ControlFlow;
use std::sync::Arc;

use spoor_block::{
    Block, BlockCache, BlockFiles, BlockMeta, DirectoryFiles, MergeOptions, Merged, WriteOptions, merge,
};
use spoor_model::batch::SpanBatch;
use spoor_model::ingest::Decode;
use spoor_model::{BlockId, TenantId, UnixNano};
use spoor_otlp::OtlpDecoder;
use spoor_testkit::corpus::{Corpus, Settings};

const BLOCKS: usize = 8;
const SEGMENT_ROWS: usize = 65_536;

/// How the corpus is cut: spans per request, and whether requests are dealt out in turn.
const ARRANGEMENTS: [(&str, usize, bool); 3] =
    [("one after another", 1000, false), ("overlapping", 1000, true), ("torn", 40, true)];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, command, dir, place] = &arguments[..]
        && command == "cut"
    {
        let (_, request_spans, is_dealt) = ARRANGEMENTS[place.parse::<usize>().expect("a number")];
        return cut(&DirectoryFiles::new(dir), trace_count(), request_spans, is_dealt);
    }
    let levels = std::env::var("SPOOR_BENCH_LEVELS").unwrap_or_else(|_| WriteOptions::merged().zstd_level.to_string());
    for (place, (label, ..)) in ARRANGEMENTS.iter().enumerate() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        // Another process, so that this one holds nothing of the corpus.
        let mut child = std::process::Command::new(&arguments[0]);
        child.args(["cut".as_ref(), dir.path().as_os_str(), place.to_string().as_ref()]);
        child.env("SPOOR_BENCH_TRACES", trace_count().to_string());
        assert!(child.status().expect("starts").success());
        let files: Arc<dyn BlockFiles> = Arc::new(DirectoryFiles::new(dir.path()));
        let cuts = open(&files);
        let sum = |of: fn(&BlockMeta) -> u64| cuts.iter().map(|block| of(block.meta())).sum::<u64>() as f64;
        let (spans, traces) = (sum(|meta| meta.span_count), sum(|meta| meta.trace_count));
        println!(
            "{label}: {spans} spans in {} blocks, {:.2} blocks per trace, {:.2} B/span",
            cuts.len(),
            traces / trace_count() as f64,
            sum(|meta| meta.size_bytes) / spans
        );
        for level in levels.split(',').filter_map(|level| level.parse().ok()) {
            run(&files, &cuts, level);
        }
    }
}

fn trace_count() -> u64 {
    let default_count = if std::env::args().any(|arg| arg == "--test") { 300 } else { 60_000 };
    std::env::var("SPOOR_BENCH_TRACES").ok().and_then(|n| n.parse().ok()).unwrap_or(default_count)
}

fn cut(files: &DirectoryFiles, trace_count: u64, request_spans: usize, is_dealt: bool) {
    let settings = Settings { seed: 7, trace_count, request_spans, start: UnixNano::from_secs(1_790_000_000) };
    let request_count = (trace_count as usize * 17).div_ceil(request_spans);
    let mut batches: Vec<Vec<SpanBatch>> = (0..BLOCKS).map(|_| vec![SpanBatch::new()]).collect();
    for (number, request) in Corpus::new(settings).enumerate() {
        let place = if is_dealt { number % BLOCKS } else { (number * BLOCKS / request_count).min(BLOCKS - 1) };
        let checked = OtlpDecoder.check(&request.body).expect("the corpus is valid");
        let of_block = &mut batches[place];
        if of_block.last().is_some_and(|batch| batch.len() >= SEGMENT_ROWS) {
            of_block.push(SpanBatch::new());
        }
        OtlpDecoder.append(&request.body, &checked, of_block.last_mut().expect("never empty"));
    }
    // A small corpus has fewer requests than blocks.
    let batches = batches.into_iter().filter(|of_block| !of_block[0].is_empty());
    let (before, mut span_count) = (cpu_nanos(), 0);
    for (number, of_block) in batches.enumerate() {
        let of_block: Vec<&SpanBatch> = of_block.iter().collect();
        let (id, options) = (BlockId::from_parts(UnixNano(1), number as u128), WriteOptions::default());
        let meta = spoor_block::write(files, id, &TenantId::single(), &of_block, UnixNano(1), &options);
        span_count += meta.expect("writes").span_count;
    }
    // What the machine is like at the moment: merges do this too, and more.
    println!("cut: {:.2} us/span", (cpu_nanos() - before) as f64 / 1e3 / span_count as f64);
}

fn open(files: &Arc<dyn BlockFiles>) -> Vec<Arc<Block>> {
    let cache = BlockCache::new(0);
    let block = |(tenant, id): (TenantId, BlockId)| {
        let meta = files.meta(&tenant, id).expect("reads").expect("is there");
        Arc::new(Block::open(files, meta, &cache).expect("opens"))
    };
    files.list().expect("lists").into_iter().map(block).collect()
}

fn run(files: &Arc<dyn BlockFiles>, cuts: &[Arc<Block>], zstd_level: i32) {
    let write = WriteOptions { zstd_level, ..WriteOptions::merged() };
    let is_deleted = &|_| false;
    let options = MergeOptions {
        write,
        block_spans: u64::from(u32::MAX),
        memory_bytes: 64 << 20,
        is_deleted,
        keep_after: None,
        window: None,
    };
    let mut ids = (100..).map(|number: u128| BlockId::from_parts(UnixNano(1), number));
    let mut next_id = || ids.next().expect("endless");
    // Forgets the peak so far.
    std::fs::write("/proc/self/clear_refs", "5").expect("Linux allows it");
    let before = cpu_nanos();
    let merged = merge(cuts, &**files, UnixNano(2), &mut next_id, &options, &mut |_| ControlFlow::Continue(()));
    let nanos = cpu_nanos() - before;
    let Merged { blocks, spans_read, copies_dropped, .. } = merged.expect("merges");
    println!(
        "  zstd {zstd_level:>2}: {:.2} us/span, {:.2} B/span, {} MB held at most, {copies_dropped} copies",
        nanos as f64 / 1e3 / spans_read as f64,
        blocks[0].size_bytes as f64 / blocks[0].span_count as f64,
        status_bytes("VmHWM:") >> 20,
    );
    for block in blocks {
        files.remove(&block.tenant, block.id).expect("removes");
    }
}

/// A line of `/proc/self/status`.
fn status_bytes(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux keeps it");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("it has the line");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

/// CPU time of this thread in nanoseconds, behind by at most a tick.
fn cpu_nanos() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux keeps it");
    stat.split(' ').next().and_then(|nanos| nanos.parse().ok()).expect("its first field is the time on a core")
}
