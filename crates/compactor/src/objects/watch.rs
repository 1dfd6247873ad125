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
//! A store may answer with an old list, and one that is older than a block looks like one that is younger than its
//! removal. So a block is gone when a list says that it was removed: whoever removes it says so first, and what
//! replaces it was there before that. A list is also no single moment, and what it names may be gone when it is asked
//! for: then nothing is changed, and the next poll looks again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use object_store::path::Path;
use spoor_block::{BlockFiles, BlockMeta, Error, visible};
use spoor_model::{BlockId, TenantId, UnixNano};

use super::deletions::{self, Deletions};
use super::files::{ObjectFiles, REMOVED, block_path, blocks_with, tenant_path, whole_blocks};
use super::requests::Failure;

/// One poll in so many looks at everything.
const POLLS_PER_FULL: u64 = 10;
/// How much older than the newest known block a new one may be: built for half as long, by a clock that is a little wrong,
/// and not looked for during the other half.
const LATENESS: Duration = Duration::from_secs(3600);
/// As often a block's meta is tried before the others do without it: about as long as the files of removed blocks stay.
const UNREADABLE_POLLS_MAX: u32 = 10;
/// No list is as old. Whoever looks so late may not find any more that a block was removed.
const LIST_AGE_MAX: Duration = Duration::from_secs(3600);

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

    /// Blocks that are in the store and that nobody can read, and why: answers lack them. Those of before that are not
    /// among them can be read again, or are gone.
    fn lack(&self, tenant: &TenantId, unreadable: &[(BlockId, String)]);

    /// Takes changes over, all of a tenant's or none. `false`: not now, because this process is just changing the
    /// same blocks.
    fn take(&self, changes: &Changes) -> Result<bool, String>;
}

/// What one poll did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Polled {
    /// Blocks added.
    pub added: usize,
    /// Blocks gone.
    pub gone: usize,
    /// Tenants that could not be brought up to date; the next poll tries again.
    pub failed_tenants: usize,
    /// Why the first of them could not.
    pub failure: Option<String>,
}

/// What a listing has.
#[derive(Debug, Default)]
struct Objects {
    /// Whole blocks.
    blocks: BTreeSet<BlockId>,
    /// Blocks that were taken out, or are just being.
    removed: BTreeSet<BlockId>,
    deletions: Deletions,
}

/// What was seen of a tenant's blocks and is not in the catalog.
#[derive(Debug, Clone, Default)]
struct Seen {
    /// Blocks that are there and do not count, or not yet.
    hidden: BTreeMap<BlockId, BlockMeta>,
    /// Blocks that are there and cannot be read.
    unreadable: BTreeMap<BlockId, Unreadable>,
    /// Hidden blocks that will not count any more, and since when that is known.
    dead: BTreeMap<BlockId, UnixNano>,
    /// When the catalog was brought up to date.
    looked_at: UnixNano,
}

#[derive(Debug, Clone)]
struct Unreadable {
    reason: String,
    /// How many polls have tried.
    polls: u32,
}

impl Seen {
    /// Whether blocks that belong to those that were seen were not: outside of the listing, which was not of everything.
    fn misses_any(&self, known: &BTreeMap<BlockId, BlockMeta>) -> bool {
        if self.hidden.is_empty() {
            return false;
        }
        let all = known.values().chain(self.hidden.values());
        let replaced: BTreeSet<BlockId> = all.flat_map(|meta| meta.replaces.iter().copied()).collect();
        let is_missed = |id: &BlockId| {
            !known.contains_key(id) && !self.hidden.contains_key(id) && !self.unreadable.contains_key(id)
        };
        let mut new = self.hidden.values().filter(|meta| !replaced.contains(&meta.id));
        new.any(|meta| meta.replaces.iter().chain(&meta.merged_with).any(is_missed))
    }

    /// Whether there is still hope to read all.
    fn is_waiting(&self) -> bool {
        self.unreadable.values().any(|block| block.polls < UNREADABLE_POLLS_MAX)
    }

    /// The hidden blocks that may count. What replaces others that are there does not while something cannot be read: that
    /// may hold the other part of what is replaced.
    fn usable(&self, known: &BTreeMap<BlockId, BlockMeta>) -> impl Iterator<Item = &BlockMeta> {
        let is_waiting = self.is_waiting();
        let is_there = |id: &BlockId| known.contains_key(id) || self.hidden.contains_key(id);
        self.hidden.values().filter(move |meta| !is_waiting || !meta.replaces.iter().any(is_there))
    }
}

/// Looks for changes, one poll at a time.
#[derive(Debug)]
pub struct Watch {
    files: Arc<ObjectFiles>,
    polls: u64,
    seen: BTreeMap<TenantId, Seen>,
}

impl Watch {
    /// Watches the store of `files`.
    pub fn new(files: Arc<ObjectFiles>) -> Self {
        Self { files, polls: 0, seen: BTreeMap::new() }
    }

    /// Brings the catalog up to date. The first poll looks at everything.
    pub fn poll(&mut self, catalog: &dyn BlockCatalog, now: UnixNano) -> Result<Polled, Error> {
        let is_full = self.polls.is_multiple_of(POLLS_PER_FULL);
        let listed = self.files.tenants().map_err(|failure| self.failed(failure))?;
        let tenants: BTreeSet<TenantId> = catalog.tenants().into_iter().chain(listed).collect();
        let mut polled = Polled::default();
        for tenant in tenants {
            match self.poll_tenant(catalog, &tenant, now, is_full) {
                Ok(Some((added, gone))) => {
                    polled.added += added;
                    polled.gone += gone;
                }
                Ok(None) => {}
                Err(reason) => {
                    tracing::warn!(%tenant, reason, "the blocks in the storage are not known now; the next poll tries again");
                    polled.failed_tenants += 1;
                    polled.failure.get_or_insert(reason);
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
    /// One line, when the store cannot be asked, or not about all blocks.
    pub fn catch_up(&mut self, catalog: &dyn BlockCatalog, tenant: &TenantId, now: UnixNano) -> Result<bool, String> {
        let is_current = self.poll_tenant(catalog, tenant, now, false)?.is_some();
        match self.seen.get(tenant).filter(|seen| seen.is_waiting()).and_then(|seen| seen.unreadable.iter().next()) {
            Some((id, Unreadable { reason, .. })) => Err(format!(
                "block {id} may hold spans of the trace and cannot be read ({reason}); try again, and if that lasts put its \
                 meta.json back or remove the block"
            )),
            None => Ok(is_current),
        }
    }

    /// Takes out of the store what a process left that died in the middle of a merge: the inputs, when others have taken over what
    /// became of them, or a part of that without the rest. For whoever holds the lease, after a poll. Returns how many blocks went.
    ///
    /// What goes has not counted for an hour, longer than any list is old; what holds its spans is asked for once more before.
    ///
    /// # Errors
    /// One line, when the store cannot be asked; those before have gone.
    pub fn bury(&mut self, catalog: &dyn BlockCatalog, now: UnixNano) -> Result<usize, String> {
        let mut buried = 0;
        for (tenant, seen) in &mut self.seen {
            let known = catalog.blocks(tenant);
            let replaced: BTreeSet<BlockId> = known.iter().flat_map(|meta| meta.replaces.iter().copied()).collect();
            let is_dead = |meta: &BlockMeta| {
                let is_held = replaced.contains(&meta.id);
                // Its inputs were merged by somebody else.
                let is_void = !meta.replaces.is_empty() && meta.replaces.iter().all(|input| replaced.contains(input));
                // The rest of it was never shown.
                let is_there = |id: &BlockId| {
                    replaced.contains(id) || seen.hidden.contains_key(id) || known.iter().any(|meta| meta.id == *id)
                };
                is_held || is_void || !meta.merged_with.iter().all(is_there)
            };
            let dead: BTreeSet<BlockId> =
                seen.hidden.values().filter(|meta| is_dead(meta)).map(|meta| meta.id).collect();
            seen.dead.retain(|id, _| dead.contains(id));
            for id in dead {
                seen.dead.entry(id).or_insert(now);
            }
            if seen.is_waiting() {
                continue;
            }
            let due = seen.dead.iter().filter(|(_, since)| now.since(**since) >= LIST_AGE_MAX);
            for id in due.map(|(id, _)| *id).collect::<Vec<_>>() {
                let inputs = &seen.hidden[&id].replaces;
                // An input that is nowhere may be past retention, or not listed yet: then what was made of it stays.
                let is_covered =
                    |input: &BlockId| replaced.contains(input) || known.iter().any(|meta| meta.id == *input);
                if !replaced.contains(&id) && (inputs.is_empty() || !inputs.iter().all(is_covered)) {
                    continue;
                }
                let holds = |meta: &&BlockMeta| {
                    let of_inputs = meta.replaces.iter().chain([&meta.id]).any(|id| inputs.contains(id));
                    of_inputs || meta.replaces.contains(&id)
                };
                let holders: Vec<BlockId> = known.iter().filter(holds).map(|meta| meta.id).collect();
                let metas = self.files.metas(tenant, &holders);
                if metas.into_iter().any(|meta| !matches!(meta, Ok(Some(_)))) {
                    continue;
                }
                self.files.remove(tenant, id).map_err(|err| err.to_string())?;
                tracing::info!(%tenant, block = %id, "a block that an interrupted merge left is removed from the storage");
                seen.dead.remove(&id);
                seen.hidden.remove(&id);
                buried += 1;
            }
        }
        Ok(buried)
    }

    fn failed(&self, failure: Failure) -> Error {
        failure.doing("list", self.files.location(&Path::default()))
    }

    /// How many blocks came and went; `None` when nothing may be changed now.
    fn poll_tenant(
        &mut self,
        catalog: &dyn BlockCatalog,
        tenant: &TenantId,
        now: UnixNano,
        is_full: bool,
    ) -> Result<Option<(usize, usize)>, String> {
        let known: BTreeMap<BlockId, BlockMeta> =
            catalog.blocks(tenant).into_iter().map(|meta| (meta.id, meta)).collect();
        let mut seen = self.seen.get(tenant).cloned().unwrap_or_default();
        let newest = known.keys().chain(seen.hidden.keys()).max().copied();
        // What came while nobody looked may be older than what came since.
        let mut is_full = is_full || newest.is_none() || now.since(seen.looked_at) > LATENESS / 2;
        let mut listed = self.list(tenant, newest.filter(|_| !is_full))?;
        self.share_deletions(catalog, tenant, &listed.deletions)?;
        self.read_new(tenant, &known, &listed, &mut seen)?;
        if !is_full && seen.misses_any(&known) {
            let all = self.list(tenant, None)?;
            listed = Objects { deletions: &listed.deletions | &all.deletions, ..all };
            self.read_new(tenant, &known, &listed, &mut seen)?;
            is_full = true;
        }
        let mut gone = BTreeSet::new();
        if is_full {
            seen.hidden.retain(|id, _| listed.blocks.contains(id));
            seen.unreadable.retain(|id, _| listed.blocks.contains(id));
            if !seen.is_waiting() {
                gone = self.confirmed_gone(tenant, &known, &listed, now)?;
            }
        }
        seen.hidden.retain(|id, _| !known.contains_key(id));
        let there = known.values().filter(|meta| !gone.contains(&meta.id));
        let counts = visible(there.chain(seen.usable(&known)));
        gone.extend(known.keys().filter(|id| !counts.contains(id)));
        let is_new = |id: &BlockId, _: &mut BlockMeta| counts.contains(id);
        let added: Vec<BlockMeta> = seen.hidden.extract_if(.., is_new).map(|(_, meta)| meta).collect();
        let changes =
            Changes { tenant: tenant.clone(), added, gone: gone.into_iter().collect(), deletions: listed.deletions };
        let has_changed = !changes.added.is_empty() || !changes.gone.is_empty();
        if has_changed && !catalog.take(&changes)? {
            // Nothing is remembered: the next poll finds the same.
            return Ok(None);
        }
        seen.unreadable.values_mut().for_each(|block| block.polls = block.polls.saturating_add(1));
        let unreadable: Vec<_> = seen.unreadable.iter().map(|(id, block)| (*id, block.reason.clone())).collect();
        catalog.lack(tenant, &unreadable);
        seen.looked_at = now;
        self.seen.insert(tenant.clone(), seen);
        Ok(Some((changes.added.len(), changes.gone.len())))
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
        Ok(Objects {
            blocks: whole_blocks(&objects).collect(),
            removed: blocks_with(&objects, REMOVED).collect(),
            deletions: deletions::deletions(&objects),
        })
    }

    /// The known blocks that were removed, and those that were so long ago that nothing is left to say it.
    fn confirmed_gone(
        &self,
        tenant: &TenantId,
        known: &BTreeMap<BlockId, BlockMeta>,
        listed: &Objects,
        now: UnixNano,
    ) -> Result<BTreeSet<BlockId>, String> {
        let unlisted = known.keys().filter(|id| !listed.blocks.contains(id)).copied();
        let (mut gone, unsaid): (BTreeSet<BlockId>, BTreeSet<BlockId>) =
            unlisted.partition(|id| listed.removed.contains(id));
        let unsaid: Vec<BlockId> = unsaid.into_iter().filter(|id| now.since(made_at(*id)) >= LIST_AGE_MAX).collect();
        for (id, meta) in unsaid.iter().zip(self.files.metas(tenant, &unsaid)) {
            if meta.map_err(|err| err.to_string())?.is_none() {
                gone.insert(*id);
            }
        }
        // What replaced them may have come behind the back of a list that takes its time.
        match gone.is_empty() || self.list(tenant, None)?.blocks == listed.blocks {
            true => Ok(gone),
            false => Err("blocks changed while they were listed".to_owned()),
        }
    }

    /// Reads the metas of blocks that are listed and new, and of those that could not be read before.
    fn read_new(
        &self,
        tenant: &TenantId,
        known: &BTreeMap<BlockId, BlockMeta>,
        listed: &Objects,
        seen: &mut Seen,
    ) -> Result<(), String> {
        let is_new = |id: &&BlockId| !known.contains_key(id) && !seen.hidden.contains_key(id);
        let new: BTreeSet<BlockId> =
            listed.blocks.iter().chain(seen.unreadable.keys()).filter(is_new).copied().collect();
        let new: Vec<BlockId> = new.into_iter().collect();
        let before = std::mem::take(&mut seen.unreadable);
        for (id, meta) in new.iter().zip(self.files.metas(tenant, &new)) {
            match meta {
                Ok(Some(meta)) => {
                    seen.hidden.insert(*id, meta);
                }
                Ok(None) if !listed.blocks.contains(id) => {}
                Ok(None) => return Err(format!("block {id} was taken out while blocks were listed")),
                // One block that cannot be read does not keep the others away for ever; it is named once.
                Err(err @ (Error::Corrupt { .. } | Error::Version { .. })) => {
                    if !before.contains_key(id) {
                        tracing::error!(%tenant, block = %id, %err, "a block in the storage cannot be read; queries do without it");
                    }
                    let polls = before.get(id).map_or(0, |block| block.polls);
                    seen.unreadable.insert(*id, Unreadable { reason: err.to_string(), polls });
                }
                Err(err) => return Err(err.to_string()),
            }
        }
        Ok(())
    }
}

/// When a block was named.
fn made_at(id: BlockId) -> UnixNano {
    UnixNano(u64::try_from(id.0 >> 80).unwrap_or(u64::MAX).saturating_mul(1_000_000))
}
