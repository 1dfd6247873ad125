//! Lists within a span, taken apart only as far as is asked: events, links, attributes that fit no column.

use spoor_model::batch::{SpanBatch, SparseBytes};
use spoor_model::wire::Reader;
use spoor_model::{Value, nested};

/// The field of OTLP's `Event` that holds its attributes.
pub(super) const EVENT_ATTRIBUTES: u32 = 3;
/// The field of OTLP's `Link` that holds its attributes.
pub(super) const LINK_ATTRIBUTES: u32 = 4;

/// The messages in the `at`-th list.
pub(super) fn messages(lists: &SparseBytes, at: usize) -> impl Iterator<Item = &[u8]> {
    nested::split_list(lists.get_at(at)).unwrap_or_default().into_iter()
}

/// The first attribute of that name among the fields `number` of an event or link. What does not
/// decode was refused long before.
pub(super) fn attribute(item: &[u8], number: u32, key: &str) -> Option<Value> {
    let mut reader = Reader::new(item);
    while let Ok(Some((found, field))) = reader.next_field() {
        if found == number
            && let Ok(attribute) = field.bytes(number)
            && let Some(value) = value_of(attribute, key)
        {
            return Some(value);
        }
    }
    None
}

/// The value of an encoded attribute when it has that name. Of repeated fields the last counts, as in
/// [`nested::decode_key_value`].
fn value_of(attribute: &[u8], key: &str) -> Option<Value> {
    let (mut name, mut value): (&[u8], Option<&[u8]>) = (&[], None);
    let mut reader = Reader::new(attribute);
    while let Ok(Some((number, field))) = reader.next_field() {
        match number {
            1 => name = field.bytes(1).ok()?,
            2 => value = Some(field.bytes(2).ok()?),
            _ => {}
        }
    }
    let is_it = name == key.as_bytes();
    is_it.then(|| value.and_then(|value| nested::decode_value(value).ok()).unwrap_or_default())
}

/// The rows whose residual has an attribute of that name, ascending, and the first such value.
pub(super) fn residual<'a>(batch: &'a SpanBatch, key: &'a str) -> impl Iterator<Item = (u32, Value)> + 'a {
    let lists = batch.residual();
    lists.rows().iter().enumerate().filter_map(move |(at, row)| {
        messages(lists, at).find_map(|attribute| value_of(attribute, key)).map(|value| (*row, value))
    })
}
