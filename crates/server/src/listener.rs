//! A port: bound first, so that a taken one is found before anything else happens; served later.
//!
//! Every port speaks HTTP/1.1 and HTTP/2, with TLS or without, and tells them apart by the first bytes.
//!
//! ```text
//!   bind --> accept (at most connections_max open) --> one task per connection
//!                 stop: no more accepts, connections finish their requests, until the deadline
//! ```
//!
//! **Invariant:** when [`Port::serve`] returns, no connection of the port is left.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::tls::Tls;

/// What a connection may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConnectionLimits {
    /// Open at once, per port.
    pub(crate) connections_max: usize,
    /// For request headers. Whoever reads a body bounds its silences.
    pub(crate) receive_timeout: Duration,
    /// For requests that are under way when the port stops.
    pub(crate) shutdown_timeout: Duration,
    /// What an HTTP/2 connection may send before somebody takes it, in bytes.
    pub(crate) window_bytes: u32,
}

/// A port that is ours and not served yet; connections wait in the system's queue.
#[derive(Debug)]
pub(crate) struct Port {
    listener: TcpListener,
    address: SocketAddr,
}

/// The port cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("{key}: cannot listen on {host}:{port}: {reason}{}", hint(*.is_taken, .key))]
pub(crate) struct BindError {
    key: &'static str,
    host: String,
    port: u16,
    reason: std::io::Error,
    is_taken: bool,
}

fn hint(is_taken: bool, key: &str) -> String {
    match is_taken {
        true => format!("; stop the program that uses it, or choose another with --{}", key.replace('_', "-")),
        false => String::new(),
    }
}

// The windows of HTTP/2 say how much a client may send before it must wait for us. An export of
// ~1000 spans is ~400 KB: 1 MiB per stream lets it arrive in one flight. A connection's window is
// what it can make us hold before admission has looked at it, and goes by the memory that there is.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const FRAME_BYTES_MAX: u32 = 64 << 10;
const STREAMS_MAX: u32 = 256;
const SEND_BUFFER_BYTES: usize = 256 << 10;

impl Port {
    /// Takes the port; 0 takes any free one. `key` is the setting, for the error.
    pub(crate) async fn bind(key: &'static str, host: &str, port: u16) -> Result<Self, BindError> {
        let bound = async {
            let listener = TcpListener::bind((host, port)).await?;
            let address = listener.local_addr()?;
            Ok(Self { listener, address })
        };
        bound.await.map_err(|reason: std::io::Error| {
            let is_taken = reason.kind() == std::io::ErrorKind::AddrInUse;
            BindError { key, host: host.to_owned(), port, reason, is_taken }
        })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` turns true, then until open requests are done or the deadline passes.
    pub(crate) async fn serve(
        self,
        router: Router,
        tls: Option<Arc<Tls>>,
        limits: ConnectionLimits,
        mut stop: watch::Receiver<bool>,
    ) {
        let slots = Arc::new(Semaphore::new(limits.connections_max));
        let graceful = GracefulShutdown::new();
        let mut connections = JoinSet::new();
        let should_stop = async move { stop.wait_for(|stop| *stop).await.map(|_| ()).unwrap_or(()) };
        tokio::pin!(should_stop);
        loop {
            let accepted = async {
                let slot = Arc::clone(&slots).acquire_owned().await.expect("never closed");
                (slot, self.listener.accept().await)
            };
            tokio::select! {
                (slot, accepted) = accepted => match accepted {
                    Ok((stream, _)) => {
                        let (acceptor, router) = (tls.as_ref().map(|tls| tls.acceptor()), router.clone());
                        let connection = serve_connection(stream, acceptor, router, limits, graceful.watcher());
                        connections.spawn(async move { connection.await; drop(slot) });
                    }
                    // Out of file descriptors, or the client is gone already: others may be served.
                    Err(err) => {
                        tracing::warn!(address = %self.address, error = %err, "cannot accept a connection");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                },
                Some(_) = connections.join_next() => {}
                () = &mut should_stop => break,
            }
        }
        drop(self.listener);
        let drained = tokio::time::timeout(limits.shutdown_timeout, graceful.shutdown()).await;
        if drained.is_err() {
            tracing::warn!(address = %self.address, "requests are cut off: they took longer than shutdown_timeout");
        }
        connections.shutdown().await;
    }
}

async fn serve_connection(
    stream: TcpStream,
    acceptor: Option<TlsAcceptor>,
    router: Router,
    limits: ConnectionLimits,
    watcher: Watcher,
) {
    // Answers are small and wanted at once. Fails only when the peer is gone, which the next read says.
    let _ = stream.set_nodelay(true);
    let Some(acceptor) = acceptor else {
        return serve_http(stream, router, limits, watcher).await;
    };
    match tokio::time::timeout(limits.receive_timeout, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => serve_http(stream, router, limits, watcher).await,
        // The client's doing: it does not speak TLS, does not trust us, or is not let in.
        Ok(Err(err)) => tracing::debug!(error = %err, "TLS handshake failed"),
        Err(_) => tracing::debug!("TLS handshake took longer than receive_timeout"),
    }
}

async fn serve_http<S>(stream: S, router: Router, limits: ConnectionLimits, watcher: Watcher)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(limits.receive_timeout);
    http.http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits.window_bytes)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_concurrent_streams(STREAMS_MAX)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        // Finds clients that vanished without a word; their connections would be held for ever.
        .keep_alive_interval(Duration::from_secs(60))
        .keep_alive_timeout(Duration::from_secs(20));
    let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)).into_owned();
    if let Err(err) = watcher.watch(connection).await {
        // The client's doing (it went away, or does not speak HTTP), so not worth more.
        tracing::debug!(error = %err, "connection ended");
    }
}

#[cfg(test)]
mod tests;
