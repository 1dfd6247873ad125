//! What does a span cost that a metrics query counts, once its columns are decoded?
//!
//! One thread, columns made up in memory as blocks hand them out (coded, integers, texts, few rows): 1M rows in
//! batches of 62,492, traces of 17 spans within an hour, 61 attributes. Nanoseconds of CPU per row, median of seven times
//! ten runs (the clock of threads is coarse); then how many series there are, and the sum of their points. Under `cargo test` it runs 17,000
//! rows once.

#![allow(clippy::print_stdout, reason = "a bench prints its findings")]

use arrow_array::{Int32Array, Int64Array, StringArray};
use spoor_model::bits::Bits;
use spoor_model::columns::{ColumnBatch, ColumnPart, ColumnRequest, FieldColumn};
use spoor_model::scan::{AttrScope, Field, KeySet, Predicate};
use spoor_model::structure::ROOT;
use spoor_model::{TimeRange, TraceId, UnixNano, Value};
use spoor_traceql::{MetricsPlan, Window, parse, plan_metrics};

const TRACE_ROWS: usize = 17;
const BATCH_ROWS: usize = 3_676 * TRACE_ROWS;
const HOUR: u64 = 3_600_000_000_000;
const START: u64 = 1_790_000_000_000_000_000;

/// SplitMix64 of a seed: the same numbers everywhere.
fn random(seed: u64) -> u64 {
    let mut bits = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

fn hash(text: &str) -> u64 {
    text.bytes().fold(7, |hash, byte| random(hash ^ u64::from(byte)))
}

/// What a row has of a field: the field decides how columns look.
fn column(field: &Field, first: usize, rows: usize) -> FieldColumn {
    let ids = || (first..first + rows).map(|row| row as u64);
    let start = |row: u64| {
        let trace = row / TRACE_ROWS as u64;
        START + random(trace) % HOUR + random(row) % 1_000_000_000
    };
    let coded = |count: u64, has: &dyn Fn(u64) -> bool| {
        let name = format!("{field:?}");
        let code = |row: u64| has(row).then(|| (random(row ^ hash(&name)) % count) as i32);
        let values = (0..count).map(|value| Some(Value::Str(format!("{name}-{value}"))));
        ColumnPart::Coded { codes: Int32Array::from_iter(ids().map(code)), values: values.collect() }
    };
    let numbered = |count: i64, share: u64| {
        let values = (0..count).map(|value| Some(Value::Int(value))).collect();
        let code = |row: u64| i32::from(random(row).is_multiple_of(share));
        ColumnPart::Coded { codes: Int32Array::from_iter_values(ids().map(code)), values }
    };
    let part = match field {
        Field::StartTime => ColumnPart::Int(Int64Array::from_iter_values(ids().map(|row| start(row) as i64))),
        Field::Duration => {
            let nanos = |row| 1_000_000 << (random(row ^ 1) % 10) | (random(row ^ 2) % 1_000_000) as i64;
            ColumnPart::Int(Int64Array::from_iter_values(ids().map(nanos)))
        }
        Field::Name => coded(50, &|_| true),
        Field::Kind => numbered(6, 2),
        Field::Status => numbered(3, 100),
        Field::Attribute(AttrScope::Resource, _) => coded(12, &|_| true),
        Field::Attribute(_, name) if name.starts_with("shared") => coded(30, &|row| row % 3 == 0),
        Field::Attribute(_, name) if name.starts_with("url") => ColumnPart::Text(StringArray::from_iter(
            ids().map(|row| (row % 4 == 0).then(|| format!("/cart/{row:08x}"))),
        )),
        Field::Attribute(_, name) if name.starts_with("size") => {
            ColumnPart::Int(Int64Array::from_iter(ids().map(|row| (row % 2 == 0).then(|| random(row) as i64 % 10_000))))
        }
        Field::Attribute(AttrScope::Event, _) => {
            let rows: Vec<u32> = (0..rows as u32).filter(|row| row % 20 == 0).collect();
            let values = rows.iter().map(|row| vec![None, Some(Value::Int(i64::from(row % 7)))]).collect();
            ColumnPart::PerItem { rows, values }
        }
        Field::Attribute(_, name) if name.starts_with("rare") => {
            let rows: Vec<u32> = (0..rows as u32).filter(|row| row % 50 == 0).collect();
            let values = rows.iter().map(|row| Value::Int(i64::from(row % 11))).collect();
            ColumnPart::Sparse { rows, values }
        }
        _ => return FieldColumn::default(),
    };
    FieldColumn { parts: vec![part] }
}

fn batch(request: &ColumnRequest, first: usize, rows: usize) -> ColumnBatch {
    let traces = rows.div_ceil(TRACE_ROWS);
    let first_row = |trace: usize| (trace * TRACE_ROWS).min(rows) as u32;
    let mask = |predicate: &Predicate| match predicate {
        Predicate::True => Bits::all(rows),
        // Every fourth, whatever is asked.
        _ => Bits::from_fn(rows, |row| random((first + row) as u64 ^ 3).is_multiple_of(4)),
    };
    let of_trace = |trace: usize| {
        let start = START + random((first / TRACE_ROWS + trace) as u64) % HOUR;
        TimeRange { start: UnixNano(start), end: UnixNano(start + 2_000_000_000) }
    };
    let id = |trace: usize| TraceId(u128::from(random((first + trace) as u64 ^ 4)).to_be_bytes());
    ColumnBatch {
        trace_ids: (0..traces).map(id).collect(),
        trace_rows: (0..=traces).map(first_row).collect(),
        trace_ranges: (0..traces).map(of_trace).collect(),
        irregular: Bits::none(traces),
        masks: request.masks.iter().map(mask).collect(),
        columns: request.columns.iter().map(|field| column(field, first, rows)).collect(),
        parents: (0..rows as u32).map(|row| if row % TRACE_ROWS as u32 == 0 { ROOT } else { row - 1 }).collect(),
        roots: (0..traces).map(first_row).collect(),
    }
}

/// Of this thread, in nanoseconds.
fn cpu_nanos() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux tells");
    text.split_whitespace().next().and_then(|nanos| nanos.parse().ok()).expect("a number comes first")
}

fn attributes() -> KeySet {
    let named = |prefix: &str, count: usize| (0..count).map(|n| format!("{prefix}{n}")).collect::<Vec<_>>();
    let of_span = [named("shared", 22), named("url", 1), named("size", 2), named("rare", 10)].concat();
    KeySet::from([
        (AttrScope::Resource, named("pod", 20).into_iter().chain(["service.name".to_owned()]).collect()),
        (AttrScope::Span, of_span.into_iter().collect()),
        (AttrScope::Event, named("event", 5).into_iter().collect()),
    ])
}

fn run(plan: &MetricsPlan, window: &Window, batches: &[ColumnBatch]) -> (usize, f64) {
    let operand = &plan.operands()[0];
    let mut partial = operand.start(window, 100);
    for batch in batches {
        operand.add(&mut partial, batch, &Bits::none(batch.trace_count()));
    }
    let series = plan.finish(vec![partial]);
    (series.len(), series.iter().flat_map(|series| series.values.iter().flatten()).sum())
}

fn main() {
    // `cargo bench` says so; `cargo test` says nothing.
    let is_test = !std::env::args().any(|arg| arg == "--bench");
    let (row_count, times, runs) = if is_test { (17_000, 1, 1) } else { (16 * BATCH_ROWS, 7, 10) };
    let filter = std::env::args().skip(1).find(|arg| !arg.starts_with("--")).unwrap_or_default();
    let queries = [
        ("{ } | rate()", 15),
        ("{ } | rate() by(resource.service.name)", 15),
        ("{ } | count_over_time() by(resource.service.name, name, status)", 15),
        ("{ status = error } | rate() by(name)", 15),
        ("{ } | rate() by(rootName)", 15),
        ("{ } | avg_over_time(duration) by(name)", 15),
        ("{ } | max_over_time(span.size0)", 15),
        ("{ } | histogram_over_time(duration)", 150),
        ("{ } | quantile_over_time(duration, .5, .9) by(resource.service.name)", 15),
        ("{ } | rate() by(span.url0)", 3600),
        ("{ } | quantile_over_time(duration, .5) by(span.size0)", 900),
        ("{ } | compare({ status = error })", 3600),
        ("{ } | compare({ status = error })", 60),
    ];
    for (text, step_seconds) in queries.into_iter().filter(|(text, _)| text.contains(&filter)) {
        let mut plan = plan_metrics(&parse(text).expect("parses")).expect("plans");
        if plan.all_attributes() {
            plan = plan.with_attributes(&attributes());
        }
        let window = Window::aligned(START, START + HOUR, step_seconds * 1_000_000_000);
        let request = plan.operands()[0].request(&window, 0);
        let firsts = (0..row_count).step_by(BATCH_ROWS);
        let batches: Vec<ColumnBatch> =
            firsts.map(|first| batch(&request, first, BATCH_ROWS.min(row_count - first))).collect();
        let (series_count, sum) = run(&plan, &window, &batches);
        let mut nanos: Vec<f64> = (0..times)
            .map(|_| {
                let before = cpu_nanos();
                (0..runs).for_each(|_| {
                    run(&plan, &window, &batches);
                });
                (cpu_nanos() - before) / (runs * row_count) as f64
            })
            .collect();
        nanos.sort_by(f64::total_cmp);
        println!(
            "{:7.2} ns/row  {series_count:6} series, sum {sum:14.3}  {text} step={step_seconds}s",
            nanos[nanos.len() / 2]
        );
    }
}
