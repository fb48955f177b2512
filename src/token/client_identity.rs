//! The client certificate of a credential, as its sources hold it now.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::credential::{CertificateSource, Credential};
use crate::net::tls::{ClientCertificate, ClientIdentity};
use crate::secret::{CredentialPart, Freshness, Reference, SecretError, Store};
use crate::sensitive::Sensitive;
use crate::x509::TlsSetupError;

/// The reason why there is nothing to prove the client with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// A reference could not be read.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// A reference of the client certificate could not be read.
    #[error("the client certificate cannot be used: {0}")]
    CertificateSource(SecretError),
    /// The client certificate or its key cannot be used.
    #[error("the client certificate cannot be used: {0}")]
    ClientCertificate(#[from] TlsSetupError),
}

/// Loads the client certificate that a credential presents, past any cache where there is no store;
/// `None` if it has none.
///
/// # Errors
/// A source that cannot be read, or a certificate or key that cannot be used.
pub async fn load_identity(
    credential: &Credential,
    store: Option<(&Store, Freshness)>,
) -> Result<Option<Arc<ClientIdentity>>, LoadError> {
    let identity = match &credential.client_certificate {
        None => {
            let files = credential.tls.client_certificate.as_ref();
            files.map(ClientCertificate::load).transpose()?
        }
        Some(source) => Some(referenced(source, store).await?),
    };
    Ok(identity.map(Arc::new))
}

async fn referenced(
    source: &CertificateSource,
    store: Option<(&Store, Freshness)>,
) -> Result<ClientIdentity, LoadError> {
    let read_part = async |reference: &Reference, part| {
        read(store, reference, part).await.map_err(LoadError::CertificateSource)
    };
    let password = match source.password() {
        Some(password) => read_part(password, CredentialPart::Secret).await?,
        None => Sensitive::new(""),
    };
    Ok(match source {
        CertificateSource::Pem { certificate, key, .. } => {
            let chain = read_part(certificate, CredentialPart::Certificate).await?;
            let key = read_part(key, CredentialPart::PrivateKey).await?;
            ClientIdentity::from_pem(chain.expose(), key.expose(), password.expose())?
        }
        CertificateSource::Pkcs12 { container, .. } => {
            let text = read_part(container, CredentialPart::Pkcs12).await?;
            let text: Zeroizing<String> =
                Zeroizing::new(text.expose().split_whitespace().collect());
            let bytes = STANDARD.decode(&*text).map(Zeroizing::new).map_err(|_| {
                let source = container.describe();
                TlsSetupError::new(format!("{source} is neither PKCS#12 nor base64 of it"))
            })?;
            ClientIdentity::from_pkcs12(&bytes, password.expose())?
        }
    })
}

/// Reads a reference, past any cache where there is no store.
pub(super) async fn read(
    store: Option<(&Store, Freshness)>,
    reference: &Reference,
    part: CredentialPart,
) -> Result<Sensitive, SecretError> {
    match store {
        Some((store, freshness)) => store.read(reference, part, freshness).await,
        None => reference.read_as(part).await,
    }
}
