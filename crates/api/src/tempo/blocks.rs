//! Blocks as operators see them: `/status/blocks`, and `DELETE /api/v2/traces/{id}`.
//!
//! The first is not Tempo's; the second neither. Both speak to whoever owns the blocks, who is not there when a
//! directory is read at rest.

use std::fmt::Write;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use serde::Serialize;
use serde_json::json;
use spoor_model::{TenantId, TimeRange, TraceId, UnixNano, rfc3339};

use crate::error::{ApiError, Kind};

type Shared = State<Arc<super::State>>;

/// Whoever owns the blocks.
pub trait BlockAdmin: Send + Sync {
    /// The blocks of all tenants, and what is being done to them.
    fn report(&self) -> BlocksReport;

    /// Deletes what was acknowledged of a trace. Returns in how many blocks it was. Blocks.
    fn delete_trace(&self, tenant: &TenantId, id: TraceId) -> Result<usize, String>;
}

/// What `/status/blocks` says.
#[derive(Debug, Clone, Default)]
pub struct BlocksReport {
    /// What is merged now, one line for people.
    pub running: Option<String>,
    /// By tenant, newest end first.
    pub blocks: Vec<BlockRow>,
}

/// One block.
#[derive(Debug, Clone)]
pub struct BlockRow {
    /// Whose.
    pub tenant: TenantId,
    /// Its name.
    pub id: String,
    /// Merges that its spans went through.
    pub level: u32,
    /// Spans.
    pub spans: u64,
    /// Distinct traces.
    pub traces: u64,
    /// All files.
    pub bytes: u64,
    /// Earliest start and latest end of its spans.
    pub range: TimeRange,
    /// When it was written.
    pub created_at: UnixNano,
    /// `ok`, or what is the matter or going on, in a word.
    pub state: &'static str,
    /// Traces that were deleted and that a rewrite will leave out.
    pub deleted_traces: usize,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BlockJson {
    tenant: String,
    id: String,
    level: u32,
    spans: u64,
    traces: u64,
    bytes: u64,
    start: String,
    end: String,
    created_at: String,
    age_seconds: u64,
    state: &'static str,
    deleted_traces: usize,
}

impl BlockJson {
    fn new(row: &BlockRow, now: UnixNano) -> Self {
        Self {
            tenant: row.tenant.to_string(),
            id: row.id.clone(),
            level: row.level,
            spans: row.spans,
            traces: row.traces,
            bytes: row.bytes,
            start: rfc3339::format(row.range.start),
            end: rfc3339::format(row.range.end),
            created_at: rfc3339::format(row.created_at),
            age_seconds: now.since(row.range.end).as_secs(),
            state: row.state,
            deleted_traces: row.deleted_traces,
        }
    }

    fn cells(&self) -> [String; 9] {
        let Self { tenant, id, level, spans, traces, bytes, start, end, .. } = self;
        let numbers = [u64::from(*level), *spans, *traces, *bytes].map(|number| number.to_string());
        let [level, spans, traces, bytes] = numbers;
        let state = match self.deleted_traces {
            0 => self.state.to_owned(),
            count => format!("{}, {count} deleted", self.state),
        };
        [tenant.clone(), id.clone(), level, spans, traces, bytes, start.clone(), end.clone(), state]
    }
}

const HEAD: [&str; 9] = ["tenant", "block", "level", "spans", "traces", "bytes", "start", "end", "state"];
/// Numbers stand to the right.
const IS_NUMBER: [bool; 9] = [false, false, true, true, true, true, false, false, false];

/// A table, or JSON for whoever asks for it.
pub(super) async fn status(State(state): Shared, headers: HeaderMap) -> Response {
    let report = state.admin.as_ref().map(|admin| admin.report()).unwrap_or_default();
    let now = state.clock.now();
    let blocks: Vec<BlockJson> = report.blocks.iter().map(|row| BlockJson::new(row, now)).collect();
    let accepts = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match accepts.contains("application/json") {
        true => Json(json!({"running": report.running, "blocks": blocks})).into_response(),
        false => table(report.running.as_deref(), &blocks).into_response(),
    }
}

fn table(running: Option<&str>, blocks: &[BlockJson]) -> String {
    let rows: Vec<[String; 9]> =
        std::iter::once(HEAD.map(str::to_owned)).chain(blocks.iter().map(BlockJson::cells)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: [usize; 9] = std::array::from_fn(width);
    let mut text = format!("merging: {}\n\n", running.unwrap_or("nothing"));
    for row in &rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = widths[column];
            let padded = if IS_NUMBER[column] { format!("{cell:>width$}") } else { format!("{cell:<width$}") };
            line += &padded;
            line += "  ";
        }
        text += line.trim_end();
        text.push('\n');
    }
    let sum = |of: fn(&BlockJson) -> u64| blocks.iter().map(of).sum::<u64>();
    let (spans, bytes) = (sum(|block| block.spans), sum(|block| block.bytes));
    writeln!(text, "\n{} blocks, {spans} spans, {bytes} bytes", blocks.len()).expect("a String takes all");
    text
}

/// Deletes a trace of one tenant: 200 with the number of blocks that it was in, 404 when it was in none.
pub(super) async fn delete_trace(
    State(state): Shared,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let tenant = state.tenancy.for_write(&headers)?;
    let id = TraceId::from_hex(&id).map_err(|err| ApiError::invalid(format!("invalid trace id {id:?}: {err}")))?;
    let admin = state.admin.clone().filter(|_| state.trace_deletion);
    let off = || ApiError::new(Kind::NotImplemented, "deleting traces is off; `trace_deletion: true` turns it on");
    let admin = admin.ok_or_else(off)?;
    let deleted = tokio::task::spawn_blocking(move || admin.delete_trace(&tenant, id)).await;
    match deleted {
        Ok(Ok(0)) => Ok((StatusCode::NOT_FOUND, format!("trace {id} is not there\n")).into_response()),
        Ok(Ok(blocks)) => Ok(Json(json!({"traceId": id.to_string(), "blocks": blocks})).into_response()),
        Ok(Err(reason)) => Err(ApiError::new(Kind::Unavailable, reason)),
        Err(_) => Err(ApiError::new(Kind::Internal, "a defect while deleting; the log has the place")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_line_per_block_and_the_sum() {
        let row = BlockRow {
            tenant: TenantId::single(),
            id: "01J".to_owned(),
            level: 1,
            spans: 1200,
            traces: 30,
            bytes: 33_000,
            range: TimeRange { start: UnixNano(0), end: UnixNano(1_000_000_000) },
            created_at: UnixNano(2_000_000_000),
            state: "ok",
            deleted_traces: 2,
        };
        let rows = [BlockJson::new(&row, UnixNano(3_000_000_000))];
        assert_eq!(rows[0].age_seconds, 2);
        let text = table(None, &rows);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "merging: nothing");
        assert!(lines[2].starts_with("tenant         block  level  spans"), "{text}");
        assert!(
            lines[3].starts_with("single-tenant  01J        1   1200      30  33000  1970-01-01T00:00:00"),
            "{text}"
        );
        assert!(lines[3].ends_with("ok, 2 deleted"), "{text}");
        assert_eq!(lines[5], "1 blocks, 1200 spans, 33000 bytes");
    }
}
