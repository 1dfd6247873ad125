//! Attribute values as one text, where a foreign form has no room for their type.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::ser::{Serialize, SerializeMap, Serializer};
use spoor_model::Value;

/// A text as it is; numbers and booleans in digits and words; bytes in base64; arrays and maps as
/// compact JSON; nothing for an empty value.
pub(crate) fn plain(value: &Value) -> String {
    match value {
        Value::Empty => String::new(),
        Value::Str(text) => text.clone(),
        Value::Bool(flag) => flag.to_string(),
        Value::Int(int) => int.to_string(),
        Value::Double(double) => shortest(*double),
        Value::Bytes(bytes) => STANDARD.encode(bytes),
        Value::Array(_) | Value::Map(_) => {
            serde_json::to_string(&Plain(value)).expect("values have text keys and no failing parts")
        }
    }
}

/// The shortest decimal that reads back as the same float; infinities as Go writes them.
pub(crate) fn shortest(double: f64) -> String {
    match double {
        f64::INFINITY => "+Inf".to_owned(),
        f64::NEG_INFINITY => "-Inf".to_owned(),
        double => double.to_string(),
    }
}

/// A value as the JSON a person would write.
pub(crate) struct Plain<'a>(pub(crate) &'a Value);

impl Serialize for Plain<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Empty => serializer.serialize_unit(),
            Value::Str(text) => serializer.serialize_str(text),
            Value::Bool(flag) => serializer.serialize_bool(*flag),
            Value::Int(int) => serializer.serialize_i64(*int),
            Value::Double(double) if double.is_finite() => serializer.serialize_f64(*double),
            Value::Double(double) => serializer.serialize_str(&shortest(*double)),
            Value::Bytes(bytes) => serializer.serialize_str(&STANDARD.encode(bytes)),
            Value::Array(values) => serializer.collect_seq(values.iter().map(Plain)),
            Value::Map(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for entry in entries {
                    map.serialize_entry(&entry.key, &Plain(&entry.value))?;
                }
                map.end()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spoor_model::KeyValue;

    #[test]
    fn nested_values_become_compact_json() {
        let map = Value::Map(vec![
            KeyValue::new("a", Value::Array(vec![Value::Str("p".into()), Value::Int(1), Value::Empty])),
            KeyValue::new("nan", Value::Double(f64::NAN)),
            KeyValue::new("b", Value::Bytes(vec![1, 2])),
        ]);
        assert_eq!(plain(&map), r#"{"a":["p",1,null],"nan":"NaN","b":"AQI="}"#);
    }

    #[test]
    fn scalars_become_their_text() {
        assert_eq!(plain(&Value::Double(0.5)), "0.5");
        assert_eq!(plain(&Value::Double(f64::NEG_INFINITY)), "-Inf");
        assert_eq!(plain(&Value::Bool(true)), "true");
        assert_eq!(plain(&Value::Empty), "");
    }
}
