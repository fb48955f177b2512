//! TLS of a listener: its files made into settings that can be replaced while it runs.

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

/// What a listener's handshakes are made with: nothing, where it speaks without TLS. Clones share
/// it; connections that are open keep what they began with.
#[derive(Debug, Clone, Default)]
pub struct TlsCell(Arc<ArcSwapOption<ServerConfig>>);

impl TlsCell {
    /// Handshakes from now on are made with this.
    pub fn set(&self, identity: Option<&Identity>) {
        self.0.store(identity.map(|identity| Arc::clone(&identity.config)));
    }

    /// Makes the handshakes of new connections; `None` for a listener without TLS.
    pub fn acceptor(&self) -> Option<TlsAcceptor> {
        self.0.load_full().map(TlsAcceptor::from)
    }
}

/// The files of a listener's TLS, read and found to fit together.
pub struct Identity {
    config: Arc<ServerConfig>,
    /// When our certificate ends to be valid, where that can be read.
    pub expires: Option<SystemTime>,
    /// Of all that was read, so that a change is seen without keeping the key.
    contents: Digest,
}

impl Identity {
    /// Reads the files.
    ///
    /// # Errors
    /// Names the file and what is wrong with it, or says that key and certificate do not fit.
    pub fn read(settings: &ServerTls) -> Result<Self, TlsSetupError> {
        Self::new(settings, Files::read(settings)?)
    }

    /// The same anew where the files have changed; `None` where they have not.
    ///
    /// # Errors
    /// As for [`read`](Self::read); what is in force stays usable.
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
    /// Of clients.
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
    // Early data can be replayed by whoever recorded it (RFC 8446 section 8).
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
