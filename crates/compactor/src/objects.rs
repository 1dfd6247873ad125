//! Blocks on object storage: S3, Google Cloud Storage, Azure Blob Storage, or a directory.
//!
//! ```text
//!   <prefix>/<tenant>/<block id>/spans.parquet, shapes.parquet, origins.parquet, index.bin
//!                               meta.json        put last: without it there is no block
//!   <prefix>/<tenant>/@deleted/<block id>/<trace id>   not to be shown, until the block is rewritten
//!   <prefix>/@lease.json                         who merges, removes and sweeps
//!   <prefix>/@deleting.json                      who deletes a trace, or has merged blocks become visible, just now
//! ```
//!
//! Blocks are built on local disk and uploaded ([`ObjectFiles`]); what queries read comes in few, joined requests
//! and is kept on local disk under a budget. Everything that comes from the store is verified against the
//! checksums of the block's meta before it is used or kept, and asked for again when it does not verify.
//!
//! Several processes may use one store: each looks for what the others do ([`Watch`], [`spoor_block::visible`]), and one of
//! them holds the [`Lease`] to change what is there.
//!
//! **Invariant:** what is here blocks, and is never called on an async thread.
//! **Invariant:** every request has a deadline.

mod ahead;
mod cache;
mod credentials;
mod deletions;
mod exclusion;
mod file;
mod files;
mod lease;
mod location;
mod metrics;
mod moving;
mod refusal;
mod requests;
mod sweep;
mod trial;
mod upload;
mod watch;

pub use credentials::Credentials;
pub use deletions::Deletions;
pub use exclusion::{Exclusion, Gate, Turn};
pub use files::{ObjectFiles, ObjectOptions};
pub use lease::{Holder, Lease};
pub use location::{Location, Opened, Purpose};
pub use metrics::Metrics;
pub use moving::MovingFiles;
pub use requests::Patience;
pub use sweep::Sweeper;
pub use trial::Trouble;
pub use watch::{BlockCatalog, Changes, Polled, Watch};
