//! The data of a corpus file: traces and spans.

use std::sync::Arc;

use spoor_model::{Event, KeyValue, Link, Span, SpanEntry, Status, TraceId, UnixNano, Value};

use super::T0;
use super::line::{Lines, Words};
use crate::build;

const KINDS: [&str; 6] = ["unspecified", "internal", "server", "client", "producer", "consumer"];
const STATUSES: [&str; 3] = ["unset", "ok", "error"];
/// What begins a line that is not about a span.
const CASES: [&str; 7] = ["load", "eval", "shown", "metrics", "instant", "fail", "failmetrics"];

/// The spans up to the first case.
pub(super) fn entries(lines: &mut Lines) -> Result<Vec<SpanEntry>, String> {
    let mut entries: Vec<SpanEntry> = Vec::new();
    let mut trace = None;
    while let Some(line) = lines.peek() {
        let (word, rest) = line.text.split_once(' ').unwrap_or((&line.text, ""));
        let at_line = |message: String| format!("{}: {message}", line.number);
        if CASES.contains(&word) {
            break;
        }
        match (word, trace) {
            ("trace", _) => trace = Some(Words::of(rest).trace_id().map_err(at_line)?),
            (_, None) => return Err(at_line("a span before any trace".into())),
            (_, Some(trace)) => {
                let (mut entry, copies) = SpanLine::read(&line.text, trace).map_err(at_line)?;
                // Spans of one origin share it, as they do in a request.
                if let Some(twin) = entries.iter().find(|other| other.origin == entry.origin) {
                    entry.origin = Arc::clone(&twin.origin);
                }
                (0..copies).for_each(|_| entries.push(entry.clone()));
            }
        }
        lines.next_line();
    }
    Ok(entries)
}

/// What a span's line has said so far.
#[derive(Default)]
struct SpanLine {
    span: Span,
    at: i64,
    lasts: i64,
    service: Vec<KeyValue>,
    resource: Vec<KeyValue>,
    scope_name: String,
    scope_version: String,
    scope: Vec<KeyValue>,
    /// With their times relative to the span's start.
    events: Vec<(i64, Event)>,
    copies: usize,
}

impl SpanLine {
    /// The span, and how often it was exported.
    fn read(text: &str, trace: TraceId) -> Result<(SpanEntry, usize), String> {
        let mut words = Words::of(text);
        let mut line = Self { lasts: 1_000_000, copies: 1, ..Self::default() };
        line.span.trace_id = trace;
        line.span.span_id = words.span_id()?;
        while !words.is_end() {
            let key = words.key()?;
            match key.as_str() {
                "event" => line.events.push(event(&mut words)?),
                "link" => line.span.links.push(link(&mut words)?),
                _ => {
                    words.expect('=')?;
                    line.set(&key, &mut words)?;
                }
            }
        }
        Ok(line.finish())
    }

    fn set(&mut self, key: &str, words: &mut Words<'_>) -> Result<(), String> {
        match key {
            "name" => self.span.name = text(words)?,
            "message" => self.span.status.message = text(words)?,
            "state" => self.span.trace_state = text(words)?,
            "at" => self.at = words.duration()?,
            "for" => self.lasts = words.duration()?,
            "kind" => self.span.kind = code(&KINDS, words)?,
            "status" => self.span.status = Status { code: code(&STATUSES, words)?, ..self.span.status.clone() },
            "parent" => self.span.parent_span_id = words.span_id()?,
            "service" => self.service.push(KeyValue::new("service.name", words.value()?)),
            "scope.name" => self.scope_name = text(words)?,
            "scope.version" => self.scope_version = text(words)?,
            "copy" => self.copies = words.word("").parse().map_err(|_| "copy needs a number".to_owned())?,
            _ => {
                let (attributes, key) = match key.split_once('.') {
                    Some(("span", key)) => (&mut self.span.attributes, key),
                    Some(("resource", key)) => (&mut self.resource, key),
                    Some(("scope", key)) => (&mut self.scope, key),
                    _ => return Err(format!("a span has no {key:?}")),
                };
                attributes.push(KeyValue::new(key, words.value()?));
            }
        }
        Ok(())
    }

    fn finish(mut self) -> (SpanEntry, usize) {
        let start = T0 as i64 + self.at;
        self.span.start = UnixNano(start as u64);
        self.span.end = UnixNano((start + self.lasts) as u64);
        for (after, mut event) in self.events {
            event.time = UnixNano((start + after) as u64);
            self.span.events.push(event);
        }
        let resource = [self.service, self.resource].concat();
        let origin = build::origin(&resource, &self.scope_name, &self.scope_version, &self.scope);
        (SpanEntry { origin: Arc::new(origin), span: self.span }, self.copies)
    }
}

fn text(words: &mut Words<'_>) -> Result<String, String> {
    match words.value()? {
        Value::Str(text) => Ok(text),
        other => Err(format!("expected a text, not {other:?}")),
    }
}

fn code(names: &[&str], words: &mut Words<'_>) -> Result<i32, String> {
    let word = words.word("");
    match names.iter().position(|name| *name == word) {
        Some(place) => Ok(place as i32),
        None => Err(format!("{word:?} is none of {names:?}")),
    }
}

fn event(words: &mut Words<'_>) -> Result<(i64, Event), String> {
    let (mut after, mut event) = (0, Event::default());
    words.expect('(')?;
    while !words.eat(')') {
        let key = words.plain_key()?;
        match key.as_str() {
            "name" => event.name = text(words)?,
            "at" => after = words.duration()?,
            _ => event.attributes.push(KeyValue::new(key, words.value()?)),
        }
    }
    Ok((after, event))
}

fn link(words: &mut Words<'_>) -> Result<Link, String> {
    let mut link = Link::default();
    words.expect('(')?;
    while !words.eat(')') {
        let key = words.plain_key()?;
        match key.as_str() {
            "trace" => link.trace_id = words.trace_id()?,
            "span" => link.span_id = words.span_id()?,
            _ => link.attributes.push(KeyValue::new(key, words.value()?)),
        }
    }
    Ok(link)
}
