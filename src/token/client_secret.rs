//! The id and secrets of a client, as their sources hold them now.

use std::sync::Arc;

use http::HeaderValue;

use super::client_identity::{LoadError, load_identity, read};
use super::credential::{ClientIdSource, Credential};
use super::fingerprint::Fingerprint;
#[cfg(feature = "share")]
use super::fingerprint::SecretDigest;
use crate::net::tls::ClientIdentity;
use crate::oauth::ClientCredentials;
use crate::oauth::dialect::{Grant, GrantKey, KeyFormat};
use crate::oauth::google_key::service_account_key;
use crate::secret::{CredentialPart, Freshness, Reference, SecretError, SecretFault, Store};
use crate::sensitive::Sensitive;

/// An id and secrets that were read.
#[derive(Clone)]
pub(super) struct LoadedCredentials {
    pub(super) client: ClientCredentials,
    /// The client certificate of the token request.
    pub(super) identity: Option<Arc<ClientIdentity>>,
    /// The text of the key of DPoP; `None` without DPoP, and for a key that this process makes.
    pub(super) dpop_key: Option<Sensitive>,
    /// The fingerprint of all together.
    pub(super) fingerprint: Fingerprint,
    /// The digest of all together, by which replicas tell whether they have the same secret.
    #[cfg(feature = "share")]
    pub(super) digest: SecretDigest,
}

impl LoadedCredentials {
    /// Reads the id and secrets of a credential.
    pub(super) async fn load(
        credential: &Credential,
        store: &Store,
        freshness: Freshness,
    ) -> Result<Self, LoadError> {
        let client = read_client(credential, Some((store, freshness))).await?;
        let identity = load_identity(credential, Some((store, freshness))).await?;
        let dpop_key = read_dpop_key(credential, Some((store, freshness))).await?;
        let headers: Vec<_> = client.headers.iter().map(|(_, value)| value.as_bytes()).collect();
        let secret = client.secret.as_ref().map(Sensitive::expose);
        let certificate = client.certificate.as_ref().map(Sensitive::expose);
        let grant_key = client.grant_key.as_ref();
        let grant_key =
            grant_key.map(|key| (key.private_key.expose(), &key.key_id, &key.token_uri));
        let parameters: Vec<_> =
            client.grant_parameters.iter().map(|(_, value)| value.expose()).collect();
        let presented = identity.as_ref().map(|identity| identity.thumbprint());
        let proving = dpop_key.as_ref().map(Sensitive::expose);
        let keys = (certificate, grant_key, presented, proving);
        let proof = (client.id.expose(), secret, keys, parameters, headers);
        let fingerprint = Fingerprint::of(&proof);
        #[cfg(feature = "share")]
        let digest = SecretDigest::of(&proof);
        Ok(Self {
            client,
            identity,
            dpop_key,
            fingerprint,
            #[cfg(feature = "share")]
            digest,
        })
    }
}

/// Reads the key of DPoP of a credential, past any cache where there is no store.
pub(super) async fn read_dpop_key(
    credential: &Credential,
    store: Option<(&Store, Freshness)>,
) -> Result<Option<Sensitive>, SecretError> {
    match credential.dpop_key() {
        Some(key) => read(store, key, CredentialPart::PrivateKey).await.map(Some),
        None => Ok(None),
    }
}

/// Reads the id and secrets of a credential, past any cache where there is no store.
pub(super) async fn read_client(
    credential: &Credential,
    store: Option<(&Store, Freshness)>,
) -> Result<ClientCredentials, SecretError> {
    let id = match &credential.client_id {
        ClientIdSource::Text(id) => id.clone(),
        ClientIdSource::Referenced(reference) => read(store, reference, CredentialPart::Id).await?,
        ClientIdSource::GrantKeyFile | ClientIdSource::Absent => Sensitive::new(""),
    };
    let secret = match &credential.client_secret {
        Some(reference) => Some(read(store, reference, credential.secret_kind()).await?),
        None => None,
    };
    let certificate = match &credential.certificate {
        Some(file) => Some(read(store, file, CredentialPart::Certificate).await?),
        None => None,
    };
    let mut headers = Vec::with_capacity(credential.secret_headers.len());
    for (name, reference) in &credential.secret_headers {
        let text = read(store, reference, CredentialPart::Secret).await?;
        headers.push((name.clone(), header_value(&text, reference)?));
    }
    let (id, grant_key) = match &credential.grant_key {
        Some(reference) => {
            let text = read(store, reference, CredentialPart::PrivateKey).await?;
            let (issuer, key) =
                grant_key(credential, text).map_err(|fault| reference.error(fault))?;
            (issuer.unwrap_or(id), Some(key))
        }
        None => (id, None),
    };
    let mut grant_parameters = Vec::with_capacity(credential.grant_parameters.len());
    for (name, reference) in &credential.grant_parameters {
        grant_parameters.push((*name, read(store, reference, CredentialPart::Secret).await?));
    }
    Ok(ClientCredentials { id, secret, certificate, grant_key, grant_parameters, headers })
}

/// The key of a grant, and the client that its file names.
fn grant_key(
    credential: &Credential,
    text: Sensitive,
) -> Result<(Option<Sensitive>, GrantKey), SecretFault> {
    match &credential.dialect.grant {
        Grant::JwtBearer(settings) if settings.key_format == KeyFormat::GoogleServiceAccount => {
            let (email, key) = service_account_key(&text).ok_or(SecretFault::NotServiceAccount)?;
            Ok((Some(email), key))
        }
        _ => Ok((None, GrantKey { private_key: text, key_id: None, token_uri: None })),
    }
}

fn header_value(text: &Sensitive, reference: &Reference) -> Result<HeaderValue, SecretError> {
    let fault = || reference.error(SecretFault::Forbidden("characters that are not ASCII"));
    text.header("").ok_or_else(fault)
}
