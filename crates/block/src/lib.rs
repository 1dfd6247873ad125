//! Cold spans: the Parquet block format, specified in `FORMAT.md` beside this crate.
//!
//! ```text
//!   <tenant dir>/<block id>/
//!     spans.parquet     one row per span: ids, times, shape_id, origin_id, the attributes that vary
//!     shapes.parquet    one row per distinct shape: name, kind, status, every low-cardinality attribute
//!     origins.parquet   one row per distinct (resource, scope)
//!     index.bin         bloom filter over trace ids, exact trace table, catalogue of keys and operations, value filters
//!     meta.json         what the block is; checksums of the other files
//! ```
//!
//! [`write()`] makes a block from the head's batches, [`merge()`] one of several blocks; [`Block`] answers from it;
//! [`BlockFiles`] is where it lies.
//!
//! **Invariant:** blocks never change. **Invariant:** no TraceQL and no wire format here; events,
//! links and nested values are opaque bytes whose reader is [`spoor_model::nested`].

mod cache;
mod columns;
mod damage;
mod error;
mod files;
mod filter;
mod gather;
mod groups;
mod index;
mod inspect;
mod interned;
mod lineage;
mod merge;
mod meta;
mod open;
mod order;
mod outline;
mod pages;
mod pieces;
mod plan;
mod rows;
mod scan;
mod shape;
mod source;
mod summary;
mod tables;
mod traces;
mod unpack;
mod write;
mod writer;

pub use cache::BlockCache;
pub use damage::Damages;
pub use error::Error;
pub use files::{Awaited, BlockFile, BlockFiles, DirectoryFiles};
pub use inspect::{ColumnSize, Composition, check_presence, composition, verify};
pub use lineage::{Lineage, visible};
pub use merge::{LATE_BLOCKS_MAX, MergeOptions, Merged, Progress, TimeWindow, merge};
pub use meta::{BlockMeta, VERSION};
pub use pieces::{PIECE_BYTES, Pieces};
pub use source::Block;
pub use write::{WriteOptions, write};
