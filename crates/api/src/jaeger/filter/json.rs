//! The JSON of a filter, which is protobuf's JSON of the messages: `{"op":"eq","args":[{"attr":{"key":"a"}},..]}`.

use serde::Deserialize;

use crate::proto::jaeger::expression::v1 as proto;
use proto::expression::Kind;

/// Reads a call. Nesting is bounded by the JSON reader (128 levels of brackets), before anything is built.
pub(super) fn call(text: &str) -> Result<proto::Call, String> {
    serde_json::from_str::<Call>(text).map(proto::Call::from).map_err(|err| err.to_string())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Call {
    #[serde(default)]
    op: String,
    #[serde(default)]
    args: Vec<Expression>,
}

/// Exactly one of these, as the only member of an object.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum Expression {
    Attr(Attribute),
    Field(Field),
    Nested(Nested),
    Scalar(Scalar),
    List(List),
    Call(Call),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Attribute {
    #[serde(default)]
    key: String,
    #[serde(default)]
    level: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Field {
    #[serde(default)]
    name: String,
    #[serde(default)]
    level: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nested {
    #[serde(default)]
    level: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Scalar {
    #[serde(default)]
    value: String,
    #[serde(default, rename = "type")]
    type_name: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    #[serde(default)]
    values: Vec<String>,
    #[serde(default, rename = "type")]
    type_name: String,
}

impl From<Call> for proto::Call {
    fn from(Call { op, args }: Call) -> Self {
        Self { op, args: args.into_iter().map(proto::Expression::from).collect() }
    }
}

impl From<Expression> for proto::Expression {
    fn from(expression: Expression) -> Self {
        let kind = match expression {
            Expression::Attr(Attribute { key, level }) => Kind::Attr(proto::Attribute { key, level }),
            Expression::Field(Field { name, level }) => Kind::Field(proto::Field { name, level }),
            Expression::Nested(Nested { level }) => Kind::Nested(proto::Nested { level }),
            Expression::Scalar(Scalar { value, type_name }) => Kind::Scalar(proto::Scalar { value, r#type: type_name }),
            Expression::List(List { values, type_name }) => Kind::List(proto::List { values, r#type: type_name }),
            Expression::Call(call) => Kind::Call(call.into()),
        };
        Self { kind: Some(kind) }
    }
}
