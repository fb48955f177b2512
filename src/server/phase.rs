//! The phases of an HTTP/1 connection, and the reasons for which a connection ends.

use super::head_error::HeadError;
use crate::body::BoxError;

/// The present activity of an HTTP/1 connection; each phase has its own time-out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ConnectionPhase {
    /// It waits for a request. Empty lines before a request do not end this phase (RFC 9112 section 2.2).
    #[default]
    Idle,
    /// The first byte of a request has come, but its head is not complete.
    Head,
    /// The service has a request, or its response is being sent.
    Busy,
    /// The service has a request with a safe method, whose response is useless to a client that left.
    BusySafe,
    /// A response is being sent, and the socket has no room for it.
    Stalled,
}

impl ConnectionPhase {
    /// The phase as a word for the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Head => "head",
            Self::Busy | Self::BusySafe => "busy",
            Self::Stalled => "stalled",
        }
    }

    /// True while a request is under way.
    pub fn is_busy(self) -> bool {
        matches!(self, Self::Busy | Self::BusySafe | Self::Stalled)
    }
}

/// The reason why a client connection ended.
#[derive(Debug)]
pub(super) enum CloseReason {
    /// Either side closed it in order.
    Closed,
    /// A phase lasted too long.
    TimedOut(ConnectionPhase),
    /// The client left before its response.
    ClientLeft,
    /// The client cancelled more HTTP/2 streams than `server.max_resets`.
    Flooded,
    /// A head could not be read, which hyper has answered. The socket is still open.
    BadHead(HeadError, BoxError),
    /// The socket or a response failed.
    Failed(BoxError),
}
