use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const SECOND: u64 = 1_000_000_000;
const HOUR: u64 = 3600 * SECOND;
const DAY: u64 = 24 * HOUR;

fn limits() -> Limits {
    Limits {
        window: Duration::from_secs(24 * 3600),
        settle: Duration::from_secs(3600),
        inputs_min: 4,
        patience: Duration::from_secs(24 * 3600),
        inputs_max: 32,
        block: Size { spans: 8_000_000, traces: 2_000_000, bytes: 256 << 20 },
    }
}

fn block(id: u128, end: u64, spans: u64) -> Candidate {
    Candidate {
        id: BlockId(id),
        tenant: TenantId::single(),
        created_at: UnixNano(end),
        end: UnixNano(end),
        level: 0,
        size: Size { spans, traces: spans / 8, bytes: spans * 28 },
        has_deletions: false,
    }
}

fn ids(job: &Job) -> Vec<u128> {
    job.inputs.iter().map(|id| id.0).collect()
}

#[test]
fn an_open_window_waits_until_a_large_block_comes_together() {
    let cut = |n: u64| block(u128::from(n), n * HOUR / 10, 1_000_000);
    let few: Vec<_> = (1..=8).map(cut).collect();
    assert_eq!(plan(&few, UnixNano(HOUR), &limits()), []);
    let enough: Vec<_> = (1..=9).map(cut).collect();
    let jobs = plan(&enough, UnixNano(HOUR), &limits());
    assert_eq!(jobs.iter().map(ids).collect::<Vec<_>>(), [[1, 2, 3, 4, 5, 6, 7, 8]]);
    assert_eq!(jobs[0].level, 1);
}

#[test]
fn a_window_that_is_over_is_merged_and_what_comes_late_waits_for_company() {
    let day: Vec<_> = (1..=23).map(|hour| block(u128::from(hour), hour * HOUR, 5_000)).collect();
    let settled = UnixNano(DAY + HOUR);
    assert_eq!(plan(&day, UnixNano(settled.0 - 1), &limits()), []);
    let jobs = plan(&day, settled, &limits());
    assert_eq!((jobs.len(), jobs[0].inputs.len()), (1, 23));
    let late: Vec<_> = (1..=3).map(|n| block(n, 2 * HOUR, 10)).collect();
    assert_eq!(plan(&late, settled, &limits()), []);
    // But not for ever: what came two hours into the day has waited long enough the day after.
    assert_eq!(plan(&late, UnixNano(DAY + 2 * HOUR - 1), &limits()), []);
    let jobs = plan(&late, UnixNano(DAY + 2 * HOUR), &limits());
    assert_eq!(jobs.iter().map(ids).collect::<Vec<_>>(), [[1, 2, 3]]);
    assert_eq!(plan(&late[..1], UnixNano(9 * DAY), &limits()), [], "one has nobody to be merged with");
}

#[test]
fn large_blocks_and_those_of_the_last_level_stay_as_they_are() {
    let mut blocks: Vec<_> = (1..=10).map(|n| block(n, HOUR, 4_000_000)).collect();
    blocks.extend((11..=20).map(|n| Candidate { level: LEVEL_MAX, ..block(n, HOUR, 10) }));
    assert_eq!(plan(&blocks, UnixNano(9 * DAY), &limits()), []);
}

#[test]
fn a_clock_that_ran_ahead_does_not_keep_a_block_from_its_neighbours() {
    let mut blocks: Vec<_> = (1..=4).map(|n| block(n, HOUR, 10)).collect();
    blocks[2].end = UnixNano(u64::MAX);
    assert_eq!(plan(&blocks, UnixNano(3 * DAY), &limits()).len(), 1);
}

#[test]
fn deleted_traces_are_rewritten_first_and_alone() {
    let mut blocks: Vec<_> = (1..=8).map(|n| block(n, HOUR, 10)).collect();
    blocks[5] = Candidate { has_deletions: true, level: LEVEL_MAX, ..blocks[5].clone() };
    let jobs = plan(&blocks, UnixNano(3 * DAY), &limits());
    assert_eq!((ids(&jobs[0]), jobs[0].level, jobs[0].is_rewrite()), (vec![6], LEVEL_MAX + 1, true));
    assert_eq!((ids(&jobs[1]), jobs[1].is_rewrite()), (vec![1, 2, 3, 4, 5, 7, 8], false));
}

#[test]
fn the_most_fragmented_go_first() {
    let mut blocks: Vec<_> = (1..=4).map(|n| block(n, HOUR, 1_000_000)).collect();
    blocks.extend((5..=20).map(|n| block(n, DAY + HOUR, 1_000)));
    let jobs = plan(&blocks, UnixNano(5 * DAY), &limits());
    assert_eq!(jobs.iter().map(|job| job.inputs.len()).collect::<Vec<_>>(), [16, 4]);
}

/// Blocks of two tenants over a few days, levels and sizes of all kinds.
fn blocks() -> impl Strategy<Value = Vec<Candidate>> {
    let one = (0..2u8, 0..3 * DAY, 0..2 * DAY, 0..3u32, 1..9_000_000u64, prop::bool::weighted(0.05));
    prop::collection::vec(one, 0..150).prop_map(|all| {
        let numbered = all.into_iter().enumerate();
        let make =
            |(id, (tenant, end, delay, level, spans, has_deletions)): (usize, (u8, u64, u64, u32, u64, bool))| {
                let tenant = TenantId::parse(["a", "b"][usize::from(tenant)]).unwrap();
                // Mostly small.
                let spans = if id % 4 == 0 { spans } else { spans % 100_000 + 1 };
                let created_at = UnixNano(end.saturating_add(delay).saturating_sub(DAY));
                Candidate { tenant, level, created_at, has_deletions, ..block(id as u128, end, spans) }
            };
        numbered.map(make).collect()
    })
}

/// Does a job as a merge would.
fn perform(job: &Job, blocks: &mut Vec<Candidate>, id: u128, now: UnixNano) {
    let (merged, kept): (Vec<_>, Vec<_>) =
        std::mem::take(blocks).into_iter().partition(|block| job.inputs.contains(&block.id));
    assert_eq!(merged.len(), job.inputs.len(), "a job names blocks that are there, each once");
    *blocks = kept;
    blocks.push(Candidate {
        id: BlockId(id),
        tenant: job.tenant.clone(),
        created_at: now,
        end: merged.iter().map(|block| block.end).max().unwrap(),
        level: job.level,
        size: merged.iter().fold(Size::default(), |sum, block| sum.with(block.size)),
        has_deletions: false,
    });
}

proptest! {
    #[test]
    fn jobs_keep_to_the_limits_and_share_no_block(blocks in blocks(), now in 0..6 * DAY) {
        let (now, limits) = (UnixNano(now), limits());
        let jobs = plan(&blocks, now, &limits);
        let by_id: BTreeMap<BlockId, &Candidate> = blocks.iter().map(|block| (block.id, block)).collect();
        let mut seen = BTreeSet::new();
        for job in &jobs {
            let inputs: Vec<_> = job.inputs.iter().map(|id| by_id[id]).collect();
            prop_assert!(inputs.iter().all(|block| block.tenant == job.tenant));
            prop_assert!(job.inputs.iter().all(|id| seen.insert(*id)), "a block is in two jobs");
            if job.is_rewrite() {
                prop_assert!(inputs[0].has_deletions);
                continue;
            }
            let youngest = inputs.iter().map(|block| block.created_at).max().unwrap();
            let inputs_min = if now.since(youngest) < limits.patience { limits.inputs_min } else { 2 };
            prop_assert!((inputs_min..=limits.inputs_max).contains(&inputs.len()));
            prop_assert!(inputs.iter().all(|block| block.level + 1 == job.level && !block.has_deletions));
            prop_assert!(job.level <= LEVEL_MAX);
            let sum = inputs.iter().fold(Size::default(), |sum, block| sum.with(block.size));
            prop_assert!(sum == job.size && sum.fits(&limits.block));
            let windows: BTreeSet<u64> = inputs.iter().map(|block| block.time().0 / DAY).collect();
            prop_assert_eq!(windows.len(), 1);
        }
        let all_rewritten = blocks.iter().filter(|block| block.has_deletions).all(|block| seen.contains(&block.id));
        prop_assert!(all_rewritten);
    }

    #[test]
    fn the_order_of_the_blocks_does_not_matter(blocks in blocks().prop_shuffle(), now in 0..6 * DAY) {
        let mut sorted = blocks.clone();
        sorted.sort_by_key(|block| block.id);
        prop_assert_eq!(plan(&blocks, UnixNano(now), &limits()), plan(&sorted, UnixNano(now), &limits()));
    }

    #[test]
    fn planning_and_merging_comes_to_an_end(mut blocks in blocks(), now in 0..6 * DAY) {
        let now = UnixNano(now);
        let spans = |blocks: &[Candidate]| blocks.iter().map(|block| block.size.spans).sum::<u64>();
        let (spans_before, mut steps) = (spans(&blocks), 0);
        while let Some(job) = plan(&blocks, now, &limits()).first() {
            perform(job, &mut blocks, 1_000_000 + steps, now);
            steps += 1;
            prop_assert!(steps < 500, "no end");
        }
        prop_assert_eq!(spans(&blocks), spans_before);
        prop_assert!(plan(&blocks, now, &limits()).is_empty());
    }

    /// Days of cuts at any pace, with late ones among them.
    #[test]
    fn a_span_is_rewritten_at_most_twice_and_blocks_stay_few(
        cut_minutes in 1..60u64, cut_spans in 1_000..600_000u64, late in 0..10u64,
    ) {
        let (limits, days) = (limits(), 4);
        let (mut blocks, mut cut, mut written, mut id) = (Vec::new(), 0, 0, 0);
        let mut now = 10 * DAY;
        while now < (10 + days) * DAY {
            now += cut_minutes * 60 * SECOND;
            id += 1;
            let is_late = late > 0 && id % (20 / late as u128 + 1) == 0;
            let end = if is_late { now - 26 * HOUR } else { now - SECOND };
            blocks.push(Candidate { created_at: UnixNano(now), ..block(id, end, cut_spans) });
            cut += cut_spans;
            while let Some(job) = plan(&blocks, UnixNano(now), &limits).first() {
                written += job.size.spans;
                id += 1;
                perform(job, &mut blocks, id, UnixNano(now));
            }
        }
        prop_assert!(written <= LEVEL_MAX as u64 * cut, "{} written, {} cut", written, cut);
        let large = cut / (limits.block.spans / 2) + 1;
        // Of each window and level a few wait for company, and of the open one as many as a merge takes.
        let waiting = (days + 3) * 3 * limits.inputs_min as u64 + 2 * limits.inputs_max as u64;
        prop_assert!(blocks.len() as u64 <= large + waiting, "{} blocks of {} spans", blocks.len(), cut);
        if late == 0 && cut_spans * 31 >= limits.block.spans {
            prop_assert!(written <= cut, "cuts that fill a block are merged once: {} of {}", written, cut);
        }
    }
}
