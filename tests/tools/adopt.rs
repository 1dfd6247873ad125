//! `spoor blocks adopt`: a catalog that was lost is no loss of blocks.

use super::*;

// Scenario: `db/` is lost while all spans are in blocks; a server starts without it. Guarantee: what is not seen is told of, and
// all of it is back after it was adopted, once.
#[test]
fn blocks_without_a_catalog_are_taken_back() {
    let directory = TempDir::new().unwrap();
    let ledger = with_blocks(directory.path(), 2);
    let data_dir = directory.path().display().to_string();
    let blocks = |words: &[&str]| spoor(&[&["blocks"], words, &["--data-dir", &data_dir]].concat());
    fs::remove_dir_all(directory.path().join("db")).unwrap();
    let mut server = start(directory.path());
    let one = ledger.traces().next().unwrap();
    assert_eq!(Reader::new(&server).trace(one).unwrap(), None);
    assert!(server.log().contains("spoor blocks adopt --all"), "{}", server.log());
    assert!(!blocks(&["adopt", "--all"]).status.success(), "beside a server");
    server.stop();

    let verified = blocks(&["verify"]);
    assert!(text(&verified.stdout).contains("2 blocks verified, 0 bad, 2 not in the catalog"), "{verified:?}");
    assert!(text(&blocks(&["adopt", "--all", "--dry-run"]).stdout).ends_with("2 would be adopted\n"));
    assert!(text(&blocks(&["adopt", "--all", "--dry-run"]).stdout).ends_with("2 would be adopted\n"));
    let id = names(&directory.path().join("blocks/single-tenant"))[0].clone();
    assert!(text(&blocks(&["adopt", &id]).stdout).ends_with("1 adopted\n"));
    let again = blocks(&["adopt", &id]);
    assert_eq!(again.status.code(), Some(2));
    assert!(text(&again.stderr).contains("is in the catalog already"), "{again:?}");
    assert!(text(&blocks(&["adopt", "--all"]).stdout).ends_with("1 adopted\n"));
    assert!(text(&blocks(&["adopt", "--all"]).stdout).ends_with("0 adopted\n"));
    assert!(text(&blocks(&["verify"]).stdout).ends_with("2 blocks verified, 0 bad\n"));
    check(&start(directory.path()), &ledger);
}

// Scenario: of two blocks without a catalog one is rotten. Guarantee: it is named and not taken, the other is.
#[test]
fn a_rotten_block_is_not_taken_back() {
    let directory = TempDir::new().unwrap();
    with_blocks(directory.path(), 2);
    let data_dir = directory.path().display().to_string();
    fs::remove_dir_all(directory.path().join("db")).unwrap();
    let tenant = directory.path().join("blocks/single-tenant");
    let victim = tenant.join(&names(&tenant)[0]).join("spans.parquet");
    let mut bytes = fs::read(&victim).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&victim, bytes).unwrap();
    let adopted = spoor(&["blocks", "adopt", "--all", "--data-dir", &data_dir]);
    let shown = text(&adopted.stdout);
    assert_eq!(adopted.status.code(), Some(1), "{shown}");
    assert!(shown.contains(&format!("{}  BAD, left alone: ", names(&tenant)[0])), "{shown}");
    assert!(shown.ends_with("1 adopted\n"), "{shown}");
}
