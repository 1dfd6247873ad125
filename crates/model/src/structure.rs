//! Who is whose parent: the tree of a trace, from the ids that its spans name.
//!
//! A span's parent is the span of its trace with the id that it names. Where an id is shared, as by a
//! client and a server span of Zipkin's, the server span stands below the client span and takes its
//! other children; any other sharing leaves the trace without a tree.

use std::collections::HashMap;

use crate::span::{SpanEntry, Trace};
use crate::{SpanId, TraceId, UnixNano};

/// OTLP's number of the kind of a span that serves a request.
const SERVER: i32 = 2;
/// OTLP's number of the kind of a span that makes a request.
const CLIENT: i32 = 3;

/// Stands for a parent in columns of row numbers: the span names none.
pub const ROOT: u32 = u32::MAX;
/// Stands for a parent in columns of row numbers: the named span is not there, or there is no saying
/// which it is.
pub const MISSING: u32 = u32::MAX - 1;

/// The spans of a trace in the order of its tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// Indexes of the trace's entries, depth-first, siblings by (start, span id). A parent stands
    /// before its children; what hangs on a missing parent, or on a cycle, follows behind the roots'
    /// trees.
    pub order: Vec<usize>,
    /// By place in `order`: the place of the parent, [`ROOT`] or [`MISSING`].
    pub parents: Vec<u32>,
}

impl Tree {
    /// The tree of a trace. Costs a hash map of its spans.
    pub fn of(trace: &Trace) -> Self {
        let parent_of = parents(&trace.entries);
        let mut children: Vec<Vec<usize>> = vec![Vec::new(); trace.entries.len()];
        for (index, parent) in parent_of.iter().enumerate() {
            if let Parent::Entry(parent) = parent {
                children[*parent].push(index);
            }
        }
        let mut tree = Self { order: Vec::new(), parents: Vec::new() };
        let mut is_placed = vec![false; trace.entries.len()];
        let everything = 0..trace.entries.len();
        let roots = everything.clone().filter(|index| parent_of[*index] == Parent::None);
        let orphans = everything.clone().filter(|index| parent_of[*index] == Parent::Missing);
        // What is left after roots and orphans sits on cycles: the first of each is cut loose.
        for top in roots.chain(orphans).chain(everything) {
            let above = if parent_of[top] == Parent::None { ROOT } else { MISSING };
            tree.place(top, above, &children, &mut is_placed);
        }
        tree
    }

    fn place(&mut self, top: usize, above: u32, children: &[Vec<usize>], is_placed: &mut [bool]) {
        let mut stack = vec![(top, above)];
        while let Some((index, parent)) = stack.pop() {
            if std::mem::replace(&mut is_placed[index], true) {
                continue;
            }
            let place = self.order.len() as u32;
            self.order.push(index);
            self.parents.push(parent);
            // Entries are sorted by (start, span id), and so are the children; the last is popped first.
            stack.extend(children[index].iter().rev().map(|child| (*child, place)));
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Parent {
    None,
    Missing,
    Entry(usize),
}

/// Who has an id.
enum Holder {
    One(usize),
    /// A client span and the server span below it.
    Pair {
        client: usize,
        server: usize,
    },
}

fn parents(entries: &[SpanEntry]) -> Vec<Parent> {
    let Some(holders) = holders(entries) else {
        return vec![Parent::Missing; entries.len()];
    };
    let parent_of = |(index, entry): (usize, &SpanEntry)| {
        if let Some(Holder::Pair { client, server }) = holders.get(&entry.span.span_id)
            && index == *server
        {
            return Parent::Entry(*client);
        }
        if entry.span.parent_span_id.is_zero() {
            return Parent::None;
        }
        match holders.get(&entry.span.parent_span_id) {
            None => Parent::Missing,
            Some(Holder::One(holder) | Holder::Pair { server: holder, .. }) if *holder == index => Parent::Missing,
            Some(Holder::One(holder) | Holder::Pair { server: holder, .. }) => Parent::Entry(*holder),
        }
    };
    entries.iter().enumerate().map(parent_of).collect()
}

/// `None` when an id is shared otherwise than by one client and one server span.
fn holders(entries: &[SpanEntry]) -> Option<HashMap<SpanId, Holder>> {
    let mut holders: HashMap<SpanId, Holder> = HashMap::with_capacity(entries.len());
    for (index, entry) in entries.iter().enumerate() {
        let holder = match holders.get(&entry.span.span_id) {
            None => Holder::One(index),
            Some(Holder::One(other)) => match (entries[*other].span.kind, entry.span.kind) {
                (CLIENT, SERVER) => Holder::Pair { client: *other, server: index },
                (SERVER, CLIENT) => Holder::Pair { client: index, server: *other },
                _ => return None,
            },
            Some(Holder::Pair { .. }) => return None,
        };
        holders.insert(entry.span.span_id, holder);
    }
    Some(holders)
}

/// Whether a span can be the root of its trace: it has no parent, neither by id nor by an OpenTracing
/// `child_of` link within the trace.
pub fn is_root(entry: &SpanEntry, trace_id: TraceId) -> bool {
    let span = &entry.span;
    let is_child_by_link = span.links.iter().any(|link| {
        let reference = crate::value::find(&link.attributes, "opentracing.ref_type").and_then(crate::Value::as_str);
        link.trace_id == trace_id && reference == Some("child_of")
    });
    span.parent_span_id.is_zero() && !is_child_by_link
}

/// The trace's root: the last span, by (start, span id), that [`is_root`]. `None` when it has not
/// come (yet).
pub fn root(trace: &Trace) -> Option<usize> {
    trace.entries.iter().rposition(|entry| is_root(entry, trace.id))
}

/// The order of siblings, and of spans within a spanset.
pub fn place(entry: &SpanEntry) -> (UnixNano, SpanId) {
    (entry.span.start, entry.span.span_id)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::Span;

    /// Spans as (id, parent, kind), starting one after the other; the tree as (id, parent) in order.
    fn check(spans: &[(u8, u8, i32)], expect: &[(u8, &str)]) {
        let entry = |(at, (id, parent, kind)): (usize, &(u8, u8, i32))| {
            let span = Span {
                trace_id: TraceId([1; 16]),
                span_id: SpanId([*id; 8]),
                parent_span_id: SpanId([*parent; 8]),
                kind: *kind,
                start: UnixNano(at as u64),
                ..Span::default()
            };
            SpanEntry { origin: Arc::default(), span }
        };
        let entries = spans.iter().enumerate().map(entry).collect();
        let trace = Trace::assemble(TraceId([1; 16]), entries).expect("has spans");
        let tree = Tree::of(&trace);
        let id = |place: usize| trace.entries[tree.order[place]].span.span_id.0[0];
        let parent = |place: usize| match tree.parents[place] {
            ROOT => "root".to_owned(),
            MISSING => "missing".to_owned(),
            parent => id(parent as usize).to_string(),
        };
        let got: Vec<(u8, String)> = (0..tree.order.len()).map(|place| (id(place), parent(place))).collect();
        let expect: Vec<(u8, String)> = expect.iter().map(|(id, parent)| (*id, (*parent).to_owned())).collect();
        assert_eq!(got, expect);
    }

    #[test]
    fn children_follow_their_parent() {
        check(&[(1, 0, 0), (2, 1, 0), (3, 1, 0), (4, 2, 0)], &[(1, "root"), (2, "1"), (4, "2"), (3, "1")]);
    }

    #[test]
    fn what_hangs_on_nothing_comes_last() {
        check(&[(5, 9, 0), (6, 5, 0), (1, 0, 0)], &[(1, "root"), (5, "missing"), (6, "5")]);
        check(&[(1, 2, 0), (2, 1, 0), (3, 2, 0)], &[(1, "missing"), (2, "1"), (3, "2")]);
        check(&[(1, 1, 0)], &[(1, "missing")]);
    }

    #[test]
    fn a_server_span_that_shares_its_id_stands_below_the_client() {
        check(&[(1, 0, 3), (1, 0, 2), (2, 1, 0)], &[(1, "root"), (1, "1"), (2, "1")]);
    }

    #[test]
    fn any_other_sharing_leaves_no_tree() {
        check(&[(1, 0, 0), (1, 0, 1), (2, 1, 0)], &[(1, "missing"), (1, "missing"), (2, "missing")]);
    }
}
