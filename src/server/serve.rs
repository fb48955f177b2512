//! One client connection, whichever version of HTTP it speaks: `http1`, or `http2` once its preface
//! has come.

use std::convert::Infallible;
use std::rc::Rc;

use tower::Service;

use super::activity::Phase;
use super::drain::{Held, Member};
use super::http1::{self, Outcome};
use super::http2;
use super::peer::Peer;
use super::settings::ConnectionLimits;
use super::slots::Place;
use super::stream::Stream;
use crate::body::BoxError;
use crate::message::{Request, Response};

/// A request and the connection it came over.
#[derive(Debug)]
pub struct Inbound {
    /// A [`Flaw`](super::flaw::Flaw) among its extensions says that it is not to be served.
    pub request: Box<Request>,
    /// Shared by all requests of the connection.
    pub connection: Rc<ConnectionInfo>,
}

/// Where a connection came in and who is on its other end. The worker does not end before the last
/// clone is gone: work that goes on without its client keeps one.
#[derive(Debug)]
pub struct ConnectionInfo {
    /// The listener's number, as given to the worker.
    pub listener: usize,
    /// The client.
    pub peer: Peer,
    /// Counts it as open.
    pub(super) _held: Option<Held>,
}

impl ConnectionInfo {
    /// A connection that no worker waits for.
    pub fn new(listener: usize, peer: Peer) -> Self {
        Self { listener, peer, _held: None }
    }
}

/// How a connection ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// In order, by either side.
    Closed,
    /// No request for too long, or a head that took too long.
    TimedOut(Phase),
    /// The client left before the answer to its safe request.
    ClientLeft,
    /// The client cancelled more HTTP/2 streams than it may.
    Flooded,
    /// Not HTTP, or the socket or an answer failed.
    Failed(BoxError),
}

/// Serves one connection to its end.
pub(super) async fn serve<I, S>(
    stream: (I, Option<Place>),
    info: Rc<ConnectionInfo>,
    service: S,
    limits: &ConnectionLimits,
    member: Member,
) -> Ended
where
    I: Stream,
    S: Service<Inbound, Response = Response, Error = Infallible> + Clone + 'static,
    S::Future: 'static,
{
    match http1::serve(stream, &info, &service, limits, &member).await {
        Outcome::Ended(ended) => ended,
        // In a box, so that the many connections without it do not keep room for it.
        Outcome::Http2(stream, read) => {
            Box::pin(http2::serve(stream, read, info, service, limits, member)).await
        }
    }
}
