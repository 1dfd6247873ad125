//! `jaeger.storage.v2`: Spoor as the storage of a Jaeger.
//!
//! Traces are handed over as they are stored: that Jaeger adjusts them for its clients. A trace that is not there is no
//! error here.

use spoor_model::{Trace, TraceId, Value, value};
use tonic::{Request, Response, Status};

use super::chunks::{self, STORAGE_SPANS_MAX};
use super::{Asked, Messages, Service, count, streamed, timestamp, trace_id, unix_nano};
use crate::jaeger::filter::{LEVELS, OPERATORS};
use crate::jaeger::search::Terms;
use crate::jaeger::summary::{self, Summary};
use crate::jaeger::{State, reads};
use crate::proto::jaeger::storage::v2::any_value::Value as Any;
use crate::proto::jaeger::storage::v2::capabilities_server::Capabilities;
use crate::proto::jaeger::storage::v2::dependency_reader_server::DependencyReader;
use crate::proto::jaeger::storage::v2::trace_reader_server::TraceReader;
use crate::proto::jaeger::storage::v2::{
    AnyValue, Dependency, FilterCapabilities, FindTraceIDsRequest, FindTraceIDsResponse, FindTraceSummariesRequest,
    FindTraceSummariesResponse, FindTracesRequest, FoundTraceId, GetCapabilitiesRequest, GetCapabilitiesResponse,
    GetDependenciesRequest, GetDependenciesResponse, GetOperationsRequest, GetOperationsResponse, GetServicesRequest,
    GetServicesResponse, GetTracesRequest, KeyValue, Operation, SearchCapabilities, ServiceSummary,
    TraceQueryParameters, TraceSummary,
};
use crate::proto::otlp::TracesData;
use crate::value_text;

#[tonic::async_trait]
impl TraceReader for Service {
    type GetTracesStream = Messages<TracesData>;

    /// Times are hints that finding a trace does not need.
    async fn get_traces(&self, request: Request<GetTracesRequest>) -> Result<Response<Self::GetTracesStream>, Status> {
        let tenants = self.tenants(&request)?;
        let ids = request.get_ref().query.iter().map(|one| trace_id(&one.trace_id));
        let ids: Vec<TraceId> = ids.collect::<Result<_, _>>()?;
        let run = move |querier: &_, ctx: &_| {
            let (mut messages, mut missing) = (Vec::new(), Vec::new());
            for id in ids {
                let (trace, skipped) = reads::trace(querier, &tenants, id, ctx)?;
                messages.extend(trace.into_iter().flat_map(|trace| chunks::of_trace(trace, STORAGE_SPANS_MAX)));
                missing.extend(skipped.into_iter().filter(|one| !missing.contains(one)).collect::<Vec<_>>());
            }
            Ok((messages, missing))
        };
        Ok(self.answer(run).await?.map(streamed))
    }

    type FindTracesStream = Messages<TracesData>;

    async fn find_traces(
        &self,
        request: Request<FindTracesRequest>,
    ) -> Result<Response<Self::FindTracesStream>, Status> {
        let tenants = self.tenants(&request)?;
        let terms = terms(&self.state, request.into_inner().query)?;
        Ok(self.find(tenants, terms, |trace| chunks::of_trace(trace, STORAGE_SPANS_MAX)).await?.map(streamed))
    }

    async fn find_trace_i_ds(
        &self,
        request: Request<FindTraceIDsRequest>,
    ) -> Result<Response<FindTraceIDsResponse>, Status> {
        let tenants = self.tenants(&request)?;
        let terms = terms(&self.state, request.into_inner().query)?;
        let found = |trace: Trace| {
            let range = trace.range();
            let (start, end) = (Some(timestamp(range.start)), Some(timestamp(range.end)));
            vec![FoundTraceId { trace_id: trace.id.0.to_vec(), start, end }]
        };
        Ok(self.find(tenants, terms, found).await?.map(|trace_ids| FindTraceIDsResponse { trace_ids }))
    }

    type FindTraceSummariesStream = Messages<FindTraceSummariesResponse>;

    async fn find_trace_summaries(
        &self,
        request: Request<FindTraceSummariesRequest>,
    ) -> Result<Response<Self::FindTraceSummariesStream>, Status> {
        let tenants = self.tenants(&request)?;
        let terms = terms(&self.state, request.into_inner().query)?;
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
}

#[tonic::async_trait]
impl DependencyReader for Service {
    async fn get_dependencies(
        &self,
        request: Request<GetDependenciesRequest>,
    ) -> Result<Response<GetDependenciesResponse>, Status> {
        let tenants = self.tenants(&request)?;
        let GetDependenciesRequest { start_time: Some(start), end_time: Some(end) } = request.into_inner() else {
            return Err(Status::invalid_argument("start time and end time are required"));
        };
        let range = (unix_nano(&start), unix_nano(&end));
        let calls = self.calls(tenants, range).await?;
        let dependency = |call: reads::Call| Dependency {
            parent: call.parent,
            child: call.child,
            call_count: call.count,
            source: String::new(),
        };
        Ok(calls.map(|calls| GetDependenciesResponse { dependencies: calls.into_iter().map(dependency).collect() }))
    }
}

#[tonic::async_trait]
impl Capabilities for Service {
    async fn get_capabilities(
        &self,
        _: Request<GetCapabilitiesRequest>,
    ) -> Result<Response<GetCapabilitiesResponse>, Status> {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let filter = Some(FilterCapabilities { levels: texts(&LEVELS), operators: texts(&OPERATORS) });
        let search = SearchCapabilities { without_service_name: true, same_span_conjunction: true, filter };
        Ok(Response::new(GetCapabilitiesResponse { search: Some(search) }))
    }
}

fn terms(state: &State, query: Option<TraceQueryParameters>) -> Result<Terms, Status> {
    let query = query.ok_or_else(|| Status::invalid_argument("missing query"))?;
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
    let text = |tag: &KeyValue| (tag.key.clone(), value_text::plain(&plain(tag.value.as_ref())));
    asked.terms(state, query.attributes.iter().map(text))
}

/// The value whose text is compared. The caller's query map has texts only, whatever people meant.
fn plain(value: Option<&AnyValue>) -> Value {
    let key_value = |entry: &KeyValue| value::KeyValue::new(entry.key.clone(), plain(entry.value.as_ref()));
    match value.and_then(|value| value.value.as_ref()) {
        None => Value::Empty,
        Some(Any::StringValue(text)) => Value::Str(text.clone()),
        Some(Any::BoolValue(flag)) => Value::Bool(*flag),
        Some(Any::IntValue(int)) => Value::Int(*int),
        Some(Any::DoubleValue(double)) => Value::Double(*double),
        Some(Any::BytesValue(bytes)) => Value::Bytes(bytes.clone()),
        Some(Any::ArrayValue(array)) => Value::Array(array.values.iter().map(|value| plain(Some(value))).collect()),
        Some(Any::KvlistValue(list)) => Value::Map(list.values.iter().map(key_value).collect()),
    }
}

fn trace_summary(summary: Summary) -> TraceSummary {
    let service = |service: summary::ServiceSummary| ServiceSummary {
        name: service.name,
        span_count: count(service.span_count),
        error_span_count: count(service.error_span_count),
    };
    TraceSummary {
        trace_id: summary.trace_id.0.to_vec(),
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
