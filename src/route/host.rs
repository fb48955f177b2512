//! `HostPattern`: an exact host name, or one wildcard label in front (`*.example.com`).

use std::fmt;

/// A host pattern; case and port are settled when it is parsed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostPattern(String);

impl HostPattern {
    /// Checks a pattern.
    ///
    /// # Errors
    /// Says in a sentence what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let _ = text;
        unimplemented!("skeleton")
    }

    /// The pattern as written, in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatternError {
    /// What was found and what was expected.
    pub message: String,
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for PatternError {}
