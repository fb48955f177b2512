//! One trip: read the secret, build, send, read the reply. It belongs to no request.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::DATE;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use tokio::time::Instant;

use super::client_secret::{ClientSecretState, Shown};
use super::credential::Credential;
use super::metrics::TokenMetrics;
use super::probe::{MAX_RESPONSE_BYTES, connector};
use super::schedule::FLOOR;
use crate::clock::{Moment, seconds};
use crate::net::control::{self, CallError};
use crate::oauth::error::{ErrorCode, FailureClass, MalformedResponse, TokenError};
use crate::oauth::lifetime::{Lifetime, lifetime};
use crate::oauth::request::{self, GrantType};
use crate::oauth::revoke::{self, RevokedToken};
use crate::oauth::token_response::{self, IssuedToken};
use crate::oauth::{ScopeSet, TokenEndpoint};
use crate::secret::{Freshness, SecretError, Store};
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
    /// Makes one trip, with a refresh token where one is given. A login whose hash is `suppressed` is
    /// not shown.
    fn fetch(
        &self,
        refresh: Option<&Sensitive>,
        suppressed: Option<u64>,
    ) -> impl Future<Output = Result<Fetched, FetchError>> + Send;

    /// Asks the server to end a token (RFC 7009).
    fn revoke(
        &self,
        token: RevokedToken<'_>,
    ) -> impl Future<Output = Result<(), FetchError>> + Send;
}

/// Makes a [`Fetch`] for each token that is kept.
pub trait MakeFetch {
    /// What it makes.
    type Fetch: Fetch;

    /// What fetches this token.
    fn make_fetch(&mut self, credential: &Arc<Credential>, scopes: &ScopeSet) -> Self::Fetch;
}

/// Real trips to real servers.
pub struct TokenClients {
    store: Arc<Store>,
    metrics: TokenMetrics,
    /// One for each credential that any trip is for.
    logins: Vec<Weak<ClientSecretState>>,
}

impl TokenClients {
    /// Clients whose secrets are read through `store`.
    pub fn new(store: Arc<Store>, metrics: TokenMetrics) -> Self {
        Self { store, metrics, logins: Vec::new() }
    }

    /// The login of a credential; what is known of its secrets holds as long as it is not changed.
    fn login(&mut self, credential: &Arc<Credential>) -> Arc<ClientSecretState> {
        self.logins.retain(|login| login.strong_count() > 0);
        let mut known = self.logins.iter().filter_map(Weak::upgrade);
        if let Some(login) = known.find(|login| login.is_of(credential)) {
            return login;
        }
        let metrics = self.metrics.of_client_secret(&credential.name);
        let store = Arc::clone(&self.store);
        let login = Arc::new(ClientSecretState::new(Arc::clone(credential), store, metrics));
        self.logins.push(Arc::downgrade(&login));
        login
    }
}

impl MakeFetch for TokenClients {
    type Fetch = TokenClient;

    fn make_fetch(&mut self, credential: &Arc<Credential>, scopes: &ScopeSet) -> TokenClient {
        let login = self.login(credential);
        TokenClient { credential: Arc::clone(credential), scopes: scopes.clone(), login }
    }
}

/// The real trip.
pub struct TokenClient {
    credential: Arc<Credential>,
    scopes: ScopeSet,
    login: Arc<ClientSecretState>,
}

impl Fetch for TokenClient {
    async fn fetch(
        &self,
        refresh: Option<&Sensitive>,
        suppressed: Option<u64>,
    ) -> Result<Fetched, FetchError> {
        // A login that is suppressed is looked at anew: it may have been changed.
        let age = if suppressed.is_some() { Freshness::Fresh } else { Freshness::Cached };
        let shown = self.login.read(age).await.map_err(secret_error)?;
        let began = Instant::now();
        let refused = match self.ask(&shown, refresh, suppressed).await {
            Err(error) if error.refused_login().is_some() => error,
            outcome => return outcome,
        };
        // The secret may have been rotated since it was read, or between id and secret: then the
        // new one is tried as soon as another call may be made, and its outcome counts.
        match self.login.read(Freshness::Fresh).await {
            Ok(newer) if newer.hash != shown.hash => {
                tokio::time::sleep_until(began + FLOOR).await;
                self.ask(&newer, refresh, suppressed).await
            }
            _ => Err(refused),
        }
    }

    async fn revoke(&self, token: RevokedToken<'_>) -> Result<(), FetchError> {
        let Credential { revocation, dialect, auth, policy, .. } = &*self.credential;
        let Some(endpoint) = revocation else { return Ok(()) };
        let client = self.login.read(Freshness::Cached).await.map_err(secret_error)?.client;
        let request = revoke::build(endpoint, dialect, *auth, &client, token, SystemTime::now())
            .map_err(|error| FetchError::Setup(error.to_string()))?;
        let response = self.call(endpoint, request, policy.timeout).await?;
        match response.status().is_success() {
            true => Ok(()),
            false => Err(FetchError::Setup(format!("status {}", response.status().as_u16()))),
        }
    }
}

impl TokenClient {
    /// Shows one login to the server, unless it is suppressed.
    async fn ask(
        &self,
        shown: &Shown,
        refresh: Option<&Sensitive>,
        suppressed: Option<u64>,
    ) -> Result<Fetched, FetchError> {
        if suppressed == Some(shown.hash) {
            return Err(FetchError::SecretSuppressed);
        }
        let outcome = self.request_token(shown, refresh).await;
        match &outcome {
            Ok(_) if refresh.is_none() => self.login.accepted(shown.hash),
            Err(error) if error.refused_login().is_some() => self.login.refused(shown.hash),
            _ => {}
        }
        outcome
    }

    async fn request_token(
        &self,
        shown: &Shown,
        refresh: Option<&Sensitive>,
    ) -> Result<Fetched, FetchError> {
        let Credential { endpoint, dialect, auth, policy, .. } = &*self.credential;
        let sent = Moment::now();
        let grant = refresh.map_or(GrantType::ClientCredentials, GrantType::RefreshToken);
        let request =
            request::build(endpoint, dialect, *auth, &shown.client, grant, &self.scopes, sent.wall)
                .map_err(|error| FetchError::Setup(error.to_string()))?;
        let refused = |error| FetchError::Refused { error, secret: shown.hash };
        let mut response = self.call(endpoint, request, policy.timeout).await?;
        if !response.status().is_success() {
            ensure_date(response.headers_mut(), SystemTime::now());
        }
        let issued =
            token_response::parse(dialect, response.status(), response.headers(), response.body())
                .map_err(refused)?;
        let received = SystemTime::now();
        let lifetime = lifetime(&issued, sent.wall, received, dialect.default_lifetime);
        if lifetime.life.is_zero() {
            return Err(refused(TokenError::Malformed(MalformedResponse::Ended)));
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
        let called = control::call(&connector, request, timeout, MAX_RESPONSE_BYTES).await;
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
fn ensure_date(headers: &mut HeaderMap, now: SystemTime) {
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
        Ok(ahead) => seconds(ahead),
        Err(behind) => -seconds(behind.duration()),
    }
}

fn secret_error(error: SecretError) -> FetchError {
    FetchError::Secret(error.to_string())
}

/// Why a trip brought no token. The words hold no secret and none of the server's text.
#[derive(Debug)]
pub enum FetchError {
    /// A reference could not be read.
    Secret(String),
    /// The secret was refused lately or too often, and has not changed: no call was made.
    SecretSuppressed,
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
            Self::SecretSuppressed => "denied",
            _ => "error",
        }
    }

    /// What failed in a word of a fixed list: the server's own code where an RFC knows it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Secret(_) => "secret_unreadable",
            Self::Setup(_) => "settings",
            Self::SecretSuppressed => "secret_refused",
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
            Self::SecretSuppressed => f.write_str(
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
