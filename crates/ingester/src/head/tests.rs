use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use proptest::prelude::*;
use spoor_model::batch::{AttrValue, Dropped, SpanFields};
use spoor_model::columns::{ColumnBatch, ValuesOf};
use spoor_model::memory::MemoryBudget;
use spoor_model::scan::{AttrScope, Condition, FieldValue, Literal, Predicate, Test};
use spoor_model::{Event, KeyValue, Link, Span, SpanId, Status, Trace, UnixNano, Value, nested, structure, wire};

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
    let event = |(name, time, attributes)| Event { name, time: UnixNano(time), attributes, ..Event::default() };
    let events = (text(), 0u64..60, attributes()).prop_map(event);
    let child_of = || vec![KeyValue::new("opentracing.ref_type", Value::Str("child_of".to_owned()))];
    let of_link = prop_oneof![3 => attributes(), 1 => Just(child_of())];
    let link = |(trace, attributes)| Link { trace_id: TraceId([trace; 16]), attributes, ..Link::default() };
    let lists = (prop::collection::vec(events, 0..3), prop::collection::vec((1u8..4, of_link).prop_map(link), 0..2));
    // Ids that meet now and then, parents that are there, are not, are the span itself or stand in a ring.
    let ids = (1u8..5, 1u8..20, 0u8..20);
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
        Field::EventTimeSinceStart,
        Field::LinkTraceId,
        Field::LinkSpanId,
        Field::StartTime,
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
    let of = |scope| Field::Attribute(scope, "x".into());
    let leaf = prop_oneof![
        1 => Just(Predicate::True),
        1 => Just(Predicate::False),
        12 => (field(), test()).prop_map(|(field, test)| Predicate::Is(Condition { field, test })),
    ];
    let events = prop::sample::select(vec![Field::EventName, Field::EventTimeSinceStart, of(AttrScope::Event)]);
    let links = prop::sample::select(vec![Field::LinkTraceId, of(AttrScope::Link)]);
    let one = |field, test| Condition { field, test };
    let of_one = prop_oneof![
        prop::collection::vec((events, test()).prop_map(move |(field, test)| one(field, test)), 0..3)
            .prop_map(Predicate::OneEvent),
        prop::collection::vec((links, test()).prop_map(move |(field, test)| one(field, test)), 0..3)
            .prop_map(Predicate::OneLink),
    ];
    let leaf = prop_oneof![6 => leaf, 1 => of_one];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Predicate::And),
            prop::collection::vec(inner, 0..3).prop_map(Predicate::Or),
        ]
    })
}

/// The rows in segments of so many each.
fn head(rows: &[Row], segment_rows: usize) -> Head {
    let segment = |rows: &[Row]| {
        let segment = Segment::default();
        rows.iter().for_each(|row| push(&mut segment.write(), row));
        if rows.len() == segment_rows {
            segment.seal();
        }
        Arc::new(segment)
    };
    let mut segments: Vec<_> = rows.chunks(segment_rows).map(segment).collect();
    // A head may begin before its first span comes.
    segments.push(Arc::default());
    Head::new(segments).unwrap()
}

fn context() -> QueryContext {
    QueryContext::new(&MemoryBudget::new(1 << 20), Arc::new(AtomicBool::new(false)))
}

/// Every span, trace by trace, copies included.
fn all_traces(head: &Head) -> Vec<Trace> {
    let ids: Vec<TraceId> = head.traces(&context()).unwrap().traces.iter().map(|trace| trace.id).collect();
    let found = head.find_traces(&ids, &context()).unwrap();
    let sorted = |(id, mut entries): (TraceId, Vec<SpanEntry>)| {
        entries.sort_by_key(structure::place);
        Trace { id, entries }
    };
    ids.into_iter().zip(found).map(sorted).collect()
}

/// What a batch says of one trace, with rows counted from its first.
#[derive(Debug, PartialEq)]
struct Seen {
    range: TimeRange,
    is_irregular: bool,
    parents: Vec<u32>,
    root: Option<u32>,
    /// Per row: masks, and the values of each column.
    rows: Vec<(Vec<bool>, Vec<String>)>,
}

fn seen(batch: &ColumnBatch, request: &ColumnRequest) -> BTreeMap<TraceId, Seen> {
    let of_trace = |trace: usize| {
        let rows = batch.rows_of(trace);
        let first = rows.start as u32;
        let from_first = |row: u32| if row >= structure::MISSING { row } else { row - first };
        let row = |row: usize| {
            let masks: Vec<bool> = batch.masks.iter().map(|mask| mask.contains(row)).collect();
            let is_wanted = request.values_of == ValuesOf::AllRows
                || request.needed.is_empty()
                || request.needed.iter().any(|mask| masks[*mask]);
            let columns = batch.columns.iter().filter(|_| is_wanted);
            let values = columns.map(|column| format!("{:?} {:?}", column.value(row), column.items(row)));
            (masks, values.collect())
        };
        let seen = Seen {
            range: batch.trace_ranges[trace],
            is_irregular: (request.tree || request.copies) && batch.irregular.contains(trace),
            parents: match request.tree {
                true => batch.parents[rows.clone()].iter().map(|parent| from_first(*parent)).collect(),
                false => Vec::new(),
            },
            root: request.tree.then(|| from_first(batch.roots[trace])),
            rows: rows.map(row).collect(),
        };
        (batch.trace_ids[trace], seen)
    };
    (0..batch.trace_count()).map(of_trace).collect()
}

/// Reads all groups, and checks that they are what they say.
fn read_all(scan: &HeadScan<'_>, request: &ColumnRequest) -> BTreeMap<TraceId, Seen> {
    let mut all = BTreeMap::new();
    assert!(scan.groups().is_sorted_by_key(|group| std::cmp::Reverse(group.latest_trace_start)));
    for (index, group) in scan.groups().iter().enumerate() {
        let (batch, stats) = scan.read(index, &context()).unwrap();
        assert_eq!(stats.spans_inspected, group.span_count);
        for (id, trace) in batch.iter().flat_map(|batch| seen(batch, request)) {
            assert!(trace.range.start <= group.latest_trace_start && trace.range.union(&group.range) == group.range);
            assert!(all.insert(id, trace).is_none(), "a trace is in one group");
        }
    }
    all
}

fn request() -> impl Strategy<Value = ColumnRequest> {
    let masks = prop::collection::vec(predicate(), 0..3);
    let columns = prop::collection::vec(field(), 0..4);
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    (masks, columns, flags, 0u64..60, 0u64..60).prop_map(|(masks, columns, flags, from, length)| ColumnRequest {
        needed: if flags.0 { (0..masks.len()).rev().collect() } else { Vec::new() },
        masks,
        columns,
        values_of: if flags.1 { ValuesOf::AllRows } else { ValuesOf::NeededRows },
        tree: flags.2,
        copies: flags.3,
        range: TimeRange { start: UnixNano(from), end: UnixNano(from + length) },
        intervals: None,
    })
}

fn has_shared_ids(trace: &Trace) -> bool {
    let ids: BTreeSet<_> = trace.entries.iter().map(|entry| entry.span.span_id).collect();
    ids.len() < trace.entries.len()
}

/// The values of a span that are worth a place in a list: for attributes all of that name.
fn listed(field: &Field, entry: &SpanEntry) -> Vec<Value> {
    let SpanEntry { origin, span } = entry;
    let (events, links) = (|| span.events.iter(), || span.links.iter());
    match field {
        Field::EventTimeSinceStart | Field::LinkTraceId | Field::LinkSpanId | Field::StartTime => Vec::new(),
        Field::StatusMessage if span.status.message.is_empty() => Vec::new(),
        Field::Attribute(scope, key) => {
            let places: [(AttrScope, Vec<&KeyValue>); 5] = [
                (AttrScope::Span, span.attributes.iter().collect()),
                (AttrScope::Resource, origin.resource.attributes.iter().collect()),
                (AttrScope::Event, events().flat_map(|event| &event.attributes).collect()),
                (AttrScope::Link, links().flat_map(|link| &link.attributes).collect()),
                (AttrScope::Instrumentation, origin.scope.attributes.iter().collect()),
            ];
            let wanted = places.into_iter().filter(|(of, _)| *scope == AttrScope::Any || scope == of);
            let named = wanted.flat_map(|(_, attributes)| attributes).filter(|attribute| *attribute.key == **key);
            named.map(|attribute| attribute.value.clone()).collect()
        }
        _ => match spoor_model::scan::field::of_span(field, entry) {
            FieldValue::One(value) => value.into_iter().collect(),
            FieldValue::PerItem(values) => values.into_iter().flatten().collect(),
        },
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]
    #[test]
    fn columns_are_those_of_whole_traces(
        rows in prop::collection::vec(row(), 0..70),
        segment_rows in 1usize..40,
        group_rows in 1u64..40,
        request in request(),
    ) {
        let head = head(&rows, segment_rows);
        let traces = all_traces(&head);
        let mut expected = seen(&ColumnBatch::of_traces(&traces, &request), &request);
        let is_needed = |trace: &Seen| {
            request.needed.is_empty() || trace.rows.iter().any(|(masks, _)| request.needed.iter().any(|mask| masks[*mask]))
        };
        expected.retain(|_, trace| trace.range.overlaps(&request.range) && is_needed(trace));
        let sizes = GroupRows { first: group_rows, max: group_rows * 2 };
        let scan = HeadScan::new(&head.segments, head.traces(&context()).unwrap(), &request, sizes, &context()).unwrap();
        let mut found = read_all(&scan, &request);
        for trace in &traces {
            let (Some(found), Some(expected)) = (found.get_mut(&trace.id), expected.get_mut(&trace.id)) else { continue };
            if !request.tree || has_shared_ids(trace) {
                // In any order: there is no tree.
                found.rows.sort();
                expected.rows.sort();
            }
            if has_shared_ids(trace) {
                prop_assert_eq!(found.is_irregular, request.tree || request.copies);
                for seen in [found, expected] {
                    seen.parents.clear();
                    seen.root = None;
                }
            }
        }
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn listed_values_are_those_that_spans_have(rows in prop::collection::vec(row(), 1..20), field in field()) {
        let head = head(&rows, 7);
        let mut values = ValueSet::new(1 << 20);
        head.values(&field, &context(), &mut values).unwrap();
        let mut expected = ValueSet::new(1 << 20);
        for trace in all_traces(&head) {
            trace.entries.iter().flat_map(|entry| listed(&field, entry)).for_each(|value| {
                assert!(expected.insert(&value).is_continue());
            });
        }
        prop_assert_eq!(values.into_values(), expected.into_values());
    }

    #[test]
    fn a_trace_comes_back_whole(rows in prop::collection::vec(row(), 0..30)) {
        let head = head(&rows, 7);
        for trace in 1u8..6 {
            let id = TraceId([trace; 16]);
            let sent: Vec<&Row> = rows.iter().filter(|row| row.span.trace_id == id).collect();
            let found = head.find_trace(id, &context()).unwrap();
            prop_assert_eq!(found.len(), sent.len());
            for (found, sent) in found.iter().zip(&sent) {
                prop_assert_eq!(&found.span.name, &sent.span.name);
                prop_assert_eq!(found.span.attributes.len(), sent.span.attributes.len());
                prop_assert_eq!(&found.span.events, &sent.span.events);
                prop_assert_eq!(&found.span.links, &sent.span.links);
                prop_assert_eq!(&found.origin.resource.attributes, &sent.resource);
            }
            let range = found.iter().map(|entry| TimeRange { start: entry.span.start, end: entry.span.end });
            prop_assert_eq!(head.may_hold(id), !sent.is_empty());
            prop_assert_eq!(head.trace_range(id, &context()).unwrap(), range.reduce(|a, b| a.union(&b)));
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
    let head = head(&[row], 1);
    let mut keys = KeySet::new();
    head.keys(&context(), &mut keys).unwrap();
    let names = |scope: AttrScope| keys[&scope].iter().map(String::as_str).collect::<Vec<_>>();
    assert_eq!(names(AttrScope::Span), ["span", "twice"]);
    assert_eq!(names(AttrScope::Resource), ["service.name"]);
    assert_eq!(names(AttrScope::Event), ["event"]);
    assert_eq!(names(AttrScope::Link), ["link"]);
    assert_eq!(names(AttrScope::Instrumentation), ["scope"]);
    let mut operations = BTreeSet::new();
    head.operations(&context(), &mut operations).unwrap();
    let expected = Operation { service: Some("shop".to_owned()), name: "GET".to_owned(), kind: 2 };
    assert_eq!(operations.into_iter().collect::<Vec<_>>(), [expected]);
}

#[test]
fn a_cancelled_query_ends_before_it_scans() {
    let cancelled = QueryContext::new(&MemoryBudget::new(0), Arc::new(AtomicBool::new(true)));
    let head = head(&[], 1);
    assert!(matches!(head.find_trace(TraceId([1; 16]), &cancelled), Err(ScanError::Cancelled)));
}

#[test]
fn fingerprints_name_each_trace_once_however_many_segments_it_is_in() {
    let row = |trace: u8| Row {
        span: Span { trace_id: TraceId([trace; 16]), span_id: SpanId([1; 8]), ..Span::default() },
        resource: Vec::new(),
        scope_name: String::new(),
        scope: Vec::new(),
    };
    let head = head(&[1, 2, 1, 3, 1].map(row), 2);
    let mut expected = [1, 2, 3].map(|trace| TraceId([trace; 16]).fingerprint());
    expected.sort_unstable();
    assert_eq!(*head.trace_fingerprints(&context()).unwrap(), expected);
}

#[test]
fn spans_that_come_during_a_scan_are_not_in_its_batches() {
    let row = |span: u8| Row {
        span: Span {
            trace_id: TraceId([1; 16]),
            span_id: SpanId([span; 8]),
            name: format!("{span}"),
            ..Span::default()
        },
        resource: vec![KeyValue::new("x", Value::Int(i64::from(span)))],
        scope_name: String::new(),
        scope: Vec::new(),
    };
    let head = head(&[1, 2].map(row), 3);
    let request = ColumnRequest {
        masks: vec![Predicate::True],
        needed: vec![0],
        columns: vec![Field::Name],
        values_of: ValuesOf::AllRows,
        tree: true,
        copies: true,
        range: TimeRange::ALL,
        intervals: None,
    };
    let scan = head.scan(&request, &context()).unwrap();
    push(&mut head.segments[1].write(), &row(3));
    push(&mut head.segments[0].write(), &row(4));
    let batch = scan.read(0, &context()).unwrap().0.unwrap();
    assert_eq!((batch.row_count(), batch.masks[0].count()), (2, 2));
    assert_eq!(batch.columns[0].value(1), Some(Value::Str("2".to_owned())));
    assert_eq!(head.span_count(), 4);
}
