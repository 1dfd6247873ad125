//! A corpus that looks like production: the traces of a web shop as OTLP export requests.
//!
//! Twelve services on 48 pods, about 50 span names, 17 spans per trace, 20 resource and 6 to 13
//! span attributes, about 380 bytes per span on the wire. Spans leave their process when they end
//! and a collector batches them as they come, so a trace may be split between two requests, as it
//! is in life. The same settings give the same bytes on every machine.

mod pods;
mod shop;
mod trace;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use spoor_model::wire::put_bytes;
use spoor_model::{TraceId, UnixNano};

use self::pods::Pod;
use self::trace::{Recorded, Recorder};
use crate::rng::Rng;

/// Schema URL of every resource and scope.
const SCHEMA_URL: &[u8] = b"https://opentelemetry.io/schemas/1.37.0";
/// Time between the starts of two traces, on average: 120 visits per second.
const BETWEEN_VISITS_NS: f64 = 1e9 / 120.0;

/// What corpus.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Decides everything that is random.
    pub seed: u64,
    /// Traces, of about 17 spans each.
    pub trace_count: u64,
    /// Spans of a request (the last may have fewer).
    pub request_spans: usize,
    /// Start of the first trace.
    pub start: UnixNano,
}

/// One `ExportTraceServiceRequest`.
#[derive(Debug, Clone)]
pub struct Request {
    /// Encoded as protobuf.
    pub body: Vec<u8>,
    /// Spans in it.
    pub span_count: u32,
}

/// The requests of a corpus, in the order in which a collector would send them.
pub struct Corpus {
    settings: Settings,
    rng: Rng,
    pods: Vec<Pod>,
    scopes: [Vec<u8>; 2],
    trace_index: u64,
    now: u64,
    pending: BinaryHeap<Reverse<Recorded>>,
}

impl Corpus {
    /// The corpus of those settings.
    pub fn new(settings: Settings) -> Self {
        let mut rng = Rng::seeded(settings.seed);
        let pods = pods::pods(&mut rng);
        let (scopes, now) = (pods::scopes(), settings.start.0);
        Self { settings, rng, pods, scopes, trace_index: 0, now, pending: BinaryHeap::new() }
    }

    /// Lets visitors come until `request_spans` spans have ended before the next one comes.
    fn fill(&mut self, batch: &mut Vec<Recorded>) {
        while batch.len() < self.settings.request_spans {
            let is_last_visit = self.trace_index == self.settings.trace_count;
            match self.pending.peek() {
                Some(Reverse(earliest)) if is_last_visit || earliest.end <= self.now => {
                    batch.extend(self.pending.pop().map(|Reverse(span)| span));
                }
                _ if is_last_visit => return,
                _ => self.visit(),
            }
        }
    }

    fn visit(&mut self) {
        let trace_id = trace_id(self.settings.seed, self.trace_index);
        let mut recorder = Recorder::new(&self.pods, &mut self.rng);
        recorder.visit(trace_id, self.now);
        self.pending.extend(recorder.out.into_iter().map(Reverse));
        self.trace_index += 1;
        self.now += self.rng.exponential(BETWEEN_VISITS_NS) as u64;
    }

    fn encode(&self, batch: &[Recorded]) -> Vec<u8> {
        let mut body = Vec::with_capacity(batch.len() * 400);
        let mut resource_spans = Vec::new();
        for of_pod in batch.chunk_by(|left, right| left.pod == right.pod) {
            resource_spans.clear();
            put_bytes(&mut resource_spans, 1, &self.pods[of_pod[0].pod].resource);
            for of_scope in of_pod.chunk_by(|left, right| left.scope == right.scope) {
                let mut scope_spans = Vec::with_capacity(of_scope.len() * 380);
                put_bytes(&mut scope_spans, 1, &self.scopes[of_scope[0].scope]);
                of_scope.iter().for_each(|span| put_bytes(&mut scope_spans, 2, &span.encoded));
                put_bytes(&mut scope_spans, 3, SCHEMA_URL);
                put_bytes(&mut resource_spans, 2, &scope_spans);
            }
            put_bytes(&mut resource_spans, 3, SCHEMA_URL);
            put_bytes(&mut body, 1, &resource_spans);
        }
        body
    }
}

impl Iterator for Corpus {
    type Item = Request;

    fn next(&mut self) -> Option<Request> {
        let mut batch = Vec::with_capacity(self.settings.request_spans);
        self.fill(&mut batch);
        batch.sort_by_key(|span| (span.pod, span.scope));
        (!batch.is_empty()).then(|| Request { body: self.encode(&batch), span_count: batch.len() as u32 })
    }
}

/// The id of a corpus's trace, counted from 0.
pub fn trace_id(seed: u64, index: u64) -> TraceId {
    TraceId(Rng::seeded(seed.rotate_left(32) ^ index.wrapping_mul(0x2545_f491_4f6c_dd1d)).id())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest;
    use std::collections::{BTreeMap, BTreeSet};

    fn settings(trace_count: u64) -> Settings {
        Settings { seed: 1, trace_count, request_spans: 1000, start: UnixNano::from_secs(1_800_000_000) }
    }

    #[test]
    fn the_corpus_has_the_proportions_that_it_promises() {
        let requests: Vec<_> = Corpus::new(settings(3000)).collect();
        let bytes: usize = requests.iter().map(|request| request.body.len()).sum();
        let mut names = BTreeSet::new();
        let (mut spans, mut errors, mut with_events, mut attributes) = (0usize, 0, 0, 0);
        for request in &requests {
            let decoded = digest::decode(&request.body);
            let all = decoded.resource_spans.iter().flat_map(|one| &one.scope_spans).flat_map(|one| &one.spans);
            for span in all {
                spans += 1;
                names.insert(span.name.clone());
                errors += usize::from(span.status.as_ref().is_some_and(|status| status.code == 2));
                with_events += usize::from(!span.events.is_empty());
                attributes += span.attributes.len();
            }
        }
        let per_span = |count: usize| count as f64 / spans as f64;
        assert_eq!(spans, requests.iter().map(|request| request.span_count as usize).sum::<usize>());
        let facts = BTreeMap::from([
            ("bytes per span", (per_span(bytes), 360.0, 420.0)),
            ("spans per trace", (spans as f64 / 3000.0, 15.5, 18.5)),
            ("attributes per span", (per_span(attributes), 6.5, 9.5)),
            ("share of errors", (per_span(errors), 0.005, 0.02)),
            ("share with events", (per_span(with_events), 0.05, 0.075)),
            ("span names", (names.len() as f64, 40.0, 60.0)),
        ]);
        let wrong: Vec<_> = facts.iter().filter(|(_, (value, low, high))| value < low || value > high).collect();
        assert!(wrong.is_empty(), "out of range: {wrong:?} of {facts:?}");
    }

    #[test]
    fn the_same_seed_gives_the_same_bytes_and_each_trace_has_its_id() {
        let bodies = || Corpus::new(settings(40)).map(|request| request.body).collect::<Vec<_>>();
        assert_eq!(bodies(), bodies());
        let ids: BTreeSet<_> = bodies().iter().flat_map(|body| digest::ids(body)).map(|(trace, _)| trace).collect();
        assert_eq!(ids, (0..40).map(|index| trace_id(1, index)).collect());
    }
}
