//! Faults: a store that is down, late, or answers with other bytes than were put there; rot on local disk.
//!
//! Guarantee: an answer is right or an error, never wrong; what failed works again when the store does.

use std::fs;
use std::os::unix::fs::FileExt;

use proptest::prelude::*;
use spoor_testkit::faults::{FaultStore, Faults};

use super::*;

fn impatient(store: Arc<FaultStore>, dir: &Path, cache_bytes: u64) -> Arc<dyn BlockFiles> {
    let patience = Patience {
        attempt: Duration::from_millis(20),
        total: Duration::from_millis(60),
        backoff: Duration::from_millis(1),
    };
    let options = ObjectOptions { cache_bytes, patience, ..options(dir) };
    Arc::new(ObjectFiles::new(store, options, Metrics::default()).unwrap())
}

#[test]
fn a_store_that_is_down_makes_reading_unavailable_and_not_empty() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(FaultStore::in_memory(1));
    let files = impatient(Arc::clone(&store), dir.path(), 0);
    let spans = Spans::of(1, 30);
    let meta = spans.write(&*files, block_id(1), &TenantId::single()).unwrap();
    let block = open(&files, &meta).unwrap();
    for faults in [Faults::down(), Faults { stall: 1.0, ..Faults::default() }] {
        store.set(faults);
        let err = spans_of(&block, spans.ids[3]).unwrap_err();
        assert!(matches!(err, ScanError::Unavailable { .. }), "{err}");
        assert!(matches!(open(&files, &meta), Err(Error::Io { .. })));
        assert!(spans.write(&*files, block_id(2), &TenantId::single()).is_err());
    }
    for faults in [Faults { flip: 1.0, ..Faults::default() }, Faults { truncate: 1.0, ..Faults::default() }] {
        store.set(faults);
        let err = spans_of(&block, spans.ids[3]).unwrap_err();
        assert!(matches!(err, ScanError::Corrupt { .. }), "{err}");
    }
    store.set(Faults::default());
    assert!(!spans_of(&block, spans.ids[3]).unwrap().is_empty());
    files.remove(&TenantId::single(), block_id(2)).unwrap();
    assert_eq!(files.list().unwrap(), [(TenantId::single(), block_id(1))]);
}

#[test]
fn rot_on_local_disk_is_found_and_fetched_anew() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(FaultStore::in_memory(1));
    let spans = Spans::of(1, 300);
    let tenant = TenantId::single();
    let meta = spans.write(&*object_files(Arc::clone(&store) as _, dir.path()), block_id(1), &tenant).unwrap();
    let cached = dir.path().join("cache").join(tenant.as_str()).join(block_id(1).to_string());
    for name in ["index.bin", "shapes.parquet", "origins.parquet", "spans.parquet"] {
        let file = fs::File::options().read(true).write(true).open(cached.join(name)).unwrap();
        let mut byte = [0];
        let middle = file.metadata().unwrap().len() / 2;
        file.read_exact_at(&mut byte, middle).unwrap();
        file.write_all_at(&[!byte[0]], middle).unwrap();
    }
    // A process that finds the directory as it is.
    let files: Arc<dyn BlockFiles> = object_files(Arc::clone(&store) as _, dir.path());
    let block = open(&files, &meta).unwrap();
    for id in &spans.ids {
        assert!(!spans_of(&block, *id).unwrap().is_empty());
    }
    assert!(store.counts().gets() > 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_store_does_an_answer_is_right_or_an_error(
        seed in any::<u64>(),
        faults in (0.0..0.6f64, 0.0..0.05f64, 0.0..0.6f64, 0.0..0.6f64),
        cache_bytes in prop_oneof![Just(0u64), Just(100_000), Just(10 << 20)],
    ) {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let store = Arc::new(FaultStore::in_memory(seed));
        let spans = Spans::of(seed, 60);
        let writer: Arc<dyn BlockFiles> = object_files(Arc::clone(&store) as _, dirs[0].path());
        let meta = spans.write(&*writer, block_id(1), &TenantId::single()).unwrap();
        let original = open(&writer, &meta).unwrap();
        let (fail, stall, truncate, flip) = faults;
        store.set(Faults { fail, stall, truncate, flip, stale: 0.0 });
        let files = impatient(Arc::clone(&store), dirs[1].path(), cache_bytes);
        let mut known = None;
        for id in &spans.ids {
            if known.is_none() {
                known = open(&files, &meta).ok();
            }
            let Some(block) = &known else { continue };
            if let Ok(found) = spans_of(block, *id) {
                prop_assert_eq!(found, spans_of(&original, *id).unwrap());
            }
        }
        store.set(Faults::default());
        let block = open(&files, &meta).unwrap();
        for id in &spans.ids {
            prop_assert_eq!(spans_of(&block, *id).unwrap(), spans_of(&original, *id).unwrap());
        }
    }
}
