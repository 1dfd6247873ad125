//! Aggregates over the spans of spansets, and arithmetic on them.

use super::Layout;
use super::frame::Frame;
use super::operand::Operand;
use super::spansets::Spansets;
use super::values::Numbers;
use crate::ast::{Aggregate, BinaryOp, ScalarExpr, Static};
use crate::{PlanError, compute, fold};

/// A number of a spanset.
#[derive(Debug, Clone)]
pub(super) enum Scalar {
    Constant(Static),
    Count,
    /// With the key that names it in results.
    Aggregate {
        function: Aggregate,
        of: Operand,
        key: String,
    },
    Arithmetic {
        op: BinaryOp,
        left: Box<Scalar>,
        right: Box<Scalar>,
    },
}

impl Scalar {
    pub(super) fn new(expr: &ScalarExpr, layout: &mut Layout) -> Result<Self, PlanError> {
        Ok(match expr {
            ScalarExpr::Static(value) => Self::Constant(value.clone()),
            ScalarExpr::Aggregate(_, None) => Self::Count,
            ScalarExpr::Aggregate(function, Some(of)) => {
                let (function, key) = (*function, expr.to_string());
                Self::Aggregate { function, of: Operand::new(&fold::folded(of), layout)?, key }
            }
            ScalarExpr::Binary { op, left, right } => {
                let (left, right) = (Box::new(Self::new(left, layout)?), Box::new(Self::new(right, layout)?));
                Self::Arithmetic { op: *op, left, right }
            }
        })
    }

    pub(super) fn reads_columns(&self) -> bool {
        match self {
            Self::Constant(_) | Self::Count => false,
            Self::Aggregate { .. } => true,
            Self::Arithmetic { left, right, .. } => left.reads_columns() || right.reads_columns(),
        }
    }

    /// By spanset: the number, nil where there is none. What stands for spansets without rows means
    /// nothing.
    pub(super) fn values(&self, frame: &Frame<'_>, spansets: &Spansets) -> Vec<Static> {
        match self {
            Self::Constant(value) => vec![value.clone(); spansets.count(frame.batch)],
            Self::Count => {
                let counts = spansets.counts(frame.batch, &spansets.rows);
                counts.into_iter().map(|count| Static::Int(i64::from(count))).collect()
            }
            Self::Aggregate { function, of, .. } => aggregate(*function, of, frame, spansets),
            Self::Arithmetic { op, left, right } => {
                let (left, right) = (left.values(frame, spansets), right.values(frame, spansets));
                left.iter().zip(&right).map(|(left, right)| compute::arithmetic(*op, left, right)).collect()
            }
        }
    }

    /// Adds its aggregates to what results say of the spansets, in the order in which they are written.
    pub(super) fn describe(&self, frame: &Frame<'_>, spansets: &mut Spansets) {
        match self {
            Self::Constant(_) => {}
            Self::Count => spansets.describe("count()", &self.values(frame, spansets)),
            Self::Aggregate { key, .. } => spansets.describe(key, &self.values(frame, spansets)),
            Self::Arithmetic { left, right, .. } => {
                left.describe(frame, spansets);
                right.describe(frame, spansets);
            }
        }
    }
}

/// What is known of a spanset's numbers so far.
#[derive(Debug, Clone, Copy, Default)]
struct Ints {
    count: u64,
    sum: i128,
    /// The least or the greatest, whichever is asked for.
    best: i64,
}

fn aggregate(function: Aggregate, of: &Operand, frame: &Frame<'_>, spansets: &Spansets) -> Vec<Static> {
    match of.numbers(frame, &spansets.rows) {
        Numbers::Ints { values, present, is_duration } => {
            let is_present = |row: usize| present.as_ref().is_none_or(|present| present.contains(row));
            let mut totals = vec![Ints::default(); spansets.count(frame.batch)];
            match function {
                Aggregate::Min | Aggregate::Max => spansets.for_each(frame.batch, |spanset, row| {
                    if is_present(row) {
                        let total = &mut totals[spanset];
                        let is_better = match function {
                            Aggregate::Min => values[row] < total.best,
                            _ => values[row] > total.best,
                        };
                        if total.count == 0 || is_better {
                            total.best = values[row];
                        }
                        total.count += 1;
                    }
                }),
                _ => spansets.for_each(frame.batch, |spanset, row| {
                    if is_present(row) {
                        totals[spanset].count += 1;
                        totals[spanset].sum += i128::from(values[row]);
                    }
                }),
            }
            totals.iter().map(|total| int_result(function, *total, is_duration)).collect()
        }
        Numbers::Floats { values, present } => {
            let is_present = |row: usize| present.as_ref().is_none_or(|present| present.contains(row));
            folded(function, frame, spansets, |row| match is_present(row) {
                true => Static::Float(values[row]),
                false => Static::Nil,
            })
        }
        Numbers::Mixed(values) => folded(function, frame, spansets, |row| values[row].clone()),
    }
}

fn int_result(function: Aggregate, total: Ints, is_duration: bool) -> Static {
    let int = |int: i64| if is_duration { Static::Duration(int) } else { Static::Int(int) };
    // Sums beyond 64 bits go on as floats.
    let whole = |sum: i128| i64::try_from(sum).map_or(Static::Float(sum as f64), int);
    match function {
        _ if total.count == 0 => Static::Nil,
        Aggregate::Count => Static::Int(total.count as i64),
        Aggregate::Min | Aggregate::Max => int(total.best),
        Aggregate::Sum => whole(total.sum),
        Aggregate::Avg if is_duration => whole(total.sum / i128::from(total.count)),
        Aggregate::Avg => Static::Float(total.sum as f64 / total.count as f64),
    }
}

/// Whether a number takes the place of the least or greatest so far, in whatever order they come. Any number is
/// better than none, then than NaN; of equal ones a float is kept before a duration, and that before an integer.
fn is_better(op: BinaryOp, next: &Static, best: &Static) -> bool {
    let is_nan = |number: &Static| matches!(number, Static::Float(float) if float.is_nan());
    let width = |number: &Static| match number {
        Static::Float(_) => 2,
        Static::Duration(_) => 1,
        _ => 0,
    };
    if best.is_nil() || is_nan(best) || is_nan(next) {
        return best.is_nil() || !is_nan(next);
    }
    compute::compare(op, next, best) || compute::compare(BinaryOp::Eq, next, best) && width(next) > width(best)
}

/// Aggregates of numbers of several kinds, number by number.
fn folded(
    function: Aggregate,
    frame: &Frame<'_>,
    spansets: &Spansets,
    number: impl Fn(usize) -> Static,
) -> Vec<Static> {
    let mut totals = vec![(0u64, Static::Nil); spansets.count(frame.batch)];
    spansets.for_each(frame.batch, |spanset, row| {
        let next = number(row);
        if next.is_nil() {
            return;
        }
        let (count, total) = &mut totals[spanset];
        *count += 1;
        *total = match function {
            Aggregate::Min if !is_better(BinaryOp::Lt, &next, total) => return,
            Aggregate::Max if !is_better(BinaryOp::Gt, &next, total) => return,
            Aggregate::Sum | Aggregate::Avg if !total.is_nil() => compute::arithmetic(BinaryOp::Add, total, &next),
            _ => next,
        };
    });
    let result = |(count, total): (u64, Static)| match (function, total) {
        (Aggregate::Avg, Static::Duration(nanos)) => Static::Duration(nanos / count as i64),
        (Aggregate::Avg, total) => {
            compute::as_float(&total).map_or(Static::Nil, |sum| Static::Float(sum / count as f64))
        }
        (_, total) => total,
    };
    totals.into_iter().map(result).collect()
}
