//! The head thread: requests that are in the log become columns, in the order of the log.
//!
//! It is the only writer of heads and the only one that freezes them, so what a head holds is always
//! a prefix of its tenant's log behind the last cut, and the boundary of a cut is exact.
//!
//! **Poison.** A request that makes decoding panic is a defect of ours, and it is in the log: left
//! there it would stop every restart. It is set aside, the segment it broke is built again from the
//! log, and the process goes on.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::Duration;

use spoor_model::batch::SpanBatch;
use spoor_model::ingest::{AppendError, Decode};
use spoor_model::{Clock, TenantId, UnixNano};

use crate::cut::Cutter;
use crate::head::{SEGMENT_BYTES, SEGMENT_ROWS, Segment};
use crate::head_memory::HeadMemory;
use crate::metrics::Metrics;
use crate::quarantine;
use crate::record::{self, RecordError, Sequence};
use crate::recovery::Undecided;
use crate::store::{Store, StoreError, Table};
use crate::tenant::{Frozen, Tenant, Tenants};
use crate::wal::Logged;

/// How often ages are looked at.
const TICK: Duration = Duration::from_secs(1);

/// What the head thread is asked to do.
pub(crate) enum HeadWork {
    /// Append these, in order.
    Append(Vec<Logged>),
    /// Freeze the head of one tenant or of all, and say which frozen heads are not blocks yet and how
    /// often each had failed before.
    Freeze { tenant: Option<TenantId>, reply: SyncSender<Vec<(Arc<Frozen>, u32)>> },
    /// Say when everything before this is done.
    Barrier { reply: SyncSender<()> },
}

/// When heads are cut.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CutLimits {
    /// One head.
    pub(crate) head_bytes: usize,
    /// All heads: past half of it the largest are cut although they are not full.
    pub(crate) all_bytes: usize,
    /// One head, since its first request.
    pub(crate) age: Duration,
}

/// What the head thread works with.
pub(crate) struct HeadThread {
    pub(crate) tenants: Arc<Tenants>,
    pub(crate) decode: Arc<dyn Decode>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) cutter: Arc<Cutter>,
    pub(crate) memory: Arc<HeadMemory>,
    pub(crate) limits: CutLimits,
    pub(crate) metrics: Metrics,
    pub(crate) heads: BTreeMap<TenantId, OpenHead>,
    /// Heads that are to become what a cut of the last life may have made: cut where that was, and not before.
    pub(crate) undecided: Undecided,
}

/// A head that takes spans.
pub(crate) struct OpenHead {
    tenant: Arc<Tenant>,
    open: Arc<Segment>,
    /// The first request of the open segment, for building it again.
    open_from: Sequence,
    open_bytes: usize,
    sealed_bytes: usize,
    span_count: u64,
    last: Sequence,
    oldest: UnixNano,
}

impl OpenHead {
    fn bytes(&self) -> usize {
        self.sealed_bytes + self.open_bytes
    }
}

impl HeadThread {
    /// Runs until nobody can send any more.
    pub(crate) fn run(mut self, work: &Receiver<HeadWork>) {
        loop {
            match work.recv_timeout(TICK) {
                Ok(HeadWork::Append(group)) => {
                    group.into_iter().for_each(|logged| self.append(logged));
                    self.relieve();
                }
                Ok(HeadWork::Freeze { tenant, reply }) => {
                    let with_failures = |frozen: Arc<Frozen>| (Arc::clone(&frozen), frozen.failures());
                    let earlier = self.not_yet_blocks(tenant.as_ref()).into_iter().map(with_failures);
                    let mut all: Vec<_> = earlier.collect();
                    let new = self.freeze_where(|id, _| tenant.as_ref().is_none_or(|wanted| wanted == id));
                    all.extend(new.into_iter().map(|frozen| (frozen, 0)));
                    // Fails when the caller has gone, which is its choice; so below.
                    let _ = reply.send(all);
                }
                Ok(HeadWork::Barrier { reply }) => {
                    // The log is read.
                    let undecided: Vec<TenantId> = self.undecided.keys().cloned().collect();
                    undecided.iter().for_each(|tenant| drop(self.freeze(tenant)));
                    self.undecided.clear();
                    let _ = reply.send(());
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let now = self.clock.now();
            let age = self.limits.age;
            let undecided = self.undecided.clone();
            self.freeze_where(|tenant, head| now.since(head.oldest) >= age && !undecided.contains_key(tenant));
        }
    }

    /// Makes a request visible, then tells whoever waits.
    fn append(&mut self, logged: Logged) {
        let Logged { tenant, sequence, received_at, payload, checked, coming, waiting } = logged;
        if self.undecided.get(&tenant).is_some_and(|(_, last)| *last < sequence) {
            self.freeze(&tenant);
        }
        let head = match self.heads.get_mut(&tenant) {
            Some(head) => head,
            None => {
                let head = OpenHead::begin(self.tenants.get_or_add(&tenant), sequence, received_at);
                self.heads.entry(tenant.clone()).or_insert(head)
            }
        };
        assert!(head.last < sequence || head.span_count == 0, "requests come in the order of their sequence");
        head.seal_if_full(checked.accepted_count as usize, sequence);
        let (bytes_before, spans_before) = (head.bytes(), head.span_count);
        let outcome = {
            let mut batch = head.open.write();
            let rows_before = batch.len();
            let appended = catch_unwind(AssertUnwindSafe(|| self.decode.append(&payload, &checked, &mut batch)));
            let outcome = match appended {
                Ok(()) => Ok(()),
                Err(_) => Self::expel(&*self.store, &*self.decode, &tenant, head.open_from, sequence, &mut batch),
            };
            head.open_bytes = batch.memory_bytes();
            head.span_count = head.span_count + batch.len() as u64 - rows_before as u64;
            outcome
        };
        head.last = sequence;
        let (bytes_after, spans) = (head.bytes(), head.span_count - spans_before);
        let is_full = bytes_after >= self.limits.head_bytes;
        let held = self.memory.change(bytes_before, bytes_after, spans);
        drop(coming);
        self.metrics.head_bytes.set(held.bytes as i64);
        self.metrics.head_spans.set(held.spans as i64);
        if let Err(err) = &outcome {
            self.metrics.records_set_aside.inc();
            tracing::error!(%tenant, sequence = sequence.0, %err, "a request made decoding panic");
        }
        if let Some((done, held)) = waiting {
            drop(held);
            let _ = done.send(outcome.map_err(|err| AppendError::Storage(err.0)));
        }
        if is_full && !self.undecided.contains_key(&tenant) {
            self.freeze(&tenant);
        }
    }

    /// Sets a poisonous request aside and builds the segment that it broke again, from the log.
    /// Always an error: the one for whoever waits.
    fn expel(
        store: &dyn Store,
        decode: &dyn Decode,
        tenant: &TenantId,
        from: Sequence,
        poison: Sequence,
        batch: &mut SpanBatch,
    ) -> Result<(), StoreError> {
        let rebuilt = rebuild(store, decode, tenant, from, poison);
        // Half a segment must not pass for a whole one: the head thread ends here, ingest refuses,
        // and the restart recovers from the log.
        *batch = rebuilt.unwrap_or_else(|err| panic!("the head of tenant {tenant} cannot be built again: {err}"));
        quarantine::set_aside(store, &record::key(tenant, poison))?;
        Err(StoreError(RecordError::Poison.to_string()))
    }

    /// Cuts the largest heads when all together pass half the bound: many tenants can fill the memory
    /// without any of them filling its head. The other half is for heads that are being cut.
    fn relieve(&mut self) {
        loop {
            let open_bytes: usize = self.heads.values().map(OpenHead::bytes).sum();
            let heads = self.heads.iter().filter(|(tenant, _)| !self.undecided.contains_key(*tenant));
            let largest = heads.max_by_key(|(_, head)| head.bytes()).map(|(tenant, _)| tenant.clone());
            let (true, Some(tenant)) = (open_bytes > self.limits.all_bytes / 2, largest) else { return };
            if self.freeze(&tenant).is_none() {
                return;
            }
        }
    }

    fn freeze_where(&mut self, is_due: impl Fn(&TenantId, &OpenHead) -> bool) -> Vec<Arc<Frozen>> {
        let due = self.heads.iter().filter(|(tenant, head)| is_due(tenant, head));
        let due: Vec<TenantId> = due.map(|(tenant, _)| tenant.clone()).collect();
        due.iter().filter_map(|tenant| self.freeze(tenant)).collect()
    }

    fn freeze(&mut self, tenant: &TenantId) -> Option<Arc<Frozen>> {
        // A head is empty when its only request was poison; then there is nothing to cut.
        self.heads.get(tenant).filter(|head| head.span_count > 0)?;
        let head = self.heads.remove(tenant)?;
        let frozen = head.tenant.freeze(head.last, head.span_count, head.bytes());
        if let Some((id, _)) = self.undecided.remove(tenant) {
            frozen.set_named(Some(id));
        }
        self.cutter.enqueue(Arc::clone(&frozen));
        Some(frozen)
    }

    fn not_yet_blocks(&self, tenant: Option<&TenantId>) -> Vec<Arc<Frozen>> {
        match tenant {
            Some(id) => self.tenants.get(id).map(|tenant| tenant.cutting()).unwrap_or_default(),
            None => self.tenants.all().iter().flat_map(|tenant| tenant.cutting()).collect(),
        }
    }
}

impl OpenHead {
    fn begin(tenant: Arc<Tenant>, first: Sequence, received_at: UnixNano) -> Self {
        let open = Arc::new(Segment::default());
        tenant.add_segment(Arc::clone(&open));
        Self {
            tenant,
            open,
            open_from: first,
            open_bytes: 0,
            sealed_bytes: 0,
            span_count: 0,
            last: Sequence(0),
            oldest: received_at,
        }
    }

    /// Begins a new segment when the spans to come do not fit in the open one.
    fn seal_if_full(&mut self, coming: usize, sequence: Sequence) {
        let rows = self.open.read().len();
        let fits = rows + coming <= SEGMENT_ROWS && self.open_bytes < SEGMENT_BYTES;
        if rows == 0 || fits {
            return;
        }
        self.open.seal();
        self.sealed_bytes += self.open_bytes;
        self.open_bytes = 0;
        self.open = Arc::new(Segment::default());
        self.open_from = sequence;
        self.tenant.add_segment(Arc::clone(&self.open));
    }
}

/// Decodes a tenant's requests from `from` up to but without `until` out of the log.
fn rebuild(
    store: &dyn Store,
    decode: &dyn Decode,
    tenant: &TenantId,
    from: Sequence,
    until: Sequence,
) -> Result<SpanBatch, StoreError> {
    let mut batch = SpanBatch::new();
    let until = record::key(tenant, until);
    let mut damage = None;
    let mut visit = |key: &[u8], value: &[u8]| {
        if key >= until.as_slice() {
            return ControlFlow::Break(());
        }
        let payload = record::decode(key, value).and_then(|record| Ok((record.payload()?, record.checked)));
        match payload {
            Ok((payload, checked)) => decode.append(&payload, &checked, &mut batch),
            Err(err) => damage = Some(err),
        }
        ControlFlow::Continue(())
    };
    store.scan(Table::Wal, &record::key(tenant, from), &mut visit)?;
    match damage {
        None => Ok(batch),
        Some(err) => Err(StoreError(err.to_string())),
    }
}
