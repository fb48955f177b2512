//! The id and secret of a client, as their sources hold them now.

use super::credential::Credential;
use super::fingerprint::Fingerprint;
use crate::oauth::ClientCredentials;
use crate::secret::{CredentialPart, Freshness, SecretError, Store};
use crate::sensitive::Sensitive;

/// An id and secret that were read.
pub(super) struct LoadedCredentials {
    pub(super) client: ClientCredentials,
    /// The fingerprint of both together.
    pub(super) fingerprint: Fingerprint,
}

impl LoadedCredentials {
    /// Reads the id and secret of a credential.
    pub(super) async fn load(
        credential: &Credential,
        store: &Store,
        freshness: Freshness,
    ) -> Result<Self, SecretError> {
        let id = store.read(&credential.client_id, CredentialPart::Id, freshness).await?;
        let secret = match &credential.client_secret {
            Some(reference) => {
                Some(store.read(reference, credential.secret_kind(), freshness).await?)
            }
            None => None,
        };
        let fingerprint = Fingerprint::of((id.expose(), secret.as_ref().map(Sensitive::expose)));
        Ok(Self { client: ClientCredentials { id, secret }, fingerprint })
    }
}
