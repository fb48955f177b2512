//! How many requests are under way, over all workers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts requests under way over all workers; clones share the count.
#[derive(Debug, Clone, Default)]
pub struct InFlight(Arc<AtomicUsize>);

/// The right to be under way; given back when dropped.
#[derive(Debug)]
pub struct InFlightPermit(Arc<AtomicUsize>);

impl InFlight {
    /// Admits a request unless `max` are under way.
    pub fn admit(&self, max: usize) -> Option<InFlightPermit> {
        if self.0.fetch_add(1, Ordering::Relaxed) < max {
            return Some(InFlightPermit(Arc::clone(&self.0)));
        }
        self.0.fetch_sub(1, Ordering::Relaxed);
        None
    }

    /// How many are under way.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

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
