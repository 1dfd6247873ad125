//! Large trace data as several requests.

use spoor_model::nested::put_message;
use spoor_model::wire::{Field, Reader, WireError, put_bytes};

/// Splits a `TracesData` (or export request) into messages of about `limit_bytes`, between spans: a span that is larger
/// makes a message of its own. Spans keep their resource, scope and schema URLs, and their order.
///
/// # Errors
/// When the bytes are not protobuf of that shape, down to where spans begin.
pub fn split(data: &[u8], limit_bytes: usize) -> Result<Vec<Vec<u8>>, WireError> {
    if data.len() <= limit_bytes {
        return Ok(if data.is_empty() { Vec::new() } else { vec![data.to_vec()] });
    }
    let mut parts = Parts { limit_bytes, done: Vec::new(), open: Vec::new() };
    for resource_spans in messages(data, 1)? {
        if resource_spans.len() <= limit_bytes {
            parts.add(resource_spans);
            continue;
        }
        let (scopes, around) = taken_apart(resource_spans, 2)?;
        for scope_spans in scopes {
            let (spans, scope) = taken_apart(scope_spans, 2)?;
            for chunk in chunks(&spans, limit_bytes) {
                let mut message = around.clone();
                put_message(&mut message, 2, |out| {
                    out.extend_from_slice(&scope);
                    chunk.iter().for_each(|span| put_bytes(out, 2, span));
                });
                parts.add(&message);
            }
        }
    }
    Ok(parts.finish())
}

/// Messages in the making.
struct Parts {
    limit_bytes: usize,
    done: Vec<Vec<u8>>,
    open: Vec<u8>,
}

impl Parts {
    fn add(&mut self, resource_spans: &[u8]) {
        if !self.open.is_empty() && self.open.len() + resource_spans.len() > self.limit_bytes {
            self.done.push(std::mem::take(&mut self.open));
        }
        put_bytes(&mut self.open, 1, resource_spans);
    }

    fn finish(mut self) -> Vec<Vec<u8>> {
        if !self.open.is_empty() {
            self.done.push(self.open);
        }
        self.done
    }
}

/// The messages in a repeated field; other fields are passed over.
fn messages(message: &[u8], wanted: u32) -> Result<Vec<&[u8]>, WireError> {
    let (mut reader, mut found) = (Reader::new(message), Vec::new());
    while let Some((number, field)) = reader.next_field()? {
        if number == wanted {
            found.push(field.bytes(number)?);
        }
    }
    Ok(found)
}

/// The messages in a repeated field, and all the other fields as they are.
fn taken_apart(message: &[u8], wanted: u32) -> Result<(Vec<&[u8]>, Vec<u8>), WireError> {
    let (mut reader, mut found, mut others) = (Reader::new(message), Vec::new(), Vec::new());
    loop {
        let from = reader.rest();
        let Some((number, field)) = reader.next_field()? else { return Ok((found, others)) };
        match field {
            Field::Bytes(bytes) if number == wanted => found.push(bytes),
            _ => others.extend_from_slice(&from[..from.len() - reader.rest().len()]),
        }
    }
}

/// Runs of items that together stay within the limit, or one that does not.
fn chunks<'a, 'b>(items: &'b [&'a [u8]], limit_bytes: usize) -> Vec<&'b [&'a [u8]]> {
    let (mut chunks, mut from, mut bytes) = (Vec::new(), 0, 0);
    for (at, item) in items.iter().enumerate() {
        if at > from && bytes + item.len() > limit_bytes {
            chunks.push(&items[from..at]);
            (from, bytes) = (at, 0);
        }
        bytes += item.len();
    }
    if from < items.len() {
        chunks.push(&items[from..]);
    }
    chunks
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;
    use spoor_model::batch::SpanBatch;
    use spoor_model::ingest::Decode;

    use super::*;
    use crate::OtlpDecoder;
    use crate::decode::tests::a_request;

    fn spans<'a>(messages: impl IntoIterator<Item = &'a Vec<u8>>) -> Vec<String> {
        let mut batch = SpanBatch::new();
        for message in messages {
            let checked = OtlpDecoder.check(message).unwrap();
            OtlpDecoder.append(message, &checked, &mut batch);
        }
        (0..batch.len() as u32).map(|row| format!("{:?}", batch.span(row))).collect()
    }

    proptest! {
        #[test]
        fn all_spans_come_once_in_order_and_no_part_is_needlessly_large(
            request in a_request(), limit in prop_oneof![1usize..400, 400usize..20_000],
        ) {
            let data = request.encode_to_vec();
            let parts = split(&data, limit).unwrap();
            prop_assert_eq!(spans(&parts), spans([&data]));
            let largest_span = request.resource_spans.iter().flat_map(|resource| &resource.scope_spans)
                .flat_map(|scope| &scope.spans).map(Message::encoded_len).max().unwrap_or(0);
            let around = request.resource_spans.iter().map(|resource| {
                let mut bare = resource.clone();
                bare.scope_spans.iter_mut().for_each(|scope| scope.spans.clear());
                bare.encoded_len()
            }).max().unwrap_or(0);
            for part in &parts {
                prop_assert!(part.len() <= limit.max(largest_span) + limit.min(largest_span) + around + 64, "{}", part.len());
            }
        }
    }
}
