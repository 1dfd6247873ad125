//! The real binary behind Tempo's API, as an engine of the TraceQL corpus.

use std::collections::BTreeMap;

use serde_json::Value as Json;
use spoor_model::{SpanEntry, SpanId, Trace, TraceId, Value};
use spoor_testkit::answer::{FoundSpan, FoundSpanset, FoundTrace, Series, Window};
use spoor_testkit::traceql_corpus::{Engine, Failure};

use super::{Spoor, escape, start};

/// A server per load. What the corpus holds is older than the usual retention.
#[derive(Default)]
pub(crate) struct HttpEngine(Option<Spoor>);

impl HttpEngine {
    fn get(&self, path: &str, query: &str, parameters: &str) -> Result<Json, Failure> {
        let spoor = self.0.as_ref().ok_or_else(|| Failure::Broken("nothing was loaded".to_owned()))?;
        let answer = spoor.tempo(&format!("{path}?q={}{parameters}", escape(query)));
        match answer.status {
            200 => Ok(answer.json()),
            400 => Err(Failure::Refused(answer.text())),
            status => Err(Failure::Broken(format!("{status}: {}", answer.text()))),
        }
    }
}

impl Engine for HttpEngine {
    fn load(&mut self, entries: &[SpanEntry]) -> Result<(), String> {
        // One process at a time.
        self.0 = None;
        let spoor = start(&["--retention", "0"]);
        let mut traces: BTreeMap<TraceId, Vec<SpanEntry>> = BTreeMap::new();
        entries.iter().for_each(|entry| traces.entry(entry.span.trace_id).or_default().push(entry.clone()));
        for (id, entries) in traces {
            // Not assembled: copies are sent as often as they are listed.
            spoor.ingest(&spoor_otlp::encode::traces_data(&Trace { id, entries }));
        }
        self.0 = Some(spoor);
        Ok(())
    }

    fn search(&mut self, query: &str) -> Result<Vec<FoundTrace>, Failure> {
        let answer = self.get("/api/search", query, "&limit=10000&spss=100")?;
        Ok(list(&answer["traces"]).iter().map(found_trace).collect())
    }

    fn metrics(&mut self, query: &str, window: Window) -> Result<Vec<Series>, Failure> {
        let Window { from, to, step } = window;
        let parameters = format!("&start={from}&end={to}&step={}ms", step / 1_000_000);
        let answer = self.get("/api/metrics/query_range", query, &parameters)?;
        let series = |one: &Json| {
            let mut points = vec![None; window.interval_count()];
            for sample in list(&one["samples"]) {
                // The API answers with one interval more, before the first.
                if let Some(interval) = window.interval_of(number(&sample["timestampMs"]) * 1_000_000) {
                    points[interval] = Some(double(&sample["value"]));
                }
            }
            Series { labels: pairs(&one["labels"]), points }
        };
        Ok(list(&answer["series"]).iter().map(series).collect())
    }

    fn instant(&mut self, query: &str, window: Window) -> Result<Vec<Series>, Failure> {
        let parameters = format!("&start={}&end={}", window.from, window.to);
        let answer = self.get("/api/metrics/query", query, &parameters)?;
        let series = |one: &Json| Series { labels: pairs(&one["labels"]), points: vec![Some(double(&one["value"]))] };
        Ok(list(&answer["series"]).iter().map(series).collect())
    }
}

fn found_trace(trace: &Json) -> FoundTrace {
    let spanset = |set: &Json| FoundSpanset {
        spans: list(&set["spans"]).iter().map(found_span).collect(),
        attributes: pairs(&set["attributes"]),
    };
    FoundTrace {
        id: TraceId::from_hex(trace["traceID"].as_str().unwrap()).unwrap(),
        spansets: list(&trace["spanSets"]).iter().map(spanset).collect(),
    }
}

fn found_span(span: &Json) -> FoundSpan {
    FoundSpan {
        id: SpanId::from_hex(span["spanID"].as_str().unwrap()).unwrap(),
        name: span["name"].as_str().map(str::to_owned),
        attributes: pairs(&span["attributes"]),
    }
}

fn list(value: &Json) -> &[Json] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn number(value: &Json) -> u64 {
    value.as_str().map_or(0, |text| text.parse().unwrap())
}

fn double(value: &Json) -> f64 {
    match value.as_str() {
        Some("NaN") => f64::NAN,
        Some("Infinity") => f64::INFINITY,
        Some("-Infinity") => f64::NEG_INFINITY,
        _ => value.as_f64().unwrap_or(0.0),
    }
}

fn pairs(attributes: &Json) -> Vec<(String, Value)> {
    let value = |value: &Json| match value.as_object().and_then(|arms| arms.iter().next()) {
        Some((arm, int)) if arm == "intValue" => Value::Int(int.as_str().unwrap().parse().unwrap()),
        Some((arm, float)) if arm == "doubleValue" => Value::Double(double(float)),
        Some((_, Json::String(text))) => Value::Str(text.clone()),
        Some((_, Json::Bool(flag))) => Value::Bool(*flag),
        other => panic!("not a scalar: {other:?}"),
    };
    let key = |attribute: &Json| attribute["key"].as_str().unwrap_or_default().to_owned();
    list(attributes).iter().map(|one| (key(one), value(&one["value"]))).collect()
}
