//! How the one memory limit is divided.

use super::{ByteSize, Config, ConfigError};

/// The parts of `memory_limit`. The process itself comes first; the others share what is left.
///
/// ```text
///   | own 96 MiB |- head 1/4 to 3/8 --|- in flight 1/8 -|-- queries 1/4 --|- blocks 1/8 -|- merging 1/8 -|
///   program,     | open | being cut   |                                    indexes read
///   connections, allocator
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Spans that are not in a block yet.
    pub head: ByteSize,
    /// Size of the head at which it is cut.
    pub head_cut: ByteSize,
    /// Exports between the socket and the head.
    pub ingest_inflight: ByteSize,
    /// All running queries.
    pub queries: ByteSize,
    /// Indexes and dictionaries of blocks that were read before.
    pub block_cache: ByteSize,
    /// Merging blocks.
    pub compaction: ByteSize,
}

/// What no part counts: idle, the process takes 33 MiB; the rest is connections, and what the allocator keeps at hand,
/// which was 30 MiB of 261 under overload (`tests/overload`).
const OWN: ByteSize = ByteSize(96 << 20);
/// Encoding a head takes twice its size besides, for which little memory has no room.
const HEAD_CUT_LESS: u64 = 16 << 20;
/// Under overload a head takes three times its size, with what waits for it, is encoded, or lies in the log's memtable; the other parts
/// are idle then, but where memory is little they are too small to make up for it (256 MiB: heads of 60 MiB peak at 272 MiB,
/// of 40 MiB at 209).
const HEAD_LESS: u64 = 40 << 20;
/// The process itself, and as much again to work with.
const MEMORY_LIMIT_MIN: ByteSize = ByteSize(2 * OWN.0);

/// The heads' part of what is shared.
fn head(total: u64) -> ByteSize {
    ByteSize((total / 2).saturating_sub(HEAD_LESS).clamp(total / 4, total / 8 * 3))
}

/// Half of the memory for heads, less where that is little.
fn head_cut(head: ByteSize) -> ByteSize {
    ByteSize((head.0 / 2).saturating_sub(HEAD_CUT_LESS).max(head.0 / 4))
}

impl Config {
    /// Derives the parts that were not given and checks that they fit.
    pub fn memory(&self) -> Result<MemoryPlan, ConfigError> {
        let fail = |reason: String| Err(ConfigError::Contradiction(reason));
        if self.memory_limit < MEMORY_LIMIT_MIN {
            let limit = self.memory_limit;
            return fail(format!("memory_limit is {limit}, at least {MEMORY_LIMIT_MIN} are needed"));
        }
        let total = self.memory_limit.0 - OWN.0;
        let head = self.head_memory_limit.unwrap_or(head(total));
        let ingest_inflight = self.ingest_inflight_bytes.unwrap_or(ByteSize(total / 8).max(self.max_message_bytes));
        let queries = self.query_memory_limit.unwrap_or(ByteSize(total / 4));
        let merging = ByteSize(if self.compaction { total / 8 } else { 0 });
        let compaction = self.compaction_memory_limit.unwrap_or(merging);
        // Gives way to what was asked for: half the cache costs counts over 21 M spans a seventh more CPU.
        let left =
            [head, ingest_inflight, queries, compaction].iter().fold(total, |left, part| left.saturating_sub(part.0));
        let plan = MemoryPlan {
            head,
            head_cut: self.head_cut_bytes.unwrap_or_else(|| head_cut(head)),
            ingest_inflight,
            queries,
            block_cache: self.block_cache_bytes.unwrap_or(ByteSize(left.clamp(total / 16, total / 8))),
            compaction,
        };
        let parts = [
            ("head_memory_limit", plan.head),
            ("ingest_inflight_bytes", plan.ingest_inflight),
            ("query_memory_limit", plan.queries),
            ("block_cache_bytes", plan.block_cache),
            ("compaction_memory_limit", plan.compaction),
        ];
        let sum = parts.iter().fold(0u64, |sum, (_, part)| sum.saturating_add(part.0));
        if sum > total {
            let parts = parts.map(|(key, part)| format!("{key} ({part})")).join(", ");
            let limit = self.memory_limit;
            return fail(format!("{parts} together exceed memory_limit ({limit}) less {OWN} for the process itself"));
        }
        if plan.head_cut.0 == 0 || plan.head_cut.0 > plan.head.0 / 2 {
            return fail(format!(
                "head_cut_bytes ({}) must be more than 0 and at most half of head_memory_limit ({}), or nothing could be received during a cut",
                plan.head_cut, plan.head
            ));
        }
        if self.max_message_bytes.0 == 0 || self.max_message_bytes > plan.ingest_inflight {
            return fail(format!(
                "max_message_bytes ({}) must be more than 0 and at most ingest_inflight_bytes ({}), or no message of that size could ever be accepted",
                self.max_message_bytes, plan.ingest_inflight
            ));
        }
        Ok(plan)
    }

    /// What one connection may send before somebody has looked at it; many connections must not fill the memory.
    pub fn connection_window(&self, plan: &MemoryPlan) -> u32 {
        u32::try_from(plan.ingest_inflight.0 / 16).unwrap_or(u32::MAX).clamp(1 << 20, 4 << 20)
    }

    /// The burst that a tenant may send above its rate.
    pub fn ingest_rate_burst(&self) -> ByteSize {
        self.ingest_rate_burst_bytes.unwrap_or(self.ingest_rate_limit_bytes.max(self.max_message_bytes))
    }
}
