//! What every place full of blocks promises.

use std::fs;

use object_store::ObjectStoreExt;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use spoor_block::DirectoryFiles;
use spoor_compactor::objects::{Location, Purpose};
use spoor_testkit::faults::{FaultStore, Faults};

use super::*;

/// Runs on an empty place.
fn check(files: &Arc<dyn BlockFiles>) {
    let truth_dir = tempfile::tempdir().unwrap();
    let truth: Arc<dyn BlockFiles> = Arc::new(DirectoryFiles::new(truth_dir.path()));
    let tenants = [TenantId::parse("a").unwrap(), TenantId::parse("it's(all)!*._-").unwrap()];
    assert_eq!(files.list().unwrap(), []);

    let mut written = Vec::new();
    for (number, tenant) in tenants.iter().chain(&tenants).enumerate() {
        let (id, spans) = (block_id(number as u64 + 1), Spans::of(number as u64, 40));
        let meta = spans.write(&**files, id, tenant).unwrap();
        assert_eq!(meta, spans.write(&*truth, id, tenant).unwrap(), "the same block wherever it lies");
        written.push((meta, spans.ids));
    }
    assert_eq!(files.list().unwrap(), truth.list().unwrap());

    for (meta, ids) in &written {
        let (block, original) = (open(files, meta).unwrap(), open(&truth, meta).unwrap());
        for id in ids.iter().chain(&[TraceId([0xee; 16])]) {
            assert_eq!(spans_of(&block, *id).unwrap(), spans_of(&original, *id).unwrap());
        }
    }
    staged_blocks_are_listed_and_removed(files, &tenants[0]);
    removed_blocks_are_gone(files, written.into_iter().map(|(meta, _)| meta).collect());
}

fn staged_blocks_are_listed_and_removed(files: &Arc<dyn BlockFiles>, tenant: &TenantId) {
    let id = block_id(77);
    let staged = files.staging(tenant).unwrap().join(format!("{id}.tmp"));
    fs::create_dir(&staged).unwrap();
    fs::write(staged.join("spans.parquet"), "PAR1").unwrap();
    assert!(files.list().unwrap().contains(&(tenant.clone(), id)));
    files.remove(tenant, id).unwrap();
    assert!(!staged.exists());
    assert!(!files.list().unwrap().contains(&(tenant.clone(), id)));
    assert!(files.publish(tenant, id).is_err(), "there is nothing to publish");
}

fn removed_blocks_are_gone(files: &Arc<dyn BlockFiles>, mut metas: Vec<BlockMeta>) {
    while let Some(meta) = metas.pop() {
        files.remove(&meta.tenant, meta.id).unwrap();
        files.remove(&meta.tenant, meta.id).unwrap();
        let err = open(files, &meta).map(drop).unwrap_err();
        assert!(matches!(err, Error::Corrupt { .. }), "{err}");
        assert!(err.to_string().starts_with(&format!("block {}", meta.id)), "{err}");
        let mut left: Vec<_> = metas.iter().map(|meta| (meta.tenant.clone(), meta.id)).collect();
        left.sort();
        assert_eq!(files.list().unwrap(), left);
    }
}

fn check_store(store: Arc<dyn ObjectStore>) {
    let dir = tempfile::tempdir().unwrap();
    check(&(object_files(store, dir.path()) as Arc<dyn BlockFiles>));
}

/// The same, and what takes a store that has no faults.
fn check_good_store(store: &Arc<dyn ObjectStore>) {
    check_store(Arc::clone(store));
    let dir = tempfile::tempdir().unwrap();
    what_was_cut_short_is_damaged(store, &(object_files(Arc::clone(store), dir.path()) as _));
}

fn what_was_cut_short_is_damaged(store: &Arc<dyn ObjectStore>, files: &Arc<dyn BlockFiles>) {
    let (tenant, id) = (TenantId::single(), block_id(9));
    let meta = Spans::of(9, 4000).write(&**files, id, &tenant).unwrap();
    let path = object_store::path::Path::from(format!("{tenant}/{id}/index.bin"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(store.put(&path, Vec::new().into())).unwrap();
    // One that has nothing of it on local disk.
    let dir = tempfile::tempdir().unwrap();
    let err = open(&(object_files(Arc::clone(store), dir.path()) as _), &meta).map(drop).unwrap_err();
    assert!(matches!(err, Error::Corrupt { .. }), "{err}");
    files.remove(&tenant, id).unwrap();
}

#[test]
fn a_directory_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    check(&(Arc::new(DirectoryFiles::new(dir.path())) as Arc<dyn BlockFiles>));
}

#[test]
fn a_store_in_memory_keeps_the_contract() {
    check_good_store(&(Arc::new(InMemory::new()) as _));
}

#[test]
fn a_store_on_local_disk_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    check_good_store(&(Arc::new(LocalFileSystem::new_with_prefix(dir.path()).unwrap()) as _));
}

#[test]
fn a_store_that_fails_now_and_then_keeps_the_contract() {
    for seed in 1..=3 {
        let store = FaultStore::in_memory(seed);
        store.set(Faults { fail: 0.1, truncate: 0.1, flip: 0.1, ..Faults::default() });
        check_store(Arc::new(store));
    }
}

/// `SPOOR_TEST_STORAGE=s3://bucket/prefix` names an empty place; `make test` starts a server for it.
#[test]
fn the_store_that_the_environment_names_keeps_the_contract() {
    let Ok(url) = std::env::var("SPOOR_TEST_STORAGE") else { return };
    let location = Location {
        url,
        endpoint: std::env::var("SPOOR_TEST_STORAGE_ENDPOINT").unwrap_or_default(),
        region: "us-east-1".to_owned(),
        allow_http: true,
        timeout: Duration::from_secs(20),
    };
    check_good_store(&location.open(Purpose::Keep { used: None }).unwrap().store);
}

#[test]
fn a_large_file_goes_in_parts_and_arrives_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(FaultStore::in_memory(5));
    let files = object_files(Arc::clone(&store) as _, dir.path());
    let (tenant, id) = (TenantId::single(), block_id(1));
    let staged = files.staging(&tenant).unwrap().join(format!("{id}.tmp"));
    fs::create_dir(&staged).unwrap();
    let content: Vec<u8> =
        (0..(35u32 << 20) / 4 + 1).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    fs::write(staged.join("spans.parquet"), &content).unwrap();
    let meta = BlockMeta::without_files(id, tenant.clone(), UnixNano(1), spoor_model::TimeRange::ALL);
    fs::write(staged.join("meta.json"), meta.to_json()).unwrap();
    store.set(Faults { fail: 0.15, ..Faults::default() });
    // Whole uploads are begun again twice; a caller may as well.
    while files.publish(&tenant, id).is_err() {}
    store.set(Faults::default());
    let path = object_store::path::Path::from_iter([tenant.as_str(), &id.to_string(), "spans.parquet"]);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let read =
        runtime.block_on(async { ObjectStoreExt::get_range(&*store, &path, 0..content.len() as u64).await.unwrap() });
    assert!(read == content);
    assert_eq!(files.meta(&tenant, id).unwrap(), Some(meta));
    assert!(!staged.exists());
}
