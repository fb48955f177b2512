//! Why an exchange failed, and whether any byte of the request had left.

use std::error::Error as StdError;
use std::fmt;

use crate::net::connect::ConnectError;

/// Whether a request reached the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Forwarded {
    /// No byte of it was written, or the server promised that it did not process it: sending it again
    /// cannot have its effect twice.
    #[default]
    No,
    /// The upstream answered it.
    Yes,
    /// Some of it was sent and no answer came: the upstream may have acted on it.
    Unknown,
}

impl Forwarded {
    /// The word in the `Bearer-Proxy-Forwarded` header, the access log and problem documents.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Yes => "yes",
            Self::Unknown => "unknown",
        }
    }

    /// The outcome of two attempts together: that of the second where the first was not forwarded.
    #[must_use]
    pub fn or(self, second: Self) -> Self {
        if self == Self::No { second } else { self }
    }
}

/// What failed.
#[derive(Debug)]
pub enum SendErrorKind {
    /// No connection was made.
    Connect(ConnectError),
    /// `upstreams.*.max_connections` are in use, and none became free within the time for connecting.
    Overloaded,
    /// The connection ended without a byte of an answer.
    Closed,
    /// The server promised not to have processed the request (RFC 9113 section 8.7).
    Refused,
    /// The connection was cut, the request's body failed, or what came is no HTTP.
    Exchange(hyper::Error),
    /// More informational answers (1xx) than are waited for.
    TooManyInterim,
    /// A switch of protocols that nobody asked for (RFC 9110 section 15.2.2).
    UnaskedUpgrade,
    /// An answer whose end can be read in two ways (RFC 9112 section 6.3).
    AmbiguousLength,
    /// More header fields than are taken.
    TooManyHeaders,
}

/// A failed exchange.
#[derive(Debug)]
pub struct SendError {
    /// What failed.
    pub kind: SendErrorKind,
    /// Whether the request may have been read.
    pub forwarded: Forwarded,
    /// Whether the connection had carried requests before: one that its server had closed
    /// meanwhile fails without any fault of the request.
    pub reused: bool,
}

impl SendError {
    /// A failure before anything could be sent.
    pub(super) fn unsent(kind: SendErrorKind) -> Self {
        Self { kind, forwarded: Forwarded::No, reused: false }
    }

    /// Why no connection could be made, where that is what failed.
    pub fn connect(&self) -> Option<&ConnectError> {
        match &self.kind {
            SendErrorKind::Connect(error) => Some(error),
            _ => None,
        }
    }

    /// Whether a connection that had carried requests before failed before the head of an answer: its
    /// server may have closed it before it saw this one.
    pub fn is_stale(&self) -> bool {
        let cut = match &self.kind {
            SendErrorKind::Closed => true,
            SendErrorKind::Exchange(error) => !error.is_parse() && !error.is_user(),
            _ => false,
        };
        self.reused && cut
    }

    /// Whether the server promised not to have processed the request.
    pub fn is_refused(&self) -> bool {
        matches!(self.kind, SendErrorKind::Refused)
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            SendErrorKind::Connect(error) => error.fmt(f),
            SendErrorKind::Overloaded => f.write_str(
                "all connections to the upstream are in use (max_connections of the upstream)",
            ),
            SendErrorKind::Closed => {
                f.write_str("the upstream closed the connection without an answer")
            }
            SendErrorKind::Refused => f.write_str("the upstream refused the request unprocessed"),
            SendErrorKind::Exchange(error) if error.is_parse_too_large() => f.write_str(
                "the head of the upstream's answer is too large; see max_response_headers and \
                 max_response_header_bytes of the upstream",
            ),
            SendErrorKind::Exchange(error) if error.is_parse() => {
                write!(f, "the upstream's answer is not valid HTTP: {error}")
            }
            SendErrorKind::Exchange(_) => f.write_str("the exchange with the upstream broke off"),
            SendErrorKind::TooManyInterim => {
                f.write_str("the upstream sends informational answers without end")
            }
            SendErrorKind::UnaskedUpgrade => {
                f.write_str("the upstream switched protocols without being asked")
            }
            SendErrorKind::AmbiguousLength => {
                f.write_str("the end of the upstream's answer can be read in two ways")
            }
            SendErrorKind::TooManyHeaders => f.write_str(
                "the upstream's answer has too many header fields; see max_response_headers of the \
                 upstream",
            ),
        }
    }
}

impl StdError for SendError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &self.kind {
            SendErrorKind::Connect(error) => Some(error),
            SendErrorKind::Exchange(error) => Some(error),
            _ => None,
        }
    }
}
