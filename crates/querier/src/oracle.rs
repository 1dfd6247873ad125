//! The oracle of the tests: spans in a vector, and loops. It may be slow; it may not be clever.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow_array::builder::FixedSizeBinaryBuilder;
use arrow_array::{ArrayRef, RecordBatch, UInt64Array};
use spoor_model::memory::MemoryBudget;
use spoor_model::scan::{
    AttrScope, Field, KeySet, Operation, QueryContext, ScanError, ScanRequest, ScanStats, SpanSource, ValueSet,
    candidate_schema,
};
use spoor_model::{BlockId, KeyValue, Origin, Resource, Span, SpanEntry, SpanId, TimeRange, TraceId, UnixNano, Value};

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
    /// Names every trace as a candidate, whatever the predicate, as a source may.
    pub(crate) is_vague: bool,
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

    fn candidates(
        &self,
        request: &ScanRequest,
        _: &QueryContext,
        sink: &mut dyn FnMut(&RecordBatch) -> ControlFlow<()>,
    ) -> Result<ScanStats, ScanError> {
        self.scan_count.fetch_add(1, Ordering::Relaxed);
        for (id, spans) in self.by_trace() {
            let range = range_of(spans.iter().copied()).expect("a trace has spans");
            let is_match = self.is_vague || spans.iter().any(|entry| request.predicate.matches(entry));
            if !is_match || !range.overlaps(&request.range) {
                continue;
            }
            let mut ids = FixedSizeBinaryBuilder::new(16);
            ids.append_value(id.0).expect("16 bytes");
            let columns: Vec<ArrayRef> = vec![
                Arc::new(ids.finish()),
                Arc::new(UInt64Array::from(vec![range.start.0])),
                Arc::new(UInt64Array::from(vec![range.end.0])),
            ];
            let batch = RecordBatch::try_new(candidate_schema(), columns).expect("the schema fits");
            if sink(&batch).is_break() {
                break;
            }
        }
        // At the end: what was handed over before a fault counts.
        self.fail()?;
        Ok(ScanStats { spans_inspected: self.entries.len() as u64, ..ScanStats::default() })
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
            for (scope, attributes) in
                [(AttrScope::Span, &span.attributes), (AttrScope::Resource, &origin.resource.attributes)]
            {
                into.entry(scope).or_default().extend(attributes.iter().map(|attribute| attribute.key.clone()));
            }
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
