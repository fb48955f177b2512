//! Leaving in order: connections are told to finish, waited for, and in the end dropped.
//!
//! An orderly end loses no request. So it begins before the listeners close: from the first step on
//! every answer says `Connection: close`, clients come back on new connections while those are still
//! accepted, and when the listeners do close, hardly any connection is left that a client would use
//! again.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use tokio_util::sync::CancellationToken;

/// The steps out, told to all workers at once; clones speak for each other.
#[derive(Debug, Clone, Default)]
pub struct StopSignal {
    retire: CancellationToken,
    finish: CancellationToken,
    abort: CancellationToken,
}

impl StopSignal {
    /// Nobody has been told anything yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Accept and answer as before, but let no connection be used again.
    pub fn retire(&self) {
        self.retire.cancel();
    }

    /// Stop accepting, close idle connections, let requests under way end.
    pub fn finish(&self) {
        self.retire.cancel();
        self.finish.cancel();
    }

    /// The time to finish is over: drop what is left.
    pub fn abort(&self) {
        self.finish();
        self.abort.cancel();
    }

    /// Whether the second step has been taken.
    pub fn is_finishing(&self) -> bool {
        self.finish.is_cancelled()
    }

    /// Whether the last step has been taken.
    pub fn is_aborted(&self) -> bool {
        self.abort.is_cancelled()
    }

    /// Ends when the first step is taken.
    pub async fn retiring(&self) {
        self.retire.cancelled().await;
    }

    /// Ends when the second step is taken.
    pub async fn finishing(&self) {
        self.finish.cancelled().await;
    }

    /// Ends when the last step is taken.
    pub async fn aborted(&self) {
        self.abort.cancelled().await;
    }
}

/// How far a connection is on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) enum ShutdownPhase {
    /// It is not.
    #[default]
    Open,
    /// Its next answer is its last.
    Retiring,
    /// As before, and where it waits for a request it closes.
    Finishing,
}

/// Connections of one worker that were accepted and wait for a place under the limit.
///
/// While there are any, nobody else is accepted, and whoever is idle makes room: clients that only
/// hold connections cannot keep others out.
#[derive(Debug, Default)]
pub(super) struct AdmissionQueue {
    waiting: Cell<usize>,
    over: RefCell<Option<Waker>>,
}

impl AdmissionQueue {
    /// One more waits, until what it returns is dropped.
    pub fn join(self: &Rc<Self>) -> QueuedGuard {
        self.waiting.set(self.waiting.get() + 1);
        QueuedGuard(Rc::clone(self))
    }

    /// Ends when nobody waits.
    pub async fn over(&self) {
        poll_fn(|cx| {
            if self.waiting.get() == 0 {
                return Poll::Ready(());
            }
            *self.over.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// While it lives, a connection waits for its place.
#[derive(Debug)]
pub(super) struct QueuedGuard(Rc<AdmissionQueue>);

impl Drop for QueuedGuard {
    fn drop(&mut self) {
        let Self(crowd) = self;
        crowd.waiting.set(crowd.waiting.get() - 1);
        if crowd.waiting.get() == 0
            && let Some(waker) = crowd.over.borrow_mut().take()
        {
            waker.wake();
        }
    }
}

/// The open connections of one listener on one worker, so that they can be told to finish.
///
/// It lives on one thread: a connection that is polled looks at a flag and compares a waker, where
/// a cancellation token would take its lock each time.
#[derive(Debug, Default)]
pub(super) struct Drain {
    stage: Cell<ShutdownPhase>,
    crowd: Rc<AdmissionQueue>,
    open: Cell<usize>,
    wakers: RefCell<Vec<Option<Waker>>>,
    free: RefCell<Vec<usize>>,
    emptied: RefCell<Option<Waker>>,
}

impl Drain {
    /// No connection yet; `crowd` waits to come in.
    pub fn new(crowd: Rc<AdmissionQueue>) -> Rc<Self> {
        Rc::new(Self { crowd, ..Self::default() })
    }

    /// Counts a connection in, until what it returns is dropped.
    pub fn hold(self: &Rc<Self>) -> OpenGuard {
        self.open.set(self.open.get() + 1);
        OpenGuard(Rc::clone(self))
    }

    /// Makes a place to be told at.
    pub fn join(self: &Rc<Self>) -> DrainHandle {
        let slot = self.free.borrow_mut().pop().unwrap_or_else(|| {
            let mut wakers = self.wakers.borrow_mut();
            wakers.push(None);
            wakers.len() - 1
        });
        DrainHandle { drain: Rc::clone(self), slot }
    }

    /// Tells every connection, present and future; no step is taken back.
    pub fn tell(&self, stage: ShutdownPhase) {
        self.stage.set(self.stage.get().max(stage));
        self.wake();
    }

    /// Lets every connection look at how things are.
    pub fn wake(&self) {
        let wakers: Vec<Waker> =
            self.wakers.borrow_mut().iter_mut().filter_map(Option::take).collect();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Whether an answer that begins now is its connection's last.
    pub fn is_leaving(&self) -> bool {
        self.stage.get() > ShutdownPhase::Open
    }

    /// Connections that are open, and those that have closed while their work goes on.
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
    }
}

/// While it lives, a connection counts as open. Work that outlives its connection keeps it too.
#[derive(Debug)]
pub(super) struct OpenGuard(Rc<Drain>);

impl Drop for OpenGuard {
    fn drop(&mut self) {
        let Self(drain) = self;
        drain.open.set(drain.open.get() - 1);
        if drain.open.get() == 0
            && let Some(waker) = drain.emptied.borrow_mut().take()
        {
            waker.wake();
        }
    }
}

/// One connection's place in the [`Drain`] of its listener.
#[derive(Debug)]
pub(super) struct DrainHandle {
    drain: Rc<Drain>,
    slot: usize,
}

impl DrainHandle {
    /// Whether others wait for a place.
    pub fn is_crowded(&self) -> bool {
        self.drain.crowd.waiting.get() > 0
    }

    /// All connections of its listener.
    pub fn drain(&self) -> Rc<Drain> {
        Rc::clone(&self.drain)
    }

    /// How far it is on its way out; the task is woken when that changes.
    pub fn stage(&self, cx: &Context<'_>) -> ShutdownPhase {
        let stage = self.drain.stage.get();
        if stage == ShutdownPhase::Finishing {
            return stage;
        }
        if let Some(place) = self.drain.wakers.borrow_mut().get_mut(self.slot)
            && !place.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            *place = Some(cx.waker().clone());
        }
        stage
    }
}

impl Drop for DrainHandle {
    fn drop(&mut self) {
        self.drain.leave(self.slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn members_are_told_and_waited_for() {
        let drain = Drain::new(Rc::default());
        let (member, held) = (drain.join(), drain.hold());
        for stage in [ShutdownPhase::Retiring, ShutdownPhase::Finishing] {
            let told = poll_fn(|cx| match member.stage(cx) == stage {
                true => Poll::Ready(()),
                false => Poll::Pending,
            });
            tokio::join!(told, async { drain.tell(stage) });
        }
        drain.tell(ShutdownPhase::Retiring);
        assert_eq!(drain.stage.get(), ShutdownPhase::Finishing);
        drop(member);
        tokio::join!(drain.empty(), async { drop(held) });
        assert_eq!(drain.open(), 0);
    }

    #[test]
    fn places_are_used_again() {
        let drain = Drain::new(Rc::default());
        let (first, _second) = (drain.join(), drain.join());
        drop(first);
        let _third = drain.join();
        assert_eq!(drain.wakers.borrow().len(), 2);
    }

    #[tokio::test]
    async fn abort_implies_finish() {
        let stop = StopSignal::new();
        stop.clone().abort();
        stop.retiring().await;
        stop.finishing().await;
        stop.aborted().await;
        assert!(stop.is_finishing());
    }
}
