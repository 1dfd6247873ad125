//! Names and values of attributes that matching spans have, from columns.
//!
//! ```text
//!   sources in the range --scan(mask, columns)--> groups --rows in the mask--+
//!                                                                            +-> codes in use --> names, values
//!   all sources near it --fold--> whole traces --rows that are selected------+
//! ```
//!
//! Catalogues know what a source holds, not on which spans; so a filter costs reading the columns of its rows.
//! Names are looked for in a few columns at a time, and a name that was found is not looked for again.
//!
//! A span counts when it passes the filter and its trace overlaps the range. Filters about single spans are applied
//! source by source, and of the trace counts what the span's source holds; filters that look at parents, roots or
//! anything else of a trace are applied to whole traces, however their spans are spread ([`crate::fold`]).

use std::collections::HashSet;

use arrow_array::Array;
use spoor_model::bits::Bits;
use spoor_model::columns::{ColumnBatch, ColumnPart, ColumnRequest, ColumnScan, FieldColumn};
use spoor_model::scan::{AttrScope, Field, KeySet, Predicate, QueryContext, ScanError, ScanStats, ValueSet};
use spoor_model::{TenantId, TimeRange, Value};
use spoor_traceql::SearchPlan;

use crate::explain::Explain;
use crate::filter::masks_request;
use crate::lookup::Sources;
use crate::metrics::Op;
use crate::search::widened;
use crate::{Answer, Querier, QueryError};

mod whole;

/// Columns that are read at once when names are looked for: of a group of 100,000 spans they are 13 MB.
const COLUMNS_AT_ONCE: usize = 32;

/// Groups per thread between two looks at what has been found.
const GROUPS_PER_LANE: usize = 4;

/// Which spans count when names and values are looked for.
#[derive(Debug, Clone)]
pub enum SpanFilter {
    /// Those that satisfy it.
    Predicate(Predicate),
    /// Those that it selects, of whole traces.
    Query(SearchPlan),
}

impl SpanFilter {
    /// What to ask of sources: what the filter reads comes first, then the columns.
    fn request(&self, columns: Vec<Field>, range: TimeRange) -> ColumnRequest {
        let mut request = match self {
            Self::Predicate(predicate) => masks_request(vec![predicate.clone()], vec![0], range),
            Self::Query(plan) => plan.request(range),
        };
        request.columns.extend(columns);
        request
    }

    /// Whether each span passes for itself, whatever else its trace holds.
    fn is_single_span(&self) -> bool {
        match self {
            Self::Predicate(_) => true,
            Self::Query(plan) => plan.is_single_span(),
        }
    }

    /// The rows that pass, of traces that overlap the range.
    fn rows(&self, batch: &ColumnBatch, range: TimeRange) -> Bits {
        let mut rows = match self {
            Self::Predicate(_) => batch.masks[0].clone(),
            Self::Query(plan) => plan.selected(batch),
        };
        let outside = Bits::from_fn(batch.trace_count(), |trace| !batch.trace_ranges[trace].overlaps(&range));
        rows.subtract(&rows_of(&outside, batch));
        rows
    }

    /// Traces of a batch that may have a span that passes, were its rows only a part of them.
    fn may_match(&self, batch: &ColumnBatch) -> Bits {
        match self {
            Self::Predicate(_) => {
                Bits::from_fn(batch.trace_count(), |trace| batch.masks[0].any_in(batch.rows_of(trace)))
            }
            Self::Query(plan) => plan.may_match(batch),
        }
    }

    /// The columns that were asked for, of what [`Self::request`] asked.
    fn columns<'a>(&self, batch: &'a ColumnBatch, count: usize) -> &'a [FieldColumn] {
        &batch.columns[batch.columns.len() - count..]
    }
}

/// The rows of some traces.
fn rows_of(traces: &Bits, batch: &ColumnBatch) -> Bits {
    let mut rows = Bits::none(batch.row_count());
    traces.iter().for_each(|trace| rows.insert_range(batch.rows_of(trace)));
    rows
}

impl Querier {
    /// The attribute names that spans have which pass the filter. Costs reading the columns of what has not
    /// been found yet; [`Querier::keys`] costs next to nothing.
    ///
    /// Several tenants are one body of data.
    pub fn keys_where(
        &self,
        tenants: &[TenantId],
        filter: &SpanFilter,
        range: TimeRange,
        ctx: &QueryContext,
    ) -> Result<Answer<KeySet>, QueryError> {
        self.observed_of_all(Op::metadata, tenants, ctx, |snapshot| {
            let mut reading =
                Reading { querier: self, sources: Sources::new(&snapshot, self.lanes(), ctx), filter, range };
            let (mut found, mut stats) = (KeySet::new(), ScanStats::default());
            for part in reading.parts() {
                let (known, cost) = reading.keys(part)?;
                stats += cost;
                let all = known.into_iter().flat_map(|(scope, names)| names.into_iter().map(move |name| (scope, name)));
                let is_new =
                    |(scope, name): &(AttrScope, String)| !found.get(scope).is_some_and(|names| names.contains(name));
                let wanted: Vec<(AttrScope, String)> = all.filter(is_new).collect();
                for wanted in wanted.chunks(COLUMNS_AT_ONCE) {
                    let fields = wanted.iter().map(|(scope, name)| Field::Attribute(*scope, name.as_str().into()));
                    let request = filter.request(fields.collect(), range);
                    let of_batch =
                        |batch: &ColumnBatch, rows: &Bits| present_columns(filter.columns(batch, wanted.len()), rows);
                    let mut missing: HashSet<usize> = (0..wanted.len()).collect();
                    stats += reading.each_batch(part, &request, of_batch, |present: Vec<usize>| {
                        missing.retain(|column| !present.contains(column));
                        !missing.is_empty()
                    })?;
                    let present = wanted.iter().enumerate().filter(|(column, _)| !missing.contains(column));
                    present.for_each(|(_, (scope, name))| {
                        found.entry(*scope).or_default().insert(name.clone());
                    });
                }
            }
            Ok(reading.sources.into_answer(found, stats, Explain::default()))
        })
    }

    /// The distinct values of a field on spans that pass the filter, as many as fit into `limit_bytes`,
    /// and whether that is all; in the order of [`Querier::values`].
    ///
    /// Several tenants are one body of data.
    pub fn values_where(
        &self,
        tenants: &[TenantId],
        field: &Field,
        filter: &SpanFilter,
        range: TimeRange,
        limit_bytes: usize,
        ctx: &QueryContext,
    ) -> Result<Answer<(Vec<Value>, bool)>, QueryError> {
        self.observed_of_all(Op::metadata, tenants, ctx, |snapshot| {
            let mut reading =
                Reading { querier: self, sources: Sources::new(&snapshot, self.lanes(), ctx), filter, range };
            let (mut values, mut stats) = (ValueSet::new(limit_bytes), ScanStats::default());
            let request = filter.request(vec![field.clone()], range);
            // A set for each group that is read at once, and the one that they end in.
            ctx.reserve(limit_bytes.saturating_mul(1 + self.lanes().count() * GROUPS_PER_LANE))?;
            let of_batch = |batch: &ColumnBatch, rows: &Bits| {
                let mut values = ValueSet::new(limit_bytes);
                // What a batch has too much of is too much altogether.
                let _ = add_values(&filter.columns(batch, 1)[0], rows, &mut values);
                values.into_values()
            };
            for part in reading.parts() {
                stats += reading.each_batch(part, &request, of_batch, |more: Vec<Value>| {
                    more.iter().all(|value| values.insert(value).is_continue())
                })?;
                if !values.is_complete() {
                    break;
                }
            }
            let is_complete = values.is_complete();
            Ok(reading.sources.into_answer((values.into_values(), is_complete), stats, Explain::default()))
        })
    }
}

/// What is read in one go.
#[derive(Debug, Clone, Copy)]
enum Part {
    /// What one source holds of traces.
    Source(usize),
    /// Whole traces, from all sources.
    WholeTraces,
}

/// Spans that pass a filter, of traces that overlap a range.
struct Reading<'q, 'a> {
    querier: &'q Querier,
    sources: Sources<'a>,
    filter: &'q SpanFilter,
    range: TimeRange,
}

impl Reading<'_, '_> {
    fn parts(&self) -> Vec<Part> {
        match self.filter.is_single_span() {
            true => self.near(self.range).into_iter().map(Part::Source).collect(),
            false => vec![Part::WholeTraces],
        }
    }

    /// The sources that overlap a range.
    fn near(&self, range: TimeRange) -> Vec<usize> {
        let held = self.sources.ranges();
        (0..held.len()).filter(|index| held[*index].is_some_and(|held| held.overlaps(&range))).collect()
    }

    /// The attribute names that a part may have.
    fn keys(&mut self, part: Part) -> Result<(KeySet, ScanStats), QueryError> {
        let named_by = match part {
            Part::Source(index) => vec![index],
            // A trace that reaches into the range may have its matching span outside.
            Part::WholeTraces => self.near(widened(self.range, self.querier.limits.trace_duration_max)),
        };
        let (mut keys, mut stats) = (KeySet::new(), ScanStats::default());
        for index in named_by {
            self.sources.ctx.check()?;
            let cost = self.sources.all[index].keys(self.sources.ctx, &mut keys);
            stats += self.sources.good(cost)?.unwrap_or_default();
        }
        Ok((keys, stats))
    }

    /// Reads a part in parallel, newest groups first, until `fold` has enough of what `of_batch` makes of a batch and
    /// its rows that count. `request` is the filter's.
    fn each_batch<T: Send>(
        &mut self,
        part: Part,
        request: &ColumnRequest,
        of_batch: impl Fn(&ColumnBatch, &Bits) -> T + Sync + Send,
        fold: impl FnMut(T) -> bool + Send,
    ) -> Result<ScanStats, QueryError> {
        match part {
            Part::Source(index) => self.each_group(index, request, of_batch, fold),
            Part::WholeTraces => self.each_whole_trace(request, of_batch, fold),
        }
    }

    fn each_group<T: Send>(
        &mut self,
        index: usize,
        request: &ColumnRequest,
        of_group: impl Fn(&ColumnBatch, &Bits) -> T + Sync + Send,
        mut fold: impl FnMut(T) -> bool,
    ) -> Result<ScanStats, QueryError> {
        let ctx = self.sources.ctx;
        let mut stats = ScanStats::default();
        let scan = self.sources.all[index].scan(request, ctx);
        let Some(scan) = self.sources.good(scan)? else { return Ok(stats) };
        let groups: Vec<usize> = (0..scan.groups().len()).collect();
        let mut left = &groups[..];
        while !left.is_empty() {
            let wave;
            (wave, left) = left.split_at(left.len().min(self.sources.lanes.count() * GROUPS_PER_LANE));
            let this = &*self;
            let answers = this.sources.lanes.map(wave, |group| this.read(&*scan, *group, &of_group));
            let mut is_enough = false;
            for answer in answers {
                let Some((made, cost)) = self.sources.good(answer)? else { continue };
                stats += cost;
                is_enough |= made.is_some_and(|made| !fold(made));
            }
            if is_enough {
                break;
            }
        }
        Ok(stats)
    }

    fn read<T>(
        &self,
        scan: &dyn ColumnScan,
        group: usize,
        of_group: impl Fn(&ColumnBatch, &Bits) -> T,
    ) -> Result<(Option<T>, ScanStats), ScanError> {
        let ctx = &self.sources.ctx.part();
        ctx.check()?;
        let (batch, stats) = scan.read(group, ctx)?;
        Ok((batch.map(|batch| of_group(&batch, &self.filter.rows(&batch, self.range))), stats))
    }
}

/// The columns that have a value on one of the rows.
fn present_columns(columns: &[FieldColumn], rows: &Bits) -> Vec<usize> {
    let is_present = |column: &FieldColumn| rows.iter().any(|row| column.parts.iter().any(|part| has_value(part, row)));
    (0..columns.len()).filter(|column| is_present(&columns[*column])).collect()
}

fn has_value(part: &ColumnPart, row: usize) -> bool {
    match part {
        ColumnPart::Coded { codes, values } => codes.is_valid(row) && values[codes.value(row) as usize].is_some(),
        ColumnPart::Int(array) => array.is_valid(row),
        ColumnPart::Double(array) => array.is_valid(row),
        ColumnPart::Bool(array) => array.is_valid(row),
        ColumnPart::Text(array) => array.is_valid(row),
        ColumnPart::Sparse { rows, .. } => rows.binary_search(&(row as u32)).is_ok(),
        ColumnPart::PerItem { rows, values } => {
            let place = rows.binary_search(&(row as u32));
            place.is_ok_and(|place| values[place].iter().any(Option::is_some))
        }
    }
}

/// Adds the values of the rows; `Break` when `into` is full. A code counts once, however many rows have it.
fn add_values(column: &FieldColumn, rows: &Bits, into: &mut ValueSet) -> std::ops::ControlFlow<()> {
    let code_count = |part: &ColumnPart| if let ColumnPart::Coded { values, .. } = part { values.len() } else { 0 };
    let mut seen: Vec<Bits> = column.parts.iter().map(|part| Bits::none(code_count(part))).collect();
    for row in rows.iter() {
        let Some(place) = column.parts.iter().position(|part| has_value(part, row)) else { continue };
        match &column.parts[place] {
            ColumnPart::Coded { codes, .. } => seen[place].insert(codes.value(row) as usize),
            ColumnPart::PerItem { rows, values } => {
                let items = rows.binary_search(&(row as u32)).map_or(&[][..], |place| &values[place]);
                items.iter().flatten().try_for_each(|value| into.insert(value))?;
            }
            part => part.value(row).iter().try_for_each(|value| into.insert(value))?,
        }
    }
    for (part, seen) in column.parts.iter().zip(seen) {
        if let ColumnPart::Coded { values, .. } = part {
            seen.iter().filter_map(|code| values[code].as_ref()).try_for_each(|value| into.insert(value))?;
        }
    }
    std::ops::ControlFlow::Continue(())
}

#[cfg(test)]
mod tests;
