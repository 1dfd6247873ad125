//! Every foreign surface of Spoor: OTLP (receivers), Tempo and Jaeger (queries).
//!
//! ```text
//!   OTLP gRPC, HTTP --otlp--> distributor
//!   Tempo HTTP, gRPC --tempo---+
//!                              +--> QueryGate --> querier, on the compute pool
//!   Jaeger HTTP, gRPC --jaeger-+
//! ```
//!
//! **Invariant:** no other crate knows what Tempo's or Jaeger's answers look like.
//! **Invariant:** nothing here scans, decodes or compresses on an async thread; what takes longer
//! than half a millisecond goes through a compute pool.

pub mod error;
pub mod gate;
pub mod jaeger;
pub mod otlp;
pub mod partial;
pub mod query_metrics;
mod request_body;
pub mod request_metrics;
pub mod tempo;
pub mod tenant;

mod cors;
mod fan_out;
mod go_duration;
mod grpc;
mod params;
mod proto;
mod static_value;
mod value_text;

#[cfg(test)]
mod fixtures;
