//! A remote file: read by pieces, from local disk where they are, from the store where they are not.
//!
//! ```text
//!   ranges that are wanted     ..##....#.............###...
//!   pieces they lie in         |aaaa|aaaa|    |    |bbbb|     those not on local disk
//!   requests                   |<------->|         |<-->|     gaps up to 1 MiB are read too: cheaper than a request
//! ```

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use object_store::path::Path;
use spoor_block::{Awaited, BlockFile, Error, PIECE_BYTES, Pieces};

use super::ahead::Ahead;
use super::cache::{FileName, PieceCache};
use super::requests::Requests;

/// What a request costs more than a byte: at 100 MB/s and 10 ms to the first byte.
const GAP_PIECES: usize = (1 << 20) / PIECE_BYTES;
/// The end of a file is read this far ahead: there lies the footer of a Parquet file, which is read in steps.
const TAIL_PIECES: usize = (256 << 10) / PIECE_BYTES;

/// A file of a block in a store.
#[derive(Clone)]
pub(crate) struct ObjectFile {
    pub(crate) requests: Arc<Requests>,
    pub(crate) cache: Arc<PieceCache>,
    pub(crate) ahead: Arc<Ahead>,
    pub(crate) path: Path,
    pub(crate) name: FileName,
    pub(crate) pieces: Arc<Pieces>,
    /// Where the object is, for errors.
    pub(crate) location: String,
}

impl BlockFile for ObjectFile {
    fn read(&self, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, Error> {
        let here = |range: &Range<u64>| match range.is_empty() {
            true => Some(Bytes::new()),
            false => self.cache.read(&self.name, &self.pieces, range),
        };
        let mut read: Vec<Option<Bytes>> = ranges.iter().map(here).collect();
        let is_missing = |(_, read): &(&Range<u64>, &Option<Bytes>)| read.is_none();
        let missing = ranges.iter().zip(&read).filter(is_missing).map(|(range, _)| self.pieces.covering(range));
        let runs = runs(missing.collect(), self.pieces.count());
        if runs.is_empty() {
            return Ok(read.into_iter().flatten().collect());
        }
        let fetched = self.fetch(&runs)?;
        for (range, read) in ranges.iter().zip(&mut read).filter(|(_, read)| read.is_none()) {
            let pieces = self.pieces.covering(range);
            let run = runs.partition_point(|run| run.end < pieces.end);
            let from = (range.start - self.pieces.bytes(&runs[run]).start) as usize;
            *read = Some(fetched[run].slice(from..from + (range.end - range.start) as usize));
        }
        Ok(read.into_iter().flatten().collect())
    }

    fn read_ahead(&self, range: Range<u64>) -> Result<(), Error> {
        match self.cache.is_on() && !self.is_here(&range) {
            true => self.read(&[range]).map(drop),
            false => Ok(()),
        }
    }

    fn read_behind(&self, range: Range<u64>) -> Option<Awaited> {
        match self.cache.is_on() {
            true => Some(Box::new(self.ahead.want(self, range))),
            false => None,
        }
    }
}

impl ObjectFile {
    /// Whether a range is on local disk.
    pub(crate) fn is_here(&self, range: &Range<u64>) -> bool {
        range.is_empty() || self.cache.has(&self.name, &self.pieces, range)
    }

    /// Gets runs of pieces from the store, verified, and keeps them on local disk.
    fn fetch(&self, runs: &[Range<usize>]) -> Result<Vec<Bytes>, Error> {
        let ranges = runs.iter().map(|run| self.pieces.bytes(run)).collect();
        let (pieces, starts) = (Arc::clone(&self.pieces), runs.iter().map(|run| run.start).collect::<Vec<_>>());
        let verify = move |index: usize, bytes: &Bytes| {
            let mut numbered = bytes.chunks(PIECE_BYTES).enumerate();
            numbered.try_for_each(|(place, bytes)| pieces.verify(starts[index] + place, bytes))
        };
        let fetched = self.requests.read(&self.path, ranges, verify);
        let object = || format!("block {} {}", self.name.id, self.name.name);
        let fetched = fetched.map_err(|failure| failure.reading(&object(), self.location.clone()))?;
        for (run, bytes) in runs.iter().zip(&fetched) {
            self.cache.keep(&self.name, &self.pieces, run.start, bytes);
        }
        Ok(fetched)
    }
}

/// Runs of pieces to fetch: those wanted and small gaps between them, ascending.
fn runs(mut wanted: Vec<Range<usize>>, count: usize) -> Vec<Range<usize>> {
    if wanted.iter().any(|pieces| pieces.end == count) {
        wanted.push(count.saturating_sub(TAIL_PIECES)..count);
    }
    wanted.sort_unstable_by_key(|pieces| pieces.start);
    wanted.dedup_by(|next, last| {
        let joins = next.start <= last.end + GAP_PIECES;
        if joins {
            last.end = last.end.max(next.end);
        }
        joins
    });
    wanted
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_footer_comes_in_one_request() {
        let one = |range: Range<usize>| Vec::from([range]);
        assert_eq!(runs(one(99..100), 100), one(96..100));
        assert_eq!(runs(one(0..1), 1), one(0..1));
        assert!(runs(vec![], 100).is_empty());
    }

    proptest! {
        #[test]
        fn runs_hold_all_that_is_wanted_and_little_else(
            wanted in prop::collection::vec((0..1000usize, 1..20usize), 0..20),
        ) {
            let count = 1020;
            let wanted: Vec<_> = wanted.into_iter().map(|(start, length)| start..start + length).collect();
            let runs = runs(wanted.clone(), count);
            for pieces in &wanted {
                prop_assert!(runs.iter().any(|run| run.start <= pieces.start && pieces.end <= run.end));
            }
            prop_assert!(runs.windows(2).all(|pair| pair[0].end + GAP_PIECES < pair[1].start));
            prop_assert!(runs.len() <= wanted.len());
            for run in &runs {
                prop_assert!(run.end <= count && wanted.iter().any(|pieces| pieces.end == run.end));
            }
        }
    }
}
