//! What each of several processes must show, may show, and must not.
//!
//! ```text
//!   sending   acknowledged?   where it is: a head, a block, one of both   deleted? who knows?
//!      |
//!      v
//!   must      what was acknowledged here, and what was shown here before
//!   may       what was sent anywhere and is not known here to be deleted
//! ```

use std::collections::{BTreeMap, BTreeSet};

use spoor_model::{SpanEntry, TraceId, UnixNano};

use crate::traffic::canonical;

/// A process by its number.
pub(crate) type Number = usize;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Head,
    /// In the bucket.
    Block,
    /// A cut or a deletion failed on the way, or is going on.
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Life {
    Alive,
    /// Deleting it was tried.
    Unknown,
    /// Deleted, and these have heard of it.
    Deleted(BTreeSet<Number>),
}

/// A span that was sent, once.
#[derive(Debug)]
struct Sending {
    at: Number,
    is_acknowledged: bool,
    place: Place,
    life: Life,
}

#[derive(Debug)]
struct Known {
    end: UnixNano,
    text: String,
    sendings: Vec<usize>,
}

/// A deletion that is being tried.
#[derive(Debug)]
pub(crate) struct Deleting {
    at: Number,
    trace: TraceId,
    /// Sendings that it must reach.
    reached: Vec<usize>,
}

/// Everything that was sent, and what became of it.
#[derive(Debug)]
pub(crate) struct Model {
    spans: Vec<Known>,
    by_text: BTreeMap<String, usize>,
    of_trace: BTreeMap<TraceId, Vec<usize>>,
    sendings: Vec<Sending>,
    /// Spans that a process has shown, by its number.
    seen: Vec<BTreeSet<usize>>,
}

/// What an answer has to do with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Completeness {
    /// Something was left out, and it was told.
    Partial,
    /// Everything acknowledged here or seen here before is in it.
    Own,
    /// Everything that is in blocks is in it, too.
    All,
}

impl Model {
    pub(crate) fn new(process_count: usize) -> Self {
        Self {
            spans: Vec::new(),
            by_text: BTreeMap::new(),
            of_trace: BTreeMap::new(),
            sendings: Vec::new(),
            seen: vec![BTreeSet::new(); process_count],
        }
    }

    pub(crate) fn traces(&self) -> Vec<TraceId> {
        self.of_trace.keys().copied().collect()
    }

    /// Remembers what was sent. It is in the head when it was acknowledged.
    pub(crate) fn sent(&mut self, at: Number, entries: &[SpanEntry], is_acknowledged: bool) {
        for entry in entries {
            let text = canonical(entry);
            let span = *self.by_text.entry(text.clone()).or_insert(self.spans.len());
            if span == self.spans.len() {
                self.spans.push(Known { end: entry.span.end, text, sendings: Vec::new() });
                self.of_trace.entry(entry.span.trace_id).or_default().push(span);
            }
            self.spans[span].sendings.push(self.sendings.len());
            self.sendings.push(Sending { at, is_acknowledged, place: Place::Head, life: Life::Alive });
        }
    }

    /// What comes out of a head from now on may be in blocks or not. Returns what [`Self::is_cut`] needs.
    pub(crate) fn is_being_cut(&mut self, at: Number) -> usize {
        for sending in self.sendings.iter_mut().filter(|sending| sending.at == at && sending.place == Place::Head) {
            sending.place = Place::Unknown;
        }
        self.sendings.len()
    }

    /// Everything that a process had is in blocks.
    pub(crate) fn is_cut(&mut self, at: Number, sent_before: usize) {
        for sending in self.sendings[..sent_before].iter_mut().filter(|sending| sending.at == at) {
            sending.place = Place::Block;
        }
    }

    fn sendings_of(&self, trace: TraceId) -> Vec<usize> {
        let spans = self.of_trace.get(&trace).into_iter().flatten();
        spans.flat_map(|span| self.spans[*span].sendings.iter().copied()).collect()
    }

    /// A deletion begins: what it may reach may be gone. `lists_all`: the process sees what others have put.
    pub(crate) fn is_being_deleted(&mut self, at: Number, trace: TraceId, lists_all: bool) -> Deleting {
        let mut reached = Vec::new();
        for number in self.sendings_of(trace) {
            let sending = &mut self.sendings[number];
            let is_in_block = sending.place == Place::Block && lists_all;
            if sending.is_acknowledged && (sending.at == at || is_in_block) && sending.life == Life::Alive {
                reached.push(number);
            }
        }
        self.doubt(at, trace);
        Deleting { at, trace, reached }
    }

    /// What a deletion at `at` may have reached may be gone.
    fn doubt(&mut self, at: Number, trace: TraceId) {
        for number in self.sendings_of(trace) {
            let sending = &mut self.sendings[number];
            let is_out_of_reach = sending.at != at && sending.place == Place::Head;
            if sending.life == Life::Alive && !is_out_of_reach {
                sending.life = Life::Unknown;
            }
        }
        for span in self.of_trace.get(&trace).into_iter().flatten() {
            self.seen.iter_mut().for_each(|seen| seen.retain(|seen| seen != span));
        }
    }

    /// A deletion is over.
    pub(crate) fn is_deleted(&mut self, deleting: Deleting, is_done: bool) {
        let Deleting { at, trace, reached } = deleting;
        self.doubt(at, trace);
        if is_done {
            for number in reached {
                self.sendings[number].life = Life::Deleted(BTreeSet::from([at]));
            }
        }
    }

    /// The deletions that a process hears of when it looks now.
    pub(crate) fn deletions(&self) -> Vec<usize> {
        let is_deleted = |number: &usize| matches!(self.sendings[*number].life, Life::Deleted(_));
        (0..self.sendings.len()).filter(is_deleted).collect()
    }

    /// A process has heard of these.
    pub(crate) fn heard(&mut self, who: Number, deletions: &[usize]) {
        for number in deletions {
            if let Life::Deleted(knowing) = &mut self.sendings[*number].life {
                knowing.insert(who);
            }
        }
    }

    fn of(&self, span: usize) -> impl Iterator<Item = &Sending> {
        self.spans[span].sendings.iter().map(|number| &self.sendings[*number])
    }

    fn described(&self, span: usize) -> String {
        let sendings: Vec<&Sending> = self.of(span).collect();
        format!("{sendings:?} of {}", self.spans[span].text)
    }

    /// Compares what a process shows with what it must and may show, and remembers what it showed.
    pub(crate) fn check(
        &mut self,
        who: Number,
        shown: &[SpanEntry],
        horizon: UnixNano,
        completeness: Completeness,
    ) -> Result<(), String> {
        let mut found = BTreeSet::new();
        for entry in shown {
            let text = canonical(entry);
            let Some(span) = self.by_text.get(&text).copied() else { return Err(format!("was never sent: {text}")) };
            // With a block left out, a trace may begin elsewhere, and stand on two pages.
            if !found.insert(span) && completeness != Completeness::Partial {
                return Err(format!("comes twice: {}", self.described(span)));
            }
            let hides = |sending: &Sending| matches!(&sending.life, Life::Deleted(knowing) if knowing.contains(&who));
            if self.of(span).all(hides) {
                return Err(format!("was deleted: {}", self.described(span)));
            }
        }
        for span in (0..self.spans.len()).filter(|span| !found.contains(span)) {
            if completeness == Completeness::Partial || self.spans[span].end < horizon {
                continue;
            }
            let is_own = |sending: &Sending| {
                let is_here = sending.at == who || completeness == Completeness::All && sending.place == Place::Block;
                sending.is_acknowledged && sending.life == Life::Alive && is_here
            };
            if self.of(span).any(is_own) {
                return Err(format!("is missing: {}", self.described(span)));
            }
            if self.seen[who].contains(&span) {
                return Err(format!("is missing, and was there before: {}", self.described(span)));
            }
        }
        for span in found {
            let is_certain = |sending: &Sending| match &sending.life {
                Life::Alive => true,
                Life::Unknown => false,
                Life::Deleted(knowing) => knowing.contains(&who),
            };
            if self.of(span).all(is_certain) {
                self.seen[who].insert(span);
            }
        }
        Ok(())
    }
}
