use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use proptest::prelude::*;
use spoor_model::compute::ComputePool;
use spoor_model::memory::MemoryBudget;
use spoor_model::scan::{AttrScope, Condition, Field, Literal, Snapshot, SpanSource, Test};
use spoor_model::{BlockId, KeyValue, Link, SpanEntry, SpanId, Value};
use spoor_traceql::{MatchedSpanset, parse, plan_search};

use super::*;
use crate::oracle::{Fault, Oracle, at_hand, origin, span};
use crate::request::{Filter, GroupCondition, SpanTest};
use crate::root;
use crate::turns::{Lanes, Turns};

pub(crate) fn pool() -> &'static ComputePool {
    static POOL: std::sync::OnceLock<ComputePool> = std::sync::OnceLock::new();
    POOL.get_or_init(|| ComputePool::new("test", 2).expect("threads start"))
}

fn unlimited() -> Limits {
    Limits { trace_duration_max: Duration::MAX, ..Limits::default() }
}

fn at_any_time(filter: Filter, limit: usize) -> SearchRequest {
    SearchRequest { filter, min_duration_nano: None, max_duration_nano: None, range: TimeRange::ALL, limit }
}

fn is(field: Field, test: Test) -> Predicate {
    Predicate::Is(Condition { field, test })
}

fn named(name: &str) -> Predicate {
    is(Field::Name, Test::Eq(Literal::Str(name.into())))
}

fn query(text: &str) -> Filter {
    Filter::Query(plan_search(&parse(text).expect("is a query")).expect("is well typed"))
}

pub(crate) fn search_in(
    sources: &[Arc<Oracle>],
    request: &SearchRequest,
    limits: &Limits,
    ctx: &QueryContext,
) -> Result<Answer<Vec<FoundTrace>>, QueryError> {
    let all = sources.iter().map(|source| Arc::clone(source) as Arc<dyn SpanSource>).collect();
    let (snapshot, turns) = (Snapshot { sources: all, skipped: Vec::new() }, Turns::default());
    check(request, limits)?;
    let sources = Sources::new(&snapshot, Lanes::new(pool(), &turns), ctx);
    let ids_of = |found: &[FoundTrace]| found.iter().map(|found| found.trace.id).collect::<Vec<TraceId>>();
    let mut shown = Vec::new();
    let answer = super::search(request, limits, &PairCache::default(), sources, |found| {
        let found = ids_of(found);
        assert!(found.starts_with(&shown), "what was shown stays: {shown:?}, {found:?}");
        shown = found;
        let reached = ctx.progress().reached();
        assert!(reached.pieces_done <= reached.pieces_known, "{reached:?}");
    });
    if let Ok(answer) = &answer {
        assert_eq!(ids_of(&answer.value), shown, "all is shown");
    }
    answer
}

fn search(sources: &[Arc<Oracle>], request: &SearchRequest) -> Answer<Vec<FoundTrace>> {
    search_in(sources, request, &unlimited(), &at_hand()).expect("nothing is in the way")
}

fn ids(answer: &Answer<Vec<FoundTrace>>) -> Vec<u8> {
    answer.value.iter().map(|found| found.trace.id.0[0]).collect()
}

/// The model: everything in one place, every trace looked at.
fn naive(sources: &[Arc<Oracle>], request: &SearchRequest) -> Vec<FoundTrace> {
    let mut by_trace: BTreeMap<TraceId, Vec<SpanEntry>> = BTreeMap::new();
    for entry in sources.iter().flat_map(|source| &source.entries) {
        by_trace.entry(entry.span.trace_id).or_default().push(entry.clone());
    }
    let traces = by_trace.into_iter().filter_map(|(id, entries)| Trace::assemble(id, entries));
    let mut found: Vec<FoundTrace> = traces
        .filter(|trace| {
            let (range, wanted) = (trace.range(), request.range);
            let duration = range.end.0 - range.start.0;
            range.start <= wanted.end
                && range.end >= wanted.start
                && request.min_duration_nano.is_none_or(|min| duration >= min)
                && request.max_duration_nano.is_none_or(|max| duration <= max)
        })
        .map(|trace| FoundTrace { spansets: request.filter.evaluate(&trace), trace })
        .filter(|found| !found.spansets.is_empty())
        .collect();
    found.sort_by_key(|found| Reverse((found.trace.range().start, found.trace.id)));
    found.truncate(request.limit);
    found
}

/// What two searches must agree on. The order of differing spans with one id and start is open.
fn outline(found: &[FoundTrace]) -> Vec<(TraceId, Vec<String>, Vec<Vec<String>>)> {
    found
        .iter()
        .map(|found| {
            let mut spans: Vec<String> = found.trace.entries.iter().map(|entry| format!("{entry:?}")).collect();
            let of_spanset = |spanset: &MatchedSpanset| {
                let mut matched: Vec<String> = spanset.spans.iter().map(|index| spans[*index].clone()).collect();
                matched.sort_unstable();
                matched
            };
            let matched = found.spansets.iter().map(of_spanset).collect();
            spans.sort_unstable();
            (found.trace.id, spans, matched)
        })
        .collect()
}

fn any_entry() -> impl Strategy<Value = SpanEntry> {
    let (ids, times) = ((0_u8..6, 1_u8..5, 0_u8..3), (0_u64..60, 0_u64..20));
    (ids, times, 0_u8..2, prop::sample::select(vec!["a", "b", "c"])).prop_map(
        |((trace, span_id, parent), (start, duration), service, name)| {
            let mut entry = span(trace, span_id, name, start, start + duration);
            entry.span.parent_span_id = SpanId([parent; 8]);
            entry.origin = origin(["shop", "cart"][usize::from(service)]);
            entry
        },
    )
}

/// Up to four sources. A span may be in several of them, and several times in one.
pub(crate) fn any_sources() -> impl Strategy<Value = Vec<Arc<Oracle>>> {
    let places = prop::collection::vec(0_usize..4, 1..3);
    let spans = prop::collection::vec((any_entry(), places), 0..40);
    (spans, prop::collection::vec((any::<bool>(), 1_usize..4), 4)).prop_map(|(spans, kinds)| {
        let of_kind = |(number, (is_block, traces_per_group)): (usize, (bool, usize))| Oracle {
            identity: is_block.then_some(BlockId(number as u128)),
            traces_per_group,
            ..Oracle::default()
        };
        let mut sources: Vec<Oracle> = kinds.into_iter().enumerate().map(of_kind).collect();
        for (entry, places) in spans {
            places.into_iter().for_each(|place| sources[place].entries.push(entry.clone()));
        }
        sources.into_iter().map(Arc::new).collect()
    })
}

fn any_predicate() -> impl Strategy<Value = Predicate> {
    let leaf = prop_oneof![
        Just(Predicate::True),
        Just(Predicate::False),
        prop::sample::select(vec!["a", "b", "d"]).prop_map(named),
        (0_i64..20).prop_map(|nanos| is(Field::Duration, Test::Gt(Literal::Int(nanos)))),
        Just(is(Field::Attribute(AttrScope::Any, "service.name".into()), Test::Eq(Literal::Str("shop".into())))),
    ];
    leaf.prop_recursive(2, 6, 3, |inner| {
        let many = prop::collection::vec(inner, 0..3);
        prop_oneof![many.clone().prop_map(Predicate::And), many.prop_map(Predicate::Or)]
    })
}

/// Spans with an odd id that satisfy a predicate: more than the predicate says.
#[derive(Debug)]
struct OfOddId(Predicate);

impl SpanTest for OfOddId {
    fn necessary(&self) -> Predicate {
        self.0.clone()
    }

    fn holds(&self, entry: &SpanEntry) -> bool {
        entry.span.span_id.0[7] % 2 == 1 && self.0.matches(entry)
    }
}

fn any_filter() -> impl Strategy<Value = Filter> {
    let filter = prop::sample::select(vec![
        r#"{ name = "a" }"#,
        r#"{ name = "d" }"#,
        "{ duration > 5ns }",
        r#"{ .service.name = "shop" && name != "b" }"#,
    ]);
    // A pipeline in parentheses can only stand first, so what is piped into is one filter.
    let last = filter.clone();
    let spanset = filter.prop_map(str::to_owned).prop_recursive(2, 4, 2, move |inner| {
        let op = prop::sample::select(vec!["&&", "||", ">>", "!>>", "~"]);
        let joined = (inner.clone(), op, inner.clone()).prop_map(|(left, op, right)| format!("({left} {op} {right})"));
        let piped = (inner, last.clone()).prop_map(|(left, right)| format!("({left} | {right})"));
        prop_oneof![joined, piped]
    });
    let is_root_named = |name: &str| Condition { field: Field::Name, test: Test::Eq(Literal::Str(name.into())) };
    let condition = prop_oneof![
        any_predicate().prop_map(GroupCondition::Span),
        prop::sample::select(vec!["a", "b"]).prop_map(move |name| GroupCondition::Root(is_root_named(name))),
    ];
    prop_oneof![
        any_predicate().prop_map(Filter::Span),
        any_predicate().prop_map(|necessary| Filter::Test(Arc::new(OfOddId(necessary)))),
        spanset.prop_map(|text| query(&text)),
        prop::collection::vec(condition, 0..3).prop_map(Filter::Group),
    ]
}

prop_compose! {
    fn any_request()(
        filter in any_filter(),
        min_duration_nano in prop::option::of(0_u64..40),
        longer_by in prop::option::of(0_u64..40),
        start in 0_u64..70,
        length in 0_u64..70,
        limit in 0_usize..7,
    ) -> SearchRequest {
        let max_duration_nano = longer_by.map(|by| min_duration_nano.unwrap_or(0) + by);
        let range = TimeRange { start: UnixNano(start), end: UnixNano(start + length) };
        SearchRequest { filter, min_duration_nano, max_duration_nano, range, limit }
    }
}

proptest! {
    #[test]
    fn search_finds_what_the_naive_model_finds(
        sources in any_sources(),
        request in any_request(),
    ) {
        let answer = search_in(&sources, &request, &unlimited(), &at_hand());
        let answer = answer.expect("nothing is in the way");
        prop_assert_eq!(outline(&answer.value), outline(&naive(&sources, &request)));
        prop_assert!(answer.skipped.is_empty());
    }

    #[test]
    fn widening_by_the_longest_trace_is_enough(sources in any_sources(), request in any_request()) {
        let everything = at_any_time(Filter::Span(Predicate::True), 100);
        let longest = naive(&sources, &everything)
            .iter()
            .map(|found| found.trace.range().end.0 - found.trace.range().start.0)
            .max();
        let limits = Limits { trace_duration_max: Duration::from_nanos(longest.unwrap_or(0)), ..Limits::default() };
        let answer = search_in(&sources, &request, &limits, &at_hand()).expect("nothing is in the way");
        prop_assert_eq!(outline(&answer.value), outline(&naive(&sources, &request)));
    }
}

#[test]
fn the_limit_is_applied_after_the_order() {
    // The older source would yield its traces first; trace 3 starts last but is known by fragments.
    let old = Oracle::of(vec![span(1, 1, "a", 10, 20), span(2, 1, "a", 30, 40), span(3, 1, "a", 35, 36)]);
    let new = Oracle::of(vec![span(3, 2, "a", 90, 95), span(4, 1, "a", 34, 99)]);
    let found = search(&[old, new], &at_any_time(Filter::Span(named("a")), 2));
    assert_eq!(ids(&found), [3, 4]);
}

#[test]
fn what_cannot_hold_newer_results_is_not_read() {
    let of_source = |n: u8| Oracle {
        traces_per_group: 1,
        identity: Some(BlockId(n.into())),
        ..Oracle::clone_of((0..9).map(|m| span(n * 10 + m, 1, "a", at(n, m), at(n, m) + 5)).collect())
    };
    fn at(n: u8, m: u8) -> u64 {
        u64::from(n) * 100 + u64::from(m) * 10
    }
    let sources: Vec<Arc<Oracle>> = (0..10).rev().map(|n| Arc::new(of_source(n))).collect();
    let found = search(&sources, &at_any_time(Filter::Span(named("a")), 1));
    assert_eq!(ids(&found), [98]);
    let count = |of: fn(&Oracle) -> &AtomicUsize| -> usize {
        sources.iter().map(|source| of(source).load(Ordering::Relaxed)).sum()
    };
    assert_eq!((count(|source| &source.scan_count), count(|source| &source.read_count)), (1, 1));
    let stage = &found.explain.stages[0];
    assert_eq!((stage.sources_not_reached, stage.sources[0].groups_not_reached()), (9, 8));
    assert_eq!((stage.traces_located, stage.traces_assembled, stage.spans_assembled), (1, 1, 1));
}

#[test]
fn whole_traces_are_decided_by_their_columns() {
    // Of two conditions only one holds for most traces; a torn one has to be put together to be sure.
    let a_and_b = || query(r#"{ name = "a" } && { name = "b" }"#);
    let (old, new) = (Oracle::of(vec![span(7, 1, "b", 5, 9)]), Oracle::of(vec![span(7, 2, "a", 2, 9)]));
    let found = search(&[old, new], &at_any_time(a_and_b(), 10));
    assert_eq!(ids(&found), [7]);
    assert_eq!(found.explain.stages[0].traces_located, 1);
    let whole = Oracle::of(vec![span(7, 1, "b", 5, 9), span(7, 2, "a", 2, 9)]);
    let found = search(&[whole], &at_any_time(a_and_b(), 10));
    assert_eq!((ids(&found), found.explain.stages[0].traces_located), (vec![7], 0));
}

#[test]
fn a_trace_in_the_range_is_found_by_a_span_outside_of_it() {
    let old = Oracle::of(vec![span(1, 1, "wanted", 10, 20)]);
    let new = Oracle::of(vec![span(1, 2, "other", 1000, 1010)]);
    let mut request = at_any_time(Filter::Span(named("wanted")), 10);
    request.range = TimeRange { start: UnixNano(500), end: UnixNano(2000) };
    assert_eq!(ids(&search(&[Arc::clone(&new), Arc::clone(&old)], &request)), [1]);
    request.range = TimeRange { start: UnixNano(1500), end: UnixNano(2000) };
    assert_eq!(ids(&search(&[new, old], &request)), [0_u8; 0]);
}

#[test]
fn a_trace_between_whose_spans_the_range_lies_is_found() {
    let sources = [Oracle::of(vec![span(1, 1, "a", 100, 110)]), Oracle::of(vec![span(1, 2, "b", 0, 10)])];
    let mut request = at_any_time(Filter::Span(named("b")), 10);
    request.range = TimeRange { start: UnixNano(50), end: UnixNano(60) };
    assert_eq!(ids(&search(&sources, &request)), [1]);
}

#[test]
fn whole_traces_around_the_range_are_not_examined() {
    let around = |from: u64| (0..100).map(move |n| span(n, 1, "a", from + u64::from(n), from + u64::from(n)));
    let sources = [
        Oracle::of(
            around(2000)
                .map(|mut entry| {
                    entry.span.trace_id.0[1] = 0xee;
                    entry
                })
                .collect(),
        ),
        Oracle::of(around(0).chain([span(200, 1, "a", 1000, 1001)]).collect()),
    ];
    let mut request = at_any_time(Filter::Span(named("a")), 10);
    request.range = TimeRange { start: UnixNano(900), end: UnixNano(1100) };
    let limits = Limits { examined_traces_max: 1, ..unlimited() };
    let found = search_in(&sources, &request, &limits, &at_hand()).expect("one trace is examined");
    assert_eq!(ids(&found), [200]);
}

#[test]
fn copies_count_once_and_twins_both() {
    let copy = || span(1, 1, "a", 10, 20);
    let sources = [Oracle::of(vec![copy(), copy()]), Oracle::of(vec![copy(), span(1, 1, "a", 10, 21)])];
    let found = search(&sources, &at_any_time(Filter::Span(named("a")), 10));
    assert_eq!((ids(&found), found.value[0].spansets[0].spans.len()), (vec![1], 2));
}

#[test]
fn unreadable_sources_are_skipped_and_named_once() {
    let good = Oracle::of((0..100).map(|n| span(n, 1, "a", u64::from(n), u64::from(n))).collect());
    let bad = |name: &str, fault| {
        Arc::new(Oracle { name: name.into(), fault: Some(fault), entries: good.entries.clone(), ..Oracle::default() })
    };
    let sources = [Arc::clone(&good), bad("block 1", Fault::Corrupt), bad("block 2", Fault::Unavailable)];
    let found = search(&sources, &at_any_time(Filter::Span(named("a")), 100));
    assert_eq!(found.value.len(), 100);
    let skipped: BTreeSet<&str> = found.skipped.iter().map(|skipped| skipped.object.as_str()).collect();
    assert_eq!((skipped, found.skipped.len()), (BTreeSet::from(["block 1", "block 2"]), 2));
}

#[test]
fn a_cancelled_search_ends() {
    let sources = [Oracle::of(vec![span(1, 1, "a", 0, 1)])];
    let ctx = QueryContext::new(&MemoryBudget::new(1 << 20), Arc::new(AtomicBool::new(true)));
    let result = search_in(&sources, &at_any_time(Filter::Span(named("a")), 1), &unlimited(), &ctx);
    assert_eq!(result.err(), Some(QueryError::Cancelled));
}

#[test]
fn a_search_that_needs_too_much_memory_names_the_limit() {
    let spans = (0..200).map(|n| span(n, 1, "a", u64::from(n), u64::from(n))).collect();
    let ctx = QueryContext::new(&MemoryBudget::new(4096), Arc::default());
    let result = search_in(&[Oracle::of(spans)], &at_any_time(Filter::Span(named("a")), 200), &unlimited(), &ctx);
    assert!(matches!(result, Err(QueryError::MemoryLimit { limit_bytes: 4096, .. })), "{result:?}");
}

/// 200 traces that satisfy both conditions, in two resources.
fn near_misses() -> (Vec<SpanEntry>, Filter) {
    let of_trace = |n: u8| {
        let (mut a, b) = (span(n, 1, "a", n.into(), n.into()), span(n, 2, "b", n.into(), n.into()));
        a.origin = origin("shop");
        [a, b]
    };
    let conditions = vec![GroupCondition::Span(named("a")), GroupCondition::Span(named("b"))];
    ((0..200).flat_map(of_trace).collect(), Filter::Group(conditions))
}

#[test]
fn traces_that_are_looked_at_and_dropped_cost_no_memory() {
    let (entries, filter) = near_misses();
    let source = Arc::new(Oracle { reserves_bytes: 1 << 16, ..Oracle::clone_of(entries) });
    let ctx = QueryContext::new(&MemoryBudget::new(1 << 20), Arc::default());
    let found = search_in(&[source], &at_any_time(filter, 10), &unlimited(), &ctx).expect("there is room");
    assert_eq!((found.value.len(), found.explain.stages[0].traces_assembled), (0, 200));
}

#[test]
fn too_many_examined_traces_and_results_name_their_limit() {
    let (entries, filter) = near_misses();
    let source = Oracle::of(entries);
    let limits = Limits { examined_traces_max: 150, result_traces_max: 10, ..unlimited() };
    let key_of = |limit| {
        let request = at_any_time(filter.clone(), limit);
        match search_in(&[Arc::clone(&source)], &request, &limits, &at_hand()) {
            Err(QueryError::Limit { key, .. }) => key,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((key_of(10), key_of(11)), ("query_max_examined_traces", "query_max_results"));
}

#[test]
fn legacy_tags_hold_within_one_resource() {
    let with = |mut entry: SpanEntry, service: &str| {
        entry.origin = origin(service);
        entry
    };
    let service = |name: &str| {
        let field = Field::Attribute(AttrScope::Resource, "service.name".into());
        GroupCondition::Span(is(field, Test::Contains(name.into())))
    };
    let sources = [Oracle::of(vec![
        with(span(1, 1, "root", 0, 9), "shop"),
        with(span(1, 2, "pay", 1, 5), "cart"),
        with(span(2, 1, "root", 10, 19), "cart"),
        with(span(2, 2, "pay", 11, 12), "cart"),
    ])];
    let pay = || GroupCondition::Span(named("pay"));
    let found = |conditions| ids(&search(&sources, &at_any_time(Filter::Group(conditions), 10)));
    assert_eq!(found(vec![service("cart"), pay()]), [2, 1]);
    assert_eq!(found(vec![service("shop"), pay()]), [0_u8; 0]);
    assert_eq!(found(vec![GroupCondition::Span(named("root")), pay()]), [2]);
}

#[test]
fn the_root_is_the_last_span_without_a_parent() {
    let mut child = span(1, 1, "child", 0, 9);
    child.span.parent_span_id = SpanId([7; 8]);
    let mut linked = span(1, 4, "linked", 5, 9);
    linked.span.links.push(Link {
        trace_id: linked.span.trace_id,
        attributes: vec![KeyValue::new("opentracing.ref_type", Value::Str("child_of".into()))],
        ..Link::default()
    });
    let entries = vec![child.clone(), span(1, 2, "first", 1, 9), span(1, 3, "last", 2, 3), linked];
    let trace = Trace::assemble(child.span.trace_id, entries).expect("has spans");
    assert_eq!(root(&trace).map(|entry| entry.span.name.as_str()), Some("last"));
    let orphan = Trace::assemble(child.span.trace_id, vec![child]).expect("has spans");
    assert_eq!(root(&orphan), None);
}
