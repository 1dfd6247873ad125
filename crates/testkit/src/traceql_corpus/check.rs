//! Whether an engine's answer is the expected one; if not, both of them, written as the corpus does.

use spoor_model::{SpanId, TraceId, Value};

use super::cases::{ExpectedSpanset, ExpectedTrace, Refusal, ShownTrace};
use super::{Case, Engine, Expected, Failure};
use crate::answer::{FoundSpan, FoundSpanset, FoundTrace, Series};

/// Points may differ by this share of their size.
const TOLERANCE: f64 = 1e-9;

pub(super) fn check(case: &Case, engine: &mut dyn Engine) -> Result<(), String> {
    let has_types = engine.has_types();
    match &case.expected {
        Expected::Traces(expected) => {
            let got = answered(engine.search(&case.query), expected.iter().map(trace_text))?;
            let fits = |expected: &ExpectedTrace, got: &FoundTrace| trace_fits(expected, got, has_types);
            compare(expected, &got, fits, trace_text, found_text)
        }
        Expected::Shown(expected) => {
            let got = answered(engine.search(&case.query), expected.iter().map(shown_text))?;
            let fits = |expected: &ShownTrace, got: &FoundTrace| shown_fits(expected, got, has_types);
            compare(expected, &got, fits, shown_text, |trace| shown_text(&shown(trace)))
        }
        Expected::Range(window, expected) => {
            let got = engine.metrics(&case.query, *window);
            check_series(expected, got)
        }
        Expected::Instant(window, expected) => {
            let got = engine.instant(&case.query, *window);
            check_series(expected, got)
        }
        Expected::Refusal(refusal) => check_refusal(refusal, engine.search(&case.query).map(|found| found.len())),
        Expected::MetricsRefusal(refusal) => {
            let window =
                crate::answer::Window { from: super::T0, to: super::T0 + 60_000_000_000, step: 15_000_000_000 };
            check_refusal(refusal, engine.metrics(&case.query, window).map(|series| series.len()))
        }
    }
}

fn answered<T>(got: Result<T, Failure>, expected: impl Iterator<Item = String>) -> Result<T, String> {
    got.map_err(|failure| {
        let (Failure::Refused(message) | Failure::Broken(message)) = failure;
        difference(expected.collect(), vec![format!("error: {message}")])
    })
}

fn difference(expected: Vec<String>, got: Vec<String>) -> String {
    let listed = |mut lines: Vec<String>| {
        lines.sort();
        match lines.is_empty() {
            true => "    none".to_owned(),
            false => lines.iter().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n"),
        }
    };
    format!("  expected\n{}\n  got\n{}", listed(expected), listed(got))
}

/// Each expected one fits one that was got, and none is left over.
fn fits_all<E, G>(expected: &[E], got: &[G], fits: impl Fn(&E, &G) -> bool) -> bool {
    let mut left: Vec<&G> = got.iter().collect();
    for one in expected {
        match left.iter().position(|other| fits(one, other)) {
            Some(place) => left.remove(place),
            None => return false,
        };
    }
    left.is_empty()
}

fn compare<E, G>(
    expected: &[E],
    got: &[G],
    fits: impl Fn(&E, &G) -> bool,
    expected_text: impl Fn(&E) -> String,
    got_text: impl Fn(&G) -> String,
) -> Result<(), String> {
    match fits_all(expected, got, fits) {
        true => Ok(()),
        false => Err(difference(expected.iter().map(expected_text).collect(), got.iter().map(got_text).collect())),
    }
}

fn trace_fits(expected: &ExpectedTrace, got: &FoundTrace, has_types: bool) -> bool {
    let fits = |expected: &ExpectedSpanset, got: &FoundSpanset| spanset_fits(expected, got, has_types);
    expected.id == got.id && fits_all(&expected.spansets, &got.spansets, fits)
}

fn spanset_fits(expected: &ExpectedSpanset, got: &FoundSpanset, has_types: bool) -> bool {
    let mut ids: Vec<SpanId> = got.spans.iter().map(|span| span.id).collect();
    ids.sort_unstable();
    let attributes_fit = match &expected.attributes {
        Some(attributes) => attributes_fit(attributes, &got.attributes, has_types),
        None => true,
    };
    ids == expected.spans && attributes_fit
}

fn attributes_fit(expected: &[(String, Value)], got: &[(String, Value)], has_types: bool) -> bool {
    let is_text_of = |expected: &Value, got: &Value| matches!(got, Value::Str(text) if *text == value_text(expected));
    fits_all(expected, got, |expected, got| {
        pair_fits(expected, got) || !has_types && expected.0 == got.0 && is_text_of(&expected.1, &got.1)
    })
}

fn pair_fits(expected: &(String, Value), got: &(String, Value)) -> bool {
    expected.0 == got.0 && value_fits(&expected.1, &got.1)
}

fn value_fits(expected: &Value, got: &Value) -> bool {
    match (expected, got) {
        (Value::Double(a), Value::Double(b)) => is_close(*a, *b),
        _ => expected == got,
    }
}

fn is_close(a: f64, b: f64) -> bool {
    a == b || (a - b).abs() <= TOLERANCE * a.abs().max(b.abs())
}

/// What a result shows of its spans, the name among it, whatever spansets they are in.
fn shown(trace: &FoundTrace) -> ShownTrace {
    let with_name = |span: &FoundSpan| {
        let name = span.name.iter().map(|name| ("name".to_owned(), Value::Str(name.clone())));
        (span.id, name.chain(span.attributes.iter().cloned()).collect())
    };
    let spans = trace.spansets.iter().flat_map(|set| set.spans.iter().map(with_name)).collect();
    ShownTrace { id: trace.id, spans }
}

fn shown_fits(expected: &ShownTrace, got: &FoundTrace, has_types: bool) -> bool {
    let fits = |expected: &(SpanId, Vec<(String, Value)>), got: &(SpanId, Vec<(String, Value)>)| {
        expected.0 == got.0 && attributes_fit(&expected.1, &got.1, has_types)
    };
    expected.id == got.id && fits_all(&expected.spans, &shown(got).spans, fits)
}

fn check_series(expected: &[Series], got: Result<Vec<Series>, Failure>) -> Result<(), String> {
    let has_points = |series: &Series| series.points.iter().any(Option::is_some);
    let mut got = answered(got, expected.iter().map(series_text))?;
    got.retain(has_points);
    compare(expected, &got, series_fit, series_text, series_text)
}

fn series_fit(expected: &Series, got: &Series) -> bool {
    let point_fits = |points: (&Option<f64>, &Option<f64>)| match points {
        (Some(a), Some(b)) => is_close(*a, *b),
        (a, b) => a == b,
    };
    fits_all(&expected.labels, &got.labels, pair_fits)
        && expected.points.len() == got.points.len()
        && expected.points.iter().zip(&got.points).all(point_fits)
}

fn check_refusal(expected: &Refusal, got: Result<usize, Failure>) -> Result<(), String> {
    let place = expected.place.map(|(line, column)| format!("line {line}, col {column}"));
    let wanted = format!("{}: {}", place.as_deref().unwrap_or("error"), expected.part);
    match got {
        Ok(count) => Err(difference(vec![wanted], vec![format!("an answer of {count}")])),
        Err(Failure::Broken(message)) => Err(difference(vec![wanted], vec![format!("not a refusal: {message}")])),
        Err(Failure::Refused(message)) => {
            // What follows the place is told apart from a longer column.
            let is_there = place.is_none_or(|place| message.contains(&format!("{place}:")));
            match is_there && message.contains(&expected.part) {
                true => Ok(()),
                false => Err(difference(vec![wanted], vec![message])),
            }
        }
    }
}

fn trace_text(trace: &ExpectedTrace) -> String {
    let sets = trace.spansets.iter().map(|set| spanset_text(&set.spans, set.attributes.as_deref()));
    format!("{}: {}", trace_label(&trace.id), sets.collect::<Vec<_>>().join(" | "))
}

fn found_text(trace: &FoundTrace) -> String {
    let text = |set: &FoundSpanset| {
        let ids: Vec<SpanId> = set.spans.iter().map(|span| span.id).collect();
        spanset_text(&ids, Some(&set.attributes).filter(|all| !all.is_empty()).map(Vec::as_slice))
    };
    format!("{}: {}", trace_label(&trace.id), trace.spansets.iter().map(text).collect::<Vec<_>>().join(" | "))
}

fn spanset_text(spans: &[SpanId], attributes: Option<&[(String, Value)]>) -> String {
    let mut words: Vec<String> = spans.iter().map(label).collect();
    words.extend(attributes.map(|pairs| format!("[{}]", pairs_text(pairs, " "))));
    words.join(" ")
}

fn shown_text(trace: &ShownTrace) -> String {
    let span = |(id, pairs): &(SpanId, Vec<_>)| format!("{}{{{}}}", label(id), pairs_text(pairs, " "));
    format!("{}: {}", trace_label(&trace.id), trace.spans.iter().map(span).collect::<Vec<_>>().join(" "))
}

fn series_text(series: &Series) -> String {
    let point = |point: &Option<f64>| point.map_or("_".to_owned(), |value| value.to_string());
    let points: Vec<String> = series.points.iter().map(point).collect();
    format!("{{{}}}: {}", pairs_text(&series.labels, ", "), points.join(" "))
}

fn pairs_text(pairs: &[(String, Value)], separator: &str) -> String {
    let mut texts: Vec<String> = pairs.iter().map(|(key, value)| format!("{key}={}", value_text(value))).collect();
    texts.sort();
    texts.join(separator)
}

fn value_text(value: &Value) -> String {
    match value {
        Value::Str(text) => format!("{text:?}"),
        Value::Int(int) => int.to_string(),
        Value::Double(float) => format!("{float:?}"),
        Value::Bool(value) => value.to_string(),
        Value::Array(items) => format!("[{}]", items.iter().map(value_text).collect::<Vec<_>>().join(", ")),
        other => format!("{other:?}"),
    }
}

/// Span ids as the corpus writes them.
fn label(id: &SpanId) -> String {
    id.to_string().trim_start_matches('0').to_owned()
}

/// Trace ids as the corpus writes them: two digits at least.
fn trace_label(id: &TraceId) -> String {
    format!("{:0>2}", id.to_string().trim_start_matches('0'))
}
