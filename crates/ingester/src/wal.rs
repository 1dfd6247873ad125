//! The log thread: many requests, one write, one fsync.
//!
//! ```text
//!   append() -> queue (bounded by bytes) -> log thread -> head thread -> caller
//!                                            | one batch     | columns
//!                                            v fsync         v visible
//! ```
//!
//! A group is whatever waits when the log thread comes back from the disk: alone, a request waits
//! for nobody; under load, groups grow until the disk keeps up.
//!
//! **Invariant:** a request reaches the head thread only when its write has returned, and in the
//! order of its sequence. **Invariant:** a sequence number is never given twice, even when its write
//! failed: a failed write may have happened.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use bytes::Bytes;
use futures_channel::oneshot;
use parking_lot::Mutex;
use spoor_model::ingest::{AppendError, AppendRequest, Checked};
use spoor_model::memory::Reservation;
use spoor_model::{Clock, TenantId, UnixNano};

use crate::apply::HeadWork;
use crate::catalog;
use crate::config::WalSync;
use crate::metrics::{Metrics, Refusing, seconds};
use crate::queue::{Queue, Taken};
use crate::record::{self, Sequence};
use crate::store::{Change, Durability, Store, StoreError, Table};

/// Compressed bytes per group: at 60 bytes a span some 140,000 spans, tens of milliseconds of disk.
const GROUP_BYTES_MAX: usize = 8 << 20;

/// How long the log thread sleeps without work, and how often it tries whether a failing disk has
/// come back.
const IDLE_WAIT: Duration = Duration::from_millis(500);

/// Who waits for the answer.
pub(crate) type Done = oneshot::Sender<Result<(), AppendError>>;

/// A request before the log.
pub(crate) struct Pending {
    pub(crate) request: AppendRequest,
    pub(crate) done: Done,
    /// Its share of the queue's bound, held until it is visible.
    pub(crate) held: Reservation,
    /// What it will take in a head, counted until it does.
    pub(crate) coming: Reservation,
}

/// A request after the log, live or recovered.
pub(crate) struct Logged {
    pub(crate) tenant: TenantId,
    pub(crate) sequence: Sequence,
    pub(crate) received_at: UnixNano,
    pub(crate) payload: Bytes,
    pub(crate) checked: Checked,
    /// As in [`Pending`].
    pub(crate) coming: Reservation,
    /// `None` at recovery, when nobody waits.
    pub(crate) waiting: Option<(Done, Reservation)>,
}

/// Why ingest refuses, while it does.
#[derive(Default)]
pub(crate) struct Refusal {
    state: Mutex<Option<Refused>>,
}

struct Refused {
    reason: String,
    /// Whether no probe can end it.
    is_final: bool,
}

impl Refusal {
    pub(crate) fn get(&self) -> Option<String> {
        self.state.lock().as_ref().map(|refused| refused.reason.clone())
    }

    /// Like [`Self::get`], with what alarms go by.
    pub(crate) fn look(&self) -> Option<(Refusing, String)> {
        let state = self.state.lock();
        let refused = state.as_ref()?;
        let why = if refused.is_final { Refusing::stopped } else { Refusing::log };
        Some((why, refused.reason.clone()))
    }

    /// Refuses until a probe write succeeds.
    fn begin(&self, reason: &str) {
        let mut state = self.state.lock();
        if state.is_none() {
            tracing::error!(reason, "writes are refused until storage takes them again; queries go on");
            *state = Some(Refused { reason: reason.to_owned(), is_final: false });
        }
    }

    /// Refuses until the process is restarted.
    pub(crate) fn begin_for_good(&self, reason: &str) {
        tracing::error!(reason, "writes are refused until restart; queries go on");
        *self.state.lock() = Some(Refused { reason: reason.to_owned(), is_final: true });
    }

    fn end(&self) {
        if self.state.lock().take_if(|refused| !refused.is_final).is_some() {
            tracing::info!("storage takes writes again");
        }
    }
}

/// What the log thread works with.
pub(crate) struct WalThread {
    pub(crate) queue: Arc<Queue<Pending>>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) refusal: Arc<Refusal>,
    pub(crate) to_head: SyncSender<HeadWork>,
    pub(crate) sync: WalSync,
    pub(crate) metrics: Metrics,
    /// The last sequence number given.
    pub(crate) last: Sequence,
    /// When something was written that is not yet synced.
    pub(crate) unsynced_since: Option<UnixNano>,
}

impl WalThread {
    /// Runs until the queue is closed and empty.
    pub(crate) fn run(mut self) {
        loop {
            match self.queue.take(GROUP_BYTES_MAX, self.idle_wait()) {
                Taken::Group(group) => self.commit(group),
                Taken::Nothing => {}
                Taken::Closed => break,
            }
            self.sync_when_due();
            if self.refusal.get().is_some() {
                self.probe();
            }
        }
        if self.unsynced_since.is_some() {
            let synced = self.store.sync();
            self.note(&synced);
        }
    }

    fn idle_wait(&self) -> Duration {
        match self.sync {
            WalSync::Interval(interval) => interval.min(IDLE_WAIT),
            WalSync::Always | WalSync::Never => IDLE_WAIT,
        }
    }

    fn commit(&mut self, group: Vec<Pending>) {
        if let Some(reason) = self.refusal.get() {
            return refuse(group, &reason);
        }
        let received_at = self.clock.now();
        let mut changes = Vec::with_capacity(group.len());
        let mut sequences = Vec::with_capacity(group.len());
        let mut bytes = 0;
        for Pending { request, .. } in &group {
            self.last = self.last.next();
            let key = record::key(&request.tenant, self.last);
            let value = record::encode(&key, request, received_at);
            bytes += value.len();
            sequences.push(self.last);
            changes.push(Change::Put { table: Table::Wal, key, value });
        }
        let durability = match self.sync {
            WalSync::Always => Durability::Synced,
            WalSync::Interval(_) | WalSync::Never => Durability::Buffered,
        };
        let written = self.store.write(&changes, durability);
        drop(changes);
        self.metrics.wal_commit_seconds.observe(seconds(self.clock.now().since(received_at)));
        self.note(&written);
        if let Err(err) = written {
            return refuse(group, &err.0);
        }
        if matches!(self.sync, WalSync::Interval(_)) {
            self.unsynced_since.get_or_insert(received_at);
        }
        self.metrics.wal_group_records.observe(group.len() as f64);
        self.metrics.wal_records.inc_by(group.len() as u64);
        self.metrics.wal_bytes.inc_by(bytes as u64);
        self.hand_over(group, sequences, received_at);
    }

    fn hand_over(&self, group: Vec<Pending>, sequences: Vec<Sequence>, received_at: UnixNano) {
        let logged = group.into_iter().zip(sequences).map(|(pending, sequence)| {
            let Pending { request, done, held, coming } = pending;
            // The compressed bytes are on disk: the head needs the others only.
            let AppendRequest { tenant, payload, checked, stored: _, stored_encoding: _ } = request;
            Logged { tenant, sequence, received_at, payload, checked, coming, waiting: Some((done, held)) }
        });
        if self.to_head.send(HeadWork::Append(logged.collect())).is_err() {
            // Whoever waits learns it from the dropped sender.
            self.refusal.begin_for_good("the head thread has stopped; restart the process");
        }
    }

    fn sync_when_due(&mut self) {
        let WalSync::Interval(interval) = self.sync else { return };
        let Some(since) = self.unsynced_since else { return };
        if self.clock.now().since(since) >= interval {
            self.unsynced_since = None;
            let synced = self.store.sync();
            self.note(&synced);
        }
    }

    /// Tries whether writing works again.
    fn probe(&self) {
        if self.store.write(&[catalog::probe()], Durability::Synced).is_ok() {
            self.refusal.end();
        }
    }

    fn note(&self, result: &Result<(), StoreError>) {
        if let Err(err) = result {
            self.metrics.wal_failures.inc();
            self.refusal.begin(&err.0);
        }
    }
}

fn refuse(group: Vec<Pending>, reason: &str) {
    for pending in group {
        // Fails when the caller has gone, which is its choice.
        let _ = pending.done.send(Err(AppendError::Storage(reason.to_owned())));
    }
}
