//! A data directory that no process serves, for reading: a command line asks it what a server would answer.
//!
//! ```text
//!   LOCK      shared: readers beside readers, never beside a server
//!   db/       opened for reading: catalog -> blocks, log -> heads in memory
//!   blocks/   opened as queries need them
//! ```
//!
//! **Invariant:** nothing in the directory is written, made or removed. What a start would repair
//! (remains of interrupted cuts, damaged log records) is passed over; damaged records are named in
//! every snapshot.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::{File, TryLockError};
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use prometheus_client::registry::Registry;
use spoor_block::{BlockCache, BlockFiles, DirectoryFiles};
use spoor_model::TenantId;
use spoor_model::batch::SpanBatch;
use spoor_model::ingest::Decode;
use spoor_model::scan::{Skipped, Snapshot, Snapshots};

use crate::blocks::{BlockStore, StoredBlocks};
use crate::catalog;
use crate::config::Config;
use crate::error::Error;
use crate::head::{SEGMENT_BYTES, SEGMENT_ROWS, Segment};
use crate::metrics::Metrics;
use crate::record::{self, RecordError, Sequence};
use crate::recovery;
use crate::store::{RocksStore, Store, StoreError, Table};
use crate::tenant::{Tenant, Tenants};
use crate::whereabouts::check_storage;

/// What a data directory holds. Dropping it lets a server have the directory again.
pub struct AtRest {
    tenants: Tenants,
    _lock: File,
}

/// Opens a data directory that no server runs on, changing nothing in it. Of the configuration it
/// takes the directory, the memory for heads (the log is decoded into it, and RocksDB holds the log itself
/// besides) and the memory for blocks.
///
/// Costs 1 us per span that is not in a block yet, and opens every block.
///
/// # Errors
/// [`Error::Locked`] while a server runs (ask the server instead), [`Error::NoData`] when this is no data directory,
/// [`Error::HeadMemory`] when the log does not fit.
pub fn open_at_rest(config: &Config, decode: &dyn Decode) -> Result<AtRest, Error> {
    open_at_rest_with(config, Arc::new(DirectoryFiles::new(config.blocks_dir())), decode)
}

/// Like [`open_at_rest`], with blocks wherever their files lie.
pub fn open_at_rest_with(config: &Config, files: Arc<dyn BlockFiles>, decode: &dyn Decode) -> Result<AtRest, Error> {
    let lock = share_data_dir(&config.data_dir)?;
    check_storage(config)?;
    let database = config.database_dir();
    let failed = |err: StoreError| Error::storage(&database, err);
    let store = RocksStore::open_for_reading(&database, config.head_memory_limit).map_err(failed)?;
    let catalog = catalog::load(&store).map_err(failed)?;
    if let Some(found) = catalog.format.as_deref().filter(|format| *format != catalog::FORMAT) {
        let path = config.data_dir.display().to_string();
        return Err(Error::Format { path, found: found.to_owned(), known: catalog::FORMAT });
    }
    let (tenants, trimmed) = (Tenants::default(), catalog.trimmed.clone());
    let cache = BlockCache::new(config.block_cache_bytes);
    let blocks: Arc<dyn BlockStore> = Arc::new(StoredBlocks::new(files, config.block.clone(), cache));
    // Nobody reads these: the process answers one question.
    let metrics = Metrics::register(&mut Registry::default());
    recovery::open_blocks(&tenants, &blocks, catalog, &metrics);
    let mut heads = Heads { store: &store, decode, tenants: &tenants, growing: BTreeMap::new(), held_bytes: 0 };
    heads.replay(&trimmed, config)?;
    Ok(AtRest { tenants, _lock: lock })
}

impl AtRest {
    /// The tenants that have spans here, ascending.
    pub fn tenants(&self) -> Vec<TenantId> {
        self.tenants.all().iter().map(|tenant| tenant.id.clone()).collect()
    }
}

impl Snapshots for AtRest {
    fn snapshot(&self, tenant: &TenantId) -> Snapshot {
        self.tenants.get(tenant).map(|tenant| tenant.snapshot()).unwrap_or_default()
    }
}

/// Takes a data directory's lock together with other readers.
fn share_data_dir(dir: &Path) -> Result<File, Error> {
    let path = dir.join("LOCK");
    let file = File::open(&path).map_err(|err| match err.kind() {
        std::io::ErrorKind::NotFound => Error::NoData { path: dir.display().to_string() },
        _ => Error::io("open", &path, &err),
    })?;
    match file.try_lock_shared() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::Locked { path: dir.display().to_string() }),
        Err(TryLockError::Error(err)) => Err(Error::io("lock", &path, &err)),
    }
}

/// The log as heads.
struct Heads<'a> {
    store: &'a dyn Store,
    decode: &'a dyn Decode,
    tenants: &'a Tenants,
    growing: BTreeMap<TenantId, Growing>,
    held_bytes: usize,
}

/// Why a request is not in a head.
enum Failure {
    /// It cannot be read. The others can.
    Record(RecordError),
    /// The segment that it broke cannot be decoded again.
    Segment(RecordError),
}

/// A tenant's head.
struct Growing {
    tenant: Arc<Tenant>,
    open: Arc<Segment>,
    /// The requests in the open segment.
    requests: Vec<Sequence>,
    open_bytes: usize,
}

impl Heads<'_> {
    fn replay(&mut self, trimmed: &BTreeMap<TenantId, Sequence>, config: &Config) -> Result<(), Error> {
        let (store, mut failure) = (self.store, None);
        let mut visit = |key: &[u8], value: &[u8]| {
            let Some((tenant, sequence)) = record::parse_key(key) else {
                tracing::error!(bytes = key.len(), "a log record of nobody is passed over");
                return ControlFlow::Continue(());
            };
            if trimmed.get(&tenant).is_some_and(|trimmed| sequence <= *trimmed) {
                return ControlFlow::Continue(());
            }
            match self.append(&tenant, sequence, key, value) {
                Ok(()) => {}
                Err(Failure::Record(err)) => self.pass_over(&tenant, sequence, &err),
                Err(Failure::Segment(err)) => {
                    failure = Some(Error::storage(&config.database_dir(), StoreError(err.to_string())));
                    return ControlFlow::Break(());
                }
            }
            if self.held_bytes > config.head_memory_limit {
                let path = config.data_dir.display().to_string();
                failure = Some(Error::HeadMemory { path, limit_bytes: config.head_memory_limit });
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        };
        let scanned = store.scan(Table::Wal, b"", &mut visit);
        scanned.map_err(|err| Error::storage(&config.database_dir(), err))?;
        failure.map_or(Ok(()), Err)
    }

    fn pass_over(&self, tenant: &TenantId, sequence: Sequence, err: &RecordError) {
        tracing::error!(%tenant, sequence = sequence.0, %err, "a log record is damaged: its spans are missing");
        let object = format!("log record {} of tenant {tenant}", sequence.0);
        self.tenants.get_or_add(tenant).add_unreadable(Skipped { object, reason: err.to_string() });
    }

    fn append(&mut self, tenant: &TenantId, sequence: Sequence, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        let record = record::decode(key, value).map_err(Failure::Record)?;
        let payload = record.payload().map_err(Failure::Record)?;
        let head = match self.growing.entry(tenant.clone()) {
            Entry::Occupied(head) => head.into_mut(),
            Entry::Vacant(place) => place.insert(Growing::begin(self.tenants.get_or_add(tenant))),
        };
        head.seal_if_full(record.checked.accepted_count as usize);
        let mut batch = head.open.write();
        let appended = catch_unwind(AssertUnwindSafe(|| self.decode.append(&payload, &record.checked, &mut batch)));
        match appended {
            Ok(()) => head.requests.push(sequence),
            // It broke the segment.
            Err(_) => {
                let whole = decoded_again(self.store, self.decode, tenant, &head.requests);
                *batch = whole.map_err(Failure::Segment)?;
            }
        }
        self.held_bytes -= head.open_bytes;
        head.open_bytes = batch.memory_bytes();
        self.held_bytes += head.open_bytes;
        appended.map_err(|_| Failure::Record(RecordError::Poison))
    }
}

impl Growing {
    fn begin(tenant: Arc<Tenant>) -> Self {
        let open = Arc::new(Segment::default());
        tenant.add_segment(Arc::clone(&open));
        Self { tenant, open, requests: Vec::new(), open_bytes: 0 }
    }

    /// Begins a new segment when the spans to come do not fit in the open one.
    fn seal_if_full(&mut self, coming: usize) {
        let rows = self.open.read().len();
        let fits = rows + coming <= SEGMENT_ROWS && self.open_bytes < SEGMENT_BYTES;
        if rows > 0 && !fits {
            self.open.seal();
            *self = Self::begin(Arc::clone(&self.tenant));
        }
    }
}

/// The spans of requests that have been decoded before.
fn decoded_again(
    store: &dyn Store,
    decode: &dyn Decode,
    tenant: &TenantId,
    requests: &[Sequence],
) -> Result<SpanBatch, RecordError> {
    let mut batch = SpanBatch::new();
    for sequence in requests {
        let key = record::key(tenant, *sequence);
        let value = store.get(Table::Wal, &key).ok().flatten().ok_or(RecordError::Short(0))?;
        let record = record::decode(&key, &value)?;
        decode.append(&record.payload()?, &record.checked, &mut batch);
    }
    Ok(batch)
}
