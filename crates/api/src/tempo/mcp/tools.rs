//! The tools, by the names that Tempo gave them.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use http::{HeaderMap, HeaderValue, Uri, header};
use serde_json::{Value as Json, json};
use spoor_model::{UnixNano, rfc3339};

use super::super::asked::{Asked, asked};
use super::super::negotiate::Encoded;
use super::super::{metrics, search, tags, trace_by_id, trace_diff};
use super::{Refusal, docs};
use crate::error::ApiError;

const HOUR: u64 = 3_600_000_000_000;
const SECOND: u64 = 1_000_000_000;

/// One argument: its name, what it is, and whether it must be there.
type Argument = (&'static str, &'static str, bool);

const QUERY: Argument = ("query", "TraceQL", true);
const START: Argument = ("start", "RFC 3339; an hour before the end unless given", false);
const END: Argument = ("end", "RFC 3339; now unless given", false);

/// Name, what it is for, arguments.
const TOOLS: [(&str, &str, &[Argument]); 9] = [
    ("traceql-search", "Finds the newest traces whose spans match a TraceQL query.", &[QUERY, START, END]),
    (
        "traceql-metrics-instant",
        "Computes one value per series over a whole time range from a TraceQL metrics query, such as { status = error } | rate() by(resource.service.name).",
        &[QUERY, START, END],
    ),
    (
        "traceql-metrics-range",
        "Computes series over time from a TraceQL metrics query. Prefer the instant form when one value per series is enough.",
        &[QUERY, START, END],
    ),
    ("get-trace", "Reads a trace by its id.", &[("trace_id", "Hex", true)]),
    (
        "trace-diff",
        "Tells what is different in one trace from another: spans, durations, errors, attributes.",
        &[
            ("base_trace_id", "Hex; the trace to compare with", true),
            ("compare_trace_id", "Hex; the trace in question", true),
            ("base_start", "RFC 3339; a hint", false),
            ("base_end", "RFC 3339; a hint", false),
            ("compare_start", "RFC 3339; a hint", false),
            ("compare_end", "RFC 3339; a hint", false),
            ("format", "trace-summary-v0-composed unless given, trace-summary-v0-native or trace-patch-v0", false),
        ],
    ),
    (
        "get-attribute-names",
        "Lists the names of attributes that may stand in queries.",
        &[("scope", "span, resource, event, link, instrumentation or intrinsic; all unless given", false)],
    ),
    (
        "get-attribute-values",
        "Lists the values of an attribute.",
        &[
            ("name", "With its scope, such as resource.service.name", true),
            ("filter-query", "Only of spans that match this TraceQL filter", false),
        ],
    ),
    ("docs-traceql", "Explains TraceQL.", &[("name", "basic, aggregates, structural or metrics", true)]),
    ("docs-config", "Explains the configuration.", &[("name", "config-overview or config-reference", true)]),
];

/// For `tools/list`.
pub(super) fn list() -> Vec<Json> {
    TOOLS
        .iter()
        .map(|(name, description, arguments)| {
            let of = |(name, description, _): &Argument| {
                ((*name).to_owned(), json!({"type": "string", "description": description}))
            };
            let properties: serde_json::Map<String, Json> = arguments.iter().map(of).collect();
            let required: Vec<&str> =
                arguments.iter().filter(|(.., required)| *required).map(|(name, ..)| *name).collect();
            json!({
                "name": name,
                "description": description,
                "inputSchema": {"type": "object", "properties": properties, "required": required},
                "annotations": {"readOnlyHint": true, "destructiveHint": false, "openWorldHint": false},
            })
        })
        .collect()
}

/// What a tool says, and what kind of thing that is.
struct Said {
    text: String,
    kind: &'static str,
    encoding: &'static str,
    version: &'static str,
    /// What is missing, if something is.
    partial: Option<String>,
}

/// For `tools/call`. A query that fails is an answer of the tool, which the assistant reads and mends.
pub(super) async fn call(
    state: &Arc<super::super::State>,
    headers: &HeaderMap,
    params: &Json,
) -> Result<Json, Refusal> {
    let name = params["name"].as_str().ok_or_else(|| Refusal::params("the tool's name is missing"))?;
    let tool = TOOLS.iter().find(|(known, ..)| *known == name);
    let (name, _, arguments) = tool.ok_or_else(|| Refusal::params(format!("no tool {name}")))?;
    let given = &params["arguments"];
    if let Some(unknown) =
        given.as_object().and_then(|given| given.keys().find(|key| !arguments.iter().any(|(name, ..)| name == key)))
    {
        return Ok(failed(&format!("{name} has no argument {unknown}")));
    }
    for (argument, _, required) in *arguments {
        match &given[argument] {
            Json::Null if !*required => {}
            Json::String(_) => {}
            _ => return Ok(failed(&format!("argument {argument} must be a text"))),
        }
    }
    let said = Call { state, headers, given }.run(name).await;
    Ok(match said {
        Ok(Said { text, kind, encoding, version, partial }) => {
            let mut content = vec![json!({"type": "text", "text": text})];
            content.extend(partial.map(|note| json!({"type": "text", "text": note})));
            json!({"content": content, "isError": false, "_meta": {"type": kind, "encoding": encoding, "version": version}})
        }
        Err(ApiError { message, kind }) if message.is_empty() => failed(&format!("{kind:?}")),
        Err(err) => failed(&err.message),
    })
}

fn failed(message: &str) -> Json {
    json!({"content": [{"type": "text", "text": message}], "isError": true})
}

struct Call<'a> {
    state: &'a Arc<super::super::State>,
    headers: &'a HeaderMap,
    given: &'a Json,
}

impl Call<'_> {
    async fn run(&self, name: &str) -> Result<Said, ApiError> {
        match name {
            "traceql-search" => self.search().await,
            "traceql-metrics-instant" => self.metrics(false).await,
            "traceql-metrics-range" => self.metrics(true).await,
            "get-trace" => self.trace().await,
            "trace-diff" => self.diff().await,
            "get-attribute-names" => self.names().await,
            "get-attribute-values" => self.values().await,
            "docs-traceql" => documented(docs::traceql(self.text("name")), &docs::TRACEQL_TOPICS),
            _ => documented(docs::config(self.text("name")), &docs::CONFIG_TOPICS),
        }
    }

    fn state(&self) -> State<Arc<super::super::State>> {
        State(Arc::clone(self.state))
    }

    /// The request's headers, with another `Accept`.
    fn accepting(&self, media_type: &'static str) -> HeaderMap {
        let mut headers = self.headers.clone();
        headers.insert(header::ACCEPT, HeaderValue::from_static(media_type));
        headers
    }

    fn text(&self, argument: &str) -> &str {
        self.given[argument].as_str().unwrap_or_default()
    }

    /// A query with its range: the last hour unless told otherwise.
    fn query(&self, unit: u64) -> Result<RawQuery, ApiError> {
        let end = self.time("end")?.unwrap_or_else(|| self.state.clock.now());
        let start = self.time("start")?.unwrap_or(UnixNano(end.0.saturating_sub(HOUR)));
        let (query, start, end) = (escaped(self.text("query")), start.0 / unit, end.0 / unit);
        Ok(RawQuery(Some(format!("q={query}&start={start}&end={end}"))))
    }

    fn time(&self, argument: &str) -> Result<Option<UnixNano>, ApiError> {
        match self.text(argument) {
            "" => Ok(None),
            text => match rfc3339::parse(text) {
                Some(time) => Ok(Some(time)),
                None => Err(ApiError::invalid(format!(
                    "invalid {argument} {text:?}: expected a time such as 2026-01-02T15:04:05Z"
                ))),
            },
        }
    }

    async fn search(&self) -> Result<Said, ApiError> {
        if let Ok(Asked::Metrics) = asked(self.text("query")) {
            return Err(ApiError::invalid(
                "this is a metrics query; ask traceql-metrics-instant or traceql-metrics-range",
            ));
        }
        let found = search::search(self.state(), self.accepting("application/json"), self.query(SECOND)?).await?;
        Ok(json_said(found, "search-results", "1"))
    }

    async fn metrics(&self, is_range: bool) -> Result<Said, ApiError> {
        if let Ok(Asked::Search) = asked(self.text("query")) {
            return Err(ApiError::invalid(
                "this query finds traces; ask traceql-search, or add a metrics function such as | rate()",
            ));
        }
        let (headers, query) = (self.accepting("application/json"), self.query(1)?);
        match is_range {
            true => Ok(json_said(metrics::query_range(self.state(), headers, query).await?, "metrics-range", "1")),
            false => Ok(json_said(metrics::query_instant(self.state(), headers, query).await?, "metrics-instant", "1")),
        }
    }

    async fn trace(&self) -> Result<Said, ApiError> {
        let headers = self.accepting("application/vnd.grafana.llm");
        let id = Path(self.text("trace_id").to_owned());
        Ok(json_said(trace_by_id::v2(self.state(), id, headers, RawQuery(None)).await?, "trace", "2"))
    }

    async fn diff(&self) -> Result<Said, ApiError> {
        let format = match self.text("format") {
            "" => "trace-summary-v0-composed",
            format => format,
        };
        let side = |name: &str| -> Result<Json, ApiError> {
            let time = |end: &str| self.time(&format!("{name}_{end}"));
            let [start, end] = [time("start")?, time("end")?].map(|time| time.map(|time| time.0 / SECOND));
            Ok(json!({"traceId": self.text(&format!("{name}_trace_id")), "start": start, "end": end}))
        };
        let body = json!({"base": side("base")?, "compare": side("compare")?, "format": format});
        let tenants = self.state.tenancy.for_read(self.headers)?;
        let request = trace_diff::Request::parse(tenants, &Bytes::from(body.to_string()))?;
        Ok(json_said(request.answer(self.state).await?, "trace-diff", "1"))
    }

    async fn names(&self) -> Result<Said, ApiError> {
        let query = RawQuery(Some(format!("scope={}", escaped(self.text("scope")))));
        Ok(json_said(
            tags::names_v2(self.state(), self.accepting("application/json"), query).await?,
            "attribute-names",
            "1",
        ))
    }

    async fn values(&self) -> Result<Said, ApiError> {
        let path = format!("/api/v2/search/tag/{}/values", escaped(self.text("name")));
        let uri: Uri = path.parse().map_err(|err| ApiError::invalid(format!("invalid name: {err}")))?;
        let query = RawQuery(Some(format!("q={}", escaped(self.text("filter-query")))));
        let headers = self.accepting("application/vnd.grafana.llm");
        Ok(json_said(tags::values_v2(self.state(), uri, headers, query).await?, "attribute-values", "2"))
    }
}

fn json_said(answer: Encoded, kind: &'static str, version: &'static str) -> Said {
    let text = String::from_utf8(answer.bytes).expect("JSON is text");
    Said { text, kind, encoding: "json", version, partial: answer.partial }
}

fn documented(text: Option<String>, topics: &[&str]) -> Result<Said, ApiError> {
    let text = text.ok_or_else(|| ApiError::invalid(format!("unknown name: expected one of {}", topics.join(", "))))?;
    Ok(Said { text, kind: "documentation", encoding: "markdown", version: "1", partial: None })
}

/// A text as part of a URL.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => escaped.push(char::from(byte)),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}
