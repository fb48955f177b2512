//! The error of TLS settings and files that cannot be used.

/// TLS settings, or a file that they name, cannot be used. Its text names the file and the cause.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TlsSetupError(String);

impl TlsSetupError {
    /// An error with this text.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}
