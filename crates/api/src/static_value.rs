//! Values of TraceQL as protobuf's `AnyValue`, scalars only: Grafana's plugin panics on others.

use spoor_model::Value;
use spoor_traceql::Static;

use crate::{go_duration, value_text};

/// The scalar that stands for a value; `None` for nil. Keywords are their word, durations have Go's form,
/// arrays, maps and bytes are compact JSON.
pub(crate) fn scalar(value: &Static) -> Option<Value> {
    Some(match value {
        Static::Nil => return None,
        Static::Bool(flag) => Value::Bool(*flag),
        Static::Int(int) => Value::Int(*int),
        Static::Float(float) => Value::Double(*float),
        Static::Str(text) => Value::Str(text.to_string()),
        Static::Duration(nanos) => Value::Str(go_duration::format_signed(*nanos)),
        // As the language writes them.
        Static::Status(_) | Static::Kind(_) => Value::Str(value.to_string()),
        Static::Array(items) => Value::Str(value_text::plain(&Value::Array(items.iter().filter_map(scalar).collect()))),
        Static::Opaque(value) => Value::Str(value_text::plain(value)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_becomes_a_scalar() {
        for (value, expected) in [
            (Static::Int(3), Value::Int(3)),
            (Static::Duration(1_500_000_000), Value::Str("1.5s".into())),
            (Static::Status(2), Value::Str("error".into())),
            (Static::Kind(2), Value::Str("server".into())),
            (
                Static::Array([Static::Str("a".into()), Static::Str("b".into())].into()),
                Value::Str("[\"a\",\"b\"]".into()),
            ),
        ] {
            assert_eq!(scalar(&value), Some(expected), "{value}");
        }
        assert_eq!(scalar(&Static::Nil), None);
    }
}
