//! The ordered map that holds the log and the catalog: what the ingester needs of it, no more.
//!
//! Two implementations: [`RocksStore`], which is the product, and [`MemoryStore`], a model with a
//! live and a durable image and faults on demand, for tests and simulation. One suite of tests
//! (`contract.rs`) runs on both, because RocksDB's own threads and IO obey no seed.

use std::ops::ControlFlow;

pub use memory::{Fault, MemoryStore};
pub use rocks::RocksStore;

#[cfg(test)]
mod contract;
mod mark;
mod memory;
mod rocks;

/// The maps there are; each has its own keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Requests that are not in blocks yet.
    Wal,
    /// Which blocks there are, and up to where each tenant's log is in blocks.
    Catalog,
    /// Log records that could not be read, kept for a person to look at.
    Quarantine,
}

impl Table {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Wal, Self::Catalog, Self::Quarantine];

    /// The name on disk.
    pub fn name(self) -> &'static str {
        match self {
            Self::Wal => "wal",
            Self::Catalog => "catalog",
            Self::Quarantine => "quarantine",
        }
    }
}

/// One step of an atomic write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Sets a key.
    Put {
        /// Where.
        table: Table,
        /// Which.
        key: Vec<u8>,
        /// To what.
        value: Vec<u8>,
    },
    /// Removes a key; nothing happens when it is not there.
    Delete {
        /// Where.
        table: Table,
        /// Which.
        key: Vec<u8>,
    },
    /// Removes all keys from `from` up to but without `until`.
    DeleteRange {
        /// Where.
        table: Table,
        /// The first.
        from: Vec<u8>,
        /// One past the last.
        until: Vec<u8>,
    },
}

/// When a write must be on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Before the call returns.
    Synced,
    /// At the next synced write or [`Store::sync`]; it survives the end of the process, not of the machine.
    Buffered,
}

/// The store cannot do what was asked. After a failed write it is not known whether the write
/// happened; it happened whole or not at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StoreError(pub String);

/// What [`Store::scan`] hands keys and values to.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// An ordered map with atomic writes.
pub trait Store: Send + Sync {
    /// Makes all changes, in order, or none.
    fn write(&self, changes: &[Change], durability: Durability) -> Result<(), StoreError>;

    /// What was found damaged when the store was opened, and passed over: writes of before may be missing while later
    /// ones are there.
    fn damage(&self) -> Option<String> {
        None
    }

    /// Makes every earlier write durable.
    fn sync(&self) -> Result<(), StoreError>;

    /// The value of a key.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Visits the entries with keys not below `from`, ascending, until the visitor breaks. Writes
    /// made meanwhile may or may not be seen.
    fn scan(&self, table: Table, from: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError>;

    /// Gives back the memory and disk of deleted log records. Call it after a trim; it costs a write
    /// of what is left in the log and does not stop writers.
    fn reclaim(&self) -> Result<(), StoreError>;

    /// Gives back everything that can be given back. Call it when the process is about to end; it costs
    /// a read and a write of what is left in the log.
    fn compact(&self) -> Result<(), StoreError>;
}
