//! What can go wrong, by what the caller can do about it.

use std::path::Path;

use spoor_model::{BlockId, TraceId};

use crate::store::StoreError;

/// Why the ingester cannot start, cut or remove.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// Another process has the data directory.
    #[error("data directory {path} is in use by another process (its LOCK file is held)")]
    Locked {
        /// The directory.
        path: String,
    },
    /// There is no data directory here.
    #[error("{path} is no data directory (it has no LOCK file)")]
    NoData {
        /// The directory.
        path: String,
    },
    /// The log of a directory at rest does not fit in memory.
    #[error("the log of data directory {path} needs more than {limit_bytes} bytes of memory; raise head_memory_limit")]
    HeadMemory {
        /// The directory.
        path: String,
        /// The bound.
        limit_bytes: usize,
    },
    /// The system refused: permissions, space, a failing disk.
    #[error("cannot {action} {path}: {reason}")]
    Io {
        /// `create`, `read`, `remove`, ...
        action: &'static str,
        /// Which file or directory.
        path: String,
        /// What the system said.
        reason: String,
    },
    /// The log and catalog cannot be opened, read or written.
    #[error("database {path}: {reason}")]
    Storage {
        /// Its directory.
        path: String,
        /// What it said.
        reason: String,
    },
    /// The data directory is of another version.
    #[error(
        "data directory {path} has format {found}, this program knows {known}; use the Spoor that wrote it or newer"
    )]
    Format {
        /// The directory.
        path: String,
        /// What it is.
        found: String,
        /// What we read.
        known: &'static str,
    },
    /// The data directory was used with another storage, where its blocks are.
    #[error(
        "the blocks of data directory {path} lie on {recorded}, and not on {current}: correct --storage, or, when all of them were \
         moved, say so once with --storage-moved-from '{recorded}'"
    )]
    OtherStorage {
        /// The directory.
        path: String,
        /// The storage that it was used with.
        recorded: String,
        /// The storage that it was to be used with.
        current: String,
    },
    /// A head could not be made a block; its spans stay in the log and in memory, and it is tried again.
    #[error("cannot cut the head of tenant {tenant} into a block: {reason}")]
    Cut {
        /// Whose head.
        tenant: String,
        /// Why.
        reason: String,
    },
    /// Blocks could not be merged; they stay as they are.
    #[error("cannot merge blocks of tenant {tenant}: {reason}")]
    Merge {
        /// Whose blocks.
        tenant: String,
        /// Why.
        reason: String,
        /// The block that cannot be read, where it is one of them.
        culprit: Option<BlockId>,
    },
    /// Blocks that were to be merged are gone, in another merge, or lost a trace meanwhile: plan again.
    #[error("the blocks of tenant {tenant} have changed since the merge was planned")]
    MergeOutdated {
        /// Whose blocks.
        tenant: String,
    },
    /// Whoever asked for a merge broke it off.
    #[error("the merge was broken off")]
    MergeCancelled,
    /// The trace is in a block that is being exchanged, and the catalog does not say how that went. Try again.
    #[error("trace {trace} cannot be deleted now: the catalog cannot be written; try again when it can")]
    DeleteUncertain {
        /// Which trace.
        trace: TraceId,
    },
    /// Those who share the blocks cannot be told of the deletion. Try again.
    #[error("trace {trace} cannot be deleted now: {reason}")]
    DeleteUntold {
        /// Which trace.
        trace: TraceId,
        /// One line.
        reason: String,
    },
    /// The ingester is closed.
    #[error("the store is shutting down")]
    Closed,
}

impl Error {
    pub(crate) fn io(action: &'static str, path: &Path, err: &std::io::Error) -> Self {
        Self::Io { action, path: path.display().to_string(), reason: err.to_string() }
    }

    pub(crate) fn storage(path: &Path, err: StoreError) -> Self {
        Self::Storage { path: path.display().to_string(), reason: err.0 }
    }
}
