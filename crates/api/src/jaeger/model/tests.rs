use super::*;
use spoor_model::Event;

fn tag_of(value: Value) -> serde_json::Value {
    serde_json::to_value(tag(&KeyValue::new("k", value))).unwrap()
}

#[test]
fn values_take_jaegers_types() {
    for (value, r#type, expected) in [
        (Value::Str("x".into()), "string", serde_json::json!("x")),
        (Value::Bool(false), "bool", serde_json::json!(false)),
        (Value::Int((1 << 53) - 1), "int64", serde_json::json!(9_007_199_254_740_991_i64)),
        (Value::Int(-(1 << 53)), "int64", serde_json::json!("-9007199254740992")),
        (Value::Double(1.5), "float64", serde_json::json!(1.5)),
        (Value::Double(f64::NAN), "float64", serde_json::json!("NaN")),
        (Value::Bytes(vec![1, 2]), "binary", serde_json::json!("AQI=")),
        (Value::Array(vec![Value::Int(1)]), "string", serde_json::json!("[1]")),
        (Value::Empty, "string", serde_json::json!("")),
    ] {
        assert_eq!(tag_of(value), serde_json::json!({"key": "k", "type": r#type, "value": expected}));
    }
}

#[test]
fn a_link_to_the_parent_only_says_what_kind_it_is() {
    let span = |links| Span { trace_id: TraceId([1; 16]), parent_span_id: SpanId([2; 8]), links, ..Span::default() };
    let to_parent = Link { trace_id: TraceId([1; 16]), span_id: SpanId([2; 8]), ..Link::default() };
    let kinds = |span: &Span| {
        references(span).iter().map(|one| if one.is_child_of { "CHILD_OF" } else { "FOLLOWS_FROM" }).collect::<Vec<_>>()
    };
    assert_eq!(kinds(&span(vec![])), ["CHILD_OF"]);
    assert_eq!(kinds(&span(vec![to_parent.clone()])), ["FOLLOWS_FROM"]);
    let child_of = vec![KeyValue::new("opentracing.ref_type", Value::Str("child_of".into()))];
    let elsewhere = Link { span_id: SpanId([3; 8]), attributes: child_of, ..to_parent };
    assert_eq!(kinds(&span(vec![elsewhere])), ["CHILD_OF", "CHILD_OF"]);
}

#[test]
fn an_events_name_comes_first_unless_an_attribute_says_event() {
    let event = |attributes| Event { time: UnixNano(1999), name: "e".into(), attributes, ..Event::default() };
    let fields = |event: &Event| log(event).fields.iter().map(|field| field.key.clone()).collect::<Vec<_>>();
    assert_eq!(fields(&event(vec![KeyValue::new("a", Value::Int(1))])), ["event", "a"]);
    assert_eq!(fields(&event(vec![KeyValue::new("event", Value::Int(1))])), ["event"]);
    assert_eq!(serde_json::to_value(log(&event(vec![]))).unwrap()["timestamp"], 1);
}

#[test]
fn equal_processes_share_a_key() {
    let process = |name: &str| Process { service_name: name.to_owned(), tags: vec![] };
    let mut processes = Processes::default();
    let keys = ["a", "b", "a"].map(|name| process_key(processes.index_of(process(name))));
    assert_eq!(keys, ["p1", "p2", "p1"]);
}

#[test]
fn ids_with_an_empty_upper_half_are_short() {
    let id = |text: &str| id_text(TraceId::from_hex(text).unwrap());
    assert_eq!(id("a0b1"), "000000000000a0b1");
    assert_eq!(id("10000000000000001"), "00000000000000010000000000000001");
}
