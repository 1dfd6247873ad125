//! Several processes on one store: what one writes, merges and removes, the others see once and whole.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use object_store::ObjectStoreExt;
use parking_lot::Mutex;
use proptest::prelude::*;
use spoor_compactor::objects::{BlockCatalog, Changes, Deletions, Sweeper, Watch};
use spoor_model::TimeRange;
use spoor_testkit::faults::{FaultStore, Faults};
use spoor_testkit::wait::now;

use super::*;

/// A catalog in memory.
#[derive(Default)]
struct Known(Mutex<BTreeMap<BlockId, BlockMeta>>, Mutex<Deletions>, Mutex<Vec<BlockId>>);

impl BlockCatalog for Known {
    fn tenants(&self) -> Vec<TenantId> {
        vec![TenantId::single()]
    }

    fn blocks(&self, _tenant: &TenantId) -> Vec<BlockMeta> {
        self.0.lock().values().cloned().collect()
    }

    fn deletions(&self, _tenant: &TenantId) -> Deletions {
        self.1.lock().clone()
    }

    fn hide(&self, _tenant: &TenantId, deletions: &Deletions) -> Result<(), String> {
        self.1.lock().extend(deletions);
        Ok(())
    }

    fn lack(&self, _tenant: &TenantId, unreadable: &[(BlockId, String)]) {
        *self.2.lock() = unreadable.iter().map(|(id, _)| *id).collect();
    }

    fn take(&self, changes: &Changes) -> Result<bool, String> {
        let mut known = self.0.lock();
        changes.gone.iter().for_each(|id| assert!(known.remove(id).is_some(), "only what is known goes"));
        changes.added.iter().for_each(|meta| assert!(known.insert(meta.id, meta.clone()).is_none()));
        Ok(true)
    }
}

/// A block without rows: to a watcher it is its meta.
fn publish(files: &dyn BlockFiles, meta: &BlockMeta) {
    let staged = files.staging(&meta.tenant).unwrap().join(format!("{}.tmp", meta.id));
    fs::create_dir(&staged).unwrap();
    fs::write(staged.join("index.bin"), "index").unwrap();
    fs::write(staged.join("meta.json"), meta.to_json()).unwrap();
    files.publish(&meta.tenant, meta.id).unwrap();
}

fn cut(id: BlockId) -> BlockMeta {
    BlockMeta::without_files(id, TenantId::single(), UnixNano(0), TimeRange::ALL)
}

/// One process that cuts and merges, step by step; it knows which spans (numbers) each block holds.
struct Owner {
    files: Arc<dyn BlockFiles>,
    live: Vec<BlockMeta>,
    spans: BTreeMap<BlockId, Vec<usize>>,
    span_count: usize,
    made: u64,
    /// Blocks to be removed, after what replaces them is there.
    leaving: Vec<BlockId>,
}

impl Owner {
    fn next_id(&mut self) -> BlockId {
        self.made += 1;
        // Ten minutes apart, so that some are older than what incremental listings look at.
        BlockId::from_parts(UnixNano(self.made * 600_000_000_000), u128::from(self.made))
    }

    fn cut(&mut self) {
        let meta = cut(self.next_id());
        self.spans.insert(meta.id, vec![self.span_count]);
        self.span_count += 1;
        publish(&*self.files, &meta);
        self.live.push(meta);
    }

    fn merge(&mut self, inputs: usize, outputs: usize) {
        let inputs: Vec<BlockMeta> = self.live.drain(..inputs.min(self.live.len())).collect();
        if inputs.is_empty() {
            return;
        }
        let ids: Vec<BlockId> = (0..outputs).map(|_| self.next_id()).collect();
        let held: Vec<usize> = inputs.iter().flat_map(|meta| self.spans[&meta.id].clone()).collect();
        for (index, id) in ids.iter().enumerate() {
            let mut meta = cut(*id);
            meta.merge_level = 1 + inputs.iter().map(|meta| meta.merge_level).max().unwrap();
            let replaced = inputs.iter().flat_map(|meta| meta.replaces.iter().copied().chain([meta.id]));
            meta.replaces = replaced.collect::<BTreeSet<_>>().into_iter().collect();
            meta.merged_with = ids.iter().copied().filter(|other| other != id).collect();
            self.spans.insert(*id, held.iter().copied().filter(|span| span % outputs == index).collect());
            publish(&*self.files, &meta);
            self.live.push(meta);
        }
        self.leaving.extend(inputs.iter().map(|meta| meta.id));
    }

    fn remove_one(&mut self) {
        if let Some(id) = self.leaving.pop() {
            self.files.remove(&TenantId::single(), id).unwrap();
        }
    }

    /// The spans that a catalog shows, ascending.
    fn shown(&self, known: &Known) -> Vec<usize> {
        let mut shown: Vec<usize> = known.0.lock().keys().flat_map(|id| self.spans[id].clone()).collect();
        shown.sort_unstable();
        shown
    }
}

#[derive(Debug, Clone)]
enum Step {
    Cut,
    Merge(usize, usize),
    Remove,
    Age,
    Poll,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => Just(Step::Cut),
        2 => (1..4usize, 1..3usize).prop_map(|(inputs, outputs)| Step::Merge(inputs, outputs)),
        3 => Just(Step::Remove),
        1 => Just(Step::Age),
        3 => Just(Step::Poll),
    ];
    prop::collection::vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_watcher_sees_every_span_once_and_never_loses_one(
        steps in steps(),
        seed in any::<u64>(),
        faults in (0.0..0.2f64, 0.0..0.5f64, 0.0..0.1f64),
    ) {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        // One content, seen by one through faults.
        let content = Arc::new(object_store::memory::InMemory::new());
        let faulty = Arc::new(FaultStore::new(Arc::clone(&content) as _, seed));
        let files = object_files(content, dirs[0].path()) as Arc<dyn BlockFiles>;
        let mut owner = Owner {
            files, live: vec![], spans: BTreeMap::new(), span_count: 0, made: 0, leaving: vec![],
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (fail, stale, flip) = faults;
        faulty.set(Faults { fail, stale, flip, ..Faults::default() });
        let mut watch = Watch::new(object_files(Arc::clone(&faulty) as _, dirs[1].path()));
        let known = Known::default();
        let mut seen: BTreeSet<usize> = BTreeSet::new();
        for step in steps {
            match step {
                Step::Cut => owner.cut(),
                Step::Merge(inputs, outputs) => owner.merge(inputs, outputs),
                Step::Remove => owner.remove_one(),
                Step::Age => runtime.block_on(faulty.age()),
                // Lists get older than any of a real store, unless time stands still.
                Step::Poll => drop(watch.poll(&known, UnixNano(0))),
            }
            let shown = owner.shown(&known);
            let distinct: BTreeSet<usize> = shown.iter().copied().collect();
            prop_assert_eq!(distinct.len(), shown.len(), "no span is shown twice: {:?}", shown);
            prop_assert!(distinct.is_superset(&seen), "no span is lost: {:?} of {:?}", distinct, seen);
            seen = distinct;
        }
        faulty.set(Faults::default());
        for _ in 0..11 {
            watch.poll(&known, UnixNano(0)).unwrap();
        }
        prop_assert_eq!(owner.shown(&known), (0..owner.span_count).collect::<Vec<_>>());
    }
}

#[test]
fn a_block_that_is_removed_elsewhere_is_gone_here() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let store = Arc::new(FaultStore::in_memory(1));
    let one = object_files(Arc::clone(&store) as _, dirs[0].path());
    let mut watch = Watch::new(object_files(Arc::clone(&store) as _, dirs[1].path()));
    let known = Known::default();
    publish(&*one, &cut(block_id(1)));
    publish(&*one, &cut(block_id(2)));
    assert_eq!(watch.poll(&known, now()).unwrap().added, 2);
    one.remove(&TenantId::single(), block_id(1)).unwrap();
    let gone: usize = (0..10).map(|_| watch.poll(&known, now()).unwrap().gone).sum();
    assert_eq!(gone, 1);
    assert_eq!(known.0.lock().keys().copied().collect::<Vec<_>>(), [block_id(2)]);
}

/// Removes objects of a block by hand.
fn remove_by_hand(store: &FaultStore, id: BlockId, names: &[&str]) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for name in names {
        let path = format!("{}/{id}/{name}", TenantId::single()).into();
        runtime.block_on(store.delete(&path)).unwrap();
    }
}

#[test]
fn a_block_of_which_nothing_is_left_is_gone_when_no_list_can_be_as_old() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let store = Arc::new(FaultStore::in_memory(1));
    let one = object_files(Arc::clone(&store) as _, dirs[0].path());
    let mut watch = Watch::new(object_files(Arc::clone(&store) as _, dirs[1].path()));
    let known = Known::default();
    let id = block_id(7);
    publish(&*one, &cut(id));
    let at = |seconds: u64| UnixNano((7 + seconds) * 1_000_000_000);
    watch.poll(&known, at(0)).unwrap();
    remove_by_hand(&store, id, &["meta.json", "index.bin"]);
    let gone = |watch: &mut Watch, now: UnixNano| (0..10).map(|_| watch.poll(&known, now).unwrap().gone).sum::<usize>();
    assert_eq!(gone(&mut watch, at(3599)), 0, "as far as one can see the list may be older than the block");
    assert_eq!(gone(&mut watch, at(3600)), 1);
}

#[test]
fn a_merge_whose_sibling_cannot_be_read_waits_for_it_and_not_for_ever() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let store = Arc::new(FaultStore::in_memory(1));
    let files = object_files(Arc::clone(&store) as _, dirs[0].path()) as Arc<dyn BlockFiles>;
    let mut owner = Owner { files, live: vec![], spans: BTreeMap::new(), span_count: 0, made: 0, leaving: vec![] };
    let mut watch = Watch::new(object_files(Arc::clone(&store) as _, dirs[1].path()));
    let known = Known::default();
    (0..3).for_each(|_| owner.cut());
    watch.poll(&known, now()).unwrap();
    owner.merge(2, 2);
    let sibling = owner.live.last().unwrap().id;
    // The other output goes on into another merge, which replaces all that the two did.
    owner.merge(2, 1);
    owner.cut();
    (0..4).for_each(|_| owner.remove_one());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let path = format!("{}/{sibling}/meta.json", TenantId::single()).into();
    let whole = runtime.block_on(async { store.get(&path).await.unwrap().bytes().await.unwrap() });
    let mut damaged = whole.to_vec();
    damaged[9] ^= 1;
    let put = |body: Vec<u8>| runtime.block_on(async { store.put(&path, body.into()).await.unwrap() });
    put(damaged.clone());
    for _ in 0..5 {
        watch.poll(&known, now()).unwrap();
        assert_eq!(owner.shown(&known), [0, 1, 2, 3], "what was known stays, and what is cut comes");
        assert_eq!(*known.2.lock(), [sibling], "and answers say that they may lack something");
    }
    put(whole.to_vec());
    let poll = |watch: &mut Watch, known: &Known, times: usize| {
        (0..times).for_each(|_| assert_eq!(watch.poll(known, now()).unwrap().failed_tenants, 0));
    };
    poll(&mut watch, &known, 10);
    assert_eq!(owner.shown(&known), [0, 1, 2, 3]);
    let live: BTreeSet<BlockId> = owner.live.iter().map(|meta| meta.id).collect();
    assert_eq!(known.0.lock().keys().copied().collect::<BTreeSet<_>>(), live);
    assert_eq!(*known.2.lock(), []);

    // To somebody who starts now, nothing is to be lost.
    put(damaged.clone());
    let readable = (0..4).filter(|span| !owner.spans[&sibling].contains(span)).collect::<Vec<_>>();
    let (mut watch, known) = (Watch::new(object_files(Arc::clone(&store) as _, dirs[1].path())), Known::default());
    poll(&mut watch, &known, 1);
    assert_eq!(owner.shown(&known), readable);
    // And for who knew what was replaced, waiting comes to an end.
    put(whole.to_vec());
    poll(&mut watch, &known, 10);
    owner.merge(3, 1);
    (0..3).for_each(|_| owner.remove_one());
    owner.merge(1, 2);
    owner.remove_one();
    let path = format!("{}/{}/meta.json", TenantId::single(), owner.live[0].id).into();
    runtime.block_on(async { store.put(&path, damaged.into()).await.unwrap() });
    poll(&mut watch, &known, 10);
    assert_eq!(owner.shown(&known), [0, 1, 2, 3]);
    poll(&mut watch, &known, 10);
    assert_eq!(owner.shown(&known), owner.spans[&owner.live[1].id]);
}

#[test]
fn removing_a_block_again_leaves_what_others_may_be_reading_and_that_it_was_removed() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(FaultStore::in_memory(1));
    let options = ObjectOptions { grace: Duration::from_secs(600), ..options(dir.path()) };
    let files = ObjectFiles::new(Arc::clone(&store) as _, options, Metrics::default()).unwrap();
    let (tenant, id) = (TenantId::single(), block_id(1));
    publish(&files, &cut(id));
    for _ in 0..2 {
        files.remove(&tenant, id).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let prefix = format!("{tenant}/{id}").into();
        let left = runtime.block_on(async { store.list_with_delimiter(Some(&prefix)).await.unwrap().objects });
        let names: BTreeSet<_> = left.iter().filter_map(|object| object.location.filename()).collect();
        assert_eq!(names, BTreeSet::from(["index.bin", "removed"]));
    }
}

#[test]
fn a_deletion_reaches_the_others_at_their_next_poll_and_goes_after_the_block() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let store = Arc::new(FaultStore::in_memory(1));
    let [one, two] = dirs.each_ref().map(|dir| object_files(Arc::clone(&store) as _, dir.path()));
    let (tenant, trace) = (TenantId::single(), TraceId([7; 16]));
    // The first is older than what most polls look at.
    (1..20).for_each(|number| publish(&*one, &cut(block_id(number * 3600))));
    let (mut watch_one, mut watch_two) = (Watch::new(Arc::clone(&one)), Watch::new(Arc::clone(&two)));
    let (known_one, known_two) = (Known::default(), Known::default());
    watch_one.poll(&known_one, now()).unwrap();
    watch_two.poll(&known_two, now()).unwrap();
    let deleted = Deletions::from([(block_id(3600), trace)]);
    known_one.hide(&tenant, &deleted).unwrap();
    store.set(Faults { fail: 1.0, ..Faults::default() });
    assert!(one.publish_deletions(&tenant, &deleted).is_err(), "the store is away when the trace is deleted");
    store.set(Faults::default());
    watch_one.poll(&known_one, now()).unwrap();
    watch_two.poll(&known_two, now()).unwrap();
    assert_eq!(known_two.deletions(&tenant), deleted, "all the same");

    let objects = || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let prefix = format!("{tenant}/@deleted/{}", block_id(3600)).into();
        runtime.block_on(async { store.list_with_delimiter(Some(&prefix)).await.unwrap().objects.len() })
    };
    let mut sweeper = Sweeper::new(Arc::clone(&one));
    let later = UnixNano(now().0 + 7200 * 1_000_000_000);
    sweeper.sweep(later).unwrap();
    assert_eq!(objects(), 1, "the block is still there");
    one.remove(&tenant, block_id(3600)).unwrap();
    sweeper.sweep(now()).unwrap();
    assert_eq!(objects(), 1, "others may not have seen it yet");
    sweeper.sweep(later).unwrap();
    assert_eq!(objects(), 0);
}

#[test]
fn nobody_is_up_to_date_while_a_listed_block_cannot_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(FaultStore::in_memory(1));
    let files = object_files(Arc::clone(&store) as _, dir.path());
    let mut watch = Watch::new(Arc::clone(&files));
    let known = Known::default();
    publish(&*files, &cut(block_id(1)));
    store.set(Faults { flip: 1.0, ..Faults::default() });
    // Whoever deletes would not name it.
    assert!(watch.catch_up(&known, &TenantId::single(), now()).is_err());
    store.set(Faults::default());
    assert_eq!(watch.catch_up(&known, &TenantId::single(), now()), Ok(true));
    assert!(known.0.lock().contains_key(&block_id(1)));
}

#[test]
fn what_came_while_nobody_looked_is_found_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let files = object_files(Arc::new(FaultStore::in_memory(1)) as _, dir.path());
    let mut watch = Watch::new(Arc::clone(&files));
    let known = Known::default();
    let at = |seconds: u64| UnixNano(seconds * 1_000_000_000);
    publish(&*files, &cut(block_id(10_000)));
    watch.poll(&known, at(10_000)).unwrap();
    publish(&*files, &cut(block_id(11_000)));
    // Two and a half hours later, first of all, one of its own.
    let own = cut(block_id(20_000));
    publish(&*files, &own);
    known.0.lock().insert(own.id, own);
    assert_eq!(watch.catch_up(&known, &TenantId::single(), at(20_000)), Ok(true));
    assert!(known.0.lock().contains_key(&block_id(11_000)));
}

#[test]
fn a_poll_with_nothing_new_is_two_requests() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(FaultStore::in_memory(1));
    let files = object_files(Arc::clone(&store) as _, dir.path());
    let mut watch = Watch::new(Arc::clone(&files));
    let known = Known::default();
    (1..50).for_each(|number| publish(&*files, &cut(block_id(number))));
    watch.poll(&known, now()).unwrap();
    let before = store.counts().lists();
    let gets = store.counts().gets();
    watch.poll(&known, now()).unwrap();
    assert_eq!((store.counts().lists() - before, store.counts().gets() - gets), (2, 0));
}

#[test]
fn remains_are_swept_after_the_grace_period_and_blocks_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(FaultStore::in_memory(1));
    let options = ObjectOptions { grace: Duration::from_secs(600), ..options(dir.path()) };
    let files = Arc::new(ObjectFiles::new(Arc::clone(&store) as _, options, Metrics::default()).unwrap());
    let tenant = TenantId::single();
    publish(&*files, &cut(block_id(1)));
    publish(&*files, &cut(block_id(2)));
    files.remove(&tenant, block_id(1)).unwrap();
    assert_eq!(files.list().unwrap(), [(tenant.clone(), block_id(2))]);
    let objects = || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async { store.list_with_delimiter(Some(&tenant.as_str().into())).await.unwrap() })
    };
    let blocks = || objects().common_prefixes.len();
    assert_eq!(blocks(), 2, "others may still read it");
    let upload = format!("{tenant}/{}/index.bin", block_id(3)).into();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(store.put(&upload, "index".into())).unwrap();
    let now = now();
    let after = |seconds: u64| UnixNano(now.0 + seconds * 1_000_000_000);
    let mut sweeper = Sweeper::new(Arc::clone(&files));
    assert_eq!(sweeper.sweep(now).unwrap(), 0);
    assert_eq!(sweeper.sweep(after(599)).unwrap(), 0);
    assert_eq!(sweeper.sweep(after(601)).unwrap(), 1, "what is as young and was not removed may be an upload");
    assert_eq!(blocks(), 3, "and it is still said what was removed");
    assert_eq!(sweeper.sweep(after(601)).unwrap(), 0);
    assert_eq!(sweeper.sweep(after(7200)).unwrap(), 1);
    assert_eq!(blocks(), 1);
    assert_eq!(Sweeper::new(files).sweep(after(72_000)).unwrap(), 0);
}
