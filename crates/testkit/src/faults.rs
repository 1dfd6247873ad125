//! An object store that fails as real ones do, by a seed.
//!
//! ```text
//!   request --> count --> stall? --> fail before? --> the store --> fail after? truncate? flip? stale? --> answer
//! ```
//!
//! What happens to a request depends on the seed, the object and how often it was asked for, and not on what else is going on.
//!
//! Injected: requests that are refused, requests that succeed and are answered with an error all the same, answers
//! that come too late, bodies that end early or have one bit flipped, listings from before the last changes.
//! Deletions of several objects may get half way. Not injected: what no store does to what it has acknowledged, which is losing it.

mod switch;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use spoor_model::{Clock, UnixNano};

use crate::rng::Rng;

pub use switch::{Passage, Stop, Switch};

/// How probable each fault is, per request; 0 for never.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Faults {
    /// Refused; half of the writes have happened all the same, and deletions in part.
    pub fail: f64,
    /// Answered after [`Faults::STALL`] only.
    pub stall: f64,
    /// A body ends early.
    pub truncate: f64,
    /// A body has a flipped bit.
    pub flip: f64,
    /// A listing is that of the time of [`FaultStore::age`].
    pub stale: f64,
}

impl Faults {
    /// How late an answer is that stalls: past any test's patience.
    pub const STALL: Duration = Duration::from_secs(600);

    /// Nothing goes through.
    pub fn down() -> Self {
        Self { fail: 1.0, ..Self::default() }
    }
}

/// What was read of one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reads {
    /// Requests, those without an answer too.
    pub requests: u64,
    /// Bytes of the answers.
    pub bytes: u64,
}

/// Requests that the store has had.
#[derive(Debug, Default)]
pub struct Counts {
    /// Reads of an object.
    pub gets: AtomicU64,
    /// Bytes of the answers to them.
    pub get_bytes: AtomicU64,
    /// Writes of an object or of a part.
    pub puts: AtomicU64,
    /// Listings.
    pub lists: AtomicU64,
    /// Objects deleted.
    pub deletes: AtomicU64,
}

impl Counts {
    /// Reads so far.
    pub fn gets(&self) -> u64 {
        self.gets.load(Ordering::Relaxed)
    }

    /// Listings so far.
    pub fn lists(&self) -> u64 {
        self.lists.load(Ordering::Relaxed)
    }

    /// Bytes read so far.
    pub fn get_bytes(&self) -> u64 {
        self.get_bytes.load(Ordering::Relaxed)
    }
}

#[derive(Default)]
struct State {
    seed: u64,
    faults: Faults,
    /// How often each request was made.
    asked: BTreeMap<String, u64>,
    /// What stale listings show.
    old: Vec<ObjectMeta>,
    /// By object, since they were last taken.
    reads: BTreeMap<Path, Reads>,
    /// When objects were put, by the clock.
    put_at: BTreeMap<Path, UnixNano>,
}

/// What happens to a request.
struct Fate {
    rng: Rng,
    faults: Faults,
}

impl Fate {
    fn chance(&mut self, of: impl FnOnce(&Faults) -> f64) -> bool {
        let probability = of(&self.faults);
        probability > 0.0 && self.rng.chance(probability)
    }

    async fn before(&mut self) -> Result<()> {
        if self.chance(|faults| faults.stall) {
            tokio::time::sleep(Faults::STALL).await;
        }
        match self.chance(|faults| faults.fail) {
            true => Err(refused()),
            false => Ok(()),
        }
    }

    /// Whether a write that is refused has happened.
    fn happens(&mut self) -> bool {
        self.faults.fail < 1.0 && self.rng.chance(0.5)
    }

    /// The body as it arrives.
    fn harmed(&mut self, body: Bytes) -> Bytes {
        let mut body = body;
        if !body.is_empty() && self.chance(|faults| faults.truncate) {
            body.truncate(self.rng.index(body.len()));
        }
        if !body.is_empty() && self.chance(|faults| faults.flip) {
            let (place, bit) = (self.rng.index(body.len()), self.rng.below(8));
            let mut bytes = body.to_vec();
            bytes[place] ^= 1 << bit;
            body = bytes.into();
        }
        body
    }
}

/// A store with faults before another store.
#[derive(Clone)]
pub struct FaultStore {
    store: Arc<dyn ObjectStore>,
    state: Arc<Mutex<State>>,
    counts: Arc<Counts>,
    switch: Arc<Switch>,
    clock: Option<Arc<dyn Clock>>,
}

impl FaultStore {
    /// Puts itself before `store`; without faults at first.
    pub fn new(store: Arc<dyn ObjectStore>, seed: u64) -> Self {
        let state = Arc::new(Mutex::new(State { seed, ..State::default() }));
        Self { store, state, counts: Arc::default(), switch: Arc::default(), clock: None }
    }

    /// An empty store in memory, with faults.
    pub fn in_memory(seed: u64) -> Self {
        Self::new(Arc::new(InMemory::new()), seed)
    }

    /// Requests count for this switch.
    pub fn with_switch(self, switch: Arc<Switch>) -> Self {
        Self { switch, ..self }
    }

    /// Listings say that objects were put when this clock says.
    pub fn with_clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock: Some(clock), ..self }
    }

    /// From now on these faults happen.
    pub fn set(&self, faults: Faults) {
        self.with(|state| state.faults = faults);
    }

    /// What there is now is what stale listings will show.
    pub async fn age(&self) {
        let listed: Vec<ObjectMeta> = self.store.list(None).try_collect().await.unwrap_or_default();
        self.with(|state| state.old = listed);
    }

    /// The names of all objects, whatever faults there are.
    pub async fn names(&self) -> Vec<String> {
        let listed: Vec<ObjectMeta> = self.store.list(None).try_collect().await.unwrap_or_default();
        listed.into_iter().map(|object| object.location.to_string()).collect()
    }

    /// The requests so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// What was read since this was last called, by object.
    pub fn take_reads(&self) -> BTreeMap<String, Reads> {
        let reads = self.with(|state| std::mem::take(&mut state.reads));
        reads.into_iter().map(|(path, reads)| (path.to_string(), reads)).collect()
    }

    fn count_get(&self, location: &Path) {
        self.counts.gets.fetch_add(1, Ordering::Relaxed);
        self.with(|state| state.reads.entry(location.clone()).or_default().requests += 1);
    }

    fn count_bytes(&self, location: &Path, bytes: u64) {
        self.counts.get_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.with(|state| state.reads.entry(location.clone()).or_default().bytes += bytes);
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What happens to this request, which is `verb` of `object`.
    fn fate(&self, verb: &str, object: &str) -> Fate {
        self.with(|state| {
            let request = format!("{verb} {object}");
            // FNV-1a: the same on every machine.
            let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
            let hash = request.bytes().fold(0xcbf2_9ce4_8422_2325, mix);
            let times = state.asked.entry(request).or_default();
            *times += 1;
            let mut rng = Rng::seeded(state.seed ^ hash ^ times.rotate_left(32));
            // Neighbouring seeds begin alike.
            rng.bits();
            Fate { rng, faults: state.faults }
        })
    }

    /// Waits where the process is to wait; whether the request happens, and whether it is heard of.
    async fn pass(&self) -> (bool, bool) {
        match self.switch.pass() {
            Passage::Free => (true, true),
            Passage::Dead => (false, false),
            Passage::Unheard => (true, false),
            Passage::Pause => {
                let switch = Arc::clone(&self.switch);
                // Fails when the runtime ends: then nobody waits for this either.
                let _ = tokio::task::spawn_blocking(move || switch.wait()).await;
                (true, true)
            }
        }
    }

    /// For requests that change nothing.
    async fn before(&self, fate: &mut Fate) -> Result<()> {
        match self.pass().await {
            (_, true) => fate.before().await,
            (_, false) => Err(refused()),
        }
    }

    /// For writes: whether it happens, and whether that is told.
    async fn before_write(&self, fate: &mut Fate) -> (bool, bool) {
        let (happens, is_told) = self.pass().await;
        match is_told && fate.before().await.is_err() {
            true => (fate.happens(), false),
            false => (happens, is_told),
        }
    }

    fn remember(&self, location: &Path) {
        if let Some(clock) = &self.clock {
            let now = clock.now();
            self.with(|state| state.put_at.insert(location.clone(), now));
        }
    }

    fn dated(&self, mut object: ObjectMeta) -> ObjectMeta {
        if let Some(put_at) = self.with(|state| state.put_at.get(&object.location).copied()) {
            object.last_modified = (UNIX_EPOCH + Duration::from_nanos(put_at.0)).into();
        }
        object
    }

    fn stale(&self, fate: &mut Fate, prefix: Option<&Path>) -> Option<Vec<ObjectMeta>> {
        if !fate.chance(|faults| faults.stale) {
            return None;
        }
        let is_below = |object: &&ObjectMeta| prefix.is_none_or(|prefix| object.location.prefix_matches(prefix));
        Some(self.with(|state| state.old.iter().filter(is_below).cloned().collect()))
    }

    async fn listed(self, prefix: Option<Path>) -> Result<Vec<ObjectMeta>> {
        let mut fate = self.fate("list", prefix.as_ref().map_or("", |prefix| prefix.as_ref()));
        self.before(&mut fate).await?;
        if let Some(old) = self.stale(&mut fate, prefix.as_ref()) {
            return Ok(old);
        }
        let listed: Vec<ObjectMeta> = self.store.list(prefix.as_ref()).try_collect().await?;
        Ok(listed.into_iter().map(|object| self.dated(object)).collect())
    }

    /// Deletes all, or, when it fails, some. What became of each.
    async fn deleted(self, locations: Vec<Path>) -> Result<Vec<Result<Path>>> {
        let mut fate = self.fate("delete", locations.first().map_or("", |location| location.as_ref()));
        let (happens, is_told) = self.before_write(&mut fate).await;
        let count = match (happens, is_told) {
            (true, true) => locations.len(),
            (true, false) => fate.rng.index(locations.len() + 1),
            (false, _) => 0,
        };
        let some = stream::iter(locations.into_iter().take(count).map(Ok)).boxed();
        let deleted = self.store.delete_stream(some).collect().await;
        if is_told { Ok(deleted) } else { Err(refused()) }
    }
}

fn refused() -> Error {
    Error::Generic { store: "FaultStore", source: "refused by the test".into() }
}

impl fmt::Display for FaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultStore({})", self.store)
    }
}

impl fmt::Debug for FaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[async_trait]
impl ObjectStore for FaultStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.counts.puts.fetch_add(1, Ordering::Relaxed);
        let mut fate = self.fate("put", location.as_ref());
        let (happens, is_told) = self.before_write(&mut fate).await;
        let put = match happens {
            true => self.store.put_opts(location, payload, opts).await,
            false => Err(refused()),
        };
        if put.is_ok() {
            self.remember(location);
        }
        if is_told { put } else { Err(refused()) }
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.before(&mut self.fate("begin", location.as_ref())).await?;
        let upload = self.store.put_multipart_opts(location, opts).await?;
        Ok(Box::new(FaultUpload { upload, location: location.clone(), store: self.clone() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.count_get(location);
        let mut fate = self.fate("get", location.as_ref());
        self.before(&mut fate).await?;
        let got = self.store.get_opts(location, options).await?;
        let (meta, range, attributes, extensions) =
            (got.meta.clone(), got.range.clone(), got.attributes.clone(), got.extensions.clone());
        let body = fate.harmed(got.bytes().await?);
        self.count_bytes(location, body.len() as u64);
        let payload = GetResultPayload::Stream(stream::once(async move { Ok(body) }).boxed());
        Ok(GetResult { payload, meta, range, attributes, extensions })
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.count_get(location);
        let mut fate = self.fate("get", location.as_ref());
        self.before(&mut fate).await?;
        let got = self.store.get_ranges(location, ranges).await?;
        self.count_bytes(location, got.iter().map(|body| body.len() as u64).sum());
        Ok(got.into_iter().map(|body| fate.harmed(body)).collect())
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.counts.deletes.fetch_add(1, Ordering::Relaxed);
        let store = self.clone();
        let deleted = async move { store.deleted(locations.try_collect().await?).await };
        stream::once(deleted).map_ok(stream::iter).try_flatten().boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.counts.lists.fetch_add(1, Ordering::Relaxed);
        let listed = self.clone().listed(prefix.cloned());
        stream::once(listed).map_ok(|listed| stream::iter(listed.into_iter().map(Ok))).try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.counts.lists.fetch_add(1, Ordering::Relaxed);
        let mut fate = self.fate("list", prefix.map_or("", |prefix| prefix.as_ref()));
        self.before(&mut fate).await?;
        let Some(old) = self.stale(&mut fate, prefix) else { return self.store.list_with_delimiter(prefix).await };
        let below = prefix.map_or(0, |prefix| prefix.parts().count());
        let mut prefixes = BTreeMap::new();
        for object in &old {
            let parts: Vec<_> = object.location.parts().take(below + 1).collect();
            if object.location.parts().count() > parts.len() {
                prefixes.insert(Path::from_iter(parts), ());
            }
        }
        let objects = old.iter().filter(|object| object.location.parts().count() == below + 1).cloned().collect();
        let common_prefixes = prefixes.into_keys().collect();
        Ok(ListResult { common_prefixes, objects, extensions: Default::default() })
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.before(&mut self.fate("copy", to.as_ref())).await?;
        self.store.copy_opts(from, to, options).await
    }
}

/// An upload in parts, with the faults of its store.
#[derive(Debug)]
struct FaultUpload {
    upload: Box<dyn MultipartUpload>,
    location: Path,
    store: FaultStore,
}

#[async_trait]
impl MultipartUpload for FaultUpload {
    fn put_part(&mut self, data: PutPayload) -> object_store::UploadPart {
        self.store.counts.puts.fetch_add(1, Ordering::Relaxed);
        let part = self.upload.put_part(data);
        match self.store.fate("part", self.location.as_ref()).chance(|faults| faults.fail) {
            true => Box::pin(async { Err(refused()) }),
            false => part,
        }
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.store.before(&mut self.store.fate("complete", self.location.as_ref())).await?;
        let put = self.upload.complete().await?;
        self.store.remember(&self.location);
        Ok(put)
    }

    async fn abort(&mut self) -> Result<()> {
        self.store.before(&mut self.store.fate("abort", self.location.as_ref())).await?;
        self.upload.abort().await
    }
}
