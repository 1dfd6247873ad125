//! `spoor blocks adopt`: blocks that the catalog does not name are put into it, so that queries see them.
//!
//! ```text
//!   db/ was lost              all blocks
//!   db/ is of a backup        blocks that were cut or merged since; merged ones take the place of what they were merged from
//!   a directory was put back  that block
//! ```
//!
//! What other blocks that are there replace is left out: its spans are in them. Each block is verified before.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Arc;

use serde_json::json;
use spoor_block::{BlockFiles, BlockMeta, visible};
use spoor_ingester::{CatalogListing, OfflineCatalog};
use spoor_model::{BlockId, TenantId};

use super::{BlocksArguments, Found, found, wanted};
use crate::config::Config;
use crate::parts;
use crate::tools::progress;

/// What becomes of a block.
enum Fate {
    Adopted(u64),
    /// Its spans are in others; why.
    Left(&'static str),
    Bad(String),
}

/// Adopts these blocks, or all.
pub(super) fn run(
    config: &Config,
    files: &Arc<dyn BlockFiles>,
    arguments: &BlocksArguments,
    ids: &[String],
    dry_run: bool,
) -> Result<ExitCode, String> {
    let memory = config.memory().map_err(|err| err.to_string())?;
    let at = parts::ingester_config(config, &memory, "");
    // To look, nothing is made.
    let catalog = match dry_run {
        true => None,
        false => Some(OfflineCatalog::open(&at).map_err(|err| err.to_string())?),
    };
    let read = match &catalog {
        Some(_) => CatalogListing::default(),
        None => spoor_ingester::list_catalog(&at).map_err(|err| err.to_string())?.unwrap_or_default(),
    };
    let listing = catalog.as_ref().map_or(&read, OfflineCatalog::listing);
    if let Some(id) = ids.iter().find(|id| listing.blocks.iter().any(|block| block.id.to_string() == **id)) {
        return Err(format!("block {id} is in the catalog already"));
    }
    let there = found(&**files, arguments)?;
    let mut unlisted = not_listed(there, listing);
    let every: Vec<BlockMeta> = unlisted.iter().filter_map(|block| block.meta.clone().ok()).collect();
    let asked = if ids.is_empty() { unlisted } else { wanted(&mut unlisted, ids)? };
    let (good, bad) = verified(files, asked);
    let standing = Standing::of(&**files, listing, every, &bad);
    let (mut adopted, mut is_failed) = (0, !bad.is_empty());
    let mut report = String::new();
    for (tenant, id, reason) in bad {
        report.push_str(&line(&tenant, id, &Fate::Bad(reason), dry_run, arguments.as_json));
    }
    for meta in good {
        let fate = match standing.why_left(&meta) {
            Some(why) => Fate::Left(why),
            None => {
                if let Some(catalog) = &catalog {
                    catalog.adopt(&meta, &standing.lost_for(&meta)).map_err(|err| err.to_string())?;
                }
                adopted += 1;
                Fate::Adopted(meta.span_count)
            }
        };
        is_failed |= !ids.is_empty() && matches!(fate, Fate::Left(_));
        report.push_str(&line(&meta.tenant, meta.id, &fate, dry_run, arguments.as_json));
    }
    if !arguments.as_json {
        report.push_str(&format!("{adopted} {}\n", if dry_run { "would be adopted" } else { "adopted" }));
    }
    crate::print(&report)?;
    Ok(if is_failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The blocks that queries do not see.
fn not_listed(there: Vec<Found>, listing: &CatalogListing) -> Vec<Found> {
    let listed: BTreeSet<_> = listing.blocks.iter().map(|block| (block.tenant.clone(), block.id)).collect();
    there.into_iter().filter(|block| !listed.contains(&(block.tenant.clone(), block.id))).collect()
}

/// Reads blocks whole: those that are good, and what is wrong with the others.
fn verified(files: &Arc<dyn BlockFiles>, blocks: Vec<Found>) -> (Vec<BlockMeta>, Vec<(TenantId, BlockId, String)>) {
    let total = blocks.iter().filter_map(|block| block.meta.as_ref().ok()).map(|meta| meta.size_bytes).sum();
    let bar = progress::bytes("verify", Some(total));
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for Found { tenant, id, meta } in blocks {
        bar.set_message(id.to_string());
        let read = meta.and_then(|meta| {
            let verified = spoor_block::verify(files, &meta, &mut |bytes| bar.inc(bytes));
            verified.map(|()| meta).map_err(|err| err.to_string())
        });
        match read {
            Ok(meta) => good.push(meta),
            Err(reason) => bad.push((tenant, id, reason)),
        }
    }
    bar.finish_and_clear();
    (good, bad)
}

/// How blocks stand to each other.
struct Standing<'a> {
    listing: &'a CatalogListing,
    /// Those that count, of all that can be read.
    visible: BTreeSet<BlockId>,
    /// Those of the catalog that have no files.
    lost: BTreeSet<BlockId>,
}

impl<'a> Standing<'a> {
    fn of(
        files: &dyn BlockFiles,
        listing: &'a CatalogListing,
        mut there: Vec<BlockMeta>,
        bad: &[(TenantId, BlockId, String)],
    ) -> Self {
        there.retain(|meta| bad.iter().all(|(_, id, _)| *id != meta.id));
        let mut lost = BTreeSet::new();
        for block in &listing.blocks {
            match (files.meta(&block.tenant, block.id), &block.meta) {
                (Ok(None), _) => {
                    lost.insert(block.id);
                }
                (_, Ok(meta)) => there.push(meta.clone()),
                (_, Err(_)) => {}
            }
        }
        // Ids differ between tenants, and no merge crosses them.
        Self { listing, visible: visible(&there), lost }
    }

    /// Why a block that is good is left where it is.
    fn why_left(&self, meta: &BlockMeta) -> Option<&'static str> {
        if self.listing.unpublished.contains(&(meta.tenant.clone(), meta.id)) {
            return Some("its spans are in the log or in other blocks, and the next start settles what becomes of it");
        }
        (!self.visible.contains(&meta.id)).then_some("its spans are in other blocks that are there")
    }

    /// Blocks that queries miss, and of which it has all spans.
    fn lost_for(&self, meta: &BlockMeta) -> Vec<BlockId> {
        meta.replaces.iter().copied().filter(|id| self.lost.contains(id)).collect()
    }
}

fn line(tenant: &TenantId, id: BlockId, fate: &Fate, dry_run: bool, as_json: bool) -> String {
    if as_json {
        let adopted = matches!(fate, Fate::Adopted(_)) && !dry_run;
        let mut line = json!({ "tenant": tenant.as_str(), "id": id.to_string(), "adopted": adopted });
        match fate {
            Fate::Adopted(spans) => line["spanCount"] = (*spans).into(),
            Fate::Left(why) => line["left"] = (*why).into(),
            Fate::Bad(reason) => line["error"] = reason.as_str().into(),
        }
        return format!("{line}\n");
    }
    match fate {
        Fate::Adopted(spans) => {
            format!("{tenant}  {id}  {spans} spans: {}\n", if dry_run { "would be adopted" } else { "adopted" })
        }
        Fate::Left(why) => format!("{tenant}  {id}  left alone: {why}\n"),
        Fate::Bad(reason) => format!("{tenant}  {id}  BAD, left alone: {reason}\n"),
    }
}

#[cfg(test)]
mod tests {
    use spoor_block::DirectoryFiles;
    use spoor_ingester::ListedBlock;
    use spoor_model::{TimeRange, UnixNano};

    use super::*;

    fn block(id: u128, replaces: &[u128]) -> BlockMeta {
        let mut meta = BlockMeta::without_files(BlockId(id), TenantId::single(), UnixNano(0), TimeRange::ALL);
        meta.merge_level = u32::from(!replaces.is_empty());
        meta.replaces = replaces.iter().copied().map(BlockId).collect();
        meta
    }

    #[test]
    fn what_was_merged_takes_the_place_of_what_is_lost_and_nothing_is_taken_twice() {
        let root = tempfile::tempdir().unwrap();
        let (cut, merged, of_others) = (block(1, &[]), block(7, &[1, 2]), block(8, &[3, 4]));
        for meta in [&cut, &merged] {
            let dir = root.path().join(meta.tenant.as_str()).join(meta.id.to_string());
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(dir.join("meta.json"), meta.to_json()).unwrap();
        }
        let listed = |id: u128| ListedBlock { tenant: TenantId::single(), id: BlockId(id), meta: Ok(block(id, &[])) };
        let name = |meta: &BlockMeta| (meta.tenant.clone(), meta.id);
        let unpublished = BTreeSet::from([name(&of_others)]);
        let listing = CatalogListing { blocks: vec![listed(2)], unpublished };
        let files = DirectoryFiles::new(root.path());
        let all = vec![cut.clone(), merged.clone(), of_others.clone()];
        let standing = Standing::of(&files, &listing, all.clone(), &[]);
        assert_eq!(standing.why_left(&merged), None);
        assert_eq!(standing.lost_for(&merged), [BlockId(2)]);
        assert!(standing.why_left(&cut).is_some_and(|why| why.contains("in other blocks that are there")));
        assert!(standing.why_left(&of_others).is_some_and(|why| why.contains("the next start settles")));
        let rotten = [(TenantId::single(), merged.id, "rotten".to_owned())];
        assert_eq!(Standing::of(&files, &listing, all, &rotten).why_left(&cut), None);
    }
}
