//! Failures of an exchange, each with the certainty that the request was not sent.

use std::error::Error as StdError;
use std::fmt;

use rustls::AlertDescription;

use crate::body::with_root_cause;
use crate::net::connect::ConnectError;
use crate::x509::diagnosis;

/// The certainty that a request reached the upstream.
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

/// The cause of a failed exchange.
#[derive(Debug, thiserror::Error)]
pub enum SendErrorKind {
    /// No connection was made.
    #[error(transparent)]
    Connect(ConnectError),
    /// `upstreams.*.max_connections` are in use, and none became free within the time-out for connecting.
    #[error("all connections to the upstream are in use (max_connections of the upstream)")]
    Overloaded,
    /// The connection ended without a byte of a response.
    #[error("the upstream closed the connection without an answer")]
    Closed,
    /// The server ended TLS with a fatal alert.
    #[error("{}", tls_alert(*.0))]
    TlsAlert(AlertDescription),
    /// The server answered plain HTTP with a TLS alert.
    #[error("the upstream speaks TLS and was asked in plain HTTP: is it https://?")]
    AnsweredInTls,
    /// The server promised not to have processed the request (RFC 9113 section 8.7).
    #[error("the upstream refused the request unprocessed")]
    Refused,
    /// The connection was cut, the request body failed, or the response is not HTTP.
    #[error("{}", exchange_failed(.0))]
    Exchange(#[source] hyper::Error),
    /// More interim responses (1xx) than are read.
    #[error("the upstream sends informational answers without end")]
    TooManyInterim,
    /// A switch of protocols that the request did not ask for (RFC 9110 section 15.2.2).
    #[error("the upstream switched protocols without being asked")]
    UnaskedUpgrade,
    /// A response whose end can be read in two ways (RFC 9112 section 6.3).
    #[error("the end of the upstream's answer can be read in two ways")]
    AmbiguousLength,
    /// More header fields than `upstreams.*.max_response_headers`.
    #[error(
        "the upstream's answer has too many header fields; see max_response_headers of the upstream"
    )]
    TooManyHeaders,
}

fn tls_alert(alert: AlertDescription) -> String {
    let name = diagnosis::alert_name(alert);
    let meaning = diagnosis::of_alert(alert).map(|meaning| format!(": {meaning}"));
    format!("the upstream ended TLS with the alert {name}{}", meaning.unwrap_or_default())
}

fn exchange_failed(error: &hyper::Error) -> String {
    if error.is_parse_too_large() {
        "the head of the upstream's answer is too large; see max_response_headers and \
         max_response_header_bytes of the upstream"
            .to_owned()
    } else if error.is_parse() {
        format!("the upstream's answer is not valid HTTP: {error}")
    } else {
        format!("the exchange with the upstream broke off: {}", with_root_cause(error))
    }
}

/// A failed exchange.
#[derive(Debug)]
pub struct SendError {
    /// The cause.
    pub kind: SendErrorKind,
    /// Says if the request may have been read.
    pub forwarded: Forwarded,
    /// True if the connection had carried requests before. Its server may have closed it meanwhile,
    /// which is no fault of the request.
    pub reused: bool,
}

impl SendError {
    /// A failure before anything could be sent.
    pub(super) fn unsent(kind: SendErrorKind) -> Self {
        Self { kind, forwarded: Forwarded::No, reused: false }
    }

    /// The error of connecting, if that is the cause.
    pub fn connect(&self) -> Option<&ConnectError> {
        match &self.kind {
            SendErrorKind::Connect(error) => Some(error),
            _ => None,
        }
    }

    /// Returns true if a reused connection failed before the head of a response: its server may have
    /// closed it before it saw this request.
    pub fn is_stale(&self) -> bool {
        let cut = match &self.kind {
            SendErrorKind::Closed | SendErrorKind::TlsAlert(_) => true,
            SendErrorKind::Exchange(error) => !error.is_parse() && !error.is_user(),
            _ => false,
        };
        self.reused && cut
    }

    /// Returns true if the server promised not to have processed the request.
    pub fn is_refused(&self) -> bool {
        matches!(self.kind, SendErrorKind::Refused)
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)
    }
}

impl StdError for SendError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.kind.source()
    }
}
