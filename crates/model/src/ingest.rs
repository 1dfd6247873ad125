//! What the write path's parts agree on: how foreign bytes are checked and appended to a batch.
//!
//! Decoding happens in two passes over the same bytes. The first ([`Decode::check`]) only looks:
//! it finds the spans that must be refused before anything is promised. Then the bytes are made
//! durable, together with what `check` found. The second ([`Decode::append`]) builds columns and cannot
//! fail. A restart replays it from the log, so what was accepted once is accepted again.
//!
//! **Invariant:** `check` depends on nothing but the bytes: no clock, no configuration.

use bytes::Bytes;
use futures_channel::oneshot;

use crate::TenantId;
use crate::batch::SpanBatch;
use crate::wire::WireError;

/// Why one span of a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RejectReason {
    /// The trace id is not 16 bytes, or all zero.
    InvalidTraceId,
    /// The span id is not 8 bytes, or all zero.
    InvalidSpanId,
    /// The parent id is neither empty nor 8 bytes.
    InvalidParentSpanId,
    /// The span ends before it starts.
    EndBeforeStart,
    /// A text is not UTF-8.
    InvalidUtf8,
    /// An attribute, event or link is malformed, or nests too deeply.
    Malformed,
    /// The resource or scope that the span belongs to is malformed.
    MalformedOrigin,
}

impl RejectReason {
    /// Every reason, in the order of declaration.
    pub const ALL: [Self; 7] = [
        Self::InvalidTraceId,
        Self::InvalidSpanId,
        Self::InvalidParentSpanId,
        Self::EndBeforeStart,
        Self::InvalidUtf8,
        Self::Malformed,
        Self::MalformedOrigin,
    ];

    /// The label of the metric that counts it. The first two are those that Tempo's dashboards know.
    pub fn label(self) -> &'static str {
        match self {
            Self::InvalidTraceId => "invalid_trace_id",
            Self::InvalidSpanId => "invalid_span_id",
            Self::InvalidParentSpanId => "invalid_parent_span_id",
            Self::EndBeforeStart => "end_before_start",
            Self::InvalidUtf8 => "invalid_utf8",
            Self::Malformed => "malformed_span",
            Self::MalformedOrigin => "malformed_resource_or_scope",
        }
    }

    /// What to tell the sender.
    pub fn message(self) -> &'static str {
        match self {
            Self::InvalidTraceId => "trace_id must be 16 bytes and not all zero",
            Self::InvalidSpanId => "span_id must be 8 bytes and not all zero",
            Self::InvalidParentSpanId => "parent_span_id must be empty or 8 bytes",
            Self::EndBeforeStart => "end_time_unix_nano is before start_time_unix_nano",
            Self::InvalidUtf8 => "a text is not valid UTF-8",
            Self::Malformed => "an attribute, event or link is malformed or nests deeper than 50 levels",
            Self::MalformedOrigin => "the resource or scope is malformed",
        }
    }
}

/// One refused span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rejected {
    /// The span's place among all spans of the request, counted from 0.
    pub span_index: u32,
    /// Why.
    pub reason: RejectReason,
}

/// What [`Decode::check`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checked {
    /// Spans that will be stored.
    pub accepted_count: u32,
    /// Spans that will not, ascending by place.
    pub rejected: Vec<Rejected>,
}

/// A foreign encoding of spans. Implemented by `otlp` (and later for Jaeger and Zipkin).
pub trait Decode: Send + Sync {
    /// Looks at every byte of the request. Errors only when the request as a whole cannot be read
    /// (then nothing of it is stored). About 0.25 us per span, no allocation per span.
    fn check(&self, request: &[u8]) -> Result<Checked, WireError>;

    /// Appends the accepted spans of a request that passed [`Self::check`]. About 0.5 us per span.
    ///
    /// # Panics
    /// When `checked` is not what `check` returned for these bytes: a broken invariant of ours.
    fn append(&self, request: &[u8], checked: &Checked, batch: &mut SpanBatch);
}

/// How the bytes of a request are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BodyEncoding {
    /// Not at all.
    Identity,
    /// RFC 1952, one or more members.
    Gzip,
    /// RFC 8878, one or more frames.
    Zstd,
}

impl BodyEncoding {
    /// The name that HTTP's `Content-Encoding` and gRPC's `grpc-encoding` use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

/// A checked request on its way to disk.
#[derive(Debug, Clone)]
pub struct AppendRequest {
    /// Whose spans.
    pub tenant: TenantId,
    /// The request, not compressed: what [`Decode::append`] reads.
    pub payload: Bytes,
    /// How `stored` is compressed.
    pub stored_encoding: BodyEncoding,
    /// The same request as the log keeps it: as received when the client compressed it.
    pub stored: Bytes,
    /// What [`Decode::check`] found in `payload`; at least one span is accepted.
    pub checked: Checked,
}

/// Why a request was not appended. Nothing of it is stored, unless it says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// A bound is reached; the same request may fit a little later.
    #[error("{what} is full (raise `{key}` if this lasts)")]
    Overloaded {
        /// What is full.
        what: &'static str,
        /// The configuration key of its bound.
        key: &'static str,
    },
    /// The disk refuses (full, failing): whether the request is stored is not known.
    #[error("storage refuses writes: {0}")]
    Storage(String),
    /// The process is stopping.
    #[error("the store is shutting down")]
    Closed,
}

/// Where checked requests go. Implemented by `ingester`, and by fakes in tests.
pub trait Append: Send + Sync {
    /// Queues the request without blocking. The receiver resolves once every accepted span is
    /// durable and visible to queries, or with the reason why not; a dropped sender means
    /// [`AppendError::Closed`]. Dropping the receiver does not take the request back.
    fn append(&self, request: AppendRequest) -> oneshot::Receiver<Result<(), AppendError>>;
}
