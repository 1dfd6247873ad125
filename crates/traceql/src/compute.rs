//! How values compare and what arithmetic makes of them: one meaning for constants, spans and spansets.
//!
//! Integers and durations (nanoseconds) compute exactly as long as the result fits 64 bits, and go on as
//! floats where it does not; any float makes a float. What has no value (`1 / 0`, arithmetic on texts) is nil.

use std::cmp::Ordering;

use spoor_model::scan::order_int_float;

use crate::ast::{BinaryOp, Static};

/// Whether a comparison other than a regular expression holds. False where types do not fit, or one side is
/// nil. An array compares when one of its elements does, for `!=` when all do; never with another array.
pub(crate) fn compare(op: BinaryOp, left: &Static, right: &Static) -> bool {
    let ordering = match (left, right) {
        (Static::Array(_), Static::Array(_)) => return false,
        (Static::Array(items), _) if op == BinaryOp::Ne => return items.iter().all(|item| compare(op, item, right)),
        (Static::Array(items), _) => return items.iter().any(|item| compare(op, item, right)),
        (_, Static::Array(items)) if op == BinaryOp::Ne => return items.iter().all(|item| compare(op, left, item)),
        (_, Static::Array(items)) => return items.iter().any(|item| compare(op, left, item)),
        (Static::Str(a), Static::Str(b)) => Some(a.as_bytes().cmp(b.as_bytes())),
        (Static::Bool(a), Static::Bool(b)) => return holds_unordered(op, a == b),
        (Static::Status(a), Static::Status(b)) | (Static::Kind(a), Static::Kind(b)) => {
            return holds_unordered(op, a == b);
        }
        (Static::Int(a) | Static::Duration(a), Static::Int(b) | Static::Duration(b)) => Some(a.cmp(b)),
        (Static::Int(a) | Static::Duration(a), Static::Float(b)) => order_int_float(*a, *b),
        (Static::Float(a), Static::Int(b) | Static::Duration(b)) => order_int_float(*b, *a).map(Ordering::reverse),
        (Static::Float(a), Static::Float(b)) => a.partial_cmp(b),
        _ => return false,
    };
    holds(op, ordering)
}

fn holds_unordered(op: BinaryOp, is_equal: bool) -> bool {
    match op {
        BinaryOp::Eq => is_equal,
        BinaryOp::Ne => !is_equal,
        _ => false,
    }
}

/// `None`: one of the two is not a number, and so they differ.
fn holds(op: BinaryOp, ordering: Option<Ordering>) -> bool {
    match op {
        BinaryOp::Eq => ordering == Some(Ordering::Equal),
        BinaryOp::Ne => ordering != Some(Ordering::Equal),
        BinaryOp::Lt => ordering == Some(Ordering::Less),
        BinaryOp::Le => ordering.is_some_and(Ordering::is_le),
        BinaryOp::Gt => ordering == Some(Ordering::Greater),
        BinaryOp::Ge => ordering.is_some_and(Ordering::is_ge),
        _ => false,
    }
}

/// The result of arithmetic, nil when there is none. Sums, differences and products with a duration are
/// durations, as long as no float takes part.
pub(crate) fn arithmetic(op: BinaryOp, left: &Static, right: &Static) -> Static {
    let is_duration = |side: &Static| matches!(side, Static::Duration(_));
    match (left, right) {
        (Static::Int(a) | Static::Duration(a), Static::Int(b) | Static::Duration(b)) => {
            let is_duration = (is_duration(left) || is_duration(right))
                && matches!(op, BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul);
            match int_arithmetic(op, *a, *b) {
                Whole::Fits(nanos) if is_duration => Static::Duration(nanos),
                Whole::Fits(int) => Static::Int(int),
                Whole::Overflows => Static::Float(float_arithmetic(op, *a as f64, *b as f64)),
                Whole::None => Static::Nil,
            }
        }
        _ => match (as_float(left), as_float(right)) {
            (Some(a), Some(b)) => Static::Float(float_arithmetic(op, a, b)),
            _ => Static::Nil,
        },
    }
}

/// What becomes of integers.
enum Whole {
    Fits(i64),
    /// Beyond 64 bits, or no integer.
    Overflows,
    None,
}

fn int_arithmetic(op: BinaryOp, a: i64, b: i64) -> Whole {
    let result = match op {
        BinaryOp::Div | BinaryOp::Mod if b == 0 => return Whole::None,
        BinaryOp::Add => a.checked_add(b),
        BinaryOp::Sub => a.checked_sub(b),
        BinaryOp::Mul => a.checked_mul(b),
        BinaryOp::Div => a.checked_div(b),
        BinaryOp::Mod => Some(a.wrapping_rem(b)),
        BinaryOp::Pow => u32::try_from(b).ok().and_then(|exponent| a.checked_pow(exponent)),
        _ => return Whole::None,
    };
    result.map_or(Whole::Overflows, Whole::Fits)
}

fn float_arithmetic(op: BinaryOp, a: f64, b: f64) -> f64 {
    match op {
        BinaryOp::Add => a + b,
        BinaryOp::Sub => a - b,
        BinaryOp::Mul => a * b,
        BinaryOp::Div => a / b,
        BinaryOp::Mod => a % b,
        BinaryOp::Pow => a.powf(b),
        _ => f64::NAN,
    }
}

/// A number as a float; durations in nanoseconds.
pub(crate) fn as_float(value: &Static) -> Option<f64> {
    match value {
        Static::Int(int) | Static::Duration(int) => Some(*int as f64),
        Static::Float(float) => Some(*float),
        _ => None,
    }
}

/// `-value`; nil for what is no number.
pub(crate) fn negated(value: &Static) -> Static {
    match value {
        Static::Float(float) => Static::Float(-float),
        // Integers and durations stay what they are, unless the result does not fit.
        other => arithmetic(BinaryOp::Sub, &Static::Int(0), other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(op: &str, left: Static, right: Static, expect: &str) {
        let op = BinaryOp::from_symbol(op).expect("an operator");
        let got = match op.is_arithmetic() {
            true => arithmetic(op, &left, &right),
            false => Static::Bool(compare(op, &left, &right)),
        };
        assert_eq!(got.to_string(), expect, "{left} {} {right}", op.symbol());
    }

    fn ints(values: &[i64]) -> Static {
        Static::Array(values.iter().map(|int| Static::Int(*int)).collect())
    }

    #[test]
    fn integers_stay_integers_while_they_fit() {
        check("^", Static::Int(2), Static::Int(3), "8");
        check("^", Static::Int(2), Static::Int(-1), "0.5");
        check("^", Static::Int(2), Static::Int(64), "1.8446744073709552e19");
        check("+", Static::Int(i64::MAX), Static::Int(1), "9.223372036854776e18");
        check("/", Static::Int(-7), Static::Int(2), "-3");
        check("/", Static::Int(1), Static::Int(0), "nil");
        check("%", Static::Int(1), Static::Int(0), "nil");
        check("%", Static::Int(i64::MIN), Static::Int(-1), "0");
        check("/", Static::Float(1.0), Static::Int(0), "inf");
    }

    #[test]
    fn durations_stay_durations_beside_integers() {
        check("+", Static::Duration(1_000), Static::Int(1), "1.001\u{b5}s");
        check("*", Static::Int(2), Static::Duration(1_000), "2\u{b5}s");
        check("*", Static::Duration(1_000), Static::Float(0.5), "500.0");
        check("/", Static::Duration(1_000), Static::Int(2), "500");
        check("+", Static::Duration(1), Static::Str("x".into()), "nil");
    }

    #[test]
    fn numbers_compare_exactly_and_other_types_with_their_own() {
        check("=", Static::Int(1), Static::Float(1.0), "true");
        check("<", Static::Int(i64::MAX), Static::Float(9_223_372_036_854_775_807.0), "true");
        check("=", Static::Duration(5), Static::Int(5), "true");
        check("!=", Static::Float(f64::NAN), Static::Int(5), "true");
        check("!=", Static::Str("5".into()), Static::Int(5), "false");
        check("=", Static::Nil, Static::Nil, "false");
        check("<", Static::Bool(false), Static::Bool(true), "false");
        check("!=", Static::Status(1), Static::Status(2), "true");
        check("=", Static::Status(1), Static::Kind(1), "false");
    }

    #[test]
    fn one_element_of_an_array_will_do_unless_all_must_differ() {
        check("=", ints(&[1, 2]), Static::Int(2), "true");
        check("!=", ints(&[1, 2]), Static::Int(2), "false");
        check("!=", ints(&[1, 2]), Static::Int(3), "true");
        check("<", Static::Int(1), ints(&[0, 2]), "true");
        check("=", ints(&[1, 2]), ints(&[1, 2]), "false");
        check("!=", ints(&[1, 2]), Static::Str("x".into()), "false");
    }
}
