//! [`ObjectFiles`]: blocks in a store.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path as FilePath, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, PutMode};
use spoor_block::{BlockFile, BlockFiles, BlockMeta, Error, Pieces};
use spoor_model::{BlockId, TenantId};

use super::ahead::Ahead;
use super::cache::{FileName, PieceCache};
use super::exclusion::Gate;
use super::file::ObjectFile;
use super::metrics::Metrics;
use super::requests::{Failure, Patience, Requests};
use super::upload;

/// Put last: a block is there when this is.
pub(crate) const META: &str = "meta.json";
/// Put before [`META`] is deleted: a listing that has this one, and not that one, is younger than the removal, and so
/// has what took the block's place.
pub(crate) const REMOVED: &str = "removed";

/// What [`ObjectFiles`] needs.
#[derive(Debug, Clone)]
pub struct ObjectOptions {
    /// Blocks are built here, on local disk, in a directory per tenant.
    pub staging_dir: PathBuf,
    /// What was read is kept here, on local disk.
    pub cache_dir: PathBuf,
    /// Bytes that the cache may hold; 0 for none.
    pub cache_bytes: u64,
    /// Bytes of these that may be fetched before a query asks, for blocks that are known at one time; 0 for none.
    pub ahead_bytes: u64,
    /// How long the store is waited for.
    pub patience: Patience,
    /// The directory that the store is, when it is one: what is put there is forced to disk.
    pub local_dir: Option<PathBuf>,
    /// The store as errors name it.
    pub name: String,
    /// How long the files of a block stay when it is taken out, for processes that are still reading it; then
    /// the [`super::Sweeper`] removes them. Zero: they go at once.
    pub grace: Duration,
}

/// Blocks as objects `<tenant>/<block id>/<file>` of a store.
///
/// Every call blocks for as long as the store is waited for, and must not be made on an async thread.
#[derive(Debug)]
pub struct ObjectFiles {
    requests: Arc<Requests>,
    cache: Arc<PieceCache>,
    ahead: Arc<Ahead>,
    options: ObjectOptions,
    gate: OnceLock<Arc<dyn Gate>>,
}

impl ObjectFiles {
    /// Starts the threads that talk to the store; asks nothing of it yet.
    pub fn new(store: Arc<dyn ObjectStore>, options: ObjectOptions, metrics: Metrics) -> Result<Self, String> {
        let requests = Arc::new(Requests::new(&options.name, store, options.patience, metrics.clone())?);
        let cache = Arc::new(PieceCache::open(options.cache_dir.clone(), options.cache_bytes, metrics.clone()));
        let ahead = Ahead::new(options.ahead_bytes.min(options.cache_bytes), metrics);
        Ok(Self { requests, cache, ahead, options, gate: OnceLock::new() })
    }

    /// How many blocks are known and were not fetched as far as a query needs them that looks for what they do not have.
    /// It falls by itself, and not below the number of those for which `ahead_bytes` has no room.
    pub fn awaited_blocks(&self) -> usize {
        self.ahead.missing_count()
    }

    /// The store as errors name it.
    pub fn name(&self) -> &str {
        &self.options.name
    }

    /// From now on merged blocks become visible through this gate. The first gate stays.
    pub fn set_gate(&self, gate: Arc<dyn Gate>) {
        let _ = self.gate.set(gate);
    }

    /// The process stops: from now on each request may take this long, and the first that fails is the last.
    pub fn hasten(&self, left: Duration) {
        self.requests.hasten(left);
    }

    /// What is counted of it.
    pub fn metrics(&self) -> &Metrics {
        self.requests.metrics()
    }

    pub(crate) fn requests(&self) -> &Arc<Requests> {
        &self.requests
    }

    /// The directory that the store is, if it is one.
    pub(crate) fn local_dir(&self) -> Option<&std::path::Path> {
        self.options.local_dir.as_deref()
    }

    pub(crate) fn location(&self, path: &Path) -> String {
        format!("{}/{path}", self.options.name.trim_end_matches('/'))
    }

    /// What blocks say of themselves, in the order of their ids; some requests at a time.
    pub(crate) fn metas(&self, tenant: &TenantId, ids: &[BlockId]) -> Vec<Result<Option<BlockMeta>, Error>> {
        let paths = ids.iter().map(|id| path(tenant, *id, META)).collect();
        let read = |(id, json): (&BlockId, Result<Bytes, Failure>)| {
            let object = format!("block {id} {META}");
            let json = match json {
                Ok(json) => json,
                Err(Failure::Missing) => return Ok(None),
                Err(failure) => return Err(failure.reading(&object, self.location(&path(tenant, *id, META)))),
            };
            let meta = BlockMeta::from_json(&json)?;
            if meta.id != *id || meta.tenant != *tenant {
                let reason = format!("it is that of block {} of tenant {}", meta.id, meta.tenant);
                return Err(Error::Corrupt { object, reason });
            }
            Ok(Some(meta))
        };
        ids.iter().zip(self.requests.get_all(paths)).map(read).collect()
    }

    fn staged(&self, tenant: &TenantId, id: BlockId) -> PathBuf {
        self.options.staging_dir.join(tenant.as_str()).join(format!("{id}.tmp"))
    }

    /// Objects of a directory are forced to disk: the store's own library leaves that out.
    fn sync(&self, tenant: &TenantId, id: BlockId) -> Result<(), Error> {
        let Some(root) = &self.options.local_dir else { return Ok(()) };
        let tenant_dir = root.join(tenant_path(tenant).as_ref());
        let dir = tenant_dir.join(id.to_string());
        let sync = |path: &FilePath| File::open(path)?.sync_all();
        let all = || -> io::Result<()> {
            for entry in fs::read_dir(&dir)? {
                sync(&entry?.path())?;
            }
            sync(&dir)?;
            sync(&tenant_dir)?;
            sync(root)
        };
        all().map_err(|err| local("sync", &dir, &err))
    }

    fn delete(&self, paths: Vec<Path>) -> Result<(), Failure> {
        match paths.is_empty() {
            true => Ok(()),
            false => self.requests.delete(paths),
        }
    }

    pub(crate) fn grace(&self) -> Duration {
        self.options.grace
    }

    /// The tenants that have objects, ascending.
    pub(crate) fn tenants(&self) -> Result<Vec<TenantId>, Failure> {
        let names = self.requests.list_prefixes(&Path::default())?;
        let tenants: BTreeSet<_> = names.iter().filter_map(|name| tenant_of(name)).collect();
        Ok(tenants.into_iter().collect())
    }
}

impl Drop for ObjectFiles {
    fn drop(&mut self) {
        self.ahead.end();
    }
}

/// The prefix of a tenant's objects.
pub(crate) fn tenant_path(tenant: &TenantId) -> Path {
    Path::from_iter([tenant.as_str()])
}

/// The prefix of a block's objects.
pub(crate) fn block_path(tenant: &TenantId, id: BlockId) -> Path {
    Path::from_iter([tenant.as_str(), &id.to_string()])
}

/// The object of a block's file.
pub(crate) fn path(tenant: &TenantId, id: BlockId, name: &str) -> Path {
    Path::from_iter([tenant.as_str(), &id.to_string(), name])
}

/// The block and the file of an object.
pub(crate) fn parse(object: &Path) -> Option<(BlockId, String)> {
    let mut parts = object.parts().skip(1);
    let (id, name) = (parts.next()?, parts.next()?);
    Some((BlockId::parse(id.as_ref())?, name.as_ref().to_owned()))
}

/// The blocks among objects of one tenant.
pub(crate) fn whole_blocks(objects: &[ObjectMeta]) -> impl Iterator<Item = BlockId> {
    blocks_with(objects, META)
}

/// The ids of blocks that have an object of a name.
pub(crate) fn blocks_with<'a>(objects: &'a [ObjectMeta], name: &'a str) -> impl Iterator<Item = BlockId> + 'a {
    let parsed = objects.iter().filter_map(|object| parse(&object.location));
    parsed.filter(move |(_, found)| found == name).map(|(id, _)| id)
}

/// The tenant of a prefix. Stores have a tenant's only special character as a code.
fn tenant_of(name: &str) -> Option<TenantId> {
    TenantId::parse(&name.replace("%2A", "*")).ok()
}

pub(crate) fn local(action: &'static str, path: &FilePath, err: &io::Error) -> Error {
    let is_full = matches!(err.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    Error::Io { action, path: path.display().to_string(), reason: err.to_string(), is_full }
}

impl BlockFiles for ObjectFiles {
    fn locate(&self, tenant: &TenantId, id: BlockId) -> String {
        self.location(&block_path(tenant, id))
    }

    fn staging(&self, tenant: &TenantId) -> Result<PathBuf, Error> {
        let dir = self.options.staging_dir.join(tenant.as_str());
        fs::create_dir_all(&dir).map_err(|err| local("create", &dir, &err))?;
        Ok(dir)
    }

    fn publish(&self, tenant: &TenantId, id: BlockId) -> Result<(), Error> {
        let staged = self.staged(tenant, id);
        let entries = fs::read_dir(&staged).map_err(|err| local("read", &staged, &err))?;
        for entry in entries {
            let entry = entry.map_err(|err| local("read", &staged, &err))?;
            let name = entry.file_name();
            if let Some(name) = name.to_str().filter(|name| *name != META) {
                upload::upload(&self.requests, &entry.path(), &path(tenant, id, name))?;
            }
        }
        self.sync(tenant, id)?;
        let staged_meta = staged.join(META);
        let json: Bytes = fs::read(&staged_meta).map_err(|err| local("read", &staged_meta, &err))?.into();
        let object = path(tenant, id, META);
        let meta = BlockMeta::from_json(&json)?;
        let mut put = || {
            let put = self.requests.put(&object, json.clone(), PutMode::Overwrite);
            put.map_err(|failure| failure.doing("upload", self.location(&object)))?;
            self.sync(tenant, id)
        };
        match self.gate.get().filter(|_| !meta.replaces.is_empty()) {
            Some(gate) => gate.pass(&meta, &mut put)?,
            None => put()?,
        }
        // The block is there. What was built is what queries will ask for first.
        let _ = fs::remove_file(staged_meta);
        self.cache.adopt(tenant, id, &staged);
        let _ = fs::remove_dir_all(&staged);
        Ok(())
    }

    fn open(
        &self,
        tenant: &TenantId,
        id: BlockId,
        name: &str,
        pieces: &Arc<Pieces>,
    ) -> Result<Arc<dyn BlockFile>, Error> {
        let path = path(tenant, id, name);
        let location = self.location(&path);
        Ok(Arc::new(ObjectFile {
            requests: Arc::clone(&self.requests),
            cache: Arc::clone(&self.cache),
            ahead: Arc::clone(&self.ahead),
            path,
            name: FileName { tenant: tenant.clone(), id, name: name.to_owned() },
            pieces: Arc::clone(pieces),
            location,
        }))
    }

    fn meta(&self, tenant: &TenantId, id: BlockId) -> Result<Option<BlockMeta>, Error> {
        self.metas(tenant, &[id]).pop().unwrap_or(Ok(None))
    }

    fn remove(&self, tenant: &TenantId, id: BlockId) -> Result<(), Error> {
        let staged = self.staged(tenant, id);
        match fs::remove_dir_all(&staged) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(local("remove", &staged, &err)),
            _ => {}
        }
        self.cache.remove(tenant, id);
        let failed = |failure: Failure| failure.doing("remove", self.locate(tenant, id));
        let there = self.requests.list_objects(&block_path(tenant, id), None).map_err(failed)?;
        let mut there: Vec<Path> = there.into_iter().map(|object| object.location).collect();
        let [meta, removed] = [META, REMOVED].map(|name| path(tenant, id, name));
        if there.contains(&meta) {
            self.requests.put(&removed, Bytes::new(), PutMode::Overwrite).map_err(failed)?;
            // First what makes it a block, so that no reader finds half of one.
            self.requests.delete(vec![meta.clone()]).map_err(failed)?;
        } else if !there.contains(&removed) {
            // The remains of an upload: nobody has ever seen the block.
            return self.delete(there).map_err(failed);
        }
        if !self.options.grace.is_zero() {
            // Other processes may be reading: the sweeper takes the rest.
            return Ok(());
        }
        there.retain(|path| *path != meta && *path != removed);
        self.delete(there).map_err(failed)
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn list(&self) -> Result<Vec<(TenantId, BlockId)>, Error> {
        let failed = |failure: Failure| failure.doing("list", self.options.name.clone());
        let mut found = BTreeSet::new();
        for tenant in self.tenants().map_err(failed)? {
            let objects = self.requests.list_objects(&tenant_path(&tenant), None).map_err(failed)?;
            found.extend(whole_blocks(&objects).map(|id| (tenant.clone(), id)));
        }
        for tenant in names(&self.options.staging_dir)?.iter().filter_map(|name| TenantId::parse(name).ok()) {
            for name in names(&self.options.staging_dir.join(tenant.as_str()))? {
                let id = name.strip_suffix(".tmp").and_then(BlockId::parse);
                found.extend(id.map(|id| (tenant.clone(), id)));
            }
        }
        Ok(found.into_iter().collect())
    }
}

/// The names in a directory; none when there is no directory.
fn names(dir: &FilePath) -> Result<Vec<String>, Error> {
    let entries = match fs::read_dir(dir) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|err| local("read", dir, &err))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry.map_err(|err| local("read", dir, &err))?.file_name().into_string().ok());
    }
    Ok(names)
}
