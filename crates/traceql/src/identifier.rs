//! Names of attributes and intrinsics that stand alone, as in `/api/v2/search/tag/{name}/values`.

use std::sync::Arc;

use spoor_model::scan::Field;

use crate::ast::{Attribute, Intrinsic, Pos};
use crate::lexer::ParseError;
use crate::parser::Parser;

/// Why a text does not name a value of a span.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("failed to parse identifier {text}: {source}")]
pub struct IdentifierError {
    /// The whole text.
    pub text: String,
    /// What is wrong with it. Places count the brace that Tempo's clients see before the text.
    pub source: ParseError,
}

/// Reads one attribute (`resource.service.name`, `.a`, `span."with space"`) or intrinsic.
pub fn parse_identifier(text: &str) -> Result<Attribute, IdentifierError> {
    // Clients test for the column that a filter around the text gives, so there is one.
    Parser::new(&format!("{{{text}}}"))
        .and_then(Parser::lone_attribute)
        .map_err(|source| IdentifierError { text: text.to_owned(), source })
}

/// Like [`parse_identifier`], for those that a scan can look at.
pub fn parse_attribute(text: &str) -> Result<Field, IdentifierError> {
    let attribute = parse_identifier(text)?;
    attribute.field().ok_or_else(|| IdentifierError {
        text: text.to_owned(),
        source: ParseError { pos: Pos { line: 1, column: 2 }, message: format!("{attribute} is not supported yet") },
    })
}

impl Attribute {
    /// What a scan looks at for this, `None` for what it cannot look at: the parent's values, and
    /// intrinsics that need the whole trace.
    pub fn field(&self) -> Option<Field> {
        let intrinsic = match self {
            Self::Named(scope, name) => return Some(Field::Attribute(*scope, Arc::clone(name))),
            Self::OfParent(..) => return None,
            Self::Intrinsic(intrinsic) => intrinsic,
        };
        match intrinsic {
            Intrinsic::Name => Some(Field::Name),
            Intrinsic::Duration => Some(Field::Duration),
            Intrinsic::Status => Some(Field::Status),
            Intrinsic::StatusMessage => Some(Field::StatusMessage),
            Intrinsic::Kind => Some(Field::Kind),
            Intrinsic::SpanId => Some(Field::SpanId),
            Intrinsic::ParentId => Some(Field::ParentSpanId),
            Intrinsic::TraceId => Some(Field::TraceId),
            Intrinsic::EventName => Some(Field::EventName),
            Intrinsic::InstrumentationName => Some(Field::InstrumentationName),
            Intrinsic::InstrumentationVersion => Some(Field::InstrumentationVersion),
            Intrinsic::EventTimeSinceStart => Some(Field::EventTimeSinceStart),
            Intrinsic::LinkTraceId => Some(Field::LinkTraceId),
            Intrinsic::LinkSpanId => Some(Field::LinkSpanId),
            Intrinsic::ChildCount
            | Intrinsic::TraceDuration
            | Intrinsic::RootName
            | Intrinsic::RootServiceName
            | Intrinsic::NestedSetLeft
            | Intrinsic::NestedSetRight
            | Intrinsic::NestedSetParent
            | Intrinsic::Parent => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: &str) {
        let got = match parse_attribute(text) {
            Ok(field) => format!("{field:?}"),
            Err(error) => error.to_string(),
        };
        assert_eq!(got, expect);
    }

    #[test]
    fn identifiers_are_attributes_or_intrinsics() {
        check("resource.service.name", r#"Attribute(Resource, "service.name")"#);
        check(".foo", r#"Attribute(Any, "foo")"#);
        check("span.\"with space\"", r#"Attribute(Span, "with space")"#);
        check("span.a:b/c-d", r#"Attribute(Span, "a:b/c-d")"#);
        check("name", "Name");
        check("event:name", "EventName");
    }

    #[test]
    fn what_is_no_identifier_is_named_with_its_place() {
        let unknown = "failed to parse identifier app.user.id: parse error at line 1, col 2: unknown identifier: app";
        check("app.user.id", unknown);
        check(
            "span.a = 1",
            "failed to parse identifier span.a = 1: parse error at line 1, col 9: unexpected \"=\", expected \"}\"",
        );
        check(
            "",
            "failed to parse identifier : parse error at line 1, col 2: unexpected \"}\", \
             expected an attribute or an intrinsic",
        );
        check(
            "rootName",
            "failed to parse identifier rootName: parse error at line 1, col 2: rootName is not supported yet",
        );
    }
}
