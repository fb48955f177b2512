//! Why an exchange failed, and whether any byte of the request had left.

use std::error::Error as StdError;
use std::fmt;

use super::http1::Failure;
use crate::net::connect::ConnectError;

/// Whether a request may have reached the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forwarded {
    /// Not one byte of it was written, or the server promised not to have looked at it.
    No,
    /// Some of it may have been read.
    Unknown,
}

/// What failed.
#[derive(Debug)]
pub enum SendErrorKind {
    /// No connection was made.
    Connect(ConnectError),
    /// An exchange in HTTP/1 failed.
    Http1(Failure),
    /// An HTTP/2 connection ended before the head of an answer.
    Closed,
    /// The server promised not to have processed the request (RFC 9113 section 8.7).
    Refused,
    /// An HTTP/2 connection was cut, or what came was no HTTP.
    Exchange(hyper::Error),
    /// A switch of protocols that nobody asked for (RFC 9110 section 15.2.2).
    UnaskedUpgrade,
    /// More than one length of an HTTP/2 answer, or one that is not a number, or a transfer coding.
    AmbiguousLength,
    /// More header fields of an HTTP/2 answer than are taken.
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
    /// Why no connection could be made, where that is what failed.
    pub fn connect(&self) -> Option<&ConnectError> {
        match &self.kind {
            SendErrorKind::Connect(error) => Some(error),
            _ => None,
        }
    }

    /// Whether a connection that had carried requests before ended without a word: its server may
    /// have closed it before it saw this one.
    pub fn is_stale(&self) -> bool {
        let silent = match &self.kind {
            SendErrorKind::Closed | SendErrorKind::Http1(Failure::Closed | Failure::Broken(_)) => {
                true
            }
            SendErrorKind::Exchange(error) => !error.is_parse(),
            _ => false,
        };
        self.reused && silent
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
            SendErrorKind::Closed | SendErrorKind::Http1(Failure::Closed) => {
                f.write_str("the upstream closed the connection without an answer")
            }
            SendErrorKind::Refused => f.write_str("the upstream refused the request unprocessed"),
            SendErrorKind::Exchange(error) if error.is_parse() => {
                f.write_str("the upstream's answer is not valid HTTP")
            }
            SendErrorKind::Http1(Failure::Invalid(why)) => {
                write!(f, "the upstream's answer is not valid HTTP: {why}")
            }
            SendErrorKind::Exchange(_)
            | SendErrorKind::Http1(Failure::Broken(_) | Failure::Request(_)) => {
                f.write_str("the exchange with the upstream broke off")
            }
            SendErrorKind::UnaskedUpgrade | SendErrorKind::Http1(Failure::UnaskedUpgrade) => {
                f.write_str("the upstream switched protocols without being asked")
            }
            SendErrorKind::AmbiguousLength | SendErrorKind::Http1(Failure::AmbiguousLength) => {
                f.write_str("the end of the upstream's answer can be read in two ways")
            }
            SendErrorKind::TooManyHeaders => {
                f.write_str("the upstream's answer has too many header fields")
            }
        }
    }
}

impl StdError for SendError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &self.kind {
            SendErrorKind::Connect(error) => Some(error),
            SendErrorKind::Exchange(error) => Some(error),
            SendErrorKind::Http1(Failure::Broken(error)) => Some(error),
            SendErrorKind::Http1(Failure::Request(error)) => Some(error),
            SendErrorKind::Http1(_)
            | SendErrorKind::Closed
            | SendErrorKind::Refused
            | SendErrorKind::UnaskedUpgrade
            | SendErrorKind::AmbiguousLength
            | SendErrorKind::TooManyHeaders => None,
        }
    }
}
