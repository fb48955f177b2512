//! Where client secrets come from.
//!
//! A configuration names secrets by [`Reference`], never by value. A reference is read anew at each
//! token fetch, so that a rotated secret needs no restart. One variant per source.

mod aws;
mod azure;
mod egress;
mod env;
mod error;
mod exec;
mod file;
mod http_settings;
#[cfg(any(feature = "aws", test))]
mod json;
mod keyring;
mod name;
mod store;
mod systemd;

use std::path::PathBuf;
use std::time::Duration;

pub use aws::AwsSecret;
pub use azure::{AzureIdentity, AzureSecret, Vault, is_vault_name};
pub use egress::{EgressLogin, EgressProxy};
pub use error::{SecretError, SecretFault};
pub use http_settings::StoreHttpSettings;
pub use keyring::{KeyringSecret, SERVICE};
pub use store::{Freshness, Store};
pub use systemd::is_credential_name;

use crate::sensitive::Sensitive;
use file::FileAccess;

/// Longest secret that is read; private keys are far below it.
pub const MAX_BYTES: usize = 64 * 1024;

/// Programs and stores are not asked more often than this for what no token call needs.
const SHORTEST_RECHECK: Duration = Duration::from_secs(60);

/// Where one secret (or client id) is to be read from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Reference {
    /// An environment variable of this process.
    Env(String),
    /// A file holding the value and nothing else; one trailing newline is not part of it.
    File(PathBuf),
    /// A credential that systemd has handed to this service.
    Systemd(String),
    /// A program, by its absolute path and arguments, that prints the value and nothing else.
    Exec(Vec<String>),
    /// An entry of the operating system's keyring (feature `keyring`).
    Keyring(KeyringSecret),
    /// A secret of AWS Secrets Manager (feature `aws`).
    AwsSecretsManager(Box<AwsSecret>),
    /// A secret of Azure Key Vault (feature `azure`).
    AzureKeyVault(Box<AzureSecret>),
}

/// The cargo feature that a source needs and this build lacks.
pub fn missing_feature(kind: &str) -> Option<&'static str> {
    match kind {
        "keyring" if cfg!(not(feature = "keyring")) => Some("keyring"),
        "aws_secrets_manager" if cfg!(not(feature = "aws")) => Some("aws"),
        "azure_key_vault" if cfg!(not(feature = "azure")) => Some("azure"),
        _ => None,
    }
}

impl Reference {
    /// Reads the secret as it is now. One trailing newline is not part of it.
    ///
    /// # Errors
    /// Where there is none, or none that can be used; the error names the source, never the value.
    pub async fn read(&self) -> Result<Sensitive, SecretError> {
        self.read_for(FileAccess::Restricted).await
    }

    /// Reads a client id, which is no secret (RFC 6749 section 2.2): others may read its file.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn read_id(&self) -> Result<Sensitive, SecretError> {
        self.read_for(FileAccess::Any).await
    }

    async fn read_for(&self, readers: FileAccess) -> Result<Sensitive, SecretError> {
        let found = match self {
            Self::Env(name) => env::read(name),
            Self::File(path) => file::read(path, readers).await,
            Self::Systemd(name) => systemd::read(name).await,
            Self::Exec(command) => exec::read(command).await,
            Self::Keyring(entry) => keyring::read(entry).await,
            Self::AwsSecretsManager(secret) => aws::read(secret).await,
            Self::AzureKeyVault(secret) => azure::read(secret).await,
        };
        found.and_then(clean).map_err(|fault| SecretError::new(self, fault))
    }

    /// How long a value may be kept: not at all where its source is on this machine.
    pub fn cache_ttl(&self) -> Duration {
        match self {
            Self::AwsSecretsManager(secret) => secret.cache,
            Self::AzureKeyVault(secret) => secret.cache,
            _ => Duration::ZERO,
        }
    }

    /// How long a value that is in use all the time may go unread; `None` where it cannot change
    /// while this process lives.
    pub fn recheck(&self) -> Option<Duration> {
        match self {
            Self::Env(_) | Self::Systemd(_) => None,
            Self::File(_) => Some(Duration::ZERO),
            _ => Some(self.cache_ttl().max(SHORTEST_RECHECK)),
        }
    }

    /// The source as messages name it: "environment variable QBANK_ID", "file /run/qbank/id". What
    /// may be a secret in place of a name is left out, and so are a program's arguments.
    pub fn describe(&self) -> String {
        match self {
            Self::Env(name) => env::describe(name),
            Self::File(path) => format!("file {}", path.display()),
            Self::Systemd(name) => systemd::describe(name),
            Self::Exec(command) => {
                format!("program {}", command.first().map_or("", String::as_str))
            }
            Self::Keyring(entry) => {
                format!("keyring entry {} of {}", name::display_name(&entry.account), entry.service)
            }
            Self::AwsSecretsManager(secret) => {
                format!("AWS secret {}", name::display_name(&secret.id))
            }
            Self::AzureKeyVault(secret) => {
                let name = name::display_name(&secret.name);
                format!("secret {name} of Azure vault {}", secret.vault.host())
            }
        }
    }

    /// The permission bits of a file, as `chmod` takes them.
    pub fn mode(&self) -> Option<u32> {
        match self {
            Self::File(path) => file::mode(path),
            _ => None,
        }
    }

    /// A fault of this source.
    pub fn error(&self, fault: SecretFault) -> SecretError {
        SecretError::new(self, fault)
    }

    /// The kind of source, as a configuration writes it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Env(_) => "env",
            Self::File(_) => "file",
            Self::Systemd(_) => "systemd",
            Self::Exec(_) => "exec",
            Self::Keyring(_) => "keyring",
            Self::AwsSecretsManager(_) => "aws_secrets_manager",
            Self::AzureKeyVault(_) => "azure_key_vault",
        }
    }
}

/// Reads a secret that somebody hands over, such as on stdin.
///
/// # Errors
/// Where it is blank, too long, or no text.
pub fn read_from(from: impl std::io::Read) -> Result<Sensitive, SecretFault> {
    file::text(from).and_then(clean)
}

/// Takes one trailing newline off, which editors and `echo` leave, and refuses what is blank or too
/// long.
fn clean(found: Sensitive) -> Result<Sensitive, SecretFault> {
    let text = found.expose();
    let bare = text.strip_suffix('\n').map_or(text, |rest| rest.strip_suffix('\r').unwrap_or(rest));
    if bare.trim().is_empty() {
        return Err(SecretFault::Empty);
    }
    if bare.len() > MAX_BYTES {
        return Err(SecretFault::TooLong);
    }
    Ok(Sensitive::new(bare))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_newline_goes() {
        for (found, expected) in [
            ("s", Ok("s")),
            ("s\n", Ok("s")),
            ("s\r\n", Ok("s")),
            ("s\n\n", Ok("s\n")),
            ("s\r", Ok("s\r")),
            (" s ", Ok(" s ")),
            ("a\nb\n", Ok("a\nb")),
            ("", Err(SecretFault::Empty)),
            ("\n", Err(SecretFault::Empty)),
            (" \t\r\n", Err(SecretFault::Empty)),
        ] {
            let cleaned = clean(Sensitive::new(found));
            assert_eq!(cleaned, expected.map(Sensitive::new), "{found:?}");
        }
        assert_eq!(clean(Sensitive::new("x".repeat(MAX_BYTES + 1))), Err(SecretFault::TooLong));
        assert!(clean(Sensitive::new("x".repeat(MAX_BYTES))).is_ok());
    }

    #[tokio::test]
    async fn sources_are_named() {
        let reference = Reference::Env("BEARER_PROXY_UNSET_IN_TESTS".into());
        let error = reference.read().await.unwrap_err();
        assert_eq!(error.fault(), &SecretFault::Missing);
        assert_eq!(
            error.to_string(),
            "environment variable BEARER_PROXY_UNSET_IN_TESTS is not set; set it for this process"
        );
        assert_eq!(reference.kind(), "env");
        assert!(Reference::Env("PATH".into()).read().await.is_ok());
    }
}
