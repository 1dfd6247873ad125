//! The real binary, asked over HTTP as Grafana asks.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value as Json;
use spoor_model::{SpanEntry, SpanId, Trace, TraceId, Value};
use spoor_testkit::answer::{FoundSpan, FoundSpanset, FoundTrace, Series, Window};
use spoor_testkit::client::http::{Answer, Connection};
use spoor_testkit::process::{Launch, Server};
use spoor_testkit::traceql_corpus::{Engine, Failure, T0};
use tempfile::TempDir;

const SECOND: u64 = 1_000_000_000;
const DAY: u64 = 24 * 3600;

/// A running Spoor, shared by all files; every load is a tenant of its own.
pub(crate) struct Service {
    server: Server,
    next_tenant: AtomicU64,
    _directory: TempDir,
}

impl Service {
    pub(crate) fn start() -> Self {
        let directory = TempDir::new().unwrap();
        // The traces of the corpus are old.
        let flags = ["--multitenancy", "--retention", "0", "--wal-sync", "never", "--query-queue", "1000"];
        let server = Launch::new(env!("CARGO_BIN_EXE_spoor"), directory.path()).arguments(flags).start();
        Self { server, next_tenant: AtomicU64::new(0), _directory: directory }
    }
}

/// A client of the service.
pub(crate) struct HttpEngine<'a> {
    service: &'a Service,
    queries: Connection,
    tenant: String,
}

impl<'a> HttpEngine<'a> {
    pub(crate) fn new(service: &'a Service) -> Self {
        Self { service, queries: Connection::new(service.server.tempo()), tenant: String::new() }
    }

    fn get(&mut self, path: &str, params: &[(&str, String)]) -> Result<Json, Failure> {
        let params: Vec<String> = params.iter().map(|(key, value)| format!("{key}={}", escape(value))).collect();
        let path = format!("{path}?{}", params.join("&"));
        let answer = self.queries.send("GET", &path, &[("x-scope-orgid", &self.tenant)], &[]);
        let answer: Answer = answer.map_err(|error| Failure::Broken(error.to_string()))?;
        match answer.status {
            200 => Ok(answer.json()),
            400 => Err(Failure::Refused(answer.text())),
            status => Err(Failure::Broken(format!("status {status}: {}", answer.text()))),
        }
    }
}

impl Engine for HttpEngine<'_> {
    fn load(&mut self, entries: &[SpanEntry]) -> Result<(), String> {
        self.tenant = format!("load-{}", self.service.next_tenant.fetch_add(1, Ordering::Relaxed));
        let Some(first) = entries.first() else { return Ok(()) };
        let body = spoor_otlp::encode::traces_data(&Trace { id: first.span.trace_id, entries: entries.to_vec() });
        let headers = [("content-type", "application/x-protobuf"), ("x-scope-orgid", &self.tenant)];
        let mut connection = Connection::new(self.service.server.otlp_http());
        let answer = connection.send("POST", "/v1/traces", &headers, &body).map_err(|error| error.to_string())?;
        match (answer.status, answer.body.is_empty()) {
            (200, true) => Ok(()),
            (status, _) => Err(format!("status {status}: {}", answer.text())),
        }
    }

    /// Grafana makes a column of each attribute, so values of several types under one key are all sent as text.
    fn has_types(&self) -> bool {
        false
    }

    fn search(&mut self, query: &str) -> Result<Vec<FoundTrace>, Failure> {
        let params = [
            ("q", query.to_owned()),
            ("start", (T0 / SECOND - DAY).to_string()),
            ("end", (T0 / SECOND + 2 * DAY).to_string()),
            ("limit", "1000".to_owned()),
            ("spss", "100".to_owned()),
        ];
        let answer = self.get("/api/search", &params)?;
        Ok(list(&answer["traces"]).map(found_trace).collect())
    }

    fn metrics(&mut self, query: &str, window: Window) -> Result<Vec<Series>, Failure> {
        // A range begins one step before the interval that holds its start, so one interval cannot be asked for.
        if window.interval_count() == 1 {
            return self.instant(query, window);
        }
        let params = [
            ("q", query.to_owned()),
            ("start", (window.from + window.step).to_string()),
            ("end", window.to.to_string()),
            ("step", format!("{}ns", window.step)),
        ];
        let answer = self.get("/api/metrics/query_range", &params)?;
        let series = |one: &Json| {
            let mut points = vec![None; window.interval_count()];
            for sample in list(&one["samples"]) {
                let millis: u64 = sample["timestampMs"].as_str().unwrap().parse().unwrap();
                let interval = window.interval_of(millis * 1_000_000).expect("within what was asked for");
                points[interval] = Some(sample["value"].as_f64().unwrap_or(0.0));
            }
            Series { labels: pairs(&one["labels"]), points }
        };
        Ok(list(&answer["series"]).map(series).collect())
    }

    fn instant(&mut self, query: &str, window: Window) -> Result<Vec<Series>, Failure> {
        let params = [("q", query.to_owned()), ("start", window.from.to_string()), ("end", window.to.to_string())];
        let answer = self.get("/api/metrics/query", &params)?;
        let series = |one: &Json| Series {
            labels: pairs(&one["labels"]),
            points: vec![Some(one["value"].as_f64().unwrap_or(0.0))],
        };
        Ok(list(&answer["series"]).map(series).collect())
    }
}

/// For use within a query string.
fn escape(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

fn list(json: &Json) -> impl Iterator<Item = &Json> {
    json.as_array().into_iter().flatten()
}

fn text(json: &Json) -> &str {
    json.as_str().unwrap_or_default()
}

fn found_trace(json: &Json) -> FoundTrace {
    let span = |span: &Json| FoundSpan {
        id: SpanId::from_hex(text(&span["spanID"])).unwrap(),
        name: span["name"].as_str().map(str::to_owned),
        attributes: pairs(&span["attributes"]),
    };
    let spanset = |set: &Json| {
        let spans: Vec<FoundSpan> = list(&set["spans"]).map(span).collect();
        assert_eq!(set["matched"].as_u64(), Some(spans.len() as u64), "{set}");
        FoundSpanset { spans, attributes: pairs(&set["attributes"]) }
    };
    FoundTrace {
        id: TraceId::from_hex(text(&json["traceID"])).unwrap(),
        spansets: list(&json["spanSets"]).map(spanset).collect(),
    }
}

fn pairs(json: &Json) -> Vec<(String, Value)> {
    list(json).map(|pair| (text(&pair["key"]).to_owned(), value(&pair["value"]))).collect()
}

/// An `AnyValue`. Defaults are left out: one without an arm is an empty text, say.
fn value(json: &Json) -> Value {
    let Some((arm, inner)) = json.as_object().and_then(|arms| arms.iter().next()) else { return Value::Empty };
    match arm.as_str() {
        "stringValue" => Value::Str(text(inner).to_owned()),
        "intValue" => Value::Int(inner.as_str().map_or_else(|| inner.as_i64(), |text| text.parse().ok()).unwrap()),
        "doubleValue" => Value::Double(inner.as_f64().unwrap()),
        "boolValue" => Value::Bool(inner.as_bool().unwrap()),
        "arrayValue" => Value::Array(list(&inner["values"]).map(value).collect()),
        other => panic!("an arm {other:?}"),
    }
}
