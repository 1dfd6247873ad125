//! What a comparison means: the table behind [`super::Condition::holds_for`].

use std::cmp::Ordering;

use super::{Literal, Test};
use crate::batch::AttrValue;
use crate::nested;
use crate::value::Value;

/// A value that is not a list, borrowed: what scans compare millions of times.
#[derive(Clone, Copy)]
enum Scalar<'a> {
    Str(&'a str),
    Int(i64),
    Double(f64),
    Bool(bool),
    /// Maps, bytes, empty values, lists within lists: they only exist.
    Other,
}

impl<'a> From<&'a Value> for Scalar<'a> {
    fn from(value: &'a Value) -> Self {
        match value {
            Value::Str(text) => Self::Str(text),
            Value::Int(int) => Self::Int(*int),
            Value::Double(double) => Self::Double(*double),
            Value::Bool(flag) => Self::Bool(*flag),
            Value::Empty | Value::Bytes(_) | Value::Array(_) | Value::Map(_) => Self::Other,
        }
    }
}

pub(super) fn holds(test: &Test, value: Option<&Value>) -> bool {
    match (test, value) {
        (Test::Absent, value) => !value.is_some_and(is_queryable),
        (_, None) => false,
        (Test::Exists, Some(value)) => is_queryable(value),
        (Test::TextEq(wanted), Some(value)) => text_of(value).is_some_and(|text| text == **wanted),
        (_, Some(Value::Array(values))) => holds_for_array(test, values),
        (_, Some(value)) => holds_for_scalar(test, value.into()),
    }
}

/// Arrays that hold nothing comparable, and values that were never set, are invisible to queries.
fn is_queryable(value: &Value) -> bool {
    match value {
        Value::Empty => false,
        Value::Array(values) => is_comparable_array(values),
        _ => true,
    }
}

/// Whether an array has elements, all scalars of one type.
fn is_comparable_array(values: &[Value]) -> bool {
    let is_scalar = |value: &Value| matches!(value, Value::Str(_) | Value::Int(_) | Value::Double(_) | Value::Bool(_));
    let is_uniform = values.windows(2).all(|pair| std::mem::discriminant(&pair[0]) == std::mem::discriminant(&pair[1]));
    is_uniform && values.first().is_some_and(is_scalar)
}

/// [`holds`] for a value as columns have it; allocates only for nested values and [`Test::TextEq`].
pub(super) fn holds_for_attribute(test: &Test, value: AttrValue<'_>) -> bool {
    let scalar = match value {
        AttrValue::Str(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => Scalar::Str(text),
            Err(_) => return false,
        },
        AttrValue::Int(int) => Scalar::Int(int),
        AttrValue::Double(double) => Scalar::Double(double),
        AttrValue::Bool(flag) => Scalar::Bool(flag),
        AttrValue::Encoded(bytes) => return holds(test, Some(&nested::decode_value(bytes).unwrap_or_default())),
    };
    match (test, scalar) {
        (Test::Exists, _) => true,
        (Test::Absent, _) => false,
        (Test::TextEq(wanted), Scalar::Str(text)) => text == &**wanted,
        (Test::TextEq(_), _) => holds(test, Some(&value.to_value())),
        _ => holds_for_scalar(test, scalar),
    }
}

fn holds_for_array(test: &Test, values: &[Value]) -> bool {
    let is_comparable = is_comparable_array(values);
    match test {
        Test::Ne(_) | Test::NotRegex(_) => {
            is_comparable && values.iter().all(|value| holds_for_scalar(test, value.into()))
        }
        _ => is_comparable && values.iter().any(|value| holds_for_scalar(test, value.into())),
    }
}

fn holds_for_scalar(test: &Test, value: Scalar<'_>) -> bool {
    let ordering = |literal: &Literal| order(value, literal);
    match test {
        Test::Eq(literal) => ordering(literal) == Some(Ordering::Equal),
        Test::Ne(literal) => is_comparable(value, literal) && ordering(literal) != Some(Ordering::Equal),
        Test::Lt(literal) => is_ordered(literal) && ordering(literal) == Some(Ordering::Less),
        Test::Le(literal) => is_ordered(literal) && ordering(literal).is_some_and(Ordering::is_le),
        Test::Gt(literal) => is_ordered(literal) && ordering(literal) == Some(Ordering::Greater),
        Test::Ge(literal) => is_ordered(literal) && ordering(literal).is_some_and(Ordering::is_ge),
        // The expression is anchored by whoever builds it.
        Test::Regex(regex) => text_in(value).is_some_and(|text| regex.is_match(text)),
        Test::NotRegex(regex) => text_in(value).is_some_and(|text| !regex.is_match(text)),
        Test::Contains(part) => text_in(value).is_some_and(|text| text.contains(&**part)),
        Test::Exists | Test::Absent | Test::TextEq(_) => unreachable!("decided before the type matters"),
    }
}

fn text_in(value: Scalar<'_>) -> Option<&str> {
    match value {
        Scalar::Str(text) => Some(text),
        _ => None,
    }
}

/// Booleans are equal or not, never less.
fn is_ordered(literal: &Literal) -> bool {
    !matches!(literal, Literal::Bool(_))
}

fn is_comparable(value: Scalar<'_>, literal: &Literal) -> bool {
    matches!(
        (value, literal),
        (Scalar::Str(_), Literal::Str(_))
            | (Scalar::Int(_) | Scalar::Double(_), Literal::Int(_) | Literal::Float(_))
            | (Scalar::Bool(_), Literal::Bool(_))
    )
}

/// `None` when the two cannot be compared, or one is NaN.
fn order(value: Scalar<'_>, literal: &Literal) -> Option<Ordering> {
    match (value, literal) {
        (Scalar::Str(a), Literal::Str(b)) => Some(a.as_bytes().cmp(b.as_bytes())),
        (Scalar::Int(a), Literal::Int(b)) => Some(a.cmp(b)),
        (Scalar::Int(a), Literal::Float(b)) => order_int_float(a, *b),
        (Scalar::Double(a), Literal::Int(b)) => order_int_float(*b, a).map(Ordering::reverse),
        (Scalar::Double(a), Literal::Float(b)) => a.partial_cmp(b),
        (Scalar::Bool(a), Literal::Bool(b)) => Some(a.cmp(b)),
        _ => None,
    }
}

/// How an integer and a float compare as numbers; `None` for NaN. Exact for all integers, where `a as f64` would round those beyond 2^53.
pub fn order_int_float(int: i64, float: f64) -> Option<Ordering> {
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
