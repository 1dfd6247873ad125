use std::time::Duration;

use super::*;
use crate::query_metrics::QueryMetrics;
use crate::tempo::Limits;

const NOW: UnixNano = UnixNano(1_700_000_000_000_000_000);

fn search(query: &str) -> Result<Search, String> {
    search_within(query, &Limits::default())
}

fn search_within(query: &str, limits: &Limits) -> Result<Search, String> {
    let bounds = Bounds { limits, metrics: &QueryMetrics::default() };
    Search::from_params(&Params::parse(Some(query)), bounds, NOW).map_err(|err| err.message)
}

#[test]
fn mistakes_are_told() {
    for (query, text) in [
        ("q=%7B%7D&tags=a%3D1", "q and tags cannot be combined"),
        ("minDuration=5", "invalid minDuration \"5\": not a duration such as 100ms"),
        ("minDuration=2s&maxDuration=1s", "invalid maxDuration: it must not be less than minDuration"),
        ("limit=0", "invalid limit 0: expected at least 1"),
        ("limit=262145", "invalid limit 262145: expected at most 262144; raise query_max_results"),
        ("limit=-1", "invalid limit \"-1\": invalid digit found in string"),
        ("spss=101", "invalid spss 101: expected at most 100; raise query_max_spans_per_spanset"),
        ("start=5", "start and end must be given together"),
        ("tags=a%3D1+a%3D2", "invalid tags: logfmt syntax error at position 5: duplicate key a"),
        ("tags=status.code%3Dbad", "invalid status.code \"bad\": expected unset, ok or error"),
    ] {
        assert_eq!(search(query).unwrap_err(), text, "{query}");
    }
    assert!(search("q=%7B").unwrap_err().starts_with("invalid TraceQL query: "));
    let long = format!("q={}", "x".repeat(131_073));
    let text = "query expression is 131073 bytes long, at most 131072; raise query_max_bytes";
    assert_eq!(search(&long).unwrap_err(), text);
}

#[test]
fn a_range_that_is_too_long_is_refused_in_the_words_that_grafana_knows() {
    let limits = Limits { search_range_max: Duration::from_secs(3600), ..Limits::default() };
    assert!(search_within("q=%7B%7D&start=1000&end=4600", &limits).is_ok());
    assert!(search_within("q=%7B%7D", &limits).is_ok(), "nobody has specified a range");
    let text = "range specified by start and end (1h0m1s) exceeds 1h0m0s; narrow it, or raise query_search_max_range";
    assert_eq!(search_within("q=%7B%7D&start=1000&end=4601", &limits).unwrap_err(), text);
}

#[test]
fn defaults_are_those_that_the_user_interface_promises() {
    let search = search("q=%7B%7D&spss=0").unwrap();
    assert_eq!((search.request.limit, search.spans_max), (20, 3));
}

#[test]
fn unknown_parameters_are_tags_only_when_nothing_else_is_asked() {
    let conditions = |query| match search(query).unwrap().request.filter {
        Filter::Group(conditions) => conditions.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!(conditions("cluster=eu&limit=5&zone=a"), 2);
    assert_eq!(conditions("tags=a%3D1&cluster=eu"), 1);
    assert_eq!(conditions("start=1&end=2&cluster=eu"), 0);
}
