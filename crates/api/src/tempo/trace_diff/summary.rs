//! `trace-summary-v0-native`: the differences as numbers, for the trace and by service.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};
use spoor_model::span::STATUS_ERROR;

use super::forest::{Forest, Matching};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sums {
    spans: u64,
    errors: u64,
    duration_nanos: u64,
}

fn by_service<'a>(forest: &Forest<'a>) -> BTreeMap<&'a str, Sums> {
    let mut services: BTreeMap<&str, Sums> = BTreeMap::new();
    for (index, entry) in forest.trace.entries.iter().enumerate() {
        let sums = services.entry(forest.service(index)).or_default();
        sums.spans += 1;
        sums.errors += u64::from(entry.span.status.code == STATUS_ERROR);
        sums.duration_nanos = sums.duration_nanos.saturating_add(entry.span.duration_nano());
    }
    services
}

fn compared(base: u64, compare: u64) -> Json {
    json!({"base": base, "compare": compare, "delta": i128::from(compare) - i128::from(base)})
}

/// One when nothing is there to differ.
fn ratio(part: usize, whole: usize) -> f64 {
    if whole == 0 { 1.0 } else { part as f64 / whole as f64 }
}

/// The summary.
pub(super) fn of(base: &Forest<'_>, compare: &Forest<'_>, matching: &Matching) -> Json {
    let (left, right) = (by_service(base), by_service(compare));
    let total =
        |services: &BTreeMap<&str, Sums>, of: fn(&Sums) -> u64| services.values().map(of).fold(0, u64::saturating_add);
    let both = |of: fn(&Sums) -> u64| compared(total(&left, of), total(&right, of));
    let latency = |forest: &Forest<'_>| {
        let range = forest.trace.range();
        range.end.0.saturating_sub(range.start.0)
    };
    let (edges, other_edges) = (base.edges(), compare.edges());
    let common = edges.intersection(&other_edges).count();
    let services: Vec<Json> = left
        .keys()
        .chain(right.keys().filter(|name| !left.contains_key(*name)))
        .map(|name| {
            let of = |services: &BTreeMap<&str, Sums>| services.get(name).copied().unwrap_or_default();
            let (left, right) = (of(&left), of(&right));
            json!({
                "service": name,
                "spanCount": compared(left.spans, right.spans),
                "errors": compared(left.errors, right.errors),
                "sumSpanDurationNanos": compared(left.duration_nanos, right.duration_nanos),
            })
        })
        .collect();
    let changed: Vec<&str> = {
        let differs = |name: &&&str| {
            let counts = |services: &BTreeMap<&str, Sums>| services.get(**name).map(|sums| (sums.spans, sums.errors));
            counts(&left) != counts(&right)
        };
        let names: std::collections::BTreeSet<&str> = left.keys().chain(right.keys()).copied().collect();
        names.iter().filter(differs).copied().collect()
    };
    json!({
        "version": "trace-summary-v0-native",
        "base": super::patch::side(base),
        "compare": super::patch::side(compare),
        "signals": {
            "traceLatency": compared(latency(base), latency(compare)),
            "sumSpanDuration": both(|sums| sums.duration_nanos),
            "errors": both(|sums| sums.errors),
            "spanCount": both(|sums| sums.spans),
            "structure": {"added": matching.added.len(), "removed": matching.removed.len()},
        },
        "trust": {
            "matchedSpanRatio": ratio(2 * matching.pairs.len(), base.trace.entries.len() + compare.trace.entries.len()),
            "structureOverlap": ratio(common, edges.len() + other_edges.len() - common),
        },
        "stats": {
            "matchedSpans": matching.pairs.len(),
            "addedSpans": matching.added.len(),
            "removedSpans": matching.removed.len(),
            "spanCountDelta": compare.trace.entries.len() as i64 - base.trace.entries.len() as i64,
            "serviceCountDelta": right.len() as i64 - left.len() as i64,
        },
        "warnings": super::warnings(base, compare, matching),
        "changedServices": changed,
        "services": services,
    })
}
