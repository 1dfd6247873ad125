//! `spoor export`: traces as files that other tools read.
//!
//! A running server, or a directory at rest, hands over whole traces page by page (`/spoor/export`); pages are written as
//! they come, so any amount can be exported in little memory.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::json;
use sink::{Format, Sink};
use spoor_model::batch::SpanBatch;
use spoor_model::ingest::Decode;
use spoor_model::{SpanEntry, Trace, TraceId, UnixNano};
use spoor_otlp::OtlpDecoder;
use tokio::signal::unix::{SignalKind, signal};

use super::progress;
use crate::config::RawConfig;
use crate::query::{Target, TraceAnswer, Transport, escape};

mod sink;

/// What a shell expects of a command that was interrupted.
const EXIT_INTERRUPTED: u8 = 130;

/// What to export, from where, to where.
#[derive(Debug)]
pub(crate) struct ExportArguments {
    target: Target,
    trace: Option<TraceId>,
    /// Parameters of the API: `&since=1h`.
    times: String,
    format: Format,
    /// Standard output when there is none.
    output: Option<PathBuf>,
    as_json: bool,
}

/// The subcommand. `--data-dir` and `--config` are those of all commands.
pub(crate) fn command() -> Command {
    let word = |id: &'static str, value: &'static str, help: &'static str| {
        Arg::new(id).long(id).value_name(value).help(help).help_heading("Export")
    };
    Command::new("export")
        .about("Writes traces to a file, from a running Spoor or with --data-dir from a directory at rest")
        .arg(word("trace", "ID", "This trace only"))
        .arg(word("since", "DURATION", "Traces that began that long ago or later: 1h, 2d").conflicts_with("trace"))
        .arg(
            word("start", "TIME", "Traces that began then or later: seconds since 1970, or 2026-01-02T15:04:05Z")
                .conflicts_with_all(["trace", "since"]),
        )
        .arg(word("end", "TIME", "Traces that began before then").conflicts_with_all(["trace", "since"]))
        .arg(
            word("format", "FORM", "A line of OTLP JSON per trace; length-prefixed OTLP protobuf; or Parquet blocks")
                .value_parser(PossibleValuesParser::new(["otlp-json", "otlp-proto", "parquet"]))
                .default_value("otlp-json"),
        )
        .arg(
            word(
                "output",
                "PATH",
                "A file that does not exist yet, for parquet a directory [default: standard output]",
            )
            .short('o'),
        )
        .arg(word("url", "URL", "Where Spoor listens").default_value("http://127.0.0.1:3200"))
        .arg(word("tenant", "TENANT", "Whose traces"))
        .arg(
            Arg::new("json")
                .long("json")
                .action(ArgAction::SetTrue)
                .help("For scripts: say what was exported as JSON, on stdout, or on stderr where traces go to stdout")
                .help_heading("Export"),
        )
}

/// Reads what clap found.
pub(crate) fn read(matches: &ArgMatches, at_rest: Option<RawConfig>) -> Result<ExportArguments, String> {
    let word = |id: &str| matches.get_one::<String>(id).cloned();
    let trace =
        word("trace").map(|id| TraceId::from_hex(&id).map_err(|err| format!("--trace {id}: {err}"))).transpose()?;
    let format = match word("format").as_deref() {
        Some("otlp-proto") => Format::Protobuf,
        Some("parquet") => Format::Parquet,
        _ => Format::Json,
    };
    let output = word("output").filter(|path| path != "-").map(PathBuf::from);
    if format == Format::Parquet && output.is_none() {
        return Err("--format parquet needs --output with a directory".to_owned());
    }
    let target = Target { url: word("url").unwrap_or_default(), at_rest, tenant: word("tenant") };
    let times = times(word("since"), word("start"), word("end"))?;
    Ok(ExportArguments { target, trace, times, format, output, as_json: matches.get_flag("json") })
}

fn times(since: Option<String>, start: Option<String>, end: Option<String>) -> Result<String, String> {
    let time = |name: &str, text: Option<String>| match text {
        None => Ok(None),
        Some(text) => match spoor_api::tempo::parse_time(&text) {
            Some(time) => Ok(Some(time)),
            None => Err(format!("--{name}: `{text}` is no time, such as 1767366245 or 2026-01-02T15:04:05Z")),
        },
    };
    if let Some(since) = since {
        return Ok(format!("&since={}", escape(&since)));
    }
    let (start, end) = (time("start", start)?, time("end", end)?);
    Ok(match (start, end) {
        (None, None) => String::new(),
        // The API takes both or none; nothing begins before 1970 or after 2554.
        (start, end) => format!(
            "&start={}&end={}",
            nanos(start.unwrap_or(UnixNano(1_000_000_000_000))),
            nanos(end.unwrap_or(UnixNano(u64::MAX)))
        ),
    })
}

/// More than ten digits are read as nanoseconds.
fn nanos(time: UnixNano) -> u64 {
    time.0
}

/// Why an export ends before its end.
enum Stop {
    /// Nobody reads standard output any more, which is fine: `spoor export | head`.
    NobodyReads,
    /// By SIGINT, SIGTERM or SIGHUP.
    Interrupted,
    /// What was asked for is not there.
    Missing(String),
    Failed(String),
}

impl From<String> for Stop {
    fn from(reason: String) -> Self {
        Self::Failed(reason)
    }
}

/// Runs the command to its end. Unless that is reached, nothing is left of the output.
pub(crate) fn run(arguments: &ExportArguments) -> Result<ExitCode, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|err| format!("cannot start threads: {err}"))?;
    let exported = runtime.block_on(async {
        let interrupted = interrupted()?;
        let mut sink = Sink::open(arguments.format, arguments.output.as_deref(), arguments.target.tenant.as_deref())?;
        let missing = tokio::select! {
            missing = export(arguments, &mut sink) => missing?,
            stop = interrupted => return Err(stop),
        };
        Ok((missing, sink.finish()?))
    });
    match exported {
        Ok((missing, (traces, spans))) => {
            tell(arguments, &missing, traces, spans)?;
            Ok(if missing.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Err(Stop::NobodyReads) => Ok(ExitCode::SUCCESS),
        Err(Stop::Interrupted) => {
            crate::say("spoor: interrupted");
            Ok(ExitCode::from(EXIT_INTERRUPTED))
        }
        Err(Stop::Missing(what)) => {
            crate::say(&format!("spoor: {what}"));
            Ok(ExitCode::FAILURE)
        }
        Err(Stop::Failed(reason)) => Err(reason),
    }
}

/// Ends when a signal comes. From now on none ends the process.
fn interrupted() -> Result<impl Future<Output = Stop>, String> {
    let failed = |err| format!("cannot wait for signals: {err}");
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => Stop::Interrupted,
            _ = terminate.recv() => Stop::Interrupted,
            _ = hangup.recv() => Stop::Interrupted,
        }
    })
}

/// Says what was exported. Standard output may be the file.
fn tell(arguments: &ExportArguments, missing: &[String], traces: u64, spans: u64) -> Result<(), String> {
    if !arguments.as_json {
        let incomplete = if missing.is_empty() { "" } else { "; the export is not complete" };
        crate::say(&format!("{traces} traces, {spans} spans exported{incomplete}"));
        return Ok(());
    }
    let line = json!({
        "output": arguments.output, "traceCount": traces, "spanCount": spans, "complete": missing.is_empty(),
        "warnings": missing,
    });
    match arguments.output {
        Some(_) => crate::print(&format!("{line}\n")).map(|_| ()),
        None => {
            crate::say(&line.to_string());
            Ok(())
        }
    }
}

/// What could not be read, named on stderr at once; nothing when that was all.
async fn export(arguments: &ExportArguments, sink: &mut Sink) -> Result<Vec<String>, Stop> {
    let transport = Transport::open(&arguments.target)?;
    check_tenant(arguments, &transport).await?;
    let mut missing = Vec::new();
    if let Some(id) = arguments.trace {
        let TraceAnswer { trace, partial } = transport.trace(id).await?;
        partial.iter().for_each(|partial| crate::say(&format!("warning: {partial}")));
        sink.put(&[trace.ok_or_else(|| Stop::Missing(format!("trace {id} not found")))?])?;
        missing.extend(partial);
        return Ok(missing);
    }
    let bar = progress::bytes("export", None);
    let mut after: Option<String> = None;
    loop {
        let cursor = after.as_ref().map(|after| format!("&after={after}")).unwrap_or_default();
        let page =
            transport.page(&format!("/spoor/export?{}{cursor}", arguments.times.trim_start_matches('&'))).await?;
        if let Some(partial) = page.partial {
            bar.suspend(|| crate::say(&format!("warning: {partial}")));
            missing.extend((!missing.contains(&partial)).then_some(partial));
        }
        bar.inc(page.body.len() as u64);
        sink.put(&traces(&page.body)?)?;
        bar.set_message(format!("{} traces", sink.trace_count));
        match page.next {
            Some(next) if after.as_ref() != Some(&next) => after = Some(next),
            Some(next) => return Err(format!("the export does not get beyond {next}").into()),
            None => break,
        }
    }
    bar.finish_and_clear();
    Ok(missing)
}

/// A server without tenants gives everything to everybody, which is not what was asked for.
async fn check_tenant(arguments: &ExportArguments, transport: &Transport) -> Result<(), String> {
    let (Some(tenant), None) = (&arguments.target.tenant, &arguments.target.at_rest) else { return Ok(()) };
    // Who does not say has tenants, perhaps.
    let config = transport.text("/status/config").await.unwrap_or_default();
    let value = config.lines().find_map(|line| line.strip_prefix("multitenancy:"));
    match value.is_some_and(|value| value.trim().trim_matches(['\'', '"']) == "false") {
        true => Err(format!(
            "--tenant {tenant}: {} has no tenants (multitenancy is false there); without --tenant, all of its traces are exported",
            arguments.target.url
        )),
        false => Ok(()),
    }
}

/// The traces of a page, in its order.
fn traces(protobuf: &[u8]) -> Result<Vec<Trace>, String> {
    let malformed = |err: spoor_model::wire::WireError| format!("the answer is not OTLP: {err}");
    let checked = OtlpDecoder.check(protobuf).map_err(malformed)?;
    let mut batch = SpanBatch::new();
    OtlpDecoder.append(protobuf, &checked, &mut batch);
    let entries: Vec<SpanEntry> = (0..batch.len() as u32).map(|row| batch.span(row)).collect();
    let runs = entries.chunk_by(|a, b| a.span.trace_id == b.span.trace_id);
    Ok(runs.filter_map(|run| Trace::assemble(run[0].span.trace_id, run.to_vec())).collect())
}
