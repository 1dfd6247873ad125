//! Merging, one job at a time: plan, have the owner do the most urgent job, plan again.
//!
//! ```text
//!   owner's blocks --filter--> plan --> first job --> owner.merge --> metrics, log, what is running
//!                    ^                                    |
//!                    '-- left alone for a while <-- fails-'
//! ```
//!
//! There is nothing to resume after a crash: what was not exchanged is planned again.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;

use parking_lot::Mutex;
use spoor_block::{Merged, Progress, TimeWindow};
use spoor_model::{BlockId, Clock, UnixNano};

use crate::metrics::{Metrics, Reason};
use crate::owner::{BlockOwner, Listed, MergeBounds, MergeError};
use crate::pace::{Brake, Pace, Rest, Shares};
use crate::plan::{Candidate, Job, Limits, plan};
use crate::retention::{Policy, is_expired};

/// How often somebody is told how far a long merge is.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);
/// How often a merge that waits for ingest looks again.
const PRESSED_INTERVAL: Duration = Duration::from_millis(100);
/// How many times it does before it takes its next step all the same: slow, but never stopped for good.
const PRESSED_WAITS: usize = 10;
/// And before it begins: then it takes memory, of which an overload leaves little.
const PRESSED_WAITS_TO_BEGIN: usize = 600;
/// How long blocks are left alone after a merge of them failed; it doubles.
const FAILURE_WAIT: Duration = Duration::from_secs(60);
/// The longest that blocks are left alone.
const FAILURE_WAIT_MAX: Duration = Duration::from_secs(24 * 3600);

/// What compaction keeps to.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What to merge.
    pub limits: Limits,
    /// What a merge may hold in memory.
    pub memory_bytes: usize,
    /// How much it leaves for others.
    pub shares: Shares,
}

/// A merge that runs now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// What it does.
    pub job: Job,
    /// When it began.
    pub since: UnixNano,
    /// How far it is.
    pub spans_written: u64,
}

/// What became of a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// There is nothing to merge.
    Idle,
    /// Blocks were merged; there may be more.
    Merged,
    /// A merge failed, or its blocks changed; others may succeed.
    Failed,
    /// It was told to stop.
    Stopped,
}

/// Blocks that could not be merged.
#[derive(Debug, Clone, Copy)]
struct Failure {
    count: u32,
    until: UnixNano,
}

/// Merges blocks, one job at a time, on a thread that may block.
#[derive(Debug)]
pub struct Compaction {
    settings: Settings,
    policy: Policy,
    metrics: Metrics,
    failures: Mutex<BTreeMap<BlockId, Failure>>,
    running: Mutex<Option<Running>>,
}

impl Compaction {
    /// Merges by these settings; traces past `policy` are left out.
    pub fn new(settings: Settings, policy: Policy, metrics: Metrics) -> Self {
        let (failures, running) = (Mutex::default(), Mutex::default());
        Self { settings, policy, metrics, failures, running }
    }

    /// The merge that runs now.
    pub fn running(&self) -> Option<Running> {
        self.running.lock().clone()
    }

    /// Does the most urgent job. Blocks as long as it takes, or until the brake is pulled.
    pub fn run_one(&self, owner: &dyn BlockOwner, clock: &dyn Clock, brake: &Brake) -> Pass {
        if brake.wait(Duration::ZERO) {
            return Pass::Stopped;
        }
        let now = clock.now();
        let jobs = plan(&self.candidates(owner, now), now, &self.settings.limits);
        self.metrics.set_outstanding(&owner.tenants(), &jobs);
        let Some(job) = jobs.into_iter().next() else { return Pass::Idle };
        let bounds = MergeBounds {
            block_spans: self.settings.limits.block.spans,
            memory_bytes: self.settings.memory_bytes,
            keep_after: self.policy.horizon(&job.tenant, now),
            window: TimeWindow { start: job.window_start, length: self.settings.limits.window },
        };
        *self.running.lock() = Some(Running { job: job.clone(), since: now, spans_written: 0 });
        let outcome = match self.let_ingest_go_first(owner, brake, PRESSED_WAITS_TO_BEGIN) {
            ControlFlow::Continue(()) => {
                let mut watch = self.watch(owner, clock, brake, clock.now());
                owner.merge(&job.tenant, &job.inputs, &bounds, &mut watch)
            }
            ControlFlow::Break(()) => Err(MergeError::Cancelled),
        };
        *self.running.lock() = None;
        let took = clock.now().since(now);
        match outcome {
            Ok(merged) => self.succeeded(&job, &merged, took),
            Err(err) => self.failed(&job, err, clock.now()),
        }
    }

    /// What planning may touch: not what is past retention (it is about to go), nor what cannot be read.
    fn candidates(&self, owner: &dyn BlockOwner, now: UnixNano) -> Vec<Candidate> {
        let mut failures = self.failures.lock();
        let mut listed: Vec<Listed> = Vec::new();
        for tenant in owner.tenants() {
            let horizon = self.policy.horizon(&tenant, now);
            listed.extend(owner.blocks(&tenant).into_iter().filter(|block| !is_expired(&block.meta, horizon)));
        }
        failures.retain(|id, _| listed.iter().any(|block| block.meta.id == *id));
        let is_free = |block: &&Listed| {
            let is_left_alone = failures.get(&block.meta.id).is_some_and(|failure| now < failure.until);
            block.is_readable && !block.is_merging && !is_left_alone
        };
        listed.iter().filter(is_free).map(|block| Candidate::new(&block.meta, block.has_deletions)).collect()
    }

    /// Lets others go first: waits while ingest is pressed, rests for its shares, says how far it is, stops when told.
    fn watch<'a>(
        &'a self,
        owner: &'a dyn BlockOwner,
        clock: &'a dyn Clock,
        brake: &'a Brake,
        began: UnixNano,
    ) -> impl FnMut(Progress) -> ControlFlow<()> + 'a {
        let mut pace = Pace::new(self.settings.shares, began);
        let (mut reported, mut counted_bytes) = (began, 0);
        move |progress| {
            let now = clock.now();
            if let Some(running) = &mut *self.running.lock() {
                running.spans_written = progress.spans_written;
            }
            if now.since(reported) >= REPORT_INTERVAL {
                reported = now;
                tracing::info!(written = progress.spans_written, of = progress.span_count, "blocks are being merged");
            }
            self.metrics.io_bytes.inc_by(progress.io_bytes.saturating_sub(counted_bytes));
            counted_bytes = progress.io_bytes;
            let rest = pace.rest(now, progress.io_bytes);
            match rest {
                Rest::None => {}
                Rest::Cpu(rest) => self.metrics.rested(Reason::cpu_share, rest),
                Rest::Io(rest) => self.metrics.rested(Reason::io_rate, rest),
            }
            if brake.wait(rest.duration()) {
                return ControlFlow::Break(());
            }
            self.let_ingest_go_first(owner, brake, PRESSED_WAITS)?;
            pace.resume(clock.now());
            ControlFlow::Continue(())
        }
    }

    /// Waits while ingest is pressed, so many times at most.
    fn let_ingest_go_first(&self, owner: &dyn BlockOwner, brake: &Brake, waits_max: usize) -> ControlFlow<()> {
        for _ in 0..waits_max {
            if !owner.is_pressed() {
                break;
            }
            self.metrics.rested(Reason::ingest, PRESSED_INTERVAL);
            if brake.wait(PRESSED_INTERVAL) {
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    fn succeeded(&self, job: &Job, merged: &Merged, took: Duration) -> Pass {
        let bytes: u64 = merged.blocks.iter().map(|meta| meta.size_bytes).sum();
        tracing::info!(
            tenant = %job.tenant,
            level = job.level,
            blocks = job.inputs.len(),
            into = merged.blocks.len(),
            spans = merged.spans_written,
            copies = merged.copies_dropped,
            left_out = merged.spans_left_out,
            bytes_before = job.size.bytes,
            bytes,
            io_bytes = merged.io_bytes,
            ms = took.as_millis() as u64,
            "blocks merged"
        );
        self.metrics.merged(job, merged, took);
        Pass::Merged
    }

    fn failed(&self, job: &Job, err: MergeError, now: UnixNano) -> Pass {
        let (reason, culprit) = match err {
            MergeError::Cancelled => return Pass::Stopped,
            MergeError::Outdated => {
                tracing::debug!(tenant = %job.tenant, "the blocks of a merge have changed; it is planned again");
                return Pass::Failed;
            }
            MergeError::Failed { reason, culprit } => (reason, culprit),
        };
        tracing::error!(tenant = %job.tenant, blocks = job.inputs.len(), reason, "blocks cannot be merged");
        self.metrics.errors.inc();
        let mut failures = self.failures.lock();
        for id in job.inputs.iter().filter(|id| culprit.is_none_or(|culprit| culprit == **id)) {
            let failure = failures.entry(*id).or_insert(Failure { count: 0, until: now });
            let wait = FAILURE_WAIT_MAX.min(FAILURE_WAIT * (1 << failure.count.min(16)));
            let until = UnixNano(now.0.saturating_add(wait.as_nanos() as u64));
            *failure = Failure { count: failure.count + 1, until };
        }
        Pass::Failed
    }
}

impl Running {
    /// One line for people.
    pub fn describe(&self) -> String {
        let Job { tenant, inputs, level, size, .. } = &self.job;
        let share = self.spans_written * 100 / size.spans.max(1);
        format!("tenant {tenant}: {} blocks into level {level}, {share} % of {} spans", inputs.len(), size.spans)
    }
}

#[cfg(test)]
mod tests;
