//! A router that answers before the rest of the process is there.
//!
//! Ports are open from the first instant, recovery may take seconds. Until then queries and exports
//! are told to come back, in the words that their clients understand and retry on.

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{Request, StatusCode, header};
use tower::ServiceExt;

const MESSAGE: &str = "starting: recovering what was acknowledged before the last stop";

/// What a port serves: nothing yet, then everything.
#[derive(Clone, Default)]
pub(crate) struct Late {
    router: Arc<OnceLock<Router>>,
}

impl Late {
    /// From now on requests go to `router`.
    pub(crate) fn set(&self, router: Router) {
        assert!(self.router.set(router).is_ok(), "a port gets its router once");
    }

    /// The router to serve from the start.
    pub(crate) fn router(&self) -> Router {
        let late = self.clone();
        Router::new().fallback(move |request: Request<Body>| late.clone().call(request))
    }

    async fn call(self, request: Request<Body>) -> Response {
        match self.router.get() {
            Some(router) => router.clone().oneshot(request).await.into_response(),
            None => come_back(&request),
        }
    }
}

fn come_back(request: &Request<Body>) -> Response {
    let content_type = request.headers().get(header::CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    if content_type.starts_with(b"application/grpc") {
        // 14 is UNAVAILABLE, which exporters retry.
        let headers = [("content-type", "application/grpc"), ("grpc-status", "14"), ("grpc-message", MESSAGE)];
        return (StatusCode::OK, headers).into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], MESSAGE).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ask(late: &Late, content_type: &str) -> Response {
        let request = Request::get("/ready").header(header::CONTENT_TYPE, content_type).body(Body::empty()).unwrap();
        late.router().oneshot(request).await.unwrap()
    }

    #[tokio::test]
    async fn clients_are_told_to_come_back_until_the_router_is_there() {
        let late = Late::default();
        let http = ask(&late, "application/json").await;
        assert_eq!(
            (http.status(), http.headers()[header::RETRY_AFTER].as_bytes()),
            (StatusCode::SERVICE_UNAVAILABLE, &b"1"[..])
        );
        let grpc = ask(&late, "application/grpc+proto").await;
        assert_eq!((grpc.status(), grpc.headers()["grpc-status"].as_bytes()), (StatusCode::OK, &b"14"[..]));
        late.set(Router::new().route("/ready", axum::routing::get(|| async { "ready" })));
        assert_eq!(ask(&late, "").await.status(), StatusCode::OK);
    }
}
