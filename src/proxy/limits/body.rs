//! A message body on its way through the proxy: bounded in size and in the time without a byte, with
//! its trailers filtered.
//!
//! hyper has neither bound. The timer exists only while the inner body has nothing to give, so that a
//! body which keeps flowing costs no timer.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use crate::body::{Body, BodyError, BoxError};

/// The reason why a body ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitError {
    /// It has more bytes than allowed.
    TooLarge,
    /// No byte arrived within the idle timeout.
    Idle,
    /// Its sender ended it before it was complete.
    Aborted,
}

/// Progress of a body, for code that waits for the effects of sending it.
#[derive(Debug, Clone, Copy)]
pub struct BodyProgress {
    /// Time of the last frame; before the first one, the time when the body was made.
    pub last_frame: Instant,
    /// Set while the reader has asked for a frame that the sender has not yet given.
    pub is_awaited: bool,
    /// Set once all frames have passed.
    pub has_ended: bool,
    /// Set once the body has ended early.
    pub error: Option<LimitError>,
}

/// Follows a body from start to end; the body owns it until it is dropped.
pub trait BodyObserver {
    /// Some bytes have passed; `at` is the time, if it is known already.
    fn passed(&self, bytes: u64, at: Option<Instant>) {
        let _ = (bytes, at);
    }

    /// The reader has asked for more than has arrived. May be called again until bytes pass.
    fn awaited(&self, since: Instant) {
        let _ = since;
    }

    /// The whole body has passed. May be called twice.
    fn ended(&self) {}

    /// The body ended early.
    fn failed(&self, kind: LimitError, error: &BodyError) {
        let _ = (kind, error);
    }
}

/// Observes nothing.
impl BodyObserver for () {}

/// A body with bounds on its size and its pauses, followed by an observer; its trailers pass through
/// the function `F`.
pub struct LimitedBody<O, F> {
    inner: Body,
    idle_timeout: Duration,
    remaining_bytes: u64,
    timer: Option<Pin<Box<Sleep>>>,
    progress: Option<Rc<Cell<BodyProgress>>>,
    /// The inner body's error, held back for one poll.
    pending_error: Option<BodyError>,
    observer: O,
    filter_trailers: F,
}

impl<O: BodyObserver, F> LimitedBody<O, F> {
    /// Bounds a body: at most `max_bytes` bytes in total, at most `idle_timeout` between two frames.
    pub fn new(
        inner: Body,
        max_bytes: u64,
        idle_timeout: Duration,
        observer: O,
        filter_trailers: F,
    ) -> Self {
        Self {
            inner,
            idle_timeout,
            remaining_bytes: max_bytes,
            timer: None,
            progress: None,
            pending_error: None,
            observer,
            filter_trailers,
        }
    }

    /// The same body, and its progress, updated by each poll.
    pub fn with_progress(mut self) -> (Self, Rc<Cell<BodyProgress>>) {
        let progress = Rc::new(Cell::new(BodyProgress {
            last_frame: Instant::now(),
            is_awaited: false,
            has_ended: false,
            error: None,
        }));
        self.progress = Some(Rc::clone(&progress));
        (self, progress)
    }

    fn update_progress(&self, update: impl FnOnce(&mut BodyProgress)) {
        if let Some(cell) = &self.progress {
            let mut progress = cell.get();
            update(&mut progress);
            cell.set(progress);
        }
    }

    fn fail(&self, error: LimitError, message: impl Into<BoxError>) -> BodyError {
        self.update_progress(|progress| progress.error = Some(error));
        let body_error = BodyError::new(message);
        self.observer.failed(error, &body_error);
        body_error
    }
}

impl<O, F> HttpBody for LimitedBody<O, F>
where
    O: BodyObserver + Unpin,
    F: FnMut(HeaderMap) -> HeaderMap + Unpin,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if let Some(error) = this.pending_error.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let frame = Pin::new(&mut this.inner).poll_frame(cx);
        this.update_progress(|progress| {
            progress.is_awaited = frame.is_pending();
            // With HTTP/2 the end can be known before it is asked for, and hyper then never asks.
            progress.has_ended |= matches!(frame, Poll::Ready(None)) || this.inner.is_end_stream();
            if matches!(frame, Poll::Ready(Some(Ok(_)))) {
                progress.last_frame = Instant::now();
            }
        });
        match frame {
            Poll::Ready(Some(Ok(frame))) => {
                // The idle timeout starts again with the next frame that has to be waited for.
                this.timer = None;
                let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                let Some(remaining) = this.remaining_bytes.checked_sub(length) else {
                    let error = this.fail(LimitError::TooLarge, "the body is larger than allowed");
                    return Poll::Ready(Some(Err(error)));
                };
                this.remaining_bytes = remaining;
                let at = this.progress.as_ref().map(|progress| progress.get().last_frame);
                this.observer.passed(length, at);
                // The reader may not ask again after the last frame.
                if frame.is_trailers() || this.inner.is_end_stream() {
                    this.observer.ended();
                }
                let filtered = frame.into_trailers().map(&mut this.filter_trailers);
                Poll::Ready(Some(Ok(filtered.map_or_else(|data| data, Frame::trailers))))
            }
            Poll::Ready(Some(Err(error))) => {
                this.update_progress(|progress| progress.error = Some(LimitError::Aborted));
                this.observer.failed(LimitError::Aborted, &error);
                // hyper drops its unwritten bytes when a body fails. Returning Pending once, with a
                // wake-up, lets it write the bytes that came before the error first.
                this.pending_error = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Ready(None) => {
                this.observer.ended();
                Poll::Ready(None)
            }
            Poll::Pending => {
                let sleep = || Box::pin(tokio::time::sleep(this.idle_timeout));
                let timer = this.timer.get_or_insert_with(sleep);
                // The timer has read the clock. An idle timeout beyond all time has no such begin.
                let since = timer.deadline().checked_sub(this.idle_timeout);
                this.observer.awaited(since.unwrap_or_else(Instant::now));
                // The inner body has registered the waker already; the timer registers it too, so
                // that a frame and the end of the timeout both lead to the next poll.
                ready!(timer.as_mut().poll(cx));
                let why =
                    format!("no byte of it arrived within timeouts.idle, {:?}", this.idle_timeout);
                let error = this.fail(LimitError::Idle, why);
                Poll::Ready(Some(Err(error)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        // A held-back error has still to be read, even if the inner body has nothing more.
        self.pending_error.is_none() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // Exact where the inner body's is: the filter changes trailers only, which do not count.
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

    fn limited<O: BodyObserver>(
        body: Body,
        max_bytes: u64,
        idle_seconds: u64,
        observer: O,
    ) -> LimitedBody<O, fn(HeaderMap) -> HeaderMap> {
        let idle = Duration::from_secs(idle_seconds);
        LimitedBody::new(body, max_bytes, idle, observer, |trailers| trailers)
    }

    #[tokio::test(start_paused = true)]
    async fn a_stalled_body_ends_in_time() {
        let started = Instant::now();
        let body = limited(Body::boxed(Stalled), 10, 60, ());
        let (mut body, progress) = body.with_progress();
        assert!(body.frame().await.unwrap().is_err());
        assert_eq!(started.elapsed().as_secs(), 60);
        assert_eq!(progress.get().error, Some(LimitError::Idle));
    }

    #[tokio::test]
    async fn a_body_over_its_bound_fails_and_one_at_its_bound_passes() {
        for (bound, error) in [(4, Some(LimitError::TooLarge)), (5, None)] {
            let body = limited(Body::full("12345"), bound, 1, ());
            let (body, progress) = body.with_progress();
            assert_eq!(body.collect().await.is_err(), error.is_some());
            assert_eq!(progress.get().error, error);
        }
    }

    impl BodyObserver for Rc<()> {}

    #[tokio::test]
    async fn the_observer_is_dropped_with_the_body() {
        let observer = Rc::new(());
        let held = Rc::clone(&observer);
        let body = limited(Body::full("1"), 5, 1, held);
        assert_eq!(Rc::strong_count(&observer), 2);
        drop(body);
        assert_eq!(Rc::strong_count(&observer), 1);
    }
}
