//! What does merging blocks cost per span, how much memory does it take, and how small do spans get?
//!
//! One thread. The corpus is cut into eight blocks in two ways: one after another, as one process cuts them, and requests
//! dealt out in turn, so that all blocks cover the same time and most traces lie in several. CPU time of the thread; the
//! peak is what the process held at most during the merge (`VmHWM`) less what it held before.
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

fn main() {
    let is_test = std::env::args().any(|arg| arg == "--test");
    let default_count = if is_test { 300 } else { 60_000 };
    let trace_count = std::env::var("SPOOR_BENCH_TRACES").ok().and_then(|n| n.parse().ok()).unwrap_or(default_count);
    let levels = std::env::var("SPOOR_BENCH_LEVELS").unwrap_or_else(|_| WriteOptions::merged().zstd_level.to_string());
    for (label, is_dealt) in [("one after another", false), ("dealt out", true)] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let files: Arc<dyn BlockFiles> = Arc::new(DirectoryFiles::new(dir.path()));
        let cuts = cut(&files, trace_count, is_dealt);
        let sum = |of: fn(&BlockMeta) -> u64| cuts.iter().map(|block| of(block.meta())).sum::<u64>() as f64;
        let (spans, traces) = (sum(|meta| meta.span_count), sum(|meta| meta.trace_count));
        println!(
            "{label}: {spans} spans in {BLOCKS} blocks, {:.2} blocks per trace, {:.2} B/span",
            traces / trace_count as f64,
            sum(|meta| meta.size_bytes) / spans
        );
        for level in levels.split(',').filter_map(|level| level.parse().ok()) {
            run(&files, &cuts, level);
        }
    }
}

fn cut(files: &Arc<dyn BlockFiles>, trace_count: u64, is_dealt: bool) -> Vec<Arc<Block>> {
    let settings = Settings { seed: 7, trace_count, request_spans: 1000, start: UnixNano::from_secs(1_790_000_000) };
    let request_count = (trace_count as usize * 17).div_ceil(settings.request_spans);
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
    let cache = BlockCache::new(0);
    let mut blocks = Vec::new();
    for (number, of_block) in batches.into_iter().enumerate() {
        let of_block: Vec<&SpanBatch> = of_block.iter().filter(|batch| !batch.is_empty()).collect();
        let (id, options) = (BlockId::from_parts(UnixNano(1), number as u128), WriteOptions::default());
        let meta =
            spoor_block::write(&**files, id, &TenantId::single(), &of_block, UnixNano(1), &options).expect("writes");
        blocks.push(Arc::new(Block::open(files, meta, &cache).expect("opens")));
    }
    blocks
}

fn run(files: &Arc<dyn BlockFiles>, cuts: &[Arc<Block>], zstd_level: i32) {
    let write = WriteOptions { zstd_level, ..WriteOptions::merged() };
    let is_deleted = &|_| false;
    let options =
        MergeOptions { write, block_spans: u64::from(u32::MAX), memory_bytes: 64 << 20, is_deleted, keep_after: None };
    let mut ids = (1..).map(|number: u64| BlockId::from_parts(UnixNano(number), u128::from(number)));
    let mut next_id = || ids.next().expect("endless");
    // Forgets the peak so far.
    std::fs::write("/proc/self/clear_refs", "5").expect("Linux allows it");
    let (held_bytes, before) = (status_bytes("VmRSS:"), cpu_nanos());
    let merged = merge(cuts, &**files, UnixNano(2), &mut next_id, &options, &mut |_| ControlFlow::Continue(()));
    let nanos = cpu_nanos() - before;
    let Merged { blocks, spans_read, copies_dropped, .. } = merged.expect("merges");
    println!(
        "  zstd {zstd_level:>2}: {:.2} us/span, {:.2} B/span, {} MB more than before, {copies_dropped} copies",
        nanos as f64 / 1e3 / spans_read as f64,
        blocks[0].size_bytes as f64 / blocks[0].span_count as f64,
        status_bytes("VmHWM:").saturating_sub(held_bytes) >> 20,
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
