//! Blocks against the batches that they were written from.

use std::sync::atomic::AtomicBool;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use spoor_model::batch::{AttrValue, Dropped, SpanBatch, SpanFields};
use spoor_model::columns::{ColumnBatch, ValuesOf};
use spoor_model::memory::MemoryBudget;
use spoor_model::scan::{Condition, Literal, Predicate, Test};
use spoor_model::{BlockId, SpanId, TenantId, Trace, UnixNano, wire};

use super::*;
use crate::files::DirectoryFiles;
use crate::write::{WriteOptions, write};

mod columns;

/// One attribute: a key of few, one of many (rare ones go to the residual), and a value.
#[derive(Debug, Clone)]
pub(crate) enum Attr {
    Str(String, String),
    Int(String, i64),
    Double(String, f64),
    Bool(String, bool),
    Nested(String, Value),
}

#[derive(Debug, Clone)]
pub(crate) struct Seed {
    pub(crate) ids: (u8, u8, u8),
    pub(crate) times: (u64, u32),
    pub(crate) name: String,
    numbers: (i32, i32, u32),
    origin: u8,
    pub(crate) attributes: Vec<Attr>,
    status_message: String,
    trace_state: String,
    dropped: (u32, u32, u32),
    events: Vec<String>,
    links: Vec<(u8, &'static str)>,
}

fn attr() -> impl Strategy<Value = Attr> {
    let key = prop_oneof![6 => "[ab]", 1 => "rare\\.[a-z]{2}"];
    let text = prop_oneof![select(vec!["x", "y", ""]).prop_map(str::to_owned), ".{0,6}"];
    prop_oneof![
        3 => (key.clone(), text).prop_map(|(key, text)| Attr::Str(key, text)),
        2 => (key.clone(), prop_oneof![0..4i64, any::<i64>()]).prop_map(|(key, int)| Attr::Int(key, int)),
        1 => (key.clone(), any::<f64>()).prop_map(|(key, double)| Attr::Double(key, double)),
        1 => (key.clone(), any::<bool>()).prop_map(|(key, flag)| Attr::Bool(key, flag)),
        1 => (key, nested_value()).prop_map(|(key, value)| Attr::Nested(key, value)),
    ]
}

/// What is no text, number or flag: bytes, arrays of one type and of two, maps, and nothing at all.
fn nested_value() -> impl Strategy<Value = Value> {
    let text = || Value::Str("x".into());
    prop_oneof![
        vec(any::<u8>(), 0..4).prop_map(Value::Bytes),
        vec(0..3i64, 0..3).prop_map(|ints| Value::Array(ints.into_iter().map(Value::Int).collect())),
        Just(Value::Array(vec![text(), Value::Int(1)])),
        Just(Value::Array(vec![text(), text()])),
        Just(Value::Map(vec![KeyValue::new("a", text())])),
        Just(Value::Empty),
    ]
}

prop_compose! {
    pub(crate) fn seed()(
        ids in (1..6u8, 1..20u8, 0..20u8),
        times in (0..1u64 << 40, any::<u32>()),
        name in prop_oneof![select(vec!["GET", "POST"]).prop_map(str::to_owned), ".{0,4}"],
        numbers in (0..6i32, 0..3i32, select(vec![0u32, 1, 0x101])),
        origin in 0..4u8,
        attributes in vec(attr(), 0..5),
        texts in (select(vec!["", "", "boom"]), select(vec!["", "", "k=v"])),
        dropped in (0..2u32, 0..2u32, 0..2u32),
        events in vec("[ef]{0,2}", 0..3),
        links in vec((1..4u8, select(vec!["child_of", "follows_from"])), 0..3),
    ) -> Seed {
        Seed {
            ids, times, name, numbers, origin, attributes, dropped, events, links,
            status_message: texts.0.to_owned(), trace_state: texts.1.to_owned(),
        }
    }
}

fn push(batch: &mut SpanBatch, seed: &Seed) {
    let mut resource = Vec::new();
    let service = KeyValue::new("service.name", Value::Str(format!("s{}", seed.origin)));
    nested::put_attributes(&mut resource, 1, &[service]);
    let mut scope = Vec::new();
    wire::put_text(&mut scope, 1, b"lib");
    if seed.origin > 1 {
        nested::put_attributes(&mut resource, 1, &[KeyValue::new("a", Value::Str("x".into()))]);
        nested::put_attributes(&mut scope, 3, &[KeyValue::new("b", Value::Int(1))]);
    }
    let origin = batch.intern_origin(&resource, &scope, "", "").unwrap();
    for attribute in &seed.attributes {
        match attribute {
            Attr::Str(key, text) => batch.push_attribute(key.as_bytes(), AttrValue::Str(text.as_bytes())),
            Attr::Int(key, int) => batch.push_attribute(key.as_bytes(), AttrValue::Int(*int)),
            Attr::Double(key, double) => batch.push_attribute(key.as_bytes(), AttrValue::Double(*double)),
            Attr::Bool(key, flag) => batch.push_attribute(key.as_bytes(), AttrValue::Bool(*flag)),
            Attr::Nested(key, value) => {
                let mut encoded = Vec::new();
                nested::put_value(&mut encoded, value);
                batch.push_attribute(key.as_bytes(), AttrValue::Encoded(&encoded));
            }
        }
    }
    for (place, name) in seed.events.iter().enumerate() {
        let attributes = match name.as_str() {
            "e" => vec![KeyValue::new("ek", Value::Int(1)), KeyValue::new("a", Value::Str("x".into()))],
            "ef" => vec![],
            _ => vec![KeyValue::new("ek", Value::Int(place as i64))],
        };
        let time = UnixNano(seed.times.0 + place as u64);
        let event = Event { name: name.clone(), attributes, time, ..Event::default() };
        let mut encoded = Vec::new();
        nested::put_event(&mut encoded, &event);
        batch.push_event(&encoded);
    }
    for (trace, reference) in &seed.links {
        let mut encoded = Vec::new();
        let attributes = vec![
            KeyValue::new("opentracing.ref_type", Value::Str((*reference).into())),
            KeyValue::new("b", Value::Str("y".into())),
        ];
        let (trace_id, span_id) = (TraceId([*trace; 16]), SpanId([5; 8]));
        let link = Link { trace_state: "t".into(), trace_id, span_id, attributes, ..Default::default() };
        nested::put_link(&mut encoded, &link);
        batch.push_link(&encoded);
    }
    batch.push_span(SpanFields {
        trace_id: TraceId([seed.ids.0; 16]),
        span_id: SpanId([seed.ids.1; 8]),
        parent_span_id: SpanId([seed.ids.2; 8]),
        start: UnixNano(seed.times.0),
        end: UnixNano(seed.times.0 + u64::from(seed.times.1)),
        kind: seed.numbers.0,
        status_code: seed.numbers.1,
        flags: seed.numbers.2,
        origin,
        name: seed.name.as_bytes(),
        status_message: seed.status_message.as_bytes(),
        trace_state: seed.trace_state.as_bytes(),
        dropped: Dropped { attributes: seed.dropped.0, events: seed.dropped.1, links: seed.dropped.2 },
    });
}

pub(crate) fn batch(seeds: &[Seed]) -> SpanBatch {
    let mut batch = SpanBatch::new();
    seeds.iter().for_each(|seed| push(&mut batch, seed));
    batch
}

pub(crate) fn context() -> QueryContext {
    QueryContext::new(&MemoryBudget::new(1 << 30), Arc::new(AtomicBool::new(false)))
}

struct Written {
    block: Block,
    entries: Vec<SpanEntry>,
    _dir: tempfile::TempDir,
}

fn write_block(parts: &[&[Seed]], options: &WriteOptions) -> Written {
    let batches: Vec<SpanBatch> = parts.iter().map(|seeds| batch(seeds)).collect();
    let mut of_trace: BTreeMap<TraceId, Vec<SpanEntry>> = BTreeMap::new();
    for entry in batches.iter().flat_map(|batch| (0..batch.len() as u32).map(|row| batch.span(row))) {
        of_trace.entry(entry.span.trace_id).or_default().push(entry);
    }
    // Without exact copies.
    let traces = of_trace.into_iter().filter_map(|(id, entries)| Trace::assemble(id, entries));
    let entries = traces.flat_map(|trace| trace.entries).collect();
    let dir = tempfile::tempdir().unwrap();
    let id = BlockId::from_parts(UnixNano(1), 7);
    let batches: Vec<&SpanBatch> = batches.iter().collect();
    let files: Arc<dyn BlockFiles> = Arc::new(DirectoryFiles::new(dir.path()));
    let meta = write(&*files, id, &TenantId::single(), &batches, UnixNano(1), options).unwrap();
    let meta = BlockMeta::from_json(&meta.to_json()).unwrap();
    let block = Block::open(&files, meta, &BlockCache::new(1 << 20)).unwrap();
    Written { block, entries, _dir: dir }
}

/// Attribute order may change in a block; nothing else may.
pub(crate) fn canonical(mut entries: Vec<SpanEntry>) -> Vec<String> {
    for entry in &mut entries {
        entry.span.attributes.sort_by_cached_key(|attribute| format!("{attribute:?}"));
    }
    let mut texts: Vec<String> = entries.iter().map(|entry| format!("{entry:?}")).collect();
    texts.sort();
    texts
}

pub(crate) fn small_pages() -> WriteOptions {
    WriteOptions { row_group_rows: 16, page_rows: 4, zstd_level: 1 }
}

pub(crate) fn field() -> impl Strategy<Value = Field> {
    let scopes = vec![
        AttrScope::Any,
        AttrScope::Span,
        AttrScope::Resource,
        AttrScope::Event,
        AttrScope::Link,
        AttrScope::Instrumentation,
    ];
    let attribute = (select(scopes), select(vec!["a", "b", "ek", "rare.ab", "service.name"]));
    let intrinsics = vec![
        Field::Name,
        Field::Kind,
        Field::Status,
        Field::StatusMessage,
        Field::Duration,
        Field::StartTime,
        Field::TraceId,
        Field::SpanId,
        Field::ParentSpanId,
        Field::InstrumentationName,
        Field::InstrumentationVersion,
        Field::EventName,
        Field::EventTimeSinceStart,
        Field::LinkTraceId,
        Field::LinkSpanId,
    ];
    prop_oneof![select(intrinsics), attribute.prop_map(|(scope, key)| Field::Attribute(scope, key.into()))]
}

fn condition() -> impl Strategy<Value = Condition> {
    let texts =
        vec!["x", "GET", "s1", "boom", "", "e", "lib", "y", "0505050505050505", "0505050505050505050505050505050A"];
    let literal = prop_oneof![
        select(texts).prop_map(|text| Literal::Str(text.into())),
        (0..4i64).prop_map(Literal::Int),
        any::<i64>().prop_map(Literal::Int),
        select(vec![1.5, 1.0, f64::NAN]).prop_map(Literal::Float),
        any::<bool>().prop_map(Literal::Bool),
    ];
    let tests =
        vec![Test::Exists, Test::Absent, Test::TextEq("1".into()), Test::TextEq("".into()), Test::Contains("o".into())];
    let test = prop_oneof![
        2 => literal.clone().prop_map(Test::Eq),
        1 => literal.clone().prop_map(Test::Ne),
        1 => literal.clone().prop_map(Test::Lt),
        1 => literal.clone().prop_map(Test::Le),
        1 => literal.clone().prop_map(Test::Gt),
        1 => literal.prop_map(Test::Ge),
        2 => select(tests),
    ];
    (field(), test).prop_map(|(field, test)| Condition { field, test })
}

pub(crate) fn predicate() -> impl Strategy<Value = Predicate> {
    let leaf = prop_oneof![
        8 => condition().prop_map(Predicate::Is),
        1 => vec(condition(), 0..3).prop_map(Predicate::OneEvent),
        1 => vec(condition(), 0..3).prop_map(Predicate::OneLink),
        1 => select(vec![Predicate::True, Predicate::False]),
    ];
    leaf.prop_recursive(2, 6, 3, |inner| {
        prop_oneof![vec(inner.clone(), 0..3).prop_map(Predicate::And), vec(inner, 0..3).prop_map(Predicate::Or),]
    })
}

pub(crate) fn matching_ids(block: &Block, predicate: &Predicate) -> Vec<TraceId> {
    let request = ColumnRequest {
        masks: vec![predicate.clone()],
        needed: vec![0],
        columns: Vec::new(),
        values_of: ValuesOf::NeededRows,
        tree: false,
        copies: false,
        range: TimeRange::ALL,
        intervals: None,
    };
    let scan = block.scan(&request, &context()).unwrap();
    let batches = (0..scan.groups().len()).filter_map(|group| scan.read(group, &context()).unwrap().0);
    let of_batch = |batch: ColumnBatch| {
        let is_match = |trace: &usize| batch.masks[0].any_in(batch.rows_of(*trace));
        (0..batch.trace_count()).filter(is_match).map(|trace| batch.trace_ids[trace]).collect::<Vec<_>>()
    };
    batches.flat_map(of_batch).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn every_span_is_read_back_equal(seeds in vec(seed(), 1..60), split in 0..60usize, is_small in any::<bool>()) {
        let split = split.min(seeds.len());
        let options = if is_small { small_pages() } else { WriteOptions::default() };
        let written = write_block(&[&seeds[..split], &seeds[split..]], &options);
        let mut found = Vec::new();
        for trace in 1..6u8 {
            let id = TraceId([trace; 16]);
            let entries = written.block.find_trace(id, &context()).unwrap();
            let range = Trace::assemble(id, entries.clone()).map(|trace| trace.range());
            prop_assert_eq!(written.block.trace_range(id, &context()).unwrap(), range);
            found.extend(entries);
        }
        let mut ids: Vec<TraceId> = written.entries.iter().map(|entry| entry.span.trace_id).collect();
        ids.push(TraceId([99; 16]));
        ids.sort_by_key(|id| std::cmp::Reverse(id.hash64()));
        ids.dedup();
        for (id, entries) in ids.iter().zip(written.block.find_traces(&ids, &context()).unwrap()) {
            let alone = written.block.find_trace(*id, &context()).unwrap();
            prop_assert_eq!(canonical(entries), canonical(alone));
        }
        prop_assert_eq!(canonical(found), canonical(written.entries));
        prop_assert!(written.block.find_trace(TraceId([99; 16]), &context()).unwrap().is_empty());
    }

    #[test]
    fn masks_name_the_traces_with_a_match_once_each(seeds in vec(seed(), 1..60), predicate in predicate()) {
        let written = write_block(&[&seeds], &small_pages());
        let found = matching_ids(&written.block, &predicate);
        let distinct: BTreeSet<TraceId> = found.iter().copied().collect();
        prop_assert_eq!(distinct.len(), found.len());
        // As the block has them: which of two attributes of one key comes first is for the block to say.
        let entries = (1..6u8).flat_map(|n| written.block.find_trace(TraceId([n; 16]), &context()).unwrap());
        let matching = entries.filter(|entry| predicate.matches(entry)).map(|entry| entry.span.trace_id);
        prop_assert_eq!(distinct, matching.collect::<BTreeSet<TraceId>>());
    }

    #[test]
    fn keys_values_and_operations_are_those_of_the_spans(seeds in vec(seed(), 1..40)) {
        let written = write_block(&[&seeds], &small_pages());
        let mut keys = KeySet::new();
        written.block.keys(&context(), &mut keys).unwrap();
        let span_keys: BTreeSet<String> =
            written.entries.iter().flat_map(|entry| entry.span.attributes.iter().map(|kv| kv.key.clone())).collect();
        prop_assert_eq!(keys.remove(&AttrScope::Span).unwrap_or_default(), span_keys.clone());
        for key in span_keys {
            let (mut got, mut want) = (ValueSet::new(1 << 20), ValueSet::new(1 << 20));
            let field = Field::Attribute(AttrScope::Span, key.as_str().into());
            written.block.values(&field, &context(), &mut got).unwrap();
            for entry in &written.entries {
                let of_key = entry.span.attributes.iter().filter(|attribute| attribute.key == key);
                of_key.for_each(|attribute| assert!(want.insert(&attribute.value).is_continue()));
            }
            prop_assert_eq!(format!("{:?}", got.into_values()), format!("{:?}", want.into_values()));
        }
        let mut operations = BTreeSet::new();
        written.block.operations(&context(), &mut operations).unwrap();
        let want: BTreeSet<Operation> = written.entries.iter().map(|entry| Operation {
            service: entry.origin.service_name().map(str::to_owned), name: entry.span.name.clone(), kind: entry.span.kind,
        }).collect();
        prop_assert_eq!(operations, want);
    }
}

/// Damage anywhere is an error or the truth, never another answer.
#[test]
fn a_flipped_byte_in_any_file_is_reported_or_harmless() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let seeds = vec(seed(), 40).new_tree(&mut runner).unwrap().current();
    let written = write_block(&[&seeds], &small_pages());
    let (files, meta) = (&written.block.files, &written.block.meta);
    let block_dir = std::path::PathBuf::from(files.locate(&meta.tenant, meta.id));
    let truth =
        |id: TraceId| canonical(written.entries.iter().filter(|entry| entry.span.trace_id == id).cloned().collect());
    for file in ["spans.parquet", "shapes.parquet", "origins.parquet", "index.bin"] {
        let path = block_dir.join(file);
        let good = std::fs::read(&path).unwrap();
        let mut reported_count = 0;
        for step in 0..40 {
            let mut bad = good.clone();
            bad[step * good.len() / 40] ^= 0x10;
            std::fs::write(&path, &bad).unwrap();
            let reopened = Block::open(files, meta.clone(), &BlockCache::new(0));
            let id = TraceId([1 + step as u8 % 5; 16]);
            match reopened.map_err(ScanError::from).and_then(|block| block.find_trace(id, &context())) {
                Ok(entries) => assert_eq!(canonical(entries), truth(id)),
                Err(ScanError::Corrupt { object, .. }) => {
                    assert!(object.contains(file), "{object} does not name {file}");
                    reported_count += 1;
                }
                Err(other) => panic!("{other}"),
            }
        }
        std::fs::write(&path, &good).unwrap();
        assert!(reported_count > 20, "{file}: only {reported_count} of 40 flips were found");
    }
}

#[test]
fn shapes_that_explode_become_columns_and_nothing_is_lost() {
    let seeds: Vec<Seed> = (0..20_000u32)
        .map(|n| Seed {
            ids: (1 + (n % 5) as u8, 1 + (n % 19) as u8, 0),
            times: (u64::from(n), 1),
            name: format!("GET /users/{n}"),
            numbers: ((n % 6) as i32, (n % 3) as i32, n),
            origin: 0,
            attributes: (0..12).map(|key| Attr::Int(format!("k{key}"), i64::from(n >> key & 15))).collect(),
            status_message: String::new(),
            trace_state: String::new(),
            dropped: (0, 0, 0),
            events: vec![],
            links: vec![],
        })
        .collect();
    let written = write_block(&[&seeds], &WriteOptions::default());
    assert!(written.block.opened().unwrap().shapes.len() <= 8192);
    assert!(written.block.opened().unwrap().column("name").is_some(), "names of high cardinality are a column");
    let found =
        (1..6u8).flat_map(|trace| written.block.find_trace(TraceId([trace; 16]), &context()).unwrap()).collect();
    assert_eq!(canonical(found), canonical(written.entries));
}

/// A catalogue that stops noting keys would make searches for the others find nothing.
#[test]
fn an_event_attribute_is_found_however_many_keys_there_are() {
    let mut batch = SpanBatch::new();
    let origin = batch.intern_origin(&[], &[], "", "").unwrap();
    for n in 0..1500u32 {
        let attributes = vec![KeyValue::new(format!("key {n}"), Value::Int(1))];
        let mut encoded = Vec::new();
        nested::put_event(&mut encoded, &Event { attributes, ..Event::default() });
        batch.push_event(&encoded);
        let trace_id = TraceId((u128::from(n) + 1).to_be_bytes());
        batch.push_span(SpanFields { trace_id, span_id: SpanId([1; 8]), origin, ..SpanFields::default() });
    }
    let dir = tempfile::tempdir().unwrap();
    let (id, tenant) = (BlockId::from_parts(UnixNano(1), 7), TenantId::single());
    let files: Arc<dyn BlockFiles> = Arc::new(DirectoryFiles::new(dir.path()));
    let meta = write(&*files, id, &tenant, &[&batch], UnixNano(1), &WriteOptions::default()).unwrap();
    let block = Block::open(&files, meta, &BlockCache::new(1 << 20)).unwrap();
    for n in [0, 999, 1499] {
        let field = Field::Attribute(AttrScope::Event, format!("key {n}").into());
        let predicate = Predicate::Is(Condition { field, test: Test::Exists });
        assert!(matching_ids(&block, &predicate).contains(&TraceId((n + 1u128).to_be_bytes())), "key {n}");
    }
}

#[test]
fn a_sound_block_is_verified_and_any_flipped_byte_is_found() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let seeds = vec(seed(), 60).new_tree(&mut runner).unwrap().current();
    let written = write_block(&[&seeds], &small_pages());
    let (files, meta) = (&written.block.files, written.block.meta());
    let mut read = 0;
    crate::verify(files, meta, &mut |bytes| read += bytes).unwrap();
    assert_eq!(read, meta.size_bytes);
    let composition = crate::composition(&**files, meta).unwrap();
    assert_eq!(composition.files.iter().map(|(_, size)| size).sum::<u64>(), meta.size_bytes);
    let ids = composition.columns.iter().find(|column| column.name == "trace_id").unwrap();
    assert_eq!(ids.value_count, meta.span_count);
    let dir = std::path::PathBuf::from(files.locate(&meta.tenant, meta.id));
    for (file, size) in composition.files.iter().map(|(name, size)| (name.as_str(), *size)).chain([("meta.json", 50)]) {
        let good = std::fs::read(dir.join(file)).unwrap();
        for step in 0..20 {
            let mut bad = good.clone();
            bad[(step * size / 20) as usize] ^= 0x10;
            std::fs::write(dir.join(file), &bad).unwrap();
            assert!(crate::verify(files, meta, &mut |_| {}).is_err(), "{file}: byte {}", step * size / 20);
        }
        std::fs::write(dir.join(file), &good).unwrap();
    }
}
