//! How often services are called, how often that fails and how long it takes, in sliding windows.
//!
//! ```text
//!              |<----- window ----->|
//!   ---+-------+-------+-------+----+--> time        a point at `end`, and one every `step` before it; each
//!      t0      t1      t2      ..   end              counts the spans that start in the window up to it
//! ```
//!
//! A span counts for a run of points, `first..=last`, so cells are (series, first, last, bucket of duration), and the points
//! come out of one sweep over them. Calls and errors are exact whatever step and window are. Durations fall into
//! buckets of 1/64 of a power of two, so that a quantile is off by at most 1.6 %.

use std::collections::BTreeMap;

use hashbrown::HashMap;
use spoor_model::bits::Bits;
use spoor_model::columns::{ColumnBatch, ColumnPart, ColumnRequest, FieldColumn, ValuesOf};
use spoor_model::scan::{Condition, Field, Literal, Predicate, QueryContext, ScanStats, Test};
use spoor_model::span::STATUS_ERROR;
use spoor_model::{TenantId, TimeRange, UnixNano, Value};

use crate::dependencies::{Names, Service, service_field, starts_in};
use crate::explain::{Explain, Stage};
use crate::fold::{Accumulate, Reach, fold};
use crate::lookup::Sources;
use crate::metrics::Op;
use crate::{Answer, Querier, QueryError};

/// Which spans are counted, and for which points.
#[derive(Debug, Clone)]
pub struct ServiceMetricsRequest {
    /// The spans that count.
    pub filter: Predicate,
    /// A series per operation of each service, rather than per service.
    pub by_operation: bool,
    /// The quantile of durations that is wanted, from 0 to 1.
    pub quantile: Option<f64>,
    /// The last point.
    pub end: UnixNano,
    /// From one point to the next; not zero.
    pub step_nano: u64,
    /// How many points; not zero.
    pub point_count: u32,
    /// How far each point looks back; not zero.
    pub window_nano: u64,
}

/// The points of one service, or of one of its operations.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceSeries {
    /// Whose spans.
    pub service: Service,
    /// Their name, when asked for.
    pub operation: Option<String>,
    /// One per point, oldest first.
    pub points: Vec<ServicePoint>,
}

/// What happened in the window up to a point.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ServicePoint {
    /// Spans that start in the window.
    pub calls: u64,
    /// Those of them whose status is an error.
    pub errors: u64,
    /// The quantile of their durations in nanoseconds; `None` when there are none or no quantile was asked for.
    pub duration_nano: Option<f64>,
}

impl ServiceMetricsRequest {
    /// When each point is, oldest first.
    pub fn times(&self) -> impl Iterator<Item = UnixNano> + '_ {
        (0..u64::from(self.point_count)).map(|index| UnixNano(self.first().saturating_add(index * self.step_nano)))
    }

    fn first(&self) -> u64 {
        self.end.0.saturating_sub(u64::from(self.point_count - 1).saturating_mul(self.step_nano))
    }

    fn range(&self) -> TimeRange {
        let start = self.first().saturating_add(1).saturating_sub(self.window_nano);
        TimeRange { start: UnixNano(start), end: self.end }
    }

    /// The points for which a span counts that starts then, which is in the range.
    fn points_of(&self, start: u64) -> Option<(u32, u32)> {
        let after_first = |at: u64| at.saturating_sub(self.first());
        let first = after_first(start).div_ceil(self.step_nano);
        let ends_before = start.saturating_add(self.window_nano - 1);
        let last = (after_first(ends_before) / self.step_nano).min(u64::from(self.point_count - 1));
        let is_any = first <= last && ends_before >= self.first();
        is_any.then_some((first as u32, last as u32))
    }
}

impl Querier {
    /// The series of all spans that count, sorted; services and operations without any have none.
    ///
    /// Several tenants are one body of data. Costs one pass over up to four columns of what the filter leaves.
    pub fn service_metrics(
        &self,
        tenants: &[TenantId],
        request: &ServiceMetricsRequest,
        ctx: &QueryContext,
    ) -> Result<Answer<Vec<ServiceSeries>>, QueryError> {
        self.observed_of_all(Op::metrics, tenants, ctx, |snapshot| {
            let mut sources = Sources::new(&snapshot, self.lanes(), ctx);
            let range = request.range();
            let counted = [starts_in(range), vec![request.filter.clone()]].concat();
            let failed = Condition { field: Field::Status, test: Test::Eq(Literal::Int(STATUS_ERROR.into())) };
            let mut columns = vec![service_field(), Field::StartTime, Field::Duration];
            columns.extend(request.by_operation.then_some(Field::Name));
            let asked = ColumnRequest {
                masks: vec![Predicate::And(counted), Predicate::Is(failed)],
                needed: vec![0],
                columns,
                values_of: ValuesOf::NeededRows,
                tree: false,
                copies: true,
                range,
                intervals: None,
            };
            let mut stage = Stage { name: "service metrics".to_owned(), ..Stage::default() };
            let counter = Counter { request };
            let cells = fold(&counter, &asked, Reach::Range, &self.limits, &self.remembered, &mut sources, &mut stage)?;
            let mut stats = ScanStats::default();
            stage.sources.iter().for_each(|source| stats += source.stats);
            let explain = Explain { stages: vec![stage] };
            Ok(sources.into_answer(cells.series(request), stats, explain))
        })
    }
}

/// Points and bucket of some spans of a series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Cell {
    service: u32,
    operation: u32,
    first: u32,
    last: u32,
    bucket: u16,
}

#[derive(Debug, Clone, Copy, Default)]
struct Count {
    calls: u64,
    errors: u64,
}

/// What has been counted.
#[derive(Debug, Default)]
struct Cells {
    names: Names,
    counts: HashMap<Cell, Count>,
}

fn int(column: &FieldColumn, row: usize) -> u64 {
    let value = match &*column.parts {
        [ColumnPart::Int(ints)] => ints.value(row),
        _ => match column.value(row) {
            Some(Value::Int(int)) => int,
            _ => 0,
        },
    };
    u64::try_from(value).unwrap_or(0)
}

struct Counter<'a> {
    request: &'a ServiceMetricsRequest,
}

impl Accumulate for Counter<'_> {
    type Partial = Cells;

    fn start(&self) -> Cells {
        Cells::default()
    }

    fn add(&self, cells: &mut Cells, batch: &ColumnBatch, skip: &Bits) {
        let rows = batch.row_count();
        let services = cells.names.numbers_of(&batch.columns[0], rows);
        let operations = batch.columns.get(3).map(|names| cells.names.numbers_of(names, rows));
        for trace in (0..batch.trace_count()).filter(|trace| !skip.contains(*trace)) {
            for row in batch.rows_of(trace).filter(|row| batch.masks[0].contains(*row)) {
                let Some((first, last)) = self.request.points_of(int(&batch.columns[1], row)) else { continue };
                let bucket = self.request.quantile.map_or(0, |_| bucket_of(int(&batch.columns[2], row)));
                let operation = operations.as_ref().map_or(0, |operations| operations[row]);
                let count =
                    cells.counts.entry(Cell { service: services[row], operation, first, last, bucket }).or_default();
                count.calls += 1;
                count.errors += u64::from(batch.masks[1].contains(row));
            }
        }
    }

    fn may_match(&self, batch: &ColumnBatch) -> Bits {
        Bits::from_fn(batch.trace_count(), |trace| batch.masks[0].any_in(batch.rows_of(trace)))
    }

    fn merge(&self, into: &mut Cells, other: Cells) {
        let numbers: Vec<u32> = other.names.all().iter().map(|name| into.names.number_of(name.clone())).collect();
        let renamed = |number: u32| numbers.get(number as usize).copied().unwrap_or(0);
        for (cell, count) in other.counts {
            let operation = if self.request.by_operation { renamed(cell.operation) } else { 0 };
            let sum = into.counts.entry(Cell { service: renamed(cell.service), operation, ..cell }).or_default();
            sum.calls += count.calls;
            sum.errors += count.errors;
        }
    }

    fn held_bytes(&self, cells: &Cells) -> usize {
        cells.names.held_bytes() + cells.counts.allocation_size()
    }
}

impl Cells {
    fn series(&self, request: &ServiceMetricsRequest) -> Vec<ServiceSeries> {
        let mut by_series: BTreeMap<(u32, u32), Vec<(Cell, Count)>> = BTreeMap::new();
        for (cell, count) in &self.counts {
            by_series.entry((cell.service, cell.operation)).or_default().push((*cell, *count));
        }
        let name = |number: u32| self.names.all()[number as usize].clone();
        let operation = |number: u32| name(number).as_deref().unwrap_or_default().to_owned();
        let mut series: Vec<ServiceSeries> = by_series
            .into_iter()
            .map(|((service, number), cells)| ServiceSeries {
                service: name(service),
                operation: request.by_operation.then(|| operation(number)),
                points: sweep(cells, request),
            })
            .collect();
        series.sort_by(|a, b| (&a.service, &a.operation).cmp(&(&b.service, &b.operation)));
        series
    }
}

/// Cells come in at their first point and leave after their last.
fn sweep(cells: Vec<(Cell, Count)>, request: &ServiceMetricsRequest) -> Vec<ServicePoint> {
    let mut changes: BTreeMap<u32, Vec<(u16, Count, bool)>> = BTreeMap::new();
    for (cell, count) in cells {
        changes.entry(cell.first).or_default().push((cell.bucket, count, true));
        changes.entry(cell.last + 1).or_default().push((cell.bucket, count, false));
    }
    let (mut sum, mut buckets) = (Count::default(), BTreeMap::<u16, u64>::new());
    let mut points = Vec::with_capacity(request.point_count as usize);
    for index in 0..request.point_count {
        for (bucket, count, is_entering) in changes.remove(&index).into_iter().flatten() {
            let held = buckets.entry(bucket).or_default();
            match is_entering {
                true => {
                    (sum.calls, sum.errors, *held) =
                        (sum.calls + count.calls, sum.errors + count.errors, *held + count.calls)
                }
                false => {
                    (sum.calls, sum.errors, *held) =
                        (sum.calls - count.calls, sum.errors - count.errors, *held - count.calls)
                }
            }
        }
        buckets.retain(|_, count| *count > 0);
        let duration_nano = request.quantile.and_then(|quantile| quantile_of(&buckets, sum.calls, quantile));
        points.push(ServicePoint { calls: sum.calls, errors: sum.errors, duration_nano });
    }
    points
}

/// Buckets per power of two.
const BUCKETS_LOG2: u32 = 6;

fn bucket_of(nanos: u64) -> u16 {
    let power = u64::BITS - 1 - (nanos | 1).leading_zeros();
    match power.checked_sub(BUCKETS_LOG2) {
        None => nanos as u16,
        // The leading one of the shifted number stands for the power of two before it.
        Some(shift) => (u64::from(shift << BUCKETS_LOG2) + (nanos >> shift)) as u16,
    }
}

/// The least number in a bucket, and how many there are in it.
fn bounds_of(bucket: u16) -> (u64, u64) {
    let bucket = u64::from(bucket);
    let shift = (bucket >> BUCKETS_LOG2).saturating_sub(1);
    ((bucket - (shift << BUCKETS_LOG2)) << shift, 1 << shift)
}

/// The duration below which that part of all lies; between the ends of a bucket in proportion.
fn quantile_of(buckets: &BTreeMap<u16, u64>, total: u64, quantile: f64) -> Option<f64> {
    let rank = quantile.clamp(0.0, 1.0) * total as f64;
    let mut below = 0;
    let mut last = None;
    for (bucket, count) in buckets {
        let (least, width) = bounds_of(*bucket);
        let part = ((rank - below as f64) / *count as f64).clamp(0.0, 1.0);
        last = Some(least as f64 + part * (width - 1) as f64);
        below += count;
        if below as f64 >= rank {
            break;
        }
    }
    last
}

#[cfg(test)]
mod tests;
