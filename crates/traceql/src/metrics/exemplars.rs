//! Exemplars: a few spans that stand for what was counted, spread over time.
//!
//! Which ones is decided by a hash of the trace id: the same spans give the same exemplars, in whatever
//! order they are read and however they are spread over sources.

use spoor_model::TraceId;

use super::Window;

/// A span that may become an exemplar.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Candidate {
    rank: u64,
    pub(super) trace: TraceId,
    pub(super) start_nano: u64,
    pub(super) group: u32,
    /// What was measured, where something is.
    pub(super) value: Option<f64>,
}

impl Candidate {
    pub(super) fn new(trace: TraceId, start_nano: u64, group: u32, value: Option<f64>) -> Self {
        Self { rank: trace.hash64(), trace, start_nano, group, value }
    }

    fn place(&self) -> (u64, TraceId, u64, u32) {
        (self.rank, self.trace, self.start_nano, self.group)
    }
}

/// Of each stretch of time, the candidates of the lowest ranks, of different traces.
#[derive(Debug, Clone)]
pub(super) struct Exemplars {
    max: usize,
    stretches: Vec<Vec<Candidate>>,
}

/// How many of a stretch of time are kept.
const PER_STRETCH: usize = 2;

impl Exemplars {
    /// At most `max` of them; none when that is zero.
    pub(super) fn new(max: usize) -> Self {
        let count = max.div_ceil(PER_STRETCH);
        Self { max, stretches: vec![Vec::new(); count] }
    }

    pub(super) fn is_wanted(&self) -> bool {
        !self.stretches.is_empty()
    }

    /// Whether a trace's span at that time would be kept: cheap, for the many that are not.
    pub(super) fn would_keep(&self, trace: TraceId, start_nano: u64, window: &Window) -> bool {
        let stretch = &self.stretches[self.stretch_of(start_nano, window)];
        stretch.len() < PER_STRETCH || stretch.last().is_some_and(|last| trace.hash64() <= last.rank)
    }

    pub(super) fn offer(&mut self, candidate: Candidate, window: &Window) {
        let stretch = self.stretch_of(candidate.start_nano, window);
        let kept = &mut self.stretches[stretch];
        if let Some(same) = kept.iter_mut().find(|other| other.trace == candidate.trace) {
            if candidate.place() < same.place() {
                *same = candidate;
            }
        } else {
            kept.push(candidate);
        }
        kept.sort_by_key(Candidate::place);
        kept.truncate(PER_STRETCH);
    }

    fn stretch_of(&self, start_nano: u64, window: &Window) -> usize {
        let range = u128::from(window.end_nano() - window.start_nano()).max(1);
        let at = u128::from(start_nano.saturating_sub(window.start_nano())).saturating_sub(1);
        let count = self.stretches.len() as u128;
        (at * count / range).min(count - 1) as usize
    }

    /// Takes over what another has kept, whose groups have those numbers here.
    pub(super) fn merge(&mut self, other: &Self, groups: &[u32], window: &Window) {
        for candidate in other.stretches.iter().flatten() {
            let group = groups.get(candidate.group as usize).copied().unwrap_or(candidate.group);
            self.offer(Candidate { group, ..*candidate }, window);
        }
    }

    /// By time, then trace.
    pub(super) fn into_candidates(self) -> Vec<Candidate> {
        let mut all: Vec<Candidate> = self.stretches.into_iter().flatten().collect();
        all.sort_by_key(Candidate::place);
        all.truncate(self.max);
        all.sort_by_key(|candidate| (candidate.start_nano, candidate.trace));
        all
    }
}
