//! What the gRPC services of queries have in common, on whichever port: health, reflection, the form of errors, and how
//! calls are counted.

mod calls;
mod health;

use std::pin::Pin;

use axum::Router;
use tokio::sync::watch;
use tokio_stream::Stream;
use tonic::service::Routes;
use tonic::{Code, Status};

use self::health::Health;
use crate::error::ApiError;
use crate::proto::DESCRIPTORS;

pub(crate) use self::calls::counted;

/// The messages of a stream.
pub(crate) type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl From<ApiError> for Status {
    fn from(err: ApiError) -> Self {
        Self::new(Code::from_i32(err.kind.grpc()), err.message)
    }
}

/// A port's services, with health and reflection beside them. `reflected` are those that reflection lists, `healthy`
/// the names that health knows. `serving` turns false when the process stops.
pub(crate) fn with_health_and_reflection(
    services: Routes,
    reflected: &[&str],
    healthy: &'static [&'static str],
    serving: watch::Receiver<bool>,
) -> Router {
    const OWN: [&str; 3] =
        ["grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"];
    let reflection = || {
        let builder = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
        reflected.iter().chain(&OWN).fold(builder, |builder, name| builder.with_service_name(*name))
    };
    let checked = "a test reads the descriptors";
    services
        .add_service(tonic_health::pb::health_server::HealthServer::new(Health { names: healthy, serving }))
        .add_service(reflection().build_v1().expect(checked))
        .add_service(reflection().build_v1alpha().expect(checked))
        .into_axum_router()
}

/// What tests send and get.
#[cfg(test)]
pub(crate) mod client;
