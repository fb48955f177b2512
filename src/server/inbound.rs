//! A request with its connection, and the service that answers it.

use std::convert::Infallible;
use std::fmt;
use std::rc::Rc;

use http::{Request, Response};
use hyper::upgrade::OnUpgrade;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tower::Service;

use super::client_stream::PeerState;
use super::settings::HalfClosed;
use crate::body::Body;
use crate::listen::peer::Peer;

/// The service that answers the requests of one worker. This only names its bounds: each service that
/// meets them is one.
pub trait RequestService:
    Service<Inbound, Response = Response<Body>, Error = Infallible, Future: 'static> + Clone + 'static
{
}

impl<S> RequestService for S where
    S: Service<Inbound, Response = Response<Body>, Error = Infallible, Future: 'static>
        + Clone
        + 'static
{
}

/// A request, its connection, and its client.
pub struct Inbound {
    /// The request as hyper or h2 read it.
    pub request: Request<Body>,
    /// Shared by all requests of the connection.
    pub connection: Rc<ConnectionInfo>,
    /// Asks if the client is still there.
    pub client: ClientProbe,
    /// Gives the connection itself once a response with status 101 was sent. Present if an HTTP/1.1
    /// client offers to speak another protocol.
    pub upgrade: Option<OnUpgrade>,
}

impl fmt::Debug for Inbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbound").field("connection", &self.connection).finish_non_exhaustive()
    }
}

/// The listener and the client of a connection. The worker ends only after the last clone is gone, so
/// that work which outlives its client keeps one.
#[derive(Debug)]
pub struct ConnectionInfo {
    /// The id of the listener, as given to the worker.
    pub listener: usize,
    /// The client.
    pub peer: Peer,
    /// Counts the connection as open.
    pub(super) _open: Option<TaskTrackerToken>,
}

impl ConnectionInfo {
    /// A connection that no worker waits for.
    pub fn new(listener: usize, peer: Peer) -> Self {
        Self { listener, peer, _open: None }
    }
}

/// Asks the kernel if the client of a request is still there; clones ask the same.
#[derive(Clone)]
pub struct ClientProbe {
    peer_state: Rc<dyn Fn() -> PeerState>,
    half_closed: HalfClosed,
    /// True if resets come in frames, which another task reads.
    multiplexed: bool,
}

impl ClientProbe {
    /// A probe of an HTTP/1 connection; `half_closed` is the meaning of a FIN alone.
    pub fn new(half_closed: HalfClosed, peer_state: impl Fn() -> PeerState + 'static) -> Self {
        Self { peer_state: Rc::new(peer_state), half_closed, multiplexed: false }
    }

    /// A probe of one HTTP/2 stream.
    pub fn multiplexed(
        half_closed: HalfClosed,
        peer_state: impl Fn() -> PeerState + 'static,
    ) -> Self {
        Self { multiplexed: true, ..Self::new(half_closed, peer_state) }
    }

    /// A probe of a client that never leaves.
    pub fn always_connected() -> Self {
        Self::new(HalfClosed::default(), || PeerState::Connected)
    }

    /// Returns true if a request that was not sent yet is of no use any more, because its client is gone.
    /// A FIN alone proves that for an unsafe request, unless `server.half_closed` is `serve`; a safe
    /// request goes on for the grace time of its connection.
    pub async fn has_left(&self, is_safe: bool) -> bool {
        if self.multiplexed {
            // Lets the runtime read the sockets and the connection's task read the frames, so that a
            // reset that has arrived is seen.
            tokio::task::yield_now().await;
        }
        self.is_gone(is_safe)
    }

    /// The same, by what has been read from a connection that is multiplexed.
    pub fn is_gone(&self, is_safe: bool) -> bool {
        match (self.peer_state)() {
            PeerState::Connected => false,
            PeerState::HalfClosed => !is_safe && self.half_closed == HalfClosed::Gone,
            PeerState::Disconnected => true,
        }
    }
}
