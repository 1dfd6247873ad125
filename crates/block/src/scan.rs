//! Columns of a block: conditions as masks, values coded, trees from offsets.
//!
//! A request is compiled against the block's tables first. What it says about shapes and origins is
//! decided there, once per distinct combination; only what varies per span reads a column:
//!
//! ```text
//!   resource.service.name = "shop"   ->  one bit per origin    (origin_id column, 1 lookup per span)
//!   name = "GET /" && status = error ->  one bit per shape     (shape_id column, 1 lookup per span)
//!   span.user.id = "u7"              ->  the column, its dictionary entries first
//! ```
//!
//! A group of the scan is a row group. It is read in the order of cost: needed masks, each term on the
//! rows that the terms before left over; when a row is left, the other masks, the values and the tree.
//!
//! **Invariant:** masks and values are those of [`spoor_model::columns::ColumnBatch::of_traces`] on the
//! spans that [`crate::rows`] reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow_array::Array;
use parking_lot::Mutex;
use spoor_model::TimeRange;
use spoor_model::bits::Bits;
use spoor_model::columns::{
    ColumnBatch, ColumnPart, ColumnRequest, ColumnScan, FieldColumn, GroupInfo, NO_ROW, Pruned, ValuesOf,
};
use spoor_model::scan::{QueryContext, ScanError, ScanStats};

use crate::error::Error;
use crate::outline::{Group, Outline};
use crate::source::Block;
use crate::traces::TraceTable;

mod byte_streams;
mod compile;
mod evaluate;
mod group;
mod lists;
mod stored;
mod tree;
mod values;

use compile::Node;
use group::GroupReader;
use values::{Asked, Source};

/// A request compiled for one block, of which something may satisfy it.
struct BlockScan<'a> {
    block: &'a Block,
    outline: Arc<Outline>,
    request: &'a ColumnRequest,
    masks: Vec<Node>,
    sources: Vec<Source>,
    /// Row groups that may matter, and what they are.
    groups: Vec<usize>,
    infos: Vec<GroupInfo>,
    pruned: Pruned,
    traces: Traces,
}

/// The trace table while groups are read: whatever the cache does, a scan loads it once, and not before the first
/// group nor longer than until the last.
struct Traces {
    table: Mutex<Option<Arc<TraceTable>>>,
    groups_left: AtomicUsize,
}

impl Traces {
    fn get(&self, outline: &Outline) -> Result<Arc<TraceTable>, Error> {
        let mut table = self.table.lock();
        match &*table {
            Some(table) => Ok(Arc::clone(table)),
            None => Ok(Arc::clone(table.insert(outline.traces()?))),
        }
    }

    /// A group read twice counts twice: then the table is only asked for again.
    fn end_group(&self) {
        let left = self.groups_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if left.is_ok_and(|left| left <= 1) {
            *self.table.lock() = None;
        }
    }
}

/// Compiles a request. Reads no spans, nor their footer in blocks whose index describes the columns; the trace table only
/// when the time range ends within a row group.
pub(crate) fn scan<'a>(
    block: &'a Block,
    outline: Arc<Outline>,
    request: &'a ColumnRequest,
) -> Result<Box<dyn ColumnScan + 'a>, Error> {
    let masks: Vec<Node> = request.masks.iter().map(|predicate| compile::compile(predicate, &outline)).collect();
    let (mut groups, mut pruned) = concerned(&outline, request, &masks)?;
    if !groups.is_empty() && !outline.knows_columns() {
        // A block of before: the footer says more.
        block.opened_with(&outline)?;
        (groups, pruned) = concerned(&outline, request, &masks)?;
    }
    if groups.is_empty() {
        // The block need not stay open.
        return Ok(Box::new(Nothing(pruned)));
    }
    let sources = request.columns.iter().map(|field| Source::new(field, &outline)).collect();
    let infos = groups.iter().map(|group| outline.groups[*group].info).collect();
    let traces = Traces { table: Mutex::new(None), groups_left: AtomicUsize::new(groups.len()) };
    Ok(Box::new(BlockScan { block, outline, request, masks, sources, groups, infos, pruned, traces }))
}

/// The row groups that may matter, latest first, and how many do not.
fn concerned(outline: &Outline, request: &ColumnRequest, masks: &[Node]) -> Result<(Vec<usize>, Pruned), Error> {
    let mut pruned = Pruned { group_count: outline.groups.len() as u64, ..Pruned::default() };
    let mut groups = Vec::new();
    for (index, group) in outline.groups.iter().enumerate().rev() {
        let may_match = || {
            let mut needed = request.needed.iter();
            request.needed.is_empty() || needed.any(|mask| masks[*mask].may_match(outline, index))
        };
        // In the order of cost: whether a trace lies in the range may take the trace table.
        match group.info.range.overlaps(&request.range) {
            false => pruned.by_range += 1,
            true if !may_match() => pruned.by_content += 1,
            true if overlaps(outline, group, &request.range)? => groups.push(index),
            true => pruned.by_range += 1,
        }
    }
    Ok((groups, pruned))
}

/// Whether a trace of the row group, which overlaps the range as a whole, does.
fn overlaps(outline: &Outline, group: &Group, range: &TimeRange) -> Result<bool, Error> {
    let info = &group.info;
    // At these some trace starts or ends.
    let known = [info.range.start, info.latest_trace_start, info.range.end];
    if known.into_iter().any(|instant| range.overlaps(&TimeRange { start: instant, end: instant })) {
        return Ok(true);
    }
    let traces = outline.traces()?;
    Ok(group.traces.clone().any(|trace| traces.range(trace).overlaps(range)))
}

impl BlockScan<'_> {
    fn read_group(&self, reader: &GroupReader<'_>) -> Result<Option<ColumnBatch>, Error> {
        let request = self.request;
        let everything = Bits::all(reader.row_count());
        let mut masks: Vec<Option<Bits>> = vec![None; self.masks.len()];
        let mut needed = Bits::none(reader.row_count());
        for index in &request.needed {
            let rows = self.masks[*index].evaluate(reader, &everything)?;
            needed.union(&rows);
            masks[*index] = Some(rows);
        }
        if request.needed.is_empty() {
            needed = everything.clone();
        } else if needed.is_empty() {
            return Ok(None);
        }
        let masks = masks.into_iter().zip(&self.masks).map(|(known, node)| match known {
            Some(rows) => Ok(rows),
            None => node.evaluate(reader, &everything),
        });
        let masks = masks.collect::<Result<_, Error>>()?;
        let (mut parents, mut roots) = (Vec::new(), Vec::new());
        if request.tree {
            parents = tree::parents(reader)?;
            roots = tree::roots(reader, &parents)?;
        }
        let wanted = match request.values_of {
            ValuesOf::AllRows => everything,
            ValuesOf::NeededRows => needed,
            ValuesOf::OneEach => {
                roots.iter().filter(|root| **root != NO_ROW).for_each(|root| needed.insert(*root as usize));
                needed
            }
        };
        let group = reader.group();
        let trace_ranges: Vec<TimeRange> = group.traces.clone().map(|trace| reader.traces.range(trace)).collect();
        let crossing = request.intervals.map(|intervals| {
            let mut rows = Bits::none(reader.row_count());
            let traces = intervals.crossed_by(&trace_ranges);
            traces.iter().for_each(|trace| rows.insert_range(tree::rows_of_trace(reader, trace)));
            rows.intersect(&wanted);
            rows
        });
        let starts_of = crossing.as_ref().unwrap_or(&wanted);
        let first_will_do = request.values_of == ValuesOf::OneEach;
        let columns = values::read(&self.sources, reader, &Asked { rows: &wanted, starts_of, first_will_do })?;
        let mut trace_rows = vec![0];
        trace_rows.extend((0..group.traces.len()).map(|trace| tree::rows_of_trace(reader, trace).end as u32));
        let mut batch = ColumnBatch {
            trace_ids: reader.trace_ids()?.to_vec(),
            trace_rows,
            trace_ranges,
            irregular: Bits::none(group.traces.len()),
            masks,
            columns,
            parents,
            roots,
        };
        if request.tree || request.copies {
            batch.irregular = tree::irregular(reader)?;
        }
        Ok(Some(batch))
    }
}

impl ColumnScan for BlockScan<'_> {
    fn groups(&self) -> &[GroupInfo] {
        &self.infos
    }

    fn pruned(&self) -> Pruned {
        self.pruned.clone()
    }

    fn read(&self, group: usize, ctx: &QueryContext) -> Result<(Option<ColumnBatch>, ScanStats), ScanError> {
        ctx.check()?;
        let opened = self.block.opened_with(&self.outline)?;
        let reader = GroupReader::new(&opened, self.groups[group], self.traces.get(&self.outline)?);
        let batch = self.read_group(&reader);
        self.traces.end_group();
        let batch = batch?;
        if let Some(batch) = &batch {
            ctx.reserve(memory_bytes(batch))?;
        }
        let stats = ScanStats {
            spans_inspected: reader.row_count() as u64,
            traces_inspected: reader.group().traces.len() as u64,
            bytes_inspected: reader.read_bytes(),
        };
        Ok((batch, stats))
    }
}

/// The answer of a block of which nothing can satisfy the request.
pub(crate) struct Nothing(Pruned);

impl Nothing {
    /// Of a block that does not overlap the range, and so is not opened: it counts as one group.
    pub(crate) fn out_of_range() -> Self {
        Self(Pruned { group_count: 1, by_range: 1, by_content: 0 })
    }
}

impl ColumnScan for Nothing {
    fn groups(&self) -> &[GroupInfo] {
        &[]
    }

    fn pruned(&self) -> Pruned {
        self.0.clone()
    }

    fn read(&self, group: usize, _ctx: &QueryContext) -> Result<(Option<ColumnBatch>, ScanStats), ScanError> {
        unreachable!("there are no groups, and so no group {group}")
    }
}

/// What a batch holds, roughly: values in tables and lists are counted as a few words each.
fn memory_bytes(batch: &ColumnBatch) -> usize {
    const VALUE_BYTES: usize = 64;
    let of_part = |part: &ColumnPart| match part {
        ColumnPart::Coded { codes, values } => codes.get_array_memory_size() + values.len() * VALUE_BYTES,
        ColumnPart::Int(array) => array.get_array_memory_size(),
        ColumnPart::Double(array) => array.get_array_memory_size(),
        ColumnPart::Bool(array) => array.get_array_memory_size(),
        ColumnPart::Text(array) => array.get_array_memory_size(),
        ColumnPart::Sparse { rows, .. } => rows.len() * VALUE_BYTES,
        ColumnPart::PerItem { values, .. } => values.iter().map(|items| (1 + items.len()) * VALUE_BYTES).sum(),
    };
    let of_column = |column: &FieldColumn| column.parts.iter().map(of_part).sum::<usize>();
    let mask_bytes = batch.masks.len() * batch.row_count() / 8;
    // Id, range, first row and root.
    let trace_bytes = batch.trace_count() * (16 + 16 + 4 + 4);
    trace_bytes + mask_bytes + 4 * batch.parents.len() + batch.columns.iter().map(of_column).sum::<usize>()
}
