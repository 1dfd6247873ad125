//! gRPC unary calls over cleartext HTTP/2: enough for OTLP export, cheap enough for the load bench.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use http::HeaderMap;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

use super::Compression;

/// The method that exporters call.
const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
/// A call that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The end of a call.
#[derive(Debug, Clone)]
pub struct Answer {
    /// `grpc-status`: 0 is ok, 8 resource exhausted, 16 unauthenticated.
    pub status: u32,
    /// `grpc-message`, percent-encoded as sent.
    pub message: String,
    /// `grpc-status-details-bin`, decoded: an encoded `google.rpc.Status`.
    pub details: Vec<u8>,
    /// The answer's message, or the first of a stream, when there is one.
    pub body: Option<Vec<u8>>,
    /// Every message of a stream.
    pub messages: Vec<Vec<u8>>,
}

impl Answer {
    /// How many spans the answer says were refused, and why.
    pub fn partial_success(&self) -> Option<(i64, String)> {
        let response = ExportTraceServiceResponse::decode(self.body.as_deref()?).expect("an encoded response");
        response.partial_success.map(|partial| (partial.rejected_spans, partial.error_message))
    }
}

/// Frames a body as one gRPC message.
pub fn frame(body: &[u8], compression: Compression) -> Bytes {
    let compressed = match compression {
        Compression::Identity => None,
        other => Some(other.compress(body)),
    };
    let body = compressed.as_deref().unwrap_or(body);
    let mut out = BytesMut::with_capacity(body.len() + 5);
    out.put_u8(u8::from(compression != Compression::Identity));
    out.put_u32(u32::try_from(body.len()).expect("a test message is below 4 GiB"));
    out.put_slice(body);
    out.freeze()
}

/// One HTTP/2 connection, used from async code.
#[derive(Clone)]
pub struct Channel {
    send: SendRequest<Bytes>,
    authority: String,
}

impl Channel {
    /// Connects; must run within a tokio runtime.
    pub async fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (send, connection) = h2::client::Builder::new()
            .initial_window_size(1 << 20)
            .initial_connection_window_size(1 << 20)
            .handshake(stream)
            .await
            .map_err(io::Error::other)?;
        // The connection ends with the channel or with the server; both make the calls fail.
        tokio::spawn(async move { drop(connection.await) });
        Ok(Self { send, authority: address.to_string() })
    }

    /// Calls OTLP's export with a body made by [`frame`].
    pub async fn export(&self, frame: Bytes, compression: Compression, headers: &[(&str, &str)]) -> io::Result<Answer> {
        let call = self.call(EXPORT, frame, compression, headers);
        tokio::time::timeout(TIMEOUT, call).await.map_err(io::Error::other)?
    }

    /// Any unary call.
    pub async fn call(
        &self,
        path: &str,
        frame: Bytes,
        compression: Compression,
        headers: &[(&str, &str)],
    ) -> io::Result<Answer> {
        let mut request = http::Request::post(format!("http://{}{path}", self.authority))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        if compression != Compression::Identity {
            request = request.header("grpc-encoding", compression.name());
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).map_err(io::Error::other)?;
        let mut send = self.send.clone().ready().await.map_err(io::Error::other)?;
        let (response, mut stream) = send.send_request(request, false).map_err(io::Error::other)?;
        stream.send_data(frame, true).map_err(io::Error::other)?;
        let (head, mut body) = response.await.map_err(io::Error::other)?.into_parts();
        let mut data = Vec::new();
        while let Some(chunk) = body.data().await {
            let chunk = chunk.map_err(io::Error::other)?;
            let _ = body.flow_control().release_capacity(chunk.len());
            data.extend_from_slice(&chunk);
        }
        let trailers = body.trailers().await.map_err(io::Error::other)?;
        answer(head.status, trailers.as_ref().unwrap_or(&head.headers), &data)
    }
}

fn answer(http_status: http::StatusCode, trailers: &HeaderMap, data: &[u8]) -> io::Result<Answer> {
    let field = |name: &str| trailers.get(name).and_then(|value| value.to_str().ok());
    let status = field("grpc-status").and_then(|text| text.parse().ok());
    let status =
        status.ok_or_else(|| io::Error::other(format!("HTTP {http_status} without grpc-status: {trailers:?}")))?;
    let details = field("grpc-status-details-bin").map(decode_base64).unwrap_or_default();
    let messages = messages(data);
    let message = field("grpc-message").unwrap_or_default().to_owned();
    Ok(Answer { status, message, details, body: messages.first().cloned(), messages })
}

fn messages(mut data: &[u8]) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    while let Some(([_, length @ ..], rest)) = data.split_first_chunk::<5>() {
        let length = u32::from_be_bytes(*length) as usize;
        let (message, rest) = rest.split_at(length.min(rest.len()));
        messages.push(message.to_vec());
        data = rest;
    }
    messages
}

/// gRPC's base64 may come with or without padding.
fn decode_base64(text: &str) -> Vec<u8> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD_NO_PAD.decode(text.trim_end_matches('=')).unwrap_or_default()
}

/// A blocking client with a thread-bound runtime of its own.
pub struct Client {
    runtime: Runtime,
    channel: Channel,
}

impl Client {
    /// Connects.
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let channel = runtime.block_on(Channel::connect(address))?;
        Ok(Self { runtime, channel })
    }

    /// Exports a request body.
    pub fn export(&self, body: &[u8], compression: Compression) -> io::Result<Answer> {
        self.export_with(body, compression, &[])
    }

    /// Exports a request body with metadata.
    pub fn export_with(&self, body: &[u8], compression: Compression, headers: &[(&str, &str)]) -> io::Result<Answer> {
        self.runtime.block_on(self.channel.export(frame(body, compression), compression, headers))
    }

    /// Any unary call, uncompressed.
    pub fn call(&self, path: &str, body: &[u8]) -> io::Result<Answer> {
        self.runtime.block_on(self.channel.call(path, frame(body, Compression::Identity), Compression::Identity, &[]))
    }
}
