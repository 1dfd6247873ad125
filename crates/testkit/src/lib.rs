//! What tests and benches share, and what the product never links.
//!
//! ```text
//!   corpus, nasty --OTLP bytes--> client::{grpc, http} --> Server (the real binary) --> answers
//!          |                                                                              |
//!          +------------------------- digest: equal as sets of spans? --------------------+
//! ```
//!
//! **Invariant:** nothing here knows how Spoor works inside. Bytes are written with the wire
//! primitives of `model` and read back with `prost`, so that no bug can cancel itself out.

pub mod build;
pub mod client;
pub mod corpus;
pub mod digest;
pub mod json;
pub mod ledger;
pub mod nasty;
pub mod process;
pub mod rng;
pub mod wait;
pub mod write;
