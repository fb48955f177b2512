//! `Origin`: a scheme and an authority that have been checked (RFC 6454 section 4).

use std::fmt;

/// Where requests may be sent: `https` anywhere, `http` on loopback only.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    https: bool,
    host: String,
    port: u16,
}

impl Origin {
    /// Reads scheme, host and port of a URI; its path and query are not looked at.
    ///
    /// # Errors
    /// Says in a sentence what is wrong with it, without repeating user information.
    pub fn of(uri: &http::Uri) -> Result<Self, OriginError> {
        let _ = uri;
        unimplemented!("skeleton")
    }

    /// Whether the connection is encrypted.
    pub fn is_https(&self) -> bool {
        self.https
    }

    /// Host in lower case, IPv6 addresses without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Port, the scheme's own where none was written.
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// Why something is no origin of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginError {
    /// What was found and what was expected.
    pub message: String,
}

impl fmt::Display for OriginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for OriginError {}
