use std::time::Duration;

use proptest::prelude::*;
use spoor_model::structure::Tree;
use spoor_model::{SpanEntry, SpanId, Trace, TraceId};

use super::*;
use crate::Limits;
use crate::lookup::tests::{querier, querier_with};
use crate::oracle::{Oracle, at_hand, origin, span};
use crate::search::tests::any_sources;

fn naive(sources: &[Arc<Oracle>], range: TimeRange) -> (Calls, Duration) {
    let mut by_trace: BTreeMap<TraceId, Vec<SpanEntry>> = BTreeMap::new();
    for entry in sources.iter().flat_map(|source| &source.entries) {
        by_trace.entry(entry.span.trace_id).or_default().push(entry.clone());
    }
    let (mut edges, mut longest) = (Calls::new(), Duration::ZERO);
    for trace in by_trace.into_iter().filter_map(|(id, entries)| Trace::assemble(id, entries)) {
        longest = longest.max(trace.range().end.since(trace.range().start));
        let tree = Tree::of(&trace);
        let entry = |place: usize| &trace.entries[tree.order[place]];
        let service = |place: usize| entry(place).origin.service_name().map(Arc::from);
        for (place, parent) in tree.parents.iter().enumerate().filter(|(_, parent)| **parent < MISSING) {
            if (range.start..=range.end).contains(&entry(place).span.start) {
                *edges.entry((service(*parent as usize), service(place))).or_default() += 1;
            }
        }
    }
    (edges, longest)
}

proptest! {
    #[test]
    fn every_call_counts_once_however_its_trace_is_spread(
        sources in any_sources(),
        start in 0_u64..70,
        length in 0_u64..70,
    ) {
        let range = TimeRange { start: UnixNano(start), end: UnixNano(start + length) };
        let (expect, longest) = naive(&sources, range);
        let limits = Limits { trace_duration_max: longest, ..Limits::default() };
        let querier = querier_with(sources, limits);
        let answer = querier.dependencies(&[TenantId::single()], range, &at_hand()).expect("nothing fails");
        prop_assert_eq!(answer.value, expect);
    }
}

fn of(service: &str, id: u8, parent: u8, start: u64) -> SpanEntry {
    let mut entry = span(1, id, "a", start, start + 10);
    entry.span.parent_span_id = SpanId([parent; 8]);
    entry.origin = origin(service);
    entry
}

#[test]
fn a_call_across_sources_is_an_edge_and_an_orphan_is_none() {
    let (querier, _) = querier(vec![
        Oracle::of(vec![of("web", 1, 0, 10), of("web", 2, 1, 11)]),
        Oracle::of(vec![of("cart", 3, 2, 20), of("cart", 4, 2, 90), of("lost", 5, 9, 20)]),
    ]);
    let edges = |start, end| {
        let range = TimeRange { start: UnixNano(start), end: UnixNano(end) };
        let edges = querier.dependencies(&[TenantId::single()], range, &at_hand()).expect("nothing fails").value;
        let text = |name: &Service| name.as_deref().unwrap_or("none").to_owned();
        edges.iter().map(|((a, b), count)| (text(a), text(b), *count)).collect::<Vec<_>>()
    };
    let edge = |a: &str, b: &str, count| (a.to_owned(), b.to_owned(), count);
    assert_eq!(edges(0, 100), [edge("web", "cart", 2), edge("web", "web", 1)]);
    // The parent starts before the range; the call does not.
    assert_eq!(edges(15, 50), [edge("web", "cart", 1)]);
    assert_eq!(edges(51, 60), []);
}
