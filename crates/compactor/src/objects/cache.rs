//! Pieces of remote files on local disk, under a budget of bytes.
//!
//! ```text
//!   <dir>/<tenant>/<block id>/<file>     sparse: a piece that was fetched lies where it lies in the file
//!                                        [####....####..........####]
//! ```
//!
//! What is allocated is what is there, so nothing else is written down: a start asks the file system. Every piece is
//! verified when it is read, for the file system may have allocated and never filled it, or the disk may fail; what does not verify
//! is fetched anew. Nothing here is synced.
//!
//! Files go whole, least recently used first, `spans.parquet` before the small ones: those decide whether
//! a block must be read at all.
//!
//! **Invariant:** the disk failing makes reads slower, never wrong.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use hashbrown::HashMap;
use parking_lot::Mutex;
use rustix::fs::SeekFrom;
use spoor_block::{PIECE_BYTES, Pieces};
use spoor_model::seldom::Seldom;
use spoor_model::{BlockId, TenantId};

use super::metrics::Metrics;

/// The file that is given up first.
const LARGE_FILE: &str = "spans.parquet";

/// A file of a block.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct FileName {
    pub(crate) tenant: TenantId,
    pub(crate) id: BlockId,
    pub(crate) name: String,
}

#[derive(Debug)]
struct Entry {
    /// Which pieces are here, or may be.
    is_here: Vec<bool>,
    size_bytes: u64,
    held_bytes: u64,
    last_used: u64,
    /// Tells this file from an earlier one of the same name.
    generation: u64,
}

#[derive(Debug, Default)]
struct State {
    files: HashMap<FileName, Entry>,
    held_bytes: u64,
    /// Counts uses.
    clock: u64,
}

/// The cache. One process at a time uses a directory.
#[derive(Debug)]
pub(crate) struct PieceCache {
    dir: PathBuf,
    limit_bytes: u64,
    state: Mutex<State>,
    metrics: Metrics,
    said: Seldom,
}

impl PieceCache {
    /// Takes over what an earlier process left in `dir`, which is made when something is first kept. With a budget of
    /// nothing, `dir` is left alone.
    pub(crate) fn open(dir: PathBuf, limit_bytes: u64, metrics: Metrics) -> Self {
        let cache = Self { dir, limit_bytes, state: Mutex::default(), metrics, said: Seldom::new() };
        if limit_bytes == 0 {
            return cache;
        }
        let mut state = cache.state.lock();
        for name in files_below(&cache.dir) {
            match inspect(&cache.path(&name)) {
                Ok(entry) => {
                    state.held_bytes += entry.held_bytes;
                    state.files.insert(name, entry);
                }
                Err(err) => cache.failed(&name, &err),
            }
        }
        cache.make_room(&mut state, None);
        drop(state);
        cache
    }

    /// Whether there is anything that it may keep.
    pub(crate) fn is_on(&self) -> bool {
        self.limit_bytes > 0
    }

    fn dir_of(&self, tenant: &TenantId, id: BlockId) -> PathBuf {
        self.dir.join(tenant.as_str()).join(id.to_string())
    }

    fn path(&self, name: &FileName) -> PathBuf {
        self.dir_of(&name.tenant, name.id).join(&name.name)
    }

    /// Whether all pieces of a range are here, sound or not.
    pub(crate) fn has(&self, name: &FileName, pieces: &Pieces, range: &Range<u64>) -> bool {
        let state = self.state.lock();
        let entry = state.files.get(name).filter(|entry| entry.size_bytes == pieces.size_bytes());
        let is_here = entry.and_then(|entry| entry.is_here.get(pieces.covering(range)));
        is_here.is_some_and(|is_here| !is_here.contains(&false))
    }

    /// Reads a range, when all its pieces are here.
    pub(crate) fn read(&self, name: &FileName, pieces: &Pieces, range: &Range<u64>) -> Option<Bytes> {
        let wanted = pieces.covering(range);
        let file = {
            let mut state = self.state.lock();
            state.clock += 1;
            let now = state.clock;
            let entry = state.files.get_mut(name).filter(|entry| entry.size_bytes == pieces.size_bytes())?;
            if entry.is_here.get(wanted.clone())?.contains(&false) {
                return None;
            }
            entry.last_used = now;
            // Opened under the lock: the file that has these pieces, even if it is removed while it is read.
            match File::open(self.path(name)) {
                Ok(file) => file,
                Err(err) => {
                    state.forget(name);
                    drop(state);
                    self.failed(name, &err);
                    return None;
                }
            }
        };
        match self.read_verified(pieces, &wanted, &file) {
            Ok(whole) => {
                let from = (range.start - pieces.bytes(&wanted).start) as usize;
                let bytes = whole.slice(from..from + (range.end - range.start) as usize);
                self.metrics.cache_read_bytes.inc_by(bytes.len() as u64);
                Some(bytes)
            }
            Err(err) => {
                self.failed(name, &err);
                self.remove_file(name);
                None
            }
        }
    }

    /// Reads whole pieces; an error when one of them is rotten.
    fn read_verified(&self, pieces: &Pieces, wanted: &Range<usize>, file: &File) -> io::Result<Bytes> {
        let whole = read_exact(file, &pieces.bytes(wanted))?;
        for (piece, bytes) in wanted.clone().zip(whole.chunks(PIECE_BYTES)) {
            if let Err(reason) = pieces.verify(piece, bytes) {
                self.metrics.cache_rotten.inc();
                return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
            }
        }
        Ok(whole)
    }

    /// Keeps whole, verified pieces, beginning with `first`.
    pub(crate) fn keep(&self, name: &FileName, pieces: &Pieces, first: usize, bytes: &[u8]) {
        if self.limit_bytes == 0 {
            return;
        }
        let kept = self.create(name, pieces).and_then(|(file, generation)| {
            file.write_all_at(bytes, pieces.bytes(&(first..first + 1)).start)?;
            Ok(generation)
        });
        match kept {
            Ok(generation) => self.note(name, pieces, first..first + bytes.len().div_ceil(PIECE_BYTES), generation),
            Err(err) => {
                self.failed(name, &err);
                self.remove_file(name);
            }
        }
    }

    /// Opens a file for writing, with its full size and nothing in it when it is new.
    fn create(&self, name: &FileName, pieces: &Pieces) -> io::Result<(File, u64)> {
        let mut state = self.state.lock();
        let path = self.path(name);
        match state.files.get(name) {
            Some(entry) if entry.size_bytes == pieces.size_bytes() => {
                return Ok((File::options().write(true).open(path)?, entry.generation));
            }
            // Cut short by whoever, or of a block of before.
            Some(_) => self.unlink(&mut state, name),
            None => {}
        }
        fs::create_dir_all(self.dir_of(&name.tenant, name.id))?;
        let file = File::options().create(true).truncate(true).write(true).open(path)?;
        file.set_len(pieces.size_bytes())?;
        let generation = state.add(name.clone(), vec![false; pieces.count()], pieces.size_bytes());
        Ok((file, generation))
    }

    fn note(&self, name: &FileName, pieces: &Pieces, kept: Range<usize>, generation: u64) {
        let mut state = self.state.lock();
        let Some(entry) = state.files.get_mut(name).filter(|entry| entry.generation == generation) else { return };
        let mut added = 0;
        for piece in kept {
            if !std::mem::replace(&mut entry.is_here[piece], true) {
                let bytes = pieces.bytes(&(piece..piece + 1));
                added += bytes.end - bytes.start;
            }
        }
        entry.held_bytes += added;
        state.held_bytes += added;
        self.make_room(&mut state, Some(name));
    }

    /// Takes over the files of a block that was built here, whole.
    pub(crate) fn adopt(&self, tenant: &TenantId, id: BlockId, staged: &Path) {
        if self.limit_bytes == 0 {
            return;
        }
        let dir = self.dir_of(tenant, id);
        self.remove(tenant, id);
        let taken = dir.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| take(staged, &dir));
        if let Err(err) = taken {
            self.failed(&FileName { tenant: tenant.clone(), id, name: String::new() }, &err);
            return;
        }
        let mut state = self.state.lock();
        for name in names(&dir) {
            let name = FileName { tenant: tenant.clone(), id, name };
            let Ok(size_bytes) = fs::metadata(self.path(&name)).map(|found| found.len()) else { continue };
            let count = size_bytes.div_ceil(PIECE_BYTES as u64) as usize;
            state.add(name.clone(), vec![true; count], size_bytes);
            state.held_bytes += size_bytes;
            state.files.get_mut(&name).expect("it was just added").held_bytes = size_bytes;
        }
        self.make_room(&mut state, None);
    }

    /// Forgets a block.
    pub(crate) fn remove(&self, tenant: &TenantId, id: BlockId) {
        let mut state = self.state.lock();
        let own = |name: &&FileName| name.tenant == *tenant && name.id == id;
        let gone: Vec<FileName> = state.files.keys().filter(own).cloned().collect();
        gone.iter().for_each(|name| state.forget(name));
        self.metrics.cache_held_bytes.set(state.held_bytes as i64);
        drop(state);
        // Nothing there: nothing to do.
        let _ = fs::remove_dir_all(self.dir_of(tenant, id));
    }

    fn remove_file(&self, name: &FileName) {
        let mut state = self.state.lock();
        self.unlink(&mut state, name);
    }

    fn unlink(&self, state: &mut State, name: &FileName) {
        state.forget(name);
        let path = self.path(name);
        // A file that stays is found by the next start.
        let _ = fs::remove_file(&path);
        if let Some(dir) = path.parent() {
            // Fails while there are other files.
            let _ = fs::remove_dir(dir);
        }
    }

    /// Removes files until the budget holds. `current` goes last.
    fn make_room(&self, state: &mut State, current: Option<&FileName>) {
        while state.held_bytes > self.limit_bytes {
            let small_bytes: u64 =
                state.files.iter().filter(|(name, _)| name.name != LARGE_FILE).map(|(_, entry)| entry.held_bytes).sum();
            let prefers_large = small_bytes <= self.limit_bytes / 2;
            let rank = |(name, entry): &(&FileName, &Entry)| {
                (Some(*name) == current, (name.name != LARGE_FILE) == prefers_large, entry.last_used)
            };
            let victim = state.files.iter().filter(|(_, entry)| entry.held_bytes > 0).min_by_key(rank);
            let Some(victim) = victim.map(|(name, _)| name.clone()) else { break };
            self.unlink(state, &victim);
        }
        self.metrics.cache_held_bytes.set(state.held_bytes as i64);
    }

    fn failed(&self, name: &FileName, err: &io::Error) {
        self.metrics.cache_errors.inc();
        // A disk that is full fails for each block, in the same way.
        if !self.said.is_due(err.kind()) {
            return;
        }
        tracing::warn!(block = %name.id, file = name.name, %err, "the cache on local disk fails; reading from the storage");
    }
}

impl State {
    fn add(&mut self, name: FileName, is_here: Vec<bool>, size_bytes: u64) -> u64 {
        self.clock += 1;
        let generation = self.clock;
        self.files.insert(name, Entry { is_here, size_bytes, held_bytes: 0, last_used: generation, generation });
        generation
    }

    fn forget(&mut self, name: &FileName) {
        if let Some(entry) = self.files.remove(name) {
            self.held_bytes -= entry.held_bytes;
        }
    }
}

/// Moves the files of a directory; copies them where the other place is another file system.
fn take(staged: &Path, dir: &Path) -> io::Result<()> {
    match fs::rename(staged, dir) {
        Err(err) if err.kind() == io::ErrorKind::CrossesDevices => {
            fs::create_dir_all(dir)?;
            names(staged).iter().try_for_each(|name| fs::copy(staged.join(name), dir.join(name)).map(drop))
        }
        moved => moved,
    }
}

fn read_exact(file: &File, range: &Range<u64>) -> io::Result<Bytes> {
    let mut bytes = vec![0; (range.end - range.start) as usize];
    file.read_exact_at(&mut bytes, range.start)?;
    Ok(bytes.into())
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn files_below(dir: &Path) -> Vec<FileName> {
    let mut found = Vec::new();
    for tenant in names(dir).iter().filter_map(|name| TenantId::parse(name).ok()) {
        let tenant_dir = dir.join(tenant.as_str());
        for id in names(&tenant_dir).iter().filter_map(|name| BlockId::parse(name)) {
            let files = names(&tenant_dir.join(id.to_string()));
            found.extend(files.into_iter().map(|name| FileName { tenant: tenant.clone(), id, name }));
        }
    }
    found
}

/// What an earlier process left of a file: the pieces that are allocated to their end.
fn inspect(path: &Path) -> io::Result<Entry> {
    let file = File::open(path)?;
    let size_bytes = file.metadata()?.len();
    let piece_bytes = PIECE_BYTES as u64;
    let mut is_here = vec![false; size_bytes.div_ceil(piece_bytes) as usize];
    let mut held_bytes = 0;
    let mut at = 0;
    while at < size_bytes {
        let start = match rustix::fs::seek(&file, SeekFrom::Data(at)) {
            Ok(start) => start,
            // Nothing behind `at`.
            Err(rustix::io::Errno::NXIO) => break,
            Err(err) => return Err(err.into()),
        };
        let end = rustix::fs::seek(&file, SeekFrom::Hole(start))?.min(size_bytes);
        let whole =
            start.div_ceil(piece_bytes)..if end == size_bytes { end.div_ceil(piece_bytes) } else { end / piece_bytes };
        for piece in whole {
            is_here[piece as usize] = true;
            held_bytes += piece_bytes.min(size_bytes - piece * piece_bytes);
        }
        at = end.max(at + 1);
    }
    Ok(Entry { is_here, size_bytes, held_bytes, last_used: 0, generation: 0 })
}

#[cfg(test)]
mod tests;
