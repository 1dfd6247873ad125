//! Merging: some blocks become others, and no snapshot sees both or neither.
//!
//! ```text
//!   1  memory    inputs claimed                                nobody else takes them out
//!   2  catalog   unpublished/<tenant>/<id> of the new          synced: a crash from here on leaves garbage with a name
//!   3  blocks    inputs -> new blocks                          synced by their writer, opened once as a check
//!   4  catalog   new in, old out (old: unpublished)            ONE synced write: the instant
//!   5  memory    old -> new                                    under the tenant's lock; old files go with their last reader
//! ```
//!
//! A crash before 4 removes the new blocks at the next start, after 4 the old ones. When 4 fails it is not known
//! whether it happened: it is repeated with the same blocks until it is known, and until then neither is removed.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use spoor_block::{BlockMeta, Error as BlockError, LATE_BLOCKS_MAX, MergeOptions, Merged, Progress, TimeWindow};
use spoor_model::{BlockId, TenantId, UnixNano};

use super::{Core, Ingester};
use crate::blocks::StoredBlock;
use crate::catalog;
use crate::error::Error;
use crate::store::{Change, Durability};
use crate::tenant::{CatalogBlock, Claim, Tenant};

/// How often whoever watches a merge is asked while the catalog cannot be written.
const WATCH_INTERVAL: Duration = Duration::from_millis(100);
/// Tries of the catalog: one in so many intervals.
const RETRY_INTERVALS: usize = 10;

/// What to merge, and within which bounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergeRequest {
    /// The blocks, all different.
    pub inputs: Vec<BlockId>,
    /// Spans of one new block, more or less.
    pub block_spans: u64,
    /// What the merge may hold in memory.
    pub memory_bytes: usize,
    /// Traces that ended before are left out: they are past their retention.
    pub keep_after: Option<UnixNano>,
    /// Traces of other times go into blocks of their own: [`MergeOptions::window`].
    pub window: Option<TimeWindow>,
}

impl Ingester {
    /// Merges blocks into one, or into a few when one would be too large, without deleted traces, and puts them in the
    /// place of the old ones, durably. Blocks the caller; calls `watch` often, which may take its time (that is how a
    /// merge is slowed down) and breaks the merge off with `Break`.
    ///
    /// # Errors
    /// [`Error::MergeOutdated`] when the blocks are no longer what they were, [`Error::MergeCancelled`],
    /// [`Error::Merge`]. In each case everything is as it was; only when the catalog cannot be written *and* the merge is
    /// broken off, both the old blocks and the new ones stay on disk, and the next start removes those that the
    /// catalog does not have.
    pub fn merge_blocks(
        &self,
        tenant: &TenantId,
        request: &MergeRequest,
        watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Merged, Error> {
        let outdated = || Error::MergeOutdated { tenant: tenant.to_string() };
        let tenant = self.core.tenants.get(tenant).ok_or_else(outdated)?;
        // Others may see what a failed merge has left, in the place of its inputs: another of these would be seen beside it.
        if let Some(id) = self.core.clear_remains(&tenant.id).first() {
            let reason = format!("block {id}, which nobody shall see, cannot be removed");
            return Err(Error::Merge { tenant: tenant.id.to_string(), reason, culprit: None });
        }
        let (claim, inputs) = tenant.claim(&request.inputs).ok_or_else(outdated)?;
        let mut merge = Merge { core: &self.core, tenant: &tenant, claim, inputs, request, announced: BTreeSet::new() };
        let merged = merge.run(watch);
        if merge.claim.is_in_doubt.load(Ordering::Acquire) {
            // Nobody may touch either side; the next start knows which it is.
            return merged;
        }
        tenant.release(&request.inputs);
        if merged.is_err() {
            self.core.discard(&tenant.id, &merge.announced);
        }
        merged
    }
}

/// A merge under way.
struct Merge<'a> {
    core: &'a Core,
    tenant: &'a Arc<Tenant>,
    claim: Arc<Claim>,
    inputs: Vec<CatalogBlock>,
    request: &'a MergeRequest,
    /// Names of the new blocks, used or not.
    announced: BTreeSet<BlockId>,
}

impl Merge<'_> {
    fn run(&mut self, watch: &mut dyn FnMut(Progress) -> ControlFlow<()>) -> Result<Merged, Error> {
        let span_count: u64 = self.inputs.iter().map(|block| block.meta.span_count).sum();
        let of_other_times = self.request.window.map_or(0, |_| LATE_BLOCKS_MAX as u64 + 1);
        let id_count = span_count / self.request.block_spans.max(1) + 2 + of_other_times;
        self.announce(id_count)?;
        let merged = self.write(watch)?;
        let Merged { spans_read, spans_written, copies_dropped, spans_left_out, io_bytes, .. } = merged;
        let found: u64 = merged.blocks.iter().map(|meta| meta.span_count).sum();
        let is_whole = spans_read == span_count
            && spans_written + copies_dropped + spans_left_out == spans_read
            && found == spans_written;
        if !is_whole {
            let reason = format!(
                "{span_count} spans went in, {spans_read} were read, {found} written, {copies_dropped} are copies, {spans_left_out} left out"
            );
            return Err(self.failed(reason));
        }
        // What cannot be read back must not replace what can.
        let open = |meta: &BlockMeta| {
            let opened = StoredBlock::open(&self.core.blocks, meta).map_err(|err| self.failed(err.to_string()));
            opened.map(|block| CatalogBlock::new(meta.clone(), Ok(Arc::new(block))))
        };
        let new = merged.blocks.iter().map(open).collect::<Result<Vec<_>, _>>()?;
        self.publish(new, &mut || watch(Progress { spans_written, span_count, io_bytes }))?;
        Ok(merged)
    }

    fn failed(&self, reason: String) -> Error {
        Error::Merge { tenant: self.tenant.id.to_string(), reason, culprit: None }
    }

    fn announce(&mut self, count: u64) -> Result<(), Error> {
        while (self.announced.len() as u64) < count {
            self.announced.insert(self.core.cutter.new_id(self.tenant));
        }
        let changes: Vec<Change> = self.announced.iter().map(|id| catalog::announce(&self.tenant.id, *id)).collect();
        self.core.write(&changes)
    }

    fn write(&mut self, watch: &mut dyn FnMut(Progress) -> ControlFlow<()>) -> Result<Merged, Error> {
        let metas: Vec<BlockMeta> = self.inputs.iter().map(|block| block.meta.clone()).collect();
        // More than one input: none of them has lost a trace.
        let deleted = Arc::clone(&self.inputs[0].deleted);
        let options = MergeOptions {
            write: self.core.config.merged_block.clone(),
            block_spans: self.request.block_spans,
            memory_bytes: self.request.memory_bytes,
            is_deleted: &|trace| deleted.contains(&trace),
            keep_after: self.request.keep_after,
            window: self.request.window,
        };
        let mut unused = self.announced.clone();
        let (mut is_short, core, tenant) = (false, self.core, self.tenant);
        let mut next_id = || {
            unused.pop_first().unwrap_or_else(|| {
                // Not announced: the merge fails below, and only a crash before that leaves something without a name.
                is_short = true;
                core.cutter.new_id(tenant)
            })
        };
        let is_void = || self.claim.is_void.load(Ordering::Acquire);
        let mut watch = |progress| if is_void() { ControlFlow::Break(()) } else { watch(progress) };
        let now = core.clock.now();
        let merge = || core.blocks.merge(&metas, now, &mut next_id, &options, &mut watch);
        let merged = catch_unwind(AssertUnwindSafe(merge));
        let merged = match merged {
            Ok(Ok(merged)) => merged,
            Ok(Err(BlockError::Cancelled)) if is_void() => return Err(self.outdated()),
            Ok(Err(BlockError::Cancelled)) => return Err(Error::MergeCancelled),
            Ok(Err(err)) => return Err(self.broken(&err)),
            Err(_) => return Err(self.failed("the merge panicked; the log has the place".to_owned())),
        };
        self.announced.extend(merged.blocks.iter().map(|meta| meta.id));
        match is_short {
            false => Ok(merged),
            true => Err(self.failed(format!("more blocks were written than the {} announced", metas.len()))),
        }
    }

    fn outdated(&self) -> Error {
        Error::MergeOutdated { tenant: self.tenant.id.to_string() }
    }

    fn broken(&self, err: &BlockError) -> Error {
        let object = match err {
            BlockError::Corrupt { object, .. } | BlockError::Version { object, .. } => object.as_str(),
            _ => "",
        };
        let culprit = self.request.inputs.iter().copied().find(|id| object.contains(&id.to_string()));
        Error::Merge { tenant: self.tenant.id.to_string(), reason: err.to_string(), culprit }
    }

    /// The instant. A write whose outcome is not known is repeated until it is, or until nobody waits any more.
    fn publish(&self, new: Vec<CatalogBlock>, watch: &mut dyn FnMut() -> ControlFlow<()>) -> Result<(), Error> {
        let metas: Vec<BlockMeta> = new.iter().map(|block| block.meta.clone()).collect();
        let is_unused = |id: &BlockId| metas.iter().all(|meta| meta.id != *id);
        let unused: Vec<BlockId> = self.announced.iter().copied().filter(is_unused).collect();
        let old: Vec<_> = self.inputs.iter().map(|block| (block.meta.id, &*block.deleted)).collect();
        let changes = catalog::replace(&self.tenant.id, &metas, &unused, &old);
        loop {
            let exchange = self.tenant.exchange.lock();
            if self.claim.is_void.load(Ordering::Acquire) {
                return Err(self.outdated());
            }
            let Err(err) = self.core.store.write(&changes, Durability::Synced) else {
                self.claim.is_in_doubt.store(false, Ordering::Release);
                let taken = self.tenant.replace(&self.request.inputs, new);
                self.core.let_go(self.tenant, &taken);
                return Ok(());
            };
            self.claim.is_in_doubt.store(true, Ordering::Release);
            drop(exchange);
            tracing::error!(tenant = %self.tenant.id, %err, "merged blocks cannot be published; it is tried again");
            for _ in 0..RETRY_INTERVALS {
                if watch().is_break() {
                    return Err(self.core.failed(err));
                }
                std::thread::park_timeout(WATCH_INTERVAL);
            }
        }
    }
}
