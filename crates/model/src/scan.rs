//! The contract between query and storage: what a query may ask of anything that holds spans.
//!
//! A head, a block, the oracle of the tests and later a remote node are all a [`SpanSource`]. It answers
//! with columns ([`SpanSource::scan`]), which decide every trace that lies in one source with each span
//! once, and it finds the spans of a trace ([`SpanSource::find_traces`]), for those that do not, and for results.
//!
//! So [`Condition::holds_for`] is the one definition of what a comparison means; sources evaluate it
//! on dictionary entries, shapes and origins rather than write their own.
//!
//! **Invariant:** nothing here knows TraceQL; predicates have no negation other than the operators.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::batch::AttrValue;
use crate::columns::{ColumnRequest, ColumnScan};
use crate::memory::{MemoryBudget, Reservation};
use crate::span::SpanEntry;
use crate::value::Value;
use crate::{BlockId, TenantId, TimeRange, TraceId};

mod compare;
pub mod field;
mod progress;

pub use compare::order_int_float;
pub use field::FieldValue;
pub use progress::{Progress, Reached};

/// Which attributes a name is looked up in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AttrScope {
    /// The first of span, resource, event, link, instrumentation scope that has it.
    Any,
    /// Span attributes.
    Span,
    /// Resource attributes.
    Resource,
    /// Attributes of the span's events.
    Event,
    /// Attributes of the span's links.
    Link,
    /// Attributes of the instrumentation scope.
    Instrumentation,
}

/// What a condition looks at.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Field {
    /// An attribute.
    Attribute(AttrScope, Arc<str>),
    /// Span name, a text.
    Name,
    /// OTLP's `SpanKind`, an integer.
    Kind,
    /// OTLP's `StatusCode`, an integer.
    Status,
    /// Status message, a text.
    StatusMessage,
    /// W3C `tracestate`, a text.
    TraceState,
    /// End minus start in nanoseconds, an integer.
    Duration,
    /// 32 lower-case hex digits.
    TraceId,
    /// 16 lower-case hex digits.
    SpanId,
    /// 16 lower-case hex digits, zeros for roots.
    ParentSpanId,
    /// Name of the instrumentation scope, a text.
    InstrumentationName,
    /// Version of the instrumentation scope, a text.
    InstrumentationVersion,
    /// Names of the span's events, texts.
    EventName,
    /// Times of the span's events minus its start in nanoseconds, integers; 0 for events before it.
    EventTimeSinceStart,
    /// Trace ids of the span's links, 32 lower-case hex digits.
    LinkTraceId,
    /// Span ids of the span's links, 16 lower-case hex digits.
    LinkSpanId,
    /// Start in nanoseconds since the epoch, an integer.
    StartTime,
}

/// How a condition compares. What each means for which types: [`Condition::holds_for`].
#[derive(Debug, Clone)]
pub enum Test {
    /// Equal.
    Eq(Literal),
    /// Present, comparable and not equal.
    Ne(Literal),
    /// Less.
    Lt(Literal),
    /// Less or equal.
    Le(Literal),
    /// Greater.
    Gt(Literal),
    /// Greater or equal.
    Ge(Literal),
    /// The whole text matches.
    Regex(regex::Regex),
    /// A text that does not match as a whole.
    NotRegex(regex::Regex),
    /// The field is there, whatever its value.
    Exists,
    /// The field is not there.
    Absent,
    /// The value, written as text, equals (`200`, `true`, `1.5`; Jaeger's search).
    TextEq(Arc<str>),
    /// The value is a text that contains this (Tempo's legacy search).
    Contains(Arc<str>),
}

/// The right side of a comparison.
#[derive(Debug, Clone, PartialEq)]
pub enum Literal {
    /// Text.
    Str(Arc<str>),
    /// Integer; durations are nanoseconds, kinds and statuses their OTLP number.
    Int(i64),
    /// Float.
    Float(f64),
    /// Boolean.
    Bool(bool),
}

/// One comparison.
#[derive(Debug, Clone)]
pub struct Condition {
    /// What is looked at.
    pub field: Field,
    /// What must hold for it.
    pub test: Test,
}

/// Conditions on one span.
#[derive(Debug, Clone)]
pub enum Predicate {
    /// Holds for every span.
    True,
    /// Holds for no span.
    False,
    /// One comparison.
    Is(Condition),
    /// All hold, on one span. Empty: holds.
    And(Vec<Predicate>),
    /// One holds. Empty: does not hold.
    Or(Vec<Predicate>),
    /// All hold for one and the same event of the span. Their fields are fields of events.
    OneEvent(Vec<Condition>),
    /// All hold for one and the same link of the span. Their fields are fields of links.
    OneLink(Vec<Condition>),
}

impl Condition {
    /// Whether the test holds for a value, `None` meaning that the field is not there.
    ///
    /// An absent field satisfies only [`Test::Absent`]. Integers and floats compare as numbers;
    /// other types only with their own (else `false`, for `Ne` too). Texts order by bytes. An array
    /// of one is its element; a longer array of one type holds when any element does, for `Ne` and
    /// `NotRegex` when all do. Maps and bytes only exist; empty values, empty, mixed and nested arrays
    /// are as if they were absent.
    pub fn holds_for(&self, value: Option<&Value>) -> bool {
        compare::holds(&self.test, value)
    }

    /// [`Self::holds_for`] for a value that is there, as columns have it. Allocates nothing for texts,
    /// numbers and booleans.
    #[inline]
    pub fn holds_for_attribute(&self, value: AttrValue<'_>) -> bool {
        compare::holds_for_attribute(&self.test, value)
    }

    /// Whether the condition holds for a span, the reference for all sources. For events and links
    /// it holds when it does for one of them.
    pub fn matches(&self, entry: &SpanEntry) -> bool {
        match field::of_span(&self.field, entry) {
            FieldValue::One(value) => self.holds_for(value.as_ref()),
            FieldValue::PerItem(values) => values.iter().any(|value| self.holds_for(value.as_ref())),
        }
    }
}

impl Predicate {
    /// Whether the predicate holds for a span: the reference for all sources.
    pub fn matches(&self, entry: &SpanEntry) -> bool {
        match self {
            Self::True => true,
            Self::False => false,
            Self::Is(condition) => condition.matches(entry),
            Self::And(all) => all.iter().all(|predicate| predicate.matches(entry)),
            Self::Or(any) => any.iter().any(|predicate| predicate.matches(entry)),
            Self::OneEvent(all) => entry.span.events.iter().any(|event| {
                all.iter().all(|condition| {
                    let value = field::of_event(&condition.field, event, &entry.span);
                    condition.holds_for(value.as_ref())
                })
            }),
            Self::OneLink(all) => entry.span.links.iter().any(|link| {
                all.iter().all(|condition| condition.holds_for(field::of_link(&condition.field, link).as_ref()))
            }),
        }
    }
}

/// What a scan cost. Sums over sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ScanStats {
    /// Spans whose columns were looked at.
    pub spans_inspected: u64,
    /// Traces whose spans were looked at.
    pub traces_inspected: u64,
    /// Encoded bytes read, from memory or disk.
    pub bytes_inspected: u64,
}

impl std::ops::AddAssign for ScanStats {
    fn add_assign(&mut self, other: Self) {
        self.spans_inspected += other.spans_inspected;
        self.traces_inspected += other.traces_inspected;
        self.bytes_inspected += other.bytes_inspected;
    }
}

/// Why a source could not answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ScanError {
    /// The data fails its check. The query goes on without it and says so.
    #[error("{object}: {reason}")]
    Corrupt {
        /// Which block and file.
        object: String,
        /// Which check, and what was found.
        reason: String,
    },
    /// The data cannot be read now. The query goes on without it and says so.
    #[error("{object}: {reason}")]
    Unavailable {
        /// Which block and file.
        object: String,
        /// What the system said.
        reason: String,
    },
    /// The caller went away or the deadline passed. The query ends.
    #[error("query cancelled")]
    Cancelled,
    /// The query needs more memory than it may have. The query ends.
    #[error("query needs more than {limit_bytes} bytes of memory; narrow it, or raise {key}")]
    MemoryLimit {
        /// The bound.
        limit_bytes: usize,
        /// The configuration key that raises it.
        key: &'static str,
    },
}

impl ScanError {
    /// Whether the query may go on without this source, saying that the answer is partial.
    pub fn is_partial(&self) -> bool {
        matches!(self, Self::Corrupt { .. } | Self::Unavailable { .. })
    }
}

/// What a query carries through every source: whether to go on, what it may allocate, and how far it is.
#[derive(Debug)]
pub struct QueryContext {
    cancelled: Arc<AtomicBool>,
    memory: parking_lot::Mutex<Reservation>,
    limit_bytes: usize,
    progress: Arc<Progress>,
}

impl QueryContext {
    /// A context that reserves from `budget`. `cancelled` is set by whoever watches the deadline and
    /// the connection.
    pub fn new(budget: &Arc<MemoryBudget>, cancelled: Arc<AtomicBool>) -> Self {
        let memory = parking_lot::Mutex::new(budget.try_reserve(0).expect("nothing always fits"));
        Self { cancelled, memory, limit_bytes: budget.limit_bytes(), progress: Arc::default() }
    }

    /// The same, with its progress written where somebody looks.
    pub fn watched(self, progress: Arc<Progress>) -> Self {
        Self { progress, ..self }
    }

    /// How far the query is.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// A context for a part of the query: it ends with the query, and what it reserves is given back
    /// when it is dropped.
    pub fn part(&self) -> Self {
        let memory = self.memory.lock().sibling();
        let (memory, limit_bytes) = (parking_lot::Mutex::new(memory), self.limit_bytes);
        Self { cancelled: Arc::clone(&self.cancelled), memory, limit_bytes, progress: Arc::clone(&self.progress) }
    }

    /// Errors when the query should end. Cheap; call it once per batch.
    pub fn check(&self) -> Result<(), ScanError> {
        match self.cancelled.load(Ordering::Relaxed) {
            true => Err(ScanError::Cancelled),
            false => Ok(()),
        }
    }

    /// Reserves memory until the query ends.
    pub fn reserve(&self, bytes: usize) -> Result<(), ScanError> {
        match self.memory.lock().try_grow(bytes) {
            true => Ok(()),
            false => Err(ScanError::MemoryLimit { limit_bytes: self.limit_bytes, key: "query_memory_limit" }),
        }
    }
}

/// Attribute names by scope (never [`AttrScope::Any`]).
pub type KeySet = BTreeMap<AttrScope, BTreeSet<String>>;

/// The distinct values of one field, in no order.
#[derive(Debug, Default)]
pub struct ValueSet {
    texts: BTreeSet<String>,
    ints: BTreeSet<i64>,
    floats: BTreeMap<u64, f64>,
    bools: BTreeSet<bool>,
    held_bytes: usize,
    limit_bytes: usize,
    is_complete: bool,
}

impl ValueSet {
    /// A set that holds up to `limit_bytes` of values.
    pub fn new(limit_bytes: usize) -> Self {
        Self { limit_bytes, is_complete: true, ..Self::default() }
    }

    /// Adds a value; arrays add their elements, maps and bytes nothing. `Break` when full.
    pub fn insert(&mut self, value: &Value) -> ControlFlow<()> {
        let added_bytes = match value {
            Value::Str(text) if self.texts.contains(text) => 0,
            Value::Str(text) => {
                self.texts.insert(text.clone());
                text.len()
            }
            Value::Int(int) => 8 * usize::from(self.ints.insert(*int)),
            Value::Double(double) => 8 * usize::from(self.floats.insert(double.to_bits(), *double).is_none()),
            Value::Bool(flag) => usize::from(self.bools.insert(*flag)),
            Value::Array(values) => {
                values.iter().try_for_each(|value| self.insert(value))?;
                0
            }
            Value::Empty | Value::Bytes(_) | Value::Map(_) => 0,
        };
        self.held_bytes += added_bytes;
        if self.held_bytes > self.limit_bytes {
            self.is_complete = false;
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    /// Whether nothing was left out for want of room.
    pub fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// All values: texts, integers, floats, booleans, each ascending.
    pub fn into_values(self) -> Vec<Value> {
        let texts = self.texts.into_iter().map(Value::Str);
        let ints = self.ints.into_iter().map(Value::Int);
        let floats = self.floats.into_values().map(Value::Double);
        texts.chain(ints).chain(floats).chain(self.bools.into_iter().map(Value::Bool)).collect()
    }
}

/// One thing that a service does: what Jaeger lists as an operation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Operation {
    /// `service.name`, `None` when the resource has none that is text.
    pub service: Option<String>,
    /// Span name.
    pub name: String,
    /// OTLP's `SpanKind`.
    pub kind: i32,
}

/// Anything that holds spans of one tenant. Calls block; they run on the compute pool.
pub trait SpanSource: Send + Sync {
    /// For errors and logs: `head`, `block 01J...`.
    fn describe(&self) -> String;

    /// Earliest start and latest end of the spans; `None` when there are none.
    fn range(&self) -> Option<TimeRange>;

    /// How many spans there are.
    fn span_count(&self) -> u64;

    /// What this source answers to a columnar question: which of its groups may matter, compiled once.
    /// Opens no more than it must; a source that cannot satisfy the request has no groups.
    fn scan<'a>(
        &'a self,
        request: &'a ColumnRequest,
        ctx: &QueryContext,
    ) -> Result<Box<dyn ColumnScan + 'a>, ScanError>;

    /// Which bytes of an immutable source this is, for caches; `None` while spans may be added.
    fn identity(&self) -> Option<BlockId> {
        None
    }

    /// Whether spans of the trace may be here. `false` is certain. Costs no IO.
    fn may_hold(&self, _id: TraceId) -> bool {
        true
    }

    /// [`TraceId::fingerprint`] of every trace here, ascending.
    fn trace_fingerprints(&self, ctx: &QueryContext) -> Result<Arc<[u32]>, ScanError>;

    /// All spans of a trace that are here, in no order, copies included; empty when there
    /// are none. Costs microseconds when the trace is not here.
    fn find_trace(&self, id: TraceId, ctx: &QueryContext) -> Result<Vec<SpanEntry>, ScanError>;

    /// [`Self::find_trace`] of several traces, all different, in the order of `ids`. Cheaper than one
    /// by one where neighbours share a read.
    fn find_traces(&self, ids: &[TraceId], ctx: &QueryContext) -> Result<Vec<Vec<SpanEntry>>, ScanError> {
        ids.iter().map(|id| self.find_trace(*id, ctx)).collect()
    }

    /// Earliest start and latest end of the trace's spans here; `None` when there are none.
    fn trace_range(&self, id: TraceId, ctx: &QueryContext) -> Result<Option<TimeRange>, ScanError>;

    /// Adds the attribute names that spans here have.
    fn keys(&self, ctx: &QueryContext, into: &mut KeySet) -> Result<ScanStats, ScanError>;

    /// Adds the distinct values of a field; stops when `into` is full.
    fn values(&self, field: &Field, ctx: &QueryContext, into: &mut ValueSet) -> Result<ScanStats, ScanError>;

    /// Adds every (service, name, kind) that occurs here.
    fn operations(&self, ctx: &QueryContext, into: &mut BTreeSet<Operation>) -> Result<ScanStats, ScanError>;
}

/// A source that an answer had to do without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// Which block.
    pub object: String,
    /// Why.
    pub reason: String,
}

/// Everything a tenant has at one instant: no span is in two sources because it was being cut, and
/// none is in neither.
#[derive(Clone, Default)]
pub struct Snapshot {
    /// Newest first: the head, then blocks by descending end.
    pub sources: Vec<Arc<dyn SpanSource>>,
    /// Blocks that are known to exist and could not be opened.
    pub skipped: Vec<Skipped>,
}

/// Where snapshots come from (the ingester; a fake in tests).
pub trait Snapshots: Send + Sync {
    /// What the tenant has now. Costs a lock and some reference counts. Unknown tenants have nothing.
    fn snapshot(&self, tenant: &TenantId) -> Snapshot;
}

#[cfg(test)]
mod tests;
