//! Several blocks become one: fragments of a trace come together, exact copies of a span fall away, and what
//! folds, varies and how it is encoded is chosen anew.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use spoor_model::batch::{AttrValue, Dropped, SpanBatch, SpanFields};
use spoor_model::value::Value;
use spoor_model::{BlockId, SpanEntry, TimeRange, TraceId, UnixNano, nested};

use crate::error::Error;
use crate::files::BlockFiles;
use crate::meta::BlockMeta;
use crate::open::Opened;
use crate::rows;
use crate::source::Block;
use crate::write::{self, Staged, WriteOptions};

/// How blocks are merged, and what is left out.
pub struct MergeOptions<'a> {
    /// How the new blocks are written.
    pub write: WriteOptions,
    /// A new block ends at the first trace end past this many spans; the rest goes into another.
    pub block_spans: u64,
    /// What the merge may hold in memory, in bytes, beside about 100 bytes per trace of the inputs.
    pub memory_bytes: usize,
    /// Whether a trace was deleted: none of its spans are written.
    pub is_deleted: &'a dyn Fn(TraceId) -> bool,
    /// Traces that ended before, with all of their fragments, are left out.
    pub keep_after: Option<UnixNano>,
}

/// How far a merge is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Spans written so far.
    pub spans_written: u64,
    /// Spans of the inputs.
    pub span_count: u64,
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
}

/// Merges the spans of `inputs` into new blocks, durably. They are staged until all of them are whole; then each is
/// published. An error, also of an input, leaves nothing behind, a crash what start-up removes. Every new block names
/// its inputs in [`BlockMeta::replaces`].
///
/// `next_id` makes the ids of the new blocks. `watch` is called now and then; it breaks the merge off with `Break`
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
    let tenant = &inputs.first().expect("a merge has inputs").meta().tenant;
    assert!(inputs.iter().all(|input| input.meta().tenant == *tenant), "blocks of different tenants never mix");
    let span_count = inputs.iter().map(|input| input.meta().span_count).sum();
    let mut traces: BTreeMap<TraceId, Vec<SpanEntry>> = BTreeMap::new();
    for input in inputs {
        if watch(Progress { spans_written: 0, span_count }).is_break() {
            return Err(Error::Cancelled);
        }
        read_all(&input.open_alone()?, &mut traces)?;
    }
    let range = |entries: &[SpanEntry]| {
        let ranges = entries.iter().map(|entry| TimeRange { start: entry.span.start, end: entry.span.end });
        ranges.reduce(|a, b| a.union(&b)).unwrap_or(TimeRange::ALL)
    };
    let is_old = |entries: &[SpanEntry]| options.keep_after.is_some_and(|line| range(entries).end < line);
    traces.retain(|id, entries| !(options.is_deleted)(*id) && !is_old(entries));
    let mut merged =
        Merged { blocks: Vec::new(), spans_read: span_count, spans_written: 0, copies_dropped: 0, spans_left_out: 0 };
    let mut batch = SpanBatch::new();
    for entry in traces.values().flatten() {
        push(&mut batch, entry).map_err(|err| Error::corrupt("an input", err.to_string()))?;
    }
    merged.spans_left_out = span_count - batch.len() as u64;
    if !batch.is_empty() {
        let meta = write_block(inputs, files, next_id(), &batch, created_at, options)?;
        merged.copies_dropped = batch.len() as u64 - meta.span_count;
        merged.spans_written = meta.span_count;
        merged.blocks.push(meta);
    }
    Ok(merged)
}

fn write_block(
    inputs: &[Arc<Block>],
    files: &dyn BlockFiles,
    id: BlockId,
    batch: &SpanBatch,
    created_at: UnixNano,
    options: &MergeOptions<'_>,
) -> Result<BlockMeta, Error> {
    let tenant = &inputs[0].meta().tenant;
    let staged = Staged::create(files, tenant, id)?;
    let mut meta = write::write_files(&staged.dir, id, tenant, &[batch], created_at, &options.write)?;
    meta.copy_count += inputs.iter().map(|input| input.meta().copy_count).sum::<u64>();
    meta.merge_level = inputs.iter().map(|input| input.meta().merge_level).max().unwrap_or(0) + 1;
    meta.replaces = inputs.iter().map(|input| input.meta().id).collect();
    meta.replaces.sort_unstable();
    staged.publish(files, &meta)?;
    Ok(meta)
}

fn read_all(opened: &Opened, into: &mut BTreeMap<TraceId, Vec<SpanEntry>>) -> Result<(), Error> {
    let mut row = 0;
    while row < opened.row_count() {
        // Whole traces of one row group, some thousand rows at once.
        let end_of_group = opened.groups[opened.group_of_row(row)].rows.end;
        let end = opened.traces.rows(opened.traces.trace_of_row((row + 4096).min(end_of_group) - 1)).end;
        for entry in rows::read(opened, row..end)? {
            into.entry(entry.span.trace_id).or_default().push(entry);
        }
        row = end;
    }
    Ok(())
}

fn push(batch: &mut SpanBatch, entry: &SpanEntry) -> Result<(), spoor_model::wire::WireError> {
    let (origin, span) = (&entry.origin, &entry.span);
    let origin = batch.intern_origin(
        &origin.resource_encoded,
        &origin.scope_encoded,
        &origin.resource_schema_url,
        &origin.scope_schema_url,
    )?;
    for attribute in &span.attributes {
        let key = attribute.key.as_bytes();
        match &attribute.value {
            Value::Str(text) => batch.push_attribute(key, AttrValue::Str(text.as_bytes())),
            Value::Int(int) => batch.push_attribute(key, AttrValue::Int(*int)),
            Value::Double(double) => batch.push_attribute(key, AttrValue::Double(*double)),
            Value::Bool(flag) => batch.push_attribute(key, AttrValue::Bool(*flag)),
            nested => batch.push_attribute(key, AttrValue::Encoded(&encoded(|out| nested::put_value(out, nested)))),
        }
    }
    for event in &span.events {
        batch.push_event(&encoded(|out| nested::put_event(out, event)));
    }
    for link in &span.links {
        batch.push_link(&encoded(|out| nested::put_link(out, link)));
    }
    batch.push_span(SpanFields {
        trace_id: span.trace_id,
        span_id: span.span_id,
        parent_span_id: span.parent_span_id,
        start: span.start,
        end: span.end,
        kind: span.kind,
        status_code: span.status.code,
        flags: span.flags,
        origin,
        name: span.name.as_bytes(),
        status_message: span.status.message.as_bytes(),
        trace_state: span.trace_state.as_bytes(),
        dropped: Dropped {
            attributes: span.dropped_attributes_count,
            events: span.dropped_events_count,
            links: span.dropped_links_count,
        },
    });
    Ok(())
}

fn encoded(put: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out);
    out
}

#[cfg(test)]
mod tests;
