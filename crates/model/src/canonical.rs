//! One encoding for what means the same.
//!
//! Resources and scopes are told apart by their bytes, and a span that comes twice counts once only when they are equal. But
//! protobuf leaves room: a count of zero may be written or not, fields may stand in any order, and JSON has no bytes at all.
//! So they are brought into the form that OTLP's own libraries write: fields ascending, zeros left out. Fields that are
//! unknown here follow as they came; with such a field within an attribute, everything stays as it came.

use std::borrow::Cow;

use crate::nested::{decode_resource, decode_scope, put_attributes};
use crate::wire::{Reader, WireError, put_text, put_uint};

/// A `Resource` in its one encoding. Costs a pass over its attributes.
pub fn resource(encoded: &[u8]) -> Result<Cow<'_, [u8]>, WireError> {
    let resource = decode_resource(encoded)?;
    canonical(encoded, Fields { attributes: 1, last: 2 }, |out| {
        put_attributes(out, 1, &resource.attributes);
        put_uint(out, 2, u64::from(resource.dropped_attributes_count));
    })
}

/// An `InstrumentationScope` in its one encoding. Costs a pass over its attributes.
pub fn scope(encoded: &[u8]) -> Result<Cow<'_, [u8]>, WireError> {
    let scope = decode_scope(encoded)?;
    canonical(encoded, Fields { attributes: 3, last: 4 }, |out| {
        put_text(out, 1, scope.name.as_bytes());
        put_text(out, 2, scope.version.as_bytes());
        put_attributes(out, 3, &scope.attributes);
        put_uint(out, 4, u64::from(scope.dropped_attributes_count));
    })
}

/// Which fields of a message are known.
struct Fields {
    attributes: u32,
    last: u32,
}

fn canonical(encoded: &[u8], fields: Fields, put_known: impl FnOnce(&mut Vec<u8>)) -> Result<Cow<'_, [u8]>, WireError> {
    let mut unknown = Vec::new();
    let mut reader = Reader::new(encoded);
    loop {
        let before = reader.rest();
        let Some((number, field)) = reader.next_field()? else { break };
        if number == fields.attributes && !is_plain_attribute(field.bytes(number)?)? {
            return Ok(Cow::Borrowed(encoded));
        }
        if number > fields.last {
            unknown.extend_from_slice(&before[..before.len() - reader.rest().len()]);
        }
    }
    let mut out = Vec::with_capacity(encoded.len());
    put_known(&mut out);
    out.extend_from_slice(&unknown);
    Ok(if out == encoded { Cow::Borrowed(encoded) } else { Cow::Owned(out) })
}

/// Whether a `KeyValue` has no fields but those that decoding reads.
fn is_plain_attribute(encoded: &[u8]) -> Result<bool, WireError> {
    let mut reader = Reader::new(encoded);
    while let Some((number, field)) = reader.next_field()? {
        let is_plain = match number {
            1 => true,
            2 => is_plain_value(field.bytes(2)?)?,
            _ => false,
        };
        if !is_plain {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The same of an `AnyValue`, which decoding has found to be no deeper than it may be.
fn is_plain_value(encoded: &[u8]) -> Result<bool, WireError> {
    let mut reader = Reader::new(encoded);
    while let Some((number, field)) = reader.next_field()? {
        let of_items = match number {
            1..=4 | 7 => continue,
            5 => is_plain_value,
            6 => is_plain_attribute,
            _ => return Ok(false),
        };
        let mut items = Reader::new(field.bytes(number)?);
        while let Some((item, field)) = items.next_field()? {
            if item != 1 || !of_items(field.bytes(1)?)? {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nested::{put_key_value, put_message, put_value};
    use crate::wire::put_bytes;
    use crate::{KeyValue, Value};
    use proptest::prelude::*;

    fn attribute(out: &mut Vec<u8>, value: Value) {
        put_message(out, 1, |out| put_key_value(out, &KeyValue::new("k", value)));
    }

    #[test]
    fn what_means_the_same_has_the_same_bytes() {
        let mut want = Vec::new();
        attribute(&mut want, Value::Empty);
        attribute(&mut want, Value::Int(5));
        // No value at all, a count of zero, a long varint, and the fields in another order.
        let no_value = [0x0a, 3, 0x0a, 1, b'k'];
        let long = [0x0a, 8, 0x12, 3, 0x18, 0x85, 0, 0x0a, 1, b'k'];
        let sent = [&[0x10, 0][..], &no_value, &long].concat();
        assert_eq!(resource(&sent).unwrap(), want);
        assert!(matches!(resource(&want).unwrap(), Cow::Borrowed(_)));
        let entity = [0x1a, 2, 0x12, 0];
        assert_eq!(resource(&[&entity[..], &sent].concat()).unwrap(), [&want[..], &entity].concat());
    }

    #[test]
    fn what_is_unknown_within_an_attribute_stays_as_it_came() {
        let mut strange = vec![0x10, 0];
        put_message(&mut strange, 1, |out| {
            put_bytes(out, 1, b"k");
            put_message(out, 2, |out| {
                put_message(out, 5, |out| put_message(out, 1, |out| out.extend_from_slice(&[0x40, 1])))
            });
        });
        assert!(matches!(resource(&strange).unwrap(), Cow::Borrowed(_)));
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_twice_is_once(bytes in prop::collection::vec(any::<u8>(), 0..40), text in ".{0,4}") {
            let mut sent = bytes;
            put_message(&mut sent, 1, |out| put_message(out, 2, |out| put_value(out, &Value::Str(text))));
            if let Ok(once) = resource(&sent) {
                prop_assert_eq!(decode_resource(&once), decode_resource(&sent));
                prop_assert_eq!(resource(&once).unwrap(), &*once);
            }
            if let Ok(once) = scope(&sent) {
                prop_assert_eq!(decode_scope(&once), decode_scope(&sent));
                prop_assert_eq!(scope(&once).unwrap(), &*once);
            }
        }
    }
}
