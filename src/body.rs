//! `Body`: the one body type that travels on the request path.
//!
//! A newtype over the few shapes that a body has here, so that the common ones (nothing, a few bytes,
//! what hyper receives) cost no allocation, and so that layers can be written once. It is not `Send`:
//! a request lives and dies on its worker's thread.

use std::error::Error as StdError;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;

/// Any error, as it travels inside a [`BodyError`].
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// A message body: empty, whole in memory, received by hyper, or anything else behind a box.
pub struct Body {
    inner: Inner,
    /// Told how much of the response reached the client; only on responses to clients.
    delivery: Option<Rc<dyn DeliveryObserver>>,
}

/// How much of a response reached its client, as far as this machine can know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// Some bytes of it were handed to the kernel (HTTP/2: its head was taken by h2), not all.
    Partial,
    /// HTTP/1: the kernel took its last byte. HTTP/2: h2 took END_STREAM.
    Complete,
}

/// Is told how much of a response reached its client.
pub trait DeliveryObserver {
    /// Called at most once, and before the observer is dropped. Not called: not one byte was sent.
    fn delivered(&self, delivery: Delivery);
}

enum Inner {
    Empty,
    Full(Option<Bytes>),
    Incoming(Incoming),
    Boxed(Pin<Box<dyn HttpBody<Data = Bytes, Error = BodyError>>>),
}

impl Body {
    /// A body of no bytes.
    pub const fn empty() -> Self {
        Self { inner: Inner::Empty, delivery: None }
    }

    /// A body that is already whole in memory.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        if bytes.is_empty() { Self::empty() } else { Self::of(Inner::Full(Some(bytes))) }
    }

    /// Whether all of it is in memory, so that nobody waits for the rest.
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

    const fn of(inner: Inner) -> Self {
        Self { inner, delivery: None }
    }

    /// The same body, and an observer that the server tells how much of the response was delivered.
    #[must_use]
    pub fn observed_by(self, observer: Rc<dyn DeliveryObserver>) -> Self {
        Self { delivery: Some(observer), ..self }
    }

    /// Takes the observer out; the server calls it and drops it when the response has ended.
    pub fn take_observer(&mut self) -> Option<Rc<dyn DeliveryObserver>> {
        self.delivery.take()
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.inner {
            Inner::Empty => Poll::Ready(None),
            Inner::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Inner::Incoming(incoming) => {
                Pin::new(incoming).poll_frame(cx).map_err(|error| BodyError(Box::new(error)))
            }
            Inner::Boxed(body) => body.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
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

/// What looks on while a body passes, and is dropped with it.
pub trait Observer {
    /// The body was asked for its next frame, and this came of it.
    fn saw(&mut self, frame: &Poll<Option<Result<Frame<Bytes>, BodyError>>>, body: &Body) {
        let _ = (frame, body);
    }
}

/// Whether what polling `body` brought is its end: no frame, or its last one.
pub fn is_last(frame: &Poll<Option<Result<Frame<Bytes>, BodyError>>>, body: &Body) -> bool {
    match frame {
        Poll::Ready(None) => true,
        Poll::Ready(Some(Ok(frame))) => frame.is_trailers() || body.is_end_stream(),
        Poll::Ready(Some(Err(_))) | Poll::Pending => false,
    }
}

/// A body and its observer.
pub struct Observed<O> {
    body: Body,
    observer: O,
}

impl<O: Observer> Observed<O> {
    /// Lets `observer` look on while `body` passes.
    pub fn new(body: Body, observer: O) -> Self {
        Self { body, observer }
    }
}

impl<O: Observer + Unpin> HttpBody for Observed<O> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Self { body, observer } = &mut *self;
        let frame = Pin::new(&mut *body).poll_frame(cx);
        observer.saw(&frame, body);
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
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

/// A body could not be read to its end.
pub struct BodyError(BoxError);

impl BodyError {
    /// What made the body end early, in words.
    pub fn reason(&self) -> impl fmt::Display {
        &self.0
    }

    /// Wraps whatever made the body end early.
    pub fn new(error: impl Into<BoxError>) -> Self {
        Self(error.into())
    }
}

impl fmt::Debug for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BodyError({:?})", self.0)
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the body ended before it was complete")
    }
}

impl StdError for BodyError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.0)
    }
}
