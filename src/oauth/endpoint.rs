//! `TokenEndpoint`: the URL tokens are asked from (RFC 6749 section 3.2).

use std::fmt;

/// A token endpoint: https, or http on loopback; no user information, no fragment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TokenEndpoint(http::Uri);

impl TokenEndpoint {
    /// Checks a URL.
    ///
    /// # Errors
    /// Says in a sentence what is wrong with it.
    pub fn parse(url: &str) -> Result<Self, EndpointError> {
        let _ = url;
        unimplemented!("skeleton")
    }

    /// The URL as it is requested.
    pub fn uri(&self) -> &http::Uri {
        &self.0
    }
}

/// Why a text is no token endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointError {
    /// What was found and what was expected.
    pub message: String,
}

impl fmt::Display for EndpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for EndpointError {}
