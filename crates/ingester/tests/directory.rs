//! The ingester on a real directory: RocksDB, OTLP, Parquet blocks.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use prometheus_client::registry::Registry;
use spoor_ingester::{Config, Error, Ingester, Metrics};
use spoor_model::ingest::{Append, AppendError, AppendRequest, BodyEncoding, Decode};
use spoor_model::memory::MemoryBudget;
use spoor_model::scan::{QueryContext, Snapshots};
use spoor_model::{
    Clock, Event, KeyValue, Origin, Span, SpanEntry, SpanId, TenantId, Trace, TraceId, UnixNano, Value, nested,
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
fn find(ingester: &Ingester, tenant: &TenantId, id: TraceId) -> Option<Trace> {
    let ctx = QueryContext::new(&MemoryBudget::new(1 << 30), Arc::new(AtomicBool::new(false)));
    let snapshot = ingester.snapshot(tenant);
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

fn check(ingester: &Ingester, tenant: &TenantId, traces: &[Trace]) {
    for trace in traces {
        assert_eq!(find(ingester, tenant, trace.id).as_ref(), Some(trace));
    }
    assert_eq!(find(ingester, tenant, TraceId([0xff; 16])), None);
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
    check(&ingester, &tenant, &sent);
    assert_eq!(ingester.blocks(&tenant).len(), 1);
    ingester.close().unwrap();
    check(&ingester, &tenant, &sent);
    drop(ingester);

    let ingester = open(dir.path()).unwrap();
    check(&ingester, &tenant, &sent);
    let blocks = ingester.blocks(&tenant);
    assert_eq!(blocks.iter().map(|meta| meta.span_count).sum::<u64>(), span_count(&sent));
    let ids: Vec<_> = blocks.iter().map(|meta| meta.id).collect();
    assert_eq!(ingester.remove_blocks(&tenant, &ids).unwrap(), 2);
    assert_eq!(find(&ingester, &tenant, sent[0].id), None);
    let tenant_dir = dir.path().join("blocks").join(tenant.as_str());
    assert_eq!(std::fs::read_dir(tenant_dir).unwrap().count(), 0);
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
        check(&ingester, &tenant, &[]);
        if part[0].span.span_id != whole.entries[20].span.span_id {
            ingester.flush(Some(&tenant)).unwrap();
        }
    }
    assert_eq!(ingester.snapshot(&tenant).sources.len(), 3);
    check(&ingester, &tenant, &[whole]);
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
    std::fs::write(&file, b"").unwrap();
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
    std::fs::write(block.join("index.bin"), b"not an index").unwrap();

    let ingester = open(dir.path()).unwrap();
    let snapshot = ingester.snapshot(&tenant);
    assert_eq!(snapshot.sources.len(), 1);
    assert_eq!(snapshot.skipped.len(), 1);
    assert!(snapshot.skipped[0].object.contains(&damaged.to_string()), "{:?}", snapshot.skipped);
    assert_eq!(ingester.health().blocks_skipped, 1);
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
        check(&ingester, &a, std::slice::from_ref(&of_a));
        check(&ingester, &b, std::slice::from_ref(&of_b));
        assert_eq!(find(&ingester, &a, of_b.id), None);
        assert_eq!(find(&ingester, &b, of_a.id), None);
        ingester.flush(None).unwrap();
    }
    assert_eq!(ingester.tenants(), [a, b]);
}
