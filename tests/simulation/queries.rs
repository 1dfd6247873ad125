//! The same question to the store and to the oracle.

use std::collections::BTreeSet;
use std::sync::Arc;

use spoor_model::{SpanEntry, TenantId, TimeRange, Trace, Value};
use spoor_querier::{Filter, Querier, SearchRequest};
use spoor_testkit::answer::{FoundSpan, FoundSpanset, FoundTrace, Series, Window, are_close, outline};
use spoor_testkit::oracle::Oracle;
use spoor_traceql::{MatchedSpanset, SearchPlan, Static, parse, plan_metrics, plan_search};

use crate::traffic::context;

fn pair((key, value): &(Arc<str>, Static)) -> (String, Value) {
    (key.to_string(), value.to_value())
}

fn shown(plan: &SearchPlan, trace: &Trace, spansets: &[MatchedSpanset]) -> FoundTrace {
    let span = |index: &usize| FoundSpan {
        id: trace.entries[*index].span.span_id,
        name: plan.shows_name().then(|| trace.entries[*index].span.name.clone()),
        attributes: Vec::new(),
    };
    let spanset = |found: &MatchedSpanset| FoundSpanset {
        spans: found.spans.iter().map(span).collect(),
        attributes: found.attributes.iter().map(|(key, value)| (key.clone(), value.to_value())).collect(),
    };
    FoundTrace { id: trace.id, spansets: spansets.iter().map(spanset).collect() }
}

/// A search finds what the oracle finds in the same spans.
pub(crate) fn compare_search(querier: &Querier, entries: &[SpanEntry], query: &str, range: TimeRange, place: &str) {
    let parsed = parse(query).unwrap();
    let expected = Oracle::new(entries.to_vec()).search_in(&parsed, range);
    let Ok(plan) = plan_search(&parsed) else {
        assert!(expected.is_err(), "{place}: {query} is refused");
        return;
    };
    let request = SearchRequest {
        filter: Filter::Query(plan.clone()),
        min_duration_nano: None,
        max_duration_nano: None,
        range,
        limit: 10_000,
    };
    let answer = querier.search(&[TenantId::single()], &request, &context()).unwrap();
    assert_eq!(answer.skipped, [], "{place}");
    let got: Vec<FoundTrace> = answer.value.iter().map(|found| shown(&plan, &found.trace, &found.spansets)).collect();
    // Traces that start together stand in the order of ids in one and of their arrival in the other.
    let [got, expected] =
        [got, expected.unwrap()].map(|found| outline(&found).into_iter().collect::<BTreeSet<String>>());
    let (missing, invented) = (expected.difference(&got), got.difference(&expected));
    let differences: Vec<String> = missing
        .map(|found| format!("missing {found}"))
        .chain(invented.map(|found| format!("invented {found}")))
        .collect();
    assert!(differences.is_empty(), "{place}: {query} in {range:?}: {}", differences.join("\n"));
}

/// Series are those that the oracle counts.
pub(crate) fn compare_metrics(querier: &Querier, entries: &[SpanEntry], query: &str, range: TimeRange, place: &str) {
    // Keeps the ten most frequent values; the oracle keeps all, and here there are more.
    if query.contains("compare(") {
        return;
    }
    let parsed = parse(query).unwrap();
    let step = ((range.end.0 - range.start.0) / 7).max(1);
    let window = Window { from: range.start.0, to: range.start.0 + 7 * step, step };
    let expected = Oracle::new(entries.to_vec()).metrics(&parsed, window);
    let Ok(plan) = plan_metrics(&parsed) else {
        assert!(expected.is_err(), "{place}: {query} is refused");
        return;
    };
    let asked = spoor_traceql::Window::exact(window.from, window.to, window.step);
    let answer = querier.metrics(&[TenantId::single()], &plan, &asked, 0, &context()).unwrap();
    assert_eq!(answer.skipped, [], "{place}");
    let series = |series: &spoor_traceql::Series| Series {
        labels: series.labels.iter().map(pair).collect(),
        points: series.values.clone(),
    };
    let got: Vec<Series> = answer.value.iter().map(series).collect();
    let expected = expected.unwrap();
    let only = |these: &[Series], those: &[Series]| -> Vec<Series> {
        let is_there =
            |series: &&Series| !those.iter().any(|other| are_close(&[(*series).clone()], std::slice::from_ref(other)));
        these.iter().filter(is_there).cloned().collect()
    };
    let (invented, missing) = (only(&got, &expected), only(&expected, &got));
    assert!(are_close(&got, &expected), "{place}: {query}: {invented:?} instead of {missing:?}");
}
