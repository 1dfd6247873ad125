use std::sync::Arc;

use spoor_model::{Event, KeyValue, Origin, Resource, Span, SpanEntry, SpanId, Status, TraceId, UnixNano, Value};

use super::*;
use crate::parse;

fn span(id: u8, parent: u8, start: u64, end: u64, attributes: Vec<KeyValue>) -> Span {
    Span {
        trace_id: TraceId([1; 16]),
        span_id: SpanId([id; 8]),
        parent_span_id: SpanId([parent; 8]),
        name: format!("span {id}"),
        start: UnixNano(start),
        end: UnixNano(end),
        attributes,
        ..Span::default()
    }
}

/// A root R (1) of two seconds, its child C (2) of one, which failed, and a span (9) that hangs on nothing.
fn trace() -> Trace {
    const SECOND: u64 = 1_000_000_000;
    let root = span(1, 0, 0, 2 * SECOND, vec![KeyValue::new("parent", Value::Bool(true))]);
    let attributes = vec![
        KeyValue::new("child", Value::Bool(true)),
        KeyValue::new("http.status_code", Value::Int(500)),
        KeyValue::new("codes", Value::Array(vec![Value::Int(1), Value::Int(2)])),
    ];
    let mut child = span(2, 1, 1, SECOND + 1, attributes);
    child.status = Status { code: 2, message: "gone".into() };
    let event = |name: &str, code: i64| Event {
        name: name.into(),
        attributes: vec![KeyValue::new("code", Value::Int(code))],
        ..Event::default()
    };
    child.events = vec![event("retry", 1), event("failure", 2)];
    let orphan = span(9, 8, 2, 3, Vec::new());
    let resource =
        Resource { attributes: vec![KeyValue::new("service.name", Value::Str("shop".into()))], ..Resource::default() };
    let origin = Arc::new(Origin { resource, ..Origin::default() });
    let entry = |span| SpanEntry { origin: Arc::clone(&origin), span };
    Trace::assemble(TraceId([1; 16]), [root, child, orphan].map(entry).to_vec()).expect("has spans")
}

fn planned(query: &str) -> Result<SearchPlan, String> {
    let query = parse(query).map_err(|error| error.to_string())?;
    plan_search(&query).map_err(|error| error.to_string())
}

/// The spansets as `1 2 [count()=2]`, separated by `|`; or the error.
#[track_caller]
fn check(query: &str, expect: &str) {
    let got = planned(query).map(|plan| {
        let trace = trace();
        let found = plan.evaluate(&trace);
        let batch = ColumnBatch::of_traces(std::slice::from_ref(&trace), &plan.request(TimeRange::ALL));
        assert_eq!(plan.matches(&batch).matched.contains(0), !found.is_empty(), "{query}");
        let text = |set: &MatchedSpanset| {
            let ids = set.spans.iter().map(|span| trace.entries[*span].span.span_id.0[0].to_string());
            let said = set.attributes.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>();
            let said = if said.is_empty() { None } else { Some(format!("[{}]", said.join(" "))) };
            ids.chain(said).collect::<Vec<_>>().join(" ")
        };
        found.iter().map(text).collect::<Vec<_>>().join(" | ")
    });
    assert_eq!(got.unwrap_or_else(|error| error), expect, "{query}");
}

#[test]
fn structural_operators_relate_spans_of_a_tree() {
    check("{ .parent } > { .child }", "2");
    check("{ .child } < { .parent }", "1");
    check("{ .parent } >> { .child }", "2");
    check("{ .child } !> { .parent }", "1");
    check("{ .child } !~ { .parent }", "1");
    check("{ .parent } &>> { .child }", "1 2");
    check("{ .child } &<< { .parent }", "1 2");
    check("{ .child } && { .parent }", "1 2");
    check("{ .child } && { .nope }", "");
    check("{ .child } || { .nope }", "2");
    check("{ } !>> { }", "1 9");
    check("{ nestedSetParent < 0 }", "1");
    check("{ nestedSetParent != -1 }", "2 9");
}

#[test]
fn expressions_that_no_predicate_can_say_are_evaluated() {
    check("{ .http.status_code + 1 = 501 }", "2");
    check("{ !(.http.status_code = 200) }", "1 2 9");
    check("{ .http.status_code != 200 }", "2");
    check("{ !.child }", "");
    check("{ duration * 2 > traceDuration }", "1");
    check("{ parent.parent }", "2");
    check("{ parent.http.status_code = nil }", "1 2 9");
    check("{ rootName = \"span 1\" && span:childCount = 1 }", "1");
    check("{ .codes > 1 && .codes != 3 }", "2");
    check("{ .codes != 1 }", "");
    check("{ .missing || true }", "1 2 9");
    check("{ 2 ^ 3 = 8 && .child }", "2");
}

#[test]
fn event_conditions_hold_for_one_event() {
    check("{ event:name = \"retry\" && event.code = 1 }", "2");
    check("{ event:name = \"retry\" && event.code = 2 }", "");
    check("{ event:name = \"retry\" && (event.code = 2 || event.code + 1 = 2) }", "2");
    check("{ !(event.code = 1) }", "1 2 9");
    check("{ event.none = nil }", "2");
    check("{ .code = 2 }", "2");
    check("{ .code != 2 }", "2");
}

#[test]
fn pipelines_group_and_aggregate() {
    check("{ } | count() > 2", "1 2 9 [count()=3]");
    check("{ } | by(.child) | count() = 1", "2 [by(.child)=true count()=1]");
    check("{ } | by(.child)", "1 9 [by(.child)=nil] | 2 [by(.child)=true]");
    check("{ } | by(.child) | coalesce() | count() = 3", "1 2 9 [count()=3]");
    check("{ } | max(duration) > 2 * min(duration) | sum(.nope) > 0", "");
    check("{ } | avg(duration) = 1s | { .child }", "2 [avg(duration)=1s]");
    check("{ .child } | avg(duration) = 1s", "2 [avg(duration)=1s]");
    check("{ } | 2 < count()", "1 2 9 [count()=3]");
    check("({ } | count() > 2) && ({ .child })", "1 2 9");
    check(
        "({ } | by(.a)) > { }",
        "line 1, col 8: > needs one spanset on each side, and by() makes several: use coalesce()",
    );
}

#[test]
fn sources_are_asked_what_the_query_needs() {
    let explained = |query: &str| planned(query).map(|plan| plan.explain()).unwrap_or_else(|error| error);
    assert_eq!(explained("{ }"), "");
    assert_eq!(
        explained("{ .a = 1 && (.b = 2 || name =~ \"x\") }"),
        "mask 0, needed: (.a = 1 and (.b = 2 or name =~ ^(?s:x)$))\n{ mask 0 }\nshow .a, .b\n"
    );
    assert_eq!(
        explained("{ .a = 1 && .b > .c } | avg(duration) > 1s"),
        "mask 0, needed: (.a = 1 and .b exists and .c exists)\ncolumns, of needed rows: .b, .c, duration\n\
         whole traces\n{ (mask 0 and per span: (.b > .c)) }\navg(duration) > 1s\nshow .a, .b, .c\n"
    );
    assert_eq!(
        explained("{ status = error } >> { .a = \"x\" }"),
        "mask 0: status = 2\nmask 1, needed: .a = \"x\"\nthe tree; whole traces\n\
         ({ mask 0 } >> { mask 1 })\nshow status, .a\n"
    );
    assert_eq!(
        explained("{ parent.a = 1 || nestedSetParent < 0 }"),
        "mask 0, needed: .a = 1\nmask 1, needed: span:parentID = \"0000000000000000\"\n\
         the tree; whole traces\n{ (parent in mask 0 or roots in mask 1) }\nshow parent.a, nestedSetParent\n"
    );
}

#[test]
fn results_show_what_the_query_looks_at() {
    let shown = |query: &str, span: usize| {
        let plan = planned(query).expect("plans");
        let values = plan.shown_values(&trace(), &[span]).remove(0);
        values.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(shown("{ .child } | select(status, name)", 1), "child=true status=error");
    assert_eq!(shown("{ duration > 1 && .nope = 1 }", 1), "");
    assert_eq!(
        shown("{ } | select(nestedSetParent, nestedSetLeft, nestedSetRight, resource.service.name)", 1),
        "nestedSetParent=1 nestedSetLeft=2 nestedSetRight=3 service.name=\"shop\""
    );
    assert_eq!(shown("{ } | select(parent.parent, event.code)", 1), "parent.parent=true code=1");
}

#[test]
fn long_queries_are_planned_too() {
    let check = |part: &dyn Fn(usize) -> String, joint: &str| {
        let parts: Vec<String> = (0..4000).map(part).collect();
        let plan = planned(&format!("{{ {} }}", parts.join(joint))).expect("plans");
        let trace = trace();
        assert!(plan.evaluate(&trace).len() <= 1 && plan.shown_values(&trace, &[0]).len() == 1);
    };
    check(&|n| format!(".a{n} = {n}"), " || ");
    check(&|n| format!("!(.a{n} = {n})"), " && ");
    check(&|n| format!(".a{n} + 1 > .b{n}"), " || ");
    check(&|n| format!("event.a{n} = 1"), " && ");
}
