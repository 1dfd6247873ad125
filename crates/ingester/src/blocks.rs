//! What the ingester needs of a place full of blocks.
//!
//! Two implementations: [`StoredBlocks`], which is the product, and a map in memory with gates and
//! faults, for tests.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use spoor_block::{Block, BlockCache, BlockFiles, BlockMeta, Error as BlockError};
use spoor_block::{MergeOptions, Merged, Progress, WriteOptions};
use spoor_model::batch::SpanBatch;
use spoor_model::columns::{ColumnRequest, ColumnScan};
use spoor_model::scan::{Field, KeySet, Operation, QueryContext, ScanError, ScanStats, SpanSource, ValueSet};
use spoor_model::span::SpanEntry;
use spoor_model::{BlockId, TenantId, TimeRange, TraceId, UnixNano};

/// Writes, opens and removes blocks.
pub trait BlockStore: Send + Sync {
    /// Writes a block, durably, under its final name.
    fn write(
        &self,
        tenant: &TenantId,
        id: BlockId,
        batches: &[&SpanBatch],
        created_at: UnixNano,
    ) -> Result<BlockMeta, BlockError>;

    /// What a block says of itself; `None` when it was not written, or not to the end.
    fn find(&self, tenant: &TenantId, id: BlockId) -> Result<Option<BlockMeta>, BlockError>;

    /// Opens a block.
    fn open(&self, meta: &BlockMeta) -> Result<Arc<dyn SpanSource>, BlockError>;

    /// Merges blocks of one tenant into new ones, durably, under names from `next_id`: [`spoor_block::merge`].
    fn merge(
        &self,
        inputs: &[BlockMeta],
        created_at: UnixNano,
        next_id: &mut dyn FnMut() -> BlockId,
        options: &MergeOptions<'_>,
        watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Merged, BlockError>;

    /// Removes a block and what an interrupted write of it left. Nothing there: nothing happens.
    fn remove(&self, tenant: &TenantId, id: BlockId) -> Result<(), BlockError>;

    /// What a block says of itself; `None` when it was never finished.
    fn meta(&self, tenant: &TenantId, id: BlockId) -> Result<Option<BlockMeta>, BlockError> {
        let _ = (tenant, id);
        Ok(None)
    }

    /// Looks whether what was found to be damaged of a block was put back. Costs nothing when nothing was.
    fn recheck(&self, meta: &BlockMeta) {
        let _ = meta;
    }

    /// Writes what a block says of itself again where it is damaged or missing; whether it was.
    fn mend_meta(&self, meta: &BlockMeta) -> Result<bool, BlockError> {
        let _ = meta;
        Ok(false)
    }

    /// Why queries may have to do without a block that was opened, if something of it was found to be damaged. Cheap.
    fn damage(&self, id: BlockId) -> Option<String> {
        let _ = id;
        None
    }

    /// Whether other processes may take over what is written here.
    fn is_shared(&self) -> bool {
        false
    }

    /// Every block there is, whole or not, known to the catalog or not.
    fn list(&self) -> Result<Vec<(TenantId, BlockId)>, BlockError>;
}

/// Blocks in the block format, wherever their files lie.
pub struct StoredBlocks {
    files: Arc<dyn BlockFiles>,
    options: WriteOptions,
    cache: Arc<BlockCache>,
}

impl StoredBlocks {
    /// Blocks whose files are `files`; what queries open is kept in `cache`.
    pub fn new(files: Arc<dyn BlockFiles>, options: WriteOptions, cache: Arc<BlockCache>) -> Self {
        Self { files, options, cache }
    }
}

impl BlockStore for StoredBlocks {
    fn write(
        &self,
        tenant: &TenantId,
        id: BlockId,
        batches: &[&SpanBatch],
        created_at: UnixNano,
    ) -> Result<BlockMeta, BlockError> {
        spoor_block::write(&*self.files, id, tenant, batches, created_at, &self.options)
    }

    fn find(&self, tenant: &TenantId, id: BlockId) -> Result<Option<BlockMeta>, BlockError> {
        self.files.meta(tenant, id)
    }

    fn open(&self, meta: &BlockMeta) -> Result<Arc<dyn SpanSource>, BlockError> {
        Ok(Arc::new(Block::open(&self.files, meta.clone(), &self.cache)?))
    }

    fn merge(
        &self,
        inputs: &[BlockMeta],
        created_at: UnixNano,
        next_id: &mut dyn FnMut() -> BlockId,
        options: &MergeOptions<'_>,
        watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Merged, BlockError> {
        let open = |meta: &BlockMeta| Block::open(&self.files, meta.clone(), &self.cache).map(Arc::new);
        let inputs = inputs.iter().map(open).collect::<Result<Vec<_>, _>>()?;
        spoor_block::merge(&inputs, &*self.files, created_at, next_id, options, watch)
    }

    fn remove(&self, tenant: &TenantId, id: BlockId) -> Result<(), BlockError> {
        self.cache.damages().forget(id);
        self.files.remove(tenant, id)
    }

    fn meta(&self, tenant: &TenantId, id: BlockId) -> Result<Option<BlockMeta>, BlockError> {
        self.files.meta(tenant, id)
    }

    fn recheck(&self, meta: &BlockMeta) {
        Block::recheck(&self.files, meta, &self.cache);
    }

    fn mend_meta(&self, meta: &BlockMeta) -> Result<bool, BlockError> {
        self.files.mend_meta(meta)
    }

    fn is_shared(&self) -> bool {
        self.files.is_shared()
    }

    fn damage(&self, id: BlockId) -> Option<String> {
        self.cache.damages().of(id)
    }

    fn list(&self) -> Result<Vec<(TenantId, BlockId)>, BlockError> {
        self.files.list()
    }
}

/// Blocks that are opened at once, where there are many to open: each waits for a request or three.
const PARALLEL_OPENINGS: usize = 8;

/// A block as snapshots hand it out: when it is retired, its files go with the last query that reads
/// it, not under its feet.
pub(crate) struct StoredBlock {
    tenant: TenantId,
    id: BlockId,
    source: Arc<dyn SpanSource>,
    blocks: Arc<dyn BlockStore>,
    /// Where to say that the files are gone, once the block is retired.
    retired: OnceLock<Arc<Gone>>,
}

/// What became of the files of blocks that nobody shall see any more.
#[derive(Default)]
pub(crate) struct Gone {
    /// Removed, and their keys in the catalog are not.
    removed: Mutex<Vec<(TenantId, BlockId)>>,
    /// Not removed yet, because that failed.
    left: Mutex<BTreeSet<(TenantId, BlockId)>>,
}

impl Gone {
    pub(crate) fn take(&self) -> Vec<(TenantId, BlockId)> {
        std::mem::take(&mut self.removed.lock())
    }

    /// What is left of a tenant's blocks.
    pub(crate) fn left(&self, tenant: &TenantId) -> Vec<BlockId> {
        self.left.lock().iter().filter(|(of, _)| of == tenant).map(|(_, id)| *id).collect()
    }

    /// Remembers what a start could not remove.
    pub(crate) fn leave(&self, left: impl IntoIterator<Item = (TenantId, BlockId)>) {
        self.left.lock().extend(left);
    }

    /// Has the catalog forget a block whose files stay, as others see it.
    pub(crate) fn give_up(&self, tenant: &TenantId, id: BlockId) {
        let name = (tenant.clone(), id);
        self.left.lock().remove(&name);
        self.removed.lock().push(name);
    }

    /// Removes a block's files, now or, when it fails, later.
    pub(crate) fn remove(&self, blocks: &dyn BlockStore, tenant: &TenantId, id: BlockId) {
        let name = (tenant.clone(), id);
        match blocks.remove(tenant, id) {
            Ok(()) => {
                self.left.lock().remove(&name);
                self.removed.lock().push(name);
            }
            Err(err) => {
                tracing::warn!(%tenant, block = %id, %err, "the files of a block cannot be removed; it is tried again");
                self.left.lock().insert(name);
            }
        }
    }
}

impl StoredBlock {
    pub(crate) fn open(blocks: &Arc<dyn BlockStore>, meta: &BlockMeta) -> Result<Self, BlockError> {
        Ok(Self {
            tenant: meta.tenant.clone(),
            id: meta.id,
            source: blocks.open(meta)?,
            blocks: Arc::clone(blocks),
            retired: OnceLock::new(),
        })
    }

    /// Opens blocks, some at a time, as they may lie far away; the results in the order of `metas`.
    pub(crate) fn open_all(blocks: &Arc<dyn BlockStore>, metas: &[&BlockMeta]) -> Vec<Result<Self, BlockError>> {
        let open = |metas: &[&BlockMeta]| metas.iter().map(|meta| Self::open(blocks, meta)).collect::<Vec<_>>();
        if metas.len() < PARALLEL_OPENINGS {
            return open(metas);
        }
        std::thread::scope(|scope| {
            let shares = metas.chunks(metas.len().div_ceil(PARALLEL_OPENINGS));
            let threads: Vec<_> = shares.map(|metas| scope.spawn(move || open(metas))).collect();
            threads.into_iter().flat_map(|thread| thread.join().expect("opening does not panic")).collect()
        })
    }

    /// What was found to be damaged.
    pub(crate) fn damage(&self) -> Option<String> {
        self.blocks.damage(self.id)
    }

    /// Has the files removed when the last reference goes.
    pub(crate) fn retire(&self, gone: &Arc<Gone>) {
        // Retiring again changes nothing.
        let _ = self.retired.set(Arc::clone(gone));
    }
}

impl Drop for StoredBlock {
    fn drop(&mut self) {
        if let Some(gone) = self.retired.get() {
            gone.remove(&*self.blocks, &self.tenant, self.id);
        }
    }
}

impl SpanSource for StoredBlock {
    fn describe(&self) -> String {
        self.source.describe()
    }

    fn range(&self) -> Option<TimeRange> {
        self.source.range()
    }

    fn span_count(&self) -> u64 {
        self.source.span_count()
    }

    fn scan<'a>(
        &'a self,
        request: &'a ColumnRequest,
        ctx: &QueryContext,
    ) -> Result<Box<dyn ColumnScan + 'a>, ScanError> {
        self.source.scan(request, ctx)
    }

    fn identity(&self) -> Option<BlockId> {
        self.source.identity()
    }

    fn may_hold(&self, id: TraceId) -> bool {
        self.source.may_hold(id)
    }

    fn trace_fingerprints(&self, ctx: &QueryContext) -> Result<Arc<[u32]>, ScanError> {
        self.source.trace_fingerprints(ctx)
    }

    fn find_trace(&self, id: TraceId, ctx: &QueryContext) -> Result<Vec<SpanEntry>, ScanError> {
        self.source.find_trace(id, ctx)
    }

    fn find_traces(&self, ids: &[TraceId], ctx: &QueryContext) -> Result<Vec<Vec<SpanEntry>>, ScanError> {
        self.source.find_traces(ids, ctx)
    }

    fn trace_range(&self, id: TraceId, ctx: &QueryContext) -> Result<Option<TimeRange>, ScanError> {
        self.source.trace_range(id, ctx)
    }

    fn keys(&self, ctx: &QueryContext, into: &mut KeySet) -> Result<ScanStats, ScanError> {
        self.source.keys(ctx, into)
    }

    fn values(&self, field: &Field, ctx: &QueryContext, into: &mut ValueSet) -> Result<ScanStats, ScanError> {
        self.source.values(field, ctx, into)
    }

    fn operations(&self, ctx: &QueryContext, into: &mut BTreeSet<Operation>) -> Result<ScanStats, ScanError> {
        self.source.operations(ctx, into)
    }
}
