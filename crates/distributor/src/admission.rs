//! Room for one request.

use std::sync::Arc;

use prometheus_client::metrics::gauge::Gauge;
use spoor_model::memory::{MemoryBudget, Reservation};

use crate::{Limits, PushError};

/// Room held for one request, from before its body is read until it is answered. Dropping it gives
/// the room back.
#[derive(Debug)]
pub struct Admission {
    limits: Limits,
    held: Reservation,
    in_flight_bytes: Gauge,
}

impl Admission {
    pub(crate) fn new(
        limits: Limits,
        budget: &Arc<MemoryBudget>,
        in_flight_bytes: Gauge,
        body_bytes: usize,
    ) -> Result<Self, PushError> {
        if body_bytes > limits.max_message_bytes {
            return Err(PushError::message_too_large("message", &limits));
        }
        let held = budget.try_reserve(body_bytes).ok_or_else(|| PushError::no_room(&limits))?;
        in_flight_bytes.inc_by(body_bytes as i64);
        Ok(Self { limits, held, in_flight_bytes })
    }

    /// Makes room for more bytes of the body than were known at first.
    pub fn grow_body(&mut self, more_bytes: usize) -> Result<(), PushError> {
        if self.held.bytes().saturating_add(more_bytes) > self.limits.max_message_bytes {
            return Err(PushError::message_too_large("message", &self.limits));
        }
        self.grow(more_bytes)
    }

    /// Makes room for another form of the request.
    pub(crate) fn grow(&mut self, more_bytes: usize) -> Result<(), PushError> {
        if !self.held.try_grow(more_bytes) {
            return Err(PushError::no_room(&self.limits));
        }
        self.in_flight_bytes.inc_by(more_bytes as i64);
        Ok(())
    }

    /// Gives back what is held above `bytes`.
    pub(crate) fn shrink_to(&mut self, bytes: usize) {
        let before_bytes = self.held.bytes();
        self.held.shrink_to(bytes);
        self.in_flight_bytes.dec_by((before_bytes - self.held.bytes()) as i64);
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.in_flight_bytes.dec_by(self.held.bytes() as i64);
    }
}
