//! TraceQL: from a query's text to what a scan can be asked.
//!
//! ```text
//!   text --lexer--> tokens --parser--> Query --check--> types agree --plan--> SpanFilter
//!                                       (ast)                                 (model::scan)
//! ```
//!
//! [`parse()`] knows the whole language as Tempo 3.1 documents it; [`plan()`] turns the part of it that
//! can be evaluated into predicates of [`spoor_model::scan`] and says of the rest, with its place
//! in the text, that it is not supported yet.
//!
//! **Invariant:** no IO and no clock; every function here is pure.
//! **Invariant:** nothing here has heard of Parquet, heads or blocks.
//! **Invariant:** no text, however long or odd, makes these functions panic or recurse deeper than
//! [`NESTING_MAX`].

pub mod ast;
mod check;
mod compute;
mod engine;
mod error;
mod fold;
mod identifier;
mod lenient;
mod lexer;
mod metrics;
mod number;
mod parser;
mod plan;
pub mod re2;
mod search;
mod suggest;

pub use ast::{Attribute, Intrinsic, Query, Static};
pub use check::{TypeError, check};
pub use error::PlanError;
pub use identifier::{IdentifierError, parse_attribute, parse_identifier};
pub use lenient::{LenientFilter, lenient_filter};
pub use lexer::ParseError;
pub use metrics::{Exemplar, Label, MetricsOperand, MetricsPlan, Partial, Series, Window, plan_metrics};
pub use parser::{NESTING_MAX, REGEXES_MAX, parse};
pub use plan::{SpanFilter, Spanset, plan};
pub use search::{MatchedSpanset, SearchPlan, Shown, TraceMatches, plan_search};
