use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use spoor_model::columns::ValuesOf;
use spoor_model::scan::{Condition, Field, Literal, Snapshot, SpanSource, Test};
use spoor_model::{SpanEntry, TimeRange, Trace, UnixNano, Value};

use super::*;
use crate::oracle::{Oracle, at_hand};
use crate::search::tests::{any_sources, pool};
use crate::turns::{Lanes, Turns};

/// Which traces have how many matching spans that start in the range, of how many spans altogether.
struct Counts {
    range: TimeRange,
}

type Count = BTreeMap<TraceId, (usize, usize)>;

impl Accumulate for Counts {
    type Partial = Count;

    fn start(&self) -> Count {
        Count::new()
    }

    fn add(&self, partial: &mut Count, batch: &ColumnBatch, skip: &Bits) {
        for trace in (0..batch.trace_count()).filter(|trace| !skip.contains(*trace)) {
            let starts_inside = |row: &usize| match batch.columns[0].value(*row) {
                Some(Value::Int(start)) => (self.range.start.0..=self.range.end.0).contains(&(start as u64)),
                other => panic!("start: {other:?}"),
            };
            let rows = batch.rows_of(trace).filter(|row| batch.masks[0].contains(*row));
            let count = rows.filter(starts_inside).count();
            if count > 0 {
                let known = partial.insert(batch.trace_ids[trace], (count, batch.rows_of(trace).len()));
                assert_eq!(known, None, "a trace is added once");
            }
        }
    }

    fn may_match(&self, batch: &ColumnBatch) -> Bits {
        Bits::from_fn(batch.trace_count(), |trace| batch.masks[0].any_in(batch.rows_of(trace)))
    }

    fn merge(&self, into: &mut Count, other: Count) {
        for (id, count) in other {
            assert_eq!(into.insert(id, count), None, "a trace is added once");
        }
    }

    fn held_bytes(&self, _: &Count) -> usize {
        0
    }
}

fn named(name: &str) -> Predicate {
    Predicate::Is(Condition { field: Field::Name, test: Test::Eq(Literal::Str(name.into())) })
}

fn counted(sources: &[Arc<Oracle>], range: TimeRange, reach: Reach, limits: &Limits) -> (Count, Stage) {
    let all = sources.iter().map(|source| Arc::clone(source) as Arc<dyn SpanSource>).collect();
    let (snapshot, turns) = (Snapshot { sources: all, skipped: Vec::new() }, Turns::default());
    let ctx = at_hand();
    let mut sources = Sources::new(&snapshot, Lanes::new(pool(), &turns), &ctx);
    let asked = ColumnRequest {
        masks: vec![named("a")],
        needed: vec![0],
        columns: vec![Field::StartTime],
        values_of: ValuesOf::AllRows,
        tree: true,
        copies: true,
        range,
        intervals: None,
    };
    let mut stage = Stage::default();
    let remembered = Remembered::default();
    let counts = fold(&Counts { range }, &asked, reach, limits, &remembered, &mut sources, &mut stage);
    assert!(sources.skipped.is_empty());
    (counts.expect("nothing is in the way"), stage)
}

fn naive(sources: &[Arc<Oracle>], range: TimeRange) -> (Count, Duration) {
    let mut by_trace: BTreeMap<TraceId, Vec<SpanEntry>> = BTreeMap::new();
    for entry in sources.iter().flat_map(|source| &source.entries) {
        by_trace.entry(entry.span.trace_id).or_default().push(entry.clone());
    }
    let traces: Vec<Trace> = by_trace.into_iter().filter_map(|(id, entries)| Trace::assemble(id, entries)).collect();
    let longest = traces.iter().map(|trace| trace.range().end.since(trace.range().start)).max().unwrap_or_default();
    let is_counted =
        |entry: &&SpanEntry| entry.span.name == "a" && (range.start..=range.end).contains(&entry.span.start);
    let of_trace = |trace: &Trace| (trace.entries.iter().filter(is_counted).count(), trace.entries.len());
    let counts = traces.iter().map(|trace| (trace.id, of_trace(trace))).filter(|(_, (count, _))| *count > 0);
    (counts.collect(), longest)
}

proptest! {
    #[test]
    fn every_trace_is_added_once_and_whole(
        sources in any_sources(),
        start in 0_u64..70,
        length in 0_u64..70,
    ) {
        let range = TimeRange { start: UnixNano(start), end: UnixNano(start + length) };
        let (expect, longest) = naive(&sources, range);
        for trace_duration_max in [Duration::MAX, longest] {
            let limits = Limits { trace_duration_max, ..Limits::default() };
            for reach in [Reach::Range, Reach::Around] {
                prop_assert_eq!(&counted(&sources, range, reach, &limits).0, &expect);
            }
        }
    }
}

#[test]
fn only_torn_and_irregular_traces_that_may_match_are_assembled() {
    use crate::oracle::span;
    let of = |names: [&str; 3]| {
        let entries = names.iter().zip(1..).map(|(name, trace)| span(trace, 1, name, 10, 20)).collect();
        Arc::new(Oracle { traces_per_group: 1, ..Oracle::clone_of(entries) })
    };
    let other = Oracle::of(vec![span(1, 2, "b", 30, 40), span(2, 2, "b", 30, 40)]);
    let (counts, stage) = counted(&[of(["a", "b", "a"]), other], TimeRange::ALL, Reach::Range, &Limits::default());
    assert_eq!(counts.values().copied().collect::<Vec<_>>(), [(1, 2), (1, 1)]);
    assert_eq!((stage.traces_assembled, stage.spans_assembled), (1, 2));
    assert_eq!((stage.sources[0].groups_read, stage.sources[0].groups_without_match), (3, 1));
}
