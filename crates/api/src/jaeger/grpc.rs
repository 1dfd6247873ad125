//! Port 16685: `jaeger.api_v2` and `jaeger.api_v3` for clients, `jaeger.storage.v2` for a Jaeger that keeps its spans here,
//! health and reflection.
//!
//! A Jaeger that uses Spoor as its storage writes with OTLP's own call, which is served on this port too.

mod api_v2;
mod api_v3;
mod chunks;
mod storage_v2;

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Router;
use http::{Extensions, HeaderMap};
use prost::Message;
use prost_types::{Duration as ProtoDuration, Timestamp};
use spoor_model::scan::{QueryContext, Skipped};
use spoor_model::{TenantId, Trace, TraceId, UnixNano};
use spoor_querier::Querier;
use tonic::metadata::MetadataMap;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use super::State;
use super::filter::StructuredFilter;
use super::reads::{self, Shown};
use super::search::{LIMIT_DEFAULT, Terms};
use super::summary::{self, Summary};
use crate::error::ApiError;
use crate::grpc::{self, Messages};
use crate::proto::jaeger::{
    api_v2::query_service_server::QueryServiceServer as ApiV2,
    api_v3::query_service_server::QueryServiceServer as ApiV3, expression::v1::Call,
    storage::v2::capabilities_server::CapabilitiesServer,
    storage::v2::dependency_reader_server::DependencyReaderServer, storage::v2::trace_reader_server::TraceReaderServer,
};
use crate::{otlp, partial};

/// The services, as reflection lists them.
const SERVICES: [&str; 5] = [
    "jaeger.api_v2.QueryService",
    "jaeger.api_v3.QueryService",
    "jaeger.storage.v2.TraceReader",
    "jaeger.storage.v2.DependencyReader",
    "jaeger.storage.v2.Capabilities",
];

/// What health knows: the services, and some that Jaeger has and that say the same.
const HEALTHY: [&str; 8] = [
    "jaeger.api_v2.QueryService",
    "jaeger.api_v2.metrics.MetricsQueryService",
    "jaeger.api_v3.QueryService",
    "jaeger.storage.v2.TraceReader",
    "jaeger.storage.v2.DependencyReader",
    "jaeger.storage.v2.TraceWriter",
    "jaeger.storage.v2.Capabilities",
    "opentelemetry.proto.collector.trace.v1.TraceService",
];

/// All calls of the port. `receivers` takes the spans that a Jaeger writes to its storage.
pub fn grpc_router(state: Arc<State>, receivers: otlp::State) -> Router {
    let requests = state.requests.clone();
    grpc::counted(services(state).merge(otlp::export_route(receivers)), requests)
}

fn services(state: Arc<State>) -> Router {
    let service = || Service { state: Arc::clone(&state) };
    let routes = Routes::new(ApiV2::new(service()))
        .add_service(ApiV3::new(service()))
        .add_service(TraceReaderServer::new(service()))
        .add_service(DependencyReaderServer::new(service()))
        .add_service(CapabilitiesServer::new(service()));
    grpc::with_health_and_reflection(routes, &SERVICES, &HEALTHY, state.serving.clone())
}

/// The five services: all of them ask the same state.
struct Service {
    state: Arc<State>,
}

/// Messages that are made already, one after the other.
fn streamed<T: Send + 'static>(messages: Vec<T>) -> Messages<T> {
    Box::pin(tokio_stream::iter(messages.into_iter().map(Ok)))
}

impl Service {
    fn tenants<T>(&self, request: &Request<T>) -> Result<Vec<TenantId>, Status> {
        let headers = request.metadata().clone().into_headers();
        Ok(self.state.tenancy.for_jaeger_read(&headers)?)
    }

    /// Runs `work` within the gate. When something could not be read, the metadata before the answer says so:
    /// Jaeger's messages have no place for it.
    async fn answer<T, F>(&self, work: F) -> Result<Response<T>, Status>
    where
        T: Send + 'static,
        F: FnOnce(&Querier, &QueryContext) -> Result<(T, Vec<Skipped>), ApiError> + Send + 'static,
    {
        let (value, skipped) = self.state.gate.run(work).await?;
        let mut headers = HeaderMap::new();
        partial::mark(&mut headers, partial::note(&skipped).as_deref());
        Ok(Response::from_parts(MetadataMap::from_headers(headers), value, Extensions::new()))
    }

    async fn services(&self, tenants: Vec<TenantId>) -> Result<Response<Vec<String>>, Status> {
        self.answer(move |querier, ctx| Ok(reads::services(querier, &tenants, ctx)?)).await
    }

    async fn operations(
        &self,
        tenants: Vec<TenantId>,
        service: String,
        kind: String,
    ) -> Result<Response<BTreeSet<(String, &'static str)>>, Status> {
        self.answer(move |querier, ctx| Ok(reads::operations(querier, &tenants, &service, &kind, ctx)?)).await
    }

    async fn calls(
        &self,
        tenants: Vec<TenantId>,
        range: (UnixNano, UnixNano),
    ) -> Result<Response<Vec<reads::Call>>, Status> {
        self.answer(move |querier, ctx| Ok(reads::calls(querier, &tenants, range, ctx)?)).await
    }

    /// What `show` makes of each trace that is found.
    async fn find<T: Send + 'static>(
        &self,
        tenants: Vec<TenantId>,
        terms: Terms,
        show: impl Fn(Trace) -> Vec<T> + Send + 'static,
    ) -> Result<Response<Vec<T>>, Status> {
        self.answer(move |querier, ctx| {
            let (traces, skipped) = reads::find(querier, &tenants, &terms, ctx)?;
            Ok((traces.into_iter().flat_map(show).collect(), skipped))
        })
        .await
    }

    /// Summaries of the traces that are found, at most a thousand (of about 200 bytes) per message.
    async fn summaries<T: Message + 'static, M: Send + 'static>(
        &self,
        tenants: Vec<TenantId>,
        terms: Terms,
        summary: fn(Summary) -> T,
        message: fn(Vec<T>) -> M,
    ) -> Result<Response<Messages<M>>, Status> {
        const SUMMARIES_MAX: usize = 1_000;
        let adjusted = Shown::Adjusted(self.state.options.skew_max);
        let show = move |trace| vec![summary(summary::summary(&adjusted.otlp(trace)))];
        let found = self.find(tenants, terms, show).await?;
        Ok(found.map(|all| streamed(chunks::together(all, SUMMARIES_MAX).into_iter().map(message).collect())))
    }
}

/// A number of spans, as Jaeger's messages have it.
fn count(spans_count: u32) -> i32 {
    i32::try_from(spans_count).unwrap_or(i32::MAX)
}

/// A trace id of 16 bytes, or of 8 from old clients.
fn trace_id(bytes: &[u8]) -> Result<TraceId, Status> {
    let mut id = [0; 16];
    match bytes.len() {
        0 => {}
        8 => id[8..].copy_from_slice(bytes),
        16 => id.copy_from_slice(bytes),
        count => return Err(Status::invalid_argument(format!("a trace id has 16 bytes or 8, not {count}"))),
    }
    match TraceId(id) {
        id if id.is_zero() => Err(Status::invalid_argument("uninitialized TraceID is not allowed")),
        id => Ok(id),
    }
}

/// An instant; times before 1970 are 1970.
fn unix_nano(time: &Timestamp) -> UnixNano {
    let nanos = i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos);
    UnixNano(u64::try_from(nanos.max(0)).unwrap_or(u64::MAX))
}

fn timestamp(time: UnixNano) -> Timestamp {
    Timestamp { seconds: (time.0 / 1_000_000_000) as i64, nanos: (time.0 % 1_000_000_000) as i32 }
}

fn duration(nanos: u64) -> ProtoDuration {
    ProtoDuration { seconds: (nanos / 1_000_000_000) as i64, nanos: (nanos % 1_000_000_000) as i32 }
}

/// Nanoseconds; 0 for none, and for what lies before it.
fn nanos(duration: Option<&ProtoDuration>) -> u64 {
    let nanos = duration.map_or(0, |it| i128::from(it.seconds) * 1_000_000_000 + i128::from(it.nanos));
    u64::try_from(nanos.max(0)).unwrap_or(u64::MAX)
}

/// What the three forms of search parameters have in common.
struct Asked<'a> {
    service: &'a str,
    operation: &'a str,
    start: Option<&'a Timestamp>,
    end: Option<&'a Timestamp>,
    min: Option<&'a ProtoDuration>,
    max: Option<&'a ProtoDuration>,
    depth: i32,
    filter: Option<&'a Call>,
}

impl Asked<'_> {
    /// The terms of a search; what has no time is not bounded by it.
    fn terms(&self, state: &State, tags: impl IntoIterator<Item = (String, String)>) -> Result<Terms, Status> {
        let filter = self.filter.map(|call| {
            let filter = state.checked_filter(|bytes_max| StructuredFilter::from_call(call, bytes_max));
            filter.map_err(|err| Status::invalid_argument(format!("malformed filter: {err}")))
        });
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let terms = Terms {
            service: text(self.service),
            operation: text(self.operation),
            tags: tags.into_iter().collect(),
            start: self.start.map_or(UnixNano(0), unix_nano),
            end: self.end.map_or(UnixNano(u64::MAX), unix_nano),
            min_duration_nano: nanos(self.min),
            max_duration_nano: nanos(self.max),
            filter: filter.transpose()?,
            limit: usize::try_from(self.depth).ok().filter(|depth| *depth > 0).unwrap_or(LIMIT_DEFAULT),
        };
        match terms.filter.is_some() && terms.has_classic() {
            true => Err(Status::invalid_argument(
                "filter cannot be combined with service_name, operation_name, attributes, duration_min or duration_max",
            )),
            false => Ok(terms),
        }
    }
}

#[cfg(test)]
mod tests;
