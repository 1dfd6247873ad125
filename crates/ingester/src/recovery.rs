//! What a start does before it serves: the directory is made consistent with the catalog, then the
//! log becomes heads again, by the same thread and under the same bound on memory as live requests.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

use spoor_block::{BlockMeta, Error as BlockError};
use spoor_model::scan::Skipped;
use spoor_model::{BlockId, TenantId, TraceId};

use crate::apply::HeadWork;
use crate::blocks::{BlockStore, StoredBlock};
use crate::catalog::{self, Catalog, Entry};
use crate::cut::Cutter;
use crate::head_memory::{HeadMemory, expected_bytes};
use crate::metrics::Metrics;
use crate::quarantine;
use crate::record::{self, RecordError, Sequence};
use crate::store::{Change, Durability, Store, StoreError, Table};
use crate::tenant::{CatalogBlock, SHARE_LOOKS, Tenants};
use crate::wal::Logged;

/// Expected memory of the requests handed to the head thread at once; less when memory is scarce.
const GROUP_BYTES_MAX: usize = 1 << 20;

/// Interrupted cuts of which nobody can be asked now whether they made a block; at most one per tenant. What the log has up to the
/// sequence is to be cut under that name, and under no other: others may have seen it.
pub(crate) type Undecided = BTreeMap<TenantId, (BlockId, Sequence)>;

/// Publishes the blocks of interrupted cuts that are whole: others may have seen them. The log has nothing more of them then.
pub(crate) fn finish_cuts(
    store: &dyn Store,
    blocks: &dyn BlockStore,
    catalog: &mut Catalog,
) -> Result<Undecided, StoreError> {
    let mut undecided = Undecided::new();
    for (tenant, id, last) in std::mem::take(&mut catalog.unpublished) {
        let cut = last.filter(|last| catalog.trimmed.get(&tenant).is_none_or(|trimmed| trimmed < last));
        let found = match cut {
            // As after every cut: what cannot be read back must not replace the log.
            Some(_) => blocks.find(&tenant, id).and_then(|meta| {
                meta.map(|meta| blocks.open(&meta).map(|_| meta)).transpose()
            }).unwrap_or_else(|err| {
                tracing::warn!(%tenant, block = %id, %err, "it is not known whether an interrupted cut made a block");
                // One that is damaged is replaced.
                if let (Some(last), true) = (cut, matches!(err, BlockError::Io { .. })) {
                    undecided.insert(tenant.clone(), (id, last));
                }
                None
            }),
            None => None,
        };
        let (Some(last), Some(meta)) = (cut, found) else {
            catalog.unpublished.push((tenant, id, last));
            continue;
        };
        store.write(&catalog::publish(&meta, last), Durability::Synced)?;
        tracing::info!(%tenant, block = %id, "the block of an interrupted cut is whole");
        catalog.trimmed.insert(tenant.clone(), last);
        catalog.blocks.push(Entry { tenant, id, meta: Ok(meta) });
    }
    Ok(undecided)
}

/// What is to become of a block that is in no catalog and was announced by this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Remains {
    /// Nobody needs it: it was never whole, or was taken out, or is void.
    Remove,
    /// Others see it in the place of what it was merged from, and may have built on it. It is found where it is, as if another
    /// process had merged it.
    Leave,
}

/// Decides; `known` are the tenant's blocks, and whether they lost traces.
///
/// A merge of several blocks is void when one of them loses a trace before the catalog has what they became; the deletion names them and not
/// that. Then what they became goes, as long as they are there.
pub(crate) fn remains(
    blocks: &dyn BlockStore,
    tenant: &TenantId,
    id: BlockId,
    known: &BTreeMap<BlockId, bool>,
) -> Result<Remains, BlockError> {
    if !blocks.is_shared() {
        return Ok(Remains::Remove);
    }
    let Some(meta) = blocks.find(tenant, id)? else { return Ok(Remains::Remove) };
    let inputs: Vec<BlockId> = meta.replaces.iter().copied().filter(|input| known.contains_key(input)).collect();
    let is_void = inputs.len() > 1 && inputs.iter().any(|input| known[input]);
    if !inputs.is_empty() && !is_void {
        return Ok(Remains::Leave);
    }
    for input in inputs {
        if blocks.find(tenant, input)?.is_none() {
            return Ok(Remains::Leave);
        }
    }
    Ok(Remains::Remove)
}

/// Removes what interrupted cuts, merges and removals left, and returns what could not be removed. A directory that the catalog knows nothing of is
/// left alone: it may be all that is left of a lost catalog.
pub(crate) fn clean_up(
    store: &dyn Store,
    blocks: &dyn BlockStore,
    blocks_dir: &Path,
    catalog: &Catalog,
    undecided: &Undecided,
) -> Result<BTreeSet<(TenantId, BlockId)>, StoreError> {
    let known: BTreeSet<_> = catalog.blocks.iter().map(|entry| (entry.tenant.clone(), entry.id)).collect();
    let mut forgotten: Vec<Change> = Vec::new();
    let mut kept = BTreeSet::new();
    for (tenant, id, _) in &catalog.unpublished {
        assert!(!known.contains(&(tenant.clone(), *id)), "block {id} of {tenant} is published and unpublished");
        if undecided.get(tenant).is_some_and(|(cut, _)| cut == id) {
            continue;
        }
        let of_tenant = known.iter().filter(|(of, _)| of == tenant);
        let of_tenant = of_tenant.map(|name| (name.1, catalog.deleted.contains_key(name))).collect();
        let settled = remains(blocks, tenant, *id, &of_tenant).and_then(|remains| match remains {
            Remains::Leave => Ok(()),
            Remains::Remove => blocks.remove(tenant, *id),
        });
        match settled {
            Ok(()) => forgotten.push(catalog::forget(tenant, *id)),
            Err(err) => {
                kept.insert((tenant.clone(), *id));
                tracing::warn!(%tenant, block = %id, %err, "remains of a block cannot be removed");
            }
        }
    }
    let of_nothing = catalog.deleted.iter().filter(|(block, _)| !known.contains(block));
    let forget = |((tenant, id), traces): (&(TenantId, BlockId), &BTreeSet<TraceId>)| {
        let changes = traces.iter().map(|trace| catalog::forget_deleted(tenant, *id, *trace));
        changes.collect::<Vec<_>>()
    };
    forgotten.extend(of_nothing.flat_map(forget));
    match blocks.list() {
        Ok(found) => {
            let strays = found.into_iter().filter(|name| !known.contains(name) && !kept.contains(name));
            // Blocks elsewhere are taken over from there.
            warn_of(strays.filter(|(tenant, id)| blocks_dir.join(tenant.as_str()).join(id.to_string()).is_dir()));
        }
        Err(err) => tracing::warn!(%err, "blocks cannot be listed"),
    }
    if !forgotten.is_empty() {
        store.write(&forgotten, Durability::Synced)?;
    }
    Ok(kept)
}

fn warn_of(strays: impl Iterator<Item = (TenantId, BlockId)>) {
    let mut stray_count = 0;
    for (tenant, id) in strays {
        stray_count += 1;
        tracing::warn!(%tenant, block = %id, "a block directory is not in the catalog; it is left alone");
    }
    if stray_count > 0 {
        tracing::error!(
            stray_count,
            "queries do not see blocks that are not in the catalog: stop Spoor, run `spoor blocks adopt --all`, start it again"
        );
    }
}

/// Opens the catalog's blocks. One that cannot be opened is named in every snapshot and in the log.
pub(crate) fn open_blocks(tenants: &Tenants, blocks: &Arc<dyn BlockStore>, mut catalog: Catalog, metrics: &Metrics) {
    share_columns(&mut catalog.blocks);
    let metas: Vec<&BlockMeta> = catalog.blocks.iter().filter_map(|entry| entry.meta.as_ref().ok()).collect();
    let mut opened = StoredBlock::open_all(blocks, &metas).into_iter();
    for entry in catalog.blocks {
        let tenant = tenants.get_or_add(&entry.tenant);
        let skip = |reason: String| {
            tracing::error!(tenant = %entry.tenant, block = %entry.id, reason, "a block cannot be opened");
            metrics.blocks_unreadable.inc();
            Skipped { object: format!("block {}", entry.id), reason }
        };
        match entry.meta {
            Ok(meta) => {
                let source = opened.next().expect("each meta was opened");
                let source = source.map(Arc::new).map_err(|err| skip(err.to_string()));
                let deleted = catalog.deleted.remove(&(entry.tenant.clone(), entry.id)).unwrap_or_default();
                tenant.add_block(CatalogBlock { deleted: Arc::new(deleted), ..CatalogBlock::new(meta, source) });
            }
            Err(reason) => tenant.add_unreadable(skip(reason)),
        }
        metrics.set_blocks(&tenant.id, tenant.block_count());
    }
    for tenant in catalog.trimmed.keys() {
        tenants.get_or_add(tenant);
    }
}

/// Has neighbours in the catalog share what they have in common.
fn share_columns(entries: &mut [Entry]) {
    for index in 1..entries.len() {
        let (before, rest) = entries.split_at_mut(index);
        let Ok(meta) = &mut rest[0].meta else { continue };
        let mut known = before.iter().rev().take(SHARE_LOOKS).filter_map(|entry| entry.meta.as_ref().ok());
        let _ = known.any(|other| meta.share_columns(other));
    }
}

/// Why the log cannot be recovered now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecoveryError {
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("the head thread has stopped")]
    Stopped,
}

/// Reads the log into heads.
pub(crate) struct Replay<'a> {
    pub(crate) store: &'a dyn Store,
    pub(crate) trimmed: &'a BTreeMap<TenantId, Sequence>,
    pub(crate) to_head: &'a SyncSender<HeadWork>,
    pub(crate) cutter: &'a Cutter,
    pub(crate) memory: &'a HeadMemory,
    pub(crate) memory_limit: usize,
    pub(crate) metrics: &'a Metrics,
}

impl Replay<'_> {
    /// Replays everything and waits until it is visible. Returns the last sequence number ever used.
    pub(crate) fn run(&self) -> Result<Sequence, RecoveryError> {
        let mut last = self.trimmed.values().copied().max().unwrap_or_default();
        let mut group = Vec::new();
        let mut group_bytes = 0;
        let mut failure = None;
        let group_bytes_max = GROUP_BYTES_MAX.min(self.memory_limit / 16);
        let mut visit = |key: &[u8], value: &[u8]| {
            let logged = match self.read(key, value) {
                Ok(logged) => logged,
                // At once: a cut of what comes after it would trim it away.
                Err(err) => match self.set_aside(key, &err) {
                    Ok(sequence) => {
                        last = last.max(sequence);
                        return ControlFlow::Continue(());
                    }
                    Err(err) => {
                        failure = Some(RecoveryError::Store(err));
                        return ControlFlow::Break(());
                    }
                },
            };
            last = last.max(logged.sequence);
            if self.trimmed.get(&logged.tenant).is_some_and(|trimmed| logged.sequence <= *trimmed) {
                return ControlFlow::Continue(());
            }
            group_bytes += logged.coming.bytes();
            group.push(logged);
            if group_bytes < group_bytes_max {
                return ControlFlow::Continue(());
            }
            group_bytes = 0;
            match self.hand_over(std::mem::take(&mut group)) {
                Ok(()) => ControlFlow::Continue(()),
                Err(err) => {
                    failure = Some(err);
                    ControlFlow::Break(())
                }
            }
        };
        self.store.scan(Table::Wal, b"", &mut visit)?;
        if let Some(err) = failure {
            return Err(err);
        }
        self.hand_over(group)?;
        let (reply, done) = sync_channel(1);
        self.to_head.send(HeadWork::Barrier { reply }).map_err(|_| RecoveryError::Stopped)?;
        done.recv().map_err(|_| RecoveryError::Stopped)?;
        Ok(last)
    }

    fn read(&self, key: &[u8], value: &[u8]) -> Result<Logged, RecordError> {
        let (tenant, sequence) = record::parse_key(key).ok_or(RecordError::Key(key.len()))?;
        let record = record::decode(key, value)?;
        let payload = record.payload()?;
        let (received_at, checked) = (record.received_at, record.checked);
        let coming = self.memory.expect(expected_bytes(payload.len(), checked.accepted_count));
        Ok(Logged { tenant, sequence, received_at, payload, checked, coming, waiting: None })
    }

    /// Hands requests to the head thread, once there is room for them. While heads cannot be cut, up to twice the bound is
    /// taken: the last process held about as much (a third more than the bound was measured), and to be answered from is
    /// what spans are here for.
    fn hand_over(&self, group: Vec<Logged>) -> Result<(), RecoveryError> {
        let own_bytes: usize = group.iter().map(|logged| logged.coming.bytes()).sum();
        let tight = self.memory_limit.saturating_add(own_bytes);
        let loose = tight.saturating_add(self.memory_limit);
        let mut is_told = false;
        while !self.memory.wait_below(tight) {
            let Some(reason) = self.cutter.failing() else { continue };
            if self.memory.total_bytes() < loose {
                break;
            }
            if !std::mem::replace(&mut is_told, true) {
                let why = "the log does not fit in head_memory_limit and cannot be cut into blocks";
                tracing::error!(reason, "{why}; the start waits until it can");
            }
        }
        self.metrics.recovery_records.inc_by(group.len() as u64);
        self.to_head.send(HeadWork::Append(group)).map_err(|_| RecoveryError::Stopped)
    }

    /// Moves a record that cannot be read to quarantine; returns the sequence number it had.
    fn set_aside(&self, key: &[u8], err: &RecordError) -> Result<Sequence, StoreError> {
        let place = record::parse_key(key);
        let (tenant, sequence) = match &place {
            Some((tenant, sequence)) => (tenant.as_str(), sequence.0),
            None => ("?", 0),
        };
        tracing::error!(tenant, sequence, %err, "a log record is damaged: its spans are lost; it is set aside");
        self.metrics.records_set_aside.inc();
        quarantine::set_aside(self.store, key)?;
        Ok(place.map(|(_, sequence)| sequence).unwrap_or_default())
    }
}
