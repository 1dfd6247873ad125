use prost::Message;
use spoor_model::ingest::Decode;
use spoor_model::{KeyValue as ModelKeyValue, Origin, Span as ModelSpan, SpanEntry, SpanId, Trace, Value};
use spoor_otlp::OtlpDecoder;

use super::*;
use crate::fixtures::{Store, jaeger_state};
use crate::grpc::client;
use crate::jaeger::Options;
use crate::proto::DESCRIPTORS;
use crate::proto::jaeger::{api_v2, api_v3, storage::v2};
use crate::tenant::Tenancy;

/// A trace of 25 spans and one of a single span that failed, of two services.
fn spans() -> Vec<u8> {
    let span = |id: u64, parent: u64, name: &str| {
        let parent = if parent == 0 { String::new() } else { format!(r#""parentSpanId":"{parent:016x}","#) };
        format!(
            r#"{{"traceId":"000000000000000000000000000000a1","spanId":"{id:016x}",{parent}"name":"{name}","kind":2,
            "startTimeUnixNano":"1700000001000000001","endTimeUnixNano":"1700000001000000501"}}"#
        )
    };
    let mut many: Vec<String> = (2..=25).map(|id| span(id, 1, "child")).collect();
    many.push(span(1, 0, "root"));
    let resource = |name: &str, spans: &str| {
        format!(
            r#"{{"resource":{{"attributes":[{{"key":"service.name","value":{{"stringValue":"{name}"}}}}]}},
            "scopeSpans":[{{"scope":{{"name":"lib"}},"spans":[{spans}]}}]}}"#
        )
    };
    let failed = r#"{"traceId":"0a0000000000000000000000000000a2","spanId":"0000000000000001","name":"fail",
        "parentSpanId":"00000000000000ff","status":{"code":2},"startTimeUnixNano":"1700000002000000000",
        "endTimeUnixNano":"1700000002500000000","attributes":[{"key":"n","value":{"intValue":"7"}},
        {"key":"b","value":{"bytesValue":"AQI="}}]}"#;
    format!(r#"{{"resourceSpans":[{},{}]}}"#, resource("shop", &many.join(",")), resource("cart", failed)).into_bytes()
}

fn routes(tenancy: Tenancy) -> Router {
    services(jaeger_state(Store::with(&spans()), tenancy, Options::default()))
}

async fn call(router: &Router, path: &str, message: &impl Message) -> Result<Vec<Vec<u8>>, (u32, String)> {
    client::call(router, path, message, &[]).await.ok()
}

async fn ask<T: Message + Default>(path: &str, message: &impl Message) -> Result<Vec<T>, (u32, String)> {
    let messages = call(&routes(Tenancy::Single), path, message).await?;
    Ok(messages.iter().map(|bytes| T::decode(&bytes[..]).unwrap()).collect())
}

fn seconds(seconds: i64) -> Option<Timestamp> {
    Some(Timestamp { seconds, nanos: 0 })
}

/// The structured filter `n = 7`.
fn is_seven() -> Call {
    use crate::proto::jaeger::expression::v1::{Attribute, Expression, Scalar, expression::Kind};
    let attribute = Kind::Attr(Attribute { key: "n".into(), ..Default::default() });
    let seven = Kind::Scalar(Scalar { value: "7".into(), ..Default::default() });
    Call { op: "eq".into(), args: [attribute, seven].map(|kind| Expression { kind: Some(kind) }).into() }
}

const EARLY: i64 = 1_699_999_000;
const LATE: i64 = 1_700_001_000;

/// How many spans each message has, by our own decoder.
async fn span_counts(path: &str, message: &impl Message) -> Result<Vec<u32>, (u32, String)> {
    let messages = call(&routes(Tenancy::Single), path, message).await?;
    Ok(messages.iter().map(|bytes| OtlpDecoder.check(bytes).unwrap().accepted_count).collect())
}

#[tokio::test]
async fn the_first_generation_sends_ten_spans_at_most_and_each_with_its_process() {
    const GET: &str = "/jaeger.api_v2.QueryService/GetTrace";
    let get = |id: &[u8]| api_v2::GetTraceRequest { trace_id: id.to_vec(), ..Default::default() };
    let chunks: Vec<api_v2::SpansResponseChunk> = ask(GET, &get(&[0, 0, 0, 0, 0, 0, 0, 0xa1])).await.unwrap();
    assert_eq!(chunks.iter().map(|chunk| chunk.spans.len()).collect::<Vec<_>>(), [10, 10, 5]);
    let spans: Vec<&api_v2::Span> = chunks.iter().flat_map(|chunk| &chunk.spans).collect();
    assert!(spans.iter().all(|span| span.process.as_ref().unwrap().service_name == "shop"));
    assert!(spans.iter().all(|span| span.trace_id.len() == 16 && span.span_id.len() == 8));
    // Nanoseconds survive where the form has room for them.
    assert_eq!(spans[0].start_time, Some(Timestamp { seconds: 1_700_000_001, nanos: 1 }));
    assert_eq!(spans[0].duration, Some(ProtoDuration { seconds: 0, nanos: 500 }));
    let missing = ask::<api_v2::SpansResponseChunk>(GET, &get(&[9; 16])).await.unwrap_err();
    assert_eq!(missing, (5, "trace not found".into()));
    let zero = ask::<api_v2::SpansResponseChunk>(GET, &get(&[])).await.unwrap_err();
    assert_eq!(zero, (3, "uninitialized TraceID is not allowed".into()));
}

#[tokio::test]
async fn the_first_generation_searches_lists_and_counts() {
    const FIND: &str = "/jaeger.api_v2.QueryService/FindTraces";
    let query = |service: &str, tags: &[(&str, &str)]| {
        let tags = tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let query = api_v2::TraceQueryParameters { service_name: service.into(), tags, ..Default::default() };
        api_v2::FindTracesRequest { query: Some(query) }
    };
    let found: Vec<api_v2::SpansResponseChunk> = ask(FIND, &query("cart", &[("n", "7")])).await.unwrap();
    let span = &found[0].spans[0];
    assert_eq!((found.len(), span.operation_name.as_str()), (1, "fail"));
    let tag = |key: &str| span.tags.iter().find(|tag| tag.key == key).unwrap().clone();
    assert_eq!((tag("n").v_type(), tag("n").v_int64), (api_v2::ValueType::Int64, 7));
    assert_eq!((tag("b").v_type(), tag("b").v_binary), (api_v2::ValueType::Binary, vec![1, 2]));
    assert!(tag("error").v_bool);
    let nothing: Vec<api_v2::SpansResponseChunk> = ask(FIND, &query("nobody", &[])).await.unwrap();
    assert_eq!(nothing, []);
    // Chunks of several traces do not mix them.
    let all: Vec<api_v2::SpansResponseChunk> = ask(FIND, &query("", &[])).await.unwrap();
    assert_eq!(all.iter().map(|chunk| chunk.spans.len()).collect::<Vec<_>>(), [1, 10, 10, 5]);
    let missing = ask::<api_v2::SpansResponseChunk>(FIND, &api_v2::FindTracesRequest::default()).await.unwrap_err();
    assert_eq!(missing, (3, "missing query".into()));

    let services: Vec<api_v2::GetServicesResponse> =
        ask("/jaeger.api_v2.QueryService/GetServices", &api_v2::GetServicesRequest {}).await.unwrap();
    assert_eq!(services[0].services, ["cart", "shop"]);
    let of_shop = api_v2::GetOperationsRequest { service: "shop".into(), ..Default::default() };
    let operations: Vec<api_v2::GetOperationsResponse> =
        ask("/jaeger.api_v2.QueryService/GetOperations", &of_shop).await.unwrap();
    assert_eq!(operations[0].operation_names, ["child", "root"]);
    assert_eq!(operations[0].operations[0].span_kind, "server");
    let range = api_v2::GetDependenciesRequest { start_time: seconds(EARLY), end_time: seconds(LATE) };
    const DEPENDENCIES: &str = "/jaeger.api_v2.QueryService/GetDependencies";
    let calls: Vec<api_v2::GetDependenciesResponse> = ask(DEPENDENCIES, &range).await.unwrap();
    let calls: Vec<_> =
        calls[0].dependencies.iter().map(|call| (&*call.parent, &*call.child, call.call_count)).collect();
    assert_eq!(calls, [("shop", "shop", 24)]);
    let open = ask::<api_v2::GetDependenciesResponse>(DEPENDENCIES, &api_v2::GetDependenciesRequest::default()).await;
    assert_eq!(open.unwrap_err(), (3, "StartTime and EndTime must be initialized.".into()));
}

fn v3_query(service: &str) -> api_v3::TraceQueryParameters {
    api_v3::TraceQueryParameters {
        service_name: service.into(),
        start_time_min: seconds(EARLY),
        start_time_max: seconds(LATE),
        ..Default::default()
    }
}

#[tokio::test]
async fn the_current_generation_sends_otlp() {
    const GET: &str = "/jaeger.api_v3.QueryService/GetTrace";
    let get = |id: &str| api_v3::GetTraceRequest { trace_id: id.into(), ..Default::default() };
    assert_eq!(span_counts(GET, &get("a1")).await.unwrap(), [10, 10, 5]);
    assert_eq!(span_counts(GET, &get("beef")).await.unwrap_err(), (5, "trace not found".into()));
    assert_eq!(span_counts(GET, &get("xyz")).await.unwrap_err().0, 3);

    const FIND: &str = "/jaeger.api_v3.QueryService/FindTraces";
    let find = |query| api_v3::FindTracesRequest { query: Some(query) };
    assert_eq!(span_counts(FIND, &find(v3_query(""))).await.unwrap(), [1, 10, 10, 5]);
    let one = api_v3::TraceQueryParameters { search_depth: 1, ..v3_query("") };
    assert_eq!(span_counts(FIND, &find(one)).await.unwrap(), [1]);
    let open = span_counts(FIND, &find(api_v3::TraceQueryParameters::default())).await.unwrap_err();
    assert_eq!(open, (3, "start time min and max are required parameters".into()));
    let filtered = |filter| api_v3::TraceQueryParameters { filter: Some(filter), ..v3_query("") };
    assert_eq!(span_counts(FIND, &find(filtered(is_seven()))).await.unwrap(), [1]);
    let wrong = span_counts(FIND, &find(filtered(Default::default()))).await.unwrap_err();
    assert_eq!(wrong, (3, "malformed filter: a call needs an op".into()));
    let both = api_v3::TraceQueryParameters { filter: Some(is_seven()), ..v3_query("cart") };
    let (code, text) = span_counts(FIND, &find(both)).await.unwrap_err();
    assert!(code == 3 && text.starts_with("filter cannot be combined with service_name"), "{code} {text}");
}

#[tokio::test]
async fn the_current_generation_summarises_lists_and_counts() {
    let find = api_v3::FindTraceSummariesRequest { query: Some(v3_query("")) };
    let answers: Vec<api_v3::FindTraceSummariesResponse> =
        ask("/jaeger.api_v3.QueryService/FindTraceSummaries", &find).await.unwrap();
    let [failed, large] = &answers[0].summaries[..] else { panic!("{answers:?}") };
    assert_eq!(failed.trace_id, "0a0000000000000000000000000000a2");
    assert_eq!((failed.span_count, failed.error_span_count, failed.orphan_span_count), (1, 1, 1));
    assert_eq!((&*failed.root_service_name, &*large.root_operation_name), ("", "root"));
    assert_eq!((large.span_count, large.services[0].span_count, &*large.services[0].name), (25, 25, "shop"));

    let of_cart = api_v3::GetOperationsRequest { service: "cart".into(), ..Default::default() };
    let operations: Vec<api_v3::GetOperationsResponse> =
        ask("/jaeger.api_v3.QueryService/GetOperations", &of_cart).await.unwrap();
    // A kind that is not given stays empty over gRPC.
    assert_eq!((&*operations[0].operations[0].name, &*operations[0].operations[0].span_kind), ("fail", ""));
    let backwards = api_v3::GetDependenciesRequest { start_time: seconds(LATE), end_time: seconds(EARLY) };
    let refused = ask::<api_v3::DependenciesResponse>("/jaeger.api_v3.QueryService/GetDependencies", &backwards).await;
    assert_eq!(refused.unwrap_err().0, 3);
}

#[tokio::test]
async fn a_storage_skips_traces_that_are_not_there_and_sends_each_apart() {
    const GET: &str = "/jaeger.storage.v2.TraceReader/GetTraces";
    let mut long = [0; 16];
    long[15] = 0xa1;
    let wanted = |id: &[u8]| v2::GetTraceParams { trace_id: id.to_vec(), ..Default::default() };
    let get = v2::GetTracesRequest { query: vec![wanted(&[9; 16]), wanted(&long)] };
    assert_eq!(span_counts(GET, &get).await.unwrap(), [25]);
    let nothing = v2::GetTracesRequest { query: vec![wanted(&[9; 16])] };
    assert_eq!(span_counts(GET, &nothing).await.unwrap(), Vec::<u32>::new());

    // Attributes arrive with a type of their own and are compared by their text.
    let of = |value| v2::KeyValue { key: "n".into(), value: Some(v2::AnyValue { value: Some(value) }) };
    for value in [v2::any_value::Value::StringValue("7".into()), v2::any_value::Value::IntValue(7)] {
        let query = v2::TraceQueryParameters { attributes: vec![of(value)], ..Default::default() };
        let find = v2::FindTracesRequest { query: Some(query.clone()) };
        assert_eq!(span_counts("/jaeger.storage.v2.TraceReader/FindTraces", &find).await.unwrap(), [1]);
        let ids: Vec<v2::FindTraceIDsResponse> =
            ask("/jaeger.storage.v2.TraceReader/FindTraceIDs", &v2::FindTraceIDsRequest { query: Some(query) })
                .await
                .unwrap();
        assert_eq!((ids[0].trace_ids.len(), ids[0].trace_ids[0].trace_id[0]), (1, 0x0a));
    }
    let filtered = v2::TraceQueryParameters { filter: Some(is_seven()), ..Default::default() };
    let find = v2::FindTracesRequest { query: Some(filtered) };
    assert_eq!(span_counts("/jaeger.storage.v2.TraceReader/FindTraces", &find).await.unwrap(), [1]);
    let summaries = v2::FindTraceSummariesRequest { query: Some(v2::TraceQueryParameters::default()) };
    let summaries: Vec<v2::FindTraceSummariesResponse> =
        ask("/jaeger.storage.v2.TraceReader/FindTraceSummaries", &summaries).await.unwrap();
    assert_eq!((summaries[0].summaries.len(), summaries[0].summaries[0].trace_id.len()), (2, 16));
    let capabilities: Vec<v2::GetCapabilitiesResponse> =
        ask("/jaeger.storage.v2.Capabilities/GetCapabilities", &v2::GetCapabilitiesRequest {}).await.unwrap();
    let search = capabilities[0].search.as_ref().unwrap();
    assert!(search.without_service_name && search.same_span_conjunction);
    let filter = search.filter.as_ref().unwrap();
    assert_eq!((filter.levels.len(), filter.operators.len()), (5, 14));
    let range = v2::GetDependenciesRequest { start_time: seconds(EARLY), end_time: seconds(LATE) };
    let calls: Vec<v2::GetDependenciesResponse> =
        ask("/jaeger.storage.v2.DependencyReader/GetDependencies", &range).await.unwrap();
    assert_eq!(calls[0].dependencies[0].call_count, 24);
}

#[tokio::test]
async fn health_knows_the_services_by_name() {
    use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
    const CHECK: &str = "/grpc.health.v1.Health/Check";
    for service in ["", "jaeger.api_v2.QueryService", "jaeger.storage.v2.TraceReader"] {
        let answer: Vec<HealthCheckResponse> =
            ask(CHECK, &HealthCheckRequest { service: service.into() }).await.unwrap();
        assert_eq!(answer[0].status, 1, "{service}");
    }
    let unknown = ask::<HealthCheckResponse>(CHECK, &HealthCheckRequest { service: "nobody".into() }).await;
    assert_eq!(unknown.unwrap_err().0, 5);
}

#[tokio::test]
async fn health_is_watched_until_the_process_stops() {
    use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
    const WATCH: &str = "/grpc.health.v1.Health/Watch";
    let (serving, watched) = tokio::sync::watch::channel(true);
    let state = Arc::into_inner(jaeger_state(Store::default(), Tenancy::Single, Options::default())).unwrap();
    let router = services(Arc::new(State { serving: watched, ..state }));
    let status = |message: Option<Vec<u8>>| HealthCheckResponse::decode(&message.unwrap()[..]).unwrap().status;
    let ask = |service: &str| HealthCheckRequest { service: service.to_owned() };
    let mut known = client::start(&router, WATCH, &ask("jaeger.api_v2.QueryService"), &[]).await;
    let mut unknown = client::start(&router, WATCH, &ask("nobody"), &[]).await;
    assert_eq!((status(known.next().await), status(unknown.next().await)), (1, 3));
    serving.send_replace(false);
    assert_eq!((status(known.next().await), status(unknown.next().await)), (2, 3));
    assert!(known.rest().await.ok().unwrap().is_empty() && unknown.rest().await.ok().unwrap().is_empty());
    let checked = call(&router, "/grpc.health.v1.Health/Check", &ask("")).await.unwrap().pop();
    assert_eq!(status(checked), 2);
}

#[tokio::test]
async fn what_an_answer_lacks_is_said_before_it() {
    let store = || Store::with(&spans()).without("block 7", "torn");
    let router = |store| services(jaeger_state(store, Tenancy::Single, Options::default()));
    let find = v2::FindTracesRequest { query: Some(v2::TraceQueryParameters::default()) };
    let id = TraceId::from_hex("a1").unwrap().0.to_vec();
    let get = api_v2::GetTraceRequest { trace_id: id, ..Default::default() };
    let listed = router(store());
    for reply in [
        client::call(&listed, "/jaeger.api_v2.QueryService/GetServices", &api_v2::GetServicesRequest {}, &[]).await,
        client::call(&listed, "/jaeger.api_v2.QueryService/GetTrace", &get, &[]).await,
        client::call(&listed, "/jaeger.storage.v2.TraceReader/FindTraces", &find, &[]).await,
    ] {
        let note = reply.headers["x-spoor-partial"].to_str().unwrap();
        assert!(note.contains("block 7: torn"), "{note}");
        assert!(!reply.ok().unwrap().is_empty());
    }
    let whole = client::call(&routes(Tenancy::Single), "/jaeger.api_v2.QueryService/GetTrace", &get, &[]).await;
    assert!(!whole.headers.contains_key("x-spoor-partial"));
}

#[tokio::test]
async fn a_tenant_is_asked_for_when_there_are_several() {
    let request = api_v2::GetServicesRequest {};
    let refused = call(&routes(Tenancy::by_header()), "/jaeger.api_v2.QueryService/GetServices", &request).await;
    assert_eq!(refused.unwrap_err(), (16, "missing tenant header".into()));
}

#[test]
fn items_travel_together_up_to_a_number_and_a_size() {
    let lengths = |sizes: &[usize], max| -> Vec<usize> {
        let items = sizes.iter().map(|size| api_v2::Process { service_name: "x".repeat(*size), tags: Vec::new() });
        chunks::together(items, max).iter().map(Vec::len).collect()
    };
    assert_eq!(lengths(&[1; 25], 10), [10, 10, 5]);
    assert_eq!(lengths(&[1 << 20, 900_000, 1 << 20, 5 << 20, 1], 10), [2, 1, 1, 1]);
    assert_eq!(lengths(&[], 10), [0; 0]);
}

#[test]
fn messages_stay_below_what_clients_take() {
    let text = Value::Str("x".repeat(300_000));
    let entry = |id: u8| SpanEntry {
        origin: Arc::<Origin>::default(),
        span: ModelSpan {
            trace_id: TraceId([1; 16]),
            span_id: SpanId([id; 8]),
            attributes: vec![ModelKeyValue::new("long", text.clone())],
            ..ModelSpan::default()
        },
    };
    let trace = Trace { id: TraceId([1; 16]), entries: (1..=20).map(entry).collect() };
    let messages = chunks::of_trace(trace, chunks::STORAGE_SPANS_MAX);
    let spans: u32 = messages.iter().map(|message| OtlpDecoder.check(&message.0).unwrap().accepted_count).sum();
    assert_eq!(spans, 20);
    assert!(messages.len() > 1 && messages.iter().all(|message| message.0.len() <= 2 << 20));
}

#[test]
fn the_descriptors_name_every_service_and_the_numbers_that_jaeger_has() {
    let files = prost_types::FileDescriptorSet::decode(DESCRIPTORS).unwrap().file;
    let services: Vec<String> = files
        .iter()
        .flat_map(|file| file.service.iter().map(|service| format!("{}.{}", file.package(), service.name())))
        .filter(|name| name.starts_with("jaeger"))
        .collect();
    for expected in [
        "jaeger.api_v2.QueryService",
        "jaeger.api_v3.QueryService",
        "jaeger.storage.v2.TraceReader",
        "jaeger.storage.v2.DependencyReader",
        "jaeger.storage.v2.Capabilities",
    ] {
        assert!(services.iter().any(|name| name == expected), "{expected} in {services:?}");
    }
    let number = |package: &str, message: &str, field: &str| {
        let mut messages = files.iter().filter(|file| file.package() == package).flat_map(|file| &file.message_type);
        let message = messages.find(|found| found.name() == message).unwrap();
        message.field.iter().find(|found| found.name() == field).map(|found| found.number()).unwrap()
    };
    for (package, message, field, expected) in [
        ("jaeger.api_v2", "Span", "process", 10),
        ("jaeger.api_v2", "Span", "warnings", 12),
        ("jaeger.api_v2", "KeyValue", "v_binary", 7),
        ("jaeger.api_v2", "TraceQueryParameters", "search_depth", 8),
        ("jaeger.api_v3", "TraceQueryParameters", "filter", 10),
        ("jaeger.api_v3", "TraceSummary", "services", 9),
        ("jaeger.storage.v2", "TraceQueryParameters", "filter", 9),
        ("jaeger.storage.v2", "Dependency", "source", 4),
    ] {
        assert_eq!(number(package, message, field), expected, "{package}.{message}.{field}");
    }
}
