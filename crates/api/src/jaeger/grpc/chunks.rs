//! Answers cut into messages: none mixes traces, none is empty, all stay below what gRPC clients take by default (4 MiB).

use bytes::Bytes;
use prost::Message;
use spoor_model::Trace;
use spoor_otlp::encode;

use crate::proto::EncodedMessage;
use crate::proto::otlp::TracesData;

/// Spans of one message of the query services: Jaeger's own number.
pub(super) const QUERY_SPANS_MAX: usize = 10;

/// Spans of one message to a Jaeger that reads its storage. At 400 bytes for a usual span a message has 0.4 MB.
pub(super) const STORAGE_SPANS_MAX: usize = 1_000;

/// Half of what clients take. A message of several spans that is larger is cut in two.
const MESSAGE_BYTES_MAX: usize = 2 << 20;

/// Items that travel together, in their order: at most so many, and half of what clients take unless one alone is larger.
pub(super) fn together<T: Message>(items: impl IntoIterator<Item = T>, items_max: usize) -> Vec<Vec<T>> {
    let mut all: Vec<Vec<T>> = Vec::new();
    let mut left_bytes = 0;
    for item in items {
        let bytes = item.encoded_len();
        match all.last_mut() {
            Some(last) if last.len() < items_max && bytes <= left_bytes => last.push(item),
            _ => {
                left_bytes = MESSAGE_BYTES_MAX;
                all.push(vec![item]);
            }
        }
        left_bytes = left_bytes.saturating_sub(bytes);
    }
    all
}

/// The messages of a trace, in its order.
pub(super) fn of_trace(trace: Trace, spans_max: usize) -> Vec<TracesData> {
    let mut messages = Vec::new();
    let mut pieces: Vec<Trace> = pieces(trace, spans_max);
    pieces.reverse();
    while let Some(mut piece) = pieces.pop() {
        let bytes = encode::traces_data(&piece);
        if bytes.len() > MESSAGE_BYTES_MAX && piece.entries.len() > 1 {
            let behind = piece.entries.split_off(piece.entries.len() / 2);
            pieces.push(Trace { id: piece.id, entries: behind });
            pieces.push(piece);
            continue;
        }
        messages.push(EncodedMessage(Bytes::from(bytes)));
    }
    messages
}

fn pieces(trace: Trace, spans_max: usize) -> Vec<Trace> {
    let id = trace.id;
    let mut entries = trace.entries.into_iter().peekable();
    let mut pieces = Vec::new();
    while entries.peek().is_some() {
        pieces.push(Trace { id, entries: entries.by_ref().take(spans_max).collect() });
    }
    pieces
}
