//! One call against a router, message by message.

use axum::Router;
use axum::body::Body;
use http::HeaderMap;
use http_body_util::BodyExt;
use prost::Message;
use tower::ServiceExt;

/// What came back.
#[derive(Debug)]
pub(crate) struct Reply {
    /// What came before the messages.
    pub(crate) headers: HeaderMap,
    pub(crate) messages: Vec<Vec<u8>>,
    /// What came behind them; the headers, when there was nothing else.
    pub(crate) trailers: HeaderMap,
}

impl Reply {
    pub(crate) fn code(&self) -> u32 {
        self.trailers["grpc-status"].to_str().unwrap().parse().unwrap()
    }

    /// The text of an error.
    pub(crate) fn error(&self) -> String {
        let text = self.trailers.get("grpc-message").map(|text| text.to_str().unwrap()).unwrap_or_default();
        crate::params::percent_decode(text, crate::params::Plus::IsPlus)
    }

    /// The messages, or code and text of an error.
    pub(crate) fn ok(self) -> Result<Vec<Vec<u8>>, (u32, String)> {
        match self.code() {
            0 => Ok(self.messages),
            code => Err((code, self.error())),
        }
    }
}

/// An answer that is still being sent.
pub(crate) struct Answering {
    headers: HeaderMap,
    body: Body,
    unread: Vec<u8>,
    trailers: Option<HeaderMap>,
}

/// Calls a method.
pub(crate) async fn start(router: &Router, path: &str, message: &impl Message, metadata: &[(&str, &str)]) -> Answering {
    let mut framed = vec![0];
    framed.extend_from_slice(&(message.encoded_len() as u32).to_be_bytes());
    framed.extend(message.encode_to_vec());
    let request = http::Request::post(path).header("content-type", "application/grpc").header("te", "trailers");
    let request = metadata.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let response = router.clone().oneshot(request.body(Body::from(framed)).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    Answering { headers: parts.headers, body, unread: Vec::new(), trailers: None }
}

impl Answering {
    /// The next message; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            if let [_, a, b, c, d, rest @ ..] = &self.unread[..] {
                let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
                if rest.len() >= length {
                    let message = rest[..length].to_vec();
                    self.unread.drain(..5 + length);
                    return Some(message);
                }
            }
            let frame = self.body.frame().await?.unwrap();
            match frame.into_data() {
                Ok(data) => self.unread.extend_from_slice(&data),
                Err(frame) => self.trailers = frame.into_trailers().ok(),
            }
        }
    }

    pub(crate) async fn rest(mut self) -> Reply {
        let mut messages = Vec::new();
        while let Some(message) = self.next().await {
            messages.push(message);
        }
        let trailers = self.trailers.unwrap_or_else(|| self.headers.clone());
        Reply { headers: self.headers, messages, trailers }
    }
}

/// Calls a method and reads to the end.
pub(crate) async fn call(router: &Router, path: &str, message: &impl Message, metadata: &[(&str, &str)]) -> Reply {
    start(router, path, message, metadata).await.rest().await
}
