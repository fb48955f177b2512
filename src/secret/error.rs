//! Why a secret cannot be read: names the source, never the value.

use std::fmt;
use std::io;
use std::time::Duration;

use super::{MAX_BYTES, Reference};

/// A secret that cannot be read, with the source it was asked from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretError {
    reference: Reference,
    fault: SecretFault,
}

/// What is wrong with the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretFault {
    /// There is no such variable, file, program or entry.
    Missing,
    /// Nothing, or nothing but white space.
    Empty,
    /// Bytes that are no UTF-8.
    NotUtf8,
    /// More than 64 KiB.
    TooLong,
    /// A folder, pipe or device.
    NotAFile,
    /// Everybody on this machine may read or replace the file, which has this mode.
    Exposed(u32),
    /// The operating system refused.
    Unreadable(io::ErrorKind),
    /// This process was not given any credentials by systemd.
    NoCredentials,
    /// The program ended with this exit code, or by a signal.
    Failed(Option<i32>),
    /// There was no value within this time.
    TimedOut(Duration),
    /// This build lacks the source; the cargo feature of this name brings it.
    NotBuilt(&'static str),
    /// The value is no JSON object of which one key could be taken, or the key's value is no text.
    NotAnObject,
    /// The JSON object lacks the key.
    NoSuchKey,
    /// The value is binary.
    Binary,
    /// Nothing tells which region is meant.
    NoRegion,
    /// Nothing tells who we are, or nobody believes it.
    NoIdentity,
    /// The store refused, with a code of its own.
    Refused {
        /// The code: letters, digits and `.` only.
        code: String,
        /// Whether it is the store's own trouble.
        transient: bool,
    },
    /// The store gave no answer; why, in words of this program.
    Unreachable(String),
}

impl SecretFault {
    /// A store's refusal; of its words only the code is passed on.
    #[cfg(any(feature = "aws", feature = "azure"))]
    pub(super) fn refused(code: &str, transient: bool) -> Self {
        let plain = |c: &char| c.is_ascii_alphanumeric() || *c == '.';
        let transient = transient || code.contains("Throttl") || code.contains("TooMany");
        Self::Refused { code: code.chars().filter(plain).take(64).collect(), transient }
    }
}

impl SecretError {
    pub(super) fn new(reference: &Reference, fault: SecretFault) -> Self {
        Self { reference: reference.clone(), fault }
    }

    /// The source that was asked.
    pub fn reference(&self) -> &Reference {
        &self.reference
    }

    /// What is wrong with it.
    pub fn fault(&self) -> &SecretFault {
        &self.fault
    }

    /// The `result` label of `bearer_proxy_secret_reads_total`.
    pub(super) fn result(&self) -> &'static str {
        self.label().trim_start_matches("secret_")
    }

    /// Whether it may be over when the source is asked again: nothing was learnt about the secret.
    pub(super) fn is_transient(&self) -> bool {
        matches!(
            self.fault,
            SecretFault::TimedOut(_)
                | SecretFault::NoIdentity
                | SecretFault::Unreachable(_)
                | SecretFault::Refused { transient: true, .. }
        )
    }

    /// A fixed word for metrics and status pages.
    pub fn label(&self) -> &'static str {
        match self.fault {
            SecretFault::Missing => "secret_missing",
            SecretFault::Empty => "secret_empty",
            SecretFault::NotUtf8
            | SecretFault::TooLong
            | SecretFault::NotAFile
            | SecretFault::NotAnObject
            | SecretFault::NoSuchKey
            | SecretFault::Binary => "secret_invalid",
            SecretFault::Exposed(_) => "secret_exposed",
            SecretFault::NoCredentials => "secret_missing",
            SecretFault::NoIdentity | SecretFault::Refused { transient: false, .. } => {
                "secret_refused"
            }
            _ => "secret_unreadable",
        }
    }
}

impl fmt::Display for SecretError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = self.reference.describe();
        match (&self.fault, &self.reference) {
            (SecretFault::Missing, Reference::Env(_)) => {
                write!(f, "{source} is not set; set it for this process")
            }
            (SecretFault::Missing, Reference::Systemd(_)) => {
                write!(f, "{source} is not there; name it in LoadCredential= of the unit")
            }
            (SecretFault::Missing, Reference::Keyring(_)) => {
                write!(f, "{source} is not there; write it with `bearer-proxy keyring set NAME`")
            }
            (SecretFault::Missing, Reference::File(_) | Reference::Exec(_)) => {
                write!(f, "{source} does not exist; create it or correct the path")
            }
            (SecretFault::Missing, _) => {
                write!(f, "{source} does not exist; create it, or correct name and version")
            }
            (SecretFault::Empty, _) => write!(f, "{source} is empty; put the value into it"),
            (SecretFault::NotUtf8, _) => {
                write!(f, "{source} holds bytes that are no UTF-8; write text")
            }
            (SecretFault::TooLong, _) => {
                write!(f, "{source} holds more than {} KiB; is it the right one?", MAX_BYTES / 1024)
            }
            (SecretFault::NotAFile, _) => {
                write!(
                    f,
                    "{source} is no regular file, and is read again for each token; name a file"
                )
            }
            (SecretFault::Exposed(mode), Reference::File(path)) => write!(
                f,
                "{source} may be read or replaced by every user of this machine (mode {mode:04o}); \
                 run `chmod 600 {}`, or mount it read-only",
                path.display()
            ),
            (SecretFault::Exposed(mode), _) => write!(f, "{source} is open to all ({mode:04o})"),
            (SecretFault::Unreadable(io::ErrorKind::PermissionDenied), Reference::Exec(_)) => {
                write!(f, "{source} may not be run by this process; grant it the right to")
            }
            (SecretFault::Unreadable(io::ErrorKind::PermissionDenied), _) => {
                write!(f, "{source} may not be read by this process; grant it read permission")
            }
            (SecretFault::Unreadable(kind), _) => write!(f, "{source} cannot be read: {kind}"),
            (SecretFault::NoCredentials, _) => write!(
                f,
                "{source} cannot be read: $CREDENTIALS_DIRECTORY is not set; run as a systemd \
                 service whose unit has LoadCredential="
            ),
            (SecretFault::Failed(Some(code)), _) => write!(
                f,
                "{source} ended with exit code {code}; run it by hand as the same user to see why"
            ),
            (SecretFault::Failed(None), _) => write!(f, "{source} was ended by a signal"),
            (SecretFault::TimedOut(limit), _) => {
                write!(f, "{source} brought no value within {limit:?}")
            }
            (SecretFault::NotBuilt(feature), _) => write!(
                f,
                "{source} cannot be read by this build; the container image can, or \
                 build with --features {feature}"
            ),
            (SecretFault::NotAnObject, _) => {
                write!(f, "{source} is no JSON object with texts, of which a key could be taken")
            }
            (SecretFault::NoSuchKey, _) => write!(f, "{source} has no such key; see `key`"),
            (SecretFault::Binary, _) => write!(f, "{source} is binary; store it as text"),
            (SecretFault::NoRegion, _) => {
                write!(f, "{source} is in no region; write `region`, or set AWS_REGION")
            }
            (SecretFault::NoIdentity, Reference::AzureKeyVault(_)) => write!(
                f,
                "{source} cannot be asked for: no identity was found, or none was accepted; have \
                 AZURE_CLIENT_SECRET or AZURE_FEDERATED_TOKEN_FILE with AZURE_TENANT_ID and \
                 AZURE_CLIENT_ID, a managed identity, or run `az login`"
            ),
            (SecretFault::NoIdentity, _) => write!(
                f,
                "{source} cannot be asked for: no credentials of AWS were found or accepted; have \
                 AWS_ACCESS_KEY_ID, a profile, a role of the pod, task or instance (from within a \
                 container an instance needs a metadata hop limit of 2)"
            ),
            (SecretFault::Refused { code, .. }, _) => {
                write!(f, "{source} was refused: {code}; may this identity read it?")
            }
            (SecretFault::Unreachable(why), _) => write!(f, "{source} cannot be reached: {why}"),
        }
    }
}

impl std::error::Error for SecretError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        let file = Reference::File("/run/id".into());
        for (fault, expected) in [
            (SecretFault::Missing, "file /run/id does not exist; create it or correct the path"),
            (SecretFault::TooLong, "file /run/id holds more than 64 KiB; is it the right one?"),
            (
                SecretFault::Unreadable(io::ErrorKind::PermissionDenied),
                "file /run/id may not be read by this process; grant it read permission",
            ),
        ] {
            assert_eq!(SecretError::new(&file, fault).to_string(), expected);
        }
        let program = Reference::Exec(["/bin/pass", "show", "canary"].map(String::from).into());
        let said = SecretError::new(&program, SecretFault::Failed(Some(1))).to_string();
        assert!(said.starts_with("program /bin/pass ended with exit code 1"), "{said}");
        assert!(!said.contains("canary"));
    }
}
