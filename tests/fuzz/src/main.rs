//! A seeded smoke run of every fuzz target, in stable Rust: `make fuzz-smoke`.
//!
//! A target is a plain function of bytes that panics when an invariant breaks, so the same functions
//! serve under libFuzzer or AFL. Here each is fed its seeds and mutations of them, a fixed number of
//! times, the same ones every time.
//!
//! ```text
//!   cargo run --release --manifest-path tests/fuzz/Cargo.toml               # all, the default number of runs
//!   SPOOR_FUZZ_FACTOR=100 cargo run ...                                     # a hundred times as many
//!   cargo run ... -- traceql 4711                                           # replay one run of one target
//! ```

mod mutate;
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use spoor_testkit::rng::Rng;
use spoor_testkit::wait;

use self::targets::Target;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let only = arguments.first().map(String::as_str);
    let replay = arguments.get(1).map(|text| text.parse().expect("the number of a run"));
    let factor = std::env::var("SPOOR_FUZZ_FACTOR").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let mut failed = false;
    for target in targets::all() {
        if only.is_some_and(|name| name != target.name) {
            continue;
        }
        let clock = wait::stopwatch();
        let runs = match replay {
            Some(run) => run..run + 1,
            None => 0..target.runs * factor,
        };
        let found = smoke(&target, runs.clone());
        println!("{}: runs {runs:?}, {} failed, {:.1?}", target.name, found, clock.elapsed());
        failed |= found > 0;
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Runs a target; returns how often it failed, printing how to replay each.
fn smoke(target: &Target, runs: std::ops::Range<u64>) -> u64 {
    let mut failures = 0;
    for run in runs {
        let input = input(target, run);
        if catch_unwind(AssertUnwindSafe(|| (target.check)(&input))).is_err() {
            failures += 1;
            println!("{} failed on {} bytes; replay with: {} {run}", target.name, input.len(), target.name);
        }
        if failures == 5 {
            println!("{}: enough", target.name);
            break;
        }
    }
    failures
}

/// The input of a run: first the seeds as they are, then mutations.
fn input(target: &Target, run: u64) -> Vec<u8> {
    if let Some(seed) = target.seeds.get(run as usize) {
        return seed.clone();
    }
    let mut rng = Rng::seeded(run);
    let mut input = target.seeds[rng.index(target.seeds.len())].clone();
    mutate::mutate(&mut rng, &mut input, &target.seeds);
    input
}
