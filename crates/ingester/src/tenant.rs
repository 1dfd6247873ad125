//! What a tenant has: a head, heads that are being cut, blocks. One lock makes them one instant.
//!
//! ```text
//!   head thread        cut thread          merge     remove_blocks
//!      |  append          |  write the block |          |
//!      v                  v                  v          v
//!    head --freeze--> cutting --publish--> blocks --retire--> (files go with the last reader)
//!                                           ^   |
//!                                           '---' replace: the merged in, what they were merged from out
//! ```
//!
//! **Invariant:** each arrow is one step under [`Tenant`]'s lock, the lock that a snapshot takes, so
//! every acknowledged span is in exactly one of the three in every snapshot.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, RwLock};
use spoor_block::BlockMeta;
use spoor_model::scan::{Skipped, Snapshot, SpanSource};
use spoor_model::{BlockId, TenantId, TraceId};

use crate::blocks::StoredBlock;
use crate::deleted::Without;
use crate::head::{Head, Segment};
use crate::record::Sequence;

/// Among so many blocks is looked for one with the same columns.
pub(crate) const SHARE_LOOKS: usize = 32;

/// A block of the catalog, open or not.
#[derive(Clone)]
pub(crate) struct CatalogBlock {
    pub(crate) meta: BlockMeta,
    /// The block, or why queries must do without it.
    pub(crate) source: Result<Arc<StoredBlock>, Skipped>,
    /// Traces whose spans in this block are not to be shown.
    pub(crate) deleted: Arc<BTreeSet<TraceId>>,
    /// Of the merge that reads it: then nobody else may take it out.
    pub(crate) claim: Option<Arc<Claim>>,
}

/// What a merge holds its inputs by.
#[derive(Debug, Default)]
pub(crate) struct Claim {
    /// An input lost a trace: what the merge writes must not be used.
    pub(crate) is_void: AtomicBool,
    /// The catalog may or may not have the new blocks already; a retry settles it.
    pub(crate) is_in_doubt: AtomicBool,
}

impl CatalogBlock {
    pub(crate) fn new(meta: BlockMeta, source: Result<Arc<StoredBlock>, Skipped>) -> Self {
        Self { meta, source, deleted: Arc::default(), claim: None }
    }

    /// Why queries must do without it, or may have to.
    pub(crate) fn trouble(&self) -> Option<String> {
        match &self.source {
            Ok(stored) => stored.damage(),
            Err(skipped) => Some(skipped.reason.clone()),
        }
    }

    /// What queries see of it.
    fn shown(&self) -> Result<Arc<dyn SpanSource>, Skipped> {
        let source = Arc::clone(self.source.as_ref().map_err(Clone::clone)?) as Arc<dyn SpanSource>;
        match self.deleted.is_empty() {
            true => Ok(source),
            false => Ok(Arc::new(Without::new(source, Arc::clone(&self.deleted)))),
        }
    }
}

/// A head that takes no more spans and is on its way into a block.
pub(crate) struct Frozen {
    pub(crate) tenant: Arc<Tenant>,
    pub(crate) segments: Vec<Arc<Segment>>,
    /// The last request in it. All of the tenant's requests up to it are here or in blocks.
    pub(crate) last: Sequence,
    pub(crate) span_count: u64,
    pub(crate) memory_bytes: usize,
    progress: Mutex<Progress>,
    moved: Condvar,
}

#[derive(Default)]
struct Progress {
    is_done: bool,
    failures: u32,
    reason: String,
    /// The name of the block: a try that failed may have made it all the same, and others may have seen it.
    named: Option<BlockId>,
    /// The block, once it is written, until the catalog has it: a retry must not write another, for the
    /// catalog may have this one already.
    written: Option<(BlockMeta, Arc<StoredBlock>)>,
}

impl Frozen {
    /// The block that an earlier try has written.
    pub(crate) fn written(&self) -> Option<(BlockMeta, Arc<StoredBlock>)> {
        self.progress.lock().written.clone()
    }

    /// The name that the block has, since the first try.
    pub(crate) fn named(&self) -> Option<BlockId> {
        self.progress.lock().named
    }

    pub(crate) fn set_named(&self, id: Option<BlockId>) {
        self.progress.lock().named = id;
    }

    pub(crate) fn set_written(&self, meta: BlockMeta, block: Arc<StoredBlock>) {
        self.progress.lock().written = Some((meta, block));
    }

    pub(crate) fn succeed(&self) {
        let mut progress = self.progress.lock();
        progress.is_done = true;
        progress.written = None;
        self.moved.notify_all();
    }

    pub(crate) fn fail(&self, reason: &str) {
        let mut progress = self.progress.lock();
        progress.failures += 1;
        progress.reason = reason.to_owned();
        self.moved.notify_all();
    }

    /// Whether it is a block.
    pub(crate) fn is_done(&self) -> bool {
        self.progress.lock().is_done
    }

    /// Why the last try failed.
    pub(crate) fn reason(&self) -> String {
        self.progress.lock().reason.clone()
    }

    /// How often the cut has failed so far.
    pub(crate) fn failures(&self) -> u32 {
        self.progress.lock().failures
    }

    /// Waits until the head is a block, or for a failure after the first `failures_before`.
    pub(crate) fn wait(&self, failures_before: u32) -> Result<(), String> {
        let mut progress = self.progress.lock();
        loop {
            if progress.is_done {
                return Ok(());
            }
            if progress.failures > failures_before {
                return Err(progress.reason.clone());
            }
            self.moved.wait_for(&mut progress, Duration::from_secs(1));
        }
    }
}

#[derive(Default)]
struct Parts {
    head: Vec<Arc<Segment>>,
    cutting: Vec<Arc<Frozen>>,
    /// Newest end first.
    blocks: Vec<CatalogBlock>,
    /// Catalog entries that do not even have a meta.
    unreadable: Vec<Skipped>,
    /// Blocks of others that could not come into the catalog.
    lacking: Vec<Skipped>,
}

/// One tenant.
pub(crate) struct Tenant {
    pub(crate) id: TenantId,
    parts: RwLock<Parts>,
    /// Held while blocks are taken out, exchanged or lose a trace, from the look at them over the write to the catalog
    /// to the change here: one such step at a time. Cuts only add, and need it not.
    pub(crate) exchange: Mutex<()>,
}

impl Tenant {
    fn new(id: TenantId) -> Self {
        Self { id, parts: RwLock::default(), exchange: Mutex::default() }
    }

    /// Everything at one instant: the head, those being cut included, then blocks, newest first.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let parts = self.parts.read();
        let mut snapshot = Snapshot { sources: Vec::new(), skipped: [&*parts.unreadable, &parts.lacking].concat() };
        let cutting = parts.cutting.iter().flat_map(|frozen| &frozen.segments);
        let head = Head::new(cutting.chain(&parts.head).cloned().collect());
        snapshot.sources.extend(head.map(|head| Arc::new(head) as Arc<dyn SpanSource>));
        for block in &parts.blocks {
            match block.shown() {
                Ok(source) => snapshot.sources.push(source),
                Err(skipped) => snapshot.skipped.push(skipped),
            }
        }
        snapshot
    }

    /// Makes a segment visible; the head thread appends to it from now on.
    pub(crate) fn add_segment(&self, segment: Arc<Segment>) {
        self.parts.write().head.push(segment);
    }

    /// Turns the head into a frozen one.
    pub(crate) fn freeze(self: &Arc<Self>, last: Sequence, span_count: u64, memory_bytes: usize) -> Arc<Frozen> {
        let mut parts = self.parts.write();
        let segments = std::mem::take(&mut parts.head);
        assert!(!segments.is_empty(), "only heads with spans are frozen");
        segments.iter().for_each(|segment| segment.seal());
        assert!(parts.cutting.last().is_none_or(|before| before.last < last), "heads are frozen in order");
        let frozen = Arc::new(Frozen {
            tenant: Arc::clone(self),
            segments,
            last,
            span_count,
            memory_bytes,
            progress: Mutex::default(),
            moved: Condvar::new(),
        });
        parts.cutting.push(Arc::clone(&frozen));
        frozen
    }

    /// Puts the block in the place of the frozen head it was made from.
    pub(crate) fn publish(&self, frozen: &Arc<Frozen>, meta: BlockMeta, block: Arc<StoredBlock>) {
        let mut parts = self.parts.write();
        let place = parts.cutting.iter().position(|other| Arc::ptr_eq(other, frozen));
        assert_eq!(place, Some(0), "heads are cut in the order of their freezing");
        parts.cutting.remove(0);
        parts.insert(CatalogBlock::new(meta, Ok(block)));
    }

    /// The frozen heads that are not blocks yet.
    pub(crate) fn cutting(&self) -> Vec<Arc<Frozen>> {
        self.parts.read().cutting.clone()
    }

    /// Has a block that is to come share what it has in common with one of the latest.
    pub(crate) fn share(&self, meta: &mut BlockMeta) {
        let parts = self.parts.read();
        let _ = parts.blocks.iter().take(SHARE_LOOKS).any(|block| meta.share_columns(&block.meta));
    }

    /// Adds a block of the catalog at start.
    pub(crate) fn add_block(&self, block: CatalogBlock) {
        self.parts.write().insert(block);
    }

    /// Adds a catalog entry that cannot be read.
    pub(crate) fn add_unreadable(&self, skipped: Skipped) {
        self.parts.write().unreadable.push(skipped);
    }

    /// Says which blocks of others cannot come into the catalog.
    pub(crate) fn set_lacking(&self, lacking: Vec<Skipped>) {
        self.parts.write().lacking = lacking;
    }

    /// What the catalog knows of the tenant's blocks, newest end first.
    pub(crate) fn blocks(&self) -> Vec<BlockMeta> {
        self.parts.read().blocks.iter().map(|block| block.meta.clone()).collect()
    }

    /// The tenant's blocks with all that is known of them, newest end first.
    pub(crate) fn catalog_blocks(&self) -> Vec<CatalogBlock> {
        self.parts.read().blocks.clone()
    }

    /// Claims blocks for a merge, all of them or none: only such as are there, readable and unclaimed. A block that
    /// lost a trace is claimed alone, for only alone is it known whose spans are to be left out.
    pub(crate) fn claim(&self, ids: &[BlockId]) -> Option<(Arc<Claim>, Vec<CatalogBlock>)> {
        let mut parts = self.parts.write();
        let is_free = |block: &&mut CatalogBlock| {
            let is_whole = ids.len() == 1 || block.deleted.is_empty();
            ids.contains(&block.meta.id) && block.claim.is_none() && block.source.is_ok() && is_whole
        };
        let mut claimed: Vec<&mut CatalogBlock> = parts.blocks.iter_mut().filter(is_free).collect();
        if claimed.len() != ids.len() {
            return None;
        }
        let claim = Arc::<Claim>::default();
        claimed.iter_mut().for_each(|block| block.claim = Some(Arc::clone(&claim)));
        Some((claim, claimed.into_iter().map(|block| block.clone()).collect()))
    }

    /// Gives claimed blocks back.
    pub(crate) fn release(&self, ids: &[BlockId]) {
        let mut parts = self.parts.write();
        let claimed = parts.blocks.iter_mut().filter(|block| ids.contains(&block.meta.id));
        claimed.for_each(|block| block.claim = None);
    }

    /// Hides a trace in these blocks, in snapshots to come.
    pub(crate) fn hide(&self, trace: TraceId, ids: &[BlockId]) {
        let mut parts = self.parts.write();
        for block in parts.blocks.iter_mut().filter(|block| ids.contains(&block.meta.id)) {
            Arc::make_mut(&mut block.deleted).insert(trace);
        }
    }

    /// Puts merged blocks in the place of what they were merged from, in one step.
    pub(crate) fn replace(&self, old: &[BlockId], new: Vec<CatalogBlock>) -> Vec<CatalogBlock> {
        let mut parts = self.parts.write();
        let taken = parts.take(old);
        new.into_iter().for_each(|block| parts.insert(block));
        taken
    }

    /// The blocks that queries must do without.
    pub(crate) fn unopened_blocks(&self) -> Vec<BlockMeta> {
        let parts = self.parts.read();
        parts.blocks.iter().filter(|block| block.source.is_err()).map(|block| block.meta.clone()).collect()
    }

    /// Shows a block that could not be opened before.
    pub(crate) fn set_opened(&self, id: BlockId, opened: Arc<StoredBlock>) {
        let mut parts = self.parts.write();
        if let Some(block) = parts.blocks.iter_mut().find(|block| block.meta.id == id && block.source.is_err()) {
            block.source = Ok(opened);
        }
    }

    pub(crate) fn has_block(&self, id: BlockId) -> bool {
        self.parts.read().blocks.iter().any(|block| block.meta.id == id)
    }

    pub(crate) fn block_count(&self) -> usize {
        self.parts.read().blocks.len()
    }

    /// How many blocks or entries queries must do without.
    pub(crate) fn skipped_count(&self) -> usize {
        let parts = self.parts.read();
        parts.unreadable.len()
            + parts.lacking.len()
            + parts.blocks.iter().filter(|block| block.trouble().is_some()).count()
    }

    /// Takes blocks out; snapshots made from now on are without them.
    pub(crate) fn take_blocks(&self, ids: &[BlockId]) -> Vec<CatalogBlock> {
        self.parts.write().take(ids)
    }
}

impl Parts {
    fn take(&mut self, ids: &[BlockId]) -> Vec<CatalogBlock> {
        let all = std::mem::take(&mut self.blocks);
        let (taken, kept) = all.into_iter().partition(|block| ids.contains(&block.meta.id));
        self.blocks = kept;
        taken
    }

    fn insert(&mut self, block: CatalogBlock) {
        let place = self.blocks.partition_point(|other| other.meta.range.end > block.meta.range.end);
        self.blocks.insert(place, block);
    }
}

/// All tenants that were ever heard of.
#[derive(Default)]
pub(crate) struct Tenants {
    map: RwLock<BTreeMap<TenantId, Arc<Tenant>>>,
}

impl Tenants {
    pub(crate) fn get(&self, id: &TenantId) -> Option<Arc<Tenant>> {
        self.map.read().get(id).cloned()
    }

    pub(crate) fn get_or_add(&self, id: &TenantId) -> Arc<Tenant> {
        if let Some(tenant) = self.get(id) {
            return tenant;
        }
        let mut map = self.map.write();
        Arc::clone(map.entry(id.clone()).or_insert_with(|| Arc::new(Tenant::new(id.clone()))))
    }

    /// Ascending by name.
    pub(crate) fn all(&self) -> Vec<Arc<Tenant>> {
        self.map.read().values().cloned().collect()
    }
}
