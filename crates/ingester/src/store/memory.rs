//! The store as a model: two maps in memory, one as the process sees it and one as the disk has it.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use super::{Change, Durability, Store, StoreError, Table, Visit};

/// How a write fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The write does not happen (a full disk).
    Refuse,
    /// The write happens and is durable, and yet an error comes back (an interrupted sync).
    LoseAnswer,
    /// The process sees the write, the disk never does (a failed sync).
    LoseWrite,
}

type Image = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

#[derive(Debug, Default)]
struct State {
    live: Image,
    durable: Image,
    buffered: Vec<Vec<Change>>,
    writes_seen: u64,
    faults: Vec<(std::ops::Range<u64>, Fault)>,
}

/// A [`Store`] in memory, with faults on demand. A crash is [`MemoryStore::after_crash`].
#[derive(Debug, Default)]
pub struct MemoryStore {
    state: Mutex<State>,
}

impl MemoryStore {
    /// An empty store without faults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes the writes with these numbers (counted from 0 since the store was made) fail.
    pub fn fail_writes(&self, writes: std::ops::Range<u64>, fault: Fault) {
        self.state.lock().faults.push((writes, fault));
    }

    /// Ends all faults: the disk has room again.
    pub fn heal(&self) {
        self.state.lock().faults.clear();
    }

    /// How many writes there were, failed ones too.
    pub fn writes_seen(&self) -> u64 {
        self.state.lock().writes_seen
    }

    /// What a new process finds after the machine stopped: everything durable, and the first
    /// `buffered_kept` of the writes that were not.
    pub fn after_crash(&self, buffered_kept: usize) -> Self {
        let state = self.state.lock();
        let mut durable = state.durable.clone();
        for changes in state.buffered.iter().take(buffered_kept) {
            apply(&mut durable, changes);
        }
        Self { state: Mutex::new(State { live: durable.clone(), durable, ..State::default() }) }
    }

    /// Flips a bit of a value, as a bad disk would.
    ///
    /// # Panics
    /// When there is no such key.
    pub fn corrupt(&self, table: Table, key: &[u8], bit: usize) {
        let mut state = self.state.lock();
        let State { live, durable, .. } = &mut *state;
        for image in [live, durable] {
            let value = image.get_mut(&(table, key.to_vec())).expect("the key is there");
            let place = bit / 8 % value.len();
            value[place] ^= 1 << (bit % 8);
        }
    }
}

fn apply(image: &mut Image, changes: &[Change]) {
    for change in changes {
        match change {
            Change::Put { table, key, value } => {
                image.insert((*table, key.clone()), value.clone());
            }
            Change::Delete { table, key } => {
                image.remove(&(*table, key.clone()));
            }
            Change::DeleteRange { table, from, until } => {
                let keys: Vec<_> = image.range((*table, from.clone())..(*table, until.clone())).collect();
                let keys: Vec<_> = keys.into_iter().map(|(key, _)| key.clone()).collect();
                keys.iter().for_each(|key| drop(image.remove(key)));
            }
        }
    }
}

impl State {
    fn make_durable(&mut self) {
        for changes in std::mem::take(&mut self.buffered) {
            apply(&mut self.durable, &changes);
        }
    }
}

impl Store for MemoryStore {
    fn write(&self, changes: &[Change], durability: Durability) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        let number = state.writes_seen;
        state.writes_seen += 1;
        let fault = state.faults.iter().find(|(writes, _)| writes.contains(&number)).map(|(_, fault)| *fault);
        if fault == Some(Fault::Refuse) {
            return Err(StoreError("no space left on device (injected)".to_owned()));
        }
        apply(&mut state.live, changes);
        if fault == Some(Fault::LoseWrite) {
            return Err(StoreError("sync failed (injected)".to_owned()));
        }
        state.buffered.push(changes.to_vec());
        if durability == Durability::Synced || fault.is_some() {
            state.make_durable();
        }
        match fault {
            Some(_) => Err(StoreError("sync was interrupted (injected)".to_owned())),
            None => Ok(()),
        }
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.state.lock().make_durable();
        Ok(())
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.state.lock().live.get(&(table, key.to_vec())).cloned())
    }

    fn scan(&self, table: Table, from: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        // A copy, so that the visitor may write.
        let entries: Vec<(Vec<u8>, Vec<u8>)> = {
            let state = self.state.lock();
            let from_here = state.live.range((table, from.to_vec())..);
            let in_table = from_here.take_while(|((in_table, _), _)| *in_table == table);
            in_table.map(|((_, key), value)| (key.clone(), value.clone())).collect()
        };
        for (key, value) in &entries {
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn reclaim(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn compact(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
