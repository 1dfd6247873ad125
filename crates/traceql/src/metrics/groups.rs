//! Groups: which series a span belongs to.

use std::borrow::Cow;
use std::sync::Arc;

use hashbrown::HashMap;

use super::series::label_value;
use crate::ast::Static;
use crate::engine::Coded;

/// The values of the labels of a group, as [`label_value`] makes them.
pub(super) type Key = Arc<[Static]>;

/// Stands for a code without a group yet.
const NONE: u32 = u32::MAX;
/// Below this many combinations of codes there is a table of them, however few the rows.
const TABLE_MIN: usize = 1 << 16;

/// The groups that were seen, numbered in the order in which they were.
#[derive(Debug, Clone)]
pub(super) struct Groups {
    keys: Vec<Key>,
    known: HashMap<Key, u32>,
    max: usize,
    has_overflowed: bool,
    text_bytes: usize,
}

impl Groups {
    /// No groups, and at most `max` of them, which is not zero.
    pub(super) fn new(max: usize) -> Self {
        Self { keys: Vec::new(), known: HashMap::new(), max, has_overflowed: false, text_bytes: 0 }
    }

    /// Whether there were more than may be: then what is counted means nothing.
    pub(super) fn has_overflowed(&self) -> bool {
        self.has_overflowed
    }

    /// Notes that another had too many.
    pub(super) fn overflow_like(&mut self, other: &Self) {
        self.has_overflowed |= other.has_overflowed;
    }

    pub(super) fn keys(&self) -> &[Key] {
        &self.keys
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// What they take of memory, about.
    pub(super) fn held_bytes(&self) -> usize {
        let key_bytes = self.keys.first().map_or(0, |key| size_of_val::<[Static]>(key) + 16);
        self.keys.capacity() * (size_of::<Key>() + key_bytes)
            + self.known.capacity() * (size_of::<(Key, u32)>() + 1)
            + self.text_bytes
    }

    /// The number of a group; that of another when there are too many.
    pub(super) fn number(&mut self, key: &Key) -> u32 {
        if let Some(number) = self.known.get(key) {
            return *number;
        }
        if self.keys.len() == self.max {
            self.has_overflowed = true;
            return 0;
        }
        let number = self.keys.len() as u32;
        let text = |value: &Static| if let Static::Str(text) = value { text.len() + 16 } else { 0 };
        self.text_bytes += key.iter().map(text).sum::<usize>();
        self.keys.push(Arc::clone(key));
        self.known.insert(Arc::clone(key), number);
        number
    }

    /// The group of each of some rows, by the codes of what is grouped by. A group is looked up once per
    /// combination of codes, and its number once per row.
    pub(super) fn numbers(&mut self, by: &[Coded], rows: &[u32]) -> Vec<u32> {
        let combined = combined(by, rows);
        let mut numbers = Vec::with_capacity(rows.len());
        let mut table = vec![NONE; combined.count];
        let mut lookup = |row: u32, code: u32| {
            let number = table[code as usize];
            if number != NONE {
                return number;
            }
            let number = self.number(&key(by, row));
            table[code as usize] = number;
            number
        };
        match &combined.codes {
            Codes::ByRow(codes) => numbers.extend(rows.iter().map(|row| lookup(*row, codes[*row as usize]))),
            Codes::Listed(codes) => {
                numbers.extend(rows.iter().zip(codes).map(|(row, code)| lookup(*row, *code)));
            }
        }
        numbers
    }
}

/// The labels of a row: where all are missing, the first says so.
fn key(by: &[Coded], row: u32) -> Key {
    let mut values: Vec<Static> =
        by.iter().map(|coded| label_value(&coded.values[coded.codes[row as usize] as usize])).collect();
    if values.iter().all(Static::is_nil) && !values.is_empty() {
        values[0] = Static::Str("nil".into());
    }
    values.into()
}

/// One code per combination of codes.
struct Combined<'a> {
    codes: Codes<'a>,
    /// Codes are below this.
    count: usize,
}

enum Codes<'a> {
    /// One per row of the batch.
    ByRow(&'a [u32]),
    /// One per row listed.
    Listed(Vec<u32>),
}

fn combined<'a>(by: &'a [Coded], rows: &[u32]) -> Combined<'a> {
    let Some((first, rest)) = by.split_first() else {
        return Combined { codes: Codes::Listed(vec![0; rows.len()]), count: 1 };
    };
    let mut count = first.values.len();
    if rest.is_empty() {
        return Combined { codes: Codes::ByRow(&first.codes), count };
    }
    let mut codes: Cow<'_, [u32]> = rows.iter().map(|row| first.codes[*row as usize]).collect();
    let table_max = TABLE_MIN.max(2 * rows.len());
    for next in rest {
        let radix = next.values.len();
        match count.saturating_mul(radix) {
            product if product <= table_max => {
                let pairs = codes.to_mut().iter_mut().zip(rows);
                pairs.for_each(|(code, row)| *code = *code * radix as u32 + next.codes[*row as usize]);
                count = product;
            }
            // Few of the many combinations occur: number those.
            _ => {
                let mut known: HashMap<(u32, u32), u32> = HashMap::new();
                for (code, row) in codes.to_mut().iter_mut().zip(rows) {
                    let fresh = known.len() as u32;
                    *code = *known.entry((*code, next.codes[*row as usize])).or_insert(fresh);
                }
                count = known.len();
            }
        }
    }
    Combined { codes: Codes::Listed(codes.into_owned()), count }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn coded(values: &[Static], codes: impl Iterator<Item = u32>) -> Coded {
        Coded { codes: codes.collect(), values: values.to_vec() }
    }

    #[test]
    fn rows_with_equal_values_share_a_group_across_batches() {
        let mut groups = Groups::new(10);
        let (a, b) = (Static::Str("a".into()), Static::Int(1));
        let first = [coded(&[a.clone(), Static::Nil], [0, 1, 0].into_iter())];
        assert_eq!(groups.numbers(&first, &[0, 1, 2]), vec![0, 1, 0]);
        let second = [coded(&[b, Static::Nil, a], [2, 1, 0].into_iter())];
        assert_eq!(groups.numbers(&second, &[0, 1, 2]), vec![0, 1, 2]);
        assert_eq!(groups.keys()[1][..], [Static::Str("nil".into())]);
    }

    #[test]
    fn combinations_are_numbered_whether_there_are_few_or_many() {
        for count in [3u32, 1000] {
            let values: Vec<Static> = (0..count).map(|value| Static::Int(i64::from(value))).collect();
            let rows: Vec<u32> = (0..2 * count).collect();
            let by: Vec<Coded> =
                (0..3).map(|shift| coded(&values, rows.iter().map(move |row| (row % count + shift) % count))).collect();
            let numbers = Groups::new(1000).numbers(&by, &rows);
            assert!((0..count as usize).all(|row| numbers[row] == numbers[row + count as usize]));
            assert_eq!(numbers.iter().max(), Some(&(count - 1)));
        }
    }

    #[test]
    fn too_many_groups_are_told() {
        let values: Vec<Static> = (0..3).map(Static::Int).collect();
        let by = [coded(&values, 0..3)];
        let mut groups = Groups::new(2);
        groups.numbers(&by, &[0, 1]);
        assert!(!groups.has_overflowed());
        groups.numbers(&by, &[0, 1, 2]);
        assert!(groups.has_overflowed());
    }
}
