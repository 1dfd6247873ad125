//! What does evaluating a search cost per span, once its columns are there?
//!
//! One thread, batches of 50,000 rows as sources make them, in traces of 17 spans; each mask holds one row in eight.
//! Times are CPU time, medians of 11 runs over five million rows (`--test` runs one batch).

#![allow(clippy::print_stdout, reason = "a bench prints its findings")]

use std::sync::Arc;
use std::time::Duration;

use arrow_array::{Int32Array, Int64Array};
use spoor_model::bits::Bits;
use spoor_model::columns::{ColumnBatch, ColumnPart, ColumnRequest, FieldColumn, NO_ROW};
use spoor_model::scan::Field;
use spoor_model::structure::ROOT;
use spoor_model::{TimeRange, TraceId, UnixNano, Value};
use spoor_traceql::{parse, plan_search};

const ROWS_PER_BATCH: usize = 50_000;
const SPANS_PER_TRACE: usize = 17;

const QUERIES: [&str; 19] = [
    "{ .a = 1 }",
    "{ .a = 1 } && { .b = 2 }",
    "{ .a = 1 } > { .b = 2 }",
    "{ .a = 1 } < { .b = 2 }",
    "{ .a = 1 } >> { .b = 2 }",
    "{ .a = 1 } << { .b = 2 }",
    "{ .a = 1 } ~ { .b = 2 }",
    "{ .a = 1 } !>> { .b = 2 }",
    "{ .a = 1 } &>> { .b = 2 }",
    "{ } | count() > 5",
    "{ .a = 1 } | count() > 5",
    "{ } | avg(duration) > 500ms",
    "{ .a = 1 } | max(duration) > 500ms",
    "{ } | sum(span.coded) > 100",
    "{ } | by(span.coded) | count() > 3",
    "{ rootServiceName = \"3\" && traceDuration > 1s }",
    "{ parent.a = 1 && .b = 2 }",
    "{ span.coded + 1 > span.other }",
    "{ span:childCount > 3 }",
];

/// Numbers that look random and are the same everywhere.
fn mixed(seed: u64) -> u64 {
    let mut x = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn column(field: &Field, row_count: usize) -> FieldColumn {
    let number = |row: usize| mixed(row as u64) % 1_000_000_000;
    let part = match field {
        Field::Duration => ColumnPart::Int(Int64Array::from_iter_values((0..row_count).map(|row| number(row) as i64))),
        Field::Attribute(_, name) => {
            let is_text = **name == *"service.name";
            let value = |n: i64| if is_text { Value::Str(n.to_string()) } else { Value::Int(n) };
            let codes = Int32Array::from_iter_values((0..row_count).map(|row| (number(row) % 20) as i32));
            ColumnPart::Coded { codes, values: (0..20).map(|n| Some(value(n))).collect::<Vec<_>>().into() }
        }
        other => unreachable!("no query here reads {other:?}"),
    };
    FieldColumn { parts: vec![part] }
}

/// What a source could answer.
fn batch(request: &ColumnRequest) -> ColumnBatch {
    let row_count = ROWS_PER_BATCH / SPANS_PER_TRACE * SPANS_PER_TRACE;
    let trace_count = row_count / SPANS_PER_TRACE;
    let parent = |row: usize| match row % SPANS_PER_TRACE {
        0 => ROOT,
        place => (row - 1 - (mixed(row as u64) as usize) % place.min(4)) as u32,
    };
    let range = |trace: usize| TimeRange { start: UnixNano(0), end: UnixNano(mixed(trace as u64) % 2_000_000_000) };
    let mask = |place: usize| Bits::from_fn(row_count, |row| mixed((row + place * 7_777_777) as u64).is_multiple_of(8));
    ColumnBatch {
        trace_ids: (0..trace_count).map(|trace| TraceId(u128::from(mixed(trace as u64)).to_be_bytes())).collect(),
        trace_rows: (0..=trace_count).map(|trace| (trace * SPANS_PER_TRACE) as u32).collect(),
        trace_ranges: (0..trace_count).map(range).collect(),
        irregular: Bits::none(trace_count),
        masks: (0..request.masks.len()).map(mask).collect(),
        columns: request.columns.iter().map(|field| column(field, row_count)).collect(),
        parents: if request.tree { (0..row_count).map(parent).collect() } else { Vec::new() },
        roots: match request.tree {
            true => (0..trace_count).map(|trace| (trace * SPANS_PER_TRACE) as u32).collect(),
            false => vec![NO_ROW; trace_count],
        },
    }
}

/// CPU time of this thread, as Linux counts it.
fn cpu_time() -> Duration {
    let counted = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    Duration::from_nanos(counted.split(' ').next().and_then(|nanos| nanos.parse().ok()).expect("a number"))
}

fn main() {
    let is_test = std::env::args().any(|arg| arg == "--test");
    let (run_count, batch_count) = if is_test { (1, 1) } else { (11, 100) };
    for text in QUERIES {
        let plan = plan_search(&parse(text).expect("parses")).expect("plans");
        let batch = Arc::new(batch(&plan.request(TimeRange::ALL)));
        let mut matched_count = 0;
        let mut runs: Vec<Duration> = (0..run_count)
            .map(|_| {
                let begin = cpu_time();
                for _ in 0..batch_count {
                    matched_count = plan.matches(std::hint::black_box(&batch)).matched.count();
                }
                cpu_time() - begin
            })
            .collect();
        runs.sort_unstable();
        let nanos_per_span = runs[run_count / 2].as_nanos() as f64 / (batch_count * batch.row_count()) as f64;
        println!("{nanos_per_span:7.2} ns/span  {matched_count:6} of {} traces  {text}", batch.trace_count());
    }
}
