//! One trip: read the secret, build, send, read the reply. It belongs to no request.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::Semaphore;

use super::clock::Moment;
use super::credential::Credential;
use super::login::{Login, Shown};
use super::probe::{MAX_REPLY_BYTES, connector};
use crate::net::control;
use crate::oauth::ScopeSet;
use crate::oauth::error::{FailureClass, TokenError};
use crate::oauth::lifetime::{Lifetime, lifetime};
use crate::oauth::reply::{self, IssuedToken};
use crate::oauth::request::{self, Grant};
use crate::secret::{Age, SecretError};
use crate::sensitive::Sensitive;

/// What one trip brought.
pub struct Fetched {
    /// The token.
    pub issued: IssuedToken,
    /// Its life from `sent` on.
    pub lifetime: Lifetime,
    /// When the request was sent.
    pub sent: Moment,
}

/// Something that fetches tokens; the refresher's tests bring their own.
pub trait Fetch: Send + 'static {
    /// Makes one trip, with a refresh token where one is given. A secret whose hash is `spent` is
    /// not sent.
    fn fetch(
        &self,
        refresh: Option<&Sensitive>,
        spent: Option<u64>,
    ) -> impl Future<Output = Result<Fetched, FetchError>> + Send;
}

/// The real trip.
pub struct Trip {
    pub(super) credential: Arc<Credential>,
    pub(super) scopes: ScopeSet,
    pub(super) login: Arc<Login>,
    /// Bounds the calls in flight to one endpoint.
    pub(super) endpoint: Arc<Semaphore>,
}

impl Fetch for Trip {
    async fn fetch(
        &self,
        refresh: Option<&Sensitive>,
        spent: Option<u64>,
    ) -> Result<Fetched, FetchError> {
        // A login that is withheld is looked at anew: it may have been changed.
        let age = if spent.is_some() { Age::Now } else { Age::Recent };
        let shown = self.login.read(age).await.map_err(unread)?;
        let refused = match self.ask(&shown, refresh, spent).await {
            Err(error) if error.refused_login().is_some() => error,
            outcome => return outcome,
        };
        // The secret may have been rotated since it was read, or between id and secret: then the
        // new one is tried at once, and its outcome counts.
        match self.login.read(Age::Now).await {
            Ok(newer) if newer.hash != shown.hash => self.ask(&newer, refresh, spent).await,
            _ => Err(refused),
        }
    }
}

impl Trip {
    /// Shows one login to the server.
    async fn ask(
        &self,
        shown: &Shown,
        refresh: Option<&Sensitive>,
        spent: Option<u64>,
    ) -> Result<Fetched, FetchError> {
        if refresh.is_none() && spent == Some(shown.hash) {
            return Err(FetchError::Spent);
        }
        let outcome = self.call(shown, refresh).await;
        match &outcome {
            Ok(_) if refresh.is_none() => self.login.accepted(shown.hash),
            Err(error) if error.refused_login().is_some() => self.login.refused(shown.hash),
            _ => {}
        }
        outcome
    }

    async fn call(
        &self,
        shown: &Shown,
        refresh: Option<&Sensitive>,
    ) -> Result<Fetched, FetchError> {
        let credential = &*self.credential;
        let connector =
            connector(credential).map_err(|error| FetchError::Setup(error.to_string()))?;
        let _place =
            self.endpoint.acquire().await.map_err(|_| FetchError::Setup("stopping".into()))?;
        let sent = Moment::now();
        let grant = refresh.map_or(Grant::ClientCredentials, Grant::RefreshToken);
        let request = request::build(
            &credential.endpoint,
            &credential.dialect,
            credential.auth,
            &shown.client,
            grant,
            &self.scopes,
            sent.wall,
        )
        .map_err(|error| FetchError::Setup(error.to_string()))?;
        let reply = control::call(&connector, request, credential.policy.timeout, MAX_REPLY_BYTES)
            .await
            .map_err(|error| FetchError::Call {
                timeout: error.is_timeout(),
                text: error.to_string(),
            })?;
        let response = reply.response;
        let issued = reply::read(
            &credential.dialect,
            response.status(),
            response.headers(),
            response.body(),
        )
        .map_err(|error| FetchError::Refused { error, secret: shown.hash })?;
        let lifetime =
            lifetime(&issued, sent.wall, SystemTime::now(), credential.dialect.default_lifetime);
        Ok(Fetched { issued, lifetime, sent })
    }
}

fn unread(error: SecretError) -> FetchError {
    FetchError::Secret(error.to_string())
}

/// Why a trip brought no token. The words hold no secret and none of the server's text.
#[derive(Debug)]
pub enum FetchError {
    /// A reference could not be read.
    Secret(String),
    /// The secret was refused too often and has not changed.
    Spent,
    /// The request cannot be made from these settings.
    Setup(String),
    /// No whole answer came.
    Call {
        /// For want of time.
        timeout: bool,
        /// What failed.
        text: String,
    },
    /// The answer holds no token.
    Refused {
        /// What it says.
        error: TokenError,
        /// Hash of what was sent.
        secret: u64,
    },
}

impl FetchError {
    /// The `result` label of metrics.
    pub fn result(&self) -> &'static str {
        match self {
            Self::Call { timeout: true, .. } => "timeout",
            Self::Refused { error, .. } => error.label(),
            Self::Spent => "denied",
            _ => "error",
        }
    }

    /// When the server wants to be asked again.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { error, .. } => error.retry_after(),
            _ => None,
        }
    }

    /// Hash of a login that was refused as such.
    pub fn refused_login(&self) -> Option<u64> {
        match self {
            Self::Refused { error, secret } if error.class() == FailureClass::ClientRejected => {
                Some(*secret)
            }
            _ => None,
        }
    }

    /// Whether a refresh token was refused for good, so that the client's own credentials are
    /// tried: any 4xx but 429.
    pub fn refuses_refresh_token(&self) -> bool {
        matches!(
            self,
            Self::Refused { error, .. }
                if matches!(error.class(), FailureClass::ClientRejected | FailureClass::Rejected)
        )
    }
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Secret(text) | Self::Setup(text) | Self::Call { text, .. } => f.write_str(text),
            Self::Spent => f.write_str(
                "the server has refused this client id and secret several times; \
                 they are tried again when they change",
            ),
            Self::Refused { error, .. } => error.fmt(f),
        }
    }
}

impl std::error::Error for FetchError {}
