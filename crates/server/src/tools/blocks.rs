//! `spoor blocks`: what lies in the block store, whether it is sound, and what nobody needs.
//!
//! Blocks never change, so all but `gc` and `adopt` work beside a running server. What blocks there are, the files say; which of
//! them queries see, the catalog, where they lie in the data directory.

use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::{Value as Json, json};
use spoor_block::{BlockFiles, BlockMeta};
use spoor_ingester::{Leftover, LeftoverState};
use spoor_model::{BlockId, TenantId, rfc3339};

use crate::config::{Config, RawConfig};
use crate::parts;
use crate::query::Lines;
use crate::storage;

mod adopt;
mod verify;

/// What to do, with which blocks.
#[derive(Debug)]
pub(crate) struct BlocksArguments {
    action: Action,
    tenant: Option<String>,
    as_json: bool,
    config: RawConfig,
}

#[derive(Debug)]
enum Action {
    List,
    Show(String),
    /// These, or all.
    Verify(Vec<String>),
    Collect {
        dry_run: bool,
        whole: bool,
    },
    Adopt {
        /// These, or all.
        ids: Vec<String>,
        dry_run: bool,
    },
}

/// The subcommand. `--data-dir` and `--config` are those of all commands.
pub(crate) fn command() -> Command {
    let json =
        Arg::new("json").long("json").action(ArgAction::SetTrue).global(true).help("For scripts: JSON on stdout");
    let tenant = Arg::new("tenant").long("tenant").value_name("TENANT").global(true).help("Only this tenant's blocks");
    let switch =
        |name: &'static str, help: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue).help(help);
    let dry_run = |help: &'static str| switch("dry-run", help);
    let ids = |help: &'static str| Arg::new("ids").value_name("ID").num_args(0..).help(help);
    let whole = switch(
        "whole",
        "Also whole blocks that the catalog does not name; they may hold spans that nothing else holds",
    );
    Command::new("blocks")
        .about("Lists, describes, verifies, cleans up and takes back blocks")
        .subcommand_required(true)
        .arg(json)
        .arg(tenant)
        .subcommand(Command::new("ls").about("One line per block, oldest first"))
        .subcommand(
            Command::new("show")
                .about("What a block is made of")
                .arg(Arg::new("id").value_name("ID").required(true).help("The block's id")),
        )
        .subcommand(
            Command::new("verify")
                .about("Reads blocks whole: checksums, every span, the index. Exits with 1 when one is bad")
                .arg(ids("Block ids [default: all]")),
        )
        .subcommand(
            Command::new("gc")
                .about("Removes what no catalog names: remains of interrupted work. No server may be running")
                .arg(dry_run("Say what would go and remove nothing"))
                .arg(whole),
        )
        .subcommand(
            Command::new("adopt")
                .about("Has queries see blocks that the catalog does not name, as after it was lost. No server may be running")
                .arg(ids("Block ids").required_unless_present("all"))
                .arg(switch("all", "All blocks that lack").conflicts_with("ids"))
                .arg(dry_run("Verify them, say which would be adopted, and change nothing")),
        )
}

/// Reads what clap found.
pub(crate) fn read(matches: &ArgMatches, config: RawConfig) -> Result<BlocksArguments, String> {
    let (name, inner) = matches.subcommand().ok_or("`spoor blocks` needs `ls`, `show`, `verify`, `gc` or `adopt`")?;
    let ids = || inner.get_many::<String>("ids").into_iter().flatten().cloned().collect();
    let action = match name {
        "ls" => Action::List,
        "show" => Action::Show(inner.get_one::<String>("id").cloned().unwrap_or_default()),
        "verify" => Action::Verify(ids()),
        "adopt" => Action::Adopt { ids: ids(), dry_run: inner.get_flag("dry-run") },
        _ => Action::Collect { dry_run: inner.get_flag("dry-run"), whole: inner.get_flag("whole") },
    };
    let tenant = inner.get_one::<String>("tenant").cloned();
    Ok(BlocksArguments { action, tenant, as_json: inner.get_flag("json"), config })
}

/// Runs the command to its end.
pub(crate) fn run(arguments: &BlocksArguments) -> Result<ExitCode, String> {
    let config = Config::new(&arguments.config).map_err(|err| err.to_string())?;
    check_place(&config)?;
    let storage = storage::open_at_rest(&config)?;
    let files = Arc::clone(&storage.files);
    match &arguments.action {
        Action::List => {
            let found = found(&*files, arguments)?;
            let is_bad = found.iter().any(|block| trouble(&*files, block).is_some());
            crate::print(&list(&*files, &found, arguments.as_json))?;
            Ok(if is_bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
        }
        Action::Show(id) => {
            let mut found = found(&*files, arguments)?;
            let wanted = wanted(&mut found, std::slice::from_ref(id))?;
            wanted.iter().try_for_each(|block| crate::print(&show(&*files, block, arguments.as_json)?).map(|_| ()))?;
            Ok(ExitCode::SUCCESS)
        }
        Action::Verify(ids) => verify::run(&config, &files, arguments, ids),
        Action::Adopt { .. } if !config.storage.0.is_empty() => {
            Err(format!("a server takes over what is in {} by itself", config.storage.0))
        }
        Action::Adopt { ids, dry_run } => adopt::run(&config, &files, arguments, ids, *dry_run),
        Action::Collect { .. } if !config.storage.0.is_empty() => {
            let storage = &config.storage.0;
            Err(format!("{storage} may be used by others: the server that holds its lease removes what is left over"))
        }
        Action::Collect { dry_run, whole } => collect(&config, &*files, arguments, *dry_run, *whole),
    }
}

/// Says so when the directory was never Spoor's: a word was mistyped, perhaps. With blocks elsewhere it may not be there yet.
fn check_place(config: &Config) -> Result<(), String> {
    let is_there = |name: &str| config.data_dir.join(name).exists();
    if !config.storage.0.is_empty() || is_there("LOCK") || is_there("blocks") {
        return Ok(());
    }
    Err(format!("{} is no data directory (it has neither LOCK nor blocks/)", config.data_dir.display()))
}

/// A block, or why it does not say what it is.
struct Found {
    tenant: TenantId,
    id: BlockId,
    meta: Result<BlockMeta, String>,
}

impl Found {
    /// `None` when there is no such block, or only one that is being built.
    fn look(files: &dyn BlockFiles, tenant: TenantId, id: BlockId) -> Option<Self> {
        let meta = match files.meta(&tenant, id) {
            Ok(Some(meta)) if meta.tenant == tenant && meta.id == id => Ok(meta),
            Ok(Some(meta)) => Err(format!("meta.json is that of block {} of tenant {}", meta.id, meta.tenant)),
            // Elsewhere than in a directory, a block without it is no block: it is put last, and removed first.
            Ok(None) if Path::new(&files.locate(&tenant, id)).is_dir() => Err("meta.json is missing".to_owned()),
            Ok(None) => return None,
            Err(err) => Err(err.to_string()),
        };
        Some(Self { tenant, id, meta })
    }
}

/// All published blocks, by tenant and id: oldest first.
fn found(files: &dyn BlockFiles, arguments: &BlocksArguments) -> Result<Vec<Found>, String> {
    let listed = files.list().map_err(|err| err.to_string())?.into_iter();
    let asked = listed.filter(|(tenant, _)| arguments.is_about(tenant));
    Ok(asked.filter_map(|(tenant, id)| Found::look(files, tenant, id)).collect())
}

impl BlocksArguments {
    fn is_about(&self, tenant: &TenantId) -> bool {
        self.tenant.as_ref().is_none_or(|wanted| *wanted == tenant.as_str())
    }
}

fn wanted(found: &mut Vec<Found>, ids: &[String]) -> Result<Vec<Found>, String> {
    let mut wanted = Vec::new();
    for id in ids {
        let place = found.iter().position(|block| block.id.to_string() == *id);
        wanted.push(found.remove(place.ok_or_else(|| format!("there is no block {id}; see `spoor blocks ls`"))?));
    }
    Ok(wanted)
}

fn list(files: &dyn BlockFiles, blocks: &[Found], as_json: bool) -> String {
    if as_json {
        return blocks.iter().map(|block| format!("{}\n", block_json(files, block))).collect();
    }
    if blocks.is_empty() {
        return "no blocks\n".to_owned();
    }
    let head = ["TENANT", "BLOCK", "LEVEL", "FROM", "UNTIL", "SPANS", "TRACES", "BYTES", "B/SPAN", "STATE"];
    let mut lines = Lines::new(&head);
    let mut total = [0u64; 4];
    for block in blocks {
        let Found { tenant, id, meta } = block;
        match meta {
            Ok(meta) => {
                lines.row(vec![
                    tenant.to_string(),
                    id.to_string(),
                    meta.merge_level.to_string(),
                    rfc3339::format(meta.range.start),
                    rfc3339::format(meta.range.end),
                    meta.span_count.to_string(),
                    meta.trace_count.to_string(),
                    meta.size_bytes.to_string(),
                    per_span(meta.size_bytes, meta.span_count),
                    trouble(files, block).map_or_else(|| "ok".to_owned(), |reason| format!("BAD: {reason}")),
                ]);
                let counts = [1, meta.span_count, meta.trace_count, meta.size_bytes];
                total.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
            }
            Err(reason) => lines.text(format!("{tenant}  {id}  BAD: {reason}")),
        }
    }
    let [blocks, spans, traces, bytes] = total;
    lines.text(format!("{blocks} blocks, {spans} spans, {traces} traces, {bytes} bytes"));
    lines.finish()
}

/// What is wrong with a block, as far as it shows without reading it.
fn trouble(files: &dyn BlockFiles, block: &Found) -> Option<String> {
    match &block.meta {
        Ok(meta) => spoor_block::check_presence(files, meta).err().map(|err| err.to_string()),
        Err(reason) => Some(reason.clone()),
    }
}

fn per_span(bytes: u64, spans: u64) -> String {
    format!("{:.1}", bytes as f64 / spans.max(1) as f64)
}

fn block_json(files: &dyn BlockFiles, block: &Found) -> Json {
    let Found { tenant, id, meta } = block;
    let mut shown = match meta {
        Ok(meta) => json!({
            "tenant": tenant.as_str(),
            "id": id.to_string(),
            "level": meta.merge_level,
            "createdAt": rfc3339::format(meta.created_at),
            "startTimeUnixNano": meta.range.start.0.to_string(),
            "endTimeUnixNano": meta.range.end.0.to_string(),
            "spanCount": meta.span_count,
            "copyCount": meta.copy_count,
            "traceCount": meta.trace_count,
            "sizeBytes": meta.size_bytes,
        }),
        Err(_) => json!({ "tenant": tenant.as_str(), "id": id.to_string() }),
    };
    if let Some(reason) = trouble(files, block) {
        shown["error"] = reason.into();
    }
    shown
}

fn show(files: &dyn BlockFiles, block: &Found, as_json: bool) -> Result<String, String> {
    let meta = block.meta.as_ref().map_err(Clone::clone)?;
    let parts = spoor_block::composition(files, meta).map_err(|err| err.to_string())?;
    if as_json {
        let mut shown = block_json(files, block);
        shown["location"] = files.locate(&block.tenant, block.id).into();
        shown["rowGroupCount"] = parts.row_group_count.into();
        let file = |(name, size): &(String, u64)| json!({ "name": name, "sizeBytes": size });
        shown["files"] = parts.files.iter().map(file).collect();
        let column = |column: &spoor_block::ColumnSize| {
            json!({
                "name": column.name, "storedBytes": column.stored_bytes, "unpackedBytes": column.unpacked_bytes,
                "valueCount": column.value_count, "encodings": column.encodings,
            })
        };
        shown["columns"] = parts.columns.iter().map(column).collect();
        return Ok(format!("{shown}\n"));
    }
    let mut text = String::new();
    let mut line = |arguments: std::fmt::Arguments<'_>| writeln!(text, "{arguments}").expect("a String takes all");
    line(format_args!("block    {} of tenant {}", block.id, block.tenant));
    line(format_args!("at       {}", files.locate(&block.tenant, block.id)));
    line(format_args!("written  {}, level {}", rfc3339::format(meta.created_at), meta.merge_level));
    line(format_args!("spans    from {} until {}", rfc3339::format(meta.range.start), rfc3339::format(meta.range.end)));
    let copies = if meta.copy_count == 0 { String::new() } else { format!(", {} copies left out", meta.copy_count) };
    line(format_args!(
        "         {} of {} traces{copies}, {} row groups",
        meta.span_count, meta.trace_count, parts.row_group_count
    ));
    line(format_args!("bytes    {}, {} per span\n", meta.size_bytes, per_span(meta.size_bytes, meta.span_count)));
    let mut lines = Lines::new(&["FILE OR COLUMN", "BYTES", "B/SPAN", "UNPACKED", "VALUES", "ENCODINGS"]);
    for (name, size) in &parts.files {
        lines.row(vec![name.clone(), size.to_string(), per_span(*size, meta.span_count)]);
    }
    let mut columns = parts.columns;
    columns.sort_by_key(|column| std::cmp::Reverse(column.stored_bytes));
    for column in &columns {
        lines.row(vec![
            format!("  {}", column.name),
            column.stored_bytes.to_string(),
            per_span(column.stored_bytes, meta.span_count),
            column.unpacked_bytes.to_string(),
            column.value_count.to_string(),
            column.encodings.clone(),
        ]);
    }
    text.push_str(&lines.finish());
    Ok(text)
}

fn collect(
    config: &Config,
    files: &dyn BlockFiles,
    arguments: &BlocksArguments,
    dry_run: bool,
    whole: bool,
) -> Result<ExitCode, String> {
    let memory = config.memory().map_err(|err| err.to_string())?;
    let (mut report, mut kept) = (String::new(), 0);
    let mut decide = |leftover: &Leftover| {
        if !arguments.is_about(&leftover.tenant) {
            return false;
        }
        let goes = leftover.state == LeftoverState::Unfinished || whole;
        kept += usize::from(!goes);
        report.push_str(&leftover_line(leftover, goes, dry_run, arguments.as_json));
        goes && !dry_run
    };
    let swept = spoor_ingester::sweep_leftovers(&parts::ingester_config(config, &memory, ""), files, &mut decide);
    let removed = swept.map_err(|err| err.to_string())?;
    match arguments.as_json {
        true => report.push_str(&format!("{}\n", json!({ "keptCount": kept, "removedCount": removed }))),
        false => {
            let hint = if kept > 0 { "; --whole removes whole blocks too" } else { "" };
            report.push_str(&format!("{removed} removed, {kept} whole blocks kept{hint}\n"));
        }
    }
    crate::print(&report)
}

fn leftover_line(leftover: &Leftover, goes: bool, dry_run: bool, as_json: bool) -> String {
    let Leftover { tenant, id, state } = leftover;
    let spans = if let LeftoverState::Whole(meta) = state { Some(meta.span_count) } else { None };
    if as_json {
        let removed = goes && !dry_run;
        let line = json!({ "tenant": tenant.as_str(), "id": id.to_string(), "spanCount": spans, "removed": removed });
        return format!("{line}\n");
    }
    let what = match state {
        LeftoverState::Unfinished => "never finished".to_owned(),
        LeftoverState::Whole(meta) => format!("whole, {} spans, not in the catalog", meta.span_count),
        LeftoverState::Unreadable(reason) => format!("not in the catalog, and unreadable: {reason}"),
    };
    let fate = match (goes, dry_run) {
        (true, false) => "removed",
        (true, true) => "would go",
        (false, _) => "kept",
    };
    format!("{tenant}  {id}  {what}: {fate}\n")
}
