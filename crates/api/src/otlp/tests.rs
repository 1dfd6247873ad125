//! The receivers before a fake log, request by request.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use ::http::{HeaderMap, Request, StatusCode};
use axum::Router;
use axum::body::Body;
use axum::response::Response;
use futures_channel::oneshot;
use http_body_util::BodyExt;
use prometheus_client::registry::Registry;
use spoor_distributor::{Limits, Metrics};
use spoor_model::compute::ComputePool;
use spoor_model::ingest::{Append, AppendError, AppendRequest};
use spoor_model::wire::{put_bytes, put_text};
use spoor_model::{Clock, UnixNano};
use tower::ServiceExt;

use super::*;

const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// A log that says what it is told to say, or nothing.
struct FakeLog {
    answer: Option<Result<(), AppendError>>,
    span_count: AtomicUsize,
    waiting: Mutex<Vec<oneshot::Sender<Result<(), AppendError>>>>,
}

impl Append for FakeLog {
    fn append(&self, request: AppendRequest) -> oneshot::Receiver<Result<(), AppendError>> {
        let (done, wait) = oneshot::channel();
        if self.answer == Some(Ok(())) {
            self.span_count.fetch_add(request.checked.accepted_count as usize, Ordering::Relaxed);
        }
        match self.answer.clone() {
            Some(answer) => done.send(answer).unwrap(),
            None => self.waiting.lock().unwrap().push(done),
        }
        wait
    }
}

struct StoppedClock;

impl Clock for StoppedClock {
    fn now(&self) -> UnixNano {
        UnixNano(0)
    }
}

struct Receivers {
    http: Router,
    grpc: Router,
    log: Arc<FakeLog>,
}

struct Settings {
    limits: Limits,
    tenancy: Tenancy,
    log: Option<Result<(), AppendError>>,
    answer_timeout: Duration,
    cors_allowed_origins: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            tenancy: Tenancy::Single,
            log: Some(Ok(())),
            answer_timeout: Duration::from_secs(60),
            cors_allowed_origins: vec![],
        }
    }
}

impl Receivers {
    fn new(settings: Settings) -> Self {
        let log =
            Arc::new(FakeLog { answer: settings.log, span_count: AtomicUsize::new(0), waiting: Mutex::default() });
        let sink = Arc::clone(&log) as Arc<dyn Append>;
        let pool = Arc::new(ComputePool::new("test", 1).unwrap());
        let metrics = Metrics::register(&mut Registry::default());
        let state = State {
            distributor: Distributor::new(settings.limits, pool, sink, Arc::new(StoppedClock), metrics),
            tenancy: settings.tenancy,
            receive_timeout: Duration::from_secs(60),
            answer_timeout: settings.answer_timeout,
            requests: RequestMetrics::register(&mut Registry::default(), Arc::new(StoppedClock)),
            cors_allowed_origins: settings.cors_allowed_origins,
        };
        Self { http: http_router(state.clone()), grpc: grpc_router(state), log }
    }

    async fn post(&self, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
        let mut request = Request::post("/v1/traces");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Answer::read(self.http.clone().oneshot(request.body(body.into()).unwrap()).await.unwrap()).await
    }

    async fn call(&self, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
        let mut request = Request::post(path).header("content-type", "application/grpc");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Answer::read(self.grpc.clone().oneshot(request.body(body.into()).unwrap()).await.unwrap()).await
    }

    fn span_count(&self) -> usize {
        self.log.span_count.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    trailers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    async fn read(response: Response) -> Self {
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap();
        let trailers = body.trailers().cloned().unwrap_or_default();
        Self { status: head.status, headers: head.headers, trailers, body: body.to_bytes().to_vec() }
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).or(self.trailers.get(name)).map_or("", |value| value.to_str().unwrap())
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

fn export_of(trace_ids: &[u8]) -> Vec<u8> {
    let (mut scope_spans, mut resource_spans, mut request) = (Vec::new(), Vec::new(), Vec::new());
    for id in trace_ids {
        let mut span = Vec::new();
        put_bytes(&mut span, 1, &[*id; 16]);
        put_bytes(&mut span, 2, &[1; 8]);
        put_text(&mut span, 5, b"GET /");
        put_bytes(&mut scope_spans, 2, &span);
    }
    put_bytes(&mut resource_spans, 2, &scope_spans);
    put_bytes(&mut request, 1, &resource_spans);
    request
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn framed(is_compressed: bool, message: &[u8]) -> Vec<u8> {
    let mut frame = vec![u8::from(is_compressed)];
    frame.extend_from_slice(&(message.len() as u32).to_be_bytes());
    frame.extend_from_slice(message);
    frame
}

/// A body that comes in pieces of this many bytes, of unknown length.
fn in_pieces(bytes: &[u8], piece_bytes: usize) -> Body {
    let pieces: Vec<Result<Bytes, std::io::Error>> =
        bytes.chunks(piece_bytes).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    Body::from_stream(futures_util::stream::iter(pieces))
}

const PROTOBUF: (&str, &str) = ("content-type", "application/x-protobuf");
const JSON: (&str, &str) = ("content-type", "application/json; charset=utf-8");

#[tokio::test]
async fn http_takes_protobuf_and_json_in_every_encoding_and_answers_alike() {
    let receivers = Receivers::new(Settings::default());
    let protobuf = export_of(&[1, 2]);
    let zstd = zstd::encode_all(&protobuf[..], 3).unwrap();
    for (encoding, body) in [("identity", protobuf.clone()), ("gzip", gzip(&protobuf)), ("zstd", zstd)] {
        let answer = receivers.post(&[PROTOBUF, ("content-encoding", encoding)], body).await;
        assert_eq!((answer.status, &answer.body[..]), (StatusCode::OK, &b""[..]), "{encoding}");
        assert_eq!(answer.header("content-type"), "application/x-protobuf");
    }
    let json = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[
        {"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174"}]}]}]}"#;
    let answer = receivers.post(&[JSON], json).await;
    assert_eq!((answer.status, answer.text()), (StatusCode::OK, "{}"));
    assert_eq!(answer.header("content-type"), "application/json");
    for piece_bytes in [1, 7, 1_000] {
        assert_eq!(receivers.post(&[PROTOBUF], in_pieces(&protobuf, piece_bytes)).await.status, StatusCode::OK);
    }
    assert_eq!(receivers.span_count(), 13);
}

#[tokio::test]
async fn grpc_takes_every_encoding_and_any_cut_of_the_body() {
    let receivers = Receivers::new(Settings::default());
    let protobuf = export_of(&[1, 2]);
    let zstd = zstd::encode_all(&protobuf[..], 3).unwrap();
    for (encoding, is_compressed, message) in [
        ("identity", false, protobuf.clone()),
        ("gzip", false, protobuf.clone()),
        ("gzip", true, gzip(&protobuf)),
        ("zstd", true, zstd),
    ] {
        for piece_bytes in [1, 5, 6, 1_000] {
            let body = in_pieces(&framed(is_compressed, &message), piece_bytes);
            let answer = receivers.call(EXPORT, &[("grpc-encoding", encoding)], body).await;
            assert_eq!((answer.status, answer.header("grpc-status")), (StatusCode::OK, "0"), "{answer:?}");
            assert_eq!(answer.trailers.len(), 1);
            assert_eq!(answer.body, framed(false, b""));
        }
    }
    assert_eq!(receivers.span_count(), 32);
    assert_eq!(receivers.call(EXPORT, &[], framed(false, b"")).await.header("grpc-status"), "0");
}

#[tokio::test]
async fn bad_spans_are_reported_as_partial_success() {
    let receivers = Receivers::new(Settings::default());
    let request = export_of(&[1, 0, 2]);
    let why = "1 refused: trace_id must be 16 bytes and not all zero (first: span 1 of the request)";
    let expected = ExportResponse { rejected_count: 1, message: why.into() };
    let answer = receivers.post(&[PROTOBUF], request.clone()).await;
    assert_eq!((answer.status, answer.body), (StatusCode::OK, expected.to_protobuf()));
    let answer = receivers.call(EXPORT, &[], framed(false, &request)).await;
    assert_eq!(answer.body, framed(false, &expected.to_protobuf()));
    assert_eq!(receivers.span_count(), 4);
}

#[tokio::test]
async fn http_refusals_have_the_status_that_tells_senders_what_to_do() {
    let receivers = Receivers::new(Settings::default());
    let deflate = [PROTOBUF, ("content-encoding", "deflate")];
    for (headers, body, status, contains) in [
        (&[][..], "x", 415, "application/json"),
        (&[("content-type", "text/plain")][..], "x", 415, "application/json"),
        (&deflate[..], "x", 415, "gzip, zstd or identity"),
        (&[PROTOBUF, ("content-encoding", "gzip")][..], "x", 400, "body is not gzip"),
        (&[PROTOBUF][..], "x", 400, "not an OTLP trace request in protobuf"),
        (&[JSON][..], "{\n]", 400, "at line 2 column 1"),
    ] {
        let answer = receivers.post(headers, body).await;
        assert_eq!(answer.status.as_u16(), status, "{headers:?} {answer:?}");
        assert!(String::from_utf8_lossy(&answer.body).contains(contains), "{answer:?}");
    }
    let answer = receivers.post(&deflate, "x").await;
    assert_eq!(answer.header("accept-encoding"), "gzip, zstd, identity");
    let get = Request::get("/v1/traces").body(Body::empty()).unwrap();
    assert_eq!(receivers.http.clone().oneshot(get).await.unwrap().status(), StatusCode::METHOD_NOT_ALLOWED);
    let other = Request::post("/v1/metrics").body(Body::empty()).unwrap();
    assert_eq!(receivers.http.clone().oneshot(other).await.unwrap().status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_message_over_the_limit_is_413_and_resource_exhausted_without_a_retry_hint() {
    let limits = Limits { max_message_bytes: 100, ..Limits::default() };
    let receivers = Receivers::new(Settings { limits, ..Settings::default() });
    let large = vec![0; 101];
    for (encoding, body) in [
        ("identity", Body::from(large.clone())),
        ("identity", in_pieces(&large, 10)),
        ("gzip", Body::from(gzip(&large))),
    ] {
        let answer = receivers.post(&[PROTOBUF, ("content-encoding", encoding)], body).await;
        assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (413, ""), "{answer:?}");
        assert!(String::from_utf8_lossy(&answer.body).contains("`max_message_bytes`"), "{answer:?}");
    }
    for body in [framed(false, &large), framed(true, &gzip(&large))] {
        let answer = receivers.call(EXPORT, &[("grpc-encoding", "gzip")], body).await;
        assert_eq!((answer.header("grpc-status"), answer.header("grpc-status-details-bin")), ("8", ""));
    }
    // The declared length suffices: the body need not come.
    let endless = Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
    let announced = Body::from_stream(futures_util::stream::iter([Ok::<_, std::io::Error>(vec![0, 0, 0, 0, 101])]));
    assert_eq!(receivers.call(EXPORT, &[], announced).await.header("grpc-status"), "8");
    let request = Request::post("/v1/traces").header("content-length", "101");
    let request = request.header("expect", "100-continue").header(PROTOBUF.0, PROTOBUF.1).body(endless).unwrap();
    assert_eq!(receivers.http.clone().oneshot(request).await.unwrap().status().as_u16(), 413);
}

#[tokio::test]
async fn overload_carries_a_retry_hint_and_storage_failure_does_not() {
    let limits = Limits { ingest_inflight_bytes: 10, ..Limits::default() };
    let full_queue = AppendError::Overloaded { what: "the append queue", key: "append_queue_bytes" };
    for settings in
        [Settings { limits, ..Settings::default() }, Settings { log: Some(Err(full_queue)), ..Settings::default() }]
    {
        let receivers = Receivers::new(settings);
        let answer = receivers.post(&[JSON], "{\"resourceSpans\":[]}").await;
        let answer = match answer.status.is_success() {
            true => receivers.post(&[PROTOBUF], export_of(&[1])).await,
            false => answer,
        };
        assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (429, "5"), "{answer:?}");
        let answer = receivers.call(EXPORT, &[], framed(false, &export_of(&[1]))).await;
        assert_eq!((answer.status, answer.header("grpc-status")), (StatusCode::OK, "8"), "{answer:?}");
        assert!(answer.header("grpc-message").contains("_bytes` if this lasts"), "{answer:?}");
        // RetryInfo of five seconds ends the details.
        use base64::Engine;
        let details = base64::engine::general_purpose::STANDARD_NO_PAD.decode(answer.header("grpc-status-details-bin"));
        assert!(details.unwrap().ends_with(b"google.rpc.RetryInfo\x12\x04\x0a\x02\x08\x05"));
    }
    let log = Some(Err(AppendError::Storage("no space left on device".into())));
    let receivers = Receivers::new(Settings { log, ..Settings::default() });
    let answer = receivers.post(&[PROTOBUF], export_of(&[1])).await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, ""), "{answer:?}");
    let answer = receivers.call(EXPORT, &[], framed(false, &export_of(&[1]))).await;
    assert_eq!(answer.header("grpc-status"), "14");
    assert_eq!(answer.header("grpc-message"), "storage refuses writes: no space left on device");
}

#[tokio::test]
async fn with_multitenancy_a_request_names_its_tenant() {
    let receivers = Receivers::new(Settings { tenancy: Tenancy::by_header(), ..Settings::default() });
    let body = export_of(&[1]);
    assert_eq!(receivers.post(&[PROTOBUF], body.clone()).await.status.as_u16(), 401);
    assert_eq!(receivers.call(EXPORT, &[], framed(false, &body)).await.header("grpc-status"), "16");
    let named = [PROTOBUF, ("x-scope-orgid", "team-a")];
    assert_eq!(receivers.post(&named, body.clone()).await.status.as_u16(), 200);
    let several = [PROTOBUF, ("x-scope-orgid", "a|b")];
    assert_eq!(receivers.post(&several, body.clone()).await.status.as_u16(), 400);
    assert_eq!(receivers.call(EXPORT, &named[1..], framed(false, &body)).await.header("grpc-status"), "0");
}

#[tokio::test]
async fn pages_of_configured_origins_may_send_and_no_others() {
    let preflight = |origin: &'static str| {
        Request::options("/v1/traces")
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "content-type,x-scope-orgid")
            .body(Body::empty())
            .unwrap()
    };
    let shop = "https://shop.example";
    for (allowed, origin, expected) in [
        (vec![], shop, ""),
        (vec![shop.to_owned()], shop, shop),
        (vec![shop.to_owned()], "https://other.example", ""),
        (vec!["*".to_owned()], "https://other.example", "*"),
    ] {
        let receivers = Receivers::new(Settings { cors_allowed_origins: allowed, ..Settings::default() });
        let answer = Answer::read(receivers.http.clone().oneshot(preflight(origin)).await.unwrap()).await;
        assert_eq!(answer.header("access-control-allow-origin"), expected);
        if !expected.is_empty() {
            assert_eq!(answer.status, StatusCode::OK);
            assert_eq!(answer.header("access-control-allow-headers"), "content-type,x-scope-orgid");
        }
    }
}

#[tokio::test]
async fn calls_that_are_not_what_they_should_be_get_the_codes_of_grpc() {
    let receivers = Receivers::new(Settings::default());
    let good = framed(false, &export_of(&[1]));
    let metrics = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";
    for (path, headers, body, code) in [
        (metrics, &[][..], good.clone(), "12"),
        (EXPORT, &[("grpc-encoding", "snappy")][..], good.clone(), "12"),
        (EXPORT, &[][..], framed(true, &gzip(b"")), "13"),
        (EXPORT, &[][..], good[..good.len() - 1].to_vec(), "3"),
        (EXPORT, &[][..], good[..3].to_vec(), "3"),
        (EXPORT, &[][..], vec![], "3"),
        (EXPORT, &[][..], [good.clone(), good.clone()].concat(), "3"),
        (EXPORT, &[][..], framed(false, b"x"), "3"),
    ] {
        let answer = receivers.call(path, headers, body).await;
        assert_eq!((answer.status, answer.header("grpc-status")), (StatusCode::OK, code), "{path} {answer:?}");
        assert_eq!(answer.header("grpc-accept-encoding"), "identity,gzip,zstd");
    }
    let plain = Request::post(EXPORT).header("content-type", "application/json").body(Body::empty()).unwrap();
    assert_eq!(receivers.grpc.clone().oneshot(plain).await.unwrap().status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[tokio::test]
async fn health_is_answered_for_the_server_and_the_trace_service() {
    let receivers = Receivers::new(Settings::default());
    let check = |service: &str| {
        let mut message = Vec::new();
        put_text(&mut message, 1, service.as_bytes());
        framed(false, &message)
    };
    for service in ["", "opentelemetry.proto.collector.trace.v1.TraceService"] {
        let answer = receivers.call("/grpc.health.v1.Health/Check", &[], check(service)).await;
        assert_eq!((answer.header("grpc-status"), &answer.body[5..]), ("0", &b"\x08\x01"[..]));
    }
    let answer = receivers.call("/grpc.health.v1.Health/Check", &[], check("other")).await;
    assert_eq!(answer.header("grpc-status"), "5");
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_answered_by_then() {
    let receivers = Receivers::new(Settings { log: None, ..Settings::default() });
    let call = framed(false, &export_of(&[1]));
    let answer = receivers.call(EXPORT, &[("grpc-timeout", "1m")], call.clone()).await;
    assert_eq!(answer.header("grpc-status"), "4", "{answer:?}");
    let answer_timeout = Duration::from_millis(1);
    let receivers = Receivers::new(Settings { log: None, answer_timeout, ..Settings::default() });
    assert_eq!(receivers.call(EXPORT, &[], call).await.header("grpc-status"), "4");
    let answer = receivers.post(&[PROTOBUF], export_of(&[1])).await;
    assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT);
}
