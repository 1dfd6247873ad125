//! The one place where the process asks the system for the time.

use std::time::{SystemTime, UNIX_EPOCH};

use spoor_model::{Clock, UnixNano};

/// The system's clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "everything else takes a `Clock`, and this is the real one")]
    fn now(&self) -> UnixNano {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        UnixNano(u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX))
    }
}
