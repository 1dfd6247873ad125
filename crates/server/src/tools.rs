//! What an operator does with data from a terminal: look at blocks, take traces out, bring traces in.
//!
//! ```text
//!   spoor blocks ls|show|verify|gc    files of blocks, beside a server or without one
//!   spoor export                      server or directory at rest --pages--> OTLP JSON, OTLP protobuf, Parquet
//!   spoor import                      files --requests--> a server's OTLP port
//! ```

pub(crate) mod blocks;
pub(crate) mod export;
pub(crate) mod import;
mod progress;
