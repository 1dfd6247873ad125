//! How far a query is, for those who show it to people.

use parking_lot::Mutex;

use super::ScanStats;

/// How far a query is. The query writes it as it goes; anybody may look at any time.
#[derive(Debug, Default)]
pub struct Progress(Mutex<Reached>);

/// What a query has done so far. A piece of its work is to open a source, or to read one of its row groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reached {
    /// Pieces that are done.
    pub pieces_done: u64,
    /// Pieces that are known, those that are done included; more may come, and not all may be needed.
    pub pieces_known: u64,
    /// What it has cost.
    pub stats: ScanStats,
}

impl Progress {
    /// So many pieces more may have to be done.
    pub fn add(&self, pieces: usize) {
        self.0.lock().pieces_known += pieces as u64;
    }

    /// A piece that was added is done, at this cost.
    pub fn finish(&self, stats: ScanStats) {
        let mut reached = self.0.lock();
        reached.pieces_done += 1;
        reached.stats += stats;
    }

    /// Where the query is now. No more is done than is known.
    pub fn reached(&self) -> Reached {
        *self.0.lock()
    }
}
