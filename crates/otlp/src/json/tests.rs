//! The rewriter against `serde` and `prost` on the generated OTLP messages, and by hand where OTLP's
//! JSON allows more than they write.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use proptest::prelude::*;
use prost::Message;
use spoor_model::ingest::{Decode, RejectReason};

use super::*;
use crate::OtlpDecoder;
use crate::decode::tests::a_request;

proptest! {
    #[test]
    fn what_a_generated_client_writes_arrives_equal(request in a_request()) {
        let json = serde_json::to_vec(&request).expect("serialises");
        let protobuf = to_protobuf(&json).expect("is OTLP/JSON");
        prop_assert_eq!(ExportTraceServiceRequest::decode(&protobuf[..]).expect("is protobuf"), request);
    }

    #[test]
    fn arbitrary_json_and_arbitrary_bytes_never_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..64),
        text in r#"\{"resourceSpans":\[\{("(resource|scopeSpans)":[\[\]{}"a0:,-]{0,12},?){0,3}\}\]\}"#,
    ) {
        let _ = to_protobuf(&bytes);
        let _ = to_protobuf(text.as_bytes());
    }
}

fn one_span(fields: &str) -> Span {
    let json = format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{{fields}}}]}}]}}]}}"#);
    let protobuf = to_protobuf(json.as_bytes()).expect("is OTLP/JSON");
    let request = ExportTraceServiceRequest::decode(&protobuf[..]).expect("is protobuf");
    request.resource_spans[0].scope_spans[0].spans[0].clone()
}

fn one_value(json: &str) -> Option<Value> {
    let span = one_span(&format!(r#""attributes":[{{"key":"k","value":{json}}}]"#));
    span.attributes[0].value.clone().and_then(|value| value.value)
}

fn error(json: &str) -> String {
    to_protobuf(json.as_bytes()).expect_err("is refused").to_string()
}

#[test]
fn both_spellings_of_names_and_all_spellings_of_numbers_are_read() {
    let expected = Span { start_time_unix_nano: 1_544_712_660_300_000_000, kind: 2, flags: 257, ..Span::default() };
    for fields in [
        r#""startTimeUnixNano":"1544712660300000000","kind":2,"flags":257"#,
        r#""start_time_unix_nano":1544712660300000000,"kind":"SPAN_KIND_SERVER","flags":"257""#,
        r#""startTimeUnixNano":1544712660300000000,"kind":"2","flags":257.0,"unknown":{"a":[1,"\ud800"]}"#,
        r#""startTimeUnixNano":"1544712660300000000","kind":2,"flags":257,"name":null,"events":null,"status":null"#,
    ] {
        assert_eq!(one_span(fields), expected, "{fields}");
    }
}

#[test]
fn every_arm_of_a_value_is_kept_even_when_it_is_zero() {
    for (json, expected) in [
        (r#"{"stringValue":""}"#, Value::StringValue(String::new())),
        (r#"{"boolValue":false}"#, Value::BoolValue(false)),
        (r#"{"intValue":"0"}"#, Value::IntValue(0)),
        (r#"{"intValue":-9223372036854775808}"#, Value::IntValue(i64::MIN)),
        (r#"{"intValue":"9223372036854775807"}"#, Value::IntValue(i64::MAX)),
        (r#"{"intValue":1e3}"#, Value::IntValue(1000)),
        (r#"{"doubleValue":0}"#, Value::DoubleValue(0.0)),
        (r#"{"doubleValue":"1.5"}"#, Value::DoubleValue(1.5)),
        (r#"{"doubleValue":123456789012345680000}"#, Value::DoubleValue(123_456_789_012_345_680_000.0)),
        (r#"{"doubleValue":"-Infinity"}"#, Value::DoubleValue(f64::NEG_INFINITY)),
        (r#"{"bytesValue":"+/8="}"#, Value::BytesValue(vec![0xfb, 0xff])),
        (r#"{"bytesValue":"-_8"}"#, Value::BytesValue(vec![0xfb, 0xff])),
        (r#"{"bytes_value":""}"#, Value::BytesValue(vec![])),
    ] {
        assert_eq!(one_value(json), Some(expected), "{json}");
    }
    assert!(matches!(one_value(r#"{"doubleValue":"NaN"}"#), Some(Value::DoubleValue(value)) if value.is_nan()));
    assert_eq!(one_value("null"), None);
    assert_eq!(one_value("{}"), None);
    let Some(Value::ArrayValue(array)) = one_value(r#"{"arrayValue":{"values":[{"intValue":1},null,{}]}}"#) else {
        panic!("is an array");
    };
    assert_eq!(array.values.len(), 3);
}

#[test]
fn half_surrogates_become_the_replacement_character() {
    assert_eq!(one_span(r#""name":"cut \ud83d""#).name, "cut \u{fffd}");
    assert_eq!(one_span(r#""name":"whole \ud83d\ude00""#).name, "whole \u{1f600}");
}

#[test]
fn a_bad_id_or_bad_text_condemns_its_span_only() {
    let good = r#""traceId":"5B8EFFF798038103D269B633813FC60C","spanId":"eee19b7ec3c1b174""#;
    let mut json = br#"{"resourceSpans":[{"scopeSpans":[{"spans":["#.to_vec();
    for fields in [
        good.to_owned(),
        good.replace("5B8E", "XYZ!"),
        good.replace("5B8E", "5B8"),
        good.replace("5B8EFFF798038103D269B633813FC60C", "W47/95gDgQPSabYzgT/GDA=="),
        good.replace("eee1", ""),
        format!(r#"{good},"parentSpanId":"not hex""#),
        format!(r#"{good},"parentSpanId":"""#),
        format!(r#"{good},"links":[{{"traceId":"zz"}}]"#),
        format!(r#"{good},"name":"BAD""#),
    ] {
        json.extend_from_slice(format!("{{{fields}}},").as_bytes());
    }
    json.pop();
    json.extend_from_slice(b"]}]}]}");
    let at = json.windows(3).position(|window| window == b"BAD").expect("is there");
    json[at..at + 3].copy_from_slice(b"\xff\xfe\xfd");
    let checked = OtlpDecoder.check(&to_protobuf(&json).expect("is OTLP/JSON")).expect("is protobuf");
    let reasons: Vec<_> = checked.rejected.iter().map(|rejected| (rejected.span_index, rejected.reason)).collect();
    assert_eq!(
        reasons,
        [
            (1, RejectReason::InvalidTraceId),
            (2, RejectReason::InvalidTraceId),
            (3, RejectReason::InvalidTraceId),
            (4, RejectReason::InvalidSpanId),
            (5, RejectReason::InvalidParentSpanId),
            (7, RejectReason::Malformed),
            (8, RejectReason::InvalidUtf8),
        ]
    );
    assert_eq!(checked.accepted_count, 2);
}

#[test]
fn errors_say_what_was_expected_and_where() {
    let in_span = |fields: &str| error(&format!("{{\"resourceSpans\":[{{\"scopeSpans\":[{{\"spans\":[{{\n{fields}"));
    for (got, expected) in [
        (
            in_span(r#""startTimeUnixNano":"soon""#),
            "not OTLP/JSON: invalid value: string \"soon\", expected startTimeUnixNano as a whole number of 64 bits \
             without sign, or one as text at line 2 column 26",
        ),
        (in_span(r#""kind":4294967296"#), "not OTLP/JSON: kind is out of range: 4294967296 at line 2 column 17"),
        (
            in_span(r#""kind":"SERVER""#),
            "not OTLP/JSON: invalid value: string \"SERVER\", expected kind as a number or a name of the enum at line 2 \
             column 15",
        ),
        (
            in_span(r#""attributes":{}"#),
            "not OTLP/JSON: invalid type: map, expected attributes as a list of objects (KeyValue) at line 2 column 13",
        ),
        (
            error("[]"),
            "not OTLP/JSON: invalid type: sequence, expected an object (ExportTraceServiceRequest) at line 1 column 2",
        ),
        (error(""), "not OTLP/JSON: EOF while parsing a value at line 1 column 0"),
        (error("{} x"), "not OTLP/JSON: trailing characters at line 1 column 4"),
    ] {
        assert_eq!(got, expected);
    }
}

#[test]
fn nesting_is_bounded() {
    let mut value = r#"{"stringValue":""}"#.to_owned();
    for _ in 0..60 {
        value = format!(r#"{{"arrayValue":{{"values":[{value}]}}}}"#);
    }
    let json = format!(r#"{{"resourceSpans":[{{"resource":{{"attributes":[{{"value":{value}}}]}}}}]}}"#);
    assert!(error(&json).contains("recursion limit exceeded at line 1"));
}
