//! Why a request is refused, by what the sender can do about it.

use std::time::Duration;

use spoor_model::ingest::AppendError;
use spoor_model::wire::WireError;
use spoor_otlp::json::JsonError;

use crate::Limits;

/// Why a request was not stored. Unless it says otherwise, nothing of it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// The bytes are not what they should be; sending them again is of no use.
    #[error("{0}")]
    Invalid(String),
    /// The request passes a size limit; only smaller ones may fit.
    #[error("{what} is larger than {limit_bytes} bytes (`{key}`); send smaller batches or raise the limit")]
    TooLarge {
        /// Which form of the request.
        what: &'static str,
        /// The limit.
        limit_bytes: u64,
        /// Its configuration key.
        key: &'static str,
    },
    /// The tenant sends more per second than it may.
    #[error("tenant sends more than {limit_bytes} bytes per second (`ingest_rate_limit_bytes`)")]
    RateLimited {
        /// The limit.
        limit_bytes: u64,
        /// When the request will fit.
        retry_after: Duration,
    },
    /// There is no room now.
    #[error("{what} is full (raise `{key}` if this lasts)")]
    Overloaded {
        /// What is full.
        what: &'static str,
        /// The configuration key of its bound.
        key: &'static str,
        /// When to try again.
        retry_after: Duration,
    },
    /// The store cannot write now; whether the request is stored is not known. Sending it again
    /// does no harm.
    #[error("{reason}")]
    Unavailable {
        /// What is wrong.
        reason: String,
    },
    /// A defect of ours.
    #[error("{0}")]
    Internal(String),
}

impl PushError {
    /// All that [`Self::reason`] says.
    pub(crate) const REASONS: [&str; 6] =
        ["invalid", "too_large", "rate_limited", "overloaded", "unavailable", "internal"];

    /// The label of the metric that counts refused requests.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "invalid",
            Self::TooLarge { .. } => "too_large",
            Self::RateLimited { .. } => "rate_limited",
            Self::Overloaded { .. } => "overloaded",
            Self::Unavailable { .. } => "unavailable",
            Self::Internal(_) => "internal",
        }
    }

    /// When to try again, where waiting helps.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after, .. } | Self::Overloaded { retry_after, .. } => Some(*retry_after),
            _ => None,
        }
    }

    pub(crate) fn message_too_large(what: &'static str, limits: &Limits) -> Self {
        Self::TooLarge { what, limit_bytes: limits.max_message_bytes as u64, key: "max_message_bytes" }
    }

    pub(crate) fn no_room(limits: &Limits) -> Self {
        Self::Overloaded {
            what: "the room for requests in flight",
            key: "ingest_inflight_bytes",
            retry_after: limits.retry_after,
        }
    }

    pub(crate) fn from_append(err: AppendError, retry_after: Duration) -> Self {
        match err {
            AppendError::Overloaded { what, key } => Self::Overloaded { what, key, retry_after },
            AppendError::Storage(_) | AppendError::Closed => Self::Unavailable { reason: err.to_string() },
        }
    }
}

impl From<WireError> for PushError {
    fn from(err: WireError) -> Self {
        Self::Invalid(format!("not an OTLP trace request in protobuf: {err}"))
    }
}

impl From<JsonError> for PushError {
    fn from(err: JsonError) -> Self {
        Self::Invalid(err.to_string())
    }
}
