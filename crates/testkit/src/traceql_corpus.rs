//! The TraceQL corpus: a small text language that says what traces there are, what is asked and what
//! is answered. `tests/corpus/traceql/README.md` describes it.
//!
//! ```text
//!   text --read--> loads and cases --run--> Engine --answers--> compare --> failures, all of a file
//! ```
//!
//! Every engine answers the same files: the oracle first, then what the product is made of.

mod cases;
mod check;
mod line;
mod loads;

use spoor_model::SpanEntry;

use crate::answer::{FoundTrace, Series, Window};
use crate::oracle::Oracle;

/// The instant that `at`, `from` and `to` count from: 2026-01-01T00:00:00Z, in nanoseconds.
pub const T0: u64 = 1_767_225_600_000_000_000;

/// Data, and what is asked of it.
#[derive(Debug)]
pub struct Load {
    /// In the order of the file; a span that was exported twice is there twice.
    pub entries: Vec<SpanEntry>,
    /// In the order of the file.
    pub cases: Vec<Case>,
}

/// One question.
#[derive(Debug)]
pub struct Case {
    /// Where it stands, counted from 1.
    pub line: usize,
    /// What is asked.
    pub query: String,
    /// What is answered.
    pub expected: Expected,
}

/// What an engine must answer.
#[derive(Debug)]
pub enum Expected {
    /// `eval`: these traces.
    Traces(Vec<cases::ExpectedTrace>),
    /// `shown`: these attributes per span.
    Shown(Vec<cases::ShownTrace>),
    /// `metrics`: these series.
    Range(Window, Vec<Series>),
    /// `instant`: these series of one point.
    Instant(Window, Vec<Series>),
    /// `fail`: a refusal of the search.
    Refusal(cases::Refusal),
    /// `failmetrics`: a refusal of the metrics query.
    MetricsRefusal(cases::Refusal),
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Failure {
    /// The query is at fault; what a client would be told with status 400.
    Refused(String),
    /// The engine is.
    Broken(String),
}

/// What answers queries. Answers may come in any order.
pub trait Engine {
    /// Holds these spans, and no others.
    fn load(&mut self, entries: &[SpanEntry]) -> Result<(), String>;

    /// Whether the values of a search's attributes have their types, always. Otherwise texts may stand for them.
    fn has_types(&self) -> bool {
        true
    }

    /// All traces that match, with all matching spans.
    fn search(&mut self, query: &str) -> Result<Vec<FoundTrace>, Failure>;

    /// A range query. Series without any point may be left out.
    fn metrics(&mut self, query: &str, window: Window) -> Result<Vec<Series>, Failure>;

    /// An instant query.
    fn instant(&mut self, query: &str, window: Window) -> Result<Vec<Series>, Failure>;
}

/// Reads a file of the corpus; errors name the line.
pub fn read(text: &str) -> Result<Vec<Load>, String> {
    let mut loads: Vec<Load> = Vec::new();
    let mut lines = line::Lines::of(text);
    while let Some(line) = lines.next_line() {
        let at_line = |message: String| format!("{}: {message}", line.number);
        match line.text.split_once(' ').unwrap_or((&line.text, "")) {
            ("load", _) => {
                let entries = loads::entries(&mut lines)?;
                loads.push(Load { entries, cases: Vec::new() });
            }
            (word, rest) => {
                let load = loads.last_mut().ok_or_else(|| at_line("a case before any load".into()))?;
                load.cases.push(cases::case(line.number, word, rest, &mut lines).map_err(at_line)?);
            }
        }
    }
    Ok(loads)
}

/// Asks an engine everything in a file, `name` being what failures call it. Returns how many cases
/// there were, or all failures.
pub fn run(name: &str, text: &str, engine: &mut dyn Engine) -> Result<usize, String> {
    let loads = read(text).map_err(|error| format!("{name}:{error}"))?;
    let mut failures = Vec::new();
    let mut count = 0;
    for load in &loads {
        if let Err(error) = engine.load(&load.entries) {
            failures.push(format!("{name}: a load failed: {error}"));
            continue;
        }
        for case in &load.cases {
            count += 1;
            if let Err(difference) = check::check(case, engine) {
                failures.push(format!("{name}:{}: {}\n{difference}", case.line, case.query));
            }
        }
    }
    match failures.len() {
        0 => Ok(count),
        failed => Err(format!("{}\n{failed} of {count} cases failed", failures.join("\n"))),
    }
}

/// The oracle, behind the parser and the type check.
#[derive(Debug)]
pub struct OracleEngine(Oracle);

impl Default for OracleEngine {
    fn default() -> Self {
        Self(Oracle::new(Vec::new()))
    }
}

impl OracleEngine {
    fn query(text: &str) -> Result<spoor_traceql::Query, Failure> {
        let query = spoor_traceql::parse(text).map_err(|error| Failure::Refused(error.to_string()))?;
        spoor_traceql::check(&query).map_err(|error| Failure::Refused(error.to_string()))?;
        Ok(query)
    }
}

impl Engine for OracleEngine {
    fn load(&mut self, entries: &[SpanEntry]) -> Result<(), String> {
        self.0 = Oracle::new(entries.to_vec());
        Ok(())
    }

    fn search(&mut self, query: &str) -> Result<Vec<FoundTrace>, Failure> {
        self.0.search(&Self::query(query)?).map_err(Failure::Refused)
    }

    fn metrics(&mut self, query: &str, window: Window) -> Result<Vec<Series>, Failure> {
        self.0.metrics(&Self::query(query)?, window).map_err(Failure::Refused)
    }

    fn instant(&mut self, query: &str, window: Window) -> Result<Vec<Series>, Failure> {
        self.metrics(query, window)
    }
}

#[cfg(test)]
mod tests;
