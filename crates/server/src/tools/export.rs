//! `spoor export`: traces as files that other tools read.
//!
//! A running server, or a directory at rest, hands over whole traces page by page (`/spoor/export`); pages are written as
//! they come, so any amount can be exported in little memory.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgMatches, Command};
use spoor_block::{DirectoryFiles, WriteOptions};
use spoor_model::batch::SpanBatch;
use spoor_model::ingest::Decode;
use spoor_model::{BlockId, Clock, SpanEntry, TenantId, Trace, TraceId, UnixNano};
use spoor_otlp::OtlpDecoder;
use spoor_otlp::json::write::TracesDataJson;

use super::progress;
use crate::clock::SystemClock;
use crate::config::RawConfig;
use crate::query::{Target, TraceAnswer, Transport, escape};

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
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    /// A `TracesData` in JSON per line and trace.
    Json,
    /// `TracesData` messages, each behind its length as four bytes, most significant first: the Collector's files.
    Protobuf,
    /// Blocks: `FORMAT.md` of the block crate.
    Parquet,
}

/// Spans per Parquet block: some 200 MB of memory.
const PARQUET_SPANS: usize = 500_000;

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
    Ok(ExportArguments { target, trace, times: times(word("since"), word("start"), word("end"))?, format, output })
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

/// Runs the command to its end.
pub(crate) fn run(arguments: &ExportArguments) -> Result<ExitCode, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|err| format!("cannot start threads: {err}"))?;
    let mut sink = Sink::open(arguments)?;
    let exported = runtime.block_on(export(arguments, &mut sink));
    let (is_whole, (traces, spans)) = exported.and_then(|is_whole| Ok((is_whole, sink.finish()?)))?;
    // Standard output may be the file.
    eprintln!("{traces} traces, {spans} spans exported{}", if is_whole { "" } else { "; the export is not complete" });
    Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whether that was all: what could not be read is named on stderr.
async fn export(arguments: &ExportArguments, sink: &mut Sink) -> Result<bool, String> {
    let transport = Transport::open(&arguments.target)?;
    if let Some(id) = arguments.trace {
        let TraceAnswer { trace, partial } = transport.trace(id).await?;
        partial.iter().for_each(|partial| eprintln!("warning: {partial}"));
        sink.put(vec![trace.ok_or_else(|| format!("trace {id} not found"))?])?;
        return Ok(partial.is_none());
    }
    let mut is_whole = true;
    let bar = progress::bytes("export", None);
    let mut after: Option<String> = None;
    loop {
        let cursor = after.as_ref().map(|after| format!("&after={after}")).unwrap_or_default();
        let page =
            transport.page(&format!("/spoor/export?{}{cursor}", arguments.times.trim_start_matches('&'))).await?;
        if let Some(partial) = &page.partial {
            is_whole = false;
            bar.suspend(|| eprintln!("warning: {partial}"));
        }
        bar.inc(page.body.len() as u64);
        sink.put(traces(&page.body)?)?;
        bar.set_message(format!("{} traces", sink.trace_count));
        match page.next {
            Some(next) if after.as_ref() != Some(&next) => after = Some(next),
            Some(next) => return Err(format!("the export does not get beyond {next}")),
            None => break,
        }
    }
    bar.finish_and_clear();
    Ok(is_whole)
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

/// Where traces go.
struct Sink {
    to: Destination,
    trace_count: u64,
    span_count: u64,
}

enum Destination {
    Json(Output),
    Protobuf(Output),
    Parquet(Box<Blocks>),
}

/// Where one stream of bytes goes.
enum Output {
    Terminal(BufWriter<std::io::Stdout>),
    File(BufWriter<File>),
}

impl Output {
    fn writer(&mut self) -> &mut dyn Write {
        match self {
            Self::Terminal(out) => out,
            Self::File(out) => out,
        }
    }

    /// Who is told that an export is done may pull the plug: a file is on disk by then.
    fn finish(mut self) -> std::io::Result<()> {
        self.writer().flush()?;
        match self {
            Self::Terminal(_) => Ok(()),
            Self::File(out) => out.get_ref().sync_all(),
        }
    }
}

impl Sink {
    fn open(arguments: &ExportArguments) -> Result<Self, String> {
        let writer = |path: &Option<PathBuf>| -> Result<Output, String> {
            Ok(match path {
                None => Output::Terminal(BufWriter::new(std::io::stdout())),
                // Never over something that is there.
                Some(path) => {
                    let file = File::create_new(path).map_err(|err| format!("{}: {err}", path.display()))?;
                    Output::File(BufWriter::with_capacity(1 << 20, file))
                }
            })
        };
        let to = match arguments.format {
            Format::Json => Destination::Json(writer(&arguments.output)?),
            Format::Protobuf => Destination::Protobuf(writer(&arguments.output)?),
            Format::Parquet => Destination::Parquet(Box::new(Blocks::new(arguments)?)),
        };
        Ok(Self { to, trace_count: 0, span_count: 0 })
    }

    fn put(&mut self, traces: Vec<Trace>) -> Result<(), String> {
        let failed = |err: &dyn std::fmt::Display| format!("cannot write the export: {err}");
        for trace in &traces {
            self.trace_count += 1;
            self.span_count += trace.entries.len() as u64;
            match &mut self.to {
                Destination::Json(out) => {
                    serde_json::to_writer(out.writer(), &TracesDataJson(trace)).map_err(|err| failed(&err))?;
                    out.writer().write_all(b"\n").map_err(|err| failed(&err))?;
                }
                Destination::Protobuf(out) => {
                    let message = spoor_otlp::encode::traces_data(trace);
                    let length = u32::try_from(message.len()).map_err(|_| failed(&"a trace of more than 4 GiB"))?;
                    out.writer().write_all(&length.to_be_bytes()).map_err(|err| failed(&err))?;
                    out.writer().write_all(&message).map_err(|err| failed(&err))?;
                }
                Destination::Parquet(blocks) => blocks.put(trace)?,
            }
        }
        Ok(())
    }

    /// Counts of traces and spans.
    fn finish(self) -> Result<(u64, u64), String> {
        match self.to {
            Destination::Json(out) | Destination::Protobuf(out) => {
                out.finish().map_err(|err| format!("cannot write the export: {err}"))?;
            }
            Destination::Parquet(mut blocks) => blocks.cut()?,
        }
        Ok((self.trace_count, self.span_count))
    }
}

/// Blocks in the making, in a directory of their own.
struct Blocks {
    files: DirectoryFiles,
    tenant: TenantId,
    batch: SpanBatch,
    seed: u128,
}

impl Blocks {
    fn new(arguments: &ExportArguments) -> Result<Self, String> {
        let path: &Path = arguments.output.as_deref().ok_or("--format parquet needs --output with a directory")?;
        std::fs::create_dir(path).map_err(|err| format!("{}: {err}", path.display()))?;
        let tenant = match &arguments.target.tenant {
            Some(tenant) => TenantId::parse(tenant).map_err(|err| err.to_string())?,
            None => TenantId::single(),
        };
        Ok(Self { files: DirectoryFiles::new(path), tenant, batch: SpanBatch::new(), seed: 0 })
    }

    fn put(&mut self, trace: &Trace) -> Result<(), String> {
        let message = spoor_otlp::encode::traces_data(trace);
        let checked = OtlpDecoder.check(&message).map_err(|err| err.to_string())?;
        OtlpDecoder.append(&message, &checked, &mut self.batch);
        if self.batch.len() >= PARQUET_SPANS { self.cut() } else { Ok(()) }
    }

    fn cut(&mut self) -> Result<(), String> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let batch = std::mem::replace(&mut self.batch, SpanBatch::new());
        let now = SystemClock.now();
        self.seed += 1;
        let id = BlockId::from_parts(now, self.seed);
        spoor_block::write(&self.files, id, &self.tenant, &[&batch], now, &WriteOptions::default())
            .map(|_| ())
            .map_err(|err| err.to_string())
    }
}
