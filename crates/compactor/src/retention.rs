//! Retention: whole blocks go, by the age of their last span and by the size of all.

use std::collections::BTreeMap;
use std::time::Duration;

use spoor_block::BlockMeta;
use spoor_model::{BlockId, Clock, TenantId, UnixNano};

use crate::metrics::Metrics;
use crate::owner::{BlockOwner, Listed};

/// How long spans are kept, and how much of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// After the end of a span; zero keeps them for ever.
    pub retention: Duration,
    /// For tenants that have their own.
    pub by_tenant: BTreeMap<TenantId, Duration>,
    /// All blocks of all tenants together; zero is no bound.
    pub size_bytes_max: u64,
}

impl Policy {
    /// What ended before this is past the tenant's retention; `None` when nothing ever is.
    pub fn horizon(&self, tenant: &TenantId, now: UnixNano) -> Option<UnixNano> {
        let retention = *self.by_tenant.get(tenant).unwrap_or(&self.retention);
        (!retention.is_zero()).then(|| now.minus(retention))
    }

    /// The shortest retention of any tenant; zero when all are kept for ever.
    pub fn shortest(&self) -> Duration {
        let all = self.by_tenant.values().copied().chain([self.retention]);
        all.filter(|retention| !retention.is_zero()).min().unwrap_or_default()
    }
}

/// Whether every span of the block ended before the horizon. A span from the future keeps its block until that future is
/// past retention.
pub fn is_expired(meta: &BlockMeta, horizon: Option<UnixNano>) -> bool {
    horizon.is_some_and(|horizon| meta.range.end < horizon)
}

/// The blocks to remove so that the rest is no larger than `size_bytes_max`, those first whose last span is oldest. Zero
/// is no bound.
pub fn over_size<'a>(blocks: impl IntoIterator<Item = &'a BlockMeta>, size_bytes_max: u64) -> Vec<&'a BlockMeta> {
    let mut oldest_first: Vec<&BlockMeta> = blocks.into_iter().collect();
    oldest_first.sort_by_key(|meta| (meta.range.end, meta.id));
    let mut size_bytes: u64 = oldest_first.iter().map(|meta| meta.size_bytes).sum();
    let mut surplus = Vec::new();
    for meta in oldest_first {
        if size_bytes_max == 0 || size_bytes <= size_bytes_max {
            break;
        }
        size_bytes -= meta.size_bytes;
        surplus.push(meta);
    }
    surplus
}

/// What one pass did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outcome {
    /// Blocks removed.
    pub removed: usize,
    /// Tenants for which removing failed; the next pass tries again.
    pub failed_tenants: usize,
}

/// Removes what is past retention, one pass at a time; the server calls it on a timer, on a thread
/// that may block.
#[derive(Debug, Clone)]
pub struct Retention {
    policy: Policy,
    metrics: Metrics,
}

impl Retention {
    /// Keeps to that policy.
    pub fn new(policy: Policy, metrics: Metrics) -> Self {
        Self { policy, metrics }
    }

    /// One pass over all tenants: first what is too old, then, of what is left, what is too much. A tenant that fails
    /// does not stop the others.
    pub fn run(&self, owner: &dyn BlockOwner, clock: &dyn Clock) -> Outcome {
        let began = clock.now();
        let mut outcome = Outcome::default();
        for tenant in owner.tenants() {
            let horizon = self.policy.horizon(&tenant, began);
            let ids = ids_of(&owner.blocks(&tenant), |meta| is_expired(meta, horizon));
            remove(owner, &tenant, &ids, "blocks past retention are removed", &mut outcome);
        }
        if self.policy.size_bytes_max > 0 {
            let listed: Vec<Listed> = owner.tenants().iter().flat_map(|tenant| owner.blocks(tenant)).collect();
            let surplus = over_size(listed.iter().map(|block| &block.meta), self.policy.size_bytes_max);
            let mut by_tenant: BTreeMap<&TenantId, Vec<BlockId>> = BTreeMap::new();
            surplus.iter().for_each(|meta| by_tenant.entry(&meta.tenant).or_default().push(meta.id));
            for (tenant, ids) in by_tenant {
                remove(owner, tenant, &ids, "blocks past retention_size are removed", &mut outcome);
            }
        }
        self.metrics.blocks_deleted.inc_by(outcome.removed as u64);
        self.metrics.retention_errors.inc_by(outcome.failed_tenants as u64);
        self.metrics.retention_seconds.0.observe(clock.now().since(began).as_secs_f64());
        outcome
    }
}

fn ids_of(blocks: &[Listed], is_due: impl Fn(&BlockMeta) -> bool) -> Vec<BlockId> {
    blocks.iter().filter(|block| is_due(&block.meta)).map(|block| block.meta.id).collect()
}

fn remove(owner: &dyn BlockOwner, tenant: &TenantId, ids: &[BlockId], what: &'static str, outcome: &mut Outcome) {
    if ids.is_empty() {
        return;
    }
    match owner.remove(tenant, ids) {
        Ok(removed) => {
            tracing::info!(%tenant, blocks = removed, "{what}");
            outcome.removed += removed;
        }
        Err(err) => {
            tracing::error!(%tenant, blocks = ids.len(), err, "blocks past retention cannot be removed");
            outcome.failed_tenants += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;
    use proptest::prelude::*;
    use spoor_model::TimeRange;

    use super::*;
    use crate::fake::{FakeOwner, HandClock, with};

    fn block(id: u128, start: u64, end: u64) -> BlockMeta {
        let range = TimeRange { start: UnixNano(start), end: UnixNano(end) };
        let meta = BlockMeta::without_files(BlockId(id), TenantId::single(), UnixNano(0), range);
        with(meta, |meta| meta.size_bytes = 100)
    }

    fn policy(nanos: u64) -> Policy {
        Policy { retention: Duration::from_nanos(nanos), by_tenant: BTreeMap::new(), size_bytes_max: 0 }
    }

    fn expired(blocks: &[BlockMeta], now: u64, policy: &Policy) -> Vec<BlockId> {
        let horizon = policy.horizon(&TenantId::single(), UnixNano(now));
        blocks.iter().filter(|meta| is_expired(meta, horizon)).map(|meta| meta.id).collect()
    }

    #[test]
    fn a_block_goes_one_nanosecond_after_its_last_span_is_past_retention() {
        let blocks = [block(1, 0, 100)];
        assert_eq!(expired(&blocks, 150, &policy(50)), []);
        assert_eq!(expired(&blocks, 151, &policy(50)), [BlockId(1)]);
    }

    #[test]
    fn no_retention_and_a_clock_near_the_epoch_keep_everything() {
        let blocks = [block(1, 0, 0)];
        assert_eq!(expired(&blocks, u64::MAX, &policy(0)), []);
        assert_eq!(expired(&blocks, 5, &policy(1_000_000_000)), []);
        assert_eq!(expired(&blocks, 5, &Policy { retention: Duration::MAX, ..policy(0) }), []);
    }

    fn blocks() -> impl Strategy<Value = Vec<BlockMeta>> {
        let times = prop::collection::vec((0u64..1000, 0u64..1000, 1u64..500), 0..20);
        times.prop_map(|times| {
            let ordered = times.into_iter().enumerate();
            let make = |(id, (a, b, size_bytes)): (usize, (u64, u64, u64))| {
                with(block(id as u128, a.min(b), a.max(b)), |meta| meta.size_bytes = size_bytes)
            };
            ordered.map(make).collect()
        })
    }

    proptest! {
        #[test]
        fn no_block_with_a_span_within_retention_ever_goes(blocks in blocks(), now in 0u64..3000, keep in 1u64..1500) {
            let gone = expired(&blocks, now, &policy(keep));
            for meta in &blocks {
                let age = now.saturating_sub(meta.range.end.0);
                prop_assert_eq!(gone.contains(&meta.id), age > keep, "age {} of {}", age, keep);
            }
        }

        #[test]
        fn time_only_adds_to_what_is_expired(blocks in blocks(), now in 0u64..3000, later in 0u64..3000) {
            let before = expired(&blocks, now, &policy(300));
            let after = expired(&blocks, now + later, &policy(300));
            prop_assert!(before.iter().all(|id| after.contains(id)));
        }

        #[test]
        fn a_longer_retention_only_keeps_more(blocks in blocks(), keep in 1u64..1500, longer in 0u64..1500) {
            let short = expired(&blocks, 2000, &policy(keep));
            let long = expired(&blocks, 2000, &policy(keep + longer));
            prop_assert!(long.iter().all(|id| short.contains(id)));
        }

        #[test]
        fn as_few_of_the_oldest_go_as_make_the_rest_fit(blocks in blocks(), max in 1u64..4000) {
            let gone = over_size(&blocks, max);
            let is_gone = |meta: &BlockMeta| gone.iter().any(|other| other.id == meta.id);
            let kept: Vec<_> = blocks.iter().filter(|meta| !is_gone(meta)).collect();
            let kept_bytes: u64 = kept.iter().map(|meta| meta.size_bytes).sum();
            prop_assert!(kept_bytes <= max);
            if let Some(last) = gone.last() {
                prop_assert!(kept_bytes + last.size_bytes > max, "one less would have done");
                prop_assert!(kept.iter().all(|meta| meta.range.end >= last.range.end));
            }
            prop_assert!(over_size(&blocks, 0).is_empty());
        }
    }

    #[test]
    fn a_tenant_that_fails_does_not_stop_the_others_and_one_may_have_a_retention_of_its_own() {
        let tenant = |name| TenantId::parse(name).unwrap();
        let owner = FakeOwner::default();
        for name in ["longer", "stuck", "well"] {
            for meta in [block(1, 0, 10), block(2, 0, 990)] {
                owner.add(with(meta, |meta| meta.tenant = tenant(name)));
            }
        }
        let mut registry = Registry::default();
        let policy = Policy { by_tenant: [(tenant("longer"), Duration::from_nanos(2000))].into(), ..policy(100) };
        assert_eq!(policy.shortest(), Duration::from_nanos(100));
        let retention = Retention::new(policy, Metrics::register(&mut registry));
        let outcome = retention.run(&owner, &HandClock::at(1000));
        assert_eq!(outcome, Outcome { removed: 1, failed_tenants: 1 });
        assert_eq!(owner.blocks(&tenant("well")).len(), 1);
        assert_eq!(owner.blocks(&tenant("longer")).len(), 2);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        assert!(text.contains("tempodb_retention_deleted_total 1"), "{text}");
        assert!(text.contains("tempodb_retention_errors_total 1"), "{text}");
    }

    #[test]
    fn past_the_size_the_oldest_of_all_tenants_go() {
        let owner = FakeOwner::default();
        for (id, name, end) in [(1, "a", 30), (2, "b", 10), (3, "a", 20), (4, "b", 40)] {
            owner.add(with(block(id, 0, end), |meta| meta.tenant = TenantId::parse(name).unwrap()));
        }
        let policy = Policy { size_bytes_max: 250, ..policy(0) };
        let retention = Retention::new(policy, Metrics::default());
        assert_eq!(retention.run(&owner, &HandClock::at(50)).removed, 2);
        let left: Vec<u128> =
            owner.tenants().iter().flat_map(|tenant| owner.blocks(tenant)).map(|b| b.meta.id.0).collect();
        assert_eq!(left, [1, 4]);
    }
}
