//! What does a columnar query cost on a head, per span?
//!
//! One thread, the whole path of a source: scan, every group read. Times are CPU time, medians of 20
//! runs; the least says what the machine does when it does nothing else. `SPOOR_BENCH_TRACES` sets the size (default
//! 35,000 traces, ~600,000 spans; `--test` runs 300).

#![allow(clippy::print_stdout, reason = "a bench prints its findings")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use prometheus_client::registry::Registry;
use spoor_block::{BlockCache, DirectoryFiles, WriteOptions};
use spoor_ingester::store::MemoryStore;
use spoor_ingester::{Config, Foundation, Ingester, Metrics, StoredBlocks};
use spoor_model::columns::{ColumnRequest, ValuesOf};
use spoor_model::ingest::{Append, AppendRequest, BodyEncoding, Decode};
use spoor_model::memory::MemoryBudget;
use spoor_model::scan::{
    AttrScope, Condition, Field, KeySet, Literal, Predicate, QueryContext, Snapshots, SpanSource, Test, ValueSet,
};
use spoor_model::{Clock, TenantId, TimeRange, UnixNano};
use spoor_otlp::OtlpDecoder;
use spoor_testkit::corpus::{Corpus, Settings};

struct Still;

impl Clock for Still {
    fn now(&self) -> UnixNano {
        UnixNano(0)
    }
}

fn main() {
    let is_test = std::env::args().any(|arg| arg == "--test");
    let default_count = if is_test { 300 } else { 35_000 };
    let trace_count = std::env::var("SPOOR_BENCH_TRACES").ok().and_then(|n| n.parse().ok()).unwrap_or(default_count);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let ingester = open(dir.path());
    let settings = Settings { seed: 7, trace_count, request_spans: 1000, start: UnixNano::from_secs(1_790_000_000) };
    let tenant = TenantId::single();
    for request in Corpus::new(settings) {
        let checked = OtlpDecoder.check(&request.body).expect("the corpus is valid");
        let payload = bytes::Bytes::from(request.body);
        let stored = bytes::Bytes::new();
        let request =
            AppendRequest { tenant: tenant.clone(), payload, stored_encoding: BodyEncoding::Identity, stored, checked };
        let mut outcome = ingester.append(request);
        while outcome.try_recv().expect("the ingester answers").is_none() {
            std::thread::yield_now();
        }
    }
    let snapshot = ingester.snapshot(&tenant);
    let head = &*snapshot.sources[0];
    println!("{} spans, {trace_count} traces, {} sources", head.span_count(), snapshot.sources.len());
    scans(head);
    others(head);
}

fn open(dir: &std::path::Path) -> Arc<Ingester> {
    let mut config = Config::new(dir);
    (config.head_bytes_max, config.head_memory_limit) = (2 << 30, 4 << 30);
    let blocks =
        StoredBlocks::new(Arc::new(DirectoryFiles::new(dir)), WriteOptions::default(), BlockCache::new(1 << 20));
    let foundation = Foundation { store: Arc::new(MemoryStore::new()), blocks: Arc::new(blocks), seed: 1 };
    let metrics = Metrics::register(&mut Registry::default());
    Ingester::open_on(config, foundation, Arc::new(Still), Arc::new(OtlpDecoder), metrics).expect("opens")
}

fn context() -> QueryContext {
    QueryContext::new(&MemoryBudget::new(1 << 30), Arc::new(AtomicBool::new(false)))
}

/// CPU time of this thread, as Linux counts it.
fn cpu_time() -> Duration {
    let counted = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    Duration::from_nanos(counted.split(' ').next().and_then(|nanos| nanos.parse().ok()).expect("a number"))
}

/// Median and least of 20 runs.
fn measure(mut run: impl FnMut()) -> (Duration, Duration) {
    // The scheduler counts in steps; after a yield the count is exact.
    let now = || {
        std::thread::yield_now();
        cpu_time()
    };
    let time = |_| {
        let before = now();
        run();
        now() - before
    };
    let mut times: Vec<Duration> = (0..20).map(time).collect();
    times.sort_unstable();
    (times[times.len() / 2], times[0])
}

fn report(label: &str, head: &dyn SpanSource, found: usize, (median, least): (Duration, Duration)) {
    let per_span = |time: Duration| time.as_nanos() as f64 / head.span_count() as f64;
    let millis = median.as_secs_f64() * 1e3;
    let (median, least) = (per_span(median), per_span(least));
    println!("{label:<36} {millis:>8.2} ms {median:>6.1} ns/span, least {least:>6.1} {found:>8}");
}

fn is(field: Field, test: Test) -> Predicate {
    Predicate::Is(Condition { field, test })
}

fn text(text: &str) -> Literal {
    Literal::Str(text.into())
}

fn request(masks: Vec<Predicate>, columns: Vec<Field>) -> ColumnRequest {
    let (tree, copies, values_of) = (false, true, ValuesOf::AllRows);
    ColumnRequest {
        masks,
        needed: Vec::new(),
        columns,
        values_of,
        tree,
        copies,
        range: TimeRange::ALL,
        intervals: None,
    }
}

fn scans(head: &dyn SpanSource) {
    let service = Field::Attribute(AttrScope::Resource, "service.name".into());
    let checkout = || is(service.clone(), Test::Eq(text("checkout")));
    let error = || is(Field::Status, Test::Eq(Literal::Int(2)));
    let nobody = || is(Field::Attribute(AttrScope::Any, "user.id".into()), Test::Eq(text("nobody")));
    let attribute = |key: &str| Field::Attribute(AttrScope::Span, key.into());
    let two = || vec![checkout(), error()];
    let rare = || Predicate::And(two());
    let plain = |masks, columns| ColumnRequest { copies: false, ..request(masks, columns) };
    let tree = |request| ColumnRequest { tree: true, ..request };
    let needed = |request| ColumnRequest { needed: vec![0], values_of: ValuesOf::NeededRows, ..request };
    let cases = [
        ("nothing", plain(vec![], vec![])),
        ("copies", request(vec![], vec![])),
        ("tree", tree(request(vec![], vec![]))),
        ("two masks, service", plain(two(), vec![service.clone()])),
        ("two masks, service, copies", request(two(), vec![service.clone()])),
        ("two masks, service, tree", tree(request(two(), vec![service.clone()]))),
        ("duration mask", plain(vec![is(Field::Duration, Test::Gt(Literal::Int(100_000_000)))], vec![])),
        ("name", plain(vec![], vec![Field::Name])),
        ("duration", plain(vec![], vec![Field::Duration])),
        ("span id", plain(vec![], vec![Field::SpanId])),
        ("http status", plain(vec![], vec![attribute("http.response.status_code")])),
        ("db.query.text", plain(vec![], vec![attribute("db.query.text")])),
        ("event names", plain(vec![], vec![Field::EventName])),
        ("event attribute", plain(vec![], vec![Field::Attribute(AttrScope::Event, "exception.type".into())])),
        ("any user.id", plain(vec![], vec![Field::Attribute(AttrScope::Any, "user.id".into())])),
        ("rare, its service, tree", tree(needed(request(vec![rare()], vec![service.clone()])))),
        ("a value of nobody", needed(request(vec![nobody()], vec![service.clone()]))),
    ];
    for (label, request) in cases {
        let mut rows = 0;
        let time = measure(|| {
            let ctx = context();
            let scan = head.scan(&request, &ctx).expect("scans");
            let read = |group| scan.read(group, &ctx).expect("reads").0.map_or(0, |batch| batch.row_count());
            rows = (0..scan.groups().len()).map(read).sum();
        });
        report(label, head, rows, time);
    }
    let newest = tree(needed(request(vec![checkout()], vec![service])));
    let mut found = 0;
    let time = measure(|| {
        let ctx = context();
        let scan = head.scan(&newest, &ctx).expect("scans");
        found = 0;
        for group in 0..scan.groups().len() {
            found += scan.read(group, &ctx).expect("reads").0.map_or(0, |batch| batch.trace_count());
            if found >= 20 {
                break;
            }
        }
    });
    report("the newest 20 of a service, tree", head, found, time);
}

fn others(head: &dyn SpanSource) {
    let mut found = 0;
    let time = measure(|| found = head.trace_fingerprints(&context()).expect("reads").len());
    report("fingerprints", head, found, time);
    let time = measure(|| {
        let mut values = ValueSet::new(1 << 20);
        let field = Field::Attribute(AttrScope::Resource, "service.name".into());
        head.values(&field, &context(), &mut values).expect("reads");
        found = values.into_values().len();
    });
    report("values of service.name", head, found, time);
    let time = measure(|| {
        let mut keys = KeySet::new();
        head.keys(&context(), &mut keys).expect("reads");
        found = keys.values().map(BTreeSet::len).sum();
    });
    report("attribute names", head, found, time);
    let time = measure(|| {
        let mut operations = BTreeSet::new();
        head.operations(&context(), &mut operations).expect("reads");
        found = operations.len();
    });
    report("operations", head, found, time);
}
