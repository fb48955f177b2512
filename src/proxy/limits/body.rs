//! A body bounded in size, and in the time that may pass without a byte.
//!
//! hyper itself times and counts nothing. The timer is armed only while the inner body has nothing to
//! give, so that a body which flows costs no timer.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use crate::body::{Body, BodyError};

/// Why a body ended before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitError {
    /// More bytes than allowed.
    TooLarge,
    /// No byte for too long.
    Idle,
    /// The sender went away in the middle.
    Cut,
}

/// How far a body has come, for those who wait for its effects.
#[derive(Debug, Clone)]
pub struct BodyProgress(Rc<Progress>);

#[derive(Debug)]
struct Progress {
    last: Cell<Instant>,
    awaited: Cell<bool>,
    ended: Cell<bool>,
    error: Cell<Option<LimitError>>,
}

impl BodyProgress {
    /// When the last frame passed.
    pub fn last(&self) -> Instant {
        self.0.last.get()
    }

    /// Whether its sender is waited for: whoever takes the body has asked for more.
    pub fn is_awaited(&self) -> bool {
        self.0.awaited.get()
    }

    /// Whether all of it has passed.
    pub fn has_ended(&self) -> bool {
        self.0.ended.get()
    }

    /// Why the body ended early, if it did.
    pub fn error(&self) -> Option<LimitError> {
        self.0.error.get()
    }
}

/// Is held by a body until that is dropped, and notes what passes.
pub trait BodyObserver {
    /// So many bytes have passed.
    fn passed(&self, bytes: u64) {
        let _ = bytes;
    }

    /// All of the body has passed.
    fn ended(&self) {}

    /// The body ended before its end.
    fn failed(&self, why: &BodyError) {
        let _ = why;
    }
}

impl BodyObserver for () {}

/// A body whose size and pauses are bounded. It holds its observer until it is dropped.
pub struct LimitedBody<O> {
    inner: Body,
    idle: Duration,
    remaining: u64,
    timer: Option<Pin<Box<Sleep>>>,
    progress: Option<BodyProgress>,
    /// Why the inner body ended early, until it is told.
    cut: Option<BodyError>,
    observer: O,
}

impl<O: BodyObserver> LimitedBody<O> {
    /// Bounds a body: at most `max_bytes` bytes, at most `idle` between two frames.
    pub fn new(inner: Body, max_bytes: u64, idle: Duration, observer: O) -> Self {
        let (timer, progress, cut) = (None, None, None);
        Self { inner, idle, remaining: max_bytes, timer, progress, cut, observer }
    }

    /// The same, and how far it has come.
    pub fn watched(mut self) -> (Self, BodyProgress) {
        let progress = Progress {
            last: Cell::new(Instant::now()),
            awaited: Cell::new(false),
            ended: Cell::new(false),
            error: Cell::new(None),
        };
        let progress = BodyProgress(Rc::new(progress));
        self.progress = Some(progress.clone());
        (self, progress)
    }

    fn failed(&self, error: LimitError) {
        if let Some(BodyProgress(progress)) = &self.progress {
            progress.error.set(Some(error));
        }
    }

    fn fail(
        &self,
        error: LimitError,
        why: &'static str,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.failed(error);
        let why = BodyError::new(why);
        self.observer.failed(&why);
        Poll::Ready(Some(Err(why)))
    }

    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let idle = self.idle;
        self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(idle))).as_mut().poll(cx)
    }
}

impl<O: BodyObserver + Unpin> HttpBody for LimitedBody<O> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(error) = self.cut.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let frame = Pin::new(&mut self.inner).poll_frame(cx);
        if let Some(BodyProgress(progress)) = &self.progress {
            progress.awaited.set(frame.is_pending());
            let ended = matches!(frame, Poll::Ready(None)) || self.inner.is_end_stream();
            progress.ended.set(progress.ended.get() || ended);
        }
        match frame {
            Poll::Ready(Some(Ok(frame))) => {
                self.timer = None;
                if let Some(BodyProgress(progress)) = &self.progress {
                    progress.last.set(Instant::now());
                }
                let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                match self.remaining.checked_sub(length) {
                    Some(remaining) => self.remaining = remaining,
                    None => {
                        return self.fail(LimitError::TooLarge, "the body is larger than allowed");
                    }
                }
                self.observer.passed(length);
                // Whoever takes the body may ask for no more after its last frame.
                if frame.is_trailers() || self.inner.is_end_stream() {
                    self.observer.ended();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                self.failed(LimitError::Cut);
                self.observer.failed(&error);
                // hyper drops what it has not written when a body fails. Pending once, with a wake-up,
                // lets it write what came before the cut first.
                self.cut = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Ready(None) => {
                self.observer.ended();
                Poll::Ready(None)
            }
            Poll::Pending => match self.poll_idle(cx) {
                Poll::Ready(()) => {
                    self.fail(LimitError::Idle, "no byte of the body arrived in time")
                }
                Poll::Pending => Poll::Pending,
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.cut.is_none() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    /// A body that never gives anything.
    struct Stalled;

    impl HttpBody for Stalled {
        type Data = Bytes;
        type Error = BodyError;
        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
            Poll::Pending
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stalled_body_ends_in_time() {
        let started = Instant::now();
        let body = LimitedBody::new(Body::boxed(Stalled), 10, Duration::from_secs(60), ());
        let (mut body, progress) = body.watched();
        assert!(body.frame().await.unwrap().is_err());
        assert_eq!(started.elapsed().as_secs(), 60);
        assert_eq!(progress.error(), Some(LimitError::Idle));
    }

    #[tokio::test]
    async fn a_body_over_its_bound_fails_and_one_at_its_bound_passes() {
        for (bound, error) in [(4, Some(LimitError::TooLarge)), (5, None)] {
            let body = LimitedBody::new(Body::full("12345"), bound, Duration::from_secs(1), ());
            let (body, progress) = body.watched();
            assert_eq!(body.collect().await.is_err(), error.is_some());
            assert_eq!(progress.error(), error);
        }
    }

    impl BodyObserver for Rc<()> {}

    #[tokio::test]
    async fn what_a_body_holds_goes_with_it() {
        let held = Rc::new(());
        let body = LimitedBody::new(Body::full("1"), 5, Duration::from_secs(1), Rc::clone(&held));
        assert_eq!(Rc::strong_count(&held), 2);
        drop(body);
        assert_eq!(Rc::strong_count(&held), 1);
    }
}
