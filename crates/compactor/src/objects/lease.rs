//! Which of several processes changes the blocks in a store.
//!
//! ```text
//!   @lease.json  {"owner": "...", "life": "...", "expires_unix_nano": "..."}
//!
//!   nobody has it          put if it is not there          \
//!   it is ours             put over the version we put      \
//!   it was our last life's put over the version we read      > conditional: of two that try, one succeeds
//!   it has expired         put over the version we read     /
//!   it cannot be read      put over it when it stayed as it is for twice its length: an owner would have renewed it
//! ```
//!
//! Whoever holds it merges, removes and sweeps; all others read. Clocks may differ by the length of the lease:
//! it ends for its owner when it says, and for others as long after that again.
//!
//! An owner is a data directory, which one process has at a time; so what its last life held is its own, at once and not when it has
//! expired. Where the directory was copied there are two: the one that starts takes over what the other holds, which finds
//! at its next renewal that it is not its own any more, and from then on waits like anybody else. What both do
//! meanwhile meets at the [`super::Exclusion`].
//!
//! A directory (`file://`) has no conditional puts; there the lease is the lock of a file, which ends with its process.

use std::fs::{File, TryLockError};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{PutMode, UpdateVersion};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use spoor_model::{Clock, UnixNano};

use super::files::ObjectFiles;
use super::requests::{Failure, Requests};

/// What a lease is for. No tenant has a name with this sign.
const BLOCKS: &str = "@lease";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Document {
    owner: String,
    /// Empty in those of before.
    #[serde(default)]
    life: String,
    expires_unix_nano: String,
}

/// Who holds a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// What outlives a process: its data directory. One process at a time has this name.
    pub owner: String,
    /// The process. No other has this name.
    pub life: String,
}

impl Holder {
    fn has(&self, document: &Document) -> bool {
        document.owner == self.owner && document.life == self.life
    }
}

/// A lease on a store, held or not.
#[derive(Debug)]
pub struct Lease {
    requests: Arc<Requests>,
    /// What it is for.
    name: &'static str,
    holder: Holder,
    length: Duration,
    /// Nothing was found out yet: what is there may be our last life's.
    is_new: AtomicBool,
    held: Mutex<Option<Held>>,
    /// A version that cannot be read, and since when it was seen.
    damaged: Mutex<Option<(UpdateVersion, UnixNano)>>,
    /// For stores that are a directory: where the lock is.
    lock_path: Option<PathBuf>,
    locked: Mutex<Option<File>>,
}

/// What is there, or why it cannot be read, and its version.
type Found = (Result<Document, String>, UpdateVersion);

#[derive(Debug, Clone)]
struct Held {
    version: UpdateVersion,
    until: UnixNano,
}

impl Lease {
    /// The lease on all blocks, which nobody has asked for yet. Renew it at least thrice per `length`.
    pub fn new(files: &ObjectFiles, holder: Holder, length: Duration) -> Self {
        Self::named(BLOCKS, files, holder, length)
    }

    /// A lease on something else.
    pub(crate) fn named(name: &'static str, files: &ObjectFiles, holder: Holder, length: Duration) -> Self {
        // On a directory the lock of this file is the lease.
        let lock_path = files.local_dir().map(|dir| dir.join(format!("{name}.lock")));
        let (held, damaged, locked) = (Mutex::default(), Mutex::default(), Mutex::default());
        let (requests, is_new) = (Arc::clone(files.requests()), AtomicBool::new(true));
        Self { requests, name, holder, length, is_new, held, damaged, lock_path, locked }
    }

    fn object(&self) -> Path {
        Path::from(format!("{}.json", self.name))
    }

    /// For operators: who owns the blocks.
    fn show(&self, is_held: bool) {
        if self.name == BLOCKS {
            self.requests.metrics().lease_held.set(i64::from(is_held));
        }
    }

    /// Whether the lease is ours for now. Costs nothing; ask again right before something is made visible.
    pub fn is_held(&self, clock: &dyn Clock) -> bool {
        if self.lock_path.is_some() {
            return self.locked.lock().is_some();
        }
        self.held.lock().as_ref().is_some_and(|held| clock.now() < held.until)
    }

    /// Takes the lease, or renews it; returns whether it is ours.
    ///
    /// # Errors
    /// One line, when the store cannot be asked. A lease that was held is held until it expires.
    pub fn keep(&self, clock: &dyn Clock) -> Result<bool, String> {
        if let Some(path) = &self.lock_path {
            let is_held = self.lock(path)?;
            self.show(is_held);
            return Ok(is_held);
        }
        let before = self.held.lock().clone();
        let now = clock.now();
        let outcome = match before {
            Some(held) => self.put(now, PutMode::Update(held.version)),
            None => self.take(now),
        };
        let held = match outcome {
            Ok(held) => held,
            // Somebody else has it, or our own attempt succeeded and its answer was lost: what is there decides.
            Err(Failure::Changed) => self.find_own(),
            Err(failure) => return Err(failure.to_string()),
        };
        let is_held = held.is_some();
        let had = std::mem::replace(&mut *self.held.lock(), held).is_some();
        if is_held != had && self.name == BLOCKS {
            tracing::info!(owner = self.holder.owner, is_held, "the lease on the storage changed hands");
        }
        self.show(is_held);
        Ok(is_held)
    }

    fn lock(&self, path: &std::path::Path) -> Result<bool, String> {
        let mut locked = self.locked.lock();
        if locked.is_some() {
            return Ok(true);
        }
        let failed = |err: std::io::Error| format!("{}: {err}", path.display());
        let file = File::options().create(true).truncate(false).write(true).open(path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => *locked = Some(file),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(err)) => return Err(failed(err)),
        }
        Ok(locked.is_some())
    }

    fn take(&self, now: UnixNano) -> Result<Option<Held>, Failure> {
        let found = self.read()?;
        let is_new = self.is_new.swap(false, Ordering::Relaxed);
        let Some((there, version)) = found else { return self.put(now, PutMode::Create) };
        let there = match there {
            Ok(there) => there,
            Err(_) if self.is_given_up(&version, now) => return self.put(now, PutMode::Update(version)),
            Err(reason) => return Err(Failure::Damaged(reason)),
        };
        let is_over = after(there.expires(), self.length) < now;
        let is_last_life = is_new && there.owner == self.holder.owner;
        match self.holder.has(&there) || is_last_life || is_over {
            true => self.put(now, PutMode::Update(version)),
            false => Ok(None),
        }
    }

    /// Whether a lease that cannot be read has been as it is for so long that nobody renews it.
    fn is_given_up(&self, version: &UpdateVersion, now: UnixNano) -> bool {
        let mut damaged = self.damaged.lock();
        let since = match &*damaged {
            Some((seen, since)) if seen == version => *since,
            _ => now,
        };
        *damaged = Some((version.clone(), since));
        after(after(since, self.length), self.length) <= now
    }

    fn put(&self, now: UnixNano, mode: PutMode) -> Result<Option<Held>, Failure> {
        let until = after(now, self.length);
        let json = self.document(until);
        let version = self.requests.put(&self.object(), json.into(), mode)?;
        Ok(Some(Held { version, until }))
    }

    fn document(&self, expires: UnixNano) -> Vec<u8> {
        let Holder { owner, life } = self.holder.clone();
        let document = Document { owner, life, expires_unix_nano: expires.0.to_string() };
        serde_json::to_vec(&document).expect("plain data always serialises")
    }

    /// What is there, or why it cannot be read, and its version.
    fn read(&self) -> Result<Option<Found>, Failure> {
        let (json, version): (Bytes, _) = match self.requests.get(&self.object()) {
            Ok(read) => read,
            Err(Failure::Missing) => return Ok(None),
            Err(failure) => return Err(failure),
        };
        let document = serde_json::from_slice(&json).map_err(|err| format!("{}: {err}", self.object()));
        Ok(Some((document, version)))
    }

    fn find_own(&self) -> Option<Held> {
        let (there, version) = self.read().ok()??;
        let there = there.ok()?;
        self.holder.has(&there).then(|| Held { version, until: there.expires() })
    }

    /// Whether nobody has the time to wait for it any more.
    pub(crate) fn is_stopping(&self) -> bool {
        self.requests.is_stopping()
    }

    /// Lets go, so that another need not wait. Best effort.
    pub fn release(&self) {
        if self.locked.lock().take().is_some() {
            self.show(false);
        }
        let Some(held) = self.held.lock().take() else { return };
        let json = self.document(UnixNano(0));
        let released = self.requests.put(&self.object(), json.into(), PutMode::Update(held.version));
        self.show(false);
        if let Err(err) = released {
            tracing::warn!(%err, "the lease on the storage is not released; it expires");
        }
    }
}

fn after(time: UnixNano, length: Duration) -> UnixNano {
    UnixNano(time.0.saturating_add(u64::try_from(length.as_nanos()).unwrap_or(u64::MAX)))
}

impl Document {
    /// A time that cannot be read is long past.
    fn expires(&self) -> UnixNano {
        UnixNano(self.expires_unix_nano.parse().unwrap_or(0))
    }
}

#[cfg(test)]
mod tests;
