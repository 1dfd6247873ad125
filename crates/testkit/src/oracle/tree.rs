//! Who is whose parent in a trace, and the numbers of a depth-first walk.

use spoor_model::Trace;

/// A span that no walk from a root reaches has the numbers 0.
#[derive(Debug, Clone)]
pub(super) struct Tree {
    /// By row. Also below a missing parent; on a cycle, too.
    parents: Vec<Option<usize>>,
    /// By row: `(left, right)`.
    numbers: Vec<(i64, i64)>,
}

const SERVER: i32 = 2;
const CLIENT: i32 = 3;

impl Tree {
    pub(super) fn of(trace: &Trace) -> Self {
        let count = trace.entries.len();
        let mut tree = Self { parents: vec![None; count], numbers: vec![(0, 0); count] };
        let Some(parents) = parents(trace) else {
            return tree;
        };
        tree.parents = parents;
        let mut next = 1;
        for row in 0..count {
            if tree.parents[row].is_none() && trace.entries[row].span.parent_span_id.is_zero() {
                tree.number(row, &mut next);
            }
        }
        tree
    }

    fn number(&mut self, row: usize, next: &mut i64) {
        self.numbers[row].0 = *next;
        *next += 1;
        for child in 0..self.parents.len() {
            if self.parents[child] == Some(row) {
                self.number(child, next);
            }
        }
        self.numbers[row].1 = *next;
        *next += 1;
    }

    /// Whether a root is above the span, or it is one.
    pub(super) fn is_connected(&self, row: usize) -> bool {
        self.left(row) > 0
    }

    /// The parent of a connected span.
    pub(super) fn parent(&self, row: usize) -> Option<usize> {
        self.parents[row].filter(|_| self.is_connected(row))
    }

    /// Whether the one is somewhere above the other.
    pub(super) fn is_ancestor(&self, above: usize, below: usize) -> bool {
        let mut row = below;
        while let Some(parent) = self.parent(row) {
            if parent == above {
                return true;
            }
            row = parent;
        }
        false
    }

    pub(super) fn left(&self, row: usize) -> i64 {
        self.numbers[row].0
    }

    pub(super) fn right(&self, row: usize) -> i64 {
        self.numbers[row].1
    }

    /// The parent's left number; -1 for roots.
    pub(super) fn parent_left(&self, row: usize) -> i64 {
        match self.parent(row) {
            Some(parent) => self.left(parent),
            None if self.is_connected(row) => -1,
            None => 0,
        }
    }

    pub(super) fn child_count(&self, row: usize) -> i64 {
        self.parents.iter().filter(|parent| **parent == Some(row)).count() as i64
    }
}

/// By row. `None` when spans share an id and are not client and server of one call.
fn parents(trace: &Trace) -> Option<Vec<Option<usize>>> {
    let spans: Vec<_> = trace.entries.iter().map(|entry| &entry.span).collect();
    let mut parents = Vec::new();
    for (row, span) in spans.iter().enumerate() {
        let twins: Vec<usize> = (0..spans.len()).filter(|i| *i != row && spans[*i].span_id == span.span_id).collect();
        let client = match twins[..] {
            [] => None,
            [twin] if (span.kind, spans[twin].kind) == (SERVER, CLIENT) => Some(twin),
            [twin] if (span.kind, spans[twin].kind) == (CLIENT, SERVER) => None,
            _ => return None,
        };
        let mut named: Vec<usize> = (0..spans.len()).filter(|i| spans[*i].span_id == span.parent_span_id).collect();
        if named.len() > 1 {
            named.retain(|i| spans[*i].kind == SERVER);
        }
        parents.push(client.or(named.first().copied()));
    }
    Some(parents)
}
