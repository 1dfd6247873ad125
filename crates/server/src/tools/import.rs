//! `spoor import`: traces from files into a running Spoor, through its OTLP port like any other sender's.
//!
//! ```text
//!   file --gunzip, unzstd--> JSON documents: OTLP, Tempo's answers, Jaeger's answers and downloads  \
//!                            OTLP protobuf: one message, or messages behind their length             --> requests of 1 MiB
//! ```

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Command};
use http::{Method, StatusCode};
use indicatif::ProgressBar;
use serde_json::json;
use spoor_model::ingest::Decode;
use spoor_model::wire::Reader;
use spoor_otlp::{OtlpDecoder, jaeger_json, split};

use super::progress;
use crate::query::{Answer, Target, Transport};

mod tempo_json;

/// What to import, and where to.
#[derive(Debug)]
pub(crate) struct ImportArguments {
    paths: Vec<String>,
    target: Target,
    form: Option<Form>,
    dry_run: bool,
    as_json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Json,
    Protobuf,
}

/// Requests are about this large.
const REQUEST_BYTES: usize = 1 << 20;

/// How often a request is sent again while the receiver has no room.
const ATTEMPTS_MAX: u32 = 60;

/// How long to wait for room at most, when the receiver does not say or says longer.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// A length-prefixed message is not longer, so that a broken file is not read as a length.
const MESSAGE_BYTES_MAX: u32 = 1 << 30;

/// The subcommand.
pub(crate) fn command() -> Command {
    let word = |id: &'static str, value: &'static str, help: &'static str| {
        Arg::new(id).long(id).value_name(value).help(help).help_heading("Import")
    };
    let switch = |id, help| Arg::new(id).long(id).action(ArgAction::SetTrue).help(help).help_heading("Import");
    Command::new("import")
        .about("Sends the traces of files to a running Spoor: OTLP JSON or protobuf, Tempo's and Jaeger's JSON, gzip and zstd too")
        .arg(Arg::new("files").value_name("FILE").num_args(1..).required(true).help("Files; - is standard input"))
        .arg(word("url", "URL", "Where Spoor takes OTLP over HTTP").default_value("http://127.0.0.1:4318"))
        .arg(word("tenant", "TENANT", "Whose traces they become"))
        .arg(
            word("format", "FORM", "What the files are [default: found out from their first bytes]")
                .value_parser(PossibleValuesParser::new(["json", "otlp-proto"])),
        )
        .arg(switch("dry-run", "Read and count, and send nothing"))
        .arg(switch("json", "For scripts: JSON on stdout"))
}

/// Reads what clap found.
pub(crate) fn read(matches: &ArgMatches) -> ImportArguments {
    let word = |id: &str| matches.get_one::<String>(id).cloned();
    ImportArguments {
        paths: matches.get_many::<String>("files").into_iter().flatten().cloned().collect(),
        target: Target { url: word("url").unwrap_or_default(), at_rest: None, tenant: word("tenant") },
        form: word("format").map(|form| if form == "json" { Form::Json } else { Form::Protobuf }),
        dry_run: matches.get_flag("dry-run"),
        as_json: matches.get_flag("json"),
    }
}

/// Runs the command to its end: stops at the first file that cannot be read or sent. Sending it again does no harm:
/// exact copies of a span count once.
pub(crate) fn run(arguments: &ImportArguments) -> Result<ExitCode, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|err| format!("cannot start threads: {err}"))?;
    let transport = Transport::open(&arguments.target)?;
    let mut all = Counts::default();
    for path in &arguments.paths {
        let mut sender =
            Sender { transport: &transport, runtime: &runtime, dry_run: arguments.dry_run, counts: Counts::default() };
        import(path, arguments.form, &mut sender).map_err(|err| format!("{path}: {err}"))?;
        let Counts { spans, refused, requests } = sender.counts;
        all.spans += spans;
        all.refused += refused;
        let line = match arguments.as_json {
            true => json!({ "file": path, "spanCount": spans, "refusedCount": refused, "requestCount": requests })
                .to_string(),
            false => format!("{path}: {}", told(&sender.counts, arguments.dry_run)),
        };
        crate::print(&format!("{line}\n"))?;
    }
    if arguments.paths.len() > 1 && !arguments.as_json {
        crate::print(&format!("all files: {}\n", told(&all, arguments.dry_run)))?;
    }
    Ok(if all.refused == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn told(counts: &Counts, dry_run: bool) -> String {
    let verb = if dry_run { "would be sent" } else { "imported" };
    match counts.refused {
        0 => format!("{} spans {verb}", counts.spans),
        refused => format!("{} spans {verb}, {refused} refused", counts.spans),
    }
}

#[derive(Debug, Default)]
struct Counts {
    spans: u64,
    refused: u64,
    requests: u64,
}

fn import(path: &str, form: Option<Form>, sender: &mut Sender<'_>) -> Result<(), String> {
    let (file, size): (Box<dyn Read>, Option<u64>) = match path {
        "-" => (Box::new(std::io::stdin()), None),
        path => {
            let file = File::open(path).map_err(|err| err.to_string())?;
            let size = file.metadata().ok().map(|metadata| metadata.len());
            (Box::new(file), size)
        }
    };
    let bar = progress::bytes(path, size);
    let mut content = unpacked(BufReader::with_capacity(1 << 16, bar.wrap_read(file)))?;
    let form = match form {
        Some(form) => form,
        None => form_of(content.fill_buf().map_err(|err| err.to_string())?)?,
    };
    match form {
        Form::Json => import_json(content, sender, &bar)?,
        Form::Protobuf => import_protobuf(content, sender, &bar)?,
    }
    bar.finish_and_clear();
    Ok(())
}

/// The content of a file that may be compressed.
fn unpacked(mut packed: impl BufRead + 'static) -> Result<Box<dyn BufRead>, String> {
    let head = packed.fill_buf().map_err(|err| err.to_string())?;
    Ok(match head {
        [0x1f, 0x8b, ..] => Box::new(BufReader::new(flate2::bufread::MultiGzDecoder::new(packed))),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            let unpacked = zstd::stream::read::Decoder::with_buffer(packed).map_err(|err| err.to_string())?;
            Box::new(BufReader::new(unpacked))
        }
        _ => Box::new(packed),
    })
}

fn form_of(head: &[u8]) -> Result<Form, String> {
    match head.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'{' | b'[') => Ok(Form::Json),
        // Field 1 of a message, or the upper byte of a length.
        _ if matches!(head.first(), Some(0..=0x3f)) => Ok(Form::Protobuf),
        None => Err("the file is empty".to_owned()),
        _ => Err("neither JSON nor OTLP protobuf; --format says what it is".to_owned()),
    }
}

/// Documents one after the other, on lines of their own or not.
fn import_json(content: impl Read, sender: &mut Sender<'_>, bar: &ProgressBar) -> Result<(), String> {
    let documents = serde_json::Deserializer::from_reader(content).into_iter::<Box<serde_json::value::RawValue>>();
    for (number, document) in documents.enumerate() {
        let place = |err: &dyn std::fmt::Display| format!("document {}: {err}", number + 1);
        let document = document.map_err(|err| place(&err))?;
        for request in requests(document.get()).map_err(|err| place(&err))? {
            sender.send(&request, bar).map_err(|err| place(&err))?;
        }
    }
    Ok(())
}

/// What a document holds, as export requests.
fn requests(document: &str) -> Result<Vec<Vec<u8>>, String> {
    match tempo_json::kind(document) {
        tempo_json::Kind::Otlp => spoor_otlp::json::to_protobuf(document.as_bytes())
            .map(|request| vec![request])
            .map_err(|err| err.to_string()),
        tempo_json::Kind::Tempo(otlp) => {
            spoor_otlp::json::to_protobuf(otlp.as_bytes()).map(|request| vec![request]).map_err(|err| err.to_string())
        }
        tempo_json::Kind::Other => jaeger_json::to_protobuf(document.as_bytes()).map_err(|err| err.to_string()),
    }
}

fn import_protobuf(mut content: Box<dyn BufRead>, sender: &mut Sender<'_>, bar: &ProgressBar) -> Result<(), String> {
    let failed = |err: std::io::Error| err.to_string();
    let is_one_message = content.fill_buf().map_err(failed)?.first() == Some(&0x0a);
    if is_one_message {
        let mut message = Vec::new();
        content.read_to_end(&mut message).map_err(failed)?;
        return sender.send(&message, bar);
    }
    for number in 1.. {
        if content.fill_buf().map_err(failed)?.is_empty() {
            break;
        }
        let mut length = [0; 4];
        content.read_exact(&mut length).map_err(failed)?;
        let length = u32::from_be_bytes(length);
        if length > MESSAGE_BYTES_MAX {
            return Err(format!(
                "message {number}: a length of {length} bytes; is this length-prefixed OTLP protobuf?"
            ));
        }
        let mut message = Vec::new();
        (&mut content).take(u64::from(length)).read_to_end(&mut message).map_err(failed)?;
        if message.len() != length as usize {
            return Err(format!("message {number} ends early (want {length} bytes, got {})", message.len()));
        }
        sender.send(&message, bar).map_err(|err| format!("message {number}: {err}"))?;
    }
    Ok(())
}

/// Sends requests and counts what becomes of them.
struct Sender<'a> {
    transport: &'a Transport,
    runtime: &'a tokio::runtime::Runtime,
    dry_run: bool,
    counts: Counts,
}

impl Sender<'_> {
    fn send(&mut self, data: &[u8], bar: &ProgressBar) -> Result<(), String> {
        for request in split::split(data, REQUEST_BYTES).map_err(|err| format!("not OTLP protobuf: {err}"))? {
            let checked = OtlpDecoder.check(&request).map_err(|err| format!("not OTLP protobuf: {err}"))?;
            let rejected = checked.rejected.len() as u64;
            self.counts.requests += 1;
            self.counts.spans += u64::from(checked.accepted_count);
            match self.dry_run {
                true => self.counts.refused += rejected,
                false => self.counts.refused += self.post(Bytes::from(request))?,
            }
            bar.set_message(format!("{} spans", self.counts.spans));
        }
        Ok(())
    }

    /// Sends a request until it is taken; how many spans of it were refused.
    fn post(&self, request: Bytes) -> Result<u64, String> {
        for _ in 0..ATTEMPTS_MAX {
            let answer = self.runtime.block_on(self.transport.send(
                Method::POST,
                "/v1/traces",
                "application/x-protobuf",
                request.clone(),
            ))?;
            match answer.status {
                status if status.is_success() => return refused(&answer.body),
                StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                    std::thread::sleep(wait_of(&answer));
                }
                status => return Err(format!("{status}: {}", said(&answer.body))),
            }
        }
        Err(format!("the receiver has no room, after {ATTEMPTS_MAX} attempts"))
    }
}

fn wait_of(answer: &Answer) -> Duration {
    let header = answer.headers.get(http::header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    header.map_or(WAIT_MAX, |seconds| Duration::from_secs(seconds).min(WAIT_MAX))
}

/// `partial_success.rejected_spans` of an `ExportTraceServiceResponse`.
fn refused(response: &[u8]) -> Result<u64, String> {
    let malformed = |err: spoor_model::wire::WireError| format!("the receiver's answer is not OTLP: {err}");
    let (mut reader, mut refused) = (Reader::new(response), 0);
    while let Some((number, field)) = reader.next_field().map_err(malformed)? {
        if number == 1 {
            let mut partial = Reader::new(field.bytes(number).map_err(malformed)?);
            while let Some((number, field)) = partial.next_field().map_err(malformed)? {
                if number == 1 {
                    refused = field.varint(number).map_err(malformed)?;
                }
            }
        }
    }
    Ok(refused)
}

/// The message of a `google.rpc.Status`, or the text as it is.
fn said(body: &[u8]) -> String {
    let mut reader = Reader::new(body);
    while let Ok(Some((number, field))) = reader.next_field() {
        if let (2, Ok(text)) = (number, field.text(number)) {
            return text.to_owned();
        }
    }
    String::from_utf8_lossy(body).trim().to_owned()
}
