//! Which traces lie in more than one source: those whose fragments say less than the whole.
//!
//! ```text
//!   sources that change  --merge, each query-->  hot   |
//!                                                      |--common fingerprints--> torn
//!   sources that do not  --pairs, remembered-->  ids   |
//! ```
//!
//! Sources list the fingerprints of their traces, ascending. A trace is **torn** when its fingerprint occurs
//! in two sources that lie near each other in time: fragments of a trace that lasts no longer than
//! `reach` lie in sources that are no further apart. What two immutable sources have in common never
//! changes, so it is computed once and kept ([`PairCache`]); parts of the head are few and small, and are
//! merged anew each time.
//!
//! Fingerprints have 32 bits: a trace may seem torn that is not, and then costs being assembled. It is
//! never the other way round.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hashbrown::{HashMap, HashSet};
use spoor_model::bits::Bits;
use spoor_model::scan::{QueryContext, ScanError, SpanSource};
use spoor_model::{BlockId, TimeRange, TraceId};

/// Bytes of common fingerprints that are remembered: 50,000 pairs of blocks with a handful of torn
/// traces each, which is weeks of blocks.
const PAIRS_BYTES_MAX: usize = 8 << 20;

/// What an entry of the cache costs beside its fingerprints: keys in map and queue, and the `Arc`.
const PAIR_BYTES: usize = 128;

/// The common fingerprints of pairs of immutable sources, the oldest forgotten first.
#[derive(Debug, Default)]
pub(crate) struct PairCache {
    pairs: Mutex<Pairs>,
}

#[derive(Debug, Default)]
struct Pairs {
    common: HashMap<(BlockId, BlockId), Arc<[u32]>>,
    oldest_first: VecDeque<(BlockId, BlockId)>,
    held_bytes: usize,
}

impl PairCache {
    fn get(&self, pair: (BlockId, BlockId)) -> Option<Arc<[u32]>> {
        self.locked().common.get(&pair).cloned()
    }

    fn insert(&self, pair: (BlockId, BlockId), common: &Arc<[u32]>) {
        let mut pairs = self.locked();
        if pairs.common.insert(pair, Arc::clone(common)).is_some() {
            return;
        }
        pairs.oldest_first.push_back(pair);
        pairs.held_bytes += PAIR_BYTES + size_of_val(&**common);
        while pairs.held_bytes > PAIRS_BYTES_MAX
            && let Some(oldest) = pairs.oldest_first.pop_front()
            && let Some(forgotten) = pairs.common.remove(&oldest)
        {
            pairs.held_bytes -= PAIR_BYTES + size_of_val(&*forgotten);
        }
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Pairs> {
        self.pairs.lock().expect("nothing panics while it holds the lock")
    }
}

/// The torn traces of a snapshot, found out source by source.
pub(crate) struct Torn<'a> {
    sources: &'a [Arc<dyn SpanSource>],
    ranges: &'a [Option<TimeRange>],
    reach_nano: u64,
    cache: &'a PairCache,
    /// `None` until it is asked for.
    hot: Option<Hot>,
    /// Whose neighbours have been looked at.
    is_known: Vec<bool>,
    /// Which cold sources have been compared with the hot ones.
    met_hot: Vec<bool>,
    /// Whether the source holds a part of a torn trace.
    has_torn: Vec<bool>,
    torn: HashSet<u32>,
    errors: Errors,
}

/// The first error of each source that failed, by its place.
pub(crate) type Errors = BTreeMap<usize, ScanError>;

/// The sources that may change, as one.
struct Hot {
    range: Option<TimeRange>,
    /// Ascending, each once.
    fingerprints: Vec<u32>,
    leading: Leading,
}

/// Which leading bits occur among fingerprints: tells most others apart without a search.
struct Leading {
    bits: Bits,
    shift: u32,
}

impl<'a> Torn<'a> {
    /// Nothing is known yet. `ranges` are those of the sources, as of the beginning of the query.
    pub(crate) fn new(
        sources: &'a [Arc<dyn SpanSource>],
        ranges: &'a [Option<TimeRange>],
        reach: Duration,
        cache: &'a PairCache,
    ) -> Self {
        Self {
            sources,
            ranges,
            reach_nano: u64::try_from(reach.as_nanos()).unwrap_or(u64::MAX),
            cache,
            hot: None,
            is_known: vec![false; sources.len()],
            met_hot: vec![false; sources.len()],
            has_torn: vec![false; sources.len()],
            torn: HashSet::new(),
            errors: Errors::new(),
        }
    }

    /// Finds out which traces of a source are torn; free when that is known. Costs, for each source near
    /// it, a look into the cache or one pass over the fingerprints of both. A source that cannot say has no
    /// traces, and its error is kept for [`Self::take_errors`].
    pub(crate) fn learn(&mut self, index: usize, ctx: &QueryContext) -> Result<(), ScanError> {
        if self.is_known[index] {
            return Ok(());
        }
        let hot = match self.hot.take() {
            Some(hot) => hot,
            None => self.merged_hot(ctx)?,
        };
        let result = match self.sources[index].identity() {
            Some(id) => self.learn_cold(index, id, &hot, ctx),
            None => self.learn_hot(&hot, ctx),
        };
        self.hot = Some(hot);
        result
    }

    /// The sources that could not say what they hold, since this was last asked.
    pub(crate) fn take_errors(&mut self) -> Errors {
        std::mem::take(&mut self.errors)
    }

    /// Whether the trace is torn, as far as its source has been learned.
    pub(crate) fn contains(&self, id: TraceId) -> bool {
        !self.torn.is_empty() && self.torn.contains(&id.fingerprint())
    }

    /// Whether the source has been learned.
    pub(crate) fn is_known(&self, index: usize) -> bool {
        self.is_known[index]
    }

    /// Whether a source that has been learned holds parts of torn traces.
    pub(crate) fn has_any(&self, index: usize) -> bool {
        assert!(self.is_known[index], "it has been learned");
        self.has_torn[index]
    }

    /// What it takes in memory.
    pub(crate) fn held_bytes(&self) -> usize {
        let of_hot = |hot: &Hot| hot.fingerprints.capacity() * 4 + hot.leading.bits.len() / 8;
        let hot_bytes = self.hot.as_ref().map_or(0, of_hot);
        self.torn.allocation_size() + hot_bytes
    }

    fn is_hot(&self, index: usize) -> bool {
        self.sources[index].identity().is_none()
    }

    /// Whether fragments of one trace may lie in both.
    fn are_near(&self, one: Option<TimeRange>, other: Option<TimeRange>) -> bool {
        let (Some(one), Some(other)) = (one, other) else { return false };
        one.start.0 <= other.end.0.saturating_add(self.reach_nano)
            && other.start.0 <= one.end.0.saturating_add(self.reach_nano)
    }

    /// What a source holds, ascending; `None` when it cannot say.
    fn fingerprints(&mut self, index: usize, ctx: &QueryContext) -> Result<Option<Arc<[u32]>>, ScanError> {
        match self.sources[index].trace_fingerprints(ctx) {
            Ok(fingerprints) => Ok(Some(fingerprints)),
            Err(error) if error.is_partial() => {
                self.errors.insert(index, error);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// All sources that may change; what two of them have in common is torn.
    fn merged_hot(&mut self, ctx: &QueryContext) -> Result<Hot, ScanError> {
        let mut range: Option<TimeRange> = None;
        let mut all: Vec<(u32, u32)> = Vec::new();
        for index in 0..self.sources.len() {
            let Some(held) = self.ranges[index].filter(|_| self.is_hot(index)) else { continue };
            ctx.check()?;
            range = Some(range.map_or(held, |range| range.union(&held)));
            let fingerprints = self.fingerprints(index, ctx)?.unwrap_or_default();
            all.extend(fingerprints.iter().map(|fingerprint| (*fingerprint, index as u32)));
        }
        // The run of each source is sorted already, which the stable sort makes use of.
        all.sort();
        for same in all.chunk_by(|a, b| a.0 == b.0).filter(|same| same.len() > 1) {
            // Two traces of one source may share a fingerprint; assembling them is no mistake.
            self.torn.insert(same[0].0);
            same.iter().for_each(|(_, index)| self.has_torn[*index as usize] = true);
        }
        let mut fingerprints: Vec<u32> = all.into_iter().map(|(fingerprint, _)| fingerprint).collect();
        fingerprints.dedup();
        let leading = Leading::of(&fingerprints);
        Ok(Hot { range, fingerprints, leading })
    }

    /// What the hot sources have in common with all cold ones near them.
    fn learn_hot(&mut self, hot: &Hot, ctx: &QueryContext) -> Result<(), ScanError> {
        for index in 0..self.sources.len() {
            match self.is_hot(index) {
                true => self.is_known[index] = true,
                false => self.learn_between(index, hot, ctx)?,
            }
        }
        Ok(())
    }

    /// What a cold source has in common with the hot ones, and with all cold ones near it.
    fn learn_cold(&mut self, index: usize, id: BlockId, hot: &Hot, ctx: &QueryContext) -> Result<(), ScanError> {
        self.learn_between(index, hot, ctx)?;
        for other in (0..self.sources.len()).filter(|other| *other != index) {
            let Some(other_id) = self.sources[other].identity() else { continue };
            if self.are_near(self.ranges[index], self.ranges[other]) {
                ctx.check()?;
                let common = self.common((index, id), (other, other_id), ctx)?;
                if !common.is_empty() {
                    self.has_torn[index] = true;
                    self.has_torn[other] = true;
                    self.torn.extend(common.iter());
                }
            }
        }
        self.is_known[index] = true;
        Ok(())
    }

    /// What a cold source has in common with the hot ones, unless that is known.
    fn learn_between(&mut self, cold: usize, hot: &Hot, ctx: &QueryContext) -> Result<(), ScanError> {
        if std::mem::replace(&mut self.met_hot[cold], true) || !self.are_near(self.ranges[cold], hot.range) {
            return Ok(());
        }
        ctx.check()?;
        let theirs = self.fingerprints(cold, ctx)?.unwrap_or_default();
        let may_be_hot = theirs.iter().filter(|fingerprint| hot.leading.has(**fingerprint));
        let common: Vec<u32> =
            may_be_hot.copied().filter(|fingerprint| hot.fingerprints.binary_search(fingerprint).is_ok()).collect();
        if !common.is_empty() {
            self.has_torn[cold] = true;
            // Which of the hot ones it is, nobody needs to know.
            let is_hot = |index: &usize| self.sources[*index].identity().is_none();
            (0..self.sources.len()).filter(is_hot).for_each(|index| self.has_torn[index] = true);
            self.torn.extend(common);
        }
        Ok(())
    }

    /// What two immutable sources have in common, remembered.
    fn common(
        &mut self,
        one: (usize, BlockId),
        other: (usize, BlockId),
        ctx: &QueryContext,
    ) -> Result<Arc<[u32]>, ScanError> {
        let pair = (one.1.min(other.1), one.1.max(other.1));
        if let Some(common) = self.cache.get(pair) {
            return Ok(common);
        }
        let (one, other) = (self.fingerprints(one.0, ctx)?, self.fingerprints(other.0, ctx)?);
        // What could not be read is not remembered: it may be readable the next time.
        let (Some(one), Some(other)) = (one, other) else { return Ok(Arc::default()) };
        let common: Arc<[u32]> = intersection(&one, &other).into();
        self.cache.insert(pair, &common);
        Ok(common)
    }
}

impl Leading {
    /// Sixteen places for each fingerprint, so that one in sixteen others is taken for known: 128 KB for the
    /// 65,536 traces of a large head.
    fn of(fingerprints: &[u32]) -> Self {
        let place_count = (fingerprints.len() * 16).next_power_of_two().clamp(1 << 6, 1 << 24);
        let mut leading = Self { bits: Bits::none(place_count), shift: u32::BITS - place_count.trailing_zeros() };
        fingerprints.iter().for_each(|fingerprint| leading.bits.insert((fingerprint >> leading.shift) as usize));
        leading
    }

    fn has(&self, fingerprint: u32) -> bool {
        self.bits.contains((fingerprint >> self.shift) as usize)
    }
}

/// What two ascending lists have in common, ascending, each once.
fn intersection(one: &[u32], other: &[u32]) -> Vec<u32> {
    let (mut one, mut other) = (one.iter().peekable(), other.iter().peekable());
    let mut common = Vec::new();
    while let (Some(a), Some(b)) = (one.peek(), other.peek()) {
        match a.cmp(b) {
            std::cmp::Ordering::Less => drop(one.next()),
            std::cmp::Ordering::Greater => drop(other.next()),
            std::cmp::Ordering::Equal => {
                common.push(**a);
                one.next();
                other.next();
            }
        }
    }
    common.dedup();
    common
}

#[cfg(test)]
mod tests;
