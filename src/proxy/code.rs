//! The stable codes of rejections and their meaning, in one table; `tests/docs.rs` makes the
//! reference from it.

use http::StatusCode;

use crate::upstream::Forwarded;

macro_rules! codes {
    ($($name:ident = $code:literal, $status:literal, $title:literal, $retryable:ident, [$($forwarded:ident),*], $error:literal;)*) => {
        /// A stable code: the `code` member of problem documents.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code {
            $(#[doc = concat!($title, ".")] $name,)*
        }

        impl Code {
            /// All codes, for the documentation and for counters that start at 0.
            pub const ALL: [Self; [$($code),*].len()] = [$(Self::$name),*];

            fn facts(self) -> &'static Facts {
                match self {
                    $(Self::$name => &Facts {
                        code: $code,
                        status: $status,
                        title: $title,
                        retryable: Retryable::$retryable,
                        forwarded: &[$(Forwarded::$forwarded),*],
                        proxy_error: $error,
                    },)*
                }
            }
        }
    };
}

// Code, status, title (RFC 9457 section 3.1.3), whether another try may succeed, possible values of
// `Bearer-Proxy-Forwarded`, proxy error type (RFC 9209 section 2.3).
codes! {
    NoRoute = "no_route", 404, "No route claims this request", No, [No], "http_request_denied";
    TokenEndpoint = "token_endpoint", 404, "Token endpoints are never forwarded", No, [No], "http_request_denied";
    Method = "method", 405, "No route takes this method", No, [No], "http_request_denied";
    BadTarget = "bad_target", 400, "The request target is ambiguous", No, [No], "http_request_error";
    BadRequest = "bad_request", 400, "The request is malformed", No, [No], "http_request_error";
    ForeignHost = "foreign_host", 421, "The request is addressed to another host", No, [No], "http_request_denied";
    CrossSite = "cross_site", 403, "Web pages of other origins are refused", No, [No], "http_request_denied";
    LocalKey = "local_key", 403, "The local key is missing or wrong", No, [No], "http_request_denied";
    PeerNotAllowed = "peer_not_allowed", 403, "This client is not allowed here", No, [No], "http_request_denied";
    AuthorizationPresent = "authorization", 403, "The route rejects client-supplied Authorization", No, [No], "http_request_denied";
    ClientLeft = "client_left", 499, "The client closed its connection before it had its answer", IfIdempotent, [No, Unknown, Yes], "connection_terminated";
    CutByShutdown = "cut_by_shutdown", 503, "bearer-proxy shut down before the exchange had ended", IfIdempotent, [No, Unknown, Yes], "proxy_internal_error";
    Loop = "loop", 508, "The request has passed through this proxy before", No, [No], "proxy_loop_detected";
    BodyTooLarge = "body_too_large", 413, "The request body is too large", No, [No, Unknown], "http_request_error";
    UriTooLong = "uri_too_long", 414, "The request target is too long", No, [No], "http_request_error";
    HeadersTooLarge = "headers_too_large", 431, "The request's head is too large", No, [No], "http_request_error";
    Expectation = "expectation", 417, "Unsupported expectation", No, [No], "http_request_error";
    RequestTimeout = "request_timeout", 408, "The request body did not arrive in time", IfIdempotent, [No, Unknown], "http_request_error";
    RequestAborted = "request_aborted", 400, "The request body ended early", IfIdempotent, [No, Unknown], "http_request_error";
    Overloaded = "overloaded", 503, "Too many requests are in flight", Later, [No], "connection_limit_reached";
    TokenUnavailable = "token_unavailable", 503, "No usable token is available", Later, [No], "proxy_internal_error";
    TokenBudget = "token_budget", 503, "The budget of token calls is spent", Later, [No], "proxy_internal_error";
    SecretUnavailable = "secret_unavailable", 503, "A configured secret cannot be read", Later, [No], "proxy_configuration_error";
    Connect = "connect", 502, "The upstream could not be reached", Later, [No], "destination_unavailable";
    UpstreamReset = "upstream_reset", 502, "The upstream ended the exchange", IfIdempotent, [No, Unknown], "connection_terminated";
    UpstreamTimeout = "upstream_timeout", 504, "The upstream did not answer in time", IfIdempotent, [Unknown], "http_response_timeout";
    Internal = "internal", 500, "bearer-proxy failed", IfIdempotent, [No, Unknown], "proxy_internal_error";
}

struct Facts {
    code: &'static str,
    status: u16,
    title: &'static str,
    retryable: Retryable,
    forwarded: &'static [Forwarded],
    proxy_error: &'static str,
}

/// Advice on sending the same request again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retryable {
    /// It will be rejected again until the request or the configuration changes.
    No,
    /// It was not forwarded, and the cause may pass.
    Later,
    /// The cause may pass, but the upstream may have acted on the request.
    IfIdempotent,
}

impl Code {
    /// The code's text in responses, logs and metrics.
    pub fn as_str(self) -> &'static str {
        self.facts().code
    }

    /// The status of the response.
    pub fn status(self) -> StatusCode {
        StatusCode::from_u16(self.facts().status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// True if an operator may have to act on it, so that it is logged as a warning.
    pub fn needs_operator(self) -> bool {
        self.status().is_server_error() && self != Self::Loop
    }

    /// True if requests like this one are refused until the app or the configuration changes.
    pub fn concerns_app(self) -> bool {
        self.status().is_client_error() && self != Self::ClientLeft || self == Self::Loop
    }

    /// A short sentence, the same for every occurrence.
    pub fn title(self) -> &'static str {
        self.facts().title
    }

    /// Advice on sending the same request again.
    pub fn retryable(self) -> Retryable {
        self.facts().retryable
    }

    /// The possible values of `Bearer-Proxy-Forwarded`.
    pub fn forwarded(self) -> &'static [Forwarded] {
        self.facts().forwarded
    }

    /// Proxy error type of RFC 9209 section 2.3.
    pub fn proxy_error(self) -> &'static str {
        self.facts().proxy_error
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

    /// An app that may try again at once must not do a thing twice by it.
    #[test]
    fn whatever_may_have_been_forwarded_is_left_to_judgement() {
        for code in Code::ALL {
            let sure = code.forwarded() == [Forwarded::No];
            assert!(sure || code.retryable() != Retryable::Later, "{code:?}");
            assert!(!sure || code.retryable() != Retryable::IfIdempotent, "{code:?}");
        }
    }
}
