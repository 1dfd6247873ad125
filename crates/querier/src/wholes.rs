//! Torn traces that were put together before.
//!
//! Putting one together reads a page of every column of every block that has a part of it, about half a millisecond;
//! and a query over many blocks meets the same few hundred each time it is asked. What blocks hold never
//! changes, so what was put together from blocks alone is kept, under the blocks that may hold a part of it: one
//! block more, one less, or a deletion in one of them is another set of blocks, and the trace is read again.

use std::sync::Arc;

use quick_cache::Weighter;
use quick_cache::sync::Cache;
use spoor_model::scan::SpanSource;
use spoor_model::{BlockId, Trace, TraceId};

use crate::held_bytes::held_bytes;

/// The traces of a hundred blocks with a handful of torn ones each.
const BYTES_MAX: u64 = 8 << 20;
/// Of how many traces the cache keeps account, at about the size of one.
const TRACES_GUESSED: usize = 1024;

/// Whole traces, within 8 MiB. Those asked for once make way for those asked for again.
#[derive(Debug)]
pub(crate) struct Wholes {
    traces: Cache<TraceId, Whole, Bytes>,
}

/// A trace, and the blocks that it may lie in.
#[derive(Debug, Clone)]
struct Whole {
    holders: Arc<[BlockId]>,
    trace: Arc<Trace>,
}

#[derive(Debug, Clone)]
struct Bytes;

impl Weighter<TraceId, Whole> for Bytes {
    fn weight(&self, _: &TraceId, whole: &Whole) -> u64 {
        (size_of::<Whole>() + size_of_val(&*whole.holders) + held_bytes(&whole.trace)) as u64
    }
}

impl Default for Wholes {
    fn default() -> Self {
        Self { traces: Cache::with_weighter(TRACES_GUESSED, BYTES_MAX, Bytes) }
    }
}

impl Wholes {
    /// The trace as these blocks hold it, if it was kept.
    pub(crate) fn get(&self, id: TraceId, holders: &[BlockId]) -> Option<Arc<Trace>> {
        self.traces.get(&id).filter(|whole| *whole.holders == *holders).map(|whole| whole.trace)
    }

    /// Keeps a trace that was read from these blocks without an error.
    pub(crate) fn insert(&self, holders: Vec<BlockId>, trace: &Arc<Trace>) {
        self.traces.insert(trace.id, Whole { holders: holders.into(), trace: Arc::clone(trace) });
    }
}

/// Which blocks may hold spans of a trace, in the order of the sources; `None` when a source that may change does.
pub(crate) fn holders(sources: &[Arc<dyn SpanSource>], id: TraceId) -> Option<Vec<BlockId>> {
    sources.iter().filter(|source| source.may_hold(id)).map(|source| source.identity()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::{Oracle, span};

    fn trace(id: u8) -> Arc<Trace> {
        let entries = vec![span(id, 1, "a", 5, 6)];
        Arc::new(Trace::assemble(TraceId([id; 16]), entries).expect("has a span"))
    }

    #[test]
    fn a_trace_is_known_by_the_blocks_that_it_lies_in() {
        let wholes = Wholes::default();
        let (id, a, b) = (TraceId([1; 16]), BlockId(1), BlockId(2));
        wholes.insert(vec![a, b], &trace(1));
        assert!(wholes.get(id, &[a, b]).is_some());
        assert!(wholes.get(id, &[a]).is_none() && wholes.get(id, &[a, b, BlockId(3)]).is_none());
        wholes.insert(vec![a], &trace(1));
        assert!(wholes.get(id, &[a]).is_some() && wholes.get(id, &[a, b]).is_none());
    }

    #[test]
    fn what_is_kept_stays_within_its_bound() {
        let wholes = Wholes::default();
        for number in 0..50_000u32 {
            let id = TraceId([number.to_be_bytes(); 4].concat().try_into().expect("16 bytes"));
            let mut entry = span(0, 1, "a", 5, 6);
            entry.span.trace_id = id;
            let trace = Trace::assemble(id, vec![entry]).expect("has a span");
            wholes.insert(vec![BlockId(1)], &Arc::new(trace));
            assert!(wholes.traces.weight() <= BYTES_MAX);
        }
        assert!(wholes.traces.weight() > BYTES_MAX / 2, "it is used");
    }

    #[test]
    fn a_source_that_may_change_has_no_name() {
        let source = Oracle::of(vec![span(1, 1, "a", 5, 6)]) as Arc<dyn SpanSource>;
        assert_eq!(holders(&[source], TraceId([1; 16])), None);
    }
}
