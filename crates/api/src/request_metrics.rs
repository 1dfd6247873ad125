//! How long requests take, by route: `spoor_api_request_duration_seconds`, and under the name that
//! Tempo's dashboards and alerts look for, `tempo_request_duration_seconds`.

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::Method;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use spoor_model::{Clock, UnixNano};

/// Upper bounds in seconds: those of Tempo, so that its recording rules fit.
const BUCKETS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    method: &'static str,
    route: String,
    status_code: String,
    ws: &'static str,
}

type Durations = Family<Labels, Histogram, fn() -> Histogram>;

/// The histogram, and the clock that fills it.
#[derive(Clone)]
pub struct RequestMetrics {
    durations: Durations,
    clock: Arc<dyn Clock>,
}

impl RequestMetrics {
    /// Makes the histogram known.
    pub fn register(registry: &mut Registry, clock: Arc<dyn Clock>) -> Self {
        let durations: Durations = Family::new_with_constructor(|| Histogram::new(BUCKETS));
        let help = "Time from a request's head to its answer's head, or to the end of a gRPC call, in seconds";
        registry.register("spoor_api_request_duration_seconds", help, durations.clone());
        registry.register("tempo_request_duration_seconds", help, durations.clone());
        Self { durations, clock }
    }

    /// Notes when a request begins.
    pub(crate) fn start(&self) -> Started {
        Started { metrics: self.clone(), started_at: self.clock.now() }
    }
}

/// A request that has begun.
pub(crate) struct Started {
    metrics: RequestMetrics,
    started_at: UnixNano,
}

impl Started {
    /// Notes that it has ended, and how. `route` and `status_code` must come from short lists.
    pub(crate) fn end(&self, method: &'static str, route: String, status_code: String) {
        let seconds = self.metrics.clock.now().since(self.started_at).as_secs_f64();
        let labels = Labels { method, route, status_code, ws: "false" };
        self.metrics.durations.get_or_create(&labels).observe(seconds);
    }
}

/// Which surface a router serves: the routes of Jaeger carry a prefix, since some are spelled as
/// Tempo's.
#[derive(Clone)]
pub(crate) struct Observed {
    pub(crate) metrics: RequestMetrics,
    pub(crate) route_prefix: &'static str,
}

/// Measures a request: the middleware of both routers.
pub(crate) async fn observe(State(observed): State<Observed>, request: Request, next: Next) -> Response {
    let started = observed.metrics.start();
    let method = method_label(request.method());
    let path = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let response = next.run(request).await;
    let route = match path {
        Some(path) => format!("{}{}", observed.route_prefix, route_label(&path)),
        None => "other".to_owned(),
    };
    started.end(method, route, response.status().as_str().to_owned());
    response
}

/// Clients may invent methods; labels must not grow with them.
fn method_label(method: &Method) -> &'static str {
    const KNOWN: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    KNOWN.into_iter().find(|known| *known == method.as_str()).unwrap_or("other")
}

/// `/api/v2/search/tag/{*tagName}` becomes `api_v2_search_tag_tagname_values`, as Tempo's dashboards
/// have it.
fn route_label(path: &str) -> String {
    let path = path.strip_prefix('/').unwrap_or(path);
    let label: String = path
        .chars()
        .filter(|c| !matches!(c, '{' | '}' | '*'))
        .map(|c| if c == '/' { '_' } else { c.to_ascii_lowercase() })
        .collect();
    match label.as_str() {
        "" => "root".to_owned(),
        // The route is greedy because names hold slashes; the pattern ends before `/values`.
        tag if tag.ends_with("_tagname") => format!("{tag}_values"),
        _ => label,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_named_as_tempos_dashboards_name_them() {
        for (path, label) in [
            ("/api/search", "api_search"),
            ("/api/traces/{traceID}", "api_traces_traceid"),
            ("/api/v2/traces/{traceID}", "api_v2_traces_traceid"),
            ("/api/search/tag/{*tagName}", "api_search_tag_tagname_values"),
            ("/", "root"),
        ] {
            assert_eq!(route_label(path), label);
        }
    }
}
