//! Jaeger's structured filter (`jaeger.expression.v1`): a tree of calls that one span must satisfy.
//!
//! ```text
//!   query.filter --json--> Call --read--> Formula --plan--> Predicate, which every such span satisfies
//!   filter (protobuf) ---->                  |                 |
//!                                            |                 +-- says it all: sources decide
//!                                            +-- holds(span) <---- says less: whole spans are tested
//! ```
//!
//! What a tree means is said by Jaeger's RFC 0005, and in short:
//!
//! - A comparison of something that the span does not have is false, `ne` and `not_in` too; only `not` turns it round.
//! - An attribute without a level is one of the span or of its resource. Of several values (both have it, or a span has
//!   several events) one must compare; for `ne` and `not_in` one must be there, and none be equal.
//! - `some` is about one event or link: what its predicate says of that level holds for the same one.
//! - A value without a type is compared as whatever the stored value is: `500` equals the number and the text. Ordered,
//!   what reads like a number is one.

mod formula;
mod json;
mod read;
mod reference;

use std::sync::Arc;

use prost::Message;
use spoor_model::SpanEntry;
use spoor_model::scan::Predicate;
use spoor_querier::{Filter, SpanTest};

use self::formula::Formula;
use crate::proto::jaeger::expression::v1::Call;

/// Calls within calls, the outermost counted: Jaeger's own bound, and what recursion over a tree costs.
pub(crate) const DEPTH_MAX: usize = 20;

/// What references may name, as capabilities list it.
pub(crate) const LEVELS: [&str; 5] = ["span", "resource", "scope", "event", "link"];

/// What calls may do, as capabilities list it.
pub(crate) const OPERATORS: [&str; 14] =
    ["and", "or", "not", "eq", "ne", "gt", "lt", "gte", "lte", "regex", "exists", "in", "not_in", "some"];

/// Why a filter cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FilterError {
    /// It passes `query_max_bytes`.
    #[error("it is {bytes} bytes long, at most {max}; raise query_max_bytes")]
    TooLong { bytes: usize, max: usize },
    /// It says what a filter cannot.
    #[error("{0}")]
    Wrong(String),
}

/// A filter that was checked.
#[derive(Debug, Clone)]
pub(crate) struct StructuredFilter {
    formula: Formula,
    necessary: Predicate,
    is_exact: bool,
}

impl StructuredFilter {
    /// Reads the JSON of a call, of at most so many bytes.
    pub(crate) fn from_json(text: &str, bytes_max: usize) -> Result<Self, FilterError> {
        check_length(text.len(), bytes_max)?;
        Self::new(&json::call(text).map_err(FilterError::Wrong)?)
    }

    /// Reads a call that came as protobuf.
    pub(crate) fn from_call(call: &Call, bytes_max: usize) -> Result<Self, FilterError> {
        check_length(call.encoded_len(), bytes_max)?;
        Self::new(call)
    }

    fn new(call: &Call) -> Result<Self, FilterError> {
        let formula = read::formula(call).map_err(FilterError::Wrong)?;
        let (necessary, is_exact) = formula.plan();
        Ok(Self { formula, necessary, is_exact })
    }

    /// What to ask of the querier.
    pub(crate) fn to_filter(&self) -> Filter {
        match self.is_exact {
            true => Filter::Span(self.necessary.clone()),
            false => Filter::Test(Arc::new(self.clone())),
        }
    }
}

impl SpanTest for StructuredFilter {
    fn necessary(&self) -> Predicate {
        self.necessary.clone()
    }

    fn holds(&self, entry: &SpanEntry) -> bool {
        self.formula.holds(entry)
    }
}

fn check_length(bytes: usize, max: usize) -> Result<(), FilterError> {
    if bytes > max { Err(FilterError::TooLong { bytes, max }) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
