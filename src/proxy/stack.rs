//! The request path as a stack of tower layers, outermost first, each with the reason why it sits there.

use std::convert::Infallible;
use std::future::Future;
use std::rc::Rc;

use http::Response;
use tower::layer::layer_fn;
use tower::{Service, ServiceBuilder, service_fn};

use super::forward::forward;
use super::limits::load_shed::LoadShed;
use super::record::Record;
use super::snapshot::WorkerState;
use crate::body::Body;
use crate::server::Inbound;

/// A worker's service for the requests of all its connections. It never fails: a rejection becomes a
/// response.
///
/// A clone increments two reference counts, and its future is not boxed.
pub fn stack(
    worker: &Rc<WorkerState>,
) -> impl Service<
    Inbound,
    Response = Response<Body>,
    Error = Infallible,
    Future = impl Future<Output = Result<Response<Body>, Infallible>> + use<>,
> + Clone
+ use<> {
    ServiceBuilder::new()
        // Outermost, so that every request has one plan and one line in the log, whichever layer
        // rejects it: a rejection of the layers below is a problem document above.
        .layer(layer_fn(|inner| Record::new(worker, inner)))
        // Before the request is examined, so that a flood costs next to nothing.
        .layer(layer_fn(|inner| LoadShed::new(worker.in_flight(), inner)))
        // The states of a request, from received to sent: each is a type, so that none can be skipped.
        .service(service_fn(forward))
}
