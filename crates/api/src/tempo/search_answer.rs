//! The answer of a search, in both of its forms.
//!
//! Grafana decodes the JSON strictly: one key that it does not know fails the whole query, and so do
//! attributes whose values are no scalars or have different types under one key. So what is written
//! here is what its pinned schema has, and nothing else.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::mem::{Discriminant, discriminant};
use std::sync::Arc;

use serde::{Serialize, Serializer};
use spoor_model::nested::{put_attributes, put_message};
use spoor_model::scan::{Reached, ScanStats};
use spoor_model::span::{STATUS_ERROR, SpanEntry, Trace};
use spoor_model::wire::{put_bytes, put_text, put_uint};
use spoor_model::{KeyValue, Value};
use spoor_otlp::json::write::AttributeJson;
use spoor_querier::FoundTrace;
use spoor_traceql::{MatchedSpanset, SearchPlan, Static};

use crate::static_value::scalar;
use crate::value_text;

/// Tempo's text for a trace whose root has not come, or never will.
const ROOT_UNKNOWN: &str = "<root span not yet received>";

/// `SearchResponse`.
#[derive(Debug, Serialize)]
pub(crate) struct SearchAnswer {
    traces: Vec<TraceJson>,
    metrics: SearchMetrics,
}

/// `TraceSearchMetadata`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct TraceJson {
    #[serde(rename = "traceID")]
    trace_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    root_service_name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    root_trace_name: String,
    #[serde(skip_serializing_if = "is_zero", serialize_with = "as_text")]
    start_time_unix_nano: u64,
    #[serde(skip_serializing_if = "is_zero")]
    duration_ms: u32,
    /// The first of `span_sets`, for older clients and for Kiali.
    #[serde(skip_serializing_if = "Option::is_none")]
    span_set: Option<SpanSet>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    span_sets: Vec<SpanSet>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    service_stats: BTreeMap<String, ServiceStats>,
}

#[derive(Debug, Clone, Serialize)]
struct SpanSet {
    spans: Vec<SpanJson>,
    #[serde(skip_serializing_if = "is_zero")]
    matched: u32,
    /// What `by()` and aggregates say of it.
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "as_attributes")]
    attributes: Vec<KeyValue>,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct SpanJson {
    #[serde(rename = "spanID")]
    span_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "is_zero", serialize_with = "as_text")]
    start_time_unix_nano: u64,
    #[serde(skip_serializing_if = "is_zero", serialize_with = "as_text")]
    duration_nanos: u64,
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "as_attributes")]
    attributes: Vec<KeyValue>,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct ServiceStats {
    #[serde(skip_serializing_if = "is_zero")]
    span_count: u32,
    #[serde(skip_serializing_if = "is_zero")]
    error_count: u32,
}

/// `SearchMetrics`, without the keys that Grafana refuses.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct SearchMetrics {
    #[serde(skip_serializing_if = "is_zero")]
    inspected_traces: u32,
    #[serde(skip_serializing_if = "is_zero", serialize_with = "as_text")]
    inspected_bytes: u64,
    completed_jobs: u32,
    total_jobs: u32,
    #[serde(skip_serializing_if = "is_zero", serialize_with = "as_text")]
    inspected_spans: u64,
}

fn is_zero<T: Default + PartialEq>(number: &T) -> bool {
    *number == T::default()
}

fn as_text<S: Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(number)
}

fn as_attributes<S: Serializer>(attributes: &[KeyValue], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(attributes.iter().map(AttributeJson))
}

fn saturated<T: TryInto<u32>>(number: T) -> u32 {
    number.try_into().unwrap_or(u32::MAX)
}

impl SearchAnswer {
    /// The answer for traces in the order given, with `spans_max` spans of each span set. Without a plan (a
    /// legacy search) there are no span sets. Sources that were skipped count as jobs that were not completed.
    pub(crate) fn new(
        found: &[FoundTrace],
        plan: Option<&SearchPlan>,
        spans_max: usize,
        stats: ScanStats,
        skipped_count: usize,
    ) -> Self {
        Self::behind(found, plan, spans_max, stats, skipped_count, &mut KeyTypes::default())
    }

    /// [`Self::new`], for a client that was sent other traces of the same search before: keys keep the types that they
    /// had there.
    pub(crate) fn behind(
        found: &[FoundTrace],
        plan: Option<&SearchPlan>,
        spans_max: usize,
        stats: ScanStats,
        skipped_count: usize,
        types: &mut KeyTypes,
    ) -> Self {
        let mut traces: Vec<TraceJson> = found.iter().map(|found| trace_json(found, plan, spans_max)).collect();
        types.agree(&mut traces);
        for trace in &mut traces {
            trace.span_set = trace.span_sets.first().cloned();
        }
        let metrics = SearchMetrics {
            inspected_traces: saturated(stats.traces_inspected),
            inspected_bytes: stats.bytes_inspected,
            completed_jobs: 1,
            total_jobs: saturated(1 + skipped_count),
            inspected_spans: stats.spans_inspected,
        };
        Self { traces, metrics }
    }

    /// Says how far a search is that is not done yet.
    pub(crate) fn set_progress(&mut self, reached: Reached) {
        self.metrics.completed_jobs = saturated(reached.pieces_done);
        self.metrics.total_jobs = saturated(reached.pieces_known);
    }

    /// Lists fewer spans of traces that are larger than that as protobuf: half as many, until the trace fits or has
    /// one of each span set.
    pub(crate) fn bound_traces(&mut self, bytes_max: usize) {
        for trace in &mut self.traces {
            let is_too_large = |trace: &TraceJson| {
                let mut out = Vec::new();
                trace.put(&mut out);
                out.len() > bytes_max
            };
            let listed = |trace: &TraceJson| trace.span_sets.iter().map(|set| set.spans.len()).max().unwrap_or(0);
            while listed(trace) > 1 && is_too_large(trace) {
                let half = listed(trace) / 2;
                trace.span_sets.iter_mut().chain(&mut trace.span_set).for_each(|set| set.spans.truncate(half));
            }
        }
    }

    /// `SearchResponse` as JSON.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("answers have text keys and no failing parts")
    }

    /// `SearchResponse` as protobuf.
    pub(crate) fn to_protobuf(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for trace in &self.traces {
            put_message(&mut out, 1, |out| trace.put(out));
        }
        put_message(&mut out, 2, |out| {
            put_uint(out, 1, u64::from(self.metrics.inspected_traces));
            put_uint(out, 2, self.metrics.inspected_bytes);
            put_uint(out, 4, u64::from(self.metrics.completed_jobs));
            put_uint(out, 5, u64::from(self.metrics.total_jobs));
            put_uint(out, 7, self.metrics.inspected_spans);
        });
        out
    }
}

impl TraceJson {
    fn put(&self, out: &mut Vec<u8>) {
        put_text(out, 1, self.trace_id.as_bytes());
        put_text(out, 2, self.root_service_name.as_bytes());
        put_text(out, 3, self.root_trace_name.as_bytes());
        put_uint(out, 4, self.start_time_unix_nano);
        put_uint(out, 5, u64::from(self.duration_ms));
        if let Some(span_set) = &self.span_set {
            put_message(out, 6, |out| span_set.put(out));
        }
        for span_set in &self.span_sets {
            put_message(out, 7, |out| span_set.put(out));
        }
        for (service, stats) in &self.service_stats {
            put_message(out, 8, |out| {
                put_bytes(out, 1, service.as_bytes());
                put_message(out, 2, |out| {
                    put_uint(out, 1, u64::from(stats.span_count));
                    put_uint(out, 2, u64::from(stats.error_count));
                });
            });
        }
    }
}

impl SpanSet {
    fn put(&self, out: &mut Vec<u8>) {
        for span in &self.spans {
            put_message(out, 1, |out| {
                put_text(out, 1, span.span_id.as_bytes());
                put_text(out, 2, span.name.as_bytes());
                put_uint(out, 3, span.start_time_unix_nano);
                put_uint(out, 4, span.duration_nanos);
                put_attributes(out, 5, &span.attributes);
            });
        }
        put_uint(out, 2, u64::from(self.matched));
        put_attributes(out, 3, &self.attributes);
    }
}

fn trace_json(found: &FoundTrace, plan: Option<&SearchPlan>, spans_max: usize) -> TraceJson {
    let trace = &found.trace;
    let range = trace.range();
    let root = spoor_querier::root(trace);
    let service_of = |entry: &SpanEntry| entry.origin.service_name().unwrap_or_default().to_owned();
    let span_sets = |plan| found.spansets.iter().map(move |spanset| span_set(trace, spanset, plan, spans_max));
    TraceJson {
        trace_id: trace.id.to_string().trim_start_matches('0').to_owned(),
        root_service_name: root.map_or_else(|| ROOT_UNKNOWN.to_owned(), service_of),
        root_trace_name: root.map(|entry| entry.span.name.clone()).unwrap_or_default(),
        start_time_unix_nano: range.start.0,
        duration_ms: saturated((range.end.0 - range.start.0) / 1_000_000),
        span_set: None,
        span_sets: plan.into_iter().flat_map(span_sets).collect(),
        service_stats: service_stats(trace),
    }
}

fn service_stats(trace: &Trace) -> BTreeMap<String, ServiceStats> {
    let mut stats: BTreeMap<&str, ServiceStats> = BTreeMap::new();
    for entry in &trace.entries {
        let of_service = stats.entry(entry.origin.service_name().unwrap_or_default()).or_default();
        of_service.span_count += 1;
        of_service.error_count += u32::from(entry.span.status.code == STATUS_ERROR);
    }
    stats.into_iter().map(|(service, stats)| (service.to_owned(), stats)).collect()
}

fn span_set(trace: &Trace, spanset: &MatchedSpanset, plan: &SearchPlan, spans_max: usize) -> SpanSet {
    let shown = &spanset.spans[..spanset.spans.len().min(spans_max)];
    let attributes = |values: Vec<(Arc<str>, Static)>| {
        values.into_iter().filter_map(|(key, value)| Some(KeyValue::new(&*key, scalar(&value)?))).collect()
    };
    let span_json = |(index, values): (&usize, Vec<(Arc<str>, Static)>)| {
        let span = &trace.entries[*index].span;
        SpanJson {
            span_id: span.span_id.to_string(),
            name: if plan.shows_name() { span.name.clone() } else { String::new() },
            start_time_unix_nano: span.start.0,
            duration_nanos: span.duration_nano(),
            attributes: attributes(values),
        }
    };
    // A group of spans without the value says so.
    let said = |(key, value): &(String, Static)| {
        KeyValue::new(key.as_str(), scalar(value).unwrap_or_else(|| Value::Str("nil".to_owned())))
    };
    SpanSet {
        spans: shown.iter().zip(plan.shown_values(trace, shown)).map(span_json).collect(),
        matched: saturated(spanset.spans.len()),
        attributes: spanset.attributes.iter().map(said).collect(),
    }
}

/// What type the values of one key have, across the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Agreed {
    Same(Discriminant<Value>),
    Numbers,
    Mixed,
}

/// Which type the values of each key have that a client was sent.
#[derive(Debug, Default)]
pub(crate) struct KeyTypes(HashMap<String, Agreed>);

impl KeyTypes {
    /// Gives all values of one key one type: integers beside floats become floats, other mixtures text.
    ///
    /// What was sent before cannot be changed any more. Where it was numbers or booleans, anything else goes to a key
    /// beside it, as text: Grafana makes a column of each key, and panics at values that do not fit.
    fn agree(&mut self, traces: &mut [TraceJson]) {
        let (int, double) = (discriminant(&Value::Int(0)), discriminant(&Value::Double(0.0)));
        let text = discriminant(&Value::Str(String::new()));
        let is_text = |agreed: &Agreed| matches!(agreed, Agreed::Mixed) || *agreed == Agreed::Same(text);
        let fixed: HashSet<String> =
            self.0.iter().filter(|(_, agreed)| !is_text(agreed)).map(|(key, _)| key.clone()).collect();
        for attribute in attributes(traces) {
            let found = discriminant(&attribute.value);
            let is_number = found == int || found == double;
            let next = match self.0.get(&attribute.key) {
                None => Agreed::Same(found),
                Some(Agreed::Same(known)) if *known == found => continue,
                Some(Agreed::Same(known)) if is_number && (*known == int || *known == double) => Agreed::Numbers,
                Some(Agreed::Numbers) if is_number => continue,
                Some(_) if fixed.contains(&attribute.key) => continue,
                Some(_) => Agreed::Mixed,
            };
            self.0.insert(attribute.key.clone(), next);
        }
        for attribute in attributes(traces) {
            let found = discriminant(&attribute.value);
            match (self.0[&attribute.key], &attribute.value) {
                (Agreed::Numbers, Value::Int(int)) => attribute.value = Value::Double(*int as f64),
                (Agreed::Numbers, Value::Double(_)) => {}
                (Agreed::Same(known), _) if known == found => {}
                (Agreed::Mixed, value) => attribute.value = Value::Str(value_text::plain(value)),
                (Agreed::Same(_) | Agreed::Numbers, value) => {
                    attribute.value = Value::Str(value_text::plain(value));
                    attribute.key.push_str(" (text)");
                }
            }
        }
    }
}

fn attributes(traces: &mut [TraceJson]) -> impl Iterator<Item = &mut KeyValue> {
    let span_sets = traces.iter_mut().flat_map(|trace| &mut trace.span_sets);
    span_sets.flat_map(|SpanSet { spans, attributes, .. }| {
        spans.iter_mut().flat_map(|span| &mut span.attributes).chain(attributes)
    })
}

#[cfg(test)]
mod tests;
