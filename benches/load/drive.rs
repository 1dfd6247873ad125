//! The driver: sends requests encoded beforehand, cheaply, so that the server gets the cores.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use spoor_testkit::client::{Compression, grpc, http};
use spoor_testkit::corpus::Request;
use spoor_testkit::process::Server;
use spoor_testkit::wait;

/// How requests travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Grpc,
    Http,
}

impl Transport {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Grpc => "gRPC",
            Self::Http => "HTTP",
        }
    }
}

/// Requests, compressed and framed.
pub(crate) struct Bodies {
    bodies: Vec<Bytes>,
    pub(crate) span_count: u64,
}

impl Bodies {
    pub(crate) fn new(requests: &[Request], transport: Transport, compression: Compression) -> Self {
        let encode = |request: &Request| match transport {
            Transport::Grpc => grpc::frame(&request.body, compression),
            Transport::Http => Bytes::from(compression.compress(&request.body)),
        };
        let span_count = requests.iter().map(|request| u64::from(request.span_count)).sum();
        Self { bodies: requests.iter().map(encode).collect(), span_count }
    }
}

/// Sends all bodies, each client the next one when its last is acknowledged; returns every ack's time.
///
/// # Panics
/// When an export is not accepted whole.
pub(crate) fn closed_loop(
    server: &Server,
    transport: Transport,
    compression: Compression,
    clients: usize,
    bodies: &Bodies,
) -> Vec<Duration> {
    match transport {
        Transport::Grpc => over_grpc(server, compression, clients, bodies),
        Transport::Http => over_http(server, compression, clients, bodies),
    }
}

/// gRPC's status when the server is full.
const RESOURCE_EXHAUSTED: u32 = 8;
/// A client that is told to wait does so, and the wait counts as time until the answer: when spans come
/// faster than heads become blocks, being refused is part of the rate.
const RETRY_WAIT: Duration = Duration::from_millis(20);

fn over_grpc(server: &Server, compression: Compression, clients: usize, bodies: &Bodies) -> Vec<Duration> {
    let address = server.otlp_grpc();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let queue = std::rc::Rc::new(std::cell::RefCell::new(bodies.bodies.iter().cloned().collect::<VecDeque<_>>()));
        let local = tokio::task::LocalSet::new();
        let mut tasks = Vec::new();
        for _ in 0..clients {
            let queue = std::rc::Rc::clone(&queue);
            tasks.push(local.spawn_local(async move {
                let channel = grpc::Channel::connect(address).await.unwrap();
                let mut acks = Vec::new();
                loop {
                    let Some(body) = queue.borrow_mut().pop_front() else { return acks };
                    let clock = wait::stopwatch();
                    let mut answer = channel.export(body.clone(), compression, &[]).await.unwrap();
                    while answer.status == RESOURCE_EXHAUSTED {
                        tokio::time::sleep(RETRY_WAIT).await;
                        answer = channel.export(body.clone(), compression, &[]).await.unwrap();
                    }
                    assert_eq!((answer.status, answer.partial_success()), (0, None), "{answer:?}");
                    acks.push(clock.elapsed());
                }
            }));
        }
        local.await;
        let mut acks = Vec::new();
        for task in tasks {
            acks.extend(task.await.unwrap());
        }
        acks
    })
}

fn over_http(server: &Server, compression: Compression, clients: usize, bodies: &Bodies) -> Vec<Duration> {
    let address = server.otlp_http();
    std::thread::scope(|scope| {
        let client = |first: usize| {
            move || {
                let mut connection = http::Connection::new(address);
                let headers = [("content-type", "application/x-protobuf"), ("content-encoding", compression.name())];
                let headers = if compression == Compression::Identity { &headers[..1] } else { &headers[..] };
                let mut acks = Vec::new();
                for body in bodies.bodies.iter().skip(first).step_by(clients) {
                    let clock = wait::stopwatch();
                    let mut answer = connection.send("POST", "/v1/traces", headers, body).unwrap();
                    while answer.status == 429 {
                        wait::pause(RETRY_WAIT);
                        answer = connection.send("POST", "/v1/traces", headers, body).unwrap();
                    }
                    assert_eq!((answer.status, answer.body.len()), (200, 0), "{}", answer.text());
                    acks.push(clock.elapsed());
                }
                acks
            }
        };
        let threads: Vec<_> = (0..clients).map(|first| scope.spawn(client(first))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}
