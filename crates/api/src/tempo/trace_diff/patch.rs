//! `trace-patch-v0`: what changed, span by span.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};
use spoor_model::{KeyValue, Span, Value};

use super::forest::{Forest, Matching};
use crate::value_text::Plain;

/// Spans that are told of; further ones are only counted, and `truncated` says so.
const SPANS_MAX: usize = 10_000;

const KINDS: [&str; 6] = ["unspecified", "internal", "server", "client", "producer", "consumer"];
const STATUSES: [&str; 3] = ["unset", "ok", "error"];

fn named(number: i32, names: &[&'static str]) -> &'static str {
    usize::try_from(number).ok().and_then(|index| names.get(index)).copied().unwrap_or(names[0])
}

/// How much was found.
#[derive(Default)]
struct Found {
    fields: usize,
    attributes: usize,
    events: usize,
}

/// The patch.
pub(super) fn of(base: &Forest<'_>, compare: &Forest<'_>, matching: &Matching) -> Json {
    let mut found = Found::default();
    let (mut modified, mut modified_count) = (Vec::new(), 0);
    for (left, right) in &matching.pairs {
        let events_before = found.events;
        let changes = changes((base, *left), (compare, *right), &mut found);
        if changes.is_empty() && found.events == events_before {
            continue;
        }
        modified_count += 1;
        if modified.len() < SPANS_MAX {
            let (path, span) = (base.path(*left), base.span(*left));
            let (service, kind) = (base.service(*left), named(span.kind, &KINDS));
            let span = json!({"path": path, "service": service, "name": span.name, "kind": kind});
            modified.push(json!({"span": span, "changes": changes}));
        }
    }
    let only_in = |forest: &Forest<'_>, spans: &[usize]| -> Vec<Json> {
        spans.iter().take(SPANS_MAX).map(|index| whole(forest, *index)).collect()
    };
    let is_truncated = modified_count.max(matching.added.len()).max(matching.removed.len()) > SPANS_MAX;
    let stats = json!({
        "spanCountA": base.trace.entries.len(),
        "spanCountB": compare.trace.entries.len(),
        "matchedSpans": matching.pairs.len(),
        "modifiedSpans": modified_count,
        "addedSpans": matching.added.len(),
        "removedSpans": matching.removed.len(),
        "fieldChanges": found.fields,
        "attributeChanges": found.attributes,
        "eventChanges": found.events,
        "truncated": is_truncated,
    });
    json!({
        "version": "trace-patch-v0",
        "base": side(base),
        "compare": side(compare),
        "stats": stats,
        "modified": modified,
        "added": only_in(compare, &matching.added),
        "removed": only_in(base, &matching.removed),
        "warnings": super::warnings(base, compare, matching),
    })
}

/// Which trace, and how large.
pub(super) fn side(forest: &Forest<'_>) -> Json {
    json!({"traceId": forest.trace.id.to_string(), "spanCount": forest.trace.entries.len()})
}

fn whole(forest: &Forest<'_>, index: usize) -> Json {
    let span = forest.span(index);
    let parent_path = forest.parent(index).map(|parent| forest.path(parent)).unwrap_or_default();
    let path = forest.path(index);
    json!({
        "target": {"type": "span", "path": path, "parentPath": parent_path, "index": forest.place(index)},
        "span": {
            "path": path,
            "service": forest.service(index),
            "name": span.name,
            "kind": named(span.kind, &KINDS),
            "duration_nanos": span.duration_nano(),
            "status": named(span.status.code, &STATUSES),
        },
    })
}

fn changes(base: (&Forest<'_>, usize), compare: (&Forest<'_>, usize), found: &mut Found) -> Vec<Json> {
    let (before, after) = (base.0.span(base.1), compare.0.span(compare.1));
    let mut changes = Vec::new();
    let mut field = |name: &str, before: Json, after: Json| {
        if before != after {
            let target = json!({"type": "field", "name": name});
            changes.push(json!({"op": "modify", "target": target, "before": before, "after": after}));
        }
    };
    field("duration_nanos", json!(before.duration_nano()), json!(after.duration_nano()));
    let status = |span: &Span| json!(named(span.status.code, &STATUSES));
    field("status", status(before), status(after));
    found.fields += changes.len();
    let fields = changes.len();
    let resource =
        |(forest, index): (&Forest<'_>, usize)| forest.trace.entries[index].origin.resource.attributes.clone();
    attribute_changes("span", &before.attributes, &after.attributes, &mut changes);
    attribute_changes("resource", &resource(base), &resource(compare), &mut changes);
    found.attributes += changes.len() - fields;
    found.events += event_changes(before, after);
    changes
}

fn attribute_changes(scope: &str, before: &[KeyValue], after: &[KeyValue], changes: &mut Vec<Json>) {
    let by_key = |attributes: &[KeyValue]| -> BTreeMap<String, Value> {
        attributes.iter().rev().map(|attribute| (attribute.key.clone(), attribute.value.clone())).collect()
    };
    let (before, mut after) = (by_key(before), by_key(after));
    let target = |key: &str| json!({"type": "attribute", "scope": scope, "key": key});
    let shown = |value: &Value| serde_json::to_value(Plain(value)).unwrap_or_default();
    for (key, old) in &before {
        match after.remove(key) {
            Some(new) if new == *old => {}
            Some(new) => {
                changes
                    .push(json!({"op": "modify", "target": target(key), "before": shown(old), "after": shown(&new)}));
            }
            None => changes.push(json!({"op": "remove", "target": target(key), "before": shown(old)})),
        }
    }
    for (key, new) in &after {
        changes.push(json!({"op": "add", "target": target(key), "after": shown(new)}));
    }
}

/// Events that one span has by name and the other has not.
fn event_changes(before: &Span, after: &Span) -> usize {
    let mut counts: BTreeMap<&str, i64> = BTreeMap::new();
    before.events.iter().for_each(|event| *counts.entry(&event.name).or_default() -= 1);
    after.events.iter().for_each(|event| *counts.entry(&event.name).or_default() += 1);
    counts.values().map(|count| count.unsigned_abs() as usize).sum()
}
