//! Names and values of attributes that matching spans have, from columns.
//!
//! ```text
//!   sources in the range --scan(mask, columns)--> groups --rows in the mask--> codes in use --> names, values
//! ```
//!
//! Catalogues know what a source holds, not on which spans; so a filter costs reading the columns of its rows.
//! Names are looked for in a few columns at a time, and a name that was found is not looked for again.
//!
//! A span counts when it passes the filter and its trace, as far as the span's source holds it, overlaps the range.

use std::collections::HashSet;

use arrow_array::Array;
use spoor_model::bits::Bits;
use spoor_model::columns::{ColumnBatch, ColumnPart, ColumnRequest, ColumnScan, FieldColumn};
use spoor_model::scan::{AttrScope, Field, KeySet, Predicate, QueryContext, ScanError, ScanStats, ValueSet};
use spoor_model::{TenantId, TimeRange, Value};
use spoor_traceql::SearchPlan;

use crate::explain::Explain;
use crate::filter::masks_request;
use crate::lookup::{Sources, overlapping};
use crate::metrics::Op;
use crate::{Answer, Querier, QueryError};

/// Columns that are read at once when names are looked for: of a group of 100,000 spans they are 13 MB.
const COLUMNS_AT_ONCE: usize = 32;

/// Groups per thread between two looks at what has been found.
const GROUPS_PER_LANE: usize = 4;

/// Which spans count when names and values are looked for.
#[derive(Debug, Clone)]
pub enum SpanFilter {
    /// Those that satisfy it.
    Predicate(Predicate),
    /// Those that it selects; exact for plans about single spans, others see of a trace what one source holds.
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

    fn rows(&self, batch: &ColumnBatch) -> Bits {
        match self {
            Self::Predicate(_) => batch.masks[0].clone(),
            Self::Query(plan) => plan.selected(batch),
        }
    }

    /// The columns that were asked for, of what [`Self::request`] asked.
    fn columns<'a>(&self, batch: &'a ColumnBatch, count: usize) -> &'a [FieldColumn] {
        &batch.columns[batch.columns.len() - count..]
    }
}

impl Querier {
    /// The attribute names that spans have which pass the filter. Costs reading the columns of what has not
    /// been found yet; [`Querier::keys`] costs next to nothing.
    pub fn keys_where(
        &self,
        tenant: &TenantId,
        filter: &SpanFilter,
        range: TimeRange,
        ctx: &QueryContext,
    ) -> Result<Answer<KeySet>, QueryError> {
        self.observed(Op::metadata, tenant, ctx, |snapshot| {
            let snapshot = overlapping(snapshot, range);
            let mut sources = Sources::new(&snapshot, self.lanes(), ctx);
            let (mut found, mut stats) = (KeySet::new(), ScanStats::default());
            for index in 0..sources.all.len() {
                let mut known = KeySet::new();
                let cost = sources.all[index].keys(ctx, &mut known);
                stats += sources.good(cost)?.unwrap_or_default();
                let all = known.into_iter().flat_map(|(scope, names)| names.into_iter().map(move |name| (scope, name)));
                let is_new =
                    |(scope, name): &(AttrScope, String)| !found.get(scope).is_some_and(|names| names.contains(name));
                let wanted: Vec<(AttrScope, String)> = all.filter(is_new).collect();
                for wanted in wanted.chunks(COLUMNS_AT_ONCE) {
                    let fields = wanted.iter().map(|(scope, name)| Field::Attribute(*scope, name.as_str().into()));
                    let request = filter.request(fields.collect(), range);
                    let of_group =
                        |batch: &ColumnBatch, rows: &Bits| present_columns(filter.columns(batch, wanted.len()), rows);
                    let mut missing: HashSet<usize> = (0..wanted.len()).collect();
                    let cost = each_group(&mut sources, index, (filter, &request), of_group, |present: Vec<usize>| {
                        missing.retain(|column| !present.contains(column));
                        !missing.is_empty()
                    })?;
                    stats += cost;
                    let present = wanted.iter().enumerate().filter(|(column, _)| !missing.contains(column));
                    present.for_each(|(_, (scope, name))| {
                        found.entry(*scope).or_default().insert(name.clone());
                    });
                }
            }
            Ok(sources.into_answer(found, stats, Explain::default()))
        })
    }

    /// The distinct values of a field on spans that pass the filter, as many as fit into `limit_bytes`,
    /// and whether that is all; in the order of [`Querier::values`].
    pub fn values_where(
        &self,
        tenant: &TenantId,
        field: &Field,
        filter: &SpanFilter,
        range: TimeRange,
        limit_bytes: usize,
        ctx: &QueryContext,
    ) -> Result<Answer<(Vec<Value>, bool)>, QueryError> {
        self.observed(Op::metadata, tenant, ctx, |snapshot| {
            let snapshot = overlapping(snapshot, range);
            let mut sources = Sources::new(&snapshot, self.lanes(), ctx);
            let (mut values, mut stats) = (ValueSet::new(limit_bytes), ScanStats::default());
            let request = filter.request(vec![field.clone()], range);
            // A set for each group that is read at once, and the one that they end in.
            ctx.reserve(limit_bytes.saturating_mul(1 + sources.lanes.count() * GROUPS_PER_LANE))?;
            let of_group = |batch: &ColumnBatch, rows: &Bits| {
                let mut values = ValueSet::new(limit_bytes);
                // What a group has too much of is too much altogether.
                let _ = add_values(&filter.columns(batch, 1)[0], rows, &mut values);
                values.into_values()
            };
            for index in 0..sources.all.len() {
                stats += each_group(&mut sources, index, (filter, &request), of_group, |more: Vec<Value>| {
                    more.iter().all(|value| values.insert(value).is_continue())
                })?;
                if !values.is_complete() {
                    break;
                }
            }
            let is_complete = values.is_complete();
            Ok(sources.into_answer((values.into_values(), is_complete), stats, Explain::default()))
        })
    }
}

/// Reads the groups of a source in parallel, newest first, until `fold` has enough of what `of_group` makes of a
/// batch and its matching rows.
fn each_group<T: Send>(
    sources: &mut Sources<'_>,
    index: usize,
    (filter, request): (&SpanFilter, &ColumnRequest),
    of_group: impl Fn(&ColumnBatch, &Bits) -> T + Sync + Send,
    mut fold: impl FnMut(T) -> bool,
) -> Result<ScanStats, QueryError> {
    let ctx = sources.ctx;
    let mut stats = ScanStats::default();
    let scan = sources.all[index].scan(request, ctx);
    let Some(scan) = sources.good(scan)? else { return Ok(stats) };
    let groups: Vec<usize> = (0..scan.groups().len()).collect();
    let mut left = &groups[..];
    while !left.is_empty() {
        let wave;
        (wave, left) = left.split_at(left.len().min(sources.lanes.count() * GROUPS_PER_LANE));
        let answers = sources.lanes.map(wave, |group| read(&*scan, *group, (filter, request.range), &of_group, ctx));
        let mut is_enough = false;
        for answer in answers {
            let Some((made, cost)) = sources.good(answer)? else { continue };
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
    scan: &dyn ColumnScan,
    group: usize,
    (filter, range): (&SpanFilter, TimeRange),
    of_group: impl Fn(&ColumnBatch, &Bits) -> T,
    ctx: &QueryContext,
) -> Result<(Option<T>, ScanStats), ScanError> {
    let ctx = &ctx.part();
    ctx.check()?;
    let (batch, stats) = scan.read(group, ctx)?;
    let made = batch.map(|batch| {
        let mut outside = Bits::none(batch.row_count());
        for trace in (0..batch.trace_count()).filter(|trace| !batch.trace_ranges[*trace].overlaps(&range)) {
            batch.rows_of(trace).for_each(|row| outside.insert(row));
        }
        let mut rows = filter.rows(&batch);
        rows.subtract(&outside);
        of_group(&batch, &rows)
    });
    Ok((made, stats))
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
