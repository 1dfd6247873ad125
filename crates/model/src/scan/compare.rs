//! What a comparison means: the table behind [`super::Condition::holds_for`].

use std::cmp::Ordering;

use super::{Literal, Test};
use crate::value::Value;

pub(super) fn holds(test: &Test, value: Option<&Value>) -> bool {
    match (test, value) {
        (Test::Absent, value) => value.is_none(),
        (_, None) => false,
        (Test::Exists, Some(_)) => true,
        (Test::TextEq(wanted), Some(value)) => text_of(value).is_some_and(|text| text == **wanted),
        (_, Some(Value::Array(values))) => holds_for_array(test, values),
        (_, Some(value)) => holds_for_scalar(test, value),
    }
}

fn holds_for_array(test: &Test, values: &[Value]) -> bool {
    let is_uniform = values.windows(2).all(|pair| std::mem::discriminant(&pair[0]) == std::mem::discriminant(&pair[1]));
    let is_comparable = is_uniform && !values.is_empty();
    match test {
        Test::Ne(_) | Test::NotRegex(_) => is_comparable && values.iter().all(|value| holds_for_scalar(test, value)),
        _ => is_comparable && values.iter().any(|value| holds_for_scalar(test, value)),
    }
}

fn holds_for_scalar(test: &Test, value: &Value) -> bool {
    let ordering = |literal: &Literal| order(value, literal);
    match test {
        Test::Eq(literal) => ordering(literal) == Some(Ordering::Equal),
        Test::Ne(literal) => is_comparable(value, literal) && ordering(literal) != Some(Ordering::Equal),
        Test::Lt(literal) => is_ordered(literal) && ordering(literal) == Some(Ordering::Less),
        Test::Le(literal) => is_ordered(literal) && ordering(literal).is_some_and(Ordering::is_le),
        Test::Gt(literal) => is_ordered(literal) && ordering(literal) == Some(Ordering::Greater),
        Test::Ge(literal) => is_ordered(literal) && ordering(literal).is_some_and(Ordering::is_ge),
        // The expression is anchored by whoever builds it.
        Test::Regex(regex) => value.as_str().is_some_and(|text| regex.is_match(text)),
        Test::NotRegex(regex) => value.as_str().is_some_and(|text| !regex.is_match(text)),
        Test::Contains(part) => value.as_str().is_some_and(|text| text.contains(&**part)),
        Test::Exists | Test::Absent | Test::TextEq(_) => unreachable!("decided before the type matters"),
    }
}

/// Booleans are equal or not, never less.
fn is_ordered(literal: &Literal) -> bool {
    !matches!(literal, Literal::Bool(_))
}

fn is_comparable(value: &Value, literal: &Literal) -> bool {
    matches!(
        (value, literal),
        (Value::Str(_), Literal::Str(_))
            | (Value::Int(_) | Value::Double(_), Literal::Int(_) | Literal::Float(_))
            | (Value::Bool(_), Literal::Bool(_))
    )
}

/// `None` when the two cannot be compared, or one is NaN.
fn order(value: &Value, literal: &Literal) -> Option<Ordering> {
    match (value, literal) {
        (Value::Str(a), Literal::Str(b)) => Some(a.as_bytes().cmp(b.as_bytes())),
        (Value::Int(a), Literal::Int(b)) => Some(a.cmp(b)),
        (Value::Int(a), Literal::Float(b)) => order_int_float(*a, *b),
        (Value::Double(a), Literal::Int(b)) => order_int_float(*b, *a).map(Ordering::reverse),
        (Value::Double(a), Literal::Float(b)) => a.partial_cmp(b),
        (Value::Bool(a), Literal::Bool(b)) => Some(a.cmp(b)),
        _ => None,
    }
}

/// Exact for all integers, where `a as f64` would round those beyond 2^53.
fn order_int_float(int: i64, float: f64) -> Option<Ordering> {
    if float.is_nan() {
        return None;
    }
    if float >= 9_223_372_036_854_775_808.0 {
        return Some(Ordering::Less);
    }
    if float < -9_223_372_036_854_775_808.0 {
        return Some(Ordering::Greater);
    }
    let whole = float.trunc();
    let by_whole = int.cmp(&(whole as i64));
    Some(by_whole.then_with(|| whole.partial_cmp(&float).expect("neither is NaN")))
}

/// How Jaeger writes a scalar as text.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::Str(text) => Some(text.clone()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Int(int) => Some(int.to_string()),
        Value::Double(double) => Some(double.to_string()),
        Value::Empty => Some(String::new()),
        Value::Bytes(_) | Value::Array(_) | Value::Map(_) => None,
    }
}
