//! The life of blocks after they are cut.
//!
//! Deciding is apart from doing: [`expired`] is a pure function from what there is to what must go,
//! [`Retention`] walks the tenants and has it done by whoever owns the catalog.
//!
//! ```text
//!   server's timer --> Retention::run --> expired(metas, now, retention) --> BlockOwner::remove
//! ```
//!
//! **Invariant:** this crate touches no file and no catalog; it only names blocks.
//!
//! Not here yet: merging small blocks, object storage.

mod metrics;
mod plan;
mod retention;

pub use metrics::Metrics;
pub use plan::{Candidate, Job, LEVEL_MAX, Limits, Size, plan};
pub use retention::{BlockOwner, Outcome, Retention, expired};
