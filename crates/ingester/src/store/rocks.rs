//! The store as RocksDB, set up for a log that is written once and dropped whole.
//!
//! - The `wal` table's records live in one memtable (at most 64 MiB, more than a head's worth of
//!   compressed requests) until a cut deletes them by range. The flush that follows drops what is deleted before
//!   it reaches a file, so in the usual case a record is written once: to RocksDB's own log.
//! - No block cache and no compression: the log is read once, at start, and holds compressed bytes.
//! - RocksDB's log ends in what a crash tore, and everything before that must be whole. What is damaged in the middle of
//!   it is passed over, and what comes after it is kept: see `FORMAT.md`.
//!
//! **Invariant:** nothing outside this file knows RocksDB.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rocksdb::{
    BlockBasedOptions, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType, DBRecoveryMode, ErrorKind,
    FlushOptions, InfoLogger, IteratorMode, LogLevel, Options, ReadOptions, WriteBatch, WriteOptions,
};

use super::mark::{self, Mark};
use super::{Change, Durability, Store, StoreError, Table, Visit};

/// The largest memtable of the log: a head of 128 MiB is about 40 MiB of compressed requests.
const WAL_MEMTABLE_BYTES_MAX: usize = 64 << 20;
/// The smallest: less makes files of what a cut would drop from memory.
const WAL_MEMTABLE_BYTES_MIN: usize = 4 << 20;
/// The memtables of everything else: a few hundred bytes per block.
const SMALL_MEMTABLE_BYTES: usize = 1 << 20;
/// RocksDB's own log files together. Past this RocksDB flushes the table that holds the oldest; in
/// the usual case cuts come long before.
const LOG_FILES_BYTES_MAX: u64 = 512 << 20;
/// Files kept open: the log has a handful, only a catalog of millions of blocks has more.
const OPEN_FILES_MAX: i32 = 64;

/// The file that says which files are the database's.
const CURRENT: &str = "CURRENT";

/// A [`Store`] on disk. Opening replays RocksDB's log.
pub struct RocksStore {
    db: DB,
    /// `None` where nothing is written.
    mark: Option<Mark>,
    damage: Option<String>,
}

impl RocksStore {
    /// Opens or creates the database in `dir`, which nobody else may have open. The log's memtable is
    /// made for heads of `head_memory_limit` together: it holds their compressed requests.
    pub fn open(dir: &Path, head_memory_limit: usize) -> Result<Self, StoreError> {
        if Self::is_there(dir) && !dir.join(CURRENT).exists() {
            // RocksDB would begin a new one among its files.
            return Err(damaged(&format!("{} is missing", dir.join(CURRENT).display())));
        }
        let marked = mark::read(dir);
        let (db, is_salvaged, reason) =
            match writable(dir, head_memory_limit, DBRecoveryMode::TolerateCorruptedTailRecords) {
                Ok(db) => {
                    let loss = loss(&db, marked);
                    (db, false, loss)
                }
                Err(err) if err.kind() == ErrorKind::Corruption => {
                    let (db, damage) = salvage(dir, head_memory_limit, marked, err)?;
                    (db, true, damage)
                }
                Err(err) => return Err(failed(err)),
            };
        let damage = reason.map(|reason| set_aside(dir, &reason)).transpose()?;
        let mut store = Self { db, mark: None, damage };
        if is_salvaged || store.damage.is_some() {
            // Else every start would find it again.
            let mut options = FlushOptions::default();
            options.set_wait(true);
            store.db.flush_cfs_opt(&Table::ALL.map(|table| store.table(table)), &options).map_err(failed)?;
        }
        store.mark = Some(Mark::set(dir, store.db.latest_sequence_number()));
        Ok(store)
    }

    /// Whether there is a database in `dir`, damaged or not. A crash while the first was being made leaves none.
    pub fn is_there(dir: &Path) -> bool {
        let is_content = |path: PathBuf| path.extension().is_some_and(|it| it == "sst" || it == "log");
        let has_content = || fs::read_dir(dir).is_ok_and(|entries| entries.flatten().any(|it| is_content(it.path())));
        dir.join(CURRENT).exists() || has_content()
    }

    /// Opens a database that nobody writes to meanwhile, and changes nothing: every write fails.
    /// RocksDB's log is replayed into memory.
    pub fn open_for_reading(dir: &Path, head_memory_limit: usize) -> Result<Self, StoreError> {
        let (db, damage) = match readable(dir, head_memory_limit, DBRecoveryMode::TolerateCorruptedTailRecords) {
            Ok(db) => {
                let loss = loss(&db, mark::read(dir));
                (db, loss)
            }
            Err(err) if err.kind() == ErrorKind::Corruption => {
                let db = readable(dir, head_memory_limit, DBRecoveryMode::SkipAnyCorruptedRecord).map_err(failed)?;
                (db, Some(err.into_string()))
            }
            Err(err) => return Err(failed(err)),
        };
        if let Some(reason) = &damage {
            tracing::error!(
                reason,
                "the log is damaged, or was torn by a crash; what cannot be read of it is left out"
            );
        }
        Ok(Self { db, mark: None, damage })
    }

    fn advance(&self, durable: u64) {
        if let Some(mark) = &self.mark {
            mark.advance(durable);
        }
    }

    fn table(&self, table: Table) -> &ColumnFamily {
        self.db.cf_handle(table.name()).expect("every table is opened with the database")
    }
}

/// Copies a damaged log aside before it is mended, and says where it is.
fn set_aside(dir: &Path, reason: &str) -> Result<String, StoreError> {
    let copy = copy_log(dir).map_err(|err| {
        StoreError(format!(
            "{reason}; and its log, which is damaged, cannot be copied aside before it is mended: {err}"
        ))
    })?;
    let copy = copy.display();
    tracing::error!(
        reason,
        "the log is damaged: requests that were acknowledged may be lost, what comes after the damage is kept; the log as it was \
         is in {copy}"
    );
    Ok(format!("the log was damaged, and what could not be read of it is in {copy} only: {reason}"))
}

/// What a database lacks that was durable once.
fn loss(db: &DB, marked: Option<u64>) -> Option<String> {
    let (found, marked) = (db.latest_sequence_number(), marked?);
    (found < marked).then(|| format!("its end is missing: {} writes that were durable are not there", marked - found))
}

/// Opens a database whose log does not verify, and says what is wrong with it; `None` for a tear, which may look like that,
/// too: then nothing comes after it, and nothing of it was durable.
fn salvage(
    dir: &Path,
    head_memory_limit: usize,
    marked: Option<u64>,
    err: rocksdb::Error,
) -> Result<(DB, Option<String>), StoreError> {
    let reason = err.into_string();
    let beyond = |_: rocksdb::Error| damaged(&reason);
    let until_damage = readable(dir, head_memory_limit, DBRecoveryMode::PointInTime).map_err(beyond)?;
    let whole_until = until_damage.latest_sequence_number();
    drop(until_damage);
    let db = writable(dir, head_memory_limit, DBRecoveryMode::SkipAnyCorruptedRecord).map_err(beyond)?;
    let is_tear = db.latest_sequence_number() == whole_until && marked.is_some_and(|marked| marked <= whole_until);
    if is_tear {
        tracing::warn!(
            reason,
            "the end of the log does not verify, and was never acknowledged: as after a loss of power"
        );
    }
    Ok((db, (!is_tear).then_some(reason)))
}

fn writable(dir: &Path, head_memory_limit: usize, mode: DBRecoveryMode) -> Result<DB, rocksdb::Error> {
    let mut options = database_options(mode);
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    DB::open_cf_descriptors(&options, dir, tables(head_memory_limit))
}

fn readable(dir: &Path, head_memory_limit: usize, mode: DBRecoveryMode) -> Result<DB, rocksdb::Error> {
    DB::open_cf_descriptors_read_only(&database_options(mode), dir, tables(head_memory_limit), false)
}

/// Copies the log's files to a new directory beside the database.
fn copy_log(dir: &Path) -> io::Result<PathBuf> {
    let mut number = 1;
    let copy = loop {
        let copy = dir.with_file_name(format!("damaged-log-{number}"));
        match fs::create_dir(&copy) {
            Ok(()) => break copy,
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(err) => return Err(err),
        }
    };
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            let to = copy.join(path.file_name().unwrap_or_default());
            fs::copy(&path, &to)?;
            File::open(&to)?.sync_all()?;
        }
    }
    File::open(&copy)?.sync_all()?;
    Ok(copy)
}

fn tables(head_memory_limit: usize) -> [ColumnFamilyDescriptor; 3] {
    let memtable_bytes = (head_memory_limit / 3).clamp(WAL_MEMTABLE_BYTES_MIN, WAL_MEMTABLE_BYTES_MAX);
    Table::ALL.map(|table| ColumnFamilyDescriptor::new(table.name(), table_options(table, memtable_bytes)))
}

fn database_options(mode: DBRecoveryMode) -> Options {
    // What replay finds stays in memory until the first cut drops it: flushing it first would write it
    // twice, and would keep a process from starting on a nearly full disk. Only a text can set these two; by
    // the second, a nearly empty log does not take 70 MiB of disk in advance.
    let mut options = Options::default()
        .get_options_from_string("avoid_flush_during_recovery=true;allow_fallocate=false")
        .expect("RocksDB has had these options since 2016");
    options.set_wal_recovery_mode(mode);
    // A file of the log that is gone or too short, of those that were closed, is an error and no end.
    options.set_track_and_verify_wals_in_manifest(true);
    options.set_max_background_jobs(2);
    options.set_max_open_files(OPEN_FILES_MAX);
    options.set_max_total_wal_size(LOG_FILES_BYTES_MAX);
    options.set_max_manifest_file_size(1 << 20);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options.set_write_buffer_size(SMALL_MEMTABLE_BYTES);
    // Replay says here what it dropped of a torn log.
    options.set_info_logger(InfoLogger::new_callback_logger(LogLevel::Warn, |level, message| match level {
        LogLevel::Error | LogLevel::Fatal => tracing::error!(target: "rocksdb", "{message}"),
        // The header is every option, at every start, whatever the level.
        LogLevel::Header | LogLevel::Info | LogLevel::Debug => {}
        _ => tracing::warn!(target: "rocksdb", "{message}"),
    }));
    options
}

fn table_options(table: Table, log_memtable_bytes: usize) -> Options {
    let mut files = BlockBasedOptions::default();
    files.disable_cache();
    let mut options = Options::default();
    options.set_block_based_table_factory(&files);
    options.set_compression_type(DBCompressionType::None);
    match table {
        Table::Wal => {
            options.set_write_buffer_size(log_memtable_bytes);
            // One that fills while one is flushed, should a cut come late.
            options.set_max_write_buffer_number(2);
            // What a flush leaves behind is what the next cut deletes: merging it at once is waste, keeping
            // it for long is space.
            options.set_level_zero_file_num_compaction_trigger(4);
            options.set_level_zero_slowdown_writes_trigger(64);
            options.set_level_zero_stop_writes_trigger(128);
        }
        Table::Catalog | Table::Quarantine => options.set_write_buffer_size(SMALL_MEMTABLE_BYTES),
    }
    options
}

/// What RocksDB says of `ENOSPC`; it has no error kind of its own for it.
const NO_SPACE: &str = "No space left on device";
/// What it says of `ENOENT`.
const NO_FILE: &str = "No such file or directory";

fn failed(err: rocksdb::Error) -> StoreError {
    let (kind, reason) = (err.kind(), err.into_string());
    if reason.contains(NO_SPACE) {
        return StoreError(format!("the disk of data_dir is full; free some of it, or give it more: {reason}"));
    }
    match kind == ErrorKind::Corruption || reason.contains(NO_FILE) {
        true => damaged(&reason),
        false => StoreError(reason),
    }
}

/// What is said of a database of which more than the log is damaged or gone; `reason` names the file.
fn damaged(reason: &str) -> StoreError {
    let reason = reason.trim_end_matches(['.', ' ']);
    StoreError(format!(
        "a file of it is damaged or missing: {reason}. With Spoor stopped, put a copy of the data directory back, or move this \
         database away: blocks are whole without it, and `docs/operations.md` says under \"Backup and restore\" how they are found again"
    ))
}

impl Store for RocksStore {
    fn write(&self, changes: &[Change], durability: Durability) -> Result<(), StoreError> {
        let mut batch = WriteBatch::default();
        for change in changes {
            match change {
                Change::Put { table, key, value } => batch.put_cf(self.table(*table), key, value),
                Change::Delete { table, key } => batch.delete_cf(self.table(*table), key),
                Change::DeleteRange { table, from, until } => {
                    batch.delete_range_cf(self.table(*table), from, until);
                }
            }
        }
        let mut options = WriteOptions::default();
        options.set_sync(durability == Durability::Synced);
        // At least up to here, whatever else is written at the same time.
        let durable = self.db.latest_sequence_number() + batch.len() as u64;
        self.db.write_opt(batch, &options).map_err(failed)?;
        if durability == Durability::Synced {
            self.advance(durable);
        }
        Ok(())
    }

    fn damage(&self) -> Option<String> {
        self.damage.clone()
    }

    fn sync(&self) -> Result<(), StoreError> {
        let durable = self.db.latest_sequence_number();
        self.db.flush_wal(true).map_err(failed)?;
        self.advance(durable);
        Ok(())
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.db.get_cf(self.table(table), key).map_err(failed)
    }

    fn scan(&self, table: Table, from: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        let mut options = ReadOptions::default();
        options.set_readahead_size(1 << 20);
        let mode = IteratorMode::From(from, rocksdb::Direction::Forward);
        for entry in self.db.iterator_cf_opt(self.table(table), options, mode) {
            let (key, value) = entry.map_err(failed)?;
            if visit(&key, &value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn reclaim(&self) -> Result<(), StoreError> {
        let mut options = FlushOptions::default();
        options.set_wait(true);
        // The catalog first: no file of the log may be ahead of what the catalog says of it.
        let tables = [self.table(Table::Catalog), self.table(Table::Wal)];
        self.db.flush_cfs_opt(&tables, &options).map_err(failed)
    }

    fn compact(&self) -> Result<(), StoreError> {
        self.reclaim()?;
        // What was flushed while its head was filling is deleted by now; only this drops the file.
        let all = None::<&[u8]>;
        self.db.compact_range_cf(self.table(Table::Wal), all, all);
        Ok(())
    }
}
