//! `Scope` and `ScopeSet`: the grammar of RFC 6749 section 3.3, checked once.

use std::collections::HashSet;
use std::fmt;
use std::hash::{Hash, Hasher};

/// One scope token: printable ASCII without space, `"` and `\`, case-sensitive.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scope(String);

/// Scopes without repetition, in the order in which they were written.
///
/// Two sets are equal when they hold the same scopes: order matters on the wire only, where some
/// servers echo it.
#[derive(Debug, Clone, Default)]
pub struct ScopeSet(Vec<Scope>);

impl Scope {
    /// Checks one scope token.
    ///
    /// # Errors
    /// The text is empty or holds a character outside the grammar.
    pub fn parse(text: &str) -> Result<Self, ScopeError> {
        if text.is_empty() {
            return Err(ScopeError::new("a scope is empty; remove it or write its name"));
        }
        match text.chars().find(|c| !allowed(*c)) {
            None => Ok(Self(text.to_owned())),
            Some(' ') => Err(ScopeError::new(format!(
                "scope {text:?} holds a space; write each scope as an item of its own"
            ))),
            Some(bad) => Err(ScopeError::new(format!(
                "scope {text:?} holds {bad:?}; a scope is printable ASCII without space, \" and \\ \
                 (RFC 6749 section 3.3)"
            ))),
        }
    }

    /// The scope as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// RFC 6749 section 3.3: `scope-token = 1*( %x21 / %x23-5B / %x5D-7E )`.
fn allowed(c: char) -> bool {
    c.is_ascii_graphic() && c != '"' && c != '\\'
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl ScopeSet {
    /// Collects scopes; one written twice counts once.
    pub fn new(scopes: impl IntoIterator<Item = Scope>) -> Self {
        let mut seen = HashSet::new();
        Self(scopes.into_iter().filter(|scope| seen.insert(scope.clone())).collect())
    }

    /// Reads a list delimited by spaces, as in the `scope` parameter.
    ///
    /// # Errors
    /// An item is not a scope.
    pub fn parse(list: &str) -> Result<Self, ScopeError> {
        let scopes: Result<Vec<_>, _> =
            list.split(' ').filter(|item| !item.is_empty()).map(Scope::parse).collect();
        scopes.map(Self::new)
    }

    /// The scopes in the order in which they were written.
    pub fn iter(&self) -> std::slice::Iter<'_, Scope> {
        self.0.iter()
    }

    /// The number of scopes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Tells whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Tells whether the set contains a scope.
    pub fn contains(&self, scope: &Scope) -> bool {
        self.0.contains(scope)
    }

    /// The value of the `scope` parameter: the scopes delimited by single spaces.
    pub fn to_wire(&self) -> String {
        self.to_string()
    }

    /// The scopes of this set, then the other set's scopes that are not in it.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        Self::new(self.iter().chain(other.iter()).cloned())
    }

    /// The scopes of this set that were not granted.
    pub fn missing_from(&self, granted: &Self) -> Vec<&Scope> {
        self.iter().filter(|scope| !granted.contains(scope)).collect()
    }
}

impl PartialEq for ScopeSet {
    fn eq(&self, other: &Self) -> bool {
        // Neither side repeats a scope, so equal length and containment is equality.
        self.len() == other.len() && self.iter().all(|scope| other.contains(scope))
    }
}

impl Eq for ScopeSet {}

impl Hash for ScopeSet {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Sorted, because equal sets must have equal hashes whatever their order is.
        let mut sorted: Vec<_> = self.iter().map(Scope::as_str).collect();
        sorted.sort_unstable();
        sorted.hash(state);
    }
}

impl fmt::Display for ScopeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scopes: Vec<&str> = self.iter().map(Scope::as_str).collect();
        f.write_str(&scopes.join(" "))
    }
}

impl FromIterator<Scope> for ScopeSet {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self::new(scopes)
    }
}

/// The reason why a text is not a scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ScopeError {
    /// The finding and the expectation.
    pub message: String,
}

impl ScopeError {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into() }
    }
}

#[cfg(test)]
mod tests {
    use std::hash::DefaultHasher;

    use proptest::prelude::*;

    use super::*;

    fn set(list: &str) -> ScopeSet {
        ScopeSet::parse(list).unwrap()
    }

    fn hash(set: &ScopeSet) -> u64 {
        let mut hasher = DefaultHasher::new();
        set.hash(&mut hasher);
        hasher.finish()
    }

    #[test]
    fn grammar() {
        for good in
            ["accounts.read", "read:users", "!", "#[]~", "https://x/y?z", "a,b", "fullAccess"]
        {
            assert_eq!(Scope::parse(good).unwrap().as_str(), good);
        }
        for (bad, part) in [
            ("", "empty"),
            ("a b", "space"),
            ("a\"b", "'\"'"),
            ("a\\b", "'\\\\'"),
            ("ä", "'ä'"),
            ("a\n", "'\\n'"),
            ("\u{7f}", "'\\u{7f}'"),
        ] {
            let message = Scope::parse(bad).unwrap_err().message;
            assert!(message.contains(part), "{bad:?}: {message}");
        }
    }

    #[test]
    fn sets() {
        assert_eq!(set("b a b").to_wire(), "b a");
        assert_eq!(set("  a  b "), set("b a"));
        assert_eq!(hash(&set("a b c")), hash(&set("c b a")));
        assert_ne!(set("a"), set("A"));
        assert_ne!(set("a b"), set("a"));
        assert_eq!(set("a b").union(&set("c a")).to_wire(), "a b c");
        assert_eq!(set("a b c").missing_from(&set("b x")), [&set("a").0[0], &set("c").0[0]]);
        assert!(set("").is_empty());
        assert_eq!(set("a b").len(), 2);
    }

    proptest! {
        #[test]
        fn order_is_no_identity(mut words in prop::collection::vec("[a-c]{1,2}", 0..8)) {
            let forward = set(&words.join(" "));
            words.reverse();
            let backward = set(&words.join(" "));
            prop_assert_eq!(&forward, &backward);
            prop_assert_eq!(hash(&forward), hash(&backward));
            prop_assert_eq!(set(&forward.to_wire()).to_wire(), forward.to_wire());
        }
    }
}
