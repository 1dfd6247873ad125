//! Cutting: a block from spans that are in memory, whole. `merge` makes one from more than that.

use std::fs;
use std::path::PathBuf;

use spoor_model::batch::SpanBatch;
use spoor_model::{BlockId, TenantId, UnixNano};

use crate::columns;
use crate::error::Error;
use crate::files::BlockFiles;
use crate::meta::BlockMeta;
use crate::order::{self, Order};
use crate::plan::{self, Role};
use crate::shape;
use crate::tables;
use crate::writer::{self, BlockWriter, Step};

/// How blocks are written. The defaults are measured (`benches/results/`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteOptions {
    /// Row groups end at the first trace end past this many rows.
    pub row_group_rows: usize,
    /// Rows per page: what a trace by id decodes at least, per column.
    pub page_rows: usize,
    /// 1 to 22.
    pub zstd_level: i32,
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self { row_group_rows: 131_072, page_rows: 4096, zstd_level: 3 }
    }
}

/// Writes the spans of `batches` as a block and publishes it: the block is whole or not there (a crash may
/// leave a staged `<id>.tmp`, which start-up removes).
///
/// Costs about 0.7 us of CPU per span and, beside the batches, about 60 bytes of memory per span.
///
/// # Panics
/// When there are no spans.
pub fn write(
    files: &dyn BlockFiles,
    id: BlockId,
    tenant: &TenantId,
    batches: &[&SpanBatch],
    created_at: UnixNano,
    options: &WriteOptions,
) -> Result<BlockMeta, Error> {
    assert!(batches.iter().any(|batch| !batch.is_empty()), "a block has spans");
    let order = order::order(batches);
    let merged = columns::merge(&[], batches);
    let shapes = shape::detect(batches, &merged, &order.rows, &[]);
    let has_explicit_parents = has_explicit_parents(batches, &order);
    let plan = plan::plan(batches, &merged, &shapes, &|role| role == Role::ParentSpanId && has_explicit_parents);

    let staged = Staged::create(files, tenant, id)?;
    let mut writer = BlockWriter::create(&staged.dir, &plan, options)?;
    writer.append(&Step {
        batches,
        merged: &merged,
        order: &order,
        residual_columns: &plan.residual,
        shape_of_row: &shapes.of_row,
    })?;
    let shapes = tables::spell_shapes(&shapes.values, |index| &merged[index].key);
    let meta = writer.finish(&shapes, id, tenant, created_at)?;
    staged.publish(files, &meta)?;
    Ok(meta)
}

/// Whether a span names a parent that no offset leads to.
pub(crate) fn has_explicit_parents(batches: &[&SpanBatch], order: &Order) -> bool {
    let mut rows = order.rows.iter().zip(&order.parent_offset);
    rows.any(|(at, offset)| *offset == 0 && !batches[at.batch as usize].parent()[at.row as usize].is_zero())
}

impl WriteOptions {
    /// For merges: what is read for days may cost more to write. Against level 3 a span takes 1.6 % less room.
    pub fn merged() -> Self {
        Self { zstd_level: 6, ..Self::default() }
    }
}

/// The directory in which a block is built. Removed when dropped, unless it was published.
pub(crate) struct Staged {
    pub(crate) dir: PathBuf,
}

impl Staged {
    /// An empty directory.
    pub(crate) fn create(files: &dyn BlockFiles, tenant: &TenantId, id: BlockId) -> Result<Self, Error> {
        let dir = files.staging(tenant)?.join(format!("{id}.tmp"));
        if dir.exists() {
            fs::remove_dir_all(&dir).map_err(|err| Error::io("remove", &dir, &err))?;
        }
        fs::create_dir_all(&dir).map_err(|err| Error::io("create", &dir, &err))?;
        Ok(Self { dir })
    }

    /// Adds the meta to the files and publishes them.
    pub(crate) fn publish(self, files: &dyn BlockFiles, meta: &BlockMeta) -> Result<(), Error> {
        writer::write_file(&self.dir, "meta.json", &meta.to_json())?;
        files.publish(&meta.tenant, meta.id)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // Best effort: publishing takes the directory away, and start-up removes what is left.
        let _ = fs::remove_dir_all(&self.dir);
    }
}
