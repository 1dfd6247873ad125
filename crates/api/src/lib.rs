//! Every foreign surface of Spoor: OTLP (receivers), Tempo and Jaeger (queries).
//!
//! **Invariant:** no other crate knows what Tempo's or Jaeger's answers look like.

pub mod error;
pub mod jaeger;
pub mod otlp;
pub mod tempo;
pub mod tenant;
