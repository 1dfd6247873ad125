//! Columns made of whole traces: the reference for all sources, and the way of traces that lie in
//! several.

use std::borrow::Borrow;

use arrow_array::Int32Array;
use hashbrown::HashMap;

use super::{ColumnBatch, ColumnPart, ColumnRequest, ColumnScan, FieldColumn, GroupInfo, NO_ROW, Pruned};
use crate::bits::Bits;
use crate::scan::{Field, FieldValue, Predicate, QueryContext, ScanError, ScanStats, field};
use crate::span::{SpanEntry, Trace};
use crate::structure::{self, Tree};
use crate::value::Value;

impl ColumnBatch {
    /// The columns of whole traces. Irregular traces are marked all the same; their parents are good, as
    /// far as there are any. They have a tree, too, when copies are asked for: of an irregular trace, only the
    /// tree tells which spans are roots.
    pub fn of_traces<T: Borrow<Trace>>(traces: &[T], request: &ColumnRequest) -> Self {
        let mut batch = Self { trace_rows: vec![0], irregular: Bits::none(traces.len()), ..Self::default() };
        let mut entries: Vec<&SpanEntry> = Vec::new();
        for (index, trace) in traces.iter().map(T::borrow).enumerate() {
            let first = entries.len() as u32;
            if request.tree || request.copies {
                let tree = Tree::of(trace);
                entries.extend(tree.order.iter().map(|place| &trace.entries[*place]));
                let row = |parent: u32| if parent >= structure::MISSING { parent } else { first + parent };
                batch.parents.extend(tree.parents.iter().map(|parent| row(*parent)));
                let root = structure::root(trace).and_then(|root| tree.order.iter().position(|place| *place == root));
                batch.roots.push(root.map_or(NO_ROW, |place| first + place as u32));
            } else {
                entries.extend(&trace.entries);
            }
            if (request.tree || request.copies) && has_shared_ids(trace) {
                batch.irregular.insert(index);
            }
            batch.trace_ids.push(trace.id);
            batch.trace_ranges.push(trace.range());
            batch.trace_rows.push(entries.len() as u32);
        }
        let mask = |predicate: &Predicate| Bits::from_fn(entries.len(), |row| predicate.matches(entries[row]));
        batch.masks = request.masks.iter().map(mask).collect();
        batch.columns = request.columns.iter().map(|field| column(field, &entries)).collect();
        batch
    }
}

fn has_shared_ids(trace: &Trace) -> bool {
    let mut ids: Vec<_> = trace.entries.iter().map(|entry| entry.span.span_id).collect();
    ids.sort_unstable();
    ids.windows(2).any(|pair| pair[0] == pair[1])
}

fn column(field: &Field, entries: &[&SpanEntry]) -> FieldColumn {
    let mut coded = Coder::default();
    let (mut rows, mut lists) = (Vec::new(), Vec::new());
    for (row, entry) in entries.iter().enumerate() {
        match field::of_span(field, entry) {
            FieldValue::One(value) => coded.push(value),
            FieldValue::PerItem(values) => {
                coded.push(None);
                if !values.is_empty() {
                    rows.push(row as u32);
                    lists.push(values);
                }
            }
        }
    }
    let mut parts = Vec::new();
    parts.extend(coded.finish());
    if !rows.is_empty() {
        parts.push(ColumnPart::PerItem { rows, values: lists });
    }
    FieldColumn { parts }
}

/// Gives equal values equal codes, as far as their debug text tells.
#[derive(Default)]
struct Coder {
    codes: Vec<Option<i32>>,
    values: Vec<Option<Value>>,
    known: HashMap<String, i32>,
}

impl Coder {
    fn push(&mut self, value: Option<Value>) {
        let code = value.map(|value| {
            *self.known.entry(format!("{value:?}")).or_insert_with(|| {
                self.values.push(Some(value));
                self.values.len() as i32 - 1
            })
        });
        self.codes.push(code);
    }

    fn finish(self) -> Option<ColumnPart> {
        let has_values = !self.values.is_empty();
        has_values.then(|| ColumnPart::Coded { codes: Int32Array::from(self.codes), values: self.values.into() })
    }
}

/// A scan of traces that are at hand: one group.
pub struct TracesScan<'a> {
    traces: Vec<Trace>,
    request: &'a ColumnRequest,
    groups: Vec<GroupInfo>,
}

impl<'a> TracesScan<'a> {
    /// A scan of all these traces.
    pub fn new(traces: Vec<Trace>, request: &'a ColumnRequest) -> Self {
        let ranges = || traces.iter().map(Trace::range);
        let group = ranges().reduce(|a, b| a.union(&b)).map(|range| GroupInfo {
            latest_trace_start: ranges().map(|range| range.start).max().unwrap_or(range.start),
            range,
            span_count: traces.iter().map(|trace| trace.entries.len() as u64).sum(),
        });
        let groups = group.filter(|_| ranges().any(|range| range.overlaps(&request.range))).into_iter().collect();
        Self { traces, request, groups }
    }
}

impl ColumnScan for TracesScan<'_> {
    fn groups(&self) -> &[GroupInfo] {
        &self.groups
    }

    fn pruned(&self) -> Pruned {
        let group_count = u64::from(!self.traces.is_empty());
        Pruned { group_count, by_range: group_count - self.groups.len() as u64, by_content: 0 }
    }

    fn read(&self, _group: usize, ctx: &QueryContext) -> Result<(Option<ColumnBatch>, ScanStats), ScanError> {
        ctx.check()?;
        let batch = ColumnBatch::of_traces(&self.traces, self.request);
        let (spans_inspected, traces_inspected) = (batch.row_count() as u64, batch.trace_count() as u64);
        let stats = ScanStats { spans_inspected, traces_inspected, bytes_inspected: 0 };
        let needed = &self.request.needed;
        let is_needed = needed.is_empty() || needed.iter().any(|mask| !batch.masks[*mask].is_empty());
        Ok((is_needed.then_some(batch), stats))
    }
}
