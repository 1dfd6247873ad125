//! Who owns blocks: the ingester with its catalog, and fakes in tests. The compactor decides, the owner does.

use std::ops::ControlFlow;

use spoor_block::{BlockMeta, Merged, Progress, TimeWindow};
use spoor_model::{BlockId, TenantId, UnixNano};

/// A block and how it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// What it is.
    pub meta: BlockMeta,
    /// Whether it could be opened.
    pub is_readable: bool,
    /// Whether a merge reads it now.
    pub is_merging: bool,
    /// Whether traces in it were deleted that a rewrite will leave out.
    pub has_deletions: bool,
}

/// Within which bounds to merge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergeBounds {
    /// Spans of one new block, more or less.
    pub block_spans: u64,
    /// What the merge may hold in memory.
    pub memory_bytes: usize,
    /// Traces that ended before are left out.
    pub keep_after: Option<UnixNano>,
    /// The window of the blocks: what does not belong to it goes into blocks of its own.
    pub window: TimeWindow,
}

/// Why blocks were not merged. They are as they were.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MergeError {
    /// They are not what they were when it was planned.
    Outdated,
    /// It was broken off.
    Cancelled,
    /// It cannot be done, now or at all.
    Failed {
        /// Why.
        reason: String,
        /// The block that cannot be read, where it is one of them.
        culprit: Option<BlockId>,
    },
}

/// What the compactor needs of whoever has the blocks.
pub trait BlockOwner: Send + Sync {
    /// The tenants that there are.
    fn tenants(&self) -> Vec<TenantId>;

    /// The tenant's blocks.
    fn blocks(&self, tenant: &TenantId) -> Vec<Listed>;

    /// Removes blocks, from the catalog first. Those that are being merged are passed over. Returns how many went.
    fn remove(&self, tenant: &TenantId, ids: &[BlockId]) -> Result<usize, String>;

    /// Merges blocks and puts what comes out in their place. Asks `watch` often, which may take its time.
    fn merge(
        &self,
        tenant: &TenantId,
        inputs: &[BlockId],
        bounds: &MergeBounds,
        watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Merged, MergeError>;

    /// Whether something that cannot wait, such as ingest, needs the machine now.
    fn is_pressed(&self) -> bool;
}
