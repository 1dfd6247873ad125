//! The door before a fake log.

use std::io::Write;

use flate2::write::GzEncoder;
use futures_channel::oneshot;
use futures_util::FutureExt;
use parking_lot::Mutex;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use proptest::prelude::*;
use spoor_model::UnixNano;
use spoor_model::ingest::RejectReason;
use spoor_model::wire::{put_bytes, put_text};

use super::*;

/// A log that keeps what it is given, or fails.
#[derive(Default)]
struct FakeLog {
    requests: Mutex<Vec<AppendRequest>>,
    failure: Mutex<Option<AppendError>>,
    is_stuck: bool,
    waiting: Mutex<Vec<oneshot::Sender<Result<(), AppendError>>>>,
}

impl Append for FakeLog {
    fn append(&self, request: AppendRequest) -> oneshot::Receiver<Result<(), AppendError>> {
        let (done, wait) = oneshot::channel();
        self.requests.lock().push(request);
        match (self.is_stuck, self.failure.lock().clone()) {
            (true, _) => self.waiting.lock().push(done),
            (false, Some(err)) => done.send(Err(err)).unwrap(),
            (false, None) => done.send(Ok(())).unwrap(),
        }
        wait
    }
}

struct StoppedClock;

impl Clock for StoppedClock {
    fn now(&self) -> UnixNano {
        UnixNano::from_secs(1_000)
    }
}

struct Door {
    distributor: Distributor,
    log: Arc<FakeLog>,
    registry: Registry,
}

impl Door {
    fn new(limits: Limits, log: FakeLog) -> Self {
        let log = Arc::new(log);
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let pool = Arc::new(ComputePool::new("test", 2).unwrap());
        let sink = Arc::clone(&log) as Arc<dyn Append>;
        Self { distributor: Distributor::new(limits, pool, sink, Arc::new(StoppedClock), metrics), log, registry }
    }

    fn open() -> Self {
        Self::new(Limits::default(), FakeLog::default())
    }

    fn push(&self, encoding: BodyEncoding, format: Format, body: impl Into<Bytes>) -> Result<Accepted, PushError> {
        let body = body.into();
        let tenant = TenantId::single();
        let admission = self.distributor.admit(&tenant, body.len())?;
        let request = PushRequest { tenant, transport: Transport::Http, encoding, format, body };
        wait_for(self.distributor.push(admission, request))
    }

    fn in_flight_bytes(&self) -> usize {
        self.distributor.shared.budget.used_bytes()
    }

    fn metric(&self, line: &str) -> Option<String> {
        let mut text = String::new();
        encode(&mut text, &self.registry).unwrap();
        text.lines().find_map(|shown| shown.strip_prefix(line)).map(|value| value.trim().to_owned())
    }
}

/// Waits on this thread; the pool's threads do the work.
fn wait_for<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut context = std::task::Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            std::task::Poll::Ready(output) => return output,
            std::task::Poll::Pending => std::thread::park(),
        }
    }
}

fn span(id: u8, name: &str) -> Vec<u8> {
    let mut span = Vec::new();
    put_bytes(&mut span, 1, &[id; 16]);
    put_bytes(&mut span, 2, &[id; 8]);
    put_text(&mut span, 5, name.as_bytes());
    span
}

fn request(spans: &[Vec<u8>]) -> Vec<u8> {
    let (mut scope_spans, mut resource_spans, mut request) = (Vec::new(), Vec::new(), Vec::new());
    spans.iter().for_each(|span| put_bytes(&mut scope_spans, 2, span));
    put_bytes(&mut resource_spans, 2, &scope_spans);
    put_bytes(&mut request, 1, &resource_spans);
    request
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

#[test]
fn every_encoding_reaches_the_log_whole_and_what_was_compressed_is_logged_as_received() {
    let door = Door::open();
    let plain = request(&[span(1, "a"), span(2, "b")]);
    let (gzipped, zstded) = (gzip(&plain), zstd(&plain));
    for (encoding, body) in
        [(BodyEncoding::Identity, &plain), (BodyEncoding::Gzip, &gzipped), (BodyEncoding::Zstd, &zstded)]
    {
        let accepted = door.push(encoding, Format::Protobuf, body.clone()).unwrap();
        assert_eq!(accepted, Accepted { accepted_count: 2, rejected: vec![] });
    }
    let logged = door.log.requests.lock();
    assert!(logged.iter().all(|request| request.payload == plain));
    assert_eq!(logged[0].stored_encoding, BodyEncoding::Zstd);
    assert_eq!(zstd::decode_all(&logged[0].stored[..]).unwrap(), plain);
    assert_eq!((logged[1].stored_encoding, &logged[1].stored[..]), (BodyEncoding::Gzip, &gzipped[..]));
    assert_eq!((logged[2].stored_encoding, &logged[2].stored[..]), (BodyEncoding::Zstd, &zstded[..]));
    assert_eq!(door.in_flight_bytes(), 0);
}

#[test]
fn json_is_logged_as_protobuf() {
    let door = Door::open();
    let json = format!(
        r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{"traceId":"{}","spanId":"{}","name":"a"}}]}}]}}]}}"#,
        "01".repeat(16),
        "01".repeat(8)
    );
    for (encoding, body) in
        [(BodyEncoding::Identity, json.clone().into_bytes()), (BodyEncoding::Gzip, gzip(json.as_bytes()))]
    {
        assert_eq!(door.push(encoding, Format::Json, body).unwrap().accepted_count, 1);
    }
    for logged in door.log.requests.lock().iter() {
        assert_eq!(logged.payload, request(&[span(1, "a")]));
        assert_eq!(logged.stored_encoding, BodyEncoding::Zstd);
        assert_eq!(zstd::decode_all(&logged.stored[..]).unwrap(), logged.payload);
    }
    let refused = door.push(BodyEncoding::Identity, Format::Json, "{").unwrap_err();
    assert_eq!(refused.reason(), "invalid");
}

#[test]
fn bad_spans_are_refused_alone_and_a_request_without_good_ones_is_not_logged() {
    let door = Door::open();
    let accepted = door.push(
        BodyEncoding::Identity,
        Format::Protobuf,
        request(&[span(1, "a"), span(0, "b"), vec![], span(2, "c")]),
    );
    let accepted = accepted.unwrap();
    assert_eq!(accepted.accepted_count, 2);
    let reasons: Vec<_> = accepted.rejected.iter().map(|rejected| (rejected.span_index, rejected.reason)).collect();
    assert_eq!(reasons, [(1, RejectReason::InvalidTraceId), (2, RejectReason::InvalidTraceId)]);
    assert_eq!(
        accepted.message(),
        "2 refused: trace_id must be 16 bytes and not all zero (first: span 1 of the request)"
    );
    let none = door.push(BodyEncoding::Identity, Format::Protobuf, request(&[span(0, "b")])).unwrap();
    assert_eq!((none.accepted_count, none.rejected.len()), (0, 1));
    assert_eq!(door.push(BodyEncoding::Identity, Format::Protobuf, "").unwrap(), Accepted::default());
    assert_eq!(door.log.requests.lock().len(), 1);
    let tenant = r#"{reason="invalid_trace_id",tenant="single-tenant"}"#;
    assert_eq!(door.metric(&format!("tempo_discarded_spans_total{tenant}")).as_deref(), Some("3"));
    assert_eq!(door.metric(r#"tempo_distributor_spans_received_total{tenant="single-tenant"}"#).as_deref(), Some("2"));
    assert_eq!(door.metric(r#"tempo_receiver_refused_spans{receiver="otlp",transport="http"}"#).as_deref(), Some("3"));
}

#[test]
fn a_message_over_the_limit_is_refused_in_every_form() {
    let limits = Limits { max_message_bytes: 1_000, ..Limits::default() };
    let door = Door::new(limits, FakeLog::default());
    let fits = request(&[span(1, &"x".repeat(900))]);
    let too_large = request(&[span(1, &"x".repeat(1_000))]);
    let bomb = vec![0; 50 << 20];
    for (encoding, body) in
        [(BodyEncoding::Identity, fits.clone()), (BodyEncoding::Gzip, gzip(&fits)), (BodyEncoding::Zstd, zstd(&fits))]
    {
        door.push(encoding, Format::Protobuf, body).unwrap();
    }
    for (encoding, body) in [
        (BodyEncoding::Identity, too_large.clone()),
        (BodyEncoding::Gzip, gzip(&too_large)),
        (BodyEncoding::Zstd, zstd(&too_large)),
        (BodyEncoding::Gzip, gzip(&bomb)[..500].to_vec()),
        (BodyEncoding::Zstd, zstd(&bomb)),
    ] {
        let refused = door.push(encoding, Format::Protobuf, body).unwrap_err();
        assert_eq!(refused.reason(), "too_large");
        assert!(refused.to_string().contains("larger than 1000 bytes (`max_message_bytes`)"), "{refused}");
    }
    let mut admission = door.distributor.admit(&TenantId::single(), 0).unwrap();
    admission.grow_body(1_000).unwrap();
    assert_eq!(admission.grow_body(1).unwrap_err().reason(), "too_large");
    drop(admission);
    assert_eq!(door.in_flight_bytes(), 0);
    assert_eq!(door.metric("spoor_distributor_in_flight_bytes").as_deref(), Some("0"));
}

#[test]
fn what_is_not_compressed_as_it_says_is_refused() {
    let door = Door::open();
    let plain = request(&[span(1, "a")]);
    let cut = |bytes: Vec<u8>| bytes[..bytes.len() - 3].to_vec();
    for (encoding, body) in [
        (BodyEncoding::Gzip, plain.clone()),
        (BodyEncoding::Gzip, cut(gzip(&plain))),
        (BodyEncoding::Gzip, vec![]),
        (BodyEncoding::Zstd, plain.clone()),
        (BodyEncoding::Zstd, cut(zstd(&plain))),
        (BodyEncoding::Zstd, vec![]),
        (BodyEncoding::Identity, gzip(&plain)),
    ] {
        let refused = door.push(encoding, Format::Protobuf, body).unwrap_err();
        assert_eq!(refused.reason(), "invalid", "{encoding:?}: {refused}");
    }
    assert_eq!(door.in_flight_bytes(), 0);
}

#[test]
fn requests_of_several_members_or_frames_are_read_to_the_end() {
    let door = Door::open();
    let (first, second) = (request(&[span(1, "a")]), request(&[span(2, "b")]));
    let whole = [first.clone(), second.clone()].concat();
    for (encoding, body) in [
        (BodyEncoding::Gzip, [gzip(&first), gzip(&second)].concat()),
        (BodyEncoding::Zstd, [zstd(&first), zstd(&second)].concat()),
    ] {
        assert_eq!(door.push(encoding, Format::Protobuf, body).unwrap().accepted_count, 2, "{encoding:?}");
    }
    assert!(door.log.requests.lock().iter().all(|request| request.payload == whole));
}

#[test]
fn without_room_requests_are_refused_with_the_key_and_room_returns_with_the_answer() {
    let limits = Limits { ingest_inflight_bytes: 5_000, ..Limits::default() };
    let door = Door::new(limits, FakeLog { is_stuck: true, ..FakeLog::default() });
    let tenant = TenantId::single();
    let held = door.distributor.admit(&tenant, 4_900).unwrap();
    let refused = door.distributor.admit(&tenant, 101).unwrap_err();
    let retry_after = Duration::from_secs(5);
    let what = "the room for requests in flight";
    assert_eq!(refused, PushError::Overloaded { what, key: "ingest_inflight_bytes", retry_after });
    drop(held);
    // A bomb within the message limit, but not within the room.
    let refused = door.push(BodyEncoding::Zstd, Format::Protobuf, zstd(&vec![0; 10_000])).unwrap_err();
    assert_eq!(refused.reason(), "overloaded");
    // A request holds its room until it is answered, and gives it back when nobody waits any more.
    let body = Bytes::from(request(&[span(1, "a")]));
    let admission = door.distributor.admit(&tenant, body.len()).unwrap();
    let (encoding, format) = (BodyEncoding::Identity, Format::Protobuf);
    let push = PushRequest { tenant, transport: Transport::Grpc, encoding, format, body: body.clone() };
    let distributor = door.distributor.clone();
    let mut pushing = Box::pin(async move { distributor.push(admission, push).await });
    while door.log.waiting.lock().is_empty() {
        assert!(pushing.as_mut().now_or_never().is_none());
        std::thread::yield_now();
    }
    assert!(door.in_flight_bytes() > body.len());
    drop(pushing);
    assert_eq!(door.in_flight_bytes(), 0);
    assert_eq!(door.metric(r#"spoor_distributor_refused_requests_total{reason="overloaded"}"#).as_deref(), Some("2"));
}

#[test]
fn a_tenants_rate_is_held_before_the_body_is_read_and_after_it_is_opened() {
    let limits = Limits { ingest_rate_limit_bytes: 100, ingest_rate_burst_bytes: 1_000, ..Limits::default() };
    let door = Door::new(limits, FakeLog::default());
    let body = request(&[span(1, &"x".repeat(600))]);
    door.push(BodyEncoding::Gzip, Format::Protobuf, gzip(&body)).unwrap();
    let refused = door.push(BodyEncoding::Gzip, Format::Protobuf, gzip(&body)).unwrap_err();
    assert_eq!(refused.reason(), "rate_limited");
    assert!(refused.retry_after().is_some_and(|wait| wait >= Duration::from_secs(1)));
    assert_eq!(door.distributor.admit(&TenantId::single(), body.len()).unwrap_err().reason(), "rate_limited");
    assert!(door.distributor.admit(&TenantId::parse("other").unwrap(), body.len()).is_ok());
}

#[test]
fn failures_of_the_log_reach_the_sender() {
    let body = request(&[span(1, "a")]);
    for (failure, reason) in [
        (AppendError::Overloaded { what: "the append queue", key: "append_queue_bytes" }, "overloaded"),
        (AppendError::Storage("no space left on device".into()), "unavailable"),
        (AppendError::Closed, "unavailable"),
    ] {
        let log = FakeLog { failure: Mutex::new(Some(failure.clone())), ..FakeLog::default() };
        let door = Door::new(Limits::default(), log);
        let refused = door.push(BodyEncoding::Identity, Format::Protobuf, body.clone()).unwrap_err();
        assert_eq!(refused.reason(), reason);
        assert_eq!(refused.to_string(), failure.to_string());
        assert_eq!(refused.retry_after().is_some(), reason == "overloaded");
    }
}

proptest! {
    #[test]
    fn any_payload_survives_both_encodings_and_arbitrary_bodies_never_panic(
        payload in proptest::collection::vec(any::<u8>(), 0..200_000),
        garbage in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let door = Door::open();
        let mut admission = door.distributor.admit(&TenantId::single(), 0).unwrap();
        prop_assert_eq!(&compression::gunzip(&gzip(&payload), &mut admission).unwrap()[..], &payload[..]);
        prop_assert_eq!(&compression::unzstd(&zstd(&payload), &mut admission).unwrap()[..], &payload[..]);
        let mut streamed = zstd::Encoder::new(Vec::new(), 1).unwrap();
        streamed.write_all(&payload).unwrap();
        prop_assert_eq!(&compression::unzstd(&streamed.finish().unwrap(), &mut admission).unwrap()[..], &payload[..]);
        let _ = compression::gunzip(&garbage, &mut admission);
        let _ = compression::unzstd(&garbage, &mut admission);
    }
}
