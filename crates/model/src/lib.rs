//! The words of Spoor, and the one contract between query and storage.
//!
//! Everything that more than one crate must agree on lives here, and nothing else: ids and times
//! ([`id`], [`time`]), what a span is once it is read ([`span`], [`value`]), what many spans are
//! while they are being received ([`batch`]), how a query asks for them ([`scan`]), and the columns it
//! gets ([`columns`]).
//!
//! ```text
//!   wire bytes --otlp--> SpanBatch --block--> Parquet
//!                            |                   |
//!                            +---- SpanSource ---+--> columns (ColumnBatch), whole traces (Trace)
//! ```
//!
//! **Invariant:** no IO, no async, no Parquet, no RocksDB, no TraceQL, no Tempo and no Jaeger here.
//! **Invariant:** the only protobuf known here is the *nested encoding* ([`nested`]): attribute
//! values that are arrays or maps, events and links stay in the bytes in which OTLP sent them, so
//! that the write path can copy them (`docs/adr/0003-nested-values.md`).

pub mod batch;
pub mod bits;
pub mod canonical;
pub mod columns;
pub mod compute;
pub mod id;
pub mod ingest;
pub mod memory;
pub mod nested;
pub mod rfc3339;
pub mod scan;
pub mod seldom;
pub mod span;
pub mod structure;
pub mod time;
pub mod value;
pub mod wire;

pub use id::{BlockId, SpanId, TenantId, TraceId};
pub use span::{EntityRef, Event, Link, Origin, Resource, Scope, Span, SpanEntry, Status, Trace};
pub use time::{Clock, TimeRange, UnixNano};
pub use value::{KeyValue, Value};
