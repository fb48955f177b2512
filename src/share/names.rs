//! `TokenName`: the keys of one shared token in the store. They are made with a keyed hash, so that they tell
//! nothing of the client, its scopes or its token server.

use std::collections::BTreeMap;
use std::fmt;

use aws_lc_rs::hmac;
use serde::Serialize;

/// All that determines a token: replicas whose values are equal hold the same token. The client secret is no
/// part of it, because replicas see its rotation at different times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TokenIdentity<'a> {
    /// The URL of the token endpoint.
    pub token_url: &'a str,
    /// The client id.
    pub client_id: &'a str,
    /// The registered name of the client authentication method.
    pub client_auth: &'a str,
    /// The grant type.
    pub grant: &'a str,
    /// The requested scopes, in any order.
    pub scopes: Vec<&'a str>,
    /// The other parameters of the token request, each with its values: `audience`, `resource`, those of
    /// `extra`, and what the dialect adds.
    pub parameters: BTreeMap<&'a str, Vec<&'a str>>,
}

/// The name of a shared token: 32 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TokenName(String);

impl TokenName {
    /// The name of a token under a key that all its replicas have.
    ///
    /// # Errors
    /// The identity cannot be written as JSON, which does not happen with text.
    pub fn new(key: &hmac::Key, identity: &TokenIdentity<'_>) -> Result<Self, serde_json::Error> {
        let mut identity = identity.clone();
        identity.scopes.sort_unstable();
        identity.scopes.dedup();
        // Canonical: fields in the order of the struct, parameters in the order of their names.
        let tag = hmac::sign(key, &serde_json::to_vec(&identity)?);
        let digits = tag.as_ref().iter().take(16).map(|byte| format!("{byte:02x}"));
        Ok(Self(digits.collect()))
    }

    /// The name of no token, for a test of the store.
    pub fn random() -> Self {
        Self(format!("{:032x}", fastrand::u128(..)))
    }

    /// The key of the sealed token. The braces put both keys of a token into one slot of a cluster.
    pub fn token_key(&self, prefix: &str) -> String {
        format!("{prefix}:{{{self}}}:t")
    }

    /// The key of the hash that says who renews the token, and when.
    pub fn state_key(&self, prefix: &str) -> String {
        format!("{prefix}:{{{self}}}:s")
    }

    /// The channel on which a new generation is announced.
    pub fn channel(&self, prefix: &str) -> String {
        format!("{prefix}:{self}")
    }
}

impl fmt::Display for TokenName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
