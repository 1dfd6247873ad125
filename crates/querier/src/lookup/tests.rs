use std::sync::LazyLock;

use prometheus_client::registry::Registry;
use spoor_model::compute::ComputePool;
use spoor_model::scan::{AttrScope, Snapshots};
use spoor_model::{Clock, UnixNano};

use super::*;
use crate::oracle::{Fault, Oracle, at_hand, origin, span};
use crate::{Limits, Metrics};

struct Fixed(Vec<Arc<dyn SpanSource>>);

impl Snapshots for Fixed {
    fn snapshot(&self, tenant: &TenantId) -> Snapshot {
        let is_known = *tenant == TenantId::single();
        Snapshot { sources: if is_known { self.0.clone() } else { Vec::new() }, skipped: Vec::new() }
    }
}

struct Stopped;

impl Clock for Stopped {
    fn now(&self) -> UnixNano {
        UnixNano(0)
    }
}

pub(crate) fn querier(sources: Vec<Arc<Oracle>>) -> (Querier, Registry) {
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let pool = Arc::new(ComputePool::new("test", 2).expect("threads start"));
    (of_sources(sources, pool, Limits::default(), metrics), registry)
}

/// A querier for a property, of which there are many: they share their threads.
pub(crate) fn querier_with(sources: Vec<Arc<Oracle>>, limits: Limits) -> Querier {
    static POOL: LazyLock<Arc<ComputePool>> =
        LazyLock::new(|| Arc::new(ComputePool::new("test", 2).expect("threads start")));
    of_sources(sources, Arc::clone(&POOL), limits, Metrics::register(&mut Registry::default()))
}

fn of_sources(sources: Vec<Arc<Oracle>>, pool: Arc<ComputePool>, limits: Limits, metrics: Metrics) -> Querier {
    let sources = sources.into_iter().map(|source| source as Arc<dyn SpanSource>).collect();
    Querier::new(Arc::new(Fixed(sources)), pool, limits, Arc::new(Stopped), metrics)
}

fn of_service(mut entry: SpanEntry, service: &str) -> SpanEntry {
    entry.origin = origin(service);
    entry
}

#[test]
fn a_trace_is_assembled_from_all_sources_without_copies() {
    let (querier, _) = querier(vec![
        Oracle::of(vec![span(1, 1, "a", 5, 6), span(2, 1, "x", 5, 6)]),
        Oracle::of(vec![span(1, 2, "b", 1, 9), span(1, 1, "a", 5, 6)]),
    ]);
    let find = |id| querier.find_trace(&TenantId::single(), TraceId([id; 16]), &at_hand()).expect("nothing fails");
    let trace = find(1).value.expect("is there");
    let names: Vec<&str> = trace.entries.iter().map(|entry| entry.span.name.as_str()).collect();
    assert_eq!(names, ["b", "a"]);
    assert_eq!(find(3).value, None);
}

#[test]
fn a_trace_is_found_in_what_can_be_read() {
    let entries = vec![span(1, 1, "a", 5, 6)];
    let bad = Oracle { name: "block 7".into(), fault: Some(Fault::Corrupt), ..Oracle::default() };
    let (querier, _) = querier(vec![Arc::new(bad), Oracle::of(entries)]);
    let answer = querier.find_trace(&TenantId::single(), TraceId([1; 16]), &at_hand()).expect("goes on");
    assert!(answer.value.is_some());
    assert_eq!(answer.skipped, [Skipped { object: "block 7".into(), reason: "told to fail".into() }]);
}

#[test]
fn names_values_and_operations_are_those_of_sources_in_the_range() {
    let (querier, _) = querier(vec![
        Oracle::of(vec![of_service(span(1, 1, "a", 100, 110), "shop")]),
        Oracle::of(vec![of_service(span(2, 1, "b", 50, 60), "cart")]),
        Oracle::of(vec![of_service(span(3, 1, "c", 0, 10), "old")]),
    ]);
    let (tenant, ctx) = (TenantId::single(), at_hand());
    let range = TimeRange { start: UnixNano(60), end: UnixNano(200) };
    let keys = querier.keys(&tenant, range, &ctx).expect("nothing fails").value;
    assert_eq!(keys[&AttrScope::Resource], BTreeSet::from(["service.name".to_owned()]));
    let operations = querier.operations(&tenant, range, &ctx).expect("nothing fails").value;
    let services: Vec<_> = operations.iter().filter_map(|operation| operation.service.as_deref()).collect();
    assert_eq!(services, ["cart", "shop"]);
    let values = |limit_bytes| querier.values(&tenant, &Field::Name, range, limit_bytes, &ctx).expect("works").value;
    let texts = |names: &[&str]| names.iter().map(|name| Value::Str((*name).to_owned())).collect::<Vec<_>>();
    assert_eq!(values(100), (texts(&["a", "b"]), true));
    assert!(!values(1).1);
}

#[test]
fn blocks_whose_filter_was_wrong_are_counted_and_heads_are_not() {
    let block = |number, trace| {
        let (identity, entries) = (Some(BlockId(number)), vec![span(trace, 1, "a", 5, 6)]);
        Arc::new(Oracle { identity, entries, ..Oracle::default() })
    };
    let bad = Oracle { identity: Some(BlockId(4)), fault: Some(Fault::Corrupt), ..Oracle::default() };
    let head = Oracle::of(vec![span(9, 1, "a", 5, 6)]);
    // Each says of every trace that it may hold it.
    let (querier, registry) = querier(vec![block(1, 1), block(2, 2), block(3, 2), Arc::new(bad), head]);
    for (trace, hits, false_hits) in [(1, 3, 2), (2, 6, 3), (9, 9, 6), (3, 12, 9)] {
        querier.find_trace(&TenantId::single(), TraceId([trace; 16]), &at_hand()).expect("nothing fails");
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("a string takes everything");
        for line in [
            format!("spoor_querier_filter_hits_total {hits}\n"),
            format!("spoor_querier_filter_false_hits_total {false_hits}\n"),
        ] {
            assert!(text.contains(&line), "trace {trace}: {line} is not in\n{text}");
        }
    }
}

#[test]
fn queries_are_counted_under_tempos_names_too() {
    let (querier, registry) = querier(vec![Oracle::of(vec![span(1, 1, "a", 5, 6)])]);
    querier.find_trace(&TenantId::single(), TraceId([1; 16]), &at_hand()).expect("nothing fails");
    let invented = TenantId::parse("invented").expect("is a name");
    querier.find_trace(&invented, TraceId([1; 16]), &at_hand()).expect("nothing fails");
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).expect("a string takes everything");
    for line in [
        "spoor_querier_queries_total{op=\"traces\",result=\"completed\"} 2",
        "spoor_querier_inspected_spans_total{op=\"traces\"} 1",
        "tempo_query_frontend_queries_total{tenant=\"single-tenant\",op=\"traces\",result=\"completed\"} 1",
        "tempo_query_frontend_queries_total{tenant=\"unknown\",op=\"traces\",result=\"completed\"} 1",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}
