//! TLS settings that cannot be used.

use std::fmt;

/// Why TLS settings cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSetupError {
    message: String,
}

impl TlsSetupError {
    /// Settings that cannot be used, and why.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into() }
    }
}

impl fmt::Display for TlsSetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for TlsSetupError {}
