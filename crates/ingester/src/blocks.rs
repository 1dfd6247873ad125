//! Where blocks lie: what the ingester needs of a directory full of them.
//!
//! Two implementations: [`DirectoryBlocks`], which is the product, and a map in memory with gates and
//! faults, for tests.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use spoor_block::{Block, BlockCache, BlockMeta, Error as BlockError, WriteOptions};
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

    /// Opens a block.
    fn open(&self, meta: &BlockMeta) -> Result<Arc<dyn SpanSource>, BlockError>;

    /// Removes a block and what an interrupted write of it left. Nothing there: nothing happens.
    fn remove(&self, tenant: &TenantId, id: BlockId) -> Result<(), BlockError>;

    /// Every block there is, whole or not, known to the catalog or not.
    fn list(&self) -> Result<Vec<(TenantId, BlockId)>, BlockError>;
}

/// Blocks in `<root>/<tenant>/<block id>/`.
pub struct DirectoryBlocks {
    root: PathBuf,
    options: WriteOptions,
    cache: Arc<BlockCache>,
}

fn io(action: &'static str, path: &Path, err: &std::io::Error) -> BlockError {
    let is_full = matches!(err.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded);
    BlockError::Io { action, path: path.display().to_string(), reason: err.to_string(), is_full }
}

impl DirectoryBlocks {
    /// Blocks under `root`, which must exist; what queries open is kept in `cache`.
    pub fn new(root: PathBuf, options: WriteOptions, cache: Arc<BlockCache>) -> Self {
        Self { root, options, cache }
    }

    fn tenant_dir(&self, tenant: &TenantId) -> PathBuf {
        self.root.join(tenant.as_str())
    }

    /// Makes a tenant's directory, durably.
    fn make_tenant_dir(&self, tenant: &TenantId) -> Result<PathBuf, BlockError> {
        let dir = self.tenant_dir(tenant);
        if !dir.is_dir() {
            std::fs::create_dir_all(&dir).map_err(|err| io("create", &dir, &err))?;
            let sync = std::fs::File::open(&self.root).and_then(|root| root.sync_all());
            sync.map_err(|err| io("sync", &self.root, &err))?;
        }
        Ok(dir)
    }
}

/// The names in a directory; none when there is no directory.
fn names(dir: &Path) -> Result<Vec<String>, BlockError> {
    let entries = match std::fs::read_dir(dir) {
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|err| io("read", dir, &err))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|err| io("read", dir, &err))?;
        names.extend(entry.file_name().into_string().ok());
    }
    Ok(names)
}

impl BlockStore for DirectoryBlocks {
    fn write(
        &self,
        tenant: &TenantId,
        id: BlockId,
        batches: &[&SpanBatch],
        created_at: UnixNano,
    ) -> Result<BlockMeta, BlockError> {
        let dir = self.make_tenant_dir(tenant)?;
        spoor_block::write(&dir, id, tenant, batches, created_at, &self.options)
    }

    fn open(&self, meta: &BlockMeta) -> Result<Arc<dyn SpanSource>, BlockError> {
        Ok(Arc::new(Block::open(&self.tenant_dir(&meta.tenant), meta.clone(), &self.cache)?))
    }

    fn remove(&self, tenant: &TenantId, id: BlockId) -> Result<(), BlockError> {
        let dir = self.tenant_dir(tenant);
        for name in [format!("{id}.tmp"), id.to_string()] {
            let path = dir.join(name);
            match std::fs::remove_dir_all(&path) {
                Err(err) if err.kind() != std::io::ErrorKind::NotFound => return Err(io("remove", &path, &err)),
                _ => {}
            }
        }
        Ok(())
    }

    fn list(&self) -> Result<Vec<(TenantId, BlockId)>, BlockError> {
        let mut found = BTreeSet::new();
        for tenant in names(&self.root)?.iter().filter_map(|name| TenantId::parse(name).ok()) {
            for name in names(&self.tenant_dir(&tenant))? {
                let name = name.strip_suffix(".tmp").unwrap_or(&name);
                found.extend(BlockId::parse(name).map(|id| (tenant.clone(), id)));
            }
        }
        Ok(found.into_iter().collect())
    }
}

/// A block as snapshots hand it out: when it is retired, its files go with the last query that reads
/// it, not under its feet.
pub(crate) struct StoredBlock {
    tenant: TenantId,
    id: BlockId,
    source: Arc<dyn SpanSource>,
    blocks: Arc<dyn BlockStore>,
    is_retired: AtomicBool,
}

impl StoredBlock {
    pub(crate) fn open(blocks: &Arc<dyn BlockStore>, meta: &BlockMeta) -> Result<Self, BlockError> {
        Ok(Self {
            tenant: meta.tenant.clone(),
            id: meta.id,
            source: blocks.open(meta)?,
            blocks: Arc::clone(blocks),
            is_retired: AtomicBool::new(false),
        })
    }

    /// Has the files removed when the last reference goes.
    pub(crate) fn retire(&self) {
        self.is_retired.store(true, Ordering::Release);
    }
}

impl Drop for StoredBlock {
    fn drop(&mut self) {
        if !self.is_retired.load(Ordering::Acquire) {
            return;
        }
        if let Err(err) = self.blocks.remove(&self.tenant, self.id) {
            tracing::warn!(tenant = %self.tenant, block = %self.id, %err, "files of a retired block stay until restart");
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
