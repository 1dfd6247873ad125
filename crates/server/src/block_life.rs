//! The life of blocks, wired: a thread that merges, a thread that removes what is past retention, and what operators see
//! of both.
//!
//! The ingester owns the catalog; `compactor` knows it as a [`BlockOwner`] only.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use spoor_api::tempo::{BlockAdmin, BlockRow, BlocksReport};
use spoor_block::{Merged, Progress};
use spoor_compactor::{
    BlockOwner, Brake, Compaction, Limits, Listed, MergeBounds, MergeError, Metrics, Pass, Policy, Retention, Settings,
    Shares, Size,
};
use spoor_ingester::{BlockState, Error, Ingester, MergeRequest};
use spoor_model::{BlockId, Clock, TenantId, TraceId};

use crate::config::{Config, MemoryPlan};
use crate::storage::Shared;

/// Fewer blocks are not worth a merge.
const INPUTS_MIN: usize = 4;
/// More blocks at once take more memory than they save work.
const INPUTS_MAX: usize = 32;
/// So many windows of a retention, so that at most this part of what is kept is kept too long.
const WINDOWS_PER_RETENTION: u32 = 7;
/// The longest window.
const WINDOW_MAX: Duration = Duration::from_secs(24 * 3600);
/// What a merge holds per trace of its inputs and of what it makes, twice: half of its memory is for that.
const TRACE_BYTES: u64 = 2 * 100;
/// Part of a merge's memory that is for steps and decoded pages; encoders and open inputs take the rest.
const STEPS_SHARE: usize = 4;

/// The ingester as the owner of blocks; where several processes share them, as long as it holds the lease.
pub struct Owner {
    /// Has the catalog.
    pub ingester: Arc<Ingester>,
    /// Absent when nobody else uses the blocks.
    pub shared: Option<Arc<Shared>>,
    /// By which the lease is held.
    pub clock: Arc<dyn Clock>,
}

impl Owner {
    fn may_change(&self) -> bool {
        self.shared.as_ref().is_none_or(|shared| shared.is_owner(&*self.clock))
    }
}

impl BlockOwner for Owner {
    fn tenants(&self) -> Vec<TenantId> {
        match self.may_change() {
            true => self.ingester.tenants(),
            false => Vec::new(),
        }
    }

    fn blocks(&self, tenant: &TenantId) -> Vec<Listed> {
        let listed = |state: BlockState| Listed {
            is_readable: state.is_readable,
            is_merging: state.is_merging,
            has_deletions: state.deleted_traces > 0,
            meta: state.meta,
        };
        self.ingester.block_states(tenant).into_iter().map(listed).collect()
    }

    fn remove(&self, tenant: &TenantId, ids: &[BlockId]) -> Result<usize, String> {
        self.ingester.remove_blocks(tenant, ids).map_err(|err| err.to_string())
    }

    fn merge(
        &self,
        tenant: &TenantId,
        inputs: &[BlockId],
        bounds: &MergeBounds,
        watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Merged, MergeError> {
        let MergeBounds { block_spans, memory_bytes, keep_after, window } = *bounds;
        let window = Some(window);
        let request = MergeRequest { inputs: inputs.to_vec(), block_spans, memory_bytes, keep_after, window };
        // A lease that is lost ends the merge.
        let mut watch = |progress| if self.may_change() { watch(progress) } else { ControlFlow::Break(()) };
        self.ingester.merge_blocks(tenant, &request, &mut watch).map_err(|err| match err {
            Error::MergeOutdated { .. } => MergeError::Outdated,
            Error::MergeCancelled => MergeError::Cancelled,
            Error::Merge { reason, culprit, .. } => MergeError::Failed { reason, culprit },
            other => MergeError::Failed { reason: other.to_string(), culprit: None },
        })
    }

    fn is_pressed(&self) -> bool {
        self.ingester.is_pressed()
    }
}

/// What `/status/blocks` and deleting need.
struct Admin {
    ingester: Arc<Ingester>,
    shared: Option<Arc<Shared>>,
    clock: Arc<dyn Clock>,
    compaction: Option<Arc<Compaction>>,
}

impl BlockAdmin for Admin {
    fn report(&self) -> BlocksReport {
        let tenants = self.ingester.tenants();
        let states = tenants.iter().flat_map(|tenant| self.ingester.block_states(tenant));
        let running = self.compaction.as_ref().and_then(|compaction| compaction.running());
        BlocksReport { running: running.map(|running| running.describe()), blocks: states.map(row).collect() }
    }

    fn delete_trace(&self, tenant: &TenantId, id: TraceId) -> Result<usize, String> {
        match &self.shared {
            Some(shared) => shared.delete_trace(&self.ingester, &*self.clock, tenant, id),
            None => self.ingester.delete_trace(tenant, id, &mut |_| Ok(())).map_err(|err| err.to_string()),
        }
    }
}

fn row(state: BlockState) -> BlockRow {
    let name = match (state.is_readable, state.trouble.is_some(), state.is_merging) {
        (false, ..) => "unreadable",
        (true, true, _) => "damaged",
        (true, false, true) => "merging",
        (true, false, false) => "ok",
    };
    BlockRow {
        tenant: state.meta.tenant.clone(),
        id: state.meta.id.to_string(),
        level: state.meta.merge_level,
        spans: state.meta.span_count,
        traces: state.meta.trace_count,
        bytes: state.meta.size_bytes,
        range: state.meta.range,
        created_at: state.meta.created_at,
        state: name,
        deleted_traces: state.deleted_traces,
    }
}

fn settings(config: &Config, memory: &MemoryPlan, policy: &Policy) -> Settings {
    let shortest = policy.shortest();
    let by_retention = if shortest.is_zero() { WINDOW_MAX } else { shortest / WINDOWS_PER_RETENTION };
    let window = config.compaction_window.unwrap_or(by_retention.min(WINDOW_MAX)).max(Duration::from_millis(1));
    let block = Size {
        spans: config.compaction_block_spans as u64,
        traces: (memory.compaction.0 / TRACE_BYTES).max(1),
        bytes: config.compaction_block_bytes.0,
    };
    let limits = Limits {
        window,
        settle: config.head_max_age,
        inputs_min: INPUTS_MIN,
        patience: window,
        inputs_max: INPUTS_MAX,
        block,
    };
    Settings {
        limits,
        memory_bytes: memory.compaction.bytes() / STEPS_SHARE,
        shares: Shares {
            cpu_percent: config.compaction_cpu_share as u32,
            io_bytes_per_second: config.compaction_io_bytes_per_second.0,
        },
    }
}

/// What is to run.
pub(crate) struct BlockLife {
    ingester: Arc<Ingester>,
    shared: Option<Arc<Shared>>,
    clock: Arc<dyn Clock>,
    retention: Retention,
    retention_interval: Duration,
    /// `None` when switched off.
    compaction: Option<Arc<Compaction>>,
    compaction_interval: Duration,
}

/// The threads.
pub(crate) struct RunningLife {
    brake: Arc<Brake>,
    threads: Vec<JoinHandle<()>>,
}

impl BlockLife {
    pub(crate) fn new(
        config: &Config,
        memory: &MemoryPlan,
        ingester: &Arc<Ingester>,
        shared: Option<&Arc<Shared>>,
        clock: &Arc<dyn Clock>,
        metrics: Metrics,
    ) -> Self {
        let policy = Policy {
            retention: config.retention,
            by_tenant: config.retention_by_tenant.clone(),
            size_bytes_max: config.retention_size.0,
        };
        let settings = settings(config, memory, &policy);
        let compaction = || Arc::new(Compaction::new(settings, policy.clone(), metrics.clone()));
        Self {
            ingester: Arc::clone(ingester),
            shared: shared.cloned(),
            clock: Arc::clone(clock),
            compaction: config.compaction.then(compaction),
            compaction_interval: config.compaction_interval,
            retention: Retention::new(policy, metrics),
            retention_interval: config.retention_interval,
        }
    }

    /// What operators see and do.
    pub(crate) fn admin(&self) -> Arc<dyn BlockAdmin> {
        Arc::new(Admin {
            ingester: Arc::clone(&self.ingester),
            shared: self.shared.clone(),
            clock: Arc::clone(&self.clock),
            compaction: self.compaction.clone(),
        })
    }

    /// Starts the threads.
    pub(crate) fn start(self) -> Result<RunningLife, String> {
        let brake = Arc::<Brake>::default();
        let ingester = Arc::clone(&self.ingester);
        let owner = Owner { ingester: self.ingester, shared: self.shared, clock: Arc::clone(&self.clock) };
        let owner: Arc<dyn BlockOwner> = Arc::new(owner);
        let mut life = RunningLife { brake: Arc::clone(&brake), threads: Vec::new() };
        if let Some(compaction) = self.compaction {
            let (owner, clock, interval) = (Arc::clone(&owner), Arc::clone(&self.clock), self.compaction_interval);
            let pass = move |brake: &Brake| match compaction.run_one(&*owner, &*clock, brake) {
                Pass::Merged => Duration::ZERO,
                Pass::Idle | Pass::Failed | Pass::Stopped => interval,
            };
            life.threads.push(spawn("spoor-compact", Arc::clone(&brake), interval, pass)?);
        }
        let (retention, clock, interval) = (self.retention, self.clock, self.retention_interval);
        let pass = move |_: &Brake| {
            retention.run(&*owner, &*clock);
            // Somebody may have put them back.
            ingester.reopen_blocks();
            interval
        };
        life.threads.push(spawn("spoor-retention", brake, interval, pass)?);
        Ok(life)
    }
}

/// Runs passes, and waits between them as long as each says, until the brake is pulled. A pass that panics has been logged
/// where it did; the next one comes after `interval`.
fn spawn(
    name: &str,
    brake: Arc<Brake>,
    interval: Duration,
    pass: impl Fn(&Brake) -> Duration + Send + 'static,
) -> Result<JoinHandle<()>, String> {
    let run = move || {
        loop {
            let wait = catch_unwind(AssertUnwindSafe(|| pass(&brake))).unwrap_or(interval);
            if brake.wait(wait) {
                return;
            }
        }
    };
    let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(run);
    spawned.map_err(|err| format!("cannot start threads: {err}"))
}

impl RunningLife {
    /// Has everything stop, soon.
    pub(crate) fn pull_brake(&self) {
        self.brake.pull();
    }

    /// Stops everything and waits for it.
    pub(crate) fn stop(self) {
        self.brake.pull();
        for thread in self.threads {
            // Passes catch their panics.
            let _ = thread.join();
        }
    }
}
