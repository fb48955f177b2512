//! A body under guard: bounded in size, and in the time that may pass without a byte.
//!
//! hyper itself times and counts nothing. The timer is armed only while the inner body has nothing
//! to give, so that a body which flows costs no timer at all.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use crate::body::{Body, BodyError};

/// Why a guarded body ended before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Breach {
    /// More bytes than allowed.
    TooLarge,
    /// No byte for too long.
    Idle,
    /// The sender went away in the middle.
    Cut,
}

/// What a guarded body tells those who wait for its effects.
#[derive(Debug, Clone)]
pub struct Watch(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    started: Instant,
    /// Milliseconds from `started` to the last frame.
    progress_ms: AtomicU64,
    state: AtomicU8,
}

const FLOWING: u8 = 0;
const DONE: u8 = 1;
const TOO_LARGE: u8 = 2;
const IDLE: u8 = 3;
const CUT: u8 = 4;

impl Watch {
    /// When the last frame passed.
    pub fn last_progress(&self) -> Instant {
        self.0.started + Duration::from_millis(self.0.progress_ms.load(Ordering::Relaxed))
    }

    /// Why the body ended early, if it did.
    pub fn breach(&self) -> Option<Breach> {
        match self.0.state.load(Ordering::Relaxed) {
            TOO_LARGE => Some(Breach::TooLarge),
            IDLE => Some(Breach::Idle),
            CUT => Some(Breach::Cut),
            _ => None,
        }
    }

    /// Whether the body has passed whole.
    pub fn is_done(&self) -> bool {
        self.0.state.load(Ordering::Relaxed) == DONE
    }

    fn touch(&self) {
        let elapsed = self.0.started.elapsed().as_millis();
        self.0.progress_ms.store(u64::try_from(elapsed).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// A body whose size and pauses are bounded.
pub struct Guarded {
    inner: Body,
    idle: Duration,
    remaining: u64,
    timer: Option<Pin<Box<Sleep>>>,
    watch: Option<Watch>,
    /// Why the inner body ended early, until it is told.
    cut: Option<BodyError>,
}

impl Guarded {
    /// Guards a body: at most `max_bytes` bytes, at most `idle` between two frames.
    pub fn new(inner: Body, max_bytes: u64, idle: Duration) -> Self {
        Self { inner, idle, remaining: max_bytes, timer: None, watch: None, cut: None }
    }

    /// The same, watched by somebody.
    pub fn watched(mut self) -> (Self, Watch) {
        let watch = Watch(Arc::new(Shared {
            started: Instant::now(),
            progress_ms: AtomicU64::new(0),
            state: AtomicU8::new(if self.inner.is_end_stream() { DONE } else { FLOWING }),
        }));
        self.watch = Some(watch.clone());
        (self, watch)
    }

    fn tell(&self, state: u8) {
        if let Some(watch) = &self.watch {
            watch.0.state.store(state, Ordering::Relaxed);
        }
    }

    fn fail(
        &mut self,
        state: u8,
        why: &'static str,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.tell(state);
        Poll::Ready(Some(Err(BodyError::new(why))))
    }

    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let idle = self.idle;
        self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(idle))).as_mut().poll(cx)
    }
}

impl HttpBody for Guarded {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(error) = self.cut.take() {
            return Poll::Ready(Some(Err(error)));
        }
        match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.timer = None;
                if let Some(watch) = &self.watch {
                    watch.touch();
                }
                let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                match self.remaining.checked_sub(length) {
                    Some(remaining) => self.remaining = remaining,
                    None => return self.fail(TOO_LARGE, "the body is larger than allowed"),
                }
                if self.inner.is_end_stream() {
                    self.tell(DONE);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                self.tell(CUT);
                // What is not written when a body fails never is: what came before the cut goes first.
                self.cut = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Ready(None) => {
                self.tell(DONE);
                Poll::Ready(None)
            }
            Poll::Pending => match self.poll_idle(cx) {
                Poll::Ready(()) => self.fail(IDLE, "no byte of the body arrived in time"),
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
        let (mut body, watch) =
            Guarded::new(Body::boxed(Stalled), 10, Duration::from_secs(60)).watched();
        assert!(body.frame().await.unwrap().is_err());
        assert_eq!(started.elapsed().as_secs(), 60);
        assert_eq!(watch.breach(), Some(Breach::Idle));
    }

    #[tokio::test]
    async fn a_body_over_its_bound_fails_and_one_at_its_bound_passes() {
        for (bound, breach) in [(4, Some(Breach::TooLarge)), (5, None)] {
            let body = Guarded::new(Body::full("12345"), bound, Duration::from_secs(1));
            let (body, watch) = body.watched();
            assert_eq!(body.collect().await.is_err(), breach.is_some());
            assert_eq!(watch.breach(), breach);
            assert_eq!(watch.is_done(), breach.is_none());
        }
    }
}
