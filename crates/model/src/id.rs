//! Identifiers: of traces, spans, tenants and blocks.

use std::fmt;
use std::sync::Arc;

/// A trace id: 16 bytes, big-endian, never all zero for a stored span.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TraceId(pub [u8; 16]);

/// A span id: 8 bytes, big-endian, never all zero for a stored span.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SpanId(pub [u8; 8]);

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text is empty or longer than the id.
    #[error("id has {got} hex digits, expected 1 to {max}")]
    Length {
        /// Digits found.
        got: usize,
        /// Digits allowed.
        max: usize,
    },
    /// A character is not a hex digit. `position` counts from 1.
    #[error("id has the character {character:?} at position {position}, expected a hex digit")]
    Digit {
        /// The offending character.
        character: char,
        /// Its place, counted from 1.
        position: usize,
    },
}

/// Reads 1 to `2 * N` hex digits of any case, padded with zeros on the left.
fn parse_hex<const N: usize>(text: &str) -> Result<[u8; N], IdError> {
    let bad = text.chars().enumerate().find(|(_, c)| !c.is_ascii_hexdigit());
    if let Some((at, character)) = bad {
        return Err(IdError::Digit { character, position: at + 1 });
    }
    if text.is_empty() || text.len() > 2 * N {
        return Err(IdError::Length { got: text.len(), max: 2 * N });
    }
    let mut bytes = [0u8; N];
    for (place, digit) in text.bytes().rev().enumerate() {
        let nibble = (digit as char).to_digit(16).expect("checked above") as u8;
        bytes[N - 1 - place / 2] |= nibble << (4 * (place % 2));
    }
    Ok(bytes)
}

fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

impl TraceId {
    /// Reads 1 to 32 hex digits of any case; short ids are padded with zeros on the left.
    pub fn from_hex(text: &str) -> Result<Self, IdError> {
        parse_hex(text).map(Self)
    }

    /// Whether every byte is zero, which no stored span has.
    pub fn is_zero(&self) -> bool {
        self.0 == [0; 16]
    }

    /// The hash by which heads and blocks index traces: XXH3-64 of the 16 bytes, seed 0.
    pub fn hash64(&self) -> u64 {
        xxhash_rust::xxh3::xxh3_64(&self.0)
    }

    /// The low half of [`Self::hash64`]: what blocks store of each trace's id in their index.
    pub fn fingerprint(&self) -> u32 {
        self.hash64() as u32
    }
}

impl SpanId {
    /// Reads 1 to 16 hex digits of any case; short ids are padded with zeros on the left.
    pub fn from_hex(text: &str) -> Result<Self, IdError> {
        parse_hex(text).map(Self)
    }

    /// Whether every byte is zero, which as a parent id means "no parent".
    pub fn is_zero(&self) -> bool {
        self.0 == [0; 8]
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

/// Whose spans these are. The first parameter of everything that stores or reads.
///
/// Letters, digits and `! - _ . * ' ( )`, 1 to 150 bytes, not `.` or `..`: the rule that Tempo,
/// Mimir and Loki share, so that a tenant name is also a safe directory name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantId(Arc<str>);

/// Why a text is not a tenant. The words are those that clients of Tempo test for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TenantError {
    /// The text is empty.
    #[error("no org id")]
    Empty,
    /// The text is over 150 bytes.
    #[error("tenant ID is too long: {0} bytes, at most {max}", max = TenantId::LENGTH_MAX)]
    TooLong(usize),
    /// The text would be a path component with a meaning.
    #[error("tenant ID is '.' or '..'")]
    Dots,
    /// A character outside the allowed set.
    #[error("tenant ID {0:?} contains unsupported character {1:?}")]
    Character(String, char),
}

impl TenantId {
    /// The longest tenant name, in bytes.
    pub const LENGTH_MAX: usize = 150;

    /// The tenant of everything while multitenancy is off.
    pub fn single() -> Self {
        Self(Arc::from("single-tenant"))
    }

    /// Checks the rule above.
    pub fn parse(text: &str) -> Result<Self, TenantError> {
        if text.is_empty() {
            return Err(TenantError::Empty);
        }
        if text.len() > Self::LENGTH_MAX {
            return Err(TenantError::TooLong(text.len()));
        }
        if text == "." || text == ".." {
            return Err(TenantError::Dots);
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || "!-_.*'()".contains(c);
        match text.chars().find(|c| !allowed(*c)) {
            Some(character) => Err(TenantError::Character(text.to_owned(), character)),
            None => Ok(Self(Arc::from(text))),
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &self.0)
    }
}

/// The name of a block: 128 bits, 48 of milliseconds and 80 of entropy, written as 26 characters of
/// Crockford's base 32 (the ULID form), so that names sort by the time of their making.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId(pub u128);

impl BlockId {
    const ALPHABET: &'static [u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

    /// A new name from the time of making and 80 bits of entropy (the rest is ignored).
    pub fn from_parts(made_at: crate::UnixNano, entropy: u128) -> Self {
        let ms = u128::from(made_at.0 / 1_000_000) & ((1 << 48) - 1);
        Self(ms << 80 | entropy & ((1 << 80) - 1))
    }

    /// Reads the 26 characters that [`fmt::Display`] writes; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 26 || text.as_bytes()[0] > b'7' {
            return None;
        }
        text.bytes()
            .try_fold(0u128, |id, c| {
                let digit = Self::ALPHABET.iter().position(|a| *a == c)?;
                Some(id << 5 | digit as u128)
            })
            .map(Self)
    }
}

impl fmt::Display for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (0..26).rev().try_for_each(|place| {
            let digit = (self.0 >> (5 * place)) as usize & 31;
            write!(f, "{}", Self::ALPHABET[digit] as char)
        })
    }
}

impl fmt::Debug for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::UnixNano;

    #[test]
    fn short_and_odd_trace_ids_are_padded_on_the_left() {
        assert_eq!(TraceId::from_hex("a0b1").map(|id| id.to_string()), Ok("0000000000000000000000000000a0b1".into()));
        assert_eq!(TraceId::from_hex("ABC").map(|id| id.to_string()), Ok("00000000000000000000000000000abc".into()));
    }

    #[test]
    fn bad_trace_ids_name_the_character_and_its_place() {
        assert_eq!(TraceId::from_hex("12x4"), Err(IdError::Digit { character: 'x', position: 3 }));
        assert_eq!(TraceId::from_hex(&"1".repeat(33)), Err(IdError::Length { got: 33, max: 32 }));
        assert_eq!(TraceId::from_hex(""), Err(IdError::Length { got: 0, max: 32 }));
    }

    #[test]
    fn tenants_follow_the_shared_rule() {
        assert!(TenantId::parse("team-a_(1).x*'!").is_ok());
        assert_eq!(TenantId::parse("a|b"), Err(TenantError::Character("a|b".into(), '|')));
        assert_eq!(TenantId::parse(".."), Err(TenantError::Dots));
        assert_eq!(TenantId::parse(&"a".repeat(151)), Err(TenantError::TooLong(151)));
        assert_eq!(TenantId::parse(""), Err(TenantError::Empty));
    }

    #[test]
    fn block_ids_sort_by_time_and_survive_their_text() {
        let early = BlockId::from_parts(UnixNano(1_000_000_000), u128::MAX);
        let late = BlockId::from_parts(UnixNano(1_001_000_000), 0);
        assert!(early < late && early.to_string() < late.to_string());
        assert_eq!(BlockId::parse(&late.to_string()), Some(late));
        assert_eq!(BlockId::parse("not a block"), None);
    }
}
