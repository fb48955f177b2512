//! rustls client settings: roots of trust, client certificate, lowest version.
//!
//! There is no switch that turns verification off; it can only be extended by further roots.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use rustls_platform_verifier::Verifier;

/// How servers are verified and how we show ourselves to them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct TlsSettings {
    /// The roots of trust to start from.
    pub roots: Roots,
    /// PEM files of further roots: a private CA, or that of a TLS-inspecting network.
    pub extra_ca_files: Vec<PathBuf>,
    /// Lowest protocol version that is accepted.
    pub min_version: MinVersion,
    /// Certificate and key for mutual TLS (RFC 8705), PEM.
    pub client_certificate: Option<ClientCertificate>,
}

/// Which roots of trust verification starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Roots {
    /// The operating system's store; Mozilla's bundled roots, with a warning, where it is empty.
    #[default]
    System,
    /// Mozilla's roots as compiled into this program.
    Bundled,
    /// Only the extra CA files.
    OnlyExtra,
}

/// Lowest accepted TLS version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum MinVersion {
    /// TLS 1.2 (RFC 5246).
    #[default]
    Tls12,
    /// TLS 1.3 (RFC 8446).
    Tls13,
}

/// Files of a client certificate; read anew whenever a TLS configuration is built.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClientCertificate {
    /// PEM certificate chain, leaf first.
    pub certificate_file: PathBuf,
    /// PEM private key, unencrypted.
    pub key_file: PathBuf,
}

/// Application protocols offered in the handshake (RFC 7301).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Alpn {
    /// HTTP/1.1 only.
    Http1,
    /// HTTP/2 only.
    Http2,
    /// HTTP/2 where the server takes it, else HTTP/1.1.
    Both,
}

impl Alpn {
    fn protocols(self) -> Vec<Vec<u8>> {
        let names: &[&[u8]] = match self {
            Self::Http1 => &[b"http/1.1"],
            Self::Http2 => &[b"h2"],
            Self::Both => &[b"h2", b"http/1.1"],
        };
        names.iter().map(|name| name.to_vec()).collect()
    }
}

/// Builds rustls settings. Files are read here, so that a renewed certificate is seen when a
/// configuration is read again.
///
/// # Errors
/// Names the file and what is wrong with it.
pub fn client_config(
    settings: &TlsSettings,
    alpn: Alpn,
) -> Result<Arc<ClientConfig>, TlsSetupError> {
    TlsCache::default().client_config(settings, alpn)
}

/// What was built so far, for one reading of the configuration: parts with equal settings share it.
///
/// The system's roots take milliseconds and hundreds of kilobytes; a hundred upstreams need them
/// once. A cache that outlived its configuration would hide renewed files.
#[derive(Default)]
pub struct TlsCache(Mutex<Built>);

#[derive(Default)]
struct Built {
    configs: Vec<(TlsSettings, Alpn, Arc<ClientConfig>)>,
    verifiers: Vec<(Roots, Vec<PathBuf>, Arc<dyn ServerCertVerifier>)>,
}

impl TlsCache {
    /// The settings' one configuration, built where it is not there yet.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub fn client_config(
        &self,
        settings: &TlsSettings,
        alpn: Alpn,
    ) -> Result<Arc<ClientConfig>, TlsSetupError> {
        let mut built = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known =
            |(with, offering, _): &&(TlsSettings, Alpn, _)| with == settings && *offering == alpn;
        if let Some((.., config)) = built.configs.iter().find(known) {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(build(settings, alpn, built.verifier(settings)?)?);
        built.configs.push((settings.clone(), alpn, Arc::clone(&config)));
        Ok(config)
    }
}

impl Built {
    fn verifier(
        &mut self,
        settings: &TlsSettings,
    ) -> Result<Arc<dyn ServerCertVerifier>, TlsSetupError> {
        let TlsSettings { roots, extra_ca_files, .. } = settings;
        let mut known = self.verifiers.iter();
        if let Some((.., made)) = known.find(|(r, files, _)| r == roots && files == extra_ca_files)
        {
            return Ok(Arc::clone(made));
        }
        let made = verifier(settings, provider())?;
        self.verifiers.push((*roots, extra_ca_files.clone(), Arc::clone(&made)));
        Ok(made)
    }
}

/// `dangerous` only means that the verifier is chosen here: it always verifies.
fn build(
    settings: &TlsSettings,
    alpn: Alpn,
    verifier: Arc<dyn ServerCertVerifier>,
) -> Result<ClientConfig, TlsSetupError> {
    let versions: &[&SupportedProtocolVersion] = match settings.min_version {
        MinVersion::Tls12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
        MinVersion::Tls13 => &[&rustls::version::TLS13],
    };
    let setup = |error: rustls::Error| TlsSetupError { message: error.to_string() };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .map_err(setup)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match &settings.client_certificate {
        None => builder.with_no_client_auth(),
        Some(files) => {
            let chain = certificates(&files.certificate_file)?;
            let key = PrivateKeyDer::from_pem_file(&files.key_file).map_err(|error| {
                TlsSetupError::file(&files.key_file, "an unencrypted PEM private key", &error)
            })?;
            builder.with_client_auth_cert(chain, key).map_err(|error| {
                let file = files.certificate_file.display();
                TlsSetupError::new(format!("{file}: unusable as a client certificate: {error}"))
            })?
        }
    };
    config.alpn_protocols = alpn.protocols();
    // Early data can be replayed by whoever recorded it (RFC 8446 section 8).
    config.enable_early_data = false;
    Ok(config)
}

/// The one crypto provider, named explicitly: a process default may be missing or another's.
fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    Arc::clone(&PROVIDER)
}

fn verifier(
    settings: &TlsSettings,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, TlsSetupError> {
    let mut extra = Vec::new();
    for file in &settings.extra_ca_files {
        extra.extend(certificates(file)?);
    }
    match settings.roots {
        Roots::System => system(extra, provider),
        Roots::Bundled => webpki(bundled(), extra, provider),
        Roots::OnlyExtra => webpki(RootCertStore::empty(), extra, provider),
    }
}

/// The system's roots are first asked for alone: beside extra ones an empty store goes unnoticed,
/// and a public server would not be trusted.
fn system(
    extra: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, TlsSetupError> {
    match Verifier::new(Arc::clone(&provider)) {
        Ok(verifier) if extra.is_empty() => Ok(Arc::new(verifier)),
        Ok(_) => match Verifier::new_with_extra_roots(extra, provider) {
            Ok(verifier) => Ok(Arc::new(verifier)),
            Err(error) => Err(TlsSetupError::new(format!("an extra CA is unusable: {error}"))),
        },
        Err(error) => {
            tracing::warn!(%error, "no system roots of trust; using Mozilla's, as bundled");
            webpki(bundled(), extra, provider)
        }
    }
}

fn bundled() -> RootCertStore {
    RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() }
}

fn webpki(
    mut roots: RootCertStore,
    extra: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, TlsSetupError> {
    for certificate in extra {
        roots.add(certificate).map_err(|error| TlsSetupError { message: error.to_string() })?;
    }
    let built = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
    match built {
        Ok(verifier) => Ok(verifier),
        Err(error) => Err(TlsSetupError { message: format!("no usable roots of trust: {error}") }),
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsSetupError> {
    let expected = "PEM certificates";
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .map_err(|error| TlsSetupError::file(file, expected, &error));
    let found = found?;
    if found.is_empty() {
        let message = format!("{}: no certificate found, expected {expected}", file.display());
        return Err(TlsSetupError { message });
    }
    Ok(found)
}

/// Why TLS settings cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSetupError {
    message: String,
}

impl TlsSetupError {
    /// Settings that cannot be used, and why.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into() }
    }

    fn file(file: &Path, expected: &str, error: &rustls::pki_types::pem::Error) -> Self {
        Self { message: format!("{}: expected {expected}: {error:?}", file.display()) }
    }
}

impl fmt::Display for TlsSetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for TlsSetupError {}
