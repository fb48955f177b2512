//! The one body type that travels on the request path, and filters that run while a body is polled.
//!
//! [`Body`] is a newtype over the few shapes that a body has here, so that the common ones (empty, whole
//! in memory, received by hyper) cost no allocation. It is not `Send`: a request stays on its worker's
//! thread.

use std::error::Error as StdError;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;

/// Any error, as it travels inside a [`BodyError`].
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// The result of polling a body for its next frame; `Ready(None)` is its end.
pub type PollFrame = Poll<Option<Result<Frame<Bytes>, BodyError>>>;

/// A message body: empty, whole in memory, received by hyper, or anything else behind a box.
pub struct Body {
    inner: Inner,
    /// Learns how much of a response reached the client.
    delivery: Option<Rc<dyn DeliveryObserver>>,
}

/// How much of a response reached its client, as far as this machine can know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// Some of its bytes were handed to the kernel, but not all. Over HTTP/2: h2 took its head.
    Partial,
    /// The kernel took its last byte. Over HTTP/2: h2 took END_STREAM.
    Complete,
}

/// Learns how much of a response reached its client.
pub trait DeliveryObserver {
    /// Called at most once, and before the observer is dropped. Not called if no byte was sent.
    fn delivered(&self, delivery: Delivery);

    /// Called before that if the server cut the response because the client took none of it for this time.
    fn stalled(&self, limit: Duration) {
        let _ = limit;
    }
}

// The two kinds that nearly every message has are kept unboxed: a body that hyper receives and passes on
// then costs no allocation and no virtual call for each frame.
enum Inner {
    Empty,
    /// `None` once the bytes have been taken.
    Full(Option<Bytes>),
    Incoming(Incoming),
    // Not `Send`: a worker's bodies never leave its thread.
    Boxed(Pin<Box<dyn HttpBody<Data = Bytes, Error = BodyError>>>),
}

impl Body {
    /// A body of no bytes.
    pub const fn empty() -> Self {
        Self::of(Inner::Empty)
    }

    /// A body that is entirely in memory.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        if bytes.is_empty() { Self::empty() } else { Self::of(Inner::Full(Some(bytes))) }
    }

    /// True if the body is empty or entirely in memory, so that it never waits for a peer.
    pub fn is_whole(&self) -> bool {
        matches!(self.inner, Inner::Empty | Inner::Full(_))
    }

    /// A body that hyper is receiving.
    pub const fn incoming(incoming: Incoming) -> Self {
        Self::of(Inner::Incoming(incoming))
    }

    /// Any other body, at the price of one allocation.
    pub fn boxed<B>(body: B) -> Self
    where
        B: HttpBody<Data = Bytes, Error = BodyError> + 'static,
    {
        Self::of(Inner::Boxed(Box::pin(body)))
    }

    /// The same body, which calls `on_end` when it was polled to its end. It allocates once.
    pub fn on_end(self, on_end: impl FnMut() + Unpin + 'static) -> Self {
        Self::boxed(Filtered::new(self, OnEnd(on_end)))
    }

    const fn of(inner: Inner) -> Self {
        Self { inner, delivery: None }
    }

    /// Adds an observer, to which the server reports how much of the response was delivered.
    #[must_use]
    pub fn observed_by(self, observer: Rc<dyn DeliveryObserver>) -> Self {
        Self { delivery: Some(observer), ..self }
    }

    /// Takes the observer. The server calls it and drops it when the response has ended.
    pub fn take_observer(&mut self) -> Option<Rc<dyn DeliveryObserver>> {
        self.delivery.take()
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> PollFrame {
        match &mut self.inner {
            Inner::Empty => Poll::Ready(None),
            // Taken, so that a second poll is the end.
            Inner::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Inner::Incoming(incoming) => {
                Pin::new(incoming).poll_frame(cx).map_err(|error| BodyError(Box::new(error)))
            }
            Inner::Boxed(body) => body.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        // hyper frames a message by this answer before it polls: a body that is empty and says false would
        // go out as `chunked`, also for a GET.
        match &self.inner {
            Inner::Empty => true,
            Inner::Full(bytes) => bytes.is_none(),
            Inner::Incoming(incoming) => incoming.is_end_stream(),
            Inner::Boxed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Inner::Empty => SizeHint::with_exact(0),
            Inner::Full(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Inner::Incoming(incoming) => incoming.size_hint(),
            Inner::Boxed(body) => body.size_hint(),
        }
    }
}

/// Runs each time a body is polled, and is dropped with it: it may watch, delay, replace or fail frames.
pub trait BodyFilter: Unpin {
    /// Polls `body` for the next frame that is passed on.
    fn poll_frame(&mut self, body: &mut Body, cx: &mut Context<'_>) -> PollFrame {
        Pin::new(body).poll_frame(cx)
    }
}

/// A body whose frames pass through a [`BodyFilter`]. Its length and end are those of the body.
pub struct Filtered<F> {
    body: Body,
    filter: F,
}

impl<F: BodyFilter> Filtered<F> {
    /// Lets `filter` poll `body`.
    pub fn new(body: Body, filter: F) -> Self {
        Self { body, filter }
    }
}

impl<F: BodyFilter> HttpBody for Filtered<F> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> PollFrame {
        // Both parts are `Unpin`: nothing is pinned but what a body has boxed. The filter polls the body
        // with the same `cx`, so that whichever of the two is pending has registered the waker.
        let Self { body, filter } = &mut *self;
        filter.poll_frame(body, cx)
    }

    fn is_end_stream(&self) -> bool {
        // Not the filter's to say: one that adds or holds back bytes would break the announced length.
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

struct OnEnd<F>(F);

impl<F: FnMut() + Unpin> BodyFilter for OnEnd<F> {
    fn poll_frame(&mut self, body: &mut Body, cx: &mut Context<'_>) -> PollFrame {
        let frame = Pin::new(&mut *body).poll_frame(cx);
        // At the last frame, since hyper may drop the body without polling it once more.
        if is_last(&frame, body) {
            (self.0)();
        }
        frame
    }
}

/// True if polling `body` returned its end: no frame, or its last one. hyper does not poll again after a
/// frame with which `is_end_stream` turns true, so that waiting for `None` would miss most ends.
pub fn is_last(frame: &PollFrame, body: &Body) -> bool {
    match frame {
        Poll::Ready(None) => true,
        // Nothing follows trailers, in HTTP/1 as in HTTP/2, and not every body says so by itself.
        Poll::Ready(Some(Ok(frame))) => frame.is_trailers() || body.is_end_stream(),
        // An error is an end, but not the end of a whole body: who asks would take it for complete.
        Poll::Ready(Some(Err(_))) | Poll::Pending => false,
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::empty()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.inner {
            Inner::Empty => "Body(empty)",
            Inner::Full(_) => "Body(full)",
            Inner::Incoming(_) => "Body(incoming)",
            Inner::Boxed(_) => "Body(boxed)",
        })
    }
}

/// An error and the innermost of its sources: hyper says what it did, the system why it failed.
pub fn with_root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut root = error;
    while let Some(source) = root.source() {
        root = source;
    }
    let (outer, inner) = (plain_words(&error.to_string()), plain_words(&root.to_string()));
    if outer.contains(&inner) { outer } else { format!("{outer}: {inner}") }
}

/// The message of an error without the link to a manual for programmers, which rustls adds to one of its
/// messages.
pub fn plain_words(message: &str) -> String {
    let message = message.split(": https://docs.rs/").next().unwrap_or_default();
    message.replace(
        "peer closed connection without sending TLS close_notify",
        "the peer closed its connection without TLS close_notify, as one that is cut off does",
    )
}

/// A body ended before it was complete; the source says why.
#[derive(Debug, thiserror::Error)]
#[error("the body ended before it was complete")]
pub struct BodyError(#[source] BoxError);

impl BodyError {
    /// The cause in words.
    pub fn reason(&self) -> String {
        with_root_cause(&*self.0)
    }

    /// Wraps the cause of the early end.
    pub fn new(error: impl Into<BoxError>) -> Self {
        Self(error.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_no_links_for_programmers() {
        let message = "peer closed connection without sending TLS close_notify: \
                       https://docs.rs/rustls/latest/rustls/manual/_03_howto/index.html#unexpected-eof";
        let words =
            "the peer closed its connection without TLS close_notify, as one that is cut off does";
        let error = std::io::Error::new(std::io::ErrorKind::UnexpectedEof, message);
        assert_eq!(with_root_cause(&error), words);
        assert_eq!(plain_words("connection reset"), "connection reset");
    }
}
