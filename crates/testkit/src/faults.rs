//! An object store that fails as real ones do, by a seed.
//!
//! ```text
//!   request --> count --> stall? --> fail before? --> the store --> fail after? truncate? flip? stale? --> answer
//! ```
//!
//! Injected: requests that are refused, requests that succeed and are answered with an error all the same, answers
//! that come too late, bodies that end early or have one bit flipped, listings from before the last changes.
//! Not injected: what no store does to what it has acknowledged, which is losing it.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use crate::rng::Rng;

/// How probable each fault is, per request; 0 for never.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// Refused; half of the writes have happened all the same.
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

struct State {
    rng: Rng,
    faults: Faults,
    /// What stale listings show.
    old: Vec<ObjectMeta>,
    /// By object, since they were last taken.
    reads: BTreeMap<Path, Reads>,
}

/// A store with faults before another store.
pub struct FaultStore {
    store: Arc<dyn ObjectStore>,
    state: Arc<Mutex<State>>,
    counts: Arc<Counts>,
}

impl FaultStore {
    /// Puts itself before `store`; without faults at first.
    pub fn new(store: Arc<dyn ObjectStore>, seed: u64) -> Self {
        let state =
            State { rng: Rng::seeded(seed), faults: Faults::default(), old: Vec::new(), reads: BTreeMap::new() };
        Self { store, state: Arc::new(Mutex::new(state)), counts: Arc::default() }
    }

    /// An empty store in memory, with faults.
    pub fn in_memory(seed: u64) -> Self {
        Self::new(Arc::new(InMemory::new()), seed)
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

    fn chance(&self, of: impl FnOnce(&Faults) -> f64) -> bool {
        self.with(|state| {
            let probability = of(&state.faults);
            probability > 0.0 && state.rng.chance(probability)
        })
    }

    async fn stall(&self) {
        if self.chance(|faults| faults.stall) {
            tokio::time::sleep(Faults::STALL).await;
        }
    }

    async fn before(&self) -> Result<()> {
        self.stall().await;
        match self.chance(|faults| faults.fail) {
            true => Err(refused()),
            false => Ok(()),
        }
    }

    /// For writes: whether it is refused, and whether it happens all the same.
    async fn before_write(&self) -> (bool, bool) {
        self.stall().await;
        let is_refused = self.chance(|faults| faults.fail);
        (is_refused, !is_refused || self.with(|state| state.faults.fail < 1.0 && state.rng.chance(0.5)))
    }

    fn stale(&self, prefix: Option<&Path>) -> Option<Vec<ObjectMeta>> {
        if !self.chance(|faults| faults.stale) {
            return None;
        }
        let is_below = |object: &&ObjectMeta| prefix.is_none_or(|prefix| object.location.prefix_matches(prefix));
        Some(self.with(|state| state.old.iter().filter(is_below).cloned().collect()))
    }

    /// The body as it arrives.
    fn harmed(&self, body: Bytes) -> Bytes {
        let mut body = body;
        if !body.is_empty() && self.chance(|faults| faults.truncate) {
            let kept = self.with(|state| state.rng.index(body.len()));
            body.truncate(kept);
        }
        if !body.is_empty() && self.chance(|faults| faults.flip) {
            let (place, bit) = self.with(|state| (state.rng.index(body.len()), state.rng.below(8)));
            let mut bytes = body.to_vec();
            bytes[place] ^= 1 << bit;
            body = bytes.into();
        }
        body
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
        let (is_refused, happens) = self.before_write().await;
        let put = match happens {
            true => self.store.put_opts(location, payload, opts).await,
            false => Err(refused()),
        };
        if is_refused { Err(refused()) } else { put }
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.before().await?;
        let upload = self.store.put_multipart_opts(location, opts).await?;
        let (state, counts) = (Arc::clone(&self.state), Arc::clone(&self.counts));
        Ok(Box::new(FaultUpload { upload, store: Self { store: Arc::clone(&self.store), state, counts } }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.count_get(location);
        self.before().await?;
        let got = self.store.get_opts(location, options).await?;
        let (meta, range, attributes, extensions) =
            (got.meta.clone(), got.range.clone(), got.attributes.clone(), got.extensions.clone());
        let body = self.harmed(got.bytes().await?);
        self.count_bytes(location, body.len() as u64);
        let payload = GetResultPayload::Stream(stream::once(async move { Ok(body) }).boxed());
        Ok(GetResult { payload, meta, range, attributes, extensions })
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.count_get(location);
        self.before().await?;
        let got = self.store.get_ranges(location, ranges).await?;
        self.count_bytes(location, got.iter().map(|body| body.len() as u64).sum());
        Ok(got.into_iter().map(|body| self.harmed(body)).collect())
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.counts.deletes.fetch_add(1, Ordering::Relaxed);
        match self.chance(|faults| faults.fail) {
            true => stream::once(async { Err(refused()) }).boxed(),
            false => self.store.delete_stream(locations),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.counts.lists.fetch_add(1, Ordering::Relaxed);
        if self.chance(|faults| faults.fail) {
            return stream::once(async { Err(refused()) }).boxed();
        }
        match self.stale(prefix) {
            Some(old) => stream::iter(old.into_iter().map(Ok)).boxed(),
            None => self.store.list(prefix),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.counts.lists.fetch_add(1, Ordering::Relaxed);
        self.before().await?;
        let Some(old) = self.stale(prefix) else { return self.store.list_with_delimiter(prefix).await };
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
        self.before().await?;
        self.store.copy_opts(from, to, options).await
    }
}

/// An upload in parts, with the faults of its store.
#[derive(Debug)]
struct FaultUpload {
    upload: Box<dyn MultipartUpload>,
    store: FaultStore,
}

#[async_trait]
impl MultipartUpload for FaultUpload {
    fn put_part(&mut self, data: PutPayload) -> object_store::UploadPart {
        self.store.counts.puts.fetch_add(1, Ordering::Relaxed);
        let part = self.upload.put_part(data);
        match self.store.chance(|faults| faults.fail) {
            true => Box::pin(async { Err(refused()) }),
            false => part,
        }
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.store.before().await?;
        self.upload.complete().await
    }

    async fn abort(&mut self) -> Result<()> {
        self.store.before().await?;
        self.upload.abort().await
    }
}
