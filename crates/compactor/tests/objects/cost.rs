//! How many requests reading takes, and how many bytes.

use spoor_model::TimeRange;
use spoor_model::bits::Bits;
use spoor_model::columns::{ColumnRequest, ValuesOf};
use spoor_model::scan::{AttrScope, Condition, Field, Literal, Predicate, Test};
use spoor_testkit::faults::FaultStore;

use super::*;

/// A written block, and another process that has never read it.
struct Cold {
    _dirs: [tempfile::TempDir; 2],
    store: Arc<FaultStore>,
    files: Arc<dyn BlockFiles>,
    meta: BlockMeta,
    ids: Vec<TraceId>,
}

fn cold(trace_count: u64) -> Cold {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let store = Arc::new(FaultStore::in_memory(1));
    let writer = object_files(Arc::clone(&store) as _, dirs[0].path());
    let spans = Spans::of(1, trace_count);
    let meta = spans.write(&*writer, block_id(1), &TenantId::single()).unwrap();
    assert_eq!(store.counts().gets(), 0, "what was written here is read from local disk");
    // What is fetched unasked would be counted.
    let options = ObjectOptions { ahead_bytes: 0, ..options(dirs[1].path()) };
    let files = Arc::new(ObjectFiles::new(Arc::clone(&store) as _, options, Metrics::default()).unwrap());
    Cold { _dirs: dirs, store, files, meta, ids: spans.ids }
}

fn equals(scope: AttrScope, key: &str, value: &str) -> ColumnRequest {
    let test = Test::Eq(Literal::Str(value.into()));
    let condition = Predicate::Is(Condition { field: Field::Attribute(scope, key.into()), test });
    ColumnRequest {
        masks: vec![condition],
        needed: vec![0],
        columns: vec![],
        values_of: ValuesOf::NeededRows,
        tree: false,
        copies: false,
        range: TimeRange::ALL,
        intervals: None,
    }
}

fn matches(block: &Block, request: &ColumnRequest) -> usize {
    let ctx = context();
    let scan = block.scan(request, &ctx).unwrap();
    let batches = (0..scan.groups().len()).filter_map(|group| scan.read(group, &ctx.part()).unwrap().0);
    batches.map(|batch| batch.masks.first().map_or(0, Bits::count)).sum()
}

#[test]
fn a_cold_trace_by_id_is_four_requests_and_a_warm_one_none() {
    let cold = cold(3000);
    let gets = || cold.store.counts().gets();
    let block = open(&cold.files, &cold.meta).unwrap();
    let known = gets();
    assert!(known <= 3, "{known} requests to know a block");
    assert!(spans_of(&block, TraceId([0xee; 16])).unwrap().is_empty());
    assert_eq!(gets(), known, "an id of nobody is known without asking");
    assert!(!spans_of(&block, cold.ids[1234]).unwrap().is_empty());
    assert!(gets() - known <= 3, "{} requests for a trace", gets() - known);
    let read = gets();
    assert!(!spans_of(&block, cold.ids[1234]).unwrap().is_empty());
    // Nothing in memory any more, as after a restart.
    assert!(!spans_of(&open(&cold.files, &cold.meta).unwrap(), cold.ids[1234]).unwrap().is_empty());
    assert_eq!(gets(), read, "what was read once is on local disk");
}

#[test]
fn an_id_that_the_filter_has_by_mistake_costs_the_index_and_nothing_else() {
    let cold = cold(3000);
    let block = open(&cold.files, &cold.meta).unwrap();
    let nobody = |n: u64| TraceId((u128::from(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) << 64 | 1).to_be_bytes());
    let known: std::collections::BTreeSet<TraceId> = cold.ids.iter().copied().collect();
    let mistakes = (1..100_000).map(nobody).filter(|id| !known.contains(id) && block.may_contain(*id));
    let mistakes: Vec<TraceId> = mistakes.take(10).collect();
    assert_eq!(mistakes.len(), 10, "one id in two thousand");
    cold.store.take_reads();
    for id in &mistakes {
        assert!(spans_of(&block, *id).unwrap().is_empty());
        assert_eq!(block.trace_range(*id, &context()).unwrap(), None);
    }
    let reads = cold.store.take_reads();
    assert!(reads.keys().all(|object| object.ends_with("/index.bin")), "{reads:?}");
    let requests: u64 = reads.values().map(|read| read.requests).sum();
    assert!(requests <= 1, "{requests} requests for all of them");
    assert!(!spans_of(&block, cold.ids[0]).unwrap().is_empty());
    assert!(cold.store.take_reads().keys().any(|object| object.ends_with("/spans.parquet")), "a right one costs more");
}

#[test]
fn a_value_of_nobody_asks_for_nothing_once_the_block_is_known() {
    let cold = cold(3000);
    let block = open(&cold.files, &cold.meta).unwrap();
    let nobody = equals(AttrScope::Span, "user.id", "nobody");
    assert_eq!(matches(&block, &nobody), 0);
    let known = cold.store.counts().gets();
    for request in [nobody, equals(AttrScope::Resource, "service.name", "nobody"), equals(AttrScope::Span, "x", "y")] {
        assert_eq!(matches(&block, &request), 0);
    }
    assert_eq!(cold.store.counts().gets(), known);
}

#[test]
fn a_search_reads_the_columns_that_it_needs() {
    let cold = cold(3000);
    let block = open(&cold.files, &cold.meta).unwrap();
    assert!(matches(&block, &equals(AttrScope::Resource, "service.name", "checkout")) > 0);
    let (read, size) = (cold.store.counts().get_bytes(), cold.meta.size_bytes);
    assert!(read * 2 < size, "{read} of {size} bytes");
}
