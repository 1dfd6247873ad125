//! Every case of the corpus on columns made of whole traces, with nothing stored in between.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use spoor_model::bits::Bits;
use spoor_model::columns::ColumnBatch;
use spoor_model::{SpanEntry, TimeRange, Trace, TraceId, Value};
use spoor_testkit::answer::{FoundSpan, FoundSpanset, FoundTrace, Series, Window};
use spoor_testkit::traceql_corpus::{self, Engine, Failure, OracleEngine};
use spoor_traceql::{MatchedSpanset, SearchPlan, Static, parse, plan_search};

/// Traces, and the plans of this crate.
#[derive(Default)]
struct Columns {
    entries: Vec<SpanEntry>,
    oracle: OracleEngine,
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

fn pair((key, value): &(Arc<str>, Static)) -> (String, Value) {
    (key.to_string(), value.to_value())
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
        self.oracle.load(entries)
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
        self.oracle.metrics(query, window)
    }

    fn instant(&mut self, query: &str, window: Window) -> Result<Vec<Series>, Failure> {
        self.oracle.instant(query, window)
    }
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
