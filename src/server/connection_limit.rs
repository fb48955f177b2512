//! The limit on open client connections, shared by all workers and listeners.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;

/// The limit `server.max_connections`; clones share it.
#[derive(Debug, Clone)]
pub struct ConnectionLimit(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    semaphore: Semaphore,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    max: usize,
    /// Permits to be destroyed as connections close: the limit was lowered below their number.
    excess: usize,
}

/// Permission to have one connection open, returned when dropped.
#[derive(Debug)]
pub struct ConnectionPermit(ConnectionLimit);

impl ConnectionLimit {
    /// At most `max` connections at a time, at least one.
    pub fn new(max: usize) -> Self {
        let max = max.clamp(1, Semaphore::MAX_PERMITS);
        let state = Mutex::new(State { max, excess: 0 });
        Self(Arc::new(Shared { semaphore: Semaphore::new(max), state }))
    }

    /// The number of open connections.
    pub fn open(&self) -> usize {
        let state = self.state();
        (state.max + state.excess).saturating_sub(self.0.semaphore.available_permits())
    }

    /// Changes the limit. Open connections stay; those beyond a lower limit are not replaced when they
    /// close.
    pub fn resize(&self, max: usize) {
        let max = max.clamp(1, Semaphore::MAX_PERMITS);
        let mut state = self.state();
        let (added, removed) = (max.saturating_sub(state.max), state.max.saturating_sub(max));
        // A higher limit first spares permits that were to be destroyed.
        let spared = added.min(state.excess);
        self.0.semaphore.add_permits(added - spared);
        let destroyed = self.0.semaphore.forget_permits(removed);
        *state = State { max, excess: state.excess - spared + removed - destroyed };
    }

    /// Takes a permit if one is free.
    pub(super) fn try_acquire(&self) -> Option<ConnectionPermit> {
        // Forgotten here and in `acquire`, because the drop of a `ConnectionPermit` decides if it comes back.
        self.0.semaphore.try_acquire().ok()?.forget();
        Some(ConnectionPermit(self.clone()))
    }

    /// Takes a permit as soon as one is free.
    pub(super) async fn acquire(&self) -> ConnectionPermit {
        // The semaphore is never closed, which is the only error.
        if let Ok(permit) = self.0.semaphore.acquire().await {
            permit.forget();
        }
        ConnectionPermit(self.clone())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        // Under the lock, so that `open` and `resize` see both numbers change at once.
        let mut state = self.0.state();
        match state.excess {
            0 => self.0.0.semaphore.add_permits(1),
            excess => state.excess = excess - 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_limit_can_change_while_connections_are_open() {
        let limit = ConnectionLimit::new(3);
        let permits = [limit.acquire().await, limit.acquire().await, limit.acquire().await];
        let counts = || (limit.open(), limit.0.semaphore.available_permits());
        limit.resize(1);
        assert_eq!(counts(), (3, 0));
        let [first, second, third] = permits;
        drop(first);
        assert_eq!(counts(), (2, 0));
        limit.resize(2);
        assert_eq!(counts(), (2, 0));
        drop(second);
        assert_eq!(counts(), (1, 1));
        limit.resize(5);
        drop(third);
        assert_eq!(counts(), (0, 5));
    }
}
