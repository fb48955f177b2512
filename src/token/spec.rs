//! `TokenSpec` and `TokenKey`: the tokens that a configuration needs.

use std::collections::HashMap;
use std::sync::Arc;

use super::credential::{Credential, Grouping, TokenVia};
use super::token_cell::{self, Reader};
use crate::oauth::ScopeSet;

/// A token that a route needs.
#[derive(Debug, Clone)]
pub struct TokenSpec {
    /// The credential that obtains it.
    pub credential: Arc<Credential>,
    /// The scopes that the route needs.
    pub scopes: ScopeSet,
}

impl TokenSpec {
    /// The token that authorizes the token requests of this one.
    pub(super) fn via(&self) -> Option<Self> {
        let TokenVia { credential, scopes } = self.credential.via.as_ref()?;
        Some(Self { credential: Arc::clone(credential), scopes: scopes.clone() })
    }

    /// The key under which [`TokenManager::apply`](super::TokenManager::apply) returns its reader.
    pub fn key(&self) -> TokenKey {
        TokenKey { credential: Arc::clone(&self.credential.name), scopes: self.scopes.clone() }
    }
}

/// Identifies, within one configuration, the token that a route needs: by the name of the
/// credential and the scopes of the route, in any order.
///
/// These are the scopes that the route needs, not those of the token request: with
/// `tokens = "union"`, and where the dialect sends no scopes, all keys of a credential lead to one
/// token. So a key can be made from a route alone, without knowing the needs of other routes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TokenKey {
    credential: Arc<str>,
    scopes: ScopeSet,
}

impl TokenKey {
    /// The name of the credential.
    pub fn credential(&self) -> &Arc<str> {
        &self.credential
    }
}

/// The readers of the tokens that a configuration needs. They have no order: a reader is found by
/// the key of its token only.
#[derive(Clone, Default)]
pub struct TokenReaders(pub(super) HashMap<TokenKey, Reader>);

impl TokenReaders {
    /// Readers that never find a token, for a plan that serves no request.
    pub fn without_tokens(specs: &[TokenSpec]) -> Self {
        Self(specs.iter().map(|spec| (spec.key(), token_cell::channel().1)).collect())
    }

    /// The reader of a token; `None` where the manager was not asked for that token.
    pub fn get(&self, key: &TokenKey) -> Option<&Reader> {
        self.0.get(key)
    }
}

/// Replaces the scopes of each token by those that its token request has: all of the credential's with
/// `tokens = "union"`, and where the dialect sends no scopes.
pub fn effective_specs(specs: Vec<TokenSpec>) -> Vec<TokenSpec> {
    let specs = with_vias(specs);
    let unions = Unions::of(&specs);
    specs.into_iter().map(|spec| unions.effective(spec)).collect()
}

/// The specs, and those of the tokens that authorize their token requests.
pub(super) fn with_vias(mut specs: Vec<TokenSpec>) -> Vec<TokenSpec> {
    let mut at = 0;
    while let Some(spec) = specs.get(at) {
        let via = spec.via();
        specs.extend(via.filter(|via| specs.iter().all(|known| known.key() != via.key())));
        at += 1;
    }
    specs
}

/// The union of the scopes of all routes, for each credential whose routes share one token.
pub(super) struct Unions(HashMap<Arc<str>, ScopeSet>);

impl Unions {
    pub(super) fn of(specs: &[TokenSpec]) -> Self {
        let mut unions: HashMap<Arc<str>, ScopeSet> = HashMap::new();
        for spec in specs.iter().filter(|spec| Self::shares_token(spec)) {
            let union = unions.entry(Arc::clone(&spec.credential.name)).or_default();
            *union = union.union(&spec.scopes);
        }
        Self(unions)
    }

    fn shares_token(spec: &TokenSpec) -> bool {
        spec.credential.grouping == Grouping::Union || !spec.credential.dialect.send_scope
    }

    /// The spec with the scopes of its token request.
    pub(super) fn effective(&self, spec: TokenSpec) -> TokenSpec {
        match self.0.get(&spec.credential.name) {
            Some(union) if Self::shares_token(&spec) => TokenSpec { scopes: union.clone(), ..spec },
            _ => spec,
        }
    }
}
