//! What goes: blocks past their retention, and traces that somebody wants deleted.
//!
//! **Invariant:** the catalog first, then what snapshots see, then files. **Invariant:** a block that a merge has claimed is
//! taken out by that merge or not at all, so what was removed never comes back in what was merged.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use spoor_block::BlockMeta;
use spoor_model::memory::MemoryBudget;
use spoor_model::scan::{QueryContext, SpanSource};
use spoor_model::{BlockId, TenantId, TraceId};

use super::{Core, Ingester};
use crate::catalog;
use crate::error::Error;
use crate::recovery::{self, Remains};
use crate::store::{Change, Durability};
use crate::tenant::{CatalogBlock, Tenant};

/// Traces whose spans in a block are not to be shown; what replaces the block is another block.
pub type Deletions = BTreeSet<(BlockId, TraceId)>;

/// A block and how it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockState {
    /// What it is.
    pub meta: BlockMeta,
    /// Whether it could be opened.
    pub is_readable: bool,
    /// Why it could not be opened, or what was found to be damaged.
    pub trouble: Option<String>,
    /// Whether a merge reads it now.
    pub is_merging: bool,
    /// Traces that were deleted and that a rewrite will leave out.
    pub deleted_traces: usize,
}

impl Ingester {
    /// The tenant's blocks, unreadable ones included, newest end first.
    pub fn blocks(&self, tenant: &TenantId) -> Vec<BlockMeta> {
        self.core.tenants.get(tenant).map(|tenant| tenant.blocks()).unwrap_or_default()
    }

    /// [`Self::blocks`] and how each of them is.
    pub fn block_states(&self, tenant: &TenantId) -> Vec<BlockState> {
        let state = |block: CatalogBlock| BlockState {
            is_readable: block.source.is_ok(),
            trouble: block.trouble(),
            is_merging: block.claim.is_some(),
            deleted_traces: block.deleted.len(),
            meta: block.meta,
        };
        let blocks = self.core.tenants.get(tenant).map(|tenant| tenant.catalog_blocks()).unwrap_or_default();
        blocks.into_iter().map(state).collect()
    }

    /// Removes blocks: from the catalog, then from the snapshots to come, then their files, which go
    /// with the last query that reads them. Unknown ids are passed over, and so are blocks that are being
    /// merged: the next pass finds them, or what they were merged into. Returns how many went.
    pub fn remove_blocks(&self, tenant: &TenantId, ids: &[BlockId]) -> Result<usize, Error> {
        let Some(tenant) = self.core.tenants.get(tenant) else { return Ok(0) };
        let _exchange = tenant.exchange.lock();
        let blocks = tenant.catalog_blocks();
        let is_due = |block: &&CatalogBlock| ids.contains(&block.meta.id) && block.claim.is_none();
        let due: Vec<&CatalogBlock> = blocks.iter().filter(is_due).collect();
        if due.is_empty() {
            return Ok(0);
        }
        let retire = |block: &&CatalogBlock| catalog::retire(&tenant.id, block.meta.id, &block.deleted);
        let changes: Vec<Change> = due.iter().flat_map(retire).collect();
        self.core.write(&changes)?;
        let due: Vec<BlockId> = due.iter().map(|block| block.meta.id).collect();
        let taken = tenant.take_blocks(&due);
        self.core.let_go(&tenant, &taken);
        Ok(taken.len())
    }

    /// Deletes a trace: everything of it that was acknowledged before this call is hidden from every answer when this
    /// returns, and is gone from disk when the blocks that hold it are rewritten. Spans of the same id that come later are
    /// spans like any others. Returns in how many blocks it was.
    ///
    /// `announce` is told first which blocks these are, those that they replaced included, for whoever may still show
    /// them; when it fails, nothing is deleted here. No block of the tenant is exchanged meanwhile.
    ///
    /// Costs a cut of the tenant's head, and a look into each block whose bloom filter has the id.
    pub fn delete_trace(
        &self,
        tenant: &TenantId,
        trace: TraceId,
        announce: &mut dyn FnMut(&Deletions) -> Result<(), String>,
    ) -> Result<usize, Error> {
        let Some(known) = self.core.tenants.get(tenant) else { return Ok(0) };
        // What is in a head has no place that a deletion could be tied to.
        self.flush(Some(tenant))?;
        let _exchange = known.exchange.lock();
        let blocks = known.catalog_blocks();
        let hidden: Vec<_> = blocks.iter().filter(|b| may_show(b, trace)).map(|block| (block, trace)).collect();
        if hidden.is_empty() {
            return Ok(0);
        }
        check_claims(&hidden)?;
        let named = hidden.iter().flat_map(|(block, _)| block.meta.replaces.iter().copied().chain([block.meta.id]));
        announce(&named.map(|id| (id, trace)).collect()).map_err(|reason| Error::DeleteUntold { trace, reason })?;
        self.core.hide(&known, &hidden)?;
        tracing::info!(%tenant, %trace, blocks = hidden.len(), "trace deleted");
        Ok(hidden.len())
    }

    /// Whether a merge that was begun may still take the place of these blocks: none of those that are known has lost a
    /// trace since.
    pub fn may_replace(&self, tenant: &TenantId, replaced: &[BlockId]) -> bool {
        let blocks = self.core.tenants.get(tenant).map(|tenant| tenant.catalog_blocks()).unwrap_or_default();
        let is_void = |block: &CatalogBlock| match &block.claim {
            Some(claim) => claim.is_void.load(Ordering::Acquire),
            None => false,
        };
        !blocks.iter().any(|block| replaced.contains(&block.meta.id) && is_void(block))
    }

    /// What was deleted from the tenant's blocks and waits for their rewrite.
    pub fn deletions(&self, tenant: &TenantId) -> Deletions {
        let blocks = self.core.tenants.get(tenant).map(|tenant| tenant.catalog_blocks()).unwrap_or_default();
        let of_block = |block: CatalogBlock| {
            let traces: Vec<TraceId> = block.deleted.iter().copied().collect();
            traces.into_iter().map(move |trace| (block.meta.id, trace))
        };
        blocks.into_iter().flat_map(of_block).collect()
    }

    /// Hides what other processes deleted from the blocks named. A merge that reads one of them is void.
    ///
    /// Costs a look into each of these blocks whose bloom filter has the trace.
    pub fn hide_deleted(&self, tenant: &TenantId, deletions: &Deletions) -> Result<(), Error> {
        let Some(known) = self.core.tenants.get(tenant) else { return Ok(()) };
        let _exchange = known.exchange.lock();
        let blocks = known.catalog_blocks();
        let hidden = blocks.iter().flat_map(|block| hidden_in(block, deletions).map(move |trace| (block, trace)));
        self.core.hide(&known, &hidden.collect::<Vec<_>>())
    }
}

/// The traces that these deletions hide in a block. What replaced a block that they name is another block: it was made
/// without what had been deleted, and may hold what came later.
pub(super) fn hidden_in<'a>(block: &'a CatalogBlock, deletions: &'a Deletions) -> impl Iterator<Item = TraceId> + 'a {
    let id = block.meta.id;
    let of_block = deletions.range((id, TraceId([0; 16]))..=(id, TraceId([0xff; 16])));
    of_block.map(|(_, trace)| *trace).filter(|trace| may_show(block, *trace))
}

/// Whether queries find spans of the trace in the block, or could if it were readable.
fn may_show(block: &CatalogBlock, trace: TraceId) -> bool {
    if block.deleted.contains(&trace) {
        return false;
    }
    let Ok(source) = &block.source else { return true };
    let ctx = QueryContext::new(&MemoryBudget::new(usize::MAX), Arc::new(AtomicBool::new(false)));
    source.may_hold(trace) && !matches!(source.trace_range(trace, &ctx), Ok(None))
}

/// Fails when one of the blocks may be out of the catalog already, or not.
fn check_claims(hidden: &[(&CatalogBlock, TraceId)]) -> Result<(), Error> {
    let mut claims = hidden.iter().filter_map(|(block, trace)| Some((block.claim.as_ref()?, *trace)));
    match claims.find(|(claim, _)| claim.is_in_doubt.load(Ordering::Acquire)) {
        Some((_, trace)) => Err(Error::DeleteUncertain { trace }),
        None => Ok(()),
    }
}

impl Core {
    /// Hides traces in blocks of a tenant, whose exchange is locked: from the catalog on, and in snapshots to come.
    fn hide(&self, tenant: &Tenant, hidden: &[(&CatalogBlock, TraceId)]) -> Result<(), Error> {
        check_claims(hidden)?;
        if hidden.is_empty() {
            return Ok(());
        }
        let claims = hidden.iter().filter_map(|(block, _)| block.claim.as_ref());
        let change =
            |(block, trace): &(&CatalogBlock, TraceId)| catalog::delete_trace(&tenant.id, block.meta.id, *trace);
        self.write(&hidden.iter().map(change).collect::<Vec<Change>>())?;
        hidden.iter().for_each(|(block, trace)| tenant.hide(*trace, &[block.meta.id]));
        claims.for_each(|claim| claim.is_void.store(true, Ordering::Release));
        Ok(())
    }

    /// Has the files of blocks go that are out of the catalog and out of snapshots.
    pub(super) fn let_go(&self, tenant: &Tenant, taken: &[CatalogBlock]) {
        self.metrics.set_blocks(&tenant.id, tenant.block_count());
        for block in taken {
            match &block.source {
                Ok(source) => source.retire(&self.gone),
                Err(_) => self.remove_files(&tenant.id, block.meta.id),
            }
        }
        self.forget_gone();
    }

    /// Tells the catalog which files went since this was last called; when that fails, the next start finds out.
    fn forget_gone(&self) {
        let changes: Vec<Change> = self.gone.take().iter().map(|(tenant, id)| catalog::forget(tenant, *id)).collect();
        if !changes.is_empty() {
            let _ = self.store.write(&changes, Durability::Buffered);
        }
    }

    fn remove_files(&self, tenant: &TenantId, id: BlockId) {
        self.gone.remove(&*self.blocks, tenant, id);
    }

    /// Tries again to remove what could not be removed of a tenant's blocks; what is left all the same.
    pub(super) fn clear_remains(&self, tenant: &TenantId) -> Vec<BlockId> {
        for id in self.gone.left(tenant) {
            let blocks = self.tenants.get(tenant).map(|tenant| tenant.catalog_blocks()).unwrap_or_default();
            let known = blocks.into_iter().map(|block| (block.meta.id, !block.deleted.is_empty())).collect();
            match recovery::remains(&*self.blocks, tenant, id, &known) {
                Ok(Remains::Remove) => self.remove_files(tenant, id),
                Ok(Remains::Leave) => self.gone.give_up(tenant, id),
                // Whoever cannot be asked cannot be told either.
                Err(_) => {}
            }
        }
        self.forget_gone();
        self.gone.left(tenant)
    }

    /// Removes what a merge wrote and nobody shall see. What that fails for is tried again, before the next merge at the latest.
    pub(super) fn discard(&self, tenant: &TenantId, ids: &BTreeSet<BlockId>) {
        ids.iter().for_each(|id| self.remove_files(tenant, *id));
        self.forget_gone();
    }
}
