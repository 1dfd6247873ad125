//! A block with rotten files: every answer is right or an error, never a panic and never a wrong span.
//!
//! The input is one byte that says which file, then the file's bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use spoor_block::{Block, BlockCache, BlockFiles, BlockMeta, DirectoryFiles, WriteOptions};
use spoor_model::batch::SpanBatch;
use spoor_model::ingest::Decode;
use spoor_model::memory::MemoryBudget;
use spoor_model::columns::{ColumnRequest, ValuesOf};
use spoor_model::scan::{Field, Predicate, QueryContext, SpanSource};
use spoor_model::{BlockId, TenantId, TimeRange, Trace, TraceId, UnixNano};
use spoor_otlp::{OtlpDecoder, encode};
use spoor_testkit::nasty::Nasty;
use tempfile::TempDir;

use super::Target;

const FILES: [&str; 5] = ["meta.json", "index.bin", "shapes.parquet", "origins.parquet", "spans.parquet"];
/// What a query over a block of a few kilobytes may ever need.
const MEMORY_BYTES: usize = 64 << 20;

/// The sound block and the answers that it gives.
struct Sound {
    directory: TempDir,
    id: BlockId,
    traces: BTreeMap<TraceId, Vec<u8>>,
}

/// Each file of a block mutated in turn.
pub fn files() -> Target {
    let sound = Sound::write();
    let seeds = (0..FILES.len())
        .map(|file| {
            let content = fs::read(sound.path().join(FILES[file])).expect("the block was just written");
            [vec![file as u8], content].concat()
        })
        .collect();
    Target { name: "block", runs: 600, seeds, check: Box::new(move |input| sound.check(input)) }
}

fn context() -> QueryContext {
    QueryContext::new(&MemoryBudget::new(MEMORY_BYTES), Arc::new(AtomicBool::new(false)))
}

impl Sound {
    fn write() -> Self {
        let directory = TempDir::new().expect("the temporary directory is writable");
        let start = UnixNano(1_800_000_000_000_000_000);
        let mut nasty = Nasty::new(1, start);
        let mut batch = SpanBatch::new();
        for _ in 0..4 {
            let body = nasty.request(100);
            let checked = OtlpDecoder.check(&body).expect("valid OTLP");
            OtlpDecoder.append(&body, &checked, &mut batch);
        }
        let id = BlockId::from_parts(start, 1);
        let options = WriteOptions { row_group_rows: 128, page_rows: 32, ..WriteOptions::default() };
        let files = DirectoryFiles::new(directory.path());
        spoor_block::write(&files, id, &TenantId::single(), &[&batch], start, &options).expect("a block");
        let mut sound = Self { directory, id, traces: BTreeMap::new() };
        let block = open(sound.directory.path(), &sound.path()).expect("a sound block opens");
        for id in nasty.traces() {
            sound.traces.insert(*id, answer(&block, *id).expect("a sound block answers"));
        }
        sound
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join(TenantId::single().as_str()).join(self.id.to_string())
    }

    fn check(&self, input: &[u8]) {
        let Some((file, content)) = input.split_first() else { return };
        let name = FILES[usize::from(*file) % FILES.len()];
        let path = self.path().join(name);
        let good = fs::read(&path).expect("the file is there");
        fs::write(&path, content).expect("the file is ours");
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.ask(name)));
        fs::write(&path, good).expect("the file is ours");
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    }

    fn ask(&self, rotten: &str) {
        let Ok(block) = open(self.directory.path(), &self.path()) else { return };
        for (id, expected) in &self.traces {
            let Ok(got) = answer(&block, *id) else { continue };
            assert_eq!(got.len(), expected.len(), "a rotten {rotten} changes trace {id}");
        }
        let request = ColumnRequest {
            masks: vec![Predicate::True],
            needed: Vec::new(),
            columns: vec![Field::Name, Field::Duration],
            values_of: ValuesOf::AllRows,
            tree: true,
            copies: true,
            range: TimeRange::ALL,
            intervals: None,
        };
        if let Ok(scan) = block.scan(&request, &context()) {
            (0..scan.groups().len()).for_each(|group| drop(scan.read(group, &context())));
        }
        let _ = block.keys(&context(), &mut BTreeMap::new());
        let _ = block.operations(&context(), &mut BTreeSet::new());
    }
}

fn open(root: &Path, block_dir: &Path) -> Result<Block, spoor_block::Error> {
    let json = fs::read(block_dir.join("meta.json")).expect("the file is there");
    let files: Arc<dyn BlockFiles> = Arc::new(DirectoryFiles::new(root));
    Block::open(&files, BlockMeta::from_json(&json)?, &BlockCache::new(MEMORY_BYTES))
}

/// The trace as OTLP, empty when it is not there.
fn answer(block: &Block, id: TraceId) -> Result<Vec<u8>, spoor_model::scan::ScanError> {
    let entries = block.find_trace(id, &context())?;
    Ok(Trace::assemble(id, entries).map(|trace| encode::traces_data(&trace)).unwrap_or_default())
}
