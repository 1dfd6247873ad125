//! The meaning of filters is written here a second time, plainly, over the tree itself.

use std::sync::Arc;

use proptest::prelude::*;
use spoor_model::scan::{AttrScope, Condition, Field, Literal, Test};
use spoor_model::{
    Event, KeyValue, Link, Origin, Resource, Scope, Span, SpanEntry, SpanId, Status, TraceId, UnixNano, Value, value,
};

use super::*;
use crate::proto::jaeger::expression::v1 as proto;
use proto::expression::Kind;
use proto::{Attribute, Expression, List, Nested, Scalar};

const BYTES_MAX: usize = 131_072;

fn read(json: &str) -> Result<StructuredFilter, String> {
    StructuredFilter::from_json(json, BYTES_MAX).map_err(|err| err.to_string())
}

fn expression(kind: Kind) -> Expression {
    Expression { kind: Some(kind) }
}

fn attr(level: &str, key: &str) -> Expression {
    expression(Kind::Attr(Attribute { key: key.into(), level: level.into() }))
}

fn field(level: &str, name: &str) -> Expression {
    expression(Kind::Field(proto::Field { name: name.into(), level: level.into() }))
}

fn scalar(value: &str, type_name: &str) -> Expression {
    expression(Kind::Scalar(Scalar { value: value.into(), r#type: type_name.into() }))
}

fn list(values: &[&str]) -> Expression {
    let values = values.iter().map(|value| (*value).to_owned()).collect();
    expression(Kind::List(List { values, r#type: String::new() }))
}

fn nested(level: &str) -> Expression {
    expression(Kind::Nested(Nested { level: level.into() }))
}

fn call(op: &str, args: Vec<Expression>) -> Call {
    Call { op: op.into(), args }
}

fn filter(call: &Call) -> Result<StructuredFilter, String> {
    StructuredFilter::from_call(call, BYTES_MAX).map_err(|err| err.to_string())
}

/// What a comparison of one thing with a constant asks sources for, if that says it all.
fn exact(call: &Call) -> String {
    let filter = filter(call).unwrap();
    assert!(filter.is_exact, "{call:?}");
    format!("{:?}", filter.necessary)
}

#[test]
fn json_is_read_as_protobufs_json_of_the_messages() {
    let json = r#"{"op":"and","args":[
        {"call":{"op":"gt","args":[{"field":{"name":"duration","level":"span"}},{"scalar":{"value":"2s"}}]}},
        {"call":{"op":"in","args":[{"attr":{"key":"code"}},{"list":{"values":["500","503"],"type":"int"}}]}},
        {"call":{"op":"some","args":[{"nested":{"level":"event"}},
            {"call":{"op":"exists","args":[{"attr":{"key":"a","level":"event"}}]}}]}}]}"#;
    let typed = Kind::List(List { values: vec!["500".into(), "503".into()], r#type: "int".into() });
    let inner = |call| expression(Kind::Call(call));
    let expected = call(
        "and",
        vec![
            inner(call("gt", vec![field("span", "duration"), scalar("2s", "")])),
            inner(call("in", vec![attr("", "code"), expression(typed)])),
            inner(call("some", vec![nested("event"), inner(call("exists", vec![attr("event", "a")]))])),
        ],
    );
    assert_eq!(json::call(json), Ok(expected));
}

#[test]
fn mistakes_are_named() {
    let deep = |levels: usize| {
        let leaf = r#"{"op":"exists","args":[{"attr":{"key":"a"}}]}"#.to_owned();
        (1..levels).fold(leaf, |inner, _| format!(r#"{{"op":"not","args":[{{"call":{inner}}}]}}"#))
    };
    assert!(read(&deep(DEPTH_MAX)).is_ok());
    assert_eq!(read(&deep(DEPTH_MAX + 1)).unwrap_err(), "calls are nested more than 20 deep");
    let text = StructuredFilter::from_json("{         }", 8).unwrap_err().to_string();
    assert_eq!(text, "it is 11 bytes long, at most 8; raise query_max_bytes");
    assert!(read(r#"{"op":"and","args":[],"more":1}"#).unwrap_err().starts_with("unknown field `more`"));
    let a = || attr("", "a");
    let call_of = |op, args| expression(Kind::Call(call(op, args)));
    let events = |inner| call("some", vec![nested("event"), inner]);
    let typed_list = Kind::List(List { values: vec!["1s".into()], r#type: "int".into() });
    for (call, text) in [
        (call("", vec![]), "a call needs an op"),
        (call("like", vec![]), "unknown operator \"like\""),
        (call("or", vec![]), "or needs arguments"),
        (call("and", vec![a()]), "and takes calls"),
        (call("not", vec![]), "not takes one argument, not 0"),
        (call("eq", vec![a()]), "eq takes two arguments, not 1"),
        (call("eq", vec![a(), list(&["a"])]), "eq takes no list: that is for in and not_in"),
        (call("eq", vec![a(), Expression { kind: None }]), "an argument of eq is empty"),
        (call("eq", vec![scalar("1", ""), scalar("1", "")]), "eq compares two constants"),
        (call("exists", vec![scalar("1", "")]), "the first argument of exists is an attribute or a field"),
        (call("in", vec![a(), scalar("1", "")]), "the second argument of in is a list"),
        (call("not_in", vec![a(), list(&[])]), "the list of not_in is empty"),
        (call("eq", vec![attr("span", ""), scalar("1", "")]), "an attribute needs a key"),
        (
            call("exists", vec![attr("trace", "a")]),
            "unknown level \"trace\": expected span, resource, scope, event or link",
        ),
        (call("exists", vec![field("", "name")]), "the field \"name\" needs a level"),
        (call("exists", vec![field("resource", "name")]), "there is no field \"name\" of level resource"),
        (call("eq", vec![a(), scalar("x", "int")]), "\"x\" is no int"),
        (call("eq", vec![a(), scalar("nan", "double")]), "\"nan\" is no double"),
        (call("gt", vec![a(), scalar("true", "bool")]), "gt: booleans have no order"),
        (call("eq", vec![a(), scalar("x", "text")]), "unknown type \"text\": expected string, int, double or bool"),
        (call("gt", vec![field("span", "duration"), scalar("5", "")]), "\"5\" is no duration such as 100ms"),
        (call("gt", vec![field("span", "duration"), scalar("5", "int")]), "gt: the field's values are not of type int"),
        (
            call("in", vec![field("span", "duration"), expression(typed_list)]),
            "in: the field's values are not of type int",
        ),
        (call("lt", vec![field("event", "time"), scalar("now", "")]), "\"now\" is no time as RFC 3339 has it"),
        (call("eq", vec![field("span", "status"), scalar("bad", "")]), "\"bad\" is none of unset, ok, error"),
        (call("lt", vec![field("span", "kind"), scalar("server", "")]), "lt: words have no order"),
        (
            call("eq", vec![field("span", "duration"), a()]),
            "eq compares values that are not of one kind, or have no order",
        ),
        (call("regex", vec![a(), a()]), "the second argument of regex is a constant"),
        (call("regex", vec![field("span", "duration"), scalar("1", "")]), "regex is about texts, not times"),
        (call("regex", vec![a(), scalar("(", "")]), "\"(\" is no regular expression as RE2 has them: unclosed group"),
        (call("some", vec![a(), a()]), "the first argument of some is nested: the events or the links"),
        (call("some", vec![nested("span"), a()]), "some is about event or link, not \"span\""),
        (
            events(call_of("some", vec![nested("event"), call_of("exists", vec![a()])])),
            "some of level event within some of the same level",
        ),
    ] {
        assert_eq!(filter(&call).unwrap_err(), text, "{call:?}");
    }
    let many = (0..=spoor_traceql::REGEXES_MAX).map(|_| call_of("regex", vec![a(), scalar("a", "")]));
    assert_eq!(filter(&call("or", many.collect())).unwrap_err(), "more than 100 regular expressions");
}

fn is(field: Field, test: Test) -> Predicate {
    Predicate::Is(Condition { field, test })
}

fn of_span(key: &str) -> Field {
    Field::Attribute(AttrScope::Span, key.into())
}

#[test]
fn constants_are_what_they_are_compared_with() {
    let text = |text: &str| Literal::Str(text.into());
    let shown = |predicate: Predicate| format!("{predicate:?}");
    let any = |all: Vec<Test>| shown(Predicate::Or(all.into_iter().map(|test| is(of_span("a"), test)).collect()));
    let compare = |op: &str, left: Expression, right: Expression| exact(&call(op, vec![left, right]));
    let a = || attr("span", "a");
    // Without a type: whatever reads so.
    assert_eq!(compare("eq", a(), scalar("500", "")), any(vec![Test::Eq(text("500")), Test::Eq(Literal::Int(500))]));
    assert_eq!(
        compare("eq", a(), scalar("-1.5", "")),
        any(vec![Test::Eq(text("-1.5")), Test::Eq(Literal::Float(-1.5))])
    );
    assert_eq!(
        compare("eq", a(), scalar("true", "")),
        any(vec![Test::Eq(text("true")), Test::Eq(Literal::Bool(true))])
    );
    assert_eq!(compare("eq", a(), scalar("inf", "")), shown(is(of_span("a"), Test::Eq(text("inf")))));
    assert_eq!(compare("gt", a(), scalar("500", "")), shown(is(of_span("a"), Test::Gt(Literal::Int(500)))));
    assert_eq!(compare("gt", a(), scalar("m", "")), shown(is(of_span("a"), Test::Gt(text("m")))));
    // With one: of that type alone; and a constant on the left says the same.
    assert_eq!(compare("lte", a(), scalar("9", "string")), shown(is(of_span("a"), Test::Le(text("9")))));
    assert_eq!(compare("gte", scalar("9", "int"), a()), shown(is(of_span("a"), Test::Le(Literal::Int(9)))));
    assert_eq!(compare("eq", a(), scalar("2", "double")), shown(is(of_span("a"), Test::Eq(Literal::Float(2.0)))));
    // Fields say what constants are.
    let kind = is(Field::Kind, Test::Eq(Literal::Int(2)));
    assert_eq!(compare("eq", field("span", "kind"), scalar("server", "")), shown(kind));
    let long = is(Field::Duration, Test::Gt(Literal::Int(2_000_000_000)));
    assert_eq!(compare("gt", field("span", "duration"), scalar("2s", "")), shown(long));
    let late = is(Field::StartTime, Test::Ge(Literal::Int(1_000)));
    assert_eq!(compare("gte", field("span", "startTime"), scalar("1970-01-01T00:00:00.000001Z", "")), shown(late));
    let id = is(Field::TraceId, Test::Eq(text("0000000000000000000000000000a0b1")));
    assert_eq!(compare("eq", field("span", "traceID"), scalar("A0B1", "")), shown(id));
}

#[test]
fn sources_are_asked_for_all_that_they_can_say() {
    let text = |text: &str| Literal::Str(text.into());
    let inner = |op: &str, args| expression(Kind::Call(call(op, args)));
    let event = |op: &str, name: &str, value: &str| inner(op, vec![field("event", name), scalar(value, "")]);
    let condition = |field, test| Condition { field, test };
    let named = condition(Field::EventName, Test::Eq(text("e")));
    let late = condition(Field::EventTimeSinceStart, Test::Gt(Literal::Int(50)));
    let of_one = inner("and", vec![event("eq", "name", "e"), event("gt", "timeSinceStart", "50ns")]);
    let one_event = Predicate::OneEvent(vec![named.clone(), late]);
    assert_eq!(exact(&call("some", vec![nested("event"), of_one])), format!("{one_event:?}"));
    // What is said of the span stands beside, and "or" is taken apart.
    let root = || inner("eq", vec![field("span", "name"), scalar("root", "")]);
    let mixed = inner("or", vec![inner("and", vec![root(), event("eq", "name", "e")]), inner("not", vec![root()])]);
    let is_root = is(Field::Name, Test::Eq(text("root")));
    let expected = Predicate::Or(vec![
        Predicate::And(vec![is_root, Predicate::OneEvent(vec![named])]),
        Predicate::And(vec![is(Field::Name, Test::Ne(text("root"))), Predicate::OneEvent(vec![])]),
    ]);
    assert_eq!(exact(&call("some", vec![nested("event"), mixed])), format!("{expected:?}"));
    // The service is what is shown as such.
    let service = |name: &str| exact(&call("eq", vec![field("resource", "service"), scalar(name, "")]));
    let attribute = || Field::Attribute(AttrScope::Resource, "service.name".into());
    assert_eq!(service("shop"), format!("{:?}", is(attribute(), Test::Eq(text("shop")))));
    for name in ["missing-service-name", "empty-service-name"] {
        let named = is(attribute(), Test::Eq(text(name)));
        let classic = crate::jaeger::search::service_predicate(name);
        assert!(service(name).starts_with(&format!("Or([{named:?}, ")), "{name}");
        assert_eq!(service(name).matches("Attribute").count(), format!("{classic:?}").matches("Attribute").count());
    }
    // What sources cannot say leaves them what they can.
    let ne = filter(&call("ne", vec![attr("span", "a"), scalar("x", "")])).unwrap();
    assert!(!ne.is_exact);
    assert_eq!(format!("{:?}", ne.necessary), format!("{:?}", is(of_span("a"), Test::Exists)));
}

// The naive model: the tree itself, evaluated on a span.

fn attributes<'a>(entry: &'a SpanEntry, level: &str, item: Option<Item<'a>>) -> Vec<&'a [KeyValue]> {
    let SpanEntry { origin, span } = entry;
    match (level, item) {
        ("span", _) => vec![&span.attributes],
        ("resource", _) => vec![&origin.resource.attributes],
        ("scope", _) => vec![&origin.scope.attributes],
        ("event", Some(Item::Event(event))) => vec![&event.attributes],
        ("event", _) => span.events.iter().map(|event| &event.attributes[..]).collect(),
        ("link", Some(Item::Link(link))) => vec![&link.attributes],
        ("link", _) => span.links.iter().map(|link| &link.attributes[..]).collect(),
        _ => vec![&span.attributes, &origin.resource.attributes],
    }
}

#[derive(Clone, Copy)]
enum Item<'a> {
    Event(&'a Event),
    Link(&'a Link),
}

/// All values of a reference; times as numbers of nanoseconds, kinds and statuses as numbers.
fn values(reference: &Kind, entry: &SpanEntry, item: Option<Item<'_>>) -> Vec<Value> {
    let span = &entry.span;
    let number = |nanos: u64| Value::Int(nanos as i64);
    let events = || match item {
        Some(Item::Event(event)) => vec![event],
        _ => span.events.iter().collect(),
    };
    match reference {
        Kind::Attr(Attribute { key, level }) => {
            let lists = attributes(entry, level, item).into_iter();
            lists.filter_map(|list| value::find(list, key)).cloned().collect()
        }
        Kind::Field(proto::Field { name, level }) => match (level.as_str(), name.as_str()) {
            ("span", "name") => vec![Value::Str(span.name.clone())],
            ("span", "kind") => vec![Value::Int(span.kind.into())],
            ("span", "duration") => vec![number(span.end.0 - span.start.0)],
            ("span", "startTime") => vec![number(span.start.0)],
            ("span", "endTime") => vec![number(span.end.0)],
            ("span", "statusMessage") => vec![Value::Str(span.status.message.clone())],
            ("event", "name") => events().iter().map(|event| Value::Str(event.name.clone())).collect(),
            ("event", "time") => events().iter().map(|event| number(event.time.0)).collect(),
            ("event", "timeSinceStart") => {
                events().iter().map(|event| number(event.time.0.saturating_sub(span.start.0))).collect()
            }
            ("resource", "service") => vec![
                value::find(&entry.origin.resource.attributes, "service.name")
                    .cloned()
                    .unwrap_or(Value::Str("missing-service-name".into())),
            ],
            other => panic!("not generated: {other:?}"),
        },
        other => panic!("no reference: {other:?}"),
    }
}

/// A constant, as each kind of value that it may be.
fn readings(reference: &Kind, Scalar { value, r#type }: &Scalar) -> Vec<Value> {
    let nanos = |count: &str| Value::Int(count.trim_end_matches("ns").parse().unwrap());
    match reference {
        Kind::Field(field) if field.name == "kind" => vec![Value::Int(if value == "server" { 2 } else { 3 })],
        Kind::Field(field) if matches!(field.name.as_str(), "duration" | "timeSinceStart") => vec![nanos(value)],
        Kind::Field(field) if matches!(field.name.as_str(), "startTime" | "endTime" | "time") => {
            vec![Value::Int(spoor_model::rfc3339::parse(value).unwrap().0 as i64)]
        }
        Kind::Field(_) => vec![Value::Str(value.clone())],
        _ => {
            let int = value.parse().map(Value::Int).ok();
            let double = value.parse().map(Value::Double).ok();
            let flag = value.parse().map(Value::Bool).ok();
            let text = Some(Value::Str(value.clone()));
            let read = match r#type.as_str() {
                "" => [text, double, flag],
                "int" => [int, None, None],
                _ => [text, None, None],
            };
            read.into_iter().flatten().collect()
        }
    }
}

fn order(left: &Value, right: &Value) -> Option<std::cmp::Ordering> {
    match (left, right) {
        (Value::Str(left), Value::Str(right)) => Some(left.cmp(right)),
        (Value::Bool(left), Value::Bool(right)) => Some(left.cmp(right)),
        // Small numbers only are generated.
        (left, right) => number_of(left)?.partial_cmp(&number_of(right)?),
    }
}

fn number_of(value: &Value) -> Option<f64> {
    match value {
        Value::Int(int) => Some(*int as f64),
        Value::Double(double) => Some(*double),
        _ => None,
    }
}

fn naive_comparison(op: &str, args: &[Expression], entry: &SpanEntry, item: Option<Item<'_>>) -> bool {
    let kinds = [&args[0], &args[1]].map(|arg| arg.kind.as_ref().unwrap());
    let [left, right] = kinds;
    let constants = match right {
        Kind::Scalar(constant) => {
            let mut readings = readings(left, constant);
            let is_number = |value: &Value| number_of(value).is_some();
            // Ordered, what reads like a number is one.
            if op != "eq" && readings.iter().any(is_number) {
                readings.retain(is_number);
            } else if op != "eq" {
                readings.truncate(1);
            }
            readings
        }
        reference => values(reference, entry, item),
    };
    // Booleans have no order.
    let is_flag = |value: &Value| matches!(value, Value::Bool(_));
    let holds = |order: std::cmp::Ordering| match op {
        "eq" => order.is_eq(),
        "gt" => order.is_gt(),
        "lt" => order.is_lt(),
        "gte" => order.is_ge(),
        "lte" => order.is_le(),
        other => panic!("no comparison: {other}"),
    };
    let compare = |value: &Value, constant| order(value, constant).filter(|_| op == "eq" || !is_flag(value));
    let pairs = |value: &Value| constants.iter().any(|constant| compare(value, constant).is_some_and(holds));
    values(left, entry, item).iter().any(pairs)
}

fn is_there(reference: &Expression, entry: &SpanEntry, item: Option<Item<'_>>) -> bool {
    let reference = reference.kind.as_ref().unwrap();
    let is_field = matches!(reference, Kind::Field(_));
    !matches!(reference, Kind::Scalar(_))
        && values(reference, entry, item).iter().any(|value| !is_field || *value != Value::Str(String::new()))
}

/// Whether the tree holds for a span. `events` and `links` are bound at once in no generated tree.
fn naive(call: &Call, entry: &SpanEntry, item: Option<Item<'_>>) -> bool {
    let args = &call.args;
    let inner = |arg: &Expression, item| match &arg.kind {
        Some(Kind::Call(call)) => naive(call, entry, item),
        other => panic!("no call: {other:?}"),
    };
    match call.op.as_str() {
        "and" => args.iter().all(|arg| inner(arg, item)),
        "or" => args.iter().any(|arg| inner(arg, item)),
        "not" => !inner(&args[0], item),
        "exists" => is_there(&args[0], entry, item),
        "ne" => {
            let named = args.iter().filter(|arg| !matches!(arg.kind, Some(Kind::Scalar(_))));
            let all_there = named.into_iter().all(|arg| is_there(arg, entry, item));
            all_there && !naive_comparison("eq", args, entry, item)
        }
        "in" | "not_in" => {
            let Some(Kind::List(List { values, r#type })) = &args[1].kind else { panic!("no list") };
            let is_member = values
                .iter()
                .any(|value| naive_comparison("eq", &[args[0].clone(), scalar(value, r#type)], entry, item));
            if call.op == "in" { is_member } else { is_there(&args[0], entry, item) && !is_member }
        }
        "regex" => {
            let Some(Kind::Scalar(Scalar { value: pattern, .. })) = &args[1].kind else { panic!("no pattern") };
            let values = values(args[0].kind.as_ref().unwrap(), entry, item);
            values.iter().any(|value| value.as_str().is_some_and(|text| text.contains(pattern)))
        }
        "some" => match &args[0].kind {
            Some(Kind::Nested(Nested { level })) if level == "event" => {
                entry.span.events.iter().any(|event| inner(&args[1], Some(Item::Event(event))))
            }
            _ => entry.span.links.iter().any(|link| inner(&args[1], Some(Item::Link(link)))),
        },
        op => naive_comparison(op, args, entry, item),
    }
}

fn any_attribute() -> impl Strategy<Value = KeyValue> {
    let value = prop_oneof![
        prop::sample::select(vec!["", "a", "ab", "5", "true"]).prop_map(|text| Value::Str(text.into())),
        (3_i64..7).prop_map(Value::Int),
        prop::sample::select(vec![4.5, 5.0]).prop_map(Value::Double),
        any::<bool>().prop_map(Value::Bool),
    ];
    (prop::sample::select(vec!["k", "l"]), value).prop_map(|(key, value)| KeyValue::new(key, value))
}

fn any_attributes() -> impl Strategy<Value = Vec<KeyValue>> {
    prop::collection::vec(any_attribute(), 0..3).prop_map(|mut all| {
        all.sort_by(|a, b| a.key.cmp(&b.key));
        all.dedup_by(|a, b| a.key == b.key);
        all
    })
}

const SECOND: u64 = 1_000_000_000;

prop_compose! {
    fn any_entry()(
        attributes in any_attributes(),
        mut of_resource in any_attributes(),
        of_scope in any_attributes(),
        service in prop::option::of(prop::sample::select(vec!["a", "ab"])),
        name in prop::sample::select(vec!["", "a", "ab"]),
        message in prop::sample::select(vec!["", "a"]),
        kind in 2..4,
        (start, lasts) in (5..8_u64, 0..3_u64),
        events in prop::collection::vec((any_attributes(), 4..9_u64, prop::sample::select(vec!["", "a"])), 0..3),
        links in prop::collection::vec(any_attributes(), 0..3),
    ) -> SpanEntry {
        of_resource.extend(service.map(|name| KeyValue::new("service.name", Value::Str(name.into()))));
        let event = |(attributes, at, name): (Vec<KeyValue>, u64, &str)| {
            Event { time: UnixNano(at * SECOND), name: name.into(), attributes, dropped_attributes_count: 0 }
        };
        let link = |attributes| Link { trace_id: TraceId([1; 16]), span_id: SpanId([1; 8]), attributes, ..Link::default() };
        let span = Span {
            trace_id: TraceId([1; 16]),
            span_id: SpanId([1; 8]),
            name: name.into(),
            kind,
            start: UnixNano(start * SECOND),
            end: UnixNano((start + lasts) * SECOND),
            status: Status { code: 0, message: message.into() },
            attributes,
            events: events.into_iter().map(event).collect(),
            links: links.into_iter().map(link).collect(),
            ..Span::default()
        };
        let resource = Resource { attributes: of_resource, ..Resource::default() };
        let scope = Scope { attributes: of_scope, ..Scope::default() };
        SpanEntry { origin: Arc::new(Origin { resource, scope, ..Origin::default() }), span }
    }
}

fn any_attr() -> impl Strategy<Value = Expression> {
    let level = prop::sample::select(vec!["", "span", "resource", "scope", "event", "link"]);
    (level, prop::sample::select(vec!["k", "l"])).prop_map(|(level, key)| attr(level, key))
}

fn any_text_field() -> impl Strategy<Value = Expression> {
    let names = vec![("span", "name"), ("span", "statusMessage"), ("event", "name"), ("resource", "service")];
    prop::sample::select(names).prop_map(|(level, name)| field(level, name))
}

/// A reference, and a constant that it can be compared with, and whether it has an order.
fn any_comparable() -> impl Strategy<Value = (Expression, Expression, bool)> {
    let untyped =
        prop::sample::select(vec![("a", ""), ("5", ""), ("4.5", ""), ("true", ""), ("5", "int"), ("5", "string")]);
    let instants = prop::sample::select(vec![("span", "startTime"), ("span", "endTime"), ("event", "time")]);
    prop_oneof![
        4 => (any_attr(), untyped).prop_map(|(attr, (value, of))| (attr, scalar(value, of), true)),
        1 => (any_attr(), any_attr()).prop_map(|(left, right)| (left, right, true)),
        2 => (any_text_field(), prop::sample::select(vec!["a", "missing-service-name"]))
            .prop_map(|(field, text)| (field, scalar(text, ""), true)),
        1 => prop::sample::select(vec!["server", "client"]).prop_map(|kind| (field("span", "kind"), scalar(kind, ""), false)),
        1 => prop::sample::select(vec![("span", "duration"), ("event", "timeSinceStart")])
            .prop_map(|(level, name)| (field(level, name), scalar("1000000000ns", ""), true)),
        1 => instants.clone().prop_map(|(level, name)| (field(level, name), scalar("1970-01-01T00:00:06Z", ""), true)),
        1 => (instants.clone(), instants)
            .prop_map(|((level, name), (other_level, other))| (field(level, name), field(other_level, other), true)),
    ]
}

fn any_leaf() -> impl Strategy<Value = Call> {
    let ops = prop::sample::select(vec!["eq", "ne", "gt", "lt", "gte", "lte"]);
    let compared = (any_comparable(), ops).prop_map(|((left, right, is_ordered), op)| {
        call(if is_ordered || op == "ne" { op } else { "eq" }, vec![left, right])
    });
    let member_ops = prop::sample::select(vec!["in", "not_in"]);
    prop_oneof![
        4 => compared,
        1 => prop_oneof![any_attr(), any_text_field()].prop_map(|named| call("exists", vec![named])),
        1 => (any_attr(), member_ops).prop_map(|(attr, op)| call(op, vec![attr, list(&["a", "5"])])),
        1 => prop_oneof![any_attr(), any_text_field()].prop_map(|named| call("regex", vec![named, scalar("b", "")])),
    ]
}

fn any_call(may_bind: bool) -> BoxedStrategy<Call> {
    let inner = |call| expression(Kind::Call(call));
    any_leaf()
        .prop_recursive(3, 12, 3, move |below| {
            let many = prop::collection::vec(below.clone().prop_map(inner), 1..4);
            let joined = (prop::sample::select(vec!["and", "or"]), many).prop_map(|(op, args)| call(op, args));
            let negated = below.prop_map(move |below| call("not", vec![inner(below)]));
            match may_bind {
                false => prop_oneof![joined, negated].boxed(),
                true => {
                    let level = prop::sample::select(vec!["event", "link"]);
                    let some = (level, any_call(false))
                        .prop_map(move |(level, below)| call("some", vec![nested(level), inner(below)]));
                    prop_oneof![joined, negated, some].boxed()
                }
            }
        })
        .boxed()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_filter_means_what_its_tree_says(call in any_call(true), entry in any_entry()) {
        let filter = filter(&call).unwrap();
        let expected = naive(&call, &entry, None);
        prop_assert_eq!(filter.holds(&entry), expected);
        let is_asked_for = filter.necessary.matches(&entry);
        prop_assert!(is_asked_for || !expected, "sources would not be asked for it: {:?}", filter.necessary);
        prop_assert!(!filter.is_exact || is_asked_for == expected, "sources would say too much: {:?}", filter.necessary);
    }
}
