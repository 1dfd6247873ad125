//! The envelope in which Jaeger's HTTP API answers: `data`, `total`, `limit`, `offset`, `errors`.

use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};

use crate::error::ApiError;

/// One answer.
#[derive(Debug, Serialize)]
pub(crate) struct Envelope<T> {
    /// `null` in failures.
    pub(crate) data: Option<T>,
    /// How many there are; traces leave it at zero.
    pub(crate) total: usize,
    limit: u32,
    offset: u32,
    /// `null` when nothing went wrong.
    pub(crate) errors: Option<Vec<ErrorJson>>,
}

/// One entry of `errors`.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ErrorJson {
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
    msg: String,
    #[serde(rename = "traceID", skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
}

impl ErrorJson {
    /// A trace that was asked for and is not there.
    pub(crate) fn missing_trace(trace_id: String) -> Self {
        Self { code: None, msg: "trace not found".to_owned(), trace_id: Some(trace_id) }
    }

    /// Anything else that the reader of an answer must know.
    pub(crate) fn note(msg: String) -> Self {
        Self { code: None, msg, trace_id: None }
    }
}

impl<T: Serialize> Envelope<T> {
    /// An answer with data; `errors` may be empty.
    pub(crate) fn of(data: T, total: usize, errors: Vec<ErrorJson>) -> Self {
        Self { data: Some(data), total, limit: 0, offset: 0, errors: (!errors.is_empty()).then_some(errors) }
    }

    /// The answer's text, indented by four spaces for people who ask for that.
    pub(crate) fn to_json(&self, is_pretty: bool) -> Vec<u8> {
        let mut out = Vec::new();
        let written = if is_pretty {
            self.serialize(&mut Serializer::with_formatter(&mut out, PrettyFormatter::with_indent(b"    ")))
        } else {
            self.serialize(&mut Serializer::new(&mut out))
        };
        written.expect("answers have text keys and no failing parts");
        out
    }
}

/// A successful response.
pub(crate) fn ok(json: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], json).into_response()
}

/// A failure: the envelope as JSON, labelled as text, with a newline, exactly as Jaeger does it.
pub(crate) fn failure(err: &ApiError) -> Response {
    let status = err.kind.http();
    let error = ErrorJson { code: Some(status.as_u16()), msg: err.message.clone(), trace_id: None };
    let envelope = Envelope::<()> { data: None, total: 0, limit: 0, offset: 0, errors: Some(vec![error]) };
    let mut json = envelope.to_json(false);
    json.push(b'\n');
    text(status, json)
}

/// What Jaeger answers below `/api/` when there is nothing.
pub(crate) fn no_such_page() -> Response {
    text(StatusCode::NOT_FOUND, b"404 page not found\n".to_vec())
}

const NOSNIFF: (HeaderName, HeaderValue) = (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));

/// Plain text as Go's `http.Error` sends it.
pub(crate) fn text(status: StatusCode, body: Vec<u8>) -> Response {
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    (status, [(header::CONTENT_TYPE, plain), NOSNIFF], body).into_response()
}
