//! The one table from what went wrong to the statuses of HTTP and gRPC.
//!
//! Every surface turns the errors of the crates below into an [`ApiError`] and writes it in its own
//! form: Tempo as plain text, Jaeger in its envelope, OTLP as `google.rpc.Status`. The status comes
//! from here and from nowhere else.

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use spoor_querier::QueryError;

/// What went wrong, by what the caller can do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The request is wrong; sending it again is of no use.
    Invalid,
    /// No tenant was named, and one is needed.
    Unauthenticated,
    /// There is no such thing.
    NotFound,
    /// The body is in a form that is not read here.
    UnsupportedMedia,
    /// The request's body passes the limit.
    TooLarge,
    /// The answer passes a limit that the message names; a narrower question may fit.
    LimitExceeded,
    /// Too much is asked at once; later it may fit.
    Overloaded,
    /// The client went away before the answer was there.
    Cancelled,
    /// This server does not do that.
    NotImplemented,
    /// Cannot be done now: starting, stopping, or the disk is full.
    Unavailable,
    /// The deadline passed.
    Timeout,
    /// A defect or a failure of ours.
    Internal,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 12] = [
        Self::Invalid,
        Self::Unauthenticated,
        Self::NotFound,
        Self::UnsupportedMedia,
        Self::TooLarge,
        Self::LimitExceeded,
        Self::Overloaded,
        Self::Cancelled,
        Self::NotImplemented,
        Self::Unavailable,
        Self::Timeout,
        Self::Internal,
    ];

    /// The table: the HTTP status and the gRPC code (`google.rpc.Code`).
    pub fn statuses(self) -> (StatusCode, i32) {
        match self {
            Self::Invalid => (StatusCode::BAD_REQUEST, 3),
            Self::Unauthenticated => (StatusCode::UNAUTHORIZED, 16),
            Self::NotFound => (StatusCode::NOT_FOUND, 5),
            Self::UnsupportedMedia => (StatusCode::UNSUPPORTED_MEDIA_TYPE, 12),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, 8),
            Self::LimitExceeded => (StatusCode::UNPROCESSABLE_ENTITY, 8),
            Self::Overloaded => (StatusCode::TOO_MANY_REQUESTS, 8),
            Self::Cancelled => (StatusCode::from_u16(499).expect("within 100 to 999"), 1),
            Self::NotImplemented => (StatusCode::NOT_IMPLEMENTED, 12),
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, 14),
            Self::Timeout => (StatusCode::GATEWAY_TIMEOUT, 4),
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, 13),
        }
    }

    /// The HTTP status.
    pub fn http(self) -> StatusCode {
        self.statuses().0
    }

    /// The gRPC code.
    pub fn grpc(self) -> i32 {
        self.statuses().1
    }
}

/// What a surface tells its client. As a response it is plain text, which is what Tempo's clients
/// show to people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// What kind of failure.
    pub kind: Kind,
    /// Lower case, no full stop, names the object and the number. May be empty.
    pub message: String,
}

impl ApiError {
    /// An error of a kind.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// The request is wrong.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, message)
    }
}

impl From<QueryError> for ApiError {
    fn from(err: QueryError) -> Self {
        let kind = match &err {
            QueryError::Invalid(_) => Kind::Invalid,
            QueryError::Limit { .. } | QueryError::MemoryLimit { .. } => Kind::LimitExceeded,
            QueryError::Cancelled => Kind::Cancelled,
        };
        Self::new(kind, err.to_string())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.kind.http(), self.message).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_the_statuses_that_clients_know() {
        let table: Vec<(Kind, u16, i32)> =
            Kind::ALL.map(|kind| (kind, kind.http().as_u16(), kind.grpc())).into_iter().collect();
        let expected = [
            (Kind::Invalid, 400, 3),
            (Kind::Unauthenticated, 401, 16),
            (Kind::NotFound, 404, 5),
            (Kind::UnsupportedMedia, 415, 12),
            (Kind::TooLarge, 413, 8),
            (Kind::LimitExceeded, 422, 8),
            (Kind::Overloaded, 429, 8),
            (Kind::Cancelled, 499, 1),
            (Kind::NotImplemented, 501, 12),
            (Kind::Unavailable, 503, 14),
            (Kind::Timeout, 504, 4),
            (Kind::Internal, 500, 13),
        ];
        assert_eq!(table, expected);
    }
}
