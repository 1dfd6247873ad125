//! Every case of the corpus, and random queries on random traces, on columns made of whole traces, with nothing
//! stored in between.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use spoor_model::bits::Bits;
use spoor_model::columns::ColumnBatch;
use spoor_model::scan::{AttrScope, KeySet};
use spoor_model::{KeyValue, SpanEntry, TimeRange, Trace, TraceId, Value};
use spoor_testkit::answer::{FoundSpan, FoundSpanset, FoundTrace, Series, Window};
use spoor_testkit::oracle::Oracle;
use spoor_testkit::random;
use spoor_testkit::traceql_corpus::{self, Engine, Failure};
use spoor_traceql::{MatchedSpanset, MetricsPlan, SearchPlan, Static, parse, plan_metrics, plan_search};

/// Traces, and the plans of this crate.
#[derive(Default)]
struct Columns {
    entries: Vec<SpanEntry>,
}

fn assembled(entries: &[SpanEntry]) -> Vec<Trace> {
    let mut by_trace: BTreeMap<TraceId, Vec<SpanEntry>> = BTreeMap::new();
    for entry in entries {
        by_trace.entry(entry.span.trace_id).or_default().push(entry.clone());
    }
    by_trace.into_iter().filter_map(|(id, entries)| Trace::assemble(id, entries)).collect()
}

/// Which traces match, by one batch of all of them.
fn matched(plan: &SearchPlan, traces: &[Trace]) -> Bits {
    let matches = plan.matches(&ColumnBatch::of_traces(traces, &plan.request(TimeRange::ALL)));
    let mut missed = matches.matched.clone();
    missed.subtract(&matches.may_match);
    assert!(missed.is_empty(), "what matches may match: {}", plan.explain());
    matches.matched
}

/// Whether every trace that matches may match in one of its parts; and, where spans are selected one by
/// one, does.
fn check_parts(plan: &SearchPlan, trace: &Trace) -> Result<(), String> {
    let half = trace.entries.len() / 2;
    let parts = [&trace.entries[..half], &trace.entries[half..]];
    let request = plan.request(TimeRange::ALL);
    let parts: Vec<Trace> = parts.iter().filter_map(|part| Trace::assemble(trace.id, part.to_vec())).collect();
    let matches = plan.matches(&ColumnBatch::of_traces(&parts, &request));
    if matches.may_match.is_empty() {
        return Err(format!("no part of trace {} may match", trace.id));
    }
    match plan.is_single_span() && matches.matched.is_empty() {
        true => Err(format!("no part of trace {} matches", trace.id)),
        false => Ok(()),
    }
}

/// As the oracle has it: maps and bytes are there, and nothing more.
fn pair((key, value): &(Arc<str>, Static)) -> (String, Value) {
    let value = if let Static::Opaque(_) = value { Value::Empty } else { value.to_value() };
    (key.to_string(), value)
}

fn found(plan: &SearchPlan, trace: &Trace) -> Option<FoundTrace> {
    let span = |index: &usize| FoundSpan {
        id: trace.entries[*index].span.span_id,
        name: plan.shows_name().then(|| trace.entries[*index].span.name.clone()),
        attributes: plan.shown_values(trace, &[*index]).remove(0).iter().map(pair).collect(),
    };
    let spanset = |found: MatchedSpanset| FoundSpanset {
        spans: found.spans.iter().map(span).collect(),
        attributes: found.attributes.iter().map(|(key, value)| (key.clone(), value.to_value())).collect(),
    };
    let spansets: Vec<FoundSpanset> = plan.evaluate(trace).into_iter().map(spanset).collect();
    (!spansets.is_empty()).then_some(FoundTrace { id: trace.id, spansets })
}

impl Engine for Columns {
    fn load(&mut self, entries: &[SpanEntry]) -> Result<(), String> {
        self.entries = entries.to_vec();
        Ok(())
    }

    fn search(&mut self, query: &str) -> Result<Vec<FoundTrace>, Failure> {
        let query = parse(query).map_err(|error| Failure::Refused(error.to_string()))?;
        let plan = plan_search(&query).map_err(|error| Failure::Refused(error.to_string()))?;
        let traces = assembled(&self.entries);
        let matched = matched(&plan, &traces);
        let mut all = Vec::new();
        for (index, trace) in traces.iter().enumerate() {
            let found = found(&plan, trace);
            let broken = |what: String| Err(Failure::Broken(format!("{what}; {}", plan.explain())));
            if found.is_some() != matched.contains(index) {
                return broken(format!("alone and beside others, trace {} does not match alike", trace.id));
            }
            if found.is_some()
                && let Err(what) = check_parts(&plan, trace)
            {
                return broken(what);
            }
            all.extend(found);
        }
        Ok(all)
    }

    fn metrics(&mut self, query: &str, window: Window) -> Result<Vec<Series>, Failure> {
        let query = parse(query).map_err(|error| Failure::Refused(error.to_string()))?;
        let plan = plan_metrics(&query).map_err(|error| Failure::Refused(error.to_string()))?;
        let plan = plan.with_attributes(&keys(&self.entries));
        let window = spoor_traceql::Window::exact(window.from, window.to, window.step);
        let traces = assembled(&self.entries);
        let whole = series(&plan, &window, &[&traces]);
        let (left, right) = traces.split_at(traces.len() / 2);
        match metrics_difference(&whole, &series(&plan, &window, &[right, left])) {
            Some(difference) => Err(Failure::Broken(format!("in two parts, {difference}; {}", plan.explain()))),
            None => Ok(whole),
        }
    }

    fn instant(&mut self, query: &str, window: Window) -> Result<Vec<Series>, Failure> {
        self.metrics(query, window)
    }
}

fn keys(entries: &[SpanEntry]) -> KeySet {
    let mut keys = KeySet::new();
    let mut add = |scope: AttrScope, attributes: &[KeyValue]| {
        keys.entry(scope).or_default().extend(attributes.iter().map(|attribute| attribute.key.clone()));
    };
    for entry in entries {
        add(AttrScope::Span, &entry.span.attributes);
        add(AttrScope::Resource, &entry.origin.resource.attributes);
        add(AttrScope::Instrumentation, &entry.origin.scope.attributes);
        entry.span.events.iter().for_each(|event| add(AttrScope::Event, &event.attributes));
        entry.span.links.iter().for_each(|link| add(AttrScope::Link, &link.attributes));
    }
    keys
}

/// The series of traces that come in parts, each counted for itself.
fn series(plan: &MetricsPlan, window: &spoor_traceql::Window, parts: &[&[Trace]]) -> Vec<Series> {
    let results = plan.operands().iter().map(|operand| {
        let mut whole = operand.start(window, 100);
        for traces in parts {
            let batch = ColumnBatch::of_traces(traces, &operand.request(window, 100));
            let mut partial = operand.start(window, 100);
            operand.add(&mut partial, &batch, &Bits::none(traces.len()));
            operand.merge(&mut whole, &partial);
        }
        whole
    });
    let series = plan.finish(results.collect());
    let labels = |labels: &[(Arc<str>, Static)]| labels.iter().map(pair).collect();
    series.iter().map(|one| Series { labels: labels(&one.labels), points: one.values.clone() }).collect()
}

/// Whether two answers to one metrics query are the same, told for people when they are not. Series without a point
/// need not be there.
fn metrics_difference(expected: &[Series], got: &[Series]) -> Option<String> {
    let sorted = |all: &[Series]| {
        let mut all: Vec<Series> = all.iter().filter(|one| one.points.iter().any(Option::is_some)).cloned().collect();
        all.iter_mut().for_each(|one| one.labels.sort_by_key(|label| format!("{label:?}")));
        all.sort_by_key(|one| format!("{:?}", one.labels));
        all
    };
    let (expected, got) = (sorted(expected), sorted(got));
    let is_same = |(a, b): (&Option<f64>, &Option<f64>)| match (a, b) {
        (Some(a), Some(b)) => is_close(&Value::Double(*a), &Value::Double(*b)) || a.is_nan() && b.is_nan(),
        (a, b) => a == b,
    };
    let is_like = |(a, b): (&Series, &Series)| a.labels == b.labels && a.points.iter().zip(&b.points).all(is_same);
    let is_equal = expected.len() == got.len() && expected.iter().zip(&got).all(is_like);
    let only = |these: &[Series], those: &[Series]| -> Vec<String> {
        let differs = |one: &&Series| !those.iter().any(|other| is_like((one, other)));
        these.iter().filter(differs).map(|one| format!("{:?}: {:?}", one.labels, one.points)).collect()
    };
    (!is_equal).then(|| format!("expected {:#?}\ngot {:#?}", only(&expected, &got), only(&got, &expected)))
}

#[test]
fn columns_answer_the_corpus() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/corpus/traceql");
    let mut failures = Vec::new();
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .expect("the corpus is there")
        .map(|entry| entry.expect("the corpus is readable").path())
        .filter(|path| path.extension().is_some_and(|end| end == "test"))
        .collect();
    paths.sort();
    for path in paths {
        let text = std::fs::read_to_string(&path).expect("the corpus is text");
        let name = path.file_name().expect("files have names").to_string_lossy();
        failures.extend(traceql_corpus::run(&name, &text, &mut Columns::default()).err());
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

/// Whether two answers to one search are the same, told for people when they are not. Where two attributes have
/// one key, the oracle lists both, and answers have room for one; of parents it lists none.
fn difference(expected: &FoundTrace, got: &FoundTrace) -> Option<String> {
    let ids = |set: &FoundSpanset| set.spans.iter().map(|span| span.id).collect::<Vec<_>>();
    let is_like = |(expected, got): (&FoundSpan, &FoundSpan)| {
        let is_known = |pair: &&(String, Value)| expected.attributes.contains(pair) || pair.0.starts_with("parent.");
        let has_key = |key: &str| got.attributes.iter().any(|(other, _)| other == key);
        expected.name == got.name
            && got.attributes.iter().all(|pair| is_known(&pair))
            && expected.attributes.iter().all(|(key, _)| has_key(key))
    };
    let is_same = expected.id == got.id
        && expected.spansets.len() == got.spansets.len()
        && expected.spansets.iter().zip(&got.spansets).all(|(expected, got)| {
            ids(expected) == ids(got)
                && expected.attributes.iter().zip(&got.attributes).all(|(a, b)| a.0 == b.0 && is_close(&a.1, &b.1))
                && expected.attributes.len() == got.attributes.len()
                && expected.spans.iter().zip(&got.spans).all(is_like)
        });
    (!is_same).then(|| format!("expected {expected:#?}\ngot {got:#?}"))
}

/// Sums of floats depend on the order of the spans.
fn is_close(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Double(a), Value::Double(b)) => a == b || (a - b).abs() <= 1e-9 * a.abs().max(b.abs()),
        (a, b) => a == b,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn columns_answer_what_the_oracle_answers(text in random::search_query(), entries in random::entries()) {
        let mut engine = Columns::default();
        engine.load(&entries).expect("loads");
        let mut got = engine.search(&text).map_err(|failure| TestCaseError::fail(format!("{text}: {failure:?}")))?;
        let query = parse(&text).expect("parses");
        let mut expected = Oracle::new(entries).search(&query).map_err(TestCaseError::fail)?;
        got.sort_by_key(|trace| trace.id);
        expected.sort_by_key(|trace| trace.id);
        let ids = |found: &[FoundTrace]| found.iter().map(|trace| trace.id).collect::<Vec<_>>();
        prop_assert_eq!(ids(&expected), ids(&got), "{}", text);
        let difference = expected.iter().zip(&got).find_map(|(expected, got)| difference(expected, got));
        prop_assert!(difference.is_none(), "{text}: {}", difference.unwrap_or_default());
    }

    #[test]
    fn columns_count_what_the_oracle_counts(
        text in random::metrics_query(),
        window in random::window(),
        entries in random::entries(),
    ) {
        let mut engine = Columns::default();
        engine.load(&entries).expect("loads");
        let got = engine.metrics(&text, window);
        let got = got.map_err(|failure| TestCaseError::fail(format!("{text}: {failure:?}")))?;
        let expected = Oracle::new(entries).metrics(&parse(&text).expect("parses"), window);
        let difference = metrics_difference(&expected.map_err(TestCaseError::fail)?, &got);
        prop_assert!(difference.is_none(), "{text}: {}", difference.unwrap_or_default());
    }
}
