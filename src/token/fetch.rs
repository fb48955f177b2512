//! The interface between a refresher and the source of its tokens: a token is fetched, and revoked.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::credential::Credential;
use super::dpop::Prover;
pub use super::fetch_error::FetchError;
use super::fingerprint::Fingerprint;
#[cfg(feature = "share")]
use super::fingerprint::SecretDigest;
use super::token_cell::Reader;
use crate::clock::Moment;
use crate::net::tls::ClientIdentity;
use crate::oauth::lifetime::Lifetime;
use crate::oauth::token_response::IssuedToken;
use crate::oauth::{RevokedToken, ScopeSet};
use crate::sensitive::Sensitive;

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

    /// Reads what this replica proves itself with.
    #[cfg(feature = "share")]
    fn proof(&self) -> impl Future<Output = Result<ReplicaProof, FetchError>> + Send;
}

/// What one of several replicas that share a token proves itself with.
#[cfg(feature = "share")]
pub struct ReplicaProof {
    /// The client id.
    pub(super) client_id: Sensitive,
    /// The name of the user, with the password grant.
    pub(super) username: Option<Sensitive>,
    /// The digest of the client's id and secrets.
    pub(super) secret: SecretDigest,
    /// The client certificate to which tokens are bound; `None` for tokens that are not.
    pub(super) identity: Option<Arc<ClientIdentity>>,
    /// The key of DPoP; `None` without.
    pub(super) prover: Option<Prover>,
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
