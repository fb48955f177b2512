//! The TLS of a listener, made from files and replaceable while the listener runs.

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwapOption;
use aws_lc_rs::digest::{Context, Digest, SHA256};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use super::settings::{ClientCertificates, ServerTls};
use crate::net::tls::{MinVersion, provider};
use crate::x509::TlsSetupError;
use crate::x509::certificate::Certificate;
use crate::x509::pem::{certificates, private_key};

/// The TLS configuration of a listener, empty for a listener without TLS. Clones share it; open
/// connections keep the configuration that they began with.
#[derive(Debug, Clone, Default)]
pub struct TlsCell(Arc<ArcSwapOption<ServerConfig>>);

impl TlsCell {
    /// Replaces the configuration for handshakes from now on.
    pub fn set(&self, identity: Option<&Identity>) {
        self.0.store(identity.map(|identity| Arc::clone(&identity.config)));
    }

    /// Accepts the handshakes of new connections; `None` for a listener without TLS.
    pub fn acceptor(&self) -> Option<TlsAcceptor> {
        self.0.load_full().map(TlsAcceptor::from)
    }
}

/// A certificate chain and key that fit together, as read from files.
pub struct Identity {
    config: Arc<ServerConfig>,
    /// The expiry of our certificate, if it can be parsed.
    pub expires: Option<SystemTime>,
    /// The digest of all files, which detects a change without keeping the key.
    contents: Digest,
}

impl Identity {
    /// Reads the files.
    ///
    /// # Errors
    /// A file that cannot be used, or a key that does not fit the certificate.
    pub fn read(settings: &ServerTls) -> Result<Self, TlsSetupError> {
        Self::new(settings, Files::read(settings)?)
    }

    /// Reads the files again; `None` if they have not changed.
    ///
    /// # Errors
    /// As for [`read`](Self::read); this identity stays usable.
    pub fn reread(&self, settings: &ServerTls) -> Result<Option<Self>, TlsSetupError> {
        let files = Files::read(settings)?;
        if files.digest().as_ref() == self.contents.as_ref() {
            return Ok(None);
        }
        Self::new(settings, files).map(Some)
    }

    fn new(settings: &ServerTls, files: Files) -> Result<Self, TlsSetupError> {
        let own = files.chain.first().and_then(|own| Certificate::read(own));
        let (expires, contents) = (own.map(|own| own.valid_until), files.digest());
        Ok(Self { config: Arc::new(config(settings, files)?), expires, contents })
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("expires", &self.expires).finish_non_exhaustive()
    }
}

struct Files {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    /// The authorities of client certificates.
    authorities: Vec<CertificateDer<'static>>,
}

impl Files {
    fn read(settings: &ServerTls) -> Result<Self, TlsSetupError> {
        let authorities: Result<Vec<_>, _> =
            settings.client_ca_files.iter().map(|file| certificates(file)).collect();
        Ok(Self {
            chain: certificates(&settings.certificate_file)?,
            key: private_key(&settings.key_file)?,
            authorities: authorities?.concat(),
        })
    }

    fn digest(&self) -> Digest {
        let mut all = Context::new(&SHA256);
        all.update(self.key.secret_der());
        self.chain.iter().chain(&self.authorities).for_each(|part| all.update(part));
        all.finish()
    }
}

fn config(settings: &ServerTls, files: Files) -> Result<ServerConfig, TlsSetupError> {
    let versions: &[&rustls::SupportedProtocolVersion] = match settings.min_version {
        MinVersion::Tls12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
        MinVersion::Tls13 => &[&rustls::version::TLS13],
    };
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .map_err(|error| TlsSetupError::new(error.to_string()))?;
    let builder = match verifier(settings, files.authorities)? {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(files.chain, files.key).map_err(|error| {
        let (certificate, key) = (settings.certificate_file.display(), settings.key_file.display());
        TlsSetupError::new(format!("{certificate} with {key}: unusable for a listener: {error}"))
    })?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // An attacker who recorded early data can replay it (RFC 8446 section 8).
    config.max_early_data_size = 0;
    Ok(config)
}

fn verifier(
    settings: &ServerTls,
    authorities: Vec<CertificateDer<'static>>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsSetupError> {
    if authorities.is_empty() {
        return Ok(None);
    }
    let mut roots = RootCertStore::empty();
    for certificate in authorities {
        roots.add(certificate).map_err(|error| {
            TlsSetupError::new(format!("client_ca_file: unusable as an authority: {error}"))
        })?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
    let builder = match settings.client_certificates {
        ClientCertificates::Required => builder,
        ClientCertificates::Optional => builder.allow_unauthenticated(),
    };
    let built = builder.build().map_err(|error| TlsSetupError::new(error.to_string()))?;
    Ok(Some(built))
}
