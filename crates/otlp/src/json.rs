//! OTLP/JSON, rewritten as OTLP protobuf.
//!
//! The rules are those of protobuf's JSON mapping with OTLP's changes: ids are hex, enums may be
//! numbers. We read more than we must: both spellings of a name, enums by name, 64-bit numbers as
//! numbers or as text, base64 of both alphabets. `null` means absent; unknown fields are skipped.
//!
//! What is wrong with one span stays with that span: an id that is not hex, or of the wrong
//! length, and text that is not UTF-8 are passed on as they are, for [`crate::OtlpDecoder`] to
//! refuse alone. What is wrong with the JSON itself fails the request, with line and column.
//! Nesting is bounded by `serde_json` (128 levels).

mod schema;
pub mod write;

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use spoor_model::wire;

use schema::{Field, Kind, Message};

/// Why bytes are not an OTLP/JSON trace request. The text ends with line and column.
#[derive(Debug, thiserror::Error)]
#[error("not OTLP/JSON: {0}")]
pub struct JsonError(#[from] serde_json::Error);

impl JsonError {
    /// The line, counted from 1.
    pub fn line(&self) -> usize {
        self.0.line()
    }

    /// The column, counted from 1.
    pub fn column(&self) -> usize {
        self.0.column()
    }
}

/// Rewrites an `ExportTraceServiceRequest` in JSON as the same message in protobuf.
pub fn to_protobuf(json: &[u8]) -> Result<Vec<u8>, JsonError> {
    // Protobuf is about half as long as JSON.
    let mut out = Vec::with_capacity(json.len() / 2);
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    MessageSeed { message: &schema::REQUEST, out: &mut out }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(out)
}

/// Reads a JSON object as the fields of `message`, appended to `out`; `null` has none.
struct MessageSeed<'a> {
    message: &'static Message,
    out: &'a mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for MessageSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for MessageSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object ({})", self.message.name)
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(field) = map.next_key_seed(NameSeed(self.message))? {
            match field {
                Some(field) => {
                    map.next_value_seed(FieldSeed { field, is_explicit: self.message.is_oneof, out: self.out })?
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// Reads a field's name; `None` when the message has no such field.
struct NameSeed(&'static Message);

impl<'de> DeserializeSeed<'de> for NameSeed {
    type Value = Option<&'static Field>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for NameSeed {
    type Value = Option<&'static Field>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.field(name))
    }
}

/// Reads a field's value and appends the field to `out`, unless it is `null` or the default.
struct FieldSeed<'a> {
    field: &'static Field,
    /// Whether defaults are written too, because presence means something.
    is_explicit: bool,
    out: &'a mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for FieldSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for FieldSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let expected = match &self.field.kind {
            Kind::Text => "text",
            Kind::Id => "hex digits",
            Kind::Base64 => "base64",
            Kind::Bool => "true or false",
            Kind::Uint32 | Kind::Fixed32 => "a whole number of 32 bits without sign",
            Kind::Int64 => "a whole number of 64 bits, or one as text",
            Kind::Fixed64 => "a whole number of 64 bits without sign, or one as text",
            Kind::Double => "a number, or one as text, or \"NaN\", \"Infinity\", \"-Infinity\"",
            Kind::Enum(_) => "a number or a name of the enum",
            Kind::Message(message) => return write!(f, "{} as an object ({})", self.field.json_name, message.name),
            Kind::Texts => "a list of texts",
            Kind::Messages(message) => {
                return write!(f, "{} as a list of objects ({})", self.field.json_name, message.name);
            }
        };
        write!(f, "{} as {expected}", self.field.json_name)
    }

    fn visit_none<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.field.kind {
            Kind::Message(message) => {
                let at = open_message(self.out, self.field.number);
                MessageSeed { message, out: self.out }.deserialize(deserializer)?;
                close_message(self.out, at);
                Ok(())
            }
            Kind::Messages(_) | Kind::Texts => deserializer.deserialize_seq(ListVisitor(self)),
            // Not `deserialize_str`, which fails the request when the text is not UTF-8.
            Kind::Text | Kind::Id | Kind::Base64 => deserializer.deserialize_bytes(BytesVisitor(self)),
            _ => deserializer.deserialize_any(ScalarVisitor(self)),
        }
    }
}

/// Begins a message field whose length is not known yet; answers where the length will stand.
fn open_message(out: &mut Vec<u8>, number: u32) -> usize {
    wire::put_varint(out, u64::from(number) << 3 | 2);
    out.push(0);
    out.len() - 1
}

/// Writes the length of the message that began at `at`. Moving the content when the length takes
/// more than a byte keeps the whole request in one buffer.
fn close_message(out: &mut Vec<u8>, at: usize) {
    let mut length = Vec::with_capacity(5);
    wire::put_varint(&mut length, (out.len() - at - 1) as u64);
    out.splice(at..=at, length);
}

/// Reads the elements of a list field.
struct ListVisitor<'a>(FieldSeed<'a>);

impl<'de> Visitor<'de> for ListVisitor<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let FieldSeed { field, out, .. } = self.0;
        match field.kind {
            Kind::Messages(message) => {
                let mut end = out.len();
                let mut at = open_message(out, field.number);
                while list.next_element_seed(MessageSeed { message, out })?.is_some() {
                    close_message(out, at);
                    end = out.len();
                    at = open_message(out, field.number);
                }
                out.truncate(end);
            }
            _ => {
                while let Some(text) = list.next_element::<Cow<'de, str>>()? {
                    wire::put_bytes(out, field.number, text.as_bytes());
                }
            }
        }
        Ok(())
    }
}

/// Reads a field that is bytes in protobuf.
struct BytesVisitor<'a>(FieldSeed<'a>);

impl Visitor<'_> for BytesVisitor<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }

    fn visit_bytes<E: Error>(self, text: &[u8]) -> Result<(), E> {
        let FieldSeed { field, is_explicit, out } = self.0;
        let bytes = match field.kind {
            Kind::Id => Cow::Owned(id_bytes(text)),
            Kind::Base64 => Cow::Owned(
                base64_bytes(text)
                    .map_err(|reason| E::custom(format_args!("{} is not base64: {reason}", field.json_name)))?,
            ),
            _ => without_surrogates(text),
        };
        match is_explicit {
            true => wire::put_bytes(out, field.number, &bytes),
            false => wire::put_text(out, field.number, &bytes),
        }
        Ok(())
    }
}

/// The bytes of an id. What is not hex becomes one zero byte: no id has that length, so the span
/// is refused; empty would make a bad parent id look like no parent.
fn id_bytes(text: &[u8]) -> Vec<u8> {
    let digit = |character: u8| (character as char).to_digit(16).map(|digit| digit as u8);
    let (pairs, rest) = text.as_chunks::<2>();
    let bytes: Option<Vec<u8>> = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect();
    bytes.filter(|_| rest.is_empty()).unwrap_or_else(|| vec![0])
}

/// Reads base64 of the standard and of the URL alphabet, padded or not.
fn base64_bytes(text: &[u8]) -> Result<Vec<u8>, base64::DecodeError> {
    const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
    const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);
    let is_url_safe = text.iter().any(|character| matches!(character, b'-' | b'_'));
    if is_url_safe { URL_SAFE.decode(text) } else { STANDARD.decode(text) }
}

/// Replaces escapes such as `\ud83d` that are half of a pair by U+FFFD, as browsers do when they
/// encode text: cutting a text at a length limit leaves them. They arrive as three bytes (WTF-8),
/// and U+FFFD has three.
fn without_surrogates(text: &[u8]) -> Cow<'_, [u8]> {
    if std::str::from_utf8(text).is_ok() {
        return Cow::Borrowed(text);
    }
    let mut text = text.to_vec();
    for at in 0..text.len() {
        if let [0xed, 0xa0..=0xbf, 0x80..=0xbf, ..] = text[at..] {
            text[at..at + 3].copy_from_slice("\u{fffd}".as_bytes());
        }
    }
    Cow::Owned(text)
}

/// Reads a field that is a number in protobuf.
struct ScalarVisitor<'a>(FieldSeed<'a>);

impl ScalarVisitor<'_> {
    fn put_whole<E: Error>(self, value: i128) -> Result<(), E> {
        if matches!(self.0.field.kind, Kind::Double | Kind::Bool) {
            return self.put_double(value as f64);
        }
        let FieldSeed { field, is_explicit, out } = self.0;
        let number = field.number;
        let out_of_range = |_| E::custom(format_args!("{} is out of range: {value}", field.json_name));
        match field.kind {
            // A missing arm and a zero differ.
            Kind::Int64 if is_explicit && value == 0 => out.extend_from_slice(&[(number << 3) as u8, 0]),
            Kind::Int64 => wire::put_uint(out, number, i64::try_from(value).map_err(out_of_range)? as u64),
            Kind::Uint32 => wire::put_uint(out, number, u64::from(u32::try_from(value).map_err(out_of_range)?)),
            Kind::Enum(_) => wire::put_uint(out, number, i32::try_from(value).map_err(out_of_range)? as i64 as u64),
            Kind::Fixed32 => wire::put_fixed32(out, number, u32::try_from(value).map_err(out_of_range)?),
            Kind::Fixed64 => wire::put_fixed64(out, number, u64::try_from(value).map_err(out_of_range)?),
            _ => unreachable!("scalars only: {}", field.json_name),
        }
        Ok(())
    }

    fn put_double<E: Error>(self, value: f64) -> Result<(), E> {
        let field = self.0.field;
        match field.kind {
            // The only double of OTLP traces is an arm of `AnyValue`, so it is written even if zero.
            Kind::Double => {
                wire::put_varint(self.0.out, u64::from(field.number) << 3 | 1);
                self.0.out.extend_from_slice(&value.to_bits().to_le_bytes());
                Ok(())
            }
            Kind::Bool => Err(E::invalid_type(serde::de::Unexpected::Float(value), &self)),
            // 1e3 is a whole number; so is what a double of up to 2^64 can hold without a fraction.
            _ if value.fract() == 0.0 && value.abs() <= 18_446_744_073_709_551_616.0 => self.put_whole(value as i128),
            _ => Err(E::invalid_type(serde::de::Unexpected::Float(value), &self)),
        }
    }
}

impl Visitor<'_> for ScalarVisitor<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        match self.0.field.kind {
            // The only flag of OTLP traces is an arm of `AnyValue`, so `false` is written too.
            Kind::Bool => {
                self.0.out.extend_from_slice(&[(self.0.field.number << 3) as u8, u8::from(value)]);
                Ok(())
            }
            _ => Err(E::invalid_type(serde::de::Unexpected::Bool(value), &self)),
        }
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.put_whole(i128::from(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.put_whole(i128::from(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.put_double(value)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        let unexpected = |visitor: &Self| Err(E::invalid_value(serde::de::Unexpected::Str(text), visitor));
        match self.0.field.kind {
            Kind::Bool => return unexpected(&self),
            Kind::Double => {
                return match text {
                    "NaN" => self.put_double(f64::NAN),
                    "Infinity" => self.put_double(f64::INFINITY),
                    "-Infinity" => self.put_double(f64::NEG_INFINITY),
                    // Rust reads "inf" and "nan" too, which are not JSON's words.
                    _ if text.ends_with(|last: char| last.is_ascii_digit()) => match text.parse() {
                        Ok(value) => self.put_double(value),
                        Err(_) => unexpected(&self),
                    },
                    _ => unexpected(&self),
                };
            }
            Kind::Enum(names) => {
                if let Some(number) = names.iter().position(|name| *name == text) {
                    return self.put_whole(number as i128);
                }
            }
            _ => {}
        }
        match text.parse::<i128>() {
            Ok(value) => self.put_whole(value),
            Err(_) => unexpected(&self),
        }
    }
}

#[cfg(test)]
mod tests;
