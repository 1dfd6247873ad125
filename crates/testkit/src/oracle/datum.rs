//! What an expression over a span can evaluate to, and how such values compare and compute.

use std::cmp::Ordering;

use spoor_model::Value;
use spoor_traceql::ast::{BinaryOp, Static};

/// A value of TraceQL.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Datum {
    /// Absent.
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    /// In nanoseconds.
    Duration(i64),
    Str(String),
    /// Keywords: `error`, `server`, ...
    Status(i32),
    Kind(i32),
    /// At least two, all of one type: texts, ints, floats or bools.
    Array(Vec<Datum>),
    /// A map or bytes: there, and nothing more.
    Opaque,
}

impl Datum {
    pub(super) fn of_static(value: &Static) -> Self {
        match value {
            Static::Nil => Self::Nil,
            Static::Bool(value) => Self::Bool(*value),
            Static::Int(value) => Self::Int(*value),
            Static::Float(value) => Self::Float(*value),
            Static::Str(value) => Self::Str(value.to_string()),
            Static::Duration(nanos) => Self::Duration(*nanos),
            Static::Status(code) => Self::Status(*code),
            Static::Kind(code) => Self::Kind(*code),
            Static::Array(items) => Self::Array(items.iter().map(Self::of_static).collect()),
            Static::Opaque(_) => Self::Opaque,
        }
    }

    /// What is not queryable (empty, mixed and nested arrays) is absent; one element is itself.
    pub(super) fn of_value(value: &Value) -> Self {
        let scalar = |value: &Value| match value {
            Value::Str(text) => Some(Self::Str(text.clone())),
            Value::Bool(value) => Some(Self::Bool(*value)),
            Value::Int(value) => Some(Self::Int(*value)),
            Value::Double(value) => Some(Self::Float(*value)),
            _ => None,
        };
        match value {
            Value::Empty => Self::Nil,
            Value::Bytes(_) | Value::Map(_) => Self::Opaque,
            Value::Array(items) => {
                let mut data: Vec<Self> = items.iter().filter_map(scalar).collect();
                let is_homogeneous = data.windows(2).all(|two| kind_of(&two[0]) == kind_of(&two[1]));
                match data.len() {
                    length if length != items.len() || !is_homogeneous => Self::Nil,
                    0 => Self::Nil,
                    1 => data.remove(0),
                    _ => Self::Array(data),
                }
            }
            value => scalar(value).expect("all else is scalar"),
        }
    }

    /// As answers carry it: keywords, durations and nil as text.
    pub(super) fn to_value(&self) -> Value {
        match self {
            Self::Nil => Value::Str("nil".into()),
            Self::Bool(value) => Value::Bool(*value),
            Self::Int(value) => Value::Int(*value),
            Self::Float(value) => Value::Double(*value),
            Self::Str(text) => Value::Str(text.clone()),
            Self::Duration(nanos) => Value::Str(Static::Duration(*nanos).to_string()),
            Self::Status(code) => Value::Str(Static::Status(*code).to_string()),
            Self::Kind(code) => Value::Str(Static::Kind(*code).to_string()),
            Self::Array(items) => Value::Array(items.iter().map(Self::to_value).collect()),
            Self::Opaque => Value::Empty,
        }
    }

    /// As labels carry it: arrays are text too. `None`: no label.
    pub(super) fn to_label(&self) -> Option<Value> {
        match self {
            Self::Nil | Self::Opaque => None,
            Self::Array(items) => {
                let texts: Vec<String> = items.iter().map(|item| item.to_static_text()).collect();
                Some(Value::Str(format!("[{}]", texts.join(", "))))
            }
            scalar => Some(scalar.to_value()),
        }
    }

    fn to_static_text(&self) -> String {
        match self {
            Self::Bool(value) => Static::Bool(*value).to_string(),
            Self::Int(value) => Static::Int(*value).to_string(),
            Self::Float(value) => Static::Float(*value).to_string(),
            Self::Str(text) => Static::Str(text.as_str().into()).to_string(),
            _ => String::new(),
        }
    }

    pub(super) fn is_true(&self) -> bool {
        *self == Self::Bool(true)
    }

    pub(super) fn is_nil(&self) -> bool {
        *self == Self::Nil
    }

    /// Ints and durations.
    fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(value) | Self::Duration(value) => Some(*value),
            _ => None,
        }
    }

    /// Any number.
    pub(super) fn as_float(&self) -> Option<f64> {
        match self {
            Self::Float(value) => Some(*value),
            other => other.as_int().map(|value| value as f64),
        }
    }

    /// Equal in value and type, `NaN` included: whether two spans fall into one group.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Float(a), Self::Float(b)) => a.to_bits() == b.to_bits(),
            (Self::Array(a), Self::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.is_same(b)),
            _ => self == other,
        }
    }
}

fn kind_of(datum: &Datum) -> std::mem::Discriminant<Datum> {
    std::mem::discriminant(datum)
}

/// Whether the comparison holds. An absent operand, or types that do not fit: it does not.
pub(super) fn compare(op: BinaryOp, left: &Datum, right: &Datum) -> bool {
    let is_negative = matches!(op, BinaryOp::Ne | BinaryOp::NotRegex);
    match (left, right) {
        (Datum::Array(_), Datum::Array(_)) => false,
        (Datum::Array(items), right) if is_negative => items.iter().all(|item| compare(op, item, right)),
        (Datum::Array(items), right) => items.iter().any(|item| compare(op, item, right)),
        (left, Datum::Array(items)) if is_negative => items.iter().all(|item| compare(op, left, item)),
        (left, Datum::Array(items)) => items.iter().any(|item| compare(op, left, item)),
        (Datum::Str(text), Datum::Str(pattern)) if op.is_regex() => {
            let regex = spoor_traceql::re2::anchored(pattern).expect("checked before");
            regex.is_match(text) == (op == BinaryOp::Regex)
        }
        (Datum::Str(a), Datum::Str(b)) => holds(op, Some(a.as_bytes().cmp(b.as_bytes()))),
        (Datum::Bool(a), Datum::Bool(b)) => holds_unordered(op, a == b),
        (Datum::Status(a), Datum::Status(b)) => holds_unordered(op, a == b),
        (Datum::Kind(a), Datum::Kind(b)) => holds_unordered(op, a == b),
        (left, right) => match (left.as_int(), right.as_int(), left.as_float(), right.as_float()) {
            (Some(a), Some(b), ..) => holds(op, Some(a.cmp(&b))),
            (_, _, Some(a), Some(b)) => holds(op, a.partial_cmp(&b)),
            _ => false,
        },
    }
}

fn holds_unordered(op: BinaryOp, is_equal: bool) -> bool {
    op == BinaryOp::Eq && is_equal || op == BinaryOp::Ne && !is_equal
}

/// `None`: one of the two is not a number.
fn holds(op: BinaryOp, ordering: Option<Ordering>) -> bool {
    match op {
        BinaryOp::Eq => ordering == Some(Ordering::Equal),
        BinaryOp::Ne => ordering != Some(Ordering::Equal),
        BinaryOp::Lt => ordering == Some(Ordering::Less),
        BinaryOp::Le => matches!(ordering, Some(Ordering::Less | Ordering::Equal)),
        BinaryOp::Gt => ordering == Some(Ordering::Greater),
        BinaryOp::Ge => matches!(ordering, Some(Ordering::Greater | Ordering::Equal)),
        _ => false,
    }
}

/// Arithmetic; nil when an operand is not a number, or an int is divided by 0.
pub(super) fn arithmetic(op: BinaryOp, left: &Datum, right: &Datum) -> Datum {
    if let (Some(a), Some(b)) = (left.as_int(), right.as_int()) {
        if b == 0 && matches!(op, BinaryOp::Div | BinaryOp::Mod) {
            return Datum::Nil;
        }
        let is_duration = matches!(left, Datum::Duration(_)) || matches!(right, Datum::Duration(_));
        return match int_arithmetic(op, a, b) {
            Some(nanos) if is_duration && op != BinaryOp::Div => Datum::Duration(nanos),
            Some(int) => Datum::Int(int),
            None => Datum::Float(float_arithmetic(op, a as f64, b as f64)),
        };
    }
    match (left.as_float(), right.as_float()) {
        (Some(a), Some(b)) => Datum::Float(float_arithmetic(op, a, b)),
        _ => Datum::Nil,
    }
}

/// `None`: the result is no 64-bit integer.
fn int_arithmetic(op: BinaryOp, a: i64, b: i64) -> Option<i64> {
    match op {
        BinaryOp::Add => a.checked_add(b),
        BinaryOp::Sub => a.checked_sub(b),
        BinaryOp::Mul => a.checked_mul(b),
        BinaryOp::Div => a.checked_div(b),
        BinaryOp::Mod => Some(a.wrapping_rem(b)),
        BinaryOp::Pow => a.checked_pow(u32::try_from(b).ok()?),
        _ => None,
    }
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
