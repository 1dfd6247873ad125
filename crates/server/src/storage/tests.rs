use std::collections::BTreeSet;
use std::future::Future;
use std::ops::ControlFlow;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use spoor_ingester::MergeRequest;
use spoor_model::ingest::{Append, AppendRequest, BodyEncoding, Decode};
use spoor_model::memory::MemoryBudget;
use spoor_model::scan::{QueryContext, Snapshots};
use spoor_model::{BlockId, Origin, Span, SpanEntry, SpanId, Trace, UnixNano};
use spoor_otlp::{OtlpDecoder, encode};

use super::*;
use crate::clock::SystemClock;
use crate::config::RawConfig;

/// A process on a storage that it shares.
struct Process {
    ingester: Arc<Ingester>,
    shared: Arc<Shared>,
    clock: Arc<dyn Clock>,
    _dir: tempfile::TempDir,
}

fn clock_time() -> UnixNano {
    SystemClock.now()
}

impl Process {
    fn start(storage: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut raw = RawConfig::default();
        let mut set = |key: &str, text: String| {
            raw.set(crate::config::Setting::find(key).unwrap(), text, "test".to_owned());
        };
        set("data_dir", dir.path().join("data").display().to_string());
        set("storage", format!("file://{}", storage.display()));
        let config = Config::new(&raw).unwrap();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let mut registry = Registry::default();
        let opened = open(&config, &mut registry).unwrap();
        let ingester = Ingester::open_with(
            parts::ingester_config(&config, &config.memory().unwrap(), opened.identity()),
            opened.files,
            Arc::clone(&clock),
            Arc::new(OtlpDecoder),
            spoor_ingester::Metrics::register(&mut registry),
        );
        let (ingester, shared) = (ingester.unwrap(), opened.shared.unwrap());
        shared.guard_merges(&ingester, &clock);
        Self { ingester, shared, clock, _dir: dir }
    }

    /// Acknowledges one span of a trace and has it cut.
    fn cut(&self, trace: TraceId, span: u64) -> BlockId {
        let now = clock_time();
        let span = Span {
            trace_id: trace,
            span_id: SpanId(span.to_be_bytes()),
            start: now,
            end: UnixNano(now.0 + 1000),
            name: "span".to_owned(),
            ..Span::default()
        };
        let entries = vec![SpanEntry { span, origin: Arc::new(Origin::default()) }];
        let payload = encode::traces_data(&Trace { id: trace, entries });
        let request = AppendRequest {
            tenant: TenantId::single(),
            stored: Bytes::from(zstd::bulk::compress(&payload, 1).unwrap()),
            stored_encoding: BodyEncoding::Zstd,
            checked: OtlpDecoder.check(&payload).unwrap(),
            payload: Bytes::from(payload),
        };
        let before: BTreeSet<BlockId> = self.blocks();
        wait(self.ingester.append(request)).unwrap().unwrap();
        self.ingester.flush(None).unwrap();
        let new: Vec<BlockId> = self.blocks().difference(&before).copied().collect();
        assert_eq!(new.len(), 1);
        new[0]
    }

    fn blocks(&self) -> BTreeSet<BlockId> {
        self.ingester.blocks(&TenantId::single()).iter().map(|meta| meta.id).collect()
    }

    fn poll(&self) {
        self.shared.poll(&self.ingester, &*self.clock, false);
    }

    fn delete(&self, trace: TraceId) -> Result<usize, String> {
        self.shared.delete_trace(&self.ingester, &*self.clock, &TenantId::single(), trace)
    }

    fn merge(&self, inputs: &[BlockId], mut meanwhile: impl FnMut()) -> Result<(), String> {
        let request = MergeRequest {
            inputs: inputs.to_vec(),
            block_spans: 1000,
            memory_bytes: 64 << 20,
            keep_after: None,
            window: None,
        };
        let mut watch = |_| {
            meanwhile();
            ControlFlow::Continue(())
        };
        let merged = self.ingester.merge_blocks(&TenantId::single(), &request, &mut watch);
        merged.map(drop).map_err(|err| err.to_string())
    }

    /// The spans of a trace, ascending.
    fn spans(&self, trace: TraceId) -> Vec<u64> {
        let ctx = QueryContext::new(&MemoryBudget::new(1 << 30), Arc::new(AtomicBool::new(false)));
        let snapshot = self.ingester.snapshot(&TenantId::single());
        assert_eq!(snapshot.skipped, []);
        let found = snapshot.sources.iter().flat_map(|source| source.find_trace(trace, &ctx).unwrap());
        let mut spans: Vec<u64> = found.map(|entry| u64::from_be_bytes(entry.span.span_id.0)).collect();
        spans.sort_unstable();
        spans
    }
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}

#[test]
fn while_the_storage_cannot_be_listed_answers_say_that_they_may_lack_blocks() {
    let storage = tempfile::tempdir().unwrap();
    let writer = Process::start(storage.path());
    writer.cut(TRACE, 1);
    let reader = Process::start(storage.path());
    let away = |process: &Process, seconds: u64| {
        let failure = Error::Io { action: "list", path: "there".to_owned(), reason: "away".into(), is_full: false };
        process.shared.note_listing(&process.ingester, Err(failure), UnixNano::from_secs(1_790_000_000 + seconds));
    };
    let skipped = || {
        ["single-tenant", "unheard-of"].map(|tenant| {
            let tenant = TenantId::parse(tenant).unwrap();
            reader.ingester.snapshot(&tenant).skipped.iter().map(|skipped| skipped.reason.clone()).collect::<String>()
        })
    };
    let unlisted = || reader.shared.files.metrics().unlisted_seconds.get();
    away(&reader, 0);
    assert!(skipped().iter().all(|reason| reason.contains("could not be listed since the start: list there: away")));
    assert!(reader.ingester.health().blocks_unknown.is_some());
    reader.poll();
    assert_eq!((skipped(), unlisted()), (["", ""].map(String::from), 0));
    assert_eq!(reader.spans(TRACE), [1]);
    // A poll or three may fail: what is known is as of the last one.
    for poll in 0..FAILED_POLLS_MAX {
        away(&reader, u64::from(poll) * 30);
        assert_eq!(skipped(), ["", ""]);
    }
    away(&reader, 90);
    let since = "could not be listed since 2026-09-21T14:13:20.000Z: list there: away";
    assert!(skipped().iter().all(|reason| reason.contains(since)), "{:?}", skipped());
    assert!(reader.ingester.health().blocks_unknown.is_some_and(|reason| reason.contains(since)));
    assert_eq!(unlisted(), 90);
    reader.poll();
    assert_eq!((skipped(), unlisted()), (["", ""].map(String::from), 0));
    assert_eq!(reader.ingester.health().blocks_unknown, None);
}

const TRACE: TraceId = TraceId([7; 16]);
const OTHER: TraceId = TraceId([8; 16]);

/// Two processes that know of each other's blocks; the second merges.
fn two(storage: &Path) -> (Process, Process) {
    let (one, two) = (Process::start(storage), Process::start(storage));
    two.shared.keep_lease(&*two.clock);
    (one, two)
}

#[test]
fn what_is_acknowledged_after_a_deletion_is_not_hidden_when_a_merge_meets_it() {
    let storage = tempfile::tempdir().unwrap();
    let (one, two) = two(storage.path());
    let old = one.cut(TRACE, 1);
    let other = one.cut(OTHER, 2);
    two.poll();
    assert_eq!(one.delete(TRACE).unwrap(), 1);
    // Who merges has not heard of it, and has a span of the same trace that came later.
    let later = two.cut(TRACE, 3);
    assert_eq!(two.spans(TRACE), [1, 3]);
    assert!(two.merge(&[old, other, later], || ()).is_err(), "an input has lost a trace");
    for process in [&one, &two] {
        process.poll();
        assert_eq!(process.spans(TRACE), [3]);
        assert_eq!(process.spans(OTHER), [2]);
    }
    // Rewritten by itself, and then merged with the others.
    two.merge(&[old], || ()).unwrap();
    let rest: Vec<BlockId> = two.blocks().into_iter().collect();
    two.merge(&rest, || ()).unwrap();
    let fresh = Process::start(storage.path());
    for process in [&one, &two, &fresh] {
        process.poll();
        assert_eq!(process.spans(TRACE), [3]);
        assert_eq!(process.spans(OTHER), [2]);
    }
}

#[test]
fn a_deletion_names_what_was_merged_behind_the_back_of_whoever_is_asked() {
    let storage = tempfile::tempdir().unwrap();
    let (one, two) = two(storage.path());
    let inputs = [one.cut(TRACE, 1), one.cut(OTHER, 2)];
    two.poll();
    two.merge(&inputs, || ()).unwrap();
    assert_eq!(one.blocks(), BTreeSet::from(inputs), "it has not looked since");
    assert_eq!(one.delete(TRACE).unwrap(), 1);
    assert_eq!(one.spans(TRACE), [0; 0]);
    let after = one.cut(TRACE, 3);
    let fresh = Process::start(storage.path());
    for process in [&one, &two, &fresh] {
        process.poll();
        assert!(process.blocks().contains(&after));
        assert_eq!(process.spans(TRACE), [3]);
        assert_eq!(process.spans(OTHER), [2]);
    }
}

#[test]
fn a_deletion_in_the_middle_of_a_merge_voids_it() {
    let storage = tempfile::tempdir().unwrap();
    let (one, two) = two(storage.path());
    let inputs = [one.cut(TRACE, 1), one.cut(OTHER, 2)];
    two.poll();
    let mut deleted = 0;
    let merged = two.merge(&inputs, || {
        if deleted == 0 {
            deleted = one.delete(TRACE).unwrap();
        }
    });
    assert_eq!((merged.is_err(), deleted), (true, 1));
    for process in [&one, &two] {
        process.poll();
        assert_eq!(process.spans(TRACE), [0; 0]);
        assert_eq!(process.spans(OTHER), [2]);
    }
}

#[test]
fn who_has_lost_the_lease_shows_nothing_that_it_merged() {
    let storage = tempfile::tempdir().unwrap();
    let (one, two) = two(storage.path());
    let inputs = [one.cut(TRACE, 1), one.cut(OTHER, 2)];
    two.poll();
    // Another takes the lease over in the middle of the merge, and merges the same blocks.
    let taken_over = two.merge(&inputs, || {
        if two.shared.is_owner(&*two.clock) {
            two.shared.release();
            one.shared.keep_lease(&*one.clock);
            one.merge(&inputs, || ()).unwrap();
        }
    });
    assert!(taken_over.is_err());
    let fresh = Process::start(storage.path());
    for process in [&one, &two, &fresh] {
        process.poll();
        assert_eq!(process.spans(TRACE), [1]);
        assert_eq!(process.spans(OTHER), [2]);
        assert_eq!(process.blocks(), one.blocks());
    }
}
