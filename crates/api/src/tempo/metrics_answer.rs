//! The answers of metrics queries: over HTTP always JSON, as Go's protobuf JSON has it; protobuf over gRPC.
//!
//! In JSON, a value of zero has no `value`, 64-bit numbers are texts, infinities and NaN are texts. Grafana decodes
//! the answer of an instant query strictly: what is written here is what its schema has, and nothing else.

use serde::{Serialize, Serializer};
use spoor_model::KeyValue;
use spoor_model::nested::{put_attributes, put_message};
use spoor_model::scan::{Reached, ScanStats};
use spoor_model::wire::{put_fixed64, put_text, put_uint};
use spoor_otlp::json::write::{AttributeJson, DoubleJson};

/// `QueryRangeResponse` or `QueryInstantResponse`, by what a series is.
#[derive(Debug, Serialize)]
pub(super) struct MetricsAnswer<S> {
    /// In the order of tempo.md 1.9: fewer labels first, then by label.
    pub(super) series: Vec<S>,
    metrics: MetricsStats,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
    #[serde(skip_serializing_if = "String::is_empty")]
    message: String,
}

impl<S: SeriesForm> MetricsAnswer<S> {
    pub(super) fn new(series: Vec<S>, metrics: MetricsStats) -> Self {
        Self { series, metrics, status: None, message: String::new() }
    }

    /// Says that the answer is not all there is.
    pub(super) fn mark_partial(&mut self, reason: &str) {
        self.status = Some("PARTIAL");
        if !self.message.is_empty() {
            self.message.push_str("; ");
        }
        self.message.push_str(reason);
    }

    pub(super) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("answers have text keys and no failing parts")
    }

    pub(super) fn to_protobuf(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for series in &self.series {
            put_message(&mut out, 1, |out| series.put(out));
        }
        put_message(&mut out, 2, |out| self.metrics.put(out));
        put_uint(&mut out, 3, u64::from(self.status.is_some()));
        put_text(&mut out, 4, self.message.as_bytes());
        out
    }
}

/// `QueryRangeResponse` of a query that is not done yet: how far it is, and no series.
pub(super) fn progress_message(reached: Reached) -> Vec<u8> {
    MetricsAnswer::<RangeSeries>::new(Vec::new(), MetricsStats::of_progress(reached)).to_protobuf()
}

/// A series, in both of its forms.
pub(super) trait SeriesForm: Serialize {
    /// Writes the fields of the message.
    fn put(&self, out: &mut Vec<u8>);
}

impl SeriesForm for RangeSeries {
    fn put(&self, out: &mut Vec<u8>) {
        put_attributes(out, 1, &self.labels);
        for Sample { timestamp_ms, value } in &self.samples {
            put_message(out, 2, |out| {
                put_double(out, 1, *value);
                put_uint(out, 2, *timestamp_ms);
            });
        }
        for exemplar in &self.exemplars {
            put_message(out, 4, |out| {
                put_attributes(out, 1, &exemplar.labels);
                put_double(out, 2, exemplar.value);
                put_uint(out, 3, exemplar.timestamp_ms);
            });
        }
    }
}

impl SeriesForm for InstantSeries {
    fn put(&self, out: &mut Vec<u8>) {
        put_attributes(out, 1, &self.labels);
        put_double(out, 2, self.value);
    }
}

fn put_double(out: &mut Vec<u8>, number: u32, value: f64) {
    put_fixed64(out, number, value.to_bits());
}

/// `TimeSeries`.
#[derive(Debug, Serialize)]
pub(super) struct RangeSeries {
    #[serde(serialize_with = "as_labels")]
    pub(super) labels: Vec<KeyValue>,
    /// Ascending; intervals without a value are not there.
    pub(super) samples: Vec<Sample>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) exemplars: Vec<ExemplarJson>,
}

/// `InstantSeries`.
#[derive(Debug, Serialize)]
pub(super) struct InstantSeries {
    #[serde(serialize_with = "as_labels")]
    pub(super) labels: Vec<KeyValue>,
    #[serde(skip_serializing_if = "is_zero", serialize_with = "as_double")]
    pub(super) value: f64,
}

/// `Sample`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Sample {
    #[serde(skip_serializing_if = "is_epoch", serialize_with = "as_text")]
    pub(super) timestamp_ms: u64,
    #[serde(skip_serializing_if = "is_zero", serialize_with = "as_double")]
    pub(super) value: f64,
}

/// `Exemplar`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ExemplarJson {
    #[serde(serialize_with = "as_labels")]
    pub(super) labels: Vec<KeyValue>,
    #[serde(skip_serializing_if = "is_zero", serialize_with = "as_double")]
    pub(super) value: f64,
    #[serde(skip_serializing_if = "is_epoch", serialize_with = "as_text")]
    pub(super) timestamp_ms: u64,
}

/// `SearchMetrics`, as far as metrics queries fill it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MetricsStats {
    #[serde(skip_serializing_if = "is_epoch", serialize_with = "as_text")]
    inspected_bytes: u64,
    completed_jobs: u32,
    total_jobs: u32,
    #[serde(skip_serializing_if = "is_epoch", serialize_with = "as_text")]
    inspected_spans: u64,
}

impl MetricsStats {
    /// Sources that were skipped count as jobs that were not completed.
    pub(super) fn new(stats: ScanStats, skipped_count: usize) -> Self {
        Self {
            inspected_bytes: stats.bytes_inspected,
            completed_jobs: 1,
            total_jobs: u32::try_from(1 + skipped_count).unwrap_or(u32::MAX),
            inspected_spans: stats.spans_inspected,
        }
    }
}

impl MetricsStats {
    /// Says how far a query is that is not done yet.
    pub(super) fn of_progress(reached: Reached) -> Self {
        let count = |pieces| u32::try_from(pieces).unwrap_or(u32::MAX);
        Self {
            completed_jobs: count(reached.pieces_done),
            total_jobs: count(reached.pieces_known),
            ..Self::new(reached.stats, 0)
        }
    }

    fn put(&self, out: &mut Vec<u8>) {
        put_uint(out, 2, self.inspected_bytes);
        put_uint(out, 4, u64::from(self.completed_jobs));
        put_uint(out, 5, u64::from(self.total_jobs));
        put_uint(out, 7, self.inspected_spans);
    }
}

fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

fn is_epoch(number: &u64) -> bool {
    *number == 0
}

fn as_text<S: Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(number)
}

fn as_double<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    DoubleJson(*value).serialize(serializer)
}

fn as_labels<S: Serializer>(labels: &[KeyValue], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(labels.iter().map(AttributeJson))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use spoor_model::Value;

    use super::*;

    #[test]
    fn zeros_are_left_out_and_wide_numbers_are_texts() {
        let labels =
            || vec![KeyValue::new("__name__", Value::Str("rate".into())), KeyValue::new("p", Value::Double(0.5))];
        let sample = |timestamp_ms, value| Sample { timestamp_ms, value };
        let stats = ScanStats { spans_inspected: 5, bytes_inspected: 0, traces_inspected: 1 };
        let exemplar = ExemplarJson {
            labels: vec![KeyValue::new("trace:id", Value::Str("abc".into()))],
            value: 0.25,
            timestamp_ms: 1_700_000_009_000,
        };
        let series = RangeSeries {
            labels: labels(),
            samples: vec![sample(1_700_000_010_000, 2.5), sample(1_700_000_020_000, 0.0), sample(1, f64::NAN)],
            exemplars: vec![exemplar],
        };
        let mut answer = MetricsAnswer::new(vec![series], MetricsStats::new(stats, 1));
        let labels_json =
            json!([{"key": "__name__", "value": {"stringValue": "rate"}}, {"key": "p", "value": {"doubleValue": 0.5}}]);
        let expected = json!({
            "series": [{"labels": labels_json,
                "samples": [{"timestampMs": "1700000010000", "value": 2.5}, {"timestampMs": "1700000020000"},
                    {"timestampMs": "1", "value": "NaN"}],
                "exemplars": [{"labels": [{"key": "trace:id", "value": {"stringValue": "abc"}}], "value": 0.25,
                    "timestampMs": "1700000009000"}]}],
            "metrics": {"completedJobs": 1, "totalJobs": 2, "inspectedSpans": "5"}});
        let json: serde_json::Value = serde_json::from_slice(&answer.to_json()).unwrap();
        assert_eq!(json, expected);
        answer.mark_partial("one");
        answer.mark_partial("two");
        let json: serde_json::Value = serde_json::from_slice(&answer.to_json()).unwrap();
        assert_eq!((&json["status"], &json["message"]), (&json!("PARTIAL"), &json!("one; two")));
        let instant = InstantSeries { labels: labels(), value: 0.0 };
        assert_eq!(serde_json::to_value(&instant).unwrap(), json!({"labels": labels_json}));
    }
}
