//! `/api/metrics/*`: what the UI's Monitor tab shows, computed from the spans themselves.
//!
//! The answer is a metric family in protobuf's JSON, without an envelope.

use axum::extract::{Path, RawQuery, State as Extract};
use axum::response::Response;
use http::HeaderMap;
use serde::{Serialize, Serializer};
use spoor_model::scan::{Condition, Field, Literal, Predicate, QueryContext, Test};
use spoor_model::{UnixNano, rfc3339};
use spoor_querier::{Querier, ServiceMetricsRequest, ServicePoint, ServiceSeries};

use super::envelope::{self, Envelope, no_such_page};
use super::legacy::{millis, now_ms, of_millis, respond};
use super::model::service_name;
use super::search::{kind_number, service_predicate};
use super::{Request, Shared, State};
use crate::error::{ApiError, Kind};
use crate::params::Params;
use crate::partial;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Measure {
    Latency { quantile: f64 },
    Calls,
    Errors,
}

const LOOKBACK_DEFAULT_MS: u64 = 3_600_000;
const STEP_DEFAULT_MS: u64 = 5_000;
const RATE_PER_DEFAULT_MS: u64 = 600_000;

/// The least step that makes sense, in milliseconds: steps are given in these.
pub(super) async fn least_step() -> Response {
    envelope::ok(Envelope::of(1, 0, Vec::new()).to_json(false))
}

/// `latencies`, `calls` or `errors` of services.
pub(super) async fn series(
    Extract(state): Shared,
    Path(kind): Path<String>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Response {
    if !["latencies", "calls", "errors"].contains(&kind.as_str()) {
        return no_such_page();
    }
    let answer = async {
        let request = Request::parse(&state, &headers, query.as_deref())?;
        let (measure, asked) = asked(&state, &kind, &request.params)?;
        let run = move |querier: &Querier, ctx: &QueryContext| {
            let answer = querier.service_metrics(&request.tenants, &asked, ctx)?;
            let family = family(measure, &asked, &answer.value);
            let json = serde_json::to_vec(&family).expect("answers have text keys and no failing parts");
            Ok((json, partial::note(&answer.skipped)))
        };
        state.gate.run(run).await
    };
    match answer.await {
        Ok((json, note)) => {
            let mut response = envelope::ok(json);
            partial::mark(response.headers_mut(), note.as_deref());
            response
        }
        Err(err) => respond(Err(err)),
    }
}

fn unable(name: &str, why: &str) -> ApiError {
    ApiError::invalid(format!("unable to parse param '{name}': {why}"))
}

fn asked(state: &State, kind: &str, params: &Params) -> Result<(Measure, ServiceMetricsRequest), ApiError> {
    let services: Vec<Predicate> = params.all("service").map(service_predicate).collect();
    if services.is_empty() {
        return Err(unable("service", "please provide at least one service name"));
    }
    let measure = match kind {
        "latencies" => Measure::Latency { quantile: quantile(params)? },
        "calls" => Measure::Calls,
        _ => Measure::Errors,
    };
    let by_operation = params.flag("groupByOperation").map_err(|err| unable("groupByOperation", &err.message))?;
    let end_ms = millis(params, "endTs")?.unwrap_or_else(|| now_ms(state));
    let lookback_ms = millis(params, "lookback")?.unwrap_or(LOOKBACK_DEFAULT_MS);
    let step_ms = positive_millis(params, "step", STEP_DEFAULT_MS)?;
    let rate_per_ms = positive_millis(params, "ratePer", RATE_PER_DEFAULT_MS)?;
    let point_count = lookback_ms / step_ms + 1;
    let points_max = state.options.points_max;
    let point_count = u32::try_from(point_count).ok().filter(|count| *count as usize <= points_max);
    let point_count = point_count.ok_or_else(|| {
        let text = format!("more than {points_max} points; make step longer, or raise query_metrics_max_intervals");
        ApiError::new(Kind::LimitExceeded, text)
    })?;
    let nanos = |millis: u64| of_millis(millis).0;
    let request = ServiceMetricsRequest {
        filter: Predicate::And(vec![Predicate::Or(services), kinds(params)?]),
        by_operation,
        quantile: if let Measure::Latency { quantile } = measure { Some(quantile) } else { None },
        end: of_millis(end_ms),
        step_nano: nanos(step_ms),
        point_count,
        window_nano: nanos(rate_per_ms),
    };
    Ok((measure, request))
}

fn quantile(params: &Params) -> Result<f64, ApiError> {
    let text = params.get("quantile").unwrap_or_default();
    let syntax = || unable("quantile", &format!("strconv.ParseFloat: parsing {text:?}: invalid syntax"));
    let quantile: f64 = text.parse().map_err(|_| syntax())?;
    match (0.0..=1.0).contains(&quantile) {
        true => Ok(quantile),
        false => Err(unable("quantile", &format!("{text} is not between 0 and 1"))),
    }
}

fn positive_millis(params: &Params, name: &str, default: u64) -> Result<u64, ApiError> {
    match millis(params, name)?.unwrap_or(default) {
        0 => Err(unable(name, "it must be at least 1")),
        millis => Ok(millis),
    }
}

/// Spans of the kinds asked for, or of servers.
fn kinds(params: &Params) -> Result<Predicate, ApiError> {
    let of_kind = |kind| Predicate::Is(Condition { field: Field::Kind, test: Test::Eq(Literal::Int(kind)) });
    let number = |text: &str| match text {
        "unspecified" => Ok(of_kind(0)),
        _ => kind_number(text)
            .map(of_kind)
            .ok_or_else(|| unable("spanKind", &format!("unsupported span kind: '{text}'"))),
    };
    let kinds: Vec<Predicate> = params.all("spanKind").map(number).collect::<Result<_, _>>()?;
    Ok(if kinds.is_empty() { number("server")? } else { Predicate::Or(kinds) })
}

#[derive(Serialize)]
struct Family {
    name: String,
    r#type: &'static str,
    help: String,
    metrics: Vec<Metric>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Metric {
    /// Sorted by name.
    labels: Vec<Label>,
    metric_points: Vec<Point>,
}

#[derive(Serialize)]
struct Label {
    name: &'static str,
    value: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Point {
    gauge_value: Gauge,
    timestamp: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Gauge {
    #[serde(serialize_with = "number_or_text")]
    double_value: f64,
}

/// Protobuf's JSON has texts for what JSON has no numbers for; the UI shows a gap.
fn number_or_text<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if value.is_nan() { serializer.serialize_str("NaN") } else { serializer.serialize_f64(*value) }
}

fn family(measure: Measure, asked: &ServiceMetricsRequest, series: &[ServiceSeries]) -> Family {
    let (what, help) = match measure {
        Measure::Latency { quantile } => ("latencies", format!("{quantile:.2}th quantile latency")),
        Measure::Calls => ("call_rate", "calls/sec".to_owned()),
        Measure::Errors => ("error_rate", "error rate, computed as a fraction of errors/sec over calls/sec".to_owned()),
    };
    let (infix, grouping) = match asked.by_operation {
        true => ("operation_", "service & operation"),
        false => ("", "service"),
    };
    Family {
        name: format!("service_{infix}{what}"),
        r#type: "GAUGE",
        help: format!("{help}, grouped by {grouping}"),
        metrics: series.iter().map(|series| metric(measure, asked, series)).collect(),
    }
}

fn metric(measure: Measure, asked: &ServiceMetricsRequest, series: &ServiceSeries) -> Metric {
    let operation = series.operation.clone().map(|value| Label { name: "operation", value });
    let service = Label { name: "service_name", value: service_name(series.service.as_deref()).to_owned() };
    let point = |(point, at): (&ServicePoint, UnixNano)| Point {
        gauge_value: Gauge { double_value: value(measure, asked, point) },
        timestamp: rfc3339::format(at),
    };
    Metric {
        labels: operation.into_iter().chain([service]).collect(),
        metric_points: series.points.iter().zip(asked.times()).map(point).collect(),
    }
}

/// Latencies are milliseconds; without calls there is none, and no part of them that failed either.
fn value(measure: Measure, asked: &ServiceMetricsRequest, point: &ServicePoint) -> f64 {
    match measure {
        Measure::Latency { .. } => point.duration_nano.map_or(f64::NAN, |nanos| nanos / 1e6),
        Measure::Calls => point.calls as f64 / (asked.window_nano as f64 / 1e9),
        Measure::Errors => point.errors as f64 / point.calls as f64,
    }
}
