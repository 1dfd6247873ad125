use std::sync::Arc;

use super::*;
use spoor_model::{Link, Origin, Resource, Span, TraceId, UnixNano};

const TRACE: TraceId = TraceId([1; 16]);

fn id(number: u64) -> SpanId {
    SpanId(number.to_be_bytes())
}

/// A span of `kind` from `start` to `end` on a host.
fn entry(span_id: u64, parent: u64, kind: i32, times: (u64, u64), host: &str) -> SpanEntry {
    let attributes = vec![KeyValue::new("host.name", Value::Str(host.to_owned()))];
    let resource = Resource { attributes, ..Resource::default() };
    let span = Span {
        trace_id: TRACE,
        span_id: id(span_id),
        parent_span_id: id(parent),
        kind,
        start: UnixNano(times.0),
        end: UnixNano(times.1),
        ..Span::default()
    };
    SpanEntry { origin: Arc::new(Origin { resource, ..Origin::default() }), span }
}

fn warnings(entries: Vec<SpanEntry>) -> Vec<Vec<String>> {
    adjusted(entries, Duration::ZERO).into_iter().map(|view| view.warnings).collect()
}

#[test]
fn a_shared_id_is_split_and_children_go_to_the_server() {
    let views = adjusted(
        vec![
            entry(9, 0, KIND_CLIENT, (0, 10), "a"),
            entry(9, 0, KIND_SERVER, (1, 9), "a"),
            entry(1, 9, 1, (2, 3), "a"),
        ],
        Duration::ZERO,
    );
    let ids: Vec<(SpanId, SpanId)> =
        views.iter().map(|view| (view.entry.span.span_id, view.entry.span.parent_span_id)).collect();
    assert_eq!(ids, [(id(9), id(0)), (id(2), id(9)), (id(1), id(2))]);
}

#[test]
fn skew_against_the_parent_on_another_host_is_reported_and_handed_down() {
    let reports = warnings(vec![
        entry(1, 0, 1, (100_000, 200_000), "a"),
        // Lies within its parent: nothing to say.
        entry(2, 1, 1, (110_000, 190_000), "b"),
        // Shorter than its parent and before it: would be centred.
        entry(3, 1, 1, (10_000, 70_000), "b"),
        // On the host of its parent, so off by as much.
        entry(4, 3, 1, (20_000, 30_000), "b"),
        // Longer than its parent, and after its start.
        entry(5, 1, 1, (150_000, 900_000), "c"),
    ]);
    let disabled = "clock skew adjustment disabled; not applying calculated delta of 110\u{b5}s".to_owned();
    assert_eq!(reports, [vec![], vec![], vec![disabled.clone()], vec![disabled], vec![]]);
}

#[test]
fn lost_parents_and_repeated_ids_are_reported() {
    let reports =
        warnings(vec![entry(1, 7, 1, (0, 10), "a"), entry(2, 1, 1, (0, 10), "a"), entry(2, 1, 1, (1, 9), "a")]);
    let lost = "parent span ID=0000000000000007 is not in the trace; skipping clock skew adjustment".to_owned();
    let repeated = "duplicate span IDs; skipping clock skew adjustment".to_owned();
    assert_eq!(reports, [vec![lost], vec![], vec![repeated]]);
}

#[test]
fn spans_that_are_their_own_ancestors_are_left_alone() {
    let reports = warnings(vec![entry(1, 2, 1, (0, 10), "a"), entry(2, 1, 1, (50, 90), "b")]);
    assert_eq!(reports, [Vec::<String>::new(), vec![]]);
}

#[test]
fn attributes_are_sorted_addresses_written_and_empty_links_dropped() {
    let mut one = entry(1, 0, 1, (0, 10), "a");
    one.span.attributes =
        vec![KeyValue::new("z", Value::Bool(true)), KeyValue::new("peer.ipv4", Value::Int(0x7f00_0001))];
    one.span.links = vec![Link::default(), Link { trace_id: TRACE, span_id: id(3), ..Link::default() }];
    let view = adjusted(vec![one], Duration::ZERO).remove(0);
    let expected = [KeyValue::new("peer.ipv4", Value::Str("127.0.0.1".into())), KeyValue::new("z", Value::Bool(true))];
    assert_eq!(view.entry.span.attributes, expected);
    assert_eq!(view.entry.span.links.len(), 1);
    assert_eq!(view.warnings, ["Invalid span link removed"]);
}

#[test]
fn clocks_may_be_off_by_centuries() {
    let reports = warnings(vec![entry(1, 0, 1, (u64::MAX - 9, u64::MAX), "a"), entry(2, 1, 1, (1, 2), "b")]);
    assert!(reports[1][0].ends_with("delta of 2562047h47m16.854775807s"), "{reports:?}");
}

#[test]
fn skew_is_applied_as_far_as_it_is_allowed() {
    let of = |skew_max: u64| {
        let entries = vec![
            entry(1, 0, 1, (100_000, 200_000), "a"),
            entry(3, 1, 1, (10_000, 70_000), "b"),
            entry(4, 3, 1, (20_000, 30_000), "b"),
        ];
        let views = adjusted(entries, Duration::from_nanos(skew_max));
        views.into_iter().map(|view| (view.entry.span.start.0, view.warnings)).collect::<Vec<_>>()
    };
    let applied = vec!["This span's timestamps were adjusted by 110\u{b5}s".to_owned()];
    assert_eq!(of(110_000), [(100_000, vec![]), (120_000, applied.clone()), (130_000, applied)]);
    let text = "max clock skew adjustment delta of 109\u{b5}s exceeded; not applying calculated delta of 110\u{b5}s";
    let refused = vec![text.to_owned()];
    assert_eq!(of(109_000), [(100_000, vec![]), (10_000, refused.clone()), (20_000, refused)]);
}
