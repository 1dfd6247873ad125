//! Things that many blocks hold, kept once: services send the same resources and the same shapes for days.

use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::Mutex;

use crate::error::Error;

/// Decoded values by their encoded form. Lives as long as the cache of blocks; what no block refers to any more
/// goes with [`Self::sweep`].
pub(crate) struct Interner<T> {
    state: Mutex<State<T>>,
}

struct State<T> {
    known: HashMap<Box<[u8]>, Entry<T>>,
    held_bytes: usize,
}

struct Entry<T> {
    value: Arc<T>,
    held_bytes: usize,
}

impl<T> Default for Interner<T> {
    fn default() -> Self {
        Self { state: Mutex::new(State { known: HashMap::new(), held_bytes: 0 }) }
    }
}

impl<T> Interner<T> {
    /// The value with this encoding. `decode` also says what the value takes in memory; it is not called when the
    /// value is known.
    pub(crate) fn get(
        &self,
        encoded: &[u8],
        decode: impl FnOnce() -> Result<(T, usize), Error>,
    ) -> Result<Arc<T>, Error> {
        if let Some(entry) = self.state.lock().known.get(encoded) {
            return Ok(Arc::clone(&entry.value));
        }
        let (value, value_bytes) = decode()?;
        let held_bytes = value_bytes + encoded.len() + size_of::<(Box<[u8]>, Entry<T>)>();
        let mut state = self.state.lock();
        let State { known, held_bytes: all_bytes } = &mut *state;
        // Another thread may have been faster.
        let entry = known.entry(encoded.into()).or_insert_with(|| {
            *all_bytes += held_bytes;
            Entry { value: Arc::new(value), held_bytes }
        });
        Ok(Arc::clone(&entry.value))
    }

    /// A rough count of the memory held.
    pub(crate) fn held_bytes(&self) -> usize {
        self.state.lock().held_bytes
    }

    /// Forgets what nobody else holds. Linear in what is known.
    pub(crate) fn sweep(&self) {
        let mut state = self.state.lock();
        let State { known, held_bytes } = &mut *state;
        known.retain(|_, entry| Arc::strong_count(&entry.value) > 1);
        *held_bytes = known.values().map(|entry| entry.held_bytes).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_encodings_are_one_value_until_nobody_holds_it() {
        let interner: Interner<String> = Interner::default();
        let get = |text: &str| interner.get(text.as_bytes(), || Ok((text.to_owned(), text.len()))).unwrap();
        let (one, other) = (get("a"), get("b"));
        assert!(Arc::ptr_eq(&one, &interner.get(b"a", || unreachable!("it is known")).unwrap()));
        let of_both = interner.held_bytes();
        drop(other);
        interner.sweep();
        assert!(interner.held_bytes() < of_both);
        assert!(Arc::ptr_eq(&one, &get("a")));
        drop(one);
        interner.sweep();
        assert_eq!(interner.held_bytes(), 0);
        let failure = interner.get(b"c", || Err(Error::Cancelled));
        assert!(failure.is_err() && interner.held_bytes() == 0, "what cannot be decoded is not kept");
    }
}
