//! Tempo's routes over a data directory that no Spoor is using.

use axum::Router;

/// Opens a directory for reading. With tenants, requests name theirs.
pub(crate) fn routes(directory: &str, _has_tenants: bool) -> Result<Router, String> {
    Err(format!("{directory}: directories at rest cannot be read yet"))
}
