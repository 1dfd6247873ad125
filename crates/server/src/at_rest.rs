//! Tempo's routes over a data directory that no Spoor is using.
//!
//! The same gate, querier and routes as in a server, over what the directory holds: so a terminal gets the
//! answers that a server would give.

use std::sync::Arc;

use axum::Router;
use prometheus_client::registry::Registry;
use spoor_api::request_metrics::RequestMetrics;
use spoor_api::tempo;
use spoor_ingester::AtRest;
use spoor_model::scan::Snapshots;
use spoor_model::{Clock, TenantId};
use spoor_otlp::OtlpDecoder;
use tokio::sync::watch;

use crate::clock::SystemClock;
use crate::config::Config;
use crate::parts;
use crate::storage;

/// Opens the directory of a configuration for reading. With `has_tenants`, requests name theirs. Blocks: costs a
/// microsecond per span that is not in a block yet.
pub(crate) fn routes(config: &Config, has_tenants: bool) -> Result<Router, String> {
    let memory = config.memory().map_err(|err| err.to_string())?;
    let storage = storage::open_at_rest(config)?;
    let at = parts::ingester_config(config, &memory, storage.identity());
    let found = spoor_ingester::open_at_rest_with(&at, storage.files, &OtlpDecoder);
    let found = found.map_err(|err| err.to_string())?;
    if !has_tenants {
        check_tenants(&found)?;
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    // Nobody reads these: the process answers one question.
    let mut registry = Registry::default();
    let snapshots: Arc<dyn Snapshots> = Arc::new(found);
    let gate = parts::query_gate(config, &memory, snapshots, &clock, &mut registry)?;
    let queries = parts::Queries {
        gate,
        tenancy: parts::tenancy(config, has_tenants),
        requests: RequestMetrics::register(&mut registry, Arc::clone(&clock)),
        clock,
        serving: watch::channel(true).1,
        cors_allowed_origins: Vec::new(),
    };
    Ok(tempo::router(queries.tempo(config, registry, Arc::new(tempo::Health::default), None)))
}

/// Whoever names no tenant means the one that a server without tenants has.
fn check_tenants(found: &AtRest) -> Result<(), String> {
    let tenants = found.tenants();
    if tenants.is_empty() || tenants.contains(&TenantId::single()) {
        return Ok(());
    }
    let names: Vec<String> = tenants.iter().map(ToString::to_string).collect();
    Err(format!("the directory holds spans of tenants; name one with --tenant: {}", names.join(", ")))
}
