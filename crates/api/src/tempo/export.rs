//! `/spoor/export`: every trace of a range, whole, page by page, as OTLP protobuf.
//!
//! Not of Tempo's API; `spoor export` asks it. A page is a `TracesData` message with the traces whose earliest span
//! starts in the range, oldest first. The header `X-Spoor-Next`, when it is there, is the `after` of the next page:
//!
//! ```text
//!   GET /spoor/export?start=..&end=..               -> traces, X-Spoor-Next: 1767366245000000000-4bf92f3577b34da6a3ce929d0e0e4736
//!   GET /spoor/export?start=..&end=..&after=1767..  -> traces, no header: that was all
//! ```

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue};
use spoor_model::{TraceId, UnixNano};
use spoor_otlp::encode;
use spoor_querier::{ExportPage, ExportRequest};

use super::negotiate::{Encoded, Form};
use super::time_range::{self, Times};
use crate::error::ApiError;
use crate::params::Params;
use crate::partial;

/// Where the next page begins.
pub const NEXT: HeaderName = HeaderName::from_static("x-spoor-next");

/// Traces of a page at most.
const PAGE_TRACES: usize = 5000;

/// What a page may hold in memory, but for its last trace. On the wire it is less than half of that.
const PAGE_BYTES: usize = 16 << 20;

/// Answers one page.
pub(super) async fn export(
    State(state): State<Arc<super::State>>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let tenants = state.tenancy.for_read(&headers)?;
    let [tenant] = &tenants[..] else {
        return Err(ApiError::invalid("export takes one tenant at a time"));
    };
    let tenant = tenant.clone();
    let params = Params::parse(query.as_deref());
    let range = time_range::from_params(&params, Times::Any, state.clock.now())?;
    let after = params.get("after").map(cursor).transpose()?;
    let request = ExportRequest { range, after, traces_max: PAGE_TRACES, bytes_max: PAGE_BYTES };
    let (bytes, next, partial) = state
        .gate
        .run(move |querier, ctx| {
            let answer = querier.export(&tenant, &request, ctx)?;
            let ExportPage { traces, next } = answer.value;
            // Messages of one type, one after the other, are one message.
            let bytes: Vec<u8> = traces.iter().flat_map(encode::traces_data).collect();
            Ok((bytes, next, partial::note(&answer.skipped)))
        })
        .await?;
    let mut response = Encoded { form: Form::Protobuf, bytes, partial }.into_response();
    if let Some((start, id)) = next {
        let next = HeaderValue::from_str(&format!("{}-{id}", start.0)).expect("digits");
        response.headers_mut().insert(NEXT, next);
    }
    Ok(response)
}

fn cursor(text: &str) -> Result<(UnixNano, TraceId), ApiError> {
    let parsed =
        text.split_once('-').and_then(|(start, id)| Some((UnixNano(start.parse().ok()?), TraceId::from_hex(id).ok()?)));
    parsed.ok_or_else(|| ApiError::invalid(format!("invalid after {text:?}: expected what X-Spoor-Next said")))
}

#[cfg(test)]
mod tests {
    use spoor_model::batch::SpanBatch;
    use spoor_model::ingest::Decode;
    use spoor_otlp::OtlpDecoder;

    use crate::fixtures::{Store, get, tempo};
    use crate::tenant::Tenancy;

    fn span_count(protobuf: &[u8]) -> usize {
        let checked = OtlpDecoder.check(protobuf).unwrap();
        let mut batch = SpanBatch::new();
        OtlpDecoder.append(protobuf, &checked, &mut batch);
        batch.len()
    }

    #[tokio::test]
    async fn all_spans_come_and_a_cursor_goes_on_behind_itself() {
        let data = include_bytes!("../../../../api/fixtures/tempo/shop/request.json");
        let stored = span_count(&spoor_otlp::json::to_protobuf(data).unwrap());
        let router = tempo(Store::with(data), Tenancy::Single);
        let all = get(&router, "/spoor/export", &[]).await;
        assert_eq!(all.status.as_u16(), 200, "{}", all.text());
        assert_eq!(span_count(&all.body), stored);
        let last = format!("/spoor/export?after={}-{}", u64::MAX, "f".repeat(32));
        assert_eq!(get(&router, &last, &[]).await.body.len(), 0);
        let reply = get(&router, "/spoor/export?after=7", &[]).await;
        assert_eq!(reply.status.as_u16(), 400);
        assert!(reply.text().contains("invalid after"), "{}", reply.text());
    }
}
