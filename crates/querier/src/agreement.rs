//! Engine and oracle agree: the corpus of TraceQL, on traces that lie in several sources.

use std::path::Path;
use std::sync::Arc;

use spoor_model::{BlockId, SpanEntry, TenantId, TimeRange, Trace, Value};
use spoor_testkit::answer::{FoundSpan, FoundSpanset, FoundTrace, Series, Window};
use spoor_testkit::traceql_corpus::{self, Engine, Failure};
use spoor_traceql::{MatchedSpanset, SearchPlan, Static, parse, plan_metrics, plan_search};

use crate::lookup::tests::querier;
use crate::oracle::{Oracle, at_hand};
use crate::request::{Filter, Limits, SearchRequest};
use crate::search::tests::search_in;

/// How spans are dealt out to sources.
#[derive(Debug, Clone, Copy)]
enum Layout {
    /// All in one that may change.
    One,
    /// One span after the other to three sources, of which two never change.
    Torn,
    /// As [`Self::Torn`], and each span to the next source too.
    TornWithCopies,
}

struct InSources {
    layout: Layout,
    sources: Vec<Arc<Oracle>>,
}

impl InSources {
    fn new(layout: Layout) -> Self {
        Self { layout, sources: Vec::new() }
    }
}

fn dealt(layout: Layout, entries: &[SpanEntry]) -> Vec<Arc<Oracle>> {
    let of_source = |number: usize| {
        let is_here = |index: usize| match layout {
            Layout::One => number == 0,
            Layout::Torn => index % 3 == number,
            Layout::TornWithCopies => index % 3 == number || (index + 1) % 3 == number,
        };
        let here = entries.iter().enumerate().filter(|(index, _)| is_here(*index)).map(|(_, entry)| entry.clone());
        let identity = (number > 0).then_some(BlockId(number as u128));
        Arc::new(Oracle { identity, traces_per_group: 2, ..Oracle::clone_of(here.collect()) })
    };
    (0..3).map(of_source).collect()
}

fn refused(error: impl std::fmt::Display) -> Failure {
    Failure::Refused(error.to_string())
}

fn pair((key, value): &(Arc<str>, Static)) -> (String, Value) {
    (key.to_string(), value.to_value())
}

fn shown(plan: &SearchPlan, trace: &Trace, spansets: &[MatchedSpanset]) -> FoundTrace {
    let span = |index: &usize| FoundSpan {
        id: trace.entries[*index].span.span_id,
        name: plan.shows_name().then(|| trace.entries[*index].span.name.clone()),
        attributes: plan.shown_values(trace, &[*index]).remove(0).iter().map(pair).collect(),
    };
    let spanset = |found: &MatchedSpanset| FoundSpanset {
        spans: found.spans.iter().map(span).collect(),
        attributes: found.attributes.iter().map(|(key, value)| (key.clone(), value.to_value())).collect(),
    };
    FoundTrace { id: trace.id, spansets: spansets.iter().map(spanset).collect() }
}

impl Engine for InSources {
    fn load(&mut self, entries: &[SpanEntry]) -> Result<(), String> {
        self.sources = dealt(self.layout, entries);
        Ok(())
    }

    fn search(&mut self, query: &str) -> Result<Vec<FoundTrace>, Failure> {
        let plan = plan_search(&parse(query).map_err(refused)?).map_err(refused)?;
        let request = SearchRequest {
            filter: Filter::Query(plan.clone()),
            min_duration_nano: None,
            max_duration_nano: None,
            range: TimeRange::ALL,
            limit: 1000,
        };
        let answer = search_in(&self.sources, &request, &Limits::default(), &at_hand());
        let answer = answer.map_err(|error| Failure::Broken(error.to_string()))?;
        Ok(answer.value.iter().map(|found| shown(&plan, &found.trace, &found.spansets)).collect())
    }

    fn metrics(&mut self, query: &str, window: Window) -> Result<Vec<Series>, Failure> {
        let plan = plan_metrics(&parse(query).map_err(refused)?).map_err(refused)?;
        let window = spoor_traceql::Window::exact(window.from, window.to, window.step);
        let (querier, _) = querier(self.sources.clone());
        let answer = querier.metrics(&[TenantId::single()], &plan, &window, 0, &at_hand());
        let answer = answer.map_err(|error| Failure::Broken(error.to_string()))?;
        let series = answer
            .value
            .iter()
            .map(|series| Series { labels: series.labels.iter().map(pair).collect(), points: series.values.clone() });
        Ok(series.collect())
    }

    fn instant(&mut self, query: &str, window: Window) -> Result<Vec<Series>, Failure> {
        self.metrics(query, window)
    }
}

#[test]
fn the_corpus_is_answered_alike_however_spans_lie() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/corpus/traceql");
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .expect("the corpus is there")
        .map(|entry| entry.expect("the corpus is readable").path())
        .filter(|path| path.extension().is_some_and(|end| end == "test"))
        .collect();
    paths.sort();
    let mut failures = Vec::new();
    for path in paths {
        let text = std::fs::read_to_string(&path).expect("the corpus is text");
        for layout in [Layout::One, Layout::Torn, Layout::TornWithCopies] {
            let name = format!("{} ({layout:?})", path.file_name().expect("files have names").to_string_lossy());
            failures.extend(traceql_corpus::run(&name, &text, &mut InSources::new(layout)).err());
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}
