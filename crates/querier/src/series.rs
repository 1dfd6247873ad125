//! Metrics: series counted from all spans that start in a window.
//!
//! Each operand of a query (`{..} | rate()`; arithmetic has several) is one [`crate::fold`]; the plan makes
//! series of what they counted.

use spoor_model::bits::Bits;
use spoor_model::columns::ColumnBatch;
use spoor_model::scan::{KeySet, QueryContext, ScanStats, Snapshot};
use spoor_model::{TenantId, TimeRange};
use spoor_traceql::{MetricsOperand, MetricsPlan, Partial, Series, Window};

use crate::explain::{Explain, Stage};
use crate::fold::{Accumulate, Reach, fold};
use crate::lookup::{Sources, overlapping};
use crate::metrics::Op;
use crate::search::widened;
use crate::{Answer, Querier, QueryError};

impl Querier {
    /// The series of a metrics query, in the order of answers, with at most `exemplars_max` exemplars each. An
    /// instant query is one with a window of one interval.
    ///
    /// Several tenants are one body of data: a trace whose spans lie with two of them is one trace, and a span that both
    /// have counts once.
    pub fn metrics(
        &self,
        tenants: &[TenantId],
        plan: &MetricsPlan,
        window: &Window,
        exemplars_max: usize,
        ctx: &QueryContext,
    ) -> Result<Answer<Vec<Series>>, QueryError> {
        self.observed_of_all(Op::metrics, tenants, ctx, |snapshot| {
            let mut stats = ScanStats::default();
            let with_attributes;
            let (mut plan, mut skipped) = (plan, snapshot.skipped.clone());
            if plan.all_attributes() {
                let (keys, cost, failed) = self.attributes(&snapshot, window.range(), ctx)?;
                with_attributes = plan.clone().with_attributes(&keys);
                (plan, skipped) = (&with_attributes, failed);
                stats += cost;
            }
            let mut sources = Sources::new(&snapshot, self.lanes(), ctx);
            sources.skipped = skipped;
            let (mut results, mut explain) = (Vec::new(), Explain::default());
            for (number, operand) in plan.operands().iter().enumerate() {
                let mut stage = Stage { name: format!("operand {}", number + 1), ..Stage::default() };
                let counter = Counter { operand, window, exemplars_max };
                // The spans that count are those that satisfy the filter, and copies of one start together.
                let reach = if operand.is_single_span() { Reach::Range } else { Reach::Around };
                let asked = operand.request(window, exemplars_max);
                let around = widened(asked.range, self.limits.trace_duration_max);
                if !sources.may_all_hold(&operand.required(), around)? {
                    results.push(counter.start());
                    explain.stages.push(stage);
                    continue;
                }
                results.push(fold(&counter, &asked, reach, &self.limits, &self.remembered, &mut sources, &mut stage)?);
                stage.sources.iter().for_each(|source| stats += source.stats);
                explain.stages.push(stage);
            }
            Ok(sources.into_answer(plan.finish(results), stats, explain))
        })
    }

    /// The attributes of all sources that overlap the range.
    fn attributes(
        &self,
        snapshot: &Snapshot,
        range: TimeRange,
        ctx: &QueryContext,
    ) -> Result<(KeySet, ScanStats, Vec<spoor_model::scan::Skipped>), QueryError> {
        let snapshot = overlapping(snapshot.clone(), range);
        let mut sources = Sources::new(&snapshot, self.lanes(), ctx);
        let (keys, stats) = sources.keys()?;
        Ok((keys, stats, sources.skipped))
    }
}

/// What an operand counts in a window.
struct Counter<'a> {
    operand: &'a MetricsOperand,
    window: &'a Window,
    exemplars_max: usize,
}

impl Accumulate for Counter<'_> {
    type Partial = Partial;

    fn start(&self) -> Partial {
        self.operand.start(self.window, self.exemplars_max)
    }

    fn add(&self, partial: &mut Partial, batch: &ColumnBatch, skip: &Bits) {
        self.operand.add(partial, batch, skip);
    }

    fn may_match(&self, batch: &ColumnBatch) -> Bits {
        self.operand.may_match(batch)
    }

    fn merge(&self, into: &mut Partial, other: Partial) {
        self.operand.merge(into, &other);
    }

    fn held_bytes(&self, partial: &Partial) -> usize {
        partial.memory_bytes()
    }
}
