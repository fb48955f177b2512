//! Gives each request its scope, and turns what comes of it into the answer and the line of the log.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use http::Response;
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::access_log::AccessRecord;
use super::headers::FieldClass;
use super::rejection::Rejection;
use super::request::scope::{RequestScope, ScopedRequest};
use super::snapshot::WorkerState;
use crate::body::Body;
use crate::server::Inbound;

/// Puts [`Record`] around a service.
#[derive(Clone)]
pub struct RecordLayer(Rc<WorkerState>);

impl RecordLayer {
    /// Of this worker's requests.
    pub fn new(worker: Rc<WorkerState>) -> Self {
        Self(worker)
    }
}

/// Begins the record of a request and ends it with the answer.
#[derive(Clone)]
pub struct Record<S> {
    worker: Rc<WorkerState>,
    inner: S,
}

impl<S> Layer<S> for RecordLayer {
    type Service = Record<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Record { worker: Rc::clone(&self.0), inner }
    }
}

impl<S> Service<Inbound> for Record<S>
where
    S: Service<Box<ScopedRequest>, Response = Response<Body>, Error = Rejection>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = RecordFuture<S::Future>;

    /// Always ready: a service that is not could only make requests wait without a bound.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, inbound: Inbound) -> Self::Future {
        let snapshot = self.worker.snapshot();
        let Inbound { request, connection, client, upgrade } = inbound;
        let fields = FieldClass::classify_all(request.headers());
        let record =
            AccessRecord::new(&request, fields, snapshot.plan.request_log, snapshot.stop.clone());
        let in_flight = snapshot.metrics.enter_in_flight();
        let scope = RequestScope::new(snapshot, record, in_flight, self.worker.requests());
        let held = scope.clone();
        let request = ScopedRequest { request, fields, connection, client, upgrade, scope: held };
        // In a box, since it is handed from state to state.
        RecordFuture { inner: self.inner.call(Box::new(request)), scope }
    }
}

pin_project! {
    /// The wait for the outcome of a request.
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
        let outcome = ready!(this.inner.poll(cx));
        Poll::Ready(Ok(this.scope.finish(outcome)))
    }
}
