//! `TokenClients` and `TokenFetcher`: the way to each token, by a request or by reading it.

use std::sync::Arc;

use super::credential::{Credential, TokenSource};
use super::dpop::DpopStates;
#[cfg(feature = "share")]
use super::fetch::ReplicaProof;
use super::fetch::{Fetch, FetchError, Fetched, MakeFetch};
use super::fingerprint::Fingerprint;
use super::other_token::OtherToken;
use super::static_token::StaticToken;
use super::token_cell::Reader;
use super::token_client::{TokenClient, TokenServer};
use crate::oauth::{RevokedToken, ScopeSet};
use crate::secret::Store;
use crate::sensitive::Sensitive;

/// Makes a [`TokenFetcher`] for each token.
pub struct TokenClients {
    store: Arc<Store>,
    dpop: DpopStates,
}

impl TokenClients {
    /// Fetchers that read their secrets through `store`.
    pub fn new(store: Arc<Store>) -> Self {
        Self { store, dpop: DpopStates::default() }
    }
}

impl MakeFetch for TokenClients {
    type Fetch = TokenFetcher;

    fn make_fetch(
        &mut self,
        credential: &Arc<Credential>,
        scopes: &ScopeSet,
        via: Option<Reader>,
    ) -> TokenFetcher {
        for (reference, _) in credential.references() {
            self.store.register_counters(reference);
        }
        let dpop = credential.dpop.as_ref();
        let dpop = dpop.map(|settings| self.dpop.of(&credential.name, settings));
        let (credential, store) = (Arc::clone(credential), Arc::clone(&self.store));
        let name = credential.via.as_ref().map(|via| Arc::clone(&via.credential.name));
        let via = name.zip(via).map(|(name, reader)| OtherToken { name, reader });
        let server = match credential.source.clone() {
            TokenSource::Endpoint(endpoint) => TokenServer::Stated(endpoint),
            TokenSource::Issuer(issuer) => TokenServer::Discovered(issuer),
            TokenSource::Static(reference) => {
                return TokenFetcher::Static(StaticToken {
                    reference,
                    store,
                    life: credential.dialect.default_lifetime,
                    max_bytes: credential.dialect.max_token_bytes,
                });
            }
        };
        let client = TokenClient::new(server, credential, scopes.clone(), via, store, dpop);
        TokenFetcher::Client(Box::new(client))
    }
}

/// Obtains one token from the source of its credential.
pub enum TokenFetcher {
    /// Requests it from a token server.
    Client(Box<TokenClient>),
    /// Reads it from a source of secrets.
    Static(StaticToken),
}

impl Fetch for TokenFetcher {
    async fn fetch(
        &self,
        refresh: Option<&Sensitive>,
        suppressed: Option<Fingerprint>,
    ) -> Result<Fetched, FetchError> {
        match self {
            Self::Client(client) => client.fetch(refresh, suppressed).await,
            Self::Static(token) => token.read().await,
        }
    }

    async fn revoke(&self, token: RevokedToken<'_>) -> Result<(), FetchError> {
        match self {
            Self::Client(client) => client.revoke(token).await,
            Self::Static(_) => Ok(()),
        }
    }

    #[cfg(feature = "share")]
    async fn proof(&self) -> Result<ReplicaProof, FetchError> {
        match self {
            Self::Client(client) => client.proof().await,
            // A configuration cannot share it: its source is shared already.
            Self::Static(_) => Err(FetchError::Header),
        }
    }
}
