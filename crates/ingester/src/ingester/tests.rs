use std::time::Duration;

use proptest::prelude::*;

use super::harness::*;
use super::*;
use crate::record::{self, Sequence};
use crate::store::{Fault, Table};

#[test]
fn a_span_is_visible_when_it_is_acknowledged_and_after_flush_close_and_crash() {
    let mut world = World::new();
    let a = tenant("a");
    world.append(&a, 3).unwrap();
    world.check();
    world.ingester().flush(Some(&a)).unwrap();
    world.check();
    world.append(&a, 2).unwrap();
    world.crash(0);
    world.check();
    world.append(&a, 2).unwrap();
    world.ingester().close().unwrap();
    world.check();
    assert_eq!(world.ingester().blocks(&a).len(), 2);
    world.open().unwrap();
    world.check();
    assert_eq!(world.ingester().tenants(), [a]);
}

#[test]
fn closing_empties_the_log_and_closing_again_does_nothing() {
    let mut world = World::new();
    for name in ["a", "b"] {
        world.append(&tenant(name), 5).unwrap();
    }
    world.ingester().close().unwrap();
    world.ingester().close().unwrap();
    assert_eq!(world.append(&tenant("a"), 1), Err(AppendError::Closed));
    assert!(matches!(world.ingester().flush(None), Err(Error::Closed)));
    let mut records = 0;
    let mut visit = |_: &[u8], _: &[u8]| {
        records += 1;
        std::ops::ControlFlow::Continue(())
    };
    world.store.scan(Table::Wal, b"", &mut visit).unwrap();
    assert_eq!(records, 0);
    world.check();
}

#[test]
fn a_cut_of_one_tenant_leaves_the_log_of_the_other() {
    let mut world = World::new();
    let (a, b) = (tenant("a"), tenant("b"));
    for _ in 0..3 {
        world.append(&a, 2).unwrap();
        world.append(&b, 2).unwrap();
    }
    world.ingester().flush(Some(&a)).unwrap();
    assert_eq!(world.ingester().blocks(&a).len(), 1);
    assert_eq!(world.ingester().blocks(&b).len(), 0);
    world.append(&a, 2).unwrap();
    world.crash(0);
    world.check();
}

#[test]
fn every_prefix_of_the_log_is_recovered_as_that_prefix() {
    let mut world = World::with(unsynced());
    let a = tenant("a");
    // One write each: an answer is awaited before the next request is sent.
    let requests: Vec<Vec<u64>> = (1..=6).map(|count| world.numbers(count)).collect();
    for numbers in &requests {
        wait_for(world.ingester().append(request(&a, numbers))).unwrap();
    }
    for kept in 0..=requests.len() {
        let mut after = World::with(unsynced());
        after.ingester = None;
        after.store = Arc::new(world.store.after_crash(kept));
        after.open().unwrap();
        assert_eq!(numbers_in(after.ingester(), &a), requests[..kept].concat());
    }
}

#[test]
fn a_snapshot_sees_each_span_once_before_during_and_after_a_cut() {
    let mut world = World::new();
    let a = tenant("a");
    world.append(&a, 20).unwrap();
    world.blocks.shut_gate();
    let ingester = Arc::clone(world.ingester());
    let flush = std::thread::spawn(move || ingester.flush(None));
    world.blocks.wait_for_writer();
    world.check();
    world.append(&a, 20).unwrap();
    world.check();
    world.blocks.open_gate();
    while !flush.is_finished() {
        world.check();
    }
    flush.join().unwrap().unwrap();
    world.check();
    assert_eq!(world.ingester().blocks(&a).len(), 1);
}

#[test]
fn a_crash_between_a_written_block_and_its_publication_loses_and_doubles_nothing() {
    let mut world = World::new();
    let a = tenant("a");
    world.append(&a, 20).unwrap();
    world.blocks.shut_gate();
    let ingester = Arc::clone(world.ingester());
    let flush = std::thread::spawn(move || drop(ingester.flush(None)));
    world.blocks.wait_for_writer();
    assert_eq!(world.blocks.names().len(), 1);
    let store = world.store.after_crash(0);
    let blocks = world.blocks.after_crash();
    world.blocks.open_gate();
    flush.join().unwrap();
    (world.store, world.blocks) = (Arc::new(store), Arc::new(blocks));
    world.open().unwrap();
    world.check();
    assert_eq!(world.blocks.names(), [], "the remains of the cut are removed");
}

#[test]
fn a_directory_that_the_catalog_does_not_know_is_left_alone() {
    let mut world = World::new();
    let stray = (tenant("a"), BlockId(5));
    world.blocks.add_stray(&stray.0, stray.1);
    world.crash(0);
    assert_eq!(world.blocks.names(), [stray]);
}

#[test]
fn a_lost_block_is_named_in_snapshots_and_the_rest_answers() {
    let mut world = World::new();
    let a = tenant("a");
    world.append(&a, 5).unwrap();
    world.ingester().flush(None).unwrap();
    let lost = world.ingester().blocks(&a)[0].id;
    world.acknowledged.clear();
    world.append(&a, 5).unwrap();
    world.blocks.lose(&a, lost);
    world.crash(0);
    let snapshot = world.ingester().snapshot(&a);
    assert_eq!(snapshot.skipped.len(), 1);
    assert!(snapshot.skipped[0].object.contains(&lost.to_string()));
    assert_eq!(world.ingester().health().blocks_skipped, 1);
    world.check();
    // Retention still gets rid of it.
    assert_eq!(world.ingester().remove_blocks(&a, &[lost]).unwrap(), 1);
    assert!(world.ingester().snapshot(&a).skipped.is_empty());
}

#[test]
fn a_refused_write_refuses_ingest_until_the_disk_takes_writes_again() {
    let mut world = World::new();
    let a = tenant("a");
    world.append(&a, 2).unwrap();
    for fault in [Fault::Refuse, Fault::LoseAnswer, Fault::LoseWrite] {
        let now = world.store.writes_seen();
        world.store.fail_writes(now..u64::MAX, fault);
        let reason = match world.append(&a, 2) {
            Err(AppendError::Storage(reason)) => reason,
            other => panic!("{fault:?}: {other:?}"),
        };
        assert!(reason.contains("injected"), "{reason}");
        assert!(matches!(world.append(&a, 2), Err(AppendError::Storage(_))));
        assert!(world.ingester().health().refusing.is_some());
        world.check();
        world.store.heal();
        wait_until("ingest begins again", || world.ingester().health().refusing.is_none());
        world.append(&a, 2).unwrap();
        world.check();
        world.crash(0);
        world.check();
    }
}

#[test]
fn a_failing_cut_keeps_everything_and_is_tried_again() {
    let mut world = World::new();
    let a = tenant("a");
    world.append(&a, 8).unwrap();
    world.blocks.set_full(true);
    let refused = world.ingester().flush(None).unwrap_err().to_string();
    assert!(refused.contains("no space left"), "{refused}");
    assert!(world.ingester().health().cut_failing.is_some());
    world.append(&a, 8).unwrap();
    world.check();
    world.blocks.set_full(false);
    world.blocks.set_panics(true);
    assert!(world.ingester().flush(None).is_err());
    world.check();
    world.blocks.set_panics(false);
    world.ingester().flush(None).unwrap();
    assert_eq!(world.ingester().health(), Health::default());
    assert_eq!(world.ingester().blocks(&a).len(), 2, "one per frozen head");
    world.check();
    world.crash(0);
    world.check();
}

#[test]
fn a_cut_whose_publication_has_no_answer_is_published_once() {
    for fault in [Fault::Refuse, Fault::LoseAnswer, Fault::LoseWrite] {
        let mut world = World::new();
        let a = tenant("a");
        world.append(&a, 8).unwrap();
        // The announcement is the next write, the publication the one after.
        let publication = world.store.writes_seen() + 1;
        world.store.fail_writes(publication..publication + 1, fault);
        assert!(world.ingester().flush(None).is_err(), "{fault:?}");
        world.check();
        let before_retry = (world.store.after_crash(0), world.blocks.after_crash());
        world.ingester().flush(None).unwrap();
        world.check();
        assert_eq!(world.ingester().blocks(&a).len(), 1);
        world.crash(0);
        world.check();
        // And had the machine stopped before the retry:
        world.ingester = None;
        (world.store, world.blocks) = (Arc::new(before_retry.0), Arc::new(before_retry.1));
        world.open().unwrap();
        world.check();
    }
}

#[test]
fn closing_on_a_full_disk_is_an_error_and_the_log_keeps_the_spans() {
    let mut world = World::new();
    world.append(&tenant("a"), 8).unwrap();
    world.blocks.set_full(true);
    assert!(matches!(world.ingester().close(), Err(Error::Cut { .. })));
    world.crash(0);
    world.check();
}

#[test]
fn heads_are_cut_by_size_and_memory_is_bounded_by_refusal() {
    let mut world = World::with(small(64 << 10, 256 << 10));
    let a = tenant("a");
    world.blocks.shut_gate();
    let refused = loop {
        match world.append(&a, 100) {
            Ok(()) => assert!(world.ingester().core.memory.held().bytes < 512 << 10, "the bound holds"),
            Err(err) => break err,
        }
    };
    assert!(matches!(refused, AppendError::Overloaded { key: "head_memory_limit", .. }), "{refused}");
    let writes = world.store.writes_seen();
    assert!(world.append(&a, 1).is_err());
    assert_eq!(world.store.writes_seen(), writes, "a refused request does not reach the log");
    world.check();
    world.blocks.open_gate();
    wait_until("memory becomes free", || world.append(&a, 1).is_ok());
    wait_until("the heads that waited are cut", || world.ingester().blocks(&a).len() > 1);
    world.check();
}

#[test]
fn recovery_stays_within_the_bound_on_memory() {
    let mut world = World::new();
    for round in 0..40 {
        world.append(&tenant(["a", "b"][round % 2]), 200).unwrap();
    }
    let held = world.ingester().core.memory.held().bytes;
    world.config = small(held / 8, held / 4);
    world.crash(0);
    assert!(world.ingester().core.memory.held().bytes <= held / 2);
    assert!(!world.ingester().blocks(&tenant("a")).is_empty());
    world.check();
    world.crash(0);
    world.check();
}

#[test]
fn many_small_heads_do_not_fill_the_memory_for_good() {
    let mut world = World::with(small(1 << 20, 256 << 10));
    let names: Vec<_> = (0..20).map(|n| tenant(&format!("t{n}"))).collect();
    for round in 0..200 {
        let name = &names[round % names.len()];
        wait_until("there is room", || world.append(name, 20).is_ok());
    }
    world.check();
}

#[test]
fn a_head_is_cut_when_its_oldest_request_is_too_old() {
    let mut world = World::new();
    let a = tenant("a");
    world.append(&a, 2).unwrap();
    world.clock.advance(world.config.head_age_max);
    wait_until("the head is cut", || !world.ingester().blocks(&a).is_empty());
    world.check();
}

#[test]
fn a_full_queue_refuses_by_the_name_of_its_bound_and_a_huge_request_still_passes() {
    let mut config = Config::new("/nowhere");
    config.append_queue_bytes = 1000;
    let mut world = World::with(config);
    let a = tenant("a");
    world.append(&a, 1000).unwrap();
    world.check();
    let held = world.ingester().queue_budget.try_reserve(1000).unwrap();
    let refused = world.append(&a, 1).unwrap_err();
    assert!(matches!(refused, AppendError::Overloaded { key: "ingest_inflight_bytes", .. }));
    drop(held);
    world.append(&a, 1).unwrap();
}

#[test]
fn a_damaged_record_is_set_aside_and_the_rest_is_recovered() {
    let mut world = World::new();
    let a = tenant("a");
    for _ in 0..3 {
        world.append(&a, 2).unwrap();
    }
    let key = record::key(&a, Sequence(2));
    world.store.corrupt(Table::Wal, &key, 300);
    world.acknowledged.get_mut(&a).unwrap().retain(|number| *number != 2 && *number != 3);
    world.crash(0);
    world.check();
    assert!(world.store.get(Table::Quarantine, &key).unwrap().is_some());
    assert_eq!(world.store.get(Table::Wal, &key).unwrap(), None);
    assert_eq!(world.ingester().health().records_in_quarantine, 1);
    world.append(&a, 2).unwrap();
    world.crash(0);
    world.check();
}

#[test]
fn a_damaged_record_is_kept_even_when_recovery_cuts_what_is_around_it() {
    let mut world = World::new();
    let a = tenant("a");
    for _ in 0..40 {
        world.append(&a, 200).unwrap();
    }
    let key = record::key(&a, Sequence(3));
    world.store.corrupt(Table::Wal, &key, 300);
    world.acknowledged.get_mut(&a).unwrap().retain(|number| !(400..600).contains(number));
    let held = world.ingester().core.memory.held().bytes;
    world.config = small(held / 8, held / 4);
    world.crash(0);
    world.check();
    assert!(!world.ingester().blocks(&a).is_empty());
    assert!(world.store.get(Table::Quarantine, &key).unwrap().is_some());
}

#[test]
fn a_request_that_makes_decoding_panic_is_set_aside_and_harms_nobody_else() {
    let mut world = World::new();
    let a = tenant("a");
    world.append(&a, 2).unwrap();
    let poison = request(&a, &[1 << 40, POISON]);
    assert!(matches!(wait_for(world.ingester().append(poison)), Err(AppendError::Storage(_))));
    world.check();
    world.append(&a, 2).unwrap();
    world.check();
    assert!(world.store.get(Table::Quarantine, &record::key(&a, Sequence(2))).unwrap().is_some());
    world.crash(0);
    world.check();
    world.ingester().close().unwrap();
    world.check();
}

#[test]
fn removed_blocks_leave_new_snapshots_at_once_and_their_files_with_the_last_reader() {
    let mut world = World::new();
    let a = tenant("a");
    world.append(&a, 4).unwrap();
    world.ingester().flush(None).unwrap();
    world.acknowledged.clear();
    world.append(&a, 4).unwrap();
    world.ingester().flush(None).unwrap();
    let oldest = world.ingester().blocks(&a).pop().unwrap().id;
    let reader = world.ingester().snapshot(&a);
    assert_eq!(world.ingester().remove_blocks(&a, &[oldest, BlockId(1)]).unwrap(), 1);
    world.check();
    assert_eq!(world.blocks.names().len(), 2, "a query still reads it");
    drop(reader);
    assert_eq!(world.blocks.names().len(), 1);
    assert_eq!(world.ingester().remove_blocks(&a, &[oldest]).unwrap(), 0);
    world.crash(0);
    world.check();
}

#[test]
fn a_crash_between_the_catalog_and_the_files_of_a_removal_is_finished_at_the_next_start() {
    let mut world = World::new();
    let a = tenant("a");
    world.append(&a, 4).unwrap();
    world.ingester().flush(None).unwrap();
    let id = world.ingester().blocks(&a)[0].id;
    let reader = world.ingester().snapshot(&a);
    world.ingester().remove_blocks(&a, &[id]).unwrap();
    world.acknowledged.clear();
    assert_eq!(world.blocks.names().len(), 1);
    world.crash(0);
    assert_eq!(world.blocks.names(), []);
    drop(reader);
    world.check();
}

#[test]
fn snapshots_list_the_newest_first() {
    let mut world = World::new();
    let a = tenant("a");
    for _ in 0..3 {
        world.append(&a, 4).unwrap();
        world.ingester().flush(None).unwrap();
    }
    world.append(&a, 4).unwrap();
    let ends: Vec<_> = world.ingester().snapshot(&a).sources.iter().map(|s| s.range().unwrap().end).collect();
    assert_eq!(ends.len(), 4);
    assert!(ends.is_sorted_by(|newer, older| newer > older), "{ends:?}");
}

#[test]
fn a_head_larger_than_a_segment_is_whole_and_cut_whole() {
    let mut world = World::new();
    let a = tenant("a");
    for _ in 0..8 {
        world.append(&a, 20_000).unwrap();
    }
    let sources = world.ingester().snapshot(&a).sources;
    assert_eq!(sources.iter().map(|source| source.span_count()).collect::<Vec<_>>(), [160_000]);
    world.check();
    world.ingester().flush(None).unwrap();
    world.check();
}

#[test]
fn many_senders_and_cuts_at_once_show_every_span_once() {
    let world = World::with(small(48 << 10, usize::MAX));
    let (ingester, a) = (world.ingester(), tenant("a"));
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let senders: Vec<_> = (0..3u64)
            .map(|sender| {
                let a = &a;
                scope.spawn(move || {
                    for round in 0..60u64 {
                        let first = (sender * 60 + round) * 20;
                        let numbers: Vec<u64> = (first..first + 20).collect();
                        wait_for(ingester.append(request(a, &numbers))).unwrap();
                        let found = numbers_in(ingester, a);
                        assert!(numbers.iter().all(|number| found.binary_search(number).is_ok()), "read your writes");
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                ingester.flush(None).unwrap();
                let found = numbers_in(ingester, &a);
                assert!(found.is_sorted_by(|one, next| one < next), "a span is there twice");
            }
        });
        for sender in senders {
            sender.join().unwrap();
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert_eq!(numbers_in(ingester, &a), (0..3 * 60 * 20).collect::<Vec<u64>>());
    assert!(ingester.blocks(&a).len() > 3);
}

#[test]
fn with_an_interval_the_log_is_synced_when_the_interval_is_over() {
    let mut config = Config::new("/nowhere");
    config.wal_sync = crate::config::WalSync::Interval(Duration::from_millis(5));
    let mut world = World::with(config);
    let a = tenant("a");
    world.append(&a, 3).unwrap();
    let on_disk = |world: &World| world.store.after_crash(0).get(Table::Wal, &record::key(&a, Sequence(1))).unwrap();
    assert_eq!(on_disk(&world), None);
    world.clock.advance(Duration::from_millis(5));
    wait_until("the log is synced", || on_disk(&world).is_some());
}

/// One step of a life. Tenants are 0 and 1.
#[derive(Debug, Clone)]
enum Step {
    Append(usize, u64),
    Flush(usize),
    FlushAll,
    Remove(usize),
    Crash,
    Restart,
    FailWrites(u64, u64, Fault),
    FullBlocks(bool),
    Heal,
}

fn step() -> impl Strategy<Value = Step> {
    let fault = prop::sample::select(vec![Fault::Refuse, Fault::LoseAnswer, Fault::LoseWrite]);
    prop_oneof![
        8 => (0usize..2, 1u64..30).prop_map(|(tenant, count)| Step::Append(tenant, count)),
        2 => (0usize..2).prop_map(Step::Flush),
        1 => Just(Step::FlushAll),
        1 => (0usize..2).prop_map(Step::Remove),
        2 => Just(Step::Crash),
        1 => Just(Step::Restart),
        2 => (0u64..3, 1u64..3, fault).prop_map(|(after, count, fault)| Step::FailWrites(after, count, fault)),
        1 => any::<bool>().prop_map(Step::FullBlocks),
        2 => Just(Step::Heal),
    ]
}

impl World {
    fn take(&mut self, step: &Step) {
        let tenants = [tenant("a"), tenant("b")];
        match step {
            // Refused or not, the ledger knows.
            Step::Append(who, count) => drop(self.append(&tenants[*who], *count)),
            Step::Flush(who) => drop(self.ingester().flush(Some(&tenants[*who]))),
            Step::FlushAll => drop(self.ingester().flush(None)),
            Step::Remove(who) => self.remove_oldest(&tenants[*who]),
            Step::Crash => self.crash(0),
            Step::Restart => {
                drop(self.ingester().close());
                self.crash(0);
            }
            Step::FailWrites(after, count, fault) => {
                let from = self.store.writes_seen() + after;
                self.store.fail_writes(from..from + count, *fault);
            }
            Step::FullBlocks(is_full) => self.blocks.set_full(*is_full),
            Step::Heal => {
                self.store.heal();
                self.blocks.set_full(false);
            }
        }
    }

    /// Retention takes the oldest block; the spans that only it held are gone on purpose.
    fn remove_oldest(&mut self, tenant: &TenantId) {
        let Some(meta) = self.ingester().blocks(tenant).pop() else { return };
        let before = numbers_in(self.ingester(), tenant);
        let removed = self.ingester().remove_blocks(tenant, &[meta.id]);
        let after = numbers_in(self.ingester(), tenant);
        let gone = before.into_iter().filter(|number| after.binary_search(number).is_err());
        let gone: std::collections::BTreeSet<u64> = match removed {
            Ok(_) => gone.collect(),
            // It may have happened on disk: then a crash shows it.
            Err(_) => (meta.range.start.0 / 1000..=meta.range.end.0 / 1000).collect(),
        };
        for number in gone {
            if self.acknowledged.entry(tenant.clone()).or_default().remove(&number) {
                self.uncertain.entry(tenant.clone()).or_default().insert(number);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn any_life_keeps_every_acknowledged_span_exactly_once(steps in prop::collection::vec(step(), 1..25)) {
        let mut world = World::with(small(24 << 10, 1 << 20));
        for step in &steps {
            world.take(step);
            world.check();
        }
        world.store.heal();
        world.blocks.set_full(false);
        world.crash(0);
        world.check();
        world.ingester().close().unwrap();
        world.check();
    }
}
