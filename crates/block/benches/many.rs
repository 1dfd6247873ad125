//! What do thousands of blocks cost at rest, and how long does a trace take among them?
//!
//! Writes 2,000 blocks of 10,000 traces of one or two spans (`SPOOR_BENCH_BLOCKS`, `SPOOR_BENCH_TRACES` set other
//! numbers), opens them all as a start does, and looks up ids that nobody has and ids that somebody has. One thread;
//! files in the page cache. `--test` writes 4 blocks of 100 traces.

#![allow(clippy::print_stdout, reason = "a bench prints its findings")]
#![allow(clippy::unwrap_used, reason = "a bench that cannot go on has failed")]
#![allow(clippy::disallowed_methods, reason = "a bench reads the clock")]

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use spoor_block::{Block, BlockCache, BlockFiles, BlockMeta, DirectoryFiles, WriteOptions, write};
use spoor_model::batch::{AttrValue, SpanBatch, SpanFields};
use spoor_model::memory::MemoryBudget;
use spoor_model::scan::{QueryContext, SpanSource};
use spoor_model::{BlockId, KeyValue, SpanId, TenantId, TraceId, UnixNano, Value, nested};

/// Five minutes of spans per block.
const BLOCK_NANO: u64 = 300_000_000_000;
const LOOKUPS: u64 = 400;
/// An eighth of the default memory limit.
const CACHE_BYTES: usize = 64 << 20;

fn main() {
    let is_test = std::env::args().any(|arg| arg == "--test");
    let number = |name: &str, full: u64, small: u64| {
        let asked = std::env::var(name).ok().and_then(|text| text.parse().ok());
        asked.unwrap_or(if is_test { small } else { full })
    };
    let (block_count, trace_count) = (number("SPOOR_BENCH_BLOCKS", 2000, 4), number("SPOOR_BENCH_TRACES", 10_000, 100));
    let dir = tempfile::tempdir().unwrap();
    let files: Arc<dyn BlockFiles> = Arc::new(DirectoryFiles::new(dir.path()));
    let metas: Vec<Vec<u8>> =
        (0..block_count).map(|block| write_block(&*files, block, trace_count).to_json()).collect();
    let bytes: usize = metas.iter().map(Vec::len).sum();
    println!("{block_count} blocks of {trace_count} traces; metas of {} KB", bytes / 1000);

    let before = resident_bytes();
    let clock = Instant::now();
    let cache = BlockCache::new(CACHE_BYTES);
    let mut blocks: Vec<Block> = Vec::with_capacity(metas.len());
    for json in &metas {
        let mut meta = BlockMeta::from_json(json).unwrap();
        blocks.last().map(|last| meta.share_columns(last.meta()));
        blocks.push(Block::open(&files, meta, &cache).unwrap());
    }
    let bloom_bytes: usize = blocks.iter().map(|block| block.meta().trace_count as usize * 5 / 2).sum();
    println!("all opened after {} ms", clock.elapsed().as_millis());
    println!(
        "at rest {} MB resident, of which about {} MB are bloom filters",
        resident_bytes().saturating_sub(before) / 1_000_000,
        bloom_bytes / 1_000_000
    );
    let unknown = |n: u64| trace_id(block_count + n, n);
    let known = |n: u64| trace_id(n * 7919 % block_count, n * 104_729 % trace_count);
    lookups("unknown id", &blocks, unknown, 0);
    lookups("known id", &blocks, known, 1);
    println!("with the cache full {} MB resident", resident_bytes().saturating_sub(before) / 1_000_000);
}

fn lookups(name: &str, blocks: &[Block], id: impl Fn(u64) -> TraceId, expect: usize) {
    let ctx = QueryContext::new(&MemoryBudget::new(1 << 30), Arc::new(AtomicBool::new(false)));
    let mut opened = 0;
    let mut times: Vec<Duration> = (0..LOOKUPS)
        .map(|n| {
            let clock = Instant::now();
            let id = id(n);
            let candidates = blocks.iter().filter(|block| block.may_contain(id));
            let mut found = 0;
            for block in candidates {
                opened += 1;
                found += usize::from(!block.find_trace(id, &ctx).unwrap().is_empty());
            }
            assert_eq!(found, expect);
            clock.elapsed()
        })
        .collect();
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_micros();
    println!("{name}: p50 {} us, p99 {} us, {:.2} blocks looked into", at(50), at(99), opened as f64 / LOOKUPS as f64);
}

fn trace_id(block: u64, trace: u64) -> TraceId {
    let mixed = (block << 32 | trace).wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    TraceId((u128::from(mixed) << 64 | u128::from(block << 32 | trace)).to_be_bytes())
}

fn write_block(files: &dyn BlockFiles, block: u64, trace_count: u64) -> BlockMeta {
    let mut batch = SpanBatch::new();
    let start = 1_790_000_000_000_000_000 + block * BLOCK_NANO;
    for trace in 0..trace_count {
        let mut resource = Vec::new();
        let service = format!("service {}", trace % 20);
        nested::put_attributes(&mut resource, 1, &[KeyValue::new("service.name", Value::Str(service))]);
        let origin = batch.intern_origin(&resource, &[], "", "").unwrap();
        let from = start + trace * (BLOCK_NANO / trace_count);
        for span in 0..1 + trace % 2 {
            batch.push_attribute(b"http.route", AttrValue::Str(format!("/route/{}", trace % 50).as_bytes()));
            batch.push_attribute(b"user.id", AttrValue::Str(format!("u{}", trace * 31 % 9973).as_bytes()));
            batch.push_attribute(b"http.status_code", AttrValue::Int(200 + (trace % 3) as i64 * 100));
            batch.push_span(SpanFields {
                trace_id: trace_id(block, trace),
                span_id: SpanId((trace * 2 + span + 1).to_be_bytes()),
                parent_span_id: SpanId(if span == 0 { [0; 8] } else { (trace * 2 + 1).to_be_bytes() }),
                start: UnixNano(from + span),
                end: UnixNano(from + 1_000_000 + trace % 1000),
                kind: 2 + span as i32,
                origin,
                name: format!("GET /route/{}", trace % 50).as_bytes(),
                ..SpanFields::default()
            });
        }
    }
    let id = BlockId::from_parts(UnixNano(start + BLOCK_NANO), u128::from(block));
    write(files, id, &TenantId::single(), &[&batch], UnixNano(start + BLOCK_NANO), &WriteOptions::default()).unwrap()
}

fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap_or(0) * 1024
}
