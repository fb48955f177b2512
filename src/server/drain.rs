//! Leaving in order: connections are told to finish, waited for, and in the end dropped.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use tokio_util::sync::CancellationToken;

/// The two steps out, told to all workers at once; clones speak for each other.
#[derive(Debug, Clone, Default)]
pub struct StopSignal {
    finish: CancellationToken,
    abort: CancellationToken,
}

impl StopSignal {
    /// Nobody has been told anything yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Stop accepting, close idle connections, let requests under way end.
    pub fn finish(&self) {
        self.finish.cancel();
    }

    /// The time to finish is over: drop what is left.
    pub fn abort(&self) {
        self.finish.cancel();
        self.abort.cancel();
    }

    /// Whether the first step has been taken.
    pub fn is_finishing(&self) -> bool {
        self.finish.is_cancelled()
    }

    /// Ends when the first step is taken.
    pub async fn finishing(&self) {
        self.finish.cancelled().await;
    }

    /// Ends when the second step is taken.
    pub async fn aborted(&self) {
        self.abort.cancelled().await;
    }
}

/// The open connections of one worker, so that they can be told to finish.
///
/// It lives on one thread: a connection that is polled looks at a flag and compares a waker, where
/// a cancellation token would take its lock each time.
#[derive(Debug, Default)]
pub(super) struct Drain {
    finishing: Cell<bool>,
    open: Cell<usize>,
    wakers: RefCell<Vec<Option<Waker>>>,
    free: RefCell<Vec<usize>>,
    emptied: RefCell<Option<Waker>>,
}

impl Drain {
    /// No connection yet.
    pub fn new() -> Rc<Self> {
        Rc::default()
    }

    /// Counts a connection in, until the member is dropped.
    pub fn join(self: &Rc<Self>) -> Member {
        self.open.set(self.open.get() + 1);
        let slot = self.free.borrow_mut().pop().unwrap_or_else(|| {
            let mut wakers = self.wakers.borrow_mut();
            wakers.push(None);
            wakers.len() - 1
        });
        Member { drain: Rc::clone(self), slot }
    }

    /// Tells every connection, present and future, to finish.
    pub fn finish(&self) {
        self.finishing.set(true);
        let wakers: Vec<Waker> =
            self.wakers.borrow_mut().iter_mut().filter_map(Option::take).collect();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Connections that are open.
    pub fn open(&self) -> usize {
        self.open.get()
    }

    /// Ends when no connection is open.
    pub async fn empty(&self) {
        poll_fn(|cx| {
            if self.open.get() == 0 {
                return Poll::Ready(());
            }
            *self.emptied.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    fn leave(&self, slot: usize) {
        if let Some(waker) = self.wakers.borrow_mut().get_mut(slot) {
            *waker = None;
        }
        self.free.borrow_mut().push(slot);
        self.open.set(self.open.get() - 1);
        if self.open.get() == 0
            && let Some(waker) = self.emptied.borrow_mut().take()
        {
            waker.wake();
        }
    }
}

/// One connection's place in the [`Drain`] of its worker.
#[derive(Debug)]
pub(super) struct Member {
    drain: Rc<Drain>,
    slot: usize,
}

impl Member {
    /// Whether it is time to finish; if not yet, the task is woken when it is.
    pub fn finishing(&self, cx: &Context<'_>) -> bool {
        if self.drain.finishing.get() {
            return true;
        }
        if let Some(place) = self.drain.wakers.borrow_mut().get_mut(self.slot)
            && !place.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            *place = Some(cx.waker().clone());
        }
        false
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.drain.leave(self.slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn members_are_told_and_waited_for() {
        let drain = Drain::new();
        let member = drain.join();
        let told = poll_fn(|cx| if member.finishing(cx) { Poll::Ready(()) } else { Poll::Pending });
        tokio::join!(told, async { drain.finish() });
        tokio::join!(drain.empty(), async { drop(member) });
        assert_eq!(drain.open(), 0);
    }

    #[test]
    fn places_are_used_again() {
        let drain = Drain::new();
        let (first, _second) = (drain.join(), drain.join());
        drop(first);
        let _third = drain.join();
        assert_eq!((drain.open(), drain.wakers.borrow().len()), (2, 2));
    }

    #[tokio::test]
    async fn abort_implies_finish() {
        let stop = StopSignal::new();
        stop.clone().abort();
        stop.finishing().await;
        stop.aborted().await;
        assert!(stop.is_finishing());
    }
}
