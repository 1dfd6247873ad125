//! What a plan asks of sources, gathered while the plan is made.

use hashbrown::HashMap;
use spoor_model::TimeRange;
use spoor_model::columns::{ColumnRequest, Intervals, ValuesOf};
use spoor_model::scan::{AttrScope, Field, Predicate};

/// The masks and columns of a plan; each once, wherever in the query it is used.
#[derive(Debug, Clone, Default)]
pub(crate) struct Layout {
    masks: Vec<Predicate>,
    /// By what tells masks apart: predicates hold compiled expressions, which have no equality.
    mask_places: HashMap<String, usize>,
    columns: Vec<Field>,
    tree: bool,
    copies: bool,
    reads_parents: bool,
    reads_roots: bool,
    reads_items: bool,
}

impl Layout {
    /// The place of a predicate's mask.
    pub(crate) fn mask(&mut self, predicate: Predicate) -> usize {
        let place = self.mask_places.entry(format!("{predicate:?}")).or_insert(self.masks.len());
        if *place == self.masks.len() {
            self.masks.push(predicate);
        }
        *place
    }

    /// The place of a field's column.
    pub(crate) fn column(&mut self, field: Field) -> usize {
        let is_lookup = matches!(field, Field::Attribute(AttrScope::Any, _));
        self.reads_items |= is_lookup || field.is_of_events() || field.is_of_links();
        self.counted_column(field)
    }

    /// The place of the column of a field of which one value per row is read, whatever there is.
    pub(crate) fn counted_column(&mut self, field: Field) -> usize {
        self.columns.iter().position(|known| *known == field).unwrap_or_else(|| {
            self.columns.push(field);
            self.columns.len() - 1
        })
    }

    /// The place of a field's column, if it is asked for.
    pub(crate) fn find_column(&self, field: &Field) -> Option<usize> {
        self.columns.iter().position(|known| known == field)
    }

    /// Notes that columns are read of the parents of the rows under evaluation.
    pub(crate) fn read_parents(&mut self) {
        self.reads_parents = true;
    }

    /// Notes that columns are read of the roots of the rows under evaluation.
    pub(crate) fn read_roots(&mut self) {
        self.reads_roots = true;
    }

    /// Whose values are read, when those of needed rows are all that is read of the rows under evaluation.
    pub(crate) fn values_of(&self) -> ValuesOf {
        match self.reads_parents || self.reads_roots {
            true => ValuesOf::AllRows,
            false => ValuesOf::NeededRows,
        }
    }

    /// The same for plans that count single values.
    pub(crate) fn counted_values_of(&self) -> ValuesOf {
        match self.reads_parents || self.reads_items {
            true => ValuesOf::AllRows,
            false => ValuesOf::OneEach,
        }
    }

    /// Whether anything of the whole trace is asked for.
    pub(crate) fn needs_whole_traces(&self) -> bool {
        self.tree || self.copies
    }

    /// Asks for parents and roots.
    pub(crate) fn need_tree(&mut self) {
        self.tree = true;
    }

    /// Asks which traces are irregular.
    pub(crate) fn need_copies(&mut self) {
        self.copies = true;
    }

    /// The predicate of a mask.
    pub(crate) fn predicate(&self, mask: usize) -> &Predicate {
        &self.masks[mask]
    }

    /// The field of a column.
    pub(crate) fn field(&self, column: usize) -> &Field {
        &self.columns[column]
    }

    /// The request: groups without a row in one of the `needed` masks are left out (empty: none is).
    pub(crate) fn request(
        &self,
        needed: &[usize],
        values_of: ValuesOf,
        range: TimeRange,
        intervals: Option<Intervals>,
    ) -> ColumnRequest {
        ColumnRequest {
            masks: self.masks.clone(),
            needed: needed.to_vec(),
            columns: self.columns.clone(),
            values_of,
            tree: self.tree,
            copies: self.copies,
            range,
            intervals,
        }
    }
}
