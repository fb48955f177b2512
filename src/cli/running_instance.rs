//! The tokens of a running instance of the same configuration: it is asked before a token server is,
//! whose calls may be counted, or end the token that is in use.

use serde_json::Value;

use super::operate::{self, Page};
use crate::config::Config;
use crate::oauth::ScopeSet;
use crate::token::Credential;

/// A running instance: where it answered, and its `/status`.
pub(super) struct RunningInstance {
    /// Its admin address.
    pub(super) address: String,
    pub(super) status: Value,
}

impl RunningInstance {
    /// The instance that answers at the configuration's admin address, where there is one.
    pub(super) fn of(config: &Config) -> Option<Self> {
        let address = operate::address_of(&config.admin, Page::Control)?;
        let (code, body) = operate::ask(&address, "/status").ok()?;
        let status = serde_json::from_str(&body).ok().filter(|_| code == 200)?;
        Some(Self { address, status })
    }

    /// Its usable token of a credential with exactly these scopes.
    pub(super) fn usable_token(
        &self,
        credential: &Credential,
        scopes: &ScopeSet,
    ) -> Option<&Value> {
        self.token(credential, scopes).filter(|token| token["usable"] == true)
    }

    /// Its token of a credential with exactly these scopes, usable or not. A credential of the same name
    /// with another token endpoint is another credential.
    pub(super) fn token(&self, credential: &Credential, scopes: &ScopeSet) -> Option<&Value> {
        let source = credential.source.to_string();
        let of = if credential.issuer().is_some() { "issuer" } else { "token_url" };
        let mut wanted: Vec<_> = scopes.iter().map(|scope| scope.as_str()).collect();
        wanted.sort_unstable();
        let has_scopes = |token: &Value| {
            let scopes = token["scopes"].as_array().into_iter().flatten();
            let mut held: Vec<_> = scopes.filter_map(Value::as_str).collect();
            held.sort_unstable();
            held == wanted
        };
        self.status["tokens"].as_array()?.iter().find(|token| {
            token["credential"] == *credential.name && token[of] == *source && has_scopes(token)
        })
    }

    /// Its state of an upstream of this name and origin.
    pub(super) fn upstream(&self, name: &str, origin: &str) -> Option<&Value> {
        let upstreams = self.status["upstreams"].as_array()?;
        upstreams.iter().find(|upstream| upstream["name"] == *name && upstream["url"] == *origin)
    }
}
