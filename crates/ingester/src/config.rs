//! What the ingester is told at start.

use std::path::PathBuf;
use std::time::Duration;

use spoor_block::WriteOptions;

/// When a request is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WalSync {
    /// Before it is acknowledged.
    Always,
    /// At most this long after it is acknowledged: what the machine's end may cost.
    Interval(Duration),
    /// When the system likes: the end of the process costs nothing, that of the machine may.
    Never,
}

/// The ingester's piece of the configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where everything lies: `db/`, `blocks/`, `STORAGE` and `LOCK`.
    pub data_dir: PathBuf,
    /// By what `data_dir` remembers the storage on which blocks lie; empty: they lie in it.
    pub storage: String,
    /// The storage that all blocks were moved from, by whoever says so; empty: they were not.
    pub storage_moved_from: String,
    /// When a request is on disk.
    pub wal_sync: WalSync,
    /// A tenant's head is cut into a block when it holds this much memory. At most half of
    /// `head_memory_limit` takes effect, so that one head can fill while another is cut.
    pub head_bytes_max: usize,
    /// Heads of all tenants together, those being cut included. Past it, requests are refused.
    pub head_memory_limit: usize,
    /// A tenant's head is cut when its oldest request is older than this.
    pub head_age_max: Duration,
    /// Requests that are accepted but not yet durable and visible, compressed and not, together.
    pub append_queue_bytes: usize,
    /// How blocks are written.
    pub block: WriteOptions,
    /// How blocks are written that are merged from others.
    pub merged_block: WriteOptions,
    /// What blocks keep in memory for the queries to come.
    pub block_cache_bytes: usize,
}

impl Config {
    /// Documented defaults for a data directory.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            storage: String::new(),
            storage_moved_from: String::new(),
            wal_sync: WalSync::Always,
            head_bytes_max: 128 << 20,
            head_memory_limit: 320 << 20,
            head_age_max: Duration::from_secs(30 * 60),
            append_queue_bytes: 64 << 20,
            block: WriteOptions::default(),
            merged_block: WriteOptions::merged(),
            block_cache_bytes: 32 << 20,
        }
    }

    /// Where the database lies.
    pub(crate) fn database_dir(&self) -> PathBuf {
        self.data_dir.join("db")
    }

    /// Where blocks lie, unless they lie elsewhere altogether.
    pub(crate) fn blocks_dir(&self) -> PathBuf {
        self.data_dir.join("blocks")
    }

    /// At which size a head is cut.
    pub(crate) fn cut_bytes(&self) -> usize {
        self.head_bytes_max.min(self.head_memory_limit / 2).max(1)
    }
}
