//! What is sent, and how answers are got.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config as RunnerConfig, RngAlgorithm, TestRng, TestRunner};
use spoor_ingester::Ingester;
use spoor_model::batch::SpanBatch;
use spoor_model::ingest::{Append, AppendRequest, BodyEncoding, Decode};
use spoor_model::memory::MemoryBudget;
use spoor_model::scan::{QueryContext, Skipped};
use spoor_model::{Clock, SpanEntry, TenantId, TimeRange, Trace, TraceId, UnixNano};
use spoor_otlp::{OtlpDecoder, encode};
use spoor_querier::{ExportRequest, Querier};
use spoor_testkit::random;
use spoor_testkit::rng::Rng;
use spoor_testkit::traceql_corpus::T0;

pub(crate) const SECOND: u64 = 1_000_000_000;

/// A clock that the simulation moves.
#[derive(Debug)]
pub(crate) struct HandClock(AtomicU64);

impl HandClock {
    /// A minute after all that is random begins.
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(T0 + 60 * SECOND))
    }

    pub(crate) fn pass(&self, seconds: u64) {
        self.0.fetch_add(seconds * SECOND, Ordering::Relaxed);
    }
}

impl Clock for HandClock {
    fn now(&self) -> UnixNano {
        UnixNano(self.0.load(Ordering::Relaxed))
    }
}

pub(crate) fn context() -> QueryContext {
    QueryContext::new(&MemoryBudget::new(1 << 30), Arc::new(AtomicBool::new(false)))
}

/// For comparing: attributes have no order.
pub(crate) fn canonical(entry: &SpanEntry) -> String {
    let mut entry = entry.clone();
    entry.span.attributes.sort_by_cached_key(|attribute| format!("{attribute:?}"));
    let origin = &entry.origin;
    format!("{:?} {:?} {:?}", origin.resource, origin.scope, entry.span)
}

/// Random traces, one after the other.
pub(crate) struct Traffic {
    runner: TestRunner,
    /// How old spans may be that come late.
    lateness: Duration,
    /// How many traces there have been.
    traces: u64,
}

impl Traffic {
    pub(crate) fn new(seed: u64, lateness: Duration) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        Self { runner: TestRunner::new_with_rng(RunnerConfig::default(), rng), lateness, traces: 0 }
    }

    pub(crate) fn draw<S: Strategy>(&mut self, strategy: S) -> S::Value {
        strategy.new_tree(&mut self.runner).unwrap().current()
    }

    /// Some traces, at any time that is kept; some of them are known already and go on.
    pub(crate) fn entries(&mut self, rng: &mut Rng, now: UnixNano) -> Vec<SpanEntry> {
        let mut entries = self.draw(random::entries());
        let age = if rng.chance(0.2) { rng.below(self.lateness.as_secs()) } else { rng.below(60) };
        let base = now.0 - age.min((now.0 - T0) / SECOND) * SECOND;
        let mut renamed = BTreeMap::new();
        for entry in &mut entries {
            let id = *renamed.entry(entry.span.trace_id).or_insert_with(|| {
                let goes_on = self.traces > 4 && rng.chance(0.3);
                self.traces += u64::from(!goes_on);
                let number = if goes_on { self.traces - rng.below(4.min(self.traces)) } else { self.traces };
                TraceId((u128::from(number) << 64 | 7).to_be_bytes())
            });
            let span = &mut entry.span;
            span.trace_id = id;
            for time in [&mut span.start, &mut span.end] {
                *time = UnixNano(time.0.wrapping_sub(T0).wrapping_add(base));
            }
            for event in &mut span.events {
                event.time = UnixNano(event.time.0.wrapping_sub(T0).wrapping_add(base));
            }
        }
        entries
    }
}

/// An export of these spans, and the spans as the store will know them.
pub(crate) fn request(tenant: &TenantId, entries: Vec<SpanEntry>) -> (Vec<SpanEntry>, AppendRequest) {
    let mut of_trace: BTreeMap<TraceId, Vec<SpanEntry>> = BTreeMap::new();
    entries.into_iter().for_each(|entry| of_trace.entry(entry.span.trace_id).or_default().push(entry));
    let traces = of_trace.into_iter().map(|(id, entries)| Trace { id, entries });
    let payload: Vec<u8> = traces.flat_map(|trace| encode::traces_data(&trace)).collect();
    let checked = OtlpDecoder.check(&payload).unwrap();
    let mut batch = SpanBatch::new();
    OtlpDecoder.append(&payload, &checked, &mut batch);
    let sent = (0..batch.len() as u32).map(|row| batch.span(row)).collect();
    let request = AppendRequest {
        tenant: tenant.clone(),
        stored: Bytes::from(zstd::bulk::compress(&payload, 1).unwrap()),
        stored_encoding: BodyEncoding::Zstd,
        checked,
        payload: Bytes::from(payload),
    };
    (sent, request)
}

/// Whether it was acknowledged.
pub(crate) fn append(ingester: &Ingester, request: AppendRequest) -> bool {
    wait(ingester.append(request)).is_ok_and(|answer| answer.is_ok())
}

/// Every trace that there is, once unless answers had to do without something, and what that was.
pub(crate) fn exported(querier: &Querier, tenant: &TenantId, rng: &mut Rng) -> (Vec<Trace>, Vec<Skipped>) {
    let (mut all, mut skipped, mut after) = (Vec::new(), Vec::new(), None);
    loop {
        let traces_max = 1 + rng.index(40);
        let request = ExportRequest { range: TimeRange::ALL, after, traces_max, bytes_max: usize::MAX };
        let page = querier.export(tenant, &request, &context()).unwrap();
        skipped.extend(page.skipped);
        all.extend(page.value.traces);
        match page.value.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    let ids: BTreeSet<TraceId> = all.iter().map(|trace: &Trace| trace.id).collect();
    assert!(ids.len() == all.len() || !skipped.is_empty(), "a trace is exported twice");
    (all, skipped)
}

/// Wakes a thread that waits.
struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

pub(crate) fn wait<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}
