//! What a list of results shows of a trace: its root, its extent, and how many spans each service has.

use std::collections::{BTreeMap, HashSet};

use serde::Serialize;
use spoor_model::span::STATUS_ERROR;
use spoor_model::{SpanId, Trace, TraceId};

use super::model::service_name;

/// One item of `summaries`. As JSON, counts are numbers and times texts, and what is zero or unknown is left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Summary {
    #[serde(rename = "traceId", serialize_with = "as_hex")]
    pub(crate) trace_id: TraceId,
    /// Of the earliest span without a parent; empty when there is none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) root_service_name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) root_operation_name: String,
    #[serde(skip_serializing_if = "is_zero", serialize_with = "as_digits")]
    pub(crate) min_start_time_unix_nano: u64,
    #[serde(skip_serializing_if = "is_zero", serialize_with = "as_digits")]
    pub(crate) max_end_time_unix_nano: u64,
    pub(crate) span_count: u32,
    #[serde(skip_serializing_if = "is_none")]
    pub(crate) error_span_count: u32,
    /// Spans whose parent is not in the trace.
    #[serde(skip_serializing_if = "is_none")]
    pub(crate) orphan_span_count: u32,
    /// Sorted by name.
    pub(crate) services: Vec<ServiceSummary>,
}

/// A service's part of a trace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ServiceSummary {
    pub(crate) name: String,
    pub(crate) span_count: u32,
    #[serde(skip_serializing_if = "is_none")]
    pub(crate) error_span_count: u32,
}

fn as_hex<S: serde::Serializer>(id: &TraceId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&id.to_string())
}

fn as_digits<S: serde::Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&number.to_string())
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn is_none(count: &u32) -> bool {
    *count == 0
}

/// Summarises a trace, which should be adjusted.
pub(crate) fn summary(trace: &Trace) -> Summary {
    let ids: HashSet<SpanId> = trace.entries.iter().map(|entry| entry.span.span_id).collect();
    let mut services: BTreeMap<&str, ServiceSummary> = BTreeMap::new();
    let (mut error_span_count, mut orphan_span_count) = (0, 0);
    for entry in &trace.entries {
        let name = service_name(entry.origin.service_name());
        let is_error = u32::from(entry.span.status.code == STATUS_ERROR);
        let parent = entry.span.parent_span_id;
        let service = services.entry(name).or_insert_with(|| ServiceSummary {
            name: name.to_owned(),
            span_count: 0,
            error_span_count: 0,
        });
        service.span_count += 1;
        service.error_span_count += is_error;
        error_span_count += is_error;
        orphan_span_count += u32::from(!parent.is_zero() && !ids.contains(&parent));
    }
    let roots = trace.entries.iter().filter(|entry| entry.span.parent_span_id.is_zero());
    let root = roots.min_by_key(|entry| entry.span.start);
    let range = trace.range();
    Summary {
        trace_id: trace.id,
        root_service_name: root.map(|root| service_name(root.origin.service_name()).to_owned()).unwrap_or_default(),
        root_operation_name: root.map(|root| root.span.name.clone()).unwrap_or_default(),
        min_start_time_unix_nano: range.start.0,
        max_end_time_unix_nano: range.end.0,
        span_count: u32::try_from(trace.entries.len()).unwrap_or(u32::MAX),
        error_span_count,
        orphan_span_count,
        services: services.into_values().collect(),
    }
}
