//! Deleted traces, for the other processes on a store: an empty object per block and trace, until the block is rewritten.
//!
//! ```text
//!   <tenant>/@deleted/<block id>/<trace id>
//! ```
//!
//! The prefix sorts behind all block ids, so that a listing from any block on has all of them at no further cost.

use std::collections::BTreeSet;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectMeta, PutMode};
use spoor_block::Error;
use spoor_model::{BlockId, TenantId, TraceId};

use super::files::ObjectFiles;

const DELETED: &str = "@deleted";

/// Traces whose spans in a block are not to be shown; what replaces the block is another block.
pub type Deletions = BTreeSet<(BlockId, TraceId)>;

fn deletion_path(tenant: &TenantId, block: BlockId, trace: TraceId) -> Path {
    Path::from_iter([tenant.as_str(), DELETED, &block.to_string(), &trace.to_string()])
}

/// What the object says, when it is such a one.
pub(crate) fn parse_deletion(object: &Path) -> Option<(BlockId, TraceId)> {
    let mut parts = object.parts().skip(1);
    let (prefix, block, trace) = (parts.next()?, parts.next()?, parts.next()?);
    let block = (prefix.as_ref() == DELETED).then(|| BlockId::parse(block.as_ref()))??;
    Some((block, TraceId::from_hex(trace.as_ref()).ok()?))
}

/// All deletions among a tenant's objects.
pub(crate) fn deletions(objects: &[ObjectMeta]) -> Deletions {
    objects.iter().filter_map(|object| parse_deletion(&object.location)).collect()
}

impl ObjectFiles {
    /// What was deleted from the tenant's blocks, by this process or another. One request.
    pub fn deletions(&self, tenant: &TenantId) -> Result<Deletions, Error> {
        let prefix = Path::from_iter([tenant.as_str(), DELETED]);
        let listed = self.requests().list_objects(&prefix, None);
        Ok(deletions(&listed.map_err(|failure| failure.doing("list", self.location(&prefix)))?))
    }

    /// Tells the other processes. One small request each; doing it again changes nothing.
    pub fn publish_deletions(&self, tenant: &TenantId, deletions: &Deletions) -> Result<(), Error> {
        for (block, trace) in deletions {
            let path = deletion_path(tenant, *block, *trace);
            let put = self.requests().put(&path, Bytes::new(), PutMode::Overwrite);
            put.map_err(|failure| failure.doing("write", self.location(&path)))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::files::{block_path, parse};

    #[test]
    fn a_deletion_is_read_back_and_is_no_block_and_sorts_behind_all_blocks() {
        for tenant in ["single-tenant", "team*a"].map(|name| TenantId::parse(name).unwrap()) {
            let (block, trace) = (BlockId(u128::MAX >> 1), TraceId([0xab; 16]));
            let path = deletion_path(&tenant, block, trace);
            assert_eq!(parse_deletion(&path), Some((block, trace)));
            assert_eq!(parse(&path), None);
            assert!(path > block_path(&tenant, BlockId(u128::MAX)), "{path}");
            assert_eq!(parse_deletion(&block_path(&tenant, block)), None);
        }
    }
}
