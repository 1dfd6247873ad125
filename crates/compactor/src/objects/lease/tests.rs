use std::sync::atomic::{AtomicU64, Ordering};

use object_store::ObjectStore;
use object_store::memory::InMemory;

use super::super::{Metrics, ObjectOptions, Patience};
use super::*;

struct SetClock(AtomicU64);

impl SetClock {
    fn pass(&self, seconds: u64) {
        self.0.fetch_add(seconds * 1_000_000_000, Ordering::Relaxed);
    }
}

impl Clock for SetClock {
    fn now(&self) -> UnixNano {
        UnixNano(self.0.load(Ordering::Relaxed))
    }
}

/// Of an owner's only life.
fn lease(store: &Arc<InMemory>, owner: &str) -> Lease {
    lease_in(store, None, owner, owner)
}

fn lease_in(store: &Arc<InMemory>, local_dir: Option<PathBuf>, owner: &str, life: &str) -> Lease {
    let options = ObjectOptions {
        staging_dir: "unused".into(),
        cache_dir: "unused".into(),
        cache_bytes: 0,
        ahead_bytes: 0,
        patience: Patience::of(Duration::from_secs(5)),
        local_dir,
        name: "test".to_owned(),
        grace: Duration::ZERO,
    };
    let store = Arc::clone(store) as Arc<dyn ObjectStore>;
    let files = ObjectFiles::new(store, options, Metrics::default()).unwrap();
    let holder = Holder { owner: owner.to_owned(), life: life.to_owned() };
    Lease::new(&files, holder, Duration::from_secs(60))
}

#[test]
fn one_of_two_has_it_until_it_lets_go_or_is_silent() {
    let (store, clock) = (Arc::new(InMemory::new()), SetClock(AtomicU64::new(1_000_000_000_000)));
    let (a, b) = (lease(&store, "a"), lease(&store, "b"));
    assert!(!a.is_held(&clock));
    assert!(a.keep(&clock).unwrap());
    assert!(!b.keep(&clock).unwrap());
    clock.pass(30);
    assert!(a.keep(&clock).unwrap(), "renewed");
    clock.pass(59);
    assert!(a.is_held(&clock) && !b.keep(&clock).unwrap());
    clock.pass(2);
    assert!(!a.is_held(&clock), "it ends for its owner");
    assert!(!b.keep(&clock).unwrap(), "and later for others, whose clocks may be ahead");
    clock.pass(60);
    assert!(b.keep(&clock).unwrap());
    assert!(!a.keep(&clock).unwrap(), "the late one finds that it has changed");
    b.release();
    assert!(!b.is_held(&clock));
    assert!(a.keep(&clock).unwrap());
}

#[test]
fn a_process_that_starts_again_has_its_lease_back() {
    let (store, clock) = (Arc::new(InMemory::new()), SetClock(AtomicU64::new(1_000_000_000_000)));
    assert!(lease_in(&store, None, "a", "1").keep(&clock).unwrap());
    let again = lease_in(&store, None, "a", "2");
    assert!(again.keep(&clock).unwrap() && again.is_held(&clock));
    assert!(!lease(&store, "b").keep(&clock).unwrap());
}

#[test]
fn of_a_copied_data_directory_the_one_that_starts_has_it_and_the_other_notices() {
    let (store, clock) = (Arc::new(InMemory::new()), SetClock(AtomicU64::new(1_000_000_000_000)));
    let (first, copy) = (lease_in(&store, None, "a", "1"), lease_in(&store, None, "a", "2"));
    assert!(first.keep(&clock).unwrap());
    clock.pass(20);
    assert!(copy.keep(&clock).unwrap());
    // They do not take it from each other for ever.
    for _ in 0..9 {
        clock.pass(20);
        assert!(!first.keep(&clock).unwrap() && !first.is_held(&clock));
        assert!(copy.keep(&clock).unwrap());
    }
    // The one that is left has it when it has expired, as anybody would.
    clock.pass(119);
    assert!(!first.keep(&clock).unwrap());
    clock.pass(2);
    assert!(first.keep(&clock).unwrap());
    assert!(!copy.keep(&clock).unwrap());
}

#[test]
fn a_lease_of_before_has_no_life_and_is_its_owners() {
    let (store, clock) = (Arc::new(InMemory::new()), SetClock(AtomicU64::new(1_000_000_000_000)));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let json = r#"{"owner":"a","expires_unix_nano":"1100000000000"}"#;
    runtime.block_on(object_store::ObjectStoreExt::put(&*store, &"@lease.json".into(), json.into())).unwrap();
    assert!(!lease(&store, "b").keep(&clock).unwrap());
    assert!(lease(&store, "a").keep(&clock).unwrap());
}

#[test]
fn on_a_directory_one_of_two_has_it_until_it_lets_go() {
    let (store, clock) = (Arc::new(InMemory::new()), SetClock(AtomicU64::new(1_000_000_000_000)));
    let dir = tempfile::tempdir().unwrap();
    let of = |owner| lease_in(&store, Some(dir.path().to_owned()), owner, owner);
    let (a, b) = (of("a"), of("b"));
    assert!(a.keep(&clock).unwrap() && !b.keep(&clock).unwrap());
    clock.pass(3600);
    assert!(a.is_held(&clock) && a.keep(&clock).unwrap() && !b.keep(&clock).unwrap());
    a.release();
    assert!(b.keep(&clock).unwrap() && !a.keep(&clock).unwrap());
    drop(b);
    assert!(a.keep(&clock).unwrap(), "it ends with its process");
}

#[test]
fn a_lease_that_cannot_be_read_is_taken_when_nobody_renews_it() {
    use object_store::ObjectStoreExt;

    let (store, clock) = (Arc::new(InMemory::new()), SetClock(AtomicU64::new(1_000_000_000_000)));
    let (a, b) = (lease(&store, "a"), lease(&store, "b"));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let damage = || drop(runtime.block_on(store.put(&"@lease.json".into(), "{{{".into())).unwrap());
    damage();
    for _ in 0..4 {
        assert!(a.keep(&clock).unwrap_err().contains("@lease.json"));
        clock.pass(29);
    }
    // Whoever holds it would have written it anew.
    damage();
    assert!(a.keep(&clock).is_err());
    clock.pass(119);
    assert!(a.keep(&clock).is_err());
    clock.pass(1);
    assert!(a.keep(&clock).unwrap());
    assert!(!b.keep(&clock).unwrap());
}
