//! Blocks that other processes wrote, merged or removed, where blocks lie in a place of many.
//!
//! The log is not concerned: what this process has acknowledged is trimmed from it by its own cuts only.

use std::collections::BTreeSet;
use std::sync::Arc;

use spoor_block::{BlockMeta, Error as BlockError};
use spoor_model::scan::Skipped;
use spoor_model::{BlockId, TenantId, TraceId};

use super::removal::{Deletions, hidden_in};
use super::{Core, Ingester};
use crate::blocks::StoredBlock;
use crate::catalog;
use crate::error::Error;
use crate::store::Change;
use crate::tenant::{CatalogBlock, Tenant};

impl Ingester {
    /// Takes over what others did to the tenant's blocks: `added` are in the catalog and in snapshots to come, `gone`
    /// are not any more, in one step. Files are left alone. Blocks that are known are not added again. What `deletions`
    /// say of the added blocks is hidden in them from the beginning.
    ///
    /// `false`, and nothing is changed, when this process is just writing, merging or removing one of them: look again
    /// later. Opens the added blocks; one that cannot be opened is named in every snapshot until
    /// [`Self::reopen_blocks`] succeeds.
    pub fn sync_blocks(
        &self,
        tenant: &TenantId,
        added: &[BlockMeta],
        gone: &[BlockId],
        deletions: &Deletions,
    ) -> Result<bool, Error> {
        let core = &self.core;
        let tenant = core.tenants.get_or_add(tenant);
        let _exchange = tenant.exchange.lock();
        let known = tenant.catalog_blocks();
        let is_known = |id: BlockId| known.iter().any(|block| block.meta.id == id);
        let added: Vec<&BlockMeta> = added.iter().filter(|meta| !is_known(meta.id)).collect();
        // In this order: a block of our own that is there was announced before, and goes from one to the other.
        let own = catalog::unpublished(&*core.store, &tenant.id).map_err(|err| core.failed(err))?;
        for meta in &added {
            let is_listed = catalog::has_block(&*core.store, &tenant.id, meta.id).map_err(|err| core.failed(err))?;
            if is_listed || own.contains(&meta.id) {
                return Ok(false);
            }
        }
        let gone: Vec<&CatalogBlock> = known.iter().filter(|block| gone.contains(&block.meta.id)).collect();
        if gone.iter().any(|block| block.claim.is_some()) {
            return Ok(false);
        }
        let opened = StoredBlock::open_all(&core.blocks, &added);
        let new = added.iter().zip(opened).map(|(meta, opened)| shown(meta, opened, deletions));
        let new: Vec<CatalogBlock> = new.collect();
        let mut changes: Vec<Change> =
            new.iter().flat_map(|block| catalog::adopt(&block.meta, &block.deleted)).collect();
        changes.extend(gone.iter().flat_map(|block| catalog::disown(&tenant.id, block.meta.id, &block.deleted)));
        core.write(&changes)?;
        let gone: Vec<BlockId> = gone.iter().map(|block| block.meta.id).collect();
        tenant.replace(&gone, new);
        core.metrics.set_blocks(&tenant.id, tenant.block_count());
        Ok(true)
    }

    /// Has all snapshots say that there may be blocks which nobody has heard of yet, and why; `None`: not any more.
    pub fn set_unknown(&self, unknown: Option<Skipped>) {
        *self.core.unknown.lock() = unknown;
    }

    /// Has snapshots name blocks that others wrote, and of which not even the meta can be read. Replaces those of before.
    pub fn lack_blocks(&self, tenant: &TenantId, unreadable: &[(BlockId, String)]) {
        let tenant = match self.core.tenants.get(tenant) {
            Some(tenant) => tenant,
            None if unreadable.is_empty() => return,
            None => self.core.tenants.get_or_add(tenant),
        };
        let skip = |(id, reason): &(BlockId, String)| Skipped { object: format!("block {id}"), reason: reason.clone() };
        tenant.set_lacking(unreadable.iter().map(skip).collect());
    }

    /// Tries again to open blocks that could not be opened, as when their place was out of reach, and to remove those that
    /// could not be removed, and looks whether what was damaged was put back. Where `meta.json` is damaged or missing, it is
    /// written again from the catalog: costs reading it.
    pub fn reopen_blocks(&self) {
        for tenant in self.core.tenants.all() {
            self.core.reopen_blocks(&tenant);
            self.core.look_after_blocks(&tenant);
            self.core.clear_remains(&tenant.id);
        }
    }
}

/// A block with what was deleted from it hidden.
fn shown(meta: &BlockMeta, opened: Result<StoredBlock, BlockError>, deletions: &Deletions) -> CatalogBlock {
    let source = opened.map(Arc::new).map_err(|err| {
        tracing::error!(tenant = %meta.tenant, block = %meta.id, %err, "a block cannot be opened");
        Skipped { object: meta.describe(), reason: err.to_string() }
    });
    let block = CatalogBlock::new(meta.clone(), source);
    let deleted: BTreeSet<TraceId> = hidden_in(&block, deletions).collect();
    CatalogBlock { deleted: Arc::new(deleted), ..block }
}

impl Core {
    fn reopen_blocks(&self, tenant: &Tenant) {
        for meta in tenant.unopened_blocks() {
            let Ok(block) = StoredBlock::open(&self.blocks, &meta) else { continue };
            tracing::info!(tenant = %meta.tenant, block = %meta.id, "a block can be opened again");
            tenant.set_opened(meta.id, Arc::new(block));
        }
    }

    fn look_after_blocks(&self, tenant: &Tenant) {
        for CatalogBlock { meta, .. } in tenant.catalog_blocks() {
            let block = meta.id;
            self.blocks.recheck(&meta);
            // The catalog and the block's directory say the same of a block: either brings the other back.
            match self.blocks.mend_meta(&meta) {
                Ok(false) => {}
                Ok(true) => {
                    tracing::error!(tenant = %meta.tenant, %block, "meta.json of a block was damaged or gone; it is written again");
                }
                Err(err) => {
                    tracing::error!(tenant = %meta.tenant, %block, %err, "meta.json of a block cannot be mended")
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
