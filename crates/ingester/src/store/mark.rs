//! How far the log was made durable, kept beside it: what a log that ends too early is told by.
//!
//! RocksDB takes a log that is cut off for one whose last write was torn by a crash. But what was acknowledged was synced
//! before, so a log that ends before the mark has lost something. The mark is written after each sync and is
//! not synced itself: it may be behind, after a loss of power, and is never ahead.
//!
//! ```text
//!   db/synced      sequence number of RocksDB (8 bytes LE) | XXH3-64 of these (8 bytes LE)
//! ```

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use xxhash_rust::xxh3::xxh3_64;

/// The file. RocksDB leaves alone what it has not named.
const NAME: &str = "synced";

/// The mark of an open database.
#[derive(Debug)]
pub(super) struct Mark {
    /// `None` when it cannot be written, as on a full disk: then the next start knows less.
    file: Option<File>,
    sequence: AtomicU64,
}

fn path(database: &Path) -> PathBuf {
    database.join(NAME)
}

/// What the mark says; `None` when there is none, or none that verifies.
pub(super) fn read(database: &Path) -> Option<u64> {
    let bytes: [u8; 16] = fs::read(path(database)).ok()?.try_into().ok()?;
    let (sequence, checksum) = bytes.split_at(8);
    (xxh3_64(sequence).to_le_bytes() == checksum).then(|| u64::from_le_bytes(sequence.try_into().expect("8 bytes")))
}

impl Mark {
    /// The mark of a database that holds everything up to this.
    pub(super) fn set(database: &Path, sequence: u64) -> Self {
        let open = || -> io::Result<File> {
            let file = File::options().create(true).truncate(false).write(true).open(path(database))?;
            write(&file, sequence)?;
            Ok(file)
        };
        let file = open().inspect_err(|err| {
            tracing::warn!(%err, "how far the log is durable cannot be noted; damage to its end may pass for a crash");
        });
        Self { file: file.ok(), sequence: AtomicU64::new(sequence) }
    }

    /// Everything up to `sequence` is durable. Costs a write of 16 bytes, and nothing where that is known.
    pub(super) fn advance(&self, sequence: u64) {
        let before = self.sequence.fetch_max(sequence, Ordering::Relaxed);
        if let (Some(file), true) = (&self.file, before < sequence) {
            // Behind is right, too. Of two that write at once the one that is behind may come last.
            let _ = write(file, sequence);
        }
    }
}

fn write(file: &File, sequence: u64) -> io::Result<()> {
    let sequence = sequence.to_le_bytes();
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&sequence);
    bytes[8..].copy_from_slice(&xxh3_64(&sequence).to_le_bytes());
    file.write_all_at(&bytes, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_only_advances_and_one_that_does_not_verify_says_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()), None);
        let mark = Mark::set(dir.path(), 5);
        for (sequence, want) in [(5, 5), (9, 9), (7, 9)] {
            mark.advance(sequence);
            assert_eq!(read(dir.path()), Some(want));
        }
        Mark::set(dir.path(), 3);
        assert_eq!(read(dir.path()), Some(3));
        let mut bytes = fs::read(path(dir.path())).unwrap();
        bytes[1] ^= 1;
        fs::write(path(dir.path()), &bytes).unwrap();
        assert_eq!(read(dir.path()), None);
        fs::write(path(dir.path()), &bytes[..9]).unwrap();
        assert_eq!(read(dir.path()), None);
    }
}
