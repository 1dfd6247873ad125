//! The ingester on a real directory: RocksDB, OTLP, Parquet blocks.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use prometheus_client::registry::Registry;
use spoor_block::{BlockFiles, BlockMeta, DirectoryFiles};
use spoor_ingester::store::{Change, Durability, RocksStore, Store, Table};
use spoor_ingester::{
    Config, Error, Ingester, Leftover, LeftoverState, Metrics, OfflineCatalog, list_catalog, open_at_rest,
    sweep_leftovers,
};
use spoor_model::batch::SpanBatch;
use spoor_model::ingest::{Append, AppendError, AppendRequest, BodyEncoding, Checked, Decode};
use spoor_model::memory::MemoryBudget;
use spoor_model::scan::{QueryContext, Snapshots};
use spoor_model::wire::WireError;
use spoor_model::{
    BlockId, Clock, Event, KeyValue, Origin, Span, SpanEntry, SpanId, TenantId, TimeRange, Trace, TraceId, UnixNano,
    Value, nested,
};
use spoor_otlp::OtlpDecoder;

/// Ticks a microsecond per look.
struct TickingClock(AtomicU64);

impl Clock for TickingClock {
    fn now(&self) -> UnixNano {
        UnixNano(self.0.fetch_add(1000, Ordering::Relaxed))
    }
}

fn open(dir: &Path) -> Result<Arc<Ingester>, Error> {
    let clock = Arc::new(TickingClock(AtomicU64::new(1_700_000_000_000_000_000)));
    let metrics = Metrics::register(&mut Registry::default());
    Ingester::open(Config::new(dir), clock, Arc::new(OtlpDecoder), metrics)
}

/// A trace of `span_count` spans with attributes, events and nested values.
fn trace(number: u64, span_count: u64) -> Trace {
    let id = TraceId((u128::from(number) + 1).to_be_bytes());
    let mut resource = Vec::new();
    let service = KeyValue::new("service.name", Value::Str(format!("service {}", number % 3)));
    nested::put_attributes(&mut resource, 1, &[service]);
    let origin = Arc::new(Origin::decode(Bytes::from(resource), Bytes::new(), "", "").unwrap());
    let span = |n: u64| Span {
        trace_id: id,
        span_id: SpanId((n + 1).to_be_bytes()),
        parent_span_id: SpanId(n.to_be_bytes()),
        name: format!("operation {}", n % 5),
        kind: 2,
        start: UnixNano(1_700_000_000_000_000_000 + number * 1_000_000 + n),
        end: UnixNano(1_700_000_000_000_000_000 + number * 1_000_000 + n + 50),
        attributes: vec![
            KeyValue::new("http.route", Value::Str(format!("/route/{}", n % 7))),
            KeyValue::new("list", Value::Array(vec![Value::Int(n as i64), Value::Bool(true)])),
            KeyValue::new("order", Value::Int((number * 100 + n) as i64)),
        ],
        events: vec![Event { name: "something".to_owned(), time: UnixNano(n), ..Event::default() }],
        ..Span::default()
    };
    let entries = (0..span_count).map(|n| SpanEntry { origin: Arc::clone(&origin), span: span(n) }).collect();
    Trace::assemble(id, entries).unwrap()
}

fn request(tenant: &TenantId, trace: &Trace) -> AppendRequest {
    let payload = Bytes::from(spoor_otlp::encode::traces_data(trace));
    AppendRequest {
        tenant: tenant.clone(),
        checked: OtlpDecoder.check(&payload).unwrap(),
        stored: Bytes::from(zstd::bulk::compress(&payload, 1).unwrap()),
        stored_encoding: BodyEncoding::Zstd,
        payload,
    }
}

fn append(ingester: &Ingester, tenant: &TenantId, trace: &Trace) -> Result<(), AppendError> {
    let mut answer = ingester.append(request(tenant, trace));
    loop {
        match answer.try_recv() {
            Ok(Some(outcome)) => return outcome,
            Ok(None) => std::thread::yield_now(),
            Err(_) => return Err(AppendError::Closed),
        }
    }
}

/// The trace as a query would assemble it, attributes in the order of their names.
fn find(spans: &dyn Snapshots, tenant: &TenantId, id: TraceId) -> Option<Trace> {
    let ctx = QueryContext::new(&MemoryBudget::new(1 << 30), Arc::new(AtomicBool::new(false)));
    let snapshot = spans.snapshot(tenant);
    assert_eq!(snapshot.skipped, []);
    let mut entries = Vec::new();
    for source in snapshot.sources {
        entries.extend(source.find_trace(id, &ctx).unwrap());
    }
    entries.iter_mut().for_each(|entry| entry.span.attributes.sort_by(|a, b| a.key.cmp(&b.key)));
    let count = entries.len();
    let trace = Trace::assemble(id, entries)?;
    assert_eq!(trace.entries.len(), count, "no span is there twice");
    Some(trace)
}

fn check(spans: &dyn Snapshots, tenant: &TenantId, traces: &[Trace]) {
    for trace in traces {
        assert_eq!(find(spans, tenant, trace.id).as_ref(), Some(trace));
    }
    assert_eq!(find(spans, tenant, TraceId([0xff; 16])), None);
}

#[test]
fn traces_are_found_whole_in_head_and_blocks_and_after_every_kind_of_end() {
    let dir = tempfile::tempdir().unwrap();
    let tenant = TenantId::single();
    let mut sent = Vec::new();
    let mut add = |ingester: &Ingester, from: u64, until: u64| {
        for number in from..until {
            let trace = trace(number, 1 + number % 9);
            append(ingester, &tenant, &trace).unwrap();
            sent.push(trace);
        }
        check(ingester, &tenant, &sent);
        sent.clone()
    };

    let ingester = open(dir.path()).unwrap();
    add(&ingester, 0, 40);
    ingester.flush(None).unwrap();
    let sent = add(&ingester, 40, 80);
    // Dropped, not closed: the end of a process as the disk sees it.
    drop(ingester);

    let ingester = open(dir.path()).unwrap();
    check(&*ingester, &tenant, &sent);
    assert_eq!(ingester.blocks(&tenant).len(), 1);
    ingester.close().unwrap();
    check(&*ingester, &tenant, &sent);
    drop(ingester);

    let ingester = open(dir.path()).unwrap();
    check(&*ingester, &tenant, &sent);
    let blocks = ingester.blocks(&tenant);
    assert_eq!(blocks.iter().map(|meta| meta.span_count).sum::<u64>(), span_count(&sent));
    let ids: Vec<_> = blocks.iter().map(|meta| meta.id).collect();
    assert_eq!(ingester.remove_blocks(&tenant, &ids).unwrap(), 2);
    assert_eq!(find(&*ingester, &tenant, sent[0].id), None);
    let tenant_dir = dir.path().join("blocks").join(tenant.as_str());
    assert_eq!(fs::read_dir(tenant_dir).unwrap().count(), 0);
}

fn span_count(traces: &[Trace]) -> u64 {
    traces.iter().map(|trace| trace.entries.len() as u64).sum()
}

#[test]
fn a_trace_that_is_split_over_blocks_and_the_head_is_assembled() {
    let dir = tempfile::tempdir().unwrap();
    let tenant = TenantId::single();
    let whole = trace(7, 30);
    let ingester = open(dir.path()).unwrap();
    for part in whole.entries.chunks(10) {
        append(&ingester, &tenant, &Trace { id: whole.id, entries: part.to_vec() }).unwrap();
        check(&*ingester, &tenant, &[]);
        if part[0].span.span_id != whole.entries[20].span.span_id {
            ingester.flush(Some(&tenant)).unwrap();
        }
    }
    assert_eq!(ingester.snapshot(&tenant).sources.len(), 3);
    check(&*ingester, &tenant, &[whole]);
}

#[test]
fn a_second_process_is_refused_until_the_first_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path()).unwrap();
    let refused = open(dir.path()).err().unwrap();
    assert!(matches!(refused, Error::Locked { .. }));
    assert!(refused.to_string().contains("in use by another process"), "{refused}");
    drop(first);
    drop(open(dir.path()).unwrap());
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, b"").unwrap();
    let refused = open(&file.join("data")).err().unwrap().to_string();
    assert!(refused.starts_with("cannot create") && refused.contains("file/data"), "{refused}");
}

#[test]
fn a_block_whose_files_are_damaged_is_skipped_by_name_and_the_rest_answers() {
    let dir = tempfile::tempdir().unwrap();
    let tenant = TenantId::single();
    let ingester = open(dir.path()).unwrap();
    append(&ingester, &tenant, &trace(1, 5)).unwrap();
    ingester.flush(None).unwrap();
    let damaged = ingester.blocks(&tenant)[0].id;
    append(&ingester, &tenant, &trace(2, 5)).unwrap();
    ingester.close().unwrap();
    drop(ingester);
    let block = dir.path().join("blocks").join(tenant.as_str()).join(damaged.to_string());
    fs::write(block.join("index.bin"), b"not an index").unwrap();

    let ingester = open(dir.path()).unwrap();
    let snapshot = ingester.snapshot(&tenant);
    assert_eq!(snapshot.sources.len(), 1);
    assert_eq!(snapshot.skipped.len(), 1);
    assert!(snapshot.skipped[0].object.contains(&damaged.to_string()), "{:?}", snapshot.skipped);
    assert_eq!(ingester.health().blocks_skipped, 1);
}

#[test]
fn damage_that_is_found_while_reading_is_known_until_the_file_is_put_back() {
    let dir = tempfile::tempdir().unwrap();
    let tenant = TenantId::single();
    let ingester = open(dir.path()).unwrap();
    let sent = trace(1, 5);
    append(&ingester, &tenant, &sent).unwrap();
    ingester.flush(None).unwrap();
    let id = ingester.blocks(&tenant)[0].id;
    let block = dir.path().join("blocks").join(tenant.as_str()).join(id.to_string());
    drop(ingester);
    for name in ["spans.parquet", "origins.parquet", "index.bin"] {
        let path = block.join(name);
        let whole = fs::read(&path).unwrap();
        let damaged: Vec<u8> = whole.iter().map(|byte| byte ^ 1).collect();
        for harm in [Some(&damaged[..]), Some(&whole[1..]), Some(&[][..]), None] {
            let place = format!("{name}, {:?} bytes", harm.map(<[u8]>::len));
            // Nothing of the block has been verified but the filter.
            let ingester = open(dir.path()).unwrap();
            let read = || {
                let ctx = QueryContext::new(&MemoryBudget::new(1 << 30), Arc::new(AtomicBool::new(false)));
                ingester.snapshot(&tenant).sources[0].find_trace(sent.id, &ctx)
            };
            let trouble = || (ingester.health().blocks_skipped, ingester.block_states(&tenant)[0].trouble.clone());
            match harm {
                Some(bytes) => fs::write(&path, bytes).unwrap(),
                None => fs::remove_file(&path).unwrap(),
            }
            for _ in 0..2 {
                assert!(read().is_err(), "{place}");
                let (count, reason) = trouble();
                assert_eq!(count, 1, "{place}");
                assert!(reason.unwrap().starts_with(&format!("block {id} {name}: ")), "{place}");
            }
            ingester.reopen_blocks();
            assert_eq!(trouble().0, 1, "{place}");
            fs::write(&path, &whole).unwrap();
            // Seen by the next look at it, or by whoever reads it.
            if harm.is_none() {
                ingester.reopen_blocks();
                assert_eq!(trouble(), (0, None), "{place}");
            }
            assert_eq!(read().unwrap().len(), 5, "{place}");
            assert_eq!(trouble(), (0, None), "{place}");
        }
    }
}

#[test]
fn a_meta_that_is_damaged_or_gone_is_written_again_from_the_catalog() {
    let dir = tempfile::tempdir().unwrap();
    let tenant = TenantId::single();
    let ingester = open(dir.path()).unwrap();
    append(&ingester, &tenant, &trace(1, 5)).unwrap();
    ingester.flush(None).unwrap();
    let id = ingester.blocks(&tenant)[0].id;
    let path = dir.path().join("blocks").join(tenant.as_str()).join(id.to_string()).join("meta.json");
    let whole = fs::read(&path).unwrap();
    let mut flipped = whole.clone();
    flipped[40] ^= 1;
    for harm in [Some(flipped), Some(Vec::new()), None] {
        match harm {
            Some(bytes) => fs::write(&path, bytes).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        ingester.reopen_blocks();
        assert_eq!(fs::read(&path).unwrap(), whole);
    }
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        match path.is_dir() {
            true => copy_dir(&path, &target),
            false => drop(fs::copy(&path, target).unwrap()),
        }
    }
}

#[test]
fn a_flipped_bit_in_the_log_costs_little_and_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let tenant = TenantId::single();
    let ingester = open(&dir.path().join("data")).unwrap();
    let sent: Vec<Trace> = (0..2000).map(|number| trace(number, 1 + number % 9)).collect();
    for (number, trace) in sent.iter().enumerate() {
        append(&ingester, &tenant, trace).unwrap();
        if number == 300 || number == 900 {
            ingester.flush(None).unwrap();
        }
    }
    // Killed, and a disk that fails.
    for place in [0.01, 0.2, 0.5, 0.7, 0.995] {
        let copy = dir.path().join("copy");
        copy_dir(&dir.path().join("data"), &copy);
        let logs =
            files(&copy.join("db")).into_iter().filter(|(path, _)| path.extension().is_some_and(|it| it == "log"));
        let (path, mut bytes) = logs.max_by_key(|(_, bytes)| bytes.len()).unwrap();
        let at = (bytes.len() as f64 * place) as usize;
        bytes[at] ^= 4;
        fs::write(&path, &bytes).unwrap();
        let refused = OfflineCatalog::open(&Config::new(&copy)).err().unwrap().to_string();
        assert!(refused.contains("start the server once"), "{refused}");
        let after = open(&copy).unwrap();
        let found = sent.iter().filter(|trace| find(&*after, &tenant, trace.id).as_ref() == Some(trace)).count();
        assert!(found > 1700, "{place}: {found}");
        assert!(after.health().log_damage.unwrap().contains("damaged-log-1"));
        after.close().unwrap();
        drop(after);
        let again = open(&copy).unwrap();
        assert_eq!(again.health().log_damage, None);
        assert_eq!(sent.iter().filter(|trace| find(&*again, &tenant, trace.id).as_ref() == Some(trace)).count(), found);
        drop(again);
        fs::remove_dir_all(&copy).unwrap();
    }
}

// Scenario: a bit of a table, of the manifest or of CURRENT is flipped, or the file is gone. Guarantee: the start, tools and queries at
// rest end with a sentence that names it and says what to do, and nothing is removed.
#[test]
fn damage_beyond_the_log_is_named_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let ingester = open(&data).unwrap();
    for number in 0..40 {
        append(&ingester, &TenantId::single(), &trace(number, 5)).unwrap();
    }
    ingester.close().unwrap();
    drop(ingester);
    let before = files(&data.join("db"));
    let is_table = |path: &Path| path.extension().is_some_and(|extension| extension == "sst");
    let begins = |path: &Path, name: &str| path.file_name().unwrap().to_str().unwrap().starts_with(name);
    let (mut tables, mut others) = (0, 0);
    for (path, bytes) in &before {
        match (is_table(path), begins(path, "MANIFEST-") || begins(path, "CURRENT")) {
            (true, _) => tables += 1,
            (_, true) => others += 1,
            _ => continue,
        }
        let mut flipped = bytes.clone();
        let middle = bytes.len() / 2;
        flipped[middle] ^= 4;
        for damaged in [Some(&flipped), None] {
            let copy = dir.path().join("copy");
            copy_dir(&data, &copy);
            let target = copy.join(path.strip_prefix(&data).unwrap());
            match damaged {
                Some(flipped) => fs::write(&target, flipped).unwrap(),
                None => fs::remove_file(&target).unwrap(),
            }
            let config = Config::new(&copy);
            let told = [
                open_at_rest(&config, &OtlpDecoder).err(),
                OfflineCatalog::open(&config).err(),
                list_catalog(&config).err(),
                open(&copy).err(),
            ];
            for (place, err) in told.into_iter().enumerate() {
                let err = err.unwrap_or_else(|| panic!("{place}: {} passes", path.display())).to_string();
                assert!(err.contains("move this database away") && err.contains("put a copy"), "{place}: {err}");
                let name = target.file_name().unwrap().to_str().unwrap();
                assert!(err.contains(name), "{place}: {name} in {err}");
            }
            let mut left = files(&copy.join("db"));
            left.retain(|path, _| before.contains_key(&data.join(path.strip_prefix(&copy).unwrap())));
            assert_eq!(left.len(), before.len() - usize::from(damaged.is_none()), "nothing is removed");
            fs::remove_dir_all(&copy).unwrap();
        }
    }
    assert!(tables > 0 && others == 2, "{tables}, {others}");
}

#[test]
fn tenants_do_not_see_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (TenantId::parse("a").unwrap(), TenantId::parse("b").unwrap());
    let ingester = open(dir.path()).unwrap();
    let (of_a, of_b) = (trace(1, 3), trace(2, 3));
    append(&ingester, &a, &of_a).unwrap();
    append(&ingester, &b, &of_b).unwrap();
    ingester.flush(Some(&a)).unwrap();
    for _ in 0..2 {
        check(&*ingester, &a, std::slice::from_ref(&of_a));
        check(&*ingester, &b, std::slice::from_ref(&of_b));
        assert_eq!(find(&*ingester, &a, of_b.id), None);
        assert_eq!(find(&*ingester, &b, of_a.id), None);
        ingester.flush(None).unwrap();
    }
    assert_eq!(ingester.tenants(), [a, b]);
}

/// Every file below a directory, with its bytes.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => drop(found.insert(path.clone(), fs::read(path).unwrap())),
        }
    }
    found
}

#[test]
fn a_directory_at_rest_answers_as_its_server_did_and_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config::new(dir.path());
    let (a, b) = (TenantId::parse("a").unwrap(), TenantId::parse("b").unwrap());
    let sent: Vec<Trace> = (0..60).map(|number| trace(number, 1 + number % 9)).collect();
    let ingester = open(dir.path()).unwrap();
    sent[..30].iter().for_each(|trace| append(&ingester, &a, trace).unwrap());
    ingester.flush(None).unwrap();
    sent[30..].iter().for_each(|trace| append(&ingester, &a, trace).unwrap());
    append(&ingester, &b, &sent[0]).unwrap();
    let refused = open_at_rest(&config, &OtlpDecoder).err().unwrap();
    assert!(matches!(refused, Error::Locked { .. }), "{refused}");
    drop(ingester);

    let before = files(dir.path());
    let at_rest = open_at_rest(&config, &OtlpDecoder).unwrap();
    let beside = open_at_rest(&config, &OtlpDecoder).unwrap();
    assert!(matches!(open(dir.path()), Err(Error::Locked { .. })), "no server under a reader's feet");
    for reader in [&at_rest, &beside] {
        assert_eq!(reader.tenants(), [a.clone(), b.clone()]);
        check(reader, &a, &sent);
        check(reader, &b, &sent[..1]);
    }
    assert_eq!(at_rest.snapshot(&a).sources.len(), 2);
    drop((at_rest, beside));
    assert!(files(dir.path()) == before, "reading changes nothing");
    let ingester = open(dir.path()).unwrap();
    check(&*ingester, &a, &sent);
    ingester.close().unwrap();
    drop(ingester);
    check(&open_at_rest(&config, &OtlpDecoder).unwrap(), &a, &sent);
}

#[test]
fn a_damaged_record_of_a_directory_at_rest_is_named_and_the_rest_answers() {
    let dir = tempfile::tempdir().unwrap();
    let (config, tenant) = (Config::new(dir.path()), TenantId::single());
    let ingester = open(dir.path()).unwrap();
    (1..=3).for_each(|number| append(&ingester, &tenant, &trace(number, 4)).unwrap());
    drop(ingester);
    let store = RocksStore::open(&dir.path().join("db"), config.head_memory_limit).unwrap();
    let mut records = Vec::new();
    let mut visit = |key: &[u8], value: &[u8]| {
        records.push((key.to_vec(), value.to_vec()));
        ControlFlow::Continue(())
    };
    store.scan(Table::Wal, b"", &mut visit).unwrap();
    let (key, mut value) = records.swap_remove(1);
    value[30] ^= 1;
    store.write(&[Change::Put { table: Table::Wal, key, value }], Durability::Synced).unwrap();
    drop(store);

    let snapshot = open_at_rest(&config, &OtlpDecoder).unwrap().snapshot(&tenant);
    assert_eq!(snapshot.sources[0].span_count(), 8);
    assert!(snapshot.skipped[0].object.starts_with("log record"), "{:?}", snapshot.skipped);
    assert!(snapshot.skipped[0].reason.contains("checksum"), "{:?}", snapshot.skipped);
}

/// Panics in the middle of one request.
struct Touchy(Bytes);

impl Decode for Touchy {
    fn check(&self, request: &[u8]) -> Result<Checked, WireError> {
        OtlpDecoder.check(request)
    }

    fn append(&self, request: &[u8], checked: &Checked, batch: &mut SpanBatch) {
        OtlpDecoder.append(request, checked, batch);
        assert!(request != self.0, "the request that this decoder cannot stand");
    }
}

#[test]
fn a_request_that_cannot_be_decoded_is_named_and_leaves_no_span_behind() {
    let dir = tempfile::tempdir().unwrap();
    let tenant = TenantId::single();
    let ingester = open(dir.path()).unwrap();
    (1..=3).for_each(|number| append(&ingester, &tenant, &trace(number, 4)).unwrap());
    drop(ingester);
    let touchy = Touchy(request(&tenant, &trace(2, 4)).payload);
    let snapshot = open_at_rest(&Config::new(dir.path()), &touchy).unwrap().snapshot(&tenant);
    let ctx = QueryContext::new(&MemoryBudget::new(1 << 30), Arc::new(AtomicBool::new(false)));
    let spans = |number| snapshot.sources[0].find_trace(trace(number, 4).id, &ctx).unwrap().len();
    assert_eq!([1, 2, 3].map(spans), [4, 0, 4]);
    assert!(snapshot.skipped[0].reason.contains("panicked"), "{:?}", snapshot.skipped);
}

#[test]
fn what_is_no_data_directory_and_what_does_not_fit_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let refused = open_at_rest(&Config::new(dir.path()), &OtlpDecoder).err().unwrap();
    assert!(matches!(refused, Error::NoData { .. }), "{refused}");
    assert_eq!(files(dir.path()), BTreeMap::new());
    let ingester = open(dir.path()).unwrap();
    append(&ingester, &TenantId::single(), &trace(1, 50)).unwrap();
    drop(ingester);
    let mut config = Config::new(dir.path());
    config.head_memory_limit = 1;
    let refused = open_at_rest(&config, &OtlpDecoder).err().unwrap().to_string();
    assert!(refused.contains("raise head_memory_limit"), "{refused}");
}

#[test]
fn only_blocks_that_the_catalog_does_not_name_are_swept_and_only_when_told() {
    let dir = tempfile::tempdir().unwrap();
    let (config, tenant) = (Config::new(dir.path()), TenantId::single());
    let files = DirectoryFiles::new(dir.path().join("blocks"));
    let refused = sweep_leftovers(&config, &files, &mut |_| true).unwrap_err();
    assert!(matches!(refused, Error::NoData { .. }), "{refused}");
    let ingester = open(dir.path()).unwrap();
    append(&ingester, &tenant, &trace(1, 5)).unwrap();
    ingester.flush(None).unwrap();
    let known = ingester.blocks(&tenant)[0].clone();
    assert!(matches!(sweep_leftovers(&config, &files, &mut |_| true), Err(Error::Locked { .. })));
    ingester.close().unwrap();
    drop(ingester);

    let tenant_dir = dir.path().join("blocks").join(tenant.as_str());
    let [staged, stray, rotten] = [BlockId(1), BlockId(2), BlockId(3)];
    fs::create_dir(tenant_dir.join(format!("{staged}.tmp"))).unwrap();
    fs::create_dir(tenant_dir.join(stray.to_string())).unwrap();
    let meta = BlockMeta::without_files(stray, tenant.clone(), UnixNano(1), TimeRange::ALL);
    fs::write(tenant_dir.join(stray.to_string()).join("meta.json"), meta.to_json()).unwrap();
    fs::create_dir(tenant_dir.join(rotten.to_string())).unwrap();
    fs::write(tenant_dir.join(rotten.to_string()).join("meta.json"), "{").unwrap();
    let mut seen = Vec::new();
    let kept = sweep_leftovers(&config, &files, &mut |leftover| {
        seen.push(leftover.clone());
        false
    });
    assert_eq!(kept.unwrap(), 0);
    let last = seen.pop().unwrap();
    assert!(matches!(last.state, LeftoverState::Unreadable(_)), "what cannot be read may still hold spans: {last:?}");
    let expected = [(staged, LeftoverState::Unfinished), (stray, LeftoverState::Whole(Box::new(meta)))]
        .map(|(id, state)| Leftover { tenant: tenant.clone(), id, state });
    assert_eq!(seen, expected);
    let mut is_unfinished = |leftover: &Leftover| leftover.state == LeftoverState::Unfinished;
    assert_eq!(sweep_leftovers(&config, &files, &mut is_unfinished).unwrap(), 1);
    let left = [(tenant.clone(), stray), (tenant.clone(), rotten), (tenant, known.id)];
    assert_eq!(files.list().unwrap(), left);
}
