use proptest::prelude::*;
use spoor_model::SpanEntry;

use super::*;
use crate::oracle::{Oracle, at_hand, span};

/// Up to six sources of up to ten spans, some of which never change.
fn any_sources() -> impl Strategy<Value = Vec<Arc<Oracle>>> {
    let entry =
        (0_u8..12, 0_u64..100, 0_u64..10).prop_map(|(trace, start, long)| span(trace, 1, "a", start, start + long));
    let entries = prop::collection::vec(entry, 0..10);
    prop::collection::vec((entries, any::<bool>()), 0..6).prop_map(|sources| {
        let numbered = sources.into_iter().enumerate();
        numbered.map(|(n, (entries, is_block))| source(entries, is_block.then_some(BlockId(n as u128)))).collect()
    })
}

fn source(entries: Vec<SpanEntry>, identity: Option<BlockId>) -> Arc<Oracle> {
    Arc::new(Oracle { identity, ..Oracle::clone_of(entries) })
}

fn dynamic(sources: &[Arc<Oracle>]) -> Vec<Arc<dyn SpanSource>> {
    sources.iter().map(|source| Arc::clone(source) as Arc<dyn SpanSource>).collect()
}

fn ranges(sources: &[Arc<Oracle>]) -> Vec<Option<TimeRange>> {
    sources.iter().map(|source| source.range()).collect()
}

fn holds(source: &Oracle, trace: u8) -> bool {
    source.entries.iter().any(|entry| entry.span.trace_id.0[0] == trace)
}

/// The definition: another source has a part of what this one has, and is near it.
fn is_torn(sources: &[Arc<Oracle>], index: usize, trace: u8, reach: u64) -> bool {
    let gap = |a: TimeRange, b: TimeRange| b.start.0.saturating_sub(a.end.0).max(a.start.0.saturating_sub(b.end.0));
    let is_near = |other: &Oracle| other.range().zip(sources[index].range()).is_some_and(|(a, b)| gap(a, b) <= reach);
    holds(&sources[index], trace)
        && (0..sources.len()).any(|other| other != index && holds(&sources[other], trace) && is_near(&sources[other]))
}

proptest! {
    #[test]
    fn torn_is_what_two_near_sources_hold(
        sources in any_sources(),
        reach in 0_u64..60,
        first in any::<prop::sample::Index>(),
    ) {
        let (cache, held, all) = (PairCache::default(), ranges(&sources), dynamic(&sources));
        // The second round finds the pairs in the cache, and must say the same.
        for _ in 0..2 {
            let mut torn = Torn::new(&all, &held, Duration::from_nanos(reach), &cache);
            for step in 0..sources.len() {
                let index = (first.index(sources.len()) + step) % sources.len();
                torn.learn(index, &at_hand()).expect("in memory");
                for trace in (0..12).filter(|trace| holds(&sources[index], *trace)) {
                    let is_said = torn.contains(TraceId([trace; 16]));
                    prop_assert!(is_said || !is_torn(&sources, index, trace, reach), "trace {} is missed", trace);
                    prop_assert!(!is_torn(&sources, index, trace, reach) || torn.has_any(index));
                    // Parts of the head count as near each other.
                    let holders: Vec<&Arc<Oracle>> = sources.iter().filter(|source| holds(source, trace)).collect();
                    let hot_count = holders.iter().filter(|source| source.identity.is_none()).count();
                    let is_near = (0..sources.len()).any(|index| is_torn(&sources, index, trace, reach));
                    prop_assert!(!is_said || is_near || hot_count > 0 && holders.len() > 1, "trace {} is whole", trace);
                }
            }
        }
    }
}

#[test]
fn a_source_that_cannot_say_is_reported_and_asked_again() {
    use crate::oracle::Fault;
    let entries = || vec![span(1, 1, "a", 0, 1)];
    let block = |fault| Arc::new(Oracle { identity: Some(BlockId(1)), fault, ..Oracle::clone_of(entries()) });
    let (cache, reach) = (PairCache::default(), Duration::from_secs(1));
    for (fault, expect) in [(Some(Fault::Corrupt), (false, 1)), (None, (true, 0))] {
        let sources = [source(entries(), Some(BlockId(2))), block(fault)];
        let (held, all) = (ranges(&sources), dynamic(&sources));
        let mut torn = Torn::new(&all, &held, reach, &cache);
        torn.learn(0, &at_hand()).expect("partial");
        assert_eq!((torn.contains(TraceId([1; 16])), torn.take_errors().len()), expect);
    }
}

#[test]
fn the_cache_forgets_the_oldest() {
    let (cache, common): (_, Arc<[u32]>) = (PairCache::default(), vec![7; PAIRS_BYTES_MAX / 12].into());
    for n in 0..3 {
        cache.insert((BlockId(n), BlockId(9)), &common);
    }
    assert!((0..3).map(|n| cache.get((BlockId(n), BlockId(9))).is_some()).eq([false, true, true]));
}
