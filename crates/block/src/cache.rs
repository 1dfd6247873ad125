//! What is kept in memory of blocks that were read: footers, dimension tables, trace tables.

use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::Mutex;
use spoor_model::BlockId;

use crate::open::Opened;

/// Opened blocks within a bound. When it is full, one newcomer in four takes the place of the least recently used:
/// queries go through all blocks in turn, and if every newcomer were let in, each would displace the very block
/// that the next query asks for first. Blocks in use stay alive until their query ends, so the bound is passed by
/// what queries hold at once.
#[derive(Default)]
pub struct BlockCache {
    limit_bytes: usize,
    state: Mutex<State>,
}

/// Of how many newcomers one displaces another block.
const NEWCOMERS_PER_PLACE: u64 = 4;

#[derive(Default)]
struct State {
    entries: HashMap<BlockId, Entry>,
    held_bytes: usize,
    clock: u64,
    /// Blocks that found the cache full.
    newcomers: u64,
}

struct Entry {
    opened: Arc<Opened>,
    held_bytes: usize,
    last_used: u64,
}

impl std::fmt::Debug for BlockCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlockCache").field("limit_bytes", &self.limit_bytes).finish_non_exhaustive()
    }
}

impl BlockCache {
    /// An empty cache.
    pub fn new(limit_bytes: usize) -> Arc<Self> {
        Arc::new(Self { limit_bytes, ..Self::default() })
    }

    /// Bytes held now.
    pub fn held_bytes(&self) -> usize {
        self.state.lock().held_bytes
    }

    pub(crate) fn get(&self, id: BlockId) -> Option<Arc<Opened>> {
        let mut state = self.state.lock();
        state.clock += 1;
        let now = state.clock;
        let entry = state.entries.get_mut(&id)?;
        entry.last_used = now;
        Some(Arc::clone(&entry.opened))
    }

    pub(crate) fn insert(&self, id: BlockId, opened: &Arc<Opened>) {
        let held_bytes = opened.memory_bytes();
        let mut state = self.state.lock();
        let is_full = state.held_bytes + held_bytes > self.limit_bytes && !state.entries.is_empty();
        if is_full && !state.entries.contains_key(&id) {
            state.newcomers += 1;
            if !state.newcomers.is_multiple_of(NEWCOMERS_PER_PLACE) {
                return;
            }
        }
        state.clock += 1;
        let entry = Entry { opened: Arc::clone(opened), held_bytes, last_used: state.clock };
        state.held_bytes += held_bytes;
        if let Some(replaced) = state.entries.insert(id, entry) {
            state.held_bytes -= replaced.held_bytes;
        }
        while state.held_bytes > self.limit_bytes && state.entries.len() > 1 {
            let oldest = state.entries.iter().min_by_key(|(_, entry)| entry.last_used).map(|(id, _)| *id);
            state.remove(oldest.expect("there are entries"));
        }
    }

    /// Forgets a block that is gone.
    pub(crate) fn remove(&self, id: BlockId) {
        self.state.lock().remove(id);
    }
}

impl State {
    fn remove(&mut self, id: BlockId) {
        if let Some(entry) = self.entries.remove(&id) {
            self.held_bytes -= entry.held_bytes;
        }
    }
}
