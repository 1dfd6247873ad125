//! Parents, roots and shared ids of a row group, from offsets and explicit ids.
//!
//! The writer places children behind their parents, and roots of a trace by (start, span id); so the
//! tree costs one addition per row, and the root of a trace is its last row without a parent.

use std::ops::Range;

use arrow_array::cast::AsArray;
use arrow_array::types::Int32Type;
use arrow_array::{Array, FixedSizeBinaryArray, Int32Array};
use spoor_model::bits::Bits;
use spoor_model::columns::NO_ROW;
use spoor_model::structure::{MISSING, ROOT};
use spoor_model::{Value, value};

use super::compile::ItemKind;
use super::evaluate::{for_items, for_lists};
use super::group::GroupReader;
use crate::error::Error;

/// The link attribute by which OpenTracing's parents are named.
const REF_TYPE: &str = "opentracing.ref_type";

/// The rows of a trace within the group, by its place among the group's traces.
pub(super) fn rows_of_trace(reader: &GroupReader<'_>, trace: usize) -> Range<usize> {
    let group = reader.group();
    let rows = reader.traces.rows(group.traces.start + trace);
    rows.start - group.rows.start..rows.end - group.rows.start
}

fn fixed8(reader: &GroupReader<'_>, name: &str) -> Result<FixedSizeBinaryArray, Error> {
    let array = reader.named(name)?;
    let ids = array.as_fixed_size_binary_opt().filter(|ids| ids.value_length() == 8);
    ids.cloned().ok_or_else(|| reader.corrupt(format!("column {name} has the wrong type")))
}

pub(super) fn span_ids(reader: &GroupReader<'_>) -> Result<FixedSizeBinaryArray, Error> {
    fixed8(reader, "span_id")
}

/// Ids of parents that no offset leads to; `None` when there are none.
fn explicit_parents(reader: &GroupReader<'_>) -> Result<Option<FixedSizeBinaryArray>, Error> {
    match reader.opened.column("parent_span_id") {
        Some(column) if !reader.opened.is_all_null(reader.group, column) => fixed8(reader, "parent_span_id").map(Some),
        _ => Ok(None),
    }
}

fn offsets(reader: &GroupReader<'_>) -> Result<Int32Array, Error> {
    let array = reader.named("parent_offset")?;
    let offsets = array.as_primitive_opt::<Int32Type>();
    offsets.cloned().ok_or_else(|| reader.corrupt("column parent_offset has the wrong type"))
}

/// Each row's parent row, `ROOT` or `MISSING`.
pub(super) fn parents(reader: &GroupReader<'_>) -> Result<Vec<u32>, Error> {
    let offsets = offsets(reader)?;
    // Offsets past the beginning, and negative ones, wrap to far behind the row.
    let parent = |(row, offset): (u32, &i32)| match offset {
        0 => ROOT,
        offset => row.wrapping_sub(*offset as u32),
    };
    let mut parents: Vec<u32> = (0..).zip(offsets.values()).map(parent).collect();
    let is_sound = parents.iter().zip(0..).all(|(parent, row)| *parent < row || *parent == ROOT);
    if !is_sound {
        return Err(reader.corrupt("a parent offset leads out of its row group"));
    }
    if let Some(explicit) = explicit_parents(reader)? {
        for (row, parent) in parents.iter_mut().enumerate() {
            if *parent == ROOT && explicit.is_valid(row) {
                *parent = MISSING;
            }
        }
    }
    Ok(parents)
}

/// Per trace of the group the row of its root, or `NO_ROW`.
pub(super) fn roots(reader: &GroupReader<'_>, parents: &[u32]) -> Result<Vec<u32>, Error> {
    let children_by_link = children_by_link(reader, parents)?;
    let traces = reader.group().traces.len();
    let root_of = |trace| {
        let mut rows = rows_of_trace(reader, trace).rev();
        let root =
            rows.find(|row| parents[*row] == ROOT && !children_by_link.as_ref().is_some_and(|set| set.contains(*row)));
        root.map_or(NO_ROW, |row| row as u32)
    };
    Ok((0..traces).map(root_of).collect())
}

/// Rows without a parent that a link makes children of a span of their own trace.
fn children_by_link(reader: &GroupReader<'_>, parents: &[u32]) -> Result<Option<Bits>, Error> {
    if !ItemKind::Link.keys(reader.opened).contains(REF_TYPE) {
        return Ok(None);
    }
    let tops = Bits::from_fn(parents.len(), |row| parents[row] == ROOT);
    let trace_ids = reader.trace_ids()?;
    let mut children = Bits::none(parents.len());
    for_lists(reader, ItemKind::Link.column(), &tops, |row, list| {
        let trace_id = trace_ids[trace_of_row(reader, row)];
        for_items(reader, ItemKind::Link, list, |item| {
            let link = item.link()?;
            let reference = value::find(&link.attributes, REF_TYPE).and_then(Value::as_str);
            if link.trace_id == trace_id && reference == Some("child_of") {
                children.insert(row);
            }
            Ok(())
        })
    })?;
    Ok(Some(children))
}

fn trace_of_row(reader: &GroupReader<'_>, row: usize) -> usize {
    let group = reader.group();
    reader.traces.trace_of_row(group.rows.start + row) - group.traces.start
}

/// Per row the id that the span names as its parent; zeros when it names none.
pub(super) fn parent_ids(reader: &GroupReader<'_>) -> Result<Vec<[u8; 8]>, Error> {
    let (parents, span_ids) = (parents(reader)?, span_ids(reader)?);
    let explicit = explicit_parents(reader)?;
    let id_of = |(row, parent): (usize, &u32)| {
        let id = match (*parent, &explicit) {
            (ROOT, _) => return [0; 8],
            (MISSING, Some(explicit)) => explicit.value(row),
            (parent, _) => span_ids.value(parent as usize),
        };
        id.try_into().expect("8 bytes wide")
    };
    Ok(parents.iter().enumerate().map(id_of).collect())
}

/// The group's traces with two rows of one span id. Looked for once per opened block.
pub(super) fn irregular(reader: &GroupReader<'_>) -> Result<Bits, Error> {
    let group = reader.group();
    if let Some(known) = group.irregular.get() {
        return Ok(known.clone());
    }
    let array = span_ids(reader)?;
    let ids: Vec<u64> =
        (0..array.len()).map(|row| u64::from_le_bytes(array.value(row).try_into().expect("8 bytes wide"))).collect();
    let mut sorted: Vec<u64> = Vec::new();
    let irregular = Bits::from_fn(group.traces.len(), |trace| {
        let of_trace = &ids[rows_of_trace(reader, trace)];
        sorted.clear();
        sorted.extend_from_slice(of_trace);
        sorted.sort_unstable();
        sorted.windows(2).any(|pair| pair[0] == pair[1])
    });
    Ok(group.irregular.get_or_init(|| irregular).clone())
}
