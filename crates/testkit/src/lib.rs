//! What tests and benches share, and what the product never links.
//!
//! ```text
//!   corpus, nasty --OTLP bytes--> client::{grpc, http} --> Server (the real binary) --> answers
//!          |                                                                              |
//!          +------------------------- digest: equal as sets of spans? --------------------+
//! ```
//!
//! ```text
//!   traceql_corpus --spans, queries--> oracle, or any engine --answer--> as the corpus says?
//! ```
//!
//! **Invariant:** nothing here knows how Spoor works inside; of the language only its syntax and
//! types are used, never how it is planned or evaluated. Bytes are written with the wire
//! primitives of `model` and read back with `prost`, so that no bug can cancel itself out.

pub mod answer;
pub mod build;
pub mod client;
pub mod corpus;
pub mod digest;
pub mod faults;
pub mod json;
pub mod ledger;
pub mod machine;
pub mod nasty;
pub mod oracle;
pub mod process;
pub mod random;
pub mod rng;
pub mod traceql_corpus;
pub mod wait;
pub mod write;
