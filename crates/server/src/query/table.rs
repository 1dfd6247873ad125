//! Answers of Tempo's API as lines for a terminal.

use std::time::Duration;

use serde_json::Value as Json;
use spoor_model::{SpanId, TraceId, UnixNano, rfc3339};

/// A trace that a search found, for those who want to draw it.
pub(super) struct Found {
    pub(super) trace_id: TraceId,
    /// Matching spans, as many as were asked for.
    pub(super) span_ids: Vec<SpanId>,
}

/// The traces of a search's answer, in its order.
pub(super) fn found(answer: &Json) -> Vec<Found> {
    let span_id = |span: &Json| SpanId::from_hex(span["spanID"].as_str()?).ok();
    let found = |trace: &Json| {
        let trace_id = TraceId::from_hex(trace["traceID"].as_str()?).ok()?;
        let spans = list(&trace["spanSets"]).iter().flat_map(|set| list(&set["spans"]));
        Some(Found { trace_id, span_ids: spans.filter_map(span_id).collect() })
    };
    list(&answer["traces"]).iter().filter_map(found).collect()
}

/// A line per trace; with its spansets where `by()` made several or aggregates say something of them, and
/// with their spans when these were asked for.
pub(super) fn of_traces(answer: &Json, with_spans: bool) -> Result<String, String> {
    let traces = list(&answer["traces"]);
    if traces.is_empty() {
        return Ok("no traces\n".to_owned());
    }
    let mut lines = Lines::new(&["TRACE", "START", "DURATION", "SERVICE", "ROOT", "MATCHED"]);
    for trace in traces {
        let start = UnixNano(number(&trace["startTimeUnixNano"]));
        let sets = list(&trace["spanSets"]);
        let matched: u64 = sets.iter().map(|set| number(&set["matched"])).sum();
        lines.row(vec![
            text(&trace["traceID"]),
            time_text(start),
            duration_text(Duration::from_millis(number(&trace["durationMs"]))),
            text(&trace["rootServiceName"]),
            text(&trace["rootTraceName"]),
            if sets.is_empty() { String::new() } else { matched.to_string() },
        ]);
        for set in sets {
            let said = attributes(&set["attributes"]);
            if !said.is_empty() {
                lines.text(format!("  {said}: {}", number(&set["matched"])));
            }
            let spans = if with_spans { list(&set["spans"]) } else { &[] };
            for span in spans {
                let after = UnixNano(number(&span["startTimeUnixNano"])).since(start);
                let line = format!(
                    "    {}  +{}  {}  {}  {}",
                    text(&span["spanID"]),
                    duration_text(after),
                    duration_text(Duration::from_nanos(number(&span["durationNanos"]))),
                    text(&span["name"]),
                    attributes(&span["attributes"]),
                );
                lines.text(line.trim_end().to_owned());
            }
        }
    }
    Ok(lines.finish())
}

/// A line per series: its labels, its last value and what lies between; or, of an instant query, its value.
pub(super) fn of_series(answer: &Json) -> Result<String, String> {
    let series = list(&answer["series"]);
    if series.is_empty() {
        return Ok("no series\n".to_owned());
    }
    let is_instant = series.iter().all(|one| one.get("samples").is_none());
    let mut lines = match is_instant {
        true => Lines::new(&["SERIES", "VALUE"]),
        false => Lines::new(&["SERIES", "LAST", "MIN", "AVG", "MAX", "POINTS", "OVER TIME"]),
    };
    for one in series {
        let labels = format!("{{{}}}", attributes(&one["labels"]));
        if is_instant {
            lines.row(vec![labels, number_text(double(&one["value"]))]);
            continue;
        }
        let values: Vec<f64> = list(&one["samples"]).iter().map(|sample| double(&sample["value"])).collect();
        let (low, high) = values
            .iter()
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(*value), high.max(*value)));
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let last = values.last().copied().unwrap_or(f64::NAN);
        lines.row(vec![
            labels,
            number_text(last),
            number_text(low),
            number_text(mean),
            number_text(high),
            values.len().to_string(),
            curve(&values, high),
        ]);
    }
    if let Some(message) = answer["message"].as_str() {
        lines.text(message.to_owned());
    }
    Ok(lines.finish())
}

/// Columns of a curve at most.
const CURVE_COLUMNS: usize = 40;

/// The values as heights, from zero; several to a column when there are many.
fn curve(values: &[f64], high: f64) -> String {
    const HEIGHTS: [char; 8] = ['_', '.', ':', '-', '=', '+', '*', '#'];
    if values.is_empty() || !high.is_finite() {
        return String::new();
    }
    let per_column = values.len().div_ceil(CURVE_COLUMNS);
    let column = |part: &[f64]| {
        let top = part.iter().copied().fold(0.0, f64::max);
        let height = if high > 0.0 { (top / high * 7.0).ceil() } else { 0.0 };
        HEIGHTS[(height as usize).min(7)]
    };
    values.chunks(per_column).map(column).collect()
}

/// Lines, some of which are rows of one table.
pub(crate) struct Lines {
    head_widths: Vec<usize>,
    lines: Vec<Line>,
}

enum Line {
    Row(Vec<String>),
    Text(String),
}

impl Lines {
    pub(crate) fn new(head: &[&str]) -> Self {
        let row = head.iter().map(|cell| (*cell).to_owned()).collect();
        Self { head_widths: vec![0; head.len()], lines: vec![Line::Row(row)] }
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.lines.push(Line::Row(cells));
    }

    pub(crate) fn text(&mut self, line: String) {
        self.lines.push(Line::Text(line));
    }

    pub(crate) fn finish(mut self) -> String {
        for line in &self.lines {
            if let Line::Row(cells) = line {
                for (width, cell) in self.head_widths.iter_mut().zip(cells) {
                    *width = (*width).max(cell.chars().count());
                }
            }
        }
        let mut text = String::new();
        for line in self.lines {
            let line = match line {
                Line::Text(line) => line,
                Line::Row(cells) => {
                    let padded = cells.iter().zip(&self.head_widths).map(|(cell, width)| format!("{cell:<width$}"));
                    padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
                }
            };
            text.push_str(&line);
            text.push('\n');
        }
        text
    }
}

fn list(value: &Json) -> &[Json] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Json) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// A whole number, as a number or a text; absent is zero, as in protobuf's JSON.
fn number(value: &Json) -> u64 {
    value.as_u64().or_else(|| value.as_str()?.parse().ok()).unwrap_or(0)
}

/// A float, or the name of one that JSON has no number for; absent is zero.
fn double(value: &Json) -> f64 {
    match value.as_str() {
        Some("NaN") => f64::NAN,
        Some("Infinity") => f64::INFINITY,
        Some("-Infinity") => f64::NEG_INFINITY,
        _ => value.as_f64().unwrap_or(0.0),
    }
}

fn number_text(value: f64) -> String {
    match value {
        value if !value.is_finite() => "-".to_owned(),
        value if value == value.trunc() && value.abs() < 1e15 => format!("{value}"),
        value if value.abs() < 0.001 => format!("{value:.3e}"),
        value => format!("{value:.4}"),
    }
}

/// `key=value key="text"`.
fn attributes(value: &Json) -> String {
    let shown = |attribute: &Json| {
        let value = &attribute["value"];
        let value = match (value["stringValue"].as_str(), value["intValue"].as_str()) {
            (Some(text), _) => format!("{text:?}"),
            (_, Some(int)) => int.to_owned(),
            _ => value.as_object().and_then(|arms| arms.values().next()).map(Json::to_string).unwrap_or_default(),
        };
        format!("{}={value}", text(&attribute["key"]))
    };
    list(value).iter().map(shown).collect::<Vec<_>>().join(" ")
}

/// `2026-01-02T15:04:05.678Z`.
pub(super) fn time_text(time: UnixNano) -> String {
    rfc3339::format(time)
}

/// Three or four digits and a unit: `12.3ms`, `1.5s`, `2m5s`.
pub(super) fn duration_text(duration: Duration) -> String {
    let nanos = duration.as_nanos() as f64;
    let digits = |value: f64, unit: &str| {
        let text = if value < 10.0 { format!("{value:.2}") } else { format!("{value:.1}") };
        let text = if value >= 100.0 { format!("{value:.0}") } else { text };
        let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text };
        format!("{text}{unit}")
    };
    match duration.as_nanos() {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => digits(nanos / 1e3, "us"),
        1_000_000..1_000_000_000 => digits(nanos / 1e6, "ms"),
        1_000_000_000..60_000_000_000 => digits(nanos / 1e9, "s"),
        _ => {
            let seconds = duration.as_secs();
            match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
                (0, minutes, seconds) => format!("{minutes}m{seconds}s"),
                (hours, minutes, _) => format!("{hours}h{minutes}m"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn traces_are_lines_and_spansets_stand_below() {
        let answer = json!({"traces": [
            {"traceID": "ab", "rootServiceName": "shop", "rootTraceName": "POST /pay", "startTimeUnixNano": "1767366245000000000",
             "durationMs": 120, "spanSets": [{"matched": 2, "attributes": [{"key": "count()", "value": {"intValue": "2"}}],
               "spans": [{"spanID": "000000000000000b", "name": "SELECT", "startTimeUnixNano": "1767366245010000000",
                          "durationNanos": "40000000", "attributes": [{"key": "db", "value": {"stringValue": "x"}}]}]}]},
            {"traceID": "c", "rootServiceName": "db"}]});
        let expected = "\
TRACE  START                     DURATION  SERVICE  ROOT       MATCHED
ab     2026-01-02T15:04:05.000Z  120ms     shop     POST /pay  2
  count()=2: 2
    000000000000000b  +10ms  40ms  SELECT  db=\"x\"
c      1970-01-01T00:00:00.000Z  0s        db
";
        assert_eq!(of_traces(&answer, true).unwrap(), expected);
        assert_eq!(of_traces(&json!({"traces": []}), true).unwrap(), "no traces\n");
        assert_eq!(found(&answer)[0].span_ids, [SpanId::from_hex("b").unwrap()]);
    }

    #[test]
    fn series_are_lines_with_their_curve() {
        let sample = |value: f64| json!({"timestampMs": "1", "value": value});
        let answer = json!({"series": [
            {"labels": [{"key": "__name__", "value": {"stringValue": "rate"}}],
             "samples": [sample(1.0), {"timestampMs": "2"}, sample(3.5)]}]});
        let expected = "\
SERIES             LAST    MIN  AVG  MAX     POINTS  OVER TIME
{__name__=\"rate\"}  3.5000  0    1.5000  3.5000  3       :_#
";
        let shown = of_series(&answer).unwrap();
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(words(&shown), words(expected));
        let instant = json!({"series": [{"labels": [], "value": 2.0}]});
        assert_eq!(of_series(&instant).unwrap(), "SERIES  VALUE\n{}      2\n");
    }

    #[test]
    fn durations_have_few_digits() {
        for (nanos, text) in [
            (0, "0s"),
            (999, "999ns"),
            (1_500, "1.5us"),
            (12_345_678, "12.3ms"),
            (120_000_000, "120ms"),
            (1_500_000_000, "1.5s"),
            (125_000_000_000, "2m5s"),
            (3_900_000_000_000, "1h5m"),
        ] {
            assert_eq!(duration_text(Duration::from_nanos(nanos)), text);
        }
    }
}
