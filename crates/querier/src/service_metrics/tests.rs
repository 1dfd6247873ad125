use proptest::prelude::*;
use spoor_model::{SpanEntry, Trace, TraceId};

use super::*;
use crate::lookup::tests::{querier, querier_with};
use crate::oracle::{Oracle, at_hand, origin, span};
use crate::search::tests::any_sources;

fn request(end: u64, step_nano: u64, point_count: u32, window_nano: u64) -> ServiceMetricsRequest {
    let filter = Predicate::True;
    let end = UnixNano(end);
    ServiceMetricsRequest { filter, by_operation: true, quantile: Some(0.5), end, step_nano, point_count, window_nano }
}

/// Durations and errors, by service and operation.
type Naive = BTreeMap<(Service, String), Vec<(Vec<u64>, u64)>>;

fn naive(entries: &[SpanEntry], request: &ServiceMetricsRequest) -> Naive {
    let mut by_trace: BTreeMap<TraceId, Vec<SpanEntry>> = BTreeMap::new();
    entries.iter().for_each(|entry| by_trace.entry(entry.span.trace_id).or_default().push(entry.clone()));
    let mut series = Naive::new();
    for trace in by_trace.into_iter().filter_map(|(id, entries)| Trace::assemble(id, entries)) {
        for entry in &trace.entries {
            let is_in =
                |at: UnixNano| entry.span.start <= at && at.0 < entry.span.start.0.saturating_add(request.window_nano);
            if !request.times().any(is_in) {
                continue;
            }
            let key = (entry.origin.service_name().map(Into::into), entry.span.name.clone());
            let points = series.entry(key).or_insert_with(|| vec![Default::default(); request.point_count as usize]);
            for ((durations, errors), _) in points.iter_mut().zip(request.times()).filter(|(_, at)| is_in(*at)) {
                durations.push(entry.span.duration_nano());
                *errors += u64::from(entry.span.status.code == STATUS_ERROR);
            }
        }
    }
    series
}

proptest! {
    #[test]
    fn every_span_counts_once_for_every_window_that_it_starts_in(
        sources in any_sources(),
        (end, step, points, window) in (100_u64..140, 1_u64..30, 1_u32..5, 1_u64..50),
    ) {
        let request = request(end, step, points, window);
        let entries: Vec<SpanEntry> = sources.iter().flat_map(|source| source.entries.clone()).collect();
        let expect = naive(&entries, &request);
        let querier = querier_with(sources, crate::Limits::default());
        let found = querier.service_metrics(&[TenantId::single()], &request, &at_hand()).expect("nothing fails").value;
        prop_assert_eq!(found.len(), expect.len());
        for (series, ((service, operation), points)) in found.iter().zip(expect) {
            prop_assert_eq!((&series.service, series.operation.as_ref()), (&service, Some(&operation)));
            for (point, (mut durations, errors)) in series.points.iter().zip(points) {
                prop_assert_eq!((point.calls, point.errors), (durations.len() as u64, errors));
                durations.sort_unstable();
                // Durations this short have a bucket each, so the median is one of them.
                let median = durations.get((durations.len().max(1) - 1) / 2).map(|median| *median as f64);
                prop_assert_eq!(point.duration_nano, median);
            }
        }
    }

    #[test]
    fn a_bucket_holds_its_number_and_is_narrow(nanos in any::<u64>()) {
        let (least, width) = bounds_of(bucket_of(nanos));
        prop_assert!(least <= nanos && nanos - least < width, "{} + {}", least, width);
        prop_assert!(width == 1 || width <= least / 64);
    }

    #[test]
    fn longer_durations_have_later_buckets(a in any::<u64>(), b in any::<u64>()) {
        prop_assert!(a > b || bucket_of(a) <= bucket_of(b));
    }
}

#[test]
fn services_are_one_series_each_unless_operations_are_asked_for() {
    let of = |name: &str, at| SpanEntry { origin: origin("shop"), ..span(at as u8, 1, name, at, at + 10) };
    let (querier, _) = querier(vec![Oracle::of(vec![of("a", 10), of("b", 20), of("b", 30)])]);
    let ask = |by_operation| {
        let request = ServiceMetricsRequest { by_operation, ..request(40, 20, 2, 20) };
        let series = querier.service_metrics(&[TenantId::single()], &request, &at_hand()).expect("works").value;
        let calls = |series: &ServiceSeries| series.points.iter().map(|point| point.calls).collect::<Vec<_>>();
        series.iter().map(|series| (series.operation.clone(), calls(series))).collect::<Vec<_>>()
    };
    assert_eq!(ask(false), [(None, vec![2, 1])]);
    assert_eq!(ask(true), [(Some("a".to_owned()), vec![1, 0]), (Some("b".to_owned()), vec![1, 1])]);
}
