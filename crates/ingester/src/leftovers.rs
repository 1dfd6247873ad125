//! Blocks beside the catalog: what interrupted work left, or what a lost catalog no longer names.

use std::collections::BTreeSet;

use spoor_block::{BlockFiles, BlockMeta};
use spoor_model::{BlockId, TenantId};

use crate::catalog;
use crate::config::Config;
use crate::error::Error;
use crate::ingester::lock_data_dir;
use crate::offline::refuse_damaged;
use crate::store::{RocksStore, StoreError};
use crate::whereabouts::check_storage;

/// A block that the catalog does not name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    /// Whose.
    pub tenant: TenantId,
    /// Its name.
    pub id: BlockId,
    /// How far it got.
    pub state: LeftoverState,
}

/// How far a block that the catalog does not name got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeftoverState {
    /// It was never finished: what it was to hold is in the log or in other blocks.
    Unfinished,
    /// It is whole, and may hold spans that nothing else holds.
    Whole(Box<BlockMeta>),
    /// It was published, and its meta cannot be read now or by this version, for this reason. It may hold spans that
    /// nothing else holds.
    Unreadable(String),
}

/// Goes through the blocks that a data directory's catalog does not name and removes those for which `decide` says
/// so. Returns how many went. Holds the directory's lock: a running server builds blocks that no catalog names yet.
///
/// # Errors
/// [`Error::Locked`] while a server or a reader has the directory, [`Error::NoData`] when it is none, [`Error::OtherStorage`], [`Error::Storage`]
/// when catalog or blocks cannot be read or a block not be removed; those before it have been.
pub fn sweep_leftovers(
    config: &Config,
    files: &dyn BlockFiles,
    decide: &mut dyn FnMut(&Leftover) -> bool,
) -> Result<usize, Error> {
    if !config.data_dir.join("LOCK").exists() {
        return Err(Error::NoData { path: config.data_dir.display().to_string() });
    }
    let _lock = lock_data_dir(&config.data_dir)?;
    check_storage(config)?;
    let database = config.database_dir();
    let failed = |err: StoreError| Error::storage(&database, err);
    let store = RocksStore::open_for_reading(&database, config.head_memory_limit).map_err(failed)?;
    refuse_damaged(&store).map_err(failed)?;
    let catalog = catalog::load(&store).map_err(failed)?;
    let known: BTreeSet<_> = catalog.blocks.iter().map(|entry| (entry.tenant.clone(), entry.id)).collect();
    let unreadable = |err: spoor_block::Error| failed(StoreError(err.to_string()));
    let mut removed = 0;
    for (tenant, id) in files.list().map_err(unreadable)? {
        if known.contains(&(tenant.clone(), id)) {
            continue;
        }
        let state = match files.meta(&tenant, id) {
            Ok(None) => LeftoverState::Unfinished,
            Ok(Some(meta)) => LeftoverState::Whole(Box::new(meta)),
            Err(err) => LeftoverState::Unreadable(err.to_string()),
        };
        let leftover = Leftover { tenant, id, state };
        if decide(&leftover) {
            files.remove(&leftover.tenant, leftover.id).map_err(unreadable)?;
            removed += 1;
        }
    }
    Ok(removed)
}
