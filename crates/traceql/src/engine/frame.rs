//! A batch and what is derived from it on demand, each part once.

use std::cell::OnceCell;

use arrow_array::{Array, Int32Array};
use spoor_model::Value;
use spoor_model::bits::Bits;
use spoor_model::columns::{ColumnBatch, ColumnPart};
use spoor_model::structure::{MISSING, ROOT};

use super::exposed::Exposed;
use super::operand::Meaning;
use crate::ast::Static;

/// A batch under evaluation.
pub(crate) struct Frame<'a> {
    pub(crate) batch: &'a ColumnBatch,
    columns: Vec<OnceCell<Column<'a>>>,
    connected: OnceCell<Option<Bits>>,
    nested_sets: OnceCell<Vec<NestedSet>>,
    child_counts: OnceCell<Vec<u32>>,
    exposed: Option<&'a Exposed>,
}

/// A column whose entries are worked out.
pub(super) struct Column<'a> {
    pub(super) parts: Vec<Part<'a>>,
}

/// A part of a column.
pub(super) enum Part<'a> {
    /// What each code means; `None` where it stands for no value.
    Coded { codes: &'a Int32Array, values: Vec<Option<Static>> },
    /// Read as it is.
    Plain(&'a ColumnPart),
}

/// The numbers of a depth-first walk; zeros for rows that no root is above.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct NestedSet {
    pub(super) left: u32,
    pub(super) right: u32,
}

impl<'a> Frame<'a> {
    pub(crate) fn new(batch: &'a ColumnBatch) -> Self {
        Self {
            batch,
            columns: batch.columns.iter().map(|_| OnceCell::new()).collect(),
            connected: OnceCell::new(),
            nested_sets: OnceCell::new(),
            child_counts: OnceCell::new(),
            exposed: None,
        }
    }

    /// The same, where values of events and links are those that filters are about.
    pub(crate) fn exposing(self, exposed: Option<&'a Exposed>) -> Self {
        Self { exposed, ..self }
    }

    /// The one value of a column at a row.
    pub(super) fn value(&self, column: usize, meaning: Meaning, row: usize) -> Static {
        let column = self.column(column);
        let Some(exposed) = self.exposed.filter(|_| meaning.is_of_events() || meaning.is_of_links()) else {
            return column.value(row);
        };
        let values = column.items(row).iter().enumerate().filter_map(|(place, value)| {
            let value = Static::of(value.as_ref()?);
            (!value.is_nil()).then_some((place, value))
        });
        let mut first = None;
        for (place, value) in values {
            if exposed.has(self, row, meaning, place) {
                return value;
            }
            first.get_or_insert(value);
        }
        first.unwrap_or(Static::Nil)
    }

    pub(super) fn column(&self, column: usize) -> &Column<'a> {
        self.columns[column].get_or_init(|| {
            let part = |part: &'a ColumnPart| match part {
                ColumnPart::Coded { codes, values } => {
                    let value = |value: &Option<Value>| value.as_ref().map(Static::of);
                    Part::Coded { codes, values: values.iter().map(value).collect() }
                }
                other => Part::Plain(other),
            };
            Column { parts: self.batch.columns[column].parts.iter().map(part).collect() }
        })
    }

    /// The rows that a root is above, or that are roots; `None` when all are.
    pub(super) fn connected(&self) -> Option<&Bits> {
        self.connected.get_or_init(|| connected(&self.batch.parents)).as_ref()
    }

    pub(super) fn is_connected(&self, row: usize) -> bool {
        self.connected().is_none_or(|connected| connected.contains(row))
    }

    /// The row's parent, when the row is connected to a root and is none itself.
    pub(crate) fn parent(&self, row: usize) -> Option<usize> {
        let parent = self.batch.parents[row];
        (parent < MISSING && self.is_connected(row)).then_some(parent as usize)
    }

    pub(super) fn nested_set(&self, row: usize) -> NestedSet {
        self.nested_sets.get_or_init(|| self.number())[row]
    }

    fn number(&self) -> Vec<NestedSet> {
        let parents = &self.batch.parents;
        // Rows below, itself included; then, walking down, how many levels are above.
        let mut sizes = vec![1u32; parents.len()];
        for row in (0..parents.len()).rev() {
            if let Some(parent) = above(parents, row) {
                sizes[parent] += sizes[row];
            }
        }
        let mut numbers = vec![NestedSet::default(); parents.len()];
        let mut depths = vec![0u32; parents.len()];
        for trace in 0..self.batch.trace_count() {
            let mut entered = 0;
            for row in self.batch.rows_of(trace) {
                if !self.is_connected(row) {
                    continue;
                }
                depths[row] = above(parents, row).map_or(0, |parent| depths[parent] + 1);
                // Of the rows before, all were entered, and all but those above were left again.
                let left = 2 * entered - depths[row] + 1;
                numbers[row] = NestedSet { left, right: left + 2 * sizes[row] - 1 };
                entered += 1;
            }
        }
        numbers
    }

    pub(super) fn child_count(&self, row: usize) -> u32 {
        let count = || {
            let parents = &self.batch.parents;
            let mut counts = vec![0; parents.len()];
            (0..parents.len()).filter_map(|row| above(parents, row)).for_each(|parent| counts[parent] += 1);
            counts
        };
        self.child_counts.get_or_init(count)[row]
    }
}

/// The parent's row. Parents stand before their children, save in irregular traces, whose rows mean
/// nothing here: what they say is not followed.
fn above(parents: &[u32], row: usize) -> Option<usize> {
    let parent = parents[row] as usize;
    (parent < row).then_some(parent)
}

fn connected(parents: &[u32]) -> Option<Bits> {
    if !parents.contains(&MISSING) {
        return None;
    }
    let mut is_connected = vec![0u8; parents.len()];
    for row in 0..parents.len() {
        let by_parent = above(parents, row).map_or(0, |parent| is_connected[parent]);
        is_connected[row] = by_parent | u8::from(parents[row] == ROOT);
    }
    Some(Bits::from_bytes(&is_connected))
}

/// What a column has for a row.
pub(super) enum Found<'a> {
    None,
    One(Static),
    /// One per event or link.
    Items(&'a [Option<Value>]),
}

impl Column<'_> {
    /// What the first part that has something has for a row.
    pub(super) fn find(&self, row: usize) -> Found<'_> {
        for part in &self.parts {
            let value = match part {
                Part::Coded { codes, values } if codes.is_valid(row) => values[codes.value(row) as usize].clone(),
                Part::Coded { .. } => None,
                Part::Plain(ColumnPart::PerItem { rows, values }) => match rows.binary_search(&(row as u32)) {
                    Ok(place) => return Found::Items(&values[place]),
                    Err(_) => None,
                },
                Part::Plain(part) => part.value(row).map(|value| Static::of(&value)),
            };
            if let Some(value) = value {
                return Found::One(value);
            }
        }
        Found::None
    }

    /// The value at a row; of several events or links, the first that has one.
    pub(super) fn value(&self, row: usize) -> Static {
        match self.find(row) {
            Found::None => Static::Nil,
            Found::One(value) => value,
            Found::Items(items) => {
                let mut values = items.iter().flatten().map(Static::of);
                values.find(|value| !value.is_nil()).unwrap_or(Static::Nil)
            }
        }
    }

    /// The values of the row's events or links, in their order; none when it has none.
    pub(super) fn items(&self, row: usize) -> &[Option<Value>] {
        match self.find(row) {
            Found::Items(items) => items,
            _ => &[],
        }
    }
}
