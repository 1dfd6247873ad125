//! Blocks on their way into a store: they were kept in the data directory before there was one.
//!
//! ```text
//!   blocks/<tenant>/<id>/ --link--> staging/<tenant>/<id>.tmp --publish--> store and cache --> the directory goes
//!   |---------------- read from here ------------------------------------|---- and from here ---->
//! ```
//!
//! **Invariant:** a block is in the directory until it is in the store, whole.
//! **Invariant:** nobody takes blocks out while some are moved, or one could come back.

use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use spoor_block::{BlockFile, BlockFiles, BlockMeta, DirectoryFiles, Error, Pieces};
use spoor_model::{BlockId, TenantId};

use super::files::{ObjectFiles, local};

/// Blocks of a store, and those that are still in a directory.
#[derive(Debug)]
pub struct MovingFiles {
    root: PathBuf,
    directory: DirectoryFiles,
    objects: Arc<ObjectFiles>,
}

impl MovingFiles {
    /// Blocks below `root`, which are to be moved to `objects`.
    pub fn new(root: impl Into<PathBuf>, objects: Arc<ObjectFiles>) -> Self {
        let root = root.into();
        Self { directory: DirectoryFiles::new(&root), root, objects }
    }

    /// Whether the block is still in the directory.
    pub fn is_here(&self, tenant: &TenantId, id: BlockId) -> bool {
        self.dir_of(tenant, id).is_dir()
    }

    /// Whether any block is. Looks at names only.
    pub fn has_blocks(&self) -> Result<bool, Error> {
        Ok(self.directory.list()?.iter().any(|(tenant, id)| self.is_here(tenant, *id)))
    }

    fn dir_of(&self, tenant: &TenantId, id: BlockId) -> PathBuf {
        self.root.join(tenant.as_str()).join(id.to_string())
    }

    /// Puts a block that is in the directory into the store, and then takes it out of the directory. When it fails, the
    /// block is where it was, and moving it again begins anew.
    pub fn move_block(&self, tenant: &TenantId, id: BlockId) -> Result<(), Error> {
        let staged = self.objects.staging(tenant)?.join(format!("{id}.tmp"));
        link_files(&self.dir_of(tenant, id), &staged)?;
        self.objects.publish(tenant, id)?;
        self.directory.remove(tenant, id)
    }
}

/// A directory with the files of another: links where that is possible, else copies.
fn link_files(from: &Path, to: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(to) {
        Err(err) if err.kind() != std::io::ErrorKind::NotFound => return Err(local("remove", to, &err)),
        _ => {}
    }
    fs::create_dir(to).map_err(|err| local("create", to, &err))?;
    for entry in fs::read_dir(from).map_err(|err| local("read", from, &err))? {
        let entry = entry.map_err(|err| local("read", from, &err))?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if fs::hard_link(&path, &target).is_err() {
            fs::copy(&path, &target).map_err(|err| local("copy", &path, &err))?;
        }
    }
    Ok(())
}

/// A file in the directory as long as it is there, and in the store from then on.
struct MovingFile {
    here: Arc<dyn BlockFile>,
    there: Arc<dyn BlockFile>,
}

impl BlockFile for MovingFile {
    fn read(&self, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, Error> {
        self.here.read(ranges).or_else(|_| self.there.read(ranges))
    }
}

impl BlockFiles for MovingFiles {
    fn locate(&self, tenant: &TenantId, id: BlockId) -> String {
        match self.is_here(tenant, id) {
            true => self.directory.locate(tenant, id),
            false => self.objects.locate(tenant, id),
        }
    }

    fn staging(&self, tenant: &TenantId) -> Result<PathBuf, Error> {
        self.objects.staging(tenant)
    }

    fn publish(&self, tenant: &TenantId, id: BlockId) -> Result<(), Error> {
        self.objects.publish(tenant, id)
    }

    fn open(
        &self,
        tenant: &TenantId,
        id: BlockId,
        name: &str,
        pieces: &Arc<Pieces>,
    ) -> Result<Arc<dyn BlockFile>, Error> {
        let there = self.objects.open(tenant, id, name, pieces)?;
        match self.directory.open(tenant, id, name, pieces) {
            Ok(here) => Ok(Arc::new(MovingFile { here, there })),
            Err(err) if self.is_here(tenant, id) => Err(err),
            Err(_) => Ok(there),
        }
    }

    fn meta(&self, tenant: &TenantId, id: BlockId) -> Result<Option<BlockMeta>, Error> {
        match self.directory.meta(tenant, id)? {
            Some(meta) => Ok(Some(meta)),
            None => self.objects.meta(tenant, id),
        }
    }

    fn remove(&self, tenant: &TenantId, id: BlockId) -> Result<(), Error> {
        self.directory.remove(tenant, id)?;
        self.objects.remove(tenant, id)
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn list(&self) -> Result<Vec<(TenantId, BlockId)>, Error> {
        let all: BTreeSet<_> = self.directory.list()?.into_iter().chain(self.objects.list()?).collect();
        Ok(all.into_iter().collect())
    }
}
