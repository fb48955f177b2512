//! `TokenClient`: one token request, from reading the secret to parsing the answer. No request of an
//! app takes part in it.

use std::borrow::Cow;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use tokio::time::Instant;

use super::bearer::Bearer;
use super::client_identity::LoadError;
use super::client_secret::LoadedCredentials;
use super::credential::{Binding, Credential};
use super::discovery::{self, DiscoveryError};
use super::dpop::{Dpop, Prover};
use super::endpoint_call::{EndpointAnswer, EndpointCall, EndpointCallError};
use super::endpoint_client::{MAX_RESPONSE_BYTES, connector};
use super::fingerprint::Fingerprint;
use super::issuer::Issuer;
use super::other_token::{OtherToken, OtherTokenError};
use super::schedule::MIN_CALL_INTERVAL;
use super::token_cell::Reader;
use crate::clock::{Moment, seconds};
use crate::net::control::{self, CallError, Limits};
use crate::net::tls::ClientIdentity;
use crate::oauth::confirmation::names_other_certificate;
use crate::oauth::dialect::GrantKind;
use crate::oauth::error::{ErrorCode, FailureClass, MalformedResponse, TokenError};
use crate::oauth::jws::AssertionError;
use crate::oauth::lifetime::{Lifetime, lifetime};
use crate::oauth::request::RequestError;
use crate::oauth::token_response::{self, IssuedToken};
use crate::oauth::{ClientAuth, ClientRequest, GrantType, RevokedToken, ScopeSet, TokenEndpoint};
use crate::secret::{Freshness, Store};
use crate::sensitive::Sensitive;
use crate::x509::TlsSetupError;

/// The result of a successful token request.
pub struct Fetched {
    /// The token.
    pub issued: IssuedToken,
    /// The life of the token from `sent` on, above zero.
    pub lifetime: Lifetime,
    /// The time at which the request was sent.
    pub sent: Moment,
    /// The seconds by which the server's clock is ahead of ours, for an answer with a `Date`.
    pub clock_offset: Option<f64>,
    /// The secret that the server accepted; `None` for a refresh grant, which may go without one, and for
    /// a request that another token authorizes, which changes by itself.
    pub secret: Option<Fingerprint>,
    /// The client certificate to which the token is bound; `None` for a token that is not bound.
    pub identity: Option<Arc<ClientIdentity>>,
    /// For a token that was read and not requested: the time after which its source is read again. The same
    /// token then stays in use.
    pub reread: Option<Duration>,
    /// The key to which the token is bound; `None` for a token that is not bound.
    pub prover: Option<Prover>,
}

/// A source of tokens; the refresher's tests bring their own.
pub trait Fetch: Send + Sync + 'static {
    /// Requests one token, with the refresh token if there is one. The secret with the fingerprint
    /// `suppressed` is not sent.
    fn fetch(
        &self,
        refresh: Option<&Sensitive>,
        suppressed: Option<Fingerprint>,
    ) -> impl Future<Output = Result<Fetched, FetchError>> + Send;

    /// Revokes a token (RFC 7009).
    fn revoke(
        &self,
        token: RevokedToken<'_>,
    ) -> impl Future<Output = Result<(), FetchError>> + Send;
}

/// Makes a [`Fetch`] for each token.
pub trait MakeFetch {
    /// The type that it makes.
    type Fetch: Fetch;

    /// The source of one token. `via` reads the token that authorizes its token requests, where the
    /// credential names one.
    fn make_fetch(
        &mut self,
        credential: &Arc<Credential>,
        scopes: &ScopeSet,
        via: Option<Reader>,
    ) -> Self::Fetch;
}

/// The server of a credential.
pub(super) enum TokenServer {
    /// The configuration states the token endpoint.
    Stated(TokenEndpoint),
    /// The metadata of an issuer name it.
    Discovered(Issuer),
}

/// Requests one token from its server.
pub struct TokenClient {
    server: TokenServer,
    credential: Arc<Credential>,
    scopes: ScopeSet,
    /// The token that authorizes the requests.
    via: Option<OtherToken>,
    store: Arc<Store>,
    dpop: Option<Arc<Dpop>>,
    /// The private key that the server accepted last, with the client id. While a key that replaced it
    /// does not work, this one stays in use.
    accepted: Mutex<Option<LoadedCredentials>>,
}

impl TokenClient {
    /// A client that reads its secrets through `store`.
    pub(super) fn new(
        server: TokenServer,
        credential: Arc<Credential>,
        scopes: ScopeSet,
        via: Option<OtherToken>,
        store: Arc<Store>,
        dpop: Option<Arc<Dpop>>,
    ) -> Self {
        Self { server, credential, scopes, via, store, dpop, accepted: Mutex::default() }
    }
}

impl Fetch for TokenClient {
    async fn fetch(
        &self,
        refresh: Option<&Sensitive>,
        suppressed: Option<Fingerprint>,
    ) -> Result<Fetched, FetchError> {
        let outcome = self.fetch_token(refresh, suppressed).await;
        // The endpoint may have moved. The refresher's back-off bounds the calls.
        if let (TokenServer::Discovered(issuer), Err(error)) = (&self.server, &outcome)
            && error.called()
            && !error.is_rate_limited()
        {
            issuer.doubt();
        }
        outcome
    }

    async fn revoke(&self, token: RevokedToken<'_>) -> Result<(), FetchError> {
        if !self.credential.revokes() {
            return Ok(());
        }
        let loaded = self.load(Freshness::Cached).await?;
        let (endpoint, auth) = match &self.server {
            TokenServer::Discovered(issuer) if self.credential.revocation.is_none() => {
                // Found by the request for this token: there is nothing to wait for at the end.
                let found = issuer.found();
                let found = found.and_then(|found| Some((found.revocation.clone()?, found.auth)));
                let Some(found) = found else { return Ok(()) };
                found
            }
            _ => match &self.credential.revocation {
                Some(endpoint) => (endpoint.clone(), self.credential.auth),
                None => return Ok(()),
            },
        };
        let request =
            self.request(&endpoint, auth, &loaded, SystemTime::now()).revocation(token)?;
        let status = self.call(&endpoint, &loaded, request).await?.status();
        if status.is_success() { Ok(()) } else { Err(FetchError::Revocation(status.as_u16())) }
    }
}

impl TokenClient {
    async fn fetch_token(
        &self,
        refresh: Option<&Sensitive>,
        suppressed: Option<Fingerprint>,
    ) -> Result<Fetched, FetchError> {
        // While a secret is suppressed its source is read past the cache: it may hold a new one.
        let freshness = if suppressed.is_some() { Freshness::Fresh } else { Freshness::Cached };
        let loaded = self.load(freshness).await?;
        let began = Instant::now();
        let refused = match self.request_token(&loaded, refresh, suppressed).await {
            Err(error) if self.is_about_secret(&error, refresh) => error,
            outcome => return outcome,
        };
        self.forget(loaded.fingerprint);
        // The secret may have been rotated since it was read, or between the readings of id and
        // secret. Then the new one is tried as soon as another call may be made, and its outcome
        // counts; the same secret is never sent twice.
        let outcome = match self.load(Freshness::Fresh).await {
            Ok(newer) if newer.fingerprint != loaded.fingerprint => {
                tokio::time::sleep_until(began + MIN_CALL_INTERVAL).await;
                let outcome = self.request_token(&newer, refresh, suppressed).await;
                let failed = outcome.as_ref().err();
                if failed.is_some_and(|error| self.is_about_secret(error, refresh)) {
                    self.forget(newer.fingerprint);
                }
                outcome
            }
            _ => Err(refused),
        };
        match outcome {
            Err(error) if self.is_about_secret(&error, refresh) => {
                self.request_with_accepted(error, refresh, suppressed).await
            }
            outcome => outcome,
        }
    }

    async fn load(&self, freshness: Freshness) -> Result<LoadedCredentials, LoadError> {
        LoadedCredentials::load(&self.credential, &self.store, freshness).await
    }

    /// Tells whether another secret or key could make the request succeed.
    fn is_about_secret(&self, error: &FetchError, refresh: Option<&Sensitive>) -> bool {
        error.refused_secret().is_some()
            || matches!(
                error,
                FetchError::Request(RequestError::Assertion(_)) | FetchError::Dpop(_)
            )
            || self.credential.dpop_key().is_some() && error.refuses_proof()
            || refresh.is_none() && error.refuses_grant()
    }

    /// Keeps a private key that the server has just accepted.
    fn keep(&self, loaded: &LoadedCredentials) {
        if self.credential.signs_with_private_key() {
            *self.accepted() = Some(loaded.clone());
        }
    }

    /// Drops the accepted key if it is the one that was just refused.
    fn forget(&self, refused: Fingerprint) {
        self.accepted().take_if(|accepted| accepted.fingerprint == refused);
    }

    fn accepted(&self) -> MutexGuard<'_, Option<LoadedCredentials>> {
        self.accepted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Requests a token with the private key that the server accepted last, because the present one
    /// failed with `error`. That error stays if there is no such key or it fails too.
    async fn request_with_accepted(
        &self,
        error: FetchError,
        refresh: Option<&Sensitive>,
        suppressed: Option<Fingerprint>,
    ) -> Result<Fetched, FetchError> {
        let Some(accepted) = self.accepted().clone() else { return Err(error) };
        tokio::time::sleep(MIN_CALL_INTERVAL).await;
        match self.request_token(&accepted, refresh, suppressed).await {
            Ok(fetched) => {
                tracing::warn!(credential = %self.credential.name, %error,
                    "the new private key does not work; the one before it stays in use");
                Ok(fetched)
            }
            Err(other) => {
                if self.is_about_secret(&other, refresh) {
                    self.forget(accepted.fingerprint);
                }
                Err(error)
            }
        }
    }

    async fn request_token(
        &self,
        loaded: &LoadedCredentials,
        refresh: Option<&Sensitive>,
        suppressed: Option<Fingerprint>,
    ) -> Result<Fetched, FetchError> {
        let deadline = Instant::now() + self.credential.policy.timeout;
        let via = match &self.via {
            Some(via) => Some(via.token(deadline).await?),
            None => None,
        };
        // A new token of the other credential is another proof, which a refusal of the last one leaves open.
        let secret = match &via {
            Some(token) => Fingerprint::of((loaded.fingerprint, token.token_bytes())),
            None => loaded.fingerprint,
        };
        if suppressed == Some(secret) {
            return Err(FetchError::SecretSuppressed);
        }
        let dialect = &self.credential.dialect;
        let (endpoint, auth) = self.server(loaded).await?;
        let prover = match &self.dpop {
            Some(dpop) => Some(dpop.prover(loaded.dpop_key.as_ref()).map_err(FetchError::Dpop)?),
            None => None,
        };
        let mut call = EndpointCall {
            credential: &self.credential,
            endpoint: &endpoint,
            auth,
            client: &loaded.client,
            scopes: &self.scopes,
            grant: refresh.map_or_else(|| GrantType::of(dialect), GrantType::RefreshToken),
            prover: prover.as_ref(),
            authorization: authorization_of(via.as_deref()),
            deadline,
            connector: &connector(&self.credential, &endpoint, loaded.identity.as_deref())?,
        };
        let kind = match refresh {
            Some(_) => GrantKind::RefreshToken,
            None => dialect.grant.kind(),
        };
        let refused = |error| FetchError::Refused { error, secret, grant: kind };
        let mut answer = call.make().await?;
        if let (Some(source), Some(token)) = (&self.via, via)
            && answer.is_unauthorized()
        {
            let refused = token.generation();
            // Before the renewal: where one token is alive at a time, it waits until nobody uses the old one.
            drop(token);
            if let Some(newer) = source.renewed(refused, deadline).await {
                tokio::time::sleep_until(answer.sent.mono + MIN_CALL_INTERVAL).await;
                call.authorization = authorization_of(Some(&newer));
                answer = call.make().await?;
            }
        }
        let EndpointAnswer { sent, issued, .. } = answer;
        let issued = issued.map_err(refused)?;
        let received = SystemTime::now();
        let lifetime = lifetime(&issued, sent.wall, received, dialect.default_lifetime);
        if lifetime.life.is_zero() {
            return Err(refused(TokenError::Malformed(MalformedResponse::Ended)));
        }
        let bound = self.credential.binding == Binding::Certificate;
        let identity = loaded.identity.clone().filter(|_| bound);
        let token = issued.access_token.expose();
        // The upstream would refuse it, and its 401 would not say why.
        if identity.as_ref().is_some_and(|mine| names_other_certificate(token, mine.thumbprint())) {
            return Err(refused(TokenError::Malformed(MalformedResponse::OtherCertificate)));
        }
        let clock_offset = issued.date.map(|date| clock_offset(date, sent.wall, received));
        if refresh.is_none() {
            self.keep(loaded);
        }
        // Subject tokens and those of another credential change by themselves: a new one is no rotation of
        // the client's secret.
        let changes = matches!(kind, GrantKind::RefreshToken | GrantKind::TokenExchange);
        let secret = (!changes && self.via.is_none()).then_some(secret);
        Ok(Fetched { issued, lifetime, sent, clock_offset, secret, identity, prover, reread: None })
    }

    fn request<'a>(
        &'a self,
        endpoint: &'a TokenEndpoint,
        auth: ClientAuth,
        loaded: &'a LoadedCredentials,
        now: SystemTime,
    ) -> ClientRequest<'a> {
        let dialect = &self.credential.dialect;
        ClientRequest { endpoint, dialect, auth, client: &loaded.client, now }
    }

    /// The token endpoint and the client authentication there.
    async fn server(
        &self,
        loaded: &LoadedCredentials,
    ) -> Result<(TokenEndpoint, ClientAuth), FetchError> {
        match &self.server {
            TokenServer::Stated(endpoint) => Ok((endpoint.clone(), self.credential.auth)),
            TokenServer::Discovered(issuer) => {
                let identity = loaded.identity.as_deref();
                let found = discovery::metadata(issuer, &self.credential, identity).await?;
                Ok((found.token.clone(), found.auth))
            }
        }
    }

    async fn call(
        &self,
        endpoint: &TokenEndpoint,
        loaded: &LoadedCredentials,
        request: Request<Bytes>,
    ) -> Result<Response<Bytes>, FetchError> {
        let connector = connector(&self.credential, endpoint, loaded.identity.as_deref())?;
        let limits =
            Limits { time: self.credential.policy.timeout, body_bytes: MAX_RESPONSE_BYTES };
        Ok(control::call(&connector, request, limits, token_response::is_whole).await?.response)
    }
}

/// The header with the token of another credential.
fn authorization_of(token: Option<&Bearer>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Some(token) = token {
        token.attach(&mut headers);
    }
    headers
}

/// The seconds by which the server's clock is ahead of ours: its `Date`, which counts whole seconds,
/// compared with the middle of the call.
fn clock_offset(date: SystemTime, sent: SystemTime, received: SystemTime) -> f64 {
    let middle = sent + received.duration_since(sent).unwrap_or_default() / 2;
    let date = date + Duration::from_millis(500);
    match date.duration_since(middle) {
        Ok(ahead) => seconds(ahead),
        Err(behind) => -seconds(behind.duration()),
    }
}

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
    #[error(transparent)]
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
    fn refuses_grant(&self) -> bool {
        match self {
            Self::Refused { error, grant, .. } => {
                error.code().is_some_and(|code| grant.is_refused_by(code))
            }
            _ => false,
        }
    }

    /// Tells whether the server refused the proof of DPoP.
    fn refuses_proof(&self) -> bool {
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
            Self::Call(error) => error.hint().map(Cow::Owned),
            Self::Discovery(error) => error.hint().map(Cow::Owned),
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
