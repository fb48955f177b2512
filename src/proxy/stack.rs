//! The request path as a stack of tower layers, outermost first, each with the reason why it sits there.

use std::convert::Infallible;
use std::future::Future;
use std::rc::Rc;

use http::Response;
use tower::{Service, ServiceBuilder, service_fn};

use super::forward::forward;
use super::limits::load_shed::LoadShedLayer;
use super::record::RecordLayer;
use super::snapshot::WorkerState;
use crate::body::Body;
use crate::server::Inbound;

/// A worker's service for the requests of all its connections. It never fails: refusals are answers.
///
/// It is as cheap to clone as two reference counts, and its future is not boxed.
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
        // Outermost, so that every request has one line in the log and one plan, whatever refuses it
        // below; what is a refusal below it is a problem document above it.
        .layer(RecordLayer::new(Rc::clone(worker)))
        // Before anything of the request is looked at, so that a flood costs next to nothing.
        .layer(LoadShedLayer::new(worker.in_flight().clone()))
        // The states of a request, from received to sent: each is a type, so that none can be left out.
        .service(service_fn(forward))
}
