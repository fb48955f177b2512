//! A rejection: the proxy's own answer to a request, in place of the upstream's.
//!
//! It is never 401 or 407, which would ask the app for credentials that it does not have. It says
//! whether the request was forwarded, so that the fate of a payment is never a guess.

use std::borrow::Cow;
use std::time::Duration;

pub use super::code::Code;
use crate::upstream::Forwarded;

/// One rejection; `problem` makes a response of it.
#[derive(Debug, Clone)]
pub struct Rejection {
    /// The stable code.
    pub code: Code,
    /// The cause and the remedy, in words. Contains no text of the request itself.
    pub detail: Cow<'static, str>,
    /// The fate of the request at the upstream.
    pub forwarded: Forwarded,
    /// Time after which another try may succeed.
    pub retry_after: Option<Duration>,
    /// Value of the Allow header, with [`Code::Method`].
    pub allow: Option<String>,
    /// Details of the failed connection, with [`Code::Connect`].
    pub connect: Option<Box<ConnectFailure>>,
}

/// Details of a failed connection for `Proxy-Status`.
#[derive(Debug, Clone)]
pub struct ConnectFailure {
    /// Proxy error type of RFC 9209 section 2.3.
    pub proxy_error: &'static str,
    /// The status line of an egress proxy that refused: printable ASCII without quotes.
    pub egress_answer: Option<String>,
    /// The remedy, for the operator.
    pub hint: Option<String>,
    /// True if this process or machine had no descriptor or memory left, which is no failure of the
    /// upstream.
    pub is_local: bool,
}

impl Rejection {
    /// Rejects a request that was not forwarded.
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            detail: detail.into(),
            forwarded: Forwarded::No,
            retry_after: None,
            allow: None,
            connect: None,
        }
    }

    /// Rejects a body of more than `server.max_request_body` bytes.
    pub fn body_too_large(max_request_body: u64) -> Self {
        let detail = format!("the body exceeds server.max_request_body, {max_request_body} bytes");
        Self::new(Code::BodyTooLarge, detail)
    }

    /// The rejection after two tries. If the first may have reached the upstream, the request may have,
    /// whatever happened to the second.
    #[must_use]
    pub fn after(self, first: Option<Box<Self>>) -> Self {
        match first {
            Some(first) if first.forwarded != Forwarded::No && self.forwarded == Forwarded::No => {
                let detail =
                    format!("{}; the second try failed too: {}", first.detail, self.detail);
                Self { detail: detail.into(), ..*first }
            }
            _ => self,
        }
    }

    /// Sets whether the request reached the upstream.
    pub fn forwarded(mut self, forwarded: Forwarded) -> Self {
        self.forwarded = forwarded;
        self
    }

    /// True if the exchange failed at the upstream or on the way to it.
    pub fn concerns_upstream(&self) -> bool {
        matches!(self.code, Code::Connect | Code::UpstreamReset | Code::UpstreamTimeout)
            && !self.connect.as_ref().is_some_and(|failure| failure.is_local)
    }

    /// Adds details of the failed connection.
    pub fn about_connect(mut self, failure: ConnectFailure) -> Self {
        self.connect = Some(Box::new(failure));
        self
    }

    /// Adds the time after which another try may succeed.
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }
}
