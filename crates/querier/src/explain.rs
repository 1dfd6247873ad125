//! What a query did, for people to read: which parts of which sources it could leave out, and why.

use spoor_model::columns::Pruned;
use spoor_model::scan::ScanStats;

/// What a query did, stage by stage.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Explain {
    /// In the order in which they ran. Lookups in catalogues and by id have none.
    pub stages: Vec<Stage>,
}

/// One scan of all sources.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stage {
    /// What it was for: `search`, `count_over_time()`, ...
    pub name: String,
    /// Sources that were not opened, as nothing in them overlaps the range, and what is near it belongs to no trace of
    /// another source.
    pub sources_out_of_range: u64,
    /// Sources that were not opened, as enough had been found before their turn came.
    pub sources_not_reached: u64,
    /// The others, in the order of the snapshot: newest first.
    pub sources: Vec<SourceScan>,
    /// Traces whose start and end were looked up in all sources.
    pub traces_located: u64,
    /// Traces that were put together from all sources: results, and those that lie in several sources or
    /// hold a span id twice, and might match.
    pub traces_assembled: u64,
    /// Their spans.
    pub spans_assembled: u64,
}

/// What was done with one source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceScan {
    /// As [`spoor_model::scan::SpanSource::describe`] has it.
    pub source: String,
    /// Its groups, and what it left out itself.
    pub pruned: Pruned,
    /// Groups left out as they lie outside the range and none of the source's traces goes on elsewhere.
    pub groups_without_torn_traces: u64,
    /// Groups that were read, at least their masks.
    pub groups_read: u64,
    /// Of these, groups in which no span satisfied what a match needs: their columns were not read.
    pub groups_without_match: u64,
    /// What reading them cost.
    pub stats: ScanStats,
}

impl SourceScan {
    /// Groups that were not looked at, as enough had been found before.
    pub fn groups_not_reached(&self) -> u64 {
        let looked_at =
            self.pruned.by_range + self.pruned.by_content + self.groups_without_torn_traces + self.groups_read;
        self.pruned.group_count.saturating_sub(looked_at)
    }
}
