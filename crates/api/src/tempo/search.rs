//! `/api/search`: TraceQL (`q`), or the tags and durations of older clients.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use http::HeaderMap;
use spoor_model::scan::{AttrScope, Condition, Field, Literal, Predicate, Test};
use spoor_model::{TenantId, UnixNano};
use spoor_querier::{Filter, GroupCondition, SearchRequest};
use spoor_traceql::SearchPlan;

use super::limits::{self, Bounds};
use super::logfmt;
use super::negotiate::{Encoded, Form};
use super::search_answer::SearchAnswer;
use super::time_range::{self, Times};
use crate::error::ApiError;
use crate::params::Params;
use crate::{go_duration, partial};

/// Traces per answer unless the client says.
const LIMIT_DEFAULT: usize = 20;
/// Spans per span set unless the client says; zero means this too.
const SPANS_DEFAULT: usize = 3;

/// Parameters that are not tags, whatever else the URL has.
const KNOWN: [&str; 10] =
    ["q", "tags", "minDuration", "maxDuration", "limit", "start", "end", "since", "spss", "skip_ast_transformations"];

/// A search, checked.
#[derive(Debug)]
pub(super) struct Search {
    pub(super) request: SearchRequest,
    /// Spans shown per span set.
    pub(super) spans_max: usize,
}

/// Finds the newest traces that match, newest first.
pub(super) async fn search(
    State(state): State<Arc<super::State>>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Encoded, ApiError> {
    let tenants: Vec<TenantId> = state.tenancy.for_read(&headers)?;
    let params = Params::parse(query.as_deref());
    let Search { request, spans_max } = Search::from_params(&params, state.bounds(), state.clock.now())?;
    let form = Form::wanted(&headers);
    state
        .gate
        .run(move |querier, ctx| {
            let answer = querier.search(&tenants, &request, ctx)?;
            let partial = partial::note(&answer.skipped);
            let plan = plan_of(&request.filter);
            let answer = SearchAnswer::new(&answer.value, plan, spans_max, answer.stats, answer.skipped.len());
            let bytes = match form {
                Form::Json | Form::Llm => answer.to_json(),
                Form::Protobuf => answer.to_protobuf(),
            };
            Ok(Encoded { form, bytes, partial })
        })
        .await
}

/// The plan of a TraceQL search. `None` for a legacy search, which shows no spans.
pub(super) fn plan_of(filter: &Filter) -> Option<&SearchPlan> {
    match filter {
        Filter::Query(plan) => Some(plan),
        _ => None,
    }
}

impl Search {
    pub(super) fn from_params(params: &Params, bounds: Bounds<'_>, now: UnixNano) -> Result<Self, ApiError> {
        if params.get("q").is_some() && params.get("tags").is_some() {
            return Err(q_and_tags());
        }
        Self::new(params, &legacy_tags(params)?, bounds, now)
    }

    /// A search for `tags`, unless there is a query among the parameters.
    pub(super) fn new(
        params: &Params,
        tags: &[(String, String)],
        bounds: Bounds<'_>,
        now: UnixNano,
    ) -> Result<Self, ApiError> {
        // Durations are of the whole trace. Tempo ignores them beside `q`; Kiali sends both and
        // means both.
        let min_duration_nano = duration(params, "minDuration")?;
        let max_duration_nano = duration(params, "maxDuration")?;
        if let (Some(min), Some(max)) = (min_duration_nano, max_duration_nano)
            && max < min
        {
            return Err(ApiError::invalid("invalid maxDuration: it must not be less than minDuration"));
        }
        let filter = match params.get("q") {
            Some(_) if !tags.is_empty() => return Err(q_and_tags()),
            Some(text) => {
                let plan = spoor_traceql::plan_search(&bounds.parse(text)?).map_err(limits::invalid_query)?;
                Filter::Query(plan)
            }
            None => {
                let conditions = tags.iter().map(|(key, value)| legacy_condition(key, value));
                Filter::Group(conditions.collect::<Result<_, _>>()?)
            }
        };
        let limit = match params.parsed::<u32>("limit")?.map(|limit| limit as usize) {
            None => LIMIT_DEFAULT,
            Some(0) => return Err(ApiError::invalid("invalid limit 0: expected at least 1")),
            Some(limit) => bounds.check_count("limit", limit, bounds.limits.results_max, "query_max_results")?,
        };
        let spans_max = match params.parsed::<u32>("spss")?.map(|spans| spans as usize) {
            None | Some(0) => SPANS_DEFAULT,
            Some(spans) => {
                let (max, key) = (bounds.limits.spans_per_spanset_max, "query_max_spans_per_spanset");
                bounds.check_count("spss", spans, max, key)?
            }
        };
        let range = time_range::from_params(params, Times::Seconds, now)?;
        bounds.check_search_range(range)?;
        let request = SearchRequest { filter, min_duration_nano, max_duration_nano, range, limit };
        Ok(Self { request, spans_max })
    }
}

fn q_and_tags() -> ApiError {
    ApiError::invalid("q and tags cannot be combined")
}

fn duration(params: &Params, name: &str) -> Result<Option<u64>, ApiError> {
    let Some(text) = params.get(name) else { return Ok(None) };
    let nanos = go_duration::parse(text)
        .ok_or_else(|| ApiError::invalid(format!("invalid {name} {text:?}: not a duration such as 100ms")))?;
    Ok((nanos != 0).then_some(nanos))
}

/// The pairs of `tags`; or, when nothing else says what to search, every parameter that has no other
/// meaning.
fn legacy_tags(params: &Params) -> Result<Vec<(String, String)>, ApiError> {
    if let Some(text) = params.get("tags") {
        return logfmt::parse(text).map_err(|err| ApiError::invalid(format!("invalid tags: {err}")));
    }
    if ["q", "start", "end"].iter().any(|name| params.get(name).is_some()) {
        return Ok(Vec::new());
    }
    let others = params.pairs().filter(|(key, value)| !KNOWN.contains(key) && !value.is_empty());
    Ok(others.map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
}

/// A few names match by part of their text; every other attribute, of a span or its resource, by its
/// whole text.
fn legacy_condition(key: &str, value: &str) -> Result<GroupCondition, ApiError> {
    let part = |field| Condition { field, test: Test::Contains(value.into()) };
    let service_name = || Field::Attribute(AttrScope::Resource, "service.name".into());
    let any_of = |predicates: &[Predicate]| GroupCondition::Span(Predicate::Or(predicates.to_vec()));
    let attribute = |scope| {
        Predicate::Is(Condition { field: Field::Attribute(scope, key.into()), test: Test::TextEq(value.into()) })
    };
    let status = |code| Predicate::Is(Condition { field: Field::Status, test: Test::Eq(Literal::Int(code)) });
    Ok(match (key, value) {
        ("root.name", _) => GroupCondition::Root(part(Field::Name)),
        ("root.service.name", _) => GroupCondition::Root(part(service_name())),
        ("name", _) => GroupCondition::Span(Predicate::Is(part(Field::Name))),
        ("service.name", _) => GroupCondition::Span(Predicate::Is(part(service_name()))),
        ("status.code", "unset") => any_of(&[status(0)]),
        ("status.code", "ok") => any_of(&[status(1)]),
        ("status.code", "error") => any_of(&[status(2)]),
        ("status.code", other) => {
            return Err(ApiError::invalid(format!("invalid status.code {other:?}: expected unset, ok or error")));
        }
        ("error", "true") => any_of(&[status(2), attribute(AttrScope::Span), attribute(AttrScope::Resource)]),
        _ => any_of(&[attribute(AttrScope::Span), attribute(AttrScope::Resource)]),
    })
}

#[cfg(test)]
mod tests;
