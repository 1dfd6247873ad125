//! The words behind `spoor query`.

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Command};
use spoor_model::UnixNano;

use super::Target;
use crate::config::RawConfig;

/// What to ask, whom, and how to show it.
#[derive(Debug, Clone)]
pub(crate) struct QueryArguments {
    /// TraceQL, or a trace id.
    pub(crate) text: String,
    pub(crate) target: Target,
    pub(crate) times: Times,
    pub(crate) limit: Option<u32>,
    /// Spans shown per spanset.
    pub(crate) spans_max: Option<u32>,
    /// As the API takes it.
    pub(crate) step: Option<String>,
    pub(crate) is_instant: bool,
    pub(crate) output: Option<Output>,
    pub(crate) explain: bool,
}

/// Of which time to ask; nothing given: what the API does then.
#[derive(Debug, Clone, Default)]
pub(crate) struct Times {
    /// As the API takes it: `1h`, `2d`.
    pub(crate) since: Option<String>,
    pub(crate) start: Option<UnixNano>,
    pub(crate) end: Option<UnixNano>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    Table,
    Json,
    Tree,
}

/// The subcommand. `--data-dir` and `--config` are those of all commands.
pub(crate) fn command() -> Command {
    let word = |id: &'static str, value: &'static str, help: &'static str| {
        Arg::new(id).long(id).value_name(value).help(help).help_heading("Query")
    };
    let number = |id, value, help| word(id, value, help).value_parser(clap::value_parser!(u32));
    let switch = |id, help| Arg::new(id).long(id).action(ArgAction::SetTrue).help(help).help_heading("Query");
    Command::new("query")
        .about("Asks a running Spoor, or with --data-dir a directory at rest, in TraceQL or by trace id")
        .arg(Arg::new("text").value_name("QUERY").required(true).help("A TraceQL query, or a trace id in hex"))
        .arg(word("url", "URL", "Where Spoor listens").default_value("http://127.0.0.1:3200"))
        .arg(word("tenant", "TENANT", "Whose spans; several are joined by |"))
        .arg(word("since", "DURATION", "From that long ago until now: 1h, 2d"))
        .arg(word("start", "TIME", "From then on: seconds since 1970, or 2026-01-02T15:04:05Z"))
        .arg(word("end", "TIME", "Up to then"))
        .arg(number("limit", "COUNT", "Traces that a search finds [default: 20]"))
        .arg(number("spss", "COUNT", "Matching spans shown of each spanset"))
        .arg(word("step", "DURATION", "Length of the intervals of a metrics query"))
        .arg(switch("instant", "One value per series for the whole range"))
        .arg(
            word("output", "FORM", "How to show the answer")
                .value_parser(PossibleValuesParser::new(["table", "json", "tree"])),
        )
        .arg(switch("explain", "Show how the query runs and what it reads, not what it finds"))
}

/// Whether a directory is asked. `--data-dir` counts only as a flag: a server's own environment should not turn
/// a question to it into one to its directory.
pub(crate) fn is_at_rest(matches: &ArgMatches) -> bool {
    matches.get_one::<String>("data_dir").is_some()
}

/// Reads what clap found.
pub(crate) fn read(matches: &ArgMatches, at_rest: Option<RawConfig>) -> Result<QueryArguments, String> {
    let word = |id: &str| matches.get_one::<String>(id).cloned();
    let time = |id: &str| match word(id) {
        None => Ok(None),
        Some(text) => match spoor_api::tempo::parse_time(&text) {
            Some(time) => Ok(Some(time)),
            None => Err(format!("--{id}: `{text}` is no time, such as 1767366245 or 2026-01-02T15:04:05Z")),
        },
    };
    Ok(QueryArguments {
        text: word("text").unwrap_or_default(),
        target: Target { url: word("url").unwrap_or_default(), at_rest, tenant: word("tenant") },
        times: Times { since: word("since"), start: time("start")?, end: time("end")? },
        limit: matches.get_one("limit").copied(),
        spans_max: matches.get_one("spss").copied(),
        step: word("step"),
        is_instant: matches.get_flag("instant"),
        output: word("output").map(|form| match form.as_str() {
            "json" => Output::Json,
            "tree" => Output::Tree,
            _ => Output::Table,
        }),
        explain: matches.get_flag("explain"),
    })
}
