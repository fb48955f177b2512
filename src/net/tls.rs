//! rustls client settings: roots of trust, client certificate, minimum version.
//!
//! No setting turns verification off; settings can only add roots.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, Once, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::client::danger::ServerCertVerifier;
use rustls::client::{ResolvesClientCert, Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use rustls_platform_verifier::Verifier;
use zeroize::Zeroizing;

use crate::shortage::io_words;
use crate::x509::TlsSetupError;
use crate::x509::certificate::Certificate;
use crate::x509::encrypted;
use crate::x509::pem::{certificates, private_key};
use crate::x509::verify::{self, ChainRecorder};

pub use crate::x509::verify::Pin;

/// TLS settings of a client: verification of servers, and the client certificate.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct TlsSettings {
    /// The roots of trust to start from.
    pub roots: Roots,
    /// PEM files of further roots: a private CA, or that of a TLS-inspecting network.
    pub extra_ca_files: Vec<PathBuf>,
    /// Minimum protocol version.
    pub min_version: MinVersion,
    /// Certificate and key for mutual TLS (RFC 8705).
    pub client_certificate: Option<ClientCertificate>,
    /// Pinned keys. In addition to a trusted chain the server must have one of them; empty for any key.
    pub pins: Vec<Pin>,
}

/// The roots of trust that verification starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Roots {
    /// The operating system's store; Mozilla's bundled roots where it is empty, as in a container image
    /// without files of the system. The log says so once.
    #[default]
    System,
    /// Mozilla's roots as compiled into this program.
    Bundled,
    /// Only the extra CA files.
    OnlyExtra,
}

/// Minimum TLS version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum MinVersion {
    /// TLS 1.2 (RFC 5246).
    #[default]
    Tls12,
    /// TLS 1.3 (RFC 8446).
    Tls13,
}

/// Files of a client certificate, read whenever a TLS configuration is built, or once for all
/// connections of a credential's token request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ClientCertificate {
    /// PEM files.
    Pem {
        /// The certificate chain, leaf first.
        certificate_file: PathBuf,
        /// The private key, unencrypted.
        key_file: PathBuf,
    },
    /// A PKCS#12 container (RFC 7292).
    Pkcs12 {
        /// The container.
        file: PathBuf,
        /// The file that holds its password; `None` for the empty one.
        password_file: Option<PathBuf>,
    },
}

impl ClientCertificate {
    /// The certificate; `None` if it cannot be parsed.
    ///
    /// # Errors
    /// A file that cannot be read or has other content.
    pub fn certificate(&self) -> Result<Option<Certificate>, TlsSetupError> {
        let (chain, _) = self.parts()?;
        Ok(chain.first().and_then(|leaf| Certificate::read(leaf)))
    }

    /// The file that names it in messages.
    pub fn file(&self) -> &Path {
        match self {
            Self::Pem { certificate_file: file, .. } | Self::Pkcs12 { file, .. } => file,
        }
    }

    /// Reads the certificate and its key.
    ///
    /// # Errors
    /// A file that cannot be read or has other content, or a key that is not that of the certificate.
    pub fn load(&self) -> Result<ClientIdentity, TlsSetupError> {
        let (chain, key) = self.parts()?;
        ClientIdentity::new(chain, key).map_err(|error| self.named(error))
    }

    fn parts(
        &self,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsSetupError> {
        match self {
            Self::Pem { certificate_file, key_file } => {
                Ok((certificates(certificate_file)?, private_key(key_file)?))
            }
            Self::Pkcs12 { file, password_file } => {
                let read = |file: &Path| {
                    std::fs::read(file).map(Zeroizing::new).map_err(|error| {
                        let why = io_words(&error);
                        TlsSetupError::new(format!("{}: cannot be read: {why}", file.display()))
                    })
                };
                let password = password_file.as_deref().map(read).transpose()?.unwrap_or_default();
                // Editors and templates add newlines at the end.
                let password = std::str::from_utf8(&password).unwrap_or_default();
                let password = password.trim_end_matches(['\r', '\n']);
                encrypted::container(&read(file)?, password).map_err(|error| self.named(error))
            }
        }
    }

    fn named(&self, error: TlsSetupError) -> TlsSetupError {
        TlsSetupError::new(format!("{}: {error}", self.file().display()))
    }
}

/// A client certificate with its key, as they were read at one time. Two that were read from the same
/// chain are equal.
pub struct ClientIdentity {
    resolver: Arc<dyn ResolvesClientCert>,
    /// SHA-256 of the whole chain, base64url.
    chain_hash: Box<str>,
    thumbprint: Box<str>,
    certificate: Option<Certificate>,
}

impl ClientIdentity {
    /// Reads PEM texts. The password is that of an encrypted key.
    ///
    /// # Errors
    /// A text that is no PEM of its kind, another password, or a key that is not that of the
    /// certificate.
    pub fn from_pem(chain: &str, key: &str, password: &str) -> Result<Self, TlsSetupError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain.as_bytes()).collect();
        let chain = chain.ok().filter(|chain| !chain.is_empty()).ok_or_else(|| {
            TlsSetupError::new("its certificate is no PEM (-----BEGIN CERTIFICATE-----)")
        })?;
        let key = match encrypted::is_encrypted_key(key) {
            true => encrypted::key(key, password)?,
            false => PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| {
                TlsSetupError::new("its key is no PEM private key (-----BEGIN PRIVATE KEY-----)")
            })?,
        };
        Self::new(chain, key)
    }

    /// Opens a PKCS#12 container (RFC 7292).
    ///
    /// # Errors
    /// A damaged container, another password, or a container without a key and its certificate.
    pub fn from_pkcs12(bytes: &[u8], password: &str) -> Result<Self, TlsSetupError> {
        let (chain, key) = encrypted::container(bytes, password)?;
        Self::new(chain, key)
    }

    fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, TlsSetupError> {
        let hash = |bytes: &[u8]| Box::from(URL_SAFE_NO_PAD.encode(digest(&SHA256, bytes)));
        let thumbprint = chain.first().map(|leaf| hash(leaf)).unwrap_or_default();
        let chain_hash = hash(&chain.iter().map(AsRef::as_ref).collect::<Vec<_>>().concat());
        let certificate = chain.first().and_then(|leaf| Certificate::read(leaf));
        let key = CertifiedKey::from_der(chain, key, &provider()).map_err(|error| {
            TlsSetupError::new(format!("unusable as a client certificate: {error}"))
        })?;
        let resolver = Arc::new(SingleCertAndKey::from(key));
        Ok(Self { resolver, chain_hash, thumbprint, certificate })
    }

    /// The certificate's SHA-256 in base64url: `x5t#S256` (RFC 8705 section 3.1).
    pub fn thumbprint(&self) -> &str {
        &self.thumbprint
    }

    /// The certificate for people; `None` if it cannot be parsed.
    pub fn certificate(&self) -> Option<&Certificate> {
        self.certificate.as_ref()
    }
}

impl PartialEq for ClientIdentity {
    fn eq(&self, other: &Self) -> bool {
        self.chain_hash == other.chain_hash
    }
}

impl fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ClientIdentity").field(&self.thumbprint).finish()
    }
}

/// Application protocols offered in the handshake (RFC 7301).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Alpn {
    /// HTTP/1.1 only.
    Http1,
    /// HTTP/2 only.
    Http2,
    /// HTTP/2 if the server supports it, else HTTP/1.1.
    Both,
    /// None, for a protocol other than HTTP.
    None,
}

impl Alpn {
    fn protocols(self) -> Vec<Vec<u8>> {
        let names: &[&[u8]] = match self {
            Self::Http1 => &[b"http/1.1"],
            Self::Http2 => &[b"h2"],
            Self::Both => &[b"h2", b"http/1.1"],
            Self::None => &[],
        };
        names.iter().map(|name| name.to_vec()).collect()
    }
}

/// A rustls configuration and its verifier.
#[derive(Debug, Clone)]
pub struct ClientTls {
    /// The configuration for connections.
    pub config: Arc<ClientConfig>,
    verifier: Arc<dyn ServerCertVerifier>,
}

impl ClientTls {
    /// The same configuration with another client certificate. Sessions of the old one are not resumed:
    /// a resumed session is that of the certificate which its first handshake presented.
    pub(super) fn with_identity(&self, identity: &ClientIdentity) -> Self {
        let mut config = ClientConfig::clone(&self.config);
        config.client_auth_cert_resolver = Arc::clone(&identity.resolver);
        config.resumption = Resumption::default();
        Self { config: Arc::new(config), verifier: Arc::clone(&self.verifier) }
    }

    /// The same configuration with a recorder of the server's chain; the verifier decides as before.
    pub(super) fn with_chain_recorder(&self) -> (Arc<ClientConfig>, ChainRecorder) {
        let recorder = ChainRecorder::default();
        let mut config = ClientConfig::clone(&self.config);
        let verifier = recorder.wrap(Arc::clone(&self.verifier));
        config.dangerous().set_certificate_verifier(verifier);
        // A resumed handshake carries no certificates.
        config.resumption = Resumption::disabled();
        (Arc::new(config), recorder)
    }
}

/// TLS configurations built during one load of the configuration; equal settings share one.
///
/// The system's roots take milliseconds and hundreds of kilobytes, and a hundred upstreams need them only
/// once. A cache must not outlive one load, or it would hide renewed files.
#[derive(Default)]
pub struct TlsCache(Mutex<Built>);

#[derive(Default)]
struct Built {
    configs: Vec<(TlsSettings, Alpn, ClientTls)>,
    verifiers: Vec<(Roots, Vec<PathBuf>, Arc<dyn ServerCertVerifier>)>,
}

impl TlsCache {
    /// The shared configuration for these settings, built on first use. It reads the files, so a renewed
    /// certificate is used after the next load of the program's configuration.
    ///
    /// # Errors
    /// The file and what is wrong with it.
    pub fn client_tls(
        &self,
        settings: &TlsSettings,
        alpn: Alpn,
    ) -> Result<ClientTls, TlsSetupError> {
        let mut built = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known =
            |(with, offering, _): &&(TlsSettings, Alpn, _)| with == settings && *offering == alpn;
        if let Some((.., tls)) = built.configs.iter().find(known) {
            return Ok(tls.clone());
        }
        let verifier = verify::pinned(built.verifier(settings)?, &settings.pins);
        let config = Arc::new(build(settings, alpn, Arc::clone(&verifier))?);
        let tls = ClientTls { config, verifier };
        built.configs.push((settings.clone(), alpn, tls.clone()));
        Ok(tls)
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

fn build(
    settings: &TlsSettings,
    alpn: Alpn,
    verifier: Arc<dyn ServerCertVerifier>,
) -> Result<ClientConfig, TlsSetupError> {
    let versions: &[&SupportedProtocolVersion] = match settings.min_version {
        MinVersion::Tls12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
        MinVersion::Tls13 => &[&rustls::version::TLS13],
    };
    let setup = |error: rustls::Error| TlsSetupError::new(error.to_string());
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .map_err(setup)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match &settings.client_certificate {
        None => builder.with_no_client_auth(),
        Some(files) => builder.with_client_cert_resolver(files.load()?.resolver),
    };
    config.alpn_protocols = alpn.protocols();
    // An observer can replay early data (RFC 8446 section 8).
    config.enable_early_data = false;
    Ok(config)
}

/// The crypto provider, named explicitly: the process default may be missing or set by another crate.
pub(crate) fn provider() -> Arc<CryptoProvider> {
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

/// A verifier with the system's roots. They are tested alone first: together with extra roots an empty
/// store would go unnoticed, and no public server would be trusted.
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
            // Once in the life of the process: each token call builds its TLS anew, and in an image
            // without a store this is the normal state.
            static LOGGED: Once = Once::new();
            LOGGED.call_once(|| {
                tracing::info!(%error, "no system roots of trust; using Mozilla's, as bundled");
            });
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
        roots.add(certificate).map_err(|error| TlsSetupError::new(error.to_string()))?;
    }
    let built = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
    match built {
        Ok(verifier) => Ok(verifier),
        Err(error) => Err(TlsSetupError::new(format!("no usable roots of trust: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::net::testing::Authority;

    fn client_config(settings: &TlsSettings, alpn: Alpn) -> Result<ClientTls, TlsSetupError> {
        TlsCache::default().client_tls(settings, alpn)
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said_with_its_name() {
        let ca = Authority::new();
        let files = ca.client_certificate();
        std::fs::write(ca.file("empty.pem"), "").unwrap();
        std::fs::write(ca.file("broken.pem"), "-----BEGIN CERTIFICATE-----\n!\n").unwrap();
        let extra =
            |name: &str| TlsSettings { extra_ca_files: vec![ca.file(name)], ..ca.trusted() };
        let client = |certificate: &str, key: &str| TlsSettings {
            client_certificate: Some(ClientCertificate::Pem {
                certificate_file: ca.file(certificate),
                key_file: ca.file(key),
            }),
            ..ca.trusted()
        };
        let check = |settings: &TlsSettings, expected: Option<[&str; 2]>| {
            let found = client_config(settings, Alpn::Both).map_err(|error| error.to_string());
            match (found, expected) {
                (Ok(_), None) => {}
                (Err(message), Some(parts)) => {
                    assert!(parts.iter().all(|part| message.contains(part)), "{message}");
                }
                (found, _) => panic!("{expected:?}: {:?}", found.err()),
            }
        };
        check(&ca.trusted(), None);
        check(
            &extra("absent.pem"),
            Some(["absent.pem: cannot be read", "expected PEM certificates"]),
        );
        check(&extra("empty.pem"), Some(["empty.pem: holds none", "PEM certificates"]));
        check(&extra("broken.pem"), Some(["broken.pem: is damaged", "expected PEM certificates"]));
        check(&extra("client.key"), Some(["client.key: holds none", "PEM certificates"]));
        check(&TlsSettings { client_certificate: Some(files), ..ca.trusted() }, None);
        check(&client("absent.pem", "client.key"), Some(["absent.pem", "PEM certificates"]));
        check(&client("client.pem", "client.pem"), Some(["client.pem", "PEM private key"]));
        check(
            &client("ca.pem", "client.key"),
            Some(["ca.pem", "unusable as a client certificate"]),
        );
        let nobody = TlsSettings { roots: Roots::OnlyExtra, ..TlsSettings::default() };
        check(&nobody, Some(["no usable roots of trust", ""]));
    }

    #[test]
    fn equal_settings_share_what_was_built() {
        let ca = Authority::new();
        let cache = TlsCache::default();
        let config =
            |settings: &TlsSettings, alpn| cache.client_tls(settings, alpn).unwrap().config;
        let first = config(&ca.trusted(), Alpn::Both);
        assert!(Arc::ptr_eq(&first, &config(&ca.trusted(), Alpn::Both)));
        assert!(!Arc::ptr_eq(&first, &config(&ca.trusted(), Alpn::Http1)));
        let newer = TlsSettings { min_version: MinVersion::Tls13, ..ca.trusted() };
        assert!(!Arc::ptr_eq(&first, &config(&newer, Alpn::Both)));
        let built = cache.0.lock().unwrap();
        assert_eq!((built.configs.len(), built.verifiers.len()), (3, 1));
    }

    #[test]
    fn nothing_is_sent_before_the_handshake_ends() {
        let settings = TlsSettings { roots: Roots::Bundled, ..TlsSettings::default() };
        assert!(!client_config(&settings, Alpn::Both).unwrap().config.enable_early_data);
    }

    /// Runs itself again without a system store, since a process cannot change its own environment.
    #[test]
    fn without_a_system_store_the_bundled_roots_stay_trusted_beside_extra_ones() {
        const CHILD: &str = "BEARER_PROXY_TEST_NO_STORE";
        let name = "net::tls::tests::without_a_system_store_the_bundled_roots_stay_trusted_beside_extra_ones";
        let ca = Authority::new();
        if std::env::var_os(CHILD).is_some() {
            assert!(Verifier::new(provider()).is_err(), "there should be no system store");
            let extra = certificates(&ca.file("ca.pem")).unwrap();
            let subscriber = tracing_subscriber::fmt().with_writer(std::io::stdout).finish();
            let found = tracing::subscriber::with_default(subscriber, || {
                client_config(&TlsSettings::default(), Alpn::Both).unwrap();
                format!("{:?}", system(extra, provider()).unwrap())
            });
            let expected = format!("({} roots)", webpki_roots::TLS_SERVER_ROOTS.len() + 1);
            assert!(found.contains(&expected), "{found}");
            return;
        }
        std::fs::write(ca.file("empty"), "").unwrap();
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(CHILD, "1")
            .env("SSL_CERT_FILE", ca.file("empty"))
            .env("SSL_CERT_DIR", ca.file("none"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
        // However often TLS is set up: with each token call.
        assert_eq!(said.matches("no system roots of trust").count(), 1, "{said}");
        assert!(!said.contains("WARN"), "{said}");
    }
}
