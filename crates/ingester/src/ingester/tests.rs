use std::ops::ControlFlow;
use std::time::Duration;

use proptest::prelude::*;
use spoor_block::Progress;
use spoor_model::{BlockId, UnixNano};

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
        ControlFlow::Continue(())
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
    assert_eq!(world.blocks.names().len(), 1, "others may have seen it");
    assert_eq!(world.ingester().blocks(&a).len(), 1, "and nobody makes another");
}

#[test]
fn a_cut_whose_block_arrives_though_it_fails_makes_no_other() {
    let mut world = World::new();
    let a = tenant("a");
    world.append(&a, 20).unwrap();
    world.blocks.lose_answers(1);
    assert!(world.ingester().flush(None).is_err());
    let made = world.blocks.names();
    assert_eq!(made.len(), 1, "others may have seen it");
    world.check();
    world.ingester().flush(None).unwrap();
    assert_eq!(world.blocks.names(), made);
    world.check();
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

fn merge_of(inputs: impl IntoIterator<Item = BlockId>) -> MergeRequest {
    MergeRequest {
        inputs: inputs.into_iter().collect(),
        block_spans: 40,
        memory_bytes: 1 << 20,
        keep_after: None,
        window: None,
    }
}

/// A tenant with so many blocks of 20 spans, and their ids, newest first.
fn with_blocks(count: usize) -> (World, TenantId, Vec<BlockId>) {
    let (mut world, a) = (World::new(), tenant("a"));
    for _ in 0..count {
        world.append(&a, 20).unwrap();
        world.ingester().flush(None).unwrap();
    }
    let ids = world.ingester().blocks(&a).iter().map(|meta| meta.id).collect();
    (world, a, ids)
}

#[test]
fn a_snapshot_sees_each_span_once_before_during_and_after_a_merge() {
    let (world, a, ids) = with_blocks(3);
    let before = world.ingester().snapshot(&a);
    let mut calls = 0;
    let merged = world.ingester().merge_blocks(&a, &merge_of(ids.clone()), &mut |_| {
        calls += 1;
        world.check();
        ControlFlow::Continue(())
    });
    assert!(calls > 0);
    assert_eq!(merged.unwrap().spans_written, 60);
    world.check();
    assert_eq!(world.ingester().blocks(&a).len(), 2, "40 spans and the rest");
    assert!(world.ingester().blocks(&a).iter().all(|meta| meta.merge_level == 1));
    assert_eq!(world.blocks.names().len(), 5, "a reader keeps the files of what it reads");
    drop(before);
    assert_eq!(world.blocks.names().len(), 2);
}

#[test]
fn a_snapshot_sees_each_span_once_while_blocks_are_merged_over_and_over() {
    let (world, a, _) = with_blocks(6);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..300 {
                let ids = world.ingester().blocks(&a).into_iter().map(|meta| meta.id);
                let request = MergeRequest { block_spans: 30, ..merge_of(ids) };
                world.ingester().merge_blocks(&a, &request, &mut |_| ControlFlow::Continue(())).unwrap();
            }
            is_over.store(true, Ordering::Relaxed);
        });
        while !is_over.load(Ordering::Relaxed) {
            world.check();
        }
    });
    world.check();
}

#[test]
fn a_merge_that_fails_or_stops_at_any_write_loses_and_doubles_nothing() {
    for fault in [Fault::Refuse, Fault::LoseAnswer, Fault::LoseWrite] {
        for write in 0..4 {
            let (mut world, a, ids) = with_blocks(3);
            let from = world.store.writes_seen() + write;
            world.store.fail_writes(from..u64::MAX, fault);
            let mut calls = 0;
            // Two while it merges; the third is asked when the catalog cannot be written.
            let outcome = world.ingester().merge_blocks(&a, &merge_of(ids), &mut |_| {
                calls += 1;
                if calls > 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            assert_eq!(outcome.is_err(), write < 2, "{fault:?} at write {write}");
            world.check();
            world.crash(0);
            world.check();
            let names = world.blocks.names();
            assert_eq!(names.len(), world.ingester().blocks(&a).len(), "{fault:?} at write {write} leaves files");
        }
    }
}

#[test]
fn a_merge_is_published_as_soon_as_the_catalog_can_be_written() {
    let (mut world, a, ids) = with_blocks(2);
    let publication = world.store.writes_seen() + 1;
    world.store.fail_writes(publication..publication + 1, Fault::LoseAnswer);
    world.ingester().merge_blocks(&a, &merge_of(ids), &mut |_| ControlFlow::Continue(())).unwrap();
    world.check();
    assert_eq!(world.ingester().blocks(&a).len(), 1);
    world.crash(0);
    world.check();
}

#[test]
fn a_merge_that_is_broken_off_or_cannot_be_written_or_read_leaves_everything_as_it_was() {
    let (mut world, a, ids) = with_blocks(3);
    let request = merge_of(ids.clone());
    let go_on = &mut |_: Progress| ControlFlow::Continue(());
    let broken_off = world.ingester().merge_blocks(&a, &request, &mut |_| ControlFlow::Break(()));
    assert!(matches!(broken_off, Err(Error::MergeCancelled)), "{broken_off:?}");
    world.blocks.set_full(true);
    let full = world.ingester().merge_blocks(&a, &request, go_on).unwrap_err();
    assert!(full.to_string().contains("no space left"), "{full}");
    world.blocks.set_full(false);
    world.blocks.set_panics(true);
    assert!(world.ingester().merge_blocks(&a, &request, go_on).is_err());
    world.blocks.set_panics(false);
    world.check();
    assert_eq!(world.blocks.names().len(), 3);
    world.blocks.lose(&a, ids[1]);
    let unreadable = world.ingester().merge_blocks(&a, &request, go_on);
    assert!(matches!(&unreadable, Err(Error::Merge { culprit, .. }) if *culprit == Some(ids[1])), "{unreadable:?}");
    assert_eq!(world.ingester().merge_blocks(&a, &merge_of([ids[0], ids[2]]), go_on).unwrap().spans_written, 40);
    let gone = world.ingester().merge_blocks(&a, &request, go_on);
    assert!(matches!(gone, Err(Error::MergeOutdated { .. })), "{gone:?}");
    world.crash(0);
    assert_eq!(world.ingester().health().blocks_skipped, 1);
}

#[test]
fn what_is_being_merged_is_not_removed_and_comes_back_from_nowhere() {
    let (mut world, a, ids) = with_blocks(3);
    let ingester = Arc::clone(world.ingester());
    let merge = |watch: &mut dyn FnMut(Progress) -> ControlFlow<()>| {
        ingester.merge_blocks(&a, &merge_of(ids[..2].to_vec()), watch)
    };
    let mut removed = Vec::new();
    merge(&mut |_| {
        removed.push(ingester.remove_blocks(&a, &ids).unwrap());
        assert!(ingester.merge_blocks(&a, &merge_of([ids[0]]), &mut |_| ControlFlow::Continue(())).is_err());
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(removed, [1, 0], "the third is in no merge");
    let first: Vec<u64> = (0..20).collect();
    world.acknowledged.get_mut(&a).unwrap().retain(|number| !first.contains(number));
    world.check();
    world.crash(0);
    world.check();
}

#[test]
fn a_deleted_trace_is_hidden_at_once_and_gone_after_the_rewrite_and_spans_that_come_later_stay() {
    let (mut world, a, ids) = with_blocks(1);
    // Two of trace 2 are in the block; these two are in the head, the last ones come later.
    world.append(&a, 2).unwrap();
    let trace = trace_of(21);
    assert_eq!(world.delete(&a, trace).unwrap(), 2);
    world.check();
    assert_eq!(world.delete(&a, trace).unwrap(), 0, "it is not there any more");
    world.append(&a, 2).unwrap();
    world.check();
    world.crash(0);
    world.check();
    let go_on = &mut |_: Progress| ControlFlow::Continue(());
    let states = world.ingester().block_states(&a);
    assert_eq!(states.iter().map(|state| state.deleted_traces).collect::<Vec<_>>(), [1, 1]);
    let together = merge_of(states.iter().map(|state| state.meta.id));
    assert!(world.ingester().merge_blocks(&a, &together, go_on).is_err(), "only alone");
    let rewritten = world.ingester().merge_blocks(&a, &merge_of(ids), go_on).unwrap();
    assert_eq!((rewritten.spans_written, rewritten.spans_left_out), (16, 4));
    let newest = world.ingester().blocks(&a)[0].id;
    assert_eq!(world.ingester().merge_blocks(&a, &merge_of([newest]), go_on).unwrap().blocks, [], "nothing is left");
    world.check();
    assert!(world.ingester().block_states(&a).iter().all(|state| state.deleted_traces == 0));
    world.ingester().flush(None).unwrap();
    world.crash(0);
    world.check();
    assert_eq!(world.ingester().blocks(&a).len(), 2);
}

#[test]
fn a_deletion_during_a_merge_makes_the_merge_void() {
    let (mut world, a, ids) = with_blocks(2);
    let ingester = Arc::clone(world.ingester());
    let outcome = ingester.merge_blocks(&a, &merge_of(ids), &mut |progress| {
        if progress.spans_written > 0 {
            assert_eq!(world.delete(&a, trace_of(3)).unwrap(), 1);
        }
        ControlFlow::Continue(())
    });
    assert!(matches!(outcome, Err(Error::MergeOutdated { .. })), "{outcome:?}");
    world.check();
    drop(ingester);
    world.crash(0);
    world.check();
}

#[test]
fn traces_past_their_retention_are_left_out_of_a_merge() {
    let (mut world, a, ids) = with_blocks(2);
    // The traces of spans 0 to 7 and 8 to 15 ended before; that of 16 to 23 did not.
    let request = MergeRequest { keep_after: Some(UnixNano(17_000)), ..merge_of(ids) };
    let merged = world.ingester().merge_blocks(&a, &request, &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!((merged.spans_written, merged.spans_left_out), (24, 16));
    world.acknowledged.get_mut(&a).unwrap().retain(|number| *number >= 16);
    world.check();
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
        assert_eq!(world.refusing(), [Refusing::log]);
        world.check();
        world.store.heal();
        wait_until("ingest begins again", || world.ingester().health().refusing.is_none());
        assert_eq!(world.refusing(), []);
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
    world.ingester().flush(None).unwrap();
    assert!(world.ingester().is_pressed(), "there may be more to come of what was refused");
    world.clock.advance(PRESSED_AFTER_OVERLOAD);
    assert!(!world.ingester().is_pressed());
}

#[test]
fn while_no_block_can_be_written_a_full_head_is_refused_with_the_reason_and_survives_restarts() {
    let mut world = World::with(small(64 << 10, 256 << 10));
    let a = tenant("a");
    world.blocks.set_full(true);
    let mut refused = None;
    wait_until("the head is full and a cut has failed", || match world.append(&a, 100) {
        Err(err @ AppendError::Storage(_)) => {
            refused = Some(err.to_string());
            true
        }
        _ => false,
    });
    let refused = refused.unwrap();
    assert!(refused.contains("no block can be written") && refused.contains("head_memory_limit"), "{refused}");
    assert!(world.ingester().health().refusing.unwrap().contains("no block can be written"));
    assert_eq!(world.refusing(), [Refusing::heads]);
    world.check();
    for _ in 0..2 {
        // The process starts, and what it holds is answered.
        world.crash(0);
        world.check();
        assert!(world.append(&a, 1).is_err());
    }
    world.blocks.set_full(false);
    world.ingester().core.cutter.kick();
    wait_until("memory becomes free", || world.append(&a, 1).is_ok());
    assert_eq!(world.refusing(), []);
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
    /// Deletes the trace of the n-th span that is there.
    Delete(usize, usize),
    /// Merges some blocks; each step is taken at one of the moments at which the merge asks whether to go on, and it is
    /// broken off after so many.
    Merge(usize, usize, Vec<Step>, usize),
    Crash,
    Restart,
    FailWrites(u64, u64, Fault),
    FullBlocks(bool),
    Heal,
}

fn step() -> impl Strategy<Value = Step> {
    let within = prop::collection::vec(simple_step(), 0..3);
    let merge = (0usize..2, 1usize..5, within, 0usize..5);
    prop_oneof![
        4 => simple_step(),
        1 => merge.prop_map(|(who, count, within, breaks)| Step::Merge(who, count, within, breaks)),
    ]
}

fn simple_step() -> impl Strategy<Value = Step> {
    let fault = prop::sample::select(vec![Fault::Refuse, Fault::LoseAnswer, Fault::LoseWrite]);
    prop_oneof![
        8 => (0usize..2, 1u64..30).prop_map(|(tenant, count)| Step::Append(tenant, count)),
        2 => (0usize..2).prop_map(Step::Flush),
        1 => Just(Step::FlushAll),
        1 => (0usize..2).prop_map(Step::Remove),
        1 => (0usize..2, 0usize..100).prop_map(|(tenant, nth)| Step::Delete(tenant, nth)),
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
            Step::Delete(who, nth) => {
                let there = numbers_in(self.ingester(), &tenants[*who]);
                if let Some(number) = there.get(nth % there.len().max(1)) {
                    drop(self.delete(&tenants[*who], trace_of(*number)));
                }
            }
            Step::Merge(who, count, within, breaks) => self.merge(&tenants[*who], *count, within, *breaks),
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

    /// Merges the oldest blocks. A life may go on without the merge: a crash within it leaves it to the old machine.
    fn merge(&mut self, tenant: &TenantId, count: usize, within: &[Step], breaks: usize) {
        let ingester = Arc::clone(self.ingester());
        let blocks = ingester.block_states(tenant).into_iter().rev();
        // A block with a deleted trace is rewritten alone.
        let mut inputs: Vec<_> = blocks.take(count).collect();
        if inputs.iter().any(|state| state.deleted_traces > 0) {
            inputs.truncate(1);
        }
        let request = merge_of(inputs.iter().map(|state| state.meta.id));
        if request.inputs.is_empty() {
            return;
        }
        let mut asked = 0;
        let outcome = ingester.merge_blocks(tenant, &request, &mut |_| {
            asked += 1;
            if let Some(step) = within.get(asked - 1) {
                self.take(step);
                self.check();
            }
            if asked > breaks { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        drop(outcome);
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
