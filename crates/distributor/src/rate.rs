//! How many bytes per second each tenant may send: a token bucket per tenant.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use spoor_model::{TenantId, UnixNano};

use crate::PushError;

/// Tenants with a bucket that is not full. One bucket is about 100 bytes; a tenant whose bucket is
/// full needs none, so only a flood of made-up tenants reaches this.
const BUCKETS_MAX: usize = 100_000;

/// The buckets of all tenants.
#[derive(Debug)]
pub(crate) struct RateLimiter {
    /// 0 means no limit.
    bytes_per_second: u64,
    burst_bytes: u64,
    buckets: Mutex<HashMap<TenantId, Bucket>>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    bytes: f64,
    filled_at: UnixNano,
}

impl RateLimiter {
    /// A limit of 0 bytes per second is none.
    pub(crate) fn new(bytes_per_second: u64, burst_bytes: u64) -> Self {
        Self { bytes_per_second, burst_bytes, buckets: Mutex::default() }
    }

    /// Whether `bytes` could be taken now.
    pub(crate) fn peek(&self, tenant: &TenantId, now: UnixNano, bytes: u64) -> Result<(), PushError> {
        if self.bytes_per_second == 0 {
            return Ok(());
        }
        let bucket = self.buckets.lock().get(tenant).copied();
        self.after_taking(bucket, now, bytes).map(|_| ())
    }

    /// Takes `bytes`, or nothing.
    pub(crate) fn take(&self, tenant: &TenantId, now: UnixNano, bytes: u64) -> Result<(), PushError> {
        if self.bytes_per_second == 0 {
            return Ok(());
        }
        let mut buckets = self.buckets.lock();
        let after = self.after_taking(buckets.get(tenant).copied(), now, bytes)?;
        if buckets.len() >= BUCKETS_MAX && !buckets.contains_key(tenant) {
            buckets.retain(|_, bucket| self.level(*bucket, now) < self.burst_bytes as f64);
            if buckets.len() >= BUCKETS_MAX {
                return Err(self.too_fast(1.0));
            }
        }
        buckets.insert(tenant.clone(), after);
        Ok(())
    }

    fn after_taking(&self, bucket: Option<Bucket>, now: UnixNano, bytes: u64) -> Result<Bucket, PushError> {
        if bytes > self.burst_bytes {
            let key = "ingest_rate_burst_bytes";
            return Err(PushError::TooLarge { what: "uncompressed message", limit_bytes: self.burst_bytes, key });
        }
        let level = bucket.map_or(self.burst_bytes as f64, |bucket| self.level(bucket, now));
        let left = level - bytes as f64;
        if left < 0.0 {
            return Err(self.too_fast(-left / self.bytes_per_second as f64));
        }
        Ok(Bucket { bytes: left, filled_at: now })
    }

    fn level(&self, bucket: Bucket, now: UnixNano) -> f64 {
        let refill = now.since(bucket.filled_at).as_secs_f64() * self.bytes_per_second as f64;
        (bucket.bytes + refill).min(self.burst_bytes as f64)
    }

    fn too_fast(&self, wait_seconds: f64) -> PushError {
        // A burst takes at most 2^64 seconds to refill, which a Duration holds.
        let retry_after = Duration::from_secs(wait_seconds.ceil().max(1.0) as u64);
        PushError::RateLimited { limit_bytes: self.bytes_per_second, retry_after }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_sends_its_burst_and_then_its_rate() {
        let rates = RateLimiter::new(100, 250);
        let (a, b) = (TenantId::parse("a").unwrap(), TenantId::parse("b").unwrap());
        let second = UnixNano::from_secs;
        assert_eq!(rates.take(&a, second(1), 250), Ok(()));
        let refused = PushError::RateLimited { limit_bytes: 100, retry_after: Duration::from_secs(2) };
        assert_eq!(rates.take(&a, second(1), 101), Err(refused.clone()));
        assert_eq!(rates.peek(&a, second(1), 101), Err(refused));
        assert_eq!(rates.take(&b, second(1), 250), Ok(()), "tenants do not share");
        assert_eq!(rates.peek(&a, second(2), 100), Ok(()));
        assert_eq!(rates.take(&a, second(2), 100), Ok(()));
        assert!(rates.take(&a, second(2), 1).is_err());
        assert!(rates.take(&a, second(1), 1).is_err(), "a clock that steps back refills nothing");
        assert_eq!(rates.take(&a, second(1000), 250), Ok(()));
        assert!(rates.take(&a, second(1000), 1).is_err(), "a long quiet saves up no more than a burst");
    }

    #[test]
    fn what_exceeds_the_burst_will_never_fit() {
        let refused = RateLimiter::new(100, 250).take(&TenantId::single(), UnixNano(0), 251).unwrap_err();
        assert_eq!(refused.retry_after(), None);
        assert!(refused.to_string().contains("`ingest_rate_burst_bytes`"), "{refused}");
    }

    #[test]
    fn without_a_limit_nothing_is_kept() {
        let rates = RateLimiter::new(0, 0);
        assert_eq!(rates.take(&TenantId::single(), UnixNano(0), u64::MAX), Ok(()));
        assert!(rates.buckets.lock().is_empty());
    }
}
