//! Other people's bytes: OTLP to and from [`spoor_model`].
//!
//! On the way in, protobuf goes from the wire to columns in one pass ([`decode`]); JSON is first
//! rewritten as protobuf, so that the WAL and the decoder know one format ([`json`], and [`jaeger_json`] for files
//! of Jaeger's). On the way out, whole traces are written back as OTLP, protobuf or JSON.
//!
//! **Invariant:** no `prost` message per span anywhere; `prost` appears in tests only.

pub mod decode;
pub mod encode;
pub mod jaeger_json;
pub mod json;
pub mod response;
pub mod split;

pub use decode::OtlpDecoder;
