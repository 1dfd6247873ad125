//! `tempopb.StreamingQuerier`, on the same port as HTTP: how Grafana asks when streaming is switched on, and tempo-cli.
//!
//! ```text
//!   message -> the parameters of HTTP -> the query of HTTP -> its protobuf -> cut into messages
//!                                             |                                     ^
//!                                             +-- meanwhile: found traces, progress +
//! ```
//!
//! A call asks what a request over HTTP asks, is bounded by the same limits and gets the same answer: the last message (or
//! messages: an answer over a mebibyte is cut) says all there is to say. What comes before is for those who watch:
//!
//! - a search sends the traces that it has found since it last did. They are the newest of all, whole, and final, since
//!   searches go from the newest to older ones;
//! - a metrics query over time sends how far it is. Series are right when all spans are counted, and not before;
//! - others are silent. An instant query would have every message taken for its result.
//!
//! A client that goes away drops the stream, and with it the query.

mod cut;
mod request;
mod stream;

use std::sync::Arc;

use axum::Router;
use http::HeaderMap;
use spoor_model::TenantId;
use spoor_model::scan::{Progress, QueryContext};
use spoor_querier::Querier;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use self::cut::{cut, cut_scopes};
use self::stream::{Answer, FoundSoFar, Meanwhile, streamed};
use super::metrics::MetricsRequest;
use super::negotiate::{Encoded, Form};
use super::search::{Search, plan_of};
use super::search_answer::{KeyTypes, SearchAnswer};
use super::{State, tags};
use crate::error::ApiError;
use crate::grpc::{self, Messages};
use crate::partial;
use crate::proto::EncodedMessage;
use crate::proto::tempopb::streaming_querier_server::{StreamingQuerier, StreamingQuerierServer};
use crate::proto::tempopb::{
    QueryInstantRequest, QueryRangeRequest, SearchRequest, SearchTagValuesRequest, SearchTagsRequest,
};

/// As reflection and health name it.
const SERVICE: &str = "tempopb.StreamingQuerier";

/// A trace that is larger than this as a message lists fewer spans: clients take 4 MiB, and a trace cannot be cut.
const TRACE_BYTES_MAX: usize = 3 << 20;

/// The service, with health and reflection.
pub(super) fn router(state: Arc<State>) -> Router {
    let (requests, serving) = (state.requests.clone(), state.serving.clone());
    let routes = Routes::new(StreamingQuerierServer::new(Service { state }));
    // The fallback is that of HTTP, which knows calls, too.
    let router = grpc::with_health_and_reflection(routes, &[SERVICE], &[SERVICE], serving).reset_fallback();
    grpc::counted(router, requests)
}

struct Service {
    state: Arc<State>,
}

type Answered = Result<Response<Messages<EncodedMessage>>, Status>;

#[tonic::async_trait]
impl StreamingQuerier for Service {
    type SearchStream = Messages<EncodedMessage>;

    async fn search(&self, request: Request<SearchRequest>) -> Answered {
        let tenants = self.tenants(request.metadata().as_ref())?;
        let message = request.into_inner();
        let tags: Vec<(String, String)> = message.tags.clone().into_iter().collect();
        let search = Search::new(&request::search(message), &tags, self.state.bounds(), self.state.clock.now())?;
        let (found_so_far, meanwhile) = stream::found_so_far(self.state.stream_interval);
        let state = Arc::clone(&self.state);
        let answer = async move {
            let work = move |querier: &_, ctx: &_| run_search(&search, querier, &tenants, ctx, &found_so_far);
            state.gate.run(work).await
        };
        Ok(streamed(answer, meanwhile))
    }

    type SearchTagsStream = Messages<EncodedMessage>;

    async fn search_tags(&self, request: Request<SearchTagsRequest>) -> Answered {
        let (state, request, _) = self.tags(request, request::tag_names)?;
        Ok(silent(async move { tags::answer_names_v1(&state, request).await }, cut))
    }

    type SearchTagsV2Stream = Messages<EncodedMessage>;

    async fn search_tags_v2(&self, request: Request<SearchTagsRequest>) -> Answered {
        let (state, request, _) = self.tags(request, request::tag_names)?;
        Ok(silent(async move { tags::answer_names_v2(&state, request).await }, cut_scopes))
    }

    type SearchTagValuesStream = Messages<EncodedMessage>;

    async fn search_tag_values(&self, request: Request<SearchTagValuesRequest>) -> Answered {
        let (state, request, message) = self.tags(request, request::tag_values)?;
        let name = named(message.tag_name)?;
        Ok(silent(async move { tags::answer_values_v1(&state, request, name).await }, cut))
    }

    type SearchTagValuesV2Stream = Messages<EncodedMessage>;

    async fn search_tag_values_v2(&self, request: Request<SearchTagValuesRequest>) -> Answered {
        let (state, request, message) = self.tags(request, request::tag_values)?;
        let name = named(message.tag_name)?;
        Ok(silent(async move { tags::answer_values_v2(&state, request, &name).await }, cut))
    }

    type MetricsQueryRangeStream = Messages<EncodedMessage>;

    async fn metrics_query_range(&self, request: Request<QueryRangeRequest>) -> Answered {
        let tenants = self.tenants(request.metadata().as_ref())?;
        let params = request::query_range(request.into_inner());
        let asked = MetricsRequest::over_time(&params, self.state.bounds(), self.state.clock.now())?;
        let progress = Arc::<Progress>::default();
        let meanwhile = Meanwhile::progress(Arc::clone(&progress), self.state.stream_interval);
        let state = Arc::clone(&self.state);
        let answer = async move {
            let counted = state.gate.metrics().clone();
            let work = move |querier: &_, ctx: &_| {
                asked.answer_range(querier, &tenants, &counted, Form::Protobuf, ctx).map(Answer::of(cut))
            };
            state.gate.run_watched(progress, work).await
        };
        Ok(streamed(answer, meanwhile))
    }

    type MetricsQueryInstantStream = Messages<EncodedMessage>;

    async fn metrics_query_instant(&self, request: Request<QueryInstantRequest>) -> Answered {
        let tenants = self.tenants(request.metadata().as_ref())?;
        let params = request::query_instant(request.into_inner());
        let asked = MetricsRequest::instant(&params, self.state.bounds(), self.state.clock.now())?;
        let state = Arc::clone(&self.state);
        let answer = async move {
            let counted = state.gate.metrics().clone();
            let work = move |querier: &_, ctx: &_| {
                asked.answer_instant(querier, &tenants, &counted, Form::Protobuf, ctx).map(Answer::of(cut))
            };
            state.gate.run(work).await
        };
        Ok(streamed(answer, Meanwhile::Silence))
    }
}

impl Service {
    fn tenants(&self, metadata: &HeaderMap) -> Result<Vec<TenantId>, Status> {
        Ok(self.state.tenancy.for_read(metadata)?)
    }

    /// What a question for names or values asks, by its parameters.
    fn tags<M>(
        &self,
        request: Request<M>,
        params: fn(&M) -> crate::params::Params,
    ) -> Result<(Arc<State>, tags::Request, M), Status> {
        let asked =
            tags::Request::new(&self.state, request.metadata().as_ref(), params(request.get_ref()), Form::Protobuf)?;
        Ok((Arc::clone(&self.state), asked, request.into_inner()))
    }
}

fn named(name: String) -> Result<String, Status> {
    if name.is_empty() { Err(tags::no_name().into()) } else { Ok(name) }
}

/// An answer before which nothing is said.
fn silent(
    answer: impl Future<Output = Result<Encoded, ApiError>> + Send + 'static,
    cut: fn(Vec<u8>) -> Vec<EncodedMessage>,
) -> Response<Messages<EncodedMessage>> {
    streamed(async move { answer.await.map(Answer::of(cut)) }, Meanwhile::Silence)
}

/// Searches, and hands over what is found when it is time to.
fn run_search(
    search: &Search,
    querier: &Querier,
    tenants: &[TenantId],
    ctx: &QueryContext,
    found_so_far: &FoundSoFar,
) -> Result<Answer, ApiError> {
    let Search { request, spans_max } = search;
    let plan = plan_of(&request.filter);
    let mut types = KeyTypes::default();
    let mut shown_count = 0;
    let answer = querier.search_step_by_step(tenants, request, ctx, |found| {
        found_so_far.hand_over(|| {
            let (reached, more) = (ctx.progress().reached(), &found[shown_count..]);
            shown_count = found.len();
            let mut diff = SearchAnswer::behind(more, plan, *spans_max, reached.stats, 0, &mut types);
            diff.set_progress(reached);
            messages(diff)
        });
    })?;
    let (stats, skipped_count) = (answer.stats, answer.skipped.len());
    let whole = SearchAnswer::behind(&answer.value, plan, *spans_max, stats, skipped_count, &mut types);
    Ok(Answer { messages: messages(whole), partial: partial::note(&answer.skipped) })
}

fn messages(mut answer: SearchAnswer) -> Vec<EncodedMessage> {
    let bytes = answer.to_protobuf();
    if bytes.len() <= TRACE_BYTES_MAX {
        return cut(bytes);
    }
    answer.bound_traces(TRACE_BYTES_MAX);
    cut(answer.to_protobuf())
}

#[cfg(test)]
mod tests;
