//! How the one memory limit is divided.

use super::{ByteSize, Config, ConfigError};

/// The parts of `memory_limit`.
///
/// ```text
///   |-------- head 3/8 --------|- in flight 1/8 -|---- queries 1/4 ----|- blocks 1/16 -|- merging 1/8 -|- rest 1/16 -|
///   |-- open --|-- being cut --|                                         indexes read                    writer, RocksDB
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

/// Less leaves no room for one export of the default size and the block writer.
const MEMORY_LIMIT_MIN: ByteSize = ByteSize(64 << 20);

impl Config {
    /// Derives the parts that were not given and checks that they fit.
    pub fn memory(&self) -> Result<MemoryPlan, ConfigError> {
        let fail = |reason: String| Err(ConfigError::Contradiction(reason));
        let total = self.memory_limit.0;
        let head = self.head_memory_limit.unwrap_or(ByteSize(total / 8 * 3));
        let plan = MemoryPlan {
            head,
            head_cut: self.head_cut_bytes.unwrap_or(ByteSize(head.0 / 2)),
            ingest_inflight: self.ingest_inflight_bytes.unwrap_or(ByteSize(total / 8)),
            queries: self.query_memory_limit.unwrap_or(ByteSize(total / 4)),
            block_cache: self.block_cache_bytes.unwrap_or(ByteSize(total / 16)),
            compaction: self.compaction_memory_limit.unwrap_or(ByteSize(if self.compaction { total / 8 } else { 0 })),
        };
        if self.memory_limit < MEMORY_LIMIT_MIN {
            return fail(format!("memory_limit is {}, at least {MEMORY_LIMIT_MIN} are needed", self.memory_limit));
        }
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
            return fail(format!("{parts} together exceed memory_limit ({})", self.memory_limit));
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

    /// The burst that a tenant may send above its rate.
    pub fn ingest_rate_burst(&self) -> ByteSize {
        self.ingest_rate_burst_bytes.unwrap_or(self.ingest_rate_limit_bytes.max(self.max_message_bytes))
    }
}
