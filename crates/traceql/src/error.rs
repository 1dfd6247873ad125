//! Why a query that parses cannot run.

use crate::ast::Pos;
use crate::check::TypeError;

/// Why a query cannot run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Its types do not agree.
    #[error(transparent)]
    Type(#[from] TypeError),
    /// A constant in it has no meaning.
    #[error("{pos}: {message}")]
    Invalid {
        /// Where.
        pos: Pos,
        /// What is wrong with it.
        message: String,
    },
}

impl PlanError {
    /// A pattern that is no regular expression, and why.
    pub(crate) fn regex(pattern: &str, pos: Pos, reason: &str) -> Self {
        Self::Invalid { pos, message: format!("{pattern:?} is not a regular expression: {reason}") }
    }
}
