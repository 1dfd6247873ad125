//! OTLP messages, written field by field.
//!
//! Lengths are computed before writing where that is cheap, because the load bench writes a million
//! spans; everything rare goes through `model::nested`.

use spoor_model::wire::{put_bytes, put_varint};

fn varint_length(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// Appends `KeyValue { key, value: AnyValue::string }` as field `number`.
pub fn text_attribute(out: &mut Vec<u8>, number: u32, key: &str, value: &str) {
    let any_length = 1 + varint_length(value.len() as u64) + value.len();
    attribute_head(out, number, key, any_length);
    put_bytes(out, 1, value.as_bytes());
}

/// Appends `KeyValue { key, value: AnyValue::int }` as field `number`.
pub fn int_attribute(out: &mut Vec<u8>, number: u32, key: &str, value: i64) {
    attribute_head(out, number, key, 1 + varint_length(value as u64));
    out.push(0x18);
    put_varint(out, value as u64);
}

/// Appends `KeyValue { key, value: AnyValue::bool }` as field `number`.
pub fn bool_attribute(out: &mut Vec<u8>, number: u32, key: &str, value: bool) {
    attribute_head(out, number, key, 2);
    out.extend_from_slice(&[0x10, u8::from(value)]);
}

/// Appends `KeyValue { key, value: AnyValue::double }` as field `number`.
pub fn double_attribute(out: &mut Vec<u8>, number: u32, key: &str, value: f64) {
    attribute_head(out, number, key, 9);
    out.push(0x21);
    out.extend_from_slice(&value.to_bits().to_le_bytes());
}

/// Everything up to the `AnyValue` of `any_length` bytes.
fn attribute_head(out: &mut Vec<u8>, number: u32, key: &str, any_length: usize) {
    let key_length = 1 + varint_length(key.len() as u64) + key.len();
    let value_length = 1 + varint_length(any_length as u64) + any_length;
    put_varint(out, u64::from(number) << 3 | 2);
    put_varint(out, (key_length + value_length) as u64);
    put_bytes(out, 1, key.as_bytes());
    out.push(0x12);
    put_varint(out, any_length as u64);
}

#[cfg(test)]
mod tests {
    use super::*;
    use spoor_model::nested::put_attributes;
    use spoor_model::{KeyValue, Value};

    #[test]
    fn attributes_are_written_as_the_nested_encoding_has_them() {
        let long = "x".repeat(300);
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        text_attribute(&mut ours, 9, "key", &long);
        text_attribute(&mut ours, 9, &long, "");
        int_attribute(&mut ours, 9, "n", -5);
        int_attribute(&mut ours, 9, "n", 128);
        bool_attribute(&mut ours, 9, "b", true);
        double_attribute(&mut ours, 9, "d", 0.5);
        let attributes = [
            KeyValue::new("key", Value::Str(long.clone())),
            KeyValue::new(long, Value::Str(String::new())),
            KeyValue::new("n", Value::Int(-5)),
            KeyValue::new("n", Value::Int(128)),
            KeyValue::new("b", Value::Bool(true)),
            KeyValue::new("d", Value::Double(0.5)),
        ];
        put_attributes(&mut theirs, 9, &attributes);
        assert_eq!(ours, theirs);
    }
}
