//! One token call outside the river, for `check --live` and `token`: it keeps what an operator may see
//! and the log must not.

use std::fmt;
use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::DATE;

use super::{Credential, echo};
use crate::net::Origin;
use crate::net::connect::{ConnectSettings, Connector};
use crate::net::control::{self, CallError};
use crate::net::tls::{Alpn, TlsCache};
use crate::oauth::dialect::ClientCredentials;
use crate::oauth::error::TokenError;
use crate::oauth::lifetime::lifetime;
use crate::oauth::request::{self, GrantType};
use crate::oauth::{ScopeSet, TokenEndpoint, token_response};
use crate::secret::EgressProxy;
use crate::sensitive::Sensitive;
use crate::x509::TlsSetupError;

/// Largest token answer that is read, in bytes.
pub const MAX_RESPONSE_BYTES: usize = 1024 * 1024;
/// How long unacknowledged bytes may stand before the connection counts as dead.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(20);

/// A token that was obtained, and how.
pub struct Probe {
    /// The token itself.
    pub token: Sensitive,
    /// Its life from the moment it was asked for.
    pub life: Duration,
    /// The scopes that the answer names.
    pub granted: Option<ScopeSet>,
    /// How far our clock is from the server's, where it says its time.
    pub offset: Option<ClockOffset>,
}

/// How far this machine's clock is from a server's, whose Date (RFC 9110 section 6.6.1) counts whole
/// seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockOffset {
    /// Ours is behind by so much.
    Behind(Duration),
    /// Ours is ahead by so much.
    Ahead(Duration),
}

impl ClockOffset {
    fn of(headers: &HeaderMap, now: SystemTime) -> Option<Self> {
        let date = httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?).ok()?;
        Some(match date.duration_since(now) {
            Ok(behind) => Self::Behind(behind),
            Err(ahead) => Self::Ahead(ahead.duration()),
        })
    }

    /// Its size.
    #[must_use]
    pub fn abs(self) -> Duration {
        match self {
            Self::Behind(apart) | Self::Ahead(apart) => apart,
        }
    }
}

/// Asks a credential's endpoint for one token.
///
/// # Errors
/// Says what failed, and what may help.
pub async fn probe(credential: &Credential, scopes: &ScopeSet) -> Result<Probe, ProbeError> {
    let read = |error: crate::secret::SecretError| ProbeError::new(error.to_string());
    let id = credential.client_id.read_id().await.map_err(read)?;
    let secret = match &credential.client_secret {
        Some(reference) => Some(reference.read().await.map_err(read)?),
        None => None,
    };
    let client = ClientCredentials { id, secret };
    let sent = SystemTime::now();
    let request = request::build(
        &credential.endpoint,
        &credential.dialect,
        credential.auth,
        &client,
        GrantType::ClientCredentials,
        scopes,
        sent,
    )
    .map_err(|error| ProbeError::new(error.to_string()))?;
    let connector = connector(credential, &credential.endpoint)
        .map_err(|error| ProbeError::new(error.to_string()))?
        .with_diagnostics();
    let reply = control::call(&connector, request, credential.policy.timeout, MAX_RESPONSE_BYTES)
        .await
        .map_err(|error| called(&error))?;
    let response = reply.response;
    let offset = ClockOffset::of(response.headers(), SystemTime::now());
    let issued = token_response::parse(
        &credential.dialect,
        response.status(),
        response.headers(),
        response.body(),
    )
    .map_err(|error| ProbeError { offset, ..refused(&error, &client) })?;
    let life = lifetime(&issued, sent, SystemTime::now(), credential.dialect.default_lifetime).life;
    Ok(Probe { token: issued.access_token, life, granted: issued.scope, offset })
}

/// The way to one of the credential's endpoints.
///
/// # Errors
/// TLS settings that cannot be used.
pub fn connector(
    credential: &Credential,
    endpoint: &TokenEndpoint,
) -> Result<Connector, TlsSetupError> {
    let origin = Origin::of(endpoint.uri()).map_err(|error| TlsSetupError::new(error.message))?;
    let timeout = credential.policy.connect_timeout;
    let settings = ConnectSettings { timeout, tcp_user_timeout: TCP_USER_TIMEOUT };
    Connector::new(&TlsCache::default(), origin, &credential.tls, Alpn::Both, settings)?
        .via_proxy(credential.egress.as_ref().map(EgressProxy::tunnel_proxy))
}

fn called(error: &CallError) -> ProbeError {
    ProbeError { hint: error.hint(), ..ProbeError::new(error.to_string()) }
}

fn refused(error: &TokenError, client: &ClientCredentials) -> ProbeError {
    let text = match error.description() {
        Some(description) if echo::contains_secret(description.text(), client) => {
            format!("{error} (its description repeats the secret and is not shown)")
        }
        Some(description) => format!("{error}: {:?}", description.text()),
        None => error.to_string(),
    };
    ProbeError { hint: error.hint().map(str::to_owned), ..ProbeError::new(text) }
}

/// Why no token came.
#[derive(Debug)]
pub struct ProbeError {
    text: String,
    hint: Option<String>,
    offset: Option<ClockOffset>,
}

impl ProbeError {
    fn new(text: String) -> Self {
        Self { text, hint: None, offset: None }
    }

    /// What may help.
    pub fn hint(&self) -> Option<String> {
        self.hint.clone()
    }

    /// How far our clock is from the server's, where it answered and says its time.
    pub fn offset(&self) -> Option<ClockOffset> {
        self.offset
    }
}

impl fmt::Display for ProbeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for ProbeError {}
