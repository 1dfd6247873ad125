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

use arrow_array::Array;
use spoor_model::bits::Bits;
use spoor_model::columns::{
    ColumnBatch, ColumnPart, ColumnRequest, ColumnScan, FieldColumn, GroupInfo, Pruned, ValuesOf,
};
use spoor_model::scan::{QueryContext, ScanError, ScanStats};

use crate::error::Error;
use crate::open::Opened;

mod compile;
mod evaluate;
mod group;
mod tree;
mod values;

use compile::Node;
use group::GroupReader;
use values::Source;

/// A request compiled for one block.
pub(crate) struct BlockScan<'a> {
    opened: Arc<Opened>,
    request: &'a ColumnRequest,
    masks: Vec<Node>,
    sources: Vec<Source>,
    /// Row groups that may matter, and what they are.
    groups: Vec<usize>,
    infos: Vec<GroupInfo>,
    pruned: Pruned,
}

impl<'a> BlockScan<'a> {
    /// Compiles a request. Reads no spans.
    pub(crate) fn new(opened: Arc<Opened>, request: &'a ColumnRequest) -> Self {
        let masks: Vec<Node> = request.masks.iter().map(|predicate| compile::compile(predicate, &opened)).collect();
        let mut pruned = Pruned { group_count: opened.groups.len() as u64, ..Pruned::default() };
        let mut groups = Vec::new();
        for (index, group) in opened.groups.iter().enumerate().rev() {
            let mut traces = group.traces.clone();
            let overlaps = group.info.range.overlaps(&request.range)
                && traces.any(|trace| opened.traces.range(trace).overlaps(&request.range));
            let may_match = || {
                let mut needed = request.needed.iter();
                request.needed.is_empty() || needed.any(|mask| masks[*mask].may_match(&opened, index))
            };
            match overlaps {
                false => pruned.by_range += 1,
                true if may_match() => groups.push(index),
                true => pruned.by_content += 1,
            }
        }
        let sources = match groups.is_empty() {
            true => Vec::new(),
            false => request.columns.iter().map(|field| Source::new(field, &opened)).collect(),
        };
        let infos = groups.iter().map(|group| opened.groups[*group].info).collect();
        Self { opened, request, masks, sources, groups, infos, pruned }
    }

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
        let wanted = match request.values_of {
            ValuesOf::AllRows => &everything,
            ValuesOf::NeededRows => &needed,
        };
        let columns = self.sources.iter().map(|source| source.read(reader, wanted)).collect::<Result<_, Error>>()?;
        let group = reader.group();
        let mut trace_rows = vec![0];
        trace_rows.extend((0..group.traces.len()).map(|trace| tree::rows_of_trace(reader, trace).end as u32));
        let mut batch = ColumnBatch {
            trace_ids: reader.trace_ids()?.to_vec(),
            trace_rows,
            trace_ranges: group.traces.clone().map(|trace| self.opened.traces.range(trace)).collect(),
            irregular: Bits::none(group.traces.len()),
            masks,
            columns,
            ..ColumnBatch::default()
        };
        if request.tree {
            batch.parents = tree::parents(reader)?;
            batch.roots = tree::roots(reader, &batch.parents)?;
        }
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
        let reader = GroupReader::new(&self.opened, self.groups[group]);
        let batch = self.read_group(&reader)?;
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

/// The answer of a block that does not overlap the range, and so is not opened: it counts as one group.
pub(crate) struct OutOfRange;

impl ColumnScan for OutOfRange {
    fn groups(&self) -> &[GroupInfo] {
        &[]
    }

    fn pruned(&self) -> Pruned {
        Pruned { group_count: 1, by_range: 1, by_content: 0 }
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
