//! Informational answers of an HTTP/1.1 server: `Expect: 100-continue` (RFC 9110 section 10.1.1), and a
//! bound on how many are waited for.
//!
//! The body of a request that expects 100 waits until the server asks for it, and so the client is
//! asked when the server asks. A server that says nothing for a while does not know the field, and is
//! sent the body. One that answers without having asked is not sent it, and the connection ends with
//! the answer.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::header::EXPECT;
use http::{Request, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Sleep;

use crate::body::{Body, BodyError, Observed, Observer};

/// How long a server may take to ask for a body before it is sent unasked.
const PATIENCE: Duration = Duration::from_millis(500);

/// Informational answers to one request that are read; the next one ends the exchange. hyper itself
/// would read them without end.
const MAX_INTERIM: u32 = 32;

/// Whether a request's body is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ContinueState {
    /// The server has not said.
    Unknown,
    /// It is to be sent: the server asked for it, or said nothing for a while.
    Wanted,
    /// The final answer came first: the body is held back while the answer's own is on its way.
    Answered,
    /// The answer has ended, and the request ends without its body.
    Over,
}

/// What the server has said of one request before its final answer. Shared by the body that waits, by
/// hyper's callback for informational answers, and by the answer.
#[derive(Clone)]
pub(super) struct Interim(Arc<Mutex<State>>);

struct State {
    count: u32,
    body: ContinueState,
    /// The task that waits to send the body.
    sender: Option<Waker>,
    /// The task that waits for the answer.
    receiver: Option<Waker>,
}

impl Interim {
    /// Listens for informational answers, and holds back the body of a request that expects 100.
    pub(super) fn listen(request: &mut Request<Body>) -> Self {
        let holds = !request.body().is_end_stream() && request.headers().contains_key(EXPECT);
        let body = if holds { ContinueState::Unknown } else { ContinueState::Wanted };
        let state = State { count: 0, body, sender: None, receiver: None };
        let interim = Self(Arc::new(Mutex::new(state)));
        if holds {
            let inner = std::mem::take(request.body_mut());
            let sleep = Box::pin(tokio::time::sleep(PATIENCE));
            *request.body_mut() = Body::boxed(HeldBody { inner, sleep, interim: interim.clone() });
        }
        let told = interim.clone();
        hyper::ext::on_informational(request, move |answer| told.received(answer.status()));
        interim
    }

    /// An informational answer has come.
    fn received(&self, status: StatusCode) {
        let mut state = self.lock();
        state.count += 1;
        if state.count > MAX_INTERIM {
            state.receiver.take().into_iter().for_each(Waker::wake);
        }
        if status == StatusCode::CONTINUE {
            state.change(ContinueState::Unknown, ContinueState::Wanted);
        }
    }

    /// Ready when more informational answers have come than are waited for.
    pub(super) fn poll_too_many(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.count > MAX_INTERIM {
            return Poll::Ready(());
        }
        if !state.receiver.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            state.receiver = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// The final answer has come. Whether the body was never asked for; it is let go when the answer's
    /// own body has ended.
    pub(super) fn answered(&self, body: &mut Body) -> bool {
        let mut state = self.lock();
        state.change(ContinueState::Unknown, ContinueState::Answered);
        if state.body != ContinueState::Answered {
            return false;
        }
        drop(state);
        let inner = std::mem::take(body);
        *body = Body::boxed(Observed::new(inner, EndHeldBody(self.clone())));
        true
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn change(&mut self, from: ContinueState, to: ContinueState) {
        if self.body == from {
            self.body = to;
            self.sender.take().into_iter().for_each(Waker::wake);
        }
    }
}

/// A request's body that waits to be asked for. Its client is asked when it is first polled.
struct HeldBody {
    inner: Body,
    sleep: Pin<Box<Sleep>>,
    interim: Interim,
}

impl HttpBody for HeldBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let unknown = self.interim.lock().body == ContinueState::Unknown;
        if unknown && self.sleep.as_mut().poll(cx).is_ready() {
            self.interim.lock().change(ContinueState::Unknown, ContinueState::Wanted);
        }
        let mut state = self.interim.lock();
        match state.body {
            ContinueState::Wanted => {}
            ContinueState::Over => {
                return Poll::Ready(Some(Err(BodyError::new("the body was not asked for"))));
            }
            ContinueState::Unknown | ContinueState::Answered => {
                state.sender = Some(cx.waker().clone());
                return Poll::Pending;
            }
        }
        drop(state);
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Goes with an answer that came before the request's body was asked for. Dropping it fails that body,
/// which ends the connection.
struct EndHeldBody(Interim);

impl Drop for EndHeldBody {
    fn drop(&mut self) {
        self.0.lock().change(ContinueState::Answered, ContinueState::Over);
    }
}

impl Observer for EndHeldBody {}
