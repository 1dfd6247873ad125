//! Queries that compute series: what sources are asked, how what they answer is counted, and what is made of
//! the counts.
//!
//! ```text
//!   Query --plan_metrics--> MetricsPlan: operands, and what is done to their series
//!                                |
//!      per operand, per batch:   request(window) --> ColumnBatch --add--> Partial   (any thread, merged)
//!                                |
//!                           finish(partials) --> Series: labels, stages, arithmetic, order
//! ```
//!
//! A span counts in the interval of its start. Counters are dense: a number per group, a row of intervals per
//! number; what a batch has codes for is translated once per code.

use std::fmt::Write;
use std::sync::Arc;

use spoor_model::bits::Bits;
use spoor_model::columns::{ColumnBatch, ColumnRequest, ValuesOf};
use spoor_model::scan::{Field, KeySet};

use crate::ast::{
    BinaryOp, Body, GroupKey, MetricsExpr, MetricsFunction, Pipeline, Pos, Query, SecondStage, SpansetExpr,
    SpansetKind, Stage, StageKind, Static,
};
use crate::engine::{Layout, Operand, SpansetPlan, explain};
use crate::{PlanError, check, compute};

mod bucket;
mod compare;
mod exemplars;
mod finish;
mod groups;
mod partial;
mod series;
mod window;

pub use partial::Partial;
pub use series::{Exemplar, Label, Series};
pub use window::Window;

use series::Side;

/// Values per attribute and side that `compare()` lists when the query does not say.
const COMPARE_TOP: i64 = 10;

/// A metrics query, planned.
#[derive(Debug, Clone)]
pub struct MetricsPlan {
    operands: Vec<MetricsOperand>,
    expr: Expr,
    exemplars: Option<usize>,
}

/// What is made of the operands' series.
#[derive(Debug, Clone)]
enum Expr {
    Operand(usize),
    Constant(Static),
    Stage(Box<Expr>, SecondStage),
    Binary { op: BinaryOp, left: Box<Expr>, right: Box<Expr> },
}

/// One `pipeline | function() by(...)`: what is scanned for.
#[derive(Debug, Clone)]
pub struct MetricsOperand {
    layout: Layout,
    spansets: SpansetPlan,
    /// The column of starts.
    starts: usize,
    function: MetricsFunction,
    measure: Measure,
    by: Vec<Operand>,
    by_keys: Vec<Arc<str>>,
    /// What `compare()` counts.
    attributes: Vec<Operand>,
    attribute_keys: Vec<Arc<str>>,
    text: String,
}

/// What is counted of each span.
#[derive(Debug, Clone)]
enum Measure {
    /// That it is there.
    Count,
    /// A number, into totals.
    Numbers(Operand),
    /// A number, into buckets.
    Buckets(Operand),
    /// The values of all its attributes.
    Compare {
        selection: SpansetPlan,
        /// When its start must lie for it to be of the selection: after the first, at or before the second.
        between: Option<(i64, i64)>,
    },
}

/// Checks a metrics query and plans it.
pub fn plan_metrics(query: &Query) -> Result<MetricsPlan, PlanError> {
    check(query)?;
    let Body::Metrics(metrics) = &query.body else {
        let pos = Pos { line: 1, column: 1 };
        return Err(PlanError::Invalid { pos, message: "a search computes no series".to_owned() });
    };
    let mut operands = Vec::new();
    let expr = plan_expr(metrics, &mut operands)?;
    let exemplars =
        query.hints.iter().rev().filter(|hint| hint.name == "exemplars").find_map(|hint| match hint.value {
            Static::Int(count) => Some(usize::try_from(count).unwrap_or(0)),
            Static::Bool(false) => Some(0),
            _ => None,
        });
    Ok(MetricsPlan { operands, expr, exemplars })
}

fn plan_expr(expr: &MetricsExpr, operands: &mut Vec<MetricsOperand>) -> Result<Expr, PlanError> {
    Ok(match expr {
        MetricsExpr::Aggregate { pipeline, function, by } => {
            operands.push(MetricsOperand::new(pipeline, function, by)?);
            Expr::Operand(operands.len() - 1)
        }
        MetricsExpr::SecondStage { input, stage } => Expr::Stage(Box::new(plan_expr(input, operands)?), stage.clone()),
        MetricsExpr::Constant(value) => Expr::Constant(value.clone()),
        MetricsExpr::Binary { op, left, right } => {
            let (left, right) = (plan_expr(left, operands)?, plan_expr(right, operands)?);
            match (left, right) {
                (Expr::Constant(left), Expr::Constant(right)) => {
                    Expr::Constant(compute::arithmetic(*op, &left, &right))
                }
                (left, right) => Expr::Binary { op: *op, left: Box::new(left), right: Box::new(right) },
            }
        }
    })
}

impl MetricsPlan {
    /// Whether the plan needs [`Self::with_attributes`]: `compare()` looks at every attribute there is.
    pub fn all_attributes(&self) -> bool {
        self.operands.iter().any(|operand| matches!(operand.measure, Measure::Compare { .. }))
    }

    /// The plan for spans that have these attributes, [`Self::all_attributes`].
    pub fn with_attributes(mut self, keys: &KeySet) -> Self {
        for operand in &mut self.operands {
            if matches!(operand.measure, Measure::Compare { .. }) {
                let attributes = compare::attributes(keys);
                operand.attribute_keys = attributes.iter().map(|attribute| attribute.to_string().into()).collect();
                operand.attributes =
                    attributes.iter().map(|attribute| Operand::of(attribute, &mut operand.layout)).collect();
            }
        }
        self
    }

    /// What is scanned, each for itself; their results go to [`Self::finish`] in this order.
    pub fn operands(&self) -> &[MetricsOperand] {
        &self.operands
    }

    /// How many exemplars the query asks for by a hint.
    pub fn exemplars(&self) -> Option<usize> {
        self.exemplars
    }

    /// The series, in the order of answers: fewer labels first, then by labels.
    ///
    /// # Panics
    /// When there are fewer results than operands.
    pub fn finish(&self, results: Vec<Partial>) -> Vec<Series> {
        let mut results: Vec<Option<Partial>> = results.into_iter().map(Some).collect();
        let mut series = match self.evaluate(&self.expr, &mut results) {
            Side::Series(series) => series,
            Side::Number(_) => Vec::new(),
        };
        series::sort(&mut series);
        series
    }

    fn evaluate(&self, expr: &Expr, results: &mut [Option<Partial>]) -> Side {
        match expr {
            Expr::Operand(index) => {
                let result = results[*index].take().expect("one result per operand");
                Side::Series(self.operands[*index].series(result))
            }
            Expr::Constant(value) => Side::Number(compute::as_float(value).unwrap_or(f64::NAN)),
            Expr::Stage(input, stage) => match self.evaluate(input, results) {
                Side::Series(series) => Side::Series(series::apply(stage, series)),
                number => number,
            },
            Expr::Binary { op, left, right } => {
                let (left, right) = (self.evaluate(left, results), self.evaluate(right, results));
                Side::Series(series::arithmetic(*op, left, right))
            }
        }
    }

    /// The plan for people to read.
    pub fn explain(&self) -> String {
        let mut out = String::new();
        for (index, operand) in self.operands.iter().enumerate() {
            let _ = writeln!(out, "operand {}: {}", index + 1, operand.text);
            let request = operand.request(&Window::instant(0, u64::MAX));
            let steps = explain::steps(&operand.spansets, &operand.layout);
            for line in explain::request(&request).lines().chain(steps.lines()) {
                let _ = writeln!(out, "  {line}");
            }
        }
        out
    }
}

impl MetricsOperand {
    fn new(pipeline: &Pipeline, function: &MetricsFunction, by: &[GroupKey]) -> Result<Self, PlanError> {
        let mut layout = Layout::default();
        // Copies count once.
        layout.need_copies();
        let spansets = SpansetPlan::new(pipeline, &mut layout)?;
        let starts = layout.column(Field::StartTime);
        let measure = match function {
            MetricsFunction::Rate | MetricsFunction::Count => Measure::Count,
            MetricsFunction::Min(of)
            | MetricsFunction::Max(of)
            | MetricsFunction::Sum(of)
            | MetricsFunction::Avg(of) => Measure::Numbers(Operand::of(of, &mut layout)),
            MetricsFunction::Quantile(of, _) | MetricsFunction::Histogram(of) => {
                Measure::Buckets(Operand::of(of, &mut layout))
            }
            MetricsFunction::Compare(selection, numbers) => {
                let between = match numbers[..] {
                    [_, from, to] => Some((from, to)),
                    _ => None,
                };
                let filter = SpansetExpr { pos: selection.pos, kind: SpansetKind::Filter((**selection).clone()) };
                let stage = Stage { pos: selection.pos, kind: StageKind::Spanset(filter) };
                let selection = SpansetPlan::new(&Pipeline { stages: vec![stage] }, &mut layout)?;
                Measure::Compare { selection, between }
            }
        };
        let by_keys = by.iter().map(|key| key.to_string().into()).collect();
        let text = MetricsExpr::Aggregate { pipeline: pipeline.clone(), function: function.clone(), by: by.to_vec() };
        Ok(Self {
            by: by.iter().map(|key| Operand::of(&key.attribute, &mut layout)).collect(),
            by_keys,
            layout,
            spansets,
            starts,
            function: function.clone(),
            measure,
            attributes: Vec::new(),
            attribute_keys: Vec::new(),
            text: text.to_string(),
        })
    }

    fn attribute_count(&self) -> usize {
        self.attributes.len()
    }

    /// What to ask of sources.
    pub fn request(&self, window: &Window) -> ColumnRequest {
        // What was planned after the pipeline may read the values of rows that the pipeline does not select.
        let values_of = match self.layout.reads_elsewhere() {
            true => ValuesOf::AllRows,
            false => self.spansets.values_of(),
        };
        self.layout.request(self.spansets.needed(), values_of, window.range())
    }

    /// Whether each span is selected for itself, whatever else its trace holds. Copies still count once.
    pub fn is_single_span(&self) -> bool {
        self.spansets.is_single_span()
    }

    /// An empty result, that keeps at most that many exemplars.
    pub fn start(&self, window: &Window, exemplars_max: usize) -> Partial {
        Partial::new(self, *window, exemplars_max)
    }

    /// Counts the spans of a batch that was made for [`Self::request`], but for those of the traces in `skip`
    /// (by their place in the batch).
    pub fn add(&self, partial: &mut Partial, batch: &ColumnBatch, skip: &Bits) {
        partial.add(self, batch, skip);
    }

    /// Which traces of a batch may have spans that count, were the batch's rows only a part of them.
    pub fn may_match(&self, batch: &ColumnBatch) -> Bits {
        let needed = self.spansets.needed();
        if needed.is_empty() {
            return Bits::all(batch.trace_count());
        }
        let mut rows = Bits::none(batch.row_count());
        needed.iter().for_each(|mask| rows.union(&batch.masks[*mask]));
        Bits::from_fn(batch.trace_count(), |trace| rows.any_in(batch.rows_of(trace)))
    }

    /// Adds one result to another. In whatever order this is done, the sums are the same but for rounding.
    pub fn merge(&self, into: &mut Partial, other: &Partial) {
        into.merge(other);
    }
}

#[cfg(test)]
mod tests;
