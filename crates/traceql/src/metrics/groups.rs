//! Groups: which combination of `by()` values a row has, as one small number.

use hashbrown::HashMap;
use spoor_model::bits::Bits;

use crate::ast::Static;
use crate::engine::{Coded, Frame, Operand};

/// Combinations of codes are numbered directly as long as there are at most this many of them: a table of
/// them, four bytes each, stays in cache. More are numbered as they occur.
const DIRECT_MAX: usize = 1 << 16;

/// The combinations of values that have occurred.
#[derive(Debug, Clone, Default)]
pub(super) struct Groups {
    keys: Vec<Vec<Static>>,
    number_of: HashMap<Vec<Static>, u32>,
    text_bytes: usize,
}

impl Groups {
    /// The number of a combination; a new one when it has not occurred yet.
    pub(super) fn number(&mut self, key: Vec<Static>) -> u32 {
        if let Some(number) = self.number_of.get(&key) {
            return *number;
        }
        let number = self.keys.len() as u32;
        self.text_bytes += key.iter().map(static_bytes).sum::<usize>();
        self.number_of.insert(key.clone(), number);
        self.keys.push(key);
        number
    }

    /// The combinations by number.
    pub(super) fn keys(&self) -> &[Vec<Static>] {
        &self.keys
    }

    /// The numbers that another's combinations have here.
    pub(super) fn join(&mut self, other: &Self) -> Vec<u32> {
        other.keys.iter().map(|key| self.number(key.clone())).collect()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        // Each key stands in the list and in the map, which share its texts.
        self.text_bytes + self.keys.len() * 2 * (size_of::<Vec<Static>>() + 16)
    }
}

/// What a value holds.
pub(super) fn static_bytes(value: &Static) -> usize {
    let text_bytes = match value {
        Static::Str(text) => text.len() + 16,
        Static::Array(values) => values.iter().map(static_bytes).sum(),
        _ => 0,
    };
    2 * size_of::<Static>() + text_bytes
}

/// The groups of a batch's rows.
pub(super) struct RowGroups {
    /// By row; empty when all rows are of one group.
    codes: Vec<u32>,
    columns: Vec<Combined>,
    /// By code: the group's number, [`UNSEEN`] until a row asks.
    numbers: Vec<u32>,
}

/// How the codes of one more column were combined with those before.
struct Combined {
    values: Vec<Static>,
    /// `None`: code = before * number of values + own. Otherwise (before, own) by code.
    pairs: Option<Vec<(u32, u32)>>,
}

const UNSEEN: u32 = u32::MAX;

impl RowGroups {
    /// Works out codes for the rows of a batch; rows that are not `among` those asked for may have any.
    pub(super) fn new(by: &[Operand], frame: &Frame<'_>, among: &Bits) -> Self {
        let mut groups = Self { codes: Vec::new(), columns: Vec::new(), numbers: vec![UNSEEN] };
        for operand in by {
            groups.combine(operand.coded(frame, among), among);
        }
        groups
    }

    fn combine(&mut self, coded: Coded, among: &Bits) {
        let (before, own) = (self.numbers.len(), coded.values.len().max(1));
        if self.columns.is_empty() {
            self.numbers = vec![UNSEEN; own];
            self.codes = coded.codes;
            self.columns.push(Combined { values: coded.values, pairs: None });
            return;
        }
        if before * own <= DIRECT_MAX {
            self.numbers = vec![UNSEEN; before * own];
            self.codes.iter_mut().zip(&coded.codes).for_each(|(code, other)| *code = *code * own as u32 + other);
            self.columns.push(Combined { values: coded.values, pairs: None });
            return;
        }
        let mut pairs = Vec::new();
        let mut code_of: HashMap<(u32, u32), u32> = HashMap::new();
        for row in among.iter() {
            let pair = (self.codes[row], coded.codes[row]);
            self.codes[row] = *code_of.entry(pair).or_insert_with(|| {
                pairs.push(pair);
                pairs.len() as u32 - 1
            });
        }
        self.numbers = vec![UNSEEN; pairs.len()];
        self.columns.push(Combined { values: coded.values, pairs: Some(pairs) });
    }

    /// The number of a row's group.
    #[inline]
    pub(super) fn of_row(&mut self, row: usize, groups: &mut Groups) -> u32 {
        let code = self.codes.get(row).map_or(0, |code| *code as usize);
        match self.numbers[code] {
            UNSEEN => {
                let number = groups.number(self.key(code as u32));
                self.numbers[code] = number;
                number
            }
            number => number,
        }
    }

    fn key(&self, mut code: u32) -> Vec<Static> {
        let mut key = Vec::with_capacity(self.columns.len());
        for (place, column) in self.columns.iter().enumerate().rev() {
            let own = match &column.pairs {
                Some(pairs) => {
                    let (before, own) = pairs[code as usize];
                    code = before;
                    own
                }
                None if place == 0 => code,
                None => {
                    let count = column.values.len().max(1) as u32;
                    let own = code % count;
                    code /= count;
                    own
                }
            };
            key.push(column.values.get(own as usize).cloned().unwrap_or(Static::Nil));
        }
        key.reverse();
        key
    }
}
