//! What can go wrong with a block, by what the caller can do about it.

use std::path::Path;

use parquet::errors::ParquetError;
use spoor_model::scan::ScanError;

/// Why a block cannot be written or read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The bytes are not what was written: set the block aside, answer from the rest.
    #[error("{object}: {reason}")]
    Corrupt {
        /// Which block and file.
        object: String,
        /// Which check failed, what was wanted and what was found.
        reason: String,
    },
    /// The system refused: retry later, or free space.
    #[error("{action} {path}: {reason}")]
    Io {
        /// `write`, `read`, `rename`, ...
        action: &'static str,
        /// Which file.
        path: String,
        /// What the system said.
        reason: String,
        /// Whether the disk (or quota) is full.
        is_full: bool,
    },
    /// The block is of a format that this version does not know: upgrade.
    #[error("{object}: format version {version} is newer than this program knows (1)")]
    Version {
        /// Which block.
        object: String,
        /// The version found.
        version: u32,
    },
    /// Whoever asked for a merge broke it off: nothing is left of it.
    #[error("the merge was broken off")]
    Cancelled,
    /// Parquet or Arrow refused what we gave it: a defect of ours.
    #[error("{object}: {reason}")]
    Internal {
        /// Which block and file.
        object: String,
        /// What the library said.
        reason: String,
    },
}

impl Error {
    pub(crate) fn io(action: &'static str, path: &Path, err: &std::io::Error) -> Self {
        let is_full = matches!(err.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded);
        Self::Io { action, path: path.display().to_string(), reason: err.to_string(), is_full }
    }

    pub(crate) fn corrupt(object: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Corrupt { object: object.into(), reason: reason.into() }
    }

    /// While reading, Parquet fails because of what it reads, or because that cannot be read now.
    pub(crate) fn decode(object: &str, err: ParquetError) -> Self {
        match err {
            ParquetError::External(inner) => match inner.downcast::<Self>() {
                Ok(own) => *own,
                Err(other) => Self::corrupt(object, other.to_string()),
            },
            err => Self::corrupt(object, err.to_string()),
        }
    }

    /// While writing, Parquet only fails because of the file or of us.
    pub(crate) fn encode(path: &Path, err: &(dyn std::error::Error + 'static)) -> Self {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(err);
        while let Some(inner) = cause {
            if let Some(io) = inner.downcast_ref::<std::io::Error>() {
                return Self::io("write", path, io);
            }
            cause = inner.source();
        }
        Self::Internal { object: path.display().to_string(), reason: err.to_string() }
    }
}

impl From<Error> for ScanError {
    fn from(err: Error) -> Self {
        match err {
            Error::Corrupt { object, reason } | Error::Internal { object, reason } => Self::Corrupt { object, reason },
            Error::Version { ref object, .. } => Self::Corrupt { object: object.clone(), reason: err.to_string() },
            Error::Cancelled => Self::Cancelled,
            Error::Io { path, reason, .. } => Self::Unavailable { object: path, reason },
        }
    }
}
