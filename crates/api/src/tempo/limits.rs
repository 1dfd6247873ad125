//! What a client may ask of Tempo's API at most. Each bound is a configuration key; the error that it
//! causes names the key, and is counted.
//!
//! Grafana shows its own words for ranges that are too long. It knows them by phrases of Tempo's, so
//! these are used here.

use std::time::Duration;

use spoor_model::TimeRange;
use spoor_traceql::Query;

use crate::error::ApiError;
use crate::go_duration;
use crate::query_metrics::{QueryMetrics, Reason};

/// Bounds on single requests. A zero means that there is none, unless it says otherwise.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Longest query text (`query_max_bytes`); zero means zero.
    pub query_bytes_max: usize,
    /// Largest body of a request (`query_max_body_bytes`); zero means zero.
    pub body_bytes_max: usize,
    /// Most traces of one answer (`query_max_results`); zero means zero.
    pub results_max: usize,
    /// Most spans that are shown of each spanset (`query_max_spans_per_spanset`); zero means zero.
    pub spans_per_spanset_max: usize,
    /// Longest range of a search (`query_search_max_range`).
    pub search_range_max: Duration,
    /// Longest range of a metrics query (`query_metrics_max_range`).
    pub metrics_range_max: Duration,
    /// Most intervals of a metrics query (`query_metrics_max_intervals`); zero means zero.
    pub metrics_intervals_max: usize,
    /// Most series that are returned (`query_metrics_max_series`).
    pub metrics_series_max: usize,
    /// Most exemplars that are returned (`query_metrics_max_exemplars`); zero means zero.
    pub metrics_exemplars_max: usize,
    /// Most bytes of tag names or values that are returned (`query_tags_max_bytes`); zero means zero.
    pub tags_bytes_max: usize,
}

impl Default for Limits {
    /// As in Tempo, but that a search may be as long as it likes, and that there is a bound on series.
    fn default() -> Self {
        Self {
            query_bytes_max: 131_072,
            body_bytes_max: 2 << 20,
            results_max: 262_144,
            spans_per_spanset_max: 100,
            search_range_max: Duration::ZERO,
            metrics_range_max: Duration::from_secs(24 * 3600),
            metrics_intervals_max: 10_000,
            metrics_series_max: 10_000,
            metrics_exemplars_max: 100,
            tags_bytes_max: 1_000_000,
        }
    }
}

/// The limits, and where a refusal is counted.
#[derive(Clone, Copy)]
pub(super) struct Bounds<'a> {
    pub(super) limits: &'a Limits,
    pub(super) metrics: &'a QueryMetrics,
}

/// What is wrong with a query, in the words that Tempo's clients know.
pub(super) fn invalid_query(err: impl std::fmt::Display) -> ApiError {
    ApiError::invalid(format!("invalid TraceQL query: {err}"))
}

impl Bounds<'_> {
    /// A query's tree. Costs time linear in the text, of which the length is looked at first.
    pub(super) fn parse(self, text: &str) -> Result<Query, ApiError> {
        self.check_text(text)?;
        spoor_traceql::parse(text).map_err(invalid_query)
    }

    /// Refuses texts that are too long to be looked at.
    pub(super) fn check_text(self, text: &str) -> Result<(), ApiError> {
        let max = self.limits.query_bytes_max;
        if text.len() <= max {
            return Ok(());
        }
        let text = format!("query expression is {} bytes long, at most {max}; raise query_max_bytes", text.len());
        Err(self.refusal(Reason::query_bytes, text))
    }

    /// Refuses to list more than so many of something.
    pub(super) fn check_count(self, name: &str, asked: usize, max: usize, key: &str) -> Result<usize, ApiError> {
        if asked <= max {
            return Ok(asked);
        }
        Err(self.refusal(Reason::results, format!("invalid {name} {asked}: expected at most {max}; raise {key}")))
    }

    /// Refuses searches over too long a range. A range without ends is not one that somebody specified.
    pub(super) fn check_search_range(self, range: TimeRange) -> Result<(), ApiError> {
        let max = self.limits.search_range_max;
        if range == TimeRange::ALL || fits(range, max) {
            return Ok(());
        }
        let (asked, max) = (shown(length(range)), shown(max));
        let text = format!(
            "range specified by start and end ({asked}) exceeds {max}; narrow it, or raise query_search_max_range"
        );
        Err(self.refusal(Reason::range, text))
    }

    /// Refuses metrics queries over too long a range.
    pub(super) fn check_metrics_range(self, range: TimeRange) -> Result<(), ApiError> {
        let max = self.limits.metrics_range_max;
        if fits(range, max) {
            return Ok(());
        }
        let (asked, max) = (shown(length(range)), shown(max));
        let text = format!(
            "metrics query time range exceeds the maximum allowed duration of {max}: it is {asked}; narrow it, or \
             raise query_metrics_max_range"
        );
        Err(self.refusal(Reason::range, text))
    }

    /// Refuses ranges that the step divides into too many intervals.
    pub(super) fn check_intervals(self, range: TimeRange, step: Duration) -> Result<(), ApiError> {
        let max = self.limits.metrics_intervals_max.max(1);
        let nanos = range.end.since(range.start).as_nanos();
        if nanos.div_ceil(step.as_nanos().max(1)) <= max as u128 {
            return Ok(());
        }
        let least = Duration::from_nanos(u64::try_from(nanos.div_ceil(max as u128)).unwrap_or(u64::MAX));
        let text = format!(
            "step {} divides the range into more than {max} intervals: use a step of at least {}, or raise \
             query_metrics_max_intervals",
            shown(step),
            shown(least)
        );
        Err(self.refusal(Reason::intervals, text))
    }

    fn refusal(self, reason: Reason, text: String) -> ApiError {
        self.metrics.refuse(reason);
        ApiError::invalid(text)
    }
}

fn fits(range: TimeRange, max: Duration) -> bool {
    max.is_zero() || length(range) <= max
}

/// In whole seconds: an end may cover the rest of the second that it names.
fn length(range: TimeRange) -> Duration {
    Duration::from_secs(range.end.since(range.start).as_secs())
}

fn shown(duration: Duration) -> String {
    go_duration::format(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;
    use spoor_model::UnixNano;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn seconds(count: u64) -> TimeRange {
        TimeRange { start: UnixNano(0), end: UnixNano(count * SECOND) }
    }

    #[test]
    fn refusals_name_the_limit_and_its_key_and_are_counted() {
        let mut registry = Registry::default();
        let metrics = QueryMetrics::register(&mut registry);
        let limits = Limits { query_bytes_max: 4, ..Limits::default() };
        let bounds = Bounds { limits: &limits, metrics: &metrics };
        let text = bounds.check_metrics_range(seconds(86_401)).unwrap_err().message;
        let phrase = "metrics query time range exceeds the maximum allowed duration of 24h0m0s: it is 24h0m1s";
        assert!(text.starts_with(phrase) && text.ends_with("raise query_metrics_max_range"), "{text}");
        let text = bounds.check_intervals(seconds(86_400), Duration::from_secs(1)).unwrap_err().message;
        let expected = "step 1s divides the range into more than 10000 intervals: use a step of at least 8.64s, or raise \
                        query_metrics_max_intervals";
        assert_eq!(text, expected);
        assert!(bounds.parse("{   }").unwrap_err().message.ends_with("at most 4; raise query_max_bytes"));
        let mut counted = String::new();
        prometheus_client::encoding::text::encode(&mut counted, &registry).unwrap();
        for reason in ["range", "intervals", "query_bytes"] {
            let line = format!("spoor_api_queries_refused_total{{reason=\"{reason}\"}} 1");
            assert!(counted.contains(&line), "{counted}");
        }
    }

    #[test]
    fn what_fits_is_let_through() {
        let (limits, metrics) = (Limits::default(), QueryMetrics::default());
        let bounds = Bounds { limits: &limits, metrics: &metrics };
        assert_eq!(bounds.check_metrics_range(seconds(86_400)), Ok(()), "a day of Traces Drilldown's");
        assert_eq!(bounds.check_intervals(seconds(86_400), Duration::from_secs(30)), Ok(()));
        assert_eq!(bounds.check_search_range(seconds(86_400 * 400)), Ok(()), "searches may be long");
        let unbounded = Limits { metrics_range_max: Duration::ZERO, ..limits };
        assert_eq!(Bounds { limits: &unbounded, ..bounds }.check_metrics_range(seconds(86_400 * 400)), Ok(()));
    }
}
