//! Broken files: named, never hidden, and the rest still answers.

use std::fs;

use spoor_testkit::client::http;
use spoor_testkit::ledger::Ledger;
use spoor_testkit::rng::Rng;
use tempfile::TempDir;

use super::{blocks, check, ingest, launch};

// Scenario: the span file of one of two blocks has rotten bytes. Guarantee: the other block's traces are answered
// whole; an answer that could miss spans says that it is partial, and an error names the block.
#[test]
fn a_rotten_block_is_named_and_the_others_still_answer() {
    let directory = TempDir::new().unwrap();
    let (mut rotten, mut sound) = (Ledger::default(), Ledger::default());
    let mut server = launch(&directory).start();
    ingest(&server, 1, 5, &mut rotten);
    server.stop();
    let path = blocks(&directory).pop().unwrap();
    let mut server = launch(&directory).start();
    ingest(&server, 2, 5, &mut sound);
    server.stop();
    let file = path.join("spans.parquet");
    let mut bytes = fs::read(&file).unwrap();
    let mut rng = Rng::seeded(3);
    let middle = bytes.len() / 2;
    bytes[4..middle].iter_mut().for_each(|byte| *byte = rng.bits() as u8);
    fs::write(&file, bytes).unwrap();

    let server = launch(&directory).start();
    check(&server, &sound);
    let mut connection = http::Connection::new(server.tempo());
    let id = rotten.traces().max_by_key(|id| rotten.span_count(*id)).unwrap();
    let answer = connection.get(&format!("/api/v2/traces/{id}")).unwrap();
    let names_block = answer.text().contains(path.file_name().unwrap().to_str().unwrap());
    match answer.status {
        200 => assert_eq!(answer.json()["status"], "PARTIAL", "{}", answer.text()),
        status => assert!(status >= 500 && names_block, "{status}: {}", answer.text()),
    }
    let search = connection.get("/api/search?tags=").unwrap();
    assert!(search.status == 200 || search.status >= 500, "{}: {}", search.status, search.text());
    let log = server.log();
    let id = path.file_name().unwrap().to_str().unwrap();
    assert!(log.contains(id) || names_block, "nobody names block {id}:\n{log}");
}

// Scenario: a block's file is gone. Guarantee: the process starts, takes spans and answers from the rest; an answer
// that needs the block names it.
#[test]
fn a_missing_block_file_does_not_stop_the_rest() {
    let directory = TempDir::new().unwrap();
    let (mut gone, mut sound) = (Ledger::default(), Ledger::default());
    let mut server = launch(&directory).start();
    ingest(&server, 1, 2, &mut gone);
    server.stop();
    let path = blocks(&directory).pop().unwrap();
    fs::remove_file(path.join("spans.parquet")).unwrap();
    let mut server = launch(&directory).start();
    ingest(&server, 2, 2, &mut sound);
    check(&server, &sound);
    let id = gone.traces().max_by_key(|id| gone.span_count(*id)).unwrap();
    let answer = http::Connection::new(server.tempo()).get(&format!("/api/v2/traces/{id}")).unwrap();
    assert_eq!((answer.status, answer.json()["status"].as_str()), (200, Some("PARTIAL")), "{}", answer.text());
    assert!(answer.text().contains(path.file_name().unwrap().to_str().unwrap()), "{}", answer.text());
    server.stop();
    check(&launch(&directory).start(), &sound);
}

// Scenario: beside the blocks lies a directory that the catalog knows nothing of. Guarantee: its spans are not
// served, it is named, and nobody deletes it: it may be all that is left of a lost catalog.
#[test]
fn a_directory_that_is_in_no_catalog_is_named_and_not_served() {
    let directory = TempDir::new().unwrap();
    let mut ledger = Ledger::default();
    let mut server = launch(&directory).start();
    ingest(&server, 1, 2, &mut ledger);
    server.stop();
    let real = blocks(&directory).pop().unwrap();
    let stray = real.with_file_name("01JD0000000000000000000000");
    fs::create_dir(&stray).unwrap();
    fs::copy(real.join("spans.parquet"), stray.join("spans.parquet")).unwrap();
    let mut server = launch(&directory).start();
    check(&server, &ledger);
    assert!(stray.exists() && server.log().contains("01JD0000000000000000000000"), "{}", server.log());
    ingest(&server, 2, 1, &mut ledger);
    server.stop();
    check(&launch(&directory).start(), &ledger);
}
