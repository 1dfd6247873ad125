//! What is kept in memory of blocks that were read.
//!
//! ```text
//!   shapes, origins     each once, however many blocks have it           | by these a query knows that a block
//!   outlines            catalogue, row groups: some KB                   | has nothing for it
//!     with footers      of blocks whose spans were read: 0.1 to 0.3 MB
//!   trace tables        28 bytes per trace: what scans and lookups need of blocks that have something
//! ```
//!
//! Trace tables get what the others leave of the bound: they are larger, cheaper to read again, and not needed to
//! find that nothing matches.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hashbrown::HashMap;
use parking_lot::Mutex;
use spoor_model::{BlockId, Origin};

use crate::damage::Damages;
use crate::error::Error;
use crate::interned::Interner;
use crate::outline::Outline;
use crate::tables::Shape;
use crate::traces::TraceTable;

/// Opened blocks and trace tables within a bound. Those in use stay alive until their query ends, so the bound is
/// passed by what queries hold at once.
pub struct BlockCache {
    limit_bytes: usize,
    outlines: Mutex<Shelf<Outline>>,
    shared: Arc<Shared>,
}

/// What opened blocks have in common.
#[derive(Default)]
pub(crate) struct Shared {
    pub(crate) shapes: Interner<Shape>,
    pub(crate) origins: Interner<Origin>,
    tables: Mutex<Shelf<TraceTable>>,
    tables_limit_bytes: AtomicUsize,
    pub(crate) damages: Arc<Damages>,
}

impl std::fmt::Debug for BlockCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlockCache").field("limit_bytes", &self.limit_bytes).finish_non_exhaustive()
    }
}

impl BlockCache {
    /// An empty cache.
    pub fn new(limit_bytes: usize) -> Arc<Self> {
        let shared = Arc::new(Shared::new(limit_bytes, Arc::default()));
        Arc::new(Self { limit_bytes, outlines: Mutex::default(), shared })
    }

    /// Bytes held now.
    pub fn held_bytes(&self) -> usize {
        self.outlines.lock().held_bytes + self.shared.interned_bytes() + self.shared.tables.lock().held_bytes
    }

    /// Which blocks were found to be damaged, of all that were opened with this cache.
    pub fn damages(&self) -> &Arc<Damages> {
        &self.shared.damages
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) fn get(&self, id: BlockId) -> Option<Arc<Outline>> {
        self.outlines.lock().get(id)
    }

    /// Keeps what was opened of a block; called again when that has become more.
    pub(crate) fn insert(&self, id: BlockId, outline: &Arc<Outline>) {
        let mut shelf = self.outlines.lock();
        let limit_bytes = self.limit_bytes.saturating_sub(self.shared.interned_bytes());
        let made_room = shelf.insert(id, outline, outline.memory_bytes(), limit_bytes);
        let held_bytes = shelf.held_bytes;
        drop(shelf);
        if made_room {
            self.shared.sweep();
        }
        self.shared.give_tables(self.limit_bytes.saturating_sub(held_bytes + self.shared.interned_bytes()));
    }

    /// Forgets a block that is gone.
    pub(crate) fn remove(&self, id: BlockId) {
        self.outlines.lock().remove(id);
        self.shared.tables.lock().remove(id);
    }
}

impl Shared {
    /// Room for trace tables of so many bytes.
    pub(crate) fn new(tables_limit_bytes: usize, damages: Arc<Damages>) -> Self {
        Self { tables_limit_bytes: AtomicUsize::new(tables_limit_bytes), damages, ..Self::default() }
    }

    fn interned_bytes(&self) -> usize {
        self.shapes.held_bytes() + self.origins.held_bytes()
    }

    fn sweep(&self) {
        self.shapes.sweep();
        self.origins.sweep();
    }

    fn give_tables(&self, limit_bytes: usize) {
        self.tables_limit_bytes.store(limit_bytes, Ordering::Relaxed);
        self.tables.lock().shrink(limit_bytes);
    }

    #[cfg(test)]
    pub(crate) fn has_traces(&self, id: BlockId) -> bool {
        self.tables.lock().entries.contains_key(&id)
    }

    /// The trace table of a block, from `load` when it is not here.
    pub(crate) fn traces(
        &self,
        id: BlockId,
        load: impl FnOnce() -> Result<TraceTable, Error>,
    ) -> Result<Arc<TraceTable>, Error> {
        if let Some(table) = self.tables.lock().get(id) {
            return Ok(table);
        }
        let table = Arc::new(load()?);
        let limit_bytes = self.tables_limit_bytes.load(Ordering::Relaxed);
        self.tables.lock().insert(id, &table, table.memory_bytes(), limit_bytes);
        Ok(table)
    }
}

/// Of how many newcomers one displaces another.
const NEWCOMERS_PER_PLACE: u64 = 4;

/// Values of blocks within a bound. When it is full, one newcomer in four takes the place of the least recently used:
/// queries go through all blocks in turn, and if every newcomer were let in, each would displace the very one
/// that the next query asks for first.
struct Shelf<V> {
    entries: HashMap<BlockId, Entry<V>>,
    held_bytes: usize,
    clock: u64,
    /// Those that found no room.
    newcomers: u64,
}

struct Entry<V> {
    value: Arc<V>,
    held_bytes: usize,
    last_used: u64,
}

impl<V> Default for Shelf<V> {
    fn default() -> Self {
        Self { entries: HashMap::new(), held_bytes: 0, clock: 0, newcomers: 0 }
    }
}

impl<V> Shelf<V> {
    fn get(&mut self, id: BlockId) -> Option<Arc<V>> {
        self.clock += 1;
        let now = self.clock;
        let entry = self.entries.get_mut(&id)?;
        entry.last_used = now;
        Some(Arc::clone(&entry.value))
    }

    /// Whether others had to go.
    fn insert(&mut self, id: BlockId, value: &Arc<V>, held_bytes: usize, limit_bytes: usize) -> bool {
        let is_full = self.held_bytes + held_bytes > limit_bytes && !self.entries.is_empty();
        if is_full && !self.entries.contains_key(&id) {
            self.newcomers += 1;
            if !self.newcomers.is_multiple_of(NEWCOMERS_PER_PLACE) {
                return false;
            }
        }
        self.clock += 1;
        self.remove(id);
        self.entries.insert(id, Entry { value: Arc::clone(value), held_bytes, last_used: self.clock });
        self.held_bytes += held_bytes;
        self.shrink(limit_bytes)
    }

    /// Lets the least recently used go until the rest fits or is one. Whether any went.
    fn shrink(&mut self, limit_bytes: usize) -> bool {
        let before = self.entries.len();
        while self.held_bytes > limit_bytes && self.entries.len() > 1 {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.last_used).map(|(id, _)| *id);
            self.remove(oldest.expect("there are entries"));
        }
        self.entries.len() < before
    }

    fn remove(&mut self, id: BlockId) {
        if let Some(entry) = self.entries.remove(&id) {
            self.held_bytes -= entry.held_bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_shelf_keeps_its_bound_and_counts_what_it_holds(
            steps in proptest::collection::vec((0..20u8, 1..40usize, 0..3u8), 1..200),
        ) {
            let mut shelf: Shelf<usize> = Shelf::default();
            let limit_bytes = 100;
            for (id, size, action) in steps {
                let id = BlockId(u128::from(id));
                match action {
                    0 => shelf.remove(id),
                    1 => prop_assert!(shelf.get(id).is_none_or(|_| shelf.entries.contains_key(&id))),
                    _ => {
                        shelf.insert(id, &Arc::new(size), size, limit_bytes);
                    }
                }
                prop_assert_eq!(shelf.held_bytes, shelf.entries.values().map(|entry| *entry.value).sum::<usize>());
                prop_assert!(shelf.held_bytes <= limit_bytes || shelf.entries.len() == 1);
            }
        }
    }

    #[test]
    fn going_through_more_than_fits_leaves_most_of_it_in_place() {
        let mut shelf: Shelf<()> = Shelf::default();
        let mut found = 0;
        for step in 0..400u128 {
            let id = BlockId(step % 20);
            match shelf.get(id) {
                Some(_) => found += 1,
                None => {
                    shelf.insert(id, &Arc::new(()), 10, 100);
                }
            }
        }
        assert!(found > 100, "{found} of 400 found, half of what is asked for fits");
    }

    #[test]
    fn trace_tables_get_what_is_left() {
        let shared = Shared::new(1 << 20, Arc::default());
        let load = || Ok(TraceTable::default());
        let table = shared.traces(BlockId(1), load).unwrap();
        let again = shared.traces(BlockId(1), || unreachable!("it is known")).unwrap();
        assert!(Arc::ptr_eq(&table, &again));
        shared.traces(BlockId(2), load).unwrap();
        shared.give_tables(0);
        assert_eq!(shared.tables.lock().entries.len(), 1, "the last one used may stay");
    }
}
