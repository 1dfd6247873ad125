//! How a question gets to Tempo's routes: over HTTP, or within this process.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use spoor_model::batch::SpanBatch;
use spoor_model::ingest::Decode;
use spoor_model::{Trace, TraceId};
use spoor_otlp::OtlpDecoder;
use tokio::net::TcpStream;
use tower::ServiceExt;

use super::QueryArguments;
use crate::at_rest;
use crate::config::Config;

/// How long to wait for a connection: a server that is there answers at once.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long to wait for an answer. The server's own `query_timeout` is shorter, unless somebody raised it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(600);

/// Where questions go.
pub(super) enum Transport {
    Server {
        authority: String,
        prefix: String,
        tenant: Option<String>,
    },
    /// Tempo's routes over a directory; all tenants are asked as one server would be.
    AtRest {
        routes: Router,
        tenant: Option<String>,
    },
}

/// What came back, successful.
pub(super) struct Reply {
    body: Bytes,
}

impl Transport {
    /// Looks at the URL, or opens the directory.
    pub(super) fn open(arguments: &QueryArguments) -> Result<Self, String> {
        let tenant = arguments.tenant.clone();
        match &arguments.at_rest {
            Some(raw) => {
                let config = Config::new(raw).map_err(|err| err.to_string())?;
                let routes = at_rest::routes(&config, tenant.is_some())?;
                Ok(Self::AtRest { routes, tenant })
            }
            None => Self::server(&arguments.url, tenant),
        }
    }

    fn server(url: &str, tenant: Option<String>) -> Result<Self, String> {
        let uri: Uri = url.parse().map_err(|err| format!("--url {url}: {err}"))?;
        let authority = uri.authority().filter(|_| uri.scheme_str() == Some("http"));
        let Some(authority) = authority else {
            return Err(format!("--url {url}: expected http://host:port (TLS is not supported)"));
        };
        let port = if authority.port().is_some() { "" } else { ":80" };
        let prefix = uri.path().trim_end_matches('/').to_owned();
        Ok(Self::Server { authority: format!("{authority}{port}"), prefix, tenant })
    }

    /// `GET`, JSON preferred. Whatever is no success is an error with the server's words.
    pub(super) async fn get(&self, path_and_query: &str) -> Result<Reply, String> {
        match self.request(path_and_query, "application/json").await? {
            (status, body) if status.is_success() => Ok(Reply { body }),
            (status, body) => Err(refusal(status, &body)),
        }
    }

    /// The whole trace; `None` when it is not there.
    pub(super) async fn trace(&self, id: TraceId) -> Result<Option<Trace>, String> {
        match self.request(&format!("/api/traces/{id}"), "application/protobuf").await? {
            (StatusCode::NOT_FOUND, _) => Ok(None),
            (status, body) if status.is_success() => decoded(id, &body),
            (status, body) => Err(refusal(status, &body)),
        }
    }

    async fn request(&self, path_and_query: &str, accept: &str) -> Result<(StatusCode, Bytes), String> {
        match self {
            Self::Server { authority, prefix, tenant } => {
                let path = format!("{prefix}{path_and_query}");
                let request = request(&path, accept, tenant.as_deref())?.header(header::HOST, authority);
                let request = request.body(Empty::new()).map_err(|err| err.to_string())?;
                let answer = tokio::time::timeout(ANSWER_TIMEOUT, over_http(authority, request)).await;
                answer.unwrap_or_else(|_| Err(format!("{authority}: no answer in {} s", ANSWER_TIMEOUT.as_secs())))
            }
            Self::AtRest { routes, tenant } => {
                let request = request(path_and_query, accept, tenant.as_deref())?;
                let request = request.body(Body::empty()).map_err(|err| err.to_string())?;
                let response = routes.clone().oneshot(request).await.unwrap_or_else(|never| match never {});
                collected(response).await
            }
        }
    }
}

fn request(path: &str, accept: &str, tenant: Option<&str>) -> Result<http::request::Builder, String> {
    let mut request = Request::get(path).header(header::ACCEPT, accept);
    if let Some(tenant) = tenant {
        request = request.header("x-scope-orgid", tenant);
    }
    Ok(request)
}

async fn over_http(authority: &str, request: Request<Empty<Bytes>>) -> Result<(StatusCode, Bytes), String> {
    let failed = |err: &dyn std::fmt::Display| format!("{authority}: {err}");
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(authority)).await;
    let stream = match connected {
        Ok(Ok(stream)) => stream,
        Ok(Err(err)) => return Err(format!("{authority}: {err}; is Spoor running there? (--url, or --data-dir)")),
        Err(_) => return Err(format!("{authority}: no connection in {} s", CONNECT_TIMEOUT.as_secs())),
    };
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|err| failed(&err))?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|err| failed(&err))?;
        let answer = collected(response).await;
        drop(sender);
        answer
    };
    // The connection ends when its sender is dropped, so both end together.
    let (answer, _) = tokio::join!(exchange, connection);
    answer
}

async fn collected<B>(response: Response<B>) -> Result<(StatusCode, Bytes), String>
where
    B: axum::body::HttpBody,
    B::Error: std::fmt::Display,
{
    let status = response.status();
    let body = response.into_body().collect().await.map_err(|err| err.to_string())?;
    Ok((status, body.to_bytes()))
}

fn refusal(status: StatusCode, body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    match text.trim() {
        "" => status.to_string(),
        text => text.to_owned(),
    }
}

fn decoded(id: TraceId, body: &[u8]) -> Result<Option<Trace>, String> {
    // A trace in protobuf has the shape of an export, and is read like one.
    let checked = OtlpDecoder.check(body).map_err(|err| format!("trace {id}: {err}"))?;
    let mut batch = SpanBatch::new();
    OtlpDecoder.append(body, &checked, &mut batch);
    Ok(Trace::assemble(id, (0..batch.len() as u32).map(|row| batch.span(row)).collect()))
}

impl Reply {
    pub(super) fn text(self) -> Result<String, String> {
        String::from_utf8(self.body.to_vec()).map_err(|err| format!("the answer is not text: {err}"))
    }

    pub(super) fn json(&self) -> Result<serde_json::Value, String> {
        serde_json::from_slice(&self.body).map_err(|err| format!("the answer is not JSON: {err}"))
    }

    /// The body as it came, and a line end.
    pub(super) fn json_line(self) -> Result<String, String> {
        self.text().map(|text| text + "\n")
    }
}

/// A text as the value of a parameter.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => escaped.push(char::from(byte)),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}
