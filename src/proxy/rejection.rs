//! Every refusal we can utter: status, stable code, whose fault it is, whether trying again helps.
//!
//! Never 401 and never 407: those would ask the app for credentials it does not have. Each says
//! whether the request was forwarded, so that a payment's fate is never a guess.

use std::borrow::Cow;
use std::time::Duration;

pub use super::code::Code;
use crate::upstream::Forwarded;

/// One refusal.
#[derive(Debug, Clone)]
pub struct Rejection {
    /// Which refusal.
    pub code: Code,
    /// What was found, what was expected, what to do. Never part of the request's own text.
    pub detail: Cow<'static, str>,
    /// Whether the request reached the upstream.
    pub forwarded: Forwarded,
    /// When trying again may help.
    pub retry_after: Option<Duration>,
    /// Value of the Allow header, with [`Code::Method`].
    pub allow: Option<String>,
    /// What is known of a connection that could not be made, with [`Code::Connect`].
    pub connect: Option<ConnectFailure>,
}

/// What `Proxy-Status` tells of a connection that could not be made.
#[derive(Debug, Clone)]
pub struct ConnectFailure {
    /// Proxy error type of RFC 9209 section 2.3.
    pub proxy_error: &'static str,
    /// The status line of an egress proxy that refused: printable ASCII without quotes.
    pub egress_answer: Option<String>,
}

impl Rejection {
    /// A refusal of a request that was not forwarded.
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

    /// A refusal of a body beyond `server.max_request_body`, in bytes.
    pub fn body_too_large(max_request_body: u64) -> Self {
        let detail = format!("the body exceeds server.max_request_body, {max_request_body} bytes");
        Self::new(Code::BodyTooLarge, detail)
    }

    /// What is told of a second try that failed: if the first may have reached the upstream, then the
    /// request may have, whatever became of the second.
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

    /// The same, of a request that may or may not have reached the upstream.
    pub fn forwarded(mut self, forwarded: Forwarded) -> Self {
        self.forwarded = forwarded;
        self
    }

    /// The same, with what is known of the connection.
    pub fn about_connect(mut self, failure: ConnectFailure) -> Self {
        self.connect = Some(failure);
        self
    }

    /// The same, with a hint when to try again.
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }
}
