//! Engine and oracle agree: the corpus of TraceQL, on traces that lie in several sources.

use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use spoor_model::{BlockId, SpanEntry, TenantId, TimeRange, Trace, UnixNano, Value};
use spoor_testkit::answer::{FoundSpan, FoundSpanset, FoundTrace, Series, Window, are_close, outline};
use spoor_testkit::traceql_corpus::{self, Engine, Failure, T0};
use spoor_testkit::{oracle as naive, random};
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
    let places: &[(usize, Option<usize>)] = match layout {
        Layout::One => &[(0, None)],
        Layout::Torn => &[(0, None), (1, None), (2, None)],
        Layout::TornWithCopies => &[(0, Some(1)), (1, Some(2)), (2, Some(0))],
    };
    dealt_by(places, [false, true, true], entries)
}

/// Each span to a place of its own, and perhaps to another too; some sources never change.
fn dealt_by(places: &[(usize, Option<usize>)], blocks: [bool; 3], entries: &[SpanEntry]) -> Vec<Arc<Oracle>> {
    let of_source = |number: usize| {
        let is_here = |index: usize| {
            let (place, copy) = places[index % places.len()];
            place == number || copy == Some(number)
        };
        let here = entries.iter().enumerate().filter(|(index, _)| is_here(*index)).map(|(_, entry)| entry.clone());
        let identity = blocks[number].then_some(BlockId(number as u128));
        Arc::new(Oracle { identity, traces_per_group: 1 + number, ..Oracle::clone_of(here.collect()) })
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

fn search(sources: &[Arc<Oracle>], query: &str, range: TimeRange) -> Result<Vec<FoundTrace>, Failure> {
    let plan = plan_search(&parse(query).map_err(refused)?).map_err(refused)?;
    let request = SearchRequest {
        filter: Filter::Query(plan.clone()),
        min_duration_nano: None,
        max_duration_nano: None,
        range,
        limit: 1000,
    };
    let answer = search_in(sources, &request, &Limits::default(), &at_hand());
    let answer = answer.map_err(|error| Failure::Broken(error.to_string()))?;
    Ok(answer.value.iter().map(|found| shown(&plan, &found.trace, &found.spansets)).collect())
}

fn metrics(sources: &[Arc<Oracle>], query: &str, window: Window) -> Result<Vec<Series>, Failure> {
    let plan = plan_metrics(&parse(query).map_err(refused)?).map_err(refused)?;
    let window = spoor_traceql::Window::exact(window.from, window.to, window.step);
    let (querier, _) = querier(sources.to_vec());
    let answer = querier.metrics(&[TenantId::single()], &plan, &window, 0, &at_hand());
    let answer = answer.map_err(|error| Failure::Broken(error.to_string()))?;
    let series = answer
        .value
        .iter()
        .map(|series| Series { labels: series.labels.iter().map(pair).collect(), points: series.values.clone() });
    Ok(series.collect())
}

impl Engine for InSources {
    fn load(&mut self, entries: &[SpanEntry]) -> Result<(), String> {
        self.sources = dealt(self.layout, entries);
        Ok(())
    }

    fn search(&mut self, query: &str) -> Result<Vec<FoundTrace>, Failure> {
        search(&self.sources, query, TimeRange::ALL)
    }

    fn metrics(&mut self, query: &str, window: Window) -> Result<Vec<Series>, Failure> {
        metrics(&self.sources, query, window)
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

fn any_places() -> impl Strategy<Value = Vec<(usize, Option<usize>)>> {
    prop::collection::vec((0_usize..3, prop::option::weighted(0.3, 0_usize..3)), 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_searches_find_what_the_oracle_finds(
        entries in random::entries(),
        query in random::search_query(),
        places in any_places(),
        blocks in any::<[bool; 3]>(),
        around in prop::option::of((0_u64..20, 0_u64..20)),
    ) {
        let range = around.map_or(TimeRange::ALL, |(start, length)| TimeRange {
            start: UnixNano(T0 + start * 1_000_000_000),
            end: UnixNano(T0 + (start + length) * 1_000_000_000),
        });
        let expect = naive::Oracle::new(entries.clone()).search_in(&parse(&query).expect("well typed"), range);
        let got = search(&dealt_by(&places, blocks, &entries), &query, range);
        match (got, expect) {
            (Ok(got), Ok(expect)) => prop_assert_eq!(outline(&got), outline(&expect), "{}", query),
            (Err(Failure::Refused(_)), Err(_)) => {}
            (got, expect) => prop_assert!(false, "{query}: {got:?} instead of {expect:?}"),
        }
    }

    #[test]
    fn random_metrics_are_what_the_oracle_counts(
        entries in random::entries(),
        query in random::metrics_query(),
        window in random::window(),
        places in any_places(),
        blocks in any::<[bool; 3]>(),
    ) {
        let expect = naive::Oracle::new(entries.clone()).metrics(&parse(&query).expect("well typed"), window);
        let got = metrics(&dealt_by(&places, blocks, &entries), &query, window);
        match (got, expect) {
            (Ok(got), Ok(expect)) => prop_assert!(are_close(&got, &expect), "{query}: {got:#?} instead of {expect:#?}"),
            (Err(Failure::Refused(_)), Err(_)) => {}
            (got, expect) => prop_assert!(false, "{query}: {got:?} instead of {expect:?}"),
        }
    }
}
