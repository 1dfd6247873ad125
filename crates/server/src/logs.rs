//! Log lines, on stderr.
//!
//! A log that cannot be written (`spoor 2>&1 | head` closes the pipe, a disk is full) stops nothing: its lines are lost.

use std::io::{self, IsTerminal, Write};
use std::panic::PanicHookInfo;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{LogFormat, LogLevel};

/// Turns logs on, for the whole process and once.
pub(crate) fn start(format: LogFormat, level: LogLevel) {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    };
    // What the subscriber says of its own failures it says by `eprintln!`, which panics where stderr is closed.
    let lines = tracing_subscriber::fmt().log_internal_errors(false).with_writer(Stderr::new).with_max_level(level);
    let told = targets(level);
    match format {
        LogFormat::Text => lines.with_target(false).with_ansi(io::stderr().is_terminal()).finish().with(told).init(),
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true).with_current_span(false).with_span_list(false);
            lines.finish().with(told).init();
        }
    }
    std::panic::set_hook(Box::new(log_panic));
}

/// Who may say how much.
fn targets(level: LevelFilter) -> Targets {
    // It tells of every single repetition, and not of what and where: our own line per outage does.
    let object_store = if level < LevelFilter::DEBUG { level.min(LevelFilter::WARN) } else { level };
    Targets::new().with_default(level).with_target("object_store", object_store)
}

/// Stderr as far as it takes lines.
struct Stderr(io::Stderr);

impl Stderr {
    fn new() -> Self {
        Self(io::stderr())
    }
}

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // The caller's only answer to an error would be to say so, on stderr.
        let _ = self.0.write_all(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A panic ends the request or the thread that it happens in. Whoever waits for that says what it
/// means; here it is told where it happened.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let message = panic.payload_as_str().unwrap_or("no message");
    let location = panic.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
    tracing::error!(message, location, thread, "panic: this is a defect, please report it");
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::filter::LevelFilter;

    use super::targets;

    #[test]
    fn repetitions_of_requests_are_told_to_whoever_looks_for_a_defect() {
        let would_tell = |of: LevelFilter, target: &str| targets(of).would_enable(target, &tracing::Level::INFO);
        for (level, ours, theirs) in [
            (LevelFilter::ERROR, false, false),
            (LevelFilter::WARN, false, false),
            (LevelFilter::INFO, true, false),
            (LevelFilter::DEBUG, true, true),
        ] {
            let told =
                (would_tell(level, "spoor_compactor::objects"), would_tell(level, "object_store::client::retry"));
            assert_eq!(told, (ours, theirs), "{level}");
        }
        let may_warn = |of: LevelFilter| targets(of).would_enable("object_store", &tracing::Level::WARN);
        assert!(may_warn(LevelFilter::INFO) && !may_warn(LevelFilter::ERROR));
    }
}
