//! A published block as a [`SpanSource`].

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use arrow_array::Array;
use arrow_array::cast::AsArray;
use parquet::bloom_filter::Sbbf;
use spoor_model::columns::{ColumnRequest, ColumnScan};
use spoor_model::scan::{
    AttrScope, Field, KeySet, Operation, QueryContext, ScanError, ScanStats, SpanSource, ValueSet,
};
use spoor_model::value::{self, KeyValue, Value};
use spoor_model::{BlockId, Event, Link, SpanEntry, TimeRange, TraceId, nested};

use crate::cache::{BlockCache, Shared};
use crate::damage::Place;
use crate::error::Error;
use crate::files::{Awaited, BlockFiles};
use crate::meta::BlockMeta;
use crate::open::Opened;
use crate::outline::{self, Outline};
use crate::{rows, scan};

/// A block that can be asked. Holds its meta and bloom filter (two bytes per trace); the rest is
/// opened when a query needs it, and kept in the [`BlockCache`].
pub struct Block {
    meta: BlockMeta,
    files: Arc<dyn BlockFiles>,
    bloom: Sbbf,
    cache: Arc<BlockCache>,
    _awaited: Option<Awaited>,
}

impl std::fmt::Debug for Block {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Block").field("id", &self.meta.id).finish_non_exhaustive()
    }
}

impl Block {
    /// Reads the block's bloom filter. Where blocks are far away, the tables that every query of it needs come along,
    /// onto local disk: three requests then, and one less for each of the tables when a query waits. The rest of what tells
    /// that a value is not in the block follows when there is time, if it did not come with the filter.
    pub fn open(files: &Arc<dyn BlockFiles>, meta: BlockMeta, cache: &Arc<BlockCache>) -> Result<Self, Error> {
        let damages = cache.damages();
        let index = outline::open_index(&**files, &meta, damages)?;
        let bloom = index.bloom()?;
        for table in ["shapes.parquet", "origins.parquet"] {
            outline::open_file(&**files, &meta, table, damages)?.read_whole_ahead();
        }
        let awaited = index.read_behind();
        Ok(Self { meta, files: Arc::clone(files), bloom, cache: Arc::clone(cache), _awaited: awaited })
    }

    /// Reads again what was found to be damaged of a block, so that it is known when it was put back: what queries
    /// have read before is in memory. Costs nothing when nothing was.
    pub fn recheck(files: &Arc<dyn BlockFiles>, meta: &BlockMeta, cache: &Arc<BlockCache>) {
        let damages = cache.damages();
        // Whoever reads notes how that went.
        match damages.place_of(meta.id) {
            None => {}
            Some(Place::Bytes(name, bytes)) => {
                let _ = outline::open_file(&**files, meta, &name, damages).and_then(|file| file.read(&bytes));
            }
            Some(Place::Whole) => {
                let block = Self::open(files, meta.clone(), cache);
                let _ = block.and_then(|block| block.open_alone(&block.shared_beside_cache()));
            }
        }
    }

    /// What the block is.
    pub fn meta(&self) -> &BlockMeta {
        &self.meta
    }

    /// Whether the block may hold spans of the trace: `false` is certain, `true` is wrong once in two
    /// thousand. Costs no IO.
    pub fn may_contain(&self, id: TraceId) -> bool {
        self.bloom.check(&id.0[..])
    }

    /// What blocks have in common that are opened beside the cache. Damage is noted where the cache does.
    pub(crate) fn shared_beside_cache(&self) -> Arc<Shared> {
        Arc::new(Shared::new(usize::MAX, Arc::clone(self.cache.damages())))
    }

    /// Opens the block beside the cache: for one who reads all of it once.
    pub(crate) fn open_alone(&self, shared: &Arc<Shared>) -> Result<Opened, Error> {
        let outline = self.learn(Outline::open(&*self.files, &self.meta, shared))?;
        self.learn(Opened::of(&Arc::new(outline))).map(|(opened, _)| opened)
    }

    /// The ids whose fingerprints the trace table has, of those that the filter has: the filter errs once in two
    /// thousand, and then nothing but the index is read.
    fn held(&self, ids: impl Iterator<Item = TraceId>) -> Result<BTreeSet<TraceId>, Error> {
        let mut held: BTreeSet<TraceId> = ids.filter(|id| self.may_contain(*id)).collect();
        if !held.is_empty() {
            let table = outline::traces(&*self.files, &self.meta, self.cache.shared())?;
            held.retain(|id| table.lookup(*id).next().is_some());
        }
        Ok(held)
    }

    fn learn<T>(&self, read: Result<T, Error>) -> Result<T, Error> {
        self.cache.damages().learn(self.meta.id, || Place::Whole, &read);
        read
    }

    fn outline(&self) -> Result<Arc<Outline>, Error> {
        if let Some(outline) = self.cache.get(self.meta.id) {
            return Ok(outline);
        }
        let outline = Arc::new(self.learn(Outline::open(&*self.files, &self.meta, self.cache.shared()))?);
        self.cache.insert(self.meta.id, &outline);
        Ok(outline)
    }

    fn opened(&self) -> Result<Opened, Error> {
        self.opened_with(&self.outline()?)
    }

    /// The block with this outline, ready to read rows.
    pub(crate) fn opened_with(&self, outline: &Arc<Outline>) -> Result<Opened, Error> {
        let (opened, is_new) = self.learn(Opened::of(outline))?;
        if is_new {
            self.cache.insert(self.meta.id, outline);
        }
        Ok(opened)
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.cache.remove(self.meta.id);
    }
}

impl SpanSource for Block {
    fn describe(&self) -> String {
        self.meta.describe()
    }

    fn range(&self) -> Option<TimeRange> {
        Some(self.meta.range)
    }

    fn span_count(&self) -> u64 {
        self.meta.span_count
    }

    fn scan<'a>(
        &'a self,
        request: &'a ColumnRequest,
        ctx: &QueryContext,
    ) -> Result<Box<dyn ColumnScan + 'a>, ScanError> {
        ctx.check()?;
        if !self.meta.range.overlaps(&request.range) {
            return Ok(Box::new(scan::Nothing::out_of_range()));
        }
        Ok(scan::scan(self, self.outline()?, request)?)
    }

    fn identity(&self) -> Option<BlockId> {
        Some(self.meta.id)
    }

    fn may_hold(&self, id: TraceId) -> bool {
        self.may_contain(id)
    }

    fn trace_fingerprints(&self, _ctx: &QueryContext) -> Result<Arc<[u32]>, ScanError> {
        // The index alone: most blocks around a query's range have no trace in common with those in it.
        Ok(Arc::clone(outline::traces(&*self.files, &self.meta, self.cache.shared())?.fingerprints()))
    }

    fn find_trace(&self, id: TraceId, ctx: &QueryContext) -> Result<Vec<SpanEntry>, ScanError> {
        Ok(self.find_traces(&[id], ctx)?.pop().unwrap_or_default())
    }

    fn find_traces(&self, ids: &[TraceId], ctx: &QueryContext) -> Result<Vec<Vec<SpanEntry>>, ScanError> {
        let mut found = vec![Vec::new(); ids.len()];
        let held = self.held(ids.iter().copied())?;
        let held: BTreeMap<TraceId, usize> =
            ids.iter().enumerate().filter(|(_, id)| held.contains(*id)).map(|(index, id)| (*id, index)).collect();
        if held.is_empty() {
            return Ok(found);
        }
        let opened = self.opened()?;
        let table = opened.traces()?;
        let mut traces: Vec<usize> = held.keys().flat_map(|id| table.lookup(*id)).collect();
        traces.sort_unstable();
        traces.dedup();
        for rows in runs(&opened, traces.iter().map(|trace| table.rows(*trace))) {
            ctx.check()?;
            let mut kept_bytes = 0;
            for entry in rows::read(&opened, rows)? {
                // A run has other traces between, and a fingerprint is 32 bits: the spans say whose
                // they are.
                if let Some(index) = held.get(&entry.span.trace_id) {
                    kept_bytes += memory_bytes(&entry);
                    found[*index].push(entry);
                }
            }
            ctx.reserve(kept_bytes)?;
        }
        Ok(found)
    }

    fn trace_range(&self, id: TraceId, ctx: &QueryContext) -> Result<Option<TimeRange>, ScanError> {
        if self.held(std::iter::once(id))?.is_empty() {
            return Ok(None);
        }
        let opened = self.opened()?;
        let traces = opened.traces()?;
        for trace in traces.lookup(id) {
            ctx.check()?;
            if opened.trace_id_of_row(traces.rows(trace).start)? == id {
                return Ok(Some(traces.range(trace)));
            }
        }
        Ok(None)
    }

    fn keys(&self, _ctx: &QueryContext, into: &mut KeySet) -> Result<ScanStats, ScanError> {
        for (scope, names) in self.outline()?.keys() {
            let known = into.entry(*scope).or_default();
            for name in names {
                if !known.contains(name) {
                    known.insert(name.clone());
                }
            }
        }
        Ok(ScanStats::default())
    }

    fn values(&self, field: &Field, ctx: &QueryContext, into: &mut ValueSet) -> Result<ScanStats, ScanError> {
        let opened = self.opened()?;
        let mut stats = ScanStats::default();
        let _ = Values { opened: &opened, ctx, into, stats: &mut stats }.collect(field)?;
        Ok(stats)
    }

    fn operations(&self, ctx: &QueryContext, into: &mut BTreeSet<Operation>) -> Result<ScanStats, ScanError> {
        let outline = self.outline()?;
        if outline.catalogue.has_all_operations {
            into.extend(outline.catalogue.operations());
            return Ok(ScanStats::default());
        }
        // Too many names to list: read them, a few thousand spans at a time.
        let opened = self.opened_with(&outline)?;
        let traces = opened.traces()?;
        for trace in 0..traces.len() {
            ctx.check()?;
            for entry in rows::read(&opened, traces.rows(trace))? {
                let service = entry.origin.service_name().map(str::to_owned);
                into.insert(Operation { service, name: entry.span.name, kind: entry.span.kind });
            }
        }
        Ok(ScanStats { spans_inspected: opened.row_count() as u64, ..ScanStats::default() })
    }
}

/// What a span holds, roughly. Its origin is the block's.
fn memory_bytes(entry: &SpanEntry) -> usize {
    fn of_value(value: &Value) -> usize {
        match value {
            Value::Str(text) => text.len(),
            Value::Bytes(bytes) => bytes.len(),
            Value::Array(values) => values.iter().map(|value| size_of::<Value>() + of_value(value)).sum(),
            Value::Map(entries) => of_attributes(entries),
            Value::Empty | Value::Bool(_) | Value::Int(_) | Value::Double(_) => 0,
        }
    }
    fn of_attributes(attributes: &[KeyValue]) -> usize {
        attributes.iter().map(|kv| size_of::<KeyValue>() + kv.key.len() + of_value(&kv.value)).sum()
    }
    let span = &entry.span;
    let of_event = |event: &Event| size_of::<Event>() + event.name.len() + of_attributes(&event.attributes);
    let of_link = |link: &Link| size_of::<Link>() + link.trace_state.len() + of_attributes(&link.attributes);
    size_of::<SpanEntry>()
        + span.name.len()
        + span.trace_state.len()
        + span.status.message.len()
        + of_attributes(&span.attributes)
        + span.events.iter().map(of_event).sum::<usize>()
        + span.links.iter().map(of_link).sum::<usize>()
}

/// Rows that are read in vain rather than begin another read: opening the columns for a read costs
/// about as much as taking this many spans apart.
const GAP_ROWS_MAX: usize = 256;
/// Rows of one read; bounds what is held at once.
const RUN_ROWS_MAX: usize = 4096;

/// The rows of some traces, ascending, with near ones in one run. Runs do not cross row groups.
fn runs(opened: &Opened, traces: impl Iterator<Item = Range<usize>>) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for rows in traces {
        let joins = |run: &Range<usize>| {
            let is_near = rows.start - run.end <= GAP_ROWS_MAX && rows.end - run.start <= RUN_ROWS_MAX;
            is_near && opened.group_of_row(run.start) == opened.group_of_row(rows.start)
        };
        match runs.last_mut().filter(|run| joins(run)) {
            Some(run) => run.end = rows.end,
            None => runs.push(rows),
        }
    }
    runs
}

/// Gathers the distinct values of a field from the tables and, where it varies, from its columns.
struct Values<'a> {
    opened: &'a Opened,
    ctx: &'a QueryContext,
    into: &'a mut ValueSet,
    stats: &'a mut ScanStats,
}

impl Values<'_> {
    fn collect(&mut self, field: &Field) -> Result<ControlFlow<()>, ScanError> {
        let opened = self.opened;
        Ok(match field {
            Field::Name => {
                let names = opened.shapes.iter().filter_map(|shape| shape.name.clone());
                let flow = self.insert_all(names.map(Value::Str));
                self.then_columns(flow, opened.column("name"))?
            }
            Field::StatusMessage => self.then_columns(ControlFlow::Continue(()), opened.column("status_message"))?,
            Field::InstrumentationName => {
                self.insert_all(opened.origins.iter().map(|origin| Value::Str(origin.scope.name.clone())))
            }
            Field::InstrumentationVersion => {
                self.insert_all(opened.origins.iter().map(|origin| Value::Str(origin.scope.version.clone())))
            }
            Field::EventName => self.nested_values("events_otlp", |bytes| {
                nested::decode_event(bytes).map(|event| vec![Value::Str(event.name)]).unwrap_or_default()
            })?,
            Field::Attribute(scope, key) => self.attribute(*scope, key)?,
            // Numbers and ids have no list of values worth having.
            Field::Kind
            | Field::Status
            | Field::Duration
            | Field::StartTime
            | Field::TraceId
            | Field::SpanId
            | Field::ParentSpanId
            | Field::EventTimeSinceStart
            | Field::LinkTraceId
            | Field::LinkSpanId
            | Field::TraceState => ControlFlow::Continue(()),
        })
    }

    fn attribute(&mut self, scope: AttrScope, key: &str) -> Result<ControlFlow<()>, ScanError> {
        let opened = self.opened;
        let all = |attributes: &[KeyValue]| {
            let of_key = attributes.iter().filter(|attribute| attribute.key == key);
            of_key.map(|attribute| attribute.value.clone()).collect::<Vec<_>>()
        };
        Ok(match scope {
            AttrScope::Span => {
                let flow = self.insert_all(opened.shapes.iter().flat_map(|shape| all(&shape.attributes)));
                let flow = self.then_columns(flow, opened.attribute_columns(key))?;
                match flow.is_continue() && opened.catalogue.residual_keys.contains(key) {
                    true => self.nested_values("residual_otlp", |bytes| {
                        all(&nested::decode_key_value(bytes).map(|attribute| vec![attribute]).unwrap_or_default())
                    })?,
                    false => flow,
                }
            }
            AttrScope::Resource => {
                let values = opened.origins.iter().filter_map(|origin| value::find(&origin.resource.attributes, key));
                self.insert_all(values.cloned())
            }
            AttrScope::Instrumentation => {
                let values = opened.origins.iter().filter_map(|origin| value::find(&origin.scope.attributes, key));
                self.insert_all(values.cloned())
            }
            AttrScope::Event if opened.catalogue.event_keys.contains(key) => self
                .nested_values("events_otlp", |bytes| {
                    nested::decode_event(bytes).map(|event| all(&event.attributes)).unwrap_or_default()
                })?,
            AttrScope::Link if opened.catalogue.link_keys.contains(key) => self
                .nested_values("links_otlp", |bytes| {
                    nested::decode_link(bytes).map(|link| all(&link.attributes)).unwrap_or_default()
                })?,
            AttrScope::Event | AttrScope::Link => ControlFlow::Continue(()),
            AttrScope::Any => {
                let scopes = [
                    AttrScope::Span,
                    AttrScope::Resource,
                    AttrScope::Event,
                    AttrScope::Link,
                    AttrScope::Instrumentation,
                ];
                let mut flow = ControlFlow::Continue(());
                for scope in scopes {
                    if flow.is_continue() {
                        flow = self.attribute(scope, key)?;
                    }
                }
                flow
            }
        })
    }

    fn insert_all(&mut self, values: impl IntoIterator<Item = Value>) -> ControlFlow<()> {
        values.into_iter().try_for_each(|value| self.into.insert(&value))
    }

    fn then_columns(
        &mut self,
        flow: ControlFlow<()>,
        columns: impl IntoIterator<Item = usize>,
    ) -> Result<ControlFlow<()>, ScanError> {
        if flow.is_break() {
            return Ok(flow);
        }
        for column in columns {
            let flow = self.column_values(column, |array, row| {
                rows::attr_value(array, row).map(|value| vec![value.to_value()]).unwrap_or_default()
            })?;
            if flow.is_break() {
                return Ok(flow);
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn nested_values(
        &mut self,
        column: &str,
        values: impl Fn(&[u8]) -> Vec<Value>,
    ) -> Result<ControlFlow<()>, ScanError> {
        let Some(column) = self.opened.column(column) else {
            return Ok(ControlFlow::Continue(()));
        };
        self.column_values(column, |array, row| {
            let list = array
                .as_binary_opt::<i32>()
                .filter(|array| array.is_valid(row))
                .map_or(&[][..], |array| array.value(row));
            nested::split_list(list).unwrap_or_default().into_iter().flat_map(&values).collect()
        })
    }

    /// Walks one column; of dictionaries only the entries, once per row group.
    fn column_values(
        &mut self,
        column: usize,
        values: impl Fn(&arrow_array::ArrayRef, usize) -> Vec<Value>,
    ) -> Result<ControlFlow<()>, ScanError> {
        for group in (0..self.opened.groups.len()).filter(|group| !self.opened.is_all_null(*group, column)) {
            self.stats.bytes_inspected += self.opened.stored_bytes(group, column);
            self.stats.spans_inspected += self.opened.groups[group].rows.len() as u64;
            for batch in self.opened.scan_column(group, column)? {
                self.ctx.check()?;
                let batch = batch.map_err(|err| Error::corrupt(&self.opened.object, err.to_string()))?;
                let array = match batch.column(0).as_any_dictionary_opt() {
                    Some(dictionary) => dictionary.values(),
                    None => batch.column(0),
                };
                for row in 0..array.len() {
                    if self.insert_all(values(array, row)).is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

#[cfg(test)]
pub(crate) mod tests;
