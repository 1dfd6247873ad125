//! An answer in protobuf, cut into messages.
//!
//! Every answer of Tempo's is a list (field 1: traces, names, values, series), its metrics (field 2), and perhaps a status with its reason.
//!
//! ```text
//!   1 1 1 1 1 1 2 3 4   ->   1 1 1 2    1 1 1 2 3 4
//! ```
//!
//! Metrics are in each message, the status in the last. An element is never cut, but for the scopes of names.

use bytes::Bytes;
use spoor_model::wire::{Field, Reader, put_bytes};

use crate::proto::EncodedMessage;

/// What Tempo cuts at, too. Grafana takes 4 MiB.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// Bytes of names of one piece of a scope.
const SCOPE_BYTES_MAX: usize = MESSAGE_BYTES_MAX / 4;

/// The answer in messages of at most a mebibyte, if no element is larger. At least one; nothing is copied if it is one.
pub(super) fn cut(answer: Vec<u8>) -> Vec<EncodedMessage> {
    if answer.len() <= MESSAGE_BYTES_MAX {
        return vec![EncodedMessage(Bytes::from(answer))];
    }
    let (elements, others): (Vec<_>, Vec<_>) = fields(&answer).partition(|field| field.number == 1);
    let (metrics, last): (Vec<_>, Vec<_>) = others.into_iter().partition(|field| field.number == 2);
    let room = MESSAGE_BYTES_MAX.saturating_sub(metrics.iter().chain(&last).map(|field| field.whole.len()).sum());
    let (mut messages, mut message) = (Vec::new(), Vec::new());
    for element in elements {
        if !message.is_empty() && message.len() + element.whole.len() > room {
            metrics.iter().for_each(|field| message.extend_from_slice(field.whole));
            messages.push(EncodedMessage(Bytes::from(std::mem::take(&mut message))));
        }
        message.extend_from_slice(element.whole);
    }
    metrics.iter().chain(&last).for_each(|field| message.extend_from_slice(field.whole));
    messages.push(EncodedMessage(Bytes::from(message)));
    messages
}

/// [`cut`], of names by scope: a scope is cut, too, and each of its pieces bears its name.
pub(super) fn cut_scopes(answer: Vec<u8>) -> Vec<EncodedMessage> {
    if answer.len() <= MESSAGE_BYTES_MAX {
        return cut(answer);
    }
    let mut in_pieces = Vec::new();
    for field in fields(&answer) {
        match field.number {
            1 => pieces(field.content, &mut in_pieces),
            _ => in_pieces.extend_from_slice(field.whole),
        }
    }
    cut(in_pieces)
}

fn pieces(scope: &[u8], out: &mut Vec<u8>) {
    let (names, tags): (Vec<_>, Vec<_>) = fields(scope).partition(|field| field.number == 1);
    let name: Vec<u8> = names.iter().flat_map(|field| field.whole).copied().collect();
    let mut piece = name.clone();
    for tag in tags {
        if piece.len() > name.len() && piece.len() + tag.whole.len() > SCOPE_BYTES_MAX {
            put_bytes(out, 1, &piece);
            piece.clone_from(&name);
        }
        piece.extend_from_slice(tag.whole);
    }
    put_bytes(out, 1, &piece);
}

/// A field of a message of ours.
struct Part<'a> {
    number: u32,
    /// With its tag and length.
    whole: &'a [u8],
    /// Empty for numbers.
    content: &'a [u8],
}

fn fields(message: &[u8]) -> impl Iterator<Item = Part<'_>> {
    let mut reader = Reader::new(message);
    std::iter::from_fn(move || {
        let before = reader.rest();
        let (number, field) = reader.next_field().expect("we have just written it")?;
        let whole = &before[..before.len() - reader.rest().len()];
        let content = if let Field::Bytes(bytes) = field { bytes } else { &[] };
        Some(Part { number, whole, content })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use spoor_model::wire::put_uint;

    use super::*;

    fn contents(message: &[u8], number: u32) -> Vec<Vec<u8>> {
        fields(message).filter(|field| field.number == number).map(|field| field.content.to_vec()).collect()
    }

    fn together(messages: &[EncodedMessage], number: u32) -> Vec<Vec<u8>> {
        messages.iter().flat_map(|message| contents(&message.0, number)).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn the_pieces_of_an_answer_are_the_answer(sizes in prop::collection::vec(0..400_000_usize, 0..20)) {
            let mut answer = Vec::new();
            let elements: Vec<Vec<u8>> = sizes.iter().enumerate().map(|(at, size)| vec![at as u8; *size]).collect();
            elements.iter().for_each(|element| put_bytes(&mut answer, 1, element));
            put_bytes(&mut answer, 2, b"metrics");
            put_uint(&mut answer, 3, 1);
            put_bytes(&mut answer, 4, b"why");
            let messages = cut(answer);
            prop_assert!(messages.iter().all(|message| message.0.len() <= MESSAGE_BYTES_MAX));
            prop_assert_eq!(together(&messages, 1), elements);
            prop_assert_eq!(together(&messages, 2), vec![b"metrics".to_vec(); messages.len()]);
            let with_reason: Vec<bool> = messages.iter().map(|message| !contents(&message.0, 4).is_empty()).collect();
            prop_assert_eq!(with_reason.iter().position(|has| *has), Some(messages.len() - 1));
            let total: usize = sizes.iter().sum();
            prop_assert!(messages.len() <= 1 + 2 * total / (MESSAGE_BYTES_MAX - 400_000), "not more than are needed");
        }

        #[test]
        fn the_pieces_of_scopes_bear_their_name(counts in prop::collection::vec(0..40_000_usize, 1..4)) {
            let (mut answer, mut expected) = (Vec::new(), Vec::new());
            for (place, count) in counts.iter().enumerate() {
                let name = format!("scope-{place}").into_bytes();
                let mut scope = Vec::new();
                put_bytes(&mut scope, 1, &name);
                for tag in 0..*count {
                    let tag = format!("an.attribute.with.a.long.name.{tag}").into_bytes();
                    put_bytes(&mut scope, 2, &tag);
                    expected.push((name.clone(), tag));
                }
                put_bytes(&mut answer, 1, &scope);
            }
            let messages = cut_scopes(answer);
            prop_assert!(messages.iter().all(|message| message.0.len() <= MESSAGE_BYTES_MAX));
            let scopes = together(&messages, 1);
            let found = scopes.iter().flat_map(|scope| {
                let name = contents(scope, 1).remove(0);
                contents(scope, 2).into_iter().map(move |tag| (name.clone(), tag))
            });
            prop_assert_eq!(found.collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn an_element_that_is_too_large_stays_whole() {
        let mut answer = Vec::new();
        for size in [10, 3 << 20, 10] {
            put_bytes(&mut answer, 1, &vec![7; size]);
        }
        let sizes: Vec<usize> = together(&cut(answer), 1).iter().map(Vec::len).collect();
        assert_eq!(sizes, [10, 3 << 20, 10]);
    }
}
