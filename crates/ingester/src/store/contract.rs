//! What every store must do, run on each of them.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use super::{Change, Durability, MemoryStore, RocksStore, Store, Table};

fn put(table: Table, key: &[u8], value: &[u8]) -> Change {
    Change::Put { table, key: key.to_vec(), value: value.to_vec() }
}

fn keys(store: &dyn Store, table: Table, from: &[u8]) -> Vec<Vec<u8>> {
    let mut keys = Vec::new();
    let mut visit = |key: &[u8], _: &[u8]| {
        keys.push(key.to_vec());
        ControlFlow::Continue(())
    };
    store.scan(table, from, &mut visit).unwrap();
    keys
}

fn every_store(check: impl Fn(&dyn Store)) {
    check(&MemoryStore::new());
    let dir = tempfile::tempdir().unwrap();
    check(&RocksStore::open(dir.path(), 1 << 20).unwrap());
}

#[test]
fn what_is_put_is_got_and_tables_are_apart() {
    every_store(|store| {
        let changes = [put(Table::Wal, b"k", b"1"), put(Table::Catalog, b"k", b"2"), put(Table::Wal, b"k", b"3")];
        store.write(&changes, Durability::Synced).unwrap();
        assert_eq!(store.get(Table::Wal, b"k").unwrap().as_deref(), Some(&b"3"[..]));
        assert_eq!(store.get(Table::Catalog, b"k").unwrap().as_deref(), Some(&b"2"[..]));
        assert_eq!(store.get(Table::Quarantine, b"k").unwrap(), None);
        let gone = Change::Delete { table: Table::Wal, key: b"k".to_vec() };
        store.write(&[gone.clone(), gone], Durability::Buffered).unwrap();
        assert_eq!(store.get(Table::Wal, b"k").unwrap(), None);
    });
}

#[test]
fn scans_ascend_from_a_key_and_stop_when_told() {
    every_store(|store| {
        let changes = [b"c", b"a", b"d", b"b"].map(|key| put(Table::Wal, key, b""));
        store.write(&changes, Durability::Buffered).unwrap();
        assert_eq!(keys(store, Table::Wal, b""), [b"a", b"b", b"c", b"d"]);
        assert_eq!(keys(store, Table::Wal, b"bb"), [b"c", b"d"]);
        let mut seen = 0;
        let mut visit = |_: &[u8], _: &[u8]| {
            seen += 1;
            ControlFlow::Break(())
        };
        store.scan(Table::Wal, b"", &mut visit).unwrap();
        assert_eq!(seen, 1);
    });
}

#[test]
fn a_deleted_range_has_its_first_key_and_not_its_last_and_stays_deleted_after_reclaiming() {
    every_store(|store| {
        let changes = [b"a", b"b", b"c", b"d"].map(|key| put(Table::Wal, key, b"value"));
        store.write(&changes, Durability::Synced).unwrap();
        let range = Change::DeleteRange { table: Table::Wal, from: b"b".to_vec(), until: b"d".to_vec() };
        store.write(&[range, put(Table::Wal, b"e", b"")], Durability::Synced).unwrap();
        assert_eq!(keys(store, Table::Wal, b""), [b"a", b"d", b"e"]);
        store.reclaim().unwrap();
        assert_eq!(keys(store, Table::Wal, b""), [b"a", b"d", b"e"]);
        store.compact().unwrap();
        assert_eq!(keys(store, Table::Wal, b""), [b"a", b"d", b"e"]);
    });
}

#[test]
fn scans_may_write_to_what_they_scan() {
    every_store(|store| {
        store.write(&[put(Table::Wal, b"a", b""), put(Table::Wal, b"b", b"")], Durability::Synced).unwrap();
        let mut visit = |key: &[u8], _: &[u8]| {
            let gone = Change::Delete { table: Table::Wal, key: key.to_vec() };
            store.write(&[gone], Durability::Buffered).unwrap();
            ControlFlow::Continue(())
        };
        store.scan(Table::Wal, b"", &mut visit).unwrap();
        assert_eq!(keys(store, Table::Wal, b""), Vec::<Vec<u8>>::new());
    });
}

#[test]
fn synced_writes_are_there_after_reopening() {
    let memory = MemoryStore::new();
    memory.write(&[put(Table::Wal, b"a", b"1")], Durability::Synced).unwrap();
    memory.write(&[put(Table::Wal, b"b", b"1")], Durability::Buffered).unwrap();
    assert_eq!(keys(&memory.after_crash(0), Table::Wal, b""), [b"a"]);
    assert_eq!(keys(&memory.after_crash(1), Table::Wal, b""), [b"a", b"b"]);

    let dir = tempfile::tempdir().unwrap();
    let rocks = RocksStore::open(dir.path(), 1 << 20).unwrap();
    rocks.write(&[put(Table::Wal, b"a", b"1")], Durability::Synced).unwrap();
    drop(rocks);
    assert_eq!(keys(&RocksStore::open(dir.path(), 1 << 20).unwrap(), Table::Wal, b""), [b"a"]);
}

/// A copy of a database's files as a crash would leave them: the database, in a directory of its own.
fn crash(dir: &Path) -> (tempfile::TempDir, PathBuf) {
    let copy = tempfile::tempdir().unwrap();
    let database = copy.path().join("db");
    std::fs::create_dir(&database).unwrap();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, database.join(path.file_name().unwrap())).unwrap();
    }
    (copy, database)
}

/// The newest of RocksDB's log files that has anything in it.
fn newest_log(dir: &Path) -> PathBuf {
    let paths = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let is_log = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "log");
    paths.filter(is_log).filter(|path| path.metadata().unwrap().len() > 0).max().unwrap()
}

#[test]
fn a_torn_log_tail_is_dropped_and_what_is_written_after_it_survives_the_next_crash() {
    let dir = tempfile::tempdir().unwrap();
    let rocks = RocksStore::open(dir.path(), 1 << 20).unwrap();
    for n in 0..9u8 {
        rocks.write(&[put(Table::Wal, &[n], &[n; 1000])], Durability::Synced).unwrap();
    }
    // The crash comes before the sync.
    rocks.write(&[put(Table::Wal, &[9], &[9; 1000])], Durability::Buffered).unwrap();
    for torn_bytes in [1, 500, 1000] {
        let (_copy, torn) = crash(dir.path());
        let log = std::fs::OpenOptions::new().write(true).open(newest_log(&torn)).unwrap();
        log.set_len(log.metadata().unwrap().len() - torn_bytes).unwrap();
        check_life_after_a_tear(&torn);
        // A page of zeros instead: the size reached the disk, the data did not.
        let (_copy, torn) = crash(dir.path());
        let log = std::fs::OpenOptions::new().write(true).open(newest_log(&torn)).unwrap();
        let size = log.metadata().unwrap().len();
        log.set_len(size - torn_bytes).unwrap();
        log.set_len(size).unwrap();
        check_life_after_a_tear(&torn);
    }
}

#[test]
fn what_is_damaged_in_the_middle_of_the_log_is_passed_over_and_the_rest_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let rocks = RocksStore::open(&dir.path().join("db"), 1 << 20).unwrap();
    for n in 0..200u8 {
        rocks.write(&[put(Table::Wal, &[n], &[n; 1000])], Durability::Synced).unwrap();
    }
    // The last is in the last piece, where a tear would be.
    for place in [0.02, 0.3, 0.5, 0.9, 0.999] {
        let (copy, database) = crash(&dir.path().join("db"));
        let log = newest_log(&database);
        let mut bytes = std::fs::read(&log).unwrap();
        let at = (bytes.len() as f64 * place) as usize;
        bytes[at] ^= 1;
        std::fs::write(&log, &bytes).unwrap();

        let reader = RocksStore::open_for_reading(&database, 1 << 20).unwrap();
        let kept = keys(&reader, Table::Wal, b"").len();
        // RocksDB gives up what is left of a piece of 32 KiB.
        assert!((160..200).contains(&kept), "{place}: {kept}");
        assert!(reader.damage().is_some());
        drop(reader);
        let mended = RocksStore::open(&database, 1 << 20).unwrap();
        assert_eq!(keys(&mended, Table::Wal, b"").len(), kept);
        assert!(mended.damage().unwrap().contains("damaged-log-1"));
        let aside = newest_log(&copy.path().join("damaged-log-1"));
        assert_eq!(std::fs::read(aside).unwrap(), bytes);
        mended.write(&[put(Table::Wal, &[255], &[1; 10])], Durability::Synced).unwrap();
        drop(mended);
        let again = RocksStore::open(&database, 1 << 20).unwrap();
        assert_eq!(again.damage(), None);
        assert_eq!(keys(&again, Table::Wal, b"").len(), kept + 1);
    }
}

#[test]
fn a_log_that_ends_before_what_was_durable_is_no_tear() {
    let dir = tempfile::tempdir().unwrap();
    let rocks = RocksStore::open(&dir.path().join("db"), 1 << 20).unwrap();
    for n in 0..100u8 {
        rocks.write(&[put(Table::Wal, &[n], &[n; 1000])], Durability::Buffered).unwrap();
    }
    rocks.sync().unwrap();
    let cut = |log: &Path, left: u64| std::fs::OpenOptions::new().write(true).open(log).unwrap().set_len(left).unwrap();
    type Harm<'a> = &'a dyn Fn(&Path, u64);
    let harms: [(Harm<'_>, usize); 4] = [
        (&|log, size| cut(log, size - 1), 99),
        (&|log, size| [size / 2, size].into_iter().for_each(|size| cut(log, size)), 49),
        (&|log, _| cut(log, 0), 0),
        (&|log, _| std::fs::remove_file(log).unwrap(), 0),
    ];
    for (place, (harm, kept_min)) in harms.into_iter().enumerate() {
        let (copy, database) = crash(&dir.path().join("db"));
        let log = newest_log(&database);
        harm(&log, log.metadata().unwrap().len());
        let reader = RocksStore::open_for_reading(&database, 1 << 20).unwrap();
        assert!(reader.damage().is_some(), "{place}");
        drop(reader);
        let found = RocksStore::open(&database, 1 << 20).unwrap();
        let kept = keys(&found, Table::Wal, b"").len();
        assert!((kept_min..100).contains(&kept), "{place}: {kept}");
        assert!(
            found.damage().unwrap().contains("writes that were durable are not there"),
            "{place}: {:?}",
            found.damage()
        );
        assert!(copy.path().join("damaged-log-1").is_dir());
        found.write(&[put(Table::Wal, &[255], &[1; 10])], Durability::Synced).unwrap();
        drop(found);
        let again = RocksStore::open(&database, 1 << 20).unwrap();
        assert_eq!((again.damage(), keys(&again, Table::Wal, b"").len()), (None, kept + 1), "{place}");
    }
}

fn check_life_after_a_tear(dir: &Path) {
    let after = RocksStore::open(dir, 1 << 20).unwrap();
    assert_eq!(after.damage(), None, "a tear is no damage");
    assert_eq!(keys(&after, Table::Wal, b"").len(), 9);
    for n in 20..25u8 {
        after.write(&[put(Table::Wal, &[n], &[n; 1000])], Durability::Synced).unwrap();
    }
    let (_copy, database) = crash(dir);
    let again = RocksStore::open(&database, 1 << 20).unwrap();
    assert_eq!(keys(&again, Table::Wal, b"").len(), 14);
}
