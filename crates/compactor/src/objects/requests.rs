//! From threads that may block to a store that is asynchronous: with retries, and back within a deadline.
//!
//! ```text
//!   caller's thread --spawn--> own runtime: attempt --(timeout, refusal, damage)--> backoff --> attempt ...
//!         ^                                                                                       |
//!         +------------------------------- answer, or why there is none --------------------------+
//! ```
//!
//! The store's own client repeats single HTTP requests; here whole operations are repeated, so that it
//! does not matter which store it is, and an answer that is too short or does not verify is asked for again, for an eighth of the time.
//!
//! When patience has ended once, the store is taken for away: until it answers anything, each operation is tried once
//! only. Else who opens forty blocks would be patient forty times.

use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    GetOptions, GetResult, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutPayload, UpdateVersion,
};
use spoor_block::Error;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::metrics::{Metrics, Operation};
use super::refusal::{is_cut_short, refusal};

/// Requests of one read that are under way at once.
const PARALLEL_READS: usize = 8;
/// What part of its patience a request has with answers that do not verify.
const DAMAGED_SHARE: u32 = 8;
/// Threads of the runtime: they wait for sockets, and decrypt.
const RUNTIME_THREADS: usize = 2;

/// How long the store is waited for.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For one attempt.
    pub attempt: Duration,
    /// For all attempts and the pauses between them. Uploads have it per part.
    pub total: Duration,
    /// The first pause; each is twice the one before.
    pub backoff: Duration,
}

impl Patience {
    /// Patience with a given total: an attempt has a third of it.
    pub fn of(total: Duration) -> Self {
        Self { attempt: total / 3, total, backoff: Duration::from_millis(100) }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// There is no such object.
    #[error("the object is missing")]
    Missing,
    /// Somebody else was faster.
    #[error("the object has changed")]
    Changed,
    /// The store answers, and each time with something else than was put there.
    #[error("{0}")]
    Damaged(String),
    /// The store does not let us, and will not until somebody changes something.
    #[error("{0}")]
    Refused(String),
    /// The store did not answer, or not now.
    #[error("{0}")]
    Unavailable(String),
}

impl Failure {
    /// For callers that read `object`, a file of a block, at `location`.
    pub(crate) fn reading(self, object: &str, location: String) -> Error {
        match self {
            Self::Missing | Self::Changed | Self::Damaged(_) => {
                Error::Corrupt { object: object.to_owned(), reason: self.to_string() }
            }
            Self::Refused(_) | Self::Unavailable(_) => self.doing("read", location),
        }
    }

    /// For callers that do something else.
    pub(crate) fn doing(self, action: &'static str, location: String) -> Error {
        Error::Io { action, path: location, reason: self.to_string(), is_full: false }
    }
}

impl From<object_store::Error> for Failure {
    fn from(err: object_store::Error) -> Self {
        match err {
            object_store::Error::NotFound { .. } => Self::Missing,
            object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. } => Self::Changed,
            err if is_cut_short(&err) => Self::Damaged("the object is shorter than it was".to_owned()),
            err => match refusal(&err) {
                Some(reason) => Self::Refused(reason),
                None => Self::Unavailable(err.to_string()),
            },
        }
    }
}

/// How the store is asked.
#[derive(Debug, Clone)]
struct Manner {
    /// The store, for operators.
    name: Arc<str>,
    patience: Patience,
    metrics: Metrics,
    /// Patience ended, and there has been no answer since.
    is_away: Arc<AtomicBool>,
    /// Once the process stops: how long a request may take from then on.
    hurry: watch::Receiver<Option<Duration>>,
    /// A request failed since the process stops: the others need not be tried.
    has_given_up: Arc<AtomicBool>,
}

impl Manner {
    fn is_stopping(&self) -> bool {
        self.hurry.borrow().is_some()
    }

    /// Waits for an answer as long as there is patience, and no longer than is left once the process stops.
    async fn wait_for<T>(
        &self,
        patience: Duration,
        answer: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        if self.has_given_up.load(Ordering::Relaxed) {
            return Err(Failure::Unavailable("it is away, and the process stops".to_owned()));
        }
        let mut hurry = self.hurry.clone();
        let hurried = async move {
            let left = hurry.wait_for(Option::is_some).await.ok().and_then(|left| *left);
            match left {
                Some(left) => tokio::time::sleep(left).await,
                None => std::future::pending().await,
            }
            left.unwrap_or_default()
        };
        let outcome = tokio::select! {
            answer = tokio::time::timeout(patience, answer) => match answer {
                Ok(answer) => answer,
                Err(_) => Err(late(patience, "storage_timeout")),
            },
            left = hurried => Err(late(left, "storage_shutdown_timeout")),
        };
        if matches!(outcome, Err(Failure::Unavailable(_))) && self.is_stopping() {
            self.has_given_up.store(true, Ordering::Relaxed);
        }
        outcome
    }

    /// A pause between attempts, which ends when the process stops.
    async fn pause(&self, backoff: Duration) {
        let mut hurry = self.hurry.clone();
        tokio::select! {
            () = tokio::time::sleep(backoff) => {}
            _ = hurry.wait_for(Option::is_some) => {}
        }
    }

    fn was_away(&self) -> bool {
        self.is_away.load(Ordering::Relaxed)
    }

    /// Remembers an answer; told where it is the first one after an outage.
    fn note_answer(&self) {
        if self.was_away() && self.is_away.swap(false, Ordering::Relaxed) {
            tracing::info!(storage = &*self.name, "the storage answers again");
        }
    }

    /// Remembers that patience ended; told once per outage.
    fn note_failure(&self, operation: Operation, failure: &Failure) {
        let is_away = matches!(failure, Failure::Unavailable(_) | Failure::Refused(_));
        if !is_away {
            return self.note_answer();
        }
        if !self.is_away.swap(true, Ordering::Relaxed) {
            let storage = &*self.name;
            tracing::warn!(storage, ?operation, reason = %failure, "the storage is away: it is asked on, and told of once it answers");
        }
    }
}

/// A store, asked with patience.
#[derive(Debug)]
pub(crate) struct Requests {
    store: Arc<dyn ObjectStore>,
    manner: Manner,
    hurry: watch::Sender<Option<Duration>>,
    /// Always there, but when being dropped.
    runtime: Option<Runtime>,
}

impl Requests {
    /// `name` is that by which operators know the store.
    pub(crate) fn new(
        name: &str,
        store: Arc<dyn ObjectStore>,
        patience: Patience,
        metrics: Metrics,
    ) -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(RUNTIME_THREADS)
            .thread_name("spoor-objects")
            .enable_all()
            .build()
            .map_err(|err| format!("cannot start threads: {err}"))?;
        let (hurry, hurried) = watch::channel(None);
        let (is_away, has_given_up) = (Arc::default(), Arc::default());
        let manner = Manner { name: name.into(), patience, metrics, is_away, hurry: hurried, has_given_up };
        Ok(Self { store, manner, hurry, runtime: Some(runtime) })
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.manner.metrics
    }

    /// The process stops: from now on each request, also one that is under way, may take this long, is not repeated, and the first
    /// that fails is the last.
    pub(crate) fn hasten(&self, left: Duration) {
        self.hurry.send_replace(Some(left));
    }

    /// Whether [`Self::hasten`] was called.
    pub(crate) fn is_stopping(&self) -> bool {
        self.manner.is_stopping()
    }

    pub(crate) fn patience(&self) -> Patience {
        self.manner.patience
    }

    /// Runs `work` on the runtime and waits for it.
    pub(crate) fn wait<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        let (done, outcome) = sync_channel(1);
        self.runtime.as_ref().expect("only dropping takes it").spawn(async move {
            // The caller waits below.
            let _ = done.send(work.await);
        });
        outcome.recv().expect("work on the runtime does not panic")
    }

    /// Attempts until one succeeds, fails for good, or patience ends.
    fn retried<T, F, Fut>(&self, operation: Operation, attempt: F) -> Result<T, Failure>
    where
        T: Send + 'static,
        F: FnMut(Arc<dyn ObjectStore>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, Failure>> + Send + 'static,
    {
        let store = Arc::clone(&self.store);
        self.wait(retried(store, self.manner.clone(), operation, attempt))
    }

    /// Ranges of an object, each verified by `verify(index, bytes)` before it counts.
    pub(crate) fn read(
        &self,
        path: &Path,
        ranges: Vec<Range<u64>>,
        verify: impl Fn(usize, &Bytes) -> Result<(), String> + Send + Sync + 'static,
    ) -> Result<Vec<Bytes>, Failure> {
        let (path, verify) = (path.clone(), Arc::new(verify));
        let (store, manner) = (Arc::clone(&self.store), self.manner.clone());
        let one = move |(index, range): (usize, Range<u64>)| {
            let (path, verify) = (path.clone(), Arc::clone(&verify));
            let attempt = move |store: Arc<dyn ObjectStore>| {
                let (path, range, verify) = (path.clone(), range.clone(), Arc::clone(&verify));
                async move {
                    let (want, bytes) = (range.end - range.start, store.get_range(&path, range).await?);
                    if bytes.len() as u64 != want {
                        let got = bytes.len();
                        return Err(Failure::Damaged(format!("short read (want {want} bytes, got {got})")));
                    }
                    verify(index, &bytes).map_err(Failure::Damaged)?;
                    Ok(bytes)
                }
            };
            retried(Arc::clone(&store), manner.clone(), Operation::Get, attempt)
        };
        let all = stream::iter(ranges.into_iter().enumerate()).map(one).buffered(PARALLEL_READS);
        let read: Vec<Bytes> = self.wait(all.try_collect())?;
        self.manner.metrics.read_bytes.inc_by(read.iter().map(|bytes| bytes.len() as u64).sum());
        Ok(read)
    }

    /// A whole object, and its version.
    pub(crate) fn get(&self, path: &Path) -> Result<(Bytes, UpdateVersion), Failure> {
        let path = path.clone();
        let (bytes, version): (Bytes, _) = self.retried(Operation::Get, move |store| {
            let path = path.clone();
            async move {
                let got = store.get_opts(&path, GetOptions::default()).await?;
                let version = UpdateVersion { e_tag: got.meta.e_tag.clone(), version: got.meta.version.clone() };
                Ok((whole(got).await?, version))
            }
        })?;
        self.manner.metrics.read_bytes.inc_by(bytes.len() as u64);
        Ok((bytes, version))
    }

    /// Whole objects, some at a time.
    pub(crate) fn get_all(&self, paths: Vec<Path>) -> Vec<Result<Bytes, Failure>> {
        let (store, manner) = (Arc::clone(&self.store), self.manner.clone());
        let one = move |path: Path| {
            let attempt = move |store: Arc<dyn ObjectStore>| {
                let path = path.clone();
                async move { whole(store.get(&path).await?).await }
            };
            retried(Arc::clone(&store), manner.clone(), Operation::Get, attempt)
        };
        self.wait(stream::iter(paths).map(one).buffered(PARALLEL_READS).collect())
    }

    /// Puts an object; durable and visible when this returns.
    ///
    /// With a condition, [`Failure::Changed`] may also mean that an attempt whose answer was lost had succeeded.
    pub(crate) fn put(&self, path: &Path, bytes: Bytes, mode: PutMode) -> Result<UpdateVersion, Failure> {
        let (path, written_bytes) = (path.clone(), bytes.len() as u64);
        let put = self.retried(Operation::Put, move |store| {
            let (path, payload, mode) = (path.clone(), PutPayload::from(bytes.clone()), mode.clone());
            let is_over_another = matches!(mode, PutMode::Update(_));
            async move {
                let put = match store.put_opts(&path, payload, mode.into()).await {
                    // Nothing but the bucket can be missing for a new object.
                    Err(object_store::Error::NotFound { .. }) if !is_over_another => {
                        return Err(Failure::Refused("there is no such bucket".to_owned()));
                    }
                    put => put?,
                };
                Ok(UpdateVersion { e_tag: put.e_tag, version: put.version })
            }
        })?;
        self.manner.metrics.written_bytes.inc_by(written_bytes);
        Ok(put)
    }

    /// Deletes objects. One that is not there is deleted.
    pub(crate) fn delete(&self, paths: Vec<Path>) -> Result<(), Failure> {
        self.retried(Operation::Delete, move |store| {
            let paths = paths.clone();
            async move {
                let paths = stream::iter(paths.into_iter().map(Ok)).boxed();
                let mut deleted = store.delete_stream(paths);
                while let Some(outcome) = deleted.next().await {
                    match outcome {
                        Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                        Err(err) => return Err(err.into()),
                    }
                }
                Ok(())
            }
        })
    }

    /// The names directly below a prefix that have something below them.
    pub(crate) fn list_prefixes(&self, prefix: &Path) -> Result<Vec<String>, Failure> {
        let prefix = prefix.clone();
        self.retried(Operation::List, move |store| {
            let prefix = prefix.clone();
            async move {
                let listed = store.list_with_delimiter(Some(&prefix)).await?;
                let names = listed.common_prefixes.iter().filter_map(|path| path.filename().map(str::to_owned));
                Ok(names.collect())
            }
        })
    }

    /// The objects below a prefix, from behind `offset` on.
    pub(crate) fn list_objects(&self, prefix: &Path, offset: Option<&Path>) -> Result<Vec<ObjectMeta>, Failure> {
        let (prefix, offset) = (prefix.clone(), offset.cloned());
        self.retried(Operation::List, move |store| {
            let (prefix, offset) = (prefix.clone(), offset.clone());
            async move {
                let listed = match &offset {
                    Some(offset) => store.list_with_offset(Some(&prefix), offset),
                    None => store.list(Some(&prefix)),
                };
                Ok(listed.try_collect().await?)
            }
        })
    }

    /// A part of an upload, on its way; `wait_for` waits for it. Bounded by one attempt's patience: the
    /// store's client repeats parts by itself.
    pub(crate) fn start<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, object_store::Error>> + Send + 'static,
    ) -> std::sync::mpsc::Receiver<Result<T, Failure>> {
        let (done, outcome) = sync_channel(1);
        let manner = self.manner.clone();
        manner.metrics.count(Operation::Put);
        self.runtime.as_ref().expect("only dropping takes it").spawn(async move {
            let work = async { work.await.map_err(Failure::from) };
            let _ = done.send(manner.wait_for(manner.patience.total, work).await);
        });
        outcome
    }

    /// The store itself, for multipart uploads.
    pub(crate) fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Waiting is forbidden on the threads of another runtime, which may be where this is dropped.
            runtime.shutdown_background();
        }
    }
}

/// All of an object that is being answered.
async fn whole(got: GetResult) -> Result<Bytes, Failure> {
    let (want, bytes) = (got.meta.size, got.bytes().await?);
    match bytes.len() as u64 == want {
        true => Ok(bytes),
        false => Err(Failure::Damaged(format!("short read (want {want} bytes, got {})", bytes.len()))),
    }
}

fn late(after: Duration, key: &str) -> Failure {
    Failure::Unavailable(format!("no answer within {after:?} ({key})"))
}

/// Attempts until one succeeds, fails for good, or patience ends.
async fn retried<T, F, Fut>(
    store: Arc<dyn ObjectStore>,
    manner: Manner,
    operation: Operation,
    mut attempt: F,
) -> Result<T, Failure>
where
    F: FnMut(Arc<dyn ObjectStore>) -> Fut,
    Fut: Future<Output = Result<T, Failure>>,
{
    let Manner { patience, metrics, .. } = &manner;
    let was_away = manner.was_away();
    let deadline = tokio::time::Instant::now() + patience.total;
    let mut backoff = patience.backoff;
    loop {
        metrics.count(operation);
        let failure = match manner.wait_for(patience.attempt, attempt(Arc::clone(&store))).await {
            Ok(answer) => {
                manner.note_answer();
                return Ok(answer);
            }
            Err(failure @ (Failure::Missing | Failure::Changed)) => {
                manner.note_answer();
                return Err(failure);
            }
            Err(failure) => failure,
        };
        metrics.count_failure(operation);
        let is_final = match failure {
            Failure::Refused(_) => true,
            // On the way, or where it lies: then it is no use, and a query waits.
            Failure::Damaged(_) => {
                deadline - patience.total + patience.total / DAMAGED_SHARE <= tokio::time::Instant::now() + backoff
            }
            _ => false,
        };
        if is_final || was_away || manner.is_stopping() || tokio::time::Instant::now() + backoff >= deadline {
            manner.note_failure(operation, &failure);
            return Err(failure);
        }
        manner.pause(backoff).await;
        backoff *= 2;
    }
}

#[cfg(test)]
mod tests {
    use spoor_testkit::faults::{FaultStore, Faults};

    use super::*;

    #[test]
    fn a_store_that_is_away_is_waited_for_once_and_found_again_at_once() {
        let store = Arc::new(FaultStore::in_memory(1));
        let patience = Patience {
            attempt: Duration::from_millis(100),
            total: Duration::from_millis(300),
            backoff: Duration::from_millis(10),
        };
        let requests = Requests::new("test", Arc::clone(&store) as _, patience, Metrics::default()).unwrap();
        let asked = |requests: &Requests| {
            let before = store.counts().lists();
            let listed = requests.list_objects(&Path::default(), None);
            (listed.is_ok(), store.counts().lists() - before)
        };
        assert_eq!(asked(&requests), (true, 1));
        store.set(Faults::down());
        let (is_ok, tries) = asked(&requests);
        assert!(!is_ok && tries > 1, "{tries}");
        assert_eq!(asked(&requests), (false, 1));
        assert_eq!(asked(&requests), (false, 1));
        store.set(Faults::default());
        assert!(matches!(requests.get(&"nothing".into()), Err(Failure::Missing)), "an answer, too");
        store.set(Faults::down());
        assert!(asked(&requests).1 > 1, "it was there, so it is waited for");
    }

    #[test]
    fn a_process_that_stops_waits_for_a_stalled_store_once_and_shortly() {
        let store = Arc::new(FaultStore::in_memory(1));
        let patience = Patience::of(Duration::from_secs(3600));
        let requests = Requests::new("test", Arc::clone(&store) as _, patience, Metrics::default()).unwrap();
        assert!(requests.list_objects(&Path::default(), None).is_ok());
        store.set(Faults { stall: 1.0, ..Faults::default() });
        std::thread::scope(|scope| {
            let under_way = scope.spawn(|| requests.list_objects(&Path::default(), None));
            let limit = Duration::from_secs(60);
            spoor_testkit::wait::until("the request", limit, || (store.counts().lists() == 2).then_some(()));
            requests.hasten(Duration::from_millis(10));
            assert!(under_way.join().unwrap().unwrap_err().to_string().contains("storage_shutdown_timeout"));
        });
        for _ in 0..100 {
            assert!(requests.list_objects(&Path::default(), None).is_err());
        }
        assert_eq!(store.counts().lists(), 2, "nobody asks any more");
    }

    #[test]
    fn a_process_that_stops_uses_a_store_that_answers() {
        let store = Arc::new(FaultStore::in_memory(1));
        let patience = Patience::of(Duration::from_secs(20));
        let requests = Requests::new("test", Arc::clone(&store) as _, patience, Metrics::default()).unwrap();
        requests.hasten(Duration::from_secs(20));
        for _ in 0..3 {
            assert!(requests.put(&"a".into(), Bytes::new(), PutMode::Overwrite).is_ok());
            assert!(matches!(requests.get(&"b".into()), Err(Failure::Missing)));
        }
    }
}
