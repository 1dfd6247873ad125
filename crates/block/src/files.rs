//! Where the files of blocks lie: a directory here, object storage in `spoor_compactor`.
//!
//! ```text
//!   staging(tenant)/<id>.tmp/*   built here, on local disk, synced
//!        | publish: from this instant the block is there, whole
//!        v
//!   <root>/<tenant>/<id>/*       read by ranges, never changed, removed whole
//! ```
//!
//! Everything above this seam is the same wherever blocks lie; checksums are verified above it too.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use spoor_model::{BlockId, TenantId};

use crate::error::Error;
use crate::meta::BlockMeta;
use crate::pieces::Pieces;

/// The files of all blocks of all tenants. Called on threads that may block.
pub trait BlockFiles: Send + Sync {
    /// A place as an operator would look for it, for errors and listings.
    fn locate(&self, tenant: &TenantId, id: BlockId) -> String;

    /// The directory on local disk in which the tenant's blocks are built, as `<id>.tmp`. Made when it is missing.
    fn staging(&self, tenant: &TenantId) -> Result<PathBuf, Error>;

    /// Makes `<staging>/<id>.tmp`, whose files are synced, the block `id`: durable when this returns, and not
    /// there at all when it fails. Takes the staged directory away.
    fn publish(&self, tenant: &TenantId, id: BlockId) -> Result<(), Error>;

    /// A file of a published block, which is this by the block's meta. Reading need not verify it.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when it is known to be missing or of another size; that may also show when reading.
    fn open(
        &self,
        tenant: &TenantId,
        id: BlockId,
        name: &str,
        pieces: &Arc<Pieces>,
    ) -> Result<Arc<dyn BlockFile>, Error>;

    /// What a published block says of itself; `None` when there is no such block, or only a staged one.
    fn meta(&self, tenant: &TenantId, id: BlockId) -> Result<Option<BlockMeta>, Error>;

    /// Writes what a published block says of itself again, when that is missing or is not `meta`, which is what the catalog
    /// has. Whether it was written. Where blocks are not this process's alone it does nothing.
    fn mend_meta(&self, meta: &BlockMeta) -> Result<bool, Error> {
        let _ = meta;
        Ok(false)
    }

    /// Removes a block, and what an interrupted building of it left. Nothing there: nothing happens.
    fn remove(&self, tenant: &TenantId, id: BlockId) -> Result<(), Error>;

    /// Every block there is, staged ones included, whole or not, ascending.
    fn list(&self) -> Result<Vec<(TenantId, BlockId)>, Error>;

    /// Whether other processes may take over what is published here.
    fn is_shared(&self) -> bool {
        false
    }
}

/// An immutable file.
pub trait BlockFile: Send + Sync {
    /// The bytes of each range, which lies within the file. Ranges that are asked for together may be fetched together.
    fn read(&self, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, Error>;

    /// Reads a part of the file ahead, whole, where files are far away and what was read is kept nearer. Elsewhere it
    /// does nothing.
    fn read_ahead(&self, range: Range<u64>) -> Result<(), Error> {
        let _ = range;
        Ok(())
    }

    /// The same, some time soon, while nobody waits for it. `None`: it never is.
    fn read_behind(&self, range: Range<u64>) -> Option<Awaited> {
        let _ = range;
        None
    }
}

/// As long as this is held, what is to be read some time soon is wanted.
pub type Awaited = Box<dyn std::any::Any + Send + Sync>;

/// Blocks in `<root>/<tenant>/<block id>/`, staged beside them: publishing is a rename.
#[derive(Debug)]
pub struct DirectoryFiles {
    root: PathBuf,
}

impl DirectoryFiles {
    /// Blocks under `root`, which is made when the first block is built.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    fn tenant_dir(&self, tenant: &TenantId) -> PathBuf {
        self.root.join(tenant.as_str())
    }
}

impl BlockFiles for DirectoryFiles {
    fn locate(&self, tenant: &TenantId, id: BlockId) -> String {
        self.tenant_dir(tenant).join(id.to_string()).display().to_string()
    }

    fn staging(&self, tenant: &TenantId) -> Result<PathBuf, Error> {
        let dir = self.tenant_dir(tenant);
        if !dir.is_dir() {
            fs::create_dir_all(&dir).map_err(|err| Error::io("create", &dir, &err))?;
            sync_dir(&self.root)?;
        }
        Ok(dir)
    }

    fn publish(&self, tenant: &TenantId, id: BlockId) -> Result<(), Error> {
        let tenant_dir = self.tenant_dir(tenant);
        let staged = tenant_dir.join(format!("{id}.tmp"));
        sync_dir(&staged)?;
        fs::rename(&staged, tenant_dir.join(id.to_string())).map_err(|err| Error::io("rename", &staged, &err))?;
        sync_dir(&tenant_dir)
    }

    fn open(
        &self,
        tenant: &TenantId,
        id: BlockId,
        name: &str,
        pieces: &Arc<Pieces>,
    ) -> Result<Arc<dyn BlockFile>, Error> {
        let path = self.tenant_dir(tenant).join(id.to_string()).join(name);
        let object = format!("block {id} {name}");
        let found = fs::metadata(&path).map_err(|err| unopened(&object, &path, &err))?;
        let (found_bytes, size_bytes) = (found.len(), pieces.size_bytes());
        if found_bytes != size_bytes {
            let reason = format!("size mismatch (want {size_bytes} bytes, got {found_bytes})");
            return Err(Error::corrupt(object, reason));
        }
        Ok(Arc::new(LocalFile { path, object }))
    }

    fn meta(&self, tenant: &TenantId, id: BlockId) -> Result<Option<BlockMeta>, Error> {
        let path = self.tenant_dir(tenant).join(id.to_string()).join("meta.json");
        match fs::read(&path) {
            Ok(json) => BlockMeta::from_json(&json).map(Some),
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(err) => Err(Error::io("read", &path, &err)),
        }
    }

    fn mend_meta(&self, meta: &BlockMeta) -> Result<bool, Error> {
        let dir = self.tenant_dir(&meta.tenant).join(meta.id.to_string());
        match self.meta(&meta.tenant, meta.id) {
            Ok(Some(found)) if found == *meta => return Ok(false),
            Ok(None) if !dir.is_dir() => return Ok(false),
            Ok(_) | Err(Error::Corrupt { .. }) => {}
            Err(err) => return Err(err),
        }
        let (path, mended) = (dir.join("meta.json"), dir.join("meta.json.tmp"));
        let write = || -> io::Result<()> {
            let mut file = File::create(&mended)?;
            file.write_all(&meta.to_json())?;
            file.sync_all()?;
            fs::rename(&mended, &path)?;
            File::open(&dir)?.sync_all()
        };
        write().map_err(|err| Error::io("write", &path, &err))?;
        Ok(true)
    }

    fn remove(&self, tenant: &TenantId, id: BlockId) -> Result<(), Error> {
        let dir = self.tenant_dir(tenant);
        for name in [format!("{id}.tmp"), id.to_string()] {
            let path = dir.join(name);
            match fs::remove_dir_all(&path) {
                Err(err) if err.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::io("remove", &path, &err));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn list(&self) -> Result<Vec<(TenantId, BlockId)>, Error> {
        let mut found = BTreeSet::new();
        for tenant in names(&self.root)?.iter().filter_map(|name| TenantId::parse(name).ok()) {
            for name in names(&self.tenant_dir(&tenant))? {
                let name = name.strip_suffix(".tmp").unwrap_or(&name);
                found.extend(BlockId::parse(name).map(|id| (tenant.clone(), id)));
            }
        }
        Ok(found.into_iter().collect())
    }
}

/// The names in a directory; none when there is no directory.
fn names(dir: &Path) -> Result<Vec<String>, Error> {
    let entries = match fs::read_dir(dir) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|err| Error::io("read", dir, &err))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|err| Error::io("read", dir, &err))?;
        names.extend(entry.file_name().into_string().ok());
    }
    Ok(names)
}

fn sync_dir(dir: &Path) -> Result<(), Error> {
    let sync = || File::open(dir)?.sync_all();
    sync().map_err(|err| Error::io("sync", dir, &err))
}

/// A file on local disk. Opened for each read, which costs 1.5 us: thousands of blocks are open at once, and
/// descriptors are few.
#[derive(Debug)]
struct LocalFile {
    path: PathBuf,
    object: String,
}

fn unopened(object: &str, path: &Path, err: &io::Error) -> Error {
    match err.kind() {
        io::ErrorKind::NotFound => Error::corrupt(object, format!("file {} is missing", path.display())),
        _ => Error::io("open", path, err),
    }
}

impl LocalFile {
    /// A file that is too short, or none, is not what was written; other errors may pass.
    fn unread(&self, err: &io::Error) -> Error {
        match err.kind() {
            io::ErrorKind::UnexpectedEof => {
                Error::corrupt(&self.object, format!("file {} is too short", self.path.display()))
            }
            io::ErrorKind::IsADirectory => {
                Error::corrupt(&self.object, format!("{} is a directory", self.path.display()))
            }
            _ => Error::io("read", &self.path, err),
        }
    }
}

impl BlockFile for LocalFile {
    fn read(&self, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, Error> {
        let file = File::open(&self.path).map_err(|err| unopened(&self.object, &self.path, &err))?;
        let read = |range: &Range<u64>| {
            let mut bytes = vec![0; (range.end - range.start) as usize];
            file.read_exact_at(&mut bytes, range.start).map_err(|err| self.unread(&err))?;
            Ok(Bytes::from(bytes))
        };
        ranges.iter().map(read).collect()
    }
}

#[cfg(test)]
mod tests {
    use spoor_model::{TimeRange, UnixNano};

    use super::*;

    #[test]
    fn a_staged_block_is_not_there_until_it_is_published_and_goes_whole() {
        let root = tempfile::tempdir().unwrap();
        let files = DirectoryFiles::new(root.path());
        let (tenant, id) = (TenantId::single(), BlockId(7));
        assert_eq!(files.list().unwrap(), []);
        let staged = files.staging(&tenant).unwrap().join(format!("{id}.tmp"));
        fs::create_dir(&staged).unwrap();
        let meta = BlockMeta::without_files(id, tenant.clone(), UnixNano(1), TimeRange::ALL);
        fs::write(staged.join("meta.json"), meta.to_json()).unwrap();
        assert_eq!(files.list().unwrap(), [(tenant.clone(), id)]);
        assert_eq!(files.meta(&tenant, id).unwrap(), None);
        let pieces = Arc::new(Pieces::of_content(&meta.to_json()));
        assert!(files.open(&tenant, id, "meta.json", &pieces).is_err());
        files.publish(&tenant, id).unwrap();
        assert_eq!(files.meta(&tenant, id).unwrap(), Some(meta.clone()));
        let size = meta.to_json().len() as u64;
        let file = files.open(&tenant, id, "meta.json", &pieces).unwrap();
        assert_eq!(file.read(&[0..1, size - 1..size]).unwrap(), [&b"{"[..], &b"}"[..]]);
        let other = Arc::new(Pieces::of_content(b"another file"));
        assert!(matches!(files.open(&tenant, id, "meta.json", &other), Err(Error::Corrupt { .. })));
        assert!(!files.mend_meta(&meta).unwrap());
        let path = root.path().join(tenant.as_str()).join(id.to_string()).join("meta.json");
        fs::write(&path, b"{").unwrap();
        assert!(files.mend_meta(&meta).unwrap());
        fs::remove_file(&path).unwrap();
        assert!(files.mend_meta(&meta).unwrap());
        assert_eq!(files.meta(&tenant, id).unwrap(), Some(meta.clone()));
        files.remove(&tenant, id).unwrap();
        files.remove(&tenant, id).unwrap();
        // What is gone stays gone.
        assert!(!files.mend_meta(&meta).unwrap());
        assert_eq!(files.list().unwrap(), []);
    }
}
