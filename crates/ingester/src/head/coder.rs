//! One table for the values of several dictionaries.

use std::collections::HashMap;
use std::sync::Arc;

use hashbrown::HashTable;
use spoor_model::Value;
use xxhash_rust::xxh3::xxh3_64;

/// Gives values codes, equal texts and small numbers the same one.
pub(super) struct Coder {
    /// The first is no value.
    values: Vec<Option<Value>>,
    texts: HashTable<i32>,
    numbers: HashMap<i32, i32>,
}

impl Default for Coder {
    fn default() -> Self {
        Self { values: vec![None], texts: HashTable::new(), numbers: HashMap::new() }
    }
}

impl Coder {
    /// The code of a text, never 0.
    pub(super) fn text(&mut self, text: &[u8]) -> i32 {
        let Self { values, texts, .. } = self;
        let bytes_of =
            |code: &i32| values[*code as usize].as_ref().and_then(Value::as_str).unwrap_or_default().as_bytes();
        let hash = xxh3_64(text);
        if let Some(code) = texts.find(hash, |code| bytes_of(code) == text) {
            return *code;
        }
        let code = values.len() as i32;
        texts.insert_unique(hash, code, |code| xxh3_64(bytes_of(code)));
        values.push(Some(Value::Str(String::from_utf8_lossy(text).into_owned())));
        code
    }

    /// The code of an enumeration's number, never 0.
    pub(super) fn number(&mut self, number: i32) -> i32 {
        *self.numbers.entry(number).or_insert_with(|| {
            self.values.push(Some(Value::Int(i64::from(number))));
            self.values.len() as i32 - 1
        })
    }

    /// A code of the value, never 0; other values than texts may have several.
    pub(super) fn value(&mut self, value: &Value) -> i32 {
        match value {
            Value::Str(text) => self.text(text.as_bytes()),
            other => {
                self.values.push(Some(other.clone()));
                self.values.len() as i32 - 1
            }
        }
    }

    /// What the codes mean.
    pub(super) fn into_values(self) -> Arc<[Option<Value>]> {
        self.values.into()
    }
}
