//! The outermost layer: gives each request its scope and its record, and turns a rejection into a
//! response.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use http::Response;
use pin_project_lite::pin_project;
use tower::Service;

use super::access_log::AccessRecord;
use super::headers::FieldClass;
use super::rejection::Rejection;
use super::request::scope::{RequestScope, ScopedRequest};
use super::snapshot::WorkerState;
use crate::body::Body;
use crate::server::Inbound;

/// Opens the record of a request and closes it with the response.
#[derive(Clone)]
pub struct Record<S> {
    worker: Rc<WorkerState>,
    inner: S,
}

impl<S> Record<S> {
    /// Records the requests of a worker that `inner` serves.
    pub fn new(worker: &Rc<WorkerState>, inner: S) -> Self {
        Self { worker: Rc::clone(worker), inner }
    }
}

impl<S> Service<Inbound> for Record<S>
where
    S: Service<Box<ScopedRequest>, Response = Response<Body>, Error = Rejection>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = RecordFuture<S::Future>;

    /// Always ready: a service that is not would make requests wait without a limit.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, inbound: Inbound) -> Self::Future {
        let snapshot = self.worker.snapshot();
        let Inbound { request, connection, client, upgrade } = inbound;
        let fields = FieldClass::classify_all(request.headers());
        let record = AccessRecord::new(
            &request,
            connection.peer.address,
            fields,
            snapshot.plan.request_log,
            snapshot.stop.clone(),
        );
        let in_flight = snapshot.metrics.enter_in_flight();
        let scope = RequestScope::new(snapshot, record, in_flight, self.worker.requests());
        // Held twice: by the request's future, and here, so that the record outlives a future that is
        // dropped or ends in an error.
        let held = scope.clone();
        let request = ScopedRequest { request, fields, connection, client, upgrade, scope: held };
        // In a box, since it is moved from state to state.
        // The service is ready: none of the layers below ever waits for capacity.
        RecordFuture { inner: self.inner.call(Box::new(request)), scope }
    }
}

pin_project! {
    /// Waits for the response or rejection of a request.
    pub struct RecordFuture<F> {
        #[pin]
        inner: F,
        scope: RequestScope,
    }
}

impl<F> Future for RecordFuture<F>
where
    F: Future<Output = Result<Response<Body>, Rejection>>,
{
    type Output = Result<Response<Body>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        // Dropped before this is ready, when the client leaves, the record closes itself.
        let outcome = ready!(this.inner.poll(cx));
        Poll::Ready(Ok(this.scope.finish(outcome)))
    }
}
