//! `PathPattern`: exact, `{x}` for one segment, `/**` for that path and all below it; and the one
//! canonical reading of a request target.

use super::host::PatternError;

/// A path pattern that has been checked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PathPattern(String);

impl PathPattern {
    /// Checks a pattern.
    ///
    /// # Errors
    /// Says in a sentence what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let _ = text;
        unimplemented!("skeleton")
    }

    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
