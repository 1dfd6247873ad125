//! Where blocks lie, by the configuration; and, on object storage, what other processes do there.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use spoor_block::{BlockFiles, BlockMeta, DirectoryFiles, Error};
use spoor_compactor::objects::{
    BlockCatalog, Changes, Credentials, Deletions, Exclusion, Gate, Holder, Lease, Location, Metrics, MovingFiles,
    ObjectFiles, ObjectOptions, Opened, Patience, Polled, Purpose, Sweeper, Trouble, Watch,
};
use spoor_ingester::Ingester;
use spoor_model::scan::Skipped;
use spoor_model::seldom::Seldom;
use spoor_model::{BlockId, Clock, TenantId, TraceId, UnixNano, rfc3339};
use tokio::sync::watch;

use crate::config::Config;
use crate::parts;

/// How long the lease is. Renewed thrice in that time, so that one lost request is no harm.
const LEASE: Duration = Duration::from_secs(60);
/// How long somebody waits who wants a trace deleted, beside the time that the storage takes.
const DELETE_PATIENCE: Duration = Duration::from_secs(10);
/// Remains are looked for once in so many polls: that costs a listing of everything.
const POLLS_PER_SWEEP: u64 = 20;
/// So many polls in a row may fail before what others may have written meanwhile is taken for missing.
const FAILED_POLLS_MAX: u32 = 3;

/// By what a process takes part in a storage that several use.
#[derive(Debug, Clone)]
pub struct Terms {
    /// Who it is.
    pub holder: Holder,
    /// How long its leases are. Clocks may differ by as much.
    pub lease: Duration,
    /// How long a merge waits for its turn to become visible, beside the time that the storage takes.
    pub merge_patience: Duration,
    /// How long somebody waits who wants a trace deleted.
    pub delete_patience: Duration,
}

impl Terms {
    /// Those of a server.
    pub fn of(holder: Holder) -> Self {
        Self { holder, lease: LEASE, merge_patience: LEASE, delete_patience: DELETE_PATIENCE }
    }
}

/// Where blocks lie.
pub(crate) struct Storage {
    pub(crate) files: Arc<dyn BlockFiles>,
    /// Absent when blocks lie in the data directory, which is ours alone.
    pub(crate) shared: Option<Arc<Shared>>,
    objects: Option<Objects>,
}

/// A storage that is not the data directory.
struct Objects {
    files: Arc<ObjectFiles>,
    /// By what a data directory remembers it.
    identity: String,
    credentials: Option<Credentials>,
}

impl Storage {
    /// By what a data directory remembers the place; empty: it is the data directory itself.
    pub(crate) fn identity(&self) -> &str {
        self.objects.as_ref().map_or("", |objects| objects.identity.as_str())
    }

    /// Asks for something once, so that what is wrong is told before anything is done. Blocks for as long as the storage is
    /// waited for.
    ///
    /// # Errors
    /// One line, when it will not work until somebody changes something. A storage that is only away is no error: everything
    /// waits for it.
    pub(crate) fn try_out(&self) -> Result<(), String> {
        let Some(objects) = &self.objects else { return Ok(()) };
        match objects.files.try_out(objects.credentials.as_ref()) {
            Ok(()) => Ok(()),
            Err(Trouble::Final(reason)) => Err(reason),
            Err(Trouble::Passing(reason)) => {
                tracing::warn!(reason, "the storage is not there yet");
                Ok(())
            }
        }
    }
}

/// Blocks that several processes may use, as one of them sees them: the lease, what others do, deletions, remains.
pub struct Shared {
    files: Arc<ObjectFiles>,
    terms: Terms,
    lease: Lease,
    exclusion: Exclusion,
    watch: Mutex<Watch>,
    sweeper: Mutex<Sweeper>,
    /// Where blocks are that were kept in the data directory before.
    moving: Arc<MovingFiles>,
    is_moving: AtomicBool,
    listing: Mutex<Listing>,
    said: Seldom,
}

/// How listing the storage goes.
#[derive(Debug, Default)]
struct Listing {
    /// Whether all of it was listed since the start.
    was_complete: bool,
    /// Since when it fails, and how many polls did.
    failing: Option<(UnixNano, u32)>,
}

/// Opens the place that the configuration names. Asks nothing of it.
pub(crate) fn open(config: &Config, registry: &mut Registry) -> Result<Storage, String> {
    let blocks_dir = config.data_dir.join("blocks");
    let used = spoor_ingester::used_storage(&config.data_dir).map_err(|err| err.to_string())?;
    let purpose = Purpose::Keep { used: used.as_deref() };
    let cache_bytes = config.storage_cache_bytes.0;
    let Some(objects) = open_objects(config, purpose, cache_bytes, Metrics::register(registry))? else {
        return Ok(Storage { files: Arc::new(DirectoryFiles::new(blocks_dir)), shared: None, objects: None });
    };
    let shared = Shared::new(Arc::clone(&objects.files), &blocks_dir, Terms::of(holder(&config.data_dir)?))?;
    let files: Arc<dyn BlockFiles> = match shared.is_moving() {
        true => Arc::clone(&shared.moving) as _,
        false => Arc::clone(&objects.files) as _,
    };
    Ok(Storage { files, shared: Some(shared), objects: Some(objects) })
}

/// The same place, for a process that only reads a data directory and changes nothing in it. Asks the storage once, and
/// refuses one that the directory was not used with.
pub(crate) fn open_at_rest(config: &Config) -> Result<Storage, String> {
    let blocks_dir = config.data_dir.join("blocks");
    let objects = open_objects(config, Purpose::Look, 0, Metrics::default())?;
    let files: Arc<dyn BlockFiles> = match &objects {
        Some(objects) => Arc::new(MovingFiles::new(blocks_dir, Arc::clone(&objects.files))),
        None => Arc::new(DirectoryFiles::new(blocks_dir)),
    };
    let storage = Storage { files, shared: None, objects };
    let memory = config.memory().map_err(|err| err.to_string())?;
    let at = parts::ingester_config(config, &memory, storage.identity());
    spoor_ingester::check_storage(&at).map_err(|err| err.to_string())?;
    storage.try_out()?;
    Ok(storage)
}

/// What the configuration says of it.
pub(crate) fn location(config: &Config) -> Location {
    Location {
        url: config.storage.0.clone(),
        endpoint: config.storage_endpoint.0.clone(),
        region: config.storage_region.0.clone(),
        allow_http: config.storage_allow_http,
        timeout: config.storage_timeout,
    }
}

fn open_objects(
    config: &Config,
    purpose: Purpose<'_>,
    cache_bytes: u64,
    metrics: Metrics,
) -> Result<Option<Objects>, String> {
    if config.storage.0.is_empty() {
        return Ok(None);
    }
    let Opened { store, local_dir, identity, credentials } = location(config).open(purpose)?;
    let options = ObjectOptions {
        staging_dir: config.data_dir.join("staging"),
        cache_dir: config.data_dir.join("cache"),
        cache_bytes,
        ahead_bytes: config.storage_ahead_bytes.0,
        patience: Patience::of(config.storage_timeout),
        local_dir,
        name: config.storage.0.clone(),
        grace: config.storage_grace_period,
    };
    let files = Arc::new(ObjectFiles::new(store, options, metrics)?);
    Ok(Some(Objects { files, identity, credentials }))
}

/// Where a data directory has its name among those that share a storage.
const OWNER_FILE: &str = "lease-owner";

/// Who this process is, for those who share its storage. The directory's name is made when it has none.
fn holder(data_dir: &Path) -> Result<Holder, String> {
    let path = data_dir.join(OWNER_FILE);
    let failed = |err: std::io::Error| format!("{}: {err}", path.display());
    let recorded = match std::fs::read_to_string(&path) {
        Ok(text) => Some(text.trim().to_owned()).filter(|owner| !owner.is_empty()),
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => None,
        Err(err) => return Err(failed(err)),
    };
    let (owner, life) = (recorded.clone().unwrap_or_else(unique_name), unique_name());
    if recorded.is_none() {
        // Not synced: without it, the lease of a process that died is waited for, as anybody else's.
        std::fs::create_dir_all(data_dir).and_then(|()| std::fs::write(&path, format!("{owner}\n"))).map_err(failed)?;
    }
    Ok(Holder { owner, life })
}

/// A name that nobody else has.
fn unique_name() -> String {
    use std::hash::{BuildHasher, RandomState};
    format!("{:016x}{:016x}", RandomState::new().hash_one(0), RandomState::new().hash_one(1))
}

/// The ingester keeps the catalog; `compactor` knows it by this only.
struct Catalog<'a> {
    ingester: &'a Ingester,
    shared: &'a Shared,
}

impl BlockCatalog for Catalog<'_> {
    fn tenants(&self) -> Vec<TenantId> {
        self.ingester.tenants()
    }

    fn blocks(&self, tenant: &TenantId) -> Vec<BlockMeta> {
        let mut blocks = self.ingester.blocks(tenant);
        if self.shared.is_moving() {
            // What is not in the storage yet is not gone from it.
            blocks.retain(|meta| !self.shared.moving.is_here(tenant, meta.id));
        }
        blocks
    }

    fn deletions(&self, tenant: &TenantId) -> Deletions {
        self.ingester.deletions(tenant)
    }

    fn hide(&self, tenant: &TenantId, deletions: &Deletions) -> Result<(), String> {
        self.ingester.hide_deleted(tenant, deletions).map_err(|err| err.to_string())
    }

    fn lack(&self, tenant: &TenantId, unreadable: &[(BlockId, String)]) {
        self.ingester.lack_blocks(tenant, unreadable);
    }

    fn take(&self, changes: &Changes) -> Result<bool, String> {
        let Changes { tenant, added, gone, deletions } = changes;
        self.ingester.sync_blocks(tenant, added, gone, deletions).map_err(|err| err.to_string())
    }
}

/// Has merged blocks become visible only when they lack all that was deleted from what they replace, and when nobody else can
/// have replaced it.
struct DeletionGate {
    /// The ingester's blocks lie behind the gate.
    ingester: Weak<Ingester>,
    shared: Weak<Shared>,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for DeletionGate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeletionGate").finish_non_exhaustive()
    }
}

impl Gate for DeletionGate {
    fn pass(&self, meta: &BlockMeta, publish: &mut dyn FnMut() -> Result<(), Error>) -> Result<(), Error> {
        let (Some(ingester), Some(shared)) = (self.ingester.upgrade(), self.shared.upgrade()) else {
            return Err(Error::Cancelled);
        };
        let failed = |reason: String| Error::Io { action: "publish", path: meta.describe(), reason, is_full: false };
        let turn = shared.exclusion.enter(&*self.clock, shared.terms.merge_patience).map_err(failed)?;
        let deletions = shared.files.deletions(&meta.tenant)?;
        ingester.hide_deleted(&meta.tenant, &deletions).map_err(|err| failed(err.to_string()))?;
        if !shared.is_owner(&*self.clock) {
            return Err(Error::Cancelled);
        }
        // Whoever had the lease a moment ago may have shown others in the place of the same blocks: then these are not what
        // they were, and are found to be in the way of what replaces them.
        let catalog = Catalog { ingester: &ingester, shared: &shared };
        let is_current = shared.watch.lock().catch_up(&catalog, &meta.tenant, self.clock.now()).map_err(failed)?;
        match is_current && turn.lasts(&*self.clock) && ingester.may_replace(&meta.tenant, &meta.replaces) {
            true => publish(),
            false => Err(Error::Cancelled),
        }
    }
}

impl Shared {
    /// Takes part in the storage of `files`; asks nothing of it yet. Below `blocks_dir` are the blocks that were kept in the
    /// data directory before there was a storage, if any.
    ///
    /// # Errors
    /// One line, when that directory cannot be read.
    pub fn new(files: Arc<ObjectFiles>, blocks_dir: &Path, terms: Terms) -> Result<Arc<Self>, String> {
        let moving = Arc::new(MovingFiles::new(blocks_dir, Arc::clone(&files)));
        Ok(Arc::new(Self {
            lease: Lease::new(&files, terms.holder.clone(), terms.lease),
            exclusion: Exclusion::new(&files, terms.holder.clone(), terms.lease),
            watch: Mutex::new(Watch::new(Arc::clone(&files))),
            sweeper: Mutex::new(Sweeper::new(Arc::clone(&files))),
            listing: Mutex::default(),
            said: Seldom::new(),
            is_moving: AtomicBool::new(moving.has_blocks().map_err(|err| err.to_string())?),
            moving,
            files,
            terms,
        }))
    }

    /// From now on the blocks that `ingester` merges become visible one after the other with deletions.
    pub fn guard_merges(self: &Arc<Self>, ingester: &Arc<Ingester>, clock: &Arc<dyn Clock>) {
        let (ingester, shared) = (Arc::downgrade(ingester), Arc::downgrade(self));
        self.files.set_gate(Arc::new(DeletionGate { ingester, shared, clock: Arc::clone(clock) }));
    }

    /// Whether this process is the one that merges and removes blocks. Costs nothing.
    pub fn is_owner(&self, clock: &dyn Clock) -> bool {
        self.lease.is_held(clock) && !self.is_moving()
    }

    /// Whether blocks from the data directory are still to be put into the storage.
    fn is_moving(&self) -> bool {
        self.is_moving.load(Ordering::Acquire)
    }

    /// Puts the blocks that are still in the data directory into the storage, one after the other. Blocks.
    fn move_blocks(&self, ingester: &Ingester, stop: &watch::Receiver<bool>) {
        let blocks = |tenant: TenantId| {
            let blocks = ingester.blocks(&tenant).into_iter();
            let here =
                blocks.filter(|meta| self.moving.is_here(&tenant, meta.id)).map(|meta| (tenant.clone(), meta.id));
            here.collect::<Vec<_>>()
        };
        let here: Vec<_> = ingester.tenants().into_iter().flat_map(blocks).collect();
        let (mut moved_count, block_count) = (0, here.len());
        for (tenant, id) in here {
            if *stop.borrow() {
                return;
            }
            match self.moving.move_block(&tenant, id) {
                Ok(()) => {
                    moved_count += 1;
                    tracing::info!(%tenant, block = %id, moved_count, block_count, "a block was moved to the storage");
                }
                Err(err) => {
                    tracing::warn!(%tenant, block = %id, %err, "a block is not moved to the storage yet; it is tried again");
                }
            }
        }
        if moved_count == block_count {
            self.is_moving.store(false, Ordering::Release);
        }
    }

    /// Takes or renews the lease. Blocks.
    pub fn keep_lease(&self, clock: &dyn Clock) {
        if let Err(err) = self.lease.keep(clock)
            && self.said.is_due(&err)
        {
            tracing::warn!(err, "the lease on the storage cannot be asked for");
        }
    }

    /// Takes over what other processes did; sweeps when `sweeps` and this process owns the blocks. Blocks.
    /// Returns whether the storage could be asked about all tenants.
    pub fn poll(&self, ingester: &Ingester, clock: &dyn Clock, sweeps: bool) -> bool {
        let polled = self.watch.lock().poll(&Catalog { ingester, shared: self }, clock.now());
        match &polled {
            Ok(polled) if polled.added + polled.gone > 0 => {
                tracing::info!(added = polled.added, gone = polled.gone, "blocks changed in the storage");
            }
            Ok(_) => {}
            Err(err) if self.said.is_due(err.to_string()) => {
                tracing::warn!(%err, "the storage cannot be listed; the next poll tries again");
            }
            Err(_) => {}
        }
        let is_complete = matches!(&polled, Ok(Polled { failed_tenants: 0, .. }));
        self.note_listing(ingester, polled, clock.now());
        ingester.reopen_blocks();
        if sweeps && is_complete && self.is_owner(clock) {
            self.sweep(ingester, clock);
        }
        is_complete
    }

    fn sweep(&self, ingester: &Ingester, clock: &dyn Clock) {
        let buried = self.watch.lock().bury(&Catalog { ingester, shared: self }, clock.now());
        let swept = self.sweeper.lock().sweep(clock.now()).map_err(|err| err.to_string());
        if let Err(err) = buried.and(swept) {
            tracing::warn!(err, "the storage cannot be swept; a later pass tries again");
        }
    }

    /// Until everything was listed once, answers say that they may lack blocks: a process that starts on an empty
    /// directory knows none. So they do when listing has failed for some polls, until it succeeds: others may have written
    /// blocks meanwhile. That there are others is not known to anybody, so it is not asked.
    fn note_listing(&self, ingester: &Ingester, polled: Result<Polled, Error>, now: UnixNano) {
        let failure = match polled {
            Ok(Polled { failed_tenants: 0, .. }) => None,
            Ok(Polled { failed_tenants, failure, .. }) => {
                Some(format!("those of {failed_tenants} tenants: {}", failure.unwrap_or_default()))
            }
            Err(err) => Some(err.to_string()),
        };
        let mut listing = self.listing.lock();
        let Some(failure) = failure else {
            *listing = Listing { was_complete: true, failing: None };
            self.files.metrics().unlisted_seconds.set(0);
            return ingester.set_unknown(None);
        };
        let (since, polls) = listing.failing.map_or((now, 1), |(since, polls)| (since, polls.saturating_add(1)));
        listing.failing = Some((since, polls));
        self.files.metrics().unlisted_seconds.set(i64::try_from(now.since(since).as_secs()).unwrap_or(i64::MAX).max(1));
        let when = match listing.was_complete {
            false => "the start".to_owned(),
            true if polls > FAILED_POLLS_MAX => rfc3339::format(since),
            true => return,
        };
        let reason = format!("blocks could not be listed since {when}: {failure}");
        ingester.set_unknown(Some(Skipped { object: self.files.name().to_owned(), reason }));
    }

    /// Deletes a trace here, and has the others hide it at their next polls: [`Exclusion`]. Returns in how many blocks it was.
    /// Blocks.
    ///
    /// # Errors
    /// One line, when the trace may not be deleted, not everywhere at least: trying again is right.
    pub fn delete_trace(
        &self,
        ingester: &Ingester,
        clock: &dyn Clock,
        tenant: &TenantId,
        trace: TraceId,
    ) -> Result<usize, String> {
        // Before the turn, for it takes its time.
        ingester.flush(Some(tenant)).map_err(|err| err.to_string())?;
        let turn = self.exclusion.enter(clock, self.terms.delete_patience)?;
        let catalog = Catalog { ingester, shared: self };
        let is_current = self.watch.lock().catch_up(&catalog, tenant, clock.now())?;
        // Whoever merges is not behind with merges: its own are void when they read one of the blocks.
        if !is_current && !self.is_owner(clock) {
            return Err("blocks are just being changed; try again".to_owned());
        }
        let mut announce = |deletions: &Deletions| {
            self.files.publish_deletions(tenant, deletions).map_err(|err| err.to_string())?;
            // Else somebody may have merged the blocks that were named before they were.
            match turn.lasts(clock) {
                true => Ok(()),
                false => Err("the storage took longer than a turn lasts; try again".to_owned()),
            }
        };
        ingester.delete_trace(tenant, trace, &mut announce).map_err(|err| err.to_string())
    }

    /// The process stops: a storage that takes longer than this to answer is not waited for any more.
    pub(crate) fn hasten(&self, left: Duration) {
        self.files.hasten(left);
    }

    /// Lets another process own the blocks. Blocks.
    pub fn release(&self) {
        self.lease.release();
    }
}

/// Runs until `stop` turns true: renews the lease, polls once per `interval`, and moves blocks of before. The first
/// poll has been made.
pub(crate) async fn run(
    shared: Arc<Shared>,
    ingester: Arc<Ingester>,
    clock: Arc<dyn Clock>,
    interval: Duration,
    stop: watch::Receiver<bool>,
) {
    let moving = move_all(Arc::clone(&shared), Arc::clone(&ingester), interval, stop.clone());
    tokio::join!(moving, keep_up(shared, ingester, clock, interval, stop));
}

async fn move_all(shared: Arc<Shared>, ingester: Arc<Ingester>, interval: Duration, mut stop: watch::Receiver<bool>) {
    while shared.is_moving() {
        let (shared, ingester, stopped) = (Arc::clone(&shared), Arc::clone(&ingester), stop.clone());
        // A panic is logged where it happens; the next pass tries again.
        drop(tokio::task::spawn_blocking(move || shared.move_blocks(&ingester, &stopped)).await);
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

async fn keep_up(
    shared: Arc<Shared>,
    ingester: Arc<Ingester>,
    clock: Arc<dyn Clock>,
    interval: Duration,
    mut stop: watch::Receiver<bool>,
) {
    let renewal = LEASE / 3;
    let (mut until_poll, mut polls) = (interval, 0u64);
    loop {
        let pause = renewal.min(until_poll);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        until_poll = until_poll.saturating_sub(pause);
        let polls_now = until_poll.is_zero();
        if polls_now {
            until_poll = interval;
            polls += 1;
        }
        let (shared, ingester, clock) = (Arc::clone(&shared), Arc::clone(&ingester), Arc::clone(&clock));
        let sweeps = polls.is_multiple_of(POLLS_PER_SWEEP);
        let pass = tokio::task::spawn_blocking(move || {
            shared.keep_lease(&*clock);
            if polls_now {
                shared.poll(&ingester, &*clock, sweeps);
            }
        });
        // A panic is logged where it happens; the next pass tries again.
        drop(pass.await);
    }
}

#[cfg(test)]
mod tests;
