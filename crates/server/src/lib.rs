//! What makes the crates one process: configuration, lifecycle, ports, logs and own metrics.
//!
//! ```text
//!   cli --> config --> node: ports, pools, ingester, distributor, querier, api routers, life of blocks
//!                        |
//!                        +-- until SIGTERM or SIGINT; then in reverse order
//! ```
//!
//! **Invariant:** no other crate reads configuration, the environment, signals or the system's clock.

#![warn(clippy::print_stderr)]

use std::io::Write;
use std::process::ExitCode;

mod at_rest;
mod block_life;
pub mod build_info;
mod cli;
mod clock;
pub mod config;
mod late;
mod listener;
mod logs;
mod metrics;
mod node;
mod parts;
mod process;
mod query;
mod storage;
mod tls;
mod tools;
mod welcome;

pub use block_life::Owner;
pub use storage::{Shared, Terms};

use cli::Invocation;
use config::Config;

// RocksDB keeps the system's allocator for its own memory; this one is for everything of ours.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What a shell expects of a command that was called wrongly or cannot start.
const EXIT_USAGE: u8 = 2;

/// The program. Returns when everything that was acknowledged is in blocks, or says why it cannot
/// start in one line on stderr.
pub fn main() -> ExitCode {
    let outcome = cli::parse(std::env::args_os(), utf8_variables()).map_err(|err| err.to_string()).and_then(run);
    match outcome {
        Ok(code) => code,
        Err(line) => {
            say(&format!("spoor: {line}"));
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn run(invocation: Invocation) -> Result<ExitCode, String> {
    match invocation {
        Invocation::Print(text) => print(&text),
        Invocation::PrintReference => print(&config::reference()),
        Invocation::CheckConfig(raw, warnings) => {
            let config = Config::new(&raw).map_err(|err| err.to_string())?;
            print(
                &warnings
                    .iter()
                    .chain(&config.warnings())
                    .map(|warning| format!("warning: {warning}\n"))
                    .collect::<String>(),
            )?;
            print("the configuration is valid\n")
        }
        Invocation::Query(arguments) => query::run(&arguments),
        Invocation::Blocks(arguments) => tools::blocks::run(&arguments),
        Invocation::Export(arguments) => tools::export::run(&arguments),
        Invocation::Import(arguments) => tools::import::run(&arguments),
        Invocation::Serve(raw, warnings) => {
            let config = Config::new(&raw).map_err(|err| err.to_string())?;
            logs::start(config.log_format, config.log_level);
            warnings.iter().chain(&config.warnings()).for_each(|warning| tracing::warn!("{warning}"));
            node::run(&config)
        }
    }
}

/// Writes a text to stdout. That nobody reads it is fine: `spoor --help | head` closes the pipe.
fn print(text: &str) -> Result<ExitCode, String> {
    is_read(text).map(|_| ExitCode::SUCCESS)
}

/// Writes a text to stdout; whether somebody still reads there.
fn is_read(text: &str) -> Result<bool, String> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => Ok(true),
        Err(err) if err.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(err) => Err(format!("stdout: {err}")),
    }
}

/// Writes a line to stderr. Nobody is left to tell when that is closed, which `eprintln!` would end the process for.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn utf8_variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, text)| Some((name.into_string().ok()?, text.into_string().ok()?)))
}
