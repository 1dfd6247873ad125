//! The stream of one query: what there is to say meanwhile, then the answer.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use spoor_model::scan::{Progress, Reached};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tonic::metadata::MetadataMap;
use tonic::{Code, Response, Status};

use super::super::metrics_answer::progress_message;
use super::super::negotiate::Encoded;
use crate::error::ApiError;
use crate::grpc::Messages;
use crate::partial;
use crate::proto::EncodedMessage;

/// All there is to say.
pub(super) struct Answer {
    pub(super) messages: Vec<EncodedMessage>,
    /// What is missing, if something is.
    pub(super) partial: Option<String>,
}

impl Answer {
    /// Makes one of an answer of HTTP's.
    pub(super) fn of(cut: fn(Vec<u8>) -> Vec<EncodedMessage>) -> impl Fn(Encoded) -> Self {
        move |encoded| Self { messages: cut(encoded.bytes), partial: encoded.partial }
    }
}

/// What is said before the answer is there.
pub(super) enum Meanwhile {
    /// Nothing.
    Silence,
    /// How far the query is.
    Progress { progress: Arc<Progress>, said: Reached, ticks: Interval },
    /// What the query hands over when it has been told that it is time to.
    Found { is_due: Arc<AtomicBool>, from_query: mpsc::Receiver<Vec<EncodedMessage>>, ticks: Interval },
}

impl Meanwhile {
    /// Says now and then how far a query is, if it has come further.
    pub(super) fn progress(progress: Arc<Progress>, interval: Duration) -> Self {
        Self::Progress { progress, said: Reached::default(), ticks: ticks(interval) }
    }

    /// The next messages. Never returns when there is nothing to say any more.
    async fn next(&mut self) -> Vec<EncodedMessage> {
        match self {
            Self::Silence => std::future::pending().await,
            Self::Progress { progress, said, ticks } => loop {
                ticks.tick().await;
                let reached = progress.reached();
                if reached != *said {
                    *said = reached;
                    return vec![EncodedMessage(Bytes::from(progress_message(reached)))];
                }
            },
            Self::Found { is_due, from_query, ticks } => loop {
                tokio::select! {
                    messages = from_query.recv() => match messages {
                        Some(messages) => return messages,
                        None => std::future::pending().await,
                    },
                    _ = ticks.tick() => is_due.store(true, Ordering::Relaxed),
                }
            },
        }
    }
}

/// The first tick is an interval away: most queries are done before.
fn ticks(interval: Duration) -> Interval {
    let interval = interval.max(Duration::from_millis(1));
    let mut ticks = tokio::time::interval_at(Instant::now() + interval, interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Where a query hands over what it has found.
pub(super) struct FoundSoFar {
    is_due: Arc<AtomicBool>,
    to_client: mpsc::Sender<Vec<EncodedMessage>>,
}

/// For the query, and for the stream.
pub(super) fn found_so_far(interval: Duration) -> (FoundSoFar, Meanwhile) {
    // One at a time: for a client that reads slowly, what comes in between waits for the next.
    let (to_client, from_query) = mpsc::channel(1);
    let is_due = Arc::new(AtomicBool::new(false));
    let meanwhile = Meanwhile::Found { is_due: Arc::clone(&is_due), from_query, ticks: ticks(interval) };
    (FoundSoFar { is_due, to_client }, meanwhile)
}

impl FoundSoFar {
    /// Sends what `make` makes, if it is time to and the client has taken what was sent before. Costs a load when it
    /// is not; never waits.
    pub(super) fn hand_over(&self, make: impl FnOnce() -> Vec<EncodedMessage>) {
        if !self.is_due.load(Ordering::Relaxed) {
            return;
        }
        if let Ok(place) = self.to_client.try_reserve() {
            self.is_due.store(false, Ordering::Relaxed);
            place.send(make());
        }
    }
}

struct Streaming {
    /// One, until it has answered. It goes on while a client reads slowly, so that its deadline holds; dropping it ends
    /// the query.
    answering: JoinSet<Result<Answer, ApiError>>,
    meanwhile: Meanwhile,
    ready: VecDeque<EncodedMessage>,
    /// What the stream ends with, unless there is no more to say than that it ends.
    status: Option<Status>,
}

/// The stream of a query, which runs until it is done or nobody has the stream.
pub(super) fn streamed(
    answer: impl Future<Output = Result<Answer, ApiError>> + Send + 'static,
    meanwhile: Meanwhile,
) -> Response<Messages<EncodedMessage>> {
    let mut answering = JoinSet::new();
    answering.spawn(answer);
    let streaming = Streaming { answering, meanwhile, ready: VecDeque::new(), status: None };
    let next = |mut streaming: Streaming| async move {
        let message = streaming.next().await?;
        Some((message, streaming))
    };
    Response::new(Box::pin(stream::unfold(streaming, next)))
}

impl Streaming {
    async fn next(&mut self) -> Option<Result<EncodedMessage, Status>> {
        loop {
            if let Some(message) = self.ready.pop_front() {
                return Some(Ok(message));
            }
            if self.answering.is_empty() {
                return self.status.take().map(Err);
            }
            tokio::select! {
                // The answer makes everything else superfluous.
                biased;
                Some(answer) = self.answering.join_next() => match answer {
                    Ok(Ok(answer)) => {
                        self.ready = answer.messages.into();
                        self.status = answer.partial.as_deref().map(incomplete);
                    }
                    Ok(Err(err)) => self.status = Some(err.into()),
                    Err(panicked) => self.status = Some(Status::internal(panicked.to_string())),
                },
                messages = self.meanwhile.next() => self.ready.extend(messages),
            }
        }
    }
}

/// A good end of a stream, with a word on what is missing.
fn incomplete(note: &str) -> Status {
    let mut trailers = http::HeaderMap::new();
    partial::mark(&mut trailers, Some(note));
    Status::with_metadata(Code::Ok, "", MetadataMap::from_headers(trailers))
}
