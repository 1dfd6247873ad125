//! The decoder against `prost` and the generated OTLP messages, which it must agree with.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, EntityRef, InstrumentationScope, KeyValue, KeyValueList, any_value,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span};
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;
use spoor_model::ingest::Decode;
use spoor_model::{Value, canonical, nested, value};

use super::*;

fn any_value() -> impl Strategy<Value = Option<AnyValue>> {
    let leaf = prop_oneof![
        Just(None),
        ".{0,8}".prop_map(|text| Some(any_value::Value::StringValue(text))),
        any::<bool>().prop_map(|flag| Some(any_value::Value::BoolValue(flag))),
        any::<i64>().prop_map(|int| Some(any_value::Value::IntValue(int))),
        any::<f64>().prop_map(|double| Some(any_value::Value::DoubleValue(double))),
        vec(any::<u8>(), 0..6).prop_map(|bytes| Some(any_value::Value::BytesValue(bytes))),
    ]
    .prop_map(|value| AnyValue { value });
    let nested = leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3)
                .prop_map(|values| AnyValue { value: Some(any_value::Value::ArrayValue(ArrayValue { values })) }),
            vec(("[a-c]{0,2}", inner), 0..3).prop_map(|entries| {
                let values =
                    entries.into_iter().map(|(key, value)| KeyValue { key, value: Some(value), ..KeyValue::default() });
                AnyValue { value: Some(any_value::Value::KvlistValue(KeyValueList { values: values.collect() })) }
            }),
        ]
    });
    prop_oneof![1 => Just(None), 9 => nested.prop_map(Some)]
}

fn attributes() -> impl Strategy<Value = Vec<KeyValue>> {
    vec(("[a-e]{1,2}", any_value()).prop_map(|(key, value)| KeyValue { key, value, ..KeyValue::default() }), 0..6)
}

fn event() -> impl Strategy<Value = span::Event> {
    (any::<u64>(), ".{0,5}", attributes(), any::<u32>()).prop_map(
        |(time_unix_nano, name, attributes, dropped_attributes_count)| span::Event {
            time_unix_nano,
            name,
            attributes,
            dropped_attributes_count,
        },
    )
}

fn link() -> impl Strategy<Value = span::Link> {
    (vec(any::<u8>(), 16), vec(any::<u8>(), 8), ".{0,3}", attributes(), any::<(u32, u32)>()).prop_map(
        |(trace_id, span_id, trace_state, attributes, (dropped_attributes_count, flags))| span::Link {
            trace_id,
            span_id,
            trace_state,
            attributes,
            dropped_attributes_count,
            flags,
        },
    )
}

prop_compose! {
    fn a_span()(
        ids in (1..4u8, 1..9u8, 0..9u8),
        texts in (".{0,4}", ".{0,6}", ".{0,4}"),
        numbers in any::<(u32, u32, u32, u32)>(),
        kind in -1..7i32,
        code in 0..4i32,
        has_status in any::<bool>(),
        times in (any::<u32>(), any::<u32>()),
        attributes in attributes(),
        events in vec(event(), 0..3),
        links in vec(link(), 0..3),
    ) -> Span {
        Span {
            trace_id: vec![ids.0; 16],
            span_id: vec![ids.1; 8],
            parent_span_id: if ids.2 == 0 { vec![] } else { vec![ids.2; 8] },
            trace_state: texts.0,
            name: texts.1,
            flags: numbers.0,
            kind,
            start_time_unix_nano: u64::from(times.0),
            end_time_unix_nano: u64::from(times.0) + u64::from(times.1),
            attributes,
            dropped_attributes_count: numbers.1,
            events,
            dropped_events_count: numbers.2,
            links,
            dropped_links_count: numbers.3,
            status: has_status.then_some(Status { message: texts.2, code }),
        }
    }
}

pub(crate) fn a_request() -> impl Strategy<Value = ExportTraceServiceRequest> {
    let scope_spans = (attributes(), "[a-b]{0,1}", vec(a_span(), 0..5)).prop_map(|(attributes, name, spans)| {
        let scope =
            InstrumentationScope { name: name.clone(), version: "1".into(), attributes, dropped_attributes_count: 3 };
        ScopeSpans { scope: Some(scope), spans, schema_url: name }
    });
    let resource_spans =
        (attributes(), ".{0,2}", vec(scope_spans, 0..3)).prop_map(|(attributes, schema_url, scope_spans)| {
            let entity = EntityRef {
                r#type: "service".into(),
                id_keys: vec!["a".into(), String::new()],
                ..EntityRef::default()
            };
            let entity_refs = Vec::from_iter((attributes.len() > 2).then_some(entity));
            let dropped_attributes_count = attributes.len() as u32 % 2;
            let resource = Resource { attributes, dropped_attributes_count, entity_refs };
            ResourceSpans { resource: Some(resource), scope_spans, schema_url }
        });
    vec(resource_spans, 0..3).prop_map(|resource_spans| ExportTraceServiceRequest { resource_spans })
}

/// The reference: what prost and a loop make of a span.
fn model_value(value: Option<AnyValue>) -> Value {
    match value.and_then(|value| value.value) {
        None => Value::Empty,
        Some(any_value::Value::StringValue(text)) => Value::Str(text),
        Some(any_value::Value::BoolValue(flag)) => Value::Bool(flag),
        Some(any_value::Value::IntValue(int)) => Value::Int(int),
        Some(any_value::Value::DoubleValue(double)) => Value::Double(double),
        Some(any_value::Value::BytesValue(bytes)) => Value::Bytes(bytes),
        Some(any_value::Value::ArrayValue(array)) => {
            Value::Array(array.values.into_iter().map(|value| model_value(Some(value))).collect())
        }
        Some(any_value::Value::KvlistValue(map)) => Value::Map(model_attributes(map.values)),
        Some(other) => panic!("not generated: {other:?}"),
    }
}

fn model_attributes(attributes: Vec<KeyValue>) -> Vec<value::KeyValue> {
    attributes.into_iter().map(|kv| value::KeyValue { key: kv.key, value: model_value(kv.value) }).collect()
}

fn sorted(mut attributes: Vec<value::KeyValue>) -> Vec<value::KeyValue> {
    attributes.sort_by_cached_key(|attribute| format!("{attribute:?}"));
    attributes
}

fn model_span(span: Span) -> spoor_model::Span {
    let status = span.status.unwrap_or_default();
    spoor_model::Span {
        trace_id: TraceId(span.trace_id.try_into().unwrap()),
        span_id: SpanId(span.span_id.try_into().unwrap()),
        parent_span_id: SpanId(span.parent_span_id.try_into().unwrap_or_default()),
        trace_state: span.trace_state,
        flags: span.flags,
        name: span.name,
        kind: span.kind,
        start: UnixNano(span.start_time_unix_nano),
        end: UnixNano(span.end_time_unix_nano),
        attributes: sorted(model_attributes(span.attributes)),
        dropped_attributes_count: span.dropped_attributes_count,
        events: span
            .events
            .into_iter()
            .map(|event| spoor_model::Event {
                time: UnixNano(event.time_unix_nano),
                name: event.name,
                attributes: model_attributes(event.attributes),
                dropped_attributes_count: event.dropped_attributes_count,
            })
            .collect(),
        dropped_events_count: span.dropped_events_count,
        links: span
            .links
            .into_iter()
            .map(|link| spoor_model::Link {
                trace_id: TraceId(link.trace_id.try_into().unwrap()),
                span_id: SpanId(link.span_id.try_into().unwrap()),
                trace_state: link.trace_state,
                attributes: model_attributes(link.attributes),
                dropped_attributes_count: link.dropped_attributes_count,
                flags: link.flags,
            })
            .collect(),
        dropped_links_count: span.dropped_links_count,
        status: spoor_model::Status { code: status.code, message: status.message },
    }
}

fn decode(request: &[u8]) -> (Checked, SpanBatch) {
    let mut batch = SpanBatch::new();
    let checked = OtlpDecoder.check(request).unwrap();
    OtlpDecoder.append(request, &checked, &mut batch);
    (checked, batch)
}

proptest! {
    #[test]
    fn every_field_of_every_span_survives(request in a_request()) {
        let (checked, batch) = decode(&request.encode_to_vec());
        prop_assert!(checked.rejected.is_empty());
        let mut row = 0;
        for resource_spans in request.resource_spans {
            let resource = resource_spans.resource.unwrap();
            for scope_spans in resource_spans.scope_spans {
                for span in scope_spans.spans {
                    let mut got = batch.span(row);
                    got.span.attributes = sorted(got.span.attributes);
                    prop_assert_eq!(&got.span, &model_span(span));
                    prop_assert_eq!(&got.origin.resource_schema_url, &resource_spans.schema_url);
                    prop_assert_eq!(&got.origin.scope_schema_url, &scope_spans.schema_url);
                    let resource = resource.encode_to_vec();
                    prop_assert_eq!(&got.origin.resource_encoded[..], &*canonical::resource(&resource).unwrap());
                    let scope = scope_spans.scope.clone().unwrap();
                    let encoded = scope.encode_to_vec();
                    prop_assert_eq!(&got.origin.scope_encoded[..], &*canonical::scope(&encoded).unwrap());
                    prop_assert_eq!(&got.origin.scope.attributes, &model_attributes(scope.attributes));
                    row += 1;
                }
            }
        }
        prop_assert_eq!(row as usize, batch.len());
    }

    #[test]
    fn damaged_requests_are_refused_or_read_but_never_panic(
        request in a_request(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>(),
    ) {
        let mut bytes = request.encode_to_vec();
        if bytes.is_empty() {
            return Ok(());
        }
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if cut {
            bytes.truncate(at);
        }
        if let Ok(checked) = OtlpDecoder.check(&bytes) {
            let mut batch = SpanBatch::new();
            OtlpDecoder.append(&bytes, &checked, &mut batch);
            for row in 0..batch.len() as u32 {
                batch.span(row);
            }
        }
    }
}

fn good_span() -> Span {
    Span { trace_id: vec![1; 16], span_id: vec![2; 8], ..Span::default() }
}

#[track_caller]
fn check_rejected(bad: Span, reason: RejectReason) {
    let scope_spans = ScopeSpans { spans: vec![good_span(), bad, good_span()], ..ScopeSpans::default() };
    let resource_spans = ResourceSpans { scope_spans: vec![scope_spans], ..ResourceSpans::default() };
    let request = ExportTraceServiceRequest { resource_spans: vec![resource_spans] };
    let (checked, batch) = decode(&request.encode_to_vec());
    assert_eq!(checked.rejected, vec![Rejected { span_index: 1, reason }]);
    assert_eq!(batch.len(), 2);
}

#[test]
fn a_bad_span_is_refused_alone() {
    check_rejected(Span { trace_id: vec![0; 16], ..good_span() }, RejectReason::InvalidTraceId);
    check_rejected(Span { trace_id: vec![1; 15], ..good_span() }, RejectReason::InvalidTraceId);
    check_rejected(Span { span_id: vec![], ..good_span() }, RejectReason::InvalidSpanId);
    check_rejected(Span { parent_span_id: vec![1; 4], ..good_span() }, RejectReason::InvalidParentSpanId);
    check_rejected(
        Span { start_time_unix_nano: 5, end_time_unix_nano: 4, ..good_span() },
        RejectReason::EndBeforeStart,
    );
    let link = span::Link { trace_id: vec![1; 3], ..span::Link::default() };
    check_rejected(Span { links: vec![link], ..good_span() }, RejectReason::Malformed);
}

#[test]
fn the_last_occurrence_of_an_id_counts_in_both_passes() {
    let good = good_span().encode_to_vec();
    let mut again = Vec::new();
    for (number, wrong) in [(1, &[9; 3][..]), (2, &[9; 5]), (4, &[9; 7])] {
        spoor_model::wire::put_bytes(&mut again, number, wrong);
    }
    // Wrong ids first, then the good ones; and the other way round.
    let parent = [0x22, 8, 1, 1, 1, 1, 1, 1, 1, 1];
    for (span, accepted_count) in
        [([&again[..], &good, &parent].concat(), 1), ([&good[..], &parent, &again].concat(), 0)]
    {
        let mut request = Vec::new();
        nested::put_message(&mut request, 1, |out| {
            nested::put_message(out, 2, |out| spoor_model::wire::put_bytes(out, 2, &span));
        });
        let (checked, batch) = decode(&request);
        assert_eq!((checked.accepted_count, batch.len()), (accepted_count, accepted_count as usize));
    }
}

#[test]
fn text_that_is_not_utf8_condemns_its_span() {
    let mut bytes = Span { name: "abc".into(), ..good_span() }.encode_to_vec();
    let at = bytes.windows(3).position(|window| window == b"abc").unwrap();
    bytes[at] = 0xff;
    assert_eq!(check_span(&bytes), Err(RejectReason::InvalidUtf8));
}

#[test]
fn a_malformed_resource_condemns_its_spans_and_no_others() {
    let good = ScopeSpans { spans: vec![good_span()], ..ScopeSpans::default() };
    let mut bad_group = Vec::new();
    spoor_model::wire::put_bytes(&mut bad_group, 1, &[0x0a, 0x7f]);
    spoor_model::wire::put_bytes(&mut bad_group, 2, &good.encode_to_vec());
    let mut request = Vec::new();
    spoor_model::wire::put_bytes(&mut request, 1, &bad_group);
    let good_group = ResourceSpans { scope_spans: vec![good], ..ResourceSpans::default() };
    spoor_model::wire::put_bytes(&mut request, 1, &good_group.encode_to_vec());
    let (checked, batch) = decode(&request);
    assert_eq!(checked.rejected, vec![Rejected { span_index: 0, reason: RejectReason::MalformedOrigin }]);
    assert_eq!(batch.len(), 1);
}
