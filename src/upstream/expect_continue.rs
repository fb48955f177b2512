//! Interim (1xx) responses of an HTTP/1.1 server: `Expect: 100-continue` (RFC 9110 section 10.1.1), and
//! a limit on their number.
//!
//! The body of a request that expects 100 is held until the server asks for it. The proxy's own client
//! is asked when the body is first polled, so that it is asked when the server asks. A server that is
//! silent for a while does not know the field, and gets the body. One that sends a final response
//! instead does not get it, and the connection ends with the response.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::header::EXPECT;
use http::{Request, StatusCode};
use http_body::Body as _;
use tokio::time::Sleep;

use crate::body::{Body, BodyError, BodyFilter, Filtered, PollFrame};

/// How long a server may take to ask for a body before the body is sent without that.
const PATIENCE: Duration = Duration::from_millis(500);

/// Interim responses to one request that are read; the next one ends the exchange. hyper itself has no
/// limit.
const MAX_INTERIM: u32 = 32;

/// The decision on sending a request body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ContinueState {
    /// The server has not decided yet.
    Undecided,
    /// The body is sent: the server asked for it, or was silent for a while.
    Send,
    /// The final response came first: the body is held while the response body is on its way.
    Withhold,
    /// The response has ended, and the request fails without its body.
    Abandon,
}

/// The interim responses to one request. The held body, hyper's callback for interim responses, and the
/// final response share it.
#[derive(Clone)]
pub(super) struct Interim(Arc<Mutex<State>>);

struct State {
    count: u32,
    body: ContinueState,
    /// The task that polls the held body.
    sender: Option<Waker>,
    /// The task that waits for the final response.
    receiver: Option<Waker>,
}

impl Interim {
    /// Registers for interim responses, and holds the body of a request that expects 100.
    pub(super) fn listen(request: &mut Request<Body>) -> Self {
        let holds = !request.body().is_end_stream() && request.headers().contains_key(EXPECT);
        let body = if holds { ContinueState::Undecided } else { ContinueState::Send };
        let state = State { count: 0, body, sender: None, receiver: None };
        let interim = Self(Arc::new(Mutex::new(state)));
        if holds {
            let body = std::mem::take(request.body_mut());
            let sleep = Box::pin(tokio::time::sleep(PATIENCE));
            let filter = HeldBody { sleep, interim: interim.clone() };
            *request.body_mut() = Body::boxed(Filtered::new(body, filter));
        }
        let callback = interim.clone();
        hyper::ext::on_informational(request, move |response| callback.received(response.status()));
        interim
    }

    /// Notes an interim response.
    fn received(&self, status: StatusCode) {
        let mut state = self.lock();
        state.count += 1;
        // hyper's task calls this, but the request's task ends the exchange.
        if state.count > MAX_INTERIM {
            state.receiver.take().into_iter().for_each(Waker::wake);
        }
        if status == StatusCode::CONTINUE {
            state.change(ContinueState::Undecided, ContinueState::Send);
        }
    }

    /// Ready when there were more interim responses than [`MAX_INTERIM`].
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

    /// Notes the final response. Returns true if the server never asked for the request body, which then
    /// fails when `response_body` has ended.
    pub(super) fn responded(&self, response_body: &mut Body) -> bool {
        let mut state = self.lock();
        state.change(ContinueState::Undecided, ContinueState::Withhold);
        if state.body != ContinueState::Withhold {
            return false;
        }
        drop(state);
        let body = std::mem::take(response_body);
        *response_body = Body::boxed(Filtered::new(body, AbandonOnDrop(self.clone())));
        true
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn change(&mut self, from: ContinueState, to: ContinueState) {
        // Only from the expected state, so that a late 100 or timer cannot undo a final response.
        if self.body == from {
            self.body = to;
            self.sender.take().into_iter().for_each(Waker::wake);
        }
    }
}

/// Holds a request body until it is asked for.
struct HeldBody {
    sleep: Pin<Box<Sleep>>,
    interim: Interim,
}

impl BodyFilter for HeldBody {
    fn poll_frame(&mut self, body: &mut Body, cx: &mut Context<'_>) -> PollFrame {
        // The timer is polled without the lock, and its waker stays registered while the state is
        // undecided: either the timer or `change` wakes this task.
        let undecided = self.interim.lock().body == ContinueState::Undecided;
        if undecided && self.sleep.as_mut().poll(cx).is_ready() {
            self.interim.lock().change(ContinueState::Undecided, ContinueState::Send);
        }
        // Read again, since the timer may just have decided.
        let mut state = self.interim.lock();
        match state.body {
            ContinueState::Send => {}
            ContinueState::Abandon => {
                return Poll::Ready(Some(Err(BodyError::new("the body was not asked for"))));
            }
            ContinueState::Undecided | ContinueState::Withhold => {
                // Under the lock that the state was read under, so that no decision falls in between.
                state.sender = Some(cx.waker().clone());
                return Poll::Pending;
            }
        }
        // The body may call back into this exchange; it is polled without the lock.
        drop(state);
        Pin::new(body).poll_frame(cx)
    }
}

/// Dropped with a response that came before the request body was asked for: fails that body, which ends
/// the connection. Not earlier, since hyper would then cut the response.
struct AbandonOnDrop(Interim);

impl Drop for AbandonOnDrop {
    fn drop(&mut self) {
        self.0.lock().change(ContinueState::Withhold, ContinueState::Abandon);
    }
}

impl BodyFilter for AbandonOnDrop {}
