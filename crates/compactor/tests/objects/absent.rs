//! What nobody has: told without asking the store, and never told of what somebody has.

use std::collections::BTreeSet;

use proptest::prelude::*;
use spoor_model::TimeRange;
use spoor_model::columns::{ColumnRequest, ValuesOf};
use spoor_model::scan::{AttrScope, Condition, Field, Literal, Predicate, Test};
use spoor_testkit::faults::{FaultStore, Faults};
use spoor_testkit::wait::until;

use super::*;

/// Traces of 17 spans: of the larger blocks, what tells that a value is absent does not come with the first request.
const TRACES: [u64; 4] = [40, 9000, 100, 7000];

fn is(field: Field, literal: Literal) -> Predicate {
    Predicate::Is(Condition { field, test: Test::Eq(literal) })
}

fn span(key: &str) -> Field {
    Field::Attribute(AttrScope::Span, key.into())
}

fn text(text: &str) -> Literal {
    Literal::Str(text.into())
}

/// What no span of the corpus satisfies.
fn absent() -> Vec<Predicate> {
    let nobody = |field| is(field, text("nobody"));
    vec![
        nobody(Field::Attribute(AttrScope::Resource, "service.name".into())),
        nobody(span("user.id")),
        nobody(span("no.such.key")),
        nobody(Field::Attribute(AttrScope::Any, "user.id".into())),
        nobody(Field::Name),
        is(span("http.response.status_code"), Literal::Int(299)),
        // Between the least and the greatest: they are multiples of 16 and 220 more.
        is(span("http.response.body.size"), Literal::Int(16 * 100 + 221)),
        is(span("http.response.body.size"), Literal::Int(1 << 40)),
        Predicate::Is(Condition { field: Field::Duration, test: Test::Gt(Literal::Int(1 << 60)) }),
    ]
}

fn request(needed: &Predicate) -> ColumnRequest {
    ColumnRequest {
        masks: vec![needed.clone()],
        needed: vec![0],
        columns: vec![Field::SpanId],
        values_of: ValuesOf::NeededRows,
        tree: true,
        copies: true,
        range: TimeRange::ALL,
        intervals: None,
    }
}

/// How many spans satisfy a predicate.
fn count(block: &Block, predicate: &Predicate) -> Result<usize, ScanError> {
    let (request, ctx) = (request(predicate), context());
    let scan = block.scan(&request, &ctx)?;
    let mut found = 0;
    for group in 0..scan.groups().len() {
        found += scan.read(group, &ctx.part())?.0.map_or(0, |batch| batch.masks[0].count());
    }
    Ok(found)
}

/// Blocks of these many traces each, written by another process.
fn written(store: &Arc<FaultStore>, dir: &Path, traces: &[u64]) -> Vec<BlockMeta> {
    let files = object_files(Arc::clone(store) as _, dir);
    let write = |(number, traces): (u64, &u64)| {
        Spans::of(number, *traces).write(&*files, block_id(number), &TenantId::single()).unwrap()
    };
    (1..).zip(traces).map(write).collect()
}

/// Opens blocks, and waits until what is fetched unasked is there.
fn known(files: &Arc<ObjectFiles>, metas: &[BlockMeta]) -> Vec<Block> {
    let all = Arc::clone(files) as Arc<dyn BlockFiles>;
    let blocks: Vec<Block> = metas.iter().map(|meta| open(&all, meta).unwrap()).collect();
    until("fetched", Duration::from_secs(60), || (files.awaited_blocks() == 0).then_some(()));
    blocks
}

#[test]
fn what_nobody_has_costs_no_request_once_blocks_are_known() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let store = Arc::new(FaultStore::in_memory(1));
    let metas = written(&store, dirs[0].path(), &TRACES);
    let files = object_files(Arc::clone(&store) as _, dirs[1].path());
    let blocks = known(&files, &metas);
    let gets = store.counts().gets();
    assert!(gets > 3 * metas.len() as u64, "of the larger blocks something is fetched behind the first requests");
    assert!(store.take_reads().keys().all(|object| !object.ends_with("/spans.parquet")));
    for predicate in absent() {
        for block in &blocks {
            assert_eq!(count(block, &predicate).unwrap(), 0, "{predicate:?}");
        }
        assert_eq!(store.counts().gets(), gets, "{predicate:?}");
    }
    let checkout = is(Field::Attribute(AttrScope::Resource, "service.name".into()), text("checkout"));
    assert!(blocks.iter().all(|block| count(block, &checkout).unwrap() > 0));
    // A process that comes after this one finds all of it on local disk.
    drop((blocks, files));
    let files = object_files(Arc::clone(&store) as _, dirs[1].path());
    let gets = store.counts().gets();
    let blocks = known(&files, &metas);
    assert!(absent().iter().all(|predicate| blocks.iter().all(|block| count(block, predicate).unwrap() == 0)));
    assert_eq!(store.counts().gets(), gets);
}

#[test]
fn what_may_not_be_fetched_unasked_is_fetched_when_it_is_asked_for() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let store = Arc::new(FaultStore::in_memory(1));
    let metas = written(&store, dirs[0].path(), &TRACES);
    let options = ObjectOptions { ahead_bytes: 0, ..options(dirs[1].path()) };
    let files = Arc::new(ObjectFiles::new(Arc::clone(&store) as _, options, Metrics::default()).unwrap());
    let all = Arc::clone(&files) as Arc<dyn BlockFiles>;
    let blocks: Vec<Block> = metas.iter().map(|meta| open(&all, meta).unwrap()).collect();
    assert_eq!(files.awaited_blocks(), 2, "the larger ones");
    let gets = store.counts().gets();
    for predicate in absent() {
        assert!(blocks.iter().all(|block| count(block, &predicate).unwrap() == 0), "{predicate:?}");
    }
    assert_eq!(store.counts().gets() - gets, 2, "one request for each of them");
    drop(blocks);
    assert_eq!(files.awaited_blocks(), 0, "nobody wants it any more");
}

#[test]
fn without_a_cache_on_disk_nothing_is_fetched_unasked_and_answers_are_the_same() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let store = Arc::new(FaultStore::in_memory(1));
    let metas = written(&store, dirs[0].path(), &TRACES[..2]);
    let options = ObjectOptions { cache_bytes: 0, ..options(dirs[1].path()) };
    let files = Arc::new(ObjectFiles::new(Arc::clone(&store) as _, options, Metrics::default()).unwrap());
    let blocks = known(&files, &metas);
    assert!(absent().iter().all(|predicate| blocks.iter().all(|block| count(block, predicate).unwrap() == 0)));
    let writer: Arc<dyn BlockFiles> = object_files(Arc::clone(&store) as _, dirs[0].path());
    let some = is(span("http.response.status_code"), Literal::Int(200));
    for (block, meta) in blocks.iter().zip(&metas) {
        assert_eq!(count(block, &some).unwrap(), count(&open(&writer, meta).unwrap(), &some).unwrap());
    }
}

/// Values that the corpus has, and some that it may have.
fn predicate() -> impl Strategy<Value = Predicate> {
    prop_oneof![
        (0..60_000u64).prop_map(|user| is(span("user.id"), text(&format!("u-{:06}", user * 17 + 100_000)))),
        (0..4_000i64).prop_map(|size| is(span("http.response.body.size"), Literal::Int(size * 16 + 220))),
        (0..50i64).prop_map(|rows| is(span("db.response.returned_rows"), Literal::Int(rows))),
        (0..30i64).prop_map(|code| is(span("thread.id"), Literal::Int(code + 15))),
        prop::sample::select(vec![200, 404, 500, 503])
            .prop_map(|code| is(span("http.response.status_code"), Literal::Int(code))),
        (20..40u32).prop_map(|bits| Predicate::Is(Condition {
            field: Field::Duration,
            test: Test::Gt(Literal::Int(1 << bits))
        })),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, ..ProptestConfig::default() })]

    /// Scenario: the store refuses, cuts off and flips bits; the cache on local disk is large, tiny or off.
    /// Guarantee: a block is said to lack what it has by no answer that is not an error.
    #[test]
    fn what_somebody_has_is_found_or_said_to_be_out_of_reach(
        seed in any::<u64>(),
        predicates in prop::collection::vec(predicate(), 12),
        faults in (0.0..0.6f64, 0.0..0.5f64, 0.0..0.5f64),
        cache_bytes in prop_oneof![Just(0u64), Just(200_000), Just(10 << 20)],
    ) {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let store = Arc::new(FaultStore::in_memory(seed));
        let spans = Spans::of(seed, 4500);
        let writer: Arc<dyn BlockFiles> = object_files(Arc::clone(&store) as _, dirs[0].path());
        let meta = spans.write(&*writer, block_id(1), &TenantId::single()).unwrap();
        // The model: every span, one by one.
        let original = open(&writer, &meta).unwrap();
        let ids: BTreeSet<TraceId> = spans.ids.iter().copied().collect();
        let ids: Vec<TraceId> = ids.into_iter().collect();
        let entries: Vec<SpanEntry> = original.find_traces(&ids, &context()).unwrap().into_iter().flatten().collect();
        let (fail, truncate, flip) = faults;
        let faults = Faults { fail, truncate, flip, ..Faults::default() };
        let options = ObjectOptions {
            cache_bytes,
            patience: Patience { total: Duration::from_millis(40), ..options(dirs[1].path()).patience },
            ..options(dirs[1].path())
        };
        let files = Arc::new(ObjectFiles::new(Arc::clone(&store) as _, options, Metrics::default()).unwrap());
        let all = Arc::clone(&files) as Arc<dyn BlockFiles>;
        let block = open(&all, &meta).unwrap();
        for predicate in &predicates {
            let want = entries.iter().filter(|entry| predicate.matches(entry)).count();
            store.set(faults);
            if let Ok(found) = count(&block, predicate) {
                prop_assert_eq!(found, want, "{:?}", predicate);
            }
            store.set(Faults::default());
            // Nothing in memory any more.
            prop_assert_eq!(count(&open(&all, &meta).unwrap(), predicate).unwrap(), want, "{:?}", predicate);
        }
    }
}
