//! The catalog for tools: looked at beside a running server, or changed where none runs.

use std::collections::BTreeSet;
use std::fs::File;

use spoor_block::BlockMeta;
use spoor_model::{BlockId, TenantId};

use crate::catalog::{self, Catalog};
use crate::config::Config;
use crate::error::Error;
use crate::ingester::lock_data_dir;
use crate::store::{Durability, RocksStore, Store, StoreError};
use crate::whereabouts::check_storage;

/// How often a catalog is opened anew when it cannot be read: files that a running server has just replaced are missing
/// for whoever read their names before.
const ATTEMPTS_MAX: usize = 5;

/// What a catalog says of blocks.
#[derive(Debug, Default)]
pub struct CatalogListing {
    /// The blocks that queries see, by tenant and name.
    pub blocks: Vec<ListedBlock>,
    /// Names of blocks that are being written or removed: the next start finishes that. Their spans are in the log or in
    /// other blocks.
    pub unpublished: BTreeSet<(TenantId, BlockId)>,
}

/// A block that queries see.
#[derive(Debug)]
pub struct ListedBlock {
    /// Whose.
    pub tenant: TenantId,
    /// Its name.
    pub id: BlockId,
    /// What the catalog knows of it, or why that cannot be read.
    pub meta: Result<BlockMeta, String>,
}

impl CatalogListing {
    fn new(catalog: Catalog) -> Self {
        let listed = |entry: catalog::Entry| ListedBlock { tenant: entry.tenant, id: entry.id, meta: entry.meta };
        Self {
            blocks: catalog.blocks.into_iter().map(listed).collect(),
            unpublished: catalog.unpublished.into_iter().map(|(tenant, id, _)| (tenant, id)).collect(),
        }
    }
}

/// Reads the catalog of a data directory, beside a running server too, and changes nothing. `None` where there is none.
/// The log is read with it: about a second per 100 MB of it, and its size in memory.
///
/// # Errors
/// [`Error::Storage`] when it cannot be read, [`Error::Format`] when another version wrote it.
pub fn list_catalog(config: &Config) -> Result<Option<CatalogListing>, Error> {
    check_storage(config)?;
    let database = config.database_dir();
    if !RocksStore::is_there(&database) {
        return Ok(None);
    }
    let mut attempt = 1;
    loop {
        let opened = RocksStore::open_for_reading(&database, config.head_memory_limit);
        match opened.and_then(|store| catalog::load(&store)) {
            Ok(catalog) => {
                check_format(&catalog, config)?;
                return Ok(Some(CatalogListing::new(catalog)));
            }
            Err(err) if attempt == ATTEMPTS_MAX => return Err(Error::storage(&database, err)),
            Err(_) => attempt += 1,
        }
    }
}

/// A start takes back what is whole before anything is changed or removed; mending the log here would hide from it that there is
/// something to take back.
pub(crate) fn refuse_damaged(store: &RocksStore) -> Result<(), StoreError> {
    match store.damage() {
        Some(_) => Err(StoreError(
            "the log is damaged or torn: start the server once, which keeps what can be kept".to_owned(),
        )),
        None => Ok(()),
    }
}

fn check_format(catalog: &Catalog, config: &Config) -> Result<(), Error> {
    match catalog.format.as_deref() {
        Some(found) if found != catalog::FORMAT => {
            let path = config.data_dir.display().to_string();
            Err(Error::Format { path, found: found.to_owned(), known: catalog::FORMAT })
        }
        _ => Ok(()),
    }
}

/// The catalog of a data directory that no server runs on, to be changed.
pub struct OfflineCatalog {
    store: RocksStore,
    listing: CatalogListing,
    database: String,
    _lock: File,
}

impl OfflineCatalog {
    /// Opens it, and makes an empty one where there is none. Reads the log as [`list_catalog`] does.
    ///
    /// # Errors
    /// [`Error::Locked`] while a server or a reader has the directory; else those of [`list_catalog`].
    pub fn open(config: &Config) -> Result<Self, Error> {
        let lock = lock_data_dir(&config.data_dir)?;
        check_storage(config)?;
        let database = config.database_dir();
        let failed = |err: StoreError| Error::storage(&database, err);
        if RocksStore::is_there(&database) {
            let looked_at = RocksStore::open_for_reading(&database, config.head_memory_limit).map_err(failed)?;
            refuse_damaged(&looked_at).map_err(failed)?;
        }
        let store = RocksStore::open(&database, config.head_memory_limit).map_err(failed)?;
        let catalog = catalog::load(&store).map_err(failed)?;
        check_format(&catalog, config)?;
        if catalog.format.is_none() {
            store.write(&[catalog::set_format()], Durability::Synced).map_err(failed)?;
        }
        let (listing, database) = (CatalogListing::new(catalog), database.display().to_string());
        Ok(Self { store, listing, database, _lock: lock })
    }

    /// What it said when it was opened.
    pub fn listing(&self) -> &CatalogListing {
        &self.listing
    }

    /// Takes a block in whose files are where blocks are, in the place of `lost` blocks of its tenant that have none. Durable
    /// when this returns.
    ///
    /// # Errors
    /// [`Error::Storage`] when the catalog cannot be written.
    pub fn adopt(&self, meta: &BlockMeta, lost: &[BlockId]) -> Result<(), Error> {
        let mut changes = catalog::adopt(meta, &BTreeSet::new());
        // What was deleted from them the next start forgets.
        changes.extend(lost.iter().flat_map(|id| catalog::disown(&meta.tenant, *id, &BTreeSet::new())));
        let written = self.store.write(&changes, Durability::Synced);
        written.map_err(|err| Error::Storage { path: self.database.clone(), reason: err.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use spoor_model::{TimeRange, UnixNano};

    use super::*;

    #[test]
    fn an_adopted_block_is_listed_and_a_catalog_is_made_where_there_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let config = Config::new(directory.path());
        assert!(list_catalog(&config).unwrap().is_none());
        let meta = BlockMeta::without_files(BlockId(7), TenantId::single(), UnixNano(1), TimeRange::ALL);
        let catalog = OfflineCatalog::open(&config).unwrap();
        assert!(catalog.listing().blocks.is_empty());
        catalog.adopt(&meta, &[]).unwrap();
        assert!(matches!(OfflineCatalog::open(&config), Err(Error::Locked { .. })));
        // Beside whoever has it open.
        let listing = list_catalog(&config).unwrap().unwrap();
        assert_eq!(listing.blocks[0].meta.as_ref(), Ok(&meta));
        let mut merged = listing.blocks[0].meta.clone().unwrap();
        merged.id = BlockId(8);
        catalog.adopt(&merged, &[BlockId(7)]).unwrap();
        drop(catalog);
        let catalog = OfflineCatalog::open(&config).unwrap();
        assert_eq!(catalog.listing().blocks.iter().map(|block| block.id).collect::<Vec<_>>(), [BlockId(8)]);
    }
}
