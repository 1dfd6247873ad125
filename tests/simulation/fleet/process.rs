//! One of several processes: what a server consists of, driven by hand.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use spoor_block::{BlockCache, BlockFiles, WriteOptions};
use spoor_compactor::objects::{Holder, Metrics as ObjectMetrics, ObjectFiles, ObjectOptions, Patience};
use spoor_compactor::{Brake, Compaction, Metrics as LifeMetrics, Policy, Retention, Settings, Shares};
use spoor_ingester::store::{Change, Durability, MemoryStore, Store, StoreError, Table, Visit};
use spoor_ingester::{Config, Error, Foundation, Ingester, Metrics, StoredBlocks};
use spoor_model::compute::ComputePool;
use spoor_model::scan::Snapshots;
use spoor_model::{Clock, TenantId, UnixNano};
use spoor_otlp::OtlpDecoder;
use spoor_querier::{Limits, Querier};
use spoor_server::{Owner, Shared, Terms};
use spoor_testkit::faults::{FaultStore, Faults, Passage, Switch};
use tempfile::TempDir;

use crate::traffic::{HandClock, wait};
use crate::world::merge_limits;

/// Spans are kept that long.
pub(crate) const RETENTION: Duration = Duration::from_secs(6 * 3600);
/// Files of removed blocks stay that long.
pub(crate) const GRACE: Duration = Duration::from_secs(1800);
const LEASE: Duration = Duration::from_secs(60);

/// A clock that is a little wrong.
#[derive(Debug)]
struct WrongClock {
    clock: Arc<HandClock>,
    ahead: Duration,
}

impl Clock for WrongClock {
    fn now(&self) -> UnixNano {
        UnixNano(self.clock.now().0 + self.ahead.as_nanos() as u64)
    }
}

/// The log and the catalog of a process that stops at a switch.
struct Switched {
    store: Arc<MemoryStore>,
    switch: Arc<Switch>,
}

impl Switched {
    fn pass<T>(&self, write: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        let dead = || StoreError("the process is dead".to_owned());
        match self.switch.pass() {
            Passage::Free => write(),
            Passage::Pause => {
                self.switch.wait();
                write()
            }
            Passage::Dead => Err(dead()),
            Passage::Unheard => write().and_then(|_| Err(dead())),
        }
    }
}

impl Store for Switched {
    fn write(&self, changes: &[Change], durability: Durability) -> Result<(), StoreError> {
        self.pass(|| self.store.write(changes, durability))
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.pass(|| self.store.sync())
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.get(table, key)
    }

    fn scan(&self, table: Table, from: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.store.scan(table, from, visit)
    }

    fn reclaim(&self) -> Result<(), StoreError> {
        self.store.reclaim()
    }

    fn compact(&self) -> Result<(), StoreError> {
        self.store.compact()
    }
}

/// What makes a process and stays when it dies.
pub(crate) struct Machine {
    pub(crate) number: usize,
    seed: u64,
    content: Arc<FaultStore>,
    directory: TempDir,
    pub(crate) disk: Arc<MemoryStore>,
    clock: Arc<WrongClock>,
    patience: Patience,
    cache_bytes: u64,
    lives: u64,
}

/// A process while it lives.
#[derive(Clone)]
pub(crate) struct Process {
    pub(crate) ingester: Arc<Ingester>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) querier: Arc<Querier>,
    pub(crate) owner: Arc<Owner>,
    pub(crate) compaction: Arc<Compaction>,
    pub(crate) retention: Arc<Retention>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) store: Arc<FaultStore>,
    pub(crate) switch: Arc<Switch>,
    /// Ends merges that wait for a dead store.
    pub(crate) brake: Arc<Brake>,
}

/// Thousands of small files, each of them synced: in memory, where there is such a place.
fn in_memory() -> TempDir {
    TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap()
}

impl Machine {
    pub(crate) fn new(number: usize, seed: u64, content: &Arc<FaultStore>, clock: &Arc<HandClock>) -> Self {
        let (attempt, backoff) = (Duration::from_secs(60), Duration::from_millis(1));
        // Some give up at once; others try again a few times.
        let total = if (seed + number as u64).is_multiple_of(2) { backoff } else { backoff * 12 };
        let ahead = Duration::from_secs((seed.wrapping_mul(7) + 11 * number as u64) % 30);
        Self {
            number,
            seed: seed.wrapping_mul(64) + number as u64,
            content: Arc::clone(content),
            directory: in_memory(),
            disk: Arc::new(MemoryStore::new()),
            clock: Arc::new(WrongClock { clock: Arc::clone(clock), ahead }),
            patience: Patience { attempt, total, backoff },
            cache_bytes: if seed.is_multiple_of(3) { 0 } else { 1 << 20 },
            lives: 0,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn object_files(&self, store: &Arc<FaultStore>) -> Arc<ObjectFiles> {
        let options = ObjectOptions {
            staging_dir: self.path("staging"),
            cache_dir: self.path("cache"),
            cache_bytes: self.cache_bytes,
            // What is fetched behind everybody's back comes at no certain moment.
            ahead_bytes: 0,
            patience: self.patience,
            local_dir: None,
            name: format!("bucket of {}", self.number),
            grace: GRACE,
        };
        Arc::new(ObjectFiles::new(Arc::clone(store) as _, options, ObjectMetrics::default()).unwrap())
    }

    /// Starts a process as a server does, which may die on the way.
    pub(crate) fn start(&mut self, switch: &Arc<Switch>, faults: Faults) -> Result<Process, Error> {
        self.lives += 1;
        let store = FaultStore::new(Arc::clone(&self.content) as _, self.seed ^ self.lives << 32);
        let store = Arc::new(store.with_switch(Arc::clone(switch)));
        wait(store.age());
        store.set(faults);
        let files = self.object_files(&store);
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        let holder = Holder { owner: self.number.to_string(), life: format!("{}, life {}", self.number, self.lives) };
        let (merge_patience, delete_patience) = (Duration::ZERO, Duration::ZERO);
        let terms = Terms { holder, lease: LEASE, merge_patience, delete_patience };
        let shared = Shared::new(Arc::clone(&files), &self.path("blocks"), terms).unwrap();
        let mut config = Config::new("/nowhere");
        (config.head_bytes_max, config.head_memory_limit) = (usize::MAX, usize::MAX);
        // Ages are looked at by real time, which no seed decides.
        config.head_age_max = Duration::MAX;
        // Small groups and pages, so that few spans fill several.
        let options = WriteOptions { row_group_rows: 16, page_rows: 4, zstd_level: 1 };
        let blocks = StoredBlocks::new(files as Arc<dyn BlockFiles>, options, BlockCache::new(1 << 20));
        let foundation = Foundation {
            store: Arc::new(Switched { store: Arc::clone(&self.disk), switch: Arc::clone(switch) }),
            blocks: Arc::new(blocks),
            // Lives of one moment make names that differ.
            seed: u128::from(self.seed) << 64 | u128::from(self.lives) << 32,
        };
        let metrics = Metrics::register(&mut Registry::default());
        let ingester = Ingester::open_on(config, foundation, Arc::clone(&clock), Arc::new(OtlpDecoder), metrics)?;
        shared.guard_merges(&ingester, &clock);
        shared.keep_lease(&*clock);
        shared.poll(&ingester, &*clock, false);
        Ok(self.assemble(ingester, shared, clock, store, Arc::clone(switch)))
    }

    fn assemble(
        &self,
        ingester: Arc<Ingester>,
        shared: Arc<Shared>,
        clock: Arc<dyn Clock>,
        store: Arc<FaultStore>,
        switch: Arc<Switch>,
    ) -> Process {
        let pool = Arc::new(ComputePool::new("simulation", 2).unwrap());
        let metrics = spoor_querier::Metrics::register(&mut Registry::default());
        let snapshots = Arc::clone(&ingester) as Arc<dyn Snapshots>;
        // Hours pass between the spans of a trace.
        let limits = Limits { trace_duration_max: RETENTION * 2, ..Limits::default() };
        let querier = Querier::new(snapshots, pool, limits, Arc::clone(&clock), metrics);
        let policy = Policy { retention: RETENTION, by_tenant: Default::default(), size_bytes_max: 0 };
        let shares = Shares { cpu_percent: 100, io_bytes_per_second: 0 };
        let settings = Settings { limits: merge_limits(RETENTION), memory_bytes: 64 << 20, shares };
        let metrics = LifeMetrics::register(&mut Registry::default());
        let owner =
            Owner { ingester: Arc::clone(&ingester), shared: Some(Arc::clone(&shared)), clock: Arc::clone(&clock) };
        Process {
            compaction: Arc::new(Compaction::new(settings, policy.clone(), metrics.clone())),
            retention: Arc::new(Retention::new(policy, metrics)),
            owner: Arc::new(owner),
            querier: Arc::new(querier),
            brake: Arc::default(),
            ingester,
            shared,
            clock,
            store,
            switch,
        }
    }
}

impl Process {
    /// The blocks that it knows.
    pub(crate) fn block_ids(&self, tenant: &TenantId) -> std::collections::BTreeSet<spoor_model::BlockId> {
        self.ingester.blocks(tenant).iter().map(|meta| meta.id).collect()
    }
}
