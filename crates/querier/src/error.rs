//! Why a query has no answer.

use spoor_model::scan::ScanError;

/// Why a query has no answer. Sources that cannot be read are no reason: they are skipped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// The request contradicts itself.
    #[error("{0}")]
    Invalid(String),
    /// The query passes a limit.
    #[error("{what}: the limit is {value}; narrow the query, or raise {key}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        value: u64,
        /// The configuration key that raises it.
        key: &'static str,
    },
    /// The client went away or the deadline passed.
    #[error("query cancelled")]
    Cancelled,
    /// The query needs more memory than it may have.
    #[error("query needs more than {limit_bytes} bytes of memory; narrow it, or raise {key}")]
    MemoryLimit {
        /// The bound.
        limit_bytes: usize,
        /// The configuration key that raises it.
        key: &'static str,
    },
}

impl From<ScanError> for QueryError {
    fn from(error: ScanError) -> Self {
        match error {
            ScanError::Cancelled => Self::Cancelled,
            ScanError::MemoryLimit { limit_bytes, key } => Self::MemoryLimit { limit_bytes, key },
            // `Sources` turns these into `Skipped`; none gets here.
            ScanError::Corrupt { .. } | ScanError::Unavailable { .. } => unreachable!("partial errors are skipped"),
        }
    }
}
