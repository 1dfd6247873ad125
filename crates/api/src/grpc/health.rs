//! `grpc.health.v1.Health`: whoever is answered is served, until the process stops.

use futures_util::stream;
use tokio::sync::watch;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_server};

use super::Messages;

/// The service of one port.
pub(crate) struct Health {
    /// Names that clients ask for: those of the port's services, and others that say the same.
    pub(crate) names: &'static [&'static str],
    /// True until the process stops.
    pub(crate) serving: watch::Receiver<bool>,
}

impl Health {
    /// Whether there is such a service; without a name it is the whole port that is meant.
    fn knows(&self, request: &Request<HealthCheckRequest>) -> bool {
        let asked = request.get_ref().service.as_str();
        asked.is_empty() || self.names.contains(&asked)
    }
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

fn serving_status(is_serving: bool) -> ServingStatus {
    if is_serving { ServingStatus::Serving } else { ServingStatus::NotServing }
}

#[tonic::async_trait]
impl health_server::Health for Health {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        match self.knows(&request) {
            true => Ok(Response::new(answer(serving_status(*self.serving.borrow())))),
            false => Err(Status::not_found("unknown service")),
        }
    }

    type WatchStream = Messages<HealthCheckResponse>;

    /// What holds now, then what changes. The stream ends when the process stops, so that it holds up nothing.
    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let is_known = self.knows(&request);
        let status = move |is_serving| match is_known {
            true => serving_status(is_serving),
            // As the protocol has it: there may be such a service some day.
            false => ServingStatus::ServiceUnknown,
        };
        let mut serving = self.serving.clone();
        let is_serving = *serving.borrow_and_update();
        let left = stream::unfold((is_serving, serving), move |(is_serving, mut serving)| async move {
            // Nothing comes after the end of serving, or when nobody is left who could tell.
            if !is_serving || serving.changed().await.is_err() {
                return None;
            }
            let is_serving = *serving.borrow_and_update();
            Some((Ok(answer(status(is_serving))), (is_serving, serving)))
        });
        let first = stream::iter([Ok(answer(status(is_serving)))]);
        Ok(Response::new(Box::pin(stream::StreamExt::chain(first, left))))
    }
}
