//! Every file of `tests/corpus/traceql` on every engine. `traceql/README.md` says how to read them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod http;
mod page;
mod store;

use std::path::{Path, PathBuf};

use http::{HttpEngine, Service};
use spoor_testkit::traceql_corpus::{self, Engine, OracleEngine};
use store::{Layout, Store, StoreEngine};

/// Sorted by name.
fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/traceql");
    let entries = std::fs::read_dir(folder).expect("the corpus is there");
    let paths = entries.map(|entry| entry.expect("the corpus is readable").path());
    let mut files: Vec<PathBuf> = paths.filter(|path| path.extension().is_some_and(|end| end == "test")).collect();
    files.sort();
    files
}

/// Runs all files, several at a time, each on an engine of its own; fails with all failures of all
/// files. `CORPUS=structural` leaves out the files whose names do not contain the word.
fn run_all<E: Engine>(engine: impl Fn() -> E + Sync) {
    let wanted = std::env::var("CORPUS").unwrap_or_default();
    let is_wanted = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().contains(&wanted));
    let files: Vec<PathBuf> = files().into_iter().filter(is_wanted).collect();
    let results: Vec<Result<usize, String>> = std::thread::scope(|scope| {
        let workers: Vec<_> = files.iter().map(|path| scope.spawn(|| run(path, &engine))).collect();
        workers.into_iter().map(|worker| worker.join().unwrap_or_else(|_| Err("a worker panicked".into()))).collect()
    });
    let failures: Vec<String> = results.into_iter().filter_map(Result::err).collect();
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

fn run<E: Engine>(path: &Path, engine: impl Fn() -> E) -> Result<usize, String> {
    let text = std::fs::read_to_string(path).expect("the corpus is text");
    let name = path.file_name().expect("files have names").to_string_lossy();
    traceql_corpus::run(&format!("tests/corpus/traceql/{name}"), &text, &mut engine())
}

#[test]
fn the_oracle_answers_the_corpus() {
    run_all(OracleEngine::default);
}

#[test]
fn the_head_answers_the_corpus() {
    let store = Store::open();
    run_all(|| StoreEngine::new(&store, Layout::Head));
}

#[test]
fn a_block_answers_the_corpus() {
    let store = Store::open();
    run_all(|| StoreEngine::new(&store, Layout::Block));
}

#[test]
fn head_and_blocks_with_torn_traces_answer_the_corpus() {
    let store = Store::open();
    run_all(|| StoreEngine::new(&store, Layout::Torn));
}

#[test]
fn the_service_answers_the_corpus() {
    let service = Service::start();
    run_all(|| HttpEngine::new(&service));
}
