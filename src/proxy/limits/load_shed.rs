//! A limit on requests in flight, with load shedding: further requests are rejected at once, since a
//! queue in a sidecar would only delay every response.
//!
//! tower's `ConcurrencyLimit` releases its permit with the head of the response. Here the scope of
//! the request holds it, which both bodies share, so that an exchange in progress (an upload after
//! an early response, a download, an event stream, a WebSocket) still counts.

use std::future::{Ready, ready};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::Either;
use http::Response;
use tower::Service;

use super::in_flight::InFlight;
use crate::body::Body;
use crate::proxy::rejection::{Code, Rejection};
use crate::proxy::request::scope::ScopedRequest;

/// Serves up to `server.max_in_flight` requests at a time, and rejects further ones.
#[derive(Debug, Clone)]
pub struct LoadShed<S> {
    in_flight: InFlight,
    inner: S,
}

impl<S> LoadShed<S> {
    /// Limits the requests that `inner` serves together with all others that share the count.
    pub fn new(in_flight: &InFlight, inner: S) -> Self {
        Self { in_flight: in_flight.clone(), inner }
    }
}

impl<S> Service<Box<ScopedRequest>> for LoadShed<S>
where
    S: Service<Box<ScopedRequest>, Response = Response<Body>, Error = Rejection>,
{
    type Response = Response<Body>;
    type Error = Rejection;
    type Future = Either<S::Future, Ready<Result<Response<Body>, Rejection>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Rejection>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Box<ScopedRequest>) -> Self::Future {
        let max = request.scope.plan().limits.max_in_flight;
        match self.in_flight.admit(max) {
            Some(permit) => {
                // The scope outlives this call: it ends with both bodies.
                request.scope.hold(permit);
                Either::Left(self.inner.call(request))
            }
            // `Either` instead of a box: the future of an admitted request stays in its connection's
            // task.
            None => Either::Right(ready(Err(overloaded(max)))),
        }
    }
}

fn overloaded(max: usize) -> Rejection {
    let detail = format!("{max} requests are under way, the limit server.max_in_flight");
    Rejection::new(Code::Overloaded, detail).retry_after(Duration::from_secs(1))
}
