//! What reads files hands over, as requests to a server's OTLP port; and what becomes of it.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use indicatif::ProgressBar;
use spoor_model::UnixNano;
use spoor_model::ingest::Decode;
use spoor_model::wire::{Reader, WireError};
use spoor_otlp::{OtlpDecoder, split};

use super::spans;
use crate::query::{Answer, Transport};

/// Requests are about this large.
const REQUEST_BYTES: usize = 1 << 20;

/// How often a request is sent again while the receiver has no room.
const ATTEMPTS_MAX: u32 = 60;

/// How long to wait for room at most, when the receiver does not say or says longer.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// Refused spans that are described; the rest is counted.
const REASONS_MAX: usize = 5;

/// What became of spans.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Taken.
    pub(super) spans: u64,
    pub(super) refused: u64,
    /// Of those that were taken: past the retention of the receiver.
    pub(super) expired: u64,
    pub(super) requests: u64,
    /// Of the first that were refused: which, and why.
    pub(super) reasons: Vec<String>,
}

/// Gathers traces into requests, sends them and counts what becomes of them.
pub(super) struct Sender<'a> {
    pub(super) transport: &'a Transport,
    pub(super) runtime: &'a tokio::runtime::Runtime,
    pub(super) dry_run: bool,
    /// What ends before that will be removed by the receiver.
    pub(super) kept_from: UnixNano,
    pub(super) counts: Counts,
    /// A `TracesData`, to be sent when it is large enough. Messages of this shape one after the other are one.
    pub(super) pending: Vec<u8>,
}

impl Sender<'_> {
    /// Takes a `TracesData`, at `place` in its file.
    pub(super) fn add(&mut self, data: &[u8], place: &str, bar: &ProgressBar) -> Result<(), String> {
        let malformed = |err: WireError| format!("not OTLP protobuf: {err}");
        let checked = OtlpDecoder.check(data).map_err(malformed)?;
        let spans = spans::spans(data).map_err(malformed)?;
        let room = REASONS_MAX.saturating_sub(self.counts.reasons.len());
        for rejected in checked.rejected.iter().take(room) {
            let which = spans.get(rejected.span_index as usize).map(|span| spans::described(span)).unwrap_or_default();
            self.counts.reasons.push(format!("{place}: span {which}: {}", rejected.reason.message()));
        }
        let ends = spans.iter().filter_map(|span| spans::end(span));
        self.counts.expired += ends.filter(|end| *end < self.kept_from).count() as u64;
        self.counts.spans += u64::from(checked.accepted_count);
        self.counts.refused += checked.rejected.len() as u64;
        self.pending.extend_from_slice(data);
        bar.set_message(format!("{} spans", self.counts.spans));
        if self.pending.len() >= REQUEST_BYTES { self.flush() } else { Ok(()) }
    }

    /// Sends what is left.
    pub(super) fn flush(&mut self) -> Result<(), String> {
        let pending = std::mem::take(&mut self.pending);
        for request in split::split(&pending, REQUEST_BYTES).map_err(|err| format!("not OTLP protobuf: {err}"))? {
            self.counts.requests += 1;
            if !self.dry_run {
                self.post(request)?;
            }
        }
        Ok(())
    }

    /// Sends a request until it is taken.
    fn post(&mut self, request: Vec<u8>) -> Result<(), String> {
        let expected = OtlpDecoder.check(&request).map_err(|err| format!("not OTLP protobuf: {err}"))?.rejected.len();
        let request = Bytes::from(request);
        for _ in 0..ATTEMPTS_MAX {
            let sending = self.transport.send(Method::POST, "/v1/traces", "application/x-protobuf", request.clone());
            let answer = self.runtime.block_on(sending)?;
            match answer.status {
                status if status.is_success() => return self.count_refused(&answer.body, expected as u64),
                StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                    std::thread::sleep(wait_of(&answer));
                }
                status => return Err(format!("{status}: {}", said(&answer.body))),
            }
        }
        Err(format!("the receiver has no room, after {ATTEMPTS_MAX} attempts"))
    }

    /// A receiver of another version may refuse more than this one, or less.
    fn count_refused(&mut self, response: &[u8], expected: u64) -> Result<(), String> {
        let malformed = |err: WireError| format!("the receiver's answer is not OTLP: {err}");
        let (refused, message) = partial_success(response).map_err(malformed)?;
        if refused > expected && self.counts.reasons.len() < REASONS_MAX {
            self.counts.reasons.push(format!("the receiver: {message}"));
        }
        let all = self.counts.spans + self.counts.refused;
        self.counts.refused = (self.counts.refused + refused).saturating_sub(expected);
        self.counts.spans = all.saturating_sub(self.counts.refused);
        Ok(())
    }
}

fn wait_of(answer: &Answer) -> Duration {
    let header = answer.headers.get(http::header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    header.map_or(WAIT_MAX, |seconds| Duration::from_secs(seconds).min(WAIT_MAX))
}

/// `rejected_spans` and `error_message` of the `partial_success` in an `ExportTraceServiceResponse`.
fn partial_success(response: &[u8]) -> Result<(u64, String), WireError> {
    let (mut reader, mut refused, mut message) = (Reader::new(response), 0, String::new());
    while let Some((number, field)) = reader.next_field()? {
        if number == 1 {
            let mut partial = Reader::new(field.bytes(number)?);
            while let Some((number, field)) = partial.next_field()? {
                match number {
                    1 => refused = field.varint(number)?,
                    2 => message = field.text(number)?.to_owned(),
                    _ => {}
                }
            }
        }
    }
    Ok((refused, message))
}

/// The message of a `google.rpc.Status`, or the text as it is.
fn said(body: &[u8]) -> String {
    let mut reader = Reader::new(body);
    while let Ok(Some((number, field))) = reader.next_field() {
        if let (2, Ok(text)) = (number, field.text(number)) {
            return text.to_owned();
        }
    }
    String::from_utf8_lossy(body).trim().to_owned()
}
