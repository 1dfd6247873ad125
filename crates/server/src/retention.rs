//! Has blocks that are past their retention removed, on a timer.

use std::sync::Arc;
use std::time::Duration;

use spoor_block::BlockMeta;
use spoor_compactor::{BlockOwner, Retention};
use spoor_ingester::Ingester;
use spoor_model::{BlockId, Clock, TenantId};
use tokio::sync::watch;

/// The ingester owns the catalog; `compactor` knows it by this only.
struct Owner(Arc<Ingester>);

impl BlockOwner for Owner {
    fn tenants(&self) -> Vec<TenantId> {
        self.0.tenants()
    }

    fn blocks(&self, tenant: &TenantId) -> Vec<BlockMeta> {
        self.0.blocks(tenant)
    }

    fn remove(&self, tenant: &TenantId, ids: &[BlockId]) -> Result<usize, String> {
        self.0.remove_blocks(tenant, ids).map_err(|err| err.to_string())
    }
}

/// Runs until `stop` turns true: one pass at once, then one per `interval`.
pub(crate) async fn run(
    retention: Retention,
    ingester: Arc<Ingester>,
    clock: Arc<dyn Clock>,
    interval: Duration,
    mut stop: watch::Receiver<bool>,
) {
    let owner = Arc::new(Owner(ingester));
    loop {
        let (pass, owner, clock) = (retention.clone(), Arc::clone(&owner), Arc::clone(&clock));
        let ran = tokio::task::spawn_blocking(move || pass.run(&*owner, &*clock)).await;
        // A panic is logged where it happens; the next pass tries again.
        drop(ran);
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}
