//! `POST /api/v2/traces/diff`: what is different in one trace from another.
//!
//! ```text
//!   {"base": {"traceId"}, "compare": {"traceId"}, "format"}
//!        |                      |
//!      Forest                 Forest        spans below their parents
//!        +------- Matching -------+         same service, name, kind and place below matched parents
//!                    |
//!     patch (what changed, span by span) | summary (numbers by service) | both
//! ```
//!
//! Tempo calls this experimental; the shape of its answers is kept, and what a span's place is, is decided here.

mod forest;
mod patch;
mod summary;

use std::sync::Arc;

use axum::body::Body as HttpBody;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, Method, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value as Json, json};
use spoor_model::{TenantId, Trace, TraceId};

use super::negotiate::{Encoded, Form};
use crate::error::{ApiError, Kind};
use crate::{fan_out, partial};
use forest::{Forest, Matching};

/// Largest patch within a composed answer, in bytes, as in Tempo. It goes to models, which pay for every word.
const COMPOSED_PATCH_BYTES_MAX: usize = 65_536;

/// What to say of the differences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Patch,
    Summary,
    Composed,
}

#[derive(Deserialize)]
struct Body {
    base: Side,
    compare: Side,
    #[serde(default)]
    format: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Side {
    trace_id: String,
    start: Option<i64>,
    end: Option<i64>,
}

impl Side {
    /// The times are hints that finding a trace does not need.
    fn id(&self, name: &str) -> Result<TraceId, ApiError> {
        if let (Some(start), Some(end)) = (self.start, self.end)
            && end <= start
            && (start, end) != (0, 0)
        {
            return Err(ApiError::invalid(format!("invalid {name}: end must be after start")));
        }
        let invalid = |err| ApiError::invalid(format!("invalid {name}: trace id {:?}: {err}", self.trace_id));
        TraceId::from_hex(&self.trace_id).map_err(invalid)
    }
}

/// What is asked, checked.
pub(super) struct Request {
    pub(super) tenants: Vec<TenantId>,
    base: TraceId,
    compare: TraceId,
    format: Format,
}

impl Request {
    /// Reads the JSON of a request.
    pub(super) fn parse(tenants: Vec<TenantId>, body: &[u8]) -> Result<Self, ApiError> {
        let body: Body =
            serde_json::from_slice(body).map_err(|err| ApiError::invalid(format!("invalid request body: {err}")))?;
        let format = match body.format.as_str() {
            "" | "trace-patch-v0" => Format::Patch,
            "trace-summary-v0-native" => Format::Summary,
            "trace-summary-v0-composed" => Format::Composed,
            other => {
                return Err(ApiError::invalid(format!(
                    "invalid format {other:?}: expected trace-patch-v0, trace-summary-v0-native or \
                     trace-summary-v0-composed"
                )));
            }
        };
        Ok(Self { tenants, base: body.base.id("base")?, compare: body.compare.id("compare")?, format })
    }

    /// Finds both traces and compares them. 404 when one is not there, 422 when one is not complete.
    pub(super) async fn answer(self, state: &super::State) -> Result<Encoded, ApiError> {
        let run = move |querier: &spoor_querier::Querier, ctx: &spoor_model::scan::QueryContext| {
            let find = |id| -> Result<Trace, ApiError> {
                let answer = fan_out::find_trace(querier, &self.tenants, id, ctx)?;
                if let Some(note) = partial::note(&answer.skipped) {
                    return Err(ApiError::new(Kind::LimitExceeded, format!("trace {id} cannot be compared: {note}")));
                }
                answer.value.ok_or_else(|| ApiError::new(Kind::NotFound, "Not Found"))
            };
            let (base, compare) = (find(self.base)?, find(self.compare)?);
            let answer = differences(&base, &compare, self.format);
            let bytes = serde_json::to_vec(&answer).expect("answers have text keys and no failing parts");
            Ok(Encoded { form: Form::Json, bytes, partial: None })
        };
        state.gate.run(run).await
    }
}

/// Compares two traces.
pub(super) async fn diff(
    State(state): State<Arc<super::State>>,
    method: Method,
    headers: HeaderMap,
    body: HttpBody,
) -> Result<Response, ApiError> {
    if method != Method::POST {
        return Ok((StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "POST")]).into_response());
    }
    let tenants = state.tenancy.for_read(&headers)?;
    let body = state.body_bound().read(body, state.gate.metrics()).await?;
    Ok(Request::parse(tenants, &body)?.answer(&state).await?.into_response())
}

fn differences(base: &Trace, compare: &Trace, format: Format) -> Json {
    let (base, compare) = (Forest::new(base), Forest::new(compare));
    let matching = Matching::new(&base, &compare);
    let patch = || patch::of(&base, &compare, &matching);
    let summary = || summary::of(&base, &compare, &matching);
    match format {
        Format::Patch => patch(),
        Format::Summary => summary(),
        Format::Composed => {
            let patch = patch();
            let bytes = patch.to_string().len();
            let mut answer = json!({"version": "trace-summary-v0-composed", "summary": summary()});
            match bytes <= COMPOSED_PATCH_BYTES_MAX {
                true => answer["patch"] = patch,
                false => answer["patchOmitted"] = json!({"bytes": bytes, "reason": "over_budget"}),
            }
            answer
        }
    }
}

/// What may mislead whoever reads the differences.
fn warnings(base: &Forest<'_>, compare: &Forest<'_>, matching: &Matching) -> Vec<Json> {
    let mut warnings = Vec::new();
    let mut warn = |code: &str, message: String| warnings.push(json!({"code": code, "message": message}));
    for (name, forest) in [("base", base), ("compare", compare)] {
        if forest.duplicate_ids > 0 {
            let count = forest.duplicate_ids;
            warn("duplicate_span_id", format!("{count} spans of {name} share their id with another"));
        }
        let reversed = forest.trace.entries.iter().filter(|entry| entry.span.end < entry.span.start).count();
        if reversed > 0 {
            warn("invalid_duration", format!("{reversed} spans of {name} end before they start"));
        }
    }
    if let Some((removed, added)) = matching.same_but_for_digits(base, compare) {
        let text =
            format!("names such as {removed:?} and {added:?} differ in digits alone: ids in names match nothing");
        warn("high_cardinality_span_name", text);
    }
    warnings
}

#[cfg(test)]
mod tests;
