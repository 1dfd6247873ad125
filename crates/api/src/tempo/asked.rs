//! What a text asks for, and where it is wrong: for those who show it to a person before they send it.

use spoor_model::TraceId;
use spoor_traceql::ast::{Body, Pos};

/// Which of Tempo's routes answers a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// It is a trace id.
    Trace(TraceId),
    /// It finds traces.
    Search,
    /// It computes series.
    Metrics,
}

/// Why a text is no query, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// In the words of the API.
    pub message: String,
    /// Counted from 1.
    pub line: u32,
    /// In characters, counted from 1.
    pub column: u32,
}

/// Reads a text and checks its types. As in Grafana, hex digits alone are a trace id.
pub fn asked(text: &str) -> Result<Asked, Mistake> {
    if let Ok(id) = TraceId::from_hex(text) {
        return Ok(Asked::Trace(id));
    }
    let mistake = |pos: Pos, err: &dyn std::fmt::Display| Mistake {
        message: super::limits::invalid_query(err).message,
        line: pos.line,
        column: pos.column,
    };
    let query = spoor_traceql::parse(text).map_err(|err| mistake(err.pos, &err))?;
    spoor_traceql::check(&query).map_err(|err| mistake(err.pos, &err))?;
    match &query.body {
        Body::Search(_) => Ok(Asked::Search),
        Body::Metrics(_) => Ok(Asked::Metrics),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_told_apart() {
        assert!(matches!(asked("abc123"), Ok(Asked::Trace(_))));
        assert_eq!(asked("{ span.a = 1 }"), Ok(Asked::Search));
        assert_eq!(asked("{ span.a = 1 } | rate()"), Ok(Asked::Metrics));
    }

    #[test]
    fn mistakes_have_their_place() {
        let mistake = asked("{ span.a = }").unwrap_err();
        assert_eq!((mistake.line, mistake.column), (1, 12));
        assert!(mistake.message.starts_with("invalid TraceQL query: parse error at line 1, col 12"), "{mistake:?}");
        let mistake = asked("{ true &&\n duration = \"x\" }").unwrap_err();
        assert_eq!(mistake.line, 2);
    }
}
