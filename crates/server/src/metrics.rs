//! The process's own metrics: the registry that every part registers with, and those of `server`.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::MatchedPath;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use http::{Method, Request};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::build_info;
use crate::process::ProcessCollector;

/// Labels of a request, as Tempo's dashboards select them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: String,
    route: String,
    status_code: String,
    ws: &'static str,
}

/// Seconds; the bounds that Tempo's dashboards draw.
const REQUEST_BUCKETS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0];

/// The metrics of this crate.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    requests: Family<RequestLabels, Histogram, fn() -> Histogram>,
}

impl Metrics {
    /// Registers them.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let new_histogram: fn() -> Histogram = || Histogram::new(REQUEST_BUCKETS);
        let requests = Family::new_with_constructor(new_histogram);
        let help = "Time from a request's first byte to the head of its answer";
        for name in ["spoor_server_request_duration", "tempo_request_duration"] {
            registry.register_with_unit(name, help, Unit::Seconds, requests.clone());
        }
        for name in ["spoor_build", "tempo_build"] {
            let labels = vec![("version", build_info::VERSION), ("revision", build_info::REVISION)];
            registry.register(name, "Which build this is", Info::new(labels));
        }
        registry.register_collector(Box::new(ProcessCollector));
        Self { requests }
    }

    /// Observes every request of a port. `prefix` goes before the names of its routes.
    pub(crate) fn observe(&self, router: Router, prefix: &'static str) -> Router {
        let metrics = self.clone();
        router.layer(from_fn(move |request: Request<Body>, next: Next| {
            let metrics = metrics.clone();
            async move { metrics.observed(prefix, request, next).await }
        }))
    }

    async fn observed(&self, prefix: &'static str, request: Request<Body>, next: Next) -> Response {
        let path = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str);
        let route = route_label(prefix, path);
        let is_grpc =
            request.headers().get("content-type").is_some_and(|v| v.as_bytes().starts_with(b"application/grpc"));
        let method = method_label(request.method(), is_grpc).to_owned();
        let started = tokio::time::Instant::now();
        let response = next.run(request).await;
        let status_code = match is_grpc {
            true => grpc_status_label(&response).to_owned(),
            false => response.status().as_str().to_owned(),
        };
        let labels = RequestLabels { method, route, status_code, ws: "false" };
        self.requests.get_or_create(&labels).observe(started.elapsed().as_secs_f64());
        response
    }
}

/// Clients may send any word as a method; labels must stay few.
fn method_label(method: &Method, is_grpc: bool) -> &'static str {
    match *method {
        _ if is_grpc => "gRPC",
        Method::GET => "GET",
        Method::POST => "POST",
        Method::OPTIONS => "OPTIONS",
        Method::HEAD => "HEAD",
        _ => "other",
    }
}

/// `success` unless the answer's head already carries a failure.
fn grpc_status_label(response: &Response) -> &'static str {
    match response.headers().get("grpc-status").map(|status| status.as_bytes()) {
        None | Some(b"0") if response.status().is_success() => "success",
        _ => "error",
    }
}

/// Tempo's form: `/api/traces/{trace_id}` is `api_traces_traceid`.
fn route_label(prefix: &str, path: &str) -> String {
    let mut label = prefix.to_owned();
    let mut in_parameter = false;
    for c in path.trim_start_matches('/').chars() {
        match c {
            '{' => in_parameter = true,
            '}' => in_parameter = false,
            '/' | '.' => label.push('_'),
            '_' | '*' if in_parameter => {}
            c => label.push(c.to_ascii_lowercase()),
        }
    }
    label
}

/// Everything registered, in the OpenMetrics text format.
pub(crate) fn text(registry: &Arc<Registry>) -> String {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).expect("a String takes all");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use tower::ServiceExt;

    #[test]
    fn routes_are_labelled_as_tempo_does() {
        for (prefix, path, expected) in [
            ("", "/api/traces/{trace_id}", "api_traces_traceid"),
            ("", "/api/search/tag/{tagName}/values", "api_search_tag_tagname_values"),
            ("otlp_", "/v1/traces", "otlp_v1_traces"),
            (
                "",
                "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
                "opentelemetry_proto_collector_trace_v1_traceservice_export",
            ),
        ] {
            assert_eq!(route_label(prefix, path), expected);
        }
    }

    #[tokio::test]
    async fn requests_are_counted_by_route_under_both_names() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let router = metrics.observe(Router::new().route("/api/echo", get(|| async { "echo" })), "");
        let request = Request::get("/api/echo?x=1").body(Body::empty()).unwrap();
        router.oneshot(request).await.unwrap();
        let text = text(&Arc::new(registry));
        for name in ["spoor_server", "tempo"] {
            let line = format!(
                "{name}_request_duration_seconds_count{{method=\"GET\",route=\"api_echo\",status_code=\"200\",ws=\"false\"}} 1"
            );
            assert!(text.contains(&line), "{text}");
        }
        assert!(
            text.contains("process_resident_memory_bytes ") && text.contains("tempo_build_info{version="),
            "{text}"
        );
    }
}
