//! A model world around an ingester: a store and blocks in memory with faults, gates and crashes, a
//! decoder of the smallest possible requests, and the one question that matters: is every
//! acknowledged span there exactly once?

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::ops::ControlFlow;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use prometheus_client::registry::Registry;
use spoor_block::{BlockMeta, Error as BlockError, MergeOptions, Merged, Progress};
use spoor_model::batch::{SpanBatch, SpanFields};
use spoor_model::columns::{ColumnRequest, ValuesOf};
use spoor_model::ingest::{BodyEncoding, Checked};
use spoor_model::memory::MemoryBudget;
use spoor_model::scan::{QueryContext, SpanSource};
use spoor_model::wire::WireError;
use spoor_model::{BlockId, SpanId, TimeRange, TraceId, UnixNano};

use super::removal::Deletions;
use super::*;
use crate::config::WalSync;
use crate::head::{Head, Segment};
use crate::store::MemoryStore;

/// How long a test waits for something that must happen.
pub(super) const DEADLINE: Duration = Duration::from_secs(20);

/// The span that makes decoding panic.
pub(super) const POISON: u64 = u64::MAX;

/// A request is a list of span numbers, eight bytes each. Span n belongs to trace n / 8 and starts
/// and ends at n microseconds.
pub(super) struct NumberDecode;

impl Decode for NumberDecode {
    fn check(&self, request: &[u8]) -> Result<Checked, WireError> {
        Ok(Checked { accepted_count: (request.len() / 8) as u32, rejected: Vec::new() })
    }

    fn append(&self, request: &[u8], _: &Checked, batch: &mut SpanBatch) {
        let origin = batch.intern_origin(&[], &[], "", "").unwrap();
        for number in request.chunks_exact(8).map(|bytes| u64::from_be_bytes(bytes.try_into().unwrap())) {
            batch.push_attribute(b"n", spoor_model::batch::AttrValue::Int(number as i64));
            assert!(number != POISON, "the poison of the tests");
            batch.push_span(SpanFields {
                trace_id: trace_of(number),
                span_id: SpanId((number + 1).to_be_bytes()),
                start: UnixNano(number * 1000),
                end: UnixNano(number * 1000),
                origin,
                name: b"op",
                ..SpanFields::default()
            });
        }
    }
}

pub(super) fn trace_of(number: u64) -> TraceId {
    TraceId((u128::from(number / 8) + 1).to_be_bytes())
}

/// A clock that the test moves.
pub(super) struct HandClock(AtomicU64);

impl HandClock {
    pub(super) fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_nanos() as u64, Ordering::Relaxed);
    }
}

impl Clock for HandClock {
    fn now(&self) -> UnixNano {
        UnixNano(self.0.load(Ordering::Relaxed))
    }
}

fn numbers_of(batches: &[SpanBatch]) -> impl Iterator<Item = u64> {
    let spans = batches.iter().flat_map(|batch| (0..batch.len() as u32).map(|row| batch.span(row)));
    spans.map(|entry| u64::from_be_bytes(entry.span.span_id.0) - 1)
}

type BlockMap = BTreeMap<(TenantId, BlockId), Option<Vec<SpanBatch>>>;

#[derive(Default)]
struct BlocksState {
    /// `None` is a half-written block.
    blocks: BlockMap,
    is_full: bool,
    panics: bool,
    /// So many writes happen, and fail.
    answers_lost: u32,
    gate_is_shut: bool,
    at_gate: usize,
}

/// Blocks in memory. The gate holds a write after the block is written and before it is reported.
#[derive(Default)]
pub(super) struct FakeBlocks {
    state: Mutex<BlocksState>,
    moved: Condvar,
}

impl FakeBlocks {
    pub(super) fn after_crash(&self) -> Self {
        let BlocksState { blocks, is_full, .. } = &*self.state.lock();
        let state = BlocksState { blocks: blocks.clone(), is_full: *is_full, ..BlocksState::default() };
        Self { state: Mutex::new(state), ..Self::default() }
    }

    pub(super) fn set_full(&self, is_full: bool) {
        self.state.lock().is_full = is_full;
    }

    pub(super) fn set_panics(&self, panics: bool) {
        self.state.lock().panics = panics;
    }

    /// The next writes happen, and fail all the same.
    pub(super) fn lose_answers(&self, count: u32) {
        self.state.lock().answers_lost = count;
    }

    pub(super) fn shut_gate(&self) {
        self.state.lock().gate_is_shut = true;
    }

    pub(super) fn open_gate(&self) {
        self.state.lock().gate_is_shut = false;
        self.moved.notify_all();
    }

    /// Waits until a writer stands at the gate.
    pub(super) fn wait_for_writer(&self) {
        let mut state = self.state.lock();
        let wait = self.moved.wait_while_for(&mut state, |state| state.at_gate == 0, DEADLINE);
        assert!(!wait.timed_out(), "no block is being written");
    }

    pub(super) fn names(&self) -> Vec<(TenantId, BlockId)> {
        self.state.lock().blocks.keys().cloned().collect()
    }

    /// Adds a directory that no catalog knows.
    pub(super) fn add_stray(&self, tenant: &TenantId, id: BlockId) {
        self.state.lock().blocks.insert((tenant.clone(), id), Some(Vec::new()));
    }

    /// Loses a block, as a bad disk would.
    pub(super) fn lose(&self, tenant: &TenantId, id: BlockId) {
        self.state.lock().blocks.insert((tenant.clone(), id), None);
    }
}

impl BlockStore for FakeBlocks {
    fn write(
        &self,
        tenant: &TenantId,
        id: BlockId,
        batches: &[&SpanBatch],
        created_at: UnixNano,
    ) -> Result<BlockMeta, BlockError> {
        let mut state = self.state.lock();
        assert!(!state.panics, "a panic of the tests");
        if state.is_full {
            state.blocks.insert((tenant.clone(), id), None);
            let (action, path, reason) = ("write", id.to_string(), "no space left on device".to_owned());
            return Err(BlockError::Io { action, path, reason, is_full: true });
        }
        let copies: Vec<SpanBatch> = batches.iter().map(|batch| (*batch).clone()).collect();
        let range = copies.iter().filter_map(SpanBatch::range).reduce(|a, b| a.union(&b)).unwrap();
        let mut meta = BlockMeta::without_files(id, tenant.clone(), created_at, range);
        meta.span_count = copies.iter().map(|batch| batch.len() as u64).sum();
        state.blocks.insert((tenant.clone(), id), Some(copies));
        if state.answers_lost > 0 {
            state.answers_lost -= 1;
            let (action, path, reason) = ("write", id.to_string(), "no answer".to_owned());
            return Err(BlockError::Io { action, path, reason, is_full: false });
        }
        state.at_gate += 1;
        self.moved.notify_all();
        let wait = self.moved.wait_while_for(&mut state, |state| state.gate_is_shut, DEADLINE);
        assert!(!wait.timed_out(), "the gate was never opened");
        state.at_gate -= 1;
        Ok(meta)
    }

    fn find(&self, tenant: &TenantId, id: BlockId) -> Result<Option<BlockMeta>, BlockError> {
        let state = self.state.lock();
        let Some(Some(batches)) = state.blocks.get(&(tenant.clone(), id)) else { return Ok(None) };
        let range = batches.iter().filter_map(SpanBatch::range).reduce(|a, b| a.union(&b)).unwrap();
        let mut meta = BlockMeta::without_files(id, tenant.clone(), UnixNano(0), range);
        meta.span_count = batches.iter().map(|batch| batch.len() as u64).sum();
        Ok(Some(meta))
    }

    fn open(&self, meta: &BlockMeta) -> Result<Arc<dyn SpanSource>, BlockError> {
        let state = self.state.lock();
        let Some(Some(batches)) = state.blocks.get(&(meta.tenant.clone(), meta.id)) else {
            return Err(BlockError::Corrupt { object: meta.id.to_string(), reason: "missing".to_owned() });
        };
        // One segment stands for the block: the tests' heads fit.
        let segment = Segment::default();
        for number in numbers_of(batches) {
            NumberDecode.append(&number.to_be_bytes(), &Checked::default(), &mut segment.write());
        }
        Ok(Arc::new(Head::new(vec![Arc::new(segment)]).expect("has a segment")))
    }

    fn merge(
        &self,
        inputs: &[BlockMeta],
        created_at: UnixNano,
        next_id: &mut dyn FnMut() -> BlockId,
        options: &MergeOptions<'_>,
        watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Merged, BlockError> {
        let tenant = inputs[0].tenant.clone();
        let mut traces: BTreeMap<TraceId, Vec<u64>> = BTreeMap::new();
        for meta in inputs {
            let state = self.state.lock();
            let Some(Some(batches)) = state.blocks.get(&(tenant.clone(), meta.id)) else {
                return Err(BlockError::Corrupt { object: meta.id.to_string(), reason: "missing".to_owned() });
            };
            numbers_of(batches).for_each(|number| traces.entry(trace_of(number)).or_default().push(number));
        }
        let span_count: u64 = inputs.iter().map(|meta| meta.span_count).sum();
        let mut go_on = |spans_written| match watch(Progress { spans_written, span_count, io_bytes: 0 }) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(BlockError::Cancelled),
        };
        go_on(0)?;
        let is_old = |numbers: &[u64]| options.keep_after.is_some_and(|line| numbers.iter().all(|n| n * 1000 < line.0));
        traces.retain(|id, numbers| !(options.is_deleted)(*id) && !is_old(numbers));
        let mut blocks = Vec::new();
        let mut rest = traces.into_values().peekable();
        while rest.peek().is_some() {
            let mut batch = SpanBatch::new();
            while let Some(numbers) = rest.next_if(|_| (batch.len() as u64) < options.block_spans) {
                numbers.iter().for_each(|n| NumberDecode.append(&n.to_be_bytes(), &Checked::default(), &mut batch));
            }
            let mut meta = self.write(&tenant, next_id(), &[&batch], created_at)?;
            meta.merge_level = inputs.iter().map(|input| input.merge_level).max().unwrap() + 1;
            blocks.push(meta);
        }
        let spans_written = blocks.iter().map(|meta| meta.span_count).sum();
        if let Err(cancelled) = go_on(spans_written) {
            blocks.iter().for_each(|meta| self.remove(&tenant, meta.id).unwrap());
            return Err(cancelled);
        }
        let spans_left_out = span_count - spans_written;
        Ok(Merged { blocks, spans_read: span_count, spans_written, copies_dropped: 0, spans_left_out, io_bytes: 0 })
    }

    fn remove(&self, tenant: &TenantId, id: BlockId) -> Result<(), BlockError> {
        self.state.lock().blocks.remove(&(tenant.clone(), id));
        Ok(())
    }

    fn list(&self) -> Result<Vec<(TenantId, BlockId)>, BlockError> {
        Ok(self.names())
    }
}

/// Everything outside the ingester, and what it has promised.
pub(super) struct World {
    pub(super) config: Config,
    pub(super) store: Arc<MemoryStore>,
    pub(super) blocks: Arc<FakeBlocks>,
    pub(super) clock: Arc<HandClock>,
    pub(super) ingester: Option<Arc<Ingester>>,
    pub(super) acknowledged: BTreeMap<TenantId, BTreeSet<u64>>,
    /// Sent and not acknowledged: may be there, once.
    pub(super) uncertain: BTreeMap<TenantId, BTreeSet<u64>>,
    /// Deleted, and never to be seen again.
    pub(super) deleted: BTreeMap<TenantId, BTreeSet<u64>>,
    next_number: u64,
    lives: u64,
}

pub(super) fn tenant(name: &str) -> TenantId {
    TenantId::parse(name).unwrap()
}

pub(super) fn request(tenant: &TenantId, numbers: &[u64]) -> AppendRequest {
    let payload: Vec<u8> = numbers.iter().flat_map(|number| number.to_be_bytes()).collect();
    AppendRequest {
        tenant: tenant.clone(),
        stored: Bytes::from(zstd::bulk::compress(&payload, 1).unwrap()),
        stored_encoding: BodyEncoding::Zstd,
        checked: NumberDecode.check(&payload).unwrap(),
        payload: Bytes::from(payload),
    }
}

impl World {
    pub(super) fn new() -> Self {
        let mut config = Config::new("/nowhere");
        config.head_bytes_max = usize::MAX;
        config.head_memory_limit = usize::MAX;
        Self::with(config)
    }

    pub(super) fn with(config: Config) -> Self {
        let mut world = Self {
            config,
            store: Arc::new(MemoryStore::new()),
            blocks: Arc::new(FakeBlocks::default()),
            clock: Arc::new(HandClock(AtomicU64::new(1_000_000_000_000))),
            ingester: None,
            acknowledged: BTreeMap::new(),
            uncertain: BTreeMap::new(),
            deleted: BTreeMap::new(),
            next_number: 0,
            lives: 0,
        };
        world.open().unwrap();
        world
    }

    pub(super) fn open(&mut self) -> Result<(), Error> {
        let foundation = Foundation {
            store: Arc::clone(&self.store) as Arc<dyn Store>,
            blocks: Arc::clone(&self.blocks) as Arc<dyn BlockStore>,
            seed: u128::from(self.lives) << 64,
        };
        self.lives += 1;
        let metrics = Metrics::register(&mut Registry::default());
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        let opened = Ingester::open_on(self.config.clone(), foundation, clock, Arc::new(NumberDecode), metrics);
        self.ingester = Some(opened?);
        Ok(())
    }

    /// Why every export is refused, as alarms see it.
    pub(super) fn refusing(&self) -> Vec<Refusing> {
        let _ = self.ingester().health();
        self.ingester().core.metrics.refusing()
    }

    pub(super) fn ingester(&self) -> &Arc<Ingester> {
        self.ingester.as_ref().unwrap()
    }

    /// Numbers that were never used.
    pub(super) fn numbers(&mut self, count: u64) -> Vec<u64> {
        let first = self.next_number;
        self.next_number += count;
        (first..self.next_number).collect()
    }

    /// Sends a request and waits for its answer.
    pub(super) fn append(&mut self, tenant: &TenantId, count: u64) -> Result<(), AppendError> {
        let numbers = self.numbers(count);
        self.append_numbers(tenant, &numbers)
    }

    /// [`Self::append`], of numbers that may have been deleted before.
    pub(super) fn append_numbers(&mut self, tenant: &TenantId, numbers: &[u64]) -> Result<(), AppendError> {
        let outcome = wait_for(self.ingester().append(request(tenant, numbers)));
        let ledger = match outcome {
            Ok(()) => &mut self.acknowledged,
            Err(_) => &mut self.uncertain,
        };
        ledger.entry(tenant.clone()).or_default().extend(numbers);
        outcome
    }

    /// Deletes a trace; what was acknowledged of it is not to be seen from now on.
    pub(super) fn delete(&mut self, tenant: &TenantId, trace: TraceId) -> Result<usize, Error> {
        self.delete_and(tenant, trace, &mut |_| Ok(()))
    }

    /// [`Self::delete`], which tells others first.
    pub(super) fn delete_and(
        &mut self,
        tenant: &TenantId,
        trace: TraceId,
        announce: &mut dyn FnMut(&Deletions) -> Result<(), String>,
    ) -> Result<usize, Error> {
        let outcome = self.ingester().delete_trace(tenant, trace, announce);
        let acknowledged = self.acknowledged.entry(tenant.clone()).or_default();
        let gone: Vec<u64> = acknowledged.iter().copied().filter(|number| trace_of(*number) == trace).collect();
        acknowledged.retain(|number| trace_of(*number) != trace);
        // A failed deletion may have happened: then a crash shows it.
        let ledger = if outcome.is_ok() { &mut self.deleted } else { &mut self.uncertain };
        ledger.entry(tenant.clone()).or_default().extend(gone);
        outcome
    }

    /// The machine stops here and starts again; `buffered_kept` unsynced writes survive.
    pub(super) fn crash(&mut self, buffered_kept: usize) {
        // The store first: a block that is written after this instant is only one that nobody knows.
        let store = Arc::new(self.store.after_crash(buffered_kept));
        let blocks = Arc::new(self.blocks.after_crash());
        self.blocks.open_gate();
        self.ingester = None;
        (self.store, self.blocks) = (store, blocks);
        self.open().unwrap();
    }

    pub(super) fn check(&self) {
        for tenant in self.acknowledged.keys().chain(self.uncertain.keys()) {
            self.check_tenant(tenant);
        }
    }

    /// Every acknowledged span exactly once, uncertain ones at most once, nothing else.
    pub(super) fn check_tenant(&self, tenant: &TenantId) {
        let found = numbers_in(self.ingester(), tenant);
        let distinct: BTreeSet<u64> = found.iter().copied().collect();
        assert_eq!(found.len(), distinct.len(), "a span of {tenant} is there twice: {found:?}");
        let none = BTreeSet::new();
        let acknowledged = self.acknowledged.get(tenant).unwrap_or(&none);
        let uncertain = self.uncertain.get(tenant).unwrap_or(&none);
        let lost: Vec<_> = acknowledged.difference(&distinct).collect();
        assert!(lost.is_empty(), "spans of {tenant} are lost: {lost:?}");
        let strange: Vec<_> = distinct.iter().filter(|n| !acknowledged.contains(n) && !uncertain.contains(n)).collect();
        assert!(strange.is_empty(), "spans of {tenant} come from nowhere: {strange:?}");
        let deleted = self.deleted.get(tenant).unwrap_or(&none);
        assert!(distinct.is_disjoint(deleted), "deleted spans of {tenant} are back: {distinct:?}");
    }
}

/// The numbers of all spans of a tenant in one snapshot, ascending, copies included.
pub(super) fn numbers_in(ingester: &Ingester, tenant: &TenantId) -> Vec<u64> {
    let snapshot = ingester.snapshot(tenant);
    let ctx = QueryContext::new(&MemoryBudget::new(usize::MAX), Arc::new(AtomicBool::new(false)));
    let mut found = Vec::new();
    for source in &snapshot.sources {
        let request = ColumnRequest {
            masks: Vec::new(),
            needed: Vec::new(),
            columns: Vec::new(),
            values_of: ValuesOf::AllRows,
            tree: false,
            copies: false,
            range: TimeRange::ALL,
            intervals: None,
        };
        let scan = source.scan(&request, &ctx).unwrap();
        let groups = (0..scan.groups().len()).filter_map(|group| scan.read(group, &ctx).unwrap().0);
        let ids: Vec<TraceId> = groups.flat_map(|batch| batch.trace_ids).collect();
        for id in ids {
            let spans = source.find_trace(id, &ctx).unwrap();
            found.extend(spans.iter().map(|entry| u64::from_be_bytes(entry.span.span_id.0) - 1));
        }
    }
    found.sort_unstable();
    found
}

/// Waits until something holds.
pub(super) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let step = Duration::from_millis(1);
    let mut waited = Duration::ZERO;
    while !holds() {
        assert!(waited < DEADLINE, "{what} does not happen");
        std::thread::park_timeout(step);
        waited += step;
    }
}

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for an answer to a request. A dropped sender means closed.
pub(super) fn wait_for(outcome: oneshot::Receiver<Result<(), AppendError>>) -> Result<(), AppendError> {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut outcome = pin!(outcome);
    let mut waits = 0;
    loop {
        if let Poll::Ready(outcome) = outcome.as_mut().poll(&mut Context::from_waker(&waker)) {
            return outcome.unwrap_or(Err(AppendError::Closed));
        }
        assert!(waits < 2000, "an answer never comes");
        std::thread::park_timeout(DEADLINE / 1000);
        waits += 1;
    }
}

/// A configuration whose heads are cut and whose memory is full at these sizes.
pub(super) fn small(head_bytes_max: usize, head_memory_limit: usize) -> Config {
    let mut config = Config::new("/nowhere");
    (config.head_bytes_max, config.head_memory_limit) = (head_bytes_max, head_memory_limit);
    config
}

pub(super) fn unsynced() -> Config {
    let mut config = Config::new("/nowhere");
    config.wal_sync = WalSync::Never;
    config
}
