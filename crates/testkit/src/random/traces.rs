//! Small random sets of traces.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use spoor_model::{Event, KeyValue, Link, Origin, Span, SpanEntry, SpanId, Status, TraceId, UnixNano, Value};

use crate::build;
use crate::traceql_corpus::T0;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;
/// Traces of a set.
const TRACES_MAX: usize = 4;
/// Spans of a trace, copies aside.
const SPANS_MAX: usize = 6;
const SERVER: i32 = 2;
const CLIENT: i32 = 3;

/// Spans of up to four traces in any order, some of them twice.
pub fn entries() -> impl Strategy<Value = Vec<SpanEntry>> {
    let traces = vec(vec(span(), 1..=SPANS_MAX), 1..=TRACES_MAX);
    traces.prop_map(|traces| {
        let mut entries = Vec::new();
        for (index, spans) in traces.into_iter().enumerate() {
            entries.extend(assembled(trace_id(index), spans));
        }
        share_origins(&mut entries);
        entries
    })
}

/// A span before it has a place in its trace.
#[derive(Debug, Clone)]
struct Draft {
    entry: SpanEntry,
    parent: Parent,
    twin: Twin,
    is_copied: bool,
}

#[derive(Debug, Clone)]
enum Parent {
    None,
    /// A span that stands before it in the trace.
    Earlier(usize),
    /// The span after it, or none; a cycle when that one names this one.
    Next,
    Itself,
    Missing,
}

#[derive(Debug, Clone)]
enum Twin {
    No,
    /// It shares the id of the span before it: client and server of a call.
    Call,
    /// It shares the id of the span before it without a reason.
    Clash,
}

fn trace_id(index: usize) -> TraceId {
    let mut id = [0; 16];
    // Every other id begins with zeros.
    id[if index.is_multiple_of(2) { 15 } else { 0 }] = index as u8 + 1;
    TraceId(id)
}

fn span_id(number: usize) -> SpanId {
    SpanId((number as u64).to_be_bytes())
}

fn assembled(trace: TraceId, drafts: Vec<Draft>) -> Vec<SpanEntry> {
    let mut entries: Vec<SpanEntry> = Vec::new();
    let mut copies = Vec::new();
    for (index, draft) in drafts.into_iter().enumerate() {
        let Draft { mut entry, parent, twin, is_copied } = draft;
        entry.span.trace_id = trace;
        entry.span.span_id = span_id(index + 1);
        entry.span.parent_span_id = match parent {
            Parent::Earlier(pick) if index > 0 => entries[pick % index].span.span_id,
            Parent::None | Parent::Earlier(_) => SpanId::default(),
            Parent::Next => span_id(index + 2),
            Parent::Itself => span_id(index + 1),
            Parent::Missing => span_id(99),
        };
        if let Some(before) = entries.last_mut() {
            match twin {
                Twin::No => {}
                Twin::Clash => entry.span.span_id = before.span.span_id,
                Twin::Call => {
                    entry.span.span_id = before.span.span_id;
                    entry.span.parent_span_id = before.span.parent_span_id;
                    (before.span.kind, entry.span.kind) = (CLIENT, SERVER);
                }
            }
        }
        copies.extend(is_copied.then_some(index));
        entries.push(entry);
    }
    // Copies are made at the end: a call changes the span before it.
    entries.extend(copies.into_iter().map(|index| entries[index].clone()).collect::<Vec<_>>());
    entries
}

/// Spans of one origin share it, as they do in a request.
fn share_origins(entries: &mut [SpanEntry]) {
    let mut origins: Vec<Arc<Origin>> = Vec::new();
    for entry in entries {
        match origins.iter().find(|origin| **origin == entry.origin) {
            Some(origin) => entry.origin = Arc::clone(origin),
            None => origins.push(Arc::clone(&entry.origin)),
        }
    }
}

fn span() -> impl Strategy<Value = Draft> {
    let parent = prop_oneof![
        3 => Just(Parent::None),
        12 => (0..SPANS_MAX).prop_map(Parent::Earlier),
        1 => Just(Parent::Next),
        1 => Just(Parent::Itself),
        1 => Just(Parent::Missing),
    ];
    let twin = prop_oneof![28 => Just(Twin::No), 2 => Just(Twin::Call), 1 => Just(Twin::Clash)];
    let times =
        (select(vec![0, MS, SECOND, 10 * SECOND, 15 * SECOND, 16 * SECOND, 30 * SECOND, 59 * SECOND]), duration());
    let is_copied = prop_oneof![9 => Just(false), 1 => Just(true)];
    let status = (0..=2, select(vec!["", "", "boom"]));
    let states = ["", "", "", "ot=th:8", "x=1,ot=th:c", "ot=th:55555555555555", "ot=rv:60000000000000;th:5"];
    let parts = (attributes(&["k0", "k1", "k2", "m0"]), vec(event(), 0..3), vec(link(), 0..2));
    (
        origin(),
        parent,
        twin,
        times,
        is_copied,
        select(vec!["a", "b", "GET /x"]),
        0..=5,
        status,
        select(states.to_vec()),
        parts,
    )
        .prop_map(
            |(
                origin,
                parent,
                twin,
                (at, lasts),
                is_copied,
                name,
                kind,
                (code, message),
                state,
                (attributes, events, links),
            )| {
                let start = T0 + at;
                let mut span = Span {
                    name: name.to_owned(),
                    kind,
                    trace_state: state.to_owned(),
                    start: UnixNano(start),
                    end: UnixNano(start + lasts),
                    status: Status { code, message: message.to_owned() },
                    attributes,
                    events,
                    links,
                    ..Span::default()
                };
                span.events.iter_mut().for_each(|event| event.time.0 += start);
                let entry = SpanEntry { origin: Arc::new(origin), span };
                Draft { entry, parent, twin, is_copied }
            },
        )
}

fn duration() -> impl Strategy<Value = u64> {
    select(vec![0, 1, MS, 10 * MS, SECOND, 2 * SECOND, 3 * SECOND])
}

fn origin() -> impl Strategy<Value = Origin> {
    let service = prop_oneof![
        1 => Just(None),
        4 => select(vec!["shop", "db"]).prop_map(|name| Some(Value::Str(name.to_owned()))),
        1 => Just(Some(Value::Int(7))),
    ];
    let scope = (select(vec!["", "lib"]), select(vec!["", "1.0"]), attributes(&["k2"]));
    (service, attributes(&["k0", "k1"]), scope).prop_map(|(service, rest, (name, version, scope))| {
        let service = service.map(|value| KeyValue::new("service.name", value));
        let resource: Vec<KeyValue> = service.into_iter().chain(rest).collect();
        build::origin(&resource, name, version, &scope)
    })
}

/// With its time relative to the span's start.
fn event() -> impl Strategy<Value = Event> {
    (select(vec!["exception", "log"]), duration(), attributes(&["k1", "e0"])).prop_map(|(name, at, attributes)| Event {
        time: UnixNano(at),
        name: name.to_owned(),
        attributes,
        ..Event::default()
    })
}

fn link() -> impl Strategy<Value = Link> {
    let child_of = KeyValue::new("opentracing.ref_type", Value::Str("child_of".into()));
    let ref_type = prop_oneof![3 => Just(None), 1 => Just(Some(child_of))];
    (0..TRACES_MAX, 1..=SPANS_MAX, attributes(&["k1"]), ref_type).prop_map(|(trace, span, rest, ref_type)| Link {
        trace_id: trace_id(trace),
        span_id: span_id(span),
        attributes: rest.into_iter().chain(ref_type).collect(),
        ..Link::default()
    })
}

/// Each of the keys, or not. Only `m0` is a map or bytes.
fn attributes(keys: &'static [&'static str]) -> impl Strategy<Value = Vec<KeyValue>> {
    let one = |key: &&'static str| {
        let key = *key;
        let some = if key == "m0" { opaque().boxed() } else { value().boxed() };
        prop_oneof![1 => Just(None), 1 => some.prop_map(move |value| Some(KeyValue::new(key, value)))].boxed()
    };
    let each: Vec<BoxedStrategy<Option<KeyValue>>> = keys.iter().map(one).collect();
    each.prop_map(|attributes| attributes.into_iter().flatten().collect())
}

fn value() -> impl Strategy<Value = Value> {
    let text = |text: &str| Value::Str(text.to_owned());
    let scalars = [
        text("x"),
        text("y"),
        text("10"),
        Value::Int(1),
        Value::Int(5),
        Value::Int(0),
        Value::Int(-3),
        Value::Double(0.5),
        Value::Double(5.0),
        Value::Bool(true),
        Value::Bool(false),
    ];
    let arrays = [
        vec![Value::Int(1), Value::Int(5)],
        vec![text("x"), text("y")],
        vec![Value::Bool(true), Value::Bool(false)],
        vec![Value::Double(0.5), Value::Double(2.5)],
        vec![Value::Int(5)],
        vec![],
        vec![Value::Int(1), text("x")],
        vec![Value::Array(vec![Value::Int(1)]), Value::Array(vec![])],
    ];
    prop_oneof![6 => select(scalars.to_vec()), 1 => select(arrays.map(Value::Array).to_vec())]
}

fn opaque() -> impl Strategy<Value = Value> {
    let map = Value::Map(vec![KeyValue::new("x", Value::Int(1))]);
    select(vec![map, Value::Bytes(vec![1, 2]), Value::Int(1)])
}
