//! One request and its answer, whoever carries them: what the pool offers, as traits.

use std::future::Future;
use std::net::SocketAddr;

use http::{Request, Response};

use super::error::SendError;
use crate::body::Body;

/// Which connections may carry a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// Any that is open: the request may be sent again if the connection turns out dead.
    Any,
    /// One used within `unsafe_max_idle` of the upstream's settings, else a new one: the request cannot be sent
    /// again, so that the race with a server closing an idle connection is kept short.
    Recent,
    /// A new one.
    Never,
    /// A new one that speaks HTTP/1.1, which alone can be upgraded to another protocol.
    Upgrade,
}

/// An answer of an upstream.
#[derive(Debug)]
pub struct UpstreamResponse {
    /// As it came; its body streams.
    pub response: Response<Body>,
    /// Whether the rest of the request's body may never be read: the server had not asked for it, or
    /// refuses the request.
    pub body_unread: bool,
}

/// A request that was not answered.
#[derive(Debug)]
pub enum SendFailure {
    /// hyper had not begun it: here it is, to be sent on another connection.
    Returned(Box<Request<Body>>, SendError),
    /// It has begun.
    Failed(SendError),
}

/// Makes connections to one upstream; simulations have another than the pool.
pub trait Transport {
    /// A connection for one request.
    type Connection: SendRequest;

    /// A connection that may carry a request: one that is open, or a new one.
    ///
    /// # Errors
    /// Why there is none; nothing has been sent.
    fn acquire(&self, reuse: Reuse) -> impl Future<Output = Result<Self::Connection, SendError>>;
}

/// A connection for one request.
pub trait SendRequest {
    /// Sends a request in origin form and waits for the head of its answer. Dropping the future ends
    /// the exchange.
    ///
    /// # Errors
    /// What failed, and whether any byte had left.
    fn send(
        self,
        request: Request<Body>,
    ) -> impl Future<Output = Result<UpstreamResponse, SendFailure>>;

    /// The address that it leads to: the upstream's, or the egress proxy's.
    fn peer_address(&self) -> Option<SocketAddr> {
        None
    }

    /// Gives the connection back: the request is not sent after all.
    fn release(self);
}
