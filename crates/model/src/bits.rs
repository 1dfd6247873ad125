//! A set of rows (or of traces, or shapes), one bit each: what a condition becomes once it is evaluated.

/// Which of a fixed number of rows are in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bits {
    words: Vec<u64>,
    len: usize,
}

impl Bits {
    /// No row of `len`.
    pub fn none(len: usize) -> Self {
        Self { words: vec![0; len.div_ceil(64)], len }
    }

    /// Every row of `len`.
    pub fn all(len: usize) -> Self {
        let mut bits = Self { words: vec![u64::MAX; len.div_ceil(64)], len };
        bits.clear_tail();
        bits
    }

    /// The rows for which `holds` says so.
    pub fn from_fn(len: usize, mut holds: impl FnMut(usize) -> bool) -> Self {
        let mut bits = Self::none(len);
        for (place, word) in bits.words.iter_mut().enumerate() {
            let first = place * 64;
            for row in first..len.min(first + 64) {
                *word |= u64::from(holds(row)) << (row - first);
            }
        }
        bits
    }

    /// The rows whose byte is not zero.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let word =
            |bytes: &[u8]| bytes.iter().enumerate().fold(0, |word, (bit, byte)| word | u64::from(*byte != 0) << bit);
        Self { words: bytes.chunks(64).map(word).collect(), len: bytes.len() }
    }

    /// One byte per row: 1 when it is in, else 0.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len];
        for (word, bytes) in self.words.iter().zip(bytes.chunks_mut(64)) {
            bytes.iter_mut().enumerate().for_each(|(bit, byte)| *byte = (word >> bit) as u8 & 1);
        }
        bytes
    }

    /// How many rows there are, in or not.
    pub fn len(&self) -> usize {
        self.len
    }

    fn clear_tail(&mut self) {
        let used = self.len % 64;
        if let (1.., Some(last)) = (used, self.words.last_mut()) {
            *last &= (1 << used) - 1;
        }
    }

    /// Whether the row is in. Panics past the end.
    #[inline]
    pub fn contains(&self, row: usize) -> bool {
        self.words[row / 64] >> (row % 64) & 1 == 1
    }

    /// Adds a row. Panics past the end.
    #[inline]
    pub fn insert(&mut self, row: usize) {
        assert!(row < self.len, "row {row} of {}", self.len);
        self.words[row / 64] |= 1 << (row % 64);
    }

    /// Whether no row is in.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// Keeps the rows that `other` has too.
    pub fn intersect(&mut self, other: &Self) {
        assert_eq!(self.len, other.len, "sets over the same rows");
        self.words.iter_mut().zip(&other.words).for_each(|(word, other)| *word &= other);
    }

    /// Adds the rows of `other`.
    pub fn union(&mut self, other: &Self) {
        assert_eq!(self.len, other.len, "sets over the same rows");
        self.words.iter_mut().zip(&other.words).for_each(|(word, other)| *word |= other);
    }

    /// Takes the rows of `other` out.
    pub fn subtract(&mut self, other: &Self) {
        assert_eq!(self.len, other.len, "sets over the same rows");
        self.words.iter_mut().zip(&other.words).for_each(|(word, other)| *word &= !other);
    }

    /// Turns every row's answer round.
    pub fn invert(&mut self) {
        self.words.iter_mut().for_each(|word| *word = !*word);
        self.clear_tail();
    }

    /// How many rows are in.
    pub fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether a row of the range is in. Panics when the range ends past the end.
    pub fn any_in(&self, rows: std::ops::Range<usize>) -> bool {
        if rows.is_empty() {
            return false;
        }
        let (first, last) = (rows.start / 64, (rows.end - 1) / 64);
        let from = u64::MAX << (rows.start % 64);
        let to = u64::MAX >> (63 - (rows.end - 1) % 64);
        match first == last {
            true => self.words[first] & from & to != 0,
            false => {
                let between = || self.words[first + 1..last].iter().any(|word| *word != 0);
                self.words[first] & from != 0 || self.words[last] & to != 0 || between()
            }
        }
    }

    /// How many rows of the range are in. Panics when the range ends past the end.
    pub fn count_in(&self, rows: std::ops::Range<usize>) -> usize {
        let Some(parts) = parts(rows) else { return 0 };
        parts.map(|(word, part)| (self.words[word] & part).count_ones() as usize).sum()
    }

    /// Adds the rows of a range. Panics when it ends past the end.
    pub fn insert_range(&mut self, rows: std::ops::Range<usize>) {
        assert!(rows.end <= self.len, "rows up to {} of {}", rows.end, self.len);
        parts(rows).into_iter().flatten().for_each(|(word, part)| self.words[word] |= part);
    }

    /// Adds the rows `first`, `first + 1`, .. whose bits in the word are set, lowest first. Panics when one lies past the
    /// end.
    #[inline]
    pub fn insert_word(&mut self, first: usize, word: u64) {
        let end = first + 64 - word.leading_zeros() as usize;
        assert!(word == 0 || end <= self.len, "rows up to {end} of {}", self.len);
        let (place, shift) = (first / 64, first % 64);
        if word << shift != 0 {
            self.words[place] |= word << shift;
        }
        if shift > 0 && word >> (64 - shift) != 0 {
            self.words[place + 1] |= word >> (64 - shift);
        }
    }

    /// Visits the rows of a range that are in, ascending. Panics when it ends past the end.
    #[inline]
    pub fn for_each_in(&self, rows: std::ops::Range<usize>, mut visit: impl FnMut(usize)) {
        for (place, part) in parts(rows).into_iter().flatten() {
            let mut left = self.words[place] & part;
            while left != 0 {
                visit(place * 64 + left.trailing_zeros() as usize);
                left &= left - 1;
            }
        }
    }

    /// The bits as words: row `n` is bit `n % 64` of word `n / 64`; those past the end are zero.
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// The rows, ascending.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.words.iter().enumerate().flat_map(|(place, word)| {
            let lowest = Some(*word).filter(|word| *word != 0);
            let without_lowest = |word: &u64| Some(word & (word - 1)).filter(|word| *word != 0);
            std::iter::successors(lowest, without_lowest).map(move |word| place * 64 + word.trailing_zeros() as usize)
        })
    }
}

/// The words that a range touches, and which bits of each. `None` when it is empty.
fn parts(rows: std::ops::Range<usize>) -> Option<impl Iterator<Item = (usize, u64)>> {
    let (first, last) = (rows.start / 64, rows.end.checked_sub(1)? / 64);
    let from = u64::MAX << (rows.start % 64);
    let to = u64::MAX >> (63 - (rows.end - 1) % 64);
    let part = move |word| {
        let from = if word == first { from } else { u64::MAX };
        let to = if word == last { to } else { u64::MAX };
        (word, from & to)
    };
    (rows.start < rows.end).then(|| (first..=last).map(part))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_set_is_a_vector_of_bool(a in prop::collection::vec(any::<bool>(), 0..200), seed in any::<u64>()) {
            let b: Vec<bool> = (0..a.len()).map(|n| (seed >> (n % 64)) & 1 == 1).collect();
            let set = |bools: &[bool]| Bits::from_fn(bools.len(), |row| bools[row]);
            let rows = |bools: Vec<bool>| -> Vec<usize> { (0..bools.len()).filter(|row| bools[*row]).collect() };
            let mut both = set(&a);
            both.intersect(&set(&b));
            let mut either = set(&a);
            either.union(&set(&b));
            let zip = |join: fn(bool, bool) -> bool| a.iter().zip(&b).map(|(a, b)| join(*a, *b)).collect::<Vec<_>>();
            prop_assert_eq!(both.iter().collect::<Vec<_>>(), rows(zip(|a, b| a && b)));
            prop_assert_eq!(either.iter().collect::<Vec<_>>(), rows(zip(|a, b| a || b)));
            prop_assert_eq!(Bits::all(a.len()).iter().count(), a.len());
            let mut without = set(&a);
            without.subtract(&set(&b));
            prop_assert_eq!(without.iter().collect::<Vec<_>>(), rows(zip(|a, b| a && !b)));
            let mut inverted = set(&a);
            inverted.invert();
            prop_assert_eq!(inverted.iter().count() + set(&a).count(), a.len());
            let range = (seed as usize % (a.len() + 1))..a.len();
            prop_assert_eq!(set(&a).any_in(range.clone()), a[range].contains(&true));
            let range = 0..(seed as usize % (a.len() + 1));
            prop_assert_eq!(set(&a).any_in(range.clone()), a[range.clone()].contains(&true));
            prop_assert_eq!(set(&a).count_in(range.clone()), a[range.clone()].iter().filter(|is_in| **is_in).count());
            let mut visited = Vec::new();
            set(&a).for_each_in(range.clone(), |row| visited.push(row));
            prop_assert_eq!(visited, range.clone().filter(|row| a[*row]).collect::<Vec<_>>());
            let (first, word) = (range.end, u64::MAX.checked_shr(64 - (a.len() - range.end).min(64) as u32).unwrap_or(0) & seed);
            let mut with_word = set(&a);
            with_word.insert_word(first, word);
            let is_in = |row: usize| a[row] || (row >= first && row < first + 64 && word >> (row - first) & 1 == 1);
            prop_assert_eq!(with_word, Bits::from_fn(a.len(), is_in));
            let mut filled = Bits::none(a.len());
            filled.insert_range(range.clone());
            prop_assert_eq!(filled, Bits::from_fn(a.len(), |row| range.contains(&row)));
            prop_assert_eq!(&Bits::from_bytes(&set(&a).to_bytes()), &set(&a));
            prop_assert_eq!(both.is_empty(), both.iter().next().is_none());
            prop_assert!(a.iter().enumerate().all(|(row, is_in)| set(&a).contains(row) == *is_in));
        }
    }
}
