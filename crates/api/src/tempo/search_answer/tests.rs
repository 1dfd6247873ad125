use super::*;
use crate::fixtures::entries_of;

const SPANS: &str = r#"{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"shop"}}]},
 "scopeSpans":[{"spans":[
  {"traceId":"000000000000000000000000000000ab","spanId":"0000000000000001","name":"GET /","kind":2,
   "startTimeUnixNano":"1000000000","endTimeUnixNano":"1005999999","status":{"code":2},
   "attributes":[{"key":"n","value":{"intValue":"1"}},{"key":"list","value":{"arrayValue":{"values":[{"intValue":"1"},{"intValue":"2"}]}}}]},
  {"traceId":"000000000000000000000000000000ab","spanId":"0000000000000002","parentSpanId":"0000000000000001","name":"db",
   "startTimeUnixNano":"1000000001","endTimeUnixNano":"1000000001",
   "attributes":[{"key":"n","value":{"doubleValue":0.5}},{"key":"list","value":{"stringValue":"x"}}]}]}]}]}"#;

fn plan(query: &str) -> SearchPlan {
    spoor_traceql::plan_search(&spoor_traceql::parse(query).unwrap()).unwrap()
}

/// All spans found, by a query that finds them; without one, by an older search.
fn answer(json: &str, query: Option<&str>, spans_max: usize) -> SearchAnswer {
    let entries = entries_of(json.as_bytes());
    let trace = Trace::assemble(entries[0].span.trace_id, entries).unwrap();
    let stats = ScanStats { spans_inspected: 7, traces_inspected: 1, bytes_inspected: 9 };
    let plan = query.map(plan);
    let spansets = match &plan {
        Some(plan) => plan.evaluate(&trace),
        None => vec![MatchedSpanset { spans: vec![0, 1], attributes: Vec::new() }],
    };
    SearchAnswer::new(&[FoundTrace { trace, spansets }], plan.as_ref(), spans_max, stats, 0)
}

#[test]
fn an_answer_has_the_keys_and_types_that_grafana_knows() {
    let query = "{ } | select(name, status, duration, span.n, span.list, span.absent)";
    let answer = answer(SPANS, Some(query), 3);
    let json: serde_json::Value = serde_json::from_slice(&answer.to_json()).unwrap();
    let span_set = serde_json::json!({"matched": 2, "spans": [
        {"spanID": "0000000000000001", "name": "GET /", "startTimeUnixNano": "1000000000", "durationNanos": "5999999",
         "attributes": [
            {"key": "status", "value": {"stringValue": "error"}},
            {"key": "n", "value": {"doubleValue": 1.0}},
            {"key": "list", "value": {"stringValue": "[1,2]"}}]},
        {"spanID": "0000000000000002", "name": "db", "startTimeUnixNano": "1000000001",
         "attributes": [
            {"key": "status", "value": {"stringValue": "unset"}},
            {"key": "n", "value": {"doubleValue": 0.5}},
            {"key": "list", "value": {"stringValue": "x"}}]}]});
    let expected = serde_json::json!({
        "traces": [{"traceID": "ab", "rootServiceName": "shop", "rootTraceName": "GET /",
            "startTimeUnixNano": "1000000000", "durationMs": 5,
            "spanSet": span_set, "spanSets": [span_set],
            "serviceStats": {"shop": {"spanCount": 2, "errorCount": 1}}}],
        "metrics": {"inspectedTraces": 1, "inspectedBytes": "9", "completedJobs": 1, "totalJobs": 1,
            "inspectedSpans": "7"}});
    assert_eq!(json, expected);
}

#[test]
fn a_legacy_search_has_no_span_sets_and_names_only_as_asked() {
    let json: serde_json::Value = serde_json::from_slice(&answer(SPANS, None, 3).to_json()).unwrap();
    assert_eq!((json["traces"][0].get("spanSet"), json["traces"][0].get("spanSets")), (None, None));
    let json: serde_json::Value = serde_json::from_slice(&answer(SPANS, Some("{ }"), 1).to_json()).unwrap();
    let span_set = &json["traces"][0]["spanSet"];
    assert_eq!((span_set["matched"].as_u64(), span_set["spans"].as_array().unwrap().len()), (Some(2), 1));
    assert_eq!(span_set["spans"][0].get("name"), None);
}

#[test]
fn a_trace_without_its_root_says_so() {
    let json = SPANS.replacen("\"name\":\"GET /\"", "\"name\":\"GET /\",\"parentSpanId\":\"0000000000000007\"", 1);
    let json: serde_json::Value = serde_json::from_slice(&answer(&json, None, 3).to_json()).unwrap();
    assert_eq!(json["traces"][0]["rootServiceName"], ROOT_UNKNOWN);
    assert_eq!(json["traces"][0].get("rootTraceName"), None);
}

#[test]
fn texts_beside_numbers_make_all_of_them_texts() {
    let json = SPANS.replace("{\"doubleValue\":0.5}", "{\"stringValue\":\"many\"}");
    let json: serde_json::Value =
        serde_json::from_slice(&answer(&json, Some("{ span.n != nil }"), 3).to_json()).unwrap();
    let spans = &json["traces"][0]["spanSet"]["spans"];
    assert_eq!(spans[0]["attributes"][0]["value"]["stringValue"], "1");
    assert_eq!(spans[1]["attributes"][0]["value"]["stringValue"], "many");
}

#[test]
fn both_forms_say_the_same() {
    use spoor_model::wire::{Field as WireField, Reader};
    let bytes = answer(SPANS, Some("{ span.n != nil }"), 3).to_protobuf();
    let fields = |bytes: &[u8]| {
        let mut reader = Reader::new(bytes);
        let mut fields = Vec::new();
        while let Some((number, field)) = reader.next_field().unwrap() {
            fields.push((
                number,
                match field {
                    WireField::Bytes(bytes) => bytes.to_vec(),
                    WireField::Varint(number) => number.to_string().into_bytes(),
                    other => panic!("{other:?}"),
                },
            ));
        }
        fields
    };
    let trace = fields(&fields(&bytes)[0].1);
    let numbers: Vec<u32> = trace.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(trace[0].1, b"ab");
    assert_eq!(trace[5].1, trace[6].1, "spanSet is the first of spanSets");
    let stats = fields(&trace[7].1);
    assert_eq!(stats[0].1, b"shop");
    assert_eq!(fields(&stats[1].1), [(1, b"2".to_vec()), (2, b"1".to_vec())]);
}

#[test]
fn keys_keep_the_types_that_a_client_was_sent() {
    let numbers = SPANS.replace(r#""list","value":{"stringValue":"x"}"#, r#""other","value":{"boolValue":true}"#);
    let numbers =
        numbers.replace(r#"{"arrayValue":{"values":[{"intValue":"1"},{"intValue":"2"}]}}"#, r#"{"stringValue":"y"}"#);
    let texts = SPANS.replace(r#"{"intValue":"1"}},{"key""#, r#"{"stringValue":"one"}},{"key""#);
    let texts = texts.replace(r#""list","value":{"stringValue":"x"}"#, r#""list","value":{"intValue":"3"}"#);
    let mut types = KeyTypes::default();
    let mut shown = |json: &str| {
        let plan = plan("{ } | select(span.n, span.list, span.other)");
        let entries = entries_of(json.as_bytes());
        let trace = Trace::assemble(entries[0].span.trace_id, entries).unwrap();
        let found = FoundTrace { spansets: plan.evaluate(&trace), trace };
        let answer = SearchAnswer::behind(&[found], Some(&plan), 3, ScanStats::default(), 0, &mut types);
        let spans = answer.traces[0].span_sets[0].spans.iter();
        spans
            .flat_map(|span| &span.attributes)
            .map(|attribute| (attribute.key.clone(), attribute.value.clone()))
            .collect::<Vec<_>>()
    };
    let text = |key: &str, text: &str| (key.to_owned(), Value::Str(text.to_owned()));
    let n = |number: f64| ("n".to_owned(), Value::Double(number));
    let other = ("other".to_owned(), Value::Bool(true));
    assert_eq!(shown(&numbers), [n(1.0), text("list", "y"), n(0.5), other]);
    // What was text takes anything; what was numbers takes numbers, and texts stand beside it.
    assert_eq!(shown(&texts), [text("n (text)", "one"), text("list", "[1,2]"), n(0.5), text("list", "3")]);
    assert_eq!(shown(SPANS), [n(1.0), text("list", "[1,2]"), n(0.5), text("list", "x")]);
}
