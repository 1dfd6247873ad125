use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;
use spoor_model::scan::{Condition, Literal, Test};
use spoor_model::{KeyValue, SpanEntry, UnixNano};

use spoor_traceql::{parse, plan_search};

use super::*;
use crate::lookup::tests::querier;
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

type Counts = fn(&SpanEntry) -> bool;

/// Filters, and the same said naively.
fn filters() -> Vec<(SpanFilter, Counts)> {
    let query = |text: &str| SpanFilter::Query(plan_search(&parse(text).expect("a query")).expect("a search"));
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
        let tenant = TenantId::single();
        let found = querier.keys_where(&tenant, &filter, range, &at_hand()).expect("in memory");
        prop_assert_eq!(found.value, names);
        let field = Field::Attribute(AttrScope::Any, "a".into());
        let found = querier.values_where(&tenant, &field, &filter, range, 1000, &at_hand()).expect("in memory");
        prop_assert!(found.value.1);
        let found: BTreeSet<String> = found.value.0.iter().map(|value| format!("{value:?}")).collect();
        prop_assert_eq!(found, values);
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
        let tenant = TenantId::single();
        querier
            .values_where(
                &tenant,
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
