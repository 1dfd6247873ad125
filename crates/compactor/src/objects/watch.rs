//! Blocks that other processes put into the store, took out of it, or merged.
//!
//! ```text
//!   most polls:  objects behind the newest block, less an hour     one request per tenant
//!   some polls:  all objects                                       one request per two hundred blocks
//!        |
//!        v
//!   metas of the new ones --> visible --> added, gone --> whoever keeps the catalog
//! ```
//!
//! A store may answer with an old list: a block that is missing from one is looked for by name before it
//! counts as gone. A list is also no single moment, and what it names may be gone when it is asked for: then
//! nothing is changed, and the next poll looks again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use object_store::path::Path;
use spoor_block::{BlockMeta, Error};
use spoor_model::{BlockId, TenantId, UnixNano};

use super::deletions::{self, Deletions};
use super::files::{ObjectFiles, block_path, tenant_path, whole_blocks};
use super::requests::Failure;
use super::visible::visible;

/// One poll in so many looks at everything.
const POLLS_PER_FULL: u64 = 10;
/// How much older than the newest known block a new one may be: built for as long, by a clock as wrong.
const LATENESS: Duration = Duration::from_secs(3600);

/// What has changed for a tenant. Both lists belong together: taking one without the other would show spans twice or
/// not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// Whose blocks.
    pub tenant: TenantId,
    /// Blocks that are new and count.
    pub added: Vec<BlockMeta>,
    /// Blocks that are there no more, or that an added one replaces.
    pub gone: Vec<BlockId>,
    /// What is not to be shown of the added blocks, among others.
    pub deletions: Deletions,
}

/// Who keeps the catalog.
pub trait BlockCatalog {
    /// The tenants that it knows.
    fn tenants(&self) -> Vec<TenantId>;

    /// The tenant's blocks.
    fn blocks(&self, tenant: &TenantId) -> Vec<BlockMeta>;

    /// What was deleted from them and is still in them.
    fn deletions(&self, tenant: &TenantId) -> Deletions;

    /// Hides traces in the blocks named.
    fn hide(&self, tenant: &TenantId, deletions: &Deletions) -> Result<(), String>;

    /// Takes changes over, all of a tenant's or none. `false`: not now, because this process is just changing the
    /// same blocks.
    fn take(&self, changes: &Changes) -> Result<bool, String>;
}

/// What one poll did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Polled {
    /// Blocks added.
    pub added: usize,
    /// Blocks gone.
    pub gone: usize,
    /// Tenants that could not be brought up to date; the next poll tries again.
    pub failed_tenants: usize,
}

/// What a listing has.
#[derive(Debug, Default)]
struct Objects {
    /// Whole blocks.
    blocks: BTreeSet<BlockId>,
    deletions: Deletions,
}

/// Looks for changes, one poll at a time.
#[derive(Debug)]
pub struct Watch {
    files: Arc<ObjectFiles>,
    polls: u64,
    /// Blocks that are there and do not count, or not yet.
    hidden: BTreeMap<TenantId, BTreeMap<BlockId, BlockMeta>>,
}

impl Watch {
    /// Watches the store of `files`.
    pub fn new(files: Arc<ObjectFiles>) -> Self {
        Self { files, polls: 0, hidden: BTreeMap::new() }
    }

    /// Brings the catalog up to date. The first poll looks at everything.
    pub fn poll(&mut self, catalog: &dyn BlockCatalog) -> Result<Polled, Error> {
        let is_full = self.polls.is_multiple_of(POLLS_PER_FULL);
        let listed = self.files.tenants().map_err(|failure| self.failed(failure))?;
        let tenants: BTreeSet<TenantId> = catalog.tenants().into_iter().chain(listed).collect();
        let mut polled = Polled::default();
        for tenant in tenants {
            match self.poll_tenant(catalog, &tenant, is_full) {
                Ok(Some((added, gone))) => {
                    polled.added += added;
                    polled.gone += gone;
                }
                Ok(None) => {}
                Err(reason) => {
                    tracing::warn!(%tenant, reason, "the blocks in the storage are not known now; the next poll tries again");
                    polled.failed_tenants += 1;
                }
            }
        }
        if polled.failed_tenants == 0 {
            self.polls += 1;
        }
        Ok(polled)
    }

    /// Brings the catalog up to date with one tenant's blocks. `false`: not now, because this process is just changing the
    /// same blocks.
    ///
    /// # Errors
    /// One line, when the store cannot be asked.
    pub fn catch_up(&mut self, catalog: &dyn BlockCatalog, tenant: &TenantId) -> Result<bool, String> {
        Ok(self.poll_tenant(catalog, tenant, false)?.is_some())
    }

    fn failed(&self, failure: Failure) -> Error {
        failure.doing("list", self.files.location(&Path::default()))
    }

    /// How many blocks came and went; `None` when nothing may be changed now.
    fn poll_tenant(
        &mut self,
        catalog: &dyn BlockCatalog,
        tenant: &TenantId,
        is_full: bool,
    ) -> Result<Option<(usize, usize)>, String> {
        let known: BTreeMap<BlockId, BlockMeta> =
            catalog.blocks(tenant).into_iter().map(|meta| (meta.id, meta)).collect();
        let mut hidden = self.hidden.get(tenant).cloned().unwrap_or_default();
        let newest = known.keys().chain(hidden.keys()).max().copied();
        let is_full = is_full || newest.is_none();
        let Objects { blocks: mut listed, deletions } = self.list(tenant, newest.filter(|_| !is_full))?;
        self.share_deletions(catalog, tenant, &deletions)?;
        let unknown = |listed: &BTreeSet<BlockId>, hidden: &BTreeMap<BlockId, BlockMeta>| {
            let new = listed.iter().copied().filter(|id| !known.contains_key(id) && !hidden.contains_key(id));
            new.collect::<Vec<BlockId>>()
        };
        let (new, mut has_unreadable) = self.metas(tenant, &unknown(&listed, &hidden))?;
        // Merged from blocks that were never seen here: those that these were merged from may be known, and gone.
        let is_missed = |id: &BlockId| !known.contains_key(id) && !hidden.contains_key(id) && !new.contains_key(id);
        let has_missed = new.values().any(|meta| meta.replaces.iter().any(is_missed));
        hidden.extend(new);
        let mut gone = BTreeSet::new();
        if is_full || has_missed {
            if !is_full {
                listed = self.list(tenant, None)?.blocks;
                let (more, is_unreadable) = self.metas(tenant, &unknown(&listed, &hidden))?;
                hidden.extend(more);
                has_unreadable |= is_unreadable;
            }
            hidden.retain(|id, _| listed.contains(id));
            // What cannot be read may have replaced what is gone: then that stays, and is told to be missing by every
            // query that would need it, until all can be read.
            if !has_unreadable {
                gone = self.confirmed_gone(tenant, &known, &listed)?;
            }
        }
        hidden.retain(|id, _| !known.contains_key(id));
        let there = known.values().filter(|meta| !gone.contains(&meta.id)).chain(hidden.values());
        let counts = visible(there);
        gone.extend(known.keys().filter(|id| !counts.contains(id)));
        let is_new = |id: &BlockId, _: &mut BlockMeta| counts.contains(id);
        let added: Vec<BlockMeta> = hidden.extract_if(.., is_new).map(|(_, meta)| meta).collect();
        let changes = Changes { tenant: tenant.clone(), added, gone: gone.into_iter().collect(), deletions };
        if changes.added.is_empty() && changes.gone.is_empty() {
            self.hidden.insert(tenant.clone(), hidden);
            return Ok(Some((0, 0)));
        }
        match catalog.take(&changes)? {
            true => {
                self.hidden.insert(tenant.clone(), hidden);
                Ok(Some((changes.added.len(), changes.gone.len())))
            }
            // Nothing is remembered: the next poll finds the same.
            false => Ok(None),
        }
    }

    /// Hides here what was deleted elsewhere, and has others see what was deleted here.
    fn share_deletions(&self, catalog: &dyn BlockCatalog, tenant: &TenantId, listed: &Deletions) -> Result<(), String> {
        let own = catalog.deletions(tenant);
        let (news, untold): (Deletions, Deletions) = (listed - &own, &own - listed);
        if !news.is_empty() {
            catalog.hide(tenant, &news)?;
        }
        self.files.publish_deletions(tenant, &untold).map_err(|err| err.to_string())
    }

    /// All whole blocks, or those that are not much older than the newest one known; and all deletions.
    fn list(&self, tenant: &TenantId, newest: Option<BlockId>) -> Result<Objects, String> {
        let oldest = newest.map(|newest| BlockId::from_parts(made_at(newest).minus(LATENESS), 0));
        let offset = oldest.map(|oldest| block_path(tenant, oldest));
        let objects = self.files.requests().list_objects(&tenant_path(tenant), offset.as_ref());
        let objects = objects.map_err(|failure| failure.to_string())?;
        Ok(Objects { blocks: whole_blocks(&objects).collect(), deletions: deletions::deletions(&objects) })
    }

    /// The known blocks that are not listed and not there either.
    fn confirmed_gone(
        &self,
        tenant: &TenantId,
        known: &BTreeMap<BlockId, BlockMeta>,
        listed: &BTreeSet<BlockId>,
    ) -> Result<BTreeSet<BlockId>, String> {
        let suspects: Vec<BlockId> = known.keys().filter(|id| !listed.contains(id)).copied().collect();
        let mut gone = BTreeSet::new();
        for (id, meta) in suspects.iter().zip(self.files.metas(tenant, &suspects)) {
            if meta.map_err(|err| err.to_string())?.is_none() {
                gone.insert(*id);
            }
        }
        // What replaced them may have come behind the back of a list that takes its time.
        match gone.is_empty() || self.list(tenant, None)?.blocks == *listed {
            true => Ok(gone),
            false => Err("blocks changed while they were listed".to_owned()),
        }
    }

    /// The metas of listed blocks, and whether there are others that cannot be read.
    fn metas(&self, tenant: &TenantId, ids: &[BlockId]) -> Result<(BTreeMap<BlockId, BlockMeta>, bool), String> {
        let (mut found, mut has_unreadable) = (BTreeMap::new(), false);
        for (id, meta) in ids.iter().zip(self.files.metas(tenant, ids)) {
            match meta {
                Ok(Some(meta)) => {
                    found.insert(*id, meta);
                }
                Ok(None) => return Err(format!("block {id} was taken out while blocks were listed")),
                // One block that cannot be read does not keep the others away; it is named at each poll.
                Err(err @ (Error::Corrupt { .. } | Error::Version { .. })) => {
                    tracing::error!(%tenant, %err, "a block in the storage cannot be read; queries do without it");
                    has_unreadable = true;
                }
                Err(err) => return Err(err.to_string()),
            }
        }
        Ok((found, has_unreadable))
    }
}

/// When a block was named.
fn made_at(id: BlockId) -> UnixNano {
    UnixNano(u64::try_from(id.0 >> 80).unwrap_or(u64::MAX).saturating_mul(1_000_000))
}
