//! The OTLP receivers: gRPC (port 4317) and HTTP (port 4318).
//!
//! Both do the same with a request: name its tenant, make room for it, read it, push it, and write
//! what became of it in the sender's form. Bodies go to the distributor as they arrived; nothing is
//! decompressed or decoded here.
//!
//! Senders act on the status alone: 429, 502, 503 and 504 (over gRPC: `UNAVAILABLE`,
//! `DEADLINE_EXCEEDED` and `RESOURCE_EXHAUSTED` with a `RetryInfo`) make them try again, all else
//! makes them drop the spans. So what may fit later must carry a retry hint, and what never fits
//! must not.

mod body;
mod grpc;
mod http;

use std::time::Duration;

use axum::body::Bytes;
use spoor_distributor::{Accepted, Admission, Distributor, PushError, PushRequest};
use spoor_otlp::response::{ExportResponse, Status};

use crate::error::{ApiError, Kind};
use crate::request_metrics::RequestMetrics;
use crate::tenant::Tenancy;

pub(crate) use self::grpc::EXPORT_PATH;
pub use self::grpc::{export_route, grpc_router};
pub use self::http::http_router;

/// What the receivers need.
#[derive(Clone)]
pub struct State {
    /// Where spans go.
    pub distributor: Distributor,
    /// Whether requests name their tenant.
    pub tenancy: Tenancy,
    /// How long a sender may be silent within a body.
    pub receive_timeout: Duration,
    /// How long a request may take from its last byte to its answer.
    pub answer_timeout: Duration,
    /// Where durations are counted.
    pub requests: RequestMetrics,
    /// Origins whose pages may send spans; `*` is every origin. OTLP/HTTP only.
    pub cors_allowed_origins: Vec<String>,
}

impl State {
    async fn push(&self, admission: Admission, request: PushRequest) -> Result<ExportResponse, Refusal> {
        let pushed = tokio::time::timeout(self.answer_timeout, self.distributor.push(admission, request)).await;
        let accepted: Accepted = pushed.map_err(|_| Refusal::timeout(self.answer_timeout))??;
        Ok(ExportResponse { rejected_count: accepted.rejected.len() as u64, message: accepted.message() })
    }
}

/// A request whole in memory, and the room it takes.
struct Received {
    admission: Admission,
    body: Bytes,
}

/// Why a request is refused, in the terms that both transports share.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Refusal {
    kind: Kind,
    message: String,
    retry_after: Option<Duration>,
}

impl Refusal {
    fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), retry_after: None }
    }

    fn timeout(after: Duration) -> Self {
        Self::new(Kind::Timeout, format!("the request took longer than {after:?}; whether it is stored is not known"))
    }

    /// As `google.rpc.Status`.
    fn to_status(&self) -> Status {
        Status { code: self.kind.grpc(), message: self.message.clone(), retry_after: self.retry_after }
    }
}

impl From<ApiError> for Refusal {
    fn from(err: ApiError) -> Self {
        Self::new(err.kind, err.message)
    }
}

impl From<PushError> for Refusal {
    fn from(err: PushError) -> Self {
        let kind = match &err {
            PushError::Invalid(_) => Kind::Invalid,
            PushError::TooLarge { .. } => Kind::TooLarge,
            PushError::RateLimited { .. } | PushError::Overloaded { .. } => Kind::Overloaded,
            PushError::Unavailable { .. } => Kind::Unavailable,
            PushError::Internal(_) => Kind::Internal,
        };
        Self { kind, message: err.to_string(), retry_after: err.retry_after() }
    }
}

#[cfg(test)]
mod tests;
