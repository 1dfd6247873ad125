//! Names and services of the roots of traces that a filter finds.
//!
//! The filter is about any span of a trace, so this asks what no catalogue has: it counts spans by their root, and
//! keeps the roots.

use spoor_model::scan::QueryContext;
use spoor_model::{TenantId, TimeRange, Value};
use spoor_querier::{Answer, Querier, QueryError};
use spoor_traceql::ast::{Body, MetricsExpr};
use spoor_traceql::{LenientFilter, MetricsPlan, Static, Window};

/// The query that counts spans by `root`, which is `rootName` or `rootServiceName`.
pub(super) fn plan(filter: &LenientFilter, root: &str) -> Option<MetricsPlan> {
    let Body::Search(found) = filter.query().body else { return None };
    let mut query = spoor_traceql::parse(&format!("{{ }} | count_over_time() by({root})")).ok()?;
    let Body::Metrics(MetricsExpr::Aggregate { pipeline, .. }) = &mut query.body else { return None };
    *pipeline = found;
    spoor_traceql::plan_metrics(&query).ok()
}

/// The roots of traces with a matching span that starts in the range, at most so many bytes of them, and whether
/// these are all.
pub(super) fn values(
    querier: &Querier,
    tenants: &[TenantId],
    plan: &MetricsPlan,
    range: TimeRange,
    bytes_max: usize,
    ctx: &QueryContext,
) -> Result<Answer<(Vec<Value>, bool)>, QueryError> {
    // The end of time is farther than intervals are long.
    let window = Window::instant(range.start.0, range.end.0.min(i64::MAX.unsigned_abs()));
    let Answer { value: series, skipped, stats, explain } = querier.metrics(tenants, plan, &window, 0, ctx)?;
    let mut left = bytes_max;
    let mut is_complete = true;
    let mut values = Vec::new();
    for (_, root) in series.iter().flat_map(|one| &one.labels) {
        // Traces whose root has not come have an empty one.
        let Static::Str(text) = root else { continue };
        match left.checked_sub(text.len()) {
            _ if text.is_empty() => {}
            Some(rest) => {
                left = rest;
                values.push(Value::Str(text.to_string()));
            }
            None => is_complete = false,
        }
    }
    Ok(Answer { value: (values, is_complete), skipped, stats, explain })
}
