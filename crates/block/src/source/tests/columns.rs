//! Columns of blocks against columns of the traces that they hold.

use spoor_model::columns::{ColumnBatch, Intervals, NO_ROW, ValuesOf};
use spoor_model::structure::{MISSING, ROOT};

use super::*;

prop_compose! {
    fn request()(
        masks in vec(predicate(), 0..4),
        needed in vec(any::<prop::sample::Index>(), 0..3),
        mut columns in vec(field(), 0..4),
        values_of in select(vec![ValuesOf::AllRows, ValuesOf::NeededRows, ValuesOf::OneEach]),
        tree in any::<bool>(),
        copies in any::<bool>(),
        range in (0..1u64 << 40, 0..1u64 << 40),
        intervals in prop::option::of((0..1u64 << 40, 1..1u64 << 40, 1..10u64)),
    ) -> ColumnRequest {
        let needed = match masks.len() {
            0 => vec![],
            count => needed.into_iter().map(|index| index.index(count)).collect(),
        };
        // So that rows can be told apart.
        columns.extend([Field::SpanId, Field::StartTime, Field::Name]);
        let range = TimeRange { start: UnixNano(range.0), end: UnixNano(range.0 + range.1) };
        let intervals = intervals.map(|(start_nano, step_nano, count)| Intervals { start_nano, step_nano, count });
        ColumnRequest { masks, needed, columns, values_of, tree, copies, range, intervals }
    }
}

/// Everything that a batch says of each row, by trace, in no order.
fn spell(batch: &ColumnBatch, request: &ColumnRequest) -> BTreeMap<TraceId, Vec<String>> {
    let is_regular = |trace: &usize| request.tree && !batch.irregular.contains(*trace);
    let regular = (0..batch.roots.len()).filter(is_regular);
    let roots: BTreeSet<usize> = regular.map(|trace| batch.roots[trace] as usize).collect();
    let is_wanted = |row: usize| {
        let mut needed = request.needed.iter();
        request.values_of == ValuesOf::AllRows
            || needed.len() == 0
            || needed.any(|mask| batch.masks[*mask].contains(row))
            || request.values_of == ValuesOf::OneEach && roots.contains(&row)
    };
    let crossed = request.intervals.map(|intervals| intervals.crossed_by(&batch.trace_ranges));
    let has_starts = |trace: usize| crossed.as_ref().is_none_or(|crossed| crossed.contains(trace));
    let values = |column: usize, row: usize, has_starts: bool| match request.values_of {
        _ if request.columns[column] == Field::StartTime && !has_starts => vec![],
        ValuesOf::OneEach => vec![batch.columns[column].value(row)],
        _ => batch.columns[column].items(row),
    };
    let span_id = request.columns.len() - 3;
    let spell_row = |row: usize, has_tree: bool, has_starts: bool| {
        let masks: Vec<bool> = batch.masks.iter().map(|mask| mask.contains(row)).collect();
        let values: Vec<_> = match is_wanted(row) {
            true => (0..batch.columns.len()).map(|column| values(column, row, has_starts)).collect(),
            false => vec![],
        };
        let parent = match has_tree.then(|| batch.parents[row]) {
            None => "not asked".to_owned(),
            Some(ROOT) => "root".to_owned(),
            Some(MISSING) => "missing".to_owned(),
            Some(parent) if is_wanted(parent as usize) => {
                format!("{:?}", batch.columns[span_id].value(parent as usize))
            }
            Some(_) => "unknown".to_owned(),
        };
        format!("{masks:?} {values:?} {parent}")
    };
    let mut spelled = BTreeMap::new();
    for (trace, id) in batch.trace_ids.iter().enumerate() {
        let has_tree = request.tree && !batch.irregular.contains(trace);
        let rows = batch.rows_of(trace);
        if has_tree {
            let is_behind = |row: usize| {
                batch.parents[row] >= MISSING
                    || rows.contains(&(batch.parents[row] as usize)) && (batch.parents[row] as usize) < row
            };
            assert!(rows.clone().all(is_behind), "parents stand before their children, in their trace");
        }
        let mut of_trace: Vec<String> = rows.clone().map(|row| spell_row(row, has_tree, has_starts(trace))).collect();
        of_trace.sort();
        let root = has_tree.then(|| match batch.roots[trace] {
            NO_ROW => "none".to_owned(),
            row => spell_row(row as usize, true, has_starts(trace)),
        });
        of_trace.push(format!("{:?} {:?} root {root:?}", batch.irregular.contains(trace), batch.trace_ranges[trace]));
        spelled.insert(*id, of_trace);
    }
    spelled
}

fn traces_of(entries: &[SpanEntry]) -> Vec<Trace> {
    let mut of_trace: BTreeMap<TraceId, Vec<SpanEntry>> = BTreeMap::new();
    entries.iter().for_each(|entry| of_trace.entry(entry.span.trace_id).or_default().push(entry.clone()));
    of_trace.into_iter().filter_map(|(id, entries)| Trace::assemble(id, entries)).collect()
}

fn check(written: &Written, request: &ColumnRequest) {
    // Which of two attributes of one key comes first is for the block to say.
    let ids: BTreeSet<TraceId> = written.entries.iter().map(|entry| entry.span.trace_id).collect();
    let ids: Vec<TraceId> = ids.into_iter().collect();
    let entries: Vec<SpanEntry> = written.block.find_traces(&ids, &context()).unwrap().into_iter().flatten().collect();
    let whole = ColumnBatch::of_traces(&traces_of(&entries), request);
    let expect = spell(&whole, request);

    let ctx = context();
    let scan = written.block.scan(request, &ctx).unwrap();
    let latest: Vec<_> = scan.groups().iter().map(|group| group.latest_trace_start).collect();
    assert!(latest.is_sorted_by(|a, b| a >= b), "latest first");
    let mut got = BTreeMap::new();
    for group in 0..scan.groups().len() {
        let (batch, stats) = scan.read(group, &ctx).unwrap();
        assert_eq!(stats.spans_inspected, scan.groups()[group].span_count);
        if let Some(batch) = batch {
            assert_eq!(batch.row_count() as u64, stats.spans_inspected);
            got.extend(spell(&batch, request));
        }
    }
    for (id, rows) in &got {
        assert_eq!(rows, &expect[id]);
    }
    // What was left out neither overlaps nor is needed.
    for (trace, id) in whole.trace_ids.iter().enumerate().filter(|(_, id)| !got.contains_key(*id)) {
        let is_needed = |mask: &usize| whole.masks[*mask].any_in(whole.rows_of(trace));
        let is_needed = request.needed.is_empty() || request.needed.iter().any(is_needed);
        assert!(!whole.trace_ranges[trace].overlaps(&request.range) || !is_needed, "{id} is missing");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn columns_are_those_of_the_spans(seeds in vec(seed(), 1..60), request in request(), is_small in any::<bool>()) {
        let options = if is_small { small_pages() } else { WriteOptions::default() };
        check(&write_block(&[&seeds], &options), &request);
    }
}

/// The block as if its index had been written before it described row groups: the section has a kind that nobody knows.
fn without_groups(written: Written) -> Written {
    let Written { block, entries, _dir } = written;
    let meta = block.meta.clone();
    let block_dir = std::path::PathBuf::from(block.files.locate(&meta.tenant, meta.id));
    let mut index = std::fs::read(block_dir.join("index.bin")).unwrap();
    let kinds = (16..16 + 24 * 5).step_by(24);
    let at = kinds.into_iter().find(|at| index[*at] == 5).expect("blocks describe their row groups");
    index[at] = 250;
    std::fs::remove_file(block_dir.join("index.bin")).unwrap();
    let rewritten = crate::writer::write_file(&block_dir, "index.bin", &index).unwrap();
    let of_meta = meta.files.iter().map(|file| match file.name == rewritten.name {
        true => rewritten.clone(),
        false => file.clone(),
    });
    let meta = BlockMeta { files: of_meta.collect(), ..meta };
    let block = Block::open(&block.files, meta, &BlockCache::new(1 << 20)).unwrap();
    Written { block, entries, _dir }
}

proptest! {
    #[test]
    fn blocks_of_before_answer_the_same(seeds in vec(seed(), 1..60), request in request()) {
        let written = without_groups(write_block(&[&seeds], &small_pages()));
        prop_assert!(written.block.opened().unwrap().groups.iter().all(|group| group.irregular.get().is_none()));
        check(&written, &request);
    }
}

/// Who only looks whether something is there needs no trace table.
#[test]
fn keys_and_scans_that_find_nothing_load_no_trace_table() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let seeds = vec(seed(), 30).new_tree(&mut runner).unwrap().current();
    let written = write_block(&[&seeds], &small_pages());
    let shared = Arc::clone(written.block.cache.shared());
    written.block.keys(&context(), &mut KeySet::new()).unwrap();
    let field = Field::Attribute(AttrScope::Resource, "service.name".into());
    let nobody = Predicate::Is(Condition { field, test: Test::Eq(Literal::Str("nobody".into())) });
    let request = |mask| ColumnRequest {
        masks: vec![mask],
        needed: vec![0],
        columns: vec![],
        values_of: ValuesOf::AllRows,
        tree: false,
        copies: true,
        range: TimeRange::ALL,
        intervals: None,
    };
    let (nothing, everything) = (request(nobody), request(Predicate::True));
    assert!(written.block.scan(&nothing, &context()).unwrap().groups().is_empty());
    let scan = written.block.scan(&everything, &context()).unwrap();
    let id = written.block.meta.id;
    assert!(!shared.has_traces(id));
    scan.read(0, &context()).unwrap();
    assert!(shared.has_traces(id));
}

/// A retried export is in the head twice, and in the block once.
#[test]
fn exact_copies_are_written_once_and_counted() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut seeds = vec(seed(), 30).new_tree(&mut runner).unwrap().current();
    seeds.iter_mut().enumerate().for_each(|(n, seed)| seed.ids.1 = 1 + n as u8);
    let mut twin = seeds[0].clone();
    twin.name.push('!');
    let written = write_block(&[&seeds, &seeds[..20], &[twin]], &small_pages());
    let meta = written.block.meta();
    assert_eq!((meta.span_count, meta.copy_count), (31, 20));
    let request = ColumnRequest {
        masks: vec![Predicate::True],
        needed: vec![],
        columns: vec![Field::SpanId, Field::StartTime, Field::Name],
        values_of: ValuesOf::AllRows,
        tree: true,
        copies: true,
        range: TimeRange::ALL,
        intervals: None,
    };
    check(&written, &request);
    let ctx = context();
    let scan = written.block.scan(&request, &ctx).unwrap();
    let batches: Vec<ColumnBatch> =
        (0..scan.groups().len()).filter_map(|group| scan.read(group, &ctx).unwrap().0).collect();
    let irregular: Vec<TraceId> =
        batches.iter().flat_map(|batch| batch.irregular.iter().map(|trace| batch.trace_ids[trace])).collect();
    assert_eq!(irregular, vec![TraceId([seeds[0].ids.0; 16])], "only the trace with a differing twin");
}

/// Whoever asks for more than may be held is told so.
#[test]
fn spans_and_columns_are_counted_against_the_query_memory() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let seeds = vec(seed(), 60).new_tree(&mut runner).unwrap().current();
    let written = write_block(&[&seeds], &WriteOptions::default());
    let ctx = QueryContext::new(&MemoryBudget::new(100), Arc::new(AtomicBool::new(false)));
    let id = written.entries[0].span.trace_id;
    assert!(matches!(written.block.find_trace(id, &ctx), Err(ScanError::MemoryLimit { .. })));
    let request = ColumnRequest {
        masks: vec![],
        needed: vec![],
        columns: vec![Field::StartTime],
        values_of: ValuesOf::AllRows,
        tree: false,
        copies: false,
        range: TimeRange::ALL,
        intervals: None,
    };
    let scan = written.block.scan(&request, &ctx).unwrap();
    assert!(matches!(scan.read(0, &ctx), Err(ScanError::MemoryLimit { .. })));
}
