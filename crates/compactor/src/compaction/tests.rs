use std::sync::atomic::Ordering;

use prometheus_client::registry::Registry;
use spoor_block::BlockMeta;
use spoor_model::{TenantId, TimeRange};

use super::*;
use crate::fake::{FakeOwner, HandClock, with};
use crate::plan::Size;

const HOUR: u64 = 3600 * 1_000_000_000;
const NOW: u64 = 1000 * HOUR;

fn settings() -> Settings {
    Settings {
        limits: Limits {
            window: Duration::from_secs(24 * 3600),
            settle: Duration::from_secs(3600),
            inputs_min: 4,
            patience: Duration::MAX,
            inputs_max: 8,
            block: Size { spans: 1000, traces: 1000, bytes: 1_000_000 },
        },
        memory_bytes: 5,
        shares: Shares { cpu_percent: 100, io_bytes_per_second: 0 },
    }
}

fn policy() -> Policy {
    Policy { retention: Duration::from_secs(100 * 3600), by_tenant: BTreeMap::new(), size_bytes_max: 0 }
}

fn block(id: u128, hours_ago: u64) -> BlockMeta {
    let end = UnixNano(NOW - hours_ago * HOUR);
    let range = TimeRange { start: UnixNano(end.0 - HOUR), end };
    with(BlockMeta::without_files(BlockId(id), TenantId::single(), end, range), |meta| meta.span_count = 10)
}

fn world(ids: std::ops::RangeInclusive<u128>) -> (Compaction, FakeOwner, HandClock, Brake) {
    let owner = FakeOwner::default();
    ids.for_each(|id| owner.add(block(id, 50)));
    let compaction = Compaction::new(settings(), policy(), Metrics::default());
    (compaction, owner, HandClock::at(NOW), Brake::default())
}

#[test]
fn what_is_planned_is_done_until_nothing_is_left() {
    let owner = FakeOwner::default();
    (1..=20).for_each(|id| owner.add(block(id, 50)));
    let (clock, brake, mut registry) = (HandClock::at(NOW), Brake::default(), Registry::default());
    let compaction = Compaction::new(settings(), policy(), Metrics::register(&mut registry));
    for _ in 0..3 {
        assert_eq!(compaction.run_one(&owner, &clock, &brake), Pass::Merged);
    }
    assert_eq!(compaction.run_one(&owner, &clock, &brake), Pass::Idle);
    assert_eq!(owner.blocks(&TenantId::single()).len(), 3, "three merges of 8, 8 and 4");
    assert_eq!(compaction.running(), None);
    let bounds = &owner.merges.lock()[0].1;
    assert_eq!(bounds.keep_after, Some(UnixNano(NOW - 100 * HOUR)));
    assert_eq!((bounds.block_spans, bounds.memory_bytes), (1000, 5));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    for line in [
        "spoor_compactor_blocks_merged_total{level=\"1\"} 20",
        "tempodb_compaction_blocks_total{level=\"1\"} 20",
        "spoor_compactor_spans_written_total{level=\"1\"} 200",
        "tempodb_compaction_outstanding_blocks{tenant=\"single-tenant\"} 0",
        "spoor_compactor_merge_duration_seconds_count 3",
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
}

#[test]
fn what_is_about_to_go_or_cannot_be_read_is_left_alone() {
    let (compaction, owner, clock, brake) = world(1..=3);
    owner.add(block(4, 120));
    let listed = Listed { is_readable: true, is_merging: false, has_deletions: false, meta: block(5, 50) };
    owner.add_listed(Listed { is_readable: false, ..listed.clone() });
    owner.add_listed(Listed { is_merging: true, meta: block(6, 50), ..listed });
    assert_eq!(compaction.run_one(&owner, &clock, &brake), Pass::Idle);
}

#[test]
fn a_block_that_cannot_be_merged_is_left_alone_for_longer_each_time_and_does_not_stop_the_others() {
    let (compaction, owner, clock, brake) = world(1..=5);
    let failed = |culprit| MergeError::Failed { reason: "page 7".to_owned(), culprit };
    owner.failures.lock().push(failed(Some(BlockId(2))));
    assert_eq!(compaction.run_one(&owner, &clock, &brake), Pass::Failed);
    assert_eq!(compaction.run_one(&owner, &clock, &brake), Pass::Merged);
    assert_eq!(owner.merges.lock()[1].0, [1, 3, 4, 5].map(BlockId));

    let (compaction, owner, clock, brake) = world(1..=4);
    for wait_s in [60, 120, 240] {
        owner.failures.lock().push(failed(None));
        assert_eq!(compaction.run_one(&owner, &clock, &brake), Pass::Failed);
        assert_eq!(compaction.run_one(&owner, &clock, &brake), Pass::Idle);
        clock.0.fetch_add(wait_s * 1_000_000_000, Ordering::Relaxed);
    }
    assert_eq!(compaction.run_one(&owner, &clock, &brake), Pass::Merged);
}

#[test]
fn a_merge_waits_while_ingest_is_pressed_says_what_it_does_and_stops_when_told() {
    let (compaction, owner, clock, brake) = world(1..=4);
    owner.is_pressed.store(true, Ordering::Relaxed);
    std::thread::scope(|scope| {
        let merging = scope.spawn(|| compaction.run_one(&owner, &clock, &brake));
        while compaction.running().is_none() {
            std::thread::yield_now();
        }
        let running = compaction.running().unwrap();
        assert_eq!(running.describe(), "tenant single-tenant: 4 blocks into level 1, 0 % of 40 spans");
        assert!(!merging.is_finished());
        assert!(owner.merges.lock().is_empty(), "it has not begun, and takes no memory");
        brake.pull();
        assert_eq!(merging.join().unwrap(), Pass::Stopped);
    });
    assert_eq!(owner.blocks(&TenantId::single()).len(), 4);
    assert_eq!(compaction.run_one(&owner, &clock, &brake), Pass::Stopped);
}
