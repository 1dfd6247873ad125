//! The catalog: which blocks there are, and up to where each tenant's log is in them.
//!
//! ```text
//!   format                            "1"
//!   block/<tenant>/<block id>         the block's meta, JSON
//!   trimmed/<tenant>                  sequence u64 BE: all of the tenant's requests up to it are in blocks
//!   unpublished/<tenant>/<block id>   a directory of this name may exist and must not be read; of a cut: up to which
//!                                     sequence u64 BE the tenant's requests are in it
//!   deleted/<tenant>/<block id>/<trace id>   the block's spans of this trace must not be shown
//! ```
//!
//! A block directory's life is bracketed by its `unpublished` key, so a start knows which directories
//! are the remains of an interrupted cut or removal, and never removes one that it only does not know.
//!
//! **Invariant:** a block's key appears in the same atomic write in which the log loses its requests, or in which the
//! keys of the blocks that it was merged from go.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use spoor_block::BlockMeta;
use spoor_model::{BlockId, TenantId, TraceId};

use crate::record::{self, Sequence};
use crate::store::{Change, Store, StoreError, Table};

/// The format that this program reads and writes.
pub(crate) const FORMAT: &str = "1";
const FORMAT_KEY: &[u8] = b"format";
const BLOCK: &str = "block/";
const TRIMMED: &str = "trimmed/";
const UNPUBLISHED: &str = "unpublished/";
const DELETED: &str = "deleted/";

/// One block of the catalog.
pub(crate) struct Entry {
    pub(crate) tenant: TenantId,
    pub(crate) id: BlockId,
    /// Its meta, or why there is none.
    pub(crate) meta: Result<BlockMeta, String>,
}

/// What the catalog says at start.
#[derive(Default)]
pub(crate) struct Catalog {
    /// `None` when the database is new.
    pub(crate) format: Option<String>,
    pub(crate) blocks: Vec<Entry>,
    pub(crate) trimmed: BTreeMap<TenantId, Sequence>,
    /// With the last request in it, when it is to be a cut.
    pub(crate) unpublished: Vec<(TenantId, BlockId, Option<Sequence>)>,
    pub(crate) deleted: BTreeMap<(TenantId, BlockId), BTreeSet<TraceId>>,
}

/// Reads the whole catalog.
pub(crate) fn load(store: &dyn Store) -> Result<Catalog, StoreError> {
    let mut catalog = Catalog::default();
    let mut strange = Vec::new();
    let mut visit = |key: &[u8], value: &[u8]| {
        if !catalog.add(key, value) {
            strange.push(String::from_utf8_lossy(key).into_owned());
        }
        ControlFlow::Continue(())
    };
    store.scan(Table::Catalog, b"", &mut visit)?;
    for key in strange {
        tracing::error!(key, "catalog entry is not understood and is left alone");
    }
    Ok(catalog)
}

impl Catalog {
    /// `false` when the entry is not understood.
    fn add(&mut self, key: &[u8], value: &[u8]) -> bool {
        let Ok(key) = std::str::from_utf8(key) else { return false };
        if key.as_bytes() == FORMAT_KEY {
            self.format = Some(String::from_utf8_lossy(value).into_owned());
            return true;
        }
        if let Some(name) = key.strip_prefix(TRIMMED) {
            let (Ok(tenant), Ok(sequence)) = (TenantId::parse(name), value.try_into()) else { return false };
            self.trimmed.insert(tenant, Sequence(u64::from_be_bytes(sequence)));
            return true;
        }
        if let Some((tenant, id)) = key.strip_prefix(UNPUBLISHED).and_then(parse_name) {
            let last = value.try_into().ok().map(|last| Sequence(u64::from_be_bytes(last)));
            self.unpublished.push((tenant, id, last));
            return true;
        }
        if let Some((block, trace)) = key.strip_prefix(DELETED).and_then(|name| name.rsplit_once('/')) {
            let (Some(block), Ok(trace)) = (parse_name(block), TraceId::from_hex(trace)) else { return false };
            self.deleted.entry(block).or_default().insert(trace);
            return true;
        }
        if let Some((tenant, id)) = key.strip_prefix(BLOCK).and_then(parse_name) {
            let meta = BlockMeta::from_json(value).map_err(|err| err.to_string()).and_then(|meta| {
                match meta.tenant == tenant && meta.id == id {
                    true => Ok(meta),
                    false => Err(format!("meta is that of block {} of tenant {}", meta.id, meta.tenant)),
                }
            });
            self.blocks.push(Entry { tenant, id, meta });
            return true;
        }
        false
    }
}

fn parse_name(name: &str) -> Option<(TenantId, BlockId)> {
    let (tenant, id) = name.split_once('/')?;
    Some((TenantId::parse(tenant).ok()?, BlockId::parse(id)?))
}

fn name(prefix: &str, tenant: &TenantId, id: BlockId) -> Vec<u8> {
    format!("{prefix}{tenant}/{id}").into_bytes()
}

/// Marks a new database as ours.
pub(crate) fn set_format() -> Change {
    Change::Put { table: Table::Catalog, key: FORMAT_KEY.to_vec(), value: FORMAT.as_bytes().to_vec() }
}

/// A write that changes nothing, to learn whether writing works again.
pub(crate) fn probe() -> Change {
    set_format()
}

/// Says that a directory is about to be written. Make it durable before the directory is.
pub(crate) fn announce(tenant: &TenantId, id: BlockId) -> Change {
    Change::Put { table: Table::Catalog, key: name(UNPUBLISHED, tenant, id), value: Vec::new() }
}

/// Like [`announce`], of a block that is to hold all of the tenant's requests up to `last` that no block holds.
pub(crate) fn announce_cut(tenant: &TenantId, id: BlockId, last: Sequence) -> Change {
    let value = last.0.to_be_bytes().to_vec();
    Change::Put { table: Table::Catalog, key: name(UNPUBLISHED, tenant, id), value }
}

/// Says that a directory is gone.
pub(crate) fn forget(tenant: &TenantId, id: BlockId) -> Change {
    delete(name(UNPUBLISHED, tenant, id))
}

/// The one write that moves spans from the log to a block: all requests of the tenant up to and with
/// `last` are in it or in blocks before it. Making it twice is making it once.
pub(crate) fn publish(meta: &BlockMeta, last: Sequence) -> Vec<Change> {
    let tenant = &meta.tenant;
    vec![
        Change::Put { table: Table::Catalog, key: name(BLOCK, tenant, meta.id), value: meta.to_json() },
        forget(tenant, meta.id),
        Change::Put {
            table: Table::Catalog,
            key: format!("{TRIMMED}{tenant}").into_bytes(),
            value: last.0.to_be_bytes().to_vec(),
        },
        Change::DeleteRange {
            table: Table::Wal,
            from: record::key(tenant, Sequence(0)),
            until: record::key(tenant, last.next()),
        },
    ]
}

/// Takes a block in that another process wrote, with what is hidden in it.
pub(crate) fn adopt(meta: &BlockMeta, deleted: &BTreeSet<TraceId>) -> Vec<Change> {
    let block = Change::Put { table: Table::Catalog, key: name(BLOCK, &meta.tenant, meta.id), value: meta.to_json() };
    let hidden = deleted.iter().map(|trace| delete_trace(&meta.tenant, meta.id, *trace));
    std::iter::once(block).chain(hidden).collect()
}

/// Takes a block out of the catalog whose files another process removes.
pub(crate) fn disown(tenant: &TenantId, id: BlockId, deleted: &BTreeSet<TraceId>) -> Vec<Change> {
    let shown = deleted.iter().map(|trace| forget_deleted(tenant, id, *trace));
    std::iter::once(delete(name(BLOCK, tenant, id))).chain(shown).collect()
}

/// The tenant's names that are being written or removed.
pub(crate) fn unpublished(store: &dyn Store, tenant: &TenantId) -> Result<BTreeSet<BlockId>, StoreError> {
    let prefix = format!("{UNPUBLISHED}{tenant}/");
    let mut ids = BTreeSet::new();
    let mut visit = |key: &[u8], _: &[u8]| {
        let Some(name) = key.strip_prefix(prefix.as_bytes()) else { return ControlFlow::Break(()) };
        ids.extend(std::str::from_utf8(name).ok().and_then(BlockId::parse));
        ControlFlow::Continue(())
    };
    store.scan(Table::Catalog, prefix.as_bytes(), &mut visit)?;
    Ok(ids)
}

/// Whether the catalog has a block.
pub(crate) fn has_block(store: &dyn Store, tenant: &TenantId, id: BlockId) -> Result<bool, StoreError> {
    store.get(Table::Catalog, &name(BLOCK, tenant, id)).map(|entry| entry.is_some())
}

/// Takes a block out of the catalog, with what was deleted from it; its directory is to be removed next.
pub(crate) fn retire(tenant: &TenantId, id: BlockId, deleted: &BTreeSet<TraceId>) -> Vec<Change> {
    let mut changes = vec![delete(name(BLOCK, tenant, id)), announce(tenant, id)];
    changes.extend(deleted.iter().map(|trace| delete(deleted_key(tenant, id, *trace))));
    changes
}

/// The one write that puts merged blocks in the place of what they were merged from. `unused` are announced names that
/// no block took. Making it twice is making it once.
pub(crate) fn replace(
    tenant: &TenantId,
    new: &[BlockMeta],
    unused: &[BlockId],
    old: &[(BlockId, &BTreeSet<TraceId>)],
) -> Vec<Change> {
    let added = new.iter().flat_map(|meta| {
        let put = Change::Put { table: Table::Catalog, key: name(BLOCK, tenant, meta.id), value: meta.to_json() };
        [put, forget(tenant, meta.id)]
    });
    let retired = old.iter().flat_map(|(id, deleted)| retire(tenant, *id, deleted));
    added.chain(retired).chain(unused.iter().map(|id| forget(tenant, *id))).collect()
}

/// Hides a trace's spans in a block from now on.
pub(crate) fn delete_trace(tenant: &TenantId, id: BlockId, trace: TraceId) -> Change {
    Change::Put { table: Table::Catalog, key: deleted_key(tenant, id, trace), value: Vec::new() }
}

/// Takes back [`delete_trace`], for a block that is gone.
pub(crate) fn forget_deleted(tenant: &TenantId, id: BlockId, trace: TraceId) -> Change {
    delete(deleted_key(tenant, id, trace))
}

fn deleted_key(tenant: &TenantId, id: BlockId, trace: TraceId) -> Vec<u8> {
    format!("{DELETED}{tenant}/{id}/{trace}").into_bytes()
}

fn delete(key: Vec<u8>) -> Change {
    Change::Delete { table: Table::Catalog, key }
}

#[cfg(test)]
mod tests {
    use spoor_model::{TimeRange, UnixNano};

    use super::*;
    use crate::store::{Durability, MemoryStore};

    fn put(key: &str, value: &[u8]) -> Change {
        Change::Put { table: Table::Catalog, key: key.as_bytes().to_vec(), value: value.to_vec() }
    }

    #[test]
    fn a_published_block_is_loaded_and_its_requests_are_gone() {
        let store = MemoryStore::new();
        let tenant = TenantId::parse("a").unwrap();
        let id = BlockId(7);
        let meta = BlockMeta::without_files(id, tenant.clone(), UnixNano(1), TimeRange::ALL);
        let record = |n| Change::Put { table: Table::Wal, key: record::key(&tenant, Sequence(n)), value: vec![] };
        let changes = [set_format(), announce(&tenant, id), record(1), record(2), record(3)];
        store.write(&changes, Durability::Synced).unwrap();
        assert_eq!(load(&store).unwrap().unpublished, [(tenant.clone(), id, None)]);
        store.write(&publish(&meta, Sequence(2)), Durability::Synced).unwrap();
        let catalog = load(&store).unwrap();
        assert_eq!(catalog.format.as_deref(), Some(FORMAT));
        assert_eq!(catalog.unpublished, []);
        assert_eq!(catalog.trimmed[&tenant], Sequence(2));
        assert_eq!(catalog.blocks[0].meta, Ok(meta));
        assert_eq!(store.get(Table::Wal, &record::key(&tenant, Sequence(2))).unwrap(), None);
        assert!(store.get(Table::Wal, &record::key(&tenant, Sequence(3))).unwrap().is_some());
        store.write(&retire(&tenant, id, &BTreeSet::new()), Durability::Synced).unwrap();
        let catalog = load(&store).unwrap();
        assert!(catalog.blocks.is_empty());
        assert_eq!(catalog.unpublished, [(tenant, id, None)]);
    }

    #[test]
    fn a_merge_takes_what_was_deleted_along_with_the_blocks() {
        let store = MemoryStore::new();
        let tenant = TenantId::parse("a").unwrap();
        let meta = |id| BlockMeta::without_files(BlockId(id), tenant.clone(), UnixNano(1), TimeRange::ALL);
        let trace = TraceId([7; 16]);
        let mut changes = replace(&tenant, &[meta(1), meta(2)], &[], &[]);
        changes.extend([delete_trace(&tenant, BlockId(1), trace), announce(&tenant, BlockId(3))]);
        changes.push(announce(&tenant, BlockId(4)));
        store.write(&changes, Durability::Synced).unwrap();
        let catalog = load(&store).unwrap();
        assert_eq!(catalog.deleted[&(tenant.clone(), BlockId(1))], BTreeSet::from([trace]));
        let deleted = &catalog.deleted[&(tenant.clone(), BlockId(1))];
        let old = [(BlockId(1), deleted), (BlockId(2), &BTreeSet::new())];
        store.write(&replace(&tenant, &[meta(3)], &[BlockId(4)], &old), Durability::Synced).unwrap();
        let catalog = load(&store).unwrap();
        assert_eq!(catalog.blocks.iter().map(|entry| entry.id).collect::<Vec<_>>(), [BlockId(3)]);
        assert_eq!(catalog.unpublished, [(tenant.clone(), BlockId(1), None), (tenant, BlockId(2), None)]);
        assert!(catalog.deleted.is_empty());
    }

    #[test]
    fn entries_that_are_not_understood_do_not_stop_the_rest() {
        let store = MemoryStore::new();
        let id = BlockId(7);
        let changes = [put("blick", b"x"), put("trimmed/a", b"short"), put(&format!("block/a/{id}"), b"{")];
        store.write(&changes, Durability::Synced).unwrap();
        let catalog = load(&store).unwrap();
        assert_eq!(catalog.blocks.len(), 1);
        assert!(catalog.blocks[0].meta.is_err());
        assert!(catalog.trimmed.is_empty());
    }
}
