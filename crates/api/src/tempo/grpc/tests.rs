use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use prost::Message;
use spoor_model::columns::{ColumnRequest, ColumnScan, TracesScan};
use spoor_model::scan::{Field, KeySet, Operation, ScanError, ScanStats, Snapshot, Snapshots, SpanSource, ValueSet};
use spoor_model::wire::{Field as WireField, Reader};
use spoor_model::{SpanEntry, TimeRange, TraceId, UnixNano};
use tokio::sync::oneshot;

use super::*;
use crate::fixtures::{NOW, Store, get, tempo, tempo_state};
use crate::grpc::client::{call, start};
use crate::tenant::Tenancy;

const SECOND: u64 = 1_000_000_000;

/// A trace of one span, so many seconds before now.
fn trace(id: u8, seconds_ago: u64, text: &str) -> String {
    let start = NOW.0 - seconds_ago * SECOND;
    format!(
        r#"{{"resourceSpans":[{{"resource":{{"attributes":[{{"key":"service.name","value":{{"stringValue":"shop"}}}}]}},
        "scopeSpans":[{{"spans":[{{"traceId":"000000000000000000000000000000{id:02x}","spanId":"00000000000000{id:02x}",
        "name":"GET","startTimeUnixNano":"{start}","endTimeUnixNano":"{start}",
        "attributes":[{{"key":"text","value":{{"stringValue":"{text}"}}}}]}}]}}]}}]}}"#
    )
}

fn path(method: &str) -> String {
    format!("/{SERVICE}/{method}")
}

/// The contents of one field of a message, in order.
fn field(message: &[u8], number: u32) -> Vec<Vec<u8>> {
    let mut reader = Reader::new(message);
    let mut contents = Vec::new();
    while let Some((found, field)) = reader.next_field().unwrap() {
        match field {
            WireField::Bytes(bytes) if found == number => contents.push(bytes.to_vec()),
            WireField::Varint(value) if found == number => contents.push(value.to_string().into_bytes()),
            _ => {}
        }
    }
    contents
}

fn texts(contents: Vec<Vec<u8>>) -> Vec<String> {
    contents.into_iter().map(|text| String::from_utf8(text).unwrap()).collect()
}

/// The ids of a search's traces.
fn ids(message: &[u8]) -> Vec<String> {
    field(message, 1).iter().flat_map(|trace| texts(field(trace, 1))).collect()
}

/// Jobs done and known.
fn jobs(message: &[u8]) -> (u64, u64) {
    let metrics = field(message, 2).remove(0);
    let number = |field_number| texts(field(&metrics, field_number)).first().map_or(0, |text| text.parse().unwrap());
    (number(4), number(5))
}

fn search(query: &str) -> SearchRequest {
    SearchRequest { query: query.to_owned(), ..SearchRequest::default() }
}

#[tokio::test]
async fn a_call_is_answered_as_http_is_in_protobuf() {
    let router = tempo(Store::with(trace(0xa1, 1, "x").as_bytes()), Tenancy::Single);
    async fn same(router: &Router, uri: &str, method: &str, message: &impl Message) {
        let http = get(router, uri, &[("accept", "application/protobuf")]).await;
        let streamed = call(router, &path(method), message, &[]).await.ok().unwrap();
        assert_eq!(streamed.concat(), http.body, "{method}");
        assert!(!http.body.is_empty());
    }
    let tags = |query: &str| SearchTagsRequest { query: query.into(), ..Default::default() };
    let values = |name: &str| SearchTagValuesRequest { tag_name: name.into(), ..Default::default() };
    let legacy = SearchRequest { tags: [("text".into(), "x".into())].into(), ..Default::default() };
    same(&router, "/api/search?q=%7B+.text%3D%22x%22+%7D", "Search", &search("{ .text=\"x\" }")).await;
    same(&router, "/api/search?tags=text%3Dx", "Search", &legacy).await;
    same(&router, "/api/search/tags", "SearchTags", &tags("")).await;
    same(&router, "/api/v2/search/tags?q=%7B", "SearchTagsV2", &tags("{")).await;
    same(&router, "/api/search/tag/text/values", "SearchTagValues", &values("text")).await;
    same(&router, "/api/v2/search/tag/.text/values", "SearchTagValuesV2", &values(".text")).await;
}

#[tokio::test]
async fn series_are_counted_over_time_and_at_once() {
    let router = tempo(Store::with(trace(0xa1, 5, "x").as_bytes()), Tenancy::Single);
    let (start, end) = (NOW.0 - 10 * SECOND, NOW.0);
    let query = "{ } | count_over_time()".to_owned();
    let asked = QueryRangeRequest { query: query.clone(), start, end, step: 10 * SECOND, ..Default::default() };
    let messages = call(&router, &path("MetricsQueryRange"), &asked, &[]).await.ok().unwrap();
    let series = field(messages.last().unwrap(), 1);
    assert_eq!(series.len(), 1);
    let exemplars = field(&series[0], 4);
    assert_eq!((texts(field(&field(&exemplars[0], 1)[0], 1)), exemplars.len()), (vec!["trace:id".to_owned()], 1));
    // Without a step, the server chooses; HTTP refuses a step of 0.
    let unset = QueryRangeRequest { step: 0, ..asked };
    assert!(call(&router, &path("MetricsQueryRange"), &unset, &[]).await.ok().is_ok());
    let asked = QueryInstantRequest { query, start, end };
    let messages = call(&router, &path("MetricsQueryInstant"), &asked, &[]).await.ok().unwrap();
    let mut one = Vec::new();
    spoor_model::wire::put_fixed64(&mut one, 2, 1f64.to_bits());
    assert!(field(&messages[0], 1)[0].ends_with(&one));
}

#[tokio::test]
async fn mistakes_and_missing_tenants_have_the_codes_of_grpc() {
    let router = tempo(Store::default(), Tenancy::Single);
    let error = |method: &str, message: &SearchRequest| {
        let (router, path, message) = (router.clone(), path(method), message.clone());
        async move { call(&router, &path, &message, &[]).await.ok().unwrap_err() }
    };
    let (code, text) = error("Search", &search("{")).await;
    assert!(code == 3 && text.starts_with("invalid TraceQL query: parse error at line 1"), "{code} {text}");
    let many = SearchRequest { spans_per_span_set: 101, ..search("{}") };
    assert_eq!(
        error("Search", &many).await,
        (3, "invalid spss 101: expected at most 100; raise query_max_spans_per_spanset".into())
    );
    let both = SearchRequest { tags: [("a".into(), "b".into())].into(), ..search("{}") };
    assert_eq!(error("Search", &both).await, (3, "q and tags cannot be combined".into()));
    assert_eq!(error("SearchTagValues", &SearchRequest::default()).await.0, 3, "no name");
    assert_eq!(error("MetricsQueryRange", &SearchRequest::default()).await.0, 3, "no query");
    assert_eq!(error("Write", &search("")).await.0, 12);
    let unknown = call(&router, "/tempopb.Pusher/PushBytesV2", &search(""), &[]).await.ok();
    assert_eq!(unknown.unwrap_err(), (12, "unknown method /tempopb.Pusher/PushBytesV2".into()));
    let by_header = tempo(Store::default(), Tenancy::by_header());
    let refused = call(&by_header, &path("Search"), &search("{}"), &[]).await.ok();
    assert_eq!(refused.unwrap_err(), (16, "no org id".into()));
}

#[tokio::test]
async fn several_tenants_are_read_together() {
    let tenant = |name: &str| TenantId::parse(name).unwrap();
    let store = Store::default()
        .and(tenant("a"), trace(0xa1, 1, "x").as_bytes())
        .and(tenant("b"), trace(0xb2, 2, "x").as_bytes());
    let router = tempo(store, Tenancy::by_header());
    for (name, expected) in [("a|b", vec!["a1", "b2"]), ("b", vec!["b2"]), ("c", vec![])] {
        let reply = call(&router, &path("Search"), &search("{}"), &[("x-scope-orgid", name)]).await.ok().unwrap();
        assert_eq!(ids(reply.last().unwrap()), expected, "{name}");
    }
}

#[tokio::test]
async fn a_partial_answer_says_so_in_its_trailers() {
    let store = Store::with(trace(0xa1, 1, "x").as_bytes()).without("block 7", "torn");
    let router = tempo(store, Tenancy::Single);
    let reply = call(&router, &path("Search"), &search("{}"), &[]).await;
    assert!(reply.trailers["x-spoor-partial"].to_str().unwrap().contains("block 7: torn"));
    assert_eq!((reply.code(), jobs(&reply.messages[0])), (0, (1, 2)));
}

#[tokio::test]
async fn large_answers_come_in_several_messages_and_large_traces_list_fewer_spans() {
    let text = "x".repeat(200_000);
    let mut store: Vec<serde_json::Value> =
        (1..=12).map(|id| serde_json::from_str(&trace(id, u64::from(id), &text)).unwrap()).collect();
    // The first of them gets thirty spans: six megabytes, twice, since `spanSet` repeats the first of `spanSets`.
    let spans = store[0]["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array_mut().unwrap();
    let first = spans[0].clone();
    spans.extend((1..30).map(|number| {
        let mut span = first.clone();
        span["spanId"] = format!("{number:016x}").replace("0000000000000001", "00000000000000ff").into();
        span
    }));
    let groups: Vec<serde_json::Value> =
        store.iter().flat_map(|one| one["resourceSpans"].as_array().unwrap().clone()).collect();
    let data = serde_json::json!({ "resourceSpans": groups }).to_string();
    let router = tempo(Store::with(data.as_bytes()), Tenancy::Single);
    let asked = SearchRequest { spans_per_span_set: 100, ..search("{ span.text != \"\" }") };
    let messages = call(&router, &path("Search"), &asked, &[]).await.ok().unwrap();
    assert!(messages.len() > 2 && messages.iter().all(|message| message.len() < 4 << 20));
    assert!(messages.iter().all(|message| jobs(message) == (1, 1)));
    let found: Vec<String> = messages.iter().flat_map(|message| ids(message)).collect();
    assert_eq!(found, ["1", "2", "3", "4", "5", "6", "7", "8", "9", "a", "b", "c"]);
    let span_set = field(&field(&messages[0], 1)[0], 7).remove(0);
    assert_eq!((field(&span_set, 1).len(), texts(field(&span_set, 2))), (7, vec!["30".to_owned()]));
}

/// A store that is slow where it is old, until somebody has seen enough.
struct SlowWhereOld {
    stores: [Store; 2],
    hold: Arc<Hold>,
}

#[derive(Default)]
struct Hold {
    is_seen: Mutex<bool>,
    change: Condvar,
    scans_count: AtomicUsize,
}

const SLOW_SOURCES: usize = 10_000;

impl Snapshots for SlowWhereOld {
    fn snapshot(&self, tenant: &TenantId) -> Snapshot {
        let mut all = Snapshot::default();
        self.stores.iter().for_each(|store| all.sources.extend(store.snapshot(tenant).sources));
        let slow = (0..SLOW_SOURCES).map(|_| Arc::new(Slow(Arc::clone(&self.hold))) as Arc<dyn SpanSource>);
        all.sources.extend(slow);
        all
    }
}

/// Holds nothing, between ten and twenty seconds ago, and takes its time to say so.
struct Slow(Arc<Hold>);

impl SpanSource for Slow {
    fn describe(&self) -> String {
        "slow".to_owned()
    }

    fn range(&self) -> Option<TimeRange> {
        Some(TimeRange { start: UnixNano(NOW.0 - 20 * SECOND), end: UnixNano(NOW.0 - 10 * SECOND) })
    }

    fn span_count(&self) -> u64 {
        0
    }

    fn scan<'a>(&'a self, request: &'a ColumnRequest, _: &QueryContext) -> Result<Box<dyn ColumnScan + 'a>, ScanError> {
        self.0.scans_count.fetch_add(1, Ordering::Relaxed);
        let is_seen = self.0.is_seen.lock().unwrap();
        drop(self.0.change.wait_timeout_while(is_seen, Duration::from_millis(1), |is_seen| !*is_seen).unwrap());
        Ok(Box::new(TracesScan::new(Vec::new(), request)))
    }

    fn may_hold(&self, _: TraceId) -> bool {
        false
    }

    fn trace_fingerprints(&self, _: &QueryContext) -> Result<Arc<[u32]>, ScanError> {
        Ok(Arc::new([]))
    }

    fn find_trace(&self, _: TraceId, _: &QueryContext) -> Result<Vec<SpanEntry>, ScanError> {
        Ok(Vec::new())
    }

    fn trace_range(&self, _: TraceId, _: &QueryContext) -> Result<Option<TimeRange>, ScanError> {
        Ok(None)
    }

    fn keys(&self, _: &QueryContext, _: &mut KeySet) -> Result<ScanStats, ScanError> {
        Ok(ScanStats::default())
    }

    fn values(&self, _: &Field, _: &QueryContext, _: &mut ValueSet) -> Result<ScanStats, ScanError> {
        Ok(ScanStats::default())
    }

    fn operations(&self, _: &QueryContext, _: &mut BTreeSet<Operation>) -> Result<ScanStats, ScanError> {
        Ok(ScanStats::default())
    }
}

fn slow() -> (Router, Arc<Hold>) {
    let hold = Arc::<Hold>::default();
    let stores = [(0xa1, 1), (0xb2, 30)].map(|(id, ago)| Store::with(trace(id, ago, "x").as_bytes()));
    let state = tempo_state(SlowWhereOld { stores, hold: Arc::clone(&hold) }, Tenancy::Single);
    let stream_interval = Duration::from_millis(1);
    (super::super::router(State { stream_interval, ..state }), hold)
}

#[tokio::test]
async fn what_is_found_is_sent_while_the_search_goes_on() {
    let (router, hold) = slow();
    let mut answering = start(&router, &path("Search"), &search("{}"), &[]).await;
    let (mut seen, mut progress) = (Vec::new(), (0, 0));
    while seen.is_empty() {
        let message = answering.next().await.unwrap();
        (seen, progress) = (ids(&message), jobs(&message));
    }
    assert_eq!(seen, ["a1"], "the newest, and the other is not known yet");
    assert!(progress.0 < progress.1 && progress.1 > SLOW_SOURCES as u64, "{progress:?}");
    assert!(hold.scans_count.load(Ordering::Relaxed) < SLOW_SOURCES, "it is not done");
    *hold.is_seen.lock().unwrap() = true;
    hold.change.notify_all();
    let reply = answering.rest().await;
    assert_eq!(reply.code(), 0);
    let last = reply.messages.last().unwrap();
    assert_eq!((ids(last), jobs(last)), (vec!["a1".to_owned(), "b2".to_owned()], (1, 1)));
    let again = reply.messages.iter().filter(|message| ids(message).contains(&"a1".to_owned()));
    assert_eq!(again.count(), 1, "what was sent is repeated only by the answer");
}

#[tokio::test]
async fn a_client_that_goes_away_ends_its_search() {
    let (router, hold) = slow();
    let mut answering = start(&router, &path("Search"), &search("{}"), &[]).await;
    answering.next().await.unwrap();
    drop(answering);
    // The store has one, and each source of a query that is not over.
    while Arc::strong_count(&hold) > 2 {
        tokio::task::yield_now().await;
    }
    assert!(hold.scans_count.load(Ordering::Relaxed) < SLOW_SOURCES);
}

#[tokio::test]
async fn a_metrics_query_says_how_far_it_is() {
    let progress = Arc::<Progress>::default();
    let (done, is_done) = oneshot::channel::<()>();
    let answer = async move {
        is_done.await.unwrap();
        Ok(Answer { messages: vec![EncodedMessage(b"answer".as_slice().into())], partial: None })
    };
    let meanwhile = Meanwhile::progress(Arc::clone(&progress), Duration::from_millis(1));
    let mut messages = streamed(answer, meanwhile).into_inner();
    let mut next = async || tokio_stream::StreamExt::next(&mut messages).await.unwrap().unwrap().0;
    progress.add(3);
    progress.finish(ScanStats { spans_inspected: 7, ..ScanStats::default() });
    let first = next().await;
    assert_eq!((jobs(&first), field(&first, 1).len()), ((1, 3), 0));
    progress.finish(ScanStats::default());
    assert_eq!(jobs(&next().await), (2, 3));
    done.send(()).unwrap();
    assert_eq!(&next().await[..], b"answer");
}

#[tokio::test]
async fn a_query_goes_on_while_its_client_does_not_read_and_ends_when_the_stream_is_dropped() {
    let (done, is_done) = oneshot::channel::<()>();
    let (held, is_dropped) = oneshot::channel::<()>();
    let answer = async move {
        done.send(()).unwrap();
        std::future::pending::<()>().await;
        drop(held);
        Ok(Answer { messages: Vec::new(), partial: None })
    };
    let messages = streamed(answer, Meanwhile::Silence);
    is_done.await.unwrap();
    drop(messages);
    assert!(is_dropped.await.is_err(), "nothing was sent: its sender is gone");
}

#[tokio::test]
async fn health_knows_the_service() {
    use tonic_health::pb::HealthCheckRequest;
    let router = tempo(Store::default(), Tenancy::Single);
    for (service, code) in [("", 0), (SERVICE, 0), ("jaeger.api_v2.QueryService", 5)] {
        let asked = HealthCheckRequest { service: service.into() };
        assert_eq!(call(&router, "/grpc.health.v1.Health/Check", &asked, &[]).await.code(), code, "{service}");
    }
}

#[test]
fn the_numbers_of_fields_are_those_that_clients_have() {
    let files = prost_types::FileDescriptorSet::decode(crate::proto::DESCRIPTORS).unwrap().file;
    let number = |message: &str, field: &str| {
        let messages = files.iter().filter(|file| file.package() == "tempopb").flat_map(|file| &file.message_type);
        let message = messages.into_iter().find(|found| found.name() == message).unwrap();
        message.field.iter().find(|found| found.name() == field).map(|found| found.number()).unwrap()
    };
    for (message, field, expected) in [
        ("SearchRequest", "Query", 8),
        ("SearchRequest", "SpansPerSpanSet", 9),
        ("SearchTagValuesRequest", "start", 4),
        ("SearchTagValuesRequest", "staleValueThreshold", 7),
        ("QueryRangeRequest", "exemplars", 16),
        ("QueryRangeRequest", "maxSeries", 17),
        ("TraceSearchMetadata", "serviceStats", 8),
        ("TimeSeries", "exemplars", 4),
        ("SearchMetrics", "inspectedSpans", 7),
        ("MetadataMetrics", "completedJobs", 3),
    ] {
        assert_eq!(number(message, field), expected, "{message}.{field}");
    }
}
