//! The limit on open client connections, shared by all workers and listeners.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Places for connections; clones share them.
#[derive(Debug, Clone)]
pub struct ConnectionLimit {
    free: Arc<Semaphore>,
    limit: Arc<Mutex<Limit>>,
}

#[derive(Debug)]
struct Limit {
    max: usize,
    /// Places that are to go once their connections do: the limit was lowered below what was open.
    owed: usize,
}

/// One connection's place, given back when dropped.
#[derive(Debug)]
pub struct ConnectionPermit {
    permit: Option<OwnedSemaphorePermit>,
    limit: Arc<Mutex<Limit>>,
}

impl ConnectionLimit {
    /// At most `max` connections at a time, at least one.
    pub fn new(max: usize) -> Self {
        let max = max.clamp(1, Semaphore::MAX_PERMITS);
        let limit = Arc::new(Mutex::new(Limit { max, owed: 0 }));
        Self { free: Arc::new(Semaphore::new(max)), limit }
    }

    /// Connections that are open now.
    pub fn open(&self) -> usize {
        let limit = self.limit();
        (limit.max + limit.owed).saturating_sub(self.free.available_permits())
    }

    /// Changes the limit. Connections that are open stay; those beyond a lower limit are not
    /// replaced when they close.
    pub fn resize(&self, max: usize) {
        let max = max.clamp(1, Semaphore::MAX_PERMITS);
        let mut limit = self.limit();
        let (more, less) = (max.saturating_sub(limit.max), limit.max.saturating_sub(max));
        let kept = more.min(limit.owed);
        limit.owed -= kept;
        self.free.add_permits(more - kept);
        limit.owed += less - self.free.forget_permits(less);
        limit.max = max;
    }

    /// Takes a place, unless another worker has been quicker.
    pub(super) fn try_take(&self) -> Option<ConnectionPermit> {
        let permit = Some(Arc::clone(&self.free).try_acquire_owned().ok()?);
        Some(ConnectionPermit { permit, limit: Arc::clone(&self.limit) })
    }

    /// Takes a place as soon as one is free.
    pub(super) async fn take(&self) -> ConnectionPermit {
        let permit = Arc::clone(&self.free).acquire_owned().await.ok();
        ConnectionPermit { permit, limit: Arc::clone(&self.limit) }
    }

    fn limit(&self) -> MutexGuard<'_, Limit> {
        self.limit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut limit = self.limit.lock().unwrap_or_else(PoisonError::into_inner);
        if limit.owed > 0
            && let Some(permit) = self.permit.take()
        {
            limit.owed -= 1;
            permit.forget();
        }
        // Given back under the lock, so that nobody counts it twice.
        drop(self.permit.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_limit_can_change_while_connections_are_open() {
        let slots = ConnectionLimit::new(3);
        let places = [slots.take().await, slots.take().await, slots.take().await];
        slots.resize(1);
        assert_eq!((slots.open(), slots.free.available_permits()), (3, 0));
        let [first, second, third] = places;
        drop(first);
        assert_eq!((slots.open(), slots.free.available_permits()), (2, 0));
        slots.resize(2);
        assert_eq!((slots.open(), slots.free.available_permits()), (2, 0));
        drop(second);
        assert_eq!((slots.open(), slots.free.available_permits()), (1, 1));
        slots.resize(5);
        drop(third);
        assert_eq!((slots.open(), slots.free.available_permits()), (0, 5));
    }
}
