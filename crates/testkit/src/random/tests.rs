use proptest::prelude::*;

use super::*;
use crate::answer::Window;
use crate::oracle::Oracle;

fn checked(text: &str) -> Result<spoor_traceql::Query, TestCaseError> {
    let query = spoor_traceql::parse(text).map_err(|error| TestCaseError::fail(format!("{text}: {error}")))?;
    spoor_traceql::check(&query).map_err(|error| TestCaseError::fail(format!("{text}: {error}")))?;
    Ok(query)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_search_is_well_typed_and_has_an_answer(text in search_query(), entries in entries()) {
        let query = checked(&text)?;
        let is_answered = Oracle::new(entries).search(&query).is_ok();
        prop_assert!(is_answered, "{text}");
    }

    #[test]
    fn every_metrics_query_is_well_typed_and_has_an_answer(text in metrics_query(), entries in entries(), window in window()) {
        let query = checked(&text)?;
        let is_answered = Oracle::new(entries).metrics(&query, window).is_ok();
        prop_assert!(is_answered, "{text}");
    }
}

#[test]
fn queries_hit_and_miss() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let (mut hits, mut points) = (0, 0);
    for _ in 0..300 {
        let oracle = Oracle::new(entries().new_tree(&mut runner).expect("traces").current());
        let search = search_query().new_tree(&mut runner).expect("a query").current();
        hits += usize::from(!oracle.search(&checked(&search).expect("checked")).expect("an answer").is_empty());
        let metrics = metrics_query().new_tree(&mut runner).expect("a query").current();
        let window = Window {
            from: crate::traceql_corpus::T0 - 1,
            to: crate::traceql_corpus::T0 + 59_999_999_999,
            step: 15_000_000_000,
        };
        let series = oracle.metrics(&checked(&metrics).expect("checked"), window).expect("an answer");
        points += usize::from(!series.is_empty());
    }
    assert!((60..240).contains(&hits), "{hits} of 300 searches find something");
    assert!((100..290).contains(&points), "{points} of 300 metrics queries find something");
}
