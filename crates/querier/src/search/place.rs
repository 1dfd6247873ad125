//! The order of results.

use spoor_model::{TimeRange, TraceId, UnixNano};

/// Where a trace stands among results: later starts are greater, and of equal starts greater ids, so
/// that the order is total and the same for every way in which spans are spread over sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    start: UnixNano,
    id: TraceId,
}

impl Place {
    pub(super) fn new(start: UnixNano, id: TraceId) -> Self {
        Self { start, id }
    }

    /// At or above every trace that starts then or earlier.
    pub(super) fn last_at(start: UnixNano) -> Self {
        Self::new(start, TraceId([0xff; 16]))
    }

    pub(super) fn id(self) -> TraceId {
        self.id
    }
}

/// A trace that a group named, where it stands at most, and what its source holds of it. Ordered by its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Candidate {
    pub(super) place: Place,
    held_start: UnixNano,
    held_end: UnixNano,
    pub(super) source_index: u32,
    /// Nothing of it lies elsewhere: this is its place.
    pub(super) is_whole: bool,
}

impl Candidate {
    /// Starts after `ends_at` count as `ends_at`: no trace that is asked for starts later.
    pub(super) fn new(id: TraceId, held: TimeRange, ends_at: UnixNano, source_index: usize, is_whole: bool) -> Self {
        let place = Place::new(held.start.min(ends_at), id);
        let source_index = u32::try_from(source_index).expect("there are far fewer sources");
        Self { place, held_start: held.start, held_end: held.end, source_index, is_whole }
    }

    /// Earliest start and latest end of the trace's spans in the source that named it.
    pub(super) fn held(&self) -> TimeRange {
        TimeRange { start: self.held_start, end: self.held_end }
    }
}
