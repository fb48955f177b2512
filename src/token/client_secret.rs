//! `ClientSecretState`: id and secret of one client as their sources hold them now, and what the token server
//! thinks of them.
//!
//! A rotation is over when the new secret has brought a token: until then the token that the old one
//! brought stays in use. Log and metrics tell both ends; what is logged of a secret is a few salted
//! digits.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use super::credential::Credential;
use super::metrics::ClientSecretMetrics;
use crate::oauth::dialect::ClientCredentials;
use crate::secret::{Freshness, SecretError, Store};
use crate::sensitive::Sensitive;

/// The login of one credential, shared by all its tokens.
pub(super) struct ClientSecretState {
    credential: Arc<Credential>,
    store: Arc<Store>,
    metrics: ClientSecretMetrics,
    known: Mutex<Known>,
}

/// What is known of the secrets that were shown so far, by their salted hashes.
#[derive(Debug, Default)]
struct Known {
    accepted: Option<u64>,
    refused: Option<u64>,
}

/// Id and secret as they were read.
pub(super) struct Shown {
    pub(super) client: ClientCredentials,
    /// Salted hash of both: the same ones have the same within this process.
    pub(super) hash: u64,
}

impl ClientSecretState {
    pub(super) fn new(
        credential: Arc<Credential>,
        store: Arc<Store>,
        metrics: ClientSecretMetrics,
    ) -> Self {
        [Some(&credential.client_id), credential.client_secret.as_ref()]
            .into_iter()
            .flatten()
            .for_each(|reference| store.register_counters(reference));
        Self { credential, store, metrics, known: Mutex::default() }
    }

    /// Whether it is this credential's.
    pub(super) fn is_of(&self, credential: &Arc<Credential>) -> bool {
        self.credential == *credential
    }

    /// Reads id and secret.
    pub(super) async fn read(&self, age: Freshness) -> Result<Shown, SecretError> {
        let id = self.store.read_id(&self.credential.client_id, age).await?;
        let secret = match &self.credential.client_secret {
            Some(reference) => Some(self.store.read(reference, age).await?),
            None => None,
        };
        let client = ClientCredentials { id, secret };
        Ok(Shown { hash: hash(&client), client })
    }

    /// The server gave a token for this login.
    pub(super) fn accepted(&self, hash: u64) {
        let before = self.known().accepted.replace(hash);
        self.known().refused = None;
        let Some(before) = before.filter(|before| *before != hash) else { return };
        self.metrics.rotated("accepted");
        tracing::info!(
            credential = %self.credential.name,
            fingerprint = fingerprint(hash),
            was = fingerprint(before),
            "the changed client secret is accepted"
        );
    }

    /// The server refused this login. It is said once for each login, and only of one that has taken
    /// the place of an accepted one.
    pub(super) fn refused(&self, hash: u64) {
        let mut known = self.known();
        let Some(before) = known.accepted.filter(|accepted| *accepted != hash) else { return };
        if known.refused.replace(hash) == Some(hash) {
            return;
        }
        self.metrics.rotated("refused");
        tracing::warn!(
            credential = %self.credential.name,
            fingerprint = fingerprint(hash),
            was = fingerprint(before),
            "the changed client secret is refused; a token that the old one brought stays in use"
        );
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keyed anew in each process, so that nobody can find the secret from it.
fn hash(client: &ClientCredentials) -> u64 {
    static SALT: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    SALT.hash_one((client.id.expose(), client.secret.as_ref().map(Sensitive::expose)))
}

fn fingerprint(hash: u64) -> String {
    format!("{:08x}", hash & 0xffff_ffff)
}
