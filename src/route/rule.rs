//! `Rule`: host, path and methods, and which of two rules is more specific.

use std::cmp::Ordering;

use http::Method;

use super::host::HostPattern;
use super::path::{PathPattern, PatternSegment};

/// Which requests a route claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The host, where it matters.
    pub host: Option<HostPattern>,
    /// The path.
    pub path: PathPattern,
    /// The methods.
    pub methods: Methods,
}

/// Methods without repetition; HEAD follows GET (RFC 9110 section 9.3.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Methods(Vec<Method>);

impl Methods {
    /// Collects methods.
    pub fn new(methods: impl IntoIterator<Item = Method>) -> Self {
        let mut all: Vec<Method> = Vec::new();
        for method in methods {
            if method == Method::GET && !all.contains(&Method::HEAD) {
                all.push(Method::HEAD);
            }
            if !all.contains(&method) {
                all.push(method);
            }
        }
        all.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        Self(all)
    }

    /// Whether a method is among them.
    pub fn contains(&self, method: &Method) -> bool {
        self.0.contains(method)
    }

    /// The methods, sorted.
    pub fn iter(&self) -> std::slice::Iter<'_, Method> {
        self.0.iter()
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.0.iter().any(|method| other.contains(method))
    }
}

impl Rule {
    /// Whether two rules claim a common request and neither is more specific.
    pub fn conflicts(&self, other: &Self) -> bool {
        self.host == other.host
            && self.methods.overlaps(&other.methods)
            && compare(&self.path, &other.path) == Ordering::Equal
    }
}

/// The order in which a table tries patterns: a literal before `{x}` before `/**`, segment by
/// segment from the left. Patterns that differ in literals are ordered by them, which is as good as
/// any order, since no path matches both.
pub(super) fn compare(first: &PathPattern, second: &PathPattern) -> Ordering {
    let rank = |step: &PatternSegment<'_>| match step {
        PatternSegment::Literal(_) => 0,
        PatternSegment::Any => 1,
        PatternSegment::Rest => 2,
    };
    let (mut first, mut second) = (first.segments(), second.segments());
    loop {
        let order = match (first.next(), second.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => Ordering::Less,
            (Some(_), None) => Ordering::Greater,
            (Some(PatternSegment::Literal(a)), Some(PatternSegment::Literal(b))) => a.cmp(b),
            (Some(a), Some(b)) => rank(&a).cmp(&rank(&b)),
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}
