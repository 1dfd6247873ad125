//! Random traces and random well-typed TraceQL queries, for property tests of engines against the
//! oracle. Both shrink.
//!
//! Few names and few values, so that queries hit; everything odd that traces can be, now and then:
//! missing parents, cycles, shared ids, exact copies, keys whose values have several types.
//!
//! Left out is what the language leaves open: `span:childCount` (cycles), repeated keys of one
//! span, groups by maps and bytes, event fields in arithmetic, and ties between labels of equal text.

mod queries;
mod traces;

pub use queries::{metrics_query, search_query, window};
pub use traces::entries;

#[cfg(test)]
mod tests;
