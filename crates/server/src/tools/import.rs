//! `spoor import`: traces from files into a running Spoor, through its OTLP port like any other sender's.
//!
//! ```text
//!   file --gunzip, unzstd--> JSON documents: OTLP, Tempo's answers, Jaeger's answers and downloads  \
//!                            OTLP protobuf: one message, or messages behind their length             --> requests of 1 MiB
//! ```

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Command};
use http::Uri;
use indicatif::ProgressBar;
use sender::{Counts, Sender};
use serde::de::IgnoredAny;
use serde_json::{Value as Json, json};
use spoor_model::{Clock, TenantId, UnixNano};
use spoor_otlp::jaeger_json;

use super::progress;
use crate::clock::SystemClock;
use crate::config::Value;
use crate::query::{Target, Transport, escape};

mod sender;
mod spans;
mod tempo_json;

/// What to import, and where to.
#[derive(Debug)]
pub(crate) struct ImportArguments {
    paths: Vec<String>,
    target: Target,
    /// Where the receiver answers queries.
    query_url: Option<String>,
    form: Option<Form>,
    dry_run: bool,
    as_json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Json,
    Protobuf,
}

/// Where Spoor answers queries, on the host that takes spans.
const QUERY_PORT: u16 = 3200;

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
        .arg(word(
            "query_url",
            "URL",
            "Where that Spoor answers queries, to ask how long it keeps spans [default: port 3200 of the same host]",
        ).long("query-url"))
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
        query_url: word("query_url"),
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
    let kept = retention(arguments, &runtime);
    let kept_from = match kept {
        Some(Kept::For(kept)) => SystemClock.now().minus(kept),
        Some(Kept::ForEver) | None => UnixNano(0),
    };
    let mut all = Counts::default();
    for (number, path) in arguments.paths.iter().enumerate() {
        let later = &arguments.paths[number + 1..];
        let (counts, pending) = (Counts::default(), Vec::new());
        let dry_run = arguments.dry_run;
        let mut sender = Sender { transport: &transport, runtime: &runtime, dry_run, kept_from, counts, pending };
        import(path, arguments.form, &mut sender).map_err(|err| format!("{path}: {err}{}", not_begun(later)))?;
        tell(path, &sender.counts, kept, arguments)?;
        let Counts { spans, refused, expired, requests, .. } = sender.counts;
        all.spans += spans;
        all.refused += refused;
        all.expired += expired;
        all.requests += requests;
    }
    if arguments.paths.len() > 1 && !arguments.as_json {
        crate::print(&format!("all files: {}\n", told(&all, arguments.dry_run)))?;
    }
    Ok(if all.refused == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// How long the receiver keeps spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    For(Duration),
    ForEver,
}

/// Names the files that an error leaves out.
fn not_begun(later: &[String]) -> String {
    match later {
        [] => String::new(),
        later => format!("; not begun: {}", later.join(", ")),
    }
}

/// How long the receiver keeps spans; `None` when it does not say.
fn retention(arguments: &ImportArguments, runtime: &tokio::runtime::Runtime) -> Option<Kept> {
    let Target { url, tenant, .. } = &arguments.target;
    let query_url = match &arguments.query_url {
        Some(query_url) => query_url.clone(),
        None => {
            let uri: Uri = url.parse().ok()?;
            format!("{}://{}:{QUERY_PORT}", uri.scheme_str()?, uri.host()?)
        }
    };
    let target = Target { url: query_url, at_rest: None, tenant: tenant.clone() };
    let tenant = tenant.clone().unwrap_or_else(|| TenantId::single().to_string());
    let transport = Transport::open(&target).ok()?;
    let limits = runtime.block_on(transport.text(&format!("/status/overrides/{}", escape(&tenant))));
    retention_of(&limits.ok()?)
}

/// The retention in a tenant's limits. Zero is for ever.
fn retention_of(limits: &str) -> Option<Kept> {
    let text = limits.lines().find_map(|line| line.trim().strip_prefix("block_retention:"))?;
    let kept = Duration::read(text.split('#').next()?).ok()?;
    Some(if kept.is_zero() { Kept::ForEver } else { Kept::For(kept) })
}

/// Says what became of a file.
fn tell(path: &str, counts: &Counts, kept: Option<Kept>, arguments: &ImportArguments) -> Result<(), String> {
    let Counts { spans, refused, expired, requests, reasons } = counts;
    if arguments.as_json {
        let expired = kept.map(|_| *expired);
        let line: Json = json!({
            "file": path, "spanCount": spans, "refusedCount": refused, "refused": reasons, "expiredCount": expired,
            "requestCount": requests,
        });
        return crate::print(&format!("{line}\n")).map(|_| ());
    }
    crate::print(&format!("{path}: {}\n", told(counts, arguments.dry_run)))?;
    reasons.iter().for_each(|reason| crate::say(&format!("refused: {path}: {reason}")));
    if *refused > reasons.len() as u64 {
        crate::say(&format!("refused: {path}: {} more", refused - reasons.len() as u64));
    }
    if let Some(Kept::For(kept)) = kept.filter(|_| *expired > 0) {
        let kept = kept.show();
        crate::say(&format!(
            "warning: {path}: {expired} spans ended longer ago than the receiver keeps spans ({kept}): it removes them soon"
        ));
    }
    Ok(())
}

fn told(counts: &Counts, dry_run: bool) -> String {
    let verb = if dry_run { "would be sent" } else { "imported" };
    match counts.refused {
        0 => format!("{} spans {verb}", counts.spans),
        refused => format!("{} spans {verb}, {refused} refused", counts.spans),
    }
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
    let read = match form {
        Form::Json => import_json(content, sender, &bar),
        Form::Protobuf => import_protobuf(content, sender, &bar),
    };
    // What stands before a mistake is good.
    sender.flush()?;
    bar.finish_and_clear();
    read
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
        let place = format!("document {}", number + 1);
        let failed = |err: &dyn std::fmt::Display| format!("{place}: {err}");
        let document = document.map_err(|err| failed(&err))?;
        for data in traces_data(document.get()).map_err(|err| failed(&err))? {
            sender.add(&data, &place, bar).map_err(|err| failed(&err))?;
        }
    }
    Ok(())
}

/// What a document holds, as `TracesData`.
fn traces_data(document: &str) -> Result<Vec<Vec<u8>>, String> {
    let of_otlp = |otlp: &str| spoor_otlp::json::to_protobuf(otlp.as_bytes()).map_err(|err| err.to_string());
    match tempo_json::kind(document) {
        tempo_json::Kind::Otlp => of_otlp(document).map(|data| vec![data]),
        tempo_json::Kind::Tempo(otlp) => of_otlp(&otlp).map(|data| vec![data]),
        tempo_json::Kind::Other => match foreign_keys(document) {
            Some(found) => Err(format!(
                "no traces here: want `resourceSpans` (OTLP), `trace` or `batches` (Tempo), or `data` or `spans` (Jaeger), found {found}"
            )),
            None => jaeger_json::to_protobuf(document.as_bytes()).map_err(|err| err.to_string()),
        },
    }
}

/// The keys of an object that is nobody's; `None` for what may be Jaeger's.
fn foreign_keys(document: &str) -> Option<String> {
    const KEYS_SHOWN: usize = 5;
    let object: BTreeMap<String, IgnoredAny> = serde_json::from_str(document).ok()?;
    if object.contains_key("data") || object.contains_key("spans") {
        return None;
    }
    let keys: Vec<String> = object.keys().take(KEYS_SHOWN).map(|key| format!("`{key}`")).collect();
    let more = if object.len() > KEYS_SHOWN { ", ..." } else { "" };
    Some(if keys.is_empty() { "an empty object".to_owned() } else { keys.join(", ") + more })
}

fn import_protobuf(mut content: Box<dyn BufRead>, sender: &mut Sender<'_>, bar: &ProgressBar) -> Result<(), String> {
    let failed = |err: std::io::Error| err.to_string();
    let is_one_message = content.fill_buf().map_err(failed)?.first() == Some(&0x0a);
    if is_one_message {
        let mut message = Vec::new();
        content.read_to_end(&mut message).map_err(failed)?;
        return sender.add(&message, "the message", bar);
    }
    for number in 1.. {
        if content.fill_buf().map_err(failed)?.is_empty() {
            break;
        }
        let mut length = [0; 4];
        content.read_exact(&mut length).map_err(|err| match err.kind() {
            std::io::ErrorKind::UnexpectedEof => {
                format!("message {number}: the file ends within its length; is this length-prefixed OTLP protobuf?")
            }
            _ => err.to_string(),
        })?;
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
        let place = format!("message {number}");
        sender.add(&message, &place, bar).map_err(|err| format!("{place}: {err}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retention_is_read_from_a_tenants_limits() {
        let limits = |kept: &str| format!("read:\n  x: 1\ncompaction:\n  block_retention: {kept}\n");
        assert_eq!(retention_of(&limits("168h0m0s")), Some(Kept::For(Duration::from_secs(7 * 24 * 3600))));
        assert_eq!(retention_of(&limits("0s # for ever")), Some(Kept::ForEver));
        assert_eq!(retention_of("404 page not found"), None);
    }

    #[test]
    fn what_holds_no_traces_is_told_by_its_keys() {
        for (document, expected) in [
            ("{}", "found an empty object"),
            (r#"{"traces":[],"metrics":{}}"#, "found `metrics`, `traces`"),
            (r#"{"a":1,"b":1,"c":1,"d":1,"e":1,"f":1}"#, "found `a`, `b`, `c`, `d`, `e`, ..."),
            (r#"{"data":[{}]}"#, "missing field `spans`"),
            ("[7]", "not Jaeger JSON: invalid type: integer `7`"),
        ] {
            let err = traces_data(document).unwrap_err();
            assert!(err.contains(expected), "{document}: {err}");
        }
    }
}
