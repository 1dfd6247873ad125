//! Blocks of a data directory on their way into a store.

use spoor_block::DirectoryFiles;
use spoor_compactor::objects::MovingFiles;
use spoor_testkit::faults::{FaultStore, Faults};

use super::*;

#[test]
fn a_block_is_readable_before_while_and_after_it_is_moved() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(FaultStore::in_memory(1));
    let objects = object_files(Arc::clone(&store) as _, dir.path());
    let (tenant, id, spans) = (TenantId::single(), block_id(1), Spans::of(1, 50));
    let root = dir.path().join("blocks");
    let meta = spans.write(&DirectoryFiles::new(&root), id, &tenant).unwrap();
    let moving = Arc::new(MovingFiles::new(&root, Arc::clone(&objects)));
    let files = Arc::clone(&moving) as Arc<dyn BlockFiles>;
    assert!(moving.has_blocks().unwrap() && moving.is_here(&tenant, id));

    let opened_before = open(&files, &meta).unwrap();
    let check = |block: &Block| {
        spans.ids.iter().for_each(|id| assert!(!spans_of(block, *id).unwrap().is_empty(), "{id}"));
    };
    check(&opened_before);
    store.set(Faults { fail: 1.0, ..Faults::default() });
    assert!(moving.move_block(&tenant, id).is_err());
    check(&open(&files, &meta).unwrap());
    store.set(Faults::default());
    assert_eq!(objects.meta(&tenant, id).unwrap(), None, "half a block is none");
    assert_eq!(moving.list().unwrap(), [(tenant.clone(), id)]);

    moving.move_block(&tenant, id).unwrap();
    assert!(!moving.has_blocks().unwrap() && !moving.is_here(&tenant, id));
    assert_eq!(objects.meta(&tenant, id).unwrap().as_ref(), Some(&meta));
    check(&opened_before);
    check(&open(&files, &meta).unwrap());
    let elsewhere = tempfile::tempdir().unwrap();
    let files = object_files(Arc::clone(&store) as _, elsewhere.path()) as Arc<dyn BlockFiles>;
    check(&open(&files, &meta).unwrap());
}
