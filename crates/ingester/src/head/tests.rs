use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use proptest::prelude::*;
use spoor_model::batch::{AttrValue, Dropped, SpanFields};
use spoor_model::memory::MemoryBudget;
use spoor_model::scan::{AttrScope, Condition, Literal, Predicate, Test};
use spoor_model::{Event, KeyValue, Link, Span, SpanId, Status, UnixNano, Value, nested, wire};

use super::*;

/// A span and its resource and scope attributes, as small as can be and yet with every field in play.
#[derive(Debug, Clone)]
struct Row {
    span: Span,
    resource: Vec<KeyValue>,
    scope_name: String,
    scope: Vec<KeyValue>,
}

fn push(batch: &mut SpanBatch, row: &Row) {
    let Row { span, resource, scope_name, scope } = row;
    let mut resource_bytes = Vec::new();
    nested::put_attributes(&mut resource_bytes, 1, resource);
    let mut scope_bytes = Vec::new();
    wire::put_text(&mut scope_bytes, 1, scope_name.as_bytes());
    nested::put_attributes(&mut scope_bytes, 3, scope);
    let origin = batch.intern_origin(&resource_bytes, &scope_bytes, "", "").unwrap();
    for KeyValue { key, value } in &span.attributes {
        let mut encoded = Vec::new();
        nested::put_value(&mut encoded, value);
        let value = match value {
            Value::Str(text) => AttrValue::Str(text.as_bytes()),
            Value::Int(int) => AttrValue::Int(*int),
            Value::Double(double) => AttrValue::Double(*double),
            Value::Bool(flag) => AttrValue::Bool(*flag),
            _ => AttrValue::Encoded(&encoded),
        };
        batch.push_attribute(key.as_bytes(), value);
    }
    for event in &span.events {
        let mut encoded = Vec::new();
        nested::put_event(&mut encoded, event);
        batch.push_event(&encoded);
    }
    for link in &span.links {
        let mut encoded = Vec::new();
        nested::put_link(&mut encoded, link);
        batch.push_link(&encoded);
    }
    batch.push_span(SpanFields {
        trace_id: span.trace_id,
        span_id: span.span_id,
        parent_span_id: span.parent_span_id,
        start: span.start,
        end: span.end,
        kind: span.kind,
        status_code: span.status.code,
        flags: span.flags,
        origin,
        name: span.name.as_bytes(),
        status_message: span.status.message.as_bytes(),
        trace_state: span.trace_state.as_bytes(),
        dropped: Dropped::default(),
    });
}

/// Few distinct values, so that conditions meet them.
fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        prop::sample::select(vec!["", "a", "b", "200"]).prop_map(|text| Value::Str(text.to_owned())),
        (0i64..3).prop_map(Value::Int),
        prop::sample::select(vec![0.5, 1.0, f64::NAN]).prop_map(Value::Double),
        any::<bool>().prop_map(Value::Bool),
        prop::collection::vec((0i64..3).prop_map(Value::Int), 0..3).prop_map(Value::Array),
        Just(Value::Empty),
    ]
}

fn key() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["x", "y", "service.name"]).prop_map(str::to_owned)
}

fn attributes() -> impl Strategy<Value = Vec<KeyValue>> {
    prop::collection::vec((key(), value()).prop_map(|(key, value)| KeyValue { key, value }), 0..4)
}

fn text() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["", "a", "b"]).prop_map(str::to_owned)
}

fn row() -> impl Strategy<Value = Row> {
    let events = (text(), attributes()).prop_map(|(name, attributes)| Event { name, attributes, ..Event::default() });
    let links = attributes().prop_map(|attributes| Link { attributes, ..Link::default() });
    let lists = (prop::collection::vec(events, 0..3), prop::collection::vec(links, 0..2));
    let ids = (1u8..4, 1u8..4, 0u8..3);
    let fixed = (text(), 0i32..3, 0i32..3, text(), 0u64..50, 0u64..3);
    (ids, fixed, attributes(), lists, attributes(), text(), attributes()).prop_map(
        |(ids, fixed, attributes, (events, links), resource, scope_name, scope)| {
            let (trace, id, parent) = ids;
            let (name, kind, code, message, start, duration) = fixed;
            let span = Span {
                trace_id: TraceId([trace; 16]),
                span_id: SpanId([id; 8]),
                parent_span_id: SpanId([parent; 8]),
                name,
                kind,
                start: UnixNano(start),
                end: UnixNano(start + duration),
                attributes,
                events,
                links,
                status: Status { code, message },
                ..Span::default()
            };
            Row { span, resource, scope_name, scope }
        },
    )
}

fn field() -> impl Strategy<Value = Field> {
    let scopes = vec![
        AttrScope::Any,
        AttrScope::Span,
        AttrScope::Resource,
        AttrScope::Event,
        AttrScope::Link,
        AttrScope::Instrumentation,
    ];
    let attribute = (prop::sample::select(scopes), key()).prop_map(|(scope, key)| Field::Attribute(scope, key.into()));
    let intrinsic = prop::sample::select(vec![
        Field::Name,
        Field::Kind,
        Field::Status,
        Field::StatusMessage,
        Field::Duration,
        Field::TraceId,
        Field::SpanId,
        Field::ParentSpanId,
        Field::InstrumentationName,
        Field::InstrumentationVersion,
        Field::EventName,
    ]);
    prop_oneof![2 => attribute, 1 => intrinsic]
}

fn literal() -> impl Strategy<Value = Literal> {
    prop_oneof![
        prop::sample::select(vec!["", "a", "b", "0101010101010101", "02020202020202020202020202020202"])
            .prop_map(|text| Literal::Str(text.into())),
        (0i64..3).prop_map(Literal::Int),
        Just(Literal::Float(0.5)),
        any::<bool>().prop_map(Literal::Bool),
    ]
}

fn test() -> impl Strategy<Value = Test> {
    let compare = (literal(), 0..6).prop_map(|(literal, op)| match op {
        0 => Test::Eq(literal),
        1 => Test::Ne(literal),
        2 => Test::Lt(literal),
        3 => Test::Le(literal),
        4 => Test::Gt(literal),
        _ => Test::Ge(literal),
    });
    let regex = |pattern: &str| regex::Regex::new(pattern).unwrap();
    let other = prop::sample::select(vec![
        Test::Exists,
        Test::Absent,
        Test::TextEq("200".into()),
        Test::Contains("a".into()),
        Test::Regex(regex("^(?:a|b)$")),
        Test::NotRegex(regex("^(?:a)$")),
    ]);
    prop_oneof![compare, other]
}

fn predicate() -> impl Strategy<Value = Predicate> {
    let leaf = prop_oneof![
        1 => Just(Predicate::True),
        1 => Just(Predicate::False),
        12 => (field(), test()).prop_map(|(field, test)| Predicate::Is(Condition { field, test })),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Predicate::And),
            prop::collection::vec(inner, 0..3).prop_map(Predicate::Or),
        ]
    })
}

fn segment(rows: &[Row]) -> Segment {
    let segment = Segment::default();
    rows.iter().for_each(|row| push(&mut segment.write(), row));
    segment
}

fn context() -> QueryContext {
    QueryContext::new(&MemoryBudget::new(1 << 20), Arc::new(AtomicBool::new(false)))
}

fn candidates(segment: &Segment, request: &ScanRequest) -> BTreeMap<TraceId, u64> {
    use arrow_array::cast::AsArray;
    let mut found = BTreeMap::new();
    let mut sink = |batch: &RecordBatch| {
        let starts = batch.column(1).as_primitive::<arrow_array::types::UInt64Type>();
        for (id, start) in batch.column(0).as_fixed_size_binary().iter().zip(starts.values()) {
            let before = found.insert(TraceId(id.unwrap().try_into().unwrap()), *start);
            assert_eq!(before, None, "a trace is named once");
        }
        ControlFlow::Continue(())
    };
    segment.candidates(request, &context(), &mut sink).unwrap();
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn the_scan_finds_what_looking_at_every_span_finds(
        rows in prop::collection::vec(row(), 0..70),
        predicate in predicate(),
        (from, length) in (0u64..60, 0u64..60),
    ) {
        let range = TimeRange { start: UnixNano(from), end: UnixNano(from + length) };
        let segment = segment(&rows);
        let batch = segment.read();
        let mut naive = BTreeMap::new();
        for (row, index) in batch.trace().iter().enumerate() {
            let trace = &batch.traces()[*index as usize];
            if trace.range.overlaps(&range) && predicate.matches(&batch.span(row as u32)) {
                naive.insert(trace.id, trace.range.start.0);
            }
        }
        drop(batch);
        prop_assert_eq!(candidates(&segment, &ScanRequest { predicate, range }), naive);
    }

    #[test]
    fn listed_values_are_those_for_which_equality_finds_something(
        rows in prop::collection::vec(row(), 1..20),
        field in field(),
    ) {
        let segment = segment(&rows);
        let mut values = ValueSet::new(1 << 20);
        segment.values(&field, &context(), &mut values).unwrap();
        for value in values.into_values() {
            let literal = match &value {
                Value::Str(text) => Literal::Str(text.as_str().into()),
                Value::Int(int) => Literal::Int(*int),
                Value::Double(double) if double.is_nan() => continue,
                Value::Double(double) => Literal::Float(*double),
                Value::Bool(flag) => Literal::Bool(*flag),
                other => return Err(TestCaseError::fail(format!("{other:?} is listed"))),
            };
            // The value may be a second one of its name in a span, or one element of an array of mixed
            // types, which no comparison finds; that an attribute of the name exists it must be.
            let exists = Predicate::Is(Condition { field: field.clone(), test: Test::Exists });
            let request = ScanRequest { predicate: exists, range: TimeRange::ALL };
            prop_assert!(!candidates(&segment, &request).is_empty(), "{:?} of {:?}", literal, field);
        }
    }

    #[test]
    fn a_trace_comes_back_whole(rows in prop::collection::vec(row(), 0..30)) {
        let segment = segment(&rows);
        for trace in 1u8..5 {
            let id = TraceId([trace; 16]);
            let sent: Vec<&Row> = rows.iter().filter(|row| row.span.trace_id == id).collect();
            let found = segment.find_trace(id, &context()).unwrap();
            prop_assert_eq!(found.len(), sent.len());
            for (found, sent) in found.iter().zip(&sent) {
                prop_assert_eq!(&found.span.name, &sent.span.name);
                prop_assert_eq!(found.span.attributes.len(), sent.span.attributes.len());
                prop_assert_eq!(&found.span.events, &sent.span.events);
                prop_assert_eq!(&found.span.links, &sent.span.links);
                prop_assert_eq!(&found.origin.resource.attributes, &sent.resource);
            }
            let range = found.iter().map(|entry| TimeRange { start: entry.span.start, end: entry.span.end });
            prop_assert_eq!(segment.trace_range(id, &context()).unwrap(), range.reduce(|a, b| a.union(&b)));
        }
    }
}

#[test]
fn keys_and_operations_are_listed_by_scope_and_service() {
    let attribute = |key: &str| vec![KeyValue::new(key, Value::Int(1))];
    let twice = [attribute("twice"), attribute("twice")].concat();
    let span = Span {
        trace_id: TraceId([1; 16]),
        span_id: SpanId([1; 8]),
        name: "GET".to_owned(),
        kind: 2,
        attributes: [attribute("span"), twice].concat(),
        events: vec![Event { attributes: attribute("event"), ..Event::default() }],
        links: vec![Link { attributes: attribute("link"), ..Link::default() }],
        ..Span::default()
    };
    let resource = vec![KeyValue::new("service.name", Value::Str("shop".to_owned()))];
    let row = Row { span, resource, scope_name: "lib".to_owned(), scope: attribute("scope") };
    let segment = segment(&[row]);
    let mut keys = KeySet::new();
    segment.keys(&context(), &mut keys).unwrap();
    let names = |scope: AttrScope| keys[&scope].iter().map(String::as_str).collect::<Vec<_>>();
    assert_eq!(names(AttrScope::Span), ["span", "twice"]);
    assert_eq!(names(AttrScope::Resource), ["service.name"]);
    assert_eq!(names(AttrScope::Event), ["event"]);
    assert_eq!(names(AttrScope::Link), ["link"]);
    assert_eq!(names(AttrScope::Instrumentation), ["scope"]);
    let mut operations = BTreeSet::new();
    segment.operations(&context(), &mut operations).unwrap();
    let expected = Operation { service: Some("shop".to_owned()), name: "GET".to_owned(), kind: 2 };
    assert_eq!(operations.into_iter().collect::<Vec<_>>(), [expected]);
}

#[test]
fn a_cancelled_query_ends_before_it_scans() {
    let cancelled = QueryContext::new(&MemoryBudget::new(0), Arc::new(AtomicBool::new(true)));
    let segment = segment(&[]);
    assert!(matches!(segment.find_trace(TraceId([1; 16]), &cancelled), Err(ScanError::Cancelled)));
}
