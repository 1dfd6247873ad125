use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use spoor_model::scan::{Condition, Literal, Test};
use spoor_model::{KeyValue, SpanEntry, SpanId, Trace, TraceId, UnixNano};

use spoor_traceql::{parse, plan_search};

use super::*;
use crate::Limits;
use crate::lookup::tests::{querier, querier_with};
use crate::oracle::{Oracle, at_hand, origin, span};

/// A span of a service with up to three attributes, each of which may come twice.
fn any_entry() -> impl Strategy<Value = SpanEntry> {
    let value = prop_oneof![
        (0_i64..3).prop_map(Value::Int),
        prop::sample::select(vec!["x", "y"]).prop_map(|text| Value::Str(text.to_owned())),
        Just(Value::Bool(true)),
        Just(Value::Array(vec![Value::Int(7), Value::Int(8)])),
    ];
    let attribute =
        (prop::sample::select(vec!["a", "b", "c"]), value).prop_map(|(key, value)| KeyValue::new(key, value));
    (0_u8..6, 0_u8..9, 0_u64..50, prop::bool::ANY, prop::collection::vec(attribute, 0..4)).prop_map(
        |(trace, id, start, is_shop, attributes)| {
            let mut entry = span(trace, id, "s", start, start + 5);
            entry.origin = origin(if is_shop { "shop" } else { "cart" });
            entry.span.attributes = attributes;
            entry
        },
    )
}

fn any_sources() -> impl Strategy<Value = Vec<Vec<SpanEntry>>> {
    prop::collection::vec(prop::collection::vec(any_entry(), 0..12), 0..4)
}

fn is(key: &str, test: Test) -> Predicate {
    Predicate::Is(Condition { field: Field::Attribute(AttrScope::Any, key.into()), test })
}

fn first<'a>(entry: &'a SpanEntry, key: &str) -> Option<&'a Value> {
    spoor_model::value::find(&entry.span.attributes, key)
}

fn query(text: &str) -> SpanFilter {
    SpanFilter::Query(plan_search(&parse(text).expect("a query")).expect("a search"))
}

type Counts = fn(&SpanEntry) -> bool;

/// Filters, and the same said naively.
fn filters() -> Vec<(SpanFilter, Counts)> {
    vec![
        (SpanFilter::Predicate(is("service.name", Test::Eq(Literal::Str("shop".into())))), |entry| {
            entry.origin == origin("shop")
        }),
        (SpanFilter::Predicate(is("a", Test::Exists)), |entry| is("a", Test::Exists).matches(entry)),
        (SpanFilter::Predicate(Predicate::True), |_| true),
        (SpanFilter::Predicate(Predicate::False), |_| false),
        (query(r#"{ span.b = "x" }"#), |entry| first(entry, "b") == Some(&Value::Str("x".to_owned()))),
        // No predicate says these.
        (query("{ span.b + 1 = 2 }"), |entry| first(entry, "b") == Some(&Value::Int(1))),
        (query("{ span.a = span.b }"), |entry| match (first(entry, "a"), first(entry, "b")) {
            (None, None) => false,
            (Some(Value::Array(_)), _) | (_, Some(Value::Array(_))) => false,
            (a, b) => a == b,
        }),
        (query("{ !(span.b = 1) && span:id != nil }"), |entry| first(entry, "b") != Some(&Value::Int(1))),
    ]
}

proptest! {
    #[test]
    fn names_and_values_are_those_of_matching_spans(
        sources in any_sources(),
        (filter, counts) in prop::sample::select(filters()),
        (start, length) in (0_u64..60, 0_u64..40),
    ) {
        let range = TimeRange { start: UnixNano(start), end: UnixNano(start + length) };
        let oracles = sources.iter().map(|entries| Arc::new(Oracle { traces_per_group: 1, ..Oracle::clone_of(entries.clone()) }));
        let (querier, _) = querier(oracles.collect());
        let mut names = KeySet::new();
        let mut values: BTreeSet<String> = BTreeSet::new();
        for entries in &sources {
            let of_trace = |id| entries.iter().filter(move |entry| entry.span.trace_id == id);
            let overlaps = |entry: &SpanEntry| {
                let spans = of_trace(entry.span.trace_id).map(|entry| (entry.span.start, entry.span.end));
                let (start, end) = spans.fold((UnixNano(u64::MAX), UnixNano(0)), |(a, b), (c, d)| (a.min(c), b.max(d)));
                TimeRange { start, end }.overlaps(&range)
            };
            for entry in entries.iter().filter(|entry| counts(entry) && overlaps(entry)) {
                names.entry(AttrScope::Resource).or_default().insert("service.name".to_owned());
                for attribute in &entry.span.attributes {
                    names.entry(AttrScope::Span).or_default().insert(attribute.key.clone());
                }
                match spoor_model::value::find(&entry.span.attributes, "a") {
                    Some(Value::Array(items)) => values.extend(items.iter().map(|item| format!("{item:?}"))),
                    Some(value) => drop(values.insert(format!("{value:?}"))),
                    None => {}
                }
            }
        }
        let tenants = [TenantId::single()];
        let found = querier.keys_where(&tenants, &filter, range, &at_hand()).expect("in memory");
        prop_assert_eq!(found.value, names);
        let field = Field::Attribute(AttrScope::Any, "a".into());
        let found = querier.values_where(&tenants, &field, &filter, range, 1000, &at_hand()).expect("in memory");
        prop_assert!(found.value.1);
        let found: BTreeSet<String> = found.value.0.iter().map(|value| format!("{value:?}")).collect();
        prop_assert_eq!(found, values);
    }
}

/// Spans that have parents, some of them missing, in sources that have parts of each other's traces.
fn related_sources() -> impl Strategy<Value = Vec<Vec<SpanEntry>>> {
    let entry = (any_entry(), 0_u8..9).prop_map(|(mut entry, parent)| {
        entry.span.parent_span_id = SpanId([parent; 8]);
        entry.span.name = format!("span {}", entry.span.span_id);
        entry
    });
    prop::collection::vec(prop::collection::vec(entry, 0..12), 0..4)
}

const ABOUT_WHOLE_TRACES: [&str; 8] = [
    "{ parent.span.a = 1 }",
    r#"{ parent.resource.service.name = "shop" && span.b != nil }"#,
    "{ !(parent.span.a = 1) }",
    r#"{ rootServiceName = "cart" }"#,
    r#"{ rootName != "span 0101010101010101" && span.a != nil }"#,
    "{ traceDuration > 20ns }",
    "{ span:childCount = 2 }",
    "{ span.a = 1 } &>> { span.b != nil }",
];

fn whole_traces(sources: &[Vec<SpanEntry>]) -> Vec<Trace> {
    let mut by_trace: BTreeMap<TraceId, Vec<SpanEntry>> = BTreeMap::new();
    for entry in sources.iter().flatten() {
        by_trace.entry(entry.span.trace_id).or_default().push(entry.clone());
    }
    by_trace.into_iter().filter_map(|(id, entries)| Trace::assemble(id, entries)).collect()
}

proptest! {
    #[test]
    fn filters_about_whole_traces_see_them_whole(
        sources in related_sources(),
        text in prop::sample::select(ABOUT_WHOLE_TRACES.to_vec()),
        (start, length) in (0_u64..60, 0_u64..40),
    ) {
        let filter = query(text);
        let SpanFilter::Query(plan) = &filter else { unreachable!("it is a query") };
        let range = TimeRange { start: UnixNano(start), end: UnixNano(start + length) };
        let (mut expect_names, mut expect_keys) = (BTreeSet::new(), BTreeSet::new());
        for trace in whole_traces(&sources).iter().filter(|trace| trace.range().overlaps(&range)) {
            for place in plan.evaluate(trace).into_iter().flat_map(|found| found.spans) {
                let span = &trace.entries[place].span;
                expect_names.insert(span.name.clone());
                expect_keys.extend(span.attributes.iter().map(|attribute| attribute.key.clone()));
            }
        }
        let of = |entries: &Vec<SpanEntry>| Arc::new(Oracle { traces_per_group: 1, ..Oracle::clone_of(entries.clone()) });
        let querier = querier_with(sources.iter().map(of).collect(), Limits::default());
        let tenants = [TenantId::single()];
        let found = querier.values_where(&tenants, &Field::Name, &filter, range, 1000, &at_hand()).expect("in memory");
        let names: BTreeSet<String> = found.value.0.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        prop_assert_eq!((names, found.value.1), (expect_names, true));
        let mut found = querier.keys_where(&tenants, &filter, range, &at_hand()).expect("in memory").value;
        prop_assert_eq!(found.remove(&AttrScope::Span).unwrap_or_default(), expect_keys);
    }
}

/// `grand` is below `child`, which another source has, and that is below a root that is in a third.
fn torn_line() -> Vec<Arc<Oracle>> {
    let of = |id: u8, parent: u8, name: &str, service: &str| {
        let mut entry = span(1, id, name, u64::from(id), 20);
        entry.span.parent_span_id = SpanId([parent; 8]);
        entry.span.attributes = vec![KeyValue::new(name, Value::Bool(true))];
        entry.origin = origin(service);
        Oracle::of(vec![entry])
    };
    vec![of(3, 2, "grand", "db"), of(2, 1, "child", "back"), of(1, 0, "root", "front")]
}

#[test]
fn values_and_names_are_those_of_the_children_when_the_filter_is_about_parents() {
    let (querier, _) = querier(torn_line());
    for (text, expect) in [
        (r#"{ parent.resource.service.name = "back" }"#, &["grand"][..]),
        (r#"{ parent.resource.service.name = "front" }"#, &["child"]),
        (r#"{ parent.resource.service.name = "db" }"#, &[]),
        (r#"{ rootServiceName = "front" && resource.service.name != "back" }"#, &["grand", "root"]),
        (r#"{ rootName = "child" }"#, &[]),
        ("{ traceDuration = 19ns }", &["child", "grand", "root"]),
        ("{ traceDuration < 19ns }", &[]),
        ("{ span:childCount = 0 }", &["grand"]),
        (r#"{ name = "root" } >> { name = "grand" }"#, &["grand"]),
    ] {
        let (tenants, filter) = ([TenantId::single()], query(text));
        let values = querier.values_where(&tenants, &Field::Name, &filter, TimeRange::ALL, 100, &at_hand());
        let expect: Vec<Value> = expect.iter().map(|name| Value::Str((*name).to_owned())).collect();
        assert_eq!(values.expect("in memory").value, (expect.clone(), true), "{text}");
        let mut keys = querier.keys_where(&tenants, &filter, TimeRange::ALL, &at_hand()).expect("in memory").value;
        let keys = keys.remove(&AttrScope::Span).unwrap_or_default();
        assert_eq!(keys.into_iter().map(Value::Str).collect::<Vec<_>>(), expect, "{text}");
    }
}

#[test]
fn values_end_at_their_limit() {
    let entries = (0..100).map(|n| {
        let mut entry = span(n, 1, "s", 0, 5);
        entry.span.attributes = vec![KeyValue::new("a", Value::Str(format!("value {n:03}")))];
        entry
    });
    let (querier, _) = querier(vec![Oracle::of(entries.collect())]);
    let field = Field::Attribute(AttrScope::Any, "a".into());
    let values_of = |limit_bytes| {
        querier
            .values_where(
                &[TenantId::single()],
                &field,
                &SpanFilter::Predicate(Predicate::True),
                TimeRange::ALL,
                limit_bytes,
                &at_hand(),
            )
            .expect("in memory")
    };
    assert_eq!((values_of(1000).value.0.len(), values_of(1000).value.1), (100, true));
    assert!(!values_of(50).value.1);
}

#[test]
fn reading_ends_when_there_is_enough() {
    let entries: Vec<SpanEntry> = (0..100).map(|n| span(n, 1, &format!("name {n:03}"), 0, 5)).collect();
    let source = Arc::new(Oracle { traces_per_group: 1, ..Oracle::clone_of(entries) });
    let (querier, _) = querier(vec![Arc::clone(&source)]);
    let (tenants, filter) = ([TenantId::single()], query("{ traceDuration = 5ns }"));
    let found = querier.values_where(&tenants, &Field::Name, &filter, TimeRange::ALL, 50, &at_hand());
    let (values, is_complete) = found.expect("in memory").value;
    assert!(values.len() < 100 && !is_complete);
    assert!(source.read_count.load(std::sync::atomic::Ordering::Relaxed) < 100);
}
