//! Structural operators: one or two passes over the parents of a batch, whatever its traces look like.
//!
//! Rows of a trace stand depth-first, so a forward pass sees every ancestor before its descendants and a
//! backward pass the other way round. Sets are bytes here, one per row: a pass reads and writes single
//! rows, and neighbouring bits in one word would make each step wait for the one before.

use spoor_model::bits::Bits;
use spoor_model::structure::{MISSING, ROOT};

use crate::ast::{Quantifier, Relation};

/// The tree of some traces: the rows of a batch, or of one trace of it.
pub(super) struct Forest<'a> {
    /// By row: the parent's row, [`ROOT`] or [`MISSING`].
    pub(super) parents: &'a [u32],
    /// First row of each trace and, at the end, the number of rows.
    pub(super) trace_rows: &'a [u32],
    /// Rows that a root is above or that are roots; `None` when all are. No relation holds for the others.
    pub(super) connected: Option<&'a Bits>,
}

impl Forest<'_> {
    /// The rows that an operator between two sets of rows yields.
    pub(super) fn related(&self, relation: Relation, quantifier: Quantifier, left: &Bits, right: &Bits) -> Bits {
        match quantifier {
            Quantifier::Plain => self.plain(relation, left, right),
            Quantifier::Negated => {
                let mut rows = right.clone();
                rows.subtract(&self.plain(relation, left, right));
                rows
            }
            Quantifier::Union => {
                let mut rows = self.plain(relation, left, right);
                rows.union(&self.plain(inverse(relation), right, left));
                rows
            }
        }
    }

    /// The rows of `right` that are so related to a row of `left`.
    fn plain(&self, relation: Relation, left: &Bits, right: &Bits) -> Bits {
        let mut rows = match relation {
            Relation::Child => self.children(left),
            Relation::Parent => self.parents(left),
            Relation::Descendant => self.descendants(left),
            Relation::Ancestor => self.ancestors(left),
            Relation::Sibling => self.siblings(left),
        };
        rows.intersect(right);
        self.connected.into_iter().for_each(|connected| rows.intersect(connected));
        rows
    }

    fn children(&self, of: &Bits) -> Bits {
        let of = of.to_bytes();
        let is_child: Vec<u8> = self.parents.iter().map(|parent| at(&of, *parent)).collect();
        Bits::from_bytes(&is_child)
    }

    fn descendants(&self, of: &Bits) -> Bits {
        let of = of.to_bytes();
        let mut is_below = vec![0u8; of.len()];
        for (row, parent) in self.parents.iter().enumerate() {
            is_below[row] = at(&of, *parent) | at(&is_below, *parent);
        }
        Bits::from_bytes(&is_below)
    }

    fn parents(&self, of: &Bits) -> Bits {
        let mut is_parent = vec![0u8; self.parents.len()];
        for row in of.iter() {
            if let Some(is_parent) = is_parent.get_mut(self.parents[row] as usize) {
                *is_parent = 1;
            }
        }
        Bits::from_bytes(&is_parent)
    }

    fn ancestors(&self, of: &Bits) -> Bits {
        let of = of.to_bytes();
        let mut is_above = vec![0u8; of.len()];
        for (row, parent) in self.parents.iter().enumerate().rev() {
            let passes_on = of[row] | is_above[row];
            if let Some(is_above) = is_above.get_mut(*parent as usize) {
                *is_above |= passes_on;
            }
        }
        Bits::from_bytes(&is_above)
    }

    /// Roots of a trace are siblings; of a row that is in the set itself, another must be.
    fn siblings(&self, of: &Bits) -> Bits {
        let of = of.to_bytes();
        let mut counts = vec![0u32; of.len()];
        let mut is_sibling = vec![0u8; of.len()];
        for trace in self.trace_rows.windows(2) {
            let rows = trace[0] as usize..trace[1] as usize;
            let mut root_count = 0;
            for row in rows.clone() {
                match counts.get_mut(self.parents[row] as usize) {
                    Some(count) => *count += u32::from(of[row]),
                    None if self.parents[row] == ROOT => root_count += u32::from(of[row]),
                    None => {}
                }
            }
            for row in rows {
                let count = match self.parents[row] {
                    ROOT => root_count,
                    MISSING => 0,
                    parent => counts.get(parent as usize).copied().unwrap_or(0),
                };
                is_sibling[row] = u8::from(count > u32::from(of[row]));
            }
        }
        Bits::from_bytes(&is_sibling)
    }
}

/// What stands at a row; 0 for what is no row.
fn at(bytes: &[u8], row: u32) -> u8 {
    bytes.get(row as usize).copied().unwrap_or(0)
}

/// The relation of `b` to `a` when `a` has this one to `b`.
fn inverse(relation: Relation) -> Relation {
    match relation {
        Relation::Child => Relation::Parent,
        Relation::Parent => Relation::Child,
        Relation::Descendant => Relation::Ancestor,
        Relation::Ancestor => Relation::Descendant,
        Relation::Sibling => Relation::Sibling,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ast::Quantifier::{Negated, Plain, Union};
    use crate::ast::Relation::{Ancestor, Child, Descendant, Parent, Sibling};

    /// Whether a row of the right side is so related to one of the left, told by climbing from row to row.
    fn holds(forest: &Forest<'_>, relation: Relation, left: usize, right: usize) -> bool {
        let up = |row: usize| Some(forest.parents[row]).filter(|parent| *parent < MISSING).map(|row| row as usize);
        let line = |row: usize| std::iter::successors(Some(row), |row| up(*row));
        let top = |row: usize| forest.parents[line(row).last().expect("itself")];
        let trace = |row: usize| forest.trace_rows.partition_point(|first| *first as usize <= row);
        if trace(left) != trace(right) || top(left) != ROOT || top(right) != ROOT {
            return false;
        }
        match relation {
            Child => up(right) == Some(left),
            Parent => up(left) == Some(right),
            Descendant => line(right).skip(1).any(|row| row == left),
            Ancestor => line(left).skip(1).any(|row| row == right),
            Sibling => left != right && up(left) == up(right),
        }
    }

    /// Traces as lists of seeds: each row's parent is a row before it, nobody, or missing.
    fn rows(traces: &[Vec<u8>]) -> (Vec<u32>, Vec<u32>) {
        let (mut parents, mut trace_rows) = (Vec::new(), vec![0]);
        for seeds in traces {
            let first = parents.len() as u32;
            for (place, seed) in seeds.iter().enumerate() {
                let choices = place as u32 + 2;
                parents.push(match u32::from(*seed) % choices {
                    0 => ROOT,
                    1 if *seed > 200 => MISSING,
                    1 => ROOT,
                    choice => first + choice - 2,
                });
            }
            trace_rows.push(parents.len() as u32);
        }
        (parents, trace_rows)
    }

    proptest! {
        #[test]
        fn passes_find_what_climbing_finds(
            traces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..12), 0..6),
            left in any::<u64>(),
            right in any::<u64>(),
        ) {
            let (parents, trace_rows) = rows(&traces);
            let set = |seed: u64| Bits::from_fn(parents.len(), |row| seed.rotate_left(row as u32) & 1 == 1);
            let (left, right) = (set(left), set(right));
            let loose = Forest { parents: &parents, trace_rows: &trace_rows, connected: None };
            let everything = || 0..parents.len();
            let is_connected = |row: usize| everything().any(|other| holds(&loose, Descendant, other, row)) || parents[row] == ROOT;
            let connected = Bits::from_fn(parents.len(), is_connected);
            let forest = Forest { connected: Some(&connected), ..loose };
            for relation in [Child, Parent, Descendant, Ancestor, Sibling] {
                let is_right = |row: &usize| left.iter().any(|other| holds(&forest, relation, other, *row));
                let is_left = |row: &usize| right.iter().any(|other| holds(&forest, relation, *row, other));
                let plain: Vec<usize> = right.iter().filter(is_right).collect();
                let negated: Vec<usize> = right.iter().filter(|row| !is_right(row)).collect();
                let mut union: Vec<usize> = left.iter().filter(is_left).chain(plain.clone()).collect();
                union.sort_unstable();
                union.dedup();
                let got = |quantifier| forest.related(relation, quantifier, &left, &right).iter().collect::<Vec<_>>();
                prop_assert_eq!(got(Plain), plain, "{:?}", relation);
                prop_assert_eq!(got(Negated), negated, "{:?}", relation);
                prop_assert_eq!(got(Union), union, "{:?}", relation);
            }
        }
    }
}
