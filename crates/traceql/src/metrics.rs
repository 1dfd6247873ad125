//! Queries that compute series: what sources are asked, how spans are counted, and what series come out.
//!
//! ```text
//!   Query --plan_metrics--> MetricsPlan, of which each operand is a pipeline with its function
//!     operand.request(window) --sources--> ColumnBatch        any thread, any order
//!     operand.start(window) --add(batch)--> Partial --merge--> Partial
//!     plan.finish(one Partial per operand) --> Vec<Series>    second stages, arithmetic, labels, order
//! ```
//!
//! Counting is dense: one cell per group and interval. Per batch, the codes of what is grouped by become group numbers
//! once per combination that occurs; a row then costs a table lookup and an addition.
//!
//! **Invariant:** what comes out depends on the spans alone: not on how they are cut into batches, nor on the order of
//! merges (sums up to rounding).

use spoor_model::scan::KeySet;

use crate::ast::{BinaryOp, Body, MetricsExpr, Pos, Query, SecondStage, Static};
use crate::{PlanError, check, compute};

mod cells;
mod compare;
mod exemplars;
mod finish;
mod groups;
mod histogram;
mod observed;
mod operand;
mod series;
mod stages;
mod weights;
mod window;

pub use operand::{MetricsOperand, Partial};
pub use series::{Exemplar, Label, Series};
pub use window::Window;

/// A metrics query, planned.
#[derive(Debug, Clone)]
pub struct MetricsPlan {
    operands: Vec<MetricsOperand>,
    combined: Combined,
    exemplars_hint: Option<usize>,
}

/// What becomes of the operands' series.
#[derive(Debug, Clone)]
enum Combined {
    Operand(usize),
    Number(f64),
    Top { of: Box<Combined>, k: usize, is_top: bool },
    Where { of: Box<Combined>, op: BinaryOp, limit: f64 },
    Arithmetic { op: BinaryOp, left: Box<Combined>, right: Box<Combined> },
}

/// Checks a metrics query and plans it.
pub fn plan_metrics(query: &Query) -> Result<MetricsPlan, PlanError> {
    check(query)?;
    let Body::Metrics(expr) = &query.body else {
        return Err(invalid("a search computes no series; end it with a metrics function, as in | rate()"));
    };
    let mut operands = Vec::new();
    let hint = |name: &str| query.hints.iter().rev().find(|hint| &*hint.name == name).map(|hint| &hint.value);
    let is_extrapolated = matches!(hint("extrapolate"), Some(Static::Bool(true)));
    let combined = combine(expr, is_extrapolated, &mut operands)?;
    if let Combined::Number(_) = combined {
        return Err(invalid("a number alone has no series"));
    }
    let exemplars_hint = hint("exemplars").and_then(|value| match value {
        Static::Bool(false) => Some(0),
        Static::Int(count) => usize::try_from(*count).ok(),
        _ => None,
    });
    Ok(MetricsPlan { operands, combined, exemplars_hint })
}

fn invalid(message: &str) -> PlanError {
    PlanError::Invalid { pos: Pos { line: 1, column: 1 }, message: message.to_owned() }
}

fn combine(
    expr: &MetricsExpr,
    is_extrapolated: bool,
    operands: &mut Vec<MetricsOperand>,
) -> Result<Combined, PlanError> {
    Ok(match expr {
        MetricsExpr::Aggregate { pipeline, function, by, .. } => {
            let text = expr.to_string();
            // The same pipeline and function need counting only once.
            if let Some(known) = operands.iter().position(|operand| operand.text() == text) {
                return Ok(Combined::Operand(known));
            }
            operands.push(MetricsOperand::new(pipeline, function, by, is_extrapolated, text)?);
            Combined::Operand(operands.len() - 1)
        }
        MetricsExpr::SecondStage { input, stage, .. } => {
            let of = Box::new(combine(input, is_extrapolated, operands)?);
            let count = |k: i64| usize::try_from(k).unwrap_or(0);
            match stage {
                SecondStage::TopK(k) => Combined::Top { of, k: count(*k), is_top: true },
                SecondStage::BottomK(k) => Combined::Top { of, k: count(*k), is_top: false },
                SecondStage::Compare(op, limit) => Combined::Where { of, op: *op, limit: in_seconds(limit) },
            }
        }
        MetricsExpr::Constant(value) => Combined::Number(in_seconds(value)),
        MetricsExpr::Binary { op, left, right } => {
            let left = Box::new(combine(left, is_extrapolated, operands)?);
            let right = Box::new(combine(right, is_extrapolated, operands)?);
            match (&*left, &*right) {
                (Combined::Number(left), Combined::Number(right)) => {
                    Combined::Number(stages::apply(*op, *left, *right).unwrap_or(f64::NAN))
                }
                _ => Combined::Arithmetic { op: *op, left, right },
            }
        }
    })
}

fn in_seconds(value: &Static) -> f64 {
    match value {
        Static::Duration(nanos) => *nanos as f64 / 1e9,
        other => compute::as_float(other).unwrap_or(f64::NAN),
    }
}

impl MetricsPlan {
    /// Whether the query counts every attribute there is: then the caller names them by
    /// [`Self::with_attributes`] before it asks for anything else.
    pub fn all_attributes(&self) -> bool {
        self.operands.iter().any(MetricsOperand::is_compare)
    }

    /// The plan that counts these attributes. Once, and not after sources were asked.
    pub fn with_attributes(mut self, keys: &KeySet) -> Self {
        self.operands.iter_mut().for_each(|operand| operand.count_attributes(keys));
        self
    }

    /// The pipelines with their functions, each different. Arithmetic has several.
    pub fn operands(&self) -> &[MetricsOperand] {
        &self.operands
    }

    /// How many exemplars the query asks for by a hint.
    pub fn exemplars(&self) -> Option<usize> {
        self.exemplars_hint
    }

    /// The series, in the order of answers: fewer labels first, then by label. `results` has one per operand, in
    /// their order. Series without any point are left out.
    ///
    /// # Panics
    /// When there are fewer results than operands.
    pub fn finish(&self, results: Vec<Partial>) -> Vec<Series> {
        assert_eq!(results.len(), self.operands.len(), "a result per operand");
        let mut all = self.evaluate(&self.combined, &results);
        all.retain(Series::has_points);
        if let Some(first) = results.first() {
            all.iter_mut().for_each(|series| finish::fill_exemplars(series, &first.window));
        }
        series::sort(&mut all);
        all
    }

    fn evaluate(&self, combined: &Combined, results: &[Partial]) -> Vec<Series> {
        match combined {
            Combined::Operand(place) => self.operands[*place].series(&results[*place]),
            Combined::Number(_) => Vec::new(),
            Combined::Top { of, k, is_top } => {
                let mut all = self.evaluate(of, results);
                stages::keep_best(&mut all, *k, *is_top);
                all
            }
            Combined::Where { of, op, limit } => {
                let mut all = self.evaluate(of, results);
                stages::keep_where(&mut all, *op, *limit);
                all
            }
            Combined::Arithmetic { op, left, right } => match (&**left, &**right) {
                (Combined::Number(number), of) => {
                    let mut all = self.evaluate(of, results);
                    stages::map(&mut all, |value| stages::apply(*op, *number, value));
                    all
                }
                (of, Combined::Number(number)) => {
                    let mut all = self.evaluate(of, results);
                    stages::map(&mut all, |value| stages::apply(*op, value, *number));
                    all
                }
                (left, right) => stages::join(*op, self.evaluate(left, results), self.evaluate(right, results)),
            },
        }
    }

    /// The plan for people to read: per operand what sources are asked and what is done with what they
    /// answer, then what becomes of the series.
    pub fn explain(&self) -> String {
        let mut text = String::new();
        for (place, operand) in self.operands.iter().enumerate() {
            text.push_str(&format!("operand {place}: {}\n", operand.text()));
            operand.explain().lines().for_each(|line| text.push_str(&format!("  {line}\n")));
        }
        text.push_str(&format!("series: {}\n", self.combined));
        text
    }
}

impl std::fmt::Display for Combined {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Operand(place) => write!(f, "operand {place}"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Top { of, k, is_top: true } => write!(f, "{of} | topk({k})"),
            Self::Top { of, k, is_top: false } => write!(f, "{of} | bottomk({k})"),
            Self::Where { of, op, limit } => write!(f, "{of} {} {limit}", op.symbol()),
            Self::Arithmetic { op, left, right } => write!(f, "({left}) {} ({right})", op.symbol()),
        }
    }
}

#[cfg(test)]
mod tests;
