//! `spoor blocks verify`: every block that queries see, and every other one that is there.
//!
//! A server may be running: a block that turns out bad may have been merged or removed meanwhile, so it is asked for again.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::sync::Arc;

use serde_json::json;
use spoor_block::{BlockFiles, BlockMeta};
use spoor_ingester::{CatalogListing, ListedBlock};
use spoor_model::{BlockId, TenantId};

use super::{BlocksArguments, Found, found, wanted};
use crate::config::Config;
use crate::parts;
use crate::tools::progress;

/// Verifies these blocks, or all.
pub(super) fn run(
    config: &Config,
    files: &Arc<dyn BlockFiles>,
    arguments: &BlocksArguments,
    ids: &[String],
) -> Result<ExitCode, String> {
    let mut found = found(&**files, arguments)?;
    let catalog = Catalog::read(config)?;
    if let Some(catalog) = &catalog {
        catalog.settle(&**files, arguments, &mut found);
    }
    if !ids.is_empty() {
        found = wanted(&mut found, ids)?;
    }
    let total = found.iter().filter_map(|block| block.meta.as_ref().ok()).map(|meta| meta.size_bytes).sum();
    let bar = progress::bytes("verify", Some(total));
    let (mut verified, mut bad, mut unseen) = (0, 0, 0);
    for block in &found {
        bar.set_message(block.id.to_string());
        let outcome = outcome(config, files, catalog.as_ref(), block, &mut |bytes| bar.inc(bytes))?;
        verified += 1;
        match &outcome {
            Outcome::Bad(_) => bad += 1,
            Outcome::Unseen => unseen += 1,
            Outcome::Good => {}
            Outcome::Gone => {
                verified -= 1;
                continue;
            }
        }
        if !bar.suspend(|| crate::is_read(&line(block, &outcome, arguments.as_json)))? {
            break;
        }
    }
    bar.finish_and_clear();
    if !arguments.as_json {
        let unseen = if unseen > 0 { format!(", {unseen} not in the catalog") } else { String::new() };
        crate::print(&format!("{verified} blocks verified, {bad} bad{unseen}\n"))?;
    }
    Ok(if bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// How a block was found to be.
enum Outcome {
    Good,
    /// Good, and not in the catalog: queries do not see it.
    Unseen,
    Bad(String),
    /// It was merged or removed meanwhile.
    Gone,
}

fn outcome(
    config: &Config,
    files: &Arc<dyn BlockFiles>,
    catalog: Option<&Catalog>,
    block: &Found,
    read: &mut dyn FnMut(u64),
) -> Result<Outcome, String> {
    let listed = catalog.and_then(|catalog| catalog.blocks.get(&(block.tenant.clone(), block.id)));
    // What the catalog has is what queries go by.
    let meta = listed.unwrap_or(&block.meta).as_ref().and_then(|meta| block.meta.as_ref().map(|_| meta));
    let verified = meta
        .map_err(Clone::clone)
        .and_then(|meta| spoor_block::verify(files, meta, read).map_err(|err| err.to_string()));
    let is_seen = catalog.is_none() || listed.is_some();
    match verified {
        Ok(()) if is_seen => Ok(Outcome::Good),
        Ok(()) if is_there(files, block) => Ok(Outcome::Unseen),
        Ok(()) => Ok(Outcome::Gone),
        Err(reason) => {
            let is_gone = match Catalog::read(config)? {
                Some(now) if listed.is_some() => !now.blocks.contains_key(&(block.tenant.clone(), block.id)),
                _ => !is_there(files, block),
            };
            Ok(if is_gone { Outcome::Gone } else { Outcome::Bad(reason) })
        }
    }
}

fn is_there(files: &Arc<dyn BlockFiles>, block: &Found) -> bool {
    Found::look(&**files, block.tenant.clone(), block.id).is_some()
}

fn line(block: &Found, outcome: &Outcome, as_json: bool) -> String {
    let (tenant, id) = (&block.tenant, block.id);
    if as_json {
        let mut line = json!({ "tenant": tenant.as_str(), "id": id.to_string(), "ok": true });
        match outcome {
            Outcome::Bad(error) => {
                line["ok"] = false.into();
                line["error"] = error.as_str().into();
            }
            Outcome::Unseen => line["inCatalog"] = false.into(),
            Outcome::Good | Outcome::Gone => {}
        }
        return format!("{line}\n");
    }
    match outcome {
        Outcome::Bad(error) => format!("{tenant}  {id}  BAD: {error}\n"),
        Outcome::Unseen => {
            format!("{tenant}  {id}  ok, but not in the catalog: queries do not see it; see `spoor blocks adopt`\n")
        }
        Outcome::Good | Outcome::Gone => format!("{tenant}  {id}  ok\n"),
    }
}

/// What queries go by, where blocks lie in the data directory.
struct Catalog {
    blocks: BTreeMap<(TenantId, BlockId), Result<BlockMeta, String>>,
    unpublished: BTreeSet<(TenantId, BlockId)>,
}

impl Catalog {
    /// An empty one where it is lost; `None` where blocks lie elsewhere, and queries go by what is there.
    fn read(config: &Config) -> Result<Option<Self>, String> {
        if !config.storage.0.is_empty() {
            return Ok(None);
        }
        let memory = config.memory().map_err(|err| err.to_string())?;
        let listing = spoor_ingester::list_catalog(&parts::ingester_config(config, &memory, ""));
        let CatalogListing { blocks, unpublished } = listing.map_err(|err| err.to_string())?.unwrap_or_default();
        let blocks = blocks.into_iter().map(|ListedBlock { tenant, id, meta }| ((tenant, id), meta)).collect();
        Ok(Some(Self { blocks, unpublished }))
    }

    /// Adds the blocks that should be among those that were found, and takes remains away.
    fn settle(&self, files: &dyn BlockFiles, arguments: &BlocksArguments, found: &mut Vec<Found>) {
        let name = |block: &Found| (block.tenant.clone(), block.id);
        found.retain(|block| !self.unpublished.contains(&name(block)) || self.blocks.contains_key(&name(block)));
        let there: BTreeSet<_> = found.iter().map(name).collect();
        for (tenant, id) in self.blocks.keys().filter(|(tenant, _)| arguments.is_about(tenant)) {
            if !there.contains(&(tenant.clone(), *id)) {
                let meta = Err("the catalog has it, but its directory is missing".to_owned());
                let missing = || Found { tenant: tenant.clone(), id: *id, meta };
                found.push(Found::look(files, tenant.clone(), *id).unwrap_or_else(missing));
            }
        }
    }
}
