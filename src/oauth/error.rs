//! What a token server's failure means: who is at fault, and whether trying again can help.
//!
//! Nothing that the server wrote is kept, but for codes of the fixed RFC lists and a bounded
//! [`ErrorDescription`] that only `check --live` and `token` show.

use std::fmt;
use std::time::Duration;

use http::StatusCode;

/// Why a token answer brought no token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenError {
    /// The server gave a reason (RFC 6749 section 5.2).
    Refused {
        /// The reason, as far as an RFC knows it.
        code: ErrorCode,
        /// The status beside it.
        status: StatusCode,
        /// The server's own words, for people at a terminal only.
        description: Option<ErrorDescription>,
        /// When the server wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// No success, and no reason that could be read.
    Status {
        /// What was answered.
        status: StatusCode,
        /// When the server wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// A success that holds no usable token.
    Malformed(MalformedResponse),
}

/// What a failure asks of the one who keeps the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureClass {
    /// The server is unwell; trying again may help.
    Transient,
    /// Too many calls; waiting helps.
    RateLimited,
    /// The client itself is refused; trying again may lock it out.
    ClientRejected,
    /// The request is refused and will be until somebody changes something.
    Rejected,
    /// The answer could not be understood.
    Malformed,
}

impl TokenError {
    /// What this failure asks for.
    pub fn class(&self) -> FailureClass {
        match self {
            Self::Refused { code, status, .. } => class_of_code(*code, *status),
            Self::Status { status, .. } => class_of_status(*status),
            Self::Malformed(_) => FailureClass::Malformed,
        }
    }

    /// When the server wants to be asked again, as it said.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } | Self::Status { retry_after, .. } => *retry_after,
            Self::Malformed(_) => None,
        }
    }

    /// The `result` label of `bearer_proxy_token_requests_total`.
    pub fn label(&self) -> &'static str {
        match self.class() {
            FailureClass::Transient => "error",
            FailureClass::RateLimited | FailureClass::ClientRejected | FailureClass::Rejected => {
                "denied"
            }
            FailureClass::Malformed => "malformed",
        }
    }

    /// What it is in a word of a fixed list: the code where the server gave one that an RFC knows.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Refused { code, .. } if *code != ErrorCode::Other => code.as_str(),
            _ if self.class() == FailureClass::RateLimited => "rate_limited",
            _ => self.label(),
        }
    }

    /// The reason that the server gave.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            Self::Status { .. } | Self::Malformed(_) => None,
        }
    }

    /// The status of an answer that is no success.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Refused { status, .. } | Self::Status { status, .. } => Some(*status),
            Self::Malformed(_) => None,
        }
    }

    /// The server's own words, for `check --live` and `token` alone: never for logs or metrics.
    pub fn description(&self) -> Option<&ErrorDescription> {
        match self {
            Self::Refused { description, .. } => description.as_ref(),
            Self::Status { .. } | Self::Malformed(_) => None,
        }
    }

    /// What a person can do about it, where that is known.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Refused { code, .. } => code.hint(),
            Self::Status { status, .. } => hint_of_status(*status),
            Self::Malformed(malformation) => malformation.hint(),
        }
    }
}

/// A status that speaks of load or of the server's own fault outweighs the code beside it: counting
/// an ailing server's `invalid_client` against the client would lock it out for nothing.
fn class_of_code(code: ErrorCode, status: StatusCode) -> FailureClass {
    match class_of_status(status) {
        by_status @ (FailureClass::Transient | FailureClass::RateLimited) => by_status,
        _ => code.class(),
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
        415 => Some("check preset: the server may want JSON instead of a form, or the reverse"),
        _ => None,
    }
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { code: ErrorCode::Other, status, .. } => write!(
                f,
                "the token server refused with status {} and a code that no RFC lists",
                status.as_u16()
            ),
            Self::Refused { code, status, .. } => {
                write!(f, "the token server refused with {code} (status {})", status.as_u16())
            }
            Self::Status { status, .. } if status.is_redirection() => {
                write!(f, "the token server answered with a redirect (status {})", status.as_u16())
            }
            Self::Status { status, .. } => write!(
                f,
                "the token server answered with status {} and no readable error",
                status.as_u16()
            ),
            Self::Malformed(malformation) => {
                write!(f, "the token server's answer cannot be used: {malformation}")
            }
        }
    }
}

impl std::error::Error for TokenError {}

/// What makes a success unusable; fixed words, nothing from the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MalformedResponse {
    /// No bytes at all.
    Empty,
    /// HTML where JSON belongs.
    Html,
    /// Bytes that are no JSON.
    NotJson,
    /// JSON, but no object.
    NotAnObject,
    /// No access token, or none that is a string.
    NoAccessToken,
    /// An access token outside the grammar of RFC 6750 section 2.1, which no header could carry.
    AccessToken,
    /// An access token longer than any we carry.
    AccessTokenTooLong,
    /// No `token_type` where the settings ask for one.
    NoTokenType,
    /// A `token_type` that is neither `Bearer` nor accepted by the settings.
    TokenType,
    /// A life that is no number of seconds above zero.
    Lifetime,
    /// An end that lies in the past.
    Ended,
}

impl MalformedResponse {
    fn hint(self) -> Option<&'static str> {
        match self {
            Self::Html => {
                Some("a login page or a network filter may stand in between; check token_url")
            }
            Self::NoAccessToken => Some("check preset and the names under response"),
            Self::TokenType => Some("add the type to accept_token_types if it is used like Bearer"),
            Self::Ended => Some("compare this machine's clock with the server's"),
            Self::NoTokenType => Some("unset require_token_type if the server never sends it"),
            _ => None,
        }
    }
}

impl fmt::Display for MalformedResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "it is empty; a JSON object was expected",
            Self::Html => "it looks like HTML; a JSON object was expected",
            Self::NotJson => "it is no JSON; a JSON object was expected",
            Self::NotAnObject => "its JSON is no object",
            Self::NoAccessToken => "it has no access token of type string",
            Self::AccessToken => "its access token holds characters that RFC 6750 does not allow",
            Self::AccessTokenTooLong => "its access token is longer than 8192 bytes",
            Self::NoTokenType => "it has no token type",
            Self::TokenType => "its token type is neither Bearer nor in accept_token_types",
            Self::Lifetime => "its lifetime is no number of seconds above zero",
            Self::Ended => "its token has ended already",
        })
    }
}

/// Writes the enum and its two translations from one table, so that they cannot drift apart.
macro_rules! error_codes {
    ($($(#[$doc:meta])+ $variant:ident = $text:literal,)+) => {
        /// Error codes of the fixed RFC lists; the text of any other is dropped.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ErrorCode {
            $($(#[$doc])+ $variant,)+
            /// A code that no list knows.
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
    /// What the code alone asks for.
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
            Self::InvalidDpopProof | Self::UseDpopNonce => {
                Some("the server wants DPoP, which is not supported")
            }
            _ => None,
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the server wrote to people: at most 200 printable ASCII characters. It has no `Display` and
/// a redacted `Debug`, since servers are known to repeat the request in it.
#[derive(Clone, PartialEq, Eq)]
pub struct ErrorDescription(String);

impl ErrorDescription {
    /// Longest text kept, in bytes.
    pub const MAX_BYTES: usize = 200;

    /// Keeps the printable ASCII characters, and `None` where none is left.
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
        TokenError::Refused {
            code: ErrorCode::parse(code),
            status: StatusCode::from_u16(status).unwrap(),
            description: ErrorDescription::new("hunter2"),
            retry_after: None,
        }
    }

    fn status(status: u16) -> TokenError {
        TokenError::Status { status: StatusCode::from_u16(status).unwrap(), retry_after: None }
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
            (refused("invalid_request", 429), RateLimited, "denied"),
            (refused("slow_down", 400), RateLimited, "denied"),
            (refused("temporarily_unavailable", 400), Transient, "error"),
            (refused("whatever", 400), Rejected, "denied"),
            (status(500), Transient, "error"),
            (status(503), Transient, "error"),
            (status(429), RateLimited, "denied"),
            (status(408), Transient, "error"),
            (status(401), ClientRejected, "denied"),
            (status(403), Rejected, "denied"),
            (status(404), Rejected, "denied"),
            (status(302), Rejected, "denied"),
            (TokenError::Malformed(MalformedResponse::NotJson), Malformed, "malformed"),
        ] {
            assert_eq!((error.class(), error.label()), (class, label), "{error}");
        }
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
