//! `Reference`: the source of one secret, as a configuration names it.
//!
//! The settings of remote stores stand here too: a store may be reached through an egress proxy whose
//! own login is a reference.

use std::future::Future;
use std::hash::{Hash, Hasher};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::aws::AwsSecret;
use super::azure::AzureSecret;
use super::error::{SecretError, SecretFault, SourceKind};
use super::file::{self, FileAccess};
use super::keyring::{self, KeyringSecret};
use super::text::{self, CredentialPart};
#[cfg(feature = "vault")]
use super::vault::{VaultSecret, VaultSettings};
#[cfg(feature = "vault")]
use super::vault_session::{self, VaultAccess, VaultSession};
use super::{env, exec, name, systemd};
use crate::net::egress::{ProxyAddress, ProxyCredentials, TunnelProxy};
use crate::net::no_proxy::NoProxy;
use crate::net::tls::TlsSettings;
use crate::sensitive::Sensitive;

/// Shortest time between two readings of a program or a store that no token request asks for.
const SHORTEST_RECHECK: Duration = Duration::from_secs(60);

/// The source of one secret or client id.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Reference {
    /// An environment variable of this process.
    Env(String),
    /// A file that holds the value and nothing else; newlines at its end are not part of it.
    File(PathBuf),
    /// A credential that systemd passes to this service.
    Systemd(String),
    /// A program, by its absolute path and arguments, that prints the value and nothing else.
    Exec(Vec<String>),
    /// An entry of the operating system's keyring (feature `keyring`).
    Keyring(KeyringSecret),
    /// A secret of AWS Secrets Manager (feature `aws`).
    AwsSecretsManager {
        /// The secret.
        secret: Box<AwsSecret>,
        /// The way to AWS.
        http: Box<StoreHttpSettings>,
    },
    /// A secret of Azure Key Vault (feature `azure`).
    AzureKeyVault {
        /// The secret.
        secret: Box<AzureSecret>,
        /// The way to Azure.
        http: Box<StoreHttpSettings>,
    },
    /// A secret of HashiCorp Vault or OpenBao.
    #[cfg(feature = "vault")]
    Vault {
        /// The secret.
        secret: Box<VaultSecret>,
        /// The server.
        server: Arc<VaultServer>,
    },
}

/// The cargo feature that a source or a format needs and this build lacks.
pub fn missing_feature(kind: &str) -> Option<&'static str> {
    match kind {
        "keyring" if cfg!(not(feature = "keyring")) => Some("keyring"),
        "aws_secrets_manager" if cfg!(not(feature = "aws")) => Some("aws"),
        "pkcs12" if cfg!(not(feature = "pkcs12")) => Some("pkcs12"),
        "share" if cfg!(not(feature = "redis")) => Some("redis"),
        "kubernetes" if cfg!(not(feature = "kubernetes")) => Some("kubernetes"),
        "azure_key_vault" if cfg!(not(feature = "azure")) => Some("azure"),
        "vault" if cfg!(not(feature = "vault")) => Some("vault"),
        _ => None,
    }
}

/// Reads a secret from stdin or another reader.
///
/// # Errors
/// The value is blank, longer than [`MAX_BYTES`](super::MAX_BYTES), not UTF-8, or can be no secret.
pub fn read_from(reader: impl std::io::Read) -> Result<Sensitive, SecretFault> {
    text::read(reader).and_then(|value| text::accept(&value, CredentialPart::Secret))
}

impl Reference {
    /// Reads the secret as it is now.
    ///
    /// # Errors
    /// The source has no value, or none that can be used; the error names the source, never the value.
    pub async fn read(&self) -> Result<Sensitive, SecretError> {
        self.read_as(CredentialPart::Secret).await
    }

    /// Reads a value as it is now.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn read_as(&self, kind: CredentialPart) -> Result<Sensitive, SecretError> {
        self.examine(kind).await.map(|(value, _)| value)
    }

    /// Reads a value, and what may be a mistake in it.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn examine(
        &self,
        kind: CredentialPart,
    ) -> Result<(Sensitive, Vec<&'static str>), SecretError> {
        let raw = self.read_raw(kind).await.map_err(|fault| self.error(fault))?;
        let value = text::accept(&raw, kind).map_err(|fault| self.error(fault))?;
        Ok((value, text::likely_mistakes(&raw, kind)))
    }

    async fn read_raw(&self, kind: CredentialPart) -> Result<Sensitive, SecretFault> {
        let decode = match kind {
            CredentialPart::Pkcs12 => text::decode_pkcs12,
            _ => text::decode,
        };
        // Reading a remote store is boxed: its future is large, and deeper than the compiler allows within
        // those of the callers.
        match self {
            Self::Env(name) => env::read(name),
            Self::File(path) => file::read(path, FileAccess::of(kind), decode).await,
            Self::Systemd(name) => systemd::read(name, decode).await,
            Self::Exec(command) => exec::read(command).await,
            Self::Keyring(entry) => keyring::read(entry).await,
            #[cfg(feature = "aws")]
            Self::AwsSecretsManager { secret, http } => {
                Box::pin(super::aws_sdk::read(secret, http.client())).await
            }
            #[cfg(not(feature = "aws"))]
            Self::AwsSecretsManager { .. } => Err(SecretFault::NotBuilt("aws")),
            #[cfg(feature = "azure")]
            Self::AzureKeyVault { secret, http } => {
                Box::pin(super::azure_sdk::read(secret, http.client())).await
            }
            #[cfg(not(feature = "azure"))]
            Self::AzureKeyVault { .. } => Err(SecretFault::NotBuilt("azure")),
            #[cfg(feature = "vault")]
            Self::Vault { secret, server } => Box::pin(vault_session::read(secret, server)).await,
        }
    }

    /// The time for which a value may be cached; zero for a source on this machine.
    pub fn cache_ttl(&self) -> Duration {
        match self {
            Self::AwsSecretsManager { secret, .. } => secret.cache,
            Self::AzureKeyVault { secret, .. } => secret.cache,
            #[cfg(feature = "vault")]
            Self::Vault { secret, .. } => secret.cache,
            _ => Duration::ZERO,
        }
    }

    /// The time after which a value in permanent use is read again; `None` where it cannot change while
    /// this process lives.
    pub fn recheck(&self) -> Option<Duration> {
        match self {
            Self::Env(_) | Self::Systemd(_) => None,
            Self::File(_) => Some(Duration::ZERO),
            _ => Some(self.cache_ttl().max(SHORTEST_RECHECK)),
        }
    }

    /// The source as messages name it, such as "file /run/qbank/id". A name that may be the secret
    /// itself is left out, and so are the arguments of a program.
    pub fn describe(&self) -> String {
        match self {
            Self::Env(name) => env::describe(name),
            Self::File(path) => format!("file {}", path.display()),
            Self::Systemd(name) => systemd::describe(name),
            Self::Exec(command) => {
                format!("program {}", command.first().map_or("", String::as_str))
            }
            Self::Keyring(KeyringSecret { service, account }) => {
                format!("keyring entry {} of {service}", name::display_name(account))
            }
            Self::AwsSecretsManager { secret, .. } => {
                format!("AWS secret {}", name::display_name(&secret.id))
            }
            Self::AzureKeyVault { secret, .. } => {
                let name = name::display_name(&secret.name);
                format!("secret {name} of Azure vault {}", secret.vault.host())
            }
            #[cfg(feature = "vault")]
            Self::Vault { secret, .. } => secret.describe(),
        }
    }

    /// The permission bits of a file, as `chmod` takes them.
    pub fn mode(&self) -> Option<u32> {
        match self {
            Self::File(path) => file::mode(path),
            _ => None,
        }
    }

    /// An error of this source.
    pub fn error(&self, fault: SecretFault) -> SecretError {
        SecretError::new(self.kind(), self.describe(), fault)
    }

    /// The kind of source.
    pub fn kind(&self) -> SourceKind {
        match self {
            Self::Env(_) => SourceKind::Env,
            Self::File(_) => SourceKind::File,
            Self::Systemd(_) => SourceKind::Systemd,
            Self::Exec(_) => SourceKind::Exec,
            Self::Keyring(_) => SourceKind::Keyring,
            Self::AwsSecretsManager { .. } => SourceKind::AwsSecretsManager,
            Self::AzureKeyVault { .. } => SourceKind::AzureKeyVault,
            #[cfg(feature = "vault")]
            Self::Vault { .. } => SourceKind::Vault,
        }
    }
}

/// The connection settings for remote stores: the roots of trust, TLS versions and proxies of this
/// configuration, because the SDKs' own HTTP clients are left out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StoreHttpSettings {
    /// `[tls]`.
    pub tls: TlsSettings,
    /// The proxy of `[egress]`.
    pub proxy: Option<EgressProxy>,
    /// Hosts that are reached without the proxy, beside this machine and its cloud's metadata service.
    pub no_proxy: NoProxy,
    /// The server of `[vault]`; `None` if it is not configured, and for what is read to reach it.
    #[cfg(feature = "vault")]
    pub vault: Option<Arc<VaultServer>>,
}

/// Hashes `tls` alone: a process has a handful of distinct values, and `Eq` tells them apart.
impl Hash for StoreHttpSettings {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.tls.hash(state);
    }
}

#[cfg(any(feature = "aws", feature = "azure", feature = "vault"))]
impl StoreHttpSettings {
    fn client(&self) -> super::transport::StoreClient {
        let egress = self.proxy.as_ref().map(EgressProxy::tunnel_proxy);
        super::transport::StoreClient::new(self.tls.clone(), egress, self.no_proxy.clone())
    }
}

/// A server of HashiCorp Vault or OpenBao.
#[cfg(feature = "vault")]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct VaultServer {
    /// Its address, and the login to it.
    pub settings: VaultSettings,
    /// The secret of the login.
    pub login_secret: Reference,
    /// The way to it.
    pub http: StoreHttpSettings,
    session: VaultSession,
}

#[cfg(feature = "vault")]
impl VaultServer {
    /// A server for which no token is held yet.
    pub fn new(settings: VaultSettings, login_secret: Reference, http: StoreHttpSettings) -> Self {
        Self { settings, login_secret, http, session: VaultSession::default() }
    }
}

#[cfg(feature = "vault")]
impl VaultAccess for VaultServer {
    fn settings(&self) -> &VaultSettings {
        &self.settings
    }

    fn client(&self) -> super::transport::StoreClient {
        self.http.client()
    }

    fn login_secret(
        &self,
    ) -> Pin<Box<dyn Future<Output = Result<Sensitive, SecretError>> + Send + '_>> {
        Box::pin(self.login_secret.read())
    }

    fn session(&self) -> &VaultSession {
        &self.session
    }
}

/// An egress proxy and the login for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EgressProxy {
    /// The address it listens on.
    pub address: ProxyAddress,
    /// Basic credentials (RFC 7617), for a proxy that asks for them.
    pub login: Option<EgressLogin>,
}

/// The source of the login for an egress proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EgressLogin {
    /// References that are read for each connection.
    Referenced {
        /// The user name.
        username: Reference,
        /// The password.
        password: Reference,
    },
    /// `user:password` from a variable such as `HTTPS_PROXY`.
    Stated(Sensitive),
}

impl EgressProxy {
    /// The proxy as connectors take it.
    pub fn tunnel_proxy(&self) -> TunnelProxy {
        let login = self.login.clone().map(|login| Arc::new(login) as Arc<dyn ProxyCredentials>);
        TunnelProxy { proxy: self.address.clone(), login }
    }
}

impl ProxyCredentials for EgressLogin {
    fn read(&self) -> Pin<Box<dyn Future<Output = Result<Sensitive, String>> + Send + '_>> {
        Box::pin(async move {
            let (username, password) = match self {
                Self::Stated(login) => return Ok(login.clone()),
                Self::Referenced { username, password } => (username, password),
            };
            let username = username.read().await.map_err(|error| error.to_string())?;
            let password = password.read().await.map_err(|error| error.to_string())?;
            if username.expose().contains(':') {
                return Err("its user name holds a colon, which Basic cannot carry".into());
            }
            Ok(Sensitive::new(format!("{}:{}", username.expose(), password.expose())))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sources_are_named() {
        let reference = Reference::Env("BEARER_PROXY_UNSET_IN_TESTS".into());
        let error = reference.read().await.unwrap_err();
        assert_eq!(error.fault(), &SecretFault::Missing);
        assert_eq!(
            error.to_string(),
            "environment variable BEARER_PROXY_UNSET_IN_TESTS is not set; set it for this process"
        );
        assert_eq!(reference.kind().as_str(), "env");
        assert!(Reference::Env("PATH".into()).read().await.is_ok());
    }
}
