//! Hot spans: the write-ahead log and the catalog, the columnar head, cutting blocks, recovery.
//!
//! ```text
//!   append --> queue --> log thread --> head thread --> caller: durable and visible
//!             (bytes)    group, fsync    decode
//!                            |              | full, old, flush
//!                            v              v
//!                        RocksDB <---- cut thread --> block directory
//!                        log, catalog    one atomic write: block in, log range out
//! ```
//!
//! Three threads, each the only one to do its kind of work, so the order of the log is the order of
//! the head, and the boundary between head and blocks is one sequence number per tenant. `FORMAT.md`
//! beside this crate specifies what is on disk.
//!
//! **Invariant:** an acknowledged span is durable (as far as [`WalSync`] promises) and visible.
//! **Invariant:** at every instant, in memory and on disk, an acknowledged span is in the log and head
//! or in a block, never in both, never in neither.
//! **Invariant:** memory is bounded by configuration; past a bound requests are refused by name.
//!
//! [`open_at_rest`] reads a directory that no server runs on, and changes nothing.
//!
//! Not here: decoding (given as [`spoor_model::ingest::Decode`]), the block format (`spoor_block`),
//! retention and what to merge (`spoor_compactor` decides, [`Ingester::remove_blocks`] and [`Ingester::merge_blocks`] do).

mod apply;
mod at_rest;
mod blocks;
mod catalog;
mod config;
mod cut;
mod deleted;
mod error;
mod head;
mod head_memory;
mod ingester;
mod leftovers;
mod metrics;
mod offline;
mod quarantine;
mod queue;
mod record;
mod recovery;
mod salvage;
pub mod store;
mod tenant;
mod wal;
mod whereabouts;

pub use at_rest::{AtRest, open_at_rest, open_at_rest_with};
pub use blocks::{BlockStore, StoredBlocks};
pub use config::{Config, WalSync};
pub use error::Error;
pub use ingester::{BlockState, Deletions, Foundation, Health, Ingester, MergeRequest};
pub use leftovers::{Leftover, LeftoverState, sweep_leftovers};
pub use metrics::Metrics;
pub use offline::{CatalogListing, ListedBlock, OfflineCatalog, list_catalog};
pub use whereabouts::{check_storage, used_storage};
