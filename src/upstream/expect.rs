//! `Expect: 100-continue` towards an HTTP/1.1 server (RFC 9110 section 10.1.1): the body of a
//! request waits until the server asks for it, and so the client is asked when the server asks.
//!
//! A server that says nothing for a while does not know the field, and is sent the body. One that
//! answers without having asked is not sent it, and the connection ends with the answer.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::header::EXPECT;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Sleep;

use crate::body::{Body, BodyError, Observed, Observer};
use crate::message::{Request, Response};

/// How long a server may take to ask for a body before it is sent unasked.
const PATIENCE: Duration = Duration::from_millis(500);

/// Among an answer's extensions: the request's body was not asked for, and the client still has it.
#[derive(Debug, Clone, Copy)]
pub struct BodyUnasked;

/// What a server has said of a request's body so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Unknown,
    /// It is to be sent.
    Wanted,
    /// The answer came first: it is held back while the answer's own body is on its way.
    Answered,
    /// The answer has ended.
    Over,
}

/// Shared by the body that waits, the callback for 100, and the answer.
#[derive(Clone)]
pub(super) struct Expectation(Arc<Mutex<Shared>>);

struct Shared {
    wish: Wish,
    waiting: Option<Waker>,
}

impl Expectation {
    /// Holds back the body of a request that expects 100.
    pub(super) fn hold(request: &mut Request) -> Option<Self> {
        if request.body.is_end_stream() || !request.fields.contains(EXPECT) {
            return None;
        }
        let shared = Shared { wish: Wish::Unknown, waiting: None };
        let expectation = Self(Arc::new(Mutex::new(shared)));
        let inner = std::mem::take(&mut request.body);
        let sleep = Box::pin(tokio::time::sleep(PATIENCE));
        let held = Held { inner, sleep, expectation: expectation.clone() };
        request.body = Body::boxed(held);
        Some(expectation)
    }

    /// Lets the body go, as the server's 100 asks, where nothing has been decided yet.
    pub(super) fn release(&self) {
        self.decide(Wish::Unknown, Wish::Wanted);
    }

    /// The answer has come. Where the body has not been asked for, it never will be.
    pub(super) fn answered(&self, response: &mut Response) {
        self.decide(Wish::Unknown, Wish::Answered);
        if self.shared().wish == Wish::Answered {
            let inner = std::mem::take(&mut response.body);
            response.body = Body::boxed(Observed::new(inner, End(self.clone())));
            response.extensions.insert(BodyUnasked);
        }
    }

    fn decide(&self, from: Wish, to: Wish) {
        let mut shared = self.shared();
        if shared.wish == from {
            shared.wish = to;
            shared.waiting.take().into_iter().for_each(Waker::wake);
        }
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request's body that waits to be asked for.
struct Held {
    inner: Body,
    sleep: Pin<Box<Sleep>>,
    expectation: Expectation,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.expectation.shared().wish == Wish::Unknown
            && self.sleep.as_mut().poll(cx).is_ready()
        {
            self.expectation.release();
        }
        let mut shared = self.expectation.shared();
        match shared.wish {
            Wish::Wanted => {}
            Wish::Over => {
                return Poll::Ready(Some(Err(BodyError::new("the body was not asked for"))));
            }
            Wish::Unknown | Wish::Answered => {
                shared.waiting = Some(cx.waker().clone());
                return Poll::Pending;
            }
        }
        drop(shared);
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Goes with an answer that came instead of the wish for the request's body, and ends that when the
/// answer's own has ended.
struct End(Expectation);

impl Drop for End {
    fn drop(&mut self) {
        self.0.decide(Wish::Answered, Wish::Over);
    }
}

impl Observer for End {}
