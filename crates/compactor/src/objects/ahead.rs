//! What tells that a block has nothing for a query, fetched before a query asks.
//!
//! ```text
//!   a block is known --> awaited, newest block first --one request at a time--> cache on local disk
//!                           within a bound of bytes: of older blocks a query fetches it
//! ```
//!
//! Nobody waits for this. When the store is away it is tried again after a pause; what the store does not have, or has
//! damaged, is left to the query that wants it.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use spoor_block::{BlockFile, Error};
use spoor_model::{BlockId, TenantId};

use super::file::ObjectFile;
use super::metrics::Metrics;

/// How long nothing is fetched after the store did not answer.
const PAUSE: Duration = Duration::from_secs(10);

/// Newest first.
type Key = (Reverse<BlockId>, TenantId, String);

/// A part of a file of a block that is known.
struct Part<F> {
    bytes: u64,
    /// How many hold it: a block may be open twice.
    holders: usize,
    state: PartState<F>,
}

enum PartState<F> {
    /// It is on local disk, or was when it was last looked at.
    Here,
    /// It is to be fetched.
    Awaited(F, Range<u64>),
    /// It is left to the queries that want it.
    GivenUp,
}

/// What is known of parts of files `F`.
struct State<F> {
    parts: BTreeMap<Key, Part<F>>,
    /// How many are not here.
    missing_count: usize,
    has_thread: bool,
    is_over: bool,
}

impl<F> Default for State<F> {
    fn default() -> Self {
        Self { parts: BTreeMap::new(), missing_count: 0, has_thread: false, is_over: false }
    }
}

impl<F: Clone> State<F> {
    /// Adds a holder to a part, of which this is known now.
    fn hold(&mut self, key: &Key, bytes: u64, state: PartState<F>) {
        let holders = self.remove(key).map_or(0, |part| part.holders);
        self.missing_count += usize::from(!matches!(state, PartState::Here));
        self.parts.insert(key.clone(), Part { bytes, holders: holders + 1, state });
    }

    fn release(&mut self, key: &Key) {
        let Some(part) = self.parts.get_mut(key) else { return };
        part.holders -= 1;
        if part.holders == 0 {
            self.remove(key);
        }
    }

    fn remove(&mut self, key: &Key) -> Option<Part<F>> {
        let part = self.parts.remove(key)?;
        self.missing_count -= usize::from(!matches!(part.state, PartState::Here));
        Some(part)
    }

    /// What became of a part, if anybody still holds it.
    fn settle(&mut self, key: &Key, state: PartState<F>) {
        if let Some(part) = self.remove(key) {
            self.missing_count += usize::from(!matches!(state, PartState::Here));
            self.parts.insert(key.clone(), Part { state, ..part });
        }
    }

    /// What is to be fetched first: the newest that is awaited, of those that fit into the bound together.
    fn next(&self, limit_bytes: u64) -> Option<(Key, F, Range<u64>)> {
        let mut left_bytes = limit_bytes;
        self.parts.iter().find_map(|(key, part)| {
            left_bytes = match left_bytes.checked_sub(part.bytes) {
                Some(left_bytes) => left_bytes,
                None => return None,
            };
            match &part.state {
                PartState::Awaited(file, range) => Some((key.clone(), file.clone(), range.clone())),
                PartState::Here | PartState::GivenUp => None,
            }
        })
    }
}

/// The parts that are awaited.
pub(crate) struct Ahead {
    /// Of parts that may be fetched.
    limit_bytes: u64,
    metrics: Metrics,
    state: Mutex<State<Arc<ObjectFile>>>,
    changed: Condvar,
}

impl std::fmt::Debug for Ahead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ahead").field("limit_bytes", &self.limit_bytes).finish_non_exhaustive()
    }
}

/// As long as this is held, a part is wanted.
pub(crate) struct Holder {
    ahead: Arc<Ahead>,
    key: Key,
}

impl Drop for Holder {
    fn drop(&mut self) {
        let mut state = self.ahead.state.lock();
        state.release(&self.key);
        self.ahead.show(&state);
        drop(state);
        // There may be room for another.
        self.ahead.changed.notify_one();
    }
}

impl Ahead {
    /// Nothing is wanted yet. At most `limit_bytes` of what is known at one time are fetched.
    pub(crate) fn new(limit_bytes: u64, metrics: Metrics) -> Arc<Self> {
        Arc::new(Self { limit_bytes, metrics, state: Mutex::default(), changed: Condvar::new() })
    }

    /// Has a part of a file fetched, unless it is on local disk.
    pub(crate) fn want(self: &Arc<Self>, file: &ObjectFile, range: Range<u64>) -> Holder {
        let key = (Reverse(file.name.id), file.name.tenant.clone(), file.name.name.clone());
        let (bytes, is_here) = (range.end - range.start, file.is_here(&range));
        let part = if is_here { PartState::Here } else { PartState::Awaited(Arc::new(file.clone()), range) };
        let mut state = self.state.lock();
        state.hold(&key, bytes, part);
        self.show(&state);
        if !is_here && self.limit_bytes > 0 && !std::mem::replace(&mut state.has_thread, true) {
            let ahead = Arc::clone(self);
            // Not joined: it may be waiting for the store, which has its own bound, and nobody waits for what it does.
            let spawned = std::thread::Builder::new().name("spoor-ahead".to_owned()).spawn(move || ahead.run());
            state.has_thread = spawned.is_ok();
        }
        drop(state);
        self.changed.notify_one();
        Holder { ahead: Arc::clone(self), key }
    }

    /// Ends fetching.
    pub(crate) fn end(&self) {
        self.state.lock().is_over = true;
        self.changed.notify_one();
    }

    /// How many parts are wanted and not on local disk.
    pub(crate) fn missing_count(&self) -> usize {
        self.state.lock().missing_count
    }

    fn show(&self, state: &State<Arc<ObjectFile>>) {
        self.metrics.awaited_blocks.set(state.missing_count as i64);
    }

    fn run(&self) {
        let mut state = self.state.lock();
        while !state.is_over {
            let Some((key, file, range)) = state.next(self.limit_bytes) else {
                self.changed.wait(&mut state);
                continue;
            };
            drop(state);
            let read = file.read_ahead(range.clone());
            let is_here = file.is_here(&range);
            state = self.state.lock();
            match read {
                _ if is_here => state.settle(&key, PartState::Here),
                Err(err @ Error::Io { .. }) => {
                    tracing::debug!(block = %key.0.0, %err, "nothing is fetched ahead for now");
                    self.changed.wait_for(&mut state, PAUSE);
                }
                // Damaged, gone, or the cache does not take it.
                _ => state.settle(&key, PartState::GivenUp),
            }
            self.show(&state);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(number: u128) -> Key {
        (Reverse(BlockId(number)), TenantId::single(), "index.bin".to_owned())
    }

    proptest! {
        /// Against a list of what is held: the newest first, as many as fit together, until nobody holds them.
        #[test]
        fn the_newest_that_fit_are_fetched(
            steps in prop::collection::vec((0..4u8, 0..12u128, 1..50u64), 1..80),
            limit_bytes in 0..200u64,
        ) {
            let mut state: State<u128> = State::default();
            // Bytes, holders, and what is known: whether it is awaited, and whether it is here.
            let mut model: BTreeMap<Reverse<u128>, (u64, usize, bool, bool)> = BTreeMap::new();
            for (action, number, bytes) in steps {
                match action {
                    0 | 1 => {
                        let is_here = action == 1;
                        let part = if is_here { PartState::Here } else { PartState::Awaited(number, 0..bytes) };
                        state.hold(&key(number), bytes, part);
                        let holders = model.get(&Reverse(number)).map_or(0, |(_, holders, ..)| *holders);
                        model.insert(Reverse(number), (bytes, holders + 1, !is_here, is_here));
                    }
                    2 => {
                        state.release(&key(number));
                        if let Some((_, holders, ..)) = model.get_mut(&Reverse(number)) {
                            *holders -= 1;
                        }
                        model.retain(|_, (_, holders, ..)| *holders > 0);
                    }
                    _ => {
                        let mut fitting_bytes = 0;
                        let want = model.iter().find_map(|(number, (bytes, _, is_awaited, _))| {
                            let fits = fitting_bytes + bytes <= limit_bytes;
                            fitting_bytes += if fits { *bytes } else { 0 };
                            (fits && *is_awaited).then_some(number.0)
                        });
                        let next = state.next(limit_bytes);
                        prop_assert_eq!(next.as_ref().map(|(_, number, _)| *number), want);
                        if let Some((key, number, _)) = next {
                            let is_here = bytes % 2 == 0;
                            state.settle(&key, if is_here { PartState::Here } else { PartState::GivenUp });
                            let known = model.get_mut(&Reverse(number)).unwrap();
                            (known.2, known.3) = (false, is_here);
                        }
                    }
                }
                prop_assert_eq!(state.missing_count, model.values().filter(|(.., is_here)| !is_here).count());
            }
        }
    }
}
