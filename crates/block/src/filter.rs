//! What a row group may hold: filters over its values, so that a value that is nowhere costs no read.
//!
//! Shapes and origins are tables and answer by themselves. The rest, texts and integers in columns and everything in
//! events, links and the residual, goes into one split-block Bloom filter per row group, each value with its place: 20 bits
//! per distinct value, wrong once in 2,400 as the trace id filter is. That is 1 byte per span; with 10 bits, wrong twice in
//! 100, a query of a hundred blocks would read columns of some of them for nothing each time.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use parquet::bloom_filter::Sbbf;
use spoor_model::scan::{Literal, Test};
use spoor_model::value::Value;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::index::Index;

/// Bits per distinct value. Blocks of before have 10.
const BITS_PER_VALUE: usize = 20;
/// The unit of a split-block filter.
const BLOCK_BYTES: usize = 32;

/// Where a value stands. The numbers are part of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place<'a> {
    /// A span attribute.
    Span(&'a str),
    /// An attribute of events.
    Event(&'a str),
    /// An attribute of links.
    Link(&'a str),
    /// A span name.
    Name,
    /// A status message.
    StatusMessage,
    /// A name of events.
    EventName,
}

/// The seed of the hashes of one place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PlaceSeed(u64);

impl Place<'_> {
    pub(crate) fn seed(self) -> PlaceSeed {
        let (number, key) = match self {
            Self::Span(key) => (1, key),
            Self::Event(key) => (2, key),
            Self::Link(key) => (3, key),
            Self::Name => (4, ""),
            Self::StatusMessage => (5, ""),
            Self::EventName => (6, ""),
        };
        PlaceSeed(xxh3_64_with_seed(key.as_bytes(), number))
    }
}

impl PlaceSeed {
    pub(crate) fn text(self, text: &[u8]) -> u64 {
        xxh3_64_with_seed(text, self.0)
    }

    /// Of an integer.
    pub(crate) fn int(self, int: i64) -> u64 {
        self.number(int as f64)
    }

    /// Integers and floats that are equal have equal hashes.
    fn number(self, number: f64) -> u64 {
        // Both zeros are one.
        xxh3_64_with_seed(&(number + 0.0).to_bits().to_le_bytes(), self.0.wrapping_add(1))
    }

    fn flag(self, flag: bool) -> u64 {
        xxh3_64_with_seed(&[u8::from(flag)], self.0.wrapping_add(2))
    }

    /// Adds the hashes of a value; of an array those of its elements. Nothing equals bytes and maps.
    pub(crate) fn add(self, value: &Value, into: &mut Vec<u64>) {
        match value {
            Value::Str(text) => into.push(self.text(text.as_bytes())),
            Value::Int(int) => into.push(self.number(*int as f64)),
            Value::Double(double) => into.push(self.number(*double)),
            Value::Bool(flag) => into.push(self.flag(*flag)),
            Value::Array(values) => values.iter().for_each(|value| self.add(value, into)),
            Value::Empty | Value::Bytes(_) | Value::Map(_) => {}
        }
    }
}

/// A filter over hashes, as bits.
pub(crate) fn build(mut hashes: Vec<u64>) -> Vec<u8> {
    hashes.sort_unstable();
    hashes.dedup();
    let size_bytes = (hashes.len() * BITS_PER_VALUE).div_ceil(8 * BLOCK_BYTES).max(1) * BLOCK_BYTES;
    let mut filter = Sbbf::new(&vec![0; size_bytes]);
    hashes.iter().for_each(|hash| filter.insert(&hash.to_le_bytes()[..]));
    let mut bits = Vec::with_capacity(size_bytes);
    filter.write_bitset(&mut bits).expect("memory can be written to");
    bits
}

/// The section of the index: each filter with its length before it.
pub(crate) fn encode(filters: &[Vec<u8>]) -> Vec<u8> {
    let mut section = Vec::new();
    for bits in filters {
        section.extend_from_slice(&(bits.len() as u32).to_le_bytes());
        section.extend_from_slice(bits);
    }
    section
}

/// Whether a filter may have this size.
pub(crate) fn is_size(bytes: u32) -> bool {
    bytes > 0 && (bytes as usize).is_multiple_of(BLOCK_BYTES)
}

/// The filters of a block, one per row group; none in blocks that were written without. They stay in the file:
/// a look reads 32 bytes.
pub(crate) struct ValueFilters {
    index: Arc<Index>,
    /// Where each filter lies; `None` when that cannot be read.
    places: OnceLock<Option<Vec<Range<u64>>>>,
}

impl ValueFilters {
    /// Reads nothing yet.
    pub(crate) fn new(index: Arc<Index>) -> Self {
        Self { index, places: OnceLock::new() }
    }

    /// Whether a value that satisfies the test may stand at a place in a row group: `false` is certain.
    /// Knows equality only. Where a filter cannot be read every value may be: whoever then reads the columns
    /// gets the right answer, or the error.
    pub(crate) fn may_hold(&self, group: usize, place: Place<'_>, test: &Test) -> bool {
        let Some(wanted) = wanted(place.seed(), test) else { return true };
        let places = self.places.get_or_init(|| self.index.value_filters().ok());
        let Some(filter) = places.as_ref().and_then(|places| places.get(group)) else { return true };
        wanted.iter().any(|hash| self.holds(filter, *hash))
    }

    fn holds(&self, filter: &Range<u64>, hash: u64) -> bool {
        let value = hash.to_le_bytes();
        let start = filter.start + block_of(xxh64(value), filter.end - filter.start);
        let block = self.index.read(start..start + BLOCK_BYTES as u64);
        block.map_or(true, |block| Sbbf::new(&block).check(&value[..]))
    }
}

/// Where the block of a split-block filter begins that knows a hash: the upper half of the hash, scaled to the number
/// of blocks.
fn block_of(hash: u64, filter_bytes: u64) -> u64 {
    let block_count = filter_bytes / BLOCK_BYTES as u64;
    (((hash >> 32) * block_count) >> 32) * BLOCK_BYTES as u64
}

/// XXH64 with seed 0 of eight bytes, by which Parquet's filters place their values.
fn xxh64(value: [u8; 8]) -> u64 {
    const PRIMES: [u64; 5] = [
        0x9E37_79B1_85EB_CA87,
        0xC2B2_AE3D_27D4_EB4F,
        0x1656_67B1_9E37_79F9,
        0x85EB_CA77_C2B2_AE63,
        0x27D4_EB2F_1656_67C5,
    ];
    let lane = u64::from_le_bytes(value).wrapping_mul(PRIMES[1]).rotate_left(31).wrapping_mul(PRIMES[0]);
    let mut hash = PRIMES[4].wrapping_add(8) ^ lane;
    hash = hash.rotate_left(27).wrapping_mul(PRIMES[0]).wrapping_add(PRIMES[3]);
    hash = (hash ^ (hash >> 33)).wrapping_mul(PRIMES[1]);
    hash = (hash ^ (hash >> 29)).wrapping_mul(PRIMES[2]);
    hash ^ (hash >> 32)
}

/// The hashes of all values that satisfy a test; `None` when they cannot be listed.
fn wanted(seed: PlaceSeed, test: &Test) -> Option<Vec<u64>> {
    match test {
        Test::Eq(Literal::Str(text)) => Some(vec![seed.text(text.as_bytes())]),
        Test::Eq(Literal::Int(int)) => Some(vec![seed.number(*int as f64)]),
        Test::Eq(Literal::Float(float)) => Some(vec![seed.number(*float)]),
        Test::Eq(Literal::Bool(flag)) => Some(vec![seed.flag(*flag)]),
        // A value that was never set is the empty text, and there is no telling one NaN from another.
        Test::TextEq(text) if text.is_empty() || &**text == "NaN" => None,
        Test::TextEq(text) => {
            let mut hashes = vec![seed.text(text.as_bytes())];
            hashes.extend(text.parse().ok().map(|number| seed.number(number)));
            hashes.extend(text.parse().ok().map(|flag| seed.flag(flag)));
            Some(hashes)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_was_added_is_found_and_little_else() {
        let seed = Place::Span("user.id").seed();
        let mut hashes = Vec::new();
        (0..1000).for_each(|n| seed.add(&Value::Str(format!("u{n}")), &mut hashes));
        let numbers = vec![Value::Int(7), Value::Double(-0.0), Value::Double(1.5)];
        seed.add(&Value::Array(numbers), &mut hashes);
        seed.add(&Value::Bool(true), &mut hashes);
        let filters = ValueFilters::new(Arc::new(Index::of_filters(&encode(&[build(hashes)]))));
        let holds = |test: Test| filters.may_hold(0, Place::Span("user.id"), &test);
        for test in [
            Test::Eq(Literal::Str("u7".into())),
            Test::Eq(Literal::Float(7.0)),
            Test::Eq(Literal::Int(0)),
            Test::Eq(Literal::Bool(true)),
            Test::TextEq("7".into()),
            Test::TextEq("1.5".into()),
            Test::TextEq("true".into()),
            Test::TextEq("".into()),
            Test::Exists,
        ] {
            assert!(holds(test.clone()), "{test:?}");
        }
        let wrong = (0..1000).filter(|n| holds(Test::Eq(Literal::Str(format!("nobody {n}").into())))).count();
        assert!(wrong < 10, "{wrong} of 1000 values that are not there");
        let elsewhere = |place| filters.may_hold(0, place, &Test::Eq(Literal::Str("u7".into())));
        assert!(!elsewhere(Place::Event("user.id")) && !elsewhere(Place::Span("user.name")));
        assert!(filters.may_hold(1, Place::Name, &Test::Eq(Literal::Str("u7".into()))), "a group without a filter");
    }

    #[test]
    fn malformed_sections_are_no_filters() {
        let section = encode(&[build(vec![1]), build(vec![2])]);
        assert_eq!(Index::of_filters(&section).value_filters().unwrap().len(), 2);
        for length in (0..section.len()).filter(|length| *length != 0 && *length != section.len() / 2) {
            assert!(Index::of_filters(&section[..length]).value_filters().is_err());
        }
    }

    proptest! {
        #[test]
        fn one_block_of_a_filter_says_what_the_filter_says(
            added in proptest::collection::vec(any::<u64>(), 0..300),
            asked in proptest::collection::vec(any::<u64>(), 300),
        ) {
            let bits = build(added.clone());
            let whole = Sbbf::new(&bits);
            let filters = ValueFilters::new(Arc::new(Index::of_filters(&encode(&[bits]))));
            let place = filters.index.value_filters().unwrap()[0].clone();
            for hash in added.iter().chain(&asked) {
                prop_assert_eq!(filters.holds(&place, *hash), whole.check(&hash.to_le_bytes()[..]));
            }
        }
    }
}
