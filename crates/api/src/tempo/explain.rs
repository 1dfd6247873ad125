//! `/spoor/explain`: how a TraceQL query runs, as text for people.
//!
//! Not of Tempo's API. It takes the parameters of a search or a metrics query, runs it, and shows the plan and
//! what was read, instead of what was found:
//!
//! ```text
//! ask sources for ...                                   the plan
//!
//! search: 3 sources, 1 of them out of range             each scan
//!   block 01J...: 2 of 8 groups read (5 have nothing that matches, 1 is out of range), 131072 spans, 1.2 MB
//!   4 traces put together of 57 spans
//! total: 131072 spans, 1.2 MB read
//! ```

use std::fmt::Write;
use std::sync::Arc;

use axum::extract::{RawQuery, State};
use http::HeaderMap;
use spoor_model::scan::{ScanStats, Skipped};
use spoor_querier::{Explain, SourceScan, Stage};
use spoor_traceql::ast::Body;

use super::metrics::MetricsRequest;
use super::search::{self, Search};
use crate::error::ApiError;
use crate::params::Params;
use crate::partial;

/// Runs a query and tells how.
pub(super) async fn explain(
    State(state): State<Arc<super::State>>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<String, ApiError> {
    let tenants = state.tenancy.for_read(&headers)?;
    let params = Params::parse(query.as_deref());
    let (bounds, now) = (state.bounds(), state.clock.now());
    let text = params.get("q").ok_or_else(|| ApiError::invalid("invalid q: a query is needed"))?;
    if let Body::Metrics(_) = bounds.parse(text)?.body {
        let MetricsRequest { plan, window, exemplars_max, .. } = MetricsRequest::over_time(&params, bounds, now)?;
        let run = move |querier: &spoor_querier::Querier, ctx: &spoor_model::scan::QueryContext| {
            let answer = querier.metrics(&tenants, &plan, &window, exemplars_max, ctx)?;
            let found = format!("{} series", answer.value.len());
            Ok(shown(&plan.explain(), &answer.explain, answer.stats, &answer.skipped, &found))
        };
        return state.gate.run(run).await;
    }
    let Search { request, .. } = Search::from_params(&params, bounds, now)?;
    let run = move |querier: &spoor_querier::Querier, ctx: &spoor_model::scan::QueryContext| {
        let answer = querier.search(&tenants, &request, ctx)?;
        let plan = search::plan_of(&request.filter).map(spoor_traceql::SearchPlan::explain).unwrap_or_default();
        let found = counted(answer.value.len() as u64, "trace");
        let found = format!("{found}, at most {} asked for", request.limit);
        Ok(shown(&plan, &answer.explain, answer.stats, &answer.skipped, &found))
    };
    state.gate.run(run).await
}

fn shown(plan: &str, explain: &Explain, stats: ScanStats, skipped: &[Skipped], found: &str) -> String {
    let mut text = plan.trim_end().to_owned();
    text.push_str("\n\n");
    explain.stages.iter().for_each(|stage| put_stage(&mut text, stage));
    if let Some(note) = partial::note(skipped) {
        put(&mut text, format_args!("{note}\n"));
    }
    let ScanStats { spans_inspected, traces_inspected, bytes_inspected } = stats;
    let (spans, traces) = (counted(spans_inspected, "span"), counted(traces_inspected, "trace"));
    let total = format!("{spans} of {traces}, {bytes_inspected} bytes");
    put(&mut text, format_args!("read: {total}\nfound: {found}\n"));
    text
}

fn put_stage(text: &mut String, stage: &Stage) {
    let count = stage.sources.len() as u64 + stage.sources_out_of_range + stage.sources_not_reached;
    put(text, format_args!("{}: {}", stage.name, counted(count, "source")));
    for (count, why) in
        [(stage.sources_out_of_range, "out of range"), (stage.sources_not_reached, "not needed any more")]
    {
        if count > 0 {
            put(text, format_args!(", {count} {why}"));
        }
    }
    text.push('\n');
    stage.sources.iter().for_each(|source| put_source(text, source));
    if stage.traces_located > 0 {
        put(text, format_args!("  {} located in all sources\n", counted(stage.traces_located, "trace")));
    }
    if stage.traces_assembled > 0 {
        let (traces, spans) = (counted(stage.traces_assembled, "trace"), counted(stage.spans_assembled, "span"));
        put(text, format_args!("  {traces} put together of {spans}\n"));
    }
}

fn put_source(text: &mut String, scan: &SourceScan) {
    let groups = counted(scan.pruned.group_count, "group");
    put(text, format_args!("  {}: {} of {groups} read", scan.source, scan.groups_read));
    let reasons = [
        (scan.pruned.by_range, "out of range"),
        (scan.pruned.by_content, "without what is asked for"),
        (scan.groups_without_torn_traces, "out of range, and no trace goes on in it"),
        (scan.groups_not_reached(), "not needed any more"),
        (scan.groups_without_match, "read in part, as no span matches"),
    ];
    let reasons: Vec<String> =
        reasons.iter().filter(|(count, _)| *count > 0).map(|(count, why)| format!("{count} {why}")).collect();
    if !reasons.is_empty() {
        put(text, format_args!(" ({})", reasons.join(", ")));
    }
    let ScanStats { spans_inspected, bytes_inspected, .. } = scan.stats;
    put(text, format_args!(", {}, {bytes_inspected} bytes\n", counted(spans_inspected, "span")));
}

fn counted(count: u64, one: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") }
}

fn put(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("a String takes all");
}

#[cfg(test)]
mod tests {
    use crate::fixtures::{Store, get, tempo};
    use crate::tenant::Tenancy;

    #[tokio::test]
    async fn a_query_is_explained_and_a_mistake_is_one() {
        let data = include_bytes!("../../../../api/fixtures/tempo/shop/request.json");
        let router = tempo(Store::with(data), Tenancy::Single);
        for (query, found) in [("%7Bkind%3Dserver%7D", "found: 3 traces"), ("%7B%7D%7Crate()", "found: 1 series")] {
            let reply = get(&router, &format!("/spoor/explain?q={query}"), &[]).await;
            assert_eq!(reply.status.as_u16(), 200, "{}", reply.text());
            for part in ["test spans: ", "read: ", " bytes", found] {
                assert!(reply.text().contains(part), "{part}: {}", reply.text());
            }
        }
        assert_eq!(get(&router, "/spoor/explain?q=%7B", &[]).await.status.as_u16(), 400);
        assert_eq!(get(&router, "/spoor/explain", &[]).await.status.as_u16(), 400);
    }
}
