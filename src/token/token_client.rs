//! `TokenClient`: one token request, from reading the secret to parsing the answer. No request of an
//! app takes part in it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use tokio::time::Instant;

use super::bearer::Bearer;
use super::client_identity::LoadError;
use super::client_secret::LoadedCredentials;
use super::credential::{Binding, Credential};
use super::discovery;
use super::dpop::Dpop;
use super::endpoint_call::{EndpointAnswer, EndpointCall};
use super::endpoint_client::{MAX_RESPONSE_BYTES, connector};
#[cfg(feature = "share")]
use super::fetch::ReplicaProof;
use super::fetch::{Fetch, FetchError, Fetched};
use super::fingerprint::Fingerprint;
use super::issuer::Issuer;
use super::other_token::OtherToken;
use super::schedule::MIN_CALL_INTERVAL;
use crate::clock::seconds;
use crate::net::control::{self, Limits};
use crate::oauth::confirmation::names_other_certificate;
use crate::oauth::dialect::GrantKind;
#[cfg(feature = "share")]
use crate::oauth::dialect::GrantParameter;
use crate::oauth::error::{MalformedResponse, TokenError};
use crate::oauth::lifetime::lifetime;
use crate::oauth::request::RequestError;
use crate::oauth::token_response;
use crate::oauth::{ClientAuth, ClientRequest, GrantType, RevokedToken, ScopeSet, TokenEndpoint};
use crate::secret::{Freshness, Store};
use crate::sensitive::Sensitive;

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
        let Some((endpoint, auth)) = self.revocation_server() else { return Ok(()) };
        let request =
            self.request(&endpoint, auth, &loaded, SystemTime::now()).revocation(token)?;
        let status = self.call(&endpoint, &loaded, request).await?.status();
        if status.is_success() { Ok(()) } else { Err(FetchError::Revocation(status.as_u16())) }
    }

    #[cfg(feature = "share")]
    async fn proof(&self) -> Result<ReplicaProof, FetchError> {
        let loaded = self.load(Freshness::Cached).await?;
        let prover = match &self.dpop {
            Some(dpop) => Some(dpop.prover(loaded.dpop_key.as_ref()).map_err(FetchError::Dpop)?),
            None => None,
        };
        let bound = self.credential.binding == Binding::Certificate;
        let mut parameters = loaded.client.grant_parameters.into_iter();
        let username = parameters.find(|(name, _)| *name == GrantParameter::Username);
        Ok(ReplicaProof {
            client_id: loaded.client.id,
            username: username.map(|(_, value)| value),
            secret: loaded.digest,
            identity: loaded.identity.filter(|_| bound),
            prover,
        })
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

    /// The revocation endpoint, stated or discovered, and the client authentication there.
    fn revocation_server(&self) -> Option<(TokenEndpoint, ClientAuth)> {
        if let Some(endpoint) = &self.credential.revocation {
            return Some((endpoint.clone(), self.credential.auth));
        }
        let TokenServer::Discovered(issuer) = &self.server else { return None };
        // Found by the request for this token: there is nothing to wait for at the end.
        let found = issuer.found()?;
        Some((found.revocation.clone()?, found.auth))
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
