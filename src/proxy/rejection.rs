//! Every refusal we can utter: status, stable code, whose fault it is, whether trying again helps.
//!
//! Never 401 and never 407: those would ask the app for credentials it does not have. Each says
//! whether the request was forwarded, so that a payment's fate is never a guess.

use std::borrow::Cow;
use std::time::Duration;

use http::StatusCode;

/// A stable code, the `code` member of our problem documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// No route claims the host and path.
    NoRoute,
    /// The path is a token endpoint, which is never forwarded to.
    TokenEndpoint,
    /// Routes claim the path, but none takes the method.
    Method,
    /// The target can be read in more than one way, or in none.
    BadTarget,
    /// The head of the request is malformed.
    BadRequest,
    /// The request is addressed to a host that is not ours.
    ForeignHost,
    /// A web page of another origin sent it.
    CrossSite,
    /// The route refuses requests that carry their own Authorization.
    AuthorizationPresent,
    /// Protocol upgrades are not enabled for the route.
    Upgrade,
    /// The request has passed through us before.
    Loop,
    /// The request body is larger than the configured limit.
    BodyTooLarge,
    /// The request target is longer than the configured limit.
    UriTooLong,
    /// The client stopped sending its body.
    RequestTimeout,
    /// The client's body ended before it was complete.
    RequestAborted,
    /// Too many requests are under way.
    Overloaded,
    /// No usable token is there, and none came in time.
    TokenUnavailable,
    /// The credential's budget of token calls is spent.
    TokenBudget,
    /// A fixed header's secret could not be read.
    SecretUnavailable,
    /// The upstream could not be reached.
    Connect,
    /// The upstream closed the connection or broke the protocol.
    UpstreamReset,
    /// The upstream did not answer in time.
    UpstreamTimeout,
    /// A defect of this program.
    Internal,
}

/// What is known of a code; the table of the documentation is made from it.
struct Facts {
    code: &'static str,
    status: StatusCode,
    title: &'static str,
    /// Proxy error type of RFC 9209 section 2.3.
    proxy_error: &'static str,
}

impl Code {
    /// All codes, for the documentation and for counters that start at 0.
    pub const ALL: [Self; 22] = [
        Self::NoRoute,
        Self::TokenEndpoint,
        Self::Method,
        Self::BadTarget,
        Self::BadRequest,
        Self::ForeignHost,
        Self::CrossSite,
        Self::AuthorizationPresent,
        Self::Upgrade,
        Self::Loop,
        Self::BodyTooLarge,
        Self::UriTooLong,
        Self::RequestTimeout,
        Self::RequestAborted,
        Self::Overloaded,
        Self::TokenUnavailable,
        Self::TokenBudget,
        Self::SecretUnavailable,
        Self::Connect,
        Self::UpstreamReset,
        Self::UpstreamTimeout,
        Self::Internal,
    ];

    /// The code as it stands in answers, logs and metrics.
    pub fn as_str(self) -> &'static str {
        self.facts().code
    }

    /// The status it is answered with.
    pub fn status(self) -> StatusCode {
        self.facts().status
    }

    /// A short sentence that is the same for every occurrence (RFC 9457 section 3.1.3).
    pub fn title(self) -> &'static str {
        self.facts().title
    }

    /// Proxy error type of RFC 9209 section 2.3.
    pub fn proxy_error(self) -> &'static str {
        self.facts().proxy_error
    }

    fn facts(self) -> Facts {
        let (code, status, title, proxy_error) = match self {
            Self::NoRoute => {
                ("no_route", 404, "No route claims this request", "http_request_denied")
            }
            Self::TokenEndpoint => (
                "token_endpoint",
                404,
                "Token endpoints are not forwarded to",
                "http_request_denied",
            ),
            Self::Method => ("method", 405, "No route takes this method", "http_request_denied"),
            Self::BadTarget => {
                ("bad_target", 400, "The request target is ambiguous", "http_request_error")
            }
            Self::BadRequest => {
                ("bad_request", 400, "The request is malformed", "http_request_error")
            }
            Self::ForeignHost => (
                "foreign_host",
                421,
                "The request is addressed to another host",
                "http_request_denied",
            ),
            Self::CrossSite => {
                ("cross_site", 403, "Web pages of other origins are refused", "http_request_denied")
            }
            Self::AuthorizationPresent => (
                "authorization",
                403,
                "The route refuses an Authorization of the app",
                "http_request_denied",
            ),
            Self::Upgrade => {
                ("upgrade", 501, "Protocol upgrades are not enabled here", "http_upgrade_failed")
            }
            Self::Loop => {
                ("loop", 508, "The request has passed through us before", "proxy_loop_detected")
            }
            Self::BodyTooLarge => {
                ("body_too_large", 413, "The request body is too large", "http_request_error")
            }
            Self::UriTooLong => {
                ("uri_too_long", 414, "The request target is too long", "http_request_error")
            }
            Self::RequestTimeout => (
                "request_timeout",
                408,
                "The request body did not arrive in time",
                "http_request_error",
            ),
            Self::RequestAborted => {
                ("request_aborted", 400, "The request body ended early", "http_request_error")
            }
            Self::Overloaded => {
                ("overloaded", 503, "Too many requests are under way", "connection_limit_reached")
            }
            Self::TokenUnavailable => {
                ("token_unavailable", 503, "No usable token is available", "proxy_internal_error")
            }
            Self::TokenBudget => {
                ("token_budget", 503, "The budget of token calls is spent", "proxy_internal_error")
            }
            Self::SecretUnavailable => (
                "secret_unavailable",
                503,
                "A configured secret cannot be read",
                "proxy_configuration_error",
            ),
            Self::Connect => {
                ("connect", 502, "The upstream could not be reached", "destination_unavailable")
            }
            Self::UpstreamReset => {
                ("upstream_reset", 502, "The upstream ended the exchange", "connection_terminated")
            }
            Self::UpstreamTimeout => (
                "upstream_timeout",
                504,
                "The upstream did not answer in time",
                "http_response_timeout",
            ),
            Self::Internal => ("internal", 500, "bearer-proxy failed", "proxy_internal_error"),
        };
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Facts { code, status, title, proxy_error }
    }
}

/// Whether a request reached the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Forwarded {
    /// Not one byte of it: sending it again cannot do it twice.
    #[default]
    No,
    /// The upstream answered it.
    Yes,
    /// Some of it was sent and no answer came: it may have been acted upon.
    Unknown,
}

impl Forwarded {
    /// The word in the `Bearer-Proxy-Forwarded` header.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Yes => "yes",
            Self::Unknown => "unknown",
        }
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_never_ask_for_credentials() {
        let mut seen = std::collections::HashSet::new();
        for code in Code::ALL {
            assert!(seen.insert(code.as_str()), "{code:?} is not unique");
            assert!(code.status().is_client_error() || code.status().is_server_error());
            assert_ne!(code.status(), StatusCode::UNAUTHORIZED);
            assert_ne!(code.status(), StatusCode::PROXY_AUTHENTICATION_REQUIRED);
        }
    }
}
