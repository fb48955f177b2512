//! The number of requests in flight, over all workers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts requests in flight over all workers; clones share the count.
#[derive(Debug, Clone, Default)]
pub struct InFlight(Arc<AtomicUsize>);

/// Permission for one request; released when dropped.
#[derive(Debug)]
pub struct InFlightPermit(Arc<AtomicUsize>);

impl InFlight {
    /// Admits a request unless `max` are in flight.
    pub fn admit(&self, max: usize) -> Option<InFlightPermit> {
        // Added before it is compared, so that two workers cannot both take the last place. Relaxed
        // is enough: the count protects no other memory.
        if self.0.fetch_add(1, Ordering::Relaxed) < max {
            return Some(InFlightPermit(Arc::clone(&self.0)));
        }
        self.0.fetch_sub(1, Ordering::Relaxed);
        None
    }

    /// The number of requests in flight.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

// In a guard, so that a request that ends in any way releases its place.
impl Drop for InFlightPermit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_holds_and_places_come_back() {
        let in_flight = InFlight::default();
        let first = in_flight.admit(2).unwrap();
        let second = in_flight.admit(2).unwrap();
        assert!(in_flight.admit(2).is_none());
        drop(first);
        assert!(in_flight.admit(2).is_some());
        drop(second);
        assert_eq!(in_flight.count(), 0);
    }
}
