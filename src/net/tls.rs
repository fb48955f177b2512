//! rustls client settings: roots of trust, client certificate, lowest version.
//!
//! There is no switch that turns verification off; it can only be extended by further roots.

use std::path::PathBuf;

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
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
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
