use super::*;

const NOW: UnixNano = UnixNano(1_700_000_000_000_000_000);

fn search(query: &str) -> Result<Search, String> {
    Search::from_params(&Params::parse(Some(query)), NOW).map_err(|err| err.message)
}

#[test]
fn mistakes_are_told() {
    for (query, text) in [
        ("q=%7B%7D&tags=a%3D1", "q and tags cannot be combined"),
        ("minDuration=5", "invalid minDuration \"5\": not a duration such as 100ms"),
        ("minDuration=2s&maxDuration=1s", "invalid maxDuration: it must not be less than minDuration"),
        ("limit=0", "invalid limit 0: expected 1 to 262144"),
        ("limit=262145", "invalid limit 262145: expected 1 to 262144"),
        ("limit=-1", "invalid limit \"-1\": invalid digit found in string"),
        ("spss=101", "invalid spss 101: expected at most 100"),
        ("start=5", "start and end must be given together"),
        ("tags=a%3D1+a%3D2", "invalid tags: logfmt syntax error at position 5: duplicate key a"),
        ("tags=status.code%3Dbad", "invalid status.code \"bad\": expected unset, ok or error"),
    ] {
        assert_eq!(search(query).unwrap_err(), text, "{query}");
    }
    assert!(search("q=%7B").unwrap_err().starts_with("invalid TraceQL query: "));
    let long = format!("q={}", "x".repeat(QUERY_BYTES_MAX + 1));
    assert_eq!(search(&long).unwrap_err(), "query expression is 131073 bytes long, at most 131072");
}

#[test]
fn defaults_are_those_that_the_user_interface_promises() {
    let search = search("q=%7B%7D&spss=0").unwrap();
    assert_eq!((search.request.limit, search.shown.unwrap().spans_max), (20, 3));
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
