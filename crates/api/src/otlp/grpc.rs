//! OTLP/gRPC: the unary call `TraceService/Export`, and `grpc.health.v1.Health/Check`.
//!
//! gRPC is HTTP/2 with a five-byte prefix before each message and the status in trailers
//! (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>). For one unary call that is
//! less than a stub costs, and messages stay the bytes that the log keeps.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State as FromState};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use http::header::{self, HeaderMap, HeaderName};
use http::{HeaderValue, StatusCode};
use http_body_util::{BodyExt, Full};
use spoor_distributor::{Format, PushRequest, Transport};
use spoor_model::ingest::BodyEncoding;
use spoor_model::wire::{Reader, put_uint};
use spoor_otlp::response::ExportResponse;

use super::body::{GRPC_PREFIX_BYTES, Pieces, read_grpc_message};
use super::{Received, Refusal, State};
use crate::error::Kind;
use crate::grpc as calls;

/// The path of the call that stores spans.
pub(crate) const EXPORT_PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const HEALTH_PATH: &str = "/grpc.health.v1.Health/Check";
const SERVICE: &str = "opentelemetry.proto.collector.trace.v1.TraceService";

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");
const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The calls of port 4317.
pub fn grpc_router(state: State) -> Router {
    let requests = state.requests.clone();
    let calls = Router::new()
        .route(EXPORT_PATH, post(export))
        .route(HEALTH_PATH, post(health))
        .fallback(unknown_call)
        .with_state(Arc::new(state));
    calls::counted(calls, requests)
}

/// The call that stores spans, for another port that has services of its own.
pub fn export_route(state: State) -> Router {
    Router::new().route(EXPORT_PATH, post(export)).with_state(Arc::new(state))
}

async fn unknown_call(request: Request) -> Response {
    if !is_grpc(request.headers()) {
        return not_grpc();
    }
    let message = format!("unknown method {}: this port receives OTLP traces", request.uri().path());
    answer_refusal(&Refusal::new(Kind::NotImplemented, message))
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

fn not_grpc() -> Response {
    let text = "this port speaks OTLP/gRPC; OTLP/HTTP has a port of its own (4318 unless configured)\n";
    (StatusCode::UNSUPPORTED_MEDIA_TYPE, text).into_response()
}

async fn export(FromState(state): FromState<Arc<State>>, request: Request) -> Response {
    if !is_grpc(request.headers()) {
        return not_grpc();
    }
    let deadline = deadline_of(request.headers());
    let (head, body) = request.into_parts();
    let exported = receive_and_push(&state, &head.headers, Pieces::new(body, state.receive_timeout));
    let exported = match deadline {
        Some(deadline) => {
            tokio::time::timeout(deadline, exported).await.unwrap_or_else(|_| Err(Refusal::timeout(deadline)))
        }
        None => exported.await,
    };
    match exported {
        Ok(response) => answer(&response.to_protobuf()),
        Err(refusal) => answer_refusal(&refusal),
    }
}

async fn receive_and_push(state: &State, headers: &HeaderMap, mut pieces: Pieces) -> Result<ExportResponse, Refusal> {
    let tenant = state.tenancy.for_write(headers)?;
    let announced = encoding_of(headers)?;
    let (is_compressed, received) = read_grpc_message(&state.distributor, &tenant, &mut pieces).await?;
    let encoding = match (is_compressed, announced) {
        (false, _) => BodyEncoding::Identity,
        (true, BodyEncoding::Identity) => {
            return Err(Refusal::new(
                Kind::Internal,
                "a message is marked as compressed, but grpc-encoding names nothing",
            ));
        }
        (true, announced) => announced,
    };
    let Received { admission, body } = received;
    let (transport, format) = (Transport::Grpc, Format::Protobuf);
    state.push(admission, PushRequest { tenant, transport, encoding, format, body }).await
}

fn encoding_of(headers: &HeaderMap) -> Result<BodyEncoding, Refusal> {
    match headers.get(GRPC_ENCODING).map_or(&b"identity"[..], HeaderValue::as_bytes) {
        b"identity" => Ok(BodyEncoding::Identity),
        b"gzip" => Ok(BodyEncoding::Gzip),
        b"zstd" => Ok(BodyEncoding::Zstd),
        // gRPC wants this code, and `grpc-accept-encoding`, which every answer has.
        other => {
            let other = String::from_utf8_lossy(other);
            let message = format!("grpc-encoding {other:?} is not supported; identity, gzip and zstd are");
            Err(Refusal::new(Kind::NotImplemented, message))
        }
    }
}

/// `grpc-timeout`: up to eight digits and a unit. What cannot be read is as if it were not there.
fn deadline_of(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(GRPC_TIMEOUT)?.to_str().ok()?;
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = number.parse().ok().filter(|_| number.len() <= 8)?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3_600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

/// `grpc.health.v1.Health/Check`: serving, for the whole server and for the trace service.
async fn health(FromState(state): FromState<Arc<State>>, request: Request) -> Response {
    if !is_grpc(request.headers()) {
        return not_grpc();
    }
    const NAME_BYTES_MAX: usize = 1 << 10;
    let mut pieces = Pieces::new(request.into_body(), state.receive_timeout);
    let mut message = Vec::new();
    loop {
        match pieces.next().await {
            Ok(Some(piece)) if message.len() + piece.len() <= NAME_BYTES_MAX => message.extend_from_slice(&piece),
            Ok(Some(_)) => return answer_refusal(&Refusal::new(Kind::Invalid, "the service's name is too long")),
            Ok(None) => break,
            Err(refusal) => return answer_refusal(&refusal),
        }
    }
    // HealthCheckRequest: service 1.
    let mut reader = Reader::new(message.get(GRPC_PREFIX_BYTES..).unwrap_or_default());
    let service = match reader.next_field() {
        Ok(Some((1, field))) => field.text(1).unwrap_or_default(),
        _ => "",
    };
    if !matches!(service, "" | SERVICE) {
        return answer_refusal(&Refusal::new(Kind::NotFound, "unknown service"));
    }
    // HealthCheckResponse: status 1, where 1 is SERVING.
    let mut serving = Vec::new();
    put_uint(&mut serving, 1, 1);
    answer(&serving)
}

fn response(body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(GRPC_ACCEPT_ENCODING, HeaderValue::from_static("identity,gzip,zstd"));
    response
}

fn answer(message: &[u8]) -> Response {
    let mut framed = Vec::with_capacity(GRPC_PREFIX_BYTES + message.len());
    framed.push(0);
    framed.extend_from_slice(&(message.len() as u32).to_be_bytes());
    framed.extend_from_slice(message);
    let trailers = HeaderMap::from_iter([(GRPC_STATUS, HeaderValue::from_static("0"))]);
    let trailers = std::future::ready(Some(Ok(trailers)));
    response(Body::new(Full::new(Bytes::from(framed)).with_trailers(trailers)))
}

/// An answer without a message has its trailers in the head.
fn answer_refusal(refusal: &Refusal) -> Response {
    let status = refusal.to_status();
    let mut response = response(Body::empty());
    let headers = response.headers_mut();
    headers.insert(GRPC_STATUS, HeaderValue::from(status.code));
    headers.insert(GRPC_MESSAGE, percent_encoded(&status.message));
    if status.retry_after.is_some() {
        let details = STANDARD_NO_PAD.encode(status.to_protobuf());
        headers.insert(GRPC_DETAILS, HeaderValue::try_from(details).expect("base64 is ASCII"));
    }
    response
}

/// `grpc-message`: ASCII as it is, all else and `%` as `%XX`.
fn percent_encoded(text: &str) -> HeaderValue {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(byte as char),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    HeaderValue::try_from(encoded).expect("printable ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_grpc_writes_them() {
        let deadline = |text: &str| deadline_of(&HeaderMap::from_iter([(GRPC_TIMEOUT, text.parse().unwrap())]));
        assert_eq!(deadline("10S"), Some(Duration::from_secs(10)));
        assert_eq!(deadline("99999999H"), Some(Duration::from_secs(99_999_999 * 3_600)));
        assert_eq!(deadline("250m"), Some(Duration::from_millis(250)));
        assert_eq!(deadline("1u"), Some(Duration::from_micros(1)));
        for text in ["", "S", "10", "10s", "999999999S", "-1S", "1 S"] {
            assert_eq!(deadline(text), None, "{text}");
        }
    }

    #[test]
    fn messages_are_percent_encoded() {
        assert_eq!(percent_encoded("50% of `k`\n\u{e4}"), "50%25 of `k`%0A%C3%A4");
    }
}
