//! OTLP protobuf (`ExportTraceServiceRequest`) to columns, straight from the wire.
//!
//! ```text
//!   request      resource_spans 1 *
//!   ResourceSpans  resource 1, scope_spans 2 *, schema_url 3
//!   ScopeSpans       scope 1, spans 2 *, schema_url 3
//!   Span               trace_id 1, span_id 2, trace_state 3, parent_span_id 4, name 5, kind 6,
//!                      start 7, end 8, attributes 9 *, dropped 10, events 11 *, dropped 12,
//!                      links 13 *, dropped 14, status 15 {message 2, code 3}, flags 16
//! ```
//!
//! Source: `opentelemetry/proto/trace/v1/trace.proto`, v1.x. Fields unknown to it are skipped within
//! spans and kept within resources and scopes. Resource and schema URL may follow the spans on the
//! wire, so each level is scanned for them first; skipping a message costs one length.

use spoor_model::batch::{AttrValue, Dropped, SpanBatch, SpanFields};
use spoor_model::ingest::{Checked, Decode, RejectReason, Rejected};
use spoor_model::nested::DEPTH_MAX;
use spoor_model::wire::{Reader, WireError};
use spoor_model::{SpanId, TraceId, UnixNano};

/// Reads OTLP protobuf export requests. Stateless.
#[derive(Debug, Clone, Copy, Default)]
pub struct OtlpDecoder;

impl Decode for OtlpDecoder {
    fn check(&self, request: &[u8]) -> Result<Checked, WireError> {
        let mut checked = Checked::default();
        let mut span_index = 0;
        for_each_scope_spans(request, |group| {
            let is_origin_good = check_resource(group.resource).and_then(|()| check_scope(group.scope)).is_ok()
                && std::str::from_utf8(group.resource_schema_url).is_ok()
                && std::str::from_utf8(group.scope_schema_url).is_ok();
            for_each_field(group.scope_spans, 2, |span| {
                let verdict = match is_origin_good {
                    true => check_span(span),
                    false => Err(RejectReason::MalformedOrigin),
                };
                match verdict {
                    Ok(()) => checked.accepted_count += 1,
                    Err(reason) => checked.rejected.push(Rejected { span_index, reason }),
                }
                span_index += 1;
                Ok(())
            })
        })?;
        Ok(checked)
    }

    fn append(&self, request: &[u8], checked: &Checked, batch: &mut SpanBatch) {
        let before_count = batch.len();
        append_request(request, checked, batch).expect("the request passed check");
        let appended_count = batch.len() - before_count;
        assert_eq!(appended_count, checked.accepted_count as usize, "append and check disagree");
    }
}

/// One `ScopeSpans` and what its spans inherit; all borrowed from the request.
#[derive(Default)]
struct Group<'a> {
    resource: &'a [u8],
    resource_schema_url: &'a [u8],
    scope: &'a [u8],
    scope_schema_url: &'a [u8],
    scope_spans: &'a [u8],
}

/// Calls `each` for every length-delimited field `number` of `message`.
#[inline]
fn for_each_field<'a>(
    message: &'a [u8],
    number: u32,
    mut each: impl FnMut(&'a [u8]) -> Result<(), WireError>,
) -> Result<(), WireError> {
    let mut reader = Reader::new(message);
    while let Some((found, field)) = reader.next_field()? {
        if found == number {
            each(field.bytes(number)?)?;
        }
    }
    Ok(())
}

fn for_each_scope_spans<'a>(
    request: &'a [u8],
    mut each: impl FnMut(&Group<'a>) -> Result<(), WireError>,
) -> Result<(), WireError> {
    for_each_field(request, 1, |resource_spans| {
        let mut group = Group::default();
        (group.resource, group.resource_schema_url) = head_and_schema_url(resource_spans)?;
        for_each_field(resource_spans, 2, |scope_spans| {
            (group.scope, group.scope_schema_url) = head_and_schema_url(scope_spans)?;
            group.scope_spans = scope_spans;
            each(&group)
        })
    })
}

/// Fields 1 and 3 of `ResourceSpans` and `ScopeSpans` alike.
fn head_and_schema_url(message: &[u8]) -> Result<(&[u8], &[u8]), WireError> {
    let (mut head, mut schema_url): (&[u8], &[u8]) = (&[], &[]);
    let mut reader = Reader::new(message);
    while let Some((number, field)) = reader.next_field()? {
        match number {
            1 => head = field.bytes(1)?,
            3 => schema_url = field.bytes(3)?,
            _ => {}
        }
    }
    Ok((head, schema_url))
}

// ---- The first pass: look. ----

impl From<Fault> for RejectReason {
    fn from(fault: Fault) -> Self {
        fault.0
    }
}

/// A wire error inside a span condemns that span only.
struct Fault(RejectReason);

impl From<WireError> for Fault {
    fn from(err: WireError) -> Self {
        match err {
            WireError::Utf8 => Self(RejectReason::InvalidUtf8),
            _ => Self(RejectReason::Malformed),
        }
    }
}

fn check_span(span: &[u8]) -> Result<(), RejectReason> {
    check_span_fields(span).map_err(RejectReason::from)
}

fn check_span_fields(span: &[u8]) -> Result<(), Fault> {
    let (mut trace_id, mut span_id, mut parent_id): (&[u8], &[u8], &[u8]) = (&[], &[], &[]);
    let (mut start, mut end) = (0, 0);
    let mut reader = Reader::new(span);
    while let Some((number, field)) = reader.next_field()? {
        match number {
            1 => trace_id = field.bytes(1)?,
            2 => span_id = field.bytes(2)?,
            4 => parent_id = field.bytes(4)?,
            3 | 5 => check_text(field.bytes(number)?)?,
            7 => start = field.fixed64(7)?,
            8 => end = field.fixed64(8)?,
            9 => check_key_value(field.bytes(9)?, 0)?,
            11 => check_event(field.bytes(11)?)?,
            13 => check_link(field.bytes(13)?)?,
            15 => drop(read_status(field.bytes(15)?)?),
            6 | 10 | 12 | 14 => drop(field.varint(number)?),
            16 => drop(field.fixed32(16)?),
            _ => {}
        }
    }
    if trace_id.len() != 16 || trace_id.iter().all(|byte| *byte == 0) {
        return Err(Fault(RejectReason::InvalidTraceId));
    }
    if span_id.len() != 8 || span_id.iter().all(|byte| *byte == 0) {
        return Err(Fault(RejectReason::InvalidSpanId));
    }
    if !parent_id.is_empty() && parent_id.len() != 8 {
        return Err(Fault(RejectReason::InvalidParentSpanId));
    }
    if end < start {
        return Err(Fault(RejectReason::EndBeforeStart));
    }
    Ok(())
}

fn check_resource(resource: &[u8]) -> Result<(), WireError> {
    let mut reader = Reader::new(resource);
    while let Some((number, field)) = reader.next_field()? {
        match number {
            1 => check_key_value(field.bytes(1)?, 0)?,
            2 => drop(field.varint(2)?),
            _ => {}
        }
    }
    Ok(())
}

fn check_scope(scope: &[u8]) -> Result<(), WireError> {
    let mut reader = Reader::new(scope);
    while let Some((number, field)) = reader.next_field()? {
        match number {
            1 | 2 => drop(field.text(number)?),
            3 => check_key_value(field.bytes(3)?, 0)?,
            4 => drop(field.varint(4)?),
            _ => {}
        }
    }
    Ok(())
}

fn check_event(event: &[u8]) -> Result<(), WireError> {
    let mut reader = Reader::new(event);
    while let Some((number, field)) = reader.next_field()? {
        match number {
            1 => drop(field.fixed64(1)?),
            2 => drop(field.text(2)?),
            3 => check_key_value(field.bytes(3)?, 0)?,
            4 => drop(field.varint(4)?),
            _ => {}
        }
    }
    Ok(())
}

fn check_link(link: &[u8]) -> Result<(), WireError> {
    let mut reader = Reader::new(link);
    while let Some((number, field)) = reader.next_field()? {
        match number {
            1 if !matches!(field.bytes(1)?.len(), 0 | 16) => return Err(WireError::Mismatch(1)),
            2 if !matches!(field.bytes(2)?.len(), 0 | 8) => return Err(WireError::Mismatch(2)),
            3 => drop(field.text(3)?),
            4 => check_key_value(field.bytes(4)?, 0)?,
            5 => drop(field.varint(5)?),
            6 => drop(field.fixed32(6)?),
            _ => {}
        }
    }
    Ok(())
}

/// Takes `key 1, value 2` apart where both are short, in this order and nothing else is there, as every
/// SDK writes them: two bounds checks instead of a walk over fields, 40 % of the cost of a span.
#[inline]
fn short_key_value(attribute: &[u8]) -> Option<(&[u8], &[u8])> {
    let [0x0a, key_length @ 0..0x80, rest @ ..] = attribute else { return None };
    let (key, rest) = rest.split_at_checked(usize::from(*key_length))?;
    let [0x12, value_length @ 0..0x80, value @ ..] = rest else { return None };
    (value.len() == usize::from(*value_length)).then_some((key, value))
}

/// Takes an `AnyValue` apart that is a short text and nothing else.
#[inline]
fn short_text(value: &[u8]) -> Option<&[u8]> {
    let [0x0a, length @ 0..0x80, text @ ..] = value else { return None };
    (text.len() == usize::from(*length)).then_some(text)
}

/// Texts are nearly always short and ASCII, which is quicker to see than that they are UTF-8.
#[inline]
fn check_text(text: &[u8]) -> Result<(), WireError> {
    match text.is_ascii() || std::str::from_utf8(text).is_ok() {
        true => Ok(()),
        false => Err(WireError::Utf8),
    }
}

#[inline]
fn check_key_value(attribute: &[u8], depth: usize) -> Result<(), WireError> {
    if let Some((key, value)) = short_key_value(attribute) {
        check_text(key)?;
        return match short_text(value) {
            Some(text) => check_text(text),
            None => check_value(value, depth),
        };
    }
    let mut reader = Reader::new(attribute);
    while let Some((number, field)) = reader.next_field()? {
        match number {
            1 => drop(field.text(1)?),
            2 => check_value(field.bytes(2)?, depth)?,
            _ => {}
        }
    }
    Ok(())
}

#[inline]
fn check_value(value: &[u8], depth: usize) -> Result<(), WireError> {
    if depth > DEPTH_MAX {
        return Err(WireError::TooDeep);
    }
    let mut reader = Reader::new(value);
    while let Some((number, field)) = reader.next_field()? {
        match number {
            1 => drop(field.text(1)?),
            2 | 3 => drop(field.varint(number)?),
            4 => drop(field.fixed64(4)?),
            5 => for_each_field(field.bytes(5)?, 1, |value| check_value(value, depth + 1))?,
            6 => for_each_field(field.bytes(6)?, 1, |entry| check_key_value(entry, depth + 1))?,
            7 => drop(field.bytes(7)?),
            _ => {}
        }
    }
    Ok(())
}

// ---- The second pass: build columns. ----

fn append_request(request: &[u8], checked: &Checked, batch: &mut SpanBatch) -> Result<(), WireError> {
    let mut rejected = checked.rejected.iter().map(|rejected| rejected.span_index).peekable();
    let mut span_index = 0;
    for_each_scope_spans(request, |group| {
        // A group whose origin is malformed has only rejected spans: it is interned on first use.
        let mut origin = None;
        for_each_field(group.scope_spans, 2, |span| {
            let is_rejected = rejected.next_if_eq(&span_index).is_some();
            span_index += 1;
            if is_rejected {
                return Ok(());
            }
            let origin = match origin {
                Some(origin) => origin,
                None => *origin.insert(intern_origin(group, batch)?),
            };
            append_span(span, origin, batch)
        })
    })
}

fn intern_origin(group: &Group<'_>, batch: &mut SpanBatch) -> Result<u32, WireError> {
    let text = |bytes| std::str::from_utf8(bytes).map_err(|_| WireError::Utf8);
    batch.intern_origin(group.resource, group.scope, text(group.resource_schema_url)?, text(group.scope_schema_url)?)
}

/// 0.5 us per span of the load corpus (7 attributes); bench `decode`.
#[inline]
fn append_span(span: &[u8], origin: u32, batch: &mut SpanBatch) -> Result<(), WireError> {
    let mut fields = SpanFields { origin, ..SpanFields::default() };
    let mut dropped = Dropped::default();
    // A field may occur again, and its last occurrence counts (as in the check): only that one must be an id.
    let (mut trace_id, mut span_id, mut parent_id): (&[u8], &[u8], &[u8]) = (&[], &[], &[]);
    let mut reader = Reader::new(span);
    while let Some((number, field)) = reader.next_field()? {
        match number {
            1 => trace_id = field.bytes(1)?,
            2 => span_id = field.bytes(2)?,
            3 => fields.trace_state = field.bytes(3)?,
            4 => parent_id = field.bytes(4)?,
            5 => fields.name = field.bytes(5)?,
            6 => fields.kind = field.varint(6)? as i32,
            7 => fields.start = UnixNano(field.fixed64(7)?),
            8 => fields.end = UnixNano(field.fixed64(8)?),
            9 => {
                let (key, value) = read_attribute(field.bytes(9)?)?;
                batch.push_attribute(key, value);
            }
            10 => dropped.attributes = field.varint(10)? as u32,
            11 => batch.push_event(field.bytes(11)?),
            12 => dropped.events = field.varint(12)? as u32,
            13 => batch.push_link(field.bytes(13)?),
            14 => dropped.links = field.varint(14)? as u32,
            15 => (fields.status_message, fields.status_code) = read_status(field.bytes(15)?)?,
            16 => fields.flags = field.fixed32(16)?,
            _ => {}
        }
    }
    let trace_id = TraceId(id(trace_id, 1)?);
    let span_id = SpanId(id(span_id, 2)?);
    let parent_span_id = if parent_id.is_empty() { SpanId::default() } else { SpanId(id(parent_id, 4)?) };
    batch.push_span(SpanFields { trace_id, span_id, parent_span_id, dropped, ..fields });
    Ok(())
}

fn id<const N: usize>(bytes: &[u8], number: u32) -> Result<[u8; N], WireError> {
    bytes.try_into().map_err(|_| WireError::Mismatch(number))
}

fn read_status(status: &[u8]) -> Result<(&[u8], i32), WireError> {
    let (mut message, mut code): (&[u8], i32) = (&[], 0);
    let mut reader = Reader::new(status);
    while let Some((number, field)) = reader.next_field()? {
        match number {
            2 => message = field.text(2)?.as_bytes(),
            3 => code = field.varint(3)? as i32,
            _ => {}
        }
    }
    Ok((message, code))
}

#[inline]
fn read_attribute(attribute: &[u8]) -> Result<(&[u8], AttrValue<'_>), WireError> {
    if let Some((key, value)) = short_key_value(attribute) {
        return match short_text(value) {
            Some(text) => Ok((key, AttrValue::Str(text))),
            None => Ok((key, read_value(value)?)),
        };
    }
    let (mut key, mut value): (&[u8], AttrValue<'_>) = (&[], AttrValue::Encoded(&[]));
    let mut reader = Reader::new(attribute);
    while let Some((number, field)) = reader.next_field()? {
        match number {
            1 => key = field.bytes(1)?,
            2 => value = read_value(field.bytes(2)?)?,
            _ => {}
        }
    }
    Ok((key, value))
}

#[inline]
fn read_value(encoded: &[u8]) -> Result<AttrValue<'_>, WireError> {
    let mut value = AttrValue::Encoded(encoded);
    let mut reader = Reader::new(encoded);
    while let Some((number, field)) = reader.next_field()? {
        value = match number {
            1 => AttrValue::Str(field.bytes(1)?),
            2 => AttrValue::Bool(field.varint(2)? != 0),
            3 => AttrValue::Int(field.varint(3)? as i64),
            4 => AttrValue::Double(f64::from_bits(field.fixed64(4)?)),
            5..=7 => AttrValue::Encoded(encoded),
            _ => value,
        };
    }
    Ok(value)
}

#[cfg(test)]
pub(crate) mod tests;
