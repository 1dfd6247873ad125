//! Where exported traces go: a stream of bytes, or blocks.
//!
//! What is written to a path has another name until it is whole, and is removed when it does not become that.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use spoor_block::{DirectoryFiles, WriteOptions};
use spoor_model::batch::SpanBatch;
use spoor_model::ingest::Decode;
use spoor_model::{BlockId, Clock, TenantId, Trace};
use spoor_otlp::OtlpDecoder;
use spoor_otlp::json::write::TracesDataJson;

use super::Stop;
use crate::clock::SystemClock;

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// A `TracesData` in JSON per line and trace.
    Json,
    /// `TracesData` messages, each behind its length as four bytes, most significant first: the Collector's files.
    Protobuf,
    /// Blocks: `FORMAT.md` of the block crate.
    Parquet,
}

/// Spans per Parquet block: some 200 MB of memory.
const PARQUET_SPANS: usize = 500_000;

/// Where traces go.
pub(super) struct Sink {
    to: Destination,
    /// Absent for standard output.
    path: Option<Unfinished>,
    pub(super) trace_count: u64,
    span_count: u64,
}

enum Destination {
    Json(Output),
    Protobuf(Output),
    Parquet(Box<Blocks>),
}

/// Where one stream of bytes goes.
enum Output {
    Terminal(BufWriter<io::Stdout>),
    File(BufWriter<File>),
    /// `/dev/null`, a named pipe: there already, and nothing that could be half there.
    Device(BufWriter<File>),
}

impl Output {
    fn writer(&mut self) -> &mut dyn Write {
        match self {
            Self::Terminal(out) => out,
            Self::File(out) | Self::Device(out) => out,
        }
    }

    /// Who is told that an export is done may pull the plug: a file is on disk by then.
    fn finish(mut self) -> io::Result<()> {
        self.writer().flush()?;
        match self {
            Self::Terminal(_) | Self::Device(_) => Ok(()),
            Self::File(out) => out.get_ref().sync_all(),
        }
    }
}

impl Sink {
    /// Makes a file or directory beside `path`, or takes standard output.
    pub(super) fn open(format: Format, path: Option<&Path>, tenant: Option<&str>) -> Result<Self, String> {
        let device = path.filter(|path| format != Format::Parquet && is_device(path));
        let path = path.filter(|_| device.is_none()).map(Unfinished::new).transpose()?;
        let output = || -> Result<Output, String> {
            if let Some(device) = device {
                let opened = File::options().write(true).open(device);
                let opened = opened.map_err(|err| format!("{}: {err}", device.display()))?;
                return Ok(Output::Device(BufWriter::with_capacity(1 << 20, opened)));
            }
            Ok(match &path {
                None => Output::Terminal(BufWriter::new(io::stdout())),
                Some(path) => Output::File(BufWriter::with_capacity(1 << 20, path.create_file()?)),
            })
        };
        let to = match (format, &path) {
            (Format::Json, _) => Destination::Json(output()?),
            (Format::Protobuf, _) => Destination::Protobuf(output()?),
            (Format::Parquet, Some(path)) => Destination::Parquet(Box::new(Blocks::new(path.create_dir()?, tenant)?)),
            (Format::Parquet, None) => return Err("--format parquet needs --output with a directory".to_owned()),
        };
        Ok(Self { to, path, trace_count: 0, span_count: 0 })
    }

    pub(super) fn put(&mut self, traces: &[Trace]) -> Result<(), Stop> {
        for trace in traces {
            self.trace_count += 1;
            self.span_count += trace.entries.len() as u64;
            match &mut self.to {
                Destination::Json(out) => {
                    serde_json::to_writer(out.writer(), &TracesDataJson(trace)).map_err(|err| stop(&err.into()))?;
                    out.writer().write_all(b"\n").map_err(|err| stop(&err))?;
                }
                Destination::Protobuf(out) => {
                    let message = spoor_otlp::encode::traces_data(trace);
                    let too_long = |_| format!("trace {} has more than 4 GiB", trace.id);
                    let length = u32::try_from(message.len()).map_err(too_long)?;
                    out.writer().write_all(&length.to_be_bytes()).map_err(|err| stop(&err))?;
                    out.writer().write_all(&message).map_err(|err| stop(&err))?;
                }
                Destination::Parquet(blocks) => blocks.put(trace)?,
            }
        }
        Ok(())
    }

    /// Gives the output its name. Counts of traces and spans.
    pub(super) fn finish(self) -> Result<(u64, u64), Stop> {
        match self.to {
            Destination::Json(out) | Destination::Protobuf(out) => out.finish().map_err(|err| stop(&err))?,
            Destination::Parquet(mut blocks) => blocks.cut()?,
        }
        if let Some(path) = self.path {
            path.finish()?;
        }
        Ok((self.trace_count, self.span_count))
    }
}

/// Whether it is there and is no file or directory.
fn is_device(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| !metadata.is_file() && !metadata.is_dir())
}

fn stop(err: &io::Error) -> Stop {
    match err.kind() {
        io::ErrorKind::BrokenPipe => Stop::NobodyReads,
        _ => Stop::Failed(format!("cannot write the export: {err}")),
    }
}

/// A file or directory in the making, beside the path that it is for. Removed when dropped.
struct Unfinished {
    path: PathBuf,
    made: PathBuf,
}

impl Unfinished {
    /// Never over something that is there.
    fn new(path: &Path) -> Result<Self, String> {
        let is_free = || path.symlink_metadata().is_err_and(|err| err.kind() == io::ErrorKind::NotFound);
        let name = path.file_name().ok_or_else(|| format!("{}: no name for a file", path.display()))?;
        let mut made_name = name.to_owned();
        // What a killed export has left is in nobody's way.
        made_name.push(format!(".{}.part", std::process::id()));
        match is_free() {
            true => Ok(Self { path: path.to_owned(), made: path.with_file_name(made_name) }),
            false => Err(format!("{}: is there already", path.display())),
        }
    }

    fn create_file(&self) -> Result<File, String> {
        File::create_new(&self.made).map_err(|err| format!("{}: {err}", self.made.display()))
    }

    fn create_dir(&self) -> Result<&Path, String> {
        std::fs::create_dir(&self.made).map_err(|err| format!("{}: {err}", self.made.display()))?;
        Ok(&self.made)
    }

    /// Whole from now on, and durable.
    fn finish(self) -> Result<(), String> {
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let named = std::fs::rename(&self.made, &self.path).and_then(|()| File::open(parent)?.sync_all());
        named.map_err(|err| format!("{}: {err}", self.path.display()))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // It is not there any more when it got its name, and nobody can do anything where it cannot be removed.
        let _ = if self.made.is_dir() { std::fs::remove_dir_all(&self.made) } else { std::fs::remove_file(&self.made) };
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
    fn new(path: &Path, tenant: Option<&str>) -> Result<Self, String> {
        let tenant = match tenant {
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
