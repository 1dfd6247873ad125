//! `grpc.health.v1.Health`: whoever is answered is served.

use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_server};

use super::Messages;

/// Names that clients ask for: those of the services, and some that Jaeger has and that say the same.
const NAMES: [&str; 9] = [
    "",
    "jaeger.api_v2.QueryService",
    "jaeger.api_v2.metrics.MetricsQueryService",
    "jaeger.api_v3.QueryService",
    "jaeger.storage.v2.TraceReader",
    "jaeger.storage.v2.DependencyReader",
    "jaeger.storage.v2.TraceWriter",
    "jaeger.storage.v2.Capabilities",
    "opentelemetry.proto.collector.trace.v1.TraceService",
];

/// The service.
pub(super) struct Health;

#[tonic::async_trait]
impl health_server::Health for Health {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        match NAMES.contains(&request.get_ref().service.as_str()) {
            true => Ok(Response::new(HealthCheckResponse { status: ServingStatus::Serving.into() })),
            false => Err(Status::not_found("unknown service")),
        }
    }

    type WatchStream = Messages<HealthCheckResponse>;

    /// Clients take this for "as long as there is a connection". A stream that says nothing would only hold up a shutdown.
    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("the status does not change while there is a connection"))
    }
}
