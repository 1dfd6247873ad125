use super::*;

const NOW: UnixNano = UnixNano(1_700_000_000_000_000_000);

fn search(query: &str) -> Result<Terms, String> {
    Terms::from_params(&Params::parse(Some(query)), NOW).map_err(|err| err.message)
}

#[test]
fn mistakes_are_told_in_jaegers_words() {
    for (query, text) in [
        ("operation=x", "parameter 'service' is required"),
        ("service=s&tag=x", "malformed 'tag' parameter, expecting key:value, received: x"),
        ("service=s&start=x", "unable to parse param 'start': strconv.ParseInt: parsing \"x\": invalid syntax"),
        ("service=s&limit=x", "strconv.ParseInt: parsing \"x\": invalid syntax"),
        ("service=s&minDuration=x", "unable to parse param 'minDuration': time: invalid duration \"x\""),
        ("service=s&minDuration=2s&maxDuration=1s", "'maxDuration' should be greater than 'minDuration'"),
        ("service=s&limit=0", "parameter 'limit' must be at least 1, not 0"),
    ] {
        assert_eq!(search(query).unwrap_err(), text, "{query}");
    }
    let text = search("service=s&tags=%7B%22a%22:[]%7D").unwrap_err();
    assert!(text.starts_with("malformed 'tags' parameter, cannot unmarshal JSON: "), "{text}");
}

#[test]
fn a_search_looks_back_two_days_for_a_hundred_traces() {
    let search = search("service=s&lookback=1h").unwrap();
    assert_eq!((search.start, search.end, search.limit), (NOW.minus(LOOKBACK_DEFAULT), NOW, 100));
}

#[test]
fn times_are_microseconds_and_the_last_one_counts_whole() {
    let range =
        |query| search(query).unwrap().request().map(|request| request.range).map(|range| (range.start.0, range.end.0));
    assert_eq!(range("service=s&start=2&end=3"), Some((2000, 3999)));
    assert_eq!(range("service=s&start=4&end=3"), None);
}

#[test]
fn later_tags_win_and_values_may_be_numbers() {
    let params = Params::parse(Some("tag=a:1&tag=b:x:y&tags=%7B%22a%22:2,%22c%22:true%7D"));
    let expected = [("a", "2"), ("b", "x:y"), ("c", "true")];
    assert_eq!(tags(&params).unwrap(), expected.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
}

#[test]
fn services_without_a_name_that_is_text_are_found_by_what_they_are_shown_as() {
    use spoor_model::{KeyValue, Origin, Resource, Span, SpanEntry, Value};
    let entry = |name: Option<Value>| {
        let attributes = name.into_iter().map(|name| KeyValue::new("service.name", name)).collect();
        let resource = Resource { attributes, ..Resource::default() };
        SpanEntry { origin: Arc::new(Origin { resource, ..Origin::default() }), span: Span::default() }
    };
    let text = |text: &str| Some(Value::Str(text.into()));
    for (name, shown) in [
        (None, MISSING_SERVICE),
        (Some(Value::Int(-5)), MISSING_SERVICE),
        (Some(Value::Double(1.5)), MISSING_SERVICE),
        (Some(Value::Bool(false)), MISSING_SERVICE),
        (text(MISSING_SERVICE), MISSING_SERVICE),
        (text(""), EMPTY_SERVICE),
        (text("shop"), "shop"),
    ] {
        let entry = entry(name);
        for asked in [MISSING_SERVICE, EMPTY_SERVICE, "shop"] {
            assert_eq!(service_predicate(asked).matches(&entry), asked == shown, "{entry:?} as {asked}");
        }
    }
}

#[test]
fn ids_in_paths_may_be_base64() {
    let id = |text: &str| trace_id_from_path(text).map(|id| id.to_string());
    assert_eq!(id("a0B1"), Ok("0000000000000000000000000000a0b1".into()));
    assert_eq!(id("AAAAAAAAAAAAAAAAAACgsQ=="), Ok("0000000000000000000000000000a0b1".into()));
    assert_eq!(id("_____wAAAAE"), Ok("0000000000000000ffffffff00000001".into()));
    assert!(id("xyz").is_err() && id("").is_err());
}
