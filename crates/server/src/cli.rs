//! The command line: what to do, and the settings given on the way.
//!
//! Flags are made from the table of settings, so that a new key is a flag at once.

use std::collections::BTreeSet;
use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::build_info;
use crate::config::{ConfigError, RawConfig, SETTINGS, Setting};
use crate::query::{self, QueryArguments};
use crate::tools;
use crate::tools::blocks::BlocksArguments;
use crate::tools::export::ExportArguments;
use crate::tools::import::ImportArguments;

/// What the process was started for.
#[derive(Debug)]
pub(crate) enum Invocation {
    /// Run until told to stop.
    Serve(RawConfig, Warnings),
    /// Read the configuration, say what is wrong with it.
    CheckConfig(RawConfig, Warnings),
    /// Ask a running process, or a directory at rest.
    Query(Box<QueryArguments>),
    /// Look at blocks.
    Blocks(Box<BlocksArguments>),
    /// Write traces to files.
    Export(Box<ExportArguments>),
    /// Read traces from files.
    Import(Box<ImportArguments>),
    /// Print the reference of all settings.
    PrintReference,
    /// Print this (help, version) and leave.
    Print(String),
}

/// What to tell the user once logs are on.
pub(crate) type Warnings = Vec<String>;

/// Why there is nothing to do. Written as one line.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UsageError {
    /// The words make no sense.
    #[error("{0}")]
    Arguments(String),
    /// A setting makes no sense.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// Reads the command line (first item: the program) and the environment.
pub(crate) fn parse(
    arguments: impl Iterator<Item = OsString>,
    variables: impl Iterator<Item = (String, String)>,
) -> Result<Invocation, UsageError> {
    let matches = match command().try_get_matches_from(with_joined_switches(arguments)) {
        Ok(matches) => matches,
        Err(err) if matches!(err.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            return Ok(Invocation::Print(err.render().to_string()));
        }
        Err(err) => return Err(UsageError::Arguments(one_line(&err))),
    };
    match matches.subcommand() {
        None => settings_of(&matches, variables).map(|(raw, warnings)| Invocation::Serve(raw, warnings)),
        Some(("config", config)) => match config.subcommand() {
            Some(("reference", _)) => Ok(Invocation::PrintReference),
            Some((_, check)) => {
                settings_of(check, variables).map(|(raw, warnings)| Invocation::CheckConfig(raw, warnings))
            }
            None => Err(UsageError::Arguments("`spoor config` needs `check` or `reference`".to_owned())),
        },
        Some(("query", asked)) => {
            let arguments = query::read(asked, at_rest(asked, variables)?).map_err(UsageError::Arguments)?;
            Ok(Invocation::Query(Box::new(arguments)))
        }
        Some(("blocks", asked)) => {
            let (raw, _) = settings_of(asked.subcommand().map_or(asked, |(_, inner)| inner), variables)?;
            let arguments = tools::blocks::read(asked, raw).map_err(UsageError::Arguments)?;
            Ok(Invocation::Blocks(Box::new(arguments)))
        }
        Some(("export", asked)) => {
            let arguments = tools::export::read(asked, at_rest(asked, variables)?).map_err(UsageError::Arguments)?;
            Ok(Invocation::Export(Box::new(arguments)))
        }
        Some(("import", asked)) => Ok(Invocation::Import(Box::new(tools::import::read(asked)))),
        Some((_, serve)) => settings_of(serve, variables).map(|(raw, warnings)| Invocation::Serve(raw, warnings)),
    }
}

/// The configuration of the directory to read, when one was named.
fn at_rest(
    asked: &ArgMatches,
    variables: impl Iterator<Item = (String, String)>,
) -> Result<Option<RawConfig>, UsageError> {
    match query::is_at_rest(asked) {
        true => Ok(Some(settings_of(asked, variables)?.0)),
        false => Ok(None),
    }
}

fn settings_of(
    matches: &ArgMatches,
    variables: impl Iterator<Item = (String, String)>,
) -> Result<(RawConfig, Warnings), UsageError> {
    let (ours, others): (Vec<_>, Vec<_>) =
        variables.filter(|(name, _)| name.starts_with("SPOOR_")).partition(|(name, _)| name == "SPOOR_CONFIG");
    let mut raw = RawConfig::default();
    let flagged = matches.get_one::<String>("config_file").cloned();
    if let Some(path) = flagged.or_else(|| ours.into_iter().next().map(|(_, path)| path)) {
        let text = std::fs::read_to_string(&path)
            .map_err(|err| ConfigError::File { path: path.clone(), reason: err.to_string() })?;
        raw.set_from_yaml(&path, &text)?;
    }
    let warnings = raw.set_from_variables(others.into_iter());
    for setting in SETTINGS {
        if let Some(text) = matches.get_one::<String>(setting.key) {
            raw.set(setting, text.clone(), format!("--{}", setting.flag()));
        }
    }
    Ok((raw, warnings))
}

fn command() -> Command {
    let config_file = Arg::new("config_file")
        .long("config")
        .value_name("FILE")
        .global(true)
        .help("YAML file with settings [env: SPOOR_CONFIG]");
    let config = Command::new("config")
        .about("Works on the configuration and starts nothing")
        .subcommand_required(true)
        .subcommand(Command::new("check").about("Reads all settings and says what is wrong with them"))
        .subcommand(Command::new("reference").about("Prints every setting with its meaning, as Markdown"));
    Command::new("spoor")
        .about("Spoor stores distributed traces and answers the queries of Grafana, Tempo and Jaeger clients")
        .version(build_info::long())
        .disable_help_subcommand(true)
        .arg(config_file)
        .args(SETTINGS.iter().map(flag))
        .subcommand(Command::new("serve").about("Runs Spoor (what plain `spoor` does too)"))
        .subcommand(query::command())
        .subcommand(tools::blocks::command())
        .subcommand(tools::export::command())
        .subcommand(tools::import::command())
        .subcommand(config)
}

fn flag(setting: &'static Setting) -> Arg {
    let default = if setting.default.is_empty() { "none" } else { setting.default };
    let help = format!("{} [env: {}] [default: {default}]", setting.doc.trim(), setting.variable());
    let arg = Arg::new(setting.key).long(setting.flag()).global(true).action(ArgAction::Set).help(help);
    let arg = arg.help_heading(setting.section).allow_hyphen_values(true);
    match is_switch(setting) {
        true => arg.value_name("BOOL").num_args(0..=1).require_equals(true).default_missing_value("true"),
        false => arg.value_name(setting.kind.replace(", ", "|").replace(" or ", "|")),
    }
}

/// `--mcp true` as `--mcp=true`. Clap has no value that may be absent, yet is not the next word: `--mcp serve` must stay two.
fn with_joined_switches(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let switches: BTreeSet<OsString> = SETTINGS
        .iter()
        .filter(|setting| is_switch(setting))
        .map(|setting| format!("--{}", setting.flag()).into())
        .collect();
    let mut joined: Vec<OsString> = Vec::new();
    for word in arguments {
        match joined.last_mut() {
            Some(last) if (word == "true" || word == "false") && switches.contains(last) => {
                last.push("=");
                last.push(word);
            }
            _ => joined.push(word),
        }
    }
    joined
}

fn is_switch(setting: &Setting) -> bool {
    setting.kind == <bool as crate::config::Value>::KIND
}

/// Clap explains over several lines; people get one.
fn one_line(err: &clap::Error) -> String {
    let context = |kind| match err.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => texts.first().cloned(),
        _ => None,
    };
    let hint = |nearest: Option<String>| {
        nearest.map_or_else(|| ", see `spoor --help`".to_owned(), |nearest| format!(", did you mean `{nearest}`?"))
    };
    match err.kind() {
        ErrorKind::UnknownArgument => {
            let argument = context(ContextKind::InvalidArg).unwrap_or_default();
            format!("unknown argument `{argument}`{}", hint(context(ContextKind::SuggestedArg)))
        }
        ErrorKind::InvalidSubcommand => {
            let word = context(ContextKind::InvalidSubcommand).unwrap_or_default();
            format!("unknown command `{word}`{}", hint(context(ContextKind::SuggestedSubcommand)))
        }
        _ => {
            let text = err.render().to_string();
            let first = text.lines().next().unwrap_or_default();
            first.strip_prefix("error: ").unwrap_or(first).to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn run(line: &str) -> Result<Invocation, String> {
        let variables = [("SPOOR_QUERY_QUEUE".to_owned(), "7".to_owned())];
        parse(line.split(' ').map(OsString::from), variables.into_iter()).map_err(|err| err.to_string())
    }

    fn config_of(line: &str) -> Config {
        match run(line) {
            Ok(Invocation::Serve(raw, _) | Invocation::CheckConfig(raw, _)) => Config::new(&raw).unwrap(),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn plain_spoor_serves() {
        assert!(matches!(run("spoor"), Ok(Invocation::Serve(..))));
        assert!(matches!(run("spoor serve"), Ok(Invocation::Serve(..))));
        assert_eq!(config_of("spoor").query_queue, 7);
    }

    #[test]
    fn settings_may_stand_before_and_after_the_command() {
        for line in ["spoor --tempo-port 1", "spoor serve --tempo-port 1", "spoor --tempo-port=1 config check"] {
            assert_eq!(config_of(line).tempo_port, 1, "{line}");
        }
        assert!(config_of("spoor --multitenancy --tempo-port 1").multitenancy);
        assert!(!config_of("spoor --multitenancy=false").multitenancy);
    }

    #[test]
    fn a_switch_may_have_its_value_as_a_word_of_its_own() {
        let config = config_of("spoor --mcp true --multitenancy false --trace-deletion --tempo-port 1 config check");
        assert!(config.mcp && !config.multitenancy && config.trace_deletion);
        assert_eq!(config.tempo_port, 1);
        // Where no switch is before it, it is a word like any other.
        assert_eq!(run("spoor true").unwrap_err(), "unknown command `true`, see `spoor --help`");
    }

    #[test]
    fn usage_errors_are_one_line_that_helps() {
        for (line, expected) in [
            ("spoor --retenton 1h", "unknown argument `--retenton`, did you mean `--retention`?"),
            ("spoor sevre", "unknown command `sevre`, did you mean `serve`?"),
            ("spoor --config /no/such/file", "/no/such/file: No such file or directory (os error 2)"),
        ] {
            assert_eq!(run(line).unwrap_err(), expected);
        }
    }

    #[test]
    fn help_lists_every_setting() {
        let Ok(Invocation::Print(help)) = run("spoor --help") else { panic!("no help") };
        for setting in SETTINGS {
            assert!(help.contains(&setting.flag()) && help.contains(&setting.variable()), "{}", setting.key);
        }
    }
}
