//! The life of blocks after they are cut.
//!
//! Deciding is apart from doing: [`plan()`], [`is_expired`] and [`over_size`] are pure functions from what there is to what is to be
//! merged or must go; [`Compaction`] and [`Retention`] walk the tenants and have it done by whoever owns the catalog.
//!
//! ```text
//!   server's timer  --> Retention::run      --> is_expired, over_size --> BlockOwner::remove
//!   server's thread --> Compaction::run_one --> plan                  --> BlockOwner::merge
//! ```
//!
//! [`objects`] is where blocks lie when that is not a directory of this machine alone.
//!
//! **Invariant:** this crate touches no catalog; it only names blocks. Only [`objects`] does IO.

mod compaction;
mod metrics;
pub mod objects;
mod owner;
mod pace;
mod plan;
mod retention;

#[cfg(test)]
mod fake;

pub use compaction::{Compaction, Pass, Running, Settings};
pub use metrics::Metrics;
pub use owner::{BlockOwner, Listed, MergeBounds, MergeError};
pub use pace::{Brake, Shares};
pub use plan::{Candidate, Job, LEVEL_MAX, Limits, Size, plan};
pub use retention::{Outcome, Policy, Retention, is_expired, over_size};
