//! The nested encoding: attribute values, events and links in the bytes in which OTLP sends them.
//!
//! Arrays, maps, events and links are rare, deep and never compared column by column, so the write
//! path copies their bytes and only readers take them apart. The encoding is OTLP's protobuf
//! (`opentelemetry/proto/common/v1/common.proto` and `trace/v1/trace.proto`, v1.x):
//!
//! ```text
//!   AnyValue  string 1 | bool 2 | int 3 | double 4 | array 5 {values 1} | kvlist 6 {values 1} | bytes 7
//!   KeyValue  key 1, value 2
//!   Event     time_unix_nano 1, name 2, attributes 3, dropped_attributes_count 4
//!   Link      trace_id 1, span_id 2, trace_state 3, attributes 4, dropped_attributes_count 5, flags 6
//!   EntityRef schema_url 1, type 2, id_keys 3, description_keys 4
//! ```
//!
//! Lists (of events, links, residual attributes) are `length varint, message` repeated.

use crate::span::{EntityRef, Event, Link, Resource, Scope};
use crate::value::{KeyValue, Value};
use crate::wire::{self, Reader, WireError};
use crate::{SpanId, TraceId, UnixNano};

/// How deep values may nest. OTLP sets no bound; the protobuf libraries stop at 100 messages, and
/// one level of value is two messages, so whatever they can send fits.
pub const DEPTH_MAX: usize = 50;

/// Reads an `AnyValue`. Errors when it is not one or nests deeper than [`DEPTH_MAX`].
pub fn decode_value(bytes: &[u8]) -> Result<Value, WireError> {
    decode_value_at(bytes, 0)
}

fn decode_value_at(bytes: &[u8], depth: usize) -> Result<Value, WireError> {
    if depth > DEPTH_MAX {
        return Err(WireError::TooDeep);
    }
    let mut value = Value::Empty;
    let mut reader = Reader::new(bytes);
    while let Some((number, field)) = reader.next_field()? {
        value = match number {
            1 => Value::Str(field.text(1)?.to_owned()),
            2 => Value::Bool(field.varint(2)? != 0),
            3 => Value::Int(field.varint(3)? as i64),
            4 => Value::Double(f64::from_bits(field.fixed64(4)?)),
            5 => Value::Array(decode_array(field.bytes(5)?, depth)?),
            6 => Value::Map(decode_map(field.bytes(6)?, depth)?),
            7 => Value::Bytes(field.bytes(7)?.to_vec()),
            _ => value,
        };
    }
    Ok(value)
}

fn decode_array(bytes: &[u8], depth: usize) -> Result<Vec<Value>, WireError> {
    let mut values = Vec::new();
    let mut reader = Reader::new(bytes);
    while let Some((number, field)) = reader.next_field()? {
        if number == 1 {
            values.push(decode_value_at(field.bytes(1)?, depth + 1)?);
        }
    }
    Ok(values)
}

fn decode_map(bytes: &[u8], depth: usize) -> Result<Vec<KeyValue>, WireError> {
    let mut entries = Vec::new();
    let mut reader = Reader::new(bytes);
    while let Some((number, field)) = reader.next_field()? {
        if number == 1 {
            entries.push(decode_key_value_at(field.bytes(1)?, depth + 1)?);
        }
    }
    Ok(entries)
}

/// Reads a `KeyValue`. A missing value is [`Value::Empty`].
pub fn decode_key_value(bytes: &[u8]) -> Result<KeyValue, WireError> {
    decode_key_value_at(bytes, 0)
}

fn decode_key_value_at(bytes: &[u8], depth: usize) -> Result<KeyValue, WireError> {
    let mut out = KeyValue::new("", Value::Empty);
    let mut reader = Reader::new(bytes);
    while let Some((number, field)) = reader.next_field()? {
        match number {
            1 => out.key = field.text(1)?.to_owned(),
            2 => out.value = decode_value_at(field.bytes(2)?, depth)?,
            _ => {}
        }
    }
    Ok(out)
}

/// Reads an `Event`.
pub fn decode_event(bytes: &[u8]) -> Result<Event, WireError> {
    let mut event = Event::default();
    let mut reader = Reader::new(bytes);
    while let Some((number, field)) = reader.next_field()? {
        match number {
            1 => event.time = UnixNano(field.fixed64(1)?),
            2 => event.name = field.text(2)?.to_owned(),
            3 => event.attributes.push(decode_key_value(field.bytes(3)?)?),
            4 => event.dropped_attributes_count = field.varint(4)? as u32,
            _ => {}
        }
    }
    Ok(event)
}

/// Reads a `Link`. Ids of the wrong length are an error: a link to nowhere is not a link.
pub fn decode_link(bytes: &[u8]) -> Result<Link, WireError> {
    let mut link = Link::default();
    let mut reader = Reader::new(bytes);
    while let Some((number, field)) = reader.next_field()? {
        match number {
            1 => link.trace_id = TraceId(id_bytes(field.bytes(1)?, 1)?),
            2 => link.span_id = SpanId(id_bytes(field.bytes(2)?, 2)?),
            3 => link.trace_state = field.text(3)?.to_owned(),
            4 => link.attributes.push(decode_key_value(field.bytes(4)?)?),
            5 => link.dropped_attributes_count = field.varint(5)? as u32,
            6 => link.flags = field.fixed32(6)?,
            _ => {}
        }
    }
    Ok(link)
}

/// An id of exactly `N` bytes, or all zero when the field is empty.
fn id_bytes<const N: usize>(bytes: &[u8], number: u32) -> Result<[u8; N], WireError> {
    match bytes.len() {
        0 => Ok([0; N]),
        _ => bytes.try_into().map_err(|_| WireError::Mismatch(number)),
    }
}

/// Reads a `Resource`.
pub fn decode_resource(bytes: &[u8]) -> Result<Resource, WireError> {
    let mut resource = Resource::default();
    let mut reader = Reader::new(bytes);
    while let Some((number, field)) = reader.next_field()? {
        match number {
            1 => resource.attributes.push(decode_key_value(field.bytes(1)?)?),
            2 => resource.dropped_attributes_count = field.varint(2)? as u32,
            // What is none is no reason to refuse spans, and older versions let it in.
            3 => resource.entity_refs.extend(field.bytes(3).and_then(decode_entity_ref).ok()),
            _ => {}
        }
    }
    Ok(resource)
}

fn decode_entity_ref(bytes: &[u8]) -> Result<EntityRef, WireError> {
    let mut entity = EntityRef::default();
    let mut reader = Reader::new(bytes);
    while let Some((number, field)) = reader.next_field()? {
        match number {
            1 => entity.schema_url = field.text(1)?.to_owned(),
            2 => entity.kind = field.text(2)?.to_owned(),
            3 => entity.id_keys.push(field.text(3)?.to_owned()),
            4 => entity.description_keys.push(field.text(4)?.to_owned()),
            _ => {}
        }
    }
    Ok(entity)
}

/// Reads an `InstrumentationScope`.
pub fn decode_scope(bytes: &[u8]) -> Result<Scope, WireError> {
    let mut scope = Scope::default();
    let mut reader = Reader::new(bytes);
    while let Some((number, field)) = reader.next_field()? {
        match number {
            1 => scope.name = field.text(1)?.to_owned(),
            2 => scope.version = field.text(2)?.to_owned(),
            3 => scope.attributes.push(decode_key_value(field.bytes(3)?)?),
            4 => scope.dropped_attributes_count = field.varint(4)? as u32,
            _ => {}
        }
    }
    Ok(scope)
}

/// Splits a list (`length varint, message` repeated) into its messages.
pub fn split_list(mut list: &[u8]) -> Result<Vec<&[u8]>, WireError> {
    let mut messages = Vec::new();
    while !list.is_empty() {
        let mut length = 0usize;
        let mut shift = 0;
        loop {
            let (byte, rest) = list.split_first().ok_or(WireError::Truncated)?;
            list = rest;
            length |= usize::from(byte & 0x7f).checked_shl(shift).ok_or(WireError::Varint)?;
            shift += 7;
            if *byte < 0x80 {
                break;
            }
        }
        let (message, rest) = list.split_at_checked(length).ok_or(WireError::Truncated)?;
        messages.push(message);
        list = rest;
    }
    Ok(messages)
}

/// Appends one message to a list.
pub fn put_list_item(list: &mut Vec<u8>, message: &[u8]) {
    wire::put_varint(list, message.len() as u64);
    list.extend_from_slice(message);
}

/// Appends the fields of an `AnyValue`. The chosen arm is always written, even when it is zero.
pub fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Empty => {}
        Value::Str(text) => wire::put_bytes(out, 1, text.as_bytes()),
        Value::Bool(flag) => out.extend_from_slice(&[0x10, u8::from(*flag)]),
        Value::Int(int) => {
            out.push(0x18);
            wire::put_varint(out, *int as u64);
        }
        Value::Double(double) => {
            out.push(0x21);
            out.extend_from_slice(&double.to_bits().to_le_bytes());
        }
        Value::Bytes(bytes) => wire::put_bytes(out, 7, bytes),
        Value::Array(values) => {
            let mut inner = Vec::new();
            for value in values {
                put_message(&mut inner, 1, |out| put_value(out, value));
            }
            wire::put_bytes(out, 5, &inner);
        }
        Value::Map(entries) => {
            let mut inner = Vec::new();
            put_attributes(&mut inner, 1, entries);
            wire::put_bytes(out, 6, &inner);
        }
    }
}

/// Appends a sub-message whose fields `write` writes.
pub fn put_message(out: &mut Vec<u8>, number: u32, write: impl FnOnce(&mut Vec<u8>)) {
    let mut message = Vec::new();
    write(&mut message);
    wire::put_bytes(out, number, &message);
}

/// Appends the fields of a `KeyValue`.
pub fn put_key_value(out: &mut Vec<u8>, attribute: &KeyValue) {
    wire::put_text(out, 1, attribute.key.as_bytes());
    put_message(out, 2, |out| put_value(out, &attribute.value));
}

/// Appends attributes as repeated field `number`.
pub fn put_attributes(out: &mut Vec<u8>, number: u32, attributes: &[KeyValue]) {
    for attribute in attributes {
        put_message(out, number, |out| put_key_value(out, attribute));
    }
}

/// Appends the fields of an `Event`.
pub fn put_event(out: &mut Vec<u8>, event: &Event) {
    wire::put_fixed64(out, 1, event.time.0);
    wire::put_text(out, 2, event.name.as_bytes());
    put_attributes(out, 3, &event.attributes);
    wire::put_uint(out, 4, u64::from(event.dropped_attributes_count));
}

/// Appends the fields of a `Link`.
pub fn put_link(out: &mut Vec<u8>, link: &Link) {
    wire::put_bytes(out, 1, &link.trace_id.0);
    wire::put_bytes(out, 2, &link.span_id.0);
    wire::put_text(out, 3, link.trace_state.as_bytes());
    put_attributes(out, 4, &link.attributes);
    wire::put_uint(out, 5, u64::from(link.dropped_attributes_count));
    wire::put_fixed32(out, 6, link.flags);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Empty),
            ".{0,12}".prop_map(Value::Str),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Int),
            any::<u64>().prop_map(|bits| Value::Double(f64::from_bits(bits))),
            proptest::collection::vec(any::<u8>(), 0..9).prop_map(Value::Bytes),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
                proptest::collection::vec((".{0,5}", inner), 0..4).prop_map(|entries| Value::Map(
                    entries.into_iter().map(|(key, value)| KeyValue { key, value }).collect()
                )),
            ]
        })
    }

    proptest! {
        #[test]
        fn values_survive_their_encoding(value in value()) {
            let mut bytes = Vec::new();
            put_value(&mut bytes, &value);
            prop_assert_eq!(decode_value(&bytes), Ok(value));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = decode_value(&bytes);
            let _ = decode_event(&bytes);
            let _ = decode_link(&bytes);
            let _ = split_list(&bytes);
        }
    }

    #[test]
    fn values_nested_too_deeply_are_refused_without_recursing_further() {
        let mut bytes = Vec::new();
        for _ in 0..200 {
            let inner = bytes.clone();
            bytes.clear();
            put_message(&mut bytes, 5, |out| wire::put_bytes(out, 1, &inner));
        }
        assert_eq!(decode_value(&bytes), Err(WireError::TooDeep));
    }
}
