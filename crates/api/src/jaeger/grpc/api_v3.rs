//! `jaeger.api_v3.QueryService`: traces as OTLP, at most ten spans per message.

use prost_types::Timestamp;
use spoor_model::{TraceId, UnixNano};
use tonic::{Request, Response, Status};

use super::chunks::{self, QUERY_SPANS_MAX};
use super::{Asked, Messages, Service, count, streamed, unix_nano};
use crate::error::{ApiError, Kind};
use crate::jaeger::State;
use crate::jaeger::reads::{self, Shown};
use crate::jaeger::search::Terms;
use crate::jaeger::summary::{self, Summary};
use crate::proto::jaeger::api_v3::query_service_server::QueryService;
use crate::proto::jaeger::api_v3::{
    DependenciesResponse, Dependency, FindTraceSummariesRequest, FindTraceSummariesResponse, FindTracesRequest,
    GetDependenciesRequest, GetOperationsRequest, GetOperationsResponse, GetServicesRequest, GetServicesResponse,
    GetTraceRequest, Operation, ServiceSummary, TraceQueryParameters, TraceSummary,
};
use crate::proto::otlp::TracesData;

#[tonic::async_trait]
impl QueryService for Service {
    type GetTraceStream = Messages<TracesData>;

    async fn get_trace(&self, request: Request<GetTraceRequest>) -> Result<Response<Self::GetTraceStream>, Status> {
        let tenants = self.tenants(&request)?;
        let GetTraceRequest { trace_id, raw_traces, .. } = request.into_inner();
        let id =
            TraceId::from_hex(&trace_id).map_err(|err| Status::invalid_argument(format!("malform trace ID: {err}")))?;
        let shown = Shown::new(raw_traces, self.state.options.skew_max);
        let run = move |querier: &_, ctx: &_| {
            let (trace, skipped) = reads::trace(querier, &tenants, id, ctx)?;
            let trace = trace.ok_or_else(|| ApiError::new(Kind::NotFound, "trace not found"))?;
            Ok((chunks::of_trace(shown.otlp(trace), QUERY_SPANS_MAX), skipped))
        };
        Ok(self.answer(run).await?.map(streamed))
    }

    type FindTracesStream = Messages<TracesData>;

    async fn find_traces(
        &self,
        request: Request<FindTracesRequest>,
    ) -> Result<Response<Self::FindTracesStream>, Status> {
        let tenants = self.tenants(&request)?;
        let (terms, is_raw) = terms(&self.state, request.into_inner().query)?;
        let shown = Shown::new(is_raw, self.state.options.skew_max);
        let messages = move |trace| chunks::of_trace(shown.otlp(trace), QUERY_SPANS_MAX);
        Ok(self.find(tenants, terms, messages).await?.map(streamed))
    }

    type FindTraceSummariesStream = Messages<FindTraceSummariesResponse>;

    async fn find_trace_summaries(
        &self,
        request: Request<FindTraceSummariesRequest>,
    ) -> Result<Response<Self::FindTraceSummariesStream>, Status> {
        let tenants = self.tenants(&request)?;
        let (terms, _) = terms(&self.state, request.into_inner().query)?;
        let message = |summaries| FindTraceSummariesResponse { summaries };
        self.summaries(tenants, terms, trace_summary, message).await
    }

    async fn get_services(
        &self,
        request: Request<GetServicesRequest>,
    ) -> Result<Response<GetServicesResponse>, Status> {
        Ok(self.services(self.tenants(&request)?).await?.map(|services| GetServicesResponse { services }))
    }

    async fn get_operations(
        &self,
        request: Request<GetOperationsRequest>,
    ) -> Result<Response<GetOperationsResponse>, Status> {
        let tenants = self.tenants(&request)?;
        let GetOperationsRequest { service, span_kind } = request.into_inner();
        let found = self.operations(tenants, service, span_kind).await?;
        let operation = |(name, kind): (String, &str)| Operation { name, span_kind: kind.to_owned() };
        Ok(found.map(|found| GetOperationsResponse { operations: found.into_iter().map(operation).collect() }))
    }

    async fn get_dependencies(
        &self,
        request: Request<GetDependenciesRequest>,
    ) -> Result<Response<DependenciesResponse>, Status> {
        let tenants = self.tenants(&request)?;
        let request = request.into_inner();
        let range = required_range(request.start_time.as_ref(), request.end_time.as_ref())?;
        let calls = self.calls(tenants, range).await?;
        let dependency =
            |call: reads::Call| Dependency { parent: call.parent, child: call.child, call_count: call.count };
        Ok(calls.map(|calls| DependenciesResponse { dependencies: calls.into_iter().map(dependency).collect() }))
    }
}

fn required_range(start: Option<&Timestamp>, end: Option<&Timestamp>) -> Result<(UnixNano, UnixNano), Status> {
    let (Some(start), Some(end)) = (start, end) else {
        return Err(Status::invalid_argument("start time and end time are required parameters"));
    };
    match (unix_nano(start), unix_nano(end)) {
        (start, end) if end > start => Ok((start, end)),
        _ => Err(Status::invalid_argument("end time must be after start time")),
    }
}

/// The terms of a search, and whether it wants traces as they are stored.
fn terms(state: &State, query: Option<TraceQueryParameters>) -> Result<(Terms, bool), Status> {
    let query = query.ok_or_else(|| Status::invalid_argument("missing query"))?;
    if query.start_time_min.is_none() || query.start_time_max.is_none() {
        return Err(Status::invalid_argument("start time min and max are required parameters"));
    }
    let asked = Asked {
        service: &query.service_name,
        operation: &query.operation_name,
        start: query.start_time_min.as_ref(),
        end: query.start_time_max.as_ref(),
        min: query.duration_min.as_ref(),
        max: query.duration_max.as_ref(),
        depth: query.search_depth,
        filter: query.filter.as_ref(),
    };
    Ok((asked.terms(state, query.attributes.clone())?, query.raw_traces))
}

fn trace_summary(summary: Summary) -> TraceSummary {
    let service = |service: summary::ServiceSummary| ServiceSummary {
        name: service.name,
        span_count: count(service.span_count),
        error_span_count: count(service.error_span_count),
    };
    TraceSummary {
        trace_id: summary.trace_id.to_string(),
        root_service_name: summary.root_service_name,
        root_operation_name: summary.root_operation_name,
        min_start_time_unix_nano: summary.min_start_time_unix_nano,
        max_end_time_unix_nano: summary.max_end_time_unix_nano,
        span_count: count(summary.span_count),
        error_span_count: count(summary.error_span_count),
        orphan_span_count: count(summary.orphan_span_count),
        services: summary.services.into_iter().map(service).collect(),
    }
}
