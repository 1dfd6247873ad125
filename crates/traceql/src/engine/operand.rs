//! Values of spans: attributes, intrinsics of spans, traces and trees, and expressions over them.

use spoor_model::columns::ColumnBatch;

use super::Layout;
use crate::PlanError;
use crate::ast::{Attribute, Expr, Static};

/// A value that every span has or lacks, ready to be read from batches.
#[derive(Debug, Clone)]
pub(crate) struct Operand {
    column: Option<usize>,
}

/// A code per row and what the codes mean.
#[derive(Debug, Clone)]
pub(crate) struct Coded {
    /// One per row, each an index of `values`.
    pub(crate) codes: Vec<u32>,
    /// Distinct, by value and type; [`Static::Nil`] where rows have no value.
    pub(crate) values: Vec<Static>,
}

impl Operand {
    /// Plans an expression, and notes in `layout` what it needs.
    pub(crate) fn new(expr: &Expr, layout: &mut Layout) -> Result<Self, PlanError> {
        match &expr.node {
            crate::ast::Node::Attribute(attribute) => Self::of(attribute, layout),
            _ => Ok(Self { column: None }),
        }
    }

    /// Plans an attribute.
    pub(crate) fn of(attribute: &Attribute, layout: &mut Layout) -> Result<Self, PlanError> {
        Ok(Self { column: attribute.field().map(|field| layout.column(field)) })
    }

    /// The values of all rows as codes; for grouping.
    pub(crate) fn coded(&self, batch: &ColumnBatch) -> Coded {
        let values = self.values(batch);
        let mut coded = Coded { codes: Vec::with_capacity(values.len()), values: Vec::new() };
        for value in values {
            let known = coded.values.iter().position(|other| *other == value);
            let code = known.unwrap_or_else(|| {
                coded.values.push(value);
                coded.values.len() - 1
            });
            coded.codes.push(code as u32);
        }
        coded
    }

    /// The value of each row; [`Static::Nil`] where there is none.
    pub(crate) fn values(&self, batch: &ColumnBatch) -> Vec<Static> {
        (0..batch.row_count()).map(|row| self.value(batch, row)).collect()
    }

    /// The value of one row.
    pub(crate) fn value(&self, batch: &ColumnBatch, row: usize) -> Static {
        let value = self.column.and_then(|column| batch.columns[column].value(row));
        value.map_or(Static::Nil, |value| Static::of(&value))
    }
}
