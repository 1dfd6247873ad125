//! Limits by tenant, to be read: `/status/overrides`, `/status/runtime_config`, `/api/overrides`.
//!
//! The words are those of Tempo's overrides, as far as Spoor has what they stand for. Where Tempo's meaning of a
//! value and Spoor's differ (a limit of zero), a comment of the YAML says so. Limits come from the configuration
//! alone: nothing here sets one.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use spoor_model::TenantId;

use super::limits::Limits;
use crate::error::ApiError;
use crate::go_duration;
use crate::params::Params;

type Shared = State<Arc<super::State>>;

/// What holds for a tenant, beside the [`Limits`] of queries, which hold for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TenantLimits {
    /// Bytes per second that may be sent; zero for no bound.
    pub ingest_rate_bytes: u64,
    /// Bytes that may be sent at once above the rate.
    pub ingest_burst_bytes: u64,
    /// How long spans are kept; zero for ever.
    pub retention: Duration,
}

/// The limits of all tenants.
#[derive(Debug, Clone)]
pub struct Overrides {
    /// Of whoever is not named.
    pub defaults: TenantLimits,
    /// Of tenants with limits of their own, all of them: nothing is looked up in the defaults.
    pub by_tenant: BTreeMap<TenantId, TenantLimits>,
}

impl Overrides {
    fn of(&self, tenant: &TenantId) -> TenantLimits {
        self.by_tenant.get(tenant).copied().unwrap_or(self.defaults)
    }

    /// The defaults, and each tenant that has its own.
    pub(super) fn to_yaml(&self, limits: &Limits) -> String {
        let mut text = "overrides:\n  defaults:\n".to_owned();
        text.push_str(&indented(&yaml(self.defaults, limits), "    "));
        for (tenant, of_tenant) in &self.by_tenant {
            // Names may hold quotes and stars, never a double quote or a backslash.
            put(&mut text, format_args!("  \"{tenant}\":\n"));
            text.push_str(&indented(&yaml(*of_tenant, limits), "    "));
        }
        text
    }
}

/// Every tenant that has limits of its own, and the defaults.
pub(super) async fn all(State(state): Shared) -> Response {
    plain(state.overrides.to_yaml(&state.limits))
}

/// What is in force for one tenant, whether or not anybody has heard of it.
pub(super) async fn of_tenant(State(state): Shared, Path(tenant): Path<String>) -> Result<Response, ApiError> {
    let tenant = TenantId::parse(&tenant).map_err(|err| ApiError::invalid(err.to_string()))?;
    Ok(plain(yaml(state.overrides.of(&tenant), &state.limits)))
}

/// What is reloaded while the process runs: nothing.
pub(super) async fn runtime_config() -> Response {
    plain("# nothing is reloaded while Spoor runs; /status/config has what is in force\noverrides: {}\n".to_owned())
}

/// Limits that a tenant has set through the API: there are never any, since there is no setting them.
pub(super) async fn user_configured(
    State(state): Shared,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<StatusCode, ApiError> {
    state.tenancy.for_write(&headers)?;
    match Params::parse(query.as_deref()).get("scope") {
        None | Some("api" | "merged") => Ok(StatusCode::NOT_FOUND),
        Some(other) => Err(ApiError::invalid(format!("unknown scope {other:?}: expected api or merged"))),
    }
}

fn plain(yaml: String) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], yaml).into_response()
}

fn yaml(tenant: TenantLimits, limits: &Limits) -> String {
    let duration = |duration: Duration| go_duration::format(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    let zero = |is_zero: bool, meaning: &str| if is_zero { format!(" # {meaning}") } else { String::new() };
    let TenantLimits { ingest_rate_bytes, ingest_burst_bytes, retention } = tenant;
    let Limits { search_range_max, metrics_range_max, tags_bytes_max, .. } = limits;
    let unlimited = "no limit";
    let mut text = String::new();
    let rate = zero(ingest_rate_bytes == 0, unlimited);
    put(&mut text, format_args!("ingestion:\n  rate_strategy: local\n  rate_limit_bytes: {ingest_rate_bytes}{rate}\n"));
    put(&mut text, format_args!("  burst_size_bytes: {ingest_burst_bytes}\n"));
    put(&mut text, format_args!("  max_traces_per_user: 0 # {unlimited}\n"));
    put(&mut text, format_args!("read:\n  max_bytes_per_tag_values_query: {tags_bytes_max}\n"));
    for (key, range) in [("max_search_duration", search_range_max), ("max_metrics_duration", metrics_range_max)] {
        put(&mut text, format_args!("  {key}: {}{}\n", duration(*range), zero(range.is_zero(), unlimited)));
    }
    let kept = zero(retention.is_zero(), "for ever");
    put(&mut text, format_args!("compaction:\n  block_retention: {}{kept}\n", duration(retention)));
    put(&mut text, format_args!("global:\n  max_bytes_per_trace: 0 # {unlimited}\n"));
    text
}

fn indented(text: &str, by: &str) -> String {
    text.lines().map(|line| format!("{by}{line}\n")).collect()
}

fn put(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("a String takes all");
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;

    #[test]
    fn the_readout_is_yaml_in_tempos_shape() {
        let hour = Duration::from_secs(3600);
        let defaults = TenantLimits { ingest_rate_bytes: 0, ingest_burst_bytes: 16, retention: Duration::ZERO };
        let by_tenant =
            BTreeMap::from([(TenantId::parse("a*'b").unwrap(), TenantLimits { retention: hour, ..defaults })]);
        let overrides = Overrides { defaults, by_tenant };
        let read: Json = serde_norway::from_str(&overrides.to_yaml(&Limits::default())).unwrap();
        assert_eq!(read["overrides"]["defaults"]["compaction"]["block_retention"], "0s");
        assert_eq!(read["overrides"]["a*'b"]["compaction"]["block_retention"], "1h0m0s");
        let ingestion =
            json!({"rate_strategy": "local", "rate_limit_bytes": 0, "burst_size_bytes": 16, "max_traces_per_user": 0});
        assert_eq!(read["overrides"]["a*'b"]["ingestion"], ingestion);
        assert_eq!(read["overrides"]["defaults"]["read"]["max_metrics_duration"], "24h0m0s");
    }
}
