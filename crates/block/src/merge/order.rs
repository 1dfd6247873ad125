//! In which order the traces of several blocks stand in one: by (start, id), fragments of a trace together.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use spoor_model::{TimeRange, TraceId, UnixNano};

use super::input::Input;

/// A part of a trace: which input has it, and its number there.
pub(super) type Fragment = (u32, u32);

/// One trace of the new block.
#[derive(Debug)]
pub(super) struct JoinedTrace {
    pub(super) id: TraceId,
    /// Of all fragments.
    pub(super) range: TimeRange,
    pub(super) span_count: usize,
    /// The one that starts first stands first.
    pub(super) fragments: Vec<Fragment>,
}

/// The traces that more than one input has. 12 bytes per trace while they are looked for.
pub(super) struct Joins {
    groups: Vec<Vec<Fragment>>,
    /// Per input: (trace, group), by trace.
    of_input: Vec<Vec<(u32, u32)>>,
}

impl Joins {
    pub(super) fn find(inputs: &[Input]) -> Self {
        let count = inputs.iter().map(|input| input.ids.len()).sum();
        let mut by_fingerprint: Vec<(u32, Fragment)> = Vec::with_capacity(count);
        for (number, input) in inputs.iter().enumerate() {
            let fragments = input.ids.iter().zip(0..).map(|(id, trace)| (id.fingerprint(), (number as u32, trace)));
            by_fingerprint.extend(fragments);
        }
        by_fingerprint.sort_unstable();
        let mut joins = Self { groups: Vec::new(), of_input: vec![Vec::new(); inputs.len()] };
        for alike in by_fingerprint.chunk_by(|a, b| a.0 == b.0).filter(|alike| alike.len() > 1) {
            let id_of = |(input, trace): Fragment| inputs[input as usize].ids[trace as usize];
            let mut fragments: Vec<Fragment> = alike.iter().map(|(_, fragment)| *fragment).collect();
            fragments.sort_by_key(|fragment| id_of(*fragment));
            let same = fragments.chunk_by(|a, b| id_of(*a) == id_of(*b));
            same.filter(|same| same.len() > 1).for_each(|same| joins.add(same));
        }
        joins.of_input.iter_mut().for_each(|traces| traces.sort_unstable());
        joins
    }

    fn add(&mut self, fragments: &[Fragment]) {
        let group = self.groups.len() as u32;
        for (input, trace) in fragments {
            self.of_input[*input as usize].push((*trace, group));
        }
        self.groups.push(fragments.to_vec());
    }

    fn group_of(&self, (input, trace): Fragment) -> Option<u32> {
        let traces = &self.of_input[input as usize];
        traces.binary_search_by_key(&trace, |(trace, _)| *trace).ok().map(|place| traces[place].1)
    }
}

/// Goes through the traces of all inputs in the order of the new block.
pub(super) struct Traces<'a> {
    joins: &'a Joins,
    is_done: Vec<bool>,
    heads: BinaryHeap<Reverse<(UnixNano, TraceId, Fragment)>>,
    put_back: Option<JoinedTrace>,
}

impl<'a> Traces<'a> {
    pub(super) fn new(inputs: &[Input], joins: &'a Joins) -> Self {
        let mut traces =
            Self { joins, is_done: vec![false; joins.groups.len()], heads: BinaryHeap::new(), put_back: None };
        (0..inputs.len() as u32).for_each(|input| traces.push(inputs, (input, 0)));
        traces
    }

    fn push(&mut self, inputs: &[Input], (input, trace): Fragment) {
        let of_input = &inputs[input as usize];
        if let Some(id) = of_input.ids.get(trace as usize) {
            let start = of_input.traces.range(trace as usize).start;
            self.heads.push(Reverse((start, *id, (input, trace))));
        }
    }

    /// Has a trace be the next one again.
    pub(super) fn put_back(&mut self, trace: JoinedTrace) {
        self.put_back = Some(trace);
    }

    /// The next trace; `None` after the last.
    pub(super) fn next(&mut self, inputs: &[Input]) -> Option<JoinedTrace> {
        if let Some(trace) = self.put_back.take() {
            return Some(trace);
        }
        while let Some(Reverse((_, id, first))) = self.heads.pop() {
            self.push(inputs, (first.0, first.1 + 1));
            let mut fragments = vec![first];
            if let Some(group) = self.joins.group_of(first) {
                // A fragment that started later went with the first.
                if std::mem::replace(&mut self.is_done[group as usize], true) {
                    continue;
                }
                let others = self.joins.groups[group as usize].iter().filter(|fragment| **fragment != first);
                fragments.extend(others);
            }
            let of = |(input, trace): &Fragment| (&*inputs[*input as usize].traces, *trace as usize);
            let ranges = fragments.iter().map(of).map(|(traces, trace)| traces.range(trace));
            let range = ranges.reduce(|a, b| a.union(&b)).expect("there is a fragment");
            let span_count = fragments.iter().map(of).map(|(traces, trace)| traces.rows(trace).len()).sum();
            return Some(JoinedTrace { id, range, span_count, fragments });
        }
        None
    }
}
