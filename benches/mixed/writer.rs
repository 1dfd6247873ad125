//! Exports, sent without pause or when each is due.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use spoor_testkit::client::{Compression, grpc};
use spoor_testkit::corpus::{Corpus, Settings};
use spoor_testkit::wait;
use tokio::task::JoinSet;

/// Clients that send their next export when the last is acknowledged.
const CLIENTS: usize = 2;
/// gRPC's status when the server is full.
const RESOURCE_EXHAUSTED: u32 = 8;
/// A client that is told to wait does so; the wait counts as time until the answer.
const RETRY_WAIT: Duration = Duration::from_millis(20);

/// Exports, compressed and framed.
pub(crate) struct Frames {
    frames: Vec<Bytes>,
    pub(crate) span_count: u64,
}

impl Frames {
    /// All requests of a corpus.
    pub(crate) fn new(settings: Settings) -> Self {
        let mut span_count = 0;
        let frame = |request: spoor_testkit::corpus::Request| {
            span_count += u64::from(request.span_count);
            grpc::frame(&request.body, Compression::Zstd)
        };
        let frames = Corpus::new(settings).map(frame).collect();
        Self { frames, span_count }
    }

    pub(crate) fn len(&self) -> usize {
        self.frames.len()
    }

    /// As they travel.
    pub(crate) fn bytes(&self) -> usize {
        self.frames.iter().map(Bytes::len).sum()
    }
}

/// What became of all exports.
pub(crate) struct Ingest {
    /// Times until the answers, sorted.
    pub(crate) acks: Vec<Duration>,
    /// Times that an export was told to come back later.
    pub(crate) refusals: u64,
    pub(crate) wall: Duration,
}

impl Ingest {
    fn new(acks: Vec<(Duration, u64)>, wall: Duration) -> Self {
        let refusals = acks.iter().map(|(_, refusals)| refusals).sum();
        let mut acks: Vec<_> = acks.into_iter().map(|(ack, _)| ack).collect();
        acks.sort_unstable();
        Self { acks, refusals, wall }
    }
}

/// Two clients, each sending the next export when its last is acknowledged.
///
/// # Panics
/// When an export is not accepted whole in the end.
pub(crate) fn without_pause(address: SocketAddr, frames: &Frames) -> Ingest {
    run(async {
        let next = AtomicUsize::new(0);
        let clock = wait::stopwatch();
        let client = async || {
            let channel = grpc::Channel::connect(address).await.unwrap();
            let mut acks = Vec::new();
            while let Some(frame) = frames.frames.get(next.fetch_add(1, Ordering::Relaxed)) {
                let sent = clock.elapsed();
                let refusals = export(&channel, frame).await;
                acks.push((clock.elapsed().saturating_sub(sent), refusals));
            }
            acks
        };
        let clients: [_; CLIENTS] = tokio::join!(client(), client()).into();
        Ingest::new(clients.concat(), clock.elapsed())
    })
}

/// Each export when it is due, `interval` after the one before. Times until answers count from when it was due.
///
/// # Panics
/// When an export is not accepted whole in the end.
pub(crate) fn at_intervals(address: SocketAddr, frames: &Frames, interval: Duration) -> Ingest {
    run(async {
        let mut channels = Vec::new();
        for _ in 0..CLIENTS {
            channels.push(grpc::Channel::connect(address).await.unwrap());
        }
        // A tick that was missed is made up for at once.
        let mut ticks = tokio::time::interval(interval);
        let mut calls = JoinSet::new();
        let clock = wait::stopwatch();
        for (index, frame) in frames.frames.iter().enumerate() {
            ticks.tick().await;
            let due = interval * u32::try_from(index).unwrap();
            let (channel, frame) = (channels[index % CLIENTS].clone(), frame.clone());
            calls.spawn(async move {
                let refusals = export(&channel, &frame).await;
                (clock.elapsed().saturating_sub(due), refusals)
            });
        }
        let acks = calls.join_all().await;
        Ingest::new(acks, clock.elapsed())
    })
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// Sends until it is accepted; returns how often it was not.
async fn export(channel: &grpc::Channel, frame: &Bytes) -> u64 {
    for refusals in 0.. {
        let answer = channel.export(frame.clone(), Compression::Zstd, &[]).await.unwrap();
        if answer.status != RESOURCE_EXHAUSTED {
            assert_eq!((answer.status, answer.partial_success()), (0, None), "{answer:?}");
            return refusals;
        }
        tokio::time::sleep(RETRY_WAIT).await;
    }
    unreachable!("there is always a next attempt")
}
