//! The write path's door: what may come in, and in which shape it goes on to the log.
//!
//! ```text
//!   admit (bytes in flight, tenant's rate) -> read the body -> push:
//!     decompress (capped) -> JSON to protobuf -> rate -> check -> compress -> append -> Accepted
//! ```
//!
//! A receiver calls [`Distributor::admit`] as soon as it knows a request's size, before it holds
//! its body, and [`Distributor::push`] once it does. Bytes are accounted from admission until the
//! answer, whatever form they take between; a request that finds no room is refused with the key of
//! the limit it met and, where waiting helps, with the time to wait.
//!
//! **Invariant:** nothing here waits for memory. There is room now, or the sender is told to come
//! back: only the sender can keep spans without bound.

mod admission;
mod compression;
mod error;
mod metrics;
mod rate;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use spoor_model::compute::ComputePool;
use spoor_model::ingest::{Append, AppendError, AppendRequest, BodyEncoding, Checked, Decode, Rejected};
use spoor_model::memory::MemoryBudget;
use spoor_model::{Clock, TenantId};
use spoor_otlp::OtlpDecoder;

pub use admission::Admission;
pub use error::PushError;
pub use metrics::{Metrics, Transport};

use rate::RateLimiter;

/// What may come in. The names of the fields are configuration keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The largest request, as it travels and uncompressed.
    pub max_message_bytes: usize,
    /// Bytes of requests held at once. A request needs up to three times its uncompressed size.
    pub ingest_inflight_bytes: usize,
    /// Uncompressed bytes per second and tenant; 0 means no limit.
    pub ingest_rate_limit_bytes: u64,
    /// Uncompressed bytes that a tenant may send at once after a quiet time.
    pub ingest_rate_burst_bytes: u64,
    /// When a sender that was refused for lack of room should come back.
    pub retry_after: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_message_bytes: 16 << 20,
            ingest_inflight_bytes: 64 << 20,
            ingest_rate_limit_bytes: 0,
            ingest_rate_burst_bytes: 30_000_000,
            retry_after: Duration::from_secs(5),
        }
    }
}

/// How a request is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `ExportTraceServiceRequest` in protobuf.
    Protobuf,
    /// The same in OTLP/JSON.
    Json,
}

/// A request whose body has arrived.
#[derive(Debug, Clone)]
pub struct PushRequest {
    /// Whose spans.
    pub tenant: TenantId,
    /// Which receiver took it.
    pub transport: Transport,
    /// How `body` is compressed.
    pub encoding: BodyEncoding,
    /// How it is written.
    pub format: Format,
    /// As received.
    pub body: Bytes,
}

/// What became of a request's spans. Those accepted are durable and visible.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accepted {
    /// How many are stored.
    pub accepted_count: u32,
    /// Which are not, ascending by place.
    pub rejected: Vec<Rejected>,
}

impl Accepted {
    /// Why spans were refused, for the sender's log; empty when none was. One clause per reason, with
    /// the first span concerned.
    pub fn message(&self) -> String {
        let mut clauses: Vec<(Rejected, usize)> = Vec::new();
        for rejected in &self.rejected {
            match clauses.iter_mut().find(|(first, _)| first.reason == rejected.reason) {
                Some((_, count)) => *count += 1,
                None => clauses.push((*rejected, 1)),
            }
        }
        let clauses = clauses.iter().map(|(first, count)| {
            format!("{count} refused: {} (first: span {} of the request)", first.reason.message(), first.span_index)
        });
        clauses.collect::<Vec<_>>().join("; ")
    }
}

/// The door. One per process, shared by all receivers.
#[derive(Clone)]
pub struct Distributor {
    shared: Arc<Shared>,
    pool: Arc<ComputePool>,
    sink: Arc<dyn Append>,
}

struct Shared {
    limits: Limits,
    budget: Arc<MemoryBudget>,
    rates: RateLimiter,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
}

/// A request ready for the log.
struct Prepared {
    admission: Admission,
    request: AppendRequest,
}

impl Distributor {
    /// A door before `sink`; CPU work runs on `pool`.
    pub fn new(
        limits: Limits,
        pool: Arc<ComputePool>,
        sink: Arc<dyn Append>,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
    ) -> Self {
        let budget = MemoryBudget::new(limits.ingest_inflight_bytes);
        let rates = RateLimiter::new(limits.ingest_rate_limit_bytes, limits.ingest_rate_burst_bytes);
        Self { shared: Arc::new(Shared { limits, budget, rates, clock, metrics }), pool, sink }
    }

    /// The limits in force.
    pub fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    /// Makes room for a request of `body_bytes` on the wire; 0 when the size is not known, then
    /// [`Admission::grow_body`] follows as the body arrives. Call it before reading the body.
    pub fn admit(&self, tenant: &TenantId, body_bytes: usize) -> Result<Admission, PushError> {
        let Shared { limits, budget, rates, clock, metrics } = &*self.shared;
        let room = || {
            // A request is rarely smaller uncompressed: what does not pass now will not pass then.
            rates.peek(tenant, clock.now(), body_bytes as u64)?;
            Admission::new(*limits, budget, metrics.in_flight_bytes.clone(), body_bytes)
        };
        room().inspect_err(|err| metrics.count_refusal(err))
    }

    /// Stores the request's good spans: durable and visible when this returns.
    pub async fn push(&self, admission: Admission, request: PushRequest) -> Result<Accepted, PushError> {
        let started = self.shared.clock.now();
        let pushed = self.prepare_and_append(admission, request).await;
        let metrics = &self.shared.metrics;
        metrics.push_duration_seconds.observe(self.shared.clock.now().since(started).as_secs_f64());
        pushed.inspect_err(|err| metrics.count_refusal(err))
    }

    async fn prepare_and_append(&self, admission: Admission, push: PushRequest) -> Result<Accepted, PushError> {
        let (tenant, transport) = (push.tenant.clone(), push.transport);
        let shared = Arc::clone(&self.shared);
        let prepared = self.pool.run(move || shared.prepare(admission, push)).await;
        let Prepared { admission, request } = prepared.map_err(|err| PushError::Internal(err.to_string()))??;
        let metrics = &self.shared.metrics;
        let Checked { accepted_count, rejected } = request.checked.clone();
        metrics.count_rejected(&tenant, transport, &rejected);
        if accepted_count > 0 {
            let payload_bytes = request.payload.len();
            let appended = self.sink.append(request).await.unwrap_or(Err(AppendError::Closed));
            if let Err(err) = appended {
                metrics.count_not_appended(transport, accepted_count);
                return Err(PushError::from_append(err, self.shared.limits.retry_after));
            }
            metrics.count_accepted(&tenant, transport, accepted_count, payload_bytes);
        }
        drop(admission);
        Ok(Accepted { accepted_count, rejected })
    }
}

impl Shared {
    /// Everything that costs CPU. Each step accounts for the memory it takes before it takes it.
    fn prepare(&self, mut admission: Admission, push: PushRequest) -> Result<Prepared, PushError> {
        let PushRequest { tenant, encoding, format, body, .. } = push;
        self.metrics.wire_bytes.inc_by(body.len() as u64);
        let plain = match encoding {
            BodyEncoding::Identity => body.clone(),
            BodyEncoding::Gzip => compression::gunzip(&body, &mut admission)?,
            BodyEncoding::Zstd => compression::unzstd(&body, &mut admission)?,
        };
        self.metrics.count_ingress(&tenant, plain.len());
        self.rates.take(&tenant, self.clock.now(), plain.len() as u64)?;
        let payload = match format {
            Format::Protobuf => plain,
            Format::Json => {
                admission.grow(plain.len())?;
                let mut protobuf = spoor_otlp::json::to_protobuf(&plain)?;
                protobuf.shrink_to_fit();
                Bytes::from(protobuf)
            }
        };
        let checked = OtlpDecoder.check(&payload)?;
        // What the client compressed is logged as it is: the log's cost is per byte.
        let (stored_encoding, stored) = match (format, encoding) {
            (Format::Protobuf, BodyEncoding::Gzip | BodyEncoding::Zstd) => (encoding, body),
            _ if checked.accepted_count == 0 => (BodyEncoding::Identity, payload.clone()),
            _ => (BodyEncoding::Zstd, compression::zstd_for_log(&payload, &mut admission)?),
        };
        admission.shrink_to(payload.len() + stored.len());
        Ok(Prepared { admission, request: AppendRequest { tenant, payload, stored_encoding, stored, checked } })
    }
}

#[cfg(test)]
mod tests;
