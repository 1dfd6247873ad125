//! Retention: whole blocks whose last span ended too long ago.

use std::time::Duration;

use spoor_block::BlockMeta;
use spoor_model::{BlockId, Clock, TenantId, UnixNano};

use crate::metrics::Metrics;

/// The blocks whose every span ended more than `retention` before `now`, in the order given.
///
/// A span from the future keeps its block until that future is past retention; a retention of zero
/// means "for ever".
pub fn expired(blocks: &[BlockMeta], now: UnixNano, retention: Duration) -> Vec<BlockId> {
    if retention.is_zero() {
        return Vec::new();
    }
    let horizon = now.minus(retention);
    blocks.iter().filter(|meta| meta.range.end < horizon).map(|meta| meta.id).collect()
}

/// Who owns blocks: the ingester, and a fake in tests.
pub trait BlockOwner: Send + Sync {
    /// The tenants that there are.
    fn tenants(&self) -> Vec<TenantId>;

    /// The tenant's blocks.
    fn blocks(&self, tenant: &TenantId) -> Vec<BlockMeta>;

    /// Removes blocks, from the catalog first. Returns how many went.
    fn remove(&self, tenant: &TenantId, ids: &[BlockId]) -> Result<usize, String>;
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
    retention: Duration,
    metrics: Metrics,
}

impl Retention {
    /// Keeps blocks for `retention` after their last span; zero keeps them for ever.
    pub fn new(retention: Duration, metrics: Metrics) -> Self {
        Self { retention, metrics }
    }

    /// One pass over all tenants. A tenant that fails does not stop the others.
    pub fn run(&self, owner: &dyn BlockOwner, clock: &dyn Clock) -> Outcome {
        let began = clock.now();
        let mut outcome = Outcome::default();
        for tenant in owner.tenants() {
            let ids = expired(&owner.blocks(&tenant), began, self.retention);
            if ids.is_empty() {
                continue;
            }
            match owner.remove(&tenant, &ids) {
                Ok(removed) => {
                    tracing::info!(%tenant, blocks = removed, "blocks past retention are removed");
                    outcome.removed += removed;
                }
                Err(err) => {
                    tracing::error!(%tenant, blocks = ids.len(), err, "blocks past retention cannot be removed");
                    outcome.failed_tenants += 1;
                }
            }
        }
        self.metrics.blocks_deleted.inc_by(outcome.removed as u64);
        self.metrics.retention_errors.inc_by(outcome.failed_tenants as u64);
        self.metrics.retention_seconds.observe(clock.now().since(began).as_secs_f64());
        outcome
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use parking_lot::Mutex;
    use prometheus_client::registry::Registry;
    use proptest::prelude::*;
    use spoor_model::TimeRange;

    use super::*;

    fn block(id: u128, start: u64, end: u64) -> BlockMeta {
        let range = TimeRange { start: UnixNano(start), end: UnixNano(end) };
        BlockMeta::without_files(BlockId(id), TenantId::single(), UnixNano(0), range)
    }

    #[test]
    fn a_block_goes_one_nanosecond_after_its_last_span_is_past_retention() {
        let blocks = [block(1, 0, 100)];
        let retention = Duration::from_nanos(50);
        assert_eq!(expired(&blocks, UnixNano(150), retention), []);
        assert_eq!(expired(&blocks, UnixNano(151), retention), [BlockId(1)]);
    }

    #[test]
    fn no_retention_and_a_clock_near_the_epoch_keep_everything() {
        let blocks = [block(1, 0, 0)];
        assert_eq!(expired(&blocks, UnixNano(u64::MAX), Duration::ZERO), []);
        assert_eq!(expired(&blocks, UnixNano(5), Duration::from_secs(1)), []);
        assert_eq!(expired(&blocks, UnixNano(5), Duration::MAX), []);
    }

    fn blocks() -> impl Strategy<Value = Vec<BlockMeta>> {
        let times = prop::collection::vec((0u64..1000, 0u64..1000), 0..20);
        times.prop_map(|times| {
            let ordered = times.into_iter().enumerate();
            ordered.map(|(id, (a, b))| block(id as u128, a.min(b), a.max(b))).collect()
        })
    }

    proptest! {
        #[test]
        fn no_block_with_a_span_within_retention_ever_goes(blocks in blocks(), now in 0u64..3000, keep in 1u64..1500) {
            let gone = expired(&blocks, UnixNano(now), Duration::from_nanos(keep));
            for meta in &blocks {
                let age = now.saturating_sub(meta.range.end.0);
                prop_assert_eq!(gone.contains(&meta.id), age > keep, "age {} of {}", age, keep);
            }
        }

        #[test]
        fn time_only_adds_to_what_is_expired(blocks in blocks(), now in 0u64..3000, later in 0u64..3000) {
            let keep = Duration::from_nanos(300);
            let before = expired(&blocks, UnixNano(now), keep);
            let after = expired(&blocks, UnixNano(now + later), keep);
            prop_assert!(before.iter().all(|id| after.contains(id)));
        }

        #[test]
        fn a_longer_retention_only_keeps_more(blocks in blocks(), keep in 1u64..1500, longer in 0u64..1500) {
            let now = UnixNano(2000);
            let short = expired(&blocks, now, Duration::from_nanos(keep));
            let long = expired(&blocks, now, Duration::from_nanos(keep + longer));
            prop_assert!(long.iter().all(|id| short.contains(id)));
        }
    }

    struct FixedClock(UnixNano);

    impl Clock for FixedClock {
        fn now(&self) -> UnixNano {
            self.0
        }
    }

    /// Two tenants; one refuses to let go.
    struct FakeOwner(Mutex<BTreeMap<TenantId, Vec<BlockMeta>>>);

    impl BlockOwner for FakeOwner {
        fn tenants(&self) -> Vec<TenantId> {
            self.0.lock().keys().cloned().collect()
        }

        fn blocks(&self, tenant: &TenantId) -> Vec<BlockMeta> {
            self.0.lock()[tenant].clone()
        }

        fn remove(&self, tenant: &TenantId, ids: &[BlockId]) -> Result<usize, String> {
            if tenant.as_str() == "stuck" {
                return Err("no space left on device".to_owned());
            }
            let mut all = self.0.lock();
            let blocks = all.get_mut(tenant).unwrap();
            let before = blocks.len();
            blocks.retain(|meta| !ids.contains(&meta.id));
            Ok(before - blocks.len())
        }
    }

    #[test]
    fn a_tenant_that_fails_does_not_stop_the_others() {
        let tenant = |name| TenantId::parse(name).unwrap();
        let two = || vec![block(1, 0, 10), block(2, 0, 990)];
        let owner = FakeOwner(Mutex::new([(tenant("stuck"), two()), (tenant("well"), two())].into()));
        let mut registry = Registry::default();
        let retention = Retention::new(Duration::from_nanos(100), Metrics::register(&mut registry));
        let outcome = retention.run(&owner, &FixedClock(UnixNano(1000)));
        assert_eq!(outcome, Outcome { removed: 1, failed_tenants: 1 });
        assert_eq!(owner.blocks(&tenant("well")).len(), 1);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        assert!(text.contains("tempodb_retention_deleted_total 1"), "{text}");
        assert!(text.contains("tempodb_retention_errors_total 1"), "{text}");
    }
}
