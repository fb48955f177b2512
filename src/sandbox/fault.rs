//! Faults on a script: what a token server does wrong, call by call, and then no longer.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

/// A fault of one token call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The answer is right but comes late.
    Delay(Duration),
    /// The answer is right but waits for [`AuthServer::release`](super::AuthServer::release):
    /// the way to be slow in a test that does not sleep.
    Hold,
    /// 500 with a page of HTML, as gateways write.
    Html500,
    /// This status with an empty body.
    Status(u16),
    /// 200 with JSON that stops in the middle.
    Malformed,
    /// 401 `invalid_client`, in the vendor's own words.
    InvalidClient,
    /// 429 with `Retry-After` in whole seconds.
    TooMany {
        /// The value of `Retry-After`, in whole seconds.
        retry_after: Duration,
    },
    /// The request is read, then the connection closes without an answer.
    DropConnection,
    /// A right answer whose token lives this long.
    ShortLife(Duration),
    /// A right answer that does not say how long its token lives.
    NoExpiry,
    /// The token issued last, once more, with what is left of its life.
    SameToken,
}

/// The script of one server: first what is queued, one item per call, then normal.
#[derive(Debug)]
pub(super) struct Script<T> {
    queue: Mutex<State<T>>,
    gate: Semaphore,
}

#[derive(Debug)]
struct State<T> {
    next: VecDeque<T>,
    down: bool,
    latency: Duration,
}

impl<T> Script<T> {
    pub(super) fn new() -> Self {
        let state = State { next: VecDeque::new(), down: false, latency: Duration::ZERO };
        Self { queue: Mutex::new(state), gate: Semaphore::new(0) }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces what is queued.
    pub(super) fn set(&self, items: impl IntoIterator<Item = T>) {
        self.state().next = items.into_iter().collect();
    }

    /// Takes the item of the present call.
    pub(super) fn take(&self) -> Option<T> {
        self.state().next.pop_front()
    }

    /// While down, every connection is closed at once.
    pub(super) fn set_down(&self, down: bool) {
        self.state().down = down;
    }

    pub(super) fn is_down(&self) -> bool {
        self.state().down
    }

    /// From now on every call takes this long.
    pub(super) fn set_latency(&self, latency: Duration) {
        self.state().latency = latency;
    }

    /// Waits for the latency of one call.
    pub(super) async fn delay(&self) {
        let latency = self.state().latency;
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
    }

    /// Lets `count` held calls go on, including ones that are yet to come.
    pub(super) fn release(&self, count: usize) {
        self.gate.add_permits(count);
    }

    /// Waits to be released.
    pub(super) async fn hold(&self) {
        if let Ok(permit) = self.gate.acquire().await {
            permit.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_ends_and_then_all_is_normal() {
        let script = Script::new();
        script.set([Fault::Html500, Fault::NoExpiry]);
        assert_eq!(script.take(), Some(Fault::Html500));
        assert_eq!(script.take(), Some(Fault::NoExpiry));
        assert_eq!(script.take(), None);
    }

    #[tokio::test]
    async fn a_release_may_come_before_the_call_it_lets_go() {
        let script = Script::<Fault>::new();
        script.release(1);
        script.hold().await;
        assert_eq!(script.gate.available_permits(), 0);
    }
}
