//! The foreign surfaces of the real binary, as their clients see them.
//!
//! One module per surface. Every test has a process and a directory of its own.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod fixtures;
mod ingest;
mod jaeger;
mod jaeger_fixtures;
mod jaeger_traps;
mod limits;
mod openapi;
mod query;
mod search;
mod tempo;
mod tempo_fixtures;
mod tenants;

use spoor_model::UnixNano;
use spoor_testkit::client::{Compression, grpc, http};
use spoor_testkit::process::{Launch, Server};
use spoor_testkit::wait;
use tempfile::TempDir;

/// A running Spoor on an empty directory.
pub(crate) struct Spoor {
    pub(crate) server: Server,
    directory: TempDir,
}

/// Starts one with those flags.
pub(crate) fn start(flags: &[&str]) -> Spoor {
    let directory = TempDir::new().unwrap();
    let server = Launch::new(env!("CARGO_BIN_EXE_spoor"), directory.path()).arguments(flags.iter().copied()).start();
    Spoor { server, directory }
}

impl Spoor {
    /// Where everything is kept.
    pub(crate) fn directory(&self) -> &str {
        self.directory.path().to_str().unwrap()
    }

    /// Sends an encoded request over gRPC; it must be accepted whole.
    pub(crate) fn ingest(&self, body: &[u8]) {
        let client = grpc::Client::connect(self.server.otlp_grpc()).unwrap();
        let answer = client.export(body, Compression::Identity).unwrap();
        assert_eq!((answer.status, answer.partial_success()), (0, None), "{answer:?}");
    }

    /// `GET` on Tempo's port.
    pub(crate) fn tempo(&self, path: &str) -> http::Answer {
        http::Connection::new(self.server.tempo()).get(path).unwrap()
    }

    /// `GET` on Jaeger's port.
    pub(crate) fn jaeger(&self, path: &str) -> http::Answer {
        http::Connection::new(self.server.jaeger()).get(path).unwrap()
    }

    /// `POST /v1/traces`.
    pub(crate) fn post(&self, headers: &[(&str, &str)], body: &[u8]) -> http::Answer {
        http::Connection::new(self.server.otlp_http()).send("POST", "/v1/traces", headers, body).unwrap()
    }
}

/// A minute ago: recent enough for every default time range.
pub(crate) fn a_minute_ago() -> UnixNano {
    UnixNano(wait::now().0 - 60_000_000_000)
}

/// Text for use within a query string.
pub(crate) fn escape(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
