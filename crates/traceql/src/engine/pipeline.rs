//! Pipelines: which spans of each trace are in the spansets that come out at the end.

use spoor_model::bits::Bits;
use spoor_model::columns::{ColumnBatch, ValuesOf};

use super::Layout;
use crate::PlanError;
use crate::ast::Pipeline;

/// A pipeline, ready to be evaluated on batches.
#[derive(Debug, Clone)]
pub(crate) struct SpansetPlan {
    needed: Vec<usize>,
}

impl SpansetPlan {
    /// Plans a checked pipeline, and notes in `layout` what it needs.
    pub(crate) fn new(pipeline: &Pipeline, _layout: &mut Layout) -> Result<Self, PlanError> {
        let pos = pipeline.stages.first().map_or(crate::ast::Pos { line: 1, column: 1 }, |stage| stage.pos);
        Err(PlanError::Unsupported { pos, what: "pipelines on columns are".to_owned() })
    }

    /// The rows in the spansets that come out, each at most once.
    pub(crate) fn selected(&self, batch: &ColumnBatch) -> Bits {
        Bits::all(batch.row_count())
    }

    /// Masks of which every matching trace has a row in one; empty when there are no such masks.
    pub(crate) fn needed(&self) -> &[usize] {
        &self.needed
    }

    /// Whose values the plan reads, and so whose values may be read of the rows that it selects.
    pub(crate) fn values_of(&self) -> ValuesOf {
        ValuesOf::AllRows
    }

    /// Whether each span is selected for itself, whatever else its trace holds.
    pub(crate) fn is_single_span(&self) -> bool {
        false
    }
}
