//! `FetchError`: why a token request failed, and what that says about the secret, the server and the remedy.

use std::borrow::Cow;
use std::time::Duration;

use http::StatusCode;

use super::client_identity::LoadError;
use super::discovery::DiscoveryError;
use super::endpoint_call::EndpointCallError;
use super::fingerprint::Fingerprint;
use super::other_token::OtherTokenError;
use crate::net::control::CallError;
use crate::oauth::dialect::GrantKind;
use crate::oauth::error::{ErrorCode, FailureClass, TokenError};
use crate::oauth::jws::AssertionError;
use crate::oauth::request::RequestError;
use crate::shortage::OPEN_FILES_REMEDY;
use crate::x509::TlsSetupError;

/// The reason why a token request failed. Its text holds no secret and nothing of the server's text.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// What proves the client could not be read: no call was made without it.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The secret was refused lately or too often and has not changed: no call was made.
    #[error(
        "the server has refused this client id and secret; they are tried again later or when they \
         change, and after five times only then or when a refresh is forced"
    )]
    SecretSuppressed,
    /// The issuer's metadata do not name the token endpoint: no call was made.
    #[error(transparent)]
    Discovery(#[from] DiscoveryError),
    /// The token of another credential that authorizes the request has not come.
    #[error(transparent)]
    OtherToken(#[from] OtherTokenError),
    /// No request can be made from these settings.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The key of DPoP cannot be used, or no proof could be signed with it.
    #[error("dpop: {0}")]
    Dpop(AssertionError),
    /// The TLS settings cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsSetupError),
    /// The token is not a valid header value.
    #[error("the token fits into no header")]
    Header,
    /// The server answered a revocation with this status.
    #[error("status {0}")]
    Revocation(u16),
    /// No whole answer came.
    #[error("{}", call_words(.0))]
    Call(#[from] CallError),
    /// The answer holds no token.
    #[error("{error}")]
    Refused {
        /// The error of the answer.
        error: TokenError,
        /// The secret of the request.
        secret: Fingerprint,
        /// The grant of the request.
        grant: GrantKind,
    },
}

/// The words for a failed call, which name the setting that ended it.
fn call_words(error: &CallError) -> String {
    match error {
        CallError::Timeout(time) => format!("no whole answer within timeouts.total, {time:?}"),
        error => error.to_string(),
    }
}

impl From<EndpointCallError> for FetchError {
    fn from(error: EndpointCallError) -> Self {
        match error {
            EndpointCallError::Request(error) => Self::Request(error),
            EndpointCallError::Proof(error) => Self::Dpop(error),
            EndpointCallError::Call(error) => Self::Call(error),
        }
    }
}

impl FetchError {
    /// The `result` label of metrics.
    pub fn result(&self) -> &'static str {
        match self {
            Self::Call(error) => error.label(),
            Self::Refused { error, .. } => error.label(),
            Self::SecretSuppressed => "denied",
            Self::Discovery(DiscoveryError::Call(error)) => error.label(),
            _ => "error",
        }
    }

    /// The failure as a word of a fixed list: the server's own code where an RFC lists it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Load(LoadError::Secret(_)) => "secret_unreadable",
            Self::SecretSuppressed => "secret_refused",
            Self::Discovery(_) => "issuer_metadata",
            Self::OtherToken(_) => "token_unavailable",
            Self::Load(LoadError::ClientCertificate(_) | LoadError::CertificateSource(_)) => {
                "client_certificate_unusable"
            }
            Self::Request(_)
            | Self::Dpop(_)
            | Self::Tls(_)
            | Self::Header
            | Self::Revocation(_) => "settings",
            Self::Call(_) => self.result(),
            Self::Refused { error, .. } => error.word(),
        }
    }

    /// Tells whether a call was made or tried.
    pub fn called(&self) -> bool {
        matches!(self, Self::Call(_) | Self::Refused { .. })
    }

    /// The answer's error, where there was an answer.
    fn token_error(&self) -> Option<&TokenError> {
        match self {
            Self::Refused { error, .. } => Some(error),
            _ => None,
        }
    }

    /// The wait that the server asks for.
    pub fn retry_after(&self) -> Option<Duration> {
        self.token_error()?.retry_after()
    }

    /// The secret, where the server refused to authenticate the client.
    pub fn refused_secret(&self) -> Option<Fingerprint> {
        match self {
            Self::Refused { error, secret, grant } => {
                // A wrong password locks its user out after a few attempts, as a wrong secret does the
                // client.
                let user = *grant == GrantKind::Password && self.refuses_grant();
                (user || error.class() == FailureClass::ClientRejected).then_some(*secret)
            }
            _ => None,
        }
    }

    /// Tells whether the server refused what was presented as the grant: an assertion, a subject token,
    /// a user.
    pub fn refuses_grant(&self) -> bool {
        match self {
            Self::Refused { error, grant, .. } => {
                error.code().is_some_and(|code| grant.is_refused_by(code))
            }
            _ => false,
        }
    }

    /// Tells whether the server refused the proof of DPoP.
    pub fn refuses_proof(&self) -> bool {
        self.token_error().and_then(TokenError::code) == Some(ErrorCode::InvalidDpopProof)
    }

    /// Tells whether the server said that the client makes too many calls.
    pub fn is_rate_limited(&self) -> bool {
        self.token_error().is_some_and(|error| error.class() == FailureClass::RateLimited)
    }

    /// Tells whether the error code names the client as the reason.
    pub fn rejects_client(&self) -> bool {
        let code = self.token_error().and_then(TokenError::code);
        matches!(code, Some(ErrorCode::InvalidClient | ErrorCode::UnauthorizedClient))
    }

    /// The remedy, where one is known.
    pub fn hint(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::SecretSuppressed => Some("check client_id, client_secret and client_auth".into()),
            Self::Call(CallError::Timeout(_)) => Some(
                "ask the token server's owner why it does not answer; a firewall in between may drop what is sent"
                    .into(),
            ),
            Self::Call(error) => error.hint().map(Cow::Owned),
            Self::Discovery(error) => error.hint().map(Cow::Owned),
            // The source is not at fault.
            Self::Load(error) if error.to_string().contains(OPEN_FILES_REMEDY) => {
                Some(OPEN_FILES_REMEDY.into())
            }
            Self::Load(LoadError::Secret(_)) => Some(
                "mend this source; it is read again at each try, and no call is made without it"
                    .into(),
            ),
            Self::Load(_) => Some(
                "mend the client certificate or its key; both are read again at each try".into(),
            ),
            Self::Refused { grant, .. } if self.refuses_grant() => grant.hint().map(Cow::Borrowed),
            _ => self.token_error()?.hint().map(Cow::Borrowed),
        }
    }

    /// Tells whether a refresh token was refused for good, so that the client's own credentials are
    /// tried: any 4xx but 429.
    pub fn refuses_refresh_token(&self) -> bool {
        let response = self.token_error().and_then(TokenError::response);
        response.is_some_and(|response| {
            response.status.is_client_error() && response.status != StatusCode::TOO_MANY_REQUESTS
        })
    }

    /// Tells whether the server may have processed the request although its answer was lost: it may have
    /// replaced a refresh token by one that never arrived, and to send the old one again then looks like
    /// theft (RFC 9700 section 4.14.2).
    pub fn outcome_unknown(&self) -> bool {
        match self {
            Self::Call(error) => !matches!(error, CallError::Connect(_)),
            Self::Refused { error, .. } => error.class() == FailureClass::Malformed,
            _ => false,
        }
    }
}
