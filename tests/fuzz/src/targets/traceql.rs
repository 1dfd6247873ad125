//! TraceQL queries and identifiers.

use spoor_model::{Event, KeyValue, Link, Span, SpanEntry, SpanId, TimeRange, Trace, TraceId, Value};

use super::Target;

const QUERIES: [&str; 16] = [
    "{}",
    "{ .a = 1 }",
    "{ span.http.status_code >= 500 && resource.service.name = \"shop\" }",
    "{ name =~ \"GET.*\" || status = error }",
    "{ duration > 1.5s && kind = server && span.\"odd key\" != nil }",
    "{ (.a = 1 || .b = 2) && !(.c = \"x\\n\\\"\") }",
    "{ trace:duration > 2m } >> { span:name = \"x\" }",
    "{ .a } | count() > 2 | avg(duration) < 10ms",
    "{ .a = -5 + 3 * 2 ^ 2 % 7 / 1 }",
    "{ event:name = \"exception\" && link:traceID = \"ab\" }",
    "{ rootServiceName = \"a\" } && { instrumentation:name = \"b\" }",
    "{ .a } | rate() by (resource.service.name)",
    "{ .a } | quantile_over_time(duration, .5, .99) by (.b) with (exemplars=true)",
    "{ parent.a = true } !>> { nestedSetLeft = 3 } | select(.a, span.b)",
    "{ .a = \"\u{2603}\" } ~ { .b = `raw` }",
    "({ .a } | by(.b)) > { 1 = 1 }",
];

/// A query is planned and answered, or refused with its place.
pub fn query() -> Target {
    let seeds = QUERIES.iter().map(|query| query.as_bytes().to_vec()).collect();
    Target { name: "traceql", runs: 150_000, seeds, check: Box::new(check_query) }
}

fn check_query(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match spoor_traceql::parse(&text) {
        Ok(query) => {
            let is_checked = spoor_traceql::check(&query).is_ok();
            match spoor_traceql::plan_search(&query) {
                Ok(plan) => {
                    assert!(is_checked, "planned though refused");
                    let _ = (plan.explain(), plan.request(TimeRange::ALL));
                    let trace = trace();
                    let spansets = plan.evaluate(&trace);
                    spansets.iter().for_each(|found| drop(plan.shown_values(&trace, &found.spans)));
                }
                Err(err) => assert!(err.to_string().contains("line "), "no place: {err}"),
            }
            let _ = spoor_traceql::plan_metrics(&query);
        }
        Err(err) => assert!(err.to_string().contains("line "), "no place: {err}"),
    }
}

/// A root, a child with an event and a link, and a span without a parent; attributes of many types.
fn trace() -> Trace {
    let attribute = |(key, value): (&str, Value)| KeyValue::new(key, value);
    let span = |id: u8, parent: u8, attributes: Vec<(&str, Value)>| Span {
        trace_id: TraceId([1; 16]),
        span_id: SpanId([id; 8]),
        parent_span_id: SpanId([parent; 8]),
        attributes: attributes.into_iter().map(attribute).collect(),
        ..Span::default()
    };
    let mut child =
        span(2, 1, vec![("a", Value::Double(1.5)), ("b", Value::Array(vec![Value::Int(1), Value::Int(2)]))]);
    child.events.push(Event { attributes: vec![KeyValue::new("a", Value::Bool(true))], ..Event::default() });
    child.links.push(Link { attributes: vec![KeyValue::new("b", Value::Str("x".into()))], ..Link::default() });
    let root = span(1, 0, vec![("a", Value::Int(i64::MIN)), ("b", Value::Map(Vec::new()))]);
    let spans = [root, child, span(3, 9, vec![("a", Value::Str("x".into()))])];
    let entries = spans.map(|span| SpanEntry { origin: Default::default(), span });
    Trace::assemble(TraceId([1; 16]), entries.to_vec()).expect("has spans")
}

/// An identifier is read or refused.
pub fn identifier() -> Target {
    let identifiers = ["resource.service.name", ".a", "span.\"x y\"", "name", "event:name", "parent.span.a"];
    let seeds = identifiers.iter().map(|text| text.as_bytes().to_vec()).collect();
    Target { name: "identifier", runs: 100_000, seeds, check: Box::new(check_identifier) }
}

fn check_identifier(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let _ = spoor_traceql::parse_identifier(&text);
    let _ = spoor_traceql::parse_attribute(&text);
}
