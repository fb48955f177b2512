//! Failures of token requests: who is at fault, and whether a retry can help.
//!
//! Of the server's text only codes of the fixed RFC lists are kept, and a bounded
//! [`ErrorDescription`] that only `check --live` and `token` show.

use std::fmt;
use std::time::Duration;

use http::StatusCode;

/// The reason why an answer of the token server holds no token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenError {
    /// An error response (RFC 6749 section 5.2), or another answer that is not a success.
    Refused(TokenErrorResponse),
    /// A success without a usable token.
    Malformed(MalformedResponse),
}

/// An answer that is not a success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenErrorResponse {
    /// The status.
    pub status: StatusCode,
    /// The `error` parameter; `None` where the body has none that can be read.
    pub code: Option<ErrorCode>,
    /// The `error_description` parameter.
    pub description: Option<ErrorDescription>,
    /// The wait that `Retry-After` asks for.
    pub retry_after: Option<Duration>,
}

/// The consequence of a failure for the refresher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureClass {
    /// The server is unwell; a retry may help.
    Transient,
    /// The client made too many calls; waiting helps.
    RateLimited,
    /// The server refused the client itself; a retry may lock it out.
    ClientRejected,
    /// The server refuses the request until somebody changes the configuration.
    Rejected,
    /// The answer could not be understood.
    Malformed,
}

impl TokenError {
    /// The consequence of this failure.
    pub fn class(&self) -> FailureClass {
        match self {
            Self::Refused(response) => response.class(),
            Self::Malformed(_) => FailureClass::Malformed,
        }
    }

    /// The error response, for an answer that is not a success.
    pub fn response(&self) -> Option<&TokenErrorResponse> {
        match self {
            Self::Refused(response) => Some(response),
            Self::Malformed(_) => None,
        }
    }

    /// The wait that `Retry-After` asks for.
    pub fn retry_after(&self) -> Option<Duration> {
        self.response()?.retry_after
    }

    /// The error code of the answer.
    pub fn code(&self) -> Option<ErrorCode> {
        self.response()?.code
    }

    /// The server's own words, for `check --live` and `token` alone: never for logs or metrics.
    pub fn description(&self) -> Option<&ErrorDescription> {
        self.response()?.description.as_ref()
    }

    /// The `result` label of `bearer_proxy_token_requests_total`.
    pub fn label(&self) -> &'static str {
        if self.response().is_some_and(|response| response.status.is_redirection()) {
            return "redirect";
        }
        match self.class() {
            FailureClass::Transient => "error",
            FailureClass::RateLimited => "rate_limited",
            FailureClass::ClientRejected | FailureClass::Rejected => "denied",
            FailureClass::Malformed => "malformed",
        }
    }

    /// The failure as a word of a fixed list: the error code where an RFC lists it.
    pub fn word(&self) -> &'static str {
        match self.code() {
            Some(code) if code != ErrorCode::Other => code.as_str(),
            _ => self.label(),
        }
    }

    /// The remedy, where one is known.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Refused(response) => match (class_of_status(response.status), response.code) {
                // As with the class, the status outweighs a code of an ailing server.
                (FailureClass::Transient | FailureClass::RateLimited, _) | (_, None) => {
                    hint_of_status(response.status)
                }
                (_, Some(code)) => code.hint(),
            },
            Self::Malformed(malformed) => malformed.hint(),
        }
    }
}

impl TokenErrorResponse {
    /// A status that speaks of load or of the server's own fault outweighs the code beside it: an
    /// ailing server's `invalid_client` must not count against the client, which it would lock out.
    fn class(&self) -> FailureClass {
        match (class_of_status(self.status), self.code) {
            (class @ (FailureClass::Transient | FailureClass::RateLimited), _) => class,
            (class, code) => code.map_or(class, ErrorCode::class),
        }
    }
}

fn class_of_status(status: StatusCode) -> FailureClass {
    match status.as_u16() {
        429 => FailureClass::RateLimited,
        408 | 425 | 500..=599 => FailureClass::Transient,
        // RFC 6749 section 5.2 keeps 401 for failed client authentication.
        401 => FailureClass::ClientRejected,
        _ => FailureClass::Rejected,
    }
}

fn hint_of_status(status: StatusCode) -> Option<&'static str> {
    match status.as_u16() {
        300..=399 => {
            Some("redirects are never followed with a secret; set token_url to the final URL")
        }
        401 => Some("check client_id, client_secret and client_auth"),
        403 => Some("check whether the server allows this client or this network address"),
        404 | 405 => Some("check token_url"),
        429 => Some("wait; let fewer instances use this client id, or ask for a higher limit"),
        500..=599 => Some("ask the token server's owner, with time and status"),
        415 => Some("check preset: the server may want JSON instead of a form, or the reverse"),
        _ => None,
    }
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let response = match self {
            Self::Refused(response) => response,
            Self::Malformed(malformed) => {
                return write!(f, "the token server's answer cannot be used: {malformed}");
            }
        };
        let status = response.status.as_u16();
        match response.code {
            Some(ErrorCode::Other) => write!(
                f,
                "the token server refused with status {status} and a code that no RFC lists"
            ),
            Some(code) => write!(f, "the token server refused with {code} (status {status})"),
            None if response.status.is_redirection() => {
                write!(f, "the token server answered with a redirect (status {status})")
            }
            None if response.status == StatusCode::TOO_MANY_REQUESTS => {
                write!(f, "the token server wants fewer calls (status {status})")
            }
            None => {
                write!(f, "the token server answered with status {status} and no readable error")
            }
        }
    }
}

impl std::error::Error for TokenError {}

/// The defect of a successful answer, in fixed words: nothing of the answer is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum MalformedResponse {
    /// The body is empty.
    #[error("it is empty; a JSON object was expected")]
    Empty,
    /// The body is HTML.
    #[error(
        "it looks like HTML; a JSON object was expected (status {status}, content type {})",
        if *.is_declared { "text/html" } else { "other than text/html" }
    )]
    Html {
        /// The status of the answer.
        status: u16,
        /// Set if its content type is HTML too.
        is_declared: bool,
    },
    /// The body is a form, and its content type does not say so.
    #[error("it is form-encoded; a JSON object was expected")]
    FormEncoded,
    /// The body has a content coding that is not supported, or too many of them.
    #[error("it has a content coding that is not read ({0}); gzip and deflate are")]
    UnsupportedCoding(&'static str),
    /// The body is not what its content coding says, or a part is missing.
    #[error("its content coding {0} is broken or cut short")]
    BrokenCoding(&'static str),
    /// The body without its content coding is longer than 1 MiB.
    #[error("it is longer than 1 MiB without its content coding")]
    DecodedTooLong,
    /// The body is not JSON.
    #[error("it is no JSON; a JSON object was expected")]
    NotJson,
    /// The body is JSON, but not an object.
    #[error("its JSON is no object")]
    NotAnObject,
    /// There is no access token, or it is not a string.
    #[error("it has no access token of type string")]
    NoAccessToken,
    /// The access token is not visible ASCII (RFC 6749 appendix A.12).
    #[error("its access token holds blanks, controls or other bytes that are not visible ASCII")]
    AccessToken,
    /// The access token is longer than the settings allow.
    #[error("its access token is longer than max_token_bytes")]
    AccessTokenTooLong,
    /// There is no `token_type`, and the settings ask for one.
    #[error("it has no token type")]
    NoTokenType,
    /// The `token_type` is neither `Bearer` nor accepted by the settings.
    #[error("its token type is neither Bearer nor in accept_token_types")]
    TokenType,
    /// The token cannot be used as an access token (RFC 8693 section 2.2.1).
    #[error("its token is no access token (token_type N_A)")]
    NotAccessToken,
    /// The `issued_token_type` is neither an access token's nor the requested one.
    #[error("its issued_token_type is neither access_token nor jwt nor the requested one")]
    IssuedTokenType,
    /// The `token_type` is `DPoP`, and the request had no proof that the token could be bound to.
    #[error("its token type is DPoP: each request with this token needs a proof")]
    BoundToKey,
    /// The `token_type` is not `DPoP`, although the request had a proof.
    #[error("its token type is not DPoP: the token is not bound to the key of this client")]
    NotBoundToKey,
    /// The lifetime is not a number of seconds above zero; holds the number, if it is one.
    #[error("its lifetime is no number of seconds above zero: it is {}", number(*.0))]
    Lifetime(Option<i64>),
    /// The absolute expiry cannot be read, and there is no other.
    #[error("its expiry is neither a number nor an HTTP or ISO 8601 date")]
    Expiry,
    /// The token has ended already.
    #[error("its token has ended already")]
    Ended,
    /// The token is a JWT whose `cnf` names another client certificate than that of the request.
    #[error(
        "its token is bound to another certificate than the one that was presented (cnf, x5t#S256)"
    )]
    OtherCertificate,
}

/// A number in words that holds nothing else of an answer.
fn number(number: Option<i64>) -> String {
    number.map_or_else(|| "not a number".to_owned(), |number| number.to_string())
}

impl MalformedResponse {
    fn hint(self) -> Option<&'static str> {
        match self {
            Self::Html { .. } => {
                Some("a login page or a network filter may stand in between; check token_url")
            }
            Self::FormEncoded => Some(
                "a form is read only with the content type application/x-www-form-urlencoded; ask the \
                 server's owner for that, or for JSON",
            ),
            Self::UnsupportedCoding(_) => {
                Some("the request asks for no content coding; ask the server's owner to send none")
            }
            Self::AccessTokenTooLong => Some("raise max_token_bytes"),
            Self::Expiry => Some("check expires_at under response"),
            Self::NoAccessToken => Some("check preset and the names under response"),
            Self::TokenType => Some("add the type to accept_token_types if it is used like Bearer"),
            Self::NotAccessToken | Self::IssuedTokenType => Some(
                "set requested_token_type to access_token, or to what the server issues for APIs",
            ),
            Self::BoundToKey => {
                Some("set dpop of the credential, such as  dpop = { algorithm = \"ES256\" }")
            }
            Self::NotBoundToKey => Some(
                "ask the server's owner to bind the tokens of this client to DPoP keys (RFC 9449), or \
                 remove dpop of the credential",
            ),
            Self::Lifetime(_) => Some(
                "ask the token server's owner what the answer states; check expires_in under response",
            ),
            Self::Ended => Some("compare this machine's clock with the server's"),
            Self::OtherCertificate => Some(
                "does a gateway in front of the token server end TLS, or is another certificate \
                 registered for the client?",
            ),
            Self::NoTokenType => Some("unset require_token_type if the server never sends it"),
            _ => None,
        }
    }
}

/// Defines the enum and its two conversions from one table, so that they cannot differ.
macro_rules! error_codes {
    ($($(#[$doc:meta])+ $variant:ident = $text:literal,)+) => {
        /// Error codes of the fixed RFC lists; the text of any other is dropped.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ErrorCode {
            $($(#[$doc])+ $variant,)+
            /// A code outside these lists.
            Other,
        }

        impl ErrorCode {
            /// Reads a code; unknown ones become [`ErrorCode::Other`].
            pub fn parse(text: &str) -> Self {
                match text {
                    $($text => Self::$variant,)+
                    _ => Self::Other,
                }
            }

            /// The code as its RFC writes it, or `other`.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                    Self::Other => "other",
                }
            }
        }

        #[cfg(test)]
        const ALL_CODES: &[ErrorCode] = &[$(ErrorCode::$variant),+];
    };
}

error_codes! {
    /// RFC 6749 section 5.2.
    InvalidRequest = "invalid_request",
    /// RFC 6749 section 5.2.
    InvalidClient = "invalid_client",
    /// RFC 6749 section 5.2.
    InvalidGrant = "invalid_grant",
    /// RFC 6749 section 5.2.
    UnauthorizedClient = "unauthorized_client",
    /// RFC 6749 section 5.2.
    UnsupportedGrantType = "unsupported_grant_type",
    /// RFC 6749 section 5.2.
    InvalidScope = "invalid_scope",
    /// RFC 6749 section 4.1.2.1, seen at token endpoints too.
    AccessDenied = "access_denied",
    /// RFC 6749 section 4.1.2.1, seen at token endpoints too.
    ServerError = "server_error",
    /// RFC 6749 section 4.1.2.1, seen at token endpoints too.
    TemporarilyUnavailable = "temporarily_unavailable",
    /// RFC 6750 section 3.1.
    InvalidToken = "invalid_token",
    /// RFC 6750 section 3.1.
    InsufficientScope = "insufficient_scope",
    /// RFC 8707 section 2.
    InvalidTarget = "invalid_target",
    /// RFC 8628 section 3.5.
    SlowDown = "slow_down",
    /// RFC 9449 section 5.
    InvalidDpopProof = "invalid_dpop_proof",
    /// RFC 9449 section 8.
    UseDpopNonce = "use_dpop_nonce",
}

impl ErrorCode {
    /// The class of the code alone.
    fn class(self) -> FailureClass {
        match self {
            Self::InvalidClient | Self::UnauthorizedClient => FailureClass::ClientRejected,
            Self::ServerError | Self::TemporarilyUnavailable => FailureClass::Transient,
            Self::SlowDown => FailureClass::RateLimited,
            _ => FailureClass::Rejected,
        }
    }

    fn hint(self) -> Option<&'static str> {
        match self {
            Self::InvalidClient => Some("check client_id, client_secret and client_auth"),
            Self::UnauthorizedClient => {
                Some("ask the provider to allow this client the client-credentials grant")
            }
            Self::InvalidScope => Some("ask the provider to approve the scopes of these routes"),
            Self::InvalidTarget => Some("check resources"),
            Self::InvalidRequest | Self::UnsupportedGrantType => {
                Some("check preset: the server may want other parameters or another encoding")
            }
            Self::InvalidDpopProof => Some(
                "the server wants another proof of DPoP: check dpop of the credential, this machine's \
                 clock, and whether the server takes this key and its algorithm",
            ),
            Self::UseDpopNonce => Some(
                "the server wants proofs of DPoP with a nonce: set dpop of the credential; where it is \
                 set, the server takes not even the nonce that it has just given",
            ),
            _ => None,
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An `error_description`: at most 200 printable ASCII characters. It has no `Display` and a redacted
/// `Debug`, because servers are known to repeat the request in it.
#[derive(Clone, PartialEq, Eq)]
pub struct ErrorDescription(String);

impl ErrorDescription {
    /// Longest text that is kept, in bytes.
    pub const MAX_BYTES: usize = 200;

    /// Keeps the printable ASCII characters of a text; `None` where none is left.
    pub fn new(text: &str) -> Option<Self> {
        let printable = text.chars().filter(|c| c.is_ascii_graphic() || *c == ' ');
        let kept: String = printable.take(Self::MAX_BYTES).collect();
        if kept.trim().is_empty() { None } else { Some(Self(kept)) }
    }

    /// The text, for a terminal.
    pub fn text(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ErrorDescription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[description]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: &str, status: u16) -> TokenError {
        TokenError::Refused(TokenErrorResponse {
            status: StatusCode::from_u16(status).unwrap(),
            code: Some(ErrorCode::parse(code)),
            description: ErrorDescription::new("hunter2"),
            retry_after: None,
        })
    }

    fn status(status: u16) -> TokenError {
        let status = StatusCode::from_u16(status).unwrap();
        let (code, description) = (None, None);
        TokenError::Refused(TokenErrorResponse { status, code, description, retry_after: None })
    }

    #[test]
    fn codes_read_as_written() {
        for code in ALL_CODES {
            assert_eq!(ErrorCode::parse(code.as_str()), *code);
        }
        for unknown in ["", "Invalid_Client", "hunter2", "other"] {
            assert_eq!(ErrorCode::parse(unknown), ErrorCode::Other);
        }
    }

    #[test]
    fn classes_and_labels() {
        use FailureClass::{ClientRejected, Malformed, RateLimited, Rejected, Transient};
        for (error, class, label) in [
            (refused("invalid_client", 401), ClientRejected, "denied"),
            (refused("invalid_client", 400), ClientRejected, "denied"),
            (refused("unauthorized_client", 400), ClientRejected, "denied"),
            (refused("invalid_client", 503), Transient, "error"),
            (refused("invalid_scope", 400), Rejected, "denied"),
            (refused("invalid_grant", 400), Rejected, "denied"),
            (refused("invalid_target", 400), Rejected, "denied"),
            (refused("invalid_request", 429), RateLimited, "rate_limited"),
            (refused("slow_down", 400), RateLimited, "rate_limited"),
            (refused("temporarily_unavailable", 400), Transient, "error"),
            (refused("whatever", 400), Rejected, "denied"),
            (status(500), Transient, "error"),
            (status(503), Transient, "error"),
            (status(429), RateLimited, "rate_limited"),
            (status(408), Transient, "error"),
            (status(401), ClientRejected, "denied"),
            (status(403), Rejected, "denied"),
            (status(404), Rejected, "denied"),
            (status(302), Rejected, "redirect"),
            (TokenError::Malformed(MalformedResponse::NotJson), Malformed, "malformed"),
        ] {
            assert_eq!((error.class(), error.label()), (class, label), "{error}");
        }
    }

    #[test]
    fn the_status_of_an_ailing_server_outweighs_the_hint_of_its_code() {
        for error in [status(500), refused("invalid_client", 503)] {
            assert!(error.hint().unwrap().contains("owner, with time and status"), "{error}");
        }
        assert!(status(429).hint().unwrap().contains("fewer instances"));
        assert!(refused("invalid_client", 401).hint().unwrap().contains("client_secret"));
    }

    #[test]
    fn words_of_the_server_stay_inside() {
        for error in [refused("invalid_client", 401), refused("hunter2", 400)] {
            assert!(!format!("{error} {error:?}").contains("hunter2"));
            assert_eq!(error.description().unwrap().text(), "hunter2");
        }
    }

    #[test]
    fn descriptions_are_bounded_and_printable() {
        for (text, expected) in [
            ("plain words", Some("plain words")),
            ("a\u{1b}[31mb\r\n\u{202e}c", Some("a[31mbc")),
            ("äöü", None),
            ("  ", None),
        ] {
            assert_eq!(ErrorDescription::new(text).as_ref().map(ErrorDescription::text), expected);
        }
        assert_eq!(ErrorDescription::new(&"x".repeat(900)).unwrap().text().len(), 200);
    }
}
