//! What was promised: every acknowledged span, to be compared with what is answered.

use std::collections::BTreeMap;

use spoor_model::TraceId;

use crate::digest::{self, Digest};

/// Spans by trace. A copy of a span that is there already changes nothing: answers hold it once.
#[derive(Debug, Default, Clone)]
pub struct Ledger {
    traces: BTreeMap<TraceId, BTreeMap<Digest, ()>>,
}

/// How an answer differs from what was promised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Spans promised and not answered.
    pub lost_count: usize,
    /// Spans answered that were never sent, or were sent otherwise, or stand twice.
    pub invented_count: usize,
}

impl Ledger {
    /// Notes every span of a request.
    pub fn promise(&mut self, body: &[u8]) {
        self.promise_some(body, |_| true);
    }

    /// Notes the spans of a request that belong to traces of the sample.
    pub fn promise_some(&mut self, body: &[u8], is_sampled: impl Fn(TraceId) -> bool) {
        for (trace, digest) in digest::some(&digest::decode(body), is_sampled) {
            self.traces.entry(trace).or_default().insert(digest, ());
        }
    }

    /// Takes over everything that another ledger holds.
    pub fn merge(&mut self, other: Self) {
        for (trace, spans) in other.traces {
            self.traces.entry(trace).or_default().extend(spans);
        }
    }

    /// The traces noted, ascending.
    pub fn traces(&self) -> impl Iterator<Item = TraceId> + '_ {
        self.traces.keys().copied()
    }

    /// How many distinct spans the trace has.
    pub fn span_count(&self, trace: TraceId) -> usize {
        self.traces.get(&trace).map_or(0, BTreeMap::len)
    }

    /// Compares an answer (`TracesData`, or `None` for "not found") with what was promised for the
    /// trace. Spans that are in `maybe` (sent, but never acknowledged) may be there or not, once.
    pub fn compare(&self, trace: TraceId, answer: Option<&[u8]>, maybe: &Self) -> Result<(), Difference> {
        let answered = answer.map(|body| digest::digests_of(&digest::decode(body), trace)).unwrap_or_default();
        let nothing = BTreeMap::new();
        let promised = self.traces.get(&trace).unwrap_or(&nothing);
        let possible = maybe.traces.get(&trace).unwrap_or(&nothing);
        let lost_count = promised.keys().filter(|digest| answered.binary_search(digest).is_err()).count();
        let twice = answered.windows(2).filter(|pair| pair[0] == pair[1]).count();
        let foreign =
            answered.iter().filter(|digest| !promised.contains_key(*digest) && !possible.contains_key(*digest)).count();
        let difference = Difference { lost_count, invented_count: twice + foreign };
        if difference == (Difference { lost_count: 0, invented_count: 0 }) { Ok(()) } else { Err(difference) }
    }
}
