//! After damage to the log: blocks that lost their catalog entry come back, before anybody takes them for remains.
//!
//! An entry may be missing though later writes are there. Then a block is whole and unnamed, and what it took from the log
//! is trimmed; or it was merged, and what it was merged from is named and gone.

use std::collections::{BTreeMap, BTreeSet};

use spoor_block::BlockMeta;
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
    let has_deletions = |meta: &BlockMeta| catalog.deleted.contains_key(&(meta.tenant.clone(), meta.id));
    let Adopted { adopted, replaced, doubtful } =
        choose(&known.into_values().collect::<Vec<_>>(), &unnamed, &has_deletions);
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

struct Adopted<'a> {
    adopted: Vec<&'a BlockMeta>,
    /// Blocks of the catalog that these hold.
    replaced: Vec<&'a BlockMeta>,
    /// Unnamed blocks that nothing replaces and that may not count all the same.
    doubtful: Vec<&'a BlockMeta>,
}

/// Which unnamed blocks count beside those that are known: not what another one replaces, not a part of a merge whose
/// other parts are not there, and not what was merged from blocks that have lost a trace since.
fn choose<'a>(
    known: &[&'a BlockMeta],
    unnamed: &'a [BlockMeta],
    has_deletions: &dyn Fn(&BlockMeta) -> bool,
) -> Adopted<'a> {
    let name = |meta: &BlockMeta, id: &BlockId| (meta.tenant.clone(), *id);
    let all = || known.iter().copied().chain(unnamed);
    let there: BTreeMap<_, &BlockMeta> = all().map(|meta| (name(meta, &meta.id), meta)).collect();
    let mut replaced: BTreeSet<_> =
        known.iter().flat_map(|meta| meta.replaces.iter().map(|id| name(meta, id))).collect();
    let mut candidates: Vec<&BlockMeta> = unnamed.iter().collect();
    candidates.sort_by_key(|meta| (std::cmp::Reverse(meta.merge_level), meta.id));
    let (mut adopted, mut doubtful) = (Vec::new(), Vec::new());
    for meta in candidates {
        let inputs: Vec<_> = meta.replaces.iter().map(|id| name(meta, id)).collect();
        if replaced.contains(&name(meta, &meta.id)) {
            replaced.extend(inputs);
            continue;
        }
        // As in `spoor_compactor::objects::visible`: what went on into another merge was complete.
        let has = |id: &(TenantId, BlockId)| there.contains_key(id) || replaced.contains(id);
        let is_complete =
            meta.merged_with.iter().map(|id| name(meta, id)).all(|id| has(&id)) || !inputs.iter().any(has);
        let is_outdated = inputs.iter().filter_map(|id| there.get(id)).any(|input| has_deletions(input));
        match is_complete && !is_outdated {
            true => {
                adopted.push(meta);
                replaced.extend(inputs);
            }
            false => doubtful.push(meta),
        }
    }
    let replaced = known.iter().copied().filter(|meta| replaced.contains(&name(meta, &meta.id))).collect();
    Adopted { adopted, replaced, doubtful }
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
