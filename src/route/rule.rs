//! `Rule`: the host, path and methods that a route claims.

use http::Method;

use super::host::HostPattern;
use super::path::PathPattern;

/// The requests that a route claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Host; `None` for any.
    pub host: Option<HostPattern>,
    /// Path.
    pub path: PathPattern,
    /// Methods.
    pub methods: Methods,
}

/// Methods, sorted and without repetition; HEAD follows GET (RFC 9110 section 9.3.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Methods(Vec<Method>);

impl Methods {
    /// Collects methods.
    pub fn new(methods: impl IntoIterator<Item = Method>) -> Self {
        let mut methods: Vec<Method> = methods.into_iter().collect();
        if methods.contains(&Method::GET) {
            methods.push(Method::HEAD);
        }
        methods.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        methods.dedup();
        Self(methods)
    }

    /// True if a method is among them.
    pub fn contains(&self, method: &Method) -> bool {
        self.0.contains(method)
    }

    /// The methods, sorted by name.
    pub fn iter(&self) -> std::slice::Iter<'_, Method> {
        self.0.iter()
    }

    pub(super) fn overlaps(&self, other: &Self) -> bool {
        self.0.iter().any(|method| other.contains(method))
    }
}
