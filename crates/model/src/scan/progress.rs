//! How far a query is, for those who show it to people.

use parking_lot::Mutex;

use super::ScanStats;

/// How far a query is. The query writes it as it goes; anybody may look at any time.
#[derive(Debug, Default)]
pub struct Progress(Mutex<Reached>);

/// What a query has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reached {
    /// Row groups that have been read.
    pub groups_read: u64,
    /// Row groups that are known to be there for reading; more may come, and not all may be needed.
    pub groups_known: u64,
    /// What it has cost.
    pub stats: ScanStats,
}

impl Progress {
    /// So many row groups more may have to be read.
    pub fn add_groups(&self, count: usize) {
        self.0.lock().groups_known += count as u64;
    }

    /// A row group that was added has been read, at this cost.
    pub fn read_group(&self, stats: ScanStats) {
        let mut reached = self.0.lock();
        reached.groups_read += 1;
        reached.stats += stats;
    }

    /// Where the query is now. It has read at most what is known.
    pub fn reached(&self) -> Reached {
        *self.0.lock()
    }
}
