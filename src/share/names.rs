//! `TokenName`: the keys of one shared token in the store. They are made with a keyed hash, so that they tell
//! nothing of the client, its scopes or its token server.

use std::collections::BTreeMap;
use std::fmt;

use aws_lc_rs::hmac;
use serde::Serialize;
use zeroize::Zeroizing;

use super::keys::{KeyError, derived};
use crate::sensitive::Sensitive;

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

/// The key that makes names, and the fingerprints of client secrets. It is not an encryption key: those are
/// replaced while replicas run, and two replicas that made names with different keys would hold two tokens.
pub struct NameKey(hmac::Key);

impl NameKey {
    /// A key from its configured form, 32 bytes in base64.
    ///
    /// # Errors
    /// It has another form.
    pub fn new(key: &Sensitive) -> Result<Self, KeyError> {
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &*derived(key, b"name")?)))
    }

    /// The fingerprint of the client secret with which the token of a name is requested, from a digest of the
    /// secret. Replicas with the same secret have the same one, and the store learns nothing of the secret.
    pub fn secret_fingerprint(&self, name: &TokenName, digest: &[u8]) -> String {
        self.digits(&[b"secret ", name.0.as_bytes(), b" ", digest].concat())
    }

    /// A text by which replicas compare their keys. It tells nothing of the key.
    pub fn check_value(&self) -> String {
        self.digits(b"name key")
    }

    /// The fingerprint of a shared token for the log: eight hexadecimal digits, the same in all replicas.
    pub fn token_fingerprint(&self, name: &TokenName, token: &Sensitive) -> String {
        let text = Zeroizing::new(
            [b"token ", name.0.as_bytes(), b" ", token.expose().as_bytes()].concat(),
        );
        self.digits(&text).chars().take(8).collect()
    }

    fn digits(&self, data: &[u8]) -> String {
        let tag = hmac::sign(&self.0, data);
        tag.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The name of a shared token: 32 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TokenName(String);

impl TokenName {
    /// The name of a token under a key that all its replicas have.
    ///
    /// # Errors
    /// The identity cannot be written as JSON, which does not happen with text.
    pub fn new(key: &NameKey, identity: &TokenIdentity<'_>) -> Result<Self, serde_json::Error> {
        let mut identity = identity.clone();
        identity.scopes.sort_unstable();
        identity.scopes.dedup();
        // Canonical: fields in the order of the struct, parameters in the order of their names.
        Ok(Self(key.digits(&serde_json::to_vec(&identity)?)))
    }

    /// The name of the check value of the key that makes names. It is the same for all keys.
    pub fn of_name_key() -> Self {
        Self("name_key".to_owned())
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
