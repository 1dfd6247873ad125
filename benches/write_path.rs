//! What does a span cost from bytes in memory to a block on disk, and what does reading one cost?
//!
//! One thread, no network, no WAL: decode (`check`, `append`), then the cut, step by step in CPU
//! microseconds per span; bytes per span by file and by column; then trace by id and scans on the
//! block just written, warm. `SPOOR_BENCH_TRACES` sets the size (default 30,000 traces, ~510,000 spans;
//! `--test` runs 300).

#![allow(clippy::disallowed_methods, reason = "a bench measures time")]
#![allow(clippy::print_stdout, reason = "a bench prints its findings")]

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use spoor_block::{Block, BlockCache, BlockFiles, DirectoryFiles, WriteOptions};
use spoor_model::batch::SpanBatch;
use spoor_model::bits::Bits;
use spoor_model::columns::{ColumnRequest, ValuesOf};
use spoor_model::ingest::Decode;
use spoor_model::memory::MemoryBudget;
use spoor_model::scan::{AttrScope, Condition, Field, Literal, Predicate, QueryContext, SpanSource, Test};
use spoor_model::{BlockId, TenantId, TimeRange, TraceId, UnixNano};
use spoor_otlp::OtlpDecoder;
use spoor_testkit::corpus::{Corpus, Request, Settings, trace_id};

const SEED: u64 = 7;
const SEGMENT_ROWS: usize = 65_536;
/// Runs of each scan; the mean of their CPU time is shown.
const SCAN_RUNS: u32 = 20;

fn main() {
    let is_test = std::env::args().any(|arg| arg == "--test");
    let default_count = if is_test { 300 } else { 30_000 };
    let trace_count = std::env::var("SPOOR_BENCH_TRACES").ok().and_then(|n| n.parse().ok()).unwrap_or(default_count);
    let start = UnixNano::from_secs(1_790_000_000);
    let settings = Settings { seed: SEED, trace_count, request_spans: 1000, start };
    let requests: Vec<Request> = Corpus::new(settings).collect();
    let span_count: u64 = requests.iter().map(|request| u64::from(request.span_count)).sum();
    let wire_bytes: usize = requests.iter().map(|request| request.body.len()).sum();
    println!(
        "{span_count} spans, {trace_count} traces, {:.0} B/span on the wire",
        wire_bytes as f64 / span_count as f64
    );

    let batches = decode(&requests, span_count);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let block = cut(&batches, dir.path(), span_count);
    report_files(dir.path(), span_count);
    drop(batches);
    find_traces(&block, trace_count);
    scan(&block);
}

fn per_span(label: &str, started: Instant, span_count: u64) {
    println!("{label:<28} {:.3} us/span", started.elapsed().as_secs_f64() * 1e6 / span_count as f64);
}

fn decode(requests: &[Request], span_count: u64) -> Vec<SpanBatch> {
    let started = Instant::now();
    let checked: Vec<_> = requests.iter().map(|r| OtlpDecoder.check(&r.body).expect("the corpus is valid")).collect();
    per_span("check", started, span_count);

    let started = Instant::now();
    let mut batches = vec![SpanBatch::new()];
    for (request, checked) in requests.iter().zip(&checked) {
        if batches.last().is_some_and(|batch| batch.len() >= SEGMENT_ROWS) {
            batches.push(SpanBatch::new());
        }
        OtlpDecoder.append(&request.body, checked, batches.last_mut().expect("never empty"));
    }
    per_span("append", started, span_count);
    let held: usize = batches.iter().map(SpanBatch::memory_bytes).sum();
    println!("{:<28} {:.0} B/span", "head memory", held as f64 / span_count as f64);

    let started = Instant::now();
    let logged: usize = requests.iter().map(|r| zstd::bulk::compress(&r.body, 1).expect("compresses").len()).sum();
    per_span("zstd -1 of the request", started, span_count);
    println!("{:<28} {:.1} B/span", "logged", logged as f64 / span_count as f64);
    batches
}

fn cut(batches: &[SpanBatch], dir: &std::path::Path, span_count: u64) -> Block {
    let batches: Vec<&SpanBatch> = batches.iter().collect();
    let id = BlockId::from_parts(UnixNano(1), 1);
    let tenant = TenantId::single();
    let started = Instant::now();
    let files: Arc<dyn BlockFiles> = Arc::new(DirectoryFiles::new(dir));
    let meta =
        spoor_block::write(&*files, id, &tenant, &batches, UnixNano(1), &WriteOptions::default()).expect("writes");
    per_span("cut (fsync included)", started, span_count);
    println!("{:<28} {:.2} B/span", "block", meta.size_bytes as f64 / span_count as f64);
    Block::open(&files, meta, &BlockCache::new(256 << 20)).expect("opens")
}

fn report_files(dir: &std::path::Path, span_count: u64) {
    let tenant_dir = dir.join(TenantId::single().as_str());
    let block_dir = std::fs::read_dir(tenant_dir).expect("lists").next().expect("one block").expect("an entry").path();
    for entry in std::fs::read_dir(&block_dir).expect("lists") {
        let entry = entry.expect("an entry");
        let bytes = entry.metadata().expect("has metadata").len();
        println!("  {:<26} {:.3} B/span", entry.file_name().to_string_lossy(), bytes as f64 / span_count as f64);
    }
    let file = std::fs::File::open(block_dir.join("spans.parquet")).expect("opens");
    let reader = parquet::file::serialized_reader::SerializedFileReader::new(file).expect("is Parquet");
    let metadata = parquet::file::reader::FileReader::metadata(&reader);
    let mut columns: Vec<(String, i64)> = Vec::new();
    for group in metadata.row_groups() {
        for (index, column) in group.columns().iter().enumerate() {
            match columns.get_mut(index) {
                Some((_, bytes)) => *bytes += column.compressed_size(),
                None => columns.push((
                    format!("{} {:?}", column.column_path().string(), column.encodings().collect::<Vec<_>>()),
                    column.compressed_size(),
                )),
            }
        }
    }
    columns.sort_by_key(|(_, bytes)| -bytes);
    for (name, bytes) in columns {
        println!("    {:<70} {:.3}", name, bytes as f64 / span_count as f64);
    }
}

fn context() -> QueryContext {
    QueryContext::new(&MemoryBudget::new(1 << 30), Arc::new(AtomicBool::new(false)))
}

fn percentiles(label: &str, mut micros: Vec<f64>) {
    micros.sort_by(f64::total_cmp);
    let at = |share: f64| micros[((micros.len() - 1) as f64 * share) as usize] / 1000.0;
    println!("{label:<28} p50 {:.3} ms  p99 {:.3} ms", at(0.5), at(0.99));
}

fn find_traces(block: &Block, trace_count: u64) {
    let ctx = context();
    let time = |id: TraceId| {
        let started = Instant::now();
        let found = block.find_trace(id, &ctx).expect("reads").len();
        (started.elapsed().as_secs_f64() * 1e6, found)
    };
    let known: Vec<_> = (0..400).map(|n| time(trace_id(SEED, n * 7919 % trace_count))).collect();
    println!("{:<28} {:.1} spans", "a trace has", known.iter().map(|(_, n)| *n as f64).sum::<f64>() / 400.0);
    percentiles("trace by id", known[100..].iter().map(|(micros, _)| *micros).collect());
    percentiles("unknown id", (0..400u64).map(|n| time(trace_id(SEED + 1, n)).0).collect());
}

/// CPU time of this thread in nanoseconds, behind by at most a tick.
fn cpu_nanos() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux keeps it");
    stat.split(' ').next().and_then(|nanos| nanos.parse().ok()).expect("its first field is the time on a core")
}

fn scan(block: &Block) {
    let text = |text: &str| Literal::Str(text.into());
    let is = |field: Field, test: Test| Predicate::Is(Condition { field, test });
    let attribute = |scope, key: &str| Field::Attribute(scope, key.into());
    let service = || attribute(AttrScope::Resource, "service.name");
    let request = |masks: Vec<Predicate>, columns: Vec<Field>| ColumnRequest {
        needed: (0..masks.len()).collect(),
        masks,
        columns,
        values_of: ValuesOf::NeededRows,
        tree: false,
        copies: false,
        range: TimeRange::ALL,
        intervals: None,
    };
    let service_is = |name: &str| is(service(), Test::Eq(text(name)));
    let failed = || is(Field::Status, Test::Eq(Literal::Int(2)));
    let user = |name: &str| is(attribute(AttrScope::Span, "user.id"), Test::Eq(text(name)));
    let query = |test| is(attribute(AttrScope::Span, "db.statement"), test);
    let everything = |columns| ColumnRequest { values_of: ValuesOf::AllRows, ..request(vec![], columns) };
    let queries = [
        ("service and error", request(vec![Predicate::And(vec![service_is("checkout"), failed()])], vec![])),
        ("duration > 100 ms", request(vec![is(Field::Duration, Test::Gt(Literal::Int(100_000_000)))], vec![])),
        ("by service, name, start", everything(vec![service(), Field::Name, Field::StartTime])),
        ("by service, duration", everything(vec![service(), Field::Duration])),
        ("tree of two masks", ColumnRequest { tree: true, ..request(vec![service_is("frontend"), failed()], vec![]) }),
        ("a value of nobody", request(vec![user("nobody")], vec![])),
        (
            "an event of nobody",
            request(vec![is(attribute(AttrScope::Event, "exception.type"), Test::Eq(text("No")))], vec![]),
        ),
        (
            "a number of nobody",
            request(
                vec![is(attribute(AttrScope::Span, "http.response.body.size"), Test::Eq(Literal::Int(-5)))],
                vec![],
            ),
        ),
        ("a rare text of nobody", request(vec![query(Test::Eq(text("SELECT 7")))], vec![])),
        (
            "one user",
            request(
                vec![user("u-100170")],
                vec![Field::Name, Field::Duration, Field::StartTime, attribute(AttrScope::Span, "url.path")],
            ),
        ),
        ("a text of many values", request(vec![query(Test::Contains("zzzz".into()))], vec![])),
        ("events of errors", request(vec![is(attribute(AttrScope::Event, "exception.type"), Test::Exists)], vec![])),
        ("user ids", everything(vec![attribute(AttrScope::Span, "user.id")])),
    ];
    for (label, request) in queries {
        let mut row_count = 0;
        let mut run = || {
            let ctx = context();
            let scan = block.scan(&request, &ctx).expect("scans");
            let batches = (0..scan.groups().len()).filter_map(|group| scan.read(group, &ctx.part()).expect("reads").0);
            row_count = batches.map(|batch| batch.masks.first().map_or(batch.row_count(), Bits::count)).sum();
        };
        run();
        let before = cpu_nanos();
        (0..SCAN_RUNS).for_each(|_| run());
        let millis = (cpu_nanos() - before) as f64 / 1e6 / f64::from(SCAN_RUNS);
        let rate = block.span_count() as f64 / 1e3 / millis;
        println!("{label:<28} {millis:8.3} ms  {rate:7.0} M spans/s  ({row_count} spans)");
    }
}
