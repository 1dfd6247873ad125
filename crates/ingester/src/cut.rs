//! The cut thread: a frozen head becomes a block.
//!
//! ```text
//!   1  catalog   unpublished/<tenant>/<id>            synced: a crash from here on leaves garbage with a name
//!   2  blocks    <tenant>/<id>.tmp -> <tenant>/<id>   synced by the block's writer, opened once as a check
//!   3  catalog   block, trimmed, log range deleted    ONE synced write: the instant
//!   4  memory    frozen head -> block                 under the tenant's lock
//!   5  store     memtable dropped
//! ```
//!
//! A crash before 3 finds the requests in the log, and the block or not: if it is whole, the start does 3, else it removes
//! what there is. After 3 it finds the block. When 2 or 3 fails it is not known whether it happened, so a retry repeats
//! it with the same block and never makes another: then both outcomes lead to the same state, also for
//! others who have seen the block meanwhile.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use spoor_block::{BlockMeta, Error as BlockError};
use spoor_model::batch::SpanBatch;
use spoor_model::{BlockId, Clock};

use crate::blocks::{BlockStore, StoredBlock};
use crate::catalog;
use crate::head_memory::HeadMemory;
use crate::metrics::{Metrics, seconds};
use crate::store::{Durability, Store};
use crate::tenant::{Frozen, Tenant};

/// The first wait after a failed cut; it doubles.
const RETRY_WAIT: Duration = Duration::from_secs(1);
/// The longest wait between tries.
const RETRY_WAIT_MAX: Duration = Duration::from_secs(32);

#[derive(Default)]
struct Jobs {
    /// Oldest first; the first is in work.
    waiting: VecDeque<Arc<Frozen>>,
    /// Try again now, whatever the wait.
    is_kicked: bool,
    /// End when everything is cut or has failed once more.
    is_closing: bool,
    /// End now.
    is_abandoned: bool,
    failing: Option<String>,
}

/// The queue of frozen heads and what it takes to make blocks of them.
pub(crate) struct Cutter {
    jobs: Mutex<Jobs>,
    changed: Condvar,
    store: Arc<dyn Store>,
    blocks: Arc<dyn BlockStore>,
    clock: Arc<dyn Clock>,
    memory: Arc<HeadMemory>,
    metrics: Metrics,
    ids: BlockIds,
}

/// New block names: the clock, and entropy that no two processes share.
pub(crate) struct BlockIds {
    state: Mutex<u128>,
}

impl BlockIds {
    pub(crate) fn new(seed: u128) -> Self {
        Self { state: Mutex::new(seed) }
    }

    fn next(&self, clock: &dyn Clock) -> BlockId {
        let mut state = self.state.lock();
        *state = state.wrapping_add(1);
        let spread = u128::from(xxhash_rust::xxh3::xxh3_64(&state.to_le_bytes()));
        BlockId::from_parts(clock.now(), spread << 16 ^ *state & 0xffff)
    }
}

impl Cutter {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        blocks: Arc<dyn BlockStore>,
        clock: Arc<dyn Clock>,
        memory: Arc<HeadMemory>,
        metrics: Metrics,
        ids: BlockIds,
    ) -> Self {
        let (jobs, changed) = (Mutex::default(), Condvar::new());
        Self { jobs, changed, store, blocks, clock, memory, metrics, ids }
    }

    /// Hands over a frozen head. Their number is bounded by the memory that they hold.
    pub(crate) fn enqueue(&self, frozen: Arc<Frozen>) {
        let mut jobs = self.jobs.lock();
        jobs.waiting.push_back(frozen);
        self.metrics.heads_waiting.set(jobs.waiting.len() as i64);
        self.changed.notify_all();
    }

    /// Why the oldest head cannot be cut, while it cannot.
    pub(crate) fn failing(&self) -> Option<String> {
        self.jobs.lock().failing.clone()
    }

    /// How many heads are being cut or wait for it.
    pub(crate) fn waiting_count(&self) -> usize {
        self.jobs.lock().waiting.len()
    }

    /// Tries a failed cut again without waiting.
    pub(crate) fn kick(&self) {
        self.jobs.lock().is_kicked = true;
        self.changed.notify_all();
    }

    /// Has the thread end when everything is cut or has failed once more.
    pub(crate) fn close(&self) {
        self.jobs.lock().is_closing = true;
        self.changed.notify_all();
    }

    /// Has the thread end at once; what is not cut is in the log.
    pub(crate) fn abandon(&self) {
        self.jobs.lock().is_abandoned = true;
        self.changed.notify_all();
    }

    /// Runs until closed or abandoned.
    pub(crate) fn run(&self) {
        while let Some(frozen) = self.next_job() {
            let outcome = catch_unwind(AssertUnwindSafe(|| self.cut(&frozen)));
            let outcome =
                outcome.unwrap_or_else(|_| Err("the block writer panicked; the log has the place".to_owned()));
            let may_go_on = match outcome {
                Ok(()) => self.succeeded(&frozen),
                Err(reason) => self.failed(&frozen, &reason),
            };
            if !may_go_on {
                return;
            }
        }
    }

    fn next_job(&self) -> Option<Arc<Frozen>> {
        let mut jobs = self.jobs.lock();
        loop {
            if jobs.is_abandoned {
                return None;
            }
            if let Some(frozen) = jobs.waiting.front() {
                return Some(Arc::clone(frozen));
            }
            if jobs.is_closing {
                return None;
            }
            self.changed.wait(&mut jobs);
        }
    }

    fn succeeded(&self, frozen: &Arc<Frozen>) -> bool {
        let mut jobs = self.jobs.lock();
        jobs.waiting.pop_front();
        jobs.failing = None;
        jobs.is_kicked = false;
        self.metrics.heads_waiting.set(jobs.waiting.len() as i64);
        drop(jobs);
        frozen.succeed();
        true
    }

    /// Lets other tenants' heads go first, then waits before the next try; `false` when there is to be
    /// none. A tenant's own heads keep their order.
    fn failed(&self, frozen: &Arc<Frozen>, reason: &str) -> bool {
        self.metrics.cut_failures.inc();
        tracing::error!(tenant = %frozen.tenant.id, reason, "a head cannot be cut; it stays in memory and in the log");
        let mut jobs = self.jobs.lock();
        jobs.failing = Some(reason.to_owned());
        let all = std::mem::take(&mut jobs.waiting);
        let (own, others): (VecDeque<_>, VecDeque<_>) =
            all.into_iter().partition(|other| other.tenant.id == frozen.tenant.id);
        jobs.waiting = others;
        if jobs.is_closing {
            // They are in the log, and their turn comes after the next start.
            own.iter().for_each(|left| left.fail(reason));
            return true;
        }
        frozen.fail(reason);
        let doublings = frozen.failures().min(6) - 1;
        jobs.waiting.extend(own);
        let next_has_failed = jobs.waiting.front().is_some_and(|next| next.failures() > 0);
        if next_has_failed && !jobs.is_kicked && !jobs.is_abandoned {
            let wait = RETRY_WAIT_MAX.min(RETRY_WAIT * (1 << doublings));
            self.changed.wait_for(&mut jobs, wait);
        }
        jobs.is_kicked = false;
        !jobs.is_abandoned
    }

    fn cut(&self, frozen: &Arc<Frozen>) -> Result<(), String> {
        let began = self.clock.now();
        let (meta, block) = match frozen.written() {
            Some(written) => written,
            None => self.write(frozen)?,
        };
        let publish = catalog::publish(&meta, frozen.last);
        self.store.write(&publish, Durability::Synced).map_err(|err| format!("publish {}: {err}", meta.id))?;
        let tenant = &frozen.tenant;
        let (size_bytes, span_count) = (meta.size_bytes, meta.span_count);
        tracing::info!(tenant = %tenant.id, block = %meta.id, spans = span_count, bytes = size_bytes, "block cut");
        tenant.publish(frozen, meta, block);
        let held = self.memory.release(frozen.memory_bytes, frozen.span_count);
        self.metrics.head_bytes.set(held.bytes as i64);
        self.metrics.head_spans.set(held.spans as i64);
        self.metrics.blocks_cut.inc();
        self.metrics.block_bytes.inc_by(size_bytes);
        self.metrics.block_spans.inc_by(span_count);
        self.metrics.set_blocks(&tenant.id, tenant.block_count());
        if let Err(err) = self.store.reclaim() {
            // Only space and memory are at stake; the next cut tries again.
            tracing::warn!(%err, "the log's space is not given back yet");
        }
        self.metrics.cut_seconds.observe(seconds(self.clock.now().since(began)));
        Ok(())
    }

    /// A name that no block of the tenant has. Equal names are out of reach by chance, and worth a look
    /// all the same: the second block would replace the first.
    pub(crate) fn new_id(&self, tenant: &Tenant) -> BlockId {
        loop {
            let id = self.ids.next(&*self.clock);
            if !tenant.has_block(id) {
                return id;
            }
        }
    }

    /// Writes the block and opens it: what cannot be read back must not replace the log.
    ///
    /// All tries make the same block: one that failed may have made it, and others may have seen it and merged it.
    fn write(&self, frozen: &Arc<Frozen>) -> Result<(BlockMeta, Arc<StoredBlock>), String> {
        let tenant = &frozen.tenant.id;
        let (id, found) = match frozen.named() {
            Some(id) => (id, self.blocks.find(tenant, id).map_err(|err| err.to_string())?),
            None => (self.name(frozen)?, None),
        };
        let written = match found {
            Some(meta) => Ok(meta),
            None => self.write_block(frozen, id),
        };
        let opened = written.and_then(|mut meta| {
            frozen.tenant.share(&mut meta);
            let block = StoredBlock::open(&self.blocks, &meta)?;
            Ok((meta, Arc::new(block)))
        });
        let (meta, block) = opened.map_err(|err| {
            if matches!(err, BlockError::Corrupt { .. } | BlockError::Version { .. }) {
                self.discard(frozen, id);
            }
            err.to_string()
        })?;
        let BlockMeta { span_count, copy_count, .. } = meta;
        if span_count + copy_count != frozen.span_count {
            let rows = frozen.span_count;
            return Err(format!("block {id} has {span_count} spans and left out {copy_count}, its head has {rows}"));
        }
        frozen.set_written(meta.clone(), Arc::clone(&block));
        Ok((meta, block))
    }

    /// Gives the block a name, which is in the catalog before anything is made under it.
    fn name(&self, frozen: &Arc<Frozen>) -> Result<BlockId, String> {
        let (tenant, id) = (&frozen.tenant.id, self.new_id(&frozen.tenant));
        let announce = [catalog::announce_cut(tenant, id, frozen.last)];
        self.store.write(&announce, Durability::Synced).map_err(|err| format!("announce {id}: {err}"))?;
        frozen.set_named(Some(id));
        Ok(id)
    }

    fn write_block(&self, frozen: &Arc<Frozen>, id: BlockId) -> Result<BlockMeta, BlockError> {
        let segments: Vec<_> = frozen.segments.iter().map(|segment| segment.read()).collect();
        let batches: Vec<&SpanBatch> = segments.iter().map(|segment| &**segment).collect();
        let rows: u64 = batches.iter().map(|batch| batch.len() as u64).sum();
        assert_eq!(rows, frozen.span_count, "a frozen head does not change");
        self.blocks.write(&frozen.tenant.id, id, &batches, self.clock.now())
    }

    /// Removes a block that cannot be used, so that the next try makes another. When that fails, it tries this one again.
    fn discard(&self, frozen: &Arc<Frozen>, id: BlockId) {
        let tenant = &frozen.tenant.id;
        if self.blocks.remove(tenant, id).is_ok() {
            frozen.set_named(None);
            let _ = self.store.write(&[catalog::forget(tenant, id)], Durability::Buffered);
        }
    }
}
