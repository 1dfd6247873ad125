//! Which blocks to merge next: a pure function from what there is to jobs.
//!
//! ```text
//!   a tenant's blocks, by the time of their spans
//!   |---- window ----|---- window ----|---- window (open) ----
//!    0 0 0 0 0 0 0     1  0 0 0 0       2  0 0 0 0 0            the level of each block
//!    '-- a job --'        '- job '      ^ large: stays         merged when enough for a large block came together
//! ```
//!
//! A block belongs to the window in which its last span ended, so late spans are merged with each other in the window
//! that they belong to and not with what came in beside them. A window that may still grow is merged only as far as
//! large blocks come out; one that is over is merged as soon as [`Limits::inputs_min`] small blocks are in it, or two when
//! nothing has come for [`Limits::patience`].
//!
//! **Invariant:** blocks of one job have one tenant, one window and one level, and no block is in two jobs.
//! **Invariant:** a merge yields the next level, and blocks of [`LEVEL_MAX`] are no inputs, so that no span is rewritten
//! more than [`LEVEL_MAX`] times to keep blocks few.
//! **Invariant:** planning again after doing what was planned comes to an end: every job leaves fewer blocks.

use std::time::Duration;

use spoor_block::BlockMeta;
use spoor_model::{BlockId, TenantId, UnixNano};

/// Merges that a span goes through at most.
pub const LEVEL_MAX: u32 = 2;

/// What planning needs to know of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its name.
    pub id: BlockId,
    /// Whose spans.
    pub tenant: TenantId,
    /// When it was written.
    pub created_at: UnixNano,
    /// The latest end of its spans.
    pub end: UnixNano,
    /// Merges that its spans went through: 0 for a block that was cut.
    pub level: u32,
    /// What counts against the limits.
    pub size: Size,
    /// Whether traces in it were deleted, so that it is to be rewritten without them.
    pub has_deletions: bool,
}

/// How large a block is, or a few together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Size {
    /// Spans.
    pub spans: u64,
    /// Traces. Those that lie in several blocks count once each.
    pub traces: u64,
    /// Bytes of all files.
    pub bytes: u64,
}

impl Size {
    fn with(self, other: Self) -> Self {
        Self {
            spans: self.spans.saturating_add(other.spans),
            traces: self.traces.saturating_add(other.traces),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }

    fn fits(&self, limit: &Self) -> bool {
        self.spans <= limit.spans && self.traces <= limit.traces && self.bytes <= limit.bytes
    }

    fn is_half_of(&self, limit: &Self) -> bool {
        self.spans >= limit.spans.div_ceil(2)
            || self.traces >= limit.traces.div_ceil(2)
            || self.bytes >= limit.bytes.div_ceil(2)
    }
}

impl Candidate {
    /// What the catalog knows of a block.
    pub fn new(meta: &BlockMeta, has_deletions: bool) -> Self {
        Self {
            id: meta.id,
            tenant: meta.tenant.clone(),
            created_at: meta.created_at,
            end: meta.range.end,
            level: meta.merge_level,
            size: Size { spans: meta.span_count, traces: meta.trace_count, bytes: meta.size_bytes },
            has_deletions,
        }
    }

    /// The time that decides the window. A clock that ran ahead must not put a block into a window that is open for years.
    fn time(&self) -> UnixNano {
        self.end.min(self.created_at)
    }
}

/// What planning keeps to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Blocks of one window are merged with each other; more than zero.
    pub window: Duration,
    /// How long after its end a window may still grow: as long as spans stay in the head.
    pub settle: Duration,
    /// Fewer blocks than this are not worth a merge; at least two.
    pub inputs_min: usize,
    /// Two are, when the youngest of them is as old as this: more will hardly come.
    pub patience: Duration,
    /// More blocks than this are not merged at once: each takes memory.
    pub inputs_max: usize,
    /// What a merged block may hold. A block of half of it is left as it is.
    pub block: Size,
}

/// Blocks to be merged into one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Whose blocks.
    pub tenant: TenantId,
    /// Which, oldest first; one only where deleted traces are to be left out.
    pub inputs: Vec<BlockId>,
    /// The level of what comes out.
    pub level: u32,
    /// The inputs together.
    pub size: Size,
    /// Where the window begins that they belong to.
    pub window_start: UnixNano,
}

impl Job {
    /// Whether the job is there to leave deleted traces out.
    pub fn is_rewrite(&self) -> bool {
        self.inputs.len() == 1
    }
}

/// What is to be merged now, most urgent first: blocks with deleted traces, then what takes most blocks away for
/// the spans it writes, the oldest first among equals. The same blocks in any order give the same jobs.
///
/// Blocks that must not be touched (because they are about to be removed, cannot be read, or are being merged) are left
/// out of `blocks` by the caller.
///
/// # Panics
/// When the limits make no sense: a window of nothing, or fewer than two inputs.
pub fn plan(blocks: &[Candidate], now: UnixNano, limits: &Limits) -> Vec<Job> {
    assert!(!limits.window.is_zero() && limits.inputs_min >= 2, "limits are checked before they come here");
    let window_nanos = u64::try_from(limits.window.as_nanos()).unwrap_or(u64::MAX);
    let window = |block: &Candidate| block.time().0 / window_nanos;
    let window_start = |block: &Candidate| UnixNano(window(block) * window_nanos);
    let order = |block: &Candidate| (block.tenant.clone(), window(block), block.level, block.time(), block.id);
    let (rewritten, mut small): (Vec<&Candidate>, Vec<&Candidate>) =
        blocks.iter().partition(|block| block.has_deletions);
    let is_small = |block: &Candidate| block.level < LEVEL_MAX && !block.size.is_half_of(&limits.block);
    small.retain(|block| is_small(block));
    small.sort_by_cached_key(|block| order(block));
    let mut jobs: Vec<(UnixNano, Job)> = Vec::new();
    let alike = |a: &&Candidate, b: &&Candidate| (&a.tenant, window(a), a.level) == (&b.tenant, window(b), b.level);
    for group in small.chunk_by(alike) {
        let end = (window(group[0]) + 1).saturating_mul(window_nanos);
        let is_over = now.minus(limits.settle).0 >= end;
        let youngest = group.iter().map(|block| block.created_at).max().unwrap_or(now);
        let has_settled = is_over && now.since(youngest) >= limits.patience;
        let inputs_min = if has_settled { 2 } else { limits.inputs_min };
        jobs.extend(
            of_group(group, window_start(group[0]), is_over, inputs_min, limits)
                .into_iter()
                .map(|job| (group[0].time(), job)),
        );
    }
    jobs.extend(rewritten.into_iter().map(|block| (block.time(), rewrite(block, window_start(block)))));
    jobs.sort_by(|(a_time, a), (b_time, b)| {
        let by_gain = gain(b, a).cmp(&gain(a, b));
        b.is_rewrite().cmp(&a.is_rewrite()).then(by_gain).then_with(|| (a_time, &a.inputs).cmp(&(b_time, &b.inputs)))
    });
    jobs.into_iter().map(|(_, job)| job).collect()
}

/// Blocks fewer per span written, to be compared with what the other job has: a/b > c/d as a*d > c*b.
fn gain(of: &Job, against: &Job) -> u128 {
    of.inputs.len() as u128 * u128::from(against.size.spans.max(1))
}

fn rewrite(block: &Candidate, window_start: UnixNano) -> Job {
    Job { tenant: block.tenant.clone(), inputs: vec![block.id], level: block.level + 1, size: block.size, window_start }
}

/// Runs of neighbours that fill a block, and the rest when nothing more is to come.
fn of_group(
    group: &[&Candidate],
    window_start: UnixNano,
    is_over: bool,
    inputs_min: usize,
    limits: &Limits,
) -> Vec<Job> {
    let mut jobs = Vec::new();
    let (tenant, level) = (group[0].tenant.clone(), group[0].level + 1);
    let mut run = Job { tenant, inputs: Vec::new(), level, size: Size::default(), window_start };
    let empty = run.clone();
    for block in group {
        let size = run.size.with(block.size);
        let is_full = run.inputs.len() >= limits.inputs_max || !size.fits(&limits.block);
        if is_full {
            jobs.push(std::mem::replace(&mut run, empty.clone()));
        }
        run.inputs.push(block.id);
        run.size = run.size.with(block.size);
    }
    if is_over || run.inputs.len() >= limits.inputs_max {
        jobs.push(run);
    }
    jobs.retain(|job| job.inputs.len() >= inputs_min);
    jobs
}

#[cfg(test)]
mod tests;
