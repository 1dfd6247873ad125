//! What a plan asks of sources, gathered while the plan is made.

use hashbrown::HashMap;
use spoor_model::TimeRange;
use spoor_model::columns::{ColumnRequest, ValuesOf};
use spoor_model::scan::{Field, Predicate};

/// The masks and columns of a plan; each once, wherever in the query it is used.
#[derive(Debug, Clone, Default)]
pub(crate) struct Layout {
    masks: Vec<Predicate>,
    /// By what tells masks apart: predicates hold compiled expressions, which have no equality.
    mask_places: HashMap<String, usize>,
    columns: Vec<Field>,
    tree: bool,
    copies: bool,
    reads_elsewhere: bool,
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
        self.columns.iter().position(|known| *known == field).unwrap_or_else(|| {
            self.columns.push(field);
            self.columns.len() - 1
        })
    }

    /// The place of a field's column, if it is asked for.
    pub(crate) fn find_column(&self, field: &Field) -> Option<usize> {
        self.columns.iter().position(|known| known == field)
    }

    /// Notes that columns are read of rows other than those under evaluation: of parents, of roots.
    pub(crate) fn read_elsewhere(&mut self) {
        self.reads_elsewhere = true;
    }

    /// Whether columns are read of rows other than those under evaluation.
    pub(crate) fn reads_elsewhere(&self) -> bool {
        self.reads_elsewhere
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
    pub(crate) fn request(&self, needed: &[usize], values_of: ValuesOf, range: TimeRange) -> ColumnRequest {
        ColumnRequest {
            masks: self.masks.clone(),
            needed: needed.to_vec(),
            columns: self.columns.clone(),
            values_of,
            tree: self.tree,
            copies: self.copies,
            range,
        }
    }
}
