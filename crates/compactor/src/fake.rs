//! An owner of blocks that are only names, and a clock that a test moves.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use spoor_block::{BlockMeta, Merged, Progress};
use spoor_model::{BlockId, Clock, TenantId, UnixNano};

use crate::owner::{BlockOwner, Listed, MergeBounds, MergeError};

/// A clock that the test moves.
pub(crate) struct HandClock(pub(crate) AtomicU64);

impl HandClock {
    pub(crate) fn at(nanos: u64) -> Self {
        Self(AtomicU64::new(nanos))
    }
}

impl Clock for HandClock {
    fn now(&self) -> UnixNano {
        UnixNano(self.0.load(Ordering::Relaxed))
    }
}

/// A meta and what is different about it.
pub(crate) fn with(mut meta: BlockMeta, change: impl FnOnce(&mut BlockMeta)) -> BlockMeta {
    change(&mut meta);
    meta
}

/// Blocks without files. The tenant `stuck` lets nothing go.
#[derive(Default)]
pub(crate) struct FakeOwner {
    blocks: Mutex<BTreeMap<TenantId, Vec<Listed>>>,
    pub(crate) is_pressed: AtomicBool,
    /// What the next merges come to, instead of succeeding.
    pub(crate) failures: Mutex<Vec<MergeError>>,
    /// What merges were asked for.
    pub(crate) merges: Mutex<Vec<(Vec<BlockId>, MergeBounds)>>,
}

impl FakeOwner {
    pub(crate) fn add(&self, meta: BlockMeta) {
        let listed = Listed { is_readable: true, is_merging: false, has_deletions: false, meta };
        self.add_listed(listed);
    }

    pub(crate) fn add_listed(&self, listed: Listed) {
        self.blocks.lock().entry(listed.meta.tenant.clone()).or_default().push(listed);
    }
}

impl BlockOwner for FakeOwner {
    fn tenants(&self) -> Vec<TenantId> {
        self.blocks.lock().keys().cloned().collect()
    }

    fn blocks(&self, tenant: &TenantId) -> Vec<Listed> {
        self.blocks.lock()[tenant].clone()
    }

    fn remove(&self, tenant: &TenantId, ids: &[BlockId]) -> Result<usize, String> {
        if tenant.as_str() == "stuck" {
            return Err("no space left on device".to_owned());
        }
        let mut all = self.blocks.lock();
        let blocks = all.get_mut(tenant).unwrap();
        let before = blocks.len();
        blocks.retain(|block| !ids.contains(&block.meta.id));
        Ok(before - blocks.len())
    }

    fn merge(
        &self,
        tenant: &TenantId,
        inputs: &[BlockId],
        bounds: &MergeBounds,
        watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Merged, MergeError> {
        self.merges.lock().push((inputs.to_vec(), bounds.clone()));
        if let Some(failure) = self.failures.lock().pop() {
            return Err(failure);
        }
        let is_input = |block: &Listed| inputs.contains(&block.meta.id);
        let merged: Vec<BlockMeta> = self.blocks(tenant).into_iter().filter(is_input).map(|block| block.meta).collect();
        assert_eq!(merged.len(), inputs.len());
        let span_count = merged.iter().map(|meta| meta.span_count).sum();
        for step in 0..10 {
            if watch(Progress { spans_written: span_count * step / 10, span_count, io_bytes: 1000 * step }).is_break() {
                return Err(MergeError::Cancelled);
            }
        }
        self.remove(tenant, inputs).map_err(|reason| MergeError::Failed { reason, culprit: None })?;
        let meta = with(merged[0].clone(), |meta| {
            meta.id = BlockId(merged.iter().map(|meta| meta.id.0).max().unwrap() << 16);
            meta.range = merged.iter().map(|meta| meta.range).reduce(|a, b| a.union(&b)).unwrap();
            meta.merge_level += 1;
            meta.span_count = span_count;
        });
        self.add(meta.clone());
        let (spans_read, spans_written) = (span_count, span_count);
        Ok(Merged {
            blocks: vec![meta],
            spans_read,
            spans_written,
            copies_dropped: 0,
            spans_left_out: 0,
            io_bytes: 9000,
        })
    }

    fn is_pressed(&self) -> bool {
        self.is_pressed.load(Ordering::Relaxed)
    }
}
