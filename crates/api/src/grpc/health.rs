//! `grpc.health.v1.Health`: whoever is answered is served.

use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_server};

use super::Messages;

/// The service of one port.
pub(crate) struct Health {
    /// Names that clients ask for: those of the port's services, and others that say the same.
    pub(crate) names: &'static [&'static str],
}

#[tonic::async_trait]
impl health_server::Health for Health {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let asked = request.get_ref().service.as_str();
        // Without a name it is the whole port that is meant.
        match asked.is_empty() || self.names.contains(&asked) {
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
