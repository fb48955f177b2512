//! Why a secret cannot be read: names the source, never the value.

use std::fmt;
use std::io;

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
    /// There is no such variable or file.
    Missing,
    /// Nothing, or nothing but white space.
    Empty,
    /// Bytes that are no UTF-8.
    NotUtf8,
    /// More than 64 KiB.
    TooLong,
    /// A folder, pipe or device.
    NotAFile,
    /// The operating system refused.
    Unreadable(io::ErrorKind),
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

    /// A fixed word for metrics and status pages.
    pub fn label(&self) -> &'static str {
        match self.fault {
            SecretFault::Missing => "secret_missing",
            SecretFault::Empty => "secret_empty",
            SecretFault::NotUtf8 | SecretFault::TooLong | SecretFault::NotAFile => "secret_invalid",
            SecretFault::Unreadable(_) => "secret_unreadable",
        }
    }
}

impl fmt::Display for SecretError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.reference.describe())?;
        match (&self.fault, &self.reference) {
            (SecretFault::Missing, Reference::Env(_)) => {
                f.write_str("is not set; set it for this process")
            }
            (SecretFault::Missing, Reference::File(_)) => {
                f.write_str("does not exist; create it or correct the path")
            }
            (SecretFault::Empty, _) => f.write_str("is empty; put the value into it"),
            (SecretFault::NotUtf8, _) => f.write_str("holds bytes that are no UTF-8; write text"),
            (SecretFault::TooLong, _) => {
                write!(f, "holds more than {} KiB; is it the right one?", MAX_BYTES / 1024)
            }
            (SecretFault::NotAFile, _) => {
                f.write_str("is no regular file, and is read again for each token; name a file")
            }
            (SecretFault::Unreadable(io::ErrorKind::PermissionDenied), _) => {
                f.write_str("may not be read by this process; grant it read permission")
            }
            (SecretFault::Unreadable(kind), _) => write!(f, "cannot be read: {kind}"),
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
    }
}
