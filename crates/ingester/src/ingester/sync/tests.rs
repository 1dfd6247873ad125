use std::ops::ControlFlow;

use spoor_model::TimeRange;
use spoor_model::scan::Snapshots;

use super::super::MergeRequest;
use super::super::harness::*;
use super::*;

/// A process that has so many blocks of 20 spans of tenant `a`, and another one on the same blocks, with a catalog
/// of its own.
fn two_processes(block_count: usize) -> (World, World, TenantId) {
    let (mut one, a) = (World::new(), tenant("a"));
    for _ in 0..block_count {
        one.append(&a, 20).unwrap();
        one.ingester().flush(None).unwrap();
    }
    let mut two = World::new();
    two.numbers(1000);
    two.blocks = Arc::clone(&one.blocks);
    two.open().unwrap();
    two.acknowledged.clone_from(&one.acknowledged);
    (one, two, a)
}

fn ids(metas: &[BlockMeta]) -> Vec<BlockId> {
    metas.iter().map(|meta| meta.id).collect()
}

/// Merges everything of `one`; returns the new blocks as they would be listed.
fn merged(one: &World, a: &TenantId) -> Vec<BlockMeta> {
    let inputs = ids(&one.ingester().blocks(a));
    let request = MergeRequest {
        inputs: inputs.clone(),
        block_spans: 1000,
        memory_bytes: 1 << 20,
        keep_after: None,
        window: None,
    };
    one.ingester().merge_blocks(a, &request, &mut |_| ControlFlow::Continue(())).unwrap();
    let mut new = one.ingester().blocks(a);
    new.iter_mut().for_each(|meta| meta.replaces.clone_from(&inputs));
    new
}

#[test]
fn blocks_of_another_process_are_seen_once_also_after_a_crash() {
    let (one, mut two, a) = two_processes(3);
    let cut = one.ingester().blocks(&a);
    assert!(two.ingester().sync_blocks(&a, &cut, &[], &BTreeSet::new()).unwrap());
    two.check();
    assert!(two.ingester().sync_blocks(&a, &cut, &[], &BTreeSet::new()).unwrap(), "known ones are not added again");
    two.append(&a, 7).unwrap();
    two.check();
    two.crash(0);
    two.check();
    two.ingester().flush(None).unwrap();
    two.check();
}

#[test]
fn a_merge_of_another_process_is_taken_over_in_one_step_and_files_are_left_alone() {
    let (one, two, a) = two_processes(3);
    let cut = one.ingester().blocks(&a);
    assert!(two.ingester().sync_blocks(&a, &cut, &[], &BTreeSet::new()).unwrap());
    let before = two.ingester().snapshot(&a);
    let new = merged(&one, &a);
    let files = two.blocks.names();
    assert!(two.ingester().sync_blocks(&a, &new, &ids(&cut), &BTreeSet::new()).unwrap());
    two.check();
    assert_eq!(two.ingester().blocks(&a).len(), new.len());
    drop(before);
    assert!(two.ingester().sync_blocks(&a, &[], &ids(&new), &BTreeSet::new()).unwrap());
    assert!(two.ingester().blocks(&a).is_empty());
    assert_eq!(two.blocks.names(), files, "whoever took the blocks out removes their files");
}

/// Deletes a trace; returns what others are told.
fn deleted(world: &mut World, a: &TenantId, trace: TraceId) -> Deletions {
    let mut told = BTreeSet::new();
    let outcome = world.delete_and(a, trace, &mut |deletions| {
        told.clone_from(deletions);
        Ok(())
    });
    assert!(outcome.unwrap() > 0);
    told
}

#[test]
fn a_deletion_that_cannot_be_told_is_none() {
    let (mut one, _, a) = two_processes(2);
    let outcome = one.delete_and(&a, trace_of(3), &mut |_| Err("the store is away".to_owned()));
    assert!(outcome.unwrap_err().to_string().contains("the store is away"));
    assert!(one.ingester().deletions(&a).is_empty());
}

#[test]
fn a_deletion_covers_what_was_there_and_nothing_that_came_later() {
    let (mut one, two, a) = two_processes(1);
    let cut = one.ingester().blocks(&a);
    assert!(two.ingester().sync_blocks(&a, &cut, &[], &BTreeSet::new()).unwrap());
    let told = deleted(&mut one, &a, trace_of(3));
    two.ingester().hide_deleted(&a, &told).unwrap();
    // Rewritten without it, and merged with what came later, of the same trace too.
    let rewritten = merged(&one, &a);
    let later: Vec<u64> = vec![2, 5, 100, 101];
    one.append_numbers(&a, &later).unwrap();
    one.ingester().flush(None).unwrap();
    let mut all = merged(&one, &a);
    all.iter_mut().for_each(|meta| meta.replaces.extend(ids(&cut)));
    let mut three = World::new();
    three.numbers(2000);
    three.blocks = Arc::clone(&one.blocks);
    three.open().unwrap();
    assert!(three.ingester().sync_blocks(&a, &all, &[], &told).unwrap());
    three.ingester().hide_deleted(&a, &told).unwrap();
    assert!(two.ingester().sync_blocks(&a, &rewritten, &ids(&cut), &told).unwrap());
    assert!(two.ingester().sync_blocks(&a, &all, &ids(&rewritten), &told).unwrap());
    for mut world in [one, two, three] {
        let numbers = numbers_in(world.ingester(), &a);
        assert_eq!(
            numbers,
            (8..20).chain(later.iter().copied()).collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>()
        );
        world.acknowledged.clear();
        world.deleted.clear();
        world.crash(0);
        assert_eq!(numbers_in(world.ingester(), &a).len(), numbers.len());
    }
}

#[test]
fn whoever_is_asked_names_also_what_its_blocks_replaced() {
    let (mut one, two, a) = two_processes(2);
    let cut = one.ingester().blocks(&a);
    assert!(two.ingester().sync_blocks(&a, &cut, &[], &BTreeSet::new()).unwrap());
    let listed = merged(&one, &a);
    // As if it had learned of them from their metas.
    assert!(one.ingester().sync_blocks(&a, &[], &ids(&listed), &BTreeSet::new()).unwrap());
    assert!(one.ingester().sync_blocks(&a, &listed, &[], &BTreeSet::new()).unwrap());
    let told = deleted(&mut one, &a, trace_of(3));
    let named: BTreeSet<BlockId> = told.iter().map(|(block, _)| *block).collect();
    assert!(named.is_superset(&ids(&cut).into_iter().collect()), "{named:?}");
    two.ingester().hide_deleted(&a, &told).unwrap();
    assert!(!numbers_in(two.ingester(), &a).into_iter().any(|number| trace_of(number) == trace_of(3)));
}

#[test]
fn a_merge_whose_input_loses_a_trace_may_not_replace_it() {
    let (one, _, a) = two_processes(2);
    let cut = one.ingester().blocks(&a);
    let told = BTreeSet::from([(cut[0].id, trace_of(25))]);
    assert!(one.ingester().may_replace(&a, &ids(&cut)));
    let request =
        MergeRequest { inputs: ids(&cut), block_spans: 1000, memory_bytes: 1 << 20, keep_after: None, window: None };
    let outcome = one.ingester().merge_blocks(&a, &request, &mut |_| {
        one.ingester().hide_deleted(&a, &told).unwrap();
        assert!(!one.ingester().may_replace(&a, &ids(&cut)));
        ControlFlow::Continue(())
    });
    assert!(outcome.is_err());
    assert_eq!(ids(&one.ingester().blocks(&a)), ids(&cut));
}

#[test]
fn a_block_that_is_being_written_here_is_not_taken_for_that_of_another() {
    let (mut one, a) = (World::new(), tenant("a"));
    one.append(&a, 20).unwrap();
    one.blocks.shut_gate();
    std::thread::scope(|scope| {
        let flush = scope.spawn(|| one.ingester().flush(None));
        one.blocks.wait_for_writer();
        let (_, id) = one.blocks.names().remove(0);
        let listed = BlockMeta::without_files(id, a.clone(), spoor_model::UnixNano(1), TimeRange::ALL);
        assert!(!one.ingester().sync_blocks(&a, &[listed], &[], &BTreeSet::new()).unwrap());
        one.check();
        one.blocks.open_gate();
        flush.join().unwrap().unwrap();
    });
    one.check();
}

#[test]
fn a_block_that_could_not_be_opened_is_seen_when_it_can() {
    let (one, two, a) = two_processes(1);
    let cut = one.ingester().blocks(&a);
    two.blocks.lose(&a, cut[0].id);
    assert!(two.ingester().sync_blocks(&a, &cut, &[], &BTreeSet::new()).unwrap());
    assert_eq!(two.ingester().snapshot(&a).skipped.len(), 1);
    two.ingester().reopen_blocks();
    assert_eq!(two.ingester().snapshot(&a).skipped.len(), 1);
    two.blocks.add_stray(&a, cut[0].id);
    two.ingester().reopen_blocks();
    assert!(two.ingester().snapshot(&a).skipped.is_empty());
}

/// A process that has heard of the deletions of `one`: hides them, keeps to it when it hears again, and after a crash.
fn check_hidden(mut heard: World, one: &World, a: &TenantId, deletions: &Deletions) {
    heard.acknowledged.clone_from(&one.acknowledged);
    heard.deleted.clone_from(&one.deleted);
    heard.check();
    let own = heard.ingester().deletions(a);
    assert!(!own.is_empty());
    heard.ingester().hide_deleted(a, deletions).unwrap();
    assert_eq!(heard.ingester().deletions(a), own);
    heard.crash(0);
    heard.check();
}

#[test]
fn what_another_process_deleted_is_hidden_in_blocks_known_before_and_after() {
    for is_known_before in [true, false] {
        let (mut one, two, a) = two_processes(2);
        let cut = one.ingester().blocks(&a);
        assert!(one.delete(&a, trace_of(3)).unwrap() > 0);
        let deletions = one.ingester().deletions(&a);
        assert!(!deletions.is_empty());
        if is_known_before {
            assert!(two.ingester().sync_blocks(&a, &cut, &[], &BTreeSet::new()).unwrap());
            two.ingester().hide_deleted(&a, &deletions).unwrap();
        } else {
            assert!(two.ingester().sync_blocks(&a, &cut, &[], &deletions).unwrap());
        }
        check_hidden(two, &one, &a, &deletions);
    }
}
