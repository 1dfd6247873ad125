//! The store under test, what it was told, and what it must therefore say.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use spoor_block::{BlockCache, DirectoryFiles, TimeWindow, WriteOptions};
use spoor_compactor::{Candidate, Limits as MergeLimits, Size, is_expired, plan};
use spoor_ingester::store::{Fault, MemoryStore, Store};
use spoor_ingester::{Config, Foundation, Ingester, MergeRequest, Metrics, StoredBlocks};
use spoor_model::compute::ComputePool;
use spoor_model::scan::Snapshots;
use spoor_model::{Clock, SpanEntry, TenantId, TimeRange, Trace, TraceId, UnixNano};
use spoor_otlp::OtlpDecoder;
use spoor_querier::{Limits, Querier};
use spoor_testkit::random;
use spoor_testkit::rng::Rng;
use tempfile::TempDir;

use crate::traffic::{HandClock, Traffic, append, canonical, context, exported, request};

/// Spans are kept that long.
const RETENTION: Duration = Duration::from_secs(600);

/// Merges of few spans and of several kinds, where spans are kept that long.
pub(crate) fn merge_limits(retention: Duration) -> MergeLimits {
    MergeLimits {
        window: retention / 4,
        settle: Duration::ZERO,
        inputs_min: 2,
        patience: retention / 4,
        inputs_max: 5,
        block: Size { spans: 200, traces: 100, bytes: u64::MAX },
    }
}

/// The store, and what it must say.
pub(crate) struct World {
    seed: u64,
    directory: TempDir,
    store: Arc<MemoryStore>,
    clock: Arc<HandClock>,
    life: Option<Life>,
    lives: u64,
    traffic: Traffic,
    tenant: TenantId,
    /// Acknowledged and not deleted; each distinct span once.
    must: BTreeMap<TraceId, Vec<SpanEntry>>,
    /// Sent and not acknowledged: may be there.
    may: BTreeMap<TraceId, Vec<SpanEntry>>,
    pub(crate) merges: u64,
}

/// A process.
struct Life {
    ingester: Arc<Ingester>,
    querier: Querier,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut world = Self {
            seed,
            directory: TempDir::new().unwrap(),
            store: Arc::new(MemoryStore::new()),
            clock: Arc::new(HandClock::new()),
            life: None,
            lives: 0,
            traffic: Traffic::new(seed, RETENTION),
            tenant: TenantId::single(),
            must: BTreeMap::new(),
            may: BTreeMap::new(),
            merges: 0,
        };
        world.start();
        world
    }

    pub(crate) fn start(&mut self) {
        let mut config = Config::new("/nowhere");
        config.head_bytes_max = usize::MAX;
        config.head_memory_limit = usize::MAX;
        let files = Arc::new(DirectoryFiles::new(self.directory.path()));
        // Small groups and pages, so that few spans fill several.
        let options = WriteOptions { row_group_rows: 16, page_rows: 4, zstd_level: 1 };
        let foundation = Foundation {
            store: Arc::clone(&self.store) as Arc<dyn Store>,
            blocks: Arc::new(StoredBlocks::new(files, options, BlockCache::new(1 << 20))),
            seed: u128::from(self.seed) << 64 | u128::from(self.lives) << 32,
        };
        self.lives += 1;
        let metrics = Metrics::register(&mut Registry::default());
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        let ingester =
            Ingester::open_on(config, foundation, Arc::clone(&clock), Arc::new(OtlpDecoder), metrics).unwrap();
        let pool = Arc::new(ComputePool::new("simulation", 2).unwrap());
        let metrics = spoor_querier::Metrics::register(&mut Registry::default());
        let snapshots = Arc::clone(&ingester) as Arc<dyn Snapshots>;
        let querier = Querier::new(snapshots, pool, Limits::default(), clock, metrics);
        self.life = Some(Life { ingester, querier });
    }

    fn life(&self) -> &Life {
        self.life.as_ref().unwrap()
    }

    /// Sends spans; returns what was sent as the store will know it, and whether it was acknowledged.
    fn send(&mut self, rng: &mut Rng) -> (Vec<SpanEntry>, bool) {
        let entries = self.traffic.entries(rng, self.clock.now());
        let (sent, request) = request(&self.tenant, entries);
        (sent, append(&self.life().ingester, request))
    }

    pub(crate) fn ingest(&mut self, rng: &mut Rng) {
        let (sent, is_acknowledged) = self.send(rng);
        assert!(is_acknowledged, "a healthy store takes spans");
        self.promise(sent);
    }

    fn promise(&mut self, sent: Vec<SpanEntry>) {
        for entry in sent {
            self.must.entry(entry.span.trace_id).or_default().push(entry);
        }
    }

    /// Writes fail in some way for a while; what is not acknowledged may be there or not.
    pub(crate) fn ingest_on_a_full_disk(&mut self, rng: &mut Rng) {
        let fault = *rng.pick(&[Fault::Refuse, Fault::LoseAnswer, Fault::LoseWrite]);
        let from = self.store.writes_seen() + rng.below(3);
        self.store.fail_writes(from..from + 1 + rng.below(3), fault);
        for _ in 0..2 {
            let (sent, is_acknowledged) = self.send(rng);
            match is_acknowledged {
                true => self.promise(sent),
                false => {
                    sent.into_iter().for_each(|entry| self.may.entry(entry.span.trace_id).or_default().push(entry))
                }
            }
        }
        // It may fail: that is what this is for.
        let _ = self.life().ingester.flush(None);
        self.restart(rng);
    }

    pub(crate) fn pass_time(&mut self, rng: &mut Rng) {
        self.clock.pass(rng.below(120));
    }

    pub(crate) fn cut(&mut self) {
        self.life().ingester.flush(None).unwrap();
    }

    fn merge(&mut self, inputs: Vec<spoor_model::BlockId>) {
        let keep_after = Some(self.horizon());
        // Late traces go into blocks of their own time, as in a process.
        let length = RETENTION / 4;
        let start = UnixNano(self.clock.now().0 / length.as_nanos() as u64 * length.as_nanos() as u64);
        let window = Some(TimeWindow { start, length });
        let request = MergeRequest { inputs, block_spans: 60, memory_bytes: 64 << 20, keep_after, window };
        let merged = self.life().ingester.merge_blocks(&self.tenant, &request, &mut |_| ControlFlow::Continue(()));
        merged.unwrap();
        self.merges += 1;
    }

    fn horizon(&self) -> UnixNano {
        self.clock.now().minus(RETENTION)
    }

    /// What the compactor would do now, all of it.
    pub(crate) fn merge_as_planned(&mut self) {
        let limits = merge_limits(RETENTION);
        for _ in 0..100 {
            let states = self.life().ingester.block_states(&self.tenant);
            let candidates: Vec<Candidate> =
                states.iter().map(|state| Candidate::new(&state.meta, state.deleted_traces > 0)).collect();
            match plan(&candidates, self.clock.now(), &limits).into_iter().next() {
                Some(job) => self.merge(job.inputs),
                None => return,
            }
        }
        panic!("planning does not come to an end");
    }

    /// Any blocks, of any age and level.
    pub(crate) fn merge_at_random(&mut self, rng: &mut Rng) {
        let mut states = self.life().ingester.block_states(&self.tenant);
        states.retain(|_| rng.chance(0.5));
        states.truncate(6);
        // A block with deletions is rewritten alone.
        match states.iter().position(|state| state.deleted_traces > 0) {
            Some(place) if rng.chance(0.5) => states = vec![states.swap_remove(place)],
            _ => states.retain(|state| state.deleted_traces == 0),
        }
        let ids: Vec<_> = states.iter().map(|state| state.meta.id).collect();
        if !ids.is_empty() {
            self.merge(ids);
        }
    }

    pub(crate) fn expire(&mut self) {
        let horizon = Some(self.horizon());
        let life = self.life();
        let blocks = life.ingester.blocks(&self.tenant);
        let due: Vec<_> = blocks.iter().filter(|meta| is_expired(meta, horizon)).map(|meta| meta.id).collect();
        life.ingester.remove_blocks(&self.tenant, &due).unwrap();
    }

    pub(crate) fn delete(&mut self, rng: &mut Rng) {
        let known: Vec<TraceId> = self.must.keys().chain(self.may.keys()).copied().collect();
        if known.is_empty() {
            return;
        }
        let id = *rng.pick(&known);
        self.life().ingester.delete_trace(&self.tenant, id, &mut |_| Ok(())).unwrap();
        self.must.remove(&id);
        self.may.remove(&id);
    }

    /// The machine stops; what was not durable is gone, in part.
    pub(crate) fn crash(&mut self, rng: &mut Rng) {
        self.restart(rng);
    }

    fn restart(&mut self, rng: &mut Rng) {
        let image = self.store.after_crash(rng.index(4));
        // The old process must not touch the directory any more. It makes durable what it took, in its own image.
        self.life = None;
        self.store = Arc::new(image);
        self.start();
    }

    /// Some traces by their ids, known and unknown.
    pub(crate) fn check_some(&mut self, rng: &mut Rng, step: u64) {
        let known: Vec<TraceId> = self.must.keys().copied().collect();
        for _ in 0..3.min(known.len()) {
            let id = *rng.pick(&known);
            let found = self.life().querier.find_trace(&self.tenant, id, &context()).unwrap();
            assert_eq!(found.skipped, [], "seed {}, step {step}", self.seed);
            self.check_trace(id, found.value.as_ref(), step);
        }
        let unknown = TraceId(u128::from(rng.bits()).to_be_bytes());
        assert!(self.life().querier.find_trace(&self.tenant, unknown, &context()).unwrap().value.is_none());
    }

    fn check_trace(&self, id: TraceId, found: Option<&Trace>, step: u64) {
        let place = format!("seed {}, step {step}, trace {id}", self.seed);
        let horizon = self.horizon();
        let of = |spans: &BTreeMap<TraceId, Vec<SpanEntry>>| -> Vec<SpanEntry> {
            spans.get(&id).cloned().unwrap_or_default()
        };
        let (must, may) = (of(&self.must), of(&self.may));
        let allowed: BTreeSet<String> = must.iter().chain(&may).map(canonical).collect();
        let found: Vec<String> = found.iter().flat_map(|trace| &trace.entries).map(canonical).collect();
        let distinct: BTreeSet<&String> = found.iter().collect();
        assert_eq!(distinct.len(), found.len(), "{place}: a span comes twice");
        for span in &found {
            assert!(allowed.contains(span), "{place}: a span that was never sent, or was deleted: {span}");
        }
        for entry in must.iter().filter(|entry| entry.span.end >= horizon) {
            let span = canonical(entry);
            assert!(distinct.contains(&span), "{place}: an acknowledged span is missing: {span}");
        }
    }

    /// Every trace, and what random queries say of them.
    pub(crate) fn check_all(&mut self, rng: &mut Rng, step: u64) {
        let (all, skipped) = exported(&self.life().querier, &self.tenant, rng);
        assert_eq!(skipped, [], "seed {}, step {step}", self.seed);
        let ids: BTreeSet<TraceId> = all.iter().map(|trace| trace.id).collect();
        all.iter().for_each(|trace| self.check_trace(trace.id, Some(trace), step));
        for id in self.must.keys().filter(|id| !ids.contains(id)) {
            self.check_trace(*id, None, step);
        }
        let entries: Vec<SpanEntry> = all.into_iter().flat_map(|trace| trace.entries).collect();
        let around = TimeRange { start: self.horizon(), end: self.clock.now() };
        for _ in 0..6 {
            let search = self.traffic.draw(random::search_query());
            let metrics = self.traffic.draw(random::metrics_query());
            let place = format!("seed {}, step {step}", self.seed);
            let querier = &self.life().querier;
            crate::queries::compare_search(querier, &entries, &search, TimeRange::ALL, &place);
            crate::queries::compare_search(querier, &entries, &search, around, &place);
            crate::queries::compare_metrics(querier, &entries, &metrics, around, &place);
        }
    }
}
