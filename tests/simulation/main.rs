//! Years of a store's life in seconds: a seeded clock, thousands of steps of ingest, cut, merge, retention, deletion, crash and
//! restart, on real blocks and a catalog that fails on demand; and after each of them the answers are compared.
//!
//! Two things are checked, in this order:
//!
//! - **What is there.** Everything acknowledged and within retention, whole, each span once; nothing that was deleted;
//!   nothing that was never sent. What is past retention may be there or not.
//! - **What is said of it.** Random searches and metrics say what the naive oracle says of the same spans.
//!
//! Then the same for two or three processes on one bucket ([`fleet`]), each with a log, a catalog, faults and a clock of its own, which
//! is a little wrong. Any of them is paused or killed before any of its requests to bucket and log, and others go on meanwhile. After
//! each step, whatever the faults:
//!
//! - **Nobody loses.** Each shows all that was acknowledged at itself, and all that it has shown before, unless it says that its answer
//!   is partial, which it may only while it has faults.
//! - **Nobody invents.** Each span is shown once, and none that was never sent or whose deletion it has heard of.
//!
//! When all faults end, all come to know the same blocks and say what the oracle says. Not simulated: flipped bits in leases.
//!
//! A seed decides everything but the timing of threads. `SPOOR_SIMULATION_SEED=7 cargo test --release --test simulation`
//! replays one; `SPOOR_SIMULATION_SEEDS=200` runs more than the default.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod fleet;
mod queries;
mod traffic;
mod world;

use spoor_testkit::rng::Rng;

use fleet::Fleet;
use world::World;

const SEED_COUNT: u64 = 12;
const STEPS: u64 = 250;
/// Its steps are dearer: each looks at everything.
const FLEET_SEED_COUNT: u64 = 6;
const FLEET_STEPS: u64 = 150;

fn seeds(count: u64) -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    match number("SPOOR_SIMULATION_SEED") {
        Some(seed) => vec![seed],
        None => (1..=number("SPOOR_SIMULATION_SEEDS").unwrap_or(count)).collect(),
    }
}

fn with_seeds(count: u64, test: &str, live: fn(u64)) {
    let seeds = seeds(count).into_iter();
    let failed: Vec<_> = seeds.filter(|seed| std::panic::catch_unwind(|| live(*seed)).is_err()).collect();
    let replay: Vec<_> = failed
        .iter()
        .map(|seed| format!("SPOOR_SIMULATION_SEED={seed} cargo test --release --test simulation {test}"))
        .collect();
    assert!(failed.is_empty(), "replay with:\n  {}", replay.join("\n  "));
}

#[test]
fn answers_are_those_of_the_oracle_through_a_store_s_whole_life() {
    with_seeds(SEED_COUNT, "whole_life", live);
}

#[test]
fn several_processes_on_one_bucket_show_every_span_once_and_agree() {
    with_seeds(FLEET_SEED_COUNT, "several_processes", live_together);
}

fn live_together(seed: u64) {
    let mut rng = Rng::seeded(seed);
    let mut fleet = Fleet::new(seed);
    for step in 1..=FLEET_STEPS {
        fleet.live(&mut rng);
        if step % 30 == 0 {
            fleet.agree(&mut rng);
        }
    }
    fleet.tidy(&mut rng);
    assert!(fleet.pauses > 0, "seed {seed}: nobody was in the middle of something");
}

fn live(seed: u64) {
    let mut rng = Rng::seeded(seed);
    let mut world = World::new(seed);
    let mut done = [0u64; 9];
    for step in 0..STEPS {
        let action = *rng.pick(&[0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 4, 5, 6, 7, 7, 8]);
        done[action] += 1;
        match action {
            0 => world.ingest(&mut rng),
            1 => world.pass_time(&mut rng),
            2 => world.cut(),
            3 => world.merge_as_planned(),
            4 => world.merge_at_random(&mut rng),
            5 => world.expire(),
            6 => world.delete(&mut rng),
            7 => world.crash(&mut rng),
            _ => world.ingest_on_a_full_disk(&mut rng),
        }
        world.check_some(&mut rng, step);
        if step % 10 == 9 {
            world.check_all(&mut rng, step);
        }
    }
    world.check_all(&mut rng, STEPS);
    assert!(world.merges > 0 && done.iter().all(|count| *count > 0), "seed {seed}: {done:?}, {} merges", world.merges);
}
