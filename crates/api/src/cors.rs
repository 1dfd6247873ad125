//! Which pages in browsers may send spans and query (`cors_allowed_origins`).

use std::time::Duration;

use axum::Router;
use http::{HeaderName, HeaderValue, Method};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use crate::partial;

/// Lets pages of these origins call a surface; `None` without origins. Entries that no `Origin`
/// header can equal never match.
pub(crate) fn layer<const M: usize, const H: usize>(
    origins: &[String],
    methods: [Method; M],
    exposed: [HeaderName; H],
) -> Option<CorsLayer> {
    if origins.is_empty() {
        return None;
    }
    let allow_origin = match origins.iter().any(|origin| origin == "*") {
        true => AllowOrigin::any(),
        false => AllowOrigin::list(origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok())),
    };
    let layer = CorsLayer::new()
        .allow_origin(allow_origin)
        .allow_methods(methods)
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(exposed)
        // The longest that Chromium honours.
        .max_age(Duration::from_secs(7_200));
    Some(layer)
}

/// Lets pages of these origins read the answers of a query surface.
pub(crate) fn for_queries(router: Router, origins: &[String]) -> Router {
    match layer(origins, [Method::GET, Method::POST], [partial::HEADER]) {
        Some(layer) => router.layer(layer),
        None => router,
    }
}
