//! A bound on requests under way, with shedding: beyond it a request is refused at once, since a queue
//! in a sidecar only makes every answer late.
//!
//! tower's `ConcurrencyLimit` frees a place with the head of the answer. Here the permit is held by the
//! request's scope, which travels in both bodies, so that an exchange that goes on (an upload after an
//! early answer, a download, an event stream, a WebSocket) still counts.

use std::future::{Ready, ready};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::Either;
use http::Response;
use tower::{Layer, Service};

use super::in_flight::InFlight;
use crate::body::Body;
use crate::proxy::rejection::{Code, Rejection};
use crate::proxy::request::scope::ScopedRequest;

/// Puts [`LoadShed`] around a service.
#[derive(Debug, Clone)]
pub struct LoadShedLayer(InFlight);

impl LoadShedLayer {
    /// Counts with all others that count here.
    pub fn new(in_flight: InFlight) -> Self {
        Self(in_flight)
    }
}

/// Serves up to `server.max_in_flight` requests at a time, and refuses the others.
#[derive(Debug, Clone)]
pub struct LoadShed<S> {
    in_flight: InFlight,
    inner: S,
}

impl<S> Layer<S> for LoadShedLayer {
    type Service = LoadShed<S>;

    fn layer(&self, inner: S) -> Self::Service {
        LoadShed { in_flight: self.0.clone(), inner }
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
        match self.in_flight.admit(request.scope.plan().limits.max_in_flight) {
            Some(permit) => {
                request.scope.hold(permit);
                Either::Left(self.inner.call(request))
            }
            None => Either::Right(ready(Err(overloaded()))),
        }
    }
}

fn overloaded() -> Rejection {
    Rejection::new(Code::Overloaded, "server.max_in_flight requests are under way")
        .retry_after(Duration::from_secs(1))
}
