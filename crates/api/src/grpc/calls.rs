//! How long calls take and how they end, beside the requests of HTTP and as Tempo's dashboards have them: `method="gRPC"`,
//! the path as `route`, and `success`, `error` or `cancel` instead of a status.
//!
//! A call of gRPC ends with its last message, so it is measured until then; its status stands in the trailers, or in
//! the headers when there is nothing else.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use http::HeaderMap;
use http_body_util::BodyExt;
use prost::Message;
use prost_types::FileDescriptorSet;

use crate::proto::DESCRIPTORS;
use crate::request_metrics::{RequestMetrics, Started};

/// Counts the calls of a router.
pub(crate) fn counted(router: Router, metrics: RequestMetrics) -> Router {
    let counting = Counting { metrics, known: Arc::new(known_paths()) };
    router.layer(middleware::from_fn_with_state(counting, count))
}

#[derive(Clone)]
struct Counting {
    metrics: RequestMetrics,
    known: Arc<BTreeSet<String>>,
}

/// Paths of all methods. Clients may invent others; labels must not grow with them.
fn known_paths() -> BTreeSet<String> {
    let sets = [
        DESCRIPTORS,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ];
    let files = sets.into_iter().flat_map(|set| FileDescriptorSet::decode(set).unwrap_or_default().file);
    let mut paths = BTreeSet::new();
    for file in files {
        for service in &file.service {
            let methods = service.method.iter().map(|method| method.name());
            paths.extend(methods.map(|method| format!("/{}.{}/{method}", file.package(), service.name())));
        }
    }
    // Its descriptor is not among ours: nothing of it is generated.
    paths.insert(crate::otlp::EXPORT_PATH.to_owned());
    paths
}

/// A call under way. Whoever drops it before its status is known has gone away.
struct Call {
    started: Started,
    route: String,
    outcome: &'static str,
}

impl Call {
    fn look(&mut self, headers: &HeaderMap) {
        match headers.get("grpc-status").map(|status| status.as_bytes()) {
            None => {}
            Some(b"0") => self.outcome = "success",
            Some(b"1") => self.outcome = "cancel",
            Some(_) => self.outcome = "error",
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.started.end("gRPC", std::mem::take(&mut self.route), self.outcome.to_owned());
    }
}

async fn count(State(Counting { metrics, known }): State<Counting>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let route = match path {
        // The receiver's route has the name that Tempo's dashboards chart.
        crate::otlp::EXPORT_PATH => "opentelemetry_proto_collector_trace_v1_traceservice_export",
        path if known.contains(path) => path,
        _ => "other",
    };
    let route = route.to_owned();
    let mut call = Call { started: metrics.start(), route, outcome: "cancel" };
    let response = next.run(request).await;
    call.look(response.headers());
    response.map(|body| {
        Body::new(body.map_frame(move |frame| {
            if let Some(trailers) = frame.trailers_ref() {
                call.look(trailers);
            }
            frame
        }))
    })
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::fixtures::FixedClock;

    async fn counts(path: &str, answer: fn() -> Response, reads_it: bool) -> String {
        let mut registry = Registry::default();
        let metrics = RequestMetrics::register(&mut registry, Arc::new(FixedClock));
        let router = counted(Router::new().fallback(move || async move { answer() }), metrics);
        let request = http::Request::post(path).body(Body::empty()).unwrap();
        let answered = tower::ServiceExt::oneshot(router, request).await.unwrap();
        if reads_it {
            answered.into_body().collect().await.unwrap();
        } else {
            drop(answered);
        }
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let count = text.lines().find(|line| line.starts_with("tempo_request_duration_seconds_count"));
        count.unwrap_or_default().to_owned()
    }

    fn with_trailers(status: &'static str) -> Response {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", status.parse().unwrap());
        Response::new(Body::new(Body::from("message").with_trailers(async move { Some(Ok(trailers)) })))
    }

    #[tokio::test]
    async fn calls_are_counted_by_how_they_end() {
        const SEARCH: &str = "/tempopb.StreamingQuerier/Search";
        let label = |route: &str, outcome: &str| {
            format!(
                "tempo_request_duration_seconds_count{{method=\"gRPC\",route=\"{route}\",status_code=\"{outcome}\",ws=\"false\"}} 1"
            )
        };
        let refused = || ([("grpc-status", "3")], "").into_response();
        assert_eq!(counts(SEARCH, || with_trailers("0"), true).await, label(SEARCH, "success"));
        assert_eq!(counts(SEARCH, || with_trailers("0"), false).await, label(SEARCH, "cancel"));
        assert_eq!(counts(SEARCH, || with_trailers("13"), true).await, label(SEARCH, "error"));
        assert_eq!(counts(SEARCH, refused, true).await, label(SEARCH, "error"));
        assert_eq!(counts("/made.Up/Method", refused, true).await, label("other", "error"));
    }

    #[test]
    fn the_methods_of_every_service_are_known() {
        let known = known_paths();
        for path in [
            "/tempopb.StreamingQuerier/MetricsQueryRange",
            "/jaeger.api_v2.QueryService/GetTrace",
            "/grpc.health.v1.Health/Check",
            "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        ] {
            assert!(known.contains(path), "{path}");
        }
    }
}
