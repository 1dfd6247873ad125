//! A trace as an indented tree.
//!
//! ```text
//! trace 4bf9..., 3 spans of 2 services, 1 failed, 120ms from 2026-01-02T15:04:05.000Z
//!     shop: POST /pay  120ms  server
//!   * |- db: SELECT  40ms  client  +10ms  ERROR declined
//!     `- shop: log  1ms  +60ms
//! ```
//!
//! Times are relative to the trace's start; an asterisk marks what a search matched.

use std::collections::BTreeSet;
use std::fmt::Write;

use spoor_model::span::STATUS_ERROR;
use spoor_model::structure::{ROOT, Tree};
use spoor_model::{SpanEntry, SpanId, Trace};

use super::table::{duration_text, time_text};

/// Draws a trace; a line per span.
pub(super) fn shown(trace: &Trace, marked: &[SpanId]) -> String {
    let tree = Tree::of(trace);
    let mut text = headline(trace);
    let children = children(&tree);
    let tops: Vec<usize> =
        (0..tree.order.len()).filter(|place| tree.parents[*place] as usize >= tree.order.len()).collect();
    let drawing = Drawing { trace, tree: &tree, children: &children, marked };
    // A stack of (place, what stands left of its branch, whether it is the last of its siblings).
    let mut stack: Vec<(usize, String, Branch)> = Vec::new();
    stack.extend(tops.into_iter().rev().map(|place| (place, String::new(), Branch::Top)));
    while let Some((place, left, branch)) = stack.pop() {
        drawing.line(&mut text, place, &left, branch);
        let below = match branch {
            Branch::Top => left,
            Branch::Middle => left + "|  ",
            Branch::Last => left + "   ",
        };
        let last = children[place].len().saturating_sub(1);
        stack.extend(
            children[place]
                .iter()
                .enumerate()
                .rev()
                .map(|(at, child)| (*child, below.clone(), if at == last { Branch::Last } else { Branch::Middle })),
        );
    }
    text
}

#[derive(Debug, Clone, Copy)]
enum Branch {
    Top,
    Middle,
    Last,
}

struct Drawing<'a> {
    trace: &'a Trace,
    tree: &'a Tree,
    children: &'a [Vec<usize>],
    marked: &'a [SpanId],
}

impl Drawing<'_> {
    fn line(&self, text: &mut String, place: usize, left: &str, branch: Branch) {
        let entry = &self.trace.entries[self.tree.order[place]];
        let span = &entry.span;
        let mark = if self.marked.contains(&span.span_id) { "*" } else { " " };
        let twig = match branch {
            Branch::Top => "",
            Branch::Middle => "|- ",
            Branch::Last => "`- ",
        };
        let after = span.start.since(self.trace.range().start);
        write!(text, "  {mark} {left}{twig}{}: {}", service(entry), span.name).expect("a String takes all");
        write!(text, "  {}", duration_text(span.end.since(span.start))).expect("a String takes all");
        if let Some(kind) = kind_text(span.kind) {
            write!(text, "  {kind}").expect("a String takes all");
        }
        if !after.is_zero() {
            write!(text, "  +{}", duration_text(after)).expect("a String takes all");
        }
        if span.status.code == STATUS_ERROR {
            write!(text, "  ERROR {}", span.status.message).expect("a String takes all");
            text.truncate(text.trim_end().len());
        }
        let is_orphan = matches!(branch, Branch::Top) && self.tree.parents[place] != ROOT;
        if is_orphan {
            write!(text, "  (parent {} is not there)", span.parent_span_id).expect("a String takes all");
        }
        debug_assert!(self.children.len() == self.tree.order.len());
        text.push('\n');
    }
}

fn headline(trace: &Trace) -> String {
    let services: BTreeSet<&str> = trace.entries.iter().map(service).collect();
    let failed = trace.entries.iter().filter(|entry| entry.span.status.code == STATUS_ERROR).count();
    let count = |count: usize, one: &str| if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") };
    let failed = if failed == 0 { String::new() } else { format!(", {failed} failed") };
    let range = trace.range();
    format!(
        "trace {}, {} of {}{failed}, {} from {}\n",
        trace.id,
        count(trace.entries.len(), "span"),
        count(services.len(), "service"),
        duration_text(range.end.since(range.start)),
        time_text(range.start),
    )
}

fn children(tree: &Tree) -> Vec<Vec<usize>> {
    let mut children = vec![Vec::new(); tree.order.len()];
    for (place, parent) in tree.parents.iter().enumerate() {
        if let Some(siblings) = children.get_mut(*parent as usize) {
            siblings.push(place);
        }
    }
    children
}

fn service(entry: &SpanEntry) -> &str {
    entry.origin.service_name().unwrap_or("(no service)")
}

fn kind_text(kind: i32) -> Option<&'static str> {
    ["internal", "server", "client", "producer", "consumer"].get(usize::try_from(kind).ok()?.checked_sub(1)?).copied()
}
