//! Spans that are legal and that nobody tests with: everything that OTLP allows, mixed.
//!
//! Arrays, nested maps, bytes, NaN, values with no arm, duplicate keys, unicode, empty texts, events,
//! links, trace state, flags, dropped counts, scope attributes, schema URLs; orphans, cycles, spans
//! that share an id but differ, exact copies, traces of one span and of hundreds.

use spoor_model::nested::{put_attributes, put_event, put_link, put_message};
use spoor_model::wire::{put_bytes, put_fixed32, put_fixed64, put_text, put_uint};
use spoor_model::{Event, KeyValue, Link, SpanId, TraceId, UnixNano, Value};

use crate::rng::Rng;

/// Makes requests of nasty spans.
#[derive(Debug, Clone)]
pub struct Nasty {
    rng: Rng,
    start: UnixNano,
    traces: Vec<TraceId>,
    /// Encoded spans that may be sent once more, with the origin that they must be sent under.
    sent: Vec<(usize, Vec<u8>)>,
    span_ids: Vec<SpanId>,
    origins: Vec<Origin>,
}

#[derive(Debug, Clone)]
struct Origin {
    resource: Option<Vec<u8>>,
    resource_schema_url: String,
    scope: Option<Vec<u8>>,
    scope_schema_url: String,
}

const TEXTS: [&str; 12] = [
    "",
    "a",
    "GET /",
    "snowman \u{2603}",
    "\u{1f98c}\u{1f43e}",
    "quote \" slash / back \\ ",
    "line\nbreak\ttab",
    "\u{0}nul",
    "a.b.c",
    "\u{202e}right to left",
    "x=1 y=\"2\"",
    "ffffffffffffffff",
];
const KEYS: [&str; 11] = [
    "service.name",
    "http.route",
    "k",
    "",
    "a b",
    "\u{e4}\u{f6}\u{fc}",
    "http.status_code",
    "deep",
    "name",
    "span.kind",
    "resource.service.name",
];

impl Nasty {
    /// Spans that begin around `start`; the seed decides the rest.
    pub fn new(seed: u64, start: UnixNano) -> Self {
        let mut rng = Rng::seeded(seed);
        let origins = (0..5).map(|number| origin(&mut rng, number)).collect();
        let traces = (0..24).map(|_| TraceId(rng.id())).collect();
        Self { rng, start, traces, sent: Vec::new(), span_ids: Vec::new(), origins }
    }

    /// The traces that all spans belong to.
    pub fn traces(&self) -> &[TraceId] {
        &self.traces
    }

    /// One request of about `span_count` spans. Some are exact copies of spans of this or an earlier request.
    pub fn request(&mut self, span_count: usize) -> Vec<u8> {
        let mut body = Vec::new();
        let mut left = span_count;
        while left > 0 {
            let number = self.rng.index(self.origins.len());
            let count = (1 + self.rng.index(12)).min(left);
            left -= count;
            let spans: Vec<_> = (0..count).map(|_| self.span(number)).collect();
            let origin = &self.origins[number];
            put_message(&mut body, 1, |out| {
                if let Some(resource) = &origin.resource {
                    put_bytes(out, 1, resource);
                }
                put_message(out, 2, |out| {
                    if let Some(scope) = &origin.scope {
                        put_bytes(out, 1, scope);
                    }
                    spans.iter().for_each(|span| put_bytes(out, 2, span));
                    put_text(out, 3, origin.scope_schema_url.as_bytes());
                });
                put_text(out, 3, origin.resource_schema_url.as_bytes());
            });
        }
        body
    }

    fn span(&mut self, origin: usize) -> Vec<u8> {
        let copies: Vec<_> = self.sent.iter().rev().take(200).filter(|(of, _)| *of == origin).cloned().collect();
        if !copies.is_empty() && self.rng.chance(0.08) {
            return self.rng.pick(&copies).1.clone();
        }
        let encoded = self.encode();
        self.sent.push((origin, encoded.clone()));
        encoded
    }

    fn encode(&mut self) -> Vec<u8> {
        let rng = &mut self.rng;
        // A few traces get most of the spans.
        let trace_id = self.traces[rng.popular(self.traces.len())];
        let is_twin = !self.span_ids.is_empty() && rng.chance(0.05);
        let span_id = if is_twin { *rng.pick(&self.span_ids) } else { SpanId(rng.id()) };
        self.span_ids.push(span_id);
        let mut out = Vec::new();
        put_bytes(&mut out, 1, &trace_id.0);
        put_bytes(&mut out, 2, &span_id.0);
        if rng.chance(0.2) {
            put_text(&mut out, 3, rng.pick(&["vendor=1", "a=b,c=d", ""]).as_bytes());
        }
        match rng.below(10) {
            // A root.
            0 => {}
            // An orphan.
            1 => put_bytes(&mut out, 4, &rng.id::<8>()),
            // A parent of the past; of another trace perhaps, or itself.
            _ => put_bytes(&mut out, 4, &rng.pick(&self.span_ids).0),
        }
        put_text(&mut out, 5, rng.pick(&TEXTS).as_bytes());
        put_uint(&mut out, 6, rng.below(6));
        let start = self.start.0 + rng.below(5_000_000_000);
        put_fixed64(&mut out, 7, start);
        put_fixed64(&mut out, 8, start + [0, 1, rng.below(1_000), rng.below(3_600_000_000_000)][rng.index(4)]);
        put_attributes(&mut out, 9, &attributes(rng, 9));
        put_uint(&mut out, 10, dropped(rng));
        for _ in 0..rng.popular(4) {
            let event = Event {
                time: UnixNano(start + rng.below(1_000)),
                name: (*rng.pick(&TEXTS)).to_owned(),
                attributes: attributes(rng, 3),
                dropped_attributes_count: dropped(rng) as u32,
            };
            put_message(&mut out, 11, |out| put_event(out, &event));
        }
        put_uint(&mut out, 12, dropped(rng));
        for _ in 0..rng.popular(3) {
            let link = Link {
                trace_id: TraceId(rng.id()),
                span_id: SpanId(rng.id()),
                trace_state: (*rng.pick(&["", "t=1"])).to_owned(),
                attributes: attributes(rng, 2),
                dropped_attributes_count: dropped(rng) as u32,
                flags: *rng.pick(&[0, 1, 0x301]),
            };
            put_message(&mut out, 13, |out| put_link(out, &link));
        }
        put_uint(&mut out, 14, dropped(rng));
        if rng.chance(0.6) {
            let (message, code) = (rng.pick(&TEXTS).as_bytes(), rng.below(3));
            put_message(&mut out, 15, |out| {
                put_text(out, 2, message);
                put_uint(out, 3, code);
            });
        }
        put_fixed32(&mut out, 16, *rng.pick(&[0, 1, 0x101, 0x3ff]));
        out
    }
}

fn dropped(rng: &mut Rng) -> u64 {
    *rng.pick(&[0, 0, 0, 0, 1, 7, u64::from(u32::MAX)])
}

fn origin(rng: &mut Rng, number: usize) -> Origin {
    let mut resource = Vec::new();
    if number > 1 {
        let name = Value::Str(format!("nasty-{number}"));
        put_attributes(&mut resource, 1, &[KeyValue::new("service.name", name)]);
    }
    put_attributes(&mut resource, 1, &attributes(rng, 4));
    put_uint(&mut resource, 2, dropped(rng));
    let mut scope = Vec::new();
    put_text(&mut scope, 1, rng.pick(&TEXTS).as_bytes());
    put_text(&mut scope, 2, rng.pick(&["", "1.0.0-rc1"]).as_bytes());
    put_attributes(&mut scope, 3, &attributes(rng, 3));
    put_uint(&mut scope, 4, dropped(rng));
    Origin {
        resource: (number != 0).then_some(resource),
        resource_schema_url: (*rng.pick(&["", "https://example.com/schemas/1"])).to_owned(),
        scope: (number != 1).then_some(scope),
        scope_schema_url: (*rng.pick(&["", "https://example.com/schemas/2"])).to_owned(),
    }
}

/// Up to `count_max` attributes; keys may repeat.
pub fn attributes(rng: &mut Rng, count_max: usize) -> Vec<KeyValue> {
    let count = rng.index(count_max + 1);
    let mut out: Vec<_> = (0..count).map(|_| KeyValue::new(*rng.pick(&KEYS), value(rng, 0))).collect();
    if rng.chance(0.1) {
        out.extend(out.last().cloned());
    }
    out
}

/// A value of any type.
pub fn value(rng: &mut Rng, depth: usize) -> Value {
    let kinds = if depth < 4 { 9 } else { 7 };
    match rng.below(kinds) {
        0 => Value::Empty,
        1 => Value::Bool(rng.chance(0.5)),
        2 => Value::Int(*rng.pick(&[0, 1, -1, 200, i64::MAX, i64::MIN, 1 << 53, (1 << 53) + 1])),
        3 => Value::Double(*rng.pick(&[
            0.0,
            -0.0,
            1.5,
            f64::NAN,
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::MIN_POSITIVE,
            1e308,
        ])),
        4 => Value::Bytes((0..rng.below(20)).map(|_| rng.bits() as u8).collect()),
        5 | 6 => Value::Str((*rng.pick(&TEXTS)).to_owned()),
        7 => Value::Array((0..rng.below(4)).map(|_| value(rng, depth + 1)).collect()),
        _ => Value::Map((0..rng.below(4)).map(|_| KeyValue::new(*rng.pick(&KEYS), value(rng, depth + 1))).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest;

    #[test]
    fn every_request_is_valid_otlp_and_copies_occur() {
        let mut nasty = Nasty::new(3, UnixNano::from_secs(1_800_000_000));
        let mut all = Vec::new();
        for _ in 0..20 {
            let body = nasty.request(100);
            assert_eq!(digest::ids(&body).len(), 100);
            all.extend(digest::all(&digest::decode(&body)));
        }
        let spans = all.len();
        all.sort();
        all.dedup();
        assert!(all.len() < spans, "no exact copies in {spans} spans");
    }
}
