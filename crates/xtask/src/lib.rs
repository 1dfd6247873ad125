//! Checks of the repository itself. Each returns what is wrong, one line per finding; empty is good.
//!
//! `make check` runs them all (`src/main.rs`), `tests/tidy.rs` runs each as a test of its own.

pub mod deploy;
pub mod documents;
pub mod layers;
pub mod licences;
pub mod metadata;
pub mod sources;
pub mod tree;

/// One line per thing that is wrong, naming the file or crate.
pub type Findings = Vec<String>;
