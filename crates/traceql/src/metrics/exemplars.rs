//! Spans that stand for others: a few, spread over the window, at most one per trace.
//!
//! The window is cut into slots of two. Of all traces that could stand in a slot, those stay whose ids
//! have the smallest hashes. So what is chosen depends on the spans alone, neither on the order in which
//! batches come nor on how they are merged.

use std::cmp::Ordering;

use spoor_model::{TimeRange, TraceId};

use super::groups::Key;
use super::histogram::Place;
use super::window::Window;

const SLOT_LEN: usize = 2;

/// The best candidates so far.
#[derive(Debug, Clone)]
pub(super) struct Chosen {
    start: u64,
    slot_nanos: u64,
    max: usize,
    /// Each sorted, best first.
    slots: Vec<Vec<Candidate>>,
}

/// A span that may be chosen.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub(super) trace: TraceId,
    pub(super) start: u64,
    pub(super) group: Key,
    pub(super) measured: Measured,
}

/// What a span contributed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Measured {
    Nothing,
    /// In the unit of the series.
    Value(f64),
    /// In which bucket of a histogram it lies, and its value.
    Bucket(Place, f64),
}

impl Chosen {
    /// Room for at most `max`; none when that is 0.
    pub(super) fn new(window: &Window, max: usize) -> Self {
        let slot_count = max.div_ceil(SLOT_LEN);
        let len = window.end_nano() - window.start_nano();
        let slot_nanos = len.div_ceil(slot_count.max(1) as u64).max(1);
        Self { start: window.start_nano(), slot_nanos, max, slots: vec![Vec::new(); slot_count] }
    }

    fn slot_of(&self, time: u64) -> usize {
        let slot = time.saturating_sub(self.start).saturating_sub(1) / self.slot_nanos;
        usize::try_from(slot).unwrap_or(usize::MAX).min(self.slots.len() - 1)
    }

    /// Whether a span of that trace could be chosen. Cheap: asked of every trace.
    pub(super) fn is_open(&self, trace: TraceId, range: &TimeRange) -> bool {
        if self.slots.is_empty() {
            return false;
        }
        let slots = &self.slots[self.slot_of(range.start.0)..=self.slot_of(range.end.0)];
        slots.iter().any(|slot| slot.len() < SLOT_LEN || rank(trace) < rank(slot[SLOT_LEN - 1].trace))
    }

    /// Takes a span in if it is better than what is there.
    pub(super) fn offer(&mut self, candidate: Candidate) {
        if self.slots.is_empty() {
            return;
        }
        let slot = self.slot_of(candidate.start);
        let slot = &mut self.slots[slot];
        slot.push(candidate);
        slot.sort_by_key(|candidate| rank(candidate.trace));
        slot.truncate(SLOT_LEN);
    }

    pub(super) fn merge(&mut self, other: &Self) {
        other.slots.iter().flatten().for_each(|candidate| self.offer(candidate.clone()));
    }

    /// The chosen ones, by time.
    pub(super) fn candidates(&self) -> Vec<&Candidate> {
        let mut all: Vec<&Candidate> = self.slots.iter().flatten().collect();
        // An odd number leaves one too many.
        all.sort_by_key(|candidate| rank(candidate.trace));
        all.truncate(self.max);
        all.sort_by_key(|candidate| (candidate.start, candidate.trace));
        all
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.slots.len() * (size_of::<Vec<Candidate>>() + SLOT_LEN * size_of::<Candidate>())
    }
}

/// Mixes all bits into all others (the finisher of MurmurHash3).
fn mixed(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    bits = (bits ^ (bits >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    bits ^ (bits >> 33)
}

fn hash(trace: TraceId) -> u64 {
    let bits = u128::from_be_bytes(trace.0);
    mixed((bits >> 64) as u64 ^ mixed(bits as u64))
}

/// Smaller is better.
fn rank(trace: TraceId) -> (u64, TraceId) {
    (hash(trace), trace)
}

/// Which of two spans of one trace is chosen; `other` is told by text only when they start together.
pub(super) fn order_within_trace(trace: TraceId, a: u64, b: u64, other: impl FnOnce() -> Ordering) -> Ordering {
    let place = |start: u64| mixed(hash(trace) ^ start);
    place(a).cmp(&place(b)).then_with(other)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use spoor_model::UnixNano;

    use super::*;

    fn candidate((trace, start): (u8, u64)) -> Candidate {
        let group: Key = Vec::new().into();
        Candidate { trace: TraceId([trace; 16]), start, group, measured: Measured::Nothing }
    }

    fn chosen(max: usize, spans: &[(u8, u64)]) -> Chosen {
        let window = Window::instant(0, 1000);
        let mut chosen = Chosen::new(&window, max);
        for span in spans {
            let at = TimeRange { start: UnixNano(span.1), end: UnixNano(span.1) };
            if chosen.is_open(TraceId([span.0; 16]), &at) {
                chosen.offer(candidate(*span));
            }
        }
        chosen
    }

    fn told(chosen: &Chosen) -> Vec<(u8, u64)> {
        chosen.candidates().iter().map(|one| (one.trace.0[0], one.start)).collect()
    }

    proptest! {
        #[test]
        fn neither_order_nor_merging_matters(
            starts in prop::collection::vec(1..=1000u64, 0..100),
            split in 0..100usize,
            max in 0..20usize,
        ) {
            // One span per trace, as they come from batches.
            let spans: Vec<(u8, u64)> = starts.iter().enumerate().map(|(at, start)| (at as u8, *start)).collect();
            let whole = chosen(max, &spans);
            let (left, right) = spans.split_at(split.min(spans.len()));
            let mut merged = chosen(max, right);
            merged.merge(&chosen(max, left));
            prop_assert_eq!(told(&whole), told(&merged));
            prop_assert!(told(&whole).len() <= max);
            prop_assert!(max == 0 || spans.is_empty() || !told(&whole).is_empty());
        }
    }
}
