//! Merged blocks against the spans that went into their inputs.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use spoor_model::scan::{AttrScope, Field, KeySet, Operation, SpanSource, ValueSet};
use spoor_model::{SpanEntry, TenantId, Trace};

use super::*;
use crate::cache::BlockCache;
use crate::files::DirectoryFiles;
use crate::open::Opened;
use crate::source::tests::{Attr, Seed, batch, canonical, context, matching_ids, predicate, seed, small_pages};
use crate::write::write;

/// Blocks in one directory; ids count up.
struct Bench {
    _dir: tempfile::TempDir,
    files: Arc<dyn BlockFiles>,
    next: Cell<u128>,
    pace: Pace,
    /// Of the last merge.
    held_bytes_max: Cell<usize>,
}

impl Bench {
    fn new(pace: Pace) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let files = Arc::new(DirectoryFiles::new(dir.path()));
        Self { _dir: dir, files, next: Cell::new(0), pace, held_bytes_max: Cell::new(0) }
    }

    fn next_id(&self) -> BlockId {
        self.next.set(self.next.get() + 1);
        BlockId::from_parts(UnixNano(1), self.next.get())
    }

    fn open(&self, meta: BlockMeta) -> Arc<Block> {
        let meta = BlockMeta::from_json(&meta.to_json()).unwrap();
        Arc::new(Block::open(&self.files, meta, &BlockCache::new(1 << 20)).unwrap())
    }

    fn cut(&self, seeds: &[Seed], options: &WriteOptions) -> Arc<Block> {
        let (id, tenant) = (self.next_id(), TenantId::single());
        self.open(write(&*self.files, id, &tenant, &[&batch(seeds)], UnixNano(1), options).unwrap())
    }

    fn merge(&self, inputs: &[Arc<Block>], options: &MergeOptions<'_>) -> (Vec<Arc<Block>>, Merged) {
        let mut go_on = |_| ControlFlow::Continue(());
        let (merged, held_bytes_max) =
            merge_at(self.pace, inputs, &*self.files, UnixNano(2), &mut || self.next_id(), options, &mut go_on)
                .unwrap();
        self.held_bytes_max.set(held_bytes_max);
        let blocks = merged.blocks.iter().map(|meta| self.open(meta.clone())).collect();
        (blocks, merged)
    }

    fn names(&self) -> BTreeSet<String> {
        let tenant_dir = self.files.staging(&TenantId::single()).unwrap();
        std::fs::read_dir(tenant_dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }
}

fn options(write: WriteOptions) -> MergeOptions<'static> {
    let is_deleted = &|_: TraceId| false;
    MergeOptions { write, block_spans: 1 << 30, memory_bytes: 64 << 20, is_deleted, keep_after: None, window: None }
}

/// Steps, chunks and samples of a few rows, and room for no chunk that is not in use, or for all.
fn pace() -> impl Strategy<Value = (Pace, usize)> {
    let small = (1..20usize, 1..9usize, 1..40usize);
    let small = small.prop_map(|(step_rows, chunk_rows, sample_rows)| Pace { step_rows, chunk_rows, sample_rows });
    (prop_oneof![3 => small, 1 => Just(PACE)], prop_oneof![Just(0), Just(64 << 20)])
}

/// The spans of a block, each trace assembled; [`Seed`]s have traces 1 to 5.
fn spans_of(blocks: &[Arc<Block>]) -> Vec<SpanEntry> {
    let of_trace = |trace: u8| {
        let id = TraceId([trace; 16]);
        blocks.iter().flat_map(move |block| block.find_trace(id, &context()).unwrap())
    };
    (1..6u8).flat_map(of_trace).collect()
}

fn expected(seeds: &[Seed]) -> Vec<SpanEntry> {
    let all = batch(seeds);
    let mut traces: BTreeMap<TraceId, Vec<SpanEntry>> = BTreeMap::new();
    for row in 0..all.len() as u32 {
        let entry = all.span(row);
        traces.entry(entry.span.trace_id).or_default().push(entry);
    }
    traces.into_iter().flat_map(|(id, entries)| Trace::assemble(id, entries).unwrap().entries).collect()
}

/// Cuts the seeds into blocks as `places` say: those of one place are one block.
fn cut_by_place(bench: &Bench, seeds: &[(Seed, u8)], options: &WriteOptions) -> Vec<Arc<Block>> {
    let places: BTreeSet<u8> = seeds.iter().map(|(_, place)| *place).collect();
    let of_place = |place| seeds.iter().filter(|(_, p)| *p == place).map(|(seed, _)| seed.clone()).collect::<Vec<_>>();
    places.into_iter().map(|place| bench.cut(&of_place(place), options)).collect()
}

fn check_answers(block: &Block, entries: &[SpanEntry]) {
    let mut keys = KeySet::new();
    block.keys(&context(), &mut keys).unwrap();
    let span_keys: BTreeSet<String> =
        entries.iter().flat_map(|entry| entry.span.attributes.iter().map(|kv| kv.key.clone())).collect();
    assert_eq!(keys.remove(&AttrScope::Span).unwrap_or_default(), span_keys);
    let event_keys: BTreeSet<String> = entries
        .iter()
        .flat_map(|entry| entry.span.events.iter().flat_map(|event| event.attributes.iter().map(|kv| kv.key.clone())))
        .collect();
    assert_eq!(keys.remove(&AttrScope::Event).unwrap_or_default(), event_keys);
    for key in span_keys {
        let (mut got, mut want) = (ValueSet::new(1 << 20), ValueSet::new(1 << 20));
        let field = Field::Attribute(AttrScope::Span, key.as_str().into());
        block.values(&field, &context(), &mut got).unwrap();
        for entry in entries {
            let of_key = entry.span.attributes.iter().filter(|attribute| attribute.key == key);
            of_key.for_each(|attribute| assert!(want.insert(&attribute.value).is_continue()));
        }
        assert_eq!(format!("{:?}", got.into_values()), format!("{:?}", want.into_values()));
    }
    let mut operations = BTreeSet::new();
    block.operations(&context(), &mut operations).unwrap();
    let of_entry = |entry: &SpanEntry| Operation {
        service: entry.origin.service_name().map(str::to_owned),
        name: entry.span.name.clone(),
        kind: entry.span.kind,
    };
    assert_eq!(operations, entries.iter().map(of_entry).collect::<BTreeSet<_>>());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_merged_block_answers_as_one_written_from_all_spans(
        seeds in vec((seed(), 0..5u8), 1..60),
        copies in vec((any::<prop::sample::Index>(), 0..5u8), 0..8),
        predicates in vec(predicate(), 4),
        is_small in any::<bool>(),
        (pace, memory_bytes) in pace(),
    ) {
        let mut seeds = seeds;
        for (of, place) in copies {
            let copy = of.get(&seeds).0.clone();
            seeds.push((copy, place));
        }
        let bench = Bench::new(pace);
        let write = if is_small { small_pages() } else { WriteOptions::default() };
        let inputs = cut_by_place(&bench, &seeds, &write);
        let (blocks, merged) = bench.merge(&inputs, &MergeOptions { memory_bytes, ..options(write) });
        let all: Vec<Seed> = seeds.iter().map(|(seed, _)| seed.clone()).collect();
        let entries = expected(&all);

        prop_assert_eq!(blocks.len(), 1);
        let meta = blocks[0].meta();
        prop_assert_eq!(meta.span_count as usize, entries.len());
        prop_assert_eq!(meta.copy_count as usize, all.len() - entries.len());
        prop_assert_eq!(meta.merge_level, 1);
        prop_assert_eq!(&meta.replaces, &inputs.iter().map(|input| input.meta().id).collect::<Vec<_>>());
        prop_assert_eq!(merged.spans_read, merged.spans_written + merged.copies_dropped + merged.spans_left_out);
        let read_bytes = merged.io_bytes.saturating_sub(meta.size_bytes);
        prop_assert!(read_bytes >= 32 * entries.len() as u64, "span and trace ids alone are more than {}", read_bytes);
        prop_assert_eq!(canonical(spans_of(&blocks)), canonical(entries.clone()));
        check_answers(&blocks[0], &entries);
        for trace in 1..7u8 {
            let id = TraceId([trace; 16]);
            let entries = blocks[0].find_trace(id, &context()).unwrap();
            let range = Trace::assemble(id, entries).map(|trace| trace.range());
            prop_assert_eq!(blocks[0].trace_range(id, &context()).unwrap(), range);
        }
        for predicate in predicates {
            let matching: BTreeSet<TraceId> = spans_of(&blocks).iter()
                .filter(|entry| predicate.matches(entry)).map(|entry| entry.span.trace_id).collect();
            prop_assert_eq!(matching_ids(&blocks[0], &predicate).into_iter().collect::<BTreeSet<_>>(), matching);
        }
    }

    #[test]
    fn merges_of_merges_and_merges_into_several_blocks_hold_every_span_once(
        seeds in vec((seed(), 0..6u8), 2..60), block_spans in 1..40u64, (pace, _) in pace(),
    ) {
        let bench = Bench::new(pace);
        let cuts = cut_by_place(&bench, &seeds, &small_pages());
        let limited = MergeOptions { block_spans, ..options(small_pages()) };
        let (first, second) = cuts.split_at(cuts.len() / 2);
        let mut level_1 = Vec::new();
        for inputs in [first, second].into_iter().filter(|inputs| !inputs.is_empty()) {
            let (blocks, merged) = bench.merge(inputs, &limited);
            prop_assert_eq!(merged.blocks.iter().map(|meta| meta.span_count).sum::<u64>(), merged.spans_written);
            for meta in &merged.blocks {
                let mut family: Vec<BlockId> = meta.merged_with.clone();
                family.push(meta.id);
                family.sort_unstable();
                prop_assert_eq!(family, merged.blocks.iter().map(|meta| meta.id).collect::<Vec<_>>());
            }
            level_1.extend(blocks);
        }
        let (blocks, _) = bench.merge(&level_1, &options(WriteOptions::default()));
        let all: Vec<Seed> = seeds.iter().map(|(seed, _)| seed.clone()).collect();
        let entries = expected(&all);
        prop_assert_eq!(canonical(spans_of(&blocks)), canonical(entries.clone()));
        prop_assert_eq!(blocks[0].meta().merge_level, 2);
        prop_assert_eq!(blocks[0].meta().copy_count as usize, all.len() - entries.len());
        check_answers(&blocks[0], &entries);
    }

    #[test]
    fn what_came_late_is_in_blocks_of_its_own_time_and_every_span_is_there_once(
        seeds in vec((seed(), 0..4u8), 1..60), length in 1..1u64 << 40, place in 0..4u64, (pace, _) in pace(),
    ) {
        let bench = Bench::new(pace);
        let inputs = cut_by_place(&bench, &seeds, &small_pages());
        let window = TimeWindow { start: UnixNano(place * length), length: Duration::from_nanos(length) };
        let (blocks, merged) = bench.merge(&inputs, &MergeOptions { window: Some(window), ..options(small_pages()) });
        prop_assert!(blocks.len() <= LATE_BLOCKS_MAX + 2);
        let all: Vec<Seed> = seeds.iter().map(|(seed, _)| seed.clone()).collect();
        let entries = expected(&all);
        prop_assert_eq!(canonical(spans_of(&blocks)), canonical(entries.clone()));
        prop_assert_eq!(merged.spans_written as usize, entries.len());
        // Whoever begins before the window before is with nobody who does not.
        let line = UnixNano(window.start.0.saturating_sub(length));
        for block in &blocks {
            let starts: Vec<UnixNano> = (1..6u8).filter_map(|trace| {
                let spans = block.find_trace(TraceId([trace; 16]), &context()).unwrap();
                spans.iter().map(|entry| entry.span.start).min()
            }).collect();
            prop_assert!(starts.iter().all(|start| *start < line) || starts.iter().all(|start| *start >= line));
        }
    }

    #[test]
    fn deleted_and_old_traces_are_left_out_whole(
        seeds in vec((seed(), 0..4u8), 1..40), deleted in 1..6u8, line in 0..1u64 << 40, (pace, _) in pace(),
    ) {
        let bench = Bench::new(pace);
        let inputs = cut_by_place(&bench, &seeds, &small_pages());
        let is_deleted = |id: TraceId| id == TraceId([deleted; 16]);
        let keep_after = Some(UnixNano(line));
        let (blocks, merged) =
            bench.merge(&inputs, &MergeOptions { is_deleted: &is_deleted, keep_after, ..options(small_pages()) });
        let all: Vec<Seed> = seeds.iter().map(|(seed, _)| seed.clone()).collect();
        let mut kept = expected(&all);
        let is_kept = |id: TraceId| {
            let end = all.iter().filter(|seed| TraceId([seed.ids.0; 16]) == id).map(|seed| seed.times.0 + u64::from(seed.times.1)).max();
            !is_deleted(id) && end >= Some(line)
        };
        kept.retain(|entry| is_kept(entry.span.trace_id));
        prop_assert_eq!(blocks.is_empty(), kept.is_empty());
        prop_assert_eq!(merged.spans_read, merged.spans_written + merged.copies_dropped + merged.spans_left_out);
        prop_assert_eq!(canonical(spans_of(&blocks)), canonical(kept));
    }
}

fn some_seeds(count: usize) -> Vec<(Seed, u8)> {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    vec((seed(), 0..3u8), count).new_tree(&mut runner).unwrap().current()
}

#[test]
fn a_merge_that_is_broken_off_or_meets_a_damaged_input_leaves_nothing() {
    let bench = Bench::new(Pace { step_rows: 8, chunk_rows: 4, sample_rows: 8 });
    let inputs = cut_by_place(&bench, &some_seeds(60), &small_pages());
    let before = bench.names();
    let mut next_id = || bench.next_id();
    let (options, mut stop) = (options(small_pages()), |_| ControlFlow::Break(()));
    let broken_off = merge_at(bench.pace, &inputs, &*bench.files, UnixNano(2), &mut next_id, &options, &mut stop);
    assert!(matches!(broken_off, Err(Error::Cancelled)), "{broken_off:?}");
    assert_eq!(bench.names(), before);

    for input in &inputs {
        let block_dir = std::path::PathBuf::from(bench.files.locate(&input.meta().tenant, input.meta().id));
        let path = block_dir.join("spans.parquet");
        let good = std::fs::read(&path).unwrap();
        let mut bad = good.clone();
        bad[good.len() / 3] ^= 0x10;
        std::fs::write(&path, &bad).unwrap();
        let mut go_on = |_| ControlFlow::Continue(());
        let result = merge_at(bench.pace, &inputs, &*bench.files, UnixNano(2), &mut next_id, &options, &mut go_on);
        let Err(Error::Corrupt { object, .. }) = result else { panic!("{result:?}") };
        assert!(object.contains(&input.meta().id.to_string()), "{object}");
        assert_eq!(bench.names(), before);
        std::fs::write(&path, &good).unwrap();
    }
}

/// Spans of one block each per call of `of`, whose sample is that of the first rows.
fn spans(count: u32, change: impl Fn(u32, &mut Seed)) -> Vec<Seed> {
    let mut plain = some_seeds(1).remove(0).0;
    plain.attributes.clear();
    let make = |n: u32| {
        let mut seed = plain.clone();
        seed.ids = (1 + (n % 5) as u8, 1 + (n / 5 % 200) as u8, 0);
        seed.times = (u64::from(n), 1);
        change(n, &mut seed);
        seed
    };
    (0..count).map(make).collect()
}

/// Merges blocks of whose spans only the first are sampled.
fn check_drift(late: Vec<Seed>) -> Opened {
    let bench = Bench::new(Pace { sample_rows: 64, chunk_rows: 64, step_rows: 4096 });
    let early = spans(200, |n, seed| {
        seed.name = "GET".into();
        seed.attributes = late[0].attributes.clone();
        seed.times.0 = u64::from(n % 7);
    });
    let inputs = [bench.cut(&early, &WriteOptions::default()), bench.cut(&late, &WriteOptions::default())];
    let (blocks, _) = bench.merge(&inputs, &options(WriteOptions::default()));
    let entries = expected(&[early, late].concat());
    assert_eq!(canonical(spans_of(&blocks)), canonical(entries));
    blocks[0].open_alone(&blocks[0].shared_beside_cache()).unwrap()
}

#[test]
fn what_the_sample_did_not_show_is_folded_no_more() {
    let names = check_drift(spans(9_000, |n, seed| seed.name = format!("GET /users/{}", n.max(1))));
    assert!(names.column("name").is_some());

    let values = spans(6_000, |n, seed| seed.attributes = vec![Attr::Str("user".into(), format!("u-{n}"))]);
    let values = check_drift(values);
    assert_eq!(values.attribute_columns("user").count(), 1);

    let flags = |n: u32| (0..14).map(|bit| Attr::Bool(format!("flag {bit}"), n >> bit & 1 == 1)).collect();
    let shapes = check_drift(spans(1 << 14, |n, seed| seed.attributes = flags(n)));
    let is_folded = |bit: &u32| shapes.attribute_columns(&format!("flag {bit}")).next().is_none();
    assert!(shapes.shapes.len() <= 8192 && (0..14).filter(is_folded).count() > 8);
}

#[test]
fn more_keys_than_a_batch_has_columns_are_kept() {
    let bench = Bench::new(Pace { step_rows: 64, chunk_rows: 16, sample_rows: 16 });
    let keys = |from: u32| {
        move |n: u32, seed: &mut Seed| {
            // Each span has some of 700 keys of its block and all but few keys come again.
            seed.attributes = (0..300).map(|k| Attr::Int(format!("k{}", from + (n * 50 + k) % 700), 1)).collect();
        }
    };
    let parts: Vec<Vec<Seed>> = [0, 700, 1400].into_iter().map(|from| spans(40, keys(from))).collect();
    let inputs: Vec<Arc<Block>> = parts.iter().map(|seeds| bench.cut(seeds, &small_pages())).collect();
    let (blocks, _) = bench.merge(&inputs, &options(small_pages()));
    let entries = expected(&parts.concat());
    assert_eq!(canonical(spans_of(&blocks)), canonical(entries));
}

/// Every trace has a part in another block than its first, anywhere among the others' first parts.
#[test]
fn what_is_held_is_bounded_however_much_there_is_and_however_torn() {
    let bench = Bench::new(Pace { step_rows: 10_000, chunk_rows: 4096, sample_rows: 8 });
    let large = |n: u32| (0..600u32).map(|k| format!("{:08x}", (n * 600 + k).wrapping_mul(0x9e37_79b9))).collect();
    let seeds = spans(800, |n, seed| {
        let (trace, part) = (n / 2, n % 2);
        seed.ids = (1 + (trace % 200) as u8, 1 + part as u8 + 2 * (trace / 200) as u8, 0);
        seed.times.0 = if part == 0 { u64::from(trace % 200) } else { 100 + u64::from(trace * 73 % 400) };
        seed.attributes = vec![Attr::Str("large".into(), large(n))];
    });
    let of_place = |place| seeds.iter().skip(place).step_by(4).cloned().collect::<Vec<_>>();
    let inputs: Vec<Arc<Block>> = (0..4).map(|place| bench.cut(&of_place(place), &small_pages())).collect();
    let merge = |memory_bytes| {
        let (blocks, merged) = bench.merge(&inputs, &MergeOptions { memory_bytes, ..options(small_pages()) });
        assert_eq!((blocks.len(), merged.spans_written), (1, 800));
        (
            canonical((1..=200u8).flat_map(|n| blocks[0].find_trace(TraceId([n; 16]), &context()).unwrap()).collect()),
            bench.held_bytes_max.get(),
        )
    };
    let (all, all_bytes) = merge(64 << 20);
    let (bounded, bounded_bytes) = merge(1 << 20);
    assert!(all == bounded && all == canonical(expected(&seeds)));
    // A step of half the bound and what a trace adds, chunks of the other half and those of four inputs in use.
    assert!(all_bytes > 4 << 20 && bounded_bytes < 2 << 20, "{all_bytes} and {bounded_bytes}");
}
