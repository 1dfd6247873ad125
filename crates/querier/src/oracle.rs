//! The oracle of the tests: spans in a vector, and loops. It may be slow; it may not be clever.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use spoor_model::columns::{ColumnBatch, ColumnRequest, ColumnScan, GroupInfo, Pruned, TracesScan};
use spoor_model::memory::MemoryBudget;
use spoor_model::scan::{
    AttrScope, Field, KeySet, Operation, QueryContext, ScanError, ScanStats, SpanSource, ValueSet,
};
use spoor_model::{
    BlockId, KeyValue, Origin, Resource, Span, SpanEntry, SpanId, TimeRange, Trace, TraceId, UnixNano, Value,
};

/// How a source fails.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    Corrupt,
    Unavailable,
}

/// A source that can be told to misbehave within the contract.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    pub(crate) name: String,
    pub(crate) entries: Vec<SpanEntry>,
    /// All traces are one group when 0.
    pub(crate) traces_per_group: usize,
    /// How many groups were read.
    pub(crate) read_count: AtomicUsize,
    pub(crate) fault: Option<Fault>,
    /// For each trace handed out.
    pub(crate) reserves_bytes: usize,
    pub(crate) scan_count: AtomicUsize,
    /// Given to sources that never change.
    pub(crate) identity: Option<BlockId>,
}

impl Oracle {
    pub(crate) fn clone_of(entries: Vec<SpanEntry>) -> Self {
        Self { entries, ..Self::default() }
    }

    pub(crate) fn of(entries: Vec<SpanEntry>) -> Arc<Self> {
        Arc::new(Self::clone_of(entries))
    }

    fn by_trace(&self) -> BTreeMap<TraceId, Vec<&SpanEntry>> {
        let mut traces: BTreeMap<TraceId, Vec<&SpanEntry>> = BTreeMap::new();
        self.entries.iter().for_each(|entry| traces.entry(entry.span.trace_id).or_default().push(entry));
        traces
    }

    fn fail(&self) -> Result<(), ScanError> {
        let (object, reason) = (self.name.clone(), "told to fail".to_owned());
        match self.fault {
            None => Ok(()),
            Some(Fault::Corrupt) => Err(ScanError::Corrupt { object, reason }),
            Some(Fault::Unavailable) => Err(ScanError::Unavailable { object, reason }),
        }
    }
}

fn range_of<'a>(entries: impl IntoIterator<Item = &'a SpanEntry>) -> Option<TimeRange> {
    let ranges = entries.into_iter().map(|entry| TimeRange { start: entry.span.start, end: entry.span.end });
    ranges.reduce(|a, b| a.union(&b))
}

/// What a source has of a trace, copies included.
fn fragment(id: TraceId, spans: Vec<&SpanEntry>) -> Trace {
    let mut entries: Vec<SpanEntry> = spans.into_iter().cloned().collect();
    entries.sort_by_key(spoor_model::structure::place);
    Trace { id, entries }
}

struct OracleScan<'a> {
    oracle: &'a Oracle,
    group_count: u64,
    infos: Vec<GroupInfo>,
    groups: Vec<TracesScan<'a>>,
}

impl ColumnScan for OracleScan<'_> {
    fn groups(&self) -> &[GroupInfo] {
        &self.infos
    }

    fn pruned(&self) -> Pruned {
        let by_range = self.group_count - self.groups.len() as u64;
        Pruned { group_count: self.group_count, by_range, by_content: 0 }
    }

    fn read(&self, group: usize, ctx: &QueryContext) -> Result<(Option<ColumnBatch>, ScanStats), ScanError> {
        self.oracle.read_count.fetch_add(1, Ordering::Relaxed);
        self.groups[group].read(0, ctx)
    }
}

impl SpanSource for Oracle {
    fn describe(&self) -> String {
        self.name.clone()
    }

    fn range(&self) -> Option<TimeRange> {
        range_of(&self.entries)
    }

    fn span_count(&self) -> u64 {
        self.entries.len() as u64
    }

    fn identity(&self) -> Option<BlockId> {
        self.identity
    }

    fn scan<'a>(&'a self, request: &'a ColumnRequest, _: &QueryContext) -> Result<Box<dyn ColumnScan + 'a>, ScanError> {
        self.scan_count.fetch_add(1, Ordering::Relaxed);
        self.fail()?;
        let mut traces: Vec<Trace> = self.by_trace().into_iter().map(|(id, spans)| fragment(id, spans)).collect();
        let group_len = if self.traces_per_group == 0 { traces.len().max(1) } else { self.traces_per_group };
        let mut groups = Vec::new();
        while !traces.is_empty() {
            let rest = traces.split_off(group_len.min(traces.len()));
            groups.push(TracesScan::new(std::mem::replace(&mut traces, rest), request));
        }
        let mut scan = OracleScan { oracle: self, group_count: groups.len() as u64, infos: Vec::new(), groups };
        scan.groups.retain(|group| !group.groups().is_empty());
        scan.groups.sort_by_key(|group| std::cmp::Reverse(group.groups()[0].latest_trace_start));
        scan.infos = scan.groups.iter().map(|group| group.groups()[0]).collect();
        Ok(Box::new(scan))
    }

    fn trace_fingerprints(&self, _: &QueryContext) -> Result<Arc<[u32]>, ScanError> {
        self.fail()?;
        let mut fingerprints: Vec<u32> = self.by_trace().keys().map(TraceId::fingerprint).collect();
        fingerprints.sort_unstable();
        Ok(fingerprints.into())
    }

    fn find_trace(&self, id: TraceId, ctx: &QueryContext) -> Result<Vec<SpanEntry>, ScanError> {
        self.fail()?;
        ctx.reserve(self.reserves_bytes)?;
        Ok(self.entries.iter().filter(|entry| entry.span.trace_id == id).cloned().collect())
    }

    fn trace_range(&self, id: TraceId, _: &QueryContext) -> Result<Option<TimeRange>, ScanError> {
        self.fail()?;
        Ok(range_of(self.entries.iter().filter(|entry| entry.span.trace_id == id)))
    }

    fn keys(&self, _: &QueryContext, into: &mut KeySet) -> Result<ScanStats, ScanError> {
        self.fail()?;
        for SpanEntry { origin, span } in &self.entries {
            let mut add = |scope, attributes: &[KeyValue]| {
                // A scope is there when it has names.
                for attribute in attributes {
                    into.entry(scope).or_default().insert(attribute.key.clone());
                }
            };
            add(AttrScope::Span, &span.attributes);
            add(AttrScope::Resource, &origin.resource.attributes);
            add(AttrScope::Instrumentation, &origin.scope.attributes);
            span.events.iter().for_each(|event| add(AttrScope::Event, &event.attributes));
            span.links.iter().for_each(|link| add(AttrScope::Link, &link.attributes));
        }
        Ok(ScanStats::default())
    }

    fn values(&self, field: &Field, _: &QueryContext, into: &mut ValueSet) -> Result<ScanStats, ScanError> {
        self.fail()?;
        for entry in &self.entries {
            let is_full = match field {
                Field::Name => into.insert(&Value::Str(entry.span.name.clone())).is_break(),
                _ => unreachable!("not asked by these tests"),
            };
            if is_full {
                break;
            }
        }
        Ok(ScanStats::default())
    }

    fn operations(&self, _: &QueryContext, into: &mut BTreeSet<Operation>) -> Result<ScanStats, ScanError> {
        self.fail()?;
        into.extend(self.entries.iter().map(|SpanEntry { origin, span }| Operation {
            service: origin.service_name().map(str::to_owned),
            name: span.name.clone(),
            kind: span.kind,
        }));
        Ok(ScanStats::default())
    }
}

/// A root span of trace `[trace; 16]`, of no service.
pub(crate) fn span(trace: u8, span_id: u8, name: &str, start: u64, end: u64) -> SpanEntry {
    let span = Span {
        trace_id: TraceId([trace; 16]),
        span_id: SpanId([span_id; 8]),
        name: name.to_owned(),
        start: UnixNano(start),
        end: UnixNano(end),
        ..Span::default()
    };
    SpanEntry { origin: Arc::default(), span }
}

/// An origin whose encoded form, only compared by these tests, is the service's name.
pub(crate) fn origin(service: &str) -> Arc<Origin> {
    let attributes = vec![KeyValue::new("service.name", Value::Str(service.to_owned()))];
    Arc::new(Origin {
        resource_encoded: service.to_owned().into(),
        resource: Resource { attributes, ..Resource::default() },
        ..Origin::default()
    })
}

/// A context that is never cancelled and has 16 MB.
pub(crate) fn at_hand() -> QueryContext {
    QueryContext::new(&MemoryBudget::new(1 << 24), Arc::default())
}
