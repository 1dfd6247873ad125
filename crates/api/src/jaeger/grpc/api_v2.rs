//! `jaeger.api_v2.QueryService`: traces in Jaeger's own form, at most ten spans per message.

use std::collections::BTreeSet;

use spoor_model::TraceId;
use tonic::{Request, Response, Status};

use super::chunks::{self, QUERY_SPANS_MAX};
use super::{Asked, Messages, Service, duration, streamed, timestamp, trace_id, unix_nano};
use crate::error::{ApiError, Kind};
use crate::jaeger::model::{self, JaegerSpan, JaegerTrace, Process as ModelProcess, TagValue};
use crate::jaeger::reads::{self, Shown};
use crate::proto::jaeger::api_v2::query_service_server::QueryService;
use crate::proto::jaeger::api_v2::{
    ArchiveTraceRequest, ArchiveTraceResponse, DependencyLink, FindTracesRequest, GetDependenciesRequest,
    GetDependenciesResponse, GetOperationsRequest, GetOperationsResponse, GetServicesRequest, GetServicesResponse,
    GetTraceRequest, KeyValue, Log, Operation, Process, Span, SpanRef, SpanRefType, SpansResponseChunk, ValueType,
};

#[tonic::async_trait]
impl QueryService for Service {
    type GetTraceStream = Messages<SpansResponseChunk>;

    async fn get_trace(&self, request: Request<GetTraceRequest>) -> Result<Response<Self::GetTraceStream>, Status> {
        let tenants = self.tenants(&request)?;
        let id = trace_id(&request.get_ref().trace_id)?;
        let shown = Shown::new(request.get_ref().raw_traces, self.state.options.skew_max);
        let run = move |querier: &_, ctx: &_| {
            let (trace, skipped) = reads::trace(querier, &tenants, id, ctx)?;
            let trace = trace.ok_or_else(|| ApiError::new(Kind::NotFound, "trace not found"))?;
            Ok((messages(shown.jaeger(trace)), skipped))
        };
        Ok(self.answer(run).await?.map(streamed))
    }

    async fn archive_trace(
        &self,
        request: Request<ArchiveTraceRequest>,
    ) -> Result<Response<ArchiveTraceResponse>, Status> {
        let tenants = self.tenants(&request)?;
        let id = trace_id(&request.get_ref().trace_id)?;
        let run = move |querier: &_, ctx: &_| {
            let (trace, skipped) = reads::trace(querier, &tenants, id, ctx)?;
            Ok((trace.is_some(), skipped))
        };
        match self.answer(run).await?.into_inner() {
            true => Err(Status::unimplemented("archive span storage was not configured")),
            false => Err(Status::not_found("trace not found")),
        }
    }

    type FindTracesStream = Messages<SpansResponseChunk>;

    async fn find_traces(
        &self,
        request: Request<FindTracesRequest>,
    ) -> Result<Response<Self::FindTracesStream>, Status> {
        let tenants = self.tenants(&request)?;
        let query = request.into_inner().query.ok_or_else(|| Status::invalid_argument("missing query"))?;
        let shown = Shown::new(query.raw_traces, self.state.options.skew_max);
        let asked = Asked {
            service: &query.service_name,
            operation: &query.operation_name,
            start: query.start_time_min.as_ref(),
            end: query.start_time_max.as_ref(),
            min: query.duration_min.as_ref(),
            max: query.duration_max.as_ref(),
            depth: query.search_depth,
            filter: None,
        };
        let terms = asked.terms(&self.state, query.tags.clone())?;
        Ok(self.find(tenants, terms, move |trace| messages(shown.jaeger(trace))).await?.map(streamed))
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
        Ok(found.map(|found| {
            let names: BTreeSet<String> = found.iter().map(|(name, _)| name.clone()).collect();
            GetOperationsResponse {
                operation_names: names.into_iter().collect(),
                operations: found.into_iter().map(operation).collect(),
            }
        }))
    }

    async fn get_dependencies(
        &self,
        request: Request<GetDependenciesRequest>,
    ) -> Result<Response<GetDependenciesResponse>, Status> {
        let tenants = self.tenants(&request)?;
        let GetDependenciesRequest { start_time: Some(start), end_time: Some(end) } = request.into_inner() else {
            return Err(Status::invalid_argument("StartTime and EndTime must be initialized."));
        };
        let range = (unix_nano(&start), unix_nano(&end));
        let calls = self.calls(tenants, range).await?;
        let link = |call: reads::Call| DependencyLink {
            parent: call.parent,
            child: call.child,
            call_count: call.count,
            source: String::new(),
        };
        Ok(calls.map(|calls| GetDependenciesResponse { dependencies: calls.into_iter().map(link).collect() }))
    }
}

fn messages(trace: JaegerTrace) -> Vec<SpansResponseChunk> {
    let JaegerTrace { id, spans, processes, .. } = trace;
    let processes: Vec<Process> = processes.0.into_iter().map(process).collect();
    let spans = spans.into_iter().map(|one| span(id, &processes, one));
    chunks::together(spans, QUERY_SPANS_MAX).into_iter().map(|spans| SpansResponseChunk { spans }).collect()
}

fn span(trace_id: TraceId, processes: &[Process], span: JaegerSpan) -> Span {
    let reference = |reference: model::Reference| SpanRef {
        trace_id: reference.trace_id.0.to_vec(),
        span_id: reference.span_id.0.to_vec(),
        ref_type: if reference.is_child_of { SpanRefType::ChildOf } else { SpanRefType::FollowsFrom }.into(),
    };
    let log = |log: model::Log| Log {
        timestamp: Some(timestamp(log.time)),
        fields: log.fields.into_iter().map(key_value).collect(),
    };
    Span {
        trace_id: trace_id.0.to_vec(),
        span_id: span.span_id.0.to_vec(),
        operation_name: span.operation_name,
        references: span.references.into_iter().map(reference).collect(),
        flags: 0,
        start_time: Some(timestamp(span.start)),
        duration: Some(duration(span.duration_nano)),
        tags: span.tags.into_iter().map(key_value).collect(),
        logs: span.logs.into_iter().map(log).collect(),
        // Each span carries its process whole: a chunk can be understood for itself.
        process: Some(processes[span.process].clone()),
        process_id: String::new(),
        warnings: span.warnings,
    }
}

fn process(process: ModelProcess) -> Process {
    Process { service_name: process.service_name, tags: process.tags.into_iter().map(key_value).collect() }
}

fn key_value(tag: model::Tag) -> KeyValue {
    let mut out = KeyValue { key: tag.key, ..KeyValue::default() };
    let r#type = match tag.value {
        TagValue::Text(text) => {
            out.v_str = text;
            ValueType::String
        }
        TagValue::Bool(flag) => {
            out.v_bool = flag;
            ValueType::Bool
        }
        TagValue::Int(int) => {
            out.v_int64 = int;
            ValueType::Int64
        }
        TagValue::Double(double) => {
            out.v_float64 = double;
            ValueType::Float64
        }
        TagValue::Bytes(bytes) => {
            out.v_binary = bytes;
            ValueType::Binary
        }
    };
    out.set_v_type(r#type);
    out
}
