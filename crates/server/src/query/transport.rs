//! How a question gets to Tempo's routes: over HTTP, or within this process.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use spoor_api::{partial, tempo};
use spoor_model::batch::SpanBatch;
use spoor_model::ingest::Decode;
use spoor_model::{Trace, TraceId};
use spoor_otlp::OtlpDecoder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tower::ServiceExt;

use crate::config::{Config, RawConfig};
use crate::{at_rest, tls};

/// How long to wait for a connection: a server that is there answers at once.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long to wait for an answer. The server's own `query_timeout` is shorter, unless somebody raised it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(600);

/// Whom to ask.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// Where a Spoor listens.
    pub(crate) url: String,
    /// Read the directory of this configuration instead; no Spoor may be using it.
    pub(crate) at_rest: Option<RawConfig>,
    /// Whose data.
    pub(crate) tenant: Option<String>,
}

/// Where questions go.
pub(crate) enum Transport {
    Server {
        authority: String,
        /// With the server's name, where TLS is spoken.
        tls: Option<(TlsConnector, ServerName<'static>)>,
        prefix: String,
        tenant: Option<String>,
    },
    /// Tempo's routes over a directory; all tenants are asked as one server would be.
    AtRest { routes: Router, tenant: Option<String> },
}

/// What came back, successful.
pub(super) struct Reply {
    body: Bytes,
    /// What is missing, if something is.
    partial: Option<String>,
}

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// A trace by its id.
pub(crate) struct TraceAnswer {
    /// `None` when it is not there, or not in what can be read.
    pub(crate) trace: Option<Trace>,
    /// What is missing, if something is.
    pub(crate) partial: Option<String>,
}

/// A page of an export.
pub(crate) struct Page {
    /// `TracesData`.
    pub(crate) body: Bytes,
    /// What the next one comes after.
    pub(crate) next: Option<String>,
    /// What is missing, if something is.
    pub(crate) partial: Option<String>,
}

impl Transport {
    /// Looks at the URL, or opens the directory.
    pub(crate) fn open(target: &Target) -> Result<Self, String> {
        let tenant = target.tenant.clone();
        match &target.at_rest {
            Some(raw) => {
                let config = Config::new(raw).map_err(|err| err.to_string())?;
                let routes = at_rest::routes(&config, tenant.is_some())?;
                Ok(Self::AtRest { routes, tenant })
            }
            None => Self::server(&target.url, tenant),
        }
    }

    fn server(url: &str, tenant: Option<String>) -> Result<Self, String> {
        let uri: Uri = url.parse().map_err(|err| format!("--url {url}: {err}"))?;
        let expected = || format!("--url {url}: expected http://host:port or https://host:port");
        let (port, is_tls) = match uri.scheme_str() {
            Some("http") => (80, false),
            Some("https") => (443, true),
            _ => return Err(expected()),
        };
        let authority = uri.authority().ok_or_else(expected)?;
        let tls = match is_tls {
            true => {
                let host = authority.host().trim_matches(['[', ']']).to_owned();
                let name = ServerName::try_from(host).map_err(|err| format!("--url {url}: {err}"))?;
                Some((tls::connector()?, name))
            }
            false => None,
        };
        let port = if authority.port().is_some() { String::new() } else { format!(":{port}") };
        let prefix = uri.path().trim_end_matches('/').to_owned();
        Ok(Self::Server { authority: format!("{authority}{port}"), tls, prefix, tenant })
    }

    /// `GET`, JSON preferred. Whatever is no success is an error with the server's words.
    pub(super) async fn get(&self, path_and_query: &str) -> Result<Reply, String> {
        match self.ask(path_and_query, "application/json").await? {
            Answer { status, headers, body } if status.is_success() => {
                Ok(Reply { body, partial: header_text(&headers, &partial::HEADER) })
            }
            Answer { status, body, .. } => Err(refusal(status, &body)),
        }
    }

    /// `GET`, as text.
    pub(crate) async fn text(&self, path_and_query: &str) -> Result<String, String> {
        self.get(path_and_query).await?.text()
    }

    /// The whole trace.
    pub(crate) async fn trace(&self, id: TraceId) -> Result<TraceAnswer, String> {
        let Answer { status, headers, body } = self.ask(&format!("/api/traces/{id}"), "application/protobuf").await?;
        let partial = header_text(&headers, &partial::HEADER);
        match status {
            StatusCode::NOT_FOUND => Ok(TraceAnswer { trace: None, partial }),
            status if status.is_success() => Ok(TraceAnswer { trace: decoded(id, &body)?, partial }),
            status => Err(refusal(status, &body)),
        }
    }

    /// A page of an export.
    pub(crate) async fn page(&self, path_and_query: &str) -> Result<Page, String> {
        let Answer { status, headers, body } = self.ask(path_and_query, "application/protobuf").await?;
        if !status.is_success() {
            return Err(refusal(status, &body));
        }
        let (next, partial) = (header_text(&headers, &tempo::NEXT), header_text(&headers, &partial::HEADER));
        Ok(Page { body, next, partial })
    }

    async fn ask(&self, path_and_query: &str, accept: &str) -> Result<Answer, String> {
        self.exchange(Method::GET, path_and_query, (header::ACCEPT, accept), Bytes::new()).await
    }

    /// Sends a body.
    pub(crate) async fn send(
        &self,
        method: Method,
        path_and_query: &str,
        content_type: &str,
        body: Bytes,
    ) -> Result<Answer, String> {
        self.exchange(method, path_and_query, (header::CONTENT_TYPE, content_type), body).await
    }

    async fn exchange(
        &self,
        method: Method,
        path_and_query: &str,
        (name, value): (HeaderName, &str),
        body: Bytes,
    ) -> Result<Answer, String> {
        let (Self::Server { tenant, .. } | Self::AtRest { tenant, .. }) = self;
        let prefix = if let Self::Server { prefix, .. } = self { prefix } else { "" };
        let mut request =
            Request::builder().method(method).uri(format!("{prefix}{path_and_query}")).header(name, value);
        if let Some(tenant) = tenant {
            request = request.header("x-scope-orgid", tenant);
        }
        match self {
            Self::Server { authority, tls, .. } => {
                let request = request.header(header::HOST, authority);
                let request = request.body(Full::new(body)).map_err(|err| err.to_string())?;
                let answer = tokio::time::timeout(ANSWER_TIMEOUT, over_http(authority, tls.as_ref(), request)).await;
                answer.unwrap_or_else(|_| Err(format!("{authority}: no answer in {} s", ANSWER_TIMEOUT.as_secs())))
            }
            Self::AtRest { routes, .. } => {
                let request = request.body(Body::from(body)).map_err(|err| err.to_string())?;
                let response = routes.clone().oneshot(request).await.unwrap_or_else(|never| match never {});
                collected(response).await
            }
        }
    }
}

fn header_text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.to_owned())
}

async fn over_http(
    authority: &str,
    tls: Option<&(TlsConnector, ServerName<'static>)>,
    request: Request<Full<Bytes>>,
) -> Result<Answer, String> {
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(authority)).await;
    let stream = match connected {
        Ok(Ok(stream)) => stream,
        Ok(Err(err)) => return Err(format!("{authority}: {err}; is Spoor running there? (--url says where)")),
        Err(_) => return Err(format!("{authority}: no connection in {} s", CONNECT_TIMEOUT.as_secs())),
    };
    match tls {
        None => answer_over(stream, authority, request).await,
        Some((connector, name)) => {
            let handshake = tokio::time::timeout(CONNECT_TIMEOUT, connector.connect(name.clone(), stream)).await;
            match handshake {
                Ok(Ok(stream)) => answer_over(stream, authority, request).await,
                Ok(Err(err)) => Err(format!("{authority}: {err} (SSL_CERT_FILE names a file with roots to trust)")),
                Err(_) => Err(format!("{authority}: no TLS in {} s", CONNECT_TIMEOUT.as_secs())),
            }
        }
    }
}

async fn answer_over<S>(stream: S, authority: &str, request: Request<Full<Bytes>>) -> Result<Answer, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let failed = |err: &dyn std::fmt::Display| format!("{authority}: {err}");
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

async fn collected<B>(response: Response<B>) -> Result<Answer, String>
where
    B: axum::body::HttpBody,
    B::Error: std::fmt::Display,
{
    let (head, body) = response.into_parts();
    let body = body.collect().await.map_err(|err| err.to_string())?.to_bytes();
    Ok(Answer { status: head.status, headers: head.headers, body })
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

    /// The body as it came, and a line end. What is missing goes to stderr: the JSON has no place for it.
    pub(super) fn json_line(self) -> Result<String, String> {
        if let Some(partial) = &self.partial {
            crate::say(&format!("spoor: {partial}"));
        }
        self.text().map(|text| text + "\n")
    }

    /// What is missing, as a line below what is shown; nothing when nothing is.
    pub(super) fn note(&self) -> String {
        self.partial.as_ref().map(|partial| format!("{partial}\n")).unwrap_or_default()
    }
}

/// A text as the value of a parameter.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => escaped.push(char::from(byte)),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}
