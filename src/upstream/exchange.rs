//! One request and its response: the interface of the pool, as traits with a fake in tests.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use http::{Request, Response};

use super::error::SendError;
use crate::body::Body;
use crate::net::tls::ClientIdentity;

/// Which connections may carry a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// Any open connection: the request may be sent again if the connection turns out to be dead.
    Any,
    /// A connection that was idle for at most `unsafe_max_idle`, or a new one. For requests that cannot be
    /// sent again: it keeps the race with a server that closes an idle connection short.
    Recent,
    /// A new connection.
    Never,
    /// A new connection that speaks HTTP/1.1, the only version that can be upgraded to another protocol.
    Upgrade,
}

/// The final response of an upstream.
#[derive(Debug)]
pub struct UpstreamResponse {
    /// The response as it was received; its body streams.
    pub response: Response<Body>,
    /// True if the server did not ask for the request body, which then is never read to its end.
    pub body_unread: bool,
}

/// A request without a response.
#[derive(Debug)]
pub enum SendFailure {
    /// hyper had not begun to send it. Here it is, to be sent on another connection.
    Returned(Box<Request<Body>>, SendError),
    /// hyper had begun to send it.
    Failed(SendError),
}

impl SendFailure {
    /// The failure of a request that hyper gave back, or kept.
    pub(super) fn new(unsent: Option<Request<Body>>, error: SendError) -> Self {
        match unsent {
            Some(request) => Self::Returned(Box::new(request), error),
            None => Self::Failed(error),
        }
    }
}

/// Gives connections to one upstream. Implemented by `Pool`, and by a fake in tests.
pub trait Transport {
    /// A connection for one request.
    type Connection: SendRequest;

    /// Acquires an open connection or makes a new one. The time-out for a response starts afterwards,
    /// because connecting has its own. With `identity`, that of a certificate-bound token, the
    /// connection is one that was opened with this certificate and no other.
    ///
    /// # Errors
    /// The reason why there is no connection; nothing was sent.
    fn acquire(
        &self,
        reuse: Reuse,
        identity: Option<&Arc<ClientIdentity>>,
    ) -> impl Future<Output = Result<Self::Connection, SendError>>;
}

/// A connection for one request.
pub trait SendRequest {
    /// Sends a request in origin form and waits for the head of its final response. Dropping the future
    /// ends the exchange.
    ///
    /// # Errors
    /// The failure, and whether any byte of the request was sent.
    fn send(
        self,
        request: Request<Body>,
    ) -> impl Future<Output = Result<UpstreamResponse, SendFailure>>;

    /// The address of the upstream, or of the egress proxy.
    fn peer_address(&self) -> Option<SocketAddr>;

    /// Gives the connection back unused.
    fn release(self);
}
