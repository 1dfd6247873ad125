//! Blocks on stores of every kind: one contract, what reading costs, what faults may do.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod absent;
mod contract;
mod cost;
mod faulty;
mod moving;
mod shared;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use object_store::ObjectStore;
use spoor_block::{Block, BlockCache, BlockFiles, BlockMeta, Error, WriteOptions};
use spoor_compactor::objects::{Metrics, ObjectFiles, ObjectOptions, Patience};
use spoor_model::batch::SpanBatch;
use spoor_model::ingest::Decode;
use spoor_model::memory::MemoryBudget;
use spoor_model::scan::{QueryContext, ScanError, SpanSource};
use spoor_model::{BlockId, SpanEntry, TenantId, TraceId, UnixNano};
use spoor_otlp::OtlpDecoder;
use spoor_testkit::corpus::{Corpus, Settings, trace_id};

fn options(dir: &Path) -> ObjectOptions {
    ObjectOptions {
        staging_dir: dir.join("staging"),
        cache_dir: dir.join("cache"),
        cache_bytes: 64 << 20,
        ahead_bytes: 32 << 20,
        patience: Patience {
            attempt: Duration::from_millis(500),
            total: Duration::from_secs(20),
            backoff: Duration::from_millis(1),
        },
        local_dir: None,
        name: "test".to_owned(),
        grace: Duration::ZERO,
    }
}

/// Blocks of `store`, as a process with that directory sees them.
fn object_files(store: Arc<dyn ObjectStore>, dir: &Path) -> Arc<ObjectFiles> {
    Arc::new(ObjectFiles::new(store, options(dir), Metrics::default()).unwrap())
}

/// Spans of a seed, and the ids of their traces.
struct Spans {
    batch: SpanBatch,
    ids: Vec<TraceId>,
}

impl Spans {
    fn of(seed: u64, trace_count: u64) -> Self {
        let start = UnixNano::from_secs(1_790_000_000);
        let mut batch = SpanBatch::new();
        for request in Corpus::new(Settings { seed, trace_count, request_spans: 1000, start }) {
            let checked = OtlpDecoder.check(&request.body).unwrap();
            OtlpDecoder.append(&request.body, &checked, &mut batch);
        }
        Self { batch, ids: (0..trace_count).map(|index| trace_id(seed, index)).collect() }
    }

    fn write(&self, files: &dyn BlockFiles, id: BlockId, tenant: &TenantId) -> Result<BlockMeta, Error> {
        spoor_block::write(files, id, tenant, &[&self.batch], UnixNano(1), &WriteOptions::default())
    }
}

fn block_id(number: u64) -> BlockId {
    BlockId::from_parts(UnixNano(number * 1_000_000_000), u128::from(number))
}

fn context() -> QueryContext {
    QueryContext::new(&MemoryBudget::new(1 << 30), Arc::new(AtomicBool::new(false)))
}

/// A process that has nothing in memory.
fn open(files: &Arc<dyn BlockFiles>, meta: &BlockMeta) -> Result<Block, Error> {
    Block::open(files, meta.clone(), &BlockCache::new(64 << 20))
}

fn spans_of(block: &Block, id: TraceId) -> Result<Vec<SpanEntry>, ScanError> {
    block.find_trace(id, &context())
}
