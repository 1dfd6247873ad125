//! Blocks that were found to be damaged, by whoever read them last.
//!
//! ```text
//!   a piece does not verify  -->  noted, named once in the log, shown to operators
//!   it verifies again        -->  forgotten: the file was put back, or what was damaged was on the way
//! ```
//!
//! A query goes on without a damaged block and says so. The next one tries it again, for it may need other pieces of it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use spoor_model::BlockId;

use crate::error::Error;

/// What is known to be damaged: of each block what was found first.
#[derive(Debug, Default)]
pub struct Damages {
    blocks: Mutex<BTreeMap<BlockId, Damage>>,
    /// How many there are: those who find nothing wrong need not wait for each other.
    count: AtomicUsize,
}

#[derive(Debug)]
struct Damage {
    place: Place,
    reason: String,
}

/// Where a block is damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// Its parts do not fit together, or one is missing.
    Whole,
    /// Somewhere in these bytes of one of its files; none: the file as such.
    Bytes(String, Vec<Range<u64>>),
}

impl Place {
    /// Whether who has read `read` has seen all of this.
    fn is_in(&self, read: &Self) -> bool {
        match (self, read) {
            (Self::Whole, Self::Whole) => true,
            (Self::Bytes(file, bytes), Self::Bytes(read_file, read)) => {
                let has_read =
                    |bytes: &Range<u64>| read.iter().any(|read| read.start <= bytes.start && bytes.end <= read.end);
                file == read_file && bytes.iter().all(has_read)
            }
            _ => false,
        }
    }
}

impl Damages {
    /// Why queries may have to do without the block.
    pub fn of(&self, block: BlockId) -> Option<String> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.blocks.lock().get(&block).map(|damage| damage.reason.clone())
    }

    /// Where it is damaged, as far as is known.
    pub(crate) fn place_of(&self, block: BlockId) -> Option<Place> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.blocks.lock().get(&block).map(|damage| damage.place.clone())
    }

    /// Forgets a block that is gone.
    pub fn forget(&self, block: BlockId) {
        let mut blocks = self.blocks.lock();
        blocks.remove(&block);
        self.count.store(blocks.len(), Ordering::Relaxed);
    }

    /// Takes to heart how reading a place went. Other errors than damage say nothing.
    pub(crate) fn learn<T>(&self, block: BlockId, place: impl FnOnce() -> Place, read: &Result<T, Error>) {
        match read {
            Ok(_) if self.count.load(Ordering::Relaxed) > 0 => self.heal(block, &place()),
            Err(err @ Error::Corrupt { .. }) => self.note(block, place(), err),
            _ => {}
        }
    }

    fn note(&self, block: BlockId, place: Place, err: &Error) {
        let mut blocks = self.blocks.lock();
        blocks.entry(block).or_insert_with(|| {
            tracing::error!(%block, %err, "a block is damaged; queries that need what is damaged do without the block");
            Damage { place, reason: err.to_string() }
        });
        self.count.store(blocks.len(), Ordering::Relaxed);
    }

    fn heal(&self, block: BlockId, read: &Place) {
        let mut blocks = self.blocks.lock();
        if blocks.get(&block).is_some_and(|damage| damage.place.is_in(read)) {
            tracing::info!(%block, "what was damaged of a block can be read again");
            blocks.remove(&block);
        }
        self.count.store(blocks.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use spoor_model::UnixNano;

    use super::*;

    #[test]
    fn what_is_damaged_is_known_until_that_very_place_can_be_read() {
        let damages = Damages::default();
        let [one, two] = [1, 2].map(|number| BlockId::from_parts(UnixNano(0), number));
        let bytes = |file: &str, range: Range<u64>| Place::Bytes(file.to_owned(), vec![range]);
        let bad = |reason: &str| Err::<(), _>(Error::corrupt("block", reason));
        damages.learn(one, || bytes("a", 10..20), &bad("first"));
        damages.learn(one, || bytes("b", 0..5), &bad("second"));
        let unavailable = Error::Io { action: "read", path: "b".to_owned(), reason: String::new(), is_full: false };
        damages.learn(two, || bytes("a", 0..5), &Err::<(), _>(unavailable));
        assert_eq!(damages.of(one).as_deref(), Some("block: first"));
        assert_eq!(damages.of(two), None);
        for place in [bytes("a", 0..15), bytes("b", 0..90), Place::Whole] {
            damages.learn(one, || place, &Ok(()));
            assert!(damages.of(one).is_some());
        }
        damages.learn(two, || bytes("a", 0..90), &Ok(()));
        assert!(damages.of(one).is_some());
        damages.learn(one, || bytes("a", 0..90), &Ok(()));
        assert_eq!(damages.of(one), None);
        damages.learn(one, || Place::Whole, &bad("third"));
        damages.forget(one);
        assert_eq!(damages.of(one), None);
    }
}
