//! The spans of an OTLP message where they lie, for the little that an import looks at.

use spoor_model::wire::{Reader, WireError};
use spoor_model::{SpanId, TraceId, UnixNano};

/// `Span.trace_id`, `Span.span_id`, `Span.name` and `Span.end_time_unix_nano` of OTLP.
const TRACE_ID: u32 = 1;
const SPAN_ID: u32 = 2;
const NAME: u32 = 5;
const END: u32 = 8;

/// The messages of all spans of a `TracesData`, in its order.
pub(super) fn spans(data: &[u8]) -> Result<Vec<&[u8]>, WireError> {
    let mut spans = Vec::new();
    for resource_spans in messages(data, 1)? {
        for scope_spans in messages(resource_spans, 2)? {
            spans.extend(messages(scope_spans, 2)?);
        }
    }
    Ok(spans)
}

/// When a span ended; `None` when it does not say.
pub(super) fn end(span: &[u8]) -> Option<UnixNano> {
    let mut reader = Reader::new(span);
    let mut end = None;
    while let Ok(Some((number, field))) = reader.next_field() {
        if number == END {
            end = field.fixed64(number).ok().map(UnixNano);
        }
    }
    end
}

/// A span for people: its name and ids, as far as it has them.
pub(super) fn described(span: &[u8]) -> String {
    let mut reader = Reader::new(span);
    let (mut name, mut trace, mut id) = (String::new(), String::new(), String::new());
    while let Ok(Some((number, field))) = reader.next_field() {
        match number {
            TRACE_ID => trace = field.bytes(number).map(hex).unwrap_or_default(),
            SPAN_ID => id = field.bytes(number).map(hex).unwrap_or_default(),
            NAME => {
                name = field.bytes(number).map(|text| String::from_utf8_lossy(text).into_owned()).unwrap_or_default()
            }
            _ => {}
        }
    }
    format!("{name:?} (trace {}, span {})", or_none(&trace), or_none(&id))
}

fn hex(bytes: &[u8]) -> String {
    if let Ok(id) = <[u8; 16]>::try_from(bytes) {
        return TraceId(id).to_string();
    }
    match <[u8; 8]>::try_from(bytes) {
        Ok(id) => SpanId(id).to_string(),
        Err(_) => format!("of {} bytes", bytes.len()),
    }
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "without id" } else { text }
}

fn messages(data: &[u8], wanted: u32) -> Result<Vec<&[u8]>, WireError> {
    let (mut reader, mut found) = (Reader::new(data), Vec::new());
    while let Some((number, field)) = reader.next_field()? {
        if number == wanted {
            found.push(field.bytes(number)?);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_found_where_they_lie() {
        let ids = r#""traceId":"0000000000000000000000000000a0b1","spanId":"00000000000000c2""#;
        let span = |rest: &str| format!(r#"{{"scopeSpans":[{{"spans":[{{{rest}}}]}}]}}"#);
        let first = span(&format!(r#"{ids},"name":"GET","endTimeUnixNano":"7""#));
        let json = format!(r#"{{"resourceSpans":[{first},{}]}}"#, span(r#""name":"bare""#));
        let data = spoor_otlp::json::to_protobuf(json.as_bytes()).unwrap();
        let spans = spans(&data).unwrap();
        assert_eq!(spans.iter().map(|span| end(span)).collect::<Vec<_>>(), [Some(UnixNano(7)), None]);
        assert_eq!(described(spans[0]), r#""GET" (trace 0000000000000000000000000000a0b1, span 00000000000000c2)"#);
        assert_eq!(described(spans[1]), r#""bare" (trace without id, span without id)"#);
    }
}
