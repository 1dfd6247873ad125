//! A columnar question to the head: its traces in groups, newest first.
//!
//! ```text
//!   traces by start, newest first    | 16k rows | 32k | 64k | 128k | 128k | ...
//!   read(group)    masks of the segments it lies in (kept for the groups to come)
//!                  -> traces with a needed row -> layout -> masks, columns in its order
//! ```
//!
//! A group is small at first: a search for the newest traces usually ends there. Traces outside the
//! range, and traces without a row in a needed mask, are in no batch: nobody needs their order.

use std::sync::{Arc, OnceLock};

use spoor_model::batch::SpanBatch;
use spoor_model::bits::Bits;
use spoor_model::columns::{
    ColumnBatch, ColumnPart, ColumnRequest, ColumnScan, FieldColumn, GroupInfo, Pruned, ValuesOf,
};
use spoor_model::scan::{QueryContext, ScanError, ScanStats};
use spoor_model::{TimeRange, Value};

use super::layout::{Collector, Layout, Places, ROW_BYTES, Want};
use super::traces::{HeadTraces, SegmentView};
use super::{Segment, fields, masks};

/// How many rows groups have.
#[derive(Debug, Clone, Copy)]
pub(super) struct GroupRows {
    /// The first group; each that follows may have twice as many.
    pub(super) first: u64,
    /// The largest. A larger trace is a group of its own.
    pub(super) max: u64,
}

impl GroupRows {
    /// The newest 20 traces of nearly any search are among 16k rows. 128k are enough that what a group
    /// costs besides its rows is little, and few enough that its trees stay in cache: on 613k spans, all in one
    /// group, a search for the newest takes 16 ms instead of 3, a tree 69 ns per span instead of 55
    /// (`benches/head.rs`).
    pub(super) const USUAL: Self = Self { first: 16 << 10, max: 128 << 10 };
}

/// Stands for a trace that is in no group, or not kept of its group.
const LEFT_OUT: u32 = u32::MAX;

/// What a row of a column takes, about.
const VALUE_BYTES: usize = 16;

/// The masks of one segment.
struct SegmentMasks {
    masks: Vec<Bits>,
    /// By the segment's own number: the traces with a row in a needed mask.
    needed: Bits,
}

/// A request to the head, on the rows that it had when the request came.
pub(super) struct HeadScan<'a> {
    segments: &'a [Arc<Segment>],
    traces: HeadTraces,
    request: &'a ColumnRequest,
    groups: Vec<GroupInfo>,
    /// By group: its traces, newest first.
    members: Vec<Vec<u32>>,
    /// By trace: its group, or [`LEFT_OUT`].
    group_of: Vec<u32>,
    masks: Vec<OnceLock<SegmentMasks>>,
}

impl<'a> HeadScan<'a> {
    pub(super) fn new(
        segments: &'a [Arc<Segment>],
        traces: HeadTraces,
        request: &'a ColumnRequest,
        rows: GroupRows,
        ctx: &QueryContext,
    ) -> Result<Self, ScanError> {
        let bits = traces.views.iter().map(|view| view.len as usize / 8).sum::<usize>();
        ctx.reserve(traces.traces.len() * 3 * size_of::<u32>() + bits * (request.masks.len() + 1))?;
        let mut scan = Self {
            segments,
            request,
            groups: Vec::new(),
            members: Vec::new(),
            group_of: vec![LEFT_OUT; traces.traces.len()],
            masks: traces.views.iter().map(|_| OnceLock::new()).collect(),
            traces,
        };
        scan.form_groups(rows);
        Ok(scan)
    }

    fn form_groups(&mut self, rows: GroupRows) {
        let traces = &self.traces.traces;
        let in_range = traces.iter().zip(0u32..).filter(|(trace, _)| trace.range.overlaps(&self.request.range));
        let mut newest_first: Vec<(u64, u32)> = in_range.map(|(trace, index)| (!trace.range.start.0, index)).collect();
        newest_first.sort_unstable();
        let mut rows_max = rows.first;
        for (_, index) in newest_first {
            let trace = &traces[index as usize];
            let span_count = u64::from(trace.span_count);
            match self.groups.last_mut() {
                Some(group) if group.span_count + span_count <= rows_max => {
                    group.range = group.range.union(&trace.range);
                    group.span_count += span_count;
                }
                last => {
                    if last.is_some() {
                        rows_max = (rows_max * 2).min(rows.max);
                    }
                    let latest_trace_start = trace.range.start;
                    self.groups.push(GroupInfo { latest_trace_start, range: trace.range, span_count });
                    self.members.push(Vec::new());
                }
            }
            self.group_of[index as usize] = self.groups.len() as u32 - 1;
            self.members[self.groups.len() - 1].push(index);
        }
    }

    /// The segment's masks, evaluated when first asked for.
    fn masks(&self, segment: usize) -> &SegmentMasks {
        self.masks[segment].get_or_init(|| {
            let batch = self.segments[segment].read();
            let names = self.segments[segment].names(&batch);
            let evaluated = self.request.masks.iter().map(|predicate| masks::rows_of(&batch, names, predicate));
            let masks: Vec<Bits> = evaluated.collect();
            let needed = self.needed_traces(&batch, &self.traces.views[segment], &masks);
            SegmentMasks { masks, needed }
        })
    }

    fn needed_traces(&self, batch: &SpanBatch, view: &SegmentView, masks: &[Bits]) -> Bits {
        let mut needed = Bits::none(view.trace_of.len());
        for mask in &self.request.needed {
            let rows = masks[*mask].iter().take_while(|row| *row < view.len as usize);
            rows.for_each(|row| needed.insert(batch.trace()[row] as usize));
        }
        needed
    }

    /// The segment's own numbers of traces that are in a group, and which these are.
    fn fragments(&self, segment: usize, group: usize) -> impl Iterator<Item = (u32, u32)> + '_ {
        let locals = (0u32..).zip(&self.traces.views[segment].trace_of);
        let of_group = locals.filter(move |(_, trace)| self.group_of[**trace as usize] == group as u32);
        of_group.map(|(local, trace)| (local, *trace))
    }

    /// The traces of a group that are in its batch, in the group's order.
    fn kept(&self, group: usize) -> Vec<u32> {
        if self.request.needed.is_empty() {
            return self.members[group].clone();
        }
        let mut is_needed = Bits::none(self.traces.traces.len());
        for segment in 0..self.segments.len() {
            let mut fragments = self.fragments(segment, group).peekable();
            if fragments.peek().is_none() {
                continue;
            }
            let needed = &self.masks(segment).needed;
            fragments.filter(|(local, _)| needed.contains(*local as usize)).for_each(|(_, trace)| {
                is_needed.insert(trace as usize);
            });
        }
        self.members[group].iter().copied().filter(|trace| is_needed.contains(*trace as usize)).collect()
    }

    fn layout(&self, group: usize, kept: &[u32], ctx: &QueryContext) -> Result<Layout, ScanError> {
        let want = match (self.request.tree, self.request.copies) {
            (true, _) => Want::Tree,
            (false, true) => Want::Copies,
            (false, false) => Want::Rows,
        };
        let mut place_of = vec![LEFT_OUT; self.traces.traces.len()];
        kept.iter().zip(0..).for_each(|(trace, place)| place_of[*trace as usize] = place);
        let span_counts = kept.iter().map(|trace| self.traces.traces[*trace as usize].span_count);
        let mut collector = Collector::new(want, span_counts);
        for (segment, view) in self.traces.views.iter().enumerate() {
            ctx.check()?;
            let placed = self.fragments(segment, group).map(|(local, trace)| (local, place_of[trace as usize]));
            let fragments: Vec<(u32, u32)> = placed.filter(|(_, place)| *place != LEFT_OUT).collect();
            if !fragments.is_empty() {
                collector.add(segment, &self.segments[segment].read(), view.len, &fragments);
            }
        }
        Ok(collector.finish())
    }

    /// A mask in the order of the batch.
    fn place_mask(&self, mask: usize, places: &[Places], row_count: usize) -> Bits {
        let mut placed = Bits::none(row_count);
        for places in places {
            let rows = self.masks(places.segment).masks[mask].iter();
            rows.filter_map(|row| places.of(row as u32)).for_each(|place| placed.insert(place));
        }
        placed
    }

    fn columns(&self, batch: &ColumnBatch, places: &[Places]) -> Vec<FieldColumn> {
        let needed = &self.request.needed;
        let restricted = (self.request.values_of == ValuesOf::NeededRows && !needed.is_empty()).then(|| {
            let mut wanted = Bits::none(batch.row_count());
            needed.iter().for_each(|mask| wanted.union(&batch.masks[*mask]));
            places.iter().map(|places| places.restricted_to(&wanted)).collect::<Vec<_>>()
        });
        let places = restricted.as_deref().unwrap_or(places);
        let column = |field| fields::column(field, self.segments, places, &batch.trace_ids, &batch.trace_rows);
        self.request.columns.iter().map(column).collect()
    }

    /// What was looked at: the group's share of the head.
    fn stats(&self, group: usize) -> ScanStats {
        let spans_inspected = self.groups[group].span_count;
        let all_spans: u64 = self.traces.views.iter().map(|view| u64::from(view.len)).sum();
        let all_bytes: u64 = self.traces.views.iter().map(|view| view.bytes as u64).sum();
        let bytes_inspected = u128::from(all_bytes) * u128::from(spans_inspected) / u128::from(all_spans.max(1));
        let traces_inspected = self.members[group].len() as u64;
        ScanStats { spans_inspected, traces_inspected, bytes_inspected: bytes_inspected as u64 }
    }
}

impl ColumnScan for HeadScan<'_> {
    fn groups(&self) -> &[GroupInfo] {
        &self.groups
    }

    fn pruned(&self) -> Pruned {
        // All traces outside the range count as one group.
        let by_range = u64::from(self.group_of.contains(&LEFT_OUT));
        Pruned { group_count: self.groups.len() as u64 + by_range, by_range, by_content: 0 }
    }

    fn read(&self, group: usize, ctx: &QueryContext) -> Result<(Option<ColumnBatch>, ScanStats), ScanError> {
        ctx.check()?;
        let stats = self.stats(group);
        let kept = self.kept(group);
        if kept.is_empty() {
            return Ok((None, stats));
        }
        let kept_traces = || kept.iter().map(|trace| &self.traces.traces[*trace as usize]);
        let row_count: usize = kept_traces().map(|trace| trace.span_count as usize).sum();
        let trace_bytes = kept.len() * (size_of::<TimeRange>() + 16 + 8);
        ctx.reserve(row_count * (4 + VALUE_BYTES * self.request.columns.len()) + trace_bytes)?;
        let working = ctx.part();
        working.reserve(row_count * ROW_BYTES)?;
        let Layout { trace_rows, irregular, parents, roots, places } = self.layout(group, &kept, ctx)?;
        let mut batch = ColumnBatch {
            trace_ids: kept_traces().map(|trace| trace.id).collect(),
            trace_ranges: kept_traces().map(|trace| trace.range).collect(),
            trace_rows,
            irregular,
            parents,
            roots,
            ..ColumnBatch::default()
        };
        batch.masks = (0..self.request.masks.len()).map(|mask| self.place_mask(mask, &places, row_count)).collect();
        batch.columns = self.columns(&batch, &places);
        ctx.check()?;
        ctx.reserve(batch.columns.iter().flat_map(|column| &column.parts).map(value_bytes).sum())?;
        Ok((Some(batch), stats))
    }
}

/// What the values of a column take besides [`VALUE_BYTES`] per row.
fn value_bytes(part: &ColumnPart) -> usize {
    let of_value = |value: &Value| match value {
        Value::Str(text) => size_of::<Value>() + text.len(),
        Value::Bytes(bytes) => size_of::<Value>() + bytes.len(),
        // Lists are rare; their depth is bounded, their length by what a request may hold.
        _ => 2 * size_of::<Value>(),
    };
    match part {
        ColumnPart::Coded { values, .. } => values.iter().flatten().map(of_value).sum(),
        ColumnPart::Text(texts) => texts.values().len(),
        ColumnPart::Sparse { values, .. } => values.iter().map(of_value).sum(),
        ColumnPart::PerItem { values, .. } => values.iter().flatten().flatten().map(of_value).sum(),
        ColumnPart::Int(_) | ColumnPart::Double(_) | ColumnPart::Bool(_) => 0,
    }
}
