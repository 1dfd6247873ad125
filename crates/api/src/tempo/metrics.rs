//! `/api/metrics/query_range` and `/api/metrics/query`: TraceQL metrics, over time or as one value.
//!
//! ```text
//!   start, end, since -> range -step-> window: whole steps that cover it, up to now
//!   q -> MetricsPlan -querier-> series -maxSeries-> JSON
//! ```

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{RawQuery, State};
use http::HeaderMap;
use spoor_model::scan::QueryContext;
use spoor_model::{KeyValue, TenantId, TimeRange, UnixNano, Value};
use spoor_querier::{Answer, Querier};
use spoor_traceql::ast::{Body, MetricsExpr, Node, SpansetExpr, SpansetKind, Stage, StageKind};
use spoor_traceql::{Exemplar, Label, MetricsPlan, Series, Static, Window};

use super::limits::{self, Bounds};
use super::metrics_answer::{
    ExemplarJson, InstantSeries, MetricsAnswer, MetricsStats, RangeSeries, Sample, SeriesForm,
};
use super::negotiate::{Encoded, Form};
use super::time_range;
use crate::error::ApiError;
use crate::params::Params;
use crate::query_metrics::{Cut, QueryMetrics};
use crate::static_value::scalar;
use crate::{go_duration, partial};

type Shared = State<Arc<super::State>>;

/// A metrics query, checked.
#[derive(Debug)]
pub(super) struct MetricsRequest {
    pub(super) plan: MetricsPlan,
    pub(super) window: Window,
    pub(super) exemplars_max: usize,
    series_max: usize,
    /// Whether the filter is the constant `false`: then there are no series, not even one of zeros.
    is_never: bool,
}

/// Series over time.
pub(super) async fn query_range(
    State(state): Shared,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Encoded, ApiError> {
    let tenants = state.tenancy.for_read(&headers)?;
    let params = Params::parse(query.as_deref());
    let request = MetricsRequest::over_time(&params, state.bounds(), state.clock.now())?;
    let counted = state.gate.metrics().clone();
    state.gate.run(move |querier, ctx| request.answer_range(querier, &tenants, &counted, Form::Json, ctx)).await
}

/// One value per series, for the whole range.
pub(super) async fn query_instant(
    State(state): Shared,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Encoded, ApiError> {
    let tenants = state.tenancy.for_read(&headers)?;
    let params = Params::parse(query.as_deref());
    let request = MetricsRequest::instant(&params, state.bounds(), state.clock.now())?;
    let counted = state.gate.metrics().clone();
    state.gate.run(move |querier, ctx| request.answer_instant(querier, &tenants, &counted, Form::Json, ctx)).await
}

impl MetricsRequest {
    /// `QueryRangeResponse`. Over HTTP it is always JSON, whatever the client accepts.
    pub(super) fn answer_range(
        &self,
        querier: &Querier,
        tenants: &[TenantId],
        counted: &QueryMetrics,
        form: Form,
        ctx: &QueryContext,
    ) -> Result<Encoded, ApiError> {
        let answer = self.computed(querier, tenants, ctx)?;
        Ok(self.encoded(answer, counted, form, |series| Some(range_series(series, &self.window))))
    }

    /// `QueryInstantResponse`. Over HTTP it is always JSON, whatever the client accepts.
    pub(super) fn answer_instant(
        &self,
        querier: &Querier,
        tenants: &[TenantId],
        counted: &QueryMetrics,
        form: Form,
        ctx: &QueryContext,
    ) -> Result<Encoded, ApiError> {
        let answer = self.computed(querier, tenants, ctx)?;
        Ok(self.encoded(answer, counted, form, instant_series))
    }

    fn computed(
        &self,
        querier: &Querier,
        tenants: &[TenantId],
        ctx: &QueryContext,
    ) -> Result<Answer<Vec<Series>>, ApiError> {
        match self.is_never {
            true => Ok(Answer {
                value: Vec::new(),
                skipped: Vec::new(),
                stats: Default::default(),
                explain: Default::default(),
            }),
            false => Ok(querier.metrics(tenants, &self.plan, &self.window, self.exemplars_max, ctx)?),
        }
    }

    fn encoded<S: SeriesForm>(
        &self,
        answer: Answer<Vec<Series>>,
        counted: &QueryMetrics,
        form: Form,
        shape: impl Fn(Series) -> Option<S>,
    ) -> Encoded {
        let metrics = MetricsStats::new(answer.stats, answer.skipped.len());
        let partial = partial::note(&answer.skipped);
        let series = answer.value.into_iter().filter_map(shape).collect();
        let mut answer = bounded(MetricsAnswer::new(series, metrics), self.series_max, counted);
        if let Some(note) = &partial {
            answer.mark_partial(note);
        }
        let bytes = match form {
            Form::Json | Form::Llm => answer.to_json(),
            Form::Protobuf => answer.to_protobuf(),
        };
        Encoded { form, bytes, partial }
    }

    pub(super) fn over_time(params: &Params, bounds: Bounds<'_>, now: UnixNano) -> Result<Self, ApiError> {
        let ((plan, is_never), range) = (plan(params, bounds)?, range(params, bounds, now)?);
        let (start, end) = (range.start.0, range.end.0);
        let step = match step(params)? {
            Some(step) => step,
            None => Duration::from_nanos(Window::default_step_nano(start, end)),
        };
        bounds.check_intervals(range, step)?;
        let window = Window::aligned(start, end, u64::try_from(step.as_nanos()).unwrap_or(u64::MAX));
        let max = bounds.limits.metrics_exemplars_max;
        let exemplars_max = exemplars_max(params, plan.exemplars(), max)?;
        Ok(Self { plan, window, exemplars_max, series_max: series_max(params, bounds)?, is_never })
    }

    pub(super) fn instant(params: &Params, bounds: Bounds<'_>, now: UnixNano) -> Result<Self, ApiError> {
        let ((plan, is_never), range) = (plan(params, bounds)?, range(params, bounds, now)?);
        let window = Window::instant(range.start.0, range.end.0);
        Ok(Self { plan, window, exemplars_max: 0, series_max: series_max(params, bounds)?, is_never })
    }
}

/// The plan, and whether it can never find anything.
fn plan(params: &Params, bounds: Bounds<'_>) -> Result<(MetricsPlan, bool), ApiError> {
    let Some(text) = params.get("q").or_else(|| params.get("query")) else {
        return Err(ApiError::invalid("invalid q: a metrics query is needed, such as { } | rate()"));
    };
    let query = bounds.parse(text)?;
    let plan = spoor_traceql::plan_metrics(&query).map_err(limits::invalid_query)?;
    Ok((plan, matches!(&query.body, Body::Metrics(metrics) if is_never(metrics))))
}

fn is_never(metrics: &MetricsExpr) -> bool {
    let is_false = |stage: &Stage| match &stage.kind {
        StageKind::Spanset(SpansetExpr { kind: SpansetKind::Filter(expr), .. }) => {
            expr.node == Node::Static(Static::Bool(false))
        }
        _ => false,
    };
    match metrics {
        MetricsExpr::Aggregate { pipeline, .. } => pipeline.stages.iter().any(is_false),
        MetricsExpr::SecondStage { input, .. } => is_never(input),
        MetricsExpr::Constant(_) | MetricsExpr::Binary { .. } => false,
    }
}

fn range(params: &Params, bounds: Bounds<'_>, now: UnixNano) -> Result<TimeRange, ApiError> {
    let range = time_range::of_metrics(params, now)?;
    bounds.check_metrics_range(range)?;
    Ok(range)
}

/// How many series the client wants, and how many it gets at most.
fn series_max(params: &Params, bounds: Bounds<'_>) -> Result<usize, ApiError> {
    let unless_zero = |max: usize| if max == 0 { usize::MAX } else { max };
    let wanted = params.parsed::<u32>("maxSeries")?.unwrap_or(0) as usize;
    Ok(unless_zero(wanted).min(unless_zero(bounds.limits.metrics_series_max)))
}

/// The length of an interval: seconds, perhaps with a fraction, or a duration.
fn step(params: &Params) -> Result<Option<Duration>, ApiError> {
    let Some(text) = params.get("step") else { return Ok(None) };
    let invalid = |why: &str| ApiError::invalid(format!("invalid step {text:?}: {why}"));
    if text.starts_with('-') {
        return Err(invalid("it must not be negative"));
    }
    let nanos = match text.parse::<f64>() {
        Ok(seconds) if seconds.is_finite() => (seconds * 1e9) as u64,
        _ => go_duration::parse_prometheus(text).ok_or_else(|| invalid("not a duration such as 15s"))?,
    };
    match nanos {
        0 => Err(invalid("it must be more than 0")),
        nanos => Ok(Some(Duration::from_nanos(nanos))),
    }
}

/// How many exemplars: what a hint says, else what the client says, else all that are allowed.
fn exemplars_max(params: &Params, hinted: Option<usize>, max: usize) -> Result<usize, ApiError> {
    let wanted = params.parsed::<u32>("exemplars")?.filter(|count| *count != 0).map(|count| count as usize);
    Ok(hinted.or(wanted).unwrap_or(max).min(max))
}

/// Drops what passes the limit, and says so.
fn bounded<S: SeriesForm>(mut answer: MetricsAnswer<S>, series_max: usize, counted: &QueryMetrics) -> MetricsAnswer<S> {
    let count = answer.series.len();
    if count > series_max {
        counted.cut(Cut::series);
        answer.series.truncate(series_max);
        answer.mark_partial(&format!(
            "{series_max} of {count} series are returned; group by less, ask for more by maxSeries, or raise \
             query_metrics_max_series"
        ));
    }
    answer
}

fn range_series(series: Series, window: &Window) -> RangeSeries {
    let point = |(interval, value): (usize, &Option<f64>)| {
        let timestamp_ms = window.point_nano(interval) / NANOS_PER_MS;
        value.map(|value| Sample { timestamp_ms, value })
    };
    RangeSeries {
        labels: labels(&series.labels),
        samples: series.values.iter().enumerate().filter_map(point).collect(),
        exemplars: series.exemplars.iter().map(exemplar).collect(),
    }
}

const NANOS_PER_MS: u64 = 1_000_000;

fn exemplar(exemplar: &Exemplar) -> ExemplarJson {
    ExemplarJson {
        labels: labels(&exemplar.labels),
        value: exemplar.value,
        timestamp_ms: exemplar.timestamp_nano / NANOS_PER_MS,
    }
}

/// `None` for a series without a value.
fn instant_series(series: Series) -> Option<InstantSeries> {
    let value = series.values.first().copied().flatten()?;
    Some(InstantSeries { labels: labels(&series.labels), value })
}

fn labels(labels: &[Label]) -> Vec<KeyValue> {
    let value = |value| scalar(value).unwrap_or_else(|| Value::Str("nil".to_owned()));
    labels.iter().map(|(key, label)| KeyValue::new(&**key, value(label))).collect()
}
