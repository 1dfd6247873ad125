//! Where log records go that cannot be read: out of the way of recovery, and kept for a person.

use std::ops::ControlFlow;

use crate::store::{Change, Durability, Store, StoreError, Table};

/// Moves a record from the log to quarantine, in one atomic write. Nothing there: nothing happens.
pub(crate) fn set_aside(store: &dyn Store, key: &[u8]) -> Result<(), StoreError> {
    let Some(value) = store.get(Table::Wal, key)? else { return Ok(()) };
    let changes = [
        Change::Put { table: Table::Quarantine, key: key.to_vec(), value },
        Change::Delete { table: Table::Wal, key: key.to_vec() },
    ];
    store.write(&changes, Durability::Synced)
}

/// How many records are kept.
pub(crate) fn count(store: &dyn Store) -> Result<usize, StoreError> {
    let mut count = 0;
    let mut visit = |_: &[u8], _: &[u8]| {
        count += 1;
        ControlFlow::Continue(())
    };
    store.scan(Table::Quarantine, b"", &mut visit)?;
    Ok(count)
}
