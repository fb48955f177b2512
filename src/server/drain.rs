//! The open connections of a listener, which are told to finish and waited for.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use slab::Slab;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::shutdown::ShutdownPhase;

/// The open connections of one listener on one worker.
///
/// It lives on one thread: a connection that is polled compares a flag and a waker, while a cancellation
/// token would take its lock each time.
#[derive(Debug)]
pub(super) struct Drain {
    phase: Cell<ShutdownPhase>,
    /// The worker's accepted connections that wait for a permit. While there are any, the worker accepts
    /// no others and idle connections close: clients that only hold connections cannot keep others out.
    admission: TaskTracker,
    open: TaskTracker,
    wakers: RefCell<Slab<Option<Waker>>>,
}

impl Drain {
    /// No connection yet; `admission` is the queue of the worker.
    pub fn new(admission: TaskTracker) -> Rc<Self> {
        let (phase, open) = (Cell::default(), empty_tracker());
        Rc::new(Self { phase, admission, open, wakers: RefCell::default() })
    }

    /// Counts a connection as open until the token is dropped. Work that outlives its connection keeps
    /// the token too.
    pub fn open_token(&self) -> TaskTrackerToken {
        self.open.token()
    }

    /// Registers a connection.
    pub fn join(self: &Rc<Self>) -> DrainHandle {
        DrainHandle { drain: Rc::clone(self), key: self.wakers.borrow_mut().insert(None) }
    }

    /// Enters a phase, for present and future connections. There is no way back.
    pub fn advance(&self, to: ShutdownPhase) {
        // Set before the wake-up, so that a connection that is polled then sees it.
        self.phase.set(self.phase.get().max(to));
        self.wake();
    }

    /// Makes every connection look at its phase and at the admission queue again.
    pub fn wake(&self) {
        let take = |(_, waker): (usize, &mut Option<Waker>)| waker.take();
        let wakers: Vec<Waker> = self.wakers.borrow_mut().iter_mut().filter_map(take).collect();
        // After the borrow has ended, since a waker may run code that registers again.
        wakers.into_iter().for_each(Waker::wake);
    }

    /// True if a response that begins now is the last one on its connection.
    pub fn is_leaving(&self) -> bool {
        self.phase.get() > ShutdownPhase::Open
    }

    /// The number of open connections, and of those that have closed while their work goes on.
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// Waits until no connection is open.
    pub async fn drained(&self) {
        self.open.wait().await;
    }
}

/// One connection's registration in the [`Drain`] of its listener.
#[derive(Debug)]
pub(super) struct DrainHandle {
    drain: Rc<Drain>,
    key: usize,
}

impl DrainHandle {
    /// True if other connections wait for a permit.
    pub fn is_crowded(&self) -> bool {
        !self.drain.admission.is_empty()
    }

    /// All connections of the listener.
    pub fn drain(&self) -> Rc<Drain> {
        Rc::clone(&self.drain)
    }

    /// The present phase; the task is woken when a later one begins.
    pub fn phase(&self, cx: &Context<'_>) -> ShutdownPhase {
        let phase = self.drain.phase.get();
        // No later phase concerns a connection: `Aborting` drops it.
        if phase < ShutdownPhase::Finishing
            && let Some(waker) = self.drain.wakers.borrow_mut().get_mut(self.key)
            // A waker is cloned only when it has changed: a connection is polled several times a request.
            && !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            *waker = Some(cx.waker().clone());
        }
        phase
    }

    /// Waits until the connection is to finish.
    pub async fn finishing(&self) {
        poll_fn(|cx| match self.phase(cx) {
            ShutdownPhase::Finishing | ShutdownPhase::Aborting => Poll::Ready(()),
            _ => Poll::Pending,
        })
        .await;
    }
}

impl Drop for DrainHandle {
    fn drop(&mut self) {
        // With its waker, which would otherwise keep the memory of a task that has ended.
        self.drain.wakers.borrow_mut().remove(self.key);
    }
}

/// A tracker whose `wait` ends as soon as it tracks nothing; also for the admission queue of a worker.
pub(super) fn empty_tracker() -> TaskTracker {
    let tracker = TaskTracker::new();
    tracker.close();
    tracker
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn connections_are_notified_and_waited_for() {
        let drain = Drain::new(empty_tracker());
        let (handle, open) = (drain.join(), drain.open_token());
        for phase in [ShutdownPhase::Retiring, ShutdownPhase::Finishing] {
            let entered = poll_fn(|cx| match handle.phase(cx) == phase {
                true => Poll::Ready(()),
                false => Poll::Pending,
            });
            tokio::join!(entered, async { drain.advance(phase) });
        }
        drain.advance(ShutdownPhase::Retiring);
        assert_eq!(drain.phase.get(), ShutdownPhase::Finishing);
        drop(handle);
        tokio::join!(drain.drained(), async { drop(open) });
        assert_eq!((drain.open(), drain.wakers.borrow().len()), (0, 0));
    }
}
