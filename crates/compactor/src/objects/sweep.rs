//! Removing what is no block: remains of uploads that were broken off, the files of blocks that were taken out, and what
//! was deleted from blocks that are gone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use object_store::ObjectMeta;
use object_store::path::Path;
use spoor_block::Error;
use spoor_model::{BlockId, TenantId, UnixNano};

use super::deletions::parse_deletion;
use super::files::{META, ObjectFiles, REMOVED, parse, tenant_path, whole_blocks};

/// Nobody uploads a single file of a block for as long; younger objects may belong to an upload that is going on.
const UPLOAD_TIME_MAX: Duration = Duration::from_secs(3600);

/// Remembers what looked like remains. Only who holds the lease sweeps.
#[derive(Debug)]
pub struct Sweeper {
    files: Arc<ObjectFiles>,
    /// When each was first seen without a meta.
    seen: BTreeMap<(TenantId, BlockId), UnixNano>,
}

impl Sweeper {
    /// Sweeps the store of `files`.
    pub fn new(files: Arc<ObjectFiles>) -> Self {
        Self { files, seen: BTreeMap::new() }
    }

    /// Deletes objects of block ids that have had no `meta.json` for the grace period, and of which it is said that they were
    /// removed, or whose youngest object is older than an hour. What says that one was removed stays for that hour, for
    /// those who have not heard of it. Returns how many block ids. One listing of everything.
    pub fn sweep(&mut self, now: UnixNano) -> Result<usize, Error> {
        let failed = |failure: super::requests::Failure, path: &Path| {
            let location = self.files.location(path);
            failure.doing("sweep", location)
        };
        let root = Path::default();
        let mut remains = BTreeMap::new();
        for tenant in self.files.tenants().map_err(|failure| failed(failure, &root))? {
            let objects = self.files.requests().list_objects(&tenant_path(&tenant), None);
            let objects = objects.map_err(|failure| failed(failure, &root))?;
            let outdated = outdated_deletions(&objects, now);
            if !outdated.is_empty() {
                self.files.requests().delete(outdated).map_err(|failure| failed(failure, &root))?;
            }
            remains.extend(without_meta(objects).into_iter().map(|(id, objects)| ((tenant.clone(), id), objects)));
        }
        self.seen.retain(|name, _| remains.contains_key(name));
        let mut swept = 0;
        for (name, objects) in remains {
            let first_seen = *self.seen.entry(name.clone()).or_insert(now);
            let youngest = objects.iter().map(modified).max().unwrap_or(now);
            if now.since(first_seen) < self.files.grace() {
                continue;
            }
            let is_old = now.since(youngest) >= UPLOAD_TIME_MAX;
            let paths: Vec<Path> = objects.into_iter().map(|object| object.location).collect();
            let (said, files): (Vec<Path>, Vec<Path>) =
                paths.into_iter().partition(|path| path.filename() == Some(REMOVED));
            if !files.is_empty() && (is_old || !said.is_empty()) {
                self.files.requests().delete(files).map_err(|failure| failed(failure, &root))?;
                tracing::info!(tenant = %name.0, block = %name.1, "remains of a block are removed from the storage");
                self.files.requests().metrics().swept.inc();
                swept += 1;
            }
            if !said.is_empty() && is_old {
                self.files.requests().delete(said).map_err(|failure| failed(failure, &root))?;
            }
        }
        Ok(swept)
    }
}

fn modified(object: &ObjectMeta) -> UnixNano {
    UnixNano(object.last_modified.timestamp_nanos_opt().and_then(|nanos| u64::try_from(nanos).ok()).unwrap_or(0))
}

/// Deletions from blocks that are gone, and were long enough ago for everybody to know that.
fn outdated_deletions(objects: &[ObjectMeta], now: UnixNano) -> Vec<Path> {
    let whole: BTreeSet<BlockId> = whole_blocks(objects).collect();
    let is_outdated = |object: &&ObjectMeta| {
        let of = parse_deletion(&object.location);
        of.is_some_and(|(block, _)| !whole.contains(&block) && now.since(modified(object)) >= UPLOAD_TIME_MAX)
    };
    objects.iter().filter(is_outdated).map(|object| object.location.clone()).collect()
}

/// The objects of block ids without a meta.
fn without_meta(objects: Vec<ObjectMeta>) -> BTreeMap<BlockId, Vec<ObjectMeta>> {
    let mut blocks: BTreeMap<BlockId, Vec<ObjectMeta>> = BTreeMap::new();
    let mut whole = BTreeSet::new();
    for object in objects {
        // What has no block id is not ours to delete.
        let Some((id, name)) = parse(&object.location) else { continue };
        if name == META {
            whole.insert(id);
        }
        blocks.entry(id).or_default().push(object);
    }
    blocks.retain(|id, _| !whole.contains(id));
    blocks
}
