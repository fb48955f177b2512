//! Errors of reading a secret: they name the source, never the value.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

#[cfg(feature = "vault")]
use super::vault_fault::VaultFault;
use crate::shortage::{OPEN_FILES_REMEDY, lacks_descriptor};

/// Longest secret that is read, in bytes; private keys are far below it.
pub const MAX_BYTES: usize = 64 * 1024;

/// The kind of source that a reference names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceKind {
    /// An environment variable.
    Env,
    /// A file.
    File,
    /// A credential of a systemd service.
    Systemd,
    /// A program.
    Exec,
    /// The keyring of the operating system.
    Keyring,
    /// AWS Secrets Manager.
    AwsSecretsManager,
    /// Azure Key Vault.
    AzureKeyVault,
    /// HashiCorp Vault or OpenBao.
    #[cfg(feature = "vault")]
    Vault,
}

impl SourceKind {
    /// The key that names the kind in a configuration, and its value of the `source` label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Env => "env",
            Self::File => "file",
            Self::Systemd => "systemd",
            Self::Exec => "exec",
            Self::Keyring => "keyring",
            Self::AwsSecretsManager => "aws_secrets_manager",
            Self::AzureKeyVault => "azure_key_vault",
            #[cfg(feature = "vault")]
            Self::Vault => "vault",
        }
    }
}

/// A secret that cannot be read, with the description of its source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretError {
    kind: SourceKind,
    source: String,
    fault: SecretFault,
}

/// The reason why a source gives no usable secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretFault {
    /// The variable, file, program or entry does not exist.
    Missing,
    /// The value is empty or white space.
    Empty,
    /// The value is not UTF-8.
    NotUtf8,
    /// The value is UTF-16.
    Utf16,
    /// The value holds what no id and no secret can hold (RFC 6749 appendix A).
    Forbidden(&'static str),
    /// The value is not an access token (RFC 6749 appendix A.12), or is longer than the settings allow.
    NotToken,
    /// The value is longer than 64 KiB.
    TooLong,
    /// The path names a folder, pipe or device.
    NotAFile,
    /// Every user of this machine may read or replace the file.
    Exposed {
        /// The file.
        path: PathBuf,
        /// The permission bits of the file.
        mode: u32,
    },
    /// This process has no right to read it.
    Denied,
    /// This process has no file descriptor left, which says nothing about the secret.
    NoDescriptor,
    /// The operating system refused to read it, in these words.
    Unreadable(String),
    /// systemd passed no credentials to this process.
    NoCredentials,
    /// The program ended with this exit code, or by a signal.
    Failed(Option<i32>),
    /// No value came within this time.
    TimedOut(Duration),
    /// This build lacks the source, which the cargo feature of this name adds.
    NotBuilt(&'static str),
    /// The value is not a JSON object, or the value of the key is not a string.
    NotAnObject,
    /// The value is not the JSON key file of a Google service account.
    NotServiceAccount,
    /// The JSON object lacks the key.
    NoSuchKey,
    /// The value is binary.
    Binary,
    /// No region is configured.
    NoRegion,
    /// No identity was found for the store, or the store accepted none.
    NoIdentity,
    /// The store refused with a code of its own.
    Refused {
        /// The code: letters, digits and `.` only.
        code: String,
        /// Set when the store itself is unwell or throttles, so that a retry may help.
        transient: bool,
    },
    /// The store gave no answer; the reason is in words of this program.
    Unreachable(String),
    /// A reason that only Vault has.
    #[cfg(feature = "vault")]
    Vault(VaultFault),
}

impl SecretFault {
    /// A refusal by a store. Only its code is kept, because its text may repeat the request.
    #[cfg(any(feature = "aws", feature = "azure", feature = "vault"))]
    pub(super) fn refused(code: &str, transient: bool) -> Self {
        let plain = |c: &char| c.is_ascii_alphanumeric() || *c == '.';
        let transient = transient || code.contains("Throttl") || code.contains("TooMany");
        Self::Refused { code: code.chars().filter(plain).take(64).collect(), transient }
    }
}

impl From<io::Error> for SecretFault {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Missing,
            io::ErrorKind::PermissionDenied => Self::Denied,
            _ if lacks_descriptor(&error) => Self::NoDescriptor,
            _ => Self::Unreadable(error.to_string()),
        }
    }
}

impl SecretError {
    pub(super) fn new(kind: SourceKind, source: String, fault: SecretFault) -> Self {
        Self { kind, source, fault }
    }

    /// The reason.
    pub fn fault(&self) -> &SecretFault {
        &self.fault
    }

    /// The `result` label of `bearer_proxy_secret_reads_total`.
    pub(super) fn result(&self) -> &'static str {
        match self.fault {
            SecretFault::Missing | SecretFault::NoCredentials => "missing",
            SecretFault::Empty => "empty",
            SecretFault::NotUtf8
            | SecretFault::Utf16
            | SecretFault::Forbidden(_)
            | SecretFault::NotToken
            | SecretFault::TooLong
            | SecretFault::NotAFile
            | SecretFault::NotAnObject
            | SecretFault::NotServiceAccount
            | SecretFault::NoSuchKey
            | SecretFault::Binary => "invalid",
            SecretFault::Exposed { .. } => "exposed",
            SecretFault::NoIdentity | SecretFault::Refused { transient: false, .. } => "refused",
            #[cfg(feature = "vault")]
            SecretFault::Vault(ref fault) => fault.result(),
            _ => "unreadable",
        }
    }

    /// Tells whether a later reading may succeed: the fault says nothing about the secret itself.
    pub(super) fn is_transient(&self) -> bool {
        match &self.fault {
            SecretFault::TimedOut(_)
            | SecretFault::NoDescriptor
            | SecretFault::NoIdentity
            | SecretFault::Unreachable(_)
            | SecretFault::Refused { transient: true, .. } => true,
            #[cfg(feature = "vault")]
            SecretFault::Vault(fault) => fault.is_transient(),
            _ => false,
        }
    }
}

impl fmt::Display for SecretError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.source, self.fault.explain(self.kind))
    }
}

impl SecretFault {
    /// The predicate of a sentence whose subject is the source, and the remedy.
    fn explain(&self, kind: SourceKind) -> Cow<'static, str> {
        match self {
            Self::Missing => match kind {
                SourceKind::Env => "is not set; set it for this process",
                SourceKind::Systemd => "is not there; name it in LoadCredential= of the unit",
                SourceKind::Keyring => {
                    "is not there; write it with `bearer-proxy keyring set NAME`"
                }
                SourceKind::File | SourceKind::Exec => {
                    "does not exist; create it or correct the path"
                }
                SourceKind::AwsSecretsManager | SourceKind::AzureKeyVault => {
                    "does not exist; create it, or correct name and version"
                }
                #[cfg(feature = "vault")]
                SourceKind::Vault => {
                    "does not exist; create it (`vault kv put`), or correct path, version and kv_version"
                }
            },
            Self::Empty => "is empty; put the value into it",
            Self::NotUtf8 => "holds bytes that are no UTF-8; write text",
            Self::Utf16 => "is UTF-16, which is never sent; save it as UTF-8 without a byte order mark",
            Self::NotToken => {
                "is no access token: it holds a blank or another character that is not visible ASCII, or \
                 is longer than max_token_bytes; write the token alone, without `Bearer` before it"
            }
            Self::Forbidden(what) => {
                return format!(
                    "holds {what}, which no id and no secret can (RFC 6749 appendix A), and is never \
                     sent; write it again, as one line of text"
                )
                .into();
            }
            Self::TooLong => {
                return format!("holds more than {} KiB; is it the right one?", MAX_BYTES / 1024)
                    .into();
            }
            Self::NotAFile => "is no regular file, and is read again for each token; name a file",
            Self::Exposed { path, mode } => {
                return format!(
                    "may be read or replaced by every user of this machine (mode {mode:04o}); run \
                     `chmod 600 {}`, or put it on a read-only mount or a tmpfs",
                    path.display()
                )
                .into();
            }
            Self::Denied if kind == SourceKind::Exec => {
                "may not be run by this process; grant it the right to"
            }
            Self::Denied => "may not be read by this process; grant it read permission",
            Self::NoDescriptor => {
                return format!("cannot be read: too many open files; {OPEN_FILES_REMEDY}").into();
            }
            Self::Unreadable(error) => return format!("cannot be read: {error}").into(),
            Self::NoCredentials => {
                "cannot be read: $CREDENTIALS_DIRECTORY is not set; run as a systemd service whose \
                 unit has LoadCredential="
            }
            Self::Failed(Some(code)) => {
                return format!(
                    "ended with exit code {code}; run it by hand as the same user to see why"
                )
                .into();
            }
            Self::Failed(None) => "was ended by a signal",
            Self::TimedOut(limit) => return format!("brought no value within {limit:?}").into(),
            Self::NotBuilt(feature) => {
                return format!(
                    "cannot be read by this build; the container image can, or build with \
                     --features {feature}"
                )
                .into();
            }
            Self::NotAnObject => "is no JSON object with texts, of which a key could be taken",
            Self::NotServiceAccount => {
                "is no key file of a Google service account; download it as JSON and use it as it is"
            }
            Self::NoSuchKey => "has no such key; see `key`",
            Self::Binary => "is binary; store it as text",
            Self::NoRegion => "is in no region; write `region`, or set AWS_REGION",
            Self::NoIdentity if kind == SourceKind::AzureKeyVault => {
                "cannot be asked for: no identity was found, or none was accepted; have \
                 AZURE_CLIENT_SECRET or AZURE_FEDERATED_TOKEN_FILE with AZURE_TENANT_ID and \
                 AZURE_CLIENT_ID, a managed identity, or run `az login`"
            }
            Self::NoIdentity => {
                "cannot be asked for: no credentials of AWS were found or accepted; have \
                 AWS_ACCESS_KEY_ID, a profile, a role of the pod, task or instance (from within a \
                 container an instance needs a metadata hop limit of 2)"
            }
            Self::Refused { code, .. } => {
                return format!("was refused: {code}; may this identity read it?").into();
            }
            Self::Unreachable(reason) => return format!("cannot be reached: {reason}").into(),
            #[cfg(feature = "vault")]
            Self::Vault(fault) => return fault.explain(),
        }
        .into()
    }
}

impl std::error::Error for SecretError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Reference;

    #[test]
    fn words() {
        let file = Reference::File("/run/id".into());
        for (fault, expected) in [
            (SecretFault::Missing, "file /run/id does not exist; create it or correct the path"),
            (SecretFault::TooLong, "file /run/id holds more than 64 KiB; is it the right one?"),
            (
                SecretFault::Denied,
                "file /run/id may not be read by this process; grant it read permission",
            ),
        ] {
            assert_eq!(file.error(fault).to_string(), expected);
        }
        let shortage = io::Error::from_raw_os_error(rustix::io::Errno::MFILE.raw_os_error());
        assert_eq!(
            file.error(shortage.into()).to_string(),
            "file /run/id cannot be read: too many open files; raise the limit of open files \
             (LimitNOFILE, ulimit -n)"
        );
        let other = io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error());
        let said = file.error(other.into()).to_string();
        assert!(said.contains("Input/output error"), "{said}");
        let program = Reference::Exec(["/bin/pass", "show", "canary"].map(String::from).into());
        let said = program.error(SecretFault::Failed(Some(1))).to_string();
        assert!(said.starts_with("program /bin/pass ended with exit code 1"), "{said}");
        assert!(!said.contains("canary"));
    }
}
