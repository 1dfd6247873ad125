//! Random queries about the traces of [`super::traces`]: each parses and passes the type check.

use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use crate::answer::Window;
use crate::traceql_corpus::T0;

const ATTRIBUTES: [&str; 17] = [
    ".k0",
    ".k1",
    ".k2",
    ".service.name",
    "span.k0",
    "span.k1",
    "span.k2",
    "resource.k0",
    "resource.k1",
    "resource.service.name",
    "event.k1",
    "event.e0",
    "link.k1",
    "instrumentation.k2",
    "parent.k0",
    "parent.span.k1",
    "parent.resource.service.name",
];
/// Values that do not depend on which event or link is looked at.
const PLAIN: [&str; 6] = [".k0", "span.k0", "span.k1", ".k2", "resource.k1", "parent.span.k1"];
const NUMBERS: [&str; 6] =
    ["duration", "traceDuration", "nestedSetLeft", "nestedSetRight", "nestedSetParent", "event:timeSinceStart"];
const TEXTS: [&str; 12] = [
    "name",
    "statusMessage",
    "rootName",
    "rootServiceName",
    "span:id",
    "span:parentID",
    "trace:id",
    "event:name",
    "link:traceID",
    "link:spanID",
    "instrumentation:name",
    "instrumentation:version",
];
const GROUPS: [&str; 16] = [
    ".k0",
    ".k1",
    "span.k1",
    "resource.service.name",
    "event.e0",
    "link.k1",
    "parent.span.k1",
    "name",
    "status",
    "kind",
    "duration",
    "rootName",
    "event:name",
    "instrumentation:version",
    "span:parentID",
    "nestedSetParent",
];
const ORDER: [&str; 6] = ["=", "!=", "<", "<=", ">", ">="];
const EQUALITY: [&str; 2] = ["=", "!="];
const RELATIONS: [&str; 17] =
    ["&&", "||", ">", "<", ">>", "<<", "~", "!>", "!<", "!>>", "!<<", "!~", "&>", "&<", "&>>", "&<<", "&~"];

fn one_of<const N: usize>(texts: [&'static str; N]) -> impl Strategy<Value = String> + Clone {
    select(texts.to_vec()).prop_map(str::to_owned)
}

/// A search.
pub fn search_query() -> impl Strategy<Value = String> {
    pipeline(true)
}

/// A metrics query.
pub fn metrics_query() -> impl Strategy<Value = String> {
    let combined =
        (series(), one_of(["+", "-", "*", "/"]), series()).prop_map(|(a, op, b)| format!("({a}) {op} ({b})"));
    let scaled = (series(), one_of(["+", "-", "*", "/"]), one_of(["2", "0.5", "0"]))
        .prop_map(|(series, op, number)| format!("({series}) {op} {number}"));
    let compared =
        (pipeline(false), condition(), one_of(["", ", 100", ", 100, 1767225600000000000, 1767225615000000000"]))
            .prop_map(|(pipeline, condition, top)| format!("{pipeline} | compare({{ {condition} }}{top})"));
    let query = prop_oneof![8 => series(), 1 => combined, 1 => scaled, 2 => compared];
    let hint = prop_oneof![3 => Just(""), 1 => Just(" with(extrapolate=true)")];
    // On the heap: the tree of all these choices is larger than a thread's stack should hold.
    (query.boxed(), hint).prop_map(|(query, hint)| format!("{query}{hint}"))
}

/// What a metrics query is asked for: one to six intervals near the spans.
pub fn window() -> impl Strategy<Value = Window> {
    const SECOND: u64 = 1_000_000_000;
    (select(vec![0, 15, 30]), select(vec![15, 5, 30]), 1..=6u64).prop_map(|(before, step, count)| {
        let from = T0 - before * SECOND;
        Window { from, to: from + count * step * SECOND, step: step * SECOND }
    })
}

/// A metrics function of a pipeline, with what may follow it.
fn series() -> impl Strategy<Value = String> {
    let of = one_of(["duration", ".k0", "span.k1", ".k1", "traceDuration", "event:timeSinceStart", "nestedSetLeft"]);
    let simple = one_of(["rate()", "count_over_time()"]);
    let folded =
        (one_of(["min", "max", "sum", "avg"]), of.clone()).prop_map(|(name, of)| format!("{name}_over_time({of})"));
    let bucketed = prop_oneof![
        of.clone().prop_map(|of| format!("histogram_over_time({of})")),
        (of, one_of(["0.5", "0, 0.9", "0.25, 0.5, 1"]))
            .prop_map(|(of, share)| format!("quantile_over_time({of}, {share})")),
    ];
    let by = subsequence(GROUPS.to_vec(), 0..=3).prop_shuffle();
    let filter = (one_of(ORDER), one_of(["1", "0.2", "500ms", "0"])).prop_map(|(op, number)| format!(" {op} {number}"));
    let filter = prop_oneof![3 => Just(String::new()), 1 => filter];
    let grouped = (pipeline(false), prop_oneof![simple.clone(), folded.clone(), bucketed], by, filter.clone())
        .prop_map(|(pipeline, function, by, filter)| match by.is_empty() {
            true => format!("{pipeline} | {function}{filter}"),
            false => format!("{pipeline} | {function} by({}){filter}", by.join(", ")),
        });
    // Ties are told apart by the text of labels, which these values have one each.
    let keys = one_of(["resource.service.name", "name", "status", "kind"]);
    let top = one_of(["topk(1)", "topk(2)", "bottomk(1)", "bottomk(3)"]);
    let ranked = (pipeline(false), prop_oneof![simple, folded], keys, top, filter).prop_map(
        |(pipeline, function, key, top, filter)| format!("{pipeline} | {function} by({key}) | {top}{filter}"),
    );
    prop_oneof![4 => grouped, 1 => ranked]
}

/// Stages; the first of them selects spans.
fn pipeline(is_search: bool) -> impl Strategy<Value = String> {
    let mut stages = vec![
        (3, spanset().boxed()),
        (3, scalar_filter().boxed()),
        (3, group().boxed()),
        (1, Just("coalesce()".to_owned()).boxed()),
    ];
    if is_search {
        stages.push((1, one_of(["select(.k0, name)", "select(event.e0, status)", "select(nestedSetLeft)"]).boxed()));
    }
    // Series of few spans say little.
    let weight_of_all = if is_search { 1 } else { 8 };
    let first = prop_oneof![
        weight_of_all => Just("{ }".to_owned()),
        8 => spanset(),
        1 => pipelines(),
        1 => scalar_filter(),
    ];
    let later =
        proptest::collection::vec(proptest::strategy::Union::new_weighted(stages), 0..=if is_search { 3 } else { 1 });
    (first, later).prop_map(|(first, later)| {
        let stages: Vec<String> = std::iter::once(first).chain(later).collect();
        stages.join(" | ")
    })
}

/// Two pipelines in parentheses.
fn pipelines() -> impl Strategy<Value = String> {
    let side = || {
        let grouped = (spanset(), group()).prop_map(|(spanset, group)| format!("({spanset} | {group} | coalesce())"));
        let filtered = (spanset(), scalar_filter()).prop_map(|(spanset, filter)| format!("({spanset} | {filter})"));
        prop_oneof![grouped, filtered]
    };
    (side(), one_of(RELATIONS), side()).prop_map(|(a, op, b)| format!("{a} {op} {b}"))
}

fn spanset() -> impl Strategy<Value = String> {
    let filter = prop_oneof![1 => Just("{ }".to_owned()), 6 => condition().prop_map(|expr| format!("{{ {expr} }}"))];
    filter.prop_recursive(2, 4, 2, |inner| {
        (inner.clone(), one_of(RELATIONS), inner).prop_map(|(a, op, b)| format!("({a} {op} {b})"))
    })
}

fn group() -> impl Strategy<Value = String> {
    let computed = one_of(["span.k0 = 1", "span.k1 + 1", "duration > 1s", "span.k0 != nil", "-span.k1", "!span.k2"]);
    prop_oneof![4 => one_of(GROUPS), 1 => computed].prop_map(|key| format!("by({key})"))
}

fn scalar_filter() -> impl Strategy<Value = String> {
    let of = one_of(["duration", ".k0", ".k1", "span.k1", "event.e0", "nestedSetLeft", "span.k0 + 1", "duration * 2"]);
    let aggregate = prop_oneof![
        1 => Just("count()".to_owned()),
        2 => (one_of(["min", "max", "sum", "avg"]), of).prop_map(|(name, of)| format!("{name}({of})")),
    ];
    let constant = one_of(["1", "2", "0", "0.5", "1s", "1500ms", "3"]);
    let simple = (aggregate.clone(), one_of(ORDER), constant.clone());
    let flipped = (constant.clone(), one_of(ORDER), aggregate.clone());
    let scaled =
        (aggregate.clone(), one_of(["+", "-", "*", "/"]), constant).prop_map(|(a, op, b)| format!("{a} {op} {b}"));
    let double = (aggregate, one_of(ORDER), scaled);
    prop_oneof![4 => simple, 1 => flipped, 1 => double].prop_map(|(a, op, b)| format!("{a} {op} {b}"))
}

/// A boolean expression over one span.
fn condition() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![6 => attribute_test(), 4 => intrinsic_test(), 1 => arithmetic_test(), 1 => odd_test()];
    leaf.prop_recursive(3, 6, 2, |inner| {
        prop_oneof![
            2 => (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} && {b})")),
            2 => (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} || {b})")),
            1 => inner.prop_map(|expr| format!("!({expr})")),
        ]
    })
}

fn comparison(
    left: impl Strategy<Value = String>,
    op: impl Strategy<Value = String>,
    right: impl Strategy<Value = String>,
) -> impl Strategy<Value = String> {
    (left, op, right).prop_map(|(left, op, right)| format!("{left} {op} {right}"))
}

fn number() -> impl Strategy<Value = String> {
    one_of(["1", "5", "0", "2", "0.5", "5.0", "10ms", "1s", "-3"])
}

fn text() -> impl Strategy<Value = String> {
    one_of(["\"x\"", "\"y\"", "\"10\"", "\"shop\"", "\"\"", "\"a\"", "\"exception\""])
}

fn pattern() -> impl Strategy<Value = String> {
    one_of(["\"x|y\"", "\".*\"", "\"[a-z]+\"", "\"\\\\d+\"", "\"(?i)SHOP\"", "\"0*1\""])
}

fn attribute_test() -> impl Strategy<Value = String> {
    let attribute = || one_of(ATTRIBUTES);
    let with_map = || prop_oneof![6 => attribute(), 1 => Just("span.m0".to_owned()), 1 => Just(".m0".to_owned())];
    // That this one is absent cannot be asked.
    let optional = with_map().prop_filter("never nil", |name| name != "resource.service.name");
    prop_oneof![
        5 => comparison(with_map(), one_of(ORDER), number()),
        4 => comparison(with_map(), one_of(ORDER), text()),
        2 => comparison(attribute(), one_of(["=~", "!~"]), pattern()),
        2 => comparison(attribute(), one_of(EQUALITY), one_of(["true", "false", "error", "server"])),
        2 => comparison(optional, Just("=".to_owned()), Just("nil".to_owned())),
        2 => comparison(with_map(), Just("!=".to_owned()), Just("nil".to_owned())),
        2 => comparison(attribute(), one_of(ORDER), attribute()),
        1 => comparison(number(), one_of(ORDER), attribute()),
        1 => comparison(text(), one_of(ORDER), attribute()),
    ]
}

fn intrinsic_test() -> impl Strategy<Value = String> {
    let id = one_of(["\"0000000000000001\"", "\"01\"", "\"1\"", "\"0000000000000000\"", "\"2\""]);
    let texts =
        prop_oneof![2 => text(), 1 => id, 1 => one_of(["\"b\"", "\"GET /x\"", "\"lib\"", "\"1.0\"", "\"boom\""])];
    prop_oneof![
        3 => comparison(one_of(NUMBERS), one_of(ORDER), number()),
        4 => comparison(one_of(TEXTS), one_of(ORDER), texts),
        1 => comparison(one_of(TEXTS), one_of(["=~", "!~"]), pattern()),
        2 => comparison(Just("status".to_owned()), one_of(EQUALITY), one_of(["error", "ok", "unset"])),
        2 => comparison(Just("kind".to_owned()), one_of(EQUALITY), one_of(["server", "client", "internal", "unspecified"])),
        1 => comparison(one_of(NUMBERS), one_of(ORDER), one_of(ATTRIBUTES)),
        1 => comparison(one_of(TEXTS), one_of(ORDER), one_of(ATTRIBUTES)),
        1 => comparison(one_of(["rootName", "event:name", "duration", "status"]), Just("!=".to_owned()), Just("nil".to_owned())),
    ]
}

fn arithmetic_test() -> impl Strategy<Value = String> {
    let operand = || prop_oneof![3 => one_of(PLAIN), 1 => one_of(["duration", "nestedSetLeft"])];
    let constant = one_of(["1", "2", "0", "0.5", "1s"]);
    let term = prop_oneof![
        3 => (operand(), one_of(["+", "-", "*", "/", "%", "^"]), constant),
        1 => (operand(), one_of(["+", "-", "*"]), operand()),
    ];
    let term = term.prop_map(|(a, op, b)| format!("({a} {op} {b})"));
    let negated = one_of(PLAIN).prop_map(|name| format!("(-{name})"));
    comparison(prop_oneof![4 => term, 1 => negated], one_of(ORDER), number())
}

/// What is no comparison.
fn odd_test() -> impl Strategy<Value = String> {
    let negated = one_of(PLAIN).prop_map(|name| format!("!{name}"));
    prop_oneof![3 => one_of(ATTRIBUTES), 1 => negated, 1 => one_of(["true", "false"])]
}
