//! `/api/mcp`: the Model Context Protocol over streamable HTTP, so that assistants can ask (`mcp`).
//!
//! JSON-RPC in the body of a `POST`, its answer in the response. There are no sessions and nothing is ever sent unasked,
//! so `GET` has no stream to give, and `DELETE`, by which Grafana's assistant probes for the protocol, always works.
//! Of the protocol (<https://modelcontextprotocol.io/specification/2025-06-18/basic/transports>) that is all a server
//! needs that only answers; it is less than a library for it would bring along.
//!
//! Tools ask the same handlers as HTTP does, with the request's own headers: tenants, limits and partial answers are theirs.

mod docs;
mod tools;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, Method, StatusCode, header};
use serde_json::{Value as Json, json};

/// Newest first.
const VERSIONS: [&str; 3] = ["2025-06-18", "2025-03-26", "2024-11-05"];

/// Messages of one batch at most: each may be a query.
const BATCH_MAX: usize = 16;

const INSTRUCTIONS: &str = "Distributed traces, queried with TraceQL. Find attribute names with get-attribute-names and values \
    with get-attribute-values before writing a query; docs-traceql explains the language.";

/// What JSON-RPC says when a message cannot be served.
struct Refusal {
    code: i32,
    message: String,
}

impl Refusal {
    fn new(code: i32, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    fn params(message: impl Into<String>) -> Self {
        Self::new(-32_602, message)
    }
}

/// Answers a message, or several.
pub(super) async fn serve(
    State(state): State<Arc<super::State>>,
    method: Method,
    headers: HeaderMap,
    body: Body,
) -> Response {
    if !state.mcp {
        return (StatusCode::NOT_FOUND, "404 page not found\n").into_response();
    }
    if !is_from_here(&state, &headers) {
        // Else any page could ask through the browser of whoever reads it.
        return (StatusCode::FORBIDDEN, "origin not allowed; cors_allowed_origins lists those that are")
            .into_response();
    }
    if let Err(err) = state.tenancy.for_read(&headers) {
        return err.into_response();
    }
    let version = headers.get("mcp-protocol-version").map(|version| version.to_str().unwrap_or_default());
    match method {
        Method::POST if version.is_none_or(|version| VERSIONS.contains(&version)) => {
            match state.body_bound().read(body, state.gate.metrics()).await {
                Ok(body) => post(&state, &headers, &body).await,
                Err(err) => err.into_response(),
            }
        }
        Method::POST => {
            let text = format!("unknown MCP-Protocol-Version, expected one of {}", VERSIONS.join(", "));
            (StatusCode::BAD_REQUEST, text).into_response()
        }
        Method::DELETE => StatusCode::OK.into_response(),
        _ => (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "POST, DELETE")]).into_response(),
    }
}

fn is_from_here(state: &super::State, headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    state.cors_allowed_origins.iter().any(|allowed| allowed == "*" || origin == allowed.as_str())
}

async fn post(state: &Arc<super::State>, headers: &HeaderMap, body: &[u8]) -> Response {
    let answer = match serde_json::from_slice(body) {
        Err(err) => Some(failure(&Json::Null, &Refusal::new(-32_700, format!("not JSON: {err}")))),
        Ok(Json::Array(messages)) if messages.is_empty() || messages.len() > BATCH_MAX => {
            let text = format!("{} messages in a batch, expected 1 to {BATCH_MAX}", messages.len());
            Some(failure(&Json::Null, &Refusal::new(-32_600, text)))
        }
        Ok(Json::Array(messages)) => {
            let mut answers = Vec::new();
            for message in &messages {
                answers.extend(answer(state, headers, message).await);
            }
            (!answers.is_empty()).then_some(Json::Array(answers))
        }
        Ok(message) => answer(state, headers, &message).await,
    };
    match answer {
        Some(answer) => axum::Json(answer).into_response(),
        // Notifications and answers are taken note of.
        None => StatusCode::ACCEPTED.into_response(),
    }
}

fn failure(id: &Json, refusal: &Refusal) -> Json {
    json!({"jsonrpc": "2.0", "id": id, "error": {"code": refusal.code, "message": refusal.message}})
}

/// `None` for what wants no answer.
async fn answer(state: &Arc<super::State>, headers: &HeaderMap, message: &Json) -> Option<Json> {
    let is_message = message.is_object() && message["jsonrpc"] == "2.0";
    let id = message.get("id").unwrap_or(&Json::Null);
    let Some(method) = message["method"].as_str().filter(|_| is_message) else {
        let is_answer = is_message && (message.get("result").is_some() || message.get("error").is_some());
        return (!is_answer).then(|| failure(id, &Refusal::new(-32_600, "not a JSON-RPC 2.0 request")));
    };
    message.get("id")?;
    Some(match result(state, headers, method, &message["params"]).await {
        Ok(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}),
        Err(refusal) => failure(id, &refusal),
    })
}

async fn result(state: &Arc<super::State>, headers: &HeaderMap, method: &str, params: &Json) -> Result<Json, Refusal> {
    match method {
        "initialize" => {
            let wanted = params["protocolVersion"].as_str().unwrap_or_default();
            let version = VERSIONS.into_iter().find(|version| *version == wanted).unwrap_or(VERSIONS[0]);
            Ok(json!({
                "protocolVersion": version,
                "capabilities": {"tools": {}, "resources": {}},
                "serverInfo": {"name": "tempo", "title": "Spoor", "version": state.build.version},
                "instructions": INSTRUCTIONS,
            }))
        }
        "ping" => Ok(json!({})),
        "tools/list" => Ok(json!({"tools": tools::list()})),
        "tools/call" => tools::call(state, headers, params).await,
        "resources/list" => Ok(json!({"resources": docs::resources()})),
        "resources/templates/list" => Ok(json!({"resourceTemplates": []})),
        "resources/read" => {
            let uri = params["uri"].as_str().ok_or_else(|| Refusal::params("uri is missing"))?;
            let text = docs::resource(uri).ok_or_else(|| Refusal::new(-32_002, format!("no resource {uri}")))?;
            Ok(json!({"contents": [{"uri": uri, "mimeType": "text/markdown", "text": text}]}))
        }
        other => Err(Refusal::new(-32_601, format!("no method {other}"))),
    }
}

#[cfg(test)]
mod tests;
