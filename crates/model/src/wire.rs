//! The protobuf wire format, read from slices: no allocation, no copies, every length checked.
//!
//! Source: <https://protobuf.dev/programming-guides/encoding/>. Groups (wire types 3 and 4), which
//! OTLP has never used, are refused.

/// Why bytes are not protobuf.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The bytes end inside a field.
    #[error("message ends inside a field")]
    Truncated,
    /// A varint runs past ten bytes.
    #[error("varint is longer than 10 bytes")]
    Varint,
    /// A wire type that protobuf 3 does not have, or field number 0.
    #[error("field {field} has wire type {wire_type}, which is not known")]
    WireType {
        /// The field number.
        field: u32,
        /// The type found.
        wire_type: u8,
    },
    /// A known field came with another wire type than its own.
    #[error("field {0} has the wrong wire type")]
    Mismatch(u32),
    /// Values nest deeper than [`crate::nested::DEPTH_MAX`].
    #[error("values nest deeper than {max} levels", max = crate::nested::DEPTH_MAX)]
    TooDeep,
    /// A field that must be text is not UTF-8.
    #[error("text is not valid UTF-8")]
    Utf8,
}

/// The content of one field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field<'a> {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 1.
    Fixed64(u64),
    /// Wire type 2: bytes, text, messages, packed lists.
    Bytes(&'a [u8]),
    /// Wire type 5.
    Fixed32(u32),
}

impl<'a> Field<'a> {
    /// The bytes of a length-delimited field; `number` is for the error.
    #[inline]
    pub fn bytes(self, number: u32) -> Result<&'a [u8], WireError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err(WireError::Mismatch(number)),
        }
    }

    /// The value of a varint field.
    #[inline]
    pub fn varint(self, number: u32) -> Result<u64, WireError> {
        match self {
            Self::Varint(value) => Ok(value),
            _ => Err(WireError::Mismatch(number)),
        }
    }

    /// The value of a fixed 64-bit field.
    #[inline]
    pub fn fixed64(self, number: u32) -> Result<u64, WireError> {
        match self {
            Self::Fixed64(value) => Ok(value),
            _ => Err(WireError::Mismatch(number)),
        }
    }

    /// The value of a fixed 32-bit field.
    #[inline]
    pub fn fixed32(self, number: u32) -> Result<u32, WireError> {
        match self {
            Self::Fixed32(value) => Ok(value),
            _ => Err(WireError::Mismatch(number)),
        }
    }

    /// The text of a string field.
    #[inline]
    pub fn text(self, number: u32) -> Result<&'a str, WireError> {
        std::str::from_utf8(self.bytes(number)?).map_err(|_| WireError::Utf8)
    }
}

/// Walks the fields of one message.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the first field of `message`.
    #[inline]
    pub fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    /// What has not been read yet.
    #[inline]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next field's number and content, or `None` at the end.
    #[inline(always)]
    pub fn next_field(&mut self) -> Result<Option<(u32, Field<'a>)>, WireError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number =
            u32::try_from(tag >> 3).map_err(|_| WireError::WireType { field: u32::MAX, wire_type: (tag & 7) as u8 })?;
        let field = match tag & 7 {
            0 => Field::Varint(self.varint()?),
            1 => Field::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| WireError::Truncated)?;
                let (bytes, rest) = self.rest.split_at_checked(length).ok_or(WireError::Truncated)?;
                self.rest = rest;
                Field::Bytes(bytes)
            }
            5 => Field::Fixed32(u32::from_le_bytes(self.array()?)),
            wire_type => return Err(WireError::WireType { field: number, wire_type: wire_type as u8 }),
        };
        if number == 0 {
            return Err(WireError::WireType { field: 0, wire_type: (tag & 7) as u8 });
        }
        Ok(Some((number, field)))
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (bytes, rest) = self.rest.split_first_chunk::<N>().ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(*bytes)
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, WireError> {
        match self.rest {
            [byte, rest @ ..] if *byte < 0x80 => {
                self.rest = rest;
                Ok(u64::from(*byte))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, WireError> {
        let mut value = 0u64;
        for place in 0..10 {
            let (byte, rest) = self.rest.split_first().ok_or(WireError::Truncated)?;
            self.rest = rest;
            value |= u64::from(byte & 0x7f) << (7 * place);
            if *byte < 0x80 {
                return Ok(value);
            }
        }
        Err(WireError::Varint)
    }
}

/// Appends a varint.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a field of wire type 0, unless it is zero (the proto3 default).
pub fn put_uint(out: &mut Vec<u8>, number: u32, value: u64) {
    if value != 0 {
        put_varint(out, u64::from(number) << 3);
        put_varint(out, value);
    }
}

/// Appends a field of wire type 1, unless it is zero.
pub fn put_fixed64(out: &mut Vec<u8>, number: u32, value: u64) {
    if value != 0 {
        put_varint(out, u64::from(number) << 3 | 1);
        out.extend_from_slice(&value.to_le_bytes());
    }
}

/// Appends a field of wire type 5, unless it is zero.
pub fn put_fixed32(out: &mut Vec<u8>, number: u32, value: u32) {
    if value != 0 {
        put_varint(out, u64::from(number) << 3 | 5);
        out.extend_from_slice(&value.to_le_bytes());
    }
}

/// Appends a length-delimited field, even when it is empty.
pub fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_varint(out, u64::from(number) << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a length-delimited field, unless it is empty (the proto3 default of text and bytes).
pub fn put_text(out: &mut Vec<u8>, number: u32, text: &[u8]) {
    if !text.is_empty() {
        put_bytes(out, number, text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_truncation_of_a_message_is_an_error_or_a_shorter_message() {
        let mut message = Vec::new();
        put_uint(&mut message, 1, 300);
        put_fixed64(&mut message, 2, 7);
        put_bytes(&mut message, 3, b"abc");
        put_fixed32(&mut message, 4, 9);
        for end in 0..=message.len() {
            let mut reader = Reader::new(&message[..end]);
            while let Ok(Some(_)) = reader.next_field() {}
        }
        let mut reader = Reader::new(&message);
        assert_eq!(reader.next_field(), Ok(Some((1, Field::Varint(300)))));
        assert_eq!(reader.next_field(), Ok(Some((2, Field::Fixed64(7)))));
        assert_eq!(reader.next_field(), Ok(Some((3, Field::Bytes(b"abc")))));
        assert_eq!(reader.next_field(), Ok(Some((4, Field::Fixed32(9)))));
        assert_eq!(reader.next_field(), Ok(None));
    }

    #[test]
    fn lengths_past_the_end_and_endless_varints_are_refused() {
        assert_eq!(Reader::new(&[0x0a, 0x7f, 1]).next_field(), Err(WireError::Truncated));
        assert_eq!(Reader::new(&[0xff; 11]).next_field(), Err(WireError::Varint));
        assert_eq!(Reader::new(&[0x0b]).next_field(), Err(WireError::WireType { field: 1, wire_type: 3 }));
    }
}
