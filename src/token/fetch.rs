//! One trip: read the secret, build, send, read the reply. It belongs to no request.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::DATE;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use tokio::time::Instant;

use super::credential::Credential;
use super::login::{Login, Shown};
use super::metrics::TokenMetrics;
use super::probe::{MAX_REPLY_BYTES, connector};
use super::schedule::FLOOR;
use crate::clock::Moment;
use crate::net::control::{self, CallError};
use crate::oauth::error::{ErrorCode, FailureClass, Malformation, TokenError};
use crate::oauth::lifetime::{Lifetime, lifetime};
use crate::oauth::reply::{self, IssuedToken};
use crate::oauth::request::{self, Grant};
use crate::oauth::revoke::{self, Revoked};
use crate::oauth::{ScopeSet, TokenEndpoint};
use crate::secret::{Age, SecretError, Store};
use crate::sensitive::Sensitive;

/// What one trip brought.
pub struct Fetched {
    /// The token.
    pub issued: IssuedToken,
    /// Its life from `sent` on, above zero.
    pub lifetime: Lifetime,
    /// When the request was sent.
    pub sent: Moment,
    /// How far the server's clock is ahead of ours, in seconds, where the answer tells.
    pub clock_offset: Option<f64>,
}

/// Something that fetches tokens; the refresher's tests bring their own.
pub trait Fetch: Send + Sync + 'static {
    /// Makes one trip, with a refresh token where one is given. A login whose hash is `withheld` is
    /// not shown.
    fn fetch(
        &self,
        refresh: Option<&Sensitive>,
        withheld: Option<u64>,
    ) -> impl Future<Output = Result<Fetched, FetchError>> + Send;

    /// Asks the server to end a token (RFC 7009).
    fn revoke(&self, token: Revoked<'_>) -> impl Future<Output = Result<(), FetchError>> + Send;
}

/// Makes a [`Fetch`] for each token that is kept.
pub trait Fetchers {
    /// What it makes.
    type Fetch: Fetch;

    /// What fetches this token.
    fn fetcher(&mut self, credential: &Arc<Credential>, scopes: &ScopeSet) -> Self::Fetch;
}

/// Real trips to real servers.
pub struct Trips {
    store: Arc<Store>,
    metrics: TokenMetrics,
    /// One for each credential that any trip is for.
    logins: Vec<Weak<Login>>,
}

impl Trips {
    /// Trips whose secrets are read through `store`.
    pub fn new(store: Arc<Store>, metrics: TokenMetrics) -> Self {
        Self { store, metrics, logins: Vec::new() }
    }

    /// The login of a credential; what is known of its secrets holds as long as it is not changed.
    fn login(&mut self, credential: &Arc<Credential>) -> Arc<Login> {
        self.logins.retain(|login| login.strong_count() > 0);
        let mut known = self.logins.iter().filter_map(Weak::upgrade);
        if let Some(login) = known.find(|login| login.is_of(credential)) {
            return login;
        }
        let metrics = self.metrics.of_login(&credential.name);
        let store = Arc::clone(&self.store);
        let login = Arc::new(Login::new(Arc::clone(credential), store, metrics));
        self.logins.push(Arc::downgrade(&login));
        login
    }
}

impl Fetchers for Trips {
    type Fetch = Trip;

    fn fetcher(&mut self, credential: &Arc<Credential>, scopes: &ScopeSet) -> Trip {
        let login = self.login(credential);
        Trip { credential: Arc::clone(credential), scopes: scopes.clone(), login }
    }
}

/// The real trip.
pub struct Trip {
    credential: Arc<Credential>,
    scopes: ScopeSet,
    login: Arc<Login>,
}

impl Fetch for Trip {
    async fn fetch(
        &self,
        refresh: Option<&Sensitive>,
        withheld: Option<u64>,
    ) -> Result<Fetched, FetchError> {
        // A login that is withheld is looked at anew: it may have been changed.
        let age = if withheld.is_some() { Age::Now } else { Age::Recent };
        let shown = self.login.read(age).await.map_err(unread)?;
        let began = Instant::now();
        let refused = match self.ask(&shown, refresh, withheld).await {
            Err(error) if error.refused_login().is_some() => error,
            outcome => return outcome,
        };
        // The secret may have been rotated since it was read, or between id and secret: then the
        // new one is tried as soon as another call may be made, and its outcome counts.
        match self.login.read(Age::Now).await {
            Ok(newer) if newer.hash != shown.hash => {
                tokio::time::sleep_until(began + FLOOR).await;
                self.ask(&newer, refresh, withheld).await
            }
            _ => Err(refused),
        }
    }

    async fn revoke(&self, token: Revoked<'_>) -> Result<(), FetchError> {
        let Credential { revocation, dialect, auth, policy, .. } = &*self.credential;
        let Some(endpoint) = revocation else { return Ok(()) };
        let client = self.login.read(Age::Recent).await.map_err(unread)?.client;
        let request = revoke::build(endpoint, dialect, *auth, &client, token, SystemTime::now())
            .map_err(|error| FetchError::Setup(error.to_string()))?;
        let response = self.call(endpoint, request, policy.timeout).await?;
        match response.status().is_success() {
            true => Ok(()),
            false => Err(FetchError::Setup(format!("status {}", response.status().as_u16()))),
        }
    }
}

impl Trip {
    /// Shows one login to the server, unless it is withheld.
    async fn ask(
        &self,
        shown: &Shown,
        refresh: Option<&Sensitive>,
        withheld: Option<u64>,
    ) -> Result<Fetched, FetchError> {
        if withheld == Some(shown.hash) {
            return Err(FetchError::Withheld);
        }
        let outcome = self.obtain(shown, refresh).await;
        match &outcome {
            Ok(_) if refresh.is_none() => self.login.accepted(shown.hash),
            Err(error) if error.refused_login().is_some() => self.login.refused(shown.hash),
            _ => {}
        }
        outcome
    }

    async fn obtain(
        &self,
        shown: &Shown,
        refresh: Option<&Sensitive>,
    ) -> Result<Fetched, FetchError> {
        let Credential { endpoint, dialect, auth, policy, .. } = &*self.credential;
        let sent = Moment::now();
        let grant = refresh.map_or(Grant::ClientCredentials, Grant::RefreshToken);
        let request =
            request::build(endpoint, dialect, *auth, &shown.client, grant, &self.scopes, sent.wall)
                .map_err(|error| FetchError::Setup(error.to_string()))?;
        let refused = |error| FetchError::Refused { error, secret: shown.hash };
        let mut response = self.call(endpoint, request, policy.timeout).await?;
        if !response.status().is_success() {
            dated(response.headers_mut(), SystemTime::now());
        }
        let issued = reply::read(dialect, response.status(), response.headers(), response.body())
            .map_err(refused)?;
        let received = SystemTime::now();
        let lifetime = lifetime(&issued, sent.wall, received, dialect.default_lifetime);
        if lifetime.life.is_zero() {
            return Err(refused(TokenError::Malformed(Malformation::Ended)));
        }
        let clock_offset = issued.date.map(|date| clock_offset(date, sent.wall, received));
        Ok(Fetched { issued, lifetime, sent, clock_offset })
    }

    async fn call(
        &self,
        endpoint: &TokenEndpoint,
        request: Request<Bytes>,
        timeout: Duration,
    ) -> Result<Response<Bytes>, FetchError> {
        let connector = connector(&self.credential, endpoint)
            .map_err(|error| FetchError::Setup(error.to_string()))?;
        let called = control::call(&connector, request, timeout, MAX_REPLY_BYTES).await;
        called.map(|reply| reply.response).map_err(|error| FetchError::Call {
            timeout: error.is_timeout(),
            unsent: matches!(error, CallError::Connect(_)),
            text: match error.hint() {
                Some(hint) => format!("{error}; {hint}"),
                None => error.to_string(),
            },
        })
    }
}

/// A date in Retry-After is read against `Date`: where there is none, the answer is of now
/// (RFC 9110 section 6.6.1).
fn dated(headers: &mut HeaderMap, now: SystemTime) {
    if let Ok(now) = HeaderValue::try_from(httpdate::fmt_http_date(now)) {
        headers.entry(DATE).or_insert(now);
    }
}

/// How far the server's clock is ahead of ours, in seconds: its `Date`, which counts whole ones,
/// against the middle of the call.
fn clock_offset(date: SystemTime, sent: SystemTime, received: SystemTime) -> f64 {
    let middle = sent + received.duration_since(sent).unwrap_or_default() / 2;
    let date = date + Duration::from_millis(500);
    match date.duration_since(middle) {
        Ok(ahead) => ahead.as_secs_f64(),
        Err(behind) => -behind.duration().as_secs_f64(),
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
    /// The secret was refused lately or too often, and has not changed: no call was made.
    Withheld,
    /// The request cannot be made from these settings.
    Setup(String),
    /// No whole answer came.
    Call {
        /// For want of time.
        timeout: bool,
        /// The server cannot have seen the request.
        unsent: bool,
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
            Self::Withheld => "denied",
            _ => "error",
        }
    }

    /// What failed in a word of a fixed list: the server's own code where an RFC knows it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Secret(_) => "secret_unreadable",
            Self::Setup(_) => "settings",
            Self::Withheld => "secret_refused",
            Self::Call { unsent: true, .. } => "connect",
            Self::Refused { error, .. } => error.word(),
            Self::Call { .. } => self.result(),
        }
    }

    /// Whether a call was made, or at least tried.
    pub fn called(&self) -> bool {
        matches!(self, Self::Call { .. } | Self::Refused { .. })
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

    /// Whether the server says in so many words that it is the client that it refuses.
    pub fn rejects_client(&self) -> bool {
        let code = match self {
            Self::Refused { error, .. } => error.code(),
            _ => None,
        };
        matches!(code, Some(ErrorCode::InvalidClient | ErrorCode::UnauthorizedClient))
    }

    /// What a person can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Refused { error, .. } => error.hint(),
            _ => None,
        }
    }

    /// Whether a refresh token was refused for good, so that the client's own credentials are
    /// tried: any 4xx but 429.
    pub fn refuses_refresh_token(&self) -> bool {
        let status = match self {
            Self::Refused { error, .. } => error.status(),
            _ => None,
        };
        status.is_some_and(|status| {
            status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS
        })
    }

    /// Whether the server may have replaced a refresh token by one that we never saw. Showing the
    /// old one again then looks like theft (RFC 9700 section 4.14.2).
    pub fn loses_refresh_token(&self) -> bool {
        match self {
            Self::Call { unsent, .. } => !unsent,
            Self::Refused { error, .. } => error.class() == FailureClass::Malformed,
            _ => false,
        }
    }
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Secret(text) | Self::Setup(text) | Self::Call { text, .. } => f.write_str(text),
            Self::Withheld => f.write_str(
                "the server has refused this client id and secret; they are tried again later or \
                 when they change, and after five times only then or when a refresh is forced",
            ),
            Self::Refused { error, .. } => error.fmt(f),
        }
    }
}

impl std::error::Error for FetchError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_compared_with_the_middle_of_the_call() {
        let at = |seconds: f64| SystemTime::UNIX_EPOCH + Duration::from_secs_f64(seconds);
        for (date, sent, received, expected) in [
            (100.0, 100.0, 101.0, 0.0),
            (100.0, 100.9, 100.9, -0.4),
            (3700.0, 100.0, 101.0, 3600.0),
            (100.0, 3700.0, 3701.0, -3600.0),
            (100.0, 101.0, 100.0, -0.5),
        ] {
            let found = clock_offset(at(date), at(sent), at(received));
            assert!((found - expected).abs() < 0.01, "{date} {sent} {received}: {found}");
        }
    }
}
