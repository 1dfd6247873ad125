//! Series of hand-made spans; the worked data set of the contract.

use std::sync::Arc;

use proptest::prelude::*;
use spoor_model::bits::Bits;
use spoor_model::columns::ColumnBatch;
use spoor_model::{KeyValue, Origin, Resource, Span, SpanEntry, SpanId, Trace, TraceId, UnixNano, Value};

use super::*;
use crate::parse;

const SECOND: u64 = 1_000_000_000;

/// Fifty spans: span i starts at second i and lasts i seconds, of the service `even` or `odd`, each in a trace
/// of its own.
fn fifty() -> Vec<Trace> {
    let trace = |i: u64| {
        let service = if i.is_multiple_of(2) { "even" } else { "odd" };
        let attributes = vec![KeyValue::new("service.name", Value::Str(service.into()))];
        let origin = Origin { resource: Resource { attributes, ..Resource::default() }, ..Origin::default() };
        let trace_id = TraceId([i as u8; 16]);
        let span = Span {
            trace_id,
            span_id: SpanId([i as u8; 8]),
            name: "test".into(),
            start: UnixNano(i * SECOND),
            end: UnixNano(2 * i * SECOND),
            attributes: vec![KeyValue::new("i", Value::Int(i as i64))],
            ..Span::default()
        };
        Trace::assemble(trace_id, vec![SpanEntry { origin: Arc::new(origin), span }]).expect("has a span")
    };
    (1..=50).map(trace).collect()
}

fn keys() -> KeySet {
    let keys = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect();
    use spoor_model::scan::AttrScope;
    KeySet::from([(AttrScope::Resource, keys(&["service.name"])), (AttrScope::Span, keys(&["i"]))])
}

/// Batches of `batch_traces` traces each, added one after the other or merged pairwise from the end.
fn compute(query: &str, window: Window, batch_traces: usize, merged: bool) -> Vec<Series> {
    let plan = plan_metrics(&parse(query).unwrap()).unwrap().with_attributes(&keys());
    let traces = fifty();
    let results = plan.operands().iter().map(|operand| {
        let request = operand.request(&window, 100);
        let batches = traces.chunks(batch_traces).map(|traces| ColumnBatch::of_traces(traces, &request));
        let mut whole = operand.start(&window, 100);
        let mut partials = Vec::new();
        for batch in batches {
            let mut partial = operand.start(&window, 100);
            let into = if merged { &mut partial } else { &mut whole };
            operand.add(into, &batch, &Bits::none(batch.trace_count()));
            partials.push(partial);
        }
        partials.iter().rev().for_each(|partial| operand.merge(&mut whole, partial));
        whole
    });
    plan.finish(results.collect())
}

fn text(series: &[Series]) -> String {
    let point = |value: &Option<f64>| {
        value.map_or("_".to_owned(), |value| {
            format!("{:.4}", value).trim_end_matches('0').trim_end_matches('.').to_owned()
        })
    };
    let line = |series: &Series| {
        let labels: Vec<String> = series.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let values: Vec<String> = series.values.iter().map(point).collect();
        format!("{}: {}\n", labels.join(" "), values.join(" "))
    };
    series.iter().map(line).collect()
}

#[track_caller]
fn check(query: &str, expect: &[&str]) {
    let window = Window::aligned(1, 50 * SECOND, 15 * SECOND);
    let expect: String = expect.iter().map(|line| format!("{line}\n")).collect();
    assert_eq!(text(&compute(query, window, 50, false)), expect, "{query}");
    assert_eq!(text(&compute(query, window, 7, true)), expect, "{query}, in parts");
}

#[test]
fn spans_are_counted_by_the_interval_of_their_start() {
    check("{ } | rate()", &[r#"__name__="rate": 1 1 1 0.3333"#]);
    check(r#"{ .service.name="even" } | rate()"#, &[r#"__name__="rate": 0.4667 0.5333 0.4667 0.2"#]);
    check("{ traceDuration > 25s } | rate()", &[r#"__name__="rate": 0 0.3333 1 0.3333"#]);
    check(
        "{ } | count_over_time() by (.service.name)",
        &[r#".service.name="even": 7 8 7 3"#, r#".service.name="odd": 8 7 8 2"#],
    );
    check("{ } | count_over_time() by (span.none)", &[r#"span.none="nil": 15 15 15 5"#]);
    check(r#"{ name = "none" } | rate()"#, &[r#"__name__="rate": 0 0 0 0"#]);
    check(r#"{ name = "none" } | rate() by (name)"#, &[]);
}

#[test]
fn durations_are_told_in_seconds() {
    check("{ } | min_over_time(duration)", &[r#"__name__="min_over_time": 1 16 31 46"#]);
    check("{ } | max_over_time(duration)", &[r#"__name__="max_over_time": 15 30 45 50"#]);
    check("{ } | sum_over_time(duration)", &[r#"__name__="sum_over_time": 120 345 570 240"#]);
    check("{ } | avg_over_time(traceDuration)", &[r#"__name__="avg_over_time": 8 23 38 48"#]);
    check("{ } | sum_over_time(span.i)", &[r#"__name__="sum_over_time": 120 345 570 240"#]);
    check("{ } | sum_over_time(span.none)", &[]);
}

#[test]
fn histograms_have_a_series_per_power_of_two() {
    check(
        "{ } | histogram_over_time(duration)",
        &[
            "__bucket=1.073741824: 1 0 0 0",
            "__bucket=2.147483648: 1 0 0 0",
            "__bucket=4.294967296: 2 0 0 0",
            "__bucket=8.589934592: 4 0 0 0",
            "__bucket=17.179869184: 7 2 0 0",
            "__bucket=34.359738368: 0 13 4 0",
            "__bucket=68.719476736: 0 0 11 5",
        ],
    );
    check("{ } | quantile_over_time(duration, .5)", &["p=0.5: 8.5899 23.6568 44.2095 52.0796"]);
}

#[test]
fn stages_and_arithmetic_work_on_whole_series() {
    check("{ } | max_over_time(duration) | topk(1) > 30", &[r#"__name__="max_over_time": _ _ 45 50"#]);
    check(
        "({ } | max_over_time(duration)) + ({ } | max_over_time(duration)) > 60",
        &[r#"__name__="(max_over_time + max_over_time)": _ _ 90 100"#],
    );
    check("({} | rate()) * 100", &[r#"__name__="rate": 100 100 100 33.3333"#]);
    check("({} | rate()) * (6 / 2 * (1+2))", &[r#"__name__="rate": 9 9 9 3"#]);
    check("(60 * ({} | rate())) / ({} | count_over_time())", &[r#"__name__="(rate / count_over_time)": 4 4 4 4"#]);
    check("({} | rate()) - ({} | rate())", &[r#"__name__="(rate - rate)": 0 0 0 0"#]);
    check(
        "{} | count_over_time() by (.service.name) | topk(1)",
        &[r#".service.name="even": _ 8 _ 3"#, r#".service.name="odd": 8 _ 8 _"#],
    );
}

#[test]
fn compare_counts_the_values_of_both_sides() {
    check(r#"{ .service.name="does_not_exist" } | compare({ })"#, &[]);
    let window = Window::aligned(1, 50 * SECOND, 15 * SECOND);
    let series = compute(r#"{ } | compare({ .service.name="even" }, 1)"#, window, 50, false);
    let of_services: Vec<Series> = series
        .into_iter()
        .filter(|series| series.labels.iter().any(|(key, _)| **key == *"resource.service.name"))
        .collect();
    let expect = [
        r#"__meta_type="baseline" resource.service.name="odd": 8 7 8 2"#,
        r#"__meta_type="baseline_total" resource.service.name="nil": 8 7 8 2"#,
        r#"__meta_type="selection" resource.service.name="even": 7 8 7 3"#,
        r#"__meta_type="selection_total" resource.service.name="nil": 7 8 7 3"#,
    ];
    assert_eq!(text(&of_services), expect.map(|line| format!("{line}\n")).concat());
}

#[test]
fn exemplars_are_the_same_in_whatever_order_spans_come() {
    let window = Window::aligned(1, 50 * SECOND, 15 * SECOND);
    let one = compute("{ } | max_over_time(duration)", window, 50, false);
    let other = compute("{ } | max_over_time(duration)", window, 3, true);
    assert_eq!(one[0].exemplars, other[0].exemplars);
    assert!(one[0].exemplars.len() > 40, "{}", one[0].exemplars.len());
    let first = &one[0].exemplars[0];
    assert_eq!((first.timestamp_nano, first.value), (SECOND, 1.0));
    assert_eq!(*first.labels[0].0, *"trace:id");
}

proptest! {
    #[test]
    fn parts_merge_into_the_whole(batch_traces in 1..50usize, step in 1..60u64, query in prop::sample::select(&[
        "{ } | rate() by (resource.service.name)",
        "{ span.i > 7 } | quantile_over_time(duration, 0, .5, 1) by (resource.service.name, span.i)",
        "{ } | histogram_over_time(span.i)",
        "{ } | avg_over_time(duration) by (span.i)",
        "{ } | compare({ span.i > 20 }, 3)",
    ][..])) {
        let window = Window::exact(0, 60 * SECOND, step * SECOND);
        let (whole, parts) = (compute(query, window, 50, false), compute(query, window, batch_traces, true));
        prop_assert_eq!(text(&whole), text(&parts));
    }
}
