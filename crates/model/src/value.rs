//! Attribute values, as OTLP has them.

/// One attribute value. Equality is of content: doubles compare by their bits, so `NaN` equals
/// itself and an exact copy of a span is found to be one.
#[derive(Clone, Debug, Default)]
pub enum Value {
    /// A value with no arm set.
    #[default]
    Empty,
    /// UTF-8 text.
    Str(String),
    /// Boolean.
    Bool(bool),
    /// 64-bit signed integer.
    Int(i64),
    /// 64-bit float.
    Double(f64),
    /// Raw bytes.
    Bytes(Vec<u8>),
    /// A list, of mixed types perhaps.
    Array(Vec<Value>),
    /// A map, in the order sent; keys may repeat.
    Map(Vec<KeyValue>),
}

/// One attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The attribute's name.
    pub key: String,
    /// Its value.
    pub value: Value,
}

impl KeyValue {
    /// An attribute.
    pub fn new(key: impl Into<String>, value: Value) -> Self {
        Self { key: key.into(), value }
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Empty, Self::Empty) => true,
            (Self::Str(a), Self::Str(b)) => a == b,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Int(a), Self::Int(b)) => a == b,
            (Self::Double(a), Self::Double(b)) => a.to_bits() == b.to_bits(),
            (Self::Bytes(a), Self::Bytes(b)) => a == b,
            (Self::Array(a), Self::Array(b)) => a == b,
            (Self::Map(a), Self::Map(b)) => a == b,
            _ => false,
        }
    }
}

impl Eq for Value {}

impl Value {
    /// The text, when this is text.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(text) => Some(text),
            _ => None,
        }
    }
}

/// The first attribute of that name.
pub fn find<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a Value> {
    attributes.iter().find(|attribute| attribute.key == key).map(|attribute| &attribute.value)
}
