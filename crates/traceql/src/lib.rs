//! TraceQL: from a query's text to what sources are asked, and from their columns to answers.
//!
//! ```text
//!   text --lexer--> tokens --parser--> Query --check--> types agree --plan--> SearchPlan, MetricsPlan
//!                                       (ast)                                  |             ^
//!                                                          ColumnRequest  <----+             | ColumnBatch
//! ```
//!
//! [`parse()`] knows the whole language as Tempo 3.1 documents it; [`check()`] refuses what can mean nothing;
//! [`plan_search`] and [`plan_metrics`] say what to ask of [`spoor_model::scan`] and evaluate what comes back, batch
//! by batch. There is one evaluator, on columns; whole traces are turned into columns for it.
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
pub use search::{MatchedSpanset, SearchPlan, Shown, TraceMatches, plan_search};
