//! The ingester: its threads and its doors.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use futures_channel::oneshot;
use parking_lot::Mutex;
use spoor_block::{BlockCache, BlockFiles, DirectoryFiles};
use spoor_model::ingest::{Append, AppendError, AppendRequest, Decode};
use spoor_model::memory::MemoryBudget;
use spoor_model::scan::{Skipped, Snapshot, Snapshots};
use spoor_model::{Clock, TenantId, UnixNano};

use crate::apply::{CutLimits, HeadThread, HeadWork};
use crate::blocks::{BlockStore, Gone, StoredBlocks};
use crate::catalog;
use crate::config::Config;
use crate::cut::{BlockIds, Cutter};
use crate::error::Error;
use crate::head_memory::{HeadMemory, expected_bytes};
use crate::metrics::{Metrics, Refusing};
use crate::quarantine;
use crate::queue::Queue;
use crate::record::Sequence;
use crate::recovery::{self, Replay, Undecided};
use crate::salvage;
use crate::store::{Change, Durability, RocksStore, Store, StoreError};
use crate::tenant::{Frozen, Tenants};
use crate::wal::{Done, Pending, Refusal, WalThread};
use crate::whereabouts::claim_storage;

/// Groups between the log thread and the head thread. A few, so that the disk does not wait for the
/// decoder; their bytes are those of the append queue.
const GROUPS_IN_FLIGHT: usize = 4;

/// What a request weighs in the queue besides its bytes, so that empty ones are bounded too.
const REQUEST_OVERHEAD_BYTES: usize = 512;

/// Refusals come in waves, one per cut; between two of them there is no room for anybody else.
const PRESSED_AFTER_OVERLOAD: Duration = Duration::from_secs(2);

/// How the ingester is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Health {
    /// Why requests are refused, while they are. Queries go on.
    pub refusing: Option<String>,
    /// Why a head cannot become a block, while it cannot. Ingest goes on until memory is full.
    pub cut_failing: Option<String>,
    /// Blocks that queries must do without.
    pub blocks_skipped: usize,
    /// What of the log was damaged at the start: acknowledged spans may be lost.
    pub log_damage: Option<String>,
    /// Why it is not known which blocks there are, if that is so: answers may lack some.
    pub blocks_unknown: Option<String>,
    /// Log records that could not be read when the process started, this time or before.
    pub records_in_quarantine: u64,
}

/// What the ingester stands on: RocksDB and a directory, or models of them.
pub struct Foundation {
    /// The log and the catalog.
    pub store: Arc<dyn Store>,
    /// The blocks.
    pub blocks: Arc<dyn BlockStore>,
    /// Makes block names differ between processes.
    pub seed: u128,
}

/// Hot spans of all tenants. See the crate's documentation.
pub struct Ingester {
    core: Core,
    queue: Arc<Queue<Pending>>,
    queue_budget: Arc<MemoryBudget>,
    refusal: Arc<Refusal>,
    quarantined_before: u64,
    /// When an export was last refused for want of room.
    overloaded_at: AtomicU64,
    is_closed: AtomicBool,
    threads: Mutex<Option<Threads>>,
    /// Held as long as the directory is ours.
    _lock: Option<File>,
}

/// What the threads and the doors share.
struct Core {
    config: Config,
    clock: Arc<dyn Clock>,
    store: Arc<dyn Store>,
    blocks: Arc<dyn BlockStore>,
    tenants: Arc<Tenants>,
    memory: Arc<HeadMemory>,
    cutter: Arc<Cutter>,
    metrics: Metrics,
    /// Retired blocks whose files are removed.
    gone: Arc<Gone>,
    /// Why it is not known which blocks there are, as long as that is so.
    unknown: Mutex<Option<Skipped>>,
}

struct Threads {
    wal: Option<JoinHandle<()>>,
    to_head: SyncSender<HeadWork>,
    head: JoinHandle<()>,
    cut: JoinHandle<()>,
}

impl Ingester {
    /// Takes the data directory, recovers what the last process left, and starts, with blocks in the data
    /// directory. Blocks until everything that was ever acknowledged is visible.
    pub fn open(
        config: Config,
        clock: Arc<dyn Clock>,
        decode: Arc<dyn Decode>,
        metrics: Metrics,
    ) -> Result<Arc<Self>, Error> {
        let files = Arc::new(DirectoryFiles::new(config.blocks_dir()));
        Self::open_with(config, files, clock, decode, metrics)
    }

    /// Like [`Self::open`], with blocks wherever their files lie.
    pub fn open_with(
        config: Config,
        files: Arc<dyn BlockFiles>,
        clock: Arc<dyn Clock>,
        decode: Arc<dyn Decode>,
        metrics: Metrics,
    ) -> Result<Arc<Self>, Error> {
        let lock = lock_data_dir(&config.data_dir)?;
        claim_storage(&config)?;
        let database = config.database_dir();
        let blocks = config.blocks_dir();
        std::fs::create_dir_all(&blocks).map_err(|err| Error::io("create", &blocks, &err))?;
        let cache = BlockCache::new(config.block_cache_bytes);
        let store = RocksStore::open(&database, config.head_memory_limit);
        let store = store.map_err(|err| Error::storage(&database, err))?;
        let foundation = Foundation {
            store: Arc::new(store),
            blocks: Arc::new(StoredBlocks::new(files, config.block.clone(), cache)),
            // The standard library seeds its hasher from the system: entropy without a dependency.
            seed: u128::from(RandomState::new().hash_one(0)) << 64 | u128::from(RandomState::new().hash_one(1)),
        };
        Self::start(config, foundation, clock, decode, metrics, Some(lock))
    }

    /// Like [`Self::open`], on a given foundation: for tests and simulation.
    pub fn open_on(
        config: Config,
        foundation: Foundation,
        clock: Arc<dyn Clock>,
        decode: Arc<dyn Decode>,
        metrics: Metrics,
    ) -> Result<Arc<Self>, Error> {
        Self::start(config, foundation, clock, decode, metrics, None)
    }

    fn start(
        config: Config,
        foundation: Foundation,
        clock: Arc<dyn Clock>,
        decode: Arc<dyn Decode>,
        metrics: Metrics,
        lock: Option<File>,
    ) -> Result<Arc<Self>, Error> {
        let began = clock.now();
        let core = Core::new(config, foundation, clock, metrics);
        let (trimmed, undecided) = core.load_catalog()?;
        let mut threads = core.start_workers(decode, undecided)?;
        let recovered = core.replay(&trimmed, &threads.to_head).and_then(|last| Ok((last, core.quarantined()?)));
        let (last, quarantined_before) = match recovered {
            Ok(recovered) => recovered,
            Err(err) => {
                core.cutter.abandon();
                threads.join();
                return Err(err);
            }
        };
        let took = core.clock.now().since(began);
        core.metrics.recovery_seconds.set(took.as_secs_f64());
        let (queue, refusal) = (Arc::new(Queue::new()), Arc::new(Refusal::default()));
        let wal = WalThread {
            queue: Arc::clone(&queue),
            store: Arc::clone(&core.store),
            clock: Arc::clone(&core.clock),
            refusal: Arc::clone(&refusal),
            to_head: threads.to_head.clone(),
            sync: core.config.wal_sync,
            metrics: core.metrics.clone(),
            last,
            unsynced_since: None,
        };
        threads.wal = Some(spawn("spoor-wal", move || wal.run())?);
        Ok(Arc::new(Self {
            queue,
            queue_budget: MemoryBudget::new(core.config.append_queue_bytes),
            refusal,
            quarantined_before,
            overloaded_at: AtomicU64::new(0),
            is_closed: AtomicBool::new(false),
            threads: Mutex::new(Some(threads)),
            _lock: lock,
            core,
        }))
    }

    /// The tenants that were ever heard of, ascending.
    pub fn tenants(&self) -> Vec<TenantId> {
        self.core.tenants.all().iter().map(|tenant| tenant.id.clone()).collect()
    }

    /// Makes blocks of what is in the heads now, of one tenant or of all, and waits for it.
    pub fn flush(&self, tenant: Option<&TenantId>) -> Result<(), Error> {
        let to_head = self.threads.lock().as_ref().map(|threads| threads.to_head.clone()).ok_or(Error::Closed)?;
        let was_failing = self.core.cutter.failing().is_some();
        let waiting = freeze(&to_head, tenant)?;
        drop(to_head);
        if was_failing || waiting.iter().any(|(_, failures_before)| *failures_before > 0) {
            self.core.cutter.kick();
        }
        for (frozen, failures_before) in waiting {
            frozen.wait(failures_before).map_err(|reason| cut_error(&frozen, reason))?;
        }
        Ok(())
    }

    /// Stops taking requests, makes everything taken durable and visible, cuts all heads, ends the
    /// threads. Queries may go on. An error means that some spans are in the log instead of in blocks:
    /// the next start finds them. Closing again does nothing.
    pub fn close(&self) -> Result<(), Error> {
        let mut slot = self.threads.lock();
        let Some(mut threads) = slot.take() else { return Ok(()) };
        self.is_closed.store(true, Ordering::Release);
        self.queue.close();
        threads.join_wal();
        let waiting = freeze(&threads.to_head, None);
        self.core.cutter.close();
        self.core.cutter.kick();
        threads.join();
        let left = waiting?.into_iter().find(|(frozen, _)| !frozen.is_done());
        match left {
            Some((frozen, _)) => Err(cut_error(&frozen, frozen.reason())),
            None => self.core.store.compact().map_err(|err| self.core.failed(err)),
        }
    }

    /// How the ingester is, and sets the metrics that say so. Cheap.
    pub fn health(&self) -> Health {
        let tenants = self.core.tenants.all();
        let blocks_skipped = tenants.iter().map(|tenant| tenant.skipped_count()).sum();
        self.core.metrics.blocks_unreadable.set(i64::try_from(blocks_skipped).unwrap_or(i64::MAX));
        let refusing = self.refusal.look().or_else(|| Some((Refusing::heads, self.stuck()?)));
        self.core.metrics.set_refusing(refusing.as_ref().map(|(why, _)| *why));
        Health {
            refusing: refusing.map(|(_, reason)| reason),
            cut_failing: self.core.cutter.failing(),
            blocks_skipped,
            log_damage: self.core.store.damage(),
            blocks_unknown: self.core.unknown.lock().as_ref().map(|unknown| unknown.reason.clone()),
            records_in_quarantine: self.quarantined_before,
        }
    }

    /// Whether ingest needs the machine more than anybody who can wait: it refuses, or did a moment ago, or heads wait to
    /// be cut.
    pub fn is_pressed(&self) -> bool {
        let is_filling = self.core.memory.total_bytes() / 4 >= self.core.config.head_memory_limit / 5;
        let overloaded_at = UnixNano(self.overloaded_at.load(Ordering::Relaxed));
        let now = self.core.clock.now();
        let is_overloaded = overloaded_at <= now && now.since(overloaded_at) < PRESSED_AFTER_OVERLOAD;
        self.refusal.get().is_some() || is_overloaded || is_filling || self.core.cutter.waiting_count() > 1
    }

    /// Why no more spans are taken until heads can be cut again, if that is so.
    fn stuck(&self) -> Option<String> {
        if self.core.memory.total_bytes() < self.core.config.head_memory_limit {
            return None;
        }
        let reason = self.core.cutter.failing()?;
        Some(format!("no block can be written, and head_memory_limit is full of spans that wait for it: {reason}"))
    }

    fn overloaded(&self, what: &'static str, key: &'static str) -> AppendError {
        self.core.metrics.count_overload(key);
        self.overloaded_at.store(self.core.clock.now().0, Ordering::Relaxed);
        AppendError::Overloaded { what, key }
    }

    /// Everything that can be said about a request before it is queued.
    fn admit(&self, request: AppendRequest, done: Done) -> Result<(), (Done, AppendError)> {
        if self.is_closed.load(Ordering::Acquire) {
            return Err((done, AppendError::Closed));
        }
        if let Some(reason) = self.refusal.get() {
            // The log thread tries the disk now, so that the next request may pass.
            self.queue.nudge();
            return Err((done, AppendError::Storage(reason)));
        }
        if self.core.memory.total_bytes() >= self.core.config.head_memory_limit {
            return Err((
                done,
                match self.stuck() {
                    Some(reason) => AppendError::Storage(reason),
                    None => self.overloaded("memory for heads", "head_memory_limit"),
                },
            ));
        }
        let stored_bytes = request.stored.len();
        let bytes = request.payload.len() + stored_bytes + REQUEST_OVERHEAD_BYTES;
        // A request above the whole bound passes alone: it must not be refused for ever.
        let Some(held) = self.queue_budget.try_reserve(bytes.min(self.queue_budget.limit_bytes())) else {
            return Err((done, self.overloaded("append queue", "ingest_inflight_bytes")));
        };
        let coming = self.core.memory.expect(expected_bytes(request.payload.len(), request.checked.accepted_count));
        let put = self.queue.put(Pending { request, done, held, coming }, stored_bytes);
        put.map_err(|pending| (pending.done, AppendError::Closed))
    }
}

impl Append for Ingester {
    fn append(&self, request: AppendRequest) -> oneshot::Receiver<Result<(), AppendError>> {
        let (done, outcome) = oneshot::channel();
        if let Err((done, err)) = self.admit(request, done) {
            // Fails when the caller has gone, which is its choice.
            let _ = done.send(Err(err));
        }
        outcome
    }
}

impl Snapshots for Ingester {
    fn snapshot(&self, tenant: &TenantId) -> Snapshot {
        let mut snapshot = self.core.tenants.get(tenant).map(|tenant| tenant.snapshot()).unwrap_or_default();
        snapshot.skipped.extend(self.core.unknown.lock().clone());
        snapshot
    }
}

impl Drop for Ingester {
    /// Without [`Ingester::close`]: what is taken is made durable, nothing is cut.
    fn drop(&mut self) {
        let Some(mut threads) = self.threads.lock().take() else { return };
        self.queue.close();
        threads.join_wal();
        self.core.cutter.abandon();
        threads.join();
    }
}

impl Core {
    fn new(config: Config, foundation: Foundation, clock: Arc<dyn Clock>, metrics: Metrics) -> Self {
        let Foundation { store, blocks, seed } = foundation;
        let memory = Arc::new(HeadMemory::new());
        let cutter = Cutter::new(
            Arc::clone(&store),
            Arc::clone(&blocks),
            Arc::clone(&clock),
            Arc::clone(&memory),
            metrics.clone(),
            BlockIds::new(seed),
        );
        let (tenants, cutter) = (Arc::new(Tenants::default()), Arc::new(cutter));
        Self {
            config,
            clock,
            store,
            blocks,
            tenants,
            memory,
            cutter,
            metrics,
            gone: Arc::default(),
            unknown: Mutex::default(),
        }
    }

    fn failed(&self, err: StoreError) -> Error {
        Error::storage(&self.config.database_dir(), err)
    }

    fn write(&self, changes: &[Change]) -> Result<(), Error> {
        self.store.write(changes, Durability::Synced).map_err(|err| self.failed(err))
    }

    fn quarantined(&self) -> Result<u64, Error> {
        quarantine::count(&*self.store).map(|count| count as u64).map_err(|err| self.failed(err))
    }

    /// Opens what the catalog names, removes what it disowns.
    fn load_catalog(&self) -> Result<(BTreeMap<TenantId, Sequence>, Undecided), Error> {
        let mut catalog = catalog::load(&*self.store).map_err(|err| self.failed(err))?;
        match catalog.format.as_deref() {
            Some(catalog::FORMAT) => {}
            None => self.write(&[catalog::set_format()])?,
            Some(found) => {
                let path = self.config.data_dir.display().to_string();
                return Err(Error::Format { path, found: found.to_owned(), known: catalog::FORMAT });
            }
        }
        let undecided =
            recovery::finish_cuts(&*self.store, &*self.blocks, &mut catalog).map_err(|err| self.failed(err))?;
        if self.store.damage().is_some() {
            self.metrics.records_set_aside.inc();
            let adopted = salvage::adopt_unnamed(&*self.store, &*self.blocks, &catalog);
            if adopted.map_err(|err| self.failed(err))? {
                catalog = catalog::load(&*self.store).map_err(|err| self.failed(err))?;
            }
        }
        let left = recovery::clean_up(&*self.store, &*self.blocks, &self.config.blocks_dir(), &catalog, &undecided);
        self.gone.leave(left.map_err(|err| self.failed(err))?);
        let trimmed = catalog.trimmed.clone();
        recovery::open_blocks(&self.tenants, &self.blocks, catalog, &self.metrics);
        Ok((trimmed, undecided))
    }

    fn start_workers(&self, decode: Arc<dyn Decode>, undecided: Undecided) -> Result<Threads, Error> {
        let head = HeadThread {
            tenants: Arc::clone(&self.tenants),
            decode,
            store: Arc::clone(&self.store),
            clock: Arc::clone(&self.clock),
            cutter: Arc::clone(&self.cutter),
            memory: Arc::clone(&self.memory),
            limits: CutLimits {
                head_bytes: self.config.cut_bytes(),
                all_bytes: self.config.head_memory_limit,
                age: self.config.head_age_max,
            },
            metrics: self.metrics.clone(),
            heads: BTreeMap::new(),
            undecided,
        };
        let (to_head, work) = sync_channel(GROUPS_IN_FLIGHT);
        let head = spawn("spoor-head", move || head.run(&work))?;
        let cutter = Arc::clone(&self.cutter);
        let cut = spawn("spoor-cut", move || cutter.run())?;
        Ok(Threads { wal: None, to_head, head, cut })
    }

    fn replay(
        &self,
        trimmed: &BTreeMap<TenantId, Sequence>,
        to_head: &SyncSender<HeadWork>,
    ) -> Result<Sequence, Error> {
        let replay = Replay {
            store: &*self.store,
            trimmed,
            to_head,
            cutter: &self.cutter,
            memory: &self.memory,
            memory_limit: self.config.head_memory_limit,
            metrics: &self.metrics,
        };
        replay.run().map_err(|err| self.failed(StoreError(err.to_string())))
    }
}

impl Threads {
    fn join_wal(&mut self) {
        if let Some(wal) = self.wal.take() {
            join(wal);
        }
    }

    /// Ends the head thread by hanging up, then waits for the cut thread, which was told to end.
    fn join(mut self) {
        self.join_wal();
        drop(self.to_head);
        join(self.head);
        join(self.cut);
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Error> {
    let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(run);
    spawned.map_err(|err| Error::io("start thread", Path::new(name), &err))
}

/// A panic has been printed where it happened, and is no reason not to end the others.
fn join(thread: JoinHandle<()>) {
    let name = thread.thread().name().unwrap_or_default().to_owned();
    if thread.join().is_err() {
        tracing::error!(name, "a thread of the ingester panicked");
    }
}

/// Has heads frozen; returns all frozen heads that are not blocks yet, and how often each had failed to
/// become one before.
fn freeze(to_head: &SyncSender<HeadWork>, tenant: Option<&TenantId>) -> Result<Vec<(Arc<Frozen>, u32)>, Error> {
    let (reply, frozen) = sync_channel(1);
    to_head.send(HeadWork::Freeze { tenant: tenant.cloned(), reply }).map_err(|_| Error::Closed)?;
    frozen.recv().map_err(|_| Error::Closed)
}

fn cut_error(frozen: &Frozen, reason: String) -> Error {
    Error::Cut { tenant: frozen.tenant.id.to_string(), reason }
}

/// Makes the data directory and takes its lock.
pub(crate) fn lock_data_dir(dir: &Path) -> Result<File, Error> {
    std::fs::create_dir_all(dir).map_err(|err| Error::io("create", dir, &err))?;
    let path = dir.join("LOCK");
    let open = File::options().create(true).truncate(false).write(true).open(&path);
    let file = open.map_err(|err| Error::io("open", &path, &err))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::Locked { path: dir.display().to_string() }),
        Err(TryLockError::Error(err)) => Err(Error::io("lock", &path, &err)),
    }
}

mod merge;
mod removal;
mod sync;

pub use merge::MergeRequest;
pub use removal::{BlockState, Deletions};

#[cfg(test)]
mod harness;
#[cfg(test)]
mod tests;
