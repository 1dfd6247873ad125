//! After damage to the log: blocks that lost their catalog entry come back, before anybody takes them for remains.
//!
//! An entry may be missing though later writes are there. Then a block is whole and unnamed, and what it took from the log
//! is trimmed; or it was merged, and what it was merged from is named and gone.

use std::collections::{BTreeMap, BTreeSet};

use spoor_block::{BlockMeta, Lineage};
use spoor_model::{BlockId, TenantId};

use crate::blocks::BlockStore;
use crate::catalog::{self, Catalog};
use crate::store::{Change, Durability, Store, StoreError};

/// Takes whole blocks that the catalog does not name into it, and out of it what they replace. Those of which it is not
/// certain that they are wanted are not taken for remains any more: a person decides. Returns whether anything changed.
/// What was left unfinished stays as it is.
pub(crate) fn adopt_unnamed(store: &dyn Store, blocks: &dyn BlockStore, catalog: &Catalog) -> Result<bool, StoreError> {
    let known = catalog.blocks.iter().filter_map(|entry| entry.meta.as_ref().ok());
    let known: BTreeMap<(TenantId, BlockId), &BlockMeta> =
        known.map(|meta| ((meta.tenant.clone(), meta.id), meta)).collect();
    let listed = blocks.list().map_err(|err| StoreError(err.to_string()))?;
    let names: BTreeSet<_> =
        listed.into_iter().chain(catalog.unpublished.iter().map(|(tenant, id, _)| (tenant.clone(), *id))).collect();
    let (mut unnamed, mut changes) = (Vec::new(), Vec::<Change>::new());
    for (tenant, id) in names.into_iter().filter(|name| !known.contains_key(name)) {
        match blocks.meta(&tenant, id) {
            Ok(meta) => unnamed.extend(meta),
            Err(err) => {
                tracing::error!(%tenant, block = %id, %err, "a block that the catalog does not name cannot be read");
                changes.push(catalog::forget(&tenant, id));
            }
        }
    }
    let is_outdated = |meta: &BlockMeta| catalog.deleted.contains_key(&(meta.tenant.clone(), meta.id));
    let known: Vec<&BlockMeta> = known.into_values().collect();
    let Adopted { adopted, replaced, doubtful } = choose(&known, &unnamed, &is_outdated);
    for meta in doubtful {
        tracing::error!(tenant = %meta.tenant, block = %meta.id, "a block may hold what nothing else holds; it is left alone");
        changes.push(catalog::forget(&meta.tenant, meta.id));
    }
    for meta in &adopted {
        tracing::warn!(tenant = %meta.tenant, block = %meta.id, "a block is in the catalog again");
        changes.push(catalog::forget(&meta.tenant, meta.id));
        changes.extend(catalog::adopt(meta, &BTreeSet::new()));
    }
    changes.extend(replaced.iter().flat_map(|meta| catalog::disown(&meta.tenant, meta.id, &BTreeSet::new())));
    if !changes.is_empty() {
        store.write(&changes, Durability::Synced)?;
    }
    Ok(!changes.is_empty())
}

#[derive(Default)]
struct Adopted<'a> {
    adopted: Vec<&'a BlockMeta>,
    /// Blocks of the catalog that these hold.
    replaced: Vec<&'a BlockMeta>,
    /// Unnamed blocks that nothing replaces and that may not count all the same.
    doubtful: Vec<&'a BlockMeta>,
}

/// Which unnamed blocks count beside those that are known. `is_outdated`: whether a trace was deleted from it, which what was
/// merged from it may still have.
fn choose<'a>(
    known: &[&'a BlockMeta],
    unnamed: &'a [BlockMeta],
    is_outdated: &dyn Fn(&BlockMeta) -> bool,
) -> Adopted<'a> {
    let mut chosen = Adopted::default();
    let tenants: BTreeSet<&TenantId> = unnamed.iter().map(|meta| &meta.tenant).collect();
    for tenant in tenants {
        let known: Vec<&BlockMeta> = known.iter().copied().filter(|meta| meta.tenant == *tenant).collect();
        let of_tenant = unnamed.iter().filter(|meta| meta.tenant == *tenant);
        let lineage = Lineage::of(&known, of_tenant, is_outdated);
        chosen.replaced.extend(known.iter().filter(|meta| lineage.replaced.contains(&meta.id)));
        chosen.adopted.extend(lineage.counting);
        chosen.doubtful.extend(lineage.doubtful);
    }
    chosen
}

#[cfg(test)]
mod tests {
    use spoor_model::{TimeRange, UnixNano};

    use super::*;

    fn block(id: u128, level: u32, replaces: &[u128], merged_with: &[u128]) -> BlockMeta {
        let ids = |ids: &[u128]| ids.iter().copied().map(BlockId).collect();
        let mut meta = BlockMeta::without_files(BlockId(id), TenantId::single(), UnixNano(0), TimeRange::ALL);
        meta.merge_level = level;
        meta.replaces = ids(replaces);
        meta.merged_with = ids(merged_with);
        meta
    }

    #[test]
    fn what_holds_spans_that_nothing_else_holds_comes_back_and_nothing_twice() {
        let check = |known: &[&BlockMeta], unnamed: &[&BlockMeta], want: (&[u128], &[u128])| {
            let unnamed: Vec<BlockMeta> = unnamed.iter().map(|meta| (*meta).clone()).collect();
            let deleted = |meta: &BlockMeta| meta.id.0 == 5;
            let Adopted { adopted, replaced, doubtful } = choose(known, &unnamed, &deleted);
            let is_named = |id: u128| known.iter().any(|meta| meta.id.0 == id || meta.replaces.contains(&BlockId(id)));
            assert!(doubtful.iter().all(|meta| !is_named(meta.id.0) && !want.0.contains(&meta.id.0)));
            let ids = |metas: Vec<&BlockMeta>| metas.iter().map(|meta| meta.id.0).collect::<Vec<_>>();
            assert_eq!((ids(adopted), ids(replaced)), (want.0.to_vec(), want.1.to_vec()));
        };
        let [a, b, c, d] = [1, 2, 3, 5].map(|id| block(id, 0, &[], &[]));
        let x = block(10, 1, &[1, 2], &[11]);
        let y = block(11, 1, &[1, 2], &[10]);
        // A cut.
        check(&[&a], &[&b], (&[2], &[]));
        // A merge whose inputs are still named, and one of it that is only half there.
        check(&[&a, &b, &c], &[&x, &y], (&[10, 11], &[1, 2]));
        check(&[&a, &b], &[&x], (&[], &[]));
        // What was on its way out stays out.
        check(&[&x, &y], &[&a, &b], (&[], &[]));
        check(&[&c], &[&a, &b, &x, &y], (&[10, 11], &[]));
        // The other output went on into a merge.
        let z = block(20, 2, &[1, 2, 3, 10], &[]);
        check(&[&z], &[&y], (&[11], &[]));
        // A trace was deleted from an input, of which the output may know nothing.
        check(&[&d, &c], &[&block(20, 1, &[3, 5], &[])], (&[], &[]));
    }
}
