//! OTLP/HTTP: `POST /v1/traces` in protobuf or JSON.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State as FromState};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http::header::{self, HeaderMap, HeaderName};
use http::{HeaderValue, Method, StatusCode};
use spoor_distributor::{Format, PushRequest, Transport};
use spoor_model::ingest::BodyEncoding;
use spoor_otlp::response::ExportResponse;

use super::body::{Pieces, read_whole};
use super::{Received, Refusal, State};
use crate::cors;
use crate::error::Kind;
use crate::request_metrics::{self, Observed};

/// The paths of port 4318.
pub fn http_router(state: State) -> Router {
    let cors = cors::layer(&state.cors_allowed_origins, [Method::POST], [header::RETRY_AFTER]);
    let observed = Observed { metrics: state.requests.clone(), route_prefix: "otlp_" };
    let router = Router::new()
        .route("/v1/traces", post(export))
        .fallback(not_found)
        .layer(middleware::from_fn_with_state(observed, request_metrics::observe))
        .with_state(Arc::new(state));
    match cors {
        Some(cors) => router.layer(cors),
        None => router,
    }
}

async fn not_found() -> Response {
    let text = "no such path: OTLP traces go to POST /v1/traces (this is a trace store: no metrics, no logs)\n";
    (StatusCode::NOT_FOUND, text).into_response()
}

async fn export(FromState(state): FromState<Arc<State>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let format = format_of(&head.headers);
    let mut pieces = Pieces::new(body, state.receive_timeout);
    match receive_and_push(&state, &head.headers, format, &mut pieces).await {
        Ok(response) => answer(format, &response),
        Err(refusal) => {
            // A sender that waits for "100 Continue" has not sent its body and need not.
            let is_sending = !head.headers.contains_key(header::EXPECT) && refusal.kind != Kind::Timeout;
            if is_sending {
                pieces.discard(state.distributor.limits().max_message_bytes).await;
            }
            answer_refusal(format, &refusal)
        }
    }
}

async fn receive_and_push(
    state: &State,
    headers: &HeaderMap,
    format: Option<Format>,
    pieces: &mut Pieces,
) -> Result<ExportResponse, Refusal> {
    let unsupported = |message| Refusal::new(Kind::UnsupportedMedia, message);
    let format =
        format.ok_or_else(|| unsupported("content-type must be application/x-protobuf or application/json"))?;
    let encoding =
        encoding_of(headers).ok_or_else(|| unsupported("content-encoding must be gzip, zstd or identity"))?;
    let tenant = state.tenancy.for_write(headers)?;
    let declared_bytes =
        headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()).and_then(|text| text.parse().ok());
    let Received { admission, body } = read_whole(&state.distributor, &tenant, pieces, declared_bytes).await?;
    state.push(admission, PushRequest { tenant, transport: Transport::Http, encoding, format, body }).await
}

/// The form of the request, and of its answer.
fn format_of(headers: &HeaderMap) -> Option<Format> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let media_type = value.split(';').next()?.trim().to_ascii_lowercase();
    match media_type.as_str() {
        "application/x-protobuf" | "application/protobuf" => Some(Format::Protobuf),
        "application/json" => Some(Format::Json),
        _ => None,
    }
}

fn encoding_of(headers: &HeaderMap) -> Option<BodyEncoding> {
    let Some(value) = headers.get(header::CONTENT_ENCODING) else {
        return Some(BodyEncoding::Identity);
    };
    match value.to_str().ok()?.trim().to_ascii_lowercase().as_str() {
        "" | "identity" => Some(BodyEncoding::Identity),
        "gzip" | "x-gzip" => Some(BodyEncoding::Gzip),
        "zstd" => Some(BodyEncoding::Zstd),
        _ => None,
    }
}

fn is_protobuf(format: Option<Format>) -> bool {
    format == Some(Format::Protobuf)
}

/// A sender whose form is not known is answered in JSON, which a person can read.
fn content_type(format: Option<Format>) -> (HeaderName, HeaderValue) {
    let media_type = if is_protobuf(format) { "application/x-protobuf" } else { "application/json" };
    (header::CONTENT_TYPE, HeaderValue::from_static(media_type))
}

fn answer(format: Option<Format>, response: &ExportResponse) -> Response {
    let body = if is_protobuf(format) { response.to_protobuf() } else { response.to_json() };
    ([content_type(format)], body).into_response()
}

fn answer_refusal(format: Option<Format>, refusal: &Refusal) -> Response {
    let status = refusal.to_status();
    let body = if is_protobuf(format) { status.to_protobuf() } else { status.to_json() };
    let mut response = (refusal.kind.http(), [content_type(format)], body).into_response();
    let headers = response.headers_mut();
    if refusal.kind == Kind::UnsupportedMedia {
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip, zstd, identity"));
    }
    if let Some(delay) = refusal.retry_after {
        // Whole seconds only; too late is better than too early.
        headers.insert(header::RETRY_AFTER, HeaderValue::from(delay.as_secs() + u64::from(delay.subsec_nanos() > 0)));
    }
    response
}
