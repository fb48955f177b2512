//! The handover of a renewal, for a token server that keeps one live token per client
//! (`one_live_token`): it revokes the old token when it issues the new one.
//!
//! Before the token request is sent, the held token is closed: new requests wait for the outcome, and
//! requests in flight have [`DRAIN_TIME`] to get the heads of their answers. After a success requests go
//! on with the new token, and the old one stays closed. After a failure the old one is opened again.
//! Tokens of other credentials have no [`InFlightRequests`]: their requests are not counted.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::telemetry::family::Histogram;

/// Longest time that a renewal waits for the answers of requests in flight.
pub(super) const DRAIN_TIME: Duration = Duration::from_secs(2);

/// The bit of [`InFlightRequests::state`] that is set while no request may begin.
const CLOSED: usize = 1 << (usize::BITS - 1);

/// The requests in flight with one token.
pub(super) struct InFlightRequests {
    /// The number of requests, and [`CLOSED`]. One word, so that a request that begins is either counted
    /// before the token is closed or finds it closed.
    state: AtomicUsize,
    /// Notified when the last request of a closed token ends.
    drained: Notify,
    /// The times that requests waited for the outcome.
    wait: Histogram,
}

impl InFlightRequests {
    /// No request, and the histogram of the waits.
    pub(super) fn new(wait: Histogram) -> Self {
        Self { state: AtomicUsize::new(0), drained: Notify::new(), wait }
    }

    /// Forbids requests to begin.
    pub(super) fn close(&self) {
        self.state.fetch_or(CLOSED, Ordering::AcqRel);
    }

    /// Allows requests to begin.
    pub(super) fn open(&self) {
        self.state.fetch_and(!CLOSED, Ordering::AcqRel);
    }

    /// True while no request may begin.
    pub(super) fn is_closed(&self) -> bool {
        self.state.load(Ordering::Acquire) & CLOSED != 0
    }

    /// The number of requests.
    pub(super) fn count(&self) -> usize {
        self.state.load(Ordering::Acquire) & !CLOSED
    }

    /// Waits until a closed token has no request in flight.
    pub(super) async fn drained(&self) {
        loop {
            let mut notified = pin!(self.drained.notified());
            // Registered before the count is read: the last request may end between the two.
            notified.as_mut().enable();
            if self.count() == 0 {
                return;
            }
            notified.await;
        }
    }

    /// Counts a request; `None` if the token is closed.
    pub(super) fn begin(self: &Arc<Self>) -> Option<InFlightGuard> {
        let before = self.state.fetch_add(1, Ordering::AcqRel);
        // A guard in both cases: it takes back the count of a request that may not begin.
        let guard = InFlightGuard(Some(Arc::clone(self)));
        (before & CLOSED == 0).then_some(guard)
    }
}

/// One request in flight, until it is dropped; empty for a token whose requests are not counted.
#[derive(Default)]
pub(super) struct InFlightGuard(Option<Arc<InFlightRequests>>);

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        let Some(in_flight) = &self.0 else { return };
        if in_flight.state.fetch_sub(1, Ordering::AcqRel) == CLOSED | 1 {
            in_flight.drained.notify_one();
        }
    }
}

/// The wait of one request for the outcome of a handover. It is observed when it ends, however it ends.
pub(super) struct HandoverWait {
    began: Instant,
    in_flight: Arc<InFlightRequests>,
}

impl HandoverWait {
    /// Begins a wait for the outcome of the renewal of a closed token.
    pub(super) fn begin(in_flight: &Arc<InFlightRequests>) -> Self {
        Self { began: Instant::now(), in_flight: Arc::clone(in_flight) }
    }
}

impl Drop for HandoverWait {
    fn drop(&mut self) {
        self.in_flight.wait.observe(self.began.elapsed().as_secs_f64());
    }
}

#[cfg(test)]
mod tests;
