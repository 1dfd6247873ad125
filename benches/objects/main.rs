//! What does an hour's question to a hundred blocks on object storage read?
//!
//! A hundred blocks, one per quarter of an hour and an hour long each, lie in a store that counts. For each question a process
//! starts with empty caches, opens the blocks (three small requests each), and answers; what is counted is what it asked the
//! store for after that. Asked again, for another trace, for another value that nobody has, or for the same, it asks for
//! little or nothing. Another process has had a moment of peace before it is asked, in which it has fetched what tells that
//! blocks lack a value: it asks for nothing when nobody has what is looked for.
//!
//! The bounds that this project promises are asserted. `--bench` writes the table to `benches/results/object-storage.md`;
//! without it (in `cargo test`) the blocks outside the hour are small, and only the bounds are checked.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on has failed")]
#![allow(clippy::print_stdout, reason = "a bench prints its result")]

mod questions;
mod storage;

use spoor_testkit::machine;

use self::questions::{QUESTIONS, Question};
use self::storage::{BLOCKS, Blocks, Reads};

/// Traces of 17 spans per block.
const TRACES: u64 = 12_000;
const TRACES_SMALL: u64 = 4_000;
const TRACES_OUTSIDE_SMALL: u64 = 600;

fn main() {
    let arguments: Vec<_> = std::env::args().collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    if has("--list") {
        // What test runners ask before they run anything.
        if !has("--ignored") {
            println!("an_hour_of_a_hundred_blocks_reads_little: test");
        }
        return;
    }
    let is_full = has("--bench");
    let blocks = match is_full {
        true => Blocks::write(TRACES, TRACES),
        false => Blocks::write(TRACES_SMALL, TRACES_OUTSIDE_SMALL),
    };
    let (hour_bytes, all_bytes) = (blocks.bytes_in_hour(), blocks.bytes());
    let mut report = format!(
        "{BLOCKS} blocks of {:.0} MB together, {} spans; {} of them, {:.1} MB, have spans of the hour.\n\n\
         {}\n\n\
         | question | requests, just opened | KB | of the hour's bytes | requests, asked again | requests, after the fetching | KB |\n\
         |---|---:|---:|---:|---:|---:|---:|\n",
        all_bytes as f64 / 1e6,
        blocks.span_count(),
        blocks.in_hour().count(),
        hour_bytes as f64 / 1e6,
        fetching(&blocks),
    );
    print!("{report}");
    for question in QUESTIONS {
        let line = measure(&blocks, question);
        print!("{line}");
        report.push_str(&line);
    }
    if is_full {
        let path = format!("{}/benches/results/object-storage.md", env!("CARGO_MANIFEST_DIR"));
        let about = "`cargo bench --profile release --bench objects` wrote this: an hour is asked for, of blocks that begin every quarter of \
                     an hour.\nCaches are empty but for the bloom filters and tables that opening the blocks reads.";
        let report = format!("# Object storage bench\n\n{about} {report}\n{}.\n", machine::description());
        std::fs::write(&path, report).unwrap();
        println!("written to {path}");
    }
}

/// What a process fetches before it is asked.
fn fetching(blocks: &Blocks) -> String {
    drop(blocks.start());
    let opened = blocks.take_reads();
    drop(blocks.start_and_fetch());
    let fetched = blocks.take_reads();
    assert!(fetched.keys().all(|object| !object.ends_with("/spans.parquet")), "spans are not fetched unasked");
    let bytes = |reads: &Reads| reads.values().map(|read| read.bytes).sum::<u64>();
    let per_block = |bytes: u64| bytes / 1000 / BLOCKS;
    format!(
        "Opening a block reads {} KB of it, and what is fetched behind that, before anybody asks, another {} KB.",
        per_block(bytes(&opened)),
        per_block(bytes(&fetched) - bytes(&opened)),
    )
}

/// A row of the table.
fn measure(blocks: &Blocks, question: &Question) -> String {
    let process = blocks.start();
    let opening = blocks.take_reads();
    assert_eq!(opening.len() as u64, 3 * BLOCKS, "the start of the index, and two tables");
    assert!(opening.values().all(|read| read.requests == 1), "{opening:?}");
    question.ask(&process, blocks);
    let cold = blocks.take_reads();
    question.ask_again(&process, blocks);
    let again = blocks.take_reads();
    let process = blocks.start_and_fetch();
    blocks.take_reads();
    question.ask(&process, blocks);
    let fetched = blocks.take_reads();
    question.check(blocks, &cold, &again, &fetched);
    let requests = |reads: &Reads| reads.values().map(|read| read.requests).sum::<u64>();
    let bytes = |reads: &Reads| reads.values().map(|read| read.bytes).sum::<u64>();
    format!(
        "| {} | {} | {} | {:.1} % | {} | {} | {} |\n",
        question.name(),
        requests(&cold),
        bytes(&cold) / 1000,
        bytes(&cold) as f64 / blocks.bytes_in_hour() as f64 * 100.0,
        requests(&again),
        requests(&fetched),
        bytes(&fetched) / 1000,
    )
}
