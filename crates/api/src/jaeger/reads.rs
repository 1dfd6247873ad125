//! What every one of Jaeger's surfaces reads: traces, services, operations, calls between services. Each of these runs
//! within the gate, and says what had to be left out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use spoor_model::scan::{Operation, QueryContext, Skipped};
use spoor_model::{KeyValue, SpanEntry, TenantId, TimeRange, Trace, TraceId, UnixNano, Value};
use spoor_querier::{Querier, QueryError, Service};

use super::adjust::{self, View};
use super::model::{self, Attributes, JaegerTrace, WARNINGS_KEY, kind_text, service_name};
use super::search::Terms;
use crate::fan_out;

/// Something read, and what is missing of it.
pub(crate) type Read<T> = Result<(T, Vec<Skipped>), QueryError>;

/// Whether a trace is shown as it is stored, or as Jaeger adjusts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown {
    Raw,
    /// Clocks are taken to be off by at most this.
    Adjusted(Duration),
}

impl Shown {
    pub(crate) fn new(is_raw: bool, skew_max: Duration) -> Self {
        if is_raw { Self::Raw } else { Self::Adjusted(skew_max) }
    }

    fn views(self, entries: Vec<SpanEntry>) -> Vec<View> {
        match self {
            Self::Raw => adjust::raw(entries),
            Self::Adjusted(skew_max) => adjust::adjusted(entries, skew_max),
        }
    }

    /// The trace in Jaeger's form.
    pub(crate) fn jaeger(self, trace: Trace) -> JaegerTrace {
        let order = if self == Self::Raw { Attributes::AsSent } else { Attributes::ByKey };
        model::translated(trace.id, self.views(trace.entries), order)
    }

    /// The trace in OTLP's form. Warnings are an attribute, as Jaeger's own components hand them on.
    pub(crate) fn otlp(self, trace: Trace) -> Trace {
        let entries = self.views(trace.entries).into_iter().map(|View { mut entry, warnings }| {
            if !warnings.is_empty() {
                let all = [model::carried_warnings(&entry.span), warnings].concat();
                entry.span.attributes.retain(|attribute| attribute.key != WARNINGS_KEY);
                let texts = all.into_iter().map(Value::Str).collect();
                entry.span.attributes.push(KeyValue::new(WARNINGS_KEY, Value::Array(texts)));
            }
            entry
        });
        Trace { id: trace.id, entries: entries.collect() }
    }
}

/// The newest traces of which a span matches.
pub(crate) fn find(querier: &Querier, tenants: &[TenantId], terms: &Terms, ctx: &QueryContext) -> Read<Vec<Trace>> {
    let Some(request) = terms.request() else { return Ok((Vec::new(), Vec::new())) };
    let answer = querier.search(tenants, &request, ctx)?;
    Ok((answer.value.into_iter().map(|found| found.trace).collect(), answer.skipped))
}

/// One trace, if it is there.
pub(crate) fn trace(querier: &Querier, tenants: &[TenantId], id: TraceId, ctx: &QueryContext) -> Read<Option<Trace>> {
    let answer = fan_out::find_trace(querier, tenants, id, ctx)?;
    Ok((answer.value, answer.skipped))
}

fn all_operations(querier: &Querier, tenants: &[TenantId], ctx: &QueryContext) -> Read<BTreeSet<Operation>> {
    let answer = fan_out::operations(querier, tenants, TimeRange::ALL, ctx)?;
    Ok((answer.value, answer.skipped))
}

/// Names of all services, sorted.
pub(crate) fn services(querier: &Querier, tenants: &[TenantId], ctx: &QueryContext) -> Read<Vec<String>> {
    let (operations, skipped) = all_operations(querier, tenants, ctx)?;
    let names: BTreeSet<String> =
        operations.iter().map(|operation| service_name(operation.service.as_deref()).to_owned()).collect();
    Ok((names.into_iter().collect(), skipped))
}

/// What a service does, sorted: names with Jaeger's words for kinds (empty when unspecified). Of one kind, unless
/// `kind` is empty.
pub(crate) fn operations(
    querier: &Querier,
    tenants: &[TenantId],
    service: &str,
    kind: &str,
    ctx: &QueryContext,
) -> Read<BTreeSet<(String, &'static str)>> {
    let (operations, skipped) = all_operations(querier, tenants, ctx)?;
    let of_service = operations.into_iter().filter(|one| service_name(one.service.as_deref()) == service);
    let named = of_service.map(|one| (one.name, kind_text(one.kind)));
    Ok((named.filter(|(_, found)| kind.is_empty() || *found == kind).collect(), skipped))
}

/// How often one service calls another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) parent: String,
    pub(crate) child: String,
    pub(crate) count: u64,
}

/// Calls that start in the range, its end left out: it begins the next one. Each pair of services once, sorted.
pub(crate) fn calls(
    querier: &Querier,
    tenants: &[TenantId],
    (start, end): (UnixNano, UnixNano),
    ctx: &QueryContext,
) -> Read<Vec<Call>> {
    if end <= start {
        return Ok((Vec::new(), Vec::new()));
    }
    let range = TimeRange { start, end: UnixNano(end.0 - 1) };
    let answer = querier.dependencies(tenants, range, ctx)?;
    let name = |service: &Service| service_name(service.as_deref()).to_owned();
    // Services without a name and those that are called like it are one.
    let mut counts: BTreeMap<(String, String), u64> = BTreeMap::new();
    for ((parent, child), count) in &answer.value {
        *counts.entry((name(parent), name(child))).or_default() += count;
    }
    let call = |((parent, child), count)| Call { parent, child, count };
    Ok((counts.into_iter().map(call).collect(), answer.skipped))
}
