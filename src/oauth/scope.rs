//! `Scope` and `ScopeSet`: the grammar of RFC 6749 section 3.3, checked once.

use std::fmt;

/// One scope token: printable ASCII without space, `"` and `\`, case-sensitive.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scope(String);

/// Scopes without repetition, in the order in which they were written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct ScopeSet(Vec<Scope>);

impl Scope {
    /// Checks one scope token.
    ///
    /// # Errors
    /// Where the text is empty or holds a character that the grammar does not allow.
    pub fn parse(text: &str) -> Result<Self, ScopeError> {
        let _ = text;
        unimplemented!("skeleton")
    }
}

impl ScopeSet {
    /// Collects scopes; one written twice counts once.
    pub fn new(scopes: impl IntoIterator<Item = Scope>) -> Self {
        let _ = scopes;
        unimplemented!("skeleton")
    }

    /// Whether no scope is asked for.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Why a text is no scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScopeError {
    /// What was found and what was expected.
    pub message: String,
}

impl fmt::Display for ScopeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ScopeError {}
