//! One token call outside the river, for `check --live` and `token`: it tells each step apart, and
//! keeps what an operator may see and the log must not.

use std::fmt;
use std::time::{Duration, SystemTime};

use super::{Credential, echo};
use crate::net::Origin;
use crate::net::connect::{ConnectReport, Connector};
use crate::net::control::{self, CallError};
use crate::net::tls::Alpn;
use crate::oauth::dialect::ClientCredentials;
use crate::oauth::error::TokenError;
use crate::oauth::lifetime::lifetime;
use crate::oauth::request::{self, Grant};
use crate::oauth::{ScopeSet, TokenEndpoint, reply};
use crate::secret::EgressProxy;
use crate::sensitive::Sensitive;

/// Largest token answer that is read, in bytes.
pub const MAX_REPLY_BYTES: usize = 1024 * 1024;
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
    /// How the endpoint was reached.
    pub connect: ConnectReport,
    date: Option<SystemTime>,
}

impl Probe {
    /// How far the server's clock is from ours, in either direction.
    pub fn clock_offset(&self, now: SystemTime) -> Option<Duration> {
        let date = self.date?;
        Some(now.duration_since(date).unwrap_or_else(|ahead| ahead.duration()))
    }
}

/// Asks a credential's endpoint for one token.
///
/// # Errors
/// Says at which step it failed, and what may help.
pub async fn probe(credential: &Credential, scopes: &ScopeSet) -> Result<Probe, ProbeError> {
    let read = |error: crate::secret::SecretError| ProbeError::new("secret", error.to_string());
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
        Grant::ClientCredentials,
        scopes,
        sent,
    )
    .map_err(|error| ProbeError::new("request", error.to_string()))?;
    let reply = control::call(
        &connector(credential, &credential.endpoint)?,
        request,
        credential.policy.timeout,
        MAX_REPLY_BYTES,
    )
    .await
    .map_err(|error| called(&error))?;
    let response = reply.response;
    let issued =
        reply::read(&credential.dialect, response.status(), response.headers(), response.body())
            .map_err(|error| refused(&error, &client, reply.connect.clone()))?;
    let life = lifetime(&issued, sent, SystemTime::now(), credential.dialect.default_lifetime).life;
    Ok(Probe {
        token: issued.access_token,
        life,
        granted: issued.scope,
        connect: reply.connect,
        date: issued.date,
    })
}

/// The way to one of the credential's endpoints.
pub(super) fn connector(
    credential: &Credential,
    endpoint: &TokenEndpoint,
) -> Result<Connector, ProbeError> {
    let origin = Origin::of(endpoint.uri())
        .map_err(|error| ProbeError::new("endpoint", error.to_string()))?;
    let timeout = credential.policy.connect_timeout;
    Connector::new(origin, &credential.tls, Alpn::Both, timeout, TCP_USER_TIMEOUT)
        .and_then(|connector| connector.through(credential.egress.as_ref().map(EgressProxy::way)))
        .map_err(|error| ProbeError::new("tls settings", error.to_string()))
}

fn called(error: &CallError) -> ProbeError {
    ProbeError { hint: error.hint(), ..ProbeError::new(error.label(), error.to_string()) }
}

fn refused(error: &TokenError, client: &ClientCredentials, reached: ConnectReport) -> ProbeError {
    let text = match error.description() {
        Some(description) if echo::repeats(description.text(), client) => {
            format!("{error} (its description repeats the secret and is not shown)")
        }
        Some(description) => format!("{error}: {:?}", description.text()),
        None => error.to_string(),
    };
    ProbeError {
        hint: error.hint().map(str::to_owned),
        reached: Some(Box::new(reached)),
        ..ProbeError::new("token", text)
    }
}

/// Why no token came.
#[derive(Debug)]
pub struct ProbeError {
    step: &'static str,
    text: String,
    hint: Option<String>,
    reached: Option<Box<ConnectReport>>,
}

impl ProbeError {
    fn new(step: &'static str, text: String) -> Self {
        Self { step, text, hint: None, reached: None }
    }

    /// The step that failed.
    pub fn step(&self) -> &'static str {
        self.step
    }

    /// What may help.
    pub fn hint(&self) -> Option<String> {
        self.hint.clone()
    }

    /// How the endpoint was reached, if it was.
    pub fn reached(&self) -> Option<&ConnectReport> {
        self.reached.as_deref()
    }
}

impl fmt::Display for ProbeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for ProbeError {}
