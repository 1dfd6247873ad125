//! Blocks in a store that counts, and processes that know nothing of them but where they are.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use prometheus_client::registry::Registry;
use spoor_block::{Block, BlockCache, BlockFiles, BlockMeta, WriteOptions};
use spoor_compactor::objects::{Metrics, ObjectFiles, ObjectOptions, Patience};
use spoor_model::batch::SpanBatch;
use spoor_model::compute::ComputePool;
use spoor_model::ingest::Decode;
use spoor_model::memory::MemoryBudget;
use spoor_model::scan::{QueryContext, Snapshot, Snapshots, SpanSource};
use spoor_model::{BlockId, Clock, TenantId, TimeRange, TraceId, UnixNano};
use spoor_otlp::OtlpDecoder;
use spoor_querier::{Limits, Querier};
use spoor_testkit::corpus::{Corpus, Settings, trace_id};
use spoor_testkit::faults::{self, FaultStore};
use spoor_testkit::wait::until;
use tempfile::TempDir;

/// How many blocks there are.
pub(crate) const BLOCKS: u64 = 100;
const START: u64 = 1_790_000_000_000_000_000;
const SECOND: u64 = 1_000_000_000;
/// Between the starts of two blocks.
const BETWEEN: u64 = 900 * SECOND;
/// A block's spans come in so many bursts, one every quarter of an hour.
const BURSTS: u64 = 4;
const BURST: u64 = 900 * SECOND;
/// The hour that is asked for begins with this block.
const ASKED: u64 = 50;

/// By object.
pub(crate) type Reads = BTreeMap<String, faults::Reads>;

/// The blocks.
pub(crate) struct Blocks {
    store: Arc<FaultStore>,
    metas: Vec<BlockMeta>,
}

/// A process that has opened them.
pub(crate) struct Process {
    pub(crate) querier: Querier,
    files: Arc<ObjectFiles>,
    _dir: TempDir,
}

/// Nothing here is late.
#[derive(Debug)]
struct Still;

impl Clock for Still {
    fn now(&self) -> UnixNano {
        UnixNano(START)
    }
}

/// What queries see: blocks, newest end first.
struct Known(Vec<Arc<dyn SpanSource>>);

impl Snapshots for Known {
    fn snapshot(&self, _tenant: &TenantId) -> Snapshot {
        Snapshot { sources: self.0.clone(), skipped: Vec::new() }
    }
}

fn object_files(store: &Arc<FaultStore>, dir: &Path, ahead_bytes: u64) -> Arc<ObjectFiles> {
    let options = ObjectOptions {
        staging_dir: dir.join("staging"),
        cache_dir: dir.join("cache"),
        cache_bytes: 1 << 30,
        ahead_bytes,
        patience: Patience::of(Duration::from_secs(30)),
        local_dir: None,
        name: "bench".to_owned(),
        grace: Duration::ZERO,
    };
    Arc::new(ObjectFiles::new(Arc::clone(store) as _, options, Metrics::default()).unwrap())
}

/// The seed of a burst's corpus.
fn seed(block: u64, burst: u64) -> u64 {
    block * BURSTS + burst + 1
}

fn block_start(block: u64) -> u64 {
    START + block * BETWEEN
}

impl Blocks {
    /// Writes them, with so many traces in each block of the hour and near it, and so many in each of the others.
    pub(crate) fn write(traces: u64, traces_outside: u64) -> Self {
        let store = Arc::new(FaultStore::in_memory(1));
        let dir = tempfile::tempdir().unwrap();
        let files = object_files(&store, dir.path(), 0);
        let mut metas: Vec<BlockMeta> = Vec::new();
        for block in 0..BLOCKS {
            let is_near = (ASKED - 8..ASKED + 12).contains(&block);
            let trace_count = if is_near { traces } else { traces_outside } / BURSTS;
            let mut batch = SpanBatch::new();
            for burst in 0..BURSTS {
                let start = UnixNano(block_start(block) + burst * BURST);
                let settings = Settings { seed: seed(block, burst), trace_count, request_spans: 1000, start };
                for request in Corpus::new(settings) {
                    let checked = OtlpDecoder.check(&request.body).unwrap();
                    OtlpDecoder.append(&request.body, &checked, &mut batch);
                }
            }
            let created_at = UnixNano(block_start(block) + BURSTS * BURST);
            let id = BlockId::from_parts(created_at, u128::from(block));
            let options = WriteOptions::merged();
            metas.push(spoor_block::write(&*files, id, &TenantId::single(), &[&batch], created_at, &options).unwrap());
        }
        Self { store, metas }
    }

    /// A process that has opened all blocks and read nothing else.
    pub(crate) fn start(&self) -> Process {
        self.start_with(0)
    }

    /// A process that has opened all blocks and has had the time to fetch what tells that they lack a value.
    pub(crate) fn start_and_fetch(&self) -> Process {
        let process = self.start_with(1 << 30);
        until("what is fetched unasked", Duration::from_secs(60), || {
            (process.files.awaited_blocks() == 0).then_some(())
        });
        process
    }

    fn start_with(&self, ahead_bytes: u64) -> Process {
        let dir = tempfile::tempdir().unwrap();
        let files = object_files(&self.store, dir.path(), ahead_bytes);
        let all = Arc::clone(&files) as Arc<dyn BlockFiles>;
        let cache = BlockCache::new(64 << 20);
        let open = |meta: &BlockMeta| Arc::new(Block::open(&all, meta.clone(), &cache).unwrap()) as _;
        let known = Arc::new(Known(self.metas.iter().rev().map(open).collect()));
        let pool = Arc::new(ComputePool::new("bench", 2).unwrap());
        let metrics = spoor_querier::Metrics::register(&mut Registry::default());
        let querier = Querier::new(known, pool, Limits::default(), Arc::new(Still), metrics);
        Process { querier, files, _dir: dir }
    }

    /// What was read since this was last asked.
    pub(crate) fn take_reads(&self) -> Reads {
        self.store.take_reads()
    }

    /// The hour that is asked for.
    pub(crate) fn hour(&self) -> TimeRange {
        let start = block_start(ASKED);
        TimeRange { start: UnixNano(start), end: UnixNano(start + 3600 * SECOND) }
    }

    /// The blocks that have spans of the hour.
    pub(crate) fn in_hour(&self) -> impl Iterator<Item = &BlockMeta> {
        let hour = self.hour();
        self.metas.iter().filter(move |meta| meta.range.overlaps(&hour))
    }

    pub(crate) fn bytes_in_hour(&self) -> u64 {
        self.in_hour().map(|meta| meta.size_bytes).sum()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.metas.iter().map(|meta| meta.size_bytes).sum()
    }

    pub(crate) fn span_count(&self) -> u64 {
        self.metas.iter().map(|meta| meta.span_count).sum()
    }

    /// Some trace of the hour, another for each number.
    pub(crate) fn known_trace(&self, number: u64) -> TraceId {
        trace_id(seed(ASKED + number, BURSTS / 2), 7)
    }
}

/// Room for any question.
pub(crate) fn context() -> QueryContext {
    QueryContext::new(&MemoryBudget::new(1 << 30), Arc::new(AtomicBool::new(false)))
}
