//! Reads that ask several tenants at once (`X-Scope-OrgID: a|b`) where each can be asked for itself, and
//! answers are merged. Searches, series and filters are not like that: the querier takes all tenants as one.
//!
//! With one tenant, which is nearly always, nothing is copied.

use std::collections::BTreeSet;

use spoor_model::scan::{Field, KeySet, Operation, QueryContext};
use spoor_model::{TenantId, TimeRange, Trace, TraceId, Value};
use spoor_querier::{Answer, Querier, QueryError, SpanFilter};

/// Asks every tenant and folds the values into the first.
fn merged<T>(
    tenants: &[TenantId],
    mut ask: impl FnMut(&TenantId) -> Result<Answer<T>, QueryError>,
    mut fold: impl FnMut(&mut T, T),
) -> Result<Answer<T>, QueryError> {
    let (first, others) = tenants.split_first().expect("a request has a tenant");
    let mut sum = ask(first)?;
    for tenant in others {
        let answer = ask(tenant)?;
        fold(&mut sum.value, answer.value);
        sum.skipped.extend(answer.skipped);
        sum.stats += answer.stats;
    }
    Ok(sum)
}

/// The trace, with the spans that any of the tenants has.
pub(crate) fn find_trace(
    querier: &Querier,
    tenants: &[TenantId],
    id: TraceId,
    ctx: &QueryContext,
) -> Result<Answer<Option<Trace>>, QueryError> {
    merged(tenants, |tenant| querier.find_trace(tenant, id, ctx), |sum, trace| *sum = join(sum.take(), trace))
}

fn join(one: Option<Trace>, other: Option<Trace>) -> Option<Trace> {
    match (one, other) {
        (Some(mut one), Some(other)) => {
            one.entries.extend(other.entries);
            Trace::assemble(one.id, one.entries)
        }
        (one, other) => one.or(other),
    }
}

/// Attribute names of all tenants; with a filter, those that spans have which pass it.
pub(crate) fn keys(
    querier: &Querier,
    tenants: &[TenantId],
    filter: Option<&SpanFilter>,
    range: TimeRange,
    ctx: &QueryContext,
) -> Result<Answer<KeySet>, QueryError> {
    if let Some(filter) = filter {
        return querier.keys_where(tenants, filter, range, ctx);
    }
    merged(
        tenants,
        |tenant| querier.keys(tenant, range, ctx),
        |sum, keys| keys.into_iter().for_each(|(scope, names)| sum.entry(scope).or_default().extend(names)),
    )
}

/// What the services of all tenants do.
pub(crate) fn operations(
    querier: &Querier,
    tenants: &[TenantId],
    range: TimeRange,
    ctx: &QueryContext,
) -> Result<Answer<BTreeSet<Operation>>, QueryError> {
    merged(tenants, |tenant| querier.operations(tenant, range, ctx), |sum, more| sum.extend(more))
}

/// Distinct values of one field, of all tenants, and whether none were left out; with a filter, those of
/// spans that pass it. Values that several tenants have come several times.
pub(crate) fn values(
    querier: &Querier,
    tenants: &[TenantId],
    (field, filter): (&Field, Option<&SpanFilter>),
    range: TimeRange,
    limit_bytes: usize,
    ctx: &QueryContext,
) -> Result<Answer<(Vec<Value>, bool)>, QueryError> {
    if let Some(filter) = filter {
        return querier.values_where(tenants, field, filter, range, limit_bytes, ctx);
    }
    merged(
        tenants,
        |tenant| querier.values(tenant, field, range, limit_bytes, ctx),
        |sum, (values, is_complete)| {
            sum.0.extend(values);
            sum.1 &= is_complete;
        },
    )
}
