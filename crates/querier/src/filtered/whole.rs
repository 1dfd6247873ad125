//! Spans that a filter finds by what else their trace holds: relatives, the root, how long it takes.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use spoor_model::TimeRange;
use spoor_model::bits::Bits;
use spoor_model::columns::{ColumnBatch, ColumnRequest};
use spoor_model::scan::ScanStats;

use super::{Reading, SpanFilter, rows_of};
use crate::QueryError;
use crate::explain::Stage;
use crate::fold::{Accumulate, Reach, fold};

impl Reading<'_, '_> {
    /// Reads every trace once and whole, until `into` has enough.
    pub(super) fn each_whole_trace<T: Send>(
        &mut self,
        request: &ColumnRequest,
        of_batch: impl Fn(&ColumnBatch, &Bits) -> T + Sync + Send,
        into: impl FnMut(T) -> bool + Send,
    ) -> Result<ScanStats, QueryError> {
        let into = Mutex::new(into);
        let take = |batch: &ColumnBatch, rows: &Bits| {
            let made = of_batch(batch, rows);
            let mut into = into.lock().expect("nothing panics while it holds the lock");
            (*into)(made)
        };
        let selected = Selected { filter: self.filter, range: self.range, take, has_enough: AtomicBool::new(false) };
        let (limits, remembered) = (&self.querier.limits, &self.querier.remembered);
        let mut stage = Stage::default();
        fold(&selected, request, Reach::Around, limits, remembered, &mut self.sources, &mut stage)?;
        let mut stats = ScanStats::default();
        stage.sources.iter().for_each(|source| stats += source.stats);
        Ok(stats)
    }
}

/// Hands over batches with the rows that count, until `take` has enough.
struct Selected<'a, F> {
    filter: &'a SpanFilter,
    range: TimeRange,
    take: F,
    has_enough: AtomicBool,
}

impl<F: Fn(&ColumnBatch, &Bits) -> bool + Sync> Accumulate for Selected<'_, F> {
    /// What is found goes to one place, which shows at once when it is enough.
    type Partial = ();

    fn start(&self) {}

    fn add(&self, (): &mut (), batch: &ColumnBatch, skip: &Bits) {
        if self.has_enough() {
            return;
        }
        let mut rows = self.filter.rows(batch, self.range);
        rows.subtract(&rows_of(skip, batch));
        if !(self.take)(batch, &rows) {
            self.has_enough.store(true, Ordering::Relaxed);
        }
    }

    fn may_match(&self, batch: &ColumnBatch) -> Bits {
        self.filter.may_match(batch)
    }

    fn merge(&self, (): &mut (), (): ()) {}

    fn held_bytes(&self, (): &()) -> usize {
        0
    }

    fn has_enough(&self) -> bool {
        self.has_enough.load(Ordering::Relaxed)
    }
}
