use proptest::prelude::*;
use serde_json::json;
use spoor_model::{KeyValue, Origin, Span, SpanEntry, SpanId, TraceId, UnixNano, Value};

use super::*;

/// Spans with parents and names by number; a name of 9 stands for one with digits.
fn trace(id: u8, spans: &[(u8, u8, u8)]) -> Trace {
    let origin = Arc::new(Origin::default());
    let id = TraceId([id; 16]);
    let entry = |(number, (span, parent, name)): (usize, &(u8, u8, u8))| {
        let mut entry = SpanEntry { origin: Arc::clone(&origin), span: Span::default() };
        entry.span.trace_id = id;
        entry.span.span_id = SpanId([*span; 8]);
        entry.span.parent_span_id = SpanId([*parent; 8]);
        entry.span.name = format!("n{name}");
        entry.span.start = UnixNano(1_000 + number as u64);
        entry.span.end = UnixNano(2_000);
        entry.span.attributes = vec![KeyValue::new("span", Value::Int(i64::from(*span)))];
        entry
    };
    Trace::assemble(id, spans.iter().enumerate().map(entry).collect()).unwrap()
}

fn spans() -> impl Strategy<Value = Vec<(u8, u8, u8)>> {
    proptest::collection::vec((1u8..20, 0u8..20, 0u8..4), 1..30)
}

proptest! {
    /// Cycles, missing parents, shared ids: every span is in exactly one place.
    #[test]
    fn every_span_is_matched_added_or_removed_once(one in spans(), other in spans()) {
        let (one, other) = (trace(1, &one), trace(2, &other));
        let (base, compare) = (Forest::new(&one), Forest::new(&other));
        let Matching { pairs, removed, added } = Matching::new(&base, &compare);
        let mut left: Vec<usize> = pairs.iter().map(|(left, _)| *left).chain(removed).collect();
        let mut right: Vec<usize> = pairs.iter().map(|(_, right)| *right).chain(added).collect();
        left.sort_unstable();
        right.sort_unstable();
        prop_assert_eq!(left, (0..one.entries.len()).collect::<Vec<_>>());
        prop_assert_eq!(right, (0..other.entries.len()).collect::<Vec<_>>());
        for (left, right) in pairs {
            prop_assert_eq!(base.path(left), compare.path(right));
        }
    }

    #[test]
    fn a_trace_does_not_differ_from_itself(spans in spans()) {
        let (one, same) = (trace(1, &spans), trace(1, &spans));
        let patch = differences(&one, &same, Format::Patch);
        prop_assert_eq!((&patch["modified"], &patch["added"], &patch["removed"]), (&json!([]), &json!([]), &json!([])));
        let summary = differences(&one, &same, Format::Summary);
        prop_assert_eq!(&summary["trust"], &json!({"matchedSpanRatio": 1.0, "structureOverlap": 1.0}));
        prop_assert_eq!(&summary["changedServices"], &json!([]));
    }

    #[test]
    fn what_is_added_one_way_is_removed_the_other(one in spans(), other in spans()) {
        let (one, other) = (trace(1, &one), trace(2, &other));
        let (forth, back) = (differences(&one, &other, Format::Patch), differences(&other, &one, Format::Patch));
        prop_assert_eq!(&forth["added"], &back["removed"]);
        prop_assert_eq!(&forth["stats"]["attributeChanges"], &back["stats"]["attributeChanges"]);
    }
}

#[test]
fn large_patches_are_left_out_of_composed_answers() {
    let many: Vec<(u8, u8, u8)> = (1..250).map(|number| (number, number - 1, number)).collect();
    let composed = differences(&trace(1, &[(1, 0, 251)]), &trace(2, &many), Format::Composed);
    assert_eq!(composed.get("patch"), None);
    assert_eq!(composed["patchOmitted"]["reason"], "over_budget");
    let composed = differences(&trace(1, &[(1, 0, 1)]), &trace(2, &[(1, 0, 2)]), Format::Composed);
    assert_eq!(composed["patch"]["stats"]["addedSpans"], 1);
    assert_eq!(composed["patch"]["warnings"][0]["code"], "high_cardinality_span_name");
}
