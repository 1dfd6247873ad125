//! Where blocks lie, by the configuration; and, on object storage, what other processes do there.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use spoor_block::{BlockFiles, BlockMeta, DirectoryFiles};
use spoor_compactor::objects::{
    BlockCatalog, Changes, Lease, Location, Metrics, ObjectFiles, ObjectOptions, Patience, Sweeper, Watch,
};
use spoor_ingester::Ingester;
use spoor_model::{Clock, TenantId};
use tokio::sync::watch;

use crate::config::Config;

/// How long the lease is. Renewed thrice in that time, so that one lost request is no harm.
const LEASE: Duration = Duration::from_secs(60);
/// Remains are looked for once in so many polls: that costs a listing of everything.
const POLLS_PER_SWEEP: u64 = 20;

/// Where blocks lie.
pub(crate) struct Storage {
    pub(crate) files: Arc<dyn BlockFiles>,
    /// Absent when blocks lie in the data directory, which is ours alone.
    pub(crate) shared: Option<Arc<Shared>>,
}

/// Blocks that several processes may use.
pub(crate) struct Shared {
    lease: Lease,
    watch: Mutex<Watch>,
    sweeper: Mutex<Sweeper>,
}

/// Opens the place that the configuration names. Asks nothing of it.
pub(crate) fn open(config: &Config, registry: &mut Registry) -> Result<Storage, String> {
    let Some(objects) = object_files(config, config.storage_cache_bytes.0, Metrics::register(registry))? else {
        let files = Arc::new(DirectoryFiles::new(config.data_dir.join("blocks")));
        return Ok(Storage { files, shared: None });
    };
    let shared = Shared {
        lease: Lease::new(&objects, owner(), LEASE),
        watch: Mutex::new(Watch::new(Arc::clone(&objects))),
        sweeper: Mutex::new(Sweeper::new(Arc::clone(&objects))),
    };
    Ok(Storage { files: objects, shared: Some(Arc::new(shared)) })
}

/// The same place, for a process that only reads a data directory and changes nothing in it.
pub(crate) fn open_at_rest(config: &Config) -> Result<Arc<dyn BlockFiles>, String> {
    Ok(match object_files(config, 0, Metrics::default())? {
        Some(objects) => objects,
        None => Arc::new(DirectoryFiles::new(config.data_dir.join("blocks"))),
    })
}

fn object_files(config: &Config, cache_bytes: u64, metrics: Metrics) -> Result<Option<Arc<ObjectFiles>>, String> {
    if config.storage.0.is_empty() {
        return Ok(None);
    }
    let location = Location {
        url: config.storage.0.clone(),
        endpoint: config.storage_endpoint.0.clone(),
        region: config.storage_region.0.clone(),
        allow_http: config.storage_allow_http,
        timeout: config.storage_timeout,
    };
    let (store, local_dir) = location.store()?;
    let options = ObjectOptions {
        staging_dir: config.data_dir.join("staging"),
        cache_dir: config.data_dir.join("cache"),
        cache_bytes,
        patience: Patience::of(config.storage_timeout),
        local_dir,
        name: config.storage.0.clone(),
        grace: config.storage_grace_period,
    };
    ObjectFiles::new(store, options, metrics).map(Arc::new).map(Some)
}

/// A name that no other process has.
fn owner() -> String {
    use std::hash::{BuildHasher, RandomState};
    format!("{:016x}{:016x}", RandomState::new().hash_one(0), RandomState::new().hash_one(1))
}

/// The ingester keeps the catalog; `compactor` knows it by this only.
struct Catalog<'a>(&'a Ingester);

impl BlockCatalog for Catalog<'_> {
    fn tenants(&self) -> Vec<TenantId> {
        self.0.tenants()
    }

    fn blocks(&self, tenant: &TenantId) -> Vec<BlockMeta> {
        self.0.blocks(tenant)
    }

    fn take(&self, changes: &Changes) -> Result<bool, String> {
        self.0.sync_blocks(&changes.tenant, &changes.added, &changes.gone).map_err(|err| err.to_string())
    }
}

impl Shared {
    /// Whether this process is the one that merges and removes blocks. Costs nothing.
    pub(crate) fn is_owner(&self, clock: &dyn Clock) -> bool {
        self.lease.is_held(clock)
    }

    /// Takes or renews the lease. Blocks.
    pub(crate) fn keep_lease(&self, clock: &dyn Clock) {
        if let Err(err) = self.lease.keep(clock) {
            tracing::warn!(err, "the lease on the storage cannot be asked for");
        }
    }

    /// Takes over what other processes did; sweeps when `sweeps` and this process owns the blocks. Blocks.
    pub(crate) fn poll(&self, ingester: &Ingester, clock: &dyn Clock, sweeps: bool) {
        match self.watch.lock().poll(&Catalog(ingester)) {
            Ok(polled) if polled.added + polled.gone > 0 => {
                tracing::info!(added = polled.added, gone = polled.gone, "blocks changed in the storage");
            }
            Ok(_) => {}
            Err(err) => tracing::warn!(%err, "the storage cannot be listed; the next poll tries again"),
        }
        ingester.reopen_blocks();
        if sweeps
            && self.is_owner(clock)
            && let Err(err) = self.sweeper.lock().sweep(clock.now())
        {
            tracing::warn!(%err, "the storage cannot be swept; a later pass tries again");
        }
    }

    /// Lets another process own the blocks. Blocks.
    pub(crate) fn release(&self) {
        self.lease.release();
    }
}

/// Runs until `stop` turns true: renews the lease, and polls once per `interval`. The first poll has been made.
pub(crate) async fn run(
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
