//! What messages ask, as the parameters of the same question over HTTP, so that both are read by the same code.
//!
//! A zero is what HTTP says by leaving a parameter out.

use crate::params::Params;
use crate::proto::tempopb::{
    QueryInstantRequest, QueryRangeRequest, SearchRequest, SearchTagValuesRequest, SearchTagsRequest,
};

fn number(number: impl Into<u64>) -> String {
    with_unit(number, "")
}

fn with_unit(number: impl Into<u64>, unit: &str) -> String {
    match number.into() {
        0 => String::new(),
        number => format!("{number}{unit}"),
    }
}

/// Up to ten digits would be taken for seconds.
fn nanoseconds(nanos: u64) -> String {
    if nanos == 0 { String::new() } else { format!("{nanos:020}") }
}

/// All but the tags.
pub(super) fn search(asked: SearchRequest) -> Params {
    Params::of_message([
        ("q", asked.query),
        ("minDuration", with_unit(asked.min_duration_ms, "ms")),
        ("maxDuration", with_unit(asked.max_duration_ms, "ms")),
        ("limit", number(asked.limit)),
        ("start", number(asked.start)),
        ("end", number(asked.end)),
        ("spss", number(asked.spans_per_span_set)),
    ])
}

pub(super) fn tag_names(asked: &SearchTagsRequest) -> Params {
    Params::of_message([
        ("scope", asked.scope.clone()),
        ("q", asked.query.clone()),
        ("start", number(asked.start)),
        ("end", number(asked.end)),
        ("limit", number(asked.max_tags_per_scope)),
        ("maxStaleValues", number(asked.stale_values_threshold)),
    ])
}

pub(super) fn tag_values(asked: &SearchTagValuesRequest) -> Params {
    Params::of_message([
        ("q", asked.query.clone()),
        ("start", number(asked.start)),
        ("end", number(asked.end)),
        ("limit", number(asked.max_tag_values)),
        ("maxStaleValues", number(asked.stale_value_threshold)),
    ])
}

pub(super) fn query_range(asked: QueryRangeRequest) -> Params {
    Params::of_message([
        ("q", asked.query),
        ("start", nanoseconds(asked.start)),
        ("end", nanoseconds(asked.end)),
        ("step", with_unit(asked.step, "ns")),
        ("exemplars", number(asked.exemplars)),
        ("maxSeries", number(asked.max_series)),
    ])
}

pub(super) fn query_instant(asked: QueryInstantRequest) -> Params {
    Params::of_message([("q", asked.query), ("start", nanoseconds(asked.start)), ("end", nanoseconds(asked.end))])
}
