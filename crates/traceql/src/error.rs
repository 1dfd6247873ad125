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

/// How much of a pattern an error repeats.
const PATTERN_CHARS_MAX: usize = 200;

impl PlanError {
    /// A pattern that is no regular expression, and why.
    pub(crate) fn regex(pattern: &str, pos: Pos, reason: &str) -> Self {
        let begin: String = pattern.chars().take(PATTERN_CHARS_MAX).collect();
        let dots = if begin.len() < pattern.len() { "..." } else { "" };
        Self::Invalid { pos, message: format!("{begin:?}{dots} is not a regular expression: {reason}") }
    }
}
