//! Several blocks become one: fragments of a trace come together, exact copies of a span fall away, and what
//! folds, varies and how it is encoded is chosen anew.
//!
//! ```text
//!   input.rs   trace tables ---- order.rs: the traces of the new block, by (start, id), each with its fragments
//!              a sample of rows ------ decide: what folds, which columns there are
//!              rows, chunk by chunk -- chunk.rs: a step of some thousand rows, as the head would hold them
//!                                        |
//!                                        v      order, shapes, gather, encode as in a cut
//!                                      writer.rs: row groups, at the end tables and index
//! ```
//!
//! **Memory** is that of one step, one row group encoded, a decoded chunk and an open row group of each input whose time
//! it is, and chunks that were decoded early, which give way when [`MergeOptions::memory_bytes`] is full. Besides about
//! 200 bytes per trace of the inputs: whoever plans merges bounds their traces. A trace is held whole: the largest one is
//! part of the bound.

mod chunk;
mod input;
mod order;
mod windows;

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use spoor_model::batch::{COLUMNS_MAX, SpanBatch};
use spoor_model::{BlockId, TraceId, UnixNano};

use self::input::Input;
use self::order::{JoinedTrace, Joins, Traces};
pub use self::windows::{LATE_BLOCKS_MAX, TimeWindow};
use crate::columns::{self, ColumnName};
use crate::error::Error;
use crate::files::BlockFiles;
use crate::meta::BlockMeta;
use crate::order::RowRef;
use crate::plan::{self, Plan, Role};
use crate::shape::{self, Dimension, Drift, Stream};
use crate::source::Block;
use crate::tables;
use crate::write::{self, Staged, WriteOptions};
use crate::writer::{BlockWriter, Step};

/// How much is done at once.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// Rows of a step: what is ordered, folded and gathered at once.
    step_rows: usize,
    /// Rows of an input that are decoded at once: a page.
    chunk_rows: usize,
    /// How many rows decide what folds and which columns there are.
    sample_rows: usize,
}

const PACE: Pace = Pace { step_rows: 32_768, chunk_rows: 4096, sample_rows: 65_536 };
/// How often a step is measured, in rows.
const MEASURED_ROWS: usize = 256;
/// After this many samples that did not show what was to come, nothing folds.
const DRIFTS_MAX: usize = 3;

/// How blocks are merged, and what is left out.
pub struct MergeOptions<'a> {
    /// How the new blocks are written.
    pub write: WriteOptions,
    /// A new block ends at the first trace end past this many spans; the rest goes into another.
    pub block_spans: u64,
    /// What steps and decoded chunks may take, in bytes; about 40 MB and 5 MB per input that is read at the same time
    /// come on top, and what the module says of traces.
    pub memory_bytes: usize,
    /// Whether a trace was deleted: none of its spans are written.
    pub is_deleted: &'a dyn Fn(TraceId) -> bool,
    /// Traces that ended before, with all of their fragments, are left out.
    pub keep_after: Option<UnixNano>,
    /// Traces of other times than this go into blocks of their own, [`LATE_BLOCKS_MAX`] and one more at most; `None`: wherever
    /// they stand.
    pub window: Option<TimeWindow>,
}

/// How far a merge is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Spans written so far.
    pub spans_written: u64,
    /// Spans of the inputs.
    pub span_count: u64,
    /// Bytes read and written so far; what was read again or written in vain counts too.
    pub io_bytes: u64,
}

/// What a merge did. `spans_read` is the sum of the other three.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merged {
    /// The new blocks, published; none when every span was left out.
    pub blocks: Vec<BlockMeta>,
    /// Spans of the inputs.
    pub spans_read: u64,
    /// Spans of the new blocks.
    pub spans_written: u64,
    /// Exact copies that fell away; [`BlockMeta::copy_count`] of the new blocks counts those of the inputs too.
    pub copies_dropped: u64,
    /// Spans of traces that were deleted or are too old.
    pub spans_left_out: u64,
    /// Bytes read and written, as in [`Progress`].
    pub io_bytes: u64,
}

/// Merges the spans of `inputs` into new blocks, durably. They are staged until all of them are whole; then each is
/// published. An error, also of an input, leaves nothing behind, a crash what start-up removes. Every new block names
/// its inputs in [`BlockMeta::replaces`].
///
/// `next_id` makes the ids of the new blocks; not all of them need be used. `watch` is called now and then; it breaks the merge off with `Break`
/// and may take its time.
///
/// # Panics
/// When there are no inputs, or inputs of several tenants.
pub fn merge(
    inputs: &[Arc<Block>],
    files: &dyn BlockFiles,
    created_at: UnixNano,
    next_id: &mut dyn FnMut() -> BlockId,
    options: &MergeOptions<'_>,
    watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Merged, Error> {
    merge_at(PACE, inputs, files, created_at, next_id, options, watch).map(|(merged, _)| merged)
}

/// Also says what step and chunks held at most together, in bytes.
fn merge_at(
    pace: Pace,
    inputs: &[Arc<Block>],
    files: &dyn BlockFiles,
    created_at: UnixNano,
    next_id: &mut dyn FnMut() -> BlockId,
    options: &MergeOptions<'_>,
    watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<(Merged, usize), Error> {
    let first = inputs.first().expect("a merge has inputs");
    let (tenant, shared) = (&first.meta().tenant, first.shared_beside_cache());
    assert!(inputs.iter().all(|input| input.meta().tenant == *tenant), "blocks of different tenants never mix");
    let metas: Vec<&BlockMeta> = inputs.iter().map(|input| input.meta()).collect();
    let opened = inputs.iter().map(|input| Input::new(input.open_alone(&shared)?, pace.chunk_rows));
    let mut opened: Vec<Input> = opened.collect::<Result<_, Error>>()?;
    let joins = Joins::find(&opened);
    let starts = opened.iter().flat_map(|input| (0..input.ids.len()).map(|trace| input.traces.range(trace).start));
    let boundaries = options.window.map(|window| windows::boundaries(window, starts)).unwrap_or_default();
    let mut merge = Merge {
        pace,
        held_bytes_max: 0,
        written_bytes: 0,
        metas,
        files,
        created_at,
        next_id,
        options,
        watch,
        inputs: &mut opened,
        joins: &joins,
        boundaries,
    };
    let mut excluded: Vec<Dimension> = Vec::new();
    for attempt in 0.. {
        let decision = merge.decide(&excluded, attempt < DRIFTS_MAX)?;
        match merge.run(&decision) {
            Ok(merged) => return Ok((merged, merge.held_bytes_max)),
            Err(Stop::Failed(err)) => return Err(err),
            Err(Stop::Drifted(Drift(dimensions))) => excluded.extend(dimensions),
        }
        merge.inputs.iter_mut().for_each(Input::rewind);
    }
    unreachable!("what does not fold does not drift")
}

/// Why a pass over the inputs ended early.
enum Stop {
    Failed(Error),
    Drifted(Drift),
}

impl From<Error> for Stop {
    fn from(err: Error) -> Self {
        Self::Failed(err)
    }
}

/// What the sample decided.
struct Decision {
    /// Attribute columns of the sample: what the plan and the dimensions count.
    known: Vec<ColumnName>,
    plan: Plan,
    folded: Vec<Dimension>,
}

struct Merge<'a> {
    pace: Pace,
    held_bytes_max: usize,
    written_bytes: u64,
    metas: Vec<&'a BlockMeta>,
    files: &'a dyn BlockFiles,
    created_at: UnixNano,
    next_id: &'a mut dyn FnMut() -> BlockId,
    options: &'a MergeOptions<'a>,
    watch: &'a mut dyn FnMut(Progress) -> ControlFlow<()>,
    inputs: &'a mut [Input],
    joins: &'a Joins,
    /// Starts of traces at which a new block begins, ascending.
    boundaries: Vec<UnixNano>,
}

impl<'a> Merge<'a> {
    /// Samples the inputs evenly and plans.
    fn decide(&mut self, excluded: &[Dimension], may_fold: bool) -> Result<Decision, Error> {
        let (mut batch, mut seen) = (SpanBatch::new(), 0);
        let span_count: u64 = self.metas.iter().map(|meta| meta.span_count).sum();
        for input in self.inputs.iter_mut() {
            input.begin_batch();
            for (chunk, row_count) in input.chunk_sizes().into_iter().enumerate() {
                let is_due = batch.len() as u64 * span_count <= seen as u64 * self.pace.sample_rows as u64;
                if is_due && batch.memory_bytes() <= self.options.memory_bytes {
                    input.sample(chunk, &mut batch)?;
                }
                seen += row_count;
            }
        }
        let batches = [&batch];
        let merged = columns::merge(&[], &batches);
        let known: Vec<ColumnName> = merged.iter().map(|column| (Arc::clone(&column.key), column.value_type)).collect();
        let everything: Vec<Dimension> = [Dimension::Name, Dimension::Kind, Dimension::StatusCode, Dimension::Flags]
            .into_iter()
            .chain((0..known.len()).map(Dimension::Attribute))
            .collect();
        let rows: Vec<RowRef> = (0..batch.len() as u32).map(|row| RowRef { batch: 0, row }).collect();
        let shapes = shape::detect(&batches, &merged, &rows, if may_fold { excluded } else { &everything });
        let plan = plan::plan(&batches, &merged, &shapes, &|role| self.is_needed(role));
        Ok(Decision { known, plan, folded: shapes.folded })
    }

    /// What the sample may not show, the inputs do.
    fn is_needed(&self, role: Role) -> bool {
        // An attribute that the sample did not have at all.
        role == Role::Residual
            || plan::NAMED
                .iter()
                .filter(|(named, _)| *named == role)
                .any(|(_, name)| self.inputs.iter().any(|input| input.opened.column(name).is_some()))
    }

    /// One pass over the inputs.
    fn run(&mut self, decision: &Decision) -> Result<Merged, Stop> {
        let span_count: u64 = self.metas.iter().map(|meta| meta.span_count).sum();
        let mut merged = Merged {
            blocks: Vec::new(),
            spans_read: span_count,
            spans_written: 0,
            copies_dropped: 0,
            spans_left_out: 0,
            io_bytes: 0,
        };
        let mut traces = Traces::new(self.inputs, self.joins);
        let mut finished: Vec<(Staged, BlockMeta)> = Vec::new();
        let mut open: Option<Output<'_>> = None;
        let in_shapes: Vec<bool> =
            self.inputs.iter().map(|input| input.has_in_shapes(&decision.folded, &decision.known)).collect();
        loop {
            let collected = self.collect(&mut traces, &in_shapes, &mut merged.spans_left_out)?;
            let is_last = collected.batch.is_empty();
            if let Some(output) = open.take_if(|output| !is_last && output.section != collected.section) {
                finished.push(self.finish(output, decision)?);
            }
            if !is_last {
                let output = match &mut open {
                    Some(output) => output,
                    None => open.insert(self.begin(decision, collected.section)?),
                };
                let before_bytes = output.writer.written_bytes();
                let (rows, copies) = output.append(&collected, decision)?;
                self.written_bytes += output.writer.written_bytes() - before_bytes;
                merged.spans_written += rows;
                merged.copies_dropped += copies;
            }
            let is_full = |output: &mut Output<'_>| output.writer.row_count() as u64 >= self.options.block_spans;
            if let Some(output) = open.take_if(|output| is_last || is_full(output)) {
                finished.push(self.finish(output, decision)?);
            }
            merged.io_bytes = self.io_bytes();
            let Merged { spans_written, io_bytes, .. } = merged;
            if (self.watch)(Progress { spans_written, span_count, io_bytes }).is_break() {
                return Err(Error::Cancelled.into());
            }
            if is_last {
                break;
            }
        }
        assert_eq!(
            merged.spans_read,
            merged.spans_written + merged.copies_dropped + merged.spans_left_out,
            "every span of the inputs is written once, a copy, or left out",
        );
        merged.blocks = self.publish(finished)?;
        Ok(merged)
    }

    /// The spans of the next traces that stay; none when all traces were taken.
    fn collect(&mut self, traces: &mut Traces<'_>, in_shapes: &[bool], left_out: &mut u64) -> Result<Collected, Error> {
        let (mut batch, mut sources, mut shapes, mut section) = (SpanBatch::new(), Vec::new(), Vec::new(), 0);
        self.inputs.iter_mut().for_each(Input::begin_batch);
        // Large rows come in small chunks.
        let chunk_rows = self.inputs.iter().map(Input::chunk_rows).min().unwrap_or(usize::MAX);
        let (between_rows, mut measured_rows) = (chunk_rows.min(MEASURED_ROWS), 0);
        while batch.len() < self.pace.step_rows {
            let Some(trace) = traces.next(self.inputs) else { break };
            let of_trace = self.boundaries.partition_point(|boundary| *boundary <= trace.range.start);
            if batch.is_empty() {
                section = of_trace;
            } else if section != of_trace {
                traces.put_back(trace);
                break;
            }
            if self.is_left_out(&trace) {
                *left_out += trace.span_count as u64;
                trace
                    .fragments
                    .iter()
                    .for_each(|(input, trace)| self.inputs[*input as usize].leave_out(*trace as usize));
                continue;
            }
            for (input, trace) in &trace.fragments {
                self.inputs[*input as usize].take(*trace as usize, &mut batch, &mut shapes)?;
                let is_in_shapes = in_shapes[*input as usize];
                sources.extend(shapes.drain(..).map(|shape| is_in_shapes.then_some((*input, shape))));
            }
            self.make_room();
            if batch.len() >= measured_rows + between_rows {
                measured_rows = batch.len();
                let batch_bytes = batch.memory_bytes();
                self.held_bytes_max = self.held_bytes_max.max(batch_bytes + self.held_bytes());
                if batch_bytes > self.options.memory_bytes / 2 {
                    break;
                }
            }
        }
        Ok(Collected { batch, sources, section })
    }

    fn is_left_out(&self, trace: &JoinedTrace) -> bool {
        let is_old = self.options.keep_after.is_some_and(|line| trace.range.end < line);
        is_old || (self.options.is_deleted)(trace.id)
    }

    /// Forgets chunks that were decoded early, those that are due last first, until the others fit.
    fn make_room(&mut self) {
        while self.held_bytes() > self.options.memory_bytes / 2 {
            let due = self.inputs.iter_mut().filter_map(|input| input.last_due().map(|due| (due, input)));
            match due.max_by_key(|(due, _)| *due) {
                Some((_, input)) => input.drop_last(),
                None => break,
            }
        }
    }

    fn io_bytes(&self) -> u64 {
        self.written_bytes + self.inputs.iter().map(|input| input.opened.read_bytes()).sum::<u64>()
    }

    /// Of decoded chunks.
    fn held_bytes(&self) -> usize {
        self.inputs.iter().map(Input::held_bytes).sum()
    }

    fn begin<'d>(&mut self, decision: &'d Decision, section: usize) -> Result<Output<'d>, Error>
    where
        'a: 'd,
    {
        let (id, options) = ((self.next_id)(), self.options);
        let staged = Staged::create(self.files, &self.metas[0].tenant, id)?;
        let mut writer = BlockWriter::create(&staged.dir, &decision.plan, &options.write)?;
        writer.expect_traces(self.inputs.iter().map(|input| input.ids.len()).sum());
        Ok(Output { id, section, staged, writer, shapes: Stream::new(&decision.folded) })
    }

    fn finish(&mut self, output: Output<'_>, decision: &Decision) -> Result<(Staged, BlockMeta), Error> {
        let Output { id, section: _, staged, writer, shapes } = output;
        let before_bytes = writer.written_bytes();
        let shapes = tables::spell_shapes(&shapes.spell(), |index| &decision.known[index].0);
        let mut meta = writer.finish(&shapes, id, &self.metas[0].tenant, self.created_at)?;
        self.written_bytes += meta.size_bytes - before_bytes;
        meta.merge_level = self.metas.iter().map(|meta| meta.merge_level).max().unwrap_or(0) + 1;
        // Also what the inputs replace: it may be taken out after them.
        let replaced = self.metas.iter().flat_map(|meta| meta.replaces.iter().copied().chain([meta.id]));
        meta.replaces = replaced.collect::<BTreeSet<_>>().into_iter().collect();
        Ok((staged, meta))
    }

    /// Publishes what is whole; all of it or, as far as that can be had, nothing.
    fn publish(&self, finished: Vec<(Staged, BlockMeta)>) -> Result<Vec<BlockMeta>, Error> {
        let mut ids: Vec<BlockId> = finished.iter().map(|(_, meta)| meta.id).collect();
        ids.sort_unstable();
        let mut published: Vec<BlockMeta> = Vec::new();
        for (staged, mut meta) in finished {
            if published.is_empty() {
                meta.copy_count += self.metas.iter().map(|meta| meta.copy_count).sum::<u64>();
            }
            meta.merged_with = ids.iter().copied().filter(|id| *id != meta.id).collect();
            if let Err(err) = staged.publish(self.files, &meta) {
                // Without all of its kin a block is ignored; still, do not leave it.
                for meta in &published {
                    let _ = self.files.remove(&meta.tenant, meta.id);
                }
                return Err(err);
            }
            published.push(meta);
        }
        Ok(published)
    }
}

/// The spans of a step.
struct Collected {
    batch: SpanBatch,
    /// Per row.
    sources: Vec<shape::Source>,
    /// Between which boundaries the traces begin.
    section: usize,
}

/// A new block while it is written.
struct Output<'a> {
    id: BlockId,
    /// Between which boundaries its traces begin.
    section: usize,
    staged: Staged,
    writer: BlockWriter<'a>,
    shapes: Stream,
}

impl Output<'_> {
    /// Writes a step; how many spans were written, and how many copies were not.
    fn append(&mut self, collected: &Collected, decision: &Decision) -> Result<(u64, u64), Stop> {
        let Collected { batch, sources, section: _ } = collected;
        let batches: [&SpanBatch; 1] = [batch];
        let order = crate::order::order(&batches);
        let merged = columns::merge(&decision.known, &batches);
        // Without room for more columns what folds elsewhere is in the residual here, and rows say so one by one.
        let is_crowded = batch.columns().len() >= COLUMNS_MAX;
        let one_by_one = vec![None; if is_crowded { sources.len() } else { 0 }];
        let sources = if is_crowded { &one_by_one } else { sources };
        let shape_of_row = [self.shapes.fold(batch, &merged, sources).map_err(Stop::Drifted)?];
        let unknown = decision.known.len()..merged.len();
        let residual_columns: Vec<usize> = decision.plan.residual.iter().copied().chain(unknown).collect();
        if write::has_explicit_parents(&batches, &order) && !decision.plan.has(Role::ParentSpanId) {
            let reason = "a parent is named that is nowhere, though no input has such".to_owned();
            return Err(Error::Internal { object: format!("block {}", self.id), reason }.into());
        }
        let (residual_columns, shape_of_row) = (&residual_columns, &shape_of_row);
        self.writer.append(&Step {
            batches: &batches,
            merged: &merged,
            order: &order,
            residual_columns,
            shape_of_row,
        })?;
        Ok((order.rows.len() as u64, order.copy_count as u64))
    }
}

#[cfg(test)]
mod tests;
